//! Which directories are versions, and in which order they come.

use protocol::{
    filter::{Filter, Level, Origin, RuleErrors},
    path::TreePath,
    v1::agent::VersionsOrder,
};

use crate::rsync::listing::NANOS;

/// Most versions of one tree.
pub const MAX_VERSIONS: usize = 10_000;

/// A directory at the top of a tree, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name: one component.
    pub name: TreePath,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, ns since 1970.
    pub mtime: i64,
}

/// Which names are versions.
#[derive(Debug, Clone)]
pub struct Names {
    pattern: Filter,
    rules: Filter,
    excludes: Filter,
}

impl Names {
    /// Reads pattern, rules and excludes.
    pub fn new(order: &VersionsOrder) -> Result<Self, RuleErrors> {
        let rules = |rules: &[String]| Level::rules(Origin::Tree, "listing-filter", rules);
        let excludes =
            Level::excludes(Origin::Tree, "listing-exclude", order.listing_exclude.iter().cloned());
        let pattern = [format!("+ /{}", order.listing_pattern), "- /*".to_owned()];
        Ok(Self {
            pattern: Filter::build(&[rules(&pattern)])?,
            rules: Filter::build(&[rules(&order.listing_filter), excludes.clone()])?,
            excludes: Filter::build(&[excludes])?,
        })
    }

    /// Whether a name is that of a version, or of a link beside them: pattern, rules and excludes
    /// let it through.
    pub fn is_version(&self, name: &TreePath, is_dir: bool) -> bool {
        self.pattern.keeps(name, is_dir) && self.rules.keeps(name, is_dir)
    }

    /// Whether a local directory is one that may be removed once the upstream has no such name:
    /// rules that only hide a version say nothing about that.
    pub fn may_be_removed(&self, name: &TreePath) -> bool {
        self.pattern.keeps(name, true) && self.excludes.keeps(name, true)
    }
}

/// The oldest first; of equal seconds by name.
pub(super) fn sort(versions: &mut [Shown]) {
    versions.sort_by(|a, b| {
        let second = |shown: &Shown| shown.mtime.div_euclid(NANOS);
        (second(a), &a.name).cmp(&(second(b), &b.name))
    });
}

/// Why a name is not worked on, where it is not: it has to be told to rsync.
pub(super) fn why_unusable(name: &TreePath) -> Option<&'static str> {
    match std::str::from_utf8(name.as_bytes()) {
        Err(_) => Some("the name of a version has to be UTF-8"),
        Ok(text) if text.chars().any(char::is_control) => {
            Some("the name of a version has no control characters")
        }
        Ok(".mirrornet") => Some("the name belongs to the agent"),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use protocol::units::Threshold;

    use super::*;

    fn order(pattern: &str, filter: &[&str], exclude: &[&str]) -> VersionsOrder {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        VersionsOrder {
            sealed: true,
            listing_pattern: pattern.into(),
            listing_filter: texts(filter),
            listing_exclude: texts(exclude),
            latest_link: None,
            status_file: "STATUS".into(),
            finished: "FINISHED".into(),
            sync_latest_only: false,
            delete_old_versions: false,
            max_delete_versions: Threshold::Percent(50),
        }
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_is_a_version_by_its_pattern_then_by_rules_then_by_excludes() {
        let names = Names::new(&order("re*ev", &["+ release1_ev", "- *1*"], &["dull*"])).unwrap();
        let is = |name: &str| names.is_version(&path(name), true);
        assert!(is("release1_ev") && is("relev") && is("re2ev"));
        assert!(!is("re1ev"), "a rule hides it");
        assert!(!is("other") && !is("dull_ev") && !is("releve"));
        let names = Names::new(&order("*", &["- hidden*"], &["never*"])).unwrap();
        assert!(!names.is_version(&path("hidden1"), true) && names.is_version(&path(".dot"), true));
        assert!(names.may_be_removed(&path("hidden1")) && !names.may_be_removed(&path("never1")));
    }

    #[test]
    fn r41_versions_come_by_time_and_then_by_name_and_parts_of_a_second_do_not_count() {
        let shown = |name: &str, mtime| Shown { name: path(name), mode: 0o755, mtime };
        let mut all = [
            shown("c", 5 * NANOS),
            shown("b", 9 * NANOS + 1),
            shown("a", 9 * NANOS + 2),
            shown("z", 1),
        ];
        sort(&mut all);
        let names: Vec<String> = all.iter().map(|shown| shown.name.to_string()).collect();
        assert_eq!(names, ["z", "c", "a", "b"]);
    }
}
