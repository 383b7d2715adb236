//! What all databases of the program have in common.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use tracing::error;

use crate::network_share::NetworkShare;

/// Opens a database that belongs to this process alone, with a write-ahead log; what is committed is synchronised to the
/// disk.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    // One process, so no shared memory beside the file; the lock is held until it ends, however it ends.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    database.pragma_update(None, "synchronous", "FULL")?;
    Ok(database)
}

/// Whether another process has it.
pub(crate) fn is_in_use(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Whether the file is not as SQLite wrote it.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Moves a damaged database aside, with its log; returns its new place.
pub(crate) fn move_aside(path: &Path) -> PathBuf {
    // Named by a number: the clock may be wrong.
    let named = |number: u32| path.with_extension(format!("damaged-{number}.sqlite"));
    let free = (1..).map(named).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| named(0));
    for suffix in FILES {
        let from = with_suffix(path, suffix);
        if from.exists()
            && let Err(e) = fs::rename(&from, with_suffix(&aside, suffix))
        {
            error!("cannot move {} aside: {e}", from.display());
        }
    }
    aside
}

/// Bytes of a database and its log on the disk.
pub(crate) fn bytes_on_disk(path: &Path) -> u64 {
    let bytes = |suffix| fs::metadata(with_suffix(path, suffix)).map_or(0, |file| file.len());
    FILES.iter().map(|suffix| bytes(suffix)).sum()
}

const FILES: [&str; 3] = ["", "-wal", "-shm"];

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What a folder lies on, where the locks of a database do not hold what they promise.
pub fn share_without_locks(folder: &Path) -> Option<&'static str> {
    match NetworkShare::of(folder)? {
        NetworkShare::Nfs => Some("NFS"),
        NetworkShare::Windows => Some("a Windows share"),
        NetworkShare::Other => None,
    }
}
