//! What other processes ask of the one that has the archive open: to pin pictures, or to let them be deleted again.
//!
//! The index belongs to one process, so they write into a file beside it. Who writes or reads there holds its lock, and
//! whoever deletes pictures holds it from reading until they are deleted: when an answer has come to the one who asked,
//! nothing is deleted any more against what was asked.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// What is asked, a line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// A flight, a sighting or a picture, as of [`Store::pin`](super::Store::pin).
    pub what: String,
    pub pinned: bool,
}

/// Requests under their lock, until this is dropped.
pub(super) struct Requests(File);

/// The file, of the index's name.
pub(super) fn path(index: &Path) -> PathBuf {
    let mut name = index.as_os_str().to_owned();
    name.push(".pins");
    PathBuf::from(name)
}

impl Requests {
    /// Waits until nobody else has the file.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let mut opening = OpenOptions::new();
        let file = opening.create(true).truncate(false).read(true).write(true);
        let file = file.open(path)?;
        file.lock()?;
        Ok(Self(file))
    }

    /// Those that wait, oldest first. What was cut short was never answered, and is passed over.
    pub fn waiting(&mut self) -> io::Result<Vec<Request>> {
        self.0.seek(SeekFrom::Start(0))?;
        let mut waiting = Vec::new();
        for line in BufReader::new(&self.0).split(b'\n') {
            match serde_json::from_slice(&line?) {
                Ok(request) => waiting.push(request),
                Err(e) => {
                    warn!("what was asked of the archive cannot be read and is passed over: {e}")
                }
            }
        }
        Ok(waiting)
    }

    /// One more; on the disk when this returns.
    pub fn add(&mut self, request: &Request) -> io::Result<()> {
        let line = serde_json::to_vec(request).expect("texts");
        let end = self.0.seek(SeekFrom::End(0))?;
        // On a line of its own, whatever was cut short before.
        let start: &[u8] = if end == 0 { b"" } else { b"\n" };
        self.0.write_all(&[start, &line].concat())?;
        self.0.sync_all()
    }

    /// All that waited are in the index.
    pub fn clear(&mut self) -> io::Result<()> {
        self.0.set_len(0)
    }
}
