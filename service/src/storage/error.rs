//! What can be wrong with a data directory, each with its remedy in the message.

use std::io;
use std::path::PathBuf;

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process uses the directory.
    #[error("{} is in use by another process; stop it, or give this node a data directory of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another node.
    #[error(
        "{} belongs to node {found}, not to node {expected}; start with node id {found}, or use another directory",
        path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The node it belongs to.
        found: u64,
        /// The node that was started.
        expected: u64,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {found:032x}, not to cluster {expected:032x}; use the directory of this cluster, or an \
         empty one and join under a new node id",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: u128,
        /// The cluster that was expected.
        expected: u128,
    },
    /// A file was written by a later version of the program.
    #[error("{} has format {found}, and this program reads up to {known}; start the newer program", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// A file is damaged.
    #[error("{} is damaged ({detail}); restore it from a copy, or empty the directory and join under a new node id",
        path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The node is stopping, and what it was reading is not needed any more.
    #[error("{} was not read to its end because the node is stopping", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}; check --data-dir, its owner and the space on its disk", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl StorageError {
    /// Wraps an [`io::Error`] with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
