//! What an accepted set of files changes, and what it may remove.

use super::*;

#[test]
fn the_difference_names_each_field_before_and_after() {
    let text = "[[site]]\nname = \"lisbon\"\nprefix = \"pub\"\n\n[[site]]\nname = \"porto\"\n";
    let planned = apply(&base(), text).unwrap();
    let seen: Vec<_> = planned
        .changes
        .iter()
        .map(|change| (change.kind, change.name.as_str(), change.action, change.fields.len()))
        .collect();
    assert_eq!(
        seen,
        [(Kind::Site, "lisbon", Action::Change, 1), (Kind::Site, "porto", Action::Add, 0)]
    );
    let field = &planned.changes[0].fields[0];
    assert_eq!((field.field.as_str(), &field.from), ("prefix", &None));
    assert_eq!(field.to, Some("pub".into()));
    assert_eq!(apply(&planned.next, text).unwrap().changes, []);
}

#[test]
fn only_prune_removes_and_it_lists_what_goes() {
    let without_assignment =
        BASE.replace("[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\n", "");
    assert_eq!(apply(&base(), &without_assignment).unwrap().changes, []);
    let mut asked = request(&[("a.toml", &without_assignment)]);
    asked.prune = true;
    let planned = plan_apply(&base(), &asked, &context(&[])).unwrap();
    let [change] = &planned.changes[..] else { panic!("{:?}", planned.changes) };
    assert_eq!((change.kind, change.action), (Kind::Assignment, Action::Remove));
    assert!(planned.warnings[0].contains("files stay published"), "{:?}", planned.warnings);
    assert!(planned.next.assignments.is_empty());
}

#[test]
fn what_is_still_named_is_not_deleted() {
    let delete = |kind, name: &str| plan_delete(&base(), kind, name, &context(&[]));
    let found = findings(delete(Kind::Tree, "fedora"));
    assert!(found[0].contains("grant fedora@lisbon, assignment fedora@lisbon"), "{found:?}");
    let found = findings(delete(Kind::Upstream, "biuld"));
    assert!(found[0].contains("there is no upstream biuld (did you mean `build`?)"), "{found:?}");
    let planned = delete(Kind::Grant, "fedora@lisbon").unwrap();
    assert!(planned.warnings[0].contains("assignment fedora@lisbon stops"), "{planned:?}");
    let planned = delete(Kind::Assignment, "fedora@lisbon").unwrap();
    assert_eq!(planned.changes.len(), 1);
    assert!(planned.next.assignments.is_empty());
}

#[test]
fn enabling_changes_that_one_field() {
    let name = "fedora@lisbon".parse().unwrap();
    let off = plan_enabled(&base(), &name, Enabling::Disable).unwrap();
    assert_eq!(off.changes[0].fields[0].field, "enabled");
    assert_eq!(plan_enabled(&off.next, &name, Enabling::Disable).unwrap().changes, []);
    assert_eq!(plan_enabled(&off.next, &name, Enabling::Enable).unwrap().next, base());
    let dry = plan_enabled(&off.next, &name, Enabling::DryRunOnly).unwrap();
    let spec = &dry.next.assignments[&name];
    assert!(spec.enabled && spec.dry_run_only);
    assert_eq!(plan_enabled(&dry.next, &name, Enabling::Enable).unwrap().next, base());
    assert_eq!(plan_enabled(&base(), &"x@y".parse().unwrap(), Enabling::Enable), None);
}

#[test]
fn every_definition_survives_its_stored_form() {
    let base = base();
    let mut copy = Definitions::default();
    for kind in Kind::ALL {
        for name in base.names(kind) {
            let spec = base.get(kind, &name).unwrap();
            assert_eq!((spec.kind(), spec.name()), (kind, name));
            copy.insert(Spec::from_value(kind, spec.to_value()).unwrap());
        }
    }
    assert_eq!(copy, base);
}
