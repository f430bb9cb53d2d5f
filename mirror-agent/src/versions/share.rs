//! Equal files of several versions are one file on the disk.
//!
//! Two files become one only where the content is the same by its digest, looked at anew, and mode,
//! modification time and owner are the same as well: an equal name, size and time alone say nothing
//! (builds clamp their times). What lies in a PROTECTED directory is the site's own and may change
//! at any time, so nothing is shared with it.

use std::collections::HashMap;

use filetree::{fs::Dir, plan::Need, safe_path::PROTECTED};
use protocol::{digest::Digest, manifest::Entries, path::TreePath};

use super::{Directory, Error};
use crate::{apply::Site, fetch::manifest::Store};

/// Contents that are looked for together: for each part all other versions are gone through.
pub const SHARED_AT_A_TIME: usize = 8 * crate::gather::AT_A_TIME;

impl Directory<'_> {
    /// Stages those of the needed contents that another version has. The version's own place is
    /// `site`. Tells how many.
    pub fn share(
        &self,
        version: &TreePath,
        site: &Site,
        needs: &[Need],
        manifests: &Store,
    ) -> Result<u64, Error> {
        let staging = site.area().staging();
        let mut wanted: HashMap<Digest, &Need> = HashMap::new();
        for need in needs {
            if !staging.has(need).map_err(crate::apply::Error::from)? {
                wanted.insert(need.digest, need);
            }
        }
        let mut shared = 0;
        let Some(dir) = self.site.area().directory()? else { return Ok(0) };
        // The newest first: what is most like it is found soonest.
        for other in self.local()?.iter().rev().filter(|other| other.name != *version) {
            if wanted.is_empty() {
                break;
            }
            let Some((digest, _)) = self.site.version_held(&other.name)? else { continue };
            let Some(manifest) = manifests.get(&digest) else { continue };
            let unit = dir.open_child(other.name.name())?;
            for entry in manifest.each() {
                let entry = entry.map_err(crate::apply::Error::from)?;
                let Some(need) = entry.digest().and_then(|digest| wanted.get(&digest)) else {
                    continue;
                };
                let Ok(parent) = unit.open_parent(&entry.path) else { continue };
                if is_protected(&unit, &entry.path) {
                    continue;
                }
                let name = entry.path.name();
                if staging.share(need, &parent, name).map_err(crate::apply::Error::from)? {
                    shared += 1;
                    wanted.remove(&need.digest);
                }
            }
        }
        if shared > 0 {
            staging.seal().map_err(crate::apply::Error::from)?;
        }
        Ok(shared)
    }
}

/// Whether the version itself, or a directory above the path in it, is PROTECTED.
fn is_protected(unit: &Dir, path: &TreePath) -> bool {
    let marked = |dir: &Dir| !matches!(dir.stat(PROTECTED), Ok(None));
    marked(unit)
        || path.ancestors().any(|above| unit.open_dir(&above).map_or(true, |dir| marked(&dir)))
}
