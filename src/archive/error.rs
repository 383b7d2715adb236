use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the archive does not take a picture, or cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// What would be written would fill another disk than the one that is meant.
    #[error(
        "nothing is archived: nothing is mounted at {}, where the archive {} should be; mount its disk",
        mount.display(),
        folder.display()
    )]
    NotMounted {
        /// The archive's folder.
        folder: PathBuf,
        /// The mount point.
        mount: PathBuf,
    },
    /// The disk under the folder is not the one that was there when it was opened.
    #[error("the disk of the archive {} was taken away or exchanged", folder.display())]
    OtherDisk {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// The mount point that was named has nothing to do with the folder.
    #[error(
        "the archive {} does not lie below its mount point {}: name a folder there",
        folder.display(),
        mount.display()
    )]
    NotBelow {
        /// The archive's folder.
        folder: PathBuf,
        /// The mount point.
        mount: PathBuf,
    },
    /// Locks of files do not hold there.
    #[error(
        "the archive {} cannot lie on {kind}, where SQLite's locks do not hold: name a folder on a disk of this machine",
        folder.display()
    )]
    NetworkShare {
        /// The archive's folder.
        folder: PathBuf,
        /// What it lies on.
        kind: &'static str,
    },
    /// Another process has it.
    #[error("the archive {} belongs to another running callosity", folder.display())]
    InUse {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// There is none.
    #[error("there is no archive in {}: it has no index.sqlite", folder.display())]
    NoArchive {
        /// The folder.
        folder: PathBuf,
    },
    /// SQLite cannot read or write the index.
    #[error("the archive's index {} cannot be used: {source}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A file or folder cannot be made, written or deleted.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder within the archive leads elsewhere.
    #[error("{} is no folder of the archive, but a link or a file: remove it", path.display())]
    LeadsElsewhere {
        /// Where.
        path: PathBuf,
    },
    /// There is no room, and nothing that is worth less to delete.
    #[error(
        "no room for {bytes} bytes in the archive {}: {limit}, and nothing of less worth is left to delete; copy it and \
         make room",
        folder.display()
    )]
    NoRoom {
        /// The archive's folder.
        folder: PathBuf,
        /// Of the picture and its record.
        bytes: u64,
        /// In words, what is full.
        limit: String,
    },
    /// The pixels of a raw frame cannot be encoded.
    #[error("a frame cannot be encoded for the archive: {0}")]
    Encode(String),
}

impl ArchiveError {
    /// Whether there is no room, of which the disk itself is well.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::File { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Index { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    /// Whether another attempt fails as this one did.
    pub(super) fn is_of_the_picture(&self) -> bool {
        matches!(self, Self::Encode(_))
    }
}
