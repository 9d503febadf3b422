//! Files, fsync and the data directory: the one place that knows the disk, and it knows no peers.
//!
//! A data directory holds `lock` (one process at a time), `identity` (whose it is, and whether it has had a log),
//! `log/` (the replicated log, whose files belong to the `raft-log` crate) and `snapshots/`. An error of fsync is never
//! followed by another fsync of the same file: the kernel may have dropped the pages it could not write, so a second
//! success would prove nothing.

mod durable;
mod error;
mod identity;
mod snapshots;

pub use durable::create_data_dir;
pub use error::StorageError;
pub use identity::{DataDir, FORMAT_VERSION, Identity};
pub use snapshots::{IncomingSnapshot, SnapshotDir, SnapshotFile, SnapshotName, SnapshotWriter};
