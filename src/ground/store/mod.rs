//! What the ground station keeps: a database and a folder of pictures.
//!
//! # What always holds
//! - What [`Store::keep`] returned `Ok` for is in the database, and pictures on the disk, synchronised.
//! - A message that comes again changes nothing: sightings and efforts are told by id and revision, crops by sighting and
//!   content, positions by flight and time, malformed messages by topic and content.
//! - All revisions of a sighting are kept; [`Summary`] is of the newest. What persons decide is kept apart from what the
//!   machine proposed, and neither is ever overwritten.
//! - The folder belongs to one process at a time.
//!
//! Queries are the same for SQLite and PostgreSQL.

mod accounts;
mod aircraft;
mod decisions;
mod flights;
mod messages;
mod names;
mod pictures;
mod sightings;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use jiff::Timestamp;
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyPool, AssertSqlSafe, Executor, SqlSafeStr};
use thiserror::Error;

pub use accounts::{Account, AccountError, Invitation, Role, Session};
pub use aircraft::{Aircraft, Position};
pub use decisions::{Decided, DecisionError, NewDecision, Verdict};
pub use flights::{Confirmed, Pending};
pub use messages::{Kept, SetAside};
pub use names::{Animal, NameError, checked_name, folded};
pub use pictures::Pictures;
pub use sightings::{Area, Details, Order, Search, Standing, Summary};

/// The schema, one step after the other. A step that was released is never changed.
const MIGRATIONS: [(&str, &str); 2] = [
    ("begin", include_str!("0001_begin.sql")),
    ("frames", include_str!("0002_frames.sql")),
];

static DRIVERS: Once = Once::new();

/// What the ground station keeps.
pub struct Store {
    /// One connection, so that whatever is written waits for its turn instead of failing.
    writer: AnyPool,
    readers: AnyPool,
    pictures: Pictures,
    known_names: Mutex<BTreeSet<String>>,
    /// Held as long as the store is open.
    _lock: File,
}

/// What can be wrong with the store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder or a file in it cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another ground station has the folder.
    #[error("another callosity ground uses {}: end it, or name another folder with --data", .0.display())]
    InUse(PathBuf),
    /// The address of a database makes no sense.
    #[error(
        "database {0:?}: it is postgres://USER@HOST/DATABASE; without one everything is in a file of the data folder"
    )]
    Address(String),
    /// The schema cannot be brought up to date.
    #[error("the database's schema cannot be brought up to date: {0}")]
    Schema(#[from] MigrateError),
    /// A query failed.
    #[error("the database does not do what it should: {0}")]
    Database(#[from] sqlx::Error),
    /// What is stored cannot be read.
    #[error("the database holds what this program cannot read: {0}")]
    Content(String),
}

impl Store {
    /// Opens the store of a folder, or begins one there. The database is SQLite in that folder, or the PostgreSQL of
    /// `database`, a `postgres://` address. The folder must lie on a disk of this machine.
    ///
    /// # Errors
    /// The folder cannot be used, another process uses it, or the database cannot.
    pub async fn open(folder: &Path, database: Option<&str>) -> Result<Self, StoreError> {
        let file_error = |path: &Path, source| StoreError::File {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(|e| file_error(folder, e))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(|e| file_error(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(e)) => return Err(file_error(&lock_path, e)),
        }
        DRIVERS.call_once(install_default_drivers);
        let (address, is_sqlite) = match database {
            None => (sqlite_address(&folder.join("ground.sqlite"))?, true),
            Some(address) if address.starts_with("postgres") => (address.to_owned(), false),
            Some(address) => {
                // A password that somebody wrote into the address must not come to a log.
                let shown = address.rsplit('@').next().unwrap_or_default();
                return Err(StoreError::Address(shown.to_owned()));
            }
        };
        let writer = pool(1, is_sqlite).connect(&address).await?;
        Migrator::with_migrations(migrations(is_sqlite))
            .run(&writer)
            .await?;
        let readers = pool(4, is_sqlite).connect(&address).await?;
        Ok(Self {
            writer,
            readers,
            pictures: Pictures::open(&folder.join("pictures"))?,
            known_names: Mutex::default(),
            _lock: lock,
        })
    }

    /// The pictures.
    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    /// Ends all connections, so that nothing is left in a write-ahead log.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn pool(connections: u32, is_sqlite: bool) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(connections);
    if !is_sqlite {
        return options;
    }
    options.after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("PRAGMA journal_mode = WAL").await?;
            // What is committed is synchronised to the disk.
            connection.execute("PRAGMA synchronous = FULL").await?;
            connection.execute("PRAGMA busy_timeout = 10000").await?;
            Ok(())
        })
    })
}

fn migrations(is_sqlite: bool) -> Vec<Migration> {
    let steps = (1..).zip(MIGRATIONS);
    let steps = steps.map(|(version, (name, sql))| {
        let sql = if is_sqlite {
            sql.to_owned()
        } else {
            sql.replace("BLOB", "BYTEA")
        };
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    steps.collect()
}

/// The URL of a file, which is created where it is missing.
fn sqlite_address(path: &Path) -> Result<String, StoreError> {
    let path = std::path::absolute(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    let mut address = "sqlite://".to_owned();
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => address.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => address.push(byte.into()),
            _ => address += &format!("%{byte:02X}"),
        }
    }
    Ok(address + "?mode=rwc")
}

/// A time as it is stored.
fn milliseconds(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// A stored time.
fn timestamp(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|e| StoreError::Content(e.to_string()))
}
