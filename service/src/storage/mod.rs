//! Files, fsync and the data directory: the one place that knows the disk, and it knows no peers.

mod error;

pub use error::StorageError;
