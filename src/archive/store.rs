//! The archive's files.
//!
//! # What always holds, also after `kill -9` or a loss of power at any moment
//! - A file is only ever deleted that the index says we wrote, that is as long as it says, and that lies in real folders of
//!   the archive, on its disk. All else in the folder is somebody else's.
//! - A picture in the archive is whole, and so is its record: both are written under other names, synchronised, and then
//!   renamed, the picture last; a file of that name is never replaced.
//! - Each file of ours is in the index: its entry is on the disk before the file is made, and goes after it. Entries of
//!   which the files may not be whole are marked; the next [`Store::open`] finishes or removes them, and looks at no
//!   others.
//! - What others ask to be pinned ([`Store::ask`]) is looked at before anything is deleted, and while it is.
//! - A record that gets its date later is as long as before, so that the index holds: one that waits for its date has room
//!   for it. It is written under another name and renamed, as at first.
//! - The bytes on the disk are counted before each write, with those of the index.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use link::archive::ArchiveRecord;
use tracing::{info, warn};
use uuid::Uuid;

use super::index::{ArchivedMessage, Entry, Index, NewEntry, Total, Worth, bytes_on_disk};
use super::mount;
use super::names::Name;
use super::pins::{self, Request, Requests};
use super::{ArchiveError, Settings};
use crate::clock::{Correction, is_trusted};
use crate::sqlite;

const INDEX: &str = "index.sqlite";
/// Bytes that a record without a trusted date has more than it needs: for its date.
const ROOM_FOR_DATE: usize = 64;
/// So many files may have the name that a picture should have.
const ATTEMPTS: u32 = 1000;
/// Free bytes that are left on the disk whatever the budget: a part of it, and at most a gigabyte.
const LEFT_FREE: (u64, u64) = (50, 1 << 30);

/// An archive that is open.
pub struct Store {
    folder: PathBuf,
    mount: Option<PathBuf>,
    budget: u64,
    device: Option<u64>,
    index: Index,
    /// Called before each step that changes something; tests have it fail or end the program there.
    before_step: Box<dyn FnMut() -> io::Result<()> + Send>,
}

/// What was deleted to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Frames without a whale.
    pub empty: u64,
    /// Pictures with a whale.
    pub whales: u64,
}

/// A picture with its record, where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Grows with each picture that is written.
    pub key: i64,
    /// The picture.
    pub picture: PathBuf,
    /// The JSON file beside it.
    pub record: PathBuf,
}

/// What became of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its name, below the archive's folder.
    pub picture: String,
    /// What was deleted for it.
    pub deleted: Deleted,
}

impl Store {
    /// Opens an archive or begins one; finishes what was cut short. It takes as long for a million files as for one.
    ///
    /// # Errors
    /// The disk that it should lie on is not mounted, it lies where SQLite cannot work, another process has it, or its
    /// index cannot be opened or written.
    pub fn open(settings: &Settings) -> Result<Self, ArchiveError> {
        let folder = settings.folder.clone();
        check_mounted(&folder, settings.mount.as_deref())?;
        fs::create_dir_all(&folder).map_err(file_error("make the folder", &folder))?;
        if let Some(kind) = sqlite::share_without_locks(&folder) {
            return Err(ArchiveError::NetworkShare { folder, kind });
        }
        let path = folder.join(INDEX);
        let index = Index::open(&path).map_err(|source| {
            if sqlite::is_in_use(&source) {
                ArchiveError::InUse {
                    folder: folder.clone(),
                }
            } else {
                ArchiveError::Index { path, source }
            }
        })?;
        let budget = settings
            .budget
            .unwrap_or_else(|| space(&folder).map_or(u64::MAX, |space| space.size / 5 * 4));
        let mut store = Self {
            device: mount::device(&folder),
            mount: settings.mount.clone(),
            folder,
            budget,
            index,
            before_step: Box::new(|| Ok(())),
        };
        store.finish_what_was_cut_short()?;
        store.take_requests()?;
        Ok(store)
    }

    /// Asks the process that has the archive open to pin pictures, or to let them be deleted again, as by
    /// [`pin`](Self::pin). When this returns it deletes nothing any more that is to stay. Where no process has it open, the
    /// next one that has does as is asked.
    ///
    /// # Errors
    /// There is no archive, or the request cannot be written.
    pub fn ask(folder: &Path, what: &str, pinned: bool) -> Result<(), ArchiveError> {
        let index = folder.join(INDEX);
        if !index.is_file() {
            return Err(ArchiveError::NoArchive {
                folder: folder.to_owned(),
            });
        }
        let path = pins::path(&index);
        let request = Request {
            what: what.to_owned(),
            pinned,
        };
        Requests::lock(&path)
            .and_then(|mut requests| requests.add(&request))
            .map_err(file_error("write in", &path))
    }

    /// Does what others have asked for; they wait as long as what is returned is there.
    fn take_requests(&mut self) -> Result<Requests, ArchiveError> {
        let path = pins::path(self.index.path());
        let failed = || file_error("read", &path);
        let mut requests = Requests::lock(&path).map_err(failed())?;
        let waiting = requests.waiting().map_err(failed())?;
        if waiting.is_empty() {
            return Ok(requests);
        }
        for Request { what, pinned } in waiting {
            self.step("write in", INDEX)?;
            match self.pin(&what, pinned)? {
                0 => warn!("the archive has no flight, sighting or picture {what} to pin or unpin"),
                n => {
                    info!("{what}: {n} pictures of the archive are pinned: {pinned}, as was asked")
                }
            }
        }
        self.step("clear", INDEX)?;
        requests.clear().map_err(failed())?;
        Ok(requests)
    }

    /// The pictures of a flight that have no date in their name, for [`date`](Self::date).
    ///
    /// # Errors
    /// The index cannot be read.
    pub(super) fn undated(&self, flight: Uuid) -> Result<Vec<Entry>, ArchiveError> {
        self.in_index(self.index.undated(flight))
    }

    /// Writes the date into the record of a picture that was written when it was not known; its name stays. Returns whether
    /// it did: a record that has its date, is of another clock, or is not as it was written stays.
    ///
    /// # Errors
    /// The disk is away, or cannot be written. The record is as before then.
    pub(super) fn date(
        &mut self,
        entry: &Entry,
        correction: &Correction,
    ) -> Result<bool, ArchiveError> {
        self.check_disk()?;
        if self.find(&entry.record, entry.record_bytes) != Found::Ours {
            return Ok(false);
        }
        let path = self.folder.join(&entry.record);
        let said = fs::read(&path).map_err(file_error("read", &path))?;
        let Some(dated) = dated(&said, correction) else {
            return Ok(false);
        };
        self.step("write in", INDEX)?;
        self.in_index(self.index.begin_dating(entry.key))?;
        let written = self.replace_record(entry, &dated);
        if written.is_err() {
            self.give_up_dating(entry)?;
        }
        written?;
        self.step("write in", INDEX)?;
        self.in_index(self.index.set_complete(entry.key, true))?;
        Ok(true)
    }

    fn replace_record(&mut self, entry: &Entry, record: &[u8]) -> Result<(), ArchiveError> {
        let part = self.part(entry, &entry.record);
        self.write_synchronised(&part, record)?;
        let path = self.folder.join(&entry.record);
        self.step("rename to", &entry.record)?;
        fs::rename(&part, &path).map_err(file_error("rename to", &path))?;
        let folder = self.folder_of(entry);
        self.step("synchronise", &entry.record)?;
        synchronise(&folder).map_err(file_error("synchronise", &folder))
    }

    /// The record stays as it was, or is dated already: renaming is done or is not.
    fn give_up_dating(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let part = self.part(entry, &entry.record);
        match fs::remove_file(&part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("delete", &part)(e));
            }
            _ => {}
        }
        self.in_index(self.index.set_complete(entry.key, true))
    }

    /// Looks whether the disk is there on which this archive lies.
    ///
    /// # Errors
    /// It is not mounted, or the archive does not lie on it.
    pub fn check_mounted(settings: &Settings) -> Result<(), ArchiveError> {
        check_mounted(&settings.folder, settings.mount.as_deref())
    }

    /// Opens an archive that is there.
    ///
    /// # Errors
    /// There is none in this folder, or as [`open`](Self::open).
    pub fn open_existing(folder: &Path) -> Result<Self, ArchiveError> {
        if !folder.join(INDEX).is_file() {
            return Err(ArchiveError::NoArchive {
                folder: folder.to_owned(),
            });
        }
        Self::open(&Settings {
            budget: Some(u64::MAX),
            ..Settings::new(folder.to_owned())
        })
    }

    /// Most bytes that the archive may take.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes that the archive takes, with its index.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn bytes(&self) -> Result<u64, ArchiveError> {
        Ok(self.in_index(self.index.picture_bytes())? + self.index.bytes())
    }

    /// Pictures of a worth.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn total(&self, worth: Worth) -> Result<Total, ArchiveError> {
        self.in_index(self.index.total(worth))
    }

    /// Pictures that are never deleted to make room.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn pinned(&self) -> Result<Total, ArchiveError> {
        self.in_index(self.index.pinned())
    }

    /// Flights, oldest first: identifier, frames with a whale, all pictures.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn flights(&self) -> Result<Vec<(String, u64, Total)>, ArchiveError> {
        self.in_index(self.index.flights())
    }

    /// Pins pictures, or lets them be deleted again: of a flight or a sighting by its identifier, or one by its name below
    /// the archive's folder. Returns how many.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn pin(&self, what: &str, pinned: bool) -> Result<usize, ArchiveError> {
        self.in_index(self.index.pin(what, pinned))
    }

    /// Compares index and files: calls `tell` with the name of each file that is missing or not as it was written.
    /// Returns how many pictures there are. Reads no file's content.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn verify(&self, mut tell: impl FnMut(&str, Found)) -> Result<u64, ArchiveError> {
        let mut pictures = 0;
        let looked = self.index.for_each(|entry| {
            pictures += 1;
            for (name, bytes) in files(&entry) {
                match self.find(name, bytes) {
                    Found::Ours => {}
                    found => tell(name, found),
                }
            }
        });
        self.in_index(looked)?;
        Ok(pictures)
    }

    /// Keeps messages of a run of the program, each by a number that is its own within the run: one of a number that is
    /// there takes its place. Room is made for them as for crops.
    ///
    /// # Errors
    /// There is no room, the disk is away, or the index cannot be written; none of them is kept then.
    pub fn keep_messages(
        &mut self,
        run: Uuid,
        messages: &[(i64, ArchivedMessage)],
    ) -> Result<(), ArchiveError> {
        self.check_disk()?;
        let bytes = messages
            .iter()
            .map(|(_, message)| message.payload.len() as u64 + 200);
        self.make_room(bytes.sum(), Worth::Crop)?;
        self.step("write in", INDEX)?;
        let kept = self.index.keep_messages(run, messages);
        self.in_index(kept)
    }

    /// How many messages there are.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn messages(&self) -> Result<u64, ArchiveError> {
        self.in_index(self.index.messages())
    }

    /// At most so many messages behind a key, in the order in which they were first said, with their keys. 0 is before all.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn messages_after(
        &self,
        key: i64,
        most: u32,
    ) -> Result<Vec<(i64, ArchivedMessage)>, ArchiveError> {
        self.in_index(self.index.messages_after(key, most))
    }

    /// At most so many pictures of a worth behind a key, in the order in which they were written. 0 is before all.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn pictures_after(
        &self,
        worth: Worth,
        key: i64,
        most: u32,
    ) -> Result<Vec<Listed>, ArchiveError> {
        let entries = self.in_index(self.index.pictures_after(worth, key, most))?;
        let listed = entries.into_iter().map(|entry| Listed {
            key: entry.key,
            picture: self.folder.join(entry.picture),
            record: self.folder.join(entry.record),
        });
        Ok(listed.collect())
    }

    /// Writes a picture with its record, in which its name is filled in. Room is made for it by deleting, oldest first,
    /// what is worth less and then what is worth as much.
    ///
    /// # Errors
    /// There is no room, the disk is away, or it cannot be written. Nothing is left of the picture then.
    pub fn put(
        &mut self,
        mut record: ArchiveRecord,
        worth: Worth,
        ending: &str,
        picture: &[u8],
    ) -> Result<Written, ArchiveError> {
        self.check_disk()?;
        let name = Name::of(&record);
        let stem = self.free_name(&name, ending)?;
        record.picture = format!("{stem}.{ending}");
        let mut said = serde_json::to_vec_pretty(&record).expect("a record is plain values");
        if !is_trusted(record.time_quality) {
            said.resize(said.len() + ROOM_FOR_DATE, b' ');
        }
        let (picture_bytes, record_bytes) = (picture.len() as u64, said.len() as u64);
        let deleted = self.make_room(bytes_on_disk(picture_bytes, record_bytes), worth)?;
        self.make_folders(&name.folder)?;
        let entry = Entry {
            key: 0,
            picture: format!("{}/{}", name.folder, record.picture),
            record: format!("{}/{stem}.json", name.folder),
            picture_bytes,
            record_bytes,
        };
        let occurrences: Vec<Uuid> = record.heads.iter().map(|h| h.occurrence_id).collect();
        self.step("write in", INDEX)?;
        let begun = self.index.begin(&NewEntry {
            picture: &entry.picture,
            record: &entry.record,
            picture_bytes,
            record_bytes,
            worth,
            flight: record.event_id,
            occurrences: &occurrences,
        });
        let entry = Entry {
            key: self.in_index(begun)?,
            ..entry
        };
        if let Err(e) = self.write_files(&entry, &said, picture) {
            if let Err(left) = self.remove_unfinished(&entry) {
                warn!("{left}; it is tried again when the archive is opened next");
            }
            return Err(e);
        }
        Ok(Written {
            picture: entry.picture,
            deleted,
        })
    }

    fn write_files(
        &mut self,
        entry: &Entry,
        record: &[u8],
        picture: &[u8],
    ) -> Result<(), ArchiveError> {
        let parts = [
            (&entry.record, self.part(entry, &entry.record), record),
            (&entry.picture, self.part(entry, &entry.picture), picture),
        ];
        for (_, part, content) in &parts {
            self.write_synchronised(part, content)?;
        }
        for (name, part, _) in &parts {
            let to = self.folder.join(name);
            self.step("rename to", name)?;
            rename_to_free(part, &to).map_err(file_error("rename to", &to))?;
        }
        let folder = self.folder_of(entry);
        self.step("synchronise", &entry.picture)?;
        synchronise(&folder).map_err(file_error("synchronise", &folder))?;
        self.step("write in", INDEX)?;
        self.in_index(self.index.set_complete(entry.key, true))
    }

    fn write_synchronised(&mut self, path: &Path, content: &[u8]) -> Result<(), ArchiveError> {
        let mut opening = OpenOptions::new();
        opening.write(true).create_new(true);
        self.step("make", "a file")?;
        let mut file = opening.open(path).map_err(file_error("make", path))?;
        // In two parts, so that tests can end the program between them.
        let (first, second) = content.split_at(content.len() / 2);
        for half in [first, second] {
            self.step("write", "a file")?;
            file.write_all(half).map_err(file_error("write", path))?;
        }
        self.step("synchronise", "a file")?;
        file.sync_all().map_err(file_error("synchronise", path))
    }

    /// A stem that neither the index nor the disk has. A clock that jumped, or a program that was started again, may give
    /// two pictures one name.
    fn free_name(&self, name: &Name, ending: &str) -> Result<String, ArchiveError> {
        for attempt in 0..ATTEMPTS {
            let stem = name.attempt(attempt);
            let mut is_free = true;
            for ending in [ending, "json"] {
                let path = format!("{}/{stem}.{ending}", name.folder);
                is_free &= !self.in_index(self.index.knows(&path))?
                    && fs::symlink_metadata(self.folder.join(path)).is_err();
            }
            if is_free {
                return Ok(stem);
            }
        }
        Err(ArchiveError::File {
            action: "find a free name for",
            path: self.folder.join(&name.folder).join(&name.stem),
            source: io::ErrorKind::AlreadyExists.into(),
        })
    }

    /// Deletes until a picture of so many bytes has room.
    fn make_room(&mut self, bytes: u64, worth: Worth) -> Result<Deleted, ArchiveError> {
        let mut deleted = Deleted::default();
        if self.is_over(bytes)?.is_none() {
            return Ok(deleted);
        }
        // Held until all is deleted.
        let _requests = self.take_requests()?;
        while let Some(limit) = self.is_over(bytes)? {
            let mut oldest = None;
            for less in Worth::ALL.into_iter().filter(|less| *less <= worth) {
                oldest = self.in_index(self.index.oldest(less))?;
                if let Some(entry) = &oldest {
                    self.delete(entry)?;
                    match less {
                        Worth::Empty => deleted.empty += 1,
                        Worth::Whale | Worth::Crop => deleted.whales += 1,
                    }
                    break;
                }
            }
            if oldest.is_none() {
                return Err(ArchiveError::NoRoom {
                    folder: self.folder.clone(),
                    bytes,
                    limit,
                });
            }
        }
        Ok(deleted)
    }

    /// In words, what would be over its limit with so many bytes more.
    fn is_over(&self, bytes: u64) -> Result<Option<String>, ArchiveError> {
        let used = self.bytes()?;
        if used.saturating_add(bytes) > self.budget {
            return Ok(Some(format!("{used} of {} bytes are used", self.budget)));
        }
        let Some(Space { size, free }) = space(&self.folder) else {
            return Ok(None);
        };
        let left_free = (size / LEFT_FREE.0).min(LEFT_FREE.1);
        let is_over = free < bytes.saturating_add(left_free);
        Ok(
            is_over
                .then(|| format!("the disk has {free} free bytes and {left_free} are left free")),
        )
    }

    /// Deletes the files of an entry that are ours, and the entry.
    fn delete(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        // Were the program to end between both files, the rest would be found. A disk that is full does not take this.
        self.step("write in", INDEX)?;
        let _ = self.index.set_complete(entry.key, false);
        for (name, bytes) in files(entry) {
            match self.find(name, bytes) {
                Found::Ours => {
                    self.step("delete", name)?;
                    let path = self.folder.join(name);
                    fs::remove_file(&path).map_err(file_error("delete", &path))?;
                }
                Found::Missing => {}
                Found::Changed => {
                    warn!(
                        "{name} in the archive is not as it was written: it is left to whoever changed it"
                    );
                }
            }
        }
        self.forget(entry)
    }

    /// Takes an entry out of the index when its files are gone from the disk, so that none comes back unknown after a loss
    /// of power.
    fn forget(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let folder = self.folder_of(entry);
        self.step("synchronise", &entry.picture)?;
        match synchronise(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("synchronise", &folder)(e));
            }
            _ => {}
        }
        self.step("write in", INDEX)?;
        self.in_index(self.index.remove(entry.key))
    }

    /// Finishes pictures that were whole, and removes those that were not.
    fn finish_what_was_cut_short(&mut self) -> Result<(), ArchiveError> {
        for entry in self.in_index(self.index.being_dated())? {
            self.give_up_dating(&entry)?;
        }
        let unfinished = self.in_index(self.index.unfinished())?;
        for entry in &unfinished {
            let is_whole = files(entry).iter().all(|(name, bytes)| {
                !self.part(entry, name).exists() && self.find(name, *bytes) == Found::Ours
            });
            if is_whole {
                self.step("write in", INDEX)?;
                self.in_index(self.index.set_complete(entry.key, true))?;
            } else {
                self.remove_unfinished(entry)?;
            }
        }
        if !unfinished.is_empty() {
            info!(
                "{} pictures of the archive were cut short",
                unfinished.len()
            );
        }
        Ok(())
    }

    /// Removes what there is of a picture that is not whole.
    fn remove_unfinished(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        for (name, bytes) in files(entry) {
            let part = self.part(entry, name);
            let found = match part.symlink_metadata() {
                // Renaming takes it away: what has the file's name is not ours.
                Ok(_) => Some(part),
                Err(_) => (self.find(name, bytes) == Found::Ours).then(|| self.folder.join(name)),
            };
            if let Some(path) = found {
                self.step("delete", name)?;
                fs::remove_file(&path).map_err(file_error("delete", &path))?;
            }
        }
        self.forget(entry)
    }

    /// Whether a file that the index names is there and can only be ours.
    fn find(&self, name: &str, bytes: u64) -> Found {
        let mut path = self.folder.clone();
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            let Ok(file) = path.symlink_metadata() else {
                return Found::Missing;
            };
            let is_last = parts.peek().is_none();
            let is_as_written = if is_last {
                file.is_file() && file.len() == bytes
            } else {
                file.is_dir()
            };
            if !is_as_written {
                return Found::Changed;
            }
        }
        if mount::device(&path) == self.device {
            Found::Ours
        } else {
            Found::Changed
        }
    }

    /// Makes the folders of a picture.
    fn make_folders(&mut self, below: &str) -> Result<(), ArchiveError> {
        let mut path = self.folder.clone();
        for part in below.split('/') {
            let above = path.clone();
            path.push(part);
            match path.symlink_metadata() {
                Ok(there) if there.is_dir() && mount::device(&path) == self.device => continue,
                Ok(_) => return Err(ArchiveError::LeadsElsewhere { path }),
                Err(_) => {}
            }
            self.step("make", part)?;
            fs::create_dir(&path).map_err(file_error("make the folder", &path))?;
            synchronise(&above).map_err(file_error("synchronise", &above))?;
        }
        Ok(())
    }

    /// Whether the folder still lies on the disk on which it was opened.
    fn check_disk(&self) -> Result<(), ArchiveError> {
        check_mounted(&self.folder, self.mount.as_deref())?;
        let is_same = self.device.is_some() && mount::device(&self.folder) == self.device;
        if is_same && self.index.path().exists() {
            return Ok(());
        }
        Err(ArchiveError::OtherDisk {
            folder: self.folder.clone(),
        })
    }

    fn folder_of(&self, entry: &Entry) -> PathBuf {
        let path = self.folder.join(&entry.picture);
        path.parent().map_or(path.clone(), Path::to_owned)
    }

    /// What a file of an entry is called until it is whole.
    fn part(&self, entry: &Entry, name: &str) -> PathBuf {
        let part = if name == entry.picture {
            "picture"
        } else {
            "record"
        };
        let name = self.index.unfinished_name(entry.key, part);
        self.folder_of(entry).join(name)
    }

    fn step(&mut self, action: &'static str, name: &str) -> Result<(), ArchiveError> {
        (self.before_step)().map_err(file_error(action, &self.folder.join(name)))
    }

    fn in_index<T>(&self, done: rusqlite::Result<T>) -> Result<T, ArchiveError> {
        done.map_err(|source| ArchiveError::Index {
            path: self.index.path().to_owned(),
            source,
        })
    }
}

/// How a file is that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// As it was written.
    Ours,
    /// It is not there.
    Missing,
    /// Of another length, no file, or behind a link: it is not ours any more.
    Changed,
}

/// The files of an entry with their lengths, in the order in which they are deleted.
fn files(entry: &Entry) -> [(&str, u64); 2] {
    [
        (&entry.picture, entry.picture_bytes),
        (&entry.record, entry.record_bytes),
    ]
}

/// A record with its date, as long as before; `None` where it has one or gets none.
fn dated(said: &[u8], correction: &Correction) -> Option<Vec<u8>> {
    let mut record: ArchiveRecord = serde_json::from_slice(said).ok()?;
    if !correction.put_right(&mut record.time, &mut record.time_quality) {
        return None;
    }
    let mut dated = serde_json::to_vec_pretty(&record).expect("a record is plain values");
    if dated.len() > said.len() {
        warn!(
            "{} has no room for its date, and stays without one",
            record.picture
        );
        return None;
    }
    dated.resize(said.len(), b' ');
    Some(dated)
}

fn check_mounted(folder: &Path, mount: Option<&Path>) -> Result<(), ArchiveError> {
    if let Some(mount) = mount {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !absolute(folder).starts_with(absolute(mount)) {
            return Err(ArchiveError::NotBelow {
                folder: folder.to_owned(),
                mount: mount.to_owned(),
            });
        }
    }
    match mount::missing(folder, mount) {
        None => Ok(()),
        Some(mount) => Err(ArchiveError::NotMounted {
            folder: folder.to_owned(),
            mount,
        }),
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::File {
        action,
        path,
        source,
    }
}

/// Renames a file to a name that nobody has.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;

        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems do not know how.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            renamed => return Ok(renamed?),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Has the names in a folder on the disk.
fn synchronise(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Bytes of a disk.
struct Space {
    size: u64,
    free: u64,
}

#[cfg(target_os = "linux")]
fn space(folder: &Path) -> Option<Space> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(Space {
        size: disk.f_blocks * disk.f_frsize,
        free: disk.f_bavail * disk.f_frsize,
    })
}

/// It cannot be told: the budget alone counts.
#[cfg(not(target_os = "linux"))]
fn space(_: &Path) -> Option<Space> {
    None
}

#[cfg(test)]
mod tests;
