//! Trees of several versions: names, patterns and rules for them, and keys that have no effect.

use protocol::{
    filter::{Filter, Level, Origin},
    path::TreePath,
    spec::{Layout, Switch, TreeSpec},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::definition::findings::Findings;

/// Checks the trees, sites and assignments of the files.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    for (name, tree) in &subject.next.trees {
        let mut refuse = |key: &str, message: String| {
            let spot = subject.spot(Kind::Tree, name.as_str(), key);
            findings.push(spot, format!("tree {name}: {message}"));
        };
        if subject.place(Kind::Tree, name.as_str()).is_none() {
            continue;
        }
        check_names(tree, &mut refuse);
        check_rules(&tree.listing_filter, &mut refuse);
        check_excludes(&tree.listing_exclude, &mut refuse);
        warn_of_what_has_no_effect(tree, warnings);
    }
    for (name, site) in &subject.next.sites {
        if subject.place(Kind::Site, name.as_str()).is_some() {
            check_excludes(&site.listing_exclude, &mut |key, message| {
                let spot = subject.spot(Kind::Site, name.as_str(), key);
                findings.push(spot, format!("site {name}: {message}"));
            });
        }
    }
    for (name, spec) in &subject.next.assignments {
        let text = name.to_string();
        if subject.place(Kind::Assignment, &text).is_none() {
            continue;
        }
        let mut refuse = |key: &str, message: String| {
            let spot = subject.spot(Kind::Assignment, &text, key);
            findings.push(spot, format!("assignment {name}: {message}"));
        };
        check_rules(&spec.listing_filter, &mut refuse);
        check_excludes(&spec.listing_exclude, &mut refuse);
        let set = [
            ("listing-filter", !spec.listing_filter.is_empty()),
            ("listing-exclude", !spec.listing_exclude.is_empty()),
            ("sync-latest-only", spec.sync_latest_only.is_some()),
            ("delete-old-versions", spec.delete_old_versions.is_some()),
        ];
        let layout = subject.next.trees.get(&spec.tree).map(|tree| tree.layout);
        if layout == Some(Layout::Simple) {
            warn(&format!("assignment {name}"), &set, warnings);
        } else if layout.is_some() && spec.switch == Switch::Symlink {
            warnings.push(format!(
                "assignment {name}: `switch = \"symlink\"` has no effect, because the tree has versions: its path stays a directory, and each version is switched as with auto"
            ));
        }
    }
}

fn check_names(tree: &TreeSpec, refuse: &mut dyn FnMut(&str, String)) {
    let names = [("latest-link", &tree.latest_link), ("status-file", &tree.status_file)];
    for (key, name) in names {
        let Some(name) = name else { continue };
        let is_plain = !name.bytes().any(|b| b == b'/' || b.is_ascii_control());
        if !is_plain || TreePath::parse(name.as_bytes()).is_err() || name.starts_with(".mirrornet")
        {
            refuse(key, format!("`{key}` is {name:?}; write one name, without a slash"));
        }
        if key == "status-file" && name.contains(['*', '?', '[', '\\']) {
            refuse(key, format!("`{key}` is {name:?}; write a name, not a pattern"));
        }
    }
    if let Some(text) = &tree.finished
        && (text.trim() != text || text.is_empty() || text.len() > 200)
    {
        let message = "write one text of at most 200 bytes, without spaces around it";
        refuse("finished", format!("`finished` is {text:?}; {message}"));
    }
    if let Some(pattern) = &tree.listing_pattern {
        let anchored = [format!("+ /{pattern}")];
        let level = Level::rules(Origin::Tree, "", anchored);
        if pattern.is_empty() || pattern.contains('/') || Filter::build(&[level]).is_err() {
            let message = "write a pattern for one name, as in \"release-*\"";
            refuse("listing-pattern", format!("`listing-pattern` is {pattern:?}; {message}"));
        }
    }
}

fn check_rules(rules: &[String], refuse: &mut dyn FnMut(&str, String)) {
    let Err(errors) = Filter::build(&[Level::rules(Origin::Tree, "", rules)]) else { return };
    for error in errors.0 {
        let message = format!("listing-filter: '{}': {}", error.text, error.problem);
        refuse(&format!("listing-filter.{}", error.index), message);
    }
}

fn check_excludes(patterns: &[String], refuse: &mut dyn FnMut(&str, String)) {
    let Err(errors) = Filter::build(&[Level::excludes(Origin::Tree, "", patterns)]) else { return };
    for error in errors.0 {
        let message = format!("listing-exclude: '{}': {}", error.text, error.problem);
        refuse(&format!("listing-exclude.{}", error.index), message);
    }
}

fn warn_of_what_has_no_effect(tree: &TreeSpec, warnings: &mut Vec<String>) {
    let sealed_only = [
        ("status-file", tree.status_file.is_some()),
        ("finished", tree.finished.is_some()),
        ("sync-latest-only", tree.sync_latest_only),
    ];
    let mut versioned = vec![
        ("listing-pattern", tree.listing_pattern.is_some()),
        ("listing-filter", !tree.listing_filter.is_empty()),
        ("listing-exclude", !tree.listing_exclude.is_empty()),
        ("latest-link", tree.latest_link.is_some()),
        ("delete-old-versions", tree.delete_old_versions),
        ("max-delete-versions", tree.max_delete_versions.is_some()),
    ];
    match tree.layout {
        Layout::Sealed => {}
        Layout::Versioned => {
            let of = format!("tree {}", tree.name);
            for (key, _) in sealed_only.iter().filter(|(_, is_set)| *is_set) {
                warnings.push(format!("{of}: `{key}` has no effect unless layout = \"sealed\""));
            }
        }
        Layout::Simple => {
            versioned.extend(sealed_only);
            warn(&format!("tree {}", tree.name), &versioned, warnings);
        }
    }
}

fn warn(of: &str, keys: &[(&str, bool)], warnings: &mut Vec<String>) {
    for (key, _) in keys.iter().filter(|(_, is_set)| *is_set) {
        warnings.push(format!(
            "{of}: `{key}` has no effect, because the tree's layout is \"simple\": it has no versions"
        ));
    }
}
