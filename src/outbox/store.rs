//! The outbox's file: an SQLite database with a write-ahead log.
//!
//! # What always holds
//! - A message for which [`Outbox::put`] returned `Ok` is in the file, synchronised to the disk where it may not be
//!   lost ([`Kind::is_dropped`]), until [`Outbox::acknowledge`] is called with its key.
//! - Keys grow with each message. Of one kind, messages are taken in the order of their keys.
//! - [`Depth`] is counted as messages come and go; nothing walks over the file but its opening.
//! - The file belongs to one process at a time.
//!
//! A disk that takes no more does not stop a flight: messages that may not be lost are then held in memory, are sent
//! from there, and go to the disk as soon as it takes them. A file that is damaged is moved aside, what can be read of
//! it goes into a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use thiserror::Error;
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::sqlite::{self, is_damage, share_without_locks};

/// What a message is about. Earlier kinds go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An animal that was seen.
    Sighting,
    /// How the survey was flown, and marks of the observers.
    Effort,
    /// What the service says of itself.
    Status,
    /// A picture of a head.
    Crop,
    /// Where the aircraft was.
    Track,
}

impl Kind {
    /// All kinds in the order in which they are sent.
    pub const ALL: [Self; 5] = [
        Self::Sighting,
        Self::Effort,
        Self::Status,
        Self::Crop,
        Self::Track,
    ];

    /// The kinds that are thrown away when too much waits; the first goes first.
    const DROPPED: [Self; 3] = [Self::Crop, Self::Track, Self::Status];

    /// Whether messages of this kind are thrown away, oldest first, when the outbox is full.
    pub fn is_dropped(self) -> bool {
        Self::DROPPED.contains(&self)
    }

    fn code(self) -> i64 {
        self as i64
    }

    /// `None` for a kind that this version of the program does not know.
    fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Names a message in the outbox. Of one kind, a later message has a greater key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(i64);

impl Key {
    /// As a number, which no other message has while this file is the outbox.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// A message as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// Where it goes.
    pub topic: String,
    /// What the payload is.
    pub content_type: String,
    /// When what it tells of happened.
    pub time: Timestamp,
    /// The time after which it is of no use.
    pub expiry: Option<Duration>,
    /// What is said.
    pub payload: Vec<u8>,
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of payload that wait. Above it the oldest crops are thrown away, then tracks, then statuses;
    /// sightings and effort never are.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30 }
    }
}

/// How much may be taken at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Most messages under way.
    pub messages: usize,
    /// Most bytes under way. A larger message goes alone.
    pub bytes: usize,
    /// Most crops under way, so that a name never waits behind more pictures than these.
    pub crops: usize,
}

/// How much the outbox holds and has let go. Counts since it was opened, but for what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Sightings that wait to be sent or for their acknowledgement.
    pub sightings: u64,
    /// Crops, likewise.
    pub crops: u64,
    /// Bytes of these crops.
    pub crop_bytes: u64,
    /// Messages of all kinds that wait, without those that are set aside.
    pub messages: u64,
    /// Bytes of all messages, with those that are set aside.
    pub bytes: u64,
    /// Of the messages that wait, those that are under way.
    pub under_way: u64,
    /// Messages that the broker would not take; they wait for [`Outbox::retry_set_aside`].
    pub set_aside: u64,
    /// Messages that are in memory alone because the disk takes no more.
    pub not_durable: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Crops and others that may be lost, thrown away because too many waited, or too old.
    pub dropped: u64,
}

impl Depth {
    /// Whether nothing waits and nothing is under way. What is set aside does not count.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }
}

/// What can be wrong with the outbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The folder cannot be made.
    #[error("cannot make the folder {} for the outbox", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "the outbox {} belongs to another running callosity: two flights need two --state folders",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Locks of files do not hold there.
    #[error(
        "the outbox cannot lie on {kind}, where SQLite's locks do not hold: name a folder of this machine's own disk \
         with --state instead of {}",
        path.display()
    )]
    NetworkShare {
        /// The folder.
        path: PathBuf,
        /// What it lies on.
        kind: &'static str,
    },
    /// SQLite cannot open it.
    #[error("cannot open the outbox {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The messages are held in memory, and those that may be lost are lost.
    #[error("the outbox {} takes no more, messages are held in memory: {source}", path.display())]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// See the [module](super). Clones are handles of the same outbox.
#[derive(Clone)]
pub struct Outbox {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

type Now = Box<dyn Fn() -> Timestamp + Send>;

type Copied = Box<dyn Fn(Key, &Message) + Send>;

struct State {
    path: PathBuf,
    limits: Limits,
    database: Connection,
    next: i64,
    /// Messages that the disk would not take.
    volatile: BTreeMap<(Kind, Key), Message>,
    under_way: BTreeMap<Key, UnderWay>,
    set_aside: BTreeSet<Key>,
    /// By kind: all keys below have been taken since the last [`Outbox::send_again`].
    taken: BTreeMap<Kind, i64>,
    counts: BTreeMap<Kind, Counts>,
    acknowledged: u64,
    dropped: u64,
    /// The first key of this process.
    own: i64,
    now: Now,
    /// Hears of each message, and of each that is changed.
    copied: Option<Copied>,
}

#[derive(Clone, Copy)]
struct UnderWay {
    kind: Kind,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    messages: u64,
    bytes: u64,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS message (
        key INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL,
        topic TEXT NOT NULL,
        content_type TEXT NOT NULL,
        time INTEGER NOT NULL,   -- milliseconds since 1970
        expiry INTEGER,          -- seconds
        payload BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS message_by_kind ON message (kind, key);
    CREATE TABLE IF NOT EXISTS bookmark (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS total (
        kind INTEGER PRIMARY KEY,
        messages INTEGER NOT NULL   -- ever stored
    );
";

impl Outbox {
    /// Opens the outbox in `folder`, with all that an earlier process left in it. The folder is made where it is
    /// missing; a damaged file is moved aside and said to be.
    ///
    /// # Errors
    /// The file cannot be opened or written, or another process has it.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, OutboxError> {
        fs::create_dir_all(folder).map_err(|source| OutboxError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        if let Some(kind) = share_without_locks(folder) {
            return Err(OutboxError::NetworkShare {
                path: folder.to_owned(),
                kind,
            });
        }
        let path = folder.join("outbox.sqlite");
        let database = match open(&path) {
            Err(e) if is_damage(&e) => replace(&path, &e),
            opened => opened,
        };
        let state = database.and_then(|database| State::new(path.clone(), limits, database));
        let state = state.map_err(|source| {
            let path = path.clone();
            if sqlite::is_in_use(&source) {
                OutboxError::InUse { path }
            } else {
                OutboxError::Open { path, source }
            }
        })?;
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        })
    }

    /// Keeps messages until they are acknowledged: all of them or none, on the disk when this returns.
    ///
    /// # Errors
    /// The disk does not take them. Those that may not be lost are then held in memory and sent all the same, the
    /// others are thrown away.
    pub fn put(&self, messages: Vec<Message>) -> Result<(), OutboxError> {
        self.put_with_bookmarks(messages, &[])
    }

    /// As [`put`](Self::put), and in the same transaction writes down bookmarks, by name: how far their owner is with
    /// what these messages come from. So after a crash nothing is decided twice and nothing is passed over.
    ///
    /// # Errors
    /// As [`put`](Self::put); the bookmarks are then not written.
    pub fn put_with_bookmarks(
        &self,
        messages: Vec<Message>,
        bookmarks: &[(&str, &str)],
    ) -> Result<(), OutboxError> {
        if messages.is_empty() && bookmarks.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let stored = state.put(messages, bookmarks);
        state.keep_limits();
        drop(state);
        self.changed.notify_one();
        stored
    }

    /// Tells the age of messages by another clock than the one on the wall.
    pub fn set_clock(&self, now: impl Fn() -> Timestamp + Send + 'static) {
        self.state().now = Box::new(now);
    }

    /// Has `copied` called with each message that is put in from now on, and again with each that is revised, under the
    /// same key. It is called with the outbox locked and must neither wait nor use it.
    pub fn set_copied(&self, copied: impl Fn(Key, &Message) + Send + 'static) {
        self.state().copied = Some(Box::new(copied));
    }

    /// Now, by the clock that tells the age of messages.
    pub fn now(&self) -> Timestamp {
        (self.state().now)()
    }

    /// Changes messages of a kind that were put in since the outbox was opened and wait, sent or not: each for which
    /// `revise` gives another one. Returns how many.
    ///
    /// # Errors
    /// The file cannot be read or the disk does not take them; some may be changed then.
    pub fn revise(
        &self,
        kind: Kind,
        revise: impl Fn(&Message) -> Option<Message>,
    ) -> Result<usize, OutboxError> {
        let mut state = self.state();
        let revised = state.revise(kind, revise);
        revised.map_err(|source| state.not_durable(source))
    }

    /// The value of a bookmark.
    pub fn bookmark(&self, name: &str) -> Option<String> {
        let state = self.state();
        let value = state
            .database
            .query_row(
                "SELECT value FROM bookmark WHERE name = ?1",
                [name],
                |row| row.get(0),
            )
            .optional();
        value.unwrap_or_else(|e| {
            warn!("the outbox has lost the bookmark {name}: {e}");
            None
        })
    }

    /// Messages of a kind that were ever stored in this file, by this process and those before it.
    pub fn ever_stored(&self, kind: Kind) -> u64 {
        let state = self.state();
        let total = state
            .database
            .query_row(
                "SELECT messages FROM total WHERE kind = ?1",
                [kind.code()],
                |row| row.get(0),
            )
            .optional();
        total.ok().flatten().unwrap_or(0)
    }

    /// The next message to send, which is under way from now on; `None` where nothing fits into the window. Messages
    /// that have expired are thrown away where they may be.
    pub fn take(&self, window: &Window) -> Option<(Key, Message)> {
        let mut state = self.state();
        let under_way = state.under_way.values();
        let bytes: usize = under_way.clone().map(|m| m.bytes).sum();
        let crops = under_way.filter(|m| m.kind == Kind::Crop).count();
        if state.under_way.len() >= window.messages || (bytes > 0 && bytes >= window.bytes) {
            return None;
        }
        for kind in Kind::ALL {
            if kind == Kind::Crop && crops >= window.crops {
                continue;
            }
            if let Some((key, message)) = state.first(kind) {
                if bytes > 0 && bytes + message.payload.len() > window.bytes {
                    return None;
                }
                state.taken.insert(kind, key.0 + 1);
                let bytes = message.payload.len();
                state.under_way.insert(key, UnderWay { kind, bytes });
                return Some((key, message));
            }
        }
        None
    }

    /// Lets go of a message that the broker has.
    pub fn acknowledge(&self, key: Key) {
        let mut state = self.state();
        if let Some(UnderWay { kind, .. }) = state.under_way.remove(&key) {
            state.acknowledged += 1;
            state.forget(kind, key);
        }
    }

    /// Throws a message away that is under way and may be lost; one that may not is set aside instead.
    pub fn give_up(&self, key: Key) {
        let mut state = self.state();
        match state.under_way.remove(&key) {
            Some(UnderWay { kind, .. }) if kind.is_dropped() => {
                state.dropped += 1;
                state.forget(kind, key);
            }
            Some(_) => {
                state.set_aside.insert(key);
            }
            None => {}
        }
    }

    /// What is under way waits again, in its old place.
    pub fn put_back(&self, key: Key) {
        let mut state = self.state();
        if let Some(UnderWay { kind, .. }) = state.under_way.remove(&key) {
            state.taken.remove(&kind);
        }
    }

    /// Keeps a message that is under way, and does not send it again before [`retry_set_aside`](Self::retry_set_aside).
    pub fn set_aside(&self, key: Key) {
        let mut state = self.state();
        if state.under_way.remove(&key).is_some() {
            state.set_aside.insert(key);
        }
    }

    /// What was set aside waits again, in its old place.
    pub fn retry_set_aside(&self) {
        let mut state = self.state();
        if !state.set_aside.is_empty() {
            state.set_aside.clear();
            state.taken.clear();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// After a connection was lost: what was under way waits again, in its old place.
    pub fn send_again(&self) {
        let mut state = self.state();
        state.under_way.clear();
        state.taken.clear();
    }

    /// Gives messages that are in memory alone to the disk, where it takes them again.
    ///
    /// # Errors
    /// It does not.
    pub fn settle(&self) -> Result<(), OutboxError> {
        self.state().settle()
    }

    /// How much it holds.
    pub fn depth(&self) -> Depth {
        self.state().depth()
    }

    /// Waits until something was put in or may be sent again since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic may leave half done is a count; the file is whole after each transaction.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(path: PathBuf, limits: Limits, database: Connection) -> rusqlite::Result<Self> {
        let mut counts = BTreeMap::new();
        let next;
        {
            let mut rows = database.prepare(
                "SELECT kind, count(*), coalesce(sum(length(payload)), 0) FROM message GROUP BY kind",
            )?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            for row in rows {
                let (code, messages, bytes): (i64, u64, u64) = row?;
                if let Some(kind) = Kind::from_code(code) {
                    counts.insert(kind, Counts { messages, bytes });
                }
            }
            next =
                database.query_row("SELECT coalesce(max(key), 0) + 1 FROM message", [], |r| {
                    r.get(0)
                })?;
        }
        Ok(Self {
            path,
            limits,
            database,
            next,
            volatile: BTreeMap::new(),
            under_way: BTreeMap::new(),
            set_aside: BTreeSet::new(),
            taken: BTreeMap::new(),
            counts,
            acknowledged: 0,
            dropped: 0,
            own: next,
            now: Box::new(Timestamp::now),
            copied: None,
        })
    }

    fn put(
        &mut self,
        messages: Vec<Message>,
        bookmarks: &[(&str, &str)],
    ) -> Result<(), OutboxError> {
        let keyed: Vec<(Key, Message)> = messages
            .into_iter()
            .map(|message| {
                self.next += 1;
                (Key(self.next - 1), message)
            })
            .collect();
        let durable = keyed.iter().any(|(_, message)| !message.kind.is_dropped());
        let stored = self.settle_inner().and_then(|()| {
            let messages = keyed.iter().map(|(key, message)| (*key, message));
            self.write(durable || !bookmarks.is_empty(), |transaction| {
                for (key, message) in messages.clone() {
                    insert(transaction, key, message)?;
                }
                for (name, value) in bookmarks {
                    transaction.execute(
                        "INSERT OR REPLACE INTO bookmark (name, value) VALUES (?1, ?2)",
                        [*name, *value],
                    )?;
                }
                Ok(())
            })
        });
        if let Some(copied) = &self.copied {
            for (key, message) in &keyed {
                copied(*key, message);
            }
        }
        for (key, message) in keyed {
            if stored.is_ok() || !message.kind.is_dropped() {
                self.count(message.kind, message.payload.len());
            } else {
                self.dropped += 1;
                continue;
            }
            if stored.is_err() {
                self.volatile.insert((message.kind, key), message);
            }
        }
        stored.map_err(|source| self.not_durable(source))
    }

    fn not_durable(&self, source: rusqlite::Error) -> OutboxError {
        OutboxError::NotDurable {
            path: self.path.clone(),
            source,
        }
    }

    fn settle(&mut self) -> Result<(), OutboxError> {
        self.settle_inner()
            .map_err(|source| self.not_durable(source))
    }

    fn settle_inner(&mut self) -> rusqlite::Result<()> {
        if self.volatile.is_empty() {
            return Ok(());
        }
        let volatile = std::mem::take(&mut self.volatile);
        let stored = self.write(true, |transaction| {
            for ((_, key), message) in &volatile {
                insert(transaction, *key, message)?;
            }
            Ok(())
        });
        if stored.is_err() {
            self.volatile = volatile;
        }
        stored
    }

    /// One transaction, whose success means that it is on the disk where it is `durable`. A damaged file is replaced
    /// and the transaction tried once more.
    fn write(
        &mut self,
        durable: bool,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let attempt = |database: &mut Connection| {
            let synchronous = if durable { "FULL" } else { "NORMAL" };
            database.pragma_update(None, "synchronous", synchronous)?;
            let transaction = database.transaction()?;
            work(&transaction)?;
            transaction.commit()
        };
        match attempt(&mut self.database) {
            Err(e) if is_damage(&e) => {
                self.replace(&e)?;
                attempt(&mut self.database)
            }
            done => done,
        }
    }

    /// Puts a new file into the place of a damaged one.
    fn replace(&mut self, damage: &rusqlite::Error) -> rusqlite::Result<()> {
        // The damaged file has to be closed before it can be moved: SQLite holds locks by process.
        self.database = Connection::open_in_memory()?;
        let database = replace(&self.path, damage)?;
        let fresh = Self::new(self.path.clone(), self.limits, database)?;
        self.database = fresh.database;
        self.counts = fresh.counts;
        let volatile = self.volatile.iter();
        let volatile = volatile.map(|((kind, _), message)| (*kind, message.payload.len()));
        for (kind, bytes) in volatile.collect::<Vec<_>>() {
            self.count(kind, bytes);
        }
        self.next = self.next.max(fresh.next);
        self.taken.clear();
        Ok(())
    }

    fn revise(
        &mut self,
        kind: Kind,
        revise: impl Fn(&Message) -> Option<Message>,
    ) -> rusqlite::Result<usize> {
        let mut revised = 0;
        for ((of, key), message) in &mut self.volatile {
            if *of == kind
                && let Some(other) = revise(message)
            {
                *message = other;
                if let Some(copied) = &self.copied {
                    copied(*key, message);
                }
                revised += 1;
            }
        }
        let mut from = Key(self.own);
        // One by one, so that crops need not all be in memory.
        while let Some(key) = first_key(&self.database, kind, from)? {
            from = Key(key.0 + 1);
            let Some(message) = read(&self.database, key)? else {
                continue;
            };
            let Some(other) = revise(&message) else {
                continue;
            };
            self.write(!kind.is_dropped(), |transaction| {
                transaction.execute(
                    "UPDATE message SET time = ?2, payload = ?3 WHERE key = ?1",
                    params![key.0, other.time.as_millisecond(), other.payload],
                )?;
                Ok(())
            })?;
            if let Some(copied) = &self.copied {
                copied(key, &other);
            }
            if let Some(counts) = self.counts.get_mut(&kind) {
                counts.bytes = (counts.bytes + other.payload.len() as u64)
                    .saturating_sub(message.payload.len() as u64);
            }
            revised += 1;
        }
        Ok(revised)
    }

    /// The first message of a kind that is not under way and not set aside. What has expired goes.
    fn first(&mut self, kind: Kind) -> Option<(Key, Message)> {
        loop {
            let (key, message) = self.first_of_any_age(kind)?;
            let age = (self.now)().duration_since(message.time);
            let expired = message
                .expiry
                .is_some_and(|expiry| age > expiry.try_into().unwrap_or(age));
            if !(expired && kind.is_dropped()) {
                return Some((key, message));
            }
            self.dropped += 1;
            self.forget(kind, key);
        }
    }

    fn first_of_any_age(&mut self, kind: Kind) -> Option<(Key, Message)> {
        loop {
            let from = Key(self.taken.get(&kind).copied().unwrap_or(0));
            let stored = match first_key(&self.database, kind, from) {
                Ok(stored) => stored,
                Err(e) if self.is_replaced_after(&e) => continue,
                Err(_) => return None,
            };
            let in_memory = self.volatile.range((kind, from)..).next();
            let in_memory = in_memory.filter(|((of, _), _)| *of == kind);
            let in_memory = in_memory.map(|((_, key), _)| *key);
            let key = [stored, in_memory].into_iter().flatten().min()?;
            if !self.under_way.contains_key(&key) && !self.set_aside.contains(&key) {
                if let Some(message) = self.volatile.get(&(kind, key)) {
                    return Some((key, message.clone()));
                }
                match read(&self.database, key) {
                    Ok(Some(message)) => return Some((key, message)),
                    Ok(None) => {}
                    Err(e) if self.is_replaced_after(&e) => continue,
                    Err(_) => return None,
                }
            }
            self.taken.insert(kind, key.0 + 1);
        }
    }

    /// Whether the file could not be read because it is damaged, and a new one stands in its place.
    fn is_replaced_after(&mut self, error: &rusqlite::Error) -> bool {
        error!("the outbox {} cannot be read: {error}", self.path.display());
        if !is_damage(error) {
            return false;
        }
        let replaced = self.replace(error);
        if let Err(e) = &replaced {
            error!("a new outbox cannot be begun: {e}");
        }
        replaced.is_ok()
    }

    /// Takes a message out of the file, or of memory.
    fn forget(&mut self, kind: Kind, key: Key) {
        self.set_aside.remove(&key);
        let bytes = match self.volatile.remove(&(kind, key)) {
            Some(message) => Some(message.payload.len() as u64),
            // Without waiting for the disk: a removal that is lost with the power means that it is sent once more.
            None => {
                let mut bytes = None;
                let removed = self.database.pragma_update(None, "synchronous", "NORMAL");
                let removed = removed.and_then(|()| {
                    bytes = self
                        .database
                        .prepare_cached(
                            "DELETE FROM message WHERE key = ?1 RETURNING length(payload)",
                        )?
                        .query_row([key.0], |row| row.get(0))
                        .optional()?;
                    Ok(())
                });
                if let Err(e) = removed {
                    // Sent again at the next start.
                    warn!("the outbox cannot let go of a message: {e}");
                    self.set_aside.insert(key);
                }
                bytes
            }
        };
        if let (Some(bytes), Some(counts)) = (bytes, self.counts.get_mut(&kind)) {
            counts.messages = counts.messages.saturating_sub(1);
            counts.bytes = counts.bytes.saturating_sub(bytes);
        }
    }

    /// Throws away what may be lost until the rest is within the limits.
    fn keep_limits(&mut self) {
        for kind in Kind::DROPPED {
            let mut from = Key(0);
            while self.bytes() > self.limits.bytes {
                let Ok(Some(key)) = first_key(&self.database, kind, from) else {
                    break;
                };
                from = Key(key.0 + 1);
                if self.under_way.contains_key(&key) {
                    continue;
                }
                self.forget(kind, key);
                self.dropped += 1;
            }
        }
    }

    fn count(&mut self, kind: Kind, bytes: usize) {
        let counts = self.counts.entry(kind).or_default();
        counts.messages += 1;
        counts.bytes += bytes as u64;
    }

    /// Of all messages.
    fn bytes(&self) -> u64 {
        self.counts.values().map(|counts| counts.bytes).sum()
    }

    fn depth(&self) -> Depth {
        let of = |kind| self.counts.get(&kind).copied().unwrap_or_default();
        let all: u64 = self.counts.values().map(|c| c.messages).sum();
        let set_aside = self.set_aside.len() as u64;
        Depth {
            sightings: of(Kind::Sighting).messages,
            crops: of(Kind::Crop).messages,
            crop_bytes: of(Kind::Crop).bytes,
            messages: all.saturating_sub(set_aside),
            bytes: self.bytes(),
            under_way: self.under_way.len() as u64,
            set_aside,
            not_durable: self.volatile.len() as u64,
            acknowledged: self.acknowledged,
            dropped: self.dropped,
        }
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = sqlite::open(path)?;
    let found: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(found),
        ));
    }
    database.execute_batch(SCHEMA)?;
    Ok(database)
}

/// Moves a damaged file aside, begins anew, and copies over what can be read of the old one.
fn replace(path: &Path, damage: &rusqlite::Error) -> rusqlite::Result<Connection> {
    let aside = sqlite::move_aside(path);
    let mut database = open(path)?;
    let saved = salvage(&aside, &mut database);
    error!(
        "the outbox was damaged ({damage}): it is kept as {}, and a new one was begun with {saved} messages that could be read",
        aside.display()
    );
    Ok(database)
}

/// Reads from both ends towards the damage; returns how many messages were saved.
fn salvage(damaged: &Path, into: &mut Connection) -> usize {
    let Ok(from) = Connection::open(damaged) else {
        return 0;
    };
    let mut saved = 0;
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT {COLUMNS} FROM message ORDER BY key {order}");
        let Ok(mut rows) = from.prepare(&sql) else {
            continue;
        };
        let Ok(rows) = rows.query_map([], message) else {
            continue;
        };
        let Ok(transaction) = into.transaction() else {
            continue;
        };
        let read = rows.map_while(Result::ok).flatten();
        let written = read
            .filter(|(key, message)| insert(&transaction, *key, message).is_ok())
            .count();
        if transaction.commit().is_ok() {
            saved += written;
        }
    }
    saved
}

const COLUMNS: &str = "key, kind, topic, content_type, time, expiry, payload";

fn insert(transaction: &Transaction<'_>, key: Key, message: &Message) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO message (key, kind, topic, content_type, time, expiry, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            key.0,
            message.kind.code(),
            message.topic,
            message.content_type,
            message.time.as_millisecond(),
            message.expiry.map(|expiry| expiry.as_secs()),
            message.payload,
        ])?;
    transaction
        .prepare_cached(
            "INSERT INTO total (kind, messages) VALUES (?1, 1)
             ON CONFLICT (kind) DO UPDATE SET messages = messages + 1",
        )?
        .execute([message.kind.code()])?;
    Ok(())
}

/// `None` for a kind that this version of the program does not know.
fn message(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<(Key, Message)>> {
    let code: i64 = row.get(1)?;
    let Some(kind) = Kind::from_code(code) else {
        return Ok(None);
    };
    let expiry: Option<u64> = row.get(5)?;
    Ok(Some((
        Key(row.get(0)?),
        Message {
            kind,
            topic: row.get(2)?,
            content_type: row.get(3)?,
            time: Timestamp::from_millisecond(row.get(4)?).unwrap_or_default(),
            expiry: expiry.map(Duration::from_secs),
            payload: row.get(6)?,
        },
    )))
}

fn read(database: &Connection, key: Key) -> rusqlite::Result<Option<Message>> {
    let found = database
        .prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE key = ?1"))?
        .query_row([key.0], message)
        .optional()?;
    Ok(found.flatten().map(|(_, message)| message))
}

fn first_key(database: &Connection, kind: Kind, from: Key) -> rusqlite::Result<Option<Key>> {
    database
        .prepare_cached(
            "SELECT key FROM message WHERE kind = ?1 AND key >= ?2 ORDER BY key LIMIT 1",
        )?
        .query_row([kind.code(), from.0], |row| row.get(0).map(Key))
        .optional()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Seek, SeekFrom, Write};

    use proptest::prelude::*;

    use super::*;

    fn message(kind: Kind, topic: &str, bytes: usize) -> Message {
        Message {
            kind,
            topic: topic.to_owned(),
            content_type: "application/json".to_owned(),
            time: Timestamp::now().round(jiff::Unit::Millisecond).unwrap(),
            expiry: Some(Duration::from_secs(3600)),
            payload: vec![7; bytes],
        }
    }

    const WIDE: Window = Window {
        messages: usize::MAX,
        bytes: usize::MAX,
        crops: usize::MAX,
    };

    fn open(folder: &Path) -> Outbox {
        Outbox::open(folder, Limits::default()).unwrap()
    }

    #[test]
    fn whoever_copies_hears_each_message_and_each_change_under_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        let (tell, told) = std::sync::mpsc::channel();
        outbox.set_copied(move |key, message| tell.send((key, message.clone())).unwrap());
        let (first, second) = (
            message(Kind::Sighting, "a", 3),
            message(Kind::Effort, "b", 4),
        );
        outbox.put(vec![first.clone(), second.clone()]).unwrap();
        let revised = Message {
            payload: vec![9; 5],
            ..first.clone()
        };
        let changed = outbox
            .revise(Kind::Sighting, |_| Some(revised.clone()))
            .unwrap();
        assert_eq!(changed, 1);
        let told: Vec<_> = told.try_iter().collect();
        let (a, b) = (told[0].0, told[1].0);
        assert!(a.number() < b.number());
        assert_eq!(
            told,
            [(a, first), (b, second.clone()), (a, revised.clone())]
        );
        // Copies are what is sent, under the same keys.
        assert_eq!(take_all(&outbox), [(a, revised), (b, second)]);
    }

    fn take_all(outbox: &Outbox) -> Vec<(Key, Message)> {
        std::iter::from_fn(|| outbox.take(&WIDE)).collect()
    }

    fn topics(taken: &[(Key, Message)]) -> Vec<&str> {
        taken.iter().map(|(_, m)| m.topic.as_str()).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Kind, usize),
        Take,
        Acknowledge(usize),
        PutBack(usize),
        SetAside(usize),
        Retry,
        Lost,
        /// The program ends without a word and is started again.
        Killed,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..5_usize, 0..60_usize).prop_map(|(kind, n)| Step::Put(Kind::ALL[kind], n)),
            4 => Just(Step::Take),
            2 => (0..4_usize).prop_map(Step::Acknowledge),
            1 => (0..4_usize).prop_map(Step::PutBack),
            1 => (0..4_usize).prop_map(Step::SetAside),
            1 => Just(Step::Retry),
            1 => Just(Step::Lost),
            1 => Just(Step::Killed),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever link and program do: what may not be lost is there until it is acknowledged, the rest keeps its
        /// bound, kinds go in order and older messages first, and what is counted is what is there.
        #[test]
        fn no_sighting_is_lost(steps in prop::collection::vec(step(), 0..80)) {
            let folder = tempfile::tempdir().unwrap();
            let limits = Limits { bytes: 150 };
            let mut outbox = Outbox::open(folder.path(), limits).unwrap();
            let mut owed = BTreeSet::new();
            let mut under_way: Vec<(Key, Message)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(kind, bytes) => {
                        let topic = number.to_string();
                        if !kind.is_dropped() {
                            owed.insert(topic.clone());
                        }
                        outbox.put(vec![message(kind, &topic, bytes)]).unwrap();
                    }
                    Step::Take => under_way.extend(outbox.take(&WIDE)),
                    Step::Acknowledge(i) if i < under_way.len() => {
                        let (key, message) = under_way.remove(i);
                        outbox.acknowledge(key);
                        owed.remove(&message.topic);
                    }
                    Step::PutBack(i) if i < under_way.len() => outbox.put_back(under_way.remove(i).0),
                    Step::SetAside(i) if i < under_way.len() => outbox.set_aside(under_way.remove(i).0),
                    Step::Acknowledge(_) | Step::PutBack(_) | Step::SetAside(_) => {}
                    Step::Retry => outbox.retry_set_aside(),
                    Step::Lost => {
                        outbox.send_again();
                        under_way.clear();
                    }
                    Step::Killed => {
                        let acknowledged = outbox.depth();
                        drop(outbox);
                        outbox = Outbox::open(folder.path(), limits).unwrap();
                        under_way.clear();
                        prop_assert_eq!(outbox.depth().bytes, acknowledged.bytes);
                    }
                }
                prop_assert_eq!(outbox.depth().under_way, under_way.len() as u64);
            }
            outbox.send_again();
            outbox.retry_set_aside();
            let depth = outbox.depth();
            let left = take_all(&outbox);
            prop_assert!(left.is_sorted_by_key(|(key, m)| (m.kind, *key)));
            prop_assert_eq!(depth.messages, left.len() as u64);
            prop_assert_eq!(depth.bytes, left.iter().map(|(_, m)| m.payload.len() as u64).sum::<u64>());
            let held: BTreeSet<_> = left.iter().map(|(_, m)| m.topic.clone()).collect();
            prop_assert!(owed.is_subset(&held), "{:?} of {:?}", owed, held);
        }
    }

    #[test]
    fn what_is_put_is_there_after_a_restart_with_all_that_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        let put: Vec<_> = Kind::ALL
            .into_iter()
            .rev()
            .map(|kind| message(kind, &format!("{kind:?}"), 3))
            .collect();
        outbox
            .put_with_bookmarks(put.clone(), &[("frames", "17"), ("flight", "{}")])
            .unwrap();
        drop(outbox);
        let outbox = open(folder.path());
        assert_eq!(outbox.bookmark("frames").as_deref(), Some("17"));
        assert_eq!(outbox.ever_stored(Kind::Sighting), 1);
        let taken: Vec<_> = take_all(&outbox).into_iter().map(|(_, m)| m).collect();
        assert_eq!(taken, put.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn the_outbox_belongs_to_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path());
        let second = Outbox::open(folder.path(), Limits::default());
        let error = second.err().unwrap();
        assert!(matches!(error, OutboxError::InUse { .. }), "{error}");
    }

    #[test]
    fn crops_go_first_when_there_is_no_room_and_sightings_never() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path(), Limits { bytes: 1000 }).unwrap();
        for i in 0..10 {
            let crop = message(Kind::Crop, &format!("crop {i}"), 300);
            let track = message(Kind::Track, &format!("track {i}"), 10);
            let sighting = message(Kind::Sighting, &format!("sighting {i}"), 100);
            outbox.put(vec![crop, track, sighting]).unwrap();
        }
        let left = take_all(&outbox);
        let sightings: Vec<_> = (0..10).map(|i| format!("sighting {i}")).collect();
        assert_eq!(
            topics(&left),
            sightings.iter().map(String::as_str).collect::<Vec<_>>()
        );
        assert_eq!(outbox.depth().dropped, 20);
    }

    #[test]
    fn a_window_holds_so_many_bytes_and_one_crop() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        let window = Window {
            messages: 3,
            bytes: 1000,
            crops: 1,
        };
        let crop = |name| message(Kind::Crop, name, 600);
        outbox.put(vec![crop("a"), crop("b")]).unwrap();
        let (a, _) = outbox.take(&window).unwrap();
        assert!(outbox.take(&window).is_none(), "a second crop");
        let name = |topic, bytes| message(Kind::Sighting, topic, bytes);
        outbox
            .put(vec![name("fits", 300), name("not", 300)])
            .unwrap();
        let (fits, taken) = outbox.take(&window).unwrap();
        assert_eq!(taken.topic, "fits");
        assert!(
            outbox.take(&window).is_none(),
            "more bytes than the window has"
        );
        outbox.acknowledge(fits);
        outbox.acknowledge(a);
        outbox.put(vec![name("large", 5000)]).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| outbox.take(&window)).collect();
        assert_eq!(topics(&taken), ["not"]);
        outbox.acknowledge(taken[0].0);
        let taken: Vec<_> = std::iter::from_fn(|| outbox.take(&window)).collect();
        assert_eq!(topics(&taken), ["large"], "a large message goes alone");
    }

    #[test]
    fn what_is_too_old_is_not_sent_but_a_sighting_is_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        let old = |kind| Message {
            time: Timestamp::UNIX_EPOCH,
            ..message(kind, "old", 10)
        };
        let of_the_future = Message {
            time: "2100-01-01T00:00:00Z".parse().unwrap(),
            ..message(Kind::Crop, "of the future", 10)
        };
        outbox
            .put(vec![old(Kind::Crop), old(Kind::Sighting), of_the_future])
            .unwrap();
        let taken = take_all(&outbox);
        assert_eq!(topics(&taken), ["old", "of the future"]);
        assert_eq!(taken[0].1.kind, Kind::Sighting);
        assert_eq!(outbox.depth().dropped, 1);
    }

    #[test]
    fn a_full_disk_costs_crops_and_no_sighting() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        outbox
            .put(vec![message(Kind::Sighting, "before", 100)])
            .unwrap();
        let set_pages = |pages: i64| {
            let state = outbox.state();
            let update = |_: &rusqlite::Row<'_>| Ok(());
            state
                .database
                .pragma_update_and_check(None, "max_page_count", pages, update)
                .unwrap();
        };
        // SQLite then says what it says when the disk has no room.
        set_pages(1);
        for i in 0..50 {
            let sighting = message(Kind::Sighting, &i.to_string(), 1000);
            let stored = outbox.put(vec![sighting, message(Kind::Crop, "crop", 1000)]);
            if i == 49 {
                let error = stored.unwrap_err().to_string();
                assert!(error.contains("held in memory"), "{error}");
            }
        }
        assert!(outbox.depth().not_durable > 40, "{:?}", outbox.depth());
        assert!(outbox.settle().is_err());
        let (key, first) = outbox.take(&WIDE).unwrap();
        assert_eq!(first.topic, "before");
        outbox.acknowledge(key);
        // A message that only memory has is sent too.
        let (key, _) = outbox.take(&WIDE).unwrap();
        outbox.acknowledge(key);
        set_pages(1 << 20);
        outbox.settle().unwrap();
        assert_eq!(outbox.depth().not_durable, 0);
        drop(outbox);
        let outbox = open(folder.path());
        let left = take_all(&outbox);
        let sightings = left
            .iter()
            .filter(|(_, m)| m.kind == Kind::Sighting)
            .count();
        assert_eq!(sightings, 49);
    }

    fn damage(folder: &Path, from: u64, bytes: &[u8]) {
        let path = folder.join("outbox.sqlite");
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(from)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn damaged_files(folder: &Path) -> usize {
        let names = fs::read_dir(folder).unwrap();
        names
            .filter(|f| {
                f.as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .contains("damaged")
            })
            .count()
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_what_can_be_read_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        for i in 0..200 {
            outbox
                .put(vec![message(Kind::Sighting, &i.to_string(), 1000)])
                .unwrap();
        }
        drop(outbox);
        // Twenty pages in the middle of some sixty.
        damage(folder.path(), 20 * 4096, &[0xa5; 20 * 4096]);
        let outbox = open(folder.path());
        let left = take_all(&outbox);
        assert!(left.len() >= 60, "{} messages were saved", left.len());
        assert!(left.len() < 200);
        outbox
            .put(vec![message(Kind::Sighting, "new", 10)])
            .unwrap();
        assert_eq!(outbox.take(&WIDE).unwrap().1.topic, "new");
        assert_eq!(damaged_files(folder.path()), 1);

        drop(outbox);
        damage(folder.path(), 0, b"this is no database and never was one");
        let outbox = open(folder.path());
        assert!(outbox.depth().is_empty());
        assert_eq!(damaged_files(folder.path()), 2);
    }

    #[test]
    fn damage_that_shows_in_flight_does_not_end_it() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path());
        for i in 0..2000 {
            outbox
                .put(vec![message(Kind::Sighting, &i.to_string(), 4000)])
                .unwrap();
        }
        // Of the pages that SQLite has not in its memory, all but the first are damaged.
        let length = fs::metadata(folder.path().join("outbox.sqlite"))
            .unwrap()
            .len();
        damage(folder.path(), 4096, &vec![0x5a; length as usize - 4096]);
        for i in 0..20 {
            let topic = format!("after {i}");
            outbox
                .put(vec![message(Kind::Sighting, &topic, 100)])
                .unwrap();
        }
        let left = take_all(&outbox);
        let after: Vec<_> = topics(&left)
            .into_iter()
            .filter(|t| t.starts_with("after"))
            .collect();
        assert_eq!(after.len(), 20);
        assert_eq!(damaged_files(folder.path()), 1);
    }
}
