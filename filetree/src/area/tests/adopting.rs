//! Adoption of trees that are small enough to be held.

use std::sync::Arc;

use protocol::manifest::{Entries, Manifest};

use super::*;
use crate::scan::{ScanOptions, ScanRecord};

/// What was found, with what lies there of the wanted tree.
pub(crate) struct AdoptedTree {
    pub(crate) have: Manifest,
    pub(crate) locals: Locals,
}

impl Area {
    /// [`Area::adopt_into`], of a record and into memory.
    pub(crate) fn adopt(
        &mut self,
        want: &Arc<impl Entries + 'static>,
        view: View<'_>,
        record: &ScanRecord,
        options: &ScanOptions<'_>,
    ) -> Result<AdoptedTree, AdoptError> {
        let mut have = Vec::new();
        let earlier = || -> Box<dyn Iterator<Item = _>> { Box::new([record.clone()].into_iter()) };
        let Adopted { locals, .. } =
            self.adopt_into(want, view, &earlier, options, &mut |entry| {
                have.push(entry);
                Ok::<_, AdoptError>(())
            })?;
        Ok(AdoptedTree { have: Manifest::new(have)?, locals })
    }
}
