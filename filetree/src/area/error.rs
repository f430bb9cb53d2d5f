//! Why an area cannot be used, planned for, or switched.

use std::path::PathBuf;

use protocol::{manifest, path::TreePath, units::ByteSize};

use crate::{fs, plan::Need, record, staging};

/// Why an area cannot be used, planned for, or switched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// Staging.
    #[error(transparent)]
    Staging(#[from] staging::Error),
    /// A manifest cannot be read where it is kept.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Another process has it.
    #[error("{path} is in use by another agent process; stop that one first", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The name of the work directory is not one component.
    #[error("{name:?} cannot be the name of a work directory")]
    Name {
        /// The name.
        name: String,
    },
    /// A file of ours was altered.
    #[error("{path} is damaged ({why}); move it away and run verify, which reads the whole tree again", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The published directory is not the one that was left there.
    #[error("{path} is not the directory that this agent published; adopt it, or restore it from the work directory", path = .path.display())]
    Foreign {
        /// The published path.
        path: PathBuf,
    },
    /// Content that the switch needs is neither staged nor found undamaged in the live tree.
    #[error("{} contents are missing, the first for {}", .0.len(), .0.first().map(|need| need.path.to_string()).unwrap_or_default())]
    Missing(Vec<Need>),
    /// Something changed a tree that only we may change.
    #[error(
        "{path} in the tree that was prepared is not what was put there; did another program change the work directory?"
    )]
    Inconsistent {
        /// The first path that is wrong.
        path: TreePath,
    },
    /// It does not fit.
    #[error(
        "does not fit: needs {needed}, has {free} free on {on}; make room, or keep less of the tree by a filter", needed = ByteSize(*.needed), free = ByteSize(*.free), on = .on.display()
    )]
    DoesNotFit {
        /// Bytes needed, with a tenth to spare.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// A directory on that file system.
        on: PathBuf,
    },
    /// Not enough inodes.
    #[error(
        "does not fit: needs {needed} inodes, has {free} free on {on}; that file system has to be made with more of them", on = .on.display()
    )]
    NoInodes {
        /// Inodes needed, with a tenth to spare.
        needed: u64,
        /// Inodes free.
        free: u64,
        /// A directory on that file system.
        on: PathBuf,
    },
    /// A link lies at the published path that leads somewhere else.
    #[error(
        "{path} is a symbolic link to {target}, which this agent did not make. To have the files taken over that it leads to, put their directory in the link's place (rm {path} && mv -T DIRECTORY {path}); to begin anew, remove the link", path = .path.display()
    )]
    Elsewhere {
        /// The published path.
        path: PathBuf,
        /// What the link says.
        target: String,
    },
    /// `symlink` was asked for and cannot be had.
    #[error(
        "the tree cannot be published behind a symbolic link: {why}; publish below it, or use switch = \"in-place\""
    )]
    NoLink {
        /// Why.
        why: String,
    },
    /// `exchange` was asked for and cannot be had.
    #[error(
        "the tree cannot be exchanged as a whole: {why}; publish below it, or use switch = \"in-place\""
    )]
    NoExchange {
        /// Why.
        why: String,
    },
}

impl From<record::Error> for Error {
    fn from(error: record::Error) -> Self {
        match error {
            record::Error::Fs(error) => Self::Fs(error),
            record::Error::Damaged { path } => {
                Self::Damaged { path: path.into(), why: "cut short or altered".to_owned() }
            }
        }
    }
}
