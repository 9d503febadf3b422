//! Writes that survive a power cut, or did not happen.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::storage::StorageError;

/// Replaces `path` by `bytes`, whole: after a crash the file holds the old bytes or the new ones.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(StorageError::io("create", &temporary))?;
    file.write_all(bytes).map_err(StorageError::io("write", &temporary))?;
    file.sync_all().map_err(StorageError::io("fsync", &temporary))?;
    rename(&temporary, path)
}

/// Renames a file that is already durable, and makes the new name durable too.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(StorageError::io("rename", from))?;
    // Until the directory is synchronised, a power cut may bring the old name back.
    sync_parent(to)
}

/// Makes what happened to the names in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StorageError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = File::open(parent).map_err(StorageError::io("open", parent))?;
    directory.sync_all().map_err(StorageError::io("fsync", parent))
}

/// The bytes of `path`, or `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("read", path)(error)),
    }
}

/// Creates the directory of a node's data with what is missing above it, durably.
///
/// # Errors
///
/// It cannot be created, or something that is no directory is in the way.
pub fn create_data_dir(path: &Path) -> Result<(), StorageError> {
    create_all(path, &mut sync_parent)
}

/// Creates what is missing from the top down, and makes each new name durable before the one below it.
fn create_all(
    path: &Path,
    sync_parent: &mut impl FnMut(&Path) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_all(parent, sync_parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        // Another process may have been faster, or the path ends with "..".
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(StorageError::io("create the data directory", path)(error)),
    }
}

/// Creates a directory and its name, if it is not there.
pub(super) fn create_dir(path: &Path) -> Result<(), StorageError> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StorageError::io("create", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A power cut could take the directory, and with it a vote that was acknowledged.
    #[test]
    fn every_directory_created_has_a_durable_name() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("a/b/c");
        let mut durable = Vec::new();
        let mut create = || {
            create_all(&wanted, &mut |path| {
                assert!(path.is_dir(), "first the directory, then its name");
                durable.push(path.to_owned());
                sync_parent(path)
            })
        };
        create().unwrap();
        create().unwrap();
        assert_eq!(durable, ["a", "a/b", "a/b/c"].map(|name| dir.path().join(name)), "once each, from the top down");
    }

    #[test]
    fn a_path_of_one_name_has_a_parent_too() {
        sync_parent(Path::new("Cargo.toml")).unwrap();
        create_data_dir(Path::new(".")).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        for path in ["a", "a/b"] {
            let error = create_data_dir(&dir.path().join(path)).unwrap_err();
            assert!(error.to_string().contains("cannot create the data directory"), "{error}");
        }
    }
}
