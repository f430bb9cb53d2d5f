//! How the versions of a tree are chosen and kept: from the assignment, the tree, the site, or the
//! default.

use protocol::{
    filter::{Level, Origin},
    spec::{AssignmentSpec, Layout, SiteSpec, TreeSpec},
    units::Threshold,
    v1::{agent::VersionsOrder, definitions::EffectiveSetting},
};

use super::setting::Setting;

/// The file that says whether a sealed version is finished, where nothing is set.
pub const DEFAULT_STATUS_FILE: &str = "STATUS";
/// What it says of a finished version, where nothing is set.
pub const DEFAULT_FINISHED: &str = "FINISHED";
/// Most versions that one run may remove, where nothing is set.
pub(super) const DEFAULT_MAX_DELETE_VERSIONS: Threshold = Threshold::Percent(50);

/// What an agent is told, and what is shown of it; nothing where the tree is one unit.
pub(super) fn versions(
    assignment: &AssignmentSpec,
    tree: &TreeSpec,
    site: &SiteSpec,
) -> (Option<VersionsOrder>, Vec<EffectiveSetting>) {
    if tree.layout == Layout::Simple {
        return (None, Vec::new());
    }
    let own = format!("assignment {}", assignment.name());
    let (of_tree, of_site) = (format!("tree {}", tree.name), format!("site {}", site.name));
    let pattern = text(&tree.listing_pattern, &of_tree, "*");
    let status_file = text(&tree.status_file, &of_tree, DEFAULT_STATUS_FILE);
    let finished = text(&tree.finished, &of_tree, DEFAULT_FINISHED);
    let latest_link =
        Setting::first([(tree.latest_link.clone().map(Some), of_tree.as_str())], None);
    let latest_only = Setting::first(
        [
            (assignment.sync_latest_only, own.as_str()),
            (tree.sync_latest_only.then_some(true), &of_tree),
        ],
        false,
    );
    let delete_old = Setting::first(
        [
            (assignment.delete_old_versions, own.as_str()),
            (tree.delete_old_versions.then_some(true), &of_tree),
        ],
        false,
    );
    let max_delete =
        Setting::first([(tree.max_delete_versions, of_tree.as_str())], DEFAULT_MAX_DELETE_VERSIONS);
    // Lists are not overridden but joined, the closest first, as with the rules for content.
    let filter = joined([(&assignment.listing_filter, &own), (&tree.listing_filter, &of_tree)]);
    let exclude = joined([
        (&assignment.listing_exclude, &own),
        (&tree.listing_exclude, &of_tree),
        (&site.listing_exclude, &of_site),
    ]);
    let mut shown = vec![
        pattern.shown("listing-pattern"),
        filter.shown("listing-filter"),
        exclude.shown("listing-exclude"),
        latest_link.shown("latest-link"),
        delete_old.shown("delete-old-versions"),
        max_delete.shown("max-delete-versions"),
    ];
    let sealed = tree.layout == Layout::Sealed;
    if sealed {
        shown.extend([
            status_file.shown("status-file"),
            finished.shown("finished"),
            latest_only.shown("sync-latest-only"),
        ]);
    }
    let order = VersionsOrder {
        sealed,
        listing_pattern: pattern.value,
        listing_filter: filter.value,
        listing_exclude: exclude.value,
        latest_link: latest_link.value,
        status_file: status_file.value,
        finished: finished.value,
        sync_latest_only: sealed && latest_only.value,
        delete_old_versions: delete_old.value,
        max_delete_versions: max_delete.value,
    };
    (Some(order), shown)
}

/// In a sealed version the file that says whether it is finished is written here, last, and never
/// fetched: nothing can include it.
pub(super) fn status_level(tree: &TreeSpec) -> Option<Level> {
    if tree.layout != Layout::Sealed {
        return None;
    }
    let name = tree.status_file.as_deref().unwrap_or(DEFAULT_STATUS_FILE);
    let rules = [format!("- /*/{name}"), format!("- /*/.{name}")];
    Some(Level::rules(Origin::Limit, tree.name.as_str(), rules))
}

fn text(value: &Option<String>, from: &str, default: &str) -> Setting<String> {
    Setting::first([(value.clone(), from)], default.to_owned())
}

fn joined<'a>(
    lists: impl IntoIterator<Item = (&'a Vec<String>, &'a String)>,
) -> Setting<Vec<String>> {
    let mut all = Vec::new();
    let mut from: Vec<&str> = Vec::new();
    for (list, of) in lists {
        if !list.is_empty() {
            all.extend(list.iter().cloned());
            from.push(of);
        }
    }
    if all.is_empty() { Setting::default(all) } else { Setting::new(all, from.join(", ")) }
}
