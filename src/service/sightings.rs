//! From what was recognised in a frame to messages, by way of the [tracker](crate::sighting).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use link::archive::ArchivedHead;
use link::codec::Encoding;
use link::message::{
    BasisOfRecord, CROP_EXPIRY, Candidate, Decision, FrameReference, Georeference, Head,
    Incomplete, JPEG, PixelPosition, SIGHTING_EXPIRY, Sighting,
};
use link::topic::Platform;
use recognition::geometry::{HeadCrop, Landmarks, Point, Rectangle};
use recognition::pixels::{Faults, OUTSIDE_HEAD_PHOTOGRAPH, encode_jpeg, warp};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use uuid::Uuid;

use super::aloft::{Known, Places};
use super::{About, Recognised, Recogniser};
use crate::camera::Frame;
use crate::clock::{Clock, Stamp};
use crate::outbox::{Kind, Message, Outbox, OutboxError};
use crate::position::View;
use crate::sighting::{
    FrameRecord, HeadRecord, Named, Observed, SeenFrame, SightingChange, Summary, Tracker,
    decision, provisional_id,
};

/// Size of a crop in pixels; un-squeezed, so twice as wide as high.
const CROP: (u32, u32) = (448, 224);

const CROP_QUALITY: u8 = 80;

/// Name of the bookmark that holds a flight that was not ended in order.
const BOOKMARK: &str = "flight";

/// A program that begins so long after its flight was cut short goes on with that flight.
const SAME_FLIGHT: Duration = Duration::from_secs(30 * 60);

/// The sightings of a flight: who flies, what is tracked, and how it is said.
pub(super) struct Sightings {
    platform: Platform,
    encoding: Encoding,
    flight: OpenFlight,
    record: Option<File>,
    places: Places,
}

/// What must outlive the program that is killed in flight: kept in the outbox, in the same transaction as the messages
/// that it has led to, so that no sighting is begun twice and none is left without its end.
#[derive(Clone, Serialize, Deserialize)]
struct OpenFlight {
    event_id: Uuid,
    tracker: Tracker,
    #[serde(default)]
    known: Known,
}

/// What a frame has led to.
pub(super) struct Decided {
    messages: Vec<Message>,
    /// What these messages say.
    pub told: Vec<Sighting>,
    /// The flight after it.
    flight: OpenFlight,
    /// Whether it has to be kept.
    changed: bool,
    /// What is to be drawn once it is stored.
    pub pictures: Vec<Picture>,
    /// The heads of the frame, as the archive keeps them.
    pub heads: Vec<ArchivedHead>,
}

/// A picture that is to be made of a sighting's head.
pub(super) struct Picture {
    pub sighting: Uuid,
    time: Timestamp,
    landmarks: Landmarks,
}

impl Sightings {
    /// Goes on with a flight that was cut short not long ago; one that was cut short earlier is ended. `record` names a
    /// file to which a line is added for each frame that is looked at.
    pub fn begin(
        platform: Platform,
        encoding: Encoding,
        lost_after: Duration,
        record: Option<&Path>,
        about: &About,
        outbox: &Outbox,
        places: Places,
    ) -> Self {
        let mut sightings = Self {
            platform,
            encoding,
            flight: OpenFlight {
                event_id: Uuid::now_v7(),
                tracker: Tracker::new(lost_after),
                known: Known::new(),
            },
            record: record.and_then(open_record),
            places,
        };
        let Some(mut earlier) = read_flight(outbox) else {
            return sightings;
        };
        earlier.tracker = earlier.tracker.with_lost_after(lost_after);
        let clock = sightings.clock().clone();
        // The program was started again, or the box was.
        let memory = clock.earlier();
        let stamp = |time| match memory {
            Some(memory) => memory.at_flight_time(time),
            None => clock.at_flight_time(time),
        };
        let seen = earlier.tracker.clock().map(|seen| stamp(seen).time);
        let age = seen.map(|seen| clock.now().time.duration_since(seen));
        let same = age.is_none_or(|age| age.unsigned_abs() < SAME_FLIGHT);
        let open = earlier.tracker.open();
        let new = std::mem::replace(&mut sightings.flight, earlier);
        if same {
            info!("going on with a flight that was cut short, with {open} animals in view");
        }
        if !same || memory.is_some() {
            info!("{open} sightings of a flight that was cut short end");
            sightings.end_by(&stamp, about, outbox);
        }
        if !same {
            sightings.flight = new;
        }
        sightings
    }

    /// The flight.
    pub fn event_id(&self) -> Uuid {
        self.flight.event_id
    }

    /// The flight's clock.
    pub fn clock(&self) -> &Clock {
        self.places.clock()
    }

    /// What a frame leads to. Nothing has changed until it is [stored](Self::store).
    pub fn decide(
        &mut self,
        frame: &Frame,
        recognised: Recognised,
        about: &About,
        recogniser: &impl Recogniser,
    ) -> Decided {
        let clock = self.clock().clone();
        let (camera, moment) = (&frame.tag.camera, frame.tag.moment);
        let view = self.places.view(camera, moment, frame.image.size());
        let seen = seen_frame(frame, clock.flight_time(moment), view, recognised);
        let mut flight = self.flight.clone();
        let judge = |opinion: &_| recogniser.identify(opinion);
        let observed = flight.tracker.observe(&seen, &judge);
        if let Some(record) = &mut self.record {
            let time = clock.at(frame.tag.moment).time;
            write_record(record, time, &seen, &observed, recogniser);
        }
        let (event_id, known) = (flight.event_id, &mut flight.known);
        let stamp = |time| clock.at_flight_time(time);
        let changes = observed.changes.iter();
        let (messages, told) = changes
            .map(|change| self.message(change, event_id, known, &stamp, about))
            .unzip();
        let pictures = observed.changes.iter().filter_map(|change| {
            Some(Picture {
                sighting: change.sighting.id,
                time: stamp(change.sighting.best.time).time,
                landmarks: seen.heads[change.picture?].landmarks,
            })
        });
        Decided {
            messages,
            told,
            changed: !observed.changes.is_empty() || !seen.heads.is_empty(),
            pictures: pictures.collect(),
            heads: archived_heads(&seen, &observed),
            flight,
        }
    }

    /// Puts the messages on the disk, with the flight as it is after them and the camera's bookmark.
    pub fn store(
        &mut self,
        decided: Decided,
        camera: Option<(&str, &str)>,
        outbox: &Outbox,
    ) -> Result<(), OutboxError> {
        self.flight = decided.flight;
        let state = decided.changed.then(|| text(&self.flight));
        let state = state.as_deref().map(|state| (BOOKMARK, state));
        let bookmarks: Vec<_> = camera.into_iter().chain(state).collect();
        outbox.put_with_bookmarks(decided.messages, &bookmarks)
    }

    /// Ends all sightings and with them the flight.
    pub fn end(&mut self, about: &About, outbox: &Outbox) {
        let clock = self.clock().clone();
        self.end_by(&|time| clock.at_flight_time(time), about, outbox);
    }

    /// Ends all sightings; `stamp` tells what UTC their flight times are.
    fn end_by(&mut self, stamp: &impl Fn(Timestamp) -> Stamp, about: &About, outbox: &Outbox) {
        let ended = self.flight.tracker.end_all();
        let event_id = self.flight.event_id;
        let mut known = std::mem::take(&mut self.flight.known);
        let messages = ended.iter();
        let messages =
            messages.map(|change| self.message(change, event_id, &mut known, stamp, about).0);
        if let Err(e) = outbox.put_with_bookmarks(messages.collect(), &[(BOOKMARK, "")]) {
            warn!("{e}");
        }
    }

    /// A change as the outbox keeps it, and what it says; `stamp` tells what UTC a flight time is.
    fn message(
        &self,
        change: &SightingChange,
        event_id: Uuid,
        known: &mut Known,
        stamp: &impl Fn(Timestamp) -> Stamp,
        about: &About,
    ) -> (Message, Sighting) {
        let mut sighting = sighting(change, event_id, &self.platform, about);
        let taken = change.sighting.best.time;
        self.places
            .complete(&mut sighting, taken, stamp(taken), known);
        let message = Message {
            kind: Kind::Sighting,
            topic: self.platform.sighting(),
            content_type: self.encoding.content_type().to_owned(),
            time: stamp(change.sighting.last_seen).time,
            expiry: Some(SIGHTING_EXPIRY),
            payload: self.encoding.encode(&sighting),
        };
        (message, sighting)
    }

    /// The picture of a sighting's head, as the outbox keeps it; `None` where it cannot be drawn, which is logged.
    pub fn draw(&self, frame: &Frame, picture: &Picture) -> Option<Message> {
        Some(Message {
            kind: Kind::Crop,
            topic: self.platform.crop(picture.sighting),
            content_type: JPEG.to_owned(),
            time: picture.time,
            expiry: Some(CROP_EXPIRY),
            payload: crop(frame, &picture.landmarks)?,
        })
    }
}

fn text(flight: &OpenFlight) -> String {
    serde_json::to_string(flight).expect("a flight has texts as keys and plain values")
}

/// The flight that was cut short, if one was.
fn read_flight(outbox: &Outbox) -> Option<OpenFlight> {
    let state = outbox.bookmark(BOOKMARK)?;
    if state.is_empty() {
        return None;
    }
    let flight = serde_json::from_str(&state);
    flight
        .inspect_err(|e| warn!("the sightings of a flight that was cut short are lost: {e}"))
        .ok()
}

/// The heads of a frame with what their sightings make of them.
fn archived_heads(seen: &SeenFrame, observed: &Observed) -> Vec<ArchivedHead> {
    let heads = seen.heads.iter().zip(&observed.sightings);
    let archived = heads.map(|(seen, sighting)| {
        let decision = decision(sighting.identification.decision);
        let first = sighting.identification.candidates.first();
        ArchivedHead {
            occurrence_id: sighting.id,
            head: head(&seen.landmarks, seen.confidence),
            decision,
            organism_id: first
                .filter(|_| decision == Decision::Identified)
                .map(|first| first.individual.clone()),
            provisional_id: sighting.stranger.map(provisional_id),
        }
    });
    archived.collect()
}

/// Which frame, as messages carry it.
pub(super) fn frame_reference(frame: &Frame, faults: Faults) -> FrameReference {
    let (width_pixels, height_pixels) = frame.image.size();
    FrameReference {
        number: frame.tag.number,
        file: frame.tag.file.clone(),
        width_pixels,
        height_pixels,
        incomplete: faults.incomplete.map(|part| Incomplete {
            share_read: part.share_read,
        }),
        damaged: faults.damaged,
    }
}

/// The program and the bundle, as records carry them.
pub(super) fn identified_by(about: &About) -> String {
    format!(
        "callosity {}, {}",
        env!("CARGO_PKG_VERSION"),
        about.engine.bundle
    )
}

fn seen_frame(
    frame: &Frame,
    time: Timestamp,
    view: Option<View>,
    recognised: Recognised,
) -> SeenFrame {
    SeenFrame {
        camera: frame.tag.camera.to_string(),
        time,
        frame: frame_reference(frame, recognised.faults),
        view,
        heads: recognised.heads,
    }
}

fn sighting(
    change: &SightingChange,
    event_id: Uuid,
    platform: &Platform,
    about: &About,
) -> Sighting {
    let Summary {
        id,
        revision,
        frames_seen,
        best,
        identification,
        stranger,
        ..
    } = change.sighting.clone();
    let decision = decision(identification.decision);
    let candidates = identification.candidates.into_iter();
    let candidates: Vec<_> = candidates
        .map(|candidate| Candidate {
            organism_id: candidate.individual,
            probability: candidate.probability,
        })
        .collect();
    let first = candidates.first().map(|c| c.organism_id.clone());
    Sighting {
        occurrence_id: id,
        state: change.state,
        revision,
        event_date: best.time,
        platform: platform.to_string(),
        event_id: Some(event_id),
        camera: Some(best.camera),
        basis_of_record: BasisOfRecord::MachineObservation,
        scientific_name: about.scientific_name.clone(),
        identified_by: identified_by(about),
        decision,
        organism_id: first.filter(|_| decision == Decision::Identified),
        provisional_id: stranger.map(provisional_id),
        unknown_probability: Some(identification.unknown_probability),
        candidates,
        frames_seen: Some(frames_seen),
        frame: best.frame,
        head: head(&best.landmarks, best.confidence),
        time_quality: None,
        georeference: Georeference::default(),
    }
}

fn head(landmarks: &Landmarks, confidence: f32) -> Head {
    Head {
        bonnet_pixels: pixel_position(landmarks.bonnet),
        blowhead_pixels: pixel_position(landmarks.blowhead),
        head_length_pixels: landmarks.head_length(),
        confidence,
    }
}

/// The place as messages carry it.
fn pixel_position(point: Point) -> PixelPosition {
    PixelPosition {
        x: point.x,
        y: point.y,
    }
}

fn open_record(path: &Path) -> Option<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened
        .inspect_err(|e| {
            warn!(
                "frames are not recorded: cannot open {}: {e}",
                path.display()
            )
        })
        .ok()
}

fn write_record(
    record: &mut File,
    time: Timestamp,
    seen: &SeenFrame,
    observed: &Observed,
    recogniser: &impl Recogniser,
) {
    let heads = seen.heads.iter().zip(&observed.sightings);
    let line = FrameRecord {
        camera: seen.camera.clone(),
        time,
        frame: seen.frame.clone(),
        heads: heads
            .map(|(seen, sighting)| HeadRecord {
                occurrence_id: sighting.id,
                head: head(&seen.landmarks, seen.confidence),
                alone: Named::new(&recogniser.identify(&seen.opinion), None),
                sighting: Named::new(&sighting.identification, sighting.stranger),
            })
            .collect(),
    };
    let mut line = serde_json::to_vec(&line).expect("a record has plain values");
    line.push(b'\n');
    if let Err(e) = record.write_all(&line) {
        warn!("a frame is not recorded: {e}");
    }
}
fn crop(frame: &Frame, landmarks: &Landmarks) -> Option<Vec<u8>> {
    let (width, height) = CROP;
    let crop_from_frame = HeadCrop::RIGHT_WHALE.crop_from_frame(landmarks, width, height)?;
    let part = Rectangle::of_image(width, height).bounds_after(&crop_from_frame.inverse()?);
    // The crop is un-squeezed: one scale for both axes.
    let scale = crop_from_frame.determinant().abs().sqrt();
    let drawn = frame
        .image
        .decode_part(&part, scale)
        .map_err(anyhow::Error::from)
        .and_then(|photograph| {
            let image = warp(
                &photograph.pixels,
                &photograph.frame_from_pixels().then(&crop_from_frame),
                width,
                height,
                OUTSIDE_HEAD_PHOTOGRAPH,
            );
            Ok(encode_jpeg(&image, CROP_QUALITY)?)
        });
    match drawn {
        Ok(jpeg) => Some(jpeg),
        Err(e) => {
            warn!(frame = frame.tag.number, "no crop: {e}");
            None
        }
    }
}
