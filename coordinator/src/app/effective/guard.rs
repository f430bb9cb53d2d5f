//! The guard of a tree: each part from the tree, its source, the network, or the default.

use protocol::{
    spec::{GuardSpec, NetworkSpec, SourceSpec, TreeSpec},
    v1::definitions::EffectiveSetting,
};

use super::{DEFAULT_MAX_DELETE_BYTES, DEFAULT_MAX_DELETE_FILES, setting::Setting};

/// The merged guard, with every part set, and what is shown of it.
pub(super) fn guard(
    tree: &TreeSpec,
    source: &SourceSpec,
    network: Option<&NetworkSpec>,
) -> (GuardSpec, [EffectiveSetting; 3]) {
    let mut levels = vec![
        (&tree.guard, format!("tree {}", tree.name)),
        (&source.guard, format!("source {}", source.name)),
    ];
    levels.extend(network.map(|network| (&network.guard, format!("network {}", network.name))));
    let files = Setting::first(
        levels.iter().map(|(guard, from)| (guard.max_delete_files, from.as_str())),
        DEFAULT_MAX_DELETE_FILES,
    );
    let bytes = Setting::first(
        levels.iter().map(|(guard, from)| (guard.max_delete_bytes, from.as_str())),
        DEFAULT_MAX_DELETE_BYTES,
    );
    let named =
        |guard: &GuardSpec| (!guard.must_contain.is_empty()).then(|| guard.must_contain.clone());
    let must_contain = Setting::first(
        levels.iter().map(|(guard, from)| (named(guard), from.as_str())),
        Vec::new(),
    );
    let shown = [
        files.shown("guard.max-delete-files"),
        bytes.shown("guard.max-delete-bytes"),
        must_contain.shown("guard.must-contain"),
    ];
    let guard = GuardSpec {
        max_delete_files: Some(files.value),
        max_delete_bytes: Some(bytes.value),
        must_contain: must_contain.value,
    };
    (guard, shown)
}
