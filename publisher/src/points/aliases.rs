//! Under which names a private tree lies, and lay, at further points: `DATA/trees/T/aliases.json`.
//!
//! A tree's alias hangs on its secret. Once that was exchanged, or the tree is for everybody again, what
//! lies under the old alias is of no use to anybody who may read the tree; agents in the middle of a
//! transfer have the grace time to end it, and then all of it goes. The alias is on the disk before the
//! first object lies under it, so that none is forgotten.

use std::{collections::BTreeMap, io, time::Duration};

use filetree::fs::Dir;
use jiff::Timestamp;
use protocol::name::TreeName;
use serde::{Deserialize, Serialize};

use crate::durable;

const FILE: &[u8] = b"aliases.json";
const MAX_FILE: u64 = 1 << 20;

/// The names of one tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aliases {
    /// Under which it lies now, where it is private.
    current: Option<TreeName>,
    /// Under which it lay, and until when.
    former: BTreeMap<TreeName, Timestamp>,
}

impl Aliases {
    /// Reads a tree's record.
    pub fn load(dir: &Dir) -> io::Result<Self> {
        Ok(durable::read_json(dir, FILE, MAX_FILE)?.unwrap_or_default())
    }

    /// Notes under which name the tree lies from now on, durably.
    pub fn set(&mut self, dir: &Dir, alias: Option<&TreeName>, now: Timestamp) -> io::Result<()> {
        if self.current.as_ref() == alias {
            return Ok(());
        }
        let mut next = self.clone();
        next.former.extend(next.current.take().map(|before| (before, now)));
        if let Some(alias) = alias {
            next.former.remove(alias);
        }
        next.current = alias.cloned();
        durable::replace_json(dir, FILE, &next)?;
        *self = next;
        Ok(())
    }

    /// The names under which nobody looks any longer, after the grace time.
    pub fn outlived(&self, now: Timestamp, grace: Duration) -> Vec<TreeName> {
        let is_over = |since: Timestamp| {
            Duration::try_from(now.duration_since(since)).unwrap_or_default() >= grace
        };
        let former = self.former.iter().filter(|(_, since)| is_over(**since));
        former.map(|(alias, _)| alias.clone()).collect()
    }

    /// Nothing lies under this name any more.
    pub fn forget(&mut self, dir: &Dir, alias: &TreeName) -> io::Result<()> {
        if self.former.remove(alias).is_some() {
            durable::replace_json(dir, FILE, self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use filetree::fs::Fs;

    use super::*;

    #[test]
    fn a_former_name_is_outlived_after_the_grace_time_unless_it_is_taken_again() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Fs::disk().open_root(temporary.path()).unwrap();
        let (one, two): (TreeName, TreeName) = ("one".parse().unwrap(), "two".parse().unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        let grace = Duration::from_secs(10);
        let mut aliases = Aliases::load(&dir).unwrap();
        aliases.set(&dir, None, at(0)).unwrap();
        assert!(!temporary.path().join("aliases.json").exists(), "it was never private");
        aliases.set(&dir, Some(&one), at(0)).unwrap();
        aliases.set(&dir, Some(&two), at(100)).unwrap();
        assert_eq!(aliases.outlived(at(109), grace), []);
        assert_eq!(aliases.outlived(at(110), grace), std::slice::from_ref(&one));
        assert_eq!(Aliases::load(&dir).unwrap(), aliases, "also after a restart");
        aliases.set(&dir, Some(&one), at(105)).unwrap();
        assert_eq!(aliases.outlived(at(1000), grace), std::slice::from_ref(&two), "in use again");
        aliases.set(&dir, None, at(120)).unwrap();
        assert_eq!(aliases.outlived(at(1000), grace), [one.clone(), two.clone()]);
        // A clock that was set back.
        assert_eq!(aliases.outlived(at(0), grace), []);
        aliases.forget(&dir, &one).unwrap();
        aliases.forget(&dir, &one).unwrap();
        assert_eq!(Aliases::load(&dir).unwrap().outlived(at(1000), grace), [two]);
    }
}
