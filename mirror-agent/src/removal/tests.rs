use protocol::{
    digest::Digest,
    manifest::{EntryKind, Manifest},
};

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// Names with a slash behind are directories; each file has 10 bytes.
fn tree(names: &[&str]) -> Manifest {
    let mut entries: Vec<_> = names
        .iter()
        .map(|name| Entry {
            path: path(name.trim_end_matches('/')),
            mode: 0o644,
            mtime: 0,
            kind: match name.ends_with('/') {
                true => EntryKind::Dir,
                false => EntryKind::File { size: 10, digest: Digest::of(b"1"), link_group: None },
            },
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Manifest::new(entries).unwrap()
}

fn filter(rules: &[&str]) -> Filter {
    Filter::parse(rules).unwrap()
}

const ALL: &[&str] = &["a.iso", "b", "d/", "d/c.iso", "d/e", "x/", "x/f"];

struct Case {
    have: &'static [&'static str],
    before: &'static [&'static str],
    want: &'static [&'static str],
    after: &'static [&'static str],
    on_exclude: OnExclude,
}

impl Case {
    fn removals(&self) -> Removals {
        let (before, after) = (filter(self.before), filter(self.after));
        let change = Change {
            have: &tree(self.have),
            have_filter: Some(&before),
            want: &tree(self.want),
            filter: &after,
            signed: true,
            on_exclude: self.on_exclude,
        };
        change.removals().unwrap()
    }
}

fn first(files: &Files) -> Vec<String> {
    files.first.iter().map(ToString::to_string).collect()
}

#[test]
fn what_a_filter_newly_leaves_out_stays_unless_it_is_to_go() {
    let case = Case {
        have: ALL,
        before: &[],
        want: ALL,
        after: &["- *.iso", "- /x/"],
        on_exclude: OnExclude::Keep,
    };
    let kept = case.removals();
    assert_eq!(first(&kept.kept), ["a.iso", "d/c.iso", "x/f"]);
    assert_eq!((kept.removed.files, kept.left_out.files), (0, 0));
    assert_eq!(kept.apart, [path("a.iso"), path("d/c.iso"), path("x")]);
    assert!(!kept.concerns(&path("a.iso")) && kept.concerns(&path("b")));

    let removed = Case { on_exclude: OnExclude::Remove, ..case }.removals();
    assert_eq!(first(&removed.left_out), ["a.iso", "d/c.iso", "x/f"]);
    assert_eq!((removed.held.files, removed.left_out.bytes), (5, 30));
    assert_eq!(removed.removed, removed.left_out);
    assert!(removed.apart.is_empty() && removed.concerns(&path("a.iso")));
}

#[test]
fn what_was_left_out_before_is_nobody_s_business() {
    for on_exclude in [OnExclude::Keep, OnExclude::Remove] {
        let case = Case {
            have: ALL,
            before: &["- *.iso"],
            want: ALL,
            after: &["- *.iso", "- *.img"],
            on_exclude,
        };
        let removals = case.removals();
        let (removed, kept) = (removals.removed, removals.kept);
        assert_eq!((removed.files, kept.files, removals.held.files), (0, 0, 3));
    }
}

#[test]
fn a_rule_for_the_receiver_has_the_last_word() {
    let case = Case {
        have: ALL,
        before: &["P /x/f", "P *.iso"],
        want: &["b"],
        after: &["P /x/f", "P *.iso"],
        on_exclude: OnExclude::Remove,
    };
    let removals = case.removals();
    assert_eq!(first(&removals.protected), ["a.iso", "d/c.iso", "x/f"]);
    assert_eq!(first(&removals.removed), ["d/e"]);
    // The directory is looked into, because something in it goes.
    assert!(removals.concerns(&path("d")) && !removals.concerns(&path("x")));
    assert_eq!(removals.apart, [path("a.iso"), path("d/c.iso"), path("x")]);

    // What is hidden goes, and what is excluded for both sides by name stays, whatever is chosen.
    let case = Case { want: ALL, before: &[], after: &["H /b", "-sr *.iso"], ..case };
    let removals = case.removals();
    assert_eq!(first(&removals.removed), ["b"]);
    assert_eq!(first(&removals.kept), ["a.iso", "d/c.iso"]);
    let removals = Case { on_exclude: OnExclude::Keep, ..case }.removals();
    assert_eq!(first(&removals.removed), ["b"]);
}

#[test]
fn what_a_publisher_said_is_gone_is_not_the_filter_s_doing() {
    let case = Case {
        have: ALL,
        before: &[],
        want: &["b", "d/", "d/c.iso"],
        after: &["- *.iso"],
        on_exclude: OnExclude::Remove,
    };
    let removals = case.removals();
    assert_eq!(first(&removals.left_out), ["d/c.iso"]);
    assert_eq!(removals.removed.files, 4);
}
