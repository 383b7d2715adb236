//! Files that are there whole or not at all, whatever happens while they are written.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// Ending of a file that is being written. One that is found later was left by a process that was killed.
const PARTIAL: &str = ".partial";

/// A file that is being written under a name of its own; it goes away unless it is [kept](Self::keep).
pub(crate) struct Partial(NamedTempFile);

impl Partial {
    /// An empty file in `folder`.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.suffix(PARTIAL);
        // A temporary file is its maker's alone; this one becomes a file like any other, as the umask says.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(folder).map(Self)
    }

    /// Where it lies while it is written.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What it is written through.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Puts it on the disk and then, in one step, in place of `path`: a loss of power too leaves the old
    /// file or the new one.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        self.0.persist(path)?;
        #[cfg(unix)]
        File::open(folder_of(path))?.sync_all()?;
        Ok(())
    }
}

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = Partial::new(folder_of(path))?;
    partial.file().write_all(bytes)?;
    partial.keep(path)
}

/// Lower-case hexadecimal SHA-256 of a file, which need not fit into memory.
pub(crate) fn sha256_of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Removes what a process that was killed left half written in `folder`.
pub(crate) fn remove_partial(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(PARTIAL) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
