//! The group of an assignment's published files, by its name on this machine.

use filetree::fs::{self as disk, Dir};

/// The machine's groups.
const GROUPS: &str = "/etc/group";

/// Why published files cannot have a group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error(
        "group = {name:?}: this machine has no such group in /etc/group; make it (groupadd {name}), or name another"
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The machine's groups cannot be read.
    #[error("the groups of this machine cannot be read from /etc/group")]
    Read(#[source] std::io::Error),
    /// The agent's user is not a member.
    #[error(
        "the agent may not give files the group {name}: make its user a member of it (usermod -aG {name} USER) and start the agent anew"
    )]
    NotAllowed {
        /// Which group.
        name: String,
        /// What the system said.
        source: disk::Error,
    },
    /// The disk.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// The number of a group.
pub fn find(name: &str) -> Result<u32, Error> {
    let groups = std::fs::read_to_string(GROUPS).map_err(Error::Read)?;
    number_in(&groups, name).ok_or_else(|| Error::Unknown { name: name.to_owned() })
}

fn number_in(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    let mut found = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    found.nth(1)?.parse().ok()
}

/// Tries, before anything is fetched, whether files can be given the group.
pub fn may_give(work: &Dir, name: &str, group: u32) -> Result<(), Error> {
    const TRIED: &[u8] = b"group.new";
    match work.unlink(TRIED) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    work.create_file(TRIED)?;
    let given = work.set_group_of(TRIED, group);
    work.unlink(TRIED)?;
    given.map_err(|source| match source.source.kind() {
        std::io::ErrorKind::PermissionDenied => Error::NotAllowed { name: name.to_owned(), source },
        _ => Error::Disk(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name() {
        let groups = "root:x:0:\nmirror:x:998:www-data\nodd\nmirrors:*:999:\n";
        assert_eq!(number_in(groups, "mirror"), Some(998));
        assert_eq!(number_in(groups, "mirrors"), Some(999));
        assert_eq!((number_in(groups, "odd"), number_in(groups, "x")), (None, None));
        let said = find("no-such-group").unwrap_err().to_string();
        assert!(said.contains("groupadd no-such-group"), "{said}");
    }
}
