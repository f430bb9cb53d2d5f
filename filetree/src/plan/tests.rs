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
    plan.all_changes().iter().map(|change| change.path.to_string()).collect()
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
    let sources: Vec<_> = plan.all_changes().iter().map(|change| change.source.clone()).collect();
    assert_eq!(
        sources,
        [Some(Source::Copy(path("d/a"))), Some(Source::Fetch), None, Some(Source::Live(path("e")))]
    );
    assert_eq!(plan.all_needs().iter().map(|n| n.path.to_string()).collect::<Vec<_>>(), ["d/c"]);
    assert_eq!((plan.fetch_bytes(), plan.staged_bytes()), (1, 2));
    assert_eq!(plan.removals().map(|path| path.to_string()).collect::<Vec<_>>(), ["e"]);
}

#[test]
fn one_content_with_several_attributes_is_fetched_once() {
    let want = manifest(vec![file("a", "x", 1), file("b", "x", 2), file("c", "x", 1)]);
    let plan = plan(&manifest(vec![]), &want);
    assert_eq!(plan.all_needs().len(), 1);
    assert_eq!(plan.all_needs()[0].keys.len(), 2);
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
    let kinds: Vec<_> = plan.all_changes().iter().map(|change| change.other_kind).collect();
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
    assert_eq!(plan.all_needs().len(), 1);
}

#[test]
fn a_manifest_cannot_reach_our_own_work_directory() {
    let want = manifest(vec![dir(".mirrornet"), file(".mirrornet/marks", "evil", 1)]);
    let plan = plan(&manifest(vec![]), &want);
    assert!(plan.is_empty() && plan.all_needs().is_empty());
    assert_eq!(plan.exceptions().len(), 2);
}

#[test]
fn a_path_that_cannot_be_trusted_is_planned_again_and_is_no_source() {
    let have = manifest(vec![file("a", "same", 1)]);
    let want = manifest(vec![file("a", "same", 1), file("b", "same", 1)]);
    let reserve = Reserve { unsure: [path("a"), path("stray")].into(), ..Reserve::default() };
    let plan = compare_with(&have, View::AS_IS, want.clone(), View::AS_IS, &reserve).unwrap();
    assert_eq!(changed(&plan), ["a", "b", "stray"]);
    assert_eq!(plan.all_needs().len(), 1);
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
    assert_eq!(plan.all_copies().len(), 1);
    assert!(compare(&tree, readable, &tree, readable).unwrap().is_empty());
}

#[test]
fn contents_that_are_looked_at_in_parts_come_from_where_they_come_from_together() {
    let content = |n: u32| format!("content {} {}", n * 7 % 42, n >= 150);
    let name = |n: u32, side: &str| match n % 3 {
        0 => format!("{side}-{n:03}"),
        _ => format!("same-{n:03}"),
    };
    let of = |side: &str, first: u32, time: u32| {
        let mut entries: Vec<Entry> = (first..first + 150)
            .map(|n| file(&name(n, side), &content(n), i64::from(n % time)))
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        manifest(entries)
    };
    let (have, want) = (of("old", 0, 2), of("new", 60, 5));
    let plan = |at_a_time| {
        let (want, reserve) = (want.clone(), Reserve::default());
        let plan =
            compare::compare_in_parts(&have, View::AS_IS, want, View::AS_IS, &reserve, at_a_time);
        let plan = plan.unwrap();
        let sums =
            (plan.fetch_bytes(), plan.staged_bytes(), plan.staged_files(), plan.need_count());
        (plan.all_changes(), plan.all_needs(), plan.all_copies(), sums)
    };
    let whole = plan(sources::CONTENTS);
    let of_each = |is_meant: fn(&Source) -> bool| {
        whole.0.iter().filter_map(|change| change.source.as_ref()).filter(|s| is_meant(s)).count()
    };
    assert!(of_each(|source| matches!(source, Source::Live(_))) > 5);
    assert!(of_each(|source| matches!(source, Source::Copy(_))) > 5);
    assert!(whole.1.len() > 5 && whole.2.iter().any(|(need, _)| need.keys.len() > 1));
    for at_a_time in [1, 7, 40] {
        assert_eq!(plan(at_a_time), whole, "{at_a_time} at a time");
    }
}

#[test]
fn a_plan_that_changes_much_answers_as_one_that_changes_little_does() {
    let tree = |time: i64, files: u32| {
        let mut entries = Vec::new();
        for dir_number in 0..4 {
            let name = format!("d{dir_number}");
            entries.push(dir(&name));
            let files = (0..files).map(|n| file(&format!("{name}/f{n:05}"), &n.to_string(), time));
            entries.extend(files);
        }
        manifest(entries)
    };
    let (have, want) = (tree(1, 5_001), tree(2, 5_000));
    let plan = plan(&have, &want);
    assert!(plan.near.is_none());
    assert_eq!((plan.change_count(), plan.removal_count(), plan.need_count()), (20_004, 4, 0));
    let paths: Vec<_> = plan.all_changes().into_iter().map(|change| change.path).collect();
    assert!(paths.is_sorted() && paths.len() == 20_004);
    for at in [path("d2/f00007"), path("d0/f04999"), path("d2")] {
        let item = plan.item(&at).unwrap().unwrap();
        assert_eq!(item.entry, *want.get(&at).unwrap());
    }
    assert_eq!(plan.item(&path("d2/f05000")).unwrap().map(|item| item.entry), None);
    assert!(plan.had(&path("d2/f05000")).unwrap() && !plan.had(&path("d2/f05001")).unwrap());
    let list = plan.paths().unwrap();
    assert_eq!(list.iter().map(|(path, _)| path).collect::<Vec<_>>(), paths);
}
