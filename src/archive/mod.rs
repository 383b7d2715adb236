//! The archive of a flight: pictures with what is known of them, on a disk of the aircraft's box.
//!
//! Every frame with a whale, every so many of a camera without one, every frame that could not be looked at, and the
//! crops that are sent to the ground; beside each a file of JSON ([`ArchiveRecord`]) that says why it is kept, and in it
//! EXIF and XMP; and in the index each message on sightings, effort and the aircraft's place, word for word, so that what the
//! link lost can be read from the disk. A picture that came encoded is not encoded again. A raw frame becomes a JPEG of
//! quality 95: recognition sees eight bits of red, green and blue too, and the sensor's bytes of two cameras would fill a
//! disk within hours.
//!
//! - [`Archive`]: what the service gives pictures to, which never waits, and the stage that writes them.
//! - [`Store`]: the files and their index; says what always holds.
//!
//! Sightings come first: a picture is given to the archive after its sighting is in the outbox, and waits in memory for the
//! disk. A program that is killed loses the few that wait; what it had begun to write is whole or gone.
//!
//! Nothing here knows of networks, brokers or positions: the record comes with the picture.

mod error;
mod index;
mod metadata;
mod mount;
mod names;
mod pins;
mod queue;
mod store;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::ImageFormat;
use link::archive::{ArchiveRecord, KeptBecause};
use link::message::ArchiveHealth;
use recognition::geometry::Rectangle;
use recognition::pixels::{Image, Photograph, encode_jpeg};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::clock::Correction;

pub use error::ArchiveError;
use index::Entry;
pub use index::{ArchivedMessage, Total, Worth};
pub use metadata::without_metadata;
use queue::Queue;
pub use store::{Deleted, Found, Listed, Store, Written};

/// Where the archive lies and how much it may hold.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its folder.
    pub folder: PathBuf,
    /// Most bytes on the disk, with the index; four fifths of the disk where nobody says.
    pub budget: Option<u64>,
    /// One of so many frames of a camera that show no whale is kept; 0 for none.
    pub every: u64,
    /// At or above the folder, where a disk has to be mounted; nothing is written while none is.
    pub mount: Option<PathBuf>,
}

/// By default, one of so many frames without a whale is kept: about one a minute of each camera.
pub const EVERY: u64 = 60;

impl Settings {
    /// An archive in this folder, all else as by default.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            budget: None,
            every: EVERY,
            mount: None,
        }
    }
}

/// A picture for the archive.
pub struct Picture {
    /// What is known of it; its name is filled in.
    pub record: ArchiveRecord,
    /// Its pixels.
    pub pixels: Pixels,
}

/// The pixels of a picture.
pub enum Pixels {
    /// A frame as its camera gave it.
    Frame(Image),
    /// A JPEG that was made of a part of a frame.
    Crop(Vec<u8>),
}

impl Picture {
    fn worth(&self) -> Worth {
        match self.record.kept_because {
            KeptBecause::Whale => Worth::Whale,
            KeptBecause::Crop => Worth::Crop,
            KeptBecause::EveryNth | KeptBecause::NotLookedAt | KeptBecause::Other => Worth::Empty,
        }
    }

    /// What it takes of memory.
    fn bytes(&self) -> usize {
        match &self.pixels {
            Pixels::Crop(jpeg) => jpeg.len(),
            Pixels::Frame(Image::Encoded(photograph)) => photograph.bytes().len(),
            Pixels::Frame(Image::Raw(raw)) => raw.memory(),
            Pixels::Frame(Image::Decoded(photograph)) => photograph.pixels.len(),
        }
    }
}

/// What became of the pictures of this flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames written, with a whale or without.
    pub frames: u64,
    /// Of these, those with a whale.
    pub whales: u64,
    /// Crops written.
    pub crops: u64,
    /// Frames without a whale that were to be kept and are not: the disk was slow, full, or away.
    pub empty_lost: u64,
    /// Pictures with a whale, likewise.
    pub whales_lost: u64,
    /// What was deleted to make room.
    pub deleted: Deleted,
}

impl From<Counts> for ArchiveHealth {
    fn from(counts: Counts) -> Self {
        Self {
            frames: counts.frames,
            whales: counts.whales,
            crops: counts.crops,
            empty_lost: counts.empty_lost,
            whales_lost: counts.whales_lost,
            empty_deleted: counts.deleted.empty,
            whales_deleted: counts.deleted.whales,
        }
    }
}

/// Most bytes and pictures that wait for the disk.
const MOST_BYTES: usize = 256 << 20;
const MOST: usize = 64;
/// Most messages that wait for the disk: those of some hours.
const MOST_MESSAGES: usize = 50_000;
/// Longest wait for a picture before it is looked whether the flight has ended.
const TICK: Duration = Duration::from_millis(50);
/// Pause before an archive that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(2);
const JPEG_QUALITY: u8 = 95;

/// See the [module](self).
pub struct Archive {
    settings: Settings,
    queue: Queue<Picture>,
    /// Of this run: numbers of messages are its own.
    run: Uuid,
    /// Messages that wait for the disk.
    messages: Mutex<VecDeque<(i64, ArchivedMessage)>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// Frames without a whale since one was kept, by camera.
    empty: BTreeMap<String, u64>,
    messages_lost: u64,
    /// Why the archive is not open, or what it did not take.
    problem: Option<String>,
    /// The flight of the last picture.
    flight: Option<Uuid>,
    /// What puts right the times that were told before they could be trusted, when it is known.
    correction: Option<Correction>,
}

impl Archive {
    /// Nothing is opened before [`run`](Self::run).
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            queue: Queue::new(MOST_BYTES, MOST),
            run: Uuid::now_v7(),
            messages: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Whether this frame of a camera, which shows no whale, is one of those that are kept: the first and each so many
    /// after it.
    pub fn wants_empty(&self, camera: &str) -> bool {
        if self.settings.every == 0 {
            return false;
        }
        let mut state = self.state();
        let since = state.empty.entry(camera.to_owned()).or_default();
        let is_wanted = *since == 0;
        *since = (*since + 1) % self.settings.every;
        is_wanted
    }

    /// Takes a picture to be written. It never waits: where too many do, what is worth least is dropped and counted.
    pub fn give(&self, picture: Picture) {
        self.state().flight = Some(picture.record.event_id);
        let (worth, bytes) = (picture.worth(), picture.bytes());
        let dropped = self.queue.put(worth, bytes, picture);
        self.lost(&dropped, "the disk is too slow");
    }

    /// Takes a message to be kept; one of the same number takes its place. It never waits: where too many do, the oldest
    /// are dropped and counted.
    pub fn give_message(&self, number: i64, message: ArchivedMessage) {
        let mut waiting = self.messages();
        waiting.push_back((number, message));
        let dropped = waiting.len() > MOST_MESSAGES && waiting.pop_front().is_some();
        drop(waiting);
        if dropped {
            self.state().messages_lost += 1;
        }
    }

    fn messages(&self) -> MutexGuard<'_, VecDeque<(i64, ArchivedMessage)>> {
        // A queue is whole after each call.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time has become known: pictures of this flight that were written without a trusted date get it in their
    /// records, when none waits to be written; what is written from now on is named by it.
    pub fn put_right(&self, correction: Correction) {
        self.state().correction = Some(correction);
    }

    /// What became of the pictures.
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// What is wrong, in words.
    pub fn problem(&self) -> Option<String> {
        let state = self.state();
        let messages_lost = state.messages_lost;
        let Counts {
            empty_lost,
            whales_lost,
            deleted,
            ..
        } = state.counts;
        let mut said = Vec::from_iter(state.problem.clone());
        if whales_lost > 0 || (state.problem.is_some() && empty_lost > 0) {
            said.push(format!(
                "not archived in this flight: {whales_lost} pictures with a whale, {empty_lost} frames without"
            ));
        }
        if messages_lost > 0 {
            said.push(format!(
                "not archived in this flight: {messages_lost} messages, which the ground has by the link alone"
            ));
        }
        if deleted.whales > 0 {
            said.push(format!(
                "{} older pictures with a whale were deleted to make room: copy the archive, or pin what has to stay",
                deleted.whales
            ));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// Writes pictures until the flight has `landed` and none waits. While the archive cannot be opened, pictures wait and
    /// those of least worth are lost; `tell` hears what is wrong, or that nothing is.
    pub fn run(&self, landed: &CancellationToken, tell: impl Fn(Option<String>)) {
        let mut writer = Writer {
            archive: self,
            store: None,
            again: None,
            tried: None,
            undated: None,
        };
        let mut told = None;
        loop {
            // Asked before: what was given until the flight landed is looked for once more.
            let has_landed = landed.is_cancelled();
            let wrote = writer.step();
            let problem = self.problem();
            if told.as_ref() != Some(&problem) {
                // One alarm, then quiet.
                let was_well = told.as_ref().is_none_or(Option::is_none);
                if let (Some(said), true) = (&problem, was_well) {
                    error!("archive: {said}");
                }
                tell(problem.clone());
                told = Some(problem);
            }
            if has_landed && !wrote {
                break;
            }
        }
        let mut left = self.queue.clear();
        left.extend(writer.again.iter().map(Picture::worth));
        self.lost(&left, "the flight ended before the archive could be opened");
        let left = std::mem::take(&mut *self.messages()).len();
        self.state().messages_lost += left as u64;
        tell(self.problem());
    }

    fn lost(&self, worths: &[Worth], why: &str) {
        if worths.is_empty() {
            return;
        }
        let mut state = self.state();
        for worth in worths {
            match worth {
                Worth::Empty => state.counts.empty_lost += 1,
                Worth::Whale | Worth::Crop => state.counts.whales_lost += 1,
            }
        }
        state.problem.get_or_insert_with(|| why.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts are whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the stage holds.
struct Writer<'a> {
    archive: &'a Archive,
    store: Option<Store>,
    /// A picture that the disk did not take, for one more attempt.
    again: Option<Picture>,
    /// When it was last tried to open the archive.
    tried: Option<Instant>,
    /// Pictures whose records wait for their date; `None` before the archive was asked for them.
    undated: Option<Vec<Entry>>,
}

impl Writer<'_> {
    /// Writes a picture, or waits a while; returns whether there may be more to write.
    fn step(&mut self) -> bool {
        if self.store.is_none() && !self.open() {
            std::thread::sleep(TICK);
            return false;
        }
        let wrote_messages = self.write_messages();
        let (picture, is_second_attempt) = match self.again.take() {
            Some(picture) => (picture, true),
            None => match self.archive.queue.take(TICK) {
                Some(picture) => (picture, false),
                None => return self.date_one() || wrote_messages,
            },
        };
        let correction = self.archive.state().correction;
        let Some(store) = &mut self.store else {
            return false;
        };
        match write(store, &picture, correction) {
            Ok(written) => self.has_written(&picture, &written),
            Err(e) if e.is_full() || e.is_of_the_picture() || is_second_attempt => {
                self.archive.state().problem = Some(e.to_string());
                self.archive.lost(&[picture.worth()], "");
                if !e.is_full() && !e.is_of_the_picture() {
                    self.store = None;
                }
            }
            Err(e) => {
                warn!("archive: {e}; it is opened anew");
                self.archive.state().problem = Some(e.to_string());
                self.again = Some(picture);
                self.store = None;
                self.tried = Some(Instant::now());
            }
        }
        true
    }

    /// Writes the messages that wait; returns whether there were any. Those that the disk does not take wait on.
    fn write_messages(&mut self) -> bool {
        let Some(store) = &mut self.store else {
            return false;
        };
        let mut waiting = Vec::from(std::mem::take(&mut *self.archive.messages()));
        if waiting.is_empty() {
            return false;
        }
        match store.keep_messages(self.archive.run, &waiting) {
            Ok(()) => true,
            Err(e) => {
                self.archive.state().problem = Some(e.to_string());
                let mut since = self.archive.messages();
                waiting.extend(since.drain(..));
                let dropped = waiting.len().saturating_sub(MOST_MESSAGES);
                *since = waiting.split_off(dropped).into();
                drop(since);
                self.archive.state().messages_lost += dropped as u64;
                false
            }
        }
    }

    /// Dates a picture that was written when its date was not known; returns whether there may be more.
    fn date_one(&mut self) -> bool {
        let (flight, correction) = {
            let state = self.archive.state();
            (state.flight, state.correction)
        };
        let (Some(store), Some(flight), Some(correction)) = (&mut self.store, flight, correction)
        else {
            return false;
        };
        let mut date = || {
            if self.undated.is_none() {
                let undated = store.undated(flight)?;
                if !undated.is_empty() {
                    info!("archive: {} records get their dates", undated.len());
                }
                self.undated = Some(undated);
            }
            let undated = self.undated.as_mut().and_then(Vec::pop);
            undated.map_or(Ok(false), |entry| {
                store.date(&entry, &correction).map(|_| true)
            })
        };
        date().unwrap_or_else(|e: ArchiveError| {
            // The rest keep their flight times, with which they can be dated by hand.
            warn!("archive: records get no dates: {e}");
            self.undated = Some(Vec::new());
            false
        })
    }

    /// Whether the archive is open after another attempt, which is made now and then.
    fn open(&mut self) -> bool {
        if self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return false;
        }
        self.tried = Some(Instant::now());
        let opened = Store::open(&self.archive.settings);
        let mut state = self.archive.state();
        match opened {
            Ok(store) => {
                state.problem = None;
                self.store = Some(store);
                self.undated = None;
            }
            Err(e) => state.problem = Some(e.to_string()),
        }
        self.store.is_some()
    }

    fn has_written(&self, picture: &Picture, written: &Written) {
        let mut state = self.archive.state();
        state.problem = None;
        let counts = &mut state.counts;
        counts.deleted.empty += written.deleted.empty;
        counts.deleted.whales += written.deleted.whales;
        match picture.worth() {
            Worth::Crop => counts.crops += 1,
            worth => {
                counts.frames += 1;
                counts.whales += u64::from(worth == Worth::Whale);
            }
        }
    }
}

fn write(
    store: &mut Store,
    picture: &Picture,
    correction: Option<Correction>,
) -> Result<Written, ArchiveError> {
    let mut record = picture.record.clone();
    if let Some(correction) = correction {
        correction.put_right(&mut record.time, &mut record.time_quality);
    }
    let encoded = match &picture.pixels {
        Pixels::Crop(jpeg) => Cow::Borrowed(&**jpeg),
        Pixels::Frame(Image::Encoded(photograph)) => Cow::Borrowed(photograph.bytes()),
        Pixels::Frame(Image::Raw(raw)) => {
            record.encoded = Some(format!("{} to JPEG {JPEG_QUALITY}", raw.format()));
            let (width, height) = raw.size();
            let whole = raw.decode_part(&Rectangle::of_image(width, height), 1.0);
            Cow::Owned(jpeg(
                &whole.map_err(|e| ArchiveError::Encode(e.to_string()))?,
            )?)
        }
        Pixels::Frame(Image::Decoded(photograph)) => {
            record.encoded = Some(format!("RGB to JPEG {JPEG_QUALITY}"));
            Cow::Owned(jpeg(photograph)?)
        }
    };
    let ending = match image::guess_format(&encoded) {
        Ok(ImageFormat::Png) => "png",
        Ok(ImageFormat::Tiff) => "tif",
        _ => "jpg",
    };
    let content = metadata::with_metadata(&encoded, &record);
    store.put(record, picture.worth(), ending, &content)
}

fn jpeg(photograph: &Photograph) -> Result<Vec<u8>, ArchiveError> {
    encode_jpeg(&photograph.pixels, JPEG_QUALITY).map_err(|e| ArchiveError::Encode(e.to_string()))
}

/// What the tests of this room share.
#[cfg(test)]
mod test_record {
    use jiff::Timestamp;
    use link::archive::{ArchiveRecord, ArchivedHead, KeptBecause};
    use link::message::{
        AltitudeDatum, Decision, FrameReference, Georeference, Head, PixelPosition, Place,
        TimeQuality,
    };
    use uuid::Uuid;

    /// A frame of the left camera, taken at `time`, with one whale.
    pub fn record(number: u64, time: &str) -> ArchiveRecord {
        let time: Timestamp = time.parse().unwrap();
        ArchiveRecord {
            kept_because: KeptBecause::Whale,
            picture: String::new(),
            event_id: Uuid::from_u128(7),
            platform: "test".into(),
            camera: "left".into(),
            frame: FrameReference {
                number,
                file: None,
                width_pixels: 96,
                height_pixels: 64,
                incomplete: None,
                damaged: None,
            },
            time,
            time_quality: TimeQuality::Satellite,
            flight_time: time,
            georeference: Georeference {
                place: Some(Place {
                    decimal_latitude: 41.504_166_7,
                    decimal_longitude: -69.999_999_9,
                    coordinate_uncertainty_in_meters: 17.0,
                    fix_age_seconds: 0.2,
                }),
                altitude_meters: Some(304.8),
                altitude_datum: Some(AltitudeDatum::Sea),
                focal_length_millimeters: Some(50.0),
                ..Georeference::default()
            },
            direction_degrees: Some(271.25),
            effort: None,
            heads: vec![ArchivedHead {
                occurrence_id: Uuid::from_u128(11),
                head: Head {
                    bonnet_pixels: PixelPosition { x: 20.0, y: 30.0 },
                    blowhead_pixels: PixelPosition { x: 40.0, y: 30.0 },
                    head_length_pixels: 20.0,
                    confidence: 0.75,
                },
                decision: Decision::Identified,
                organism_id: Some("Snow <cone> & \u{7}".into()),
                provisional_id: None,
            }],
            encoded: None,
            failure: None,
            identified_by: "callosity, test".into(),
        }
    }
}
