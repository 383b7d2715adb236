//! The archive's index: each file that the archive wrote, and nothing else. An SQLite database in the archive's folder, so
//! that it goes where the files go.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use tracing::error;
use uuid::Uuid;

use crate::sqlite;

/// What a picture is worth when there is no room: the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worth {
    /// A frame without a whale, or of which nobody knows.
    Empty,
    /// A frame with a whale.
    Whale,
    /// A head cut from a frame: a thousandth of its bytes.
    Crop,
}

impl Worth {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Empty, Self::Whale, Self::Crop];

    fn code(self) -> i64 {
        self as i64
    }
}

/// A picture with its record, as the index knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: i64,
    /// Below the archive's folder.
    pub picture: String,
    pub record: String,
    pub picture_bytes: u64,
    pub record_bytes: u64,
}

/// What is to become an [`Entry`].
pub(super) struct NewEntry<'a> {
    pub picture: &'a str,
    pub record: &'a str,
    pub picture_bytes: u64,
    pub record_bytes: u64,
    pub worth: Worth,
    pub flight: Uuid,
    /// The sightings whose heads it shows.
    pub occurrences: &'a [Uuid],
}

/// A message that was sent to the ground, or waits to be: word for word, for the ground to read it from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedMessage {
    /// Where it goes.
    pub topic: String,
    /// What the payload is.
    pub content_type: String,
    /// What is said.
    pub payload: Vec<u8>,
}

/// Older messages than so many are forgotten: about a gigabyte, of some hundred flights.
const MOST_MESSAGES: i64 = 1_000_000;

/// Files take whole blocks of a disk.
const BLOCK: u64 = 4096;

/// What a picture and its record take of the disk.
pub(super) fn bytes_on_disk(picture: u64, record: u64) -> u64 {
    picture.next_multiple_of(BLOCK) + record.next_multiple_of(BLOCK)
}

/// Number of pictures and their bytes on the disk, with those of their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Pictures.
    pub pictures: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// What [`entry`] reads.
const ENTRIES: &str = "SELECT key, picture, record, picture_bytes, record_bytes FROM picture";

// Totals are kept by the database itself, so that they hold whenever a program ends.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS picture (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        picture TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL UNIQUE,
        picture_bytes INTEGER NOT NULL,
        record_bytes INTEGER NOT NULL,
        disk_bytes INTEGER NOT NULL,
        worth INTEGER NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        complete INTEGER NOT NULL DEFAULT 0,
        flight TEXT NOT NULL,
        occurrences TEXT NOT NULL   -- JSON
    );
    CREATE INDEX IF NOT EXISTS oldest ON picture (worth, key) WHERE pinned = 0 AND complete = 1;
    CREATE INDEX IF NOT EXISTS unfinished ON picture (key) WHERE complete = 0;
    CREATE INDEX IF NOT EXISTS dated_anew ON picture (key) WHERE complete = 2;
    CREATE INDEX IF NOT EXISTS by_flight ON picture (flight, worth);
    CREATE TABLE IF NOT EXISTS shows (
        occurrence TEXT NOT NULL,
        key INTEGER NOT NULL,
        PRIMARY KEY (occurrence, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS total (
        worth INTEGER NOT NULL,
        pinned INTEGER NOT NULL,
        pictures INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (worth, pinned)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS message (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL,
        number INTEGER NOT NULL,
        topic TEXT NOT NULL,
        content_type TEXT NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (run, number)
    );
    CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL);
    CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON picture BEGIN
        INSERT INTO total VALUES (new.worth, new.pinned, 1, new.disk_bytes)
        ON CONFLICT DO UPDATE SET pictures = pictures + 1, bytes = bytes + new.disk_bytes;
    END;
    CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON picture BEGIN
        UPDATE total SET pictures = pictures - 1, bytes = bytes - old.disk_bytes
        WHERE worth = old.worth AND pinned = old.pinned;
        DELETE FROM shows WHERE key = old.key AND occurrence IN
            (SELECT value FROM json_each(old.occurrences));
    END;
    CREATE TRIGGER IF NOT EXISTS pinned AFTER UPDATE OF pinned ON picture WHEN old.pinned <> new.pinned BEGIN
        UPDATE total SET pictures = pictures - 1, bytes = bytes - old.disk_bytes
        WHERE worth = old.worth AND pinned = old.pinned;
        INSERT INTO total VALUES (new.worth, new.pinned, 1, new.disk_bytes)
        ON CONFLICT DO UPDATE SET pictures = pictures + 1, bytes = bytes + new.disk_bytes;
    END;
";

pub(super) struct Index {
    path: PathBuf,
    database: Connection,
    /// Of this index, in the names of files that are not whole yet.
    id: String,
}

impl Index {
    /// Opens the index or begins one. It does not read it: that takes long where there are a million files.
    ///
    /// What a damaged index said could name files of others, so nothing is taken over from it: it is moved aside, and
    /// what it knew is from then on neither counted nor deleted.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        match Self::open_undamaged(path) {
            Err(damage) if sqlite::is_damage(&damage) => {
                let aside = sqlite::move_aside(path);
                error!(
                    "the archive's index was damaged ({damage}): it is kept as {}, and a new one was begun; the pictures \
                     of the old one stay and do not count as the archive's",
                    aside.display()
                );
                Self::open_undamaged(path)
            }
            opened => opened,
        }
    }

    fn open_undamaged(path: &Path) -> rusqlite::Result<Self> {
        let database = sqlite::open(path)?;
        synchronise_each(&database, false)?;
        // A small log: its bytes count.
        database.pragma_update_and_check(None, "wal_autocheckpoint", 100, |_| Ok(()))?;
        database.execute_batch(SCHEMA)?;
        let id: Option<String> = database
            .query_row("SELECT id FROM identity", [], |row| row.get(0))
            .optional()?;
        let id = match id {
            Some(id) => id,
            None => {
                let id = Uuid::now_v7().simple().to_string();
                database.execute("INSERT INTO identity VALUES (?1)", [&id])?;
                id
            }
        };
        Ok(Self {
            path: path.to_owned(),
            database,
            id,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What files of an entry are called before they are whole: nobody else gives a file such a name.
    pub fn unfinished_name(&self, key: i64, part: &str) -> String {
        format!(".{}-{key}.{part}.part", self.id)
    }

    /// Bytes of the index itself.
    pub fn bytes(&self) -> u64 {
        sqlite::bytes_on_disk(&self.path)
    }

    /// Whether a picture or record of this name is known.
    pub fn knows(&self, path: &str) -> rusqlite::Result<bool> {
        self.database
            .prepare_cached("SELECT 1 FROM picture WHERE picture = ?1 OR record = ?1")?
            .exists([path])
    }

    /// An entry whose files are about to be written; on the disk when this returns.
    pub fn begin(&mut self, new: &NewEntry) -> rusqlite::Result<i64> {
        let occurrences: Vec<_> = new.occurrences.iter().map(Uuid::to_string).collect();
        synchronise_each(&self.database, true)?;
        let transaction = self.database.transaction()?;
        transaction
            .prepare_cached(
                "INSERT INTO picture
                 (picture, record, picture_bytes, record_bytes, disk_bytes, worth, flight, occurrences)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                new.picture,
                new.record,
                new.picture_bytes,
                new.record_bytes,
                bytes_on_disk(new.picture_bytes, new.record_bytes),
                new.worth.code(),
                new.flight.to_string(),
                serde_json::to_string(&occurrences).expect("texts"),
            ])?;
        let key = transaction.last_insert_rowid();
        for occurrence in &occurrences {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO shows VALUES (?1, ?2)")?
                .execute(params![occurrence, key])?;
        }
        transaction.commit()?;
        synchronise_each(&self.database, false)?;
        Ok(key)
    }

    /// The files of an entry are written; or, where they are not `complete`, are about to be deleted.
    pub fn set_complete(&self, key: i64, complete: bool) -> rusqlite::Result<()> {
        self.database
            .prepare_cached("UPDATE picture SET complete = ?2 WHERE key = ?1")?
            .execute(params![key, complete])?;
        Ok(())
    }

    /// The record of an entry is about to be written anew, with its date; on the disk when this returns.
    pub fn begin_dating(&self, key: i64) -> rusqlite::Result<()> {
        synchronise_each(&self.database, true)?;
        self.database
            .prepare_cached("UPDATE picture SET complete = 2 WHERE key = ?1")?
            .execute([key])?;
        synchronise_each(&self.database, false)
    }

    /// Entries whose records were about to be written anew.
    pub fn being_dated(&self) -> rusqlite::Result<Vec<Entry>> {
        self.entries("WHERE complete = 2 ORDER BY key", [])
    }

    /// Entries of a flight that have no date in their name.
    pub fn undated(&self, flight: Uuid) -> rusqlite::Result<Vec<Entry>> {
        let undated = "WHERE flight = ?1 AND complete = 1 AND record GLOB 'undated_*' ORDER BY key";
        self.entries(undated, [flight.to_string()])
    }

    fn entries(&self, which: &str, values: impl Params) -> rusqlite::Result<Vec<Entry>> {
        let mut statement = self
            .database
            .prepare_cached(&format!("{ENTRIES} {which}"))?;
        statement.query_map(values, entry)?.collect()
    }

    /// The files of an entry are deleted.
    pub fn remove(&self, key: i64) -> rusqlite::Result<()> {
        self.database
            .prepare_cached("DELETE FROM picture WHERE key = ?1")?
            .execute([key])?;
        Ok(())
    }

    /// The oldest entry of a worth that is not pinned.
    pub fn oldest(&self, worth: Worth) -> rusqlite::Result<Option<Entry>> {
        let oldest = "WHERE worth = ?1 AND pinned = 0 AND complete = 1 ORDER BY key LIMIT 1";
        Ok(self.entries(oldest, [worth.code()])?.pop())
    }

    /// Entries whose files may not be whole.
    pub fn unfinished(&self) -> rusqlite::Result<Vec<Entry>> {
        self.entries("WHERE complete = 0 ORDER BY key", [])
    }

    /// Keeps messages of a run of the program; one of a number that is there takes its place.
    pub fn keep_messages(
        &mut self,
        run: Uuid,
        messages: &[(i64, ArchivedMessage)],
    ) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        for (number, message) in messages {
            transaction
                .prepare_cached(
                    "INSERT INTO message (run, number, topic, content_type, payload) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (run, number) DO UPDATE SET payload = excluded.payload",
                )?
                .execute(params![
                    run.to_string(),
                    number,
                    message.topic,
                    message.content_type,
                    message.payload
                ])?;
        }
        transaction.execute(
            "DELETE FROM message WHERE key <= (SELECT max(key) FROM message) - ?1",
            [MOST_MESSAGES],
        )?;
        transaction.commit()
    }

    /// Messages behind a key, in their order, with their keys.
    pub fn messages_after(
        &self,
        key: i64,
        most: u32,
    ) -> rusqlite::Result<Vec<(i64, ArchivedMessage)>> {
        let mut statement = self.database.prepare_cached(
            "SELECT key, topic, content_type, payload FROM message WHERE key > ?1 ORDER BY key LIMIT ?2",
        )?;
        let message = |row: &Row<'_>| {
            let message = ArchivedMessage {
                topic: row.get(1)?,
                content_type: row.get(2)?,
                payload: row.get(3)?,
            };
            Ok((row.get(0)?, message))
        };
        statement.query_map([key, most.into()], message)?.collect()
    }

    /// How many messages there are.
    pub fn messages(&self) -> rusqlite::Result<u64> {
        self.database
            .query_row("SELECT count(*) FROM message", [], |row| row.get(0))
    }

    /// Whole entries behind a key that are worth something, in the order in which they were written.
    pub fn pictures_after(
        &self,
        worth: Worth,
        key: i64,
        most: u32,
    ) -> rusqlite::Result<Vec<Entry>> {
        let behind = "WHERE worth = ?1 AND key > ?2 AND complete = 1 ORDER BY key LIMIT ?3";
        self.entries(behind, [worth.code(), key, most.into()])
    }

    /// Has each entry looked at, oldest first.
    pub fn for_each(&self, mut look_at: impl FnMut(Entry)) -> rusqlite::Result<()> {
        let mut statement = self.database.prepare(&format!("{ENTRIES} ORDER BY key"))?;
        for found in statement.query_map([], entry)? {
            look_at(found?);
        }
        Ok(())
    }

    /// Of one worth, without or with those that are pinned.
    pub fn total(&self, worth: Worth) -> rusqlite::Result<Total> {
        self.sum("worth = ?1", worth.code())
    }

    /// What is pinned.
    pub fn pinned(&self) -> rusqlite::Result<Total> {
        self.sum("pinned = ?1", 1)
    }

    fn sum(&self, which: &str, value: i64) -> rusqlite::Result<Total> {
        let sql = format!(
            "SELECT coalesce(sum(pictures), 0), coalesce(sum(bytes), 0) FROM total WHERE {which}"
        );
        self.database
            .prepare_cached(&sql)?
            .query_row([value], |row| {
                Ok(Total {
                    pictures: row.get(0)?,
                    bytes: row.get(1)?,
                })
            })
    }

    /// Bytes of all pictures and records.
    pub fn picture_bytes(&self) -> rusqlite::Result<u64> {
        self.database
            .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM total")?
            .query_row([], |row| row.get(0))
    }

    /// Flights with their pictures, oldest first: identifier, pictures with a whale, all pictures with their bytes.
    pub fn flights(&self) -> rusqlite::Result<Vec<(String, u64, Total)>> {
        let mut statement = self.database.prepare(
            "SELECT flight, sum(worth = 1), count(*), sum(disk_bytes) FROM picture
             GROUP BY flight ORDER BY min(key)",
        )?;
        statement
            .query_map([], |row| {
                let total = Total {
                    pictures: row.get(2)?,
                    bytes: row.get(3)?,
                };
                Ok((row.get(0)?, row.get(1)?, total))
            })?
            .collect()
    }

    /// Pins or unpins all pictures of a flight, of a sighting, or of a name; returns how many there are. On the disk
    /// when this returns.
    pub fn pin(&self, what: &str, pinned: bool) -> rusqlite::Result<usize> {
        synchronise_each(&self.database, true)?;
        let pictures = self
            .database
            .prepare_cached(
                "UPDATE picture SET pinned = ?2 WHERE flight = ?1 OR picture = ?1
                 OR key IN (SELECT key FROM shows WHERE occurrence = ?1)",
            )?
            .execute(params![what, pinned])?;
        synchronise_each(&self.database, false)?;
        Ok(pictures)
    }
}

/// Whether each change is on the disk when it is made. Only an entry whose files are about to be made has to be: any other
/// change that is lost with the power is found out and made again.
fn synchronise_each(database: &Connection, each: bool) -> rusqlite::Result<()> {
    let level = if each { "FULL" } else { "NORMAL" };
    database.pragma_update(None, "synchronous", level)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        picture: row.get(1)?,
        record: row.get(2)?,
        picture_bytes: row.get(3)?,
        record_bytes: row.get(4)?,
    })
}
