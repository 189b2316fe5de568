//! What can go wrong with the state directory, and what to do about it.

use std::{io, path::PathBuf};

use super::ASSIGNMENTS;

/// What went wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The state path is something else than a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The state path.
        path: PathBuf,
    },
    /// A file is there, but nothing that this program wrote.
    #[error("{} is damaged or not a file of balancer: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and not found.
        reason: String,
    },
    /// Another instance keeps its live set here.
    #[error("{} belongs to the instance pinned at {owner}", path.display())]
    Foreign {
        /// The record.
        path: PathBuf,
        /// Pin directory named in the record.
        owner: String,
    },
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as root, or name a directory of your own with --state DIR".to_owned())
            }
            Self::Io { .. } => None,
            Self::NotADirectory { .. } => {
                Some("name a directory, or a path still free, with --state DIR".to_owned())
            }
            Self::Damaged { path, .. } if path.ends_with(ASSIGNMENTS) => Some(format!(
                "restore it from a backup, or move it away: services then get VIPs anew, mostly \
                 the same ones\nmv {0} {0}.damaged",
                path.display()
            )),
            Self::Damaged { path, .. } => Some(format!(
                "move it away and load the policies again\nmv {0} {0}.damaged",
                path.display()
            )),
            Self::Foreign { .. } => Some(
                "give each instance a directory of its own with --state DIR, or unload the \
                 other one first"
                    .to_owned(),
            ),
        }
    }
}
