use std::sync::Arc;

use protocol::manifest::Manifest;

use super::*;

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(name: &str, content: &str, mtime: i64) -> Entry {
    let digest = Digest::of(content.as_bytes());
    let kind = EntryKind::File { size: content.len() as u64, digest, link_group: None };
    Entry { path: path(name), mode: 0o644, mtime, kind }
}

fn dir(name: &str) -> Entry {
    Entry { path: path(name), mode: 0o755, mtime: 1, kind: EntryKind::Dir }
}

fn manifest(entries: Vec<Entry>) -> Arc<Manifest> {
    Arc::new(Manifest::new(entries).unwrap())
}

fn plan(have: &Arc<Manifest>, want: &Arc<Manifest>) -> Plan {
    compare(have, View::AS_IS, want, View::AS_IS).unwrap()
}

fn changed(plan: &Plan) -> Vec<String> {
    plan.changes().iter().map(|change| change.path.to_string()).collect()
}

#[test]
fn equal_generations_need_nothing() {
    let tree = manifest(vec![dir("d"), file("d/a", "x", 1)]);
    assert!(plan(&tree, &tree).is_empty());
}

#[test]
fn only_what_differs_is_named_and_only_what_is_missing_is_needed() {
    let have =
        manifest(vec![dir("d"), file("d/a", "a", 1), file("d/b", "b", 1), file("e", "e", 1)]);
    let want = manifest(vec![
        dir("d"),
        file("d/a", "a", 2),
        file("d/b", "b", 1),
        file("d/c", "c", 1),
        file("moved", "e", 1),
    ]);
    let plan = plan(&have, &want);
    assert_eq!(changed(&plan), ["d/a", "d/c", "e", "moved"]);
    let sources: Vec<_> = plan.changes().iter().map(|change| change.source.clone()).collect();
    assert_eq!(
        sources,
        [Some(Source::Copy(path("d/a"))), Some(Source::Fetch), None, Some(Source::Live(path("e")))]
    );
    assert_eq!(plan.needs().iter().map(|n| n.path.to_string()).collect::<Vec<_>>(), ["d/c"]);
    assert_eq!((plan.fetch_bytes(), plan.staged_bytes()), (1, 2));
    assert_eq!(plan.removals().map(TreePath::to_string).collect::<Vec<_>>(), ["e"]);
}

#[test]
fn one_content_with_several_attributes_is_fetched_once() {
    let want = manifest(vec![file("a", "x", 1), file("b", "x", 2), file("c", "x", 1)]);
    let plan = plan(&manifest(vec![]), &want);
    assert_eq!(plan.needs().len(), 1);
    assert_eq!(plan.needs()[0].keys.len(), 2);
}

#[test]
fn a_narrower_filter_removes_exactly_what_it_hides() {
    let tree = manifest(vec![dir("d"), file("d/a", "a", 1), file("e", "e", 1)]);
    let keep = |path: &TreePath, _: bool| path.as_bytes() != b"d";
    let narrow = View { keep: &keep, ..View::AS_IS };
    assert_eq!(changed(&compare(&tree, View::AS_IS, &tree, narrow).unwrap()), ["d", "d/a"]);
    assert_eq!(changed(&compare(&tree, narrow, &tree, View::AS_IS).unwrap()), ["d", "d/a"]);
    assert!(compare(&tree, narrow, &tree, narrow).unwrap().is_empty());
}

#[test]
fn a_file_that_becomes_a_directory_is_told_from_one_that_changes() {
    let have = manifest(vec![file("a", "a", 1), file("b", "b", 1)]);
    let want = manifest(vec![dir("a"), file("a/x", "x", 1), file("b", "B", 1)]);
    let plan = plan(&have, &want);
    let kinds: Vec<_> = plan.changes().iter().map(|change| change.other_kind).collect();
    assert_eq!(
        (changed(&plan), kinds),
        (vec!["a".into(), "a/x".into(), "b".into()], vec![true, false, false])
    );
}

#[test]
fn protected_directories_are_exceptions_and_nothing_is_fetched_for_them() {
    let want = manifest(vec![dir("d"), file("d/a", "a", 1), file("e", "e", 1)]);
    let reserve = Reserve { protected: vec![path("d")], ..Reserve::default() };
    let plan =
        compare_with(&Manifest::empty(), View::AS_IS, want.clone(), View::AS_IS, &reserve).unwrap();
    assert_eq!(changed(&plan), ["e"]);
    assert_eq!(plan.exceptions(), [path("d"), path("d/a")]);
    assert_eq!(plan.needs().len(), 1);
}

#[test]
fn a_manifest_cannot_reach_our_own_work_directory() {
    let want = manifest(vec![dir(".mirrornet"), file(".mirrornet/marks", "evil", 1)]);
    let plan = plan(&manifest(vec![]), &want);
    assert!(plan.is_empty() && plan.needs().is_empty());
    assert_eq!(plan.exceptions().len(), 2);
}

#[test]
fn a_path_that_cannot_be_trusted_is_planned_again_and_is_no_source() {
    let have = manifest(vec![file("a", "same", 1)]);
    let want = manifest(vec![file("a", "same", 1), file("b", "same", 1)]);
    let reserve = Reserve { unsure: [path("a"), path("stray")].into(), ..Reserve::default() };
    let plan = compare_with(&have, View::AS_IS, want.clone(), View::AS_IS, &reserve).unwrap();
    assert_eq!(changed(&plan), ["a", "b", "stray"]);
    assert_eq!(plan.needs().len(), 1);
}

#[test]
fn a_path_that_already_holds_what_is_wanted_is_not_planned_again() {
    let have = manifest(vec![file("a", "old", 1), file("b", "old", 1)]);
    let want = manifest(vec![file("a", "new", 1), file("b", "newer", 1)]);
    let reserve = Reserve {
        unsure: [path("a"), path("b")].into(),
        settled: [path("a")].into(),
        ..Reserve::default()
    };
    let plan = compare_with(&have, View::AS_IS, want.clone(), View::AS_IS, &reserve).unwrap();
    assert_eq!(changed(&plan), ["b"]);
}

#[test]
fn modes_follow_the_assignment() {
    let mut private = file("a", "a", 1);
    private.mode = 0o600;
    let tree = manifest(vec![private]);
    let readable = View { modes: Modes::READABLE, ..View::AS_IS };
    let plan = compare(&tree, View::AS_IS, &tree, readable).unwrap();
    assert_eq!(plan.item(&path("a")).unwrap().unwrap().mode, 0o644);
    assert_eq!(plan.copies().len(), 1);
    assert!(compare(&tree, readable, &tree, readable).unwrap().is_empty());
}
