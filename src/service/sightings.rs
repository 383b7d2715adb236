//! From what was recognised in a frame to messages.

use link::codec::Encoding;
use link::message::{
    BasisOfRecord, CROP_EXPIRY, Decision, FrameReference, Head, Incomplete, JPEG, PixelPosition,
    SIGHTING_EXPIRY, Sighting, SightingState,
};
use link::topic::Platform;
use recognition::geometry::{HeadCrop, Landmarks, Point, Rectangle};
use recognition::pixels::{OUTSIDE_HEAD_PHOTOGRAPH, encode_jpeg, warp};
use tracing::warn;
use uuid::Uuid;

use super::{About, Recognised};
use crate::camera::Frame;
use crate::outbox::{Kind, Message};

/// Candidates that a sighting names.
const CANDIDATES: usize = 5;

/// Size of a crop in pixels; un-squeezed, so twice as wide as high.
const CROP: (u32, u32) = (448, 224);

const CROP_QUALITY: u8 = 80;

/// What all sightings of a flight have in common.
pub(super) struct Flown {
    pub platform: Platform,
    pub event_id: Uuid,
    pub camera: String,
    pub bookmark: Option<String>,
    pub encoding: Encoding,
}

impl Flown {
    /// Each head is a sighting of its own, until tracking joins them over frames.
    pub fn sightings(
        &self,
        frame: &Frame,
        recognised: &Recognised,
        about: &About,
    ) -> Vec<Sighting> {
        let (width, height) = frame.photograph.size();
        let sighting = |head: &super::RecognisedHead| {
            let mut candidates = head.candidates.clone();
            candidates.truncate(CANDIDATES);
            let best = candidates.first().map(|c| c.organism_id.clone());
            Sighting {
                occurrence_id: Uuid::now_v7(),
                state: SightingState::New,
                revision: 0,
                event_date: frame.tag.time,
                platform: self.platform.to_string(),
                event_id: Some(self.event_id),
                camera: Some(self.camera.clone()),
                basis_of_record: BasisOfRecord::MachineObservation,
                scientific_name: about.scientific_name.clone(),
                identified_by: format!(
                    "callosity {}, {}",
                    env!("CARGO_PKG_VERSION"),
                    about.engine.bundle
                ),
                decision: head.decision,
                organism_id: best.filter(|_| head.decision == Decision::Identified),
                unknown_probability: Some(head.unknown_probability),
                candidates,
                frame: FrameReference {
                    number: frame.tag.number,
                    file: frame.tag.file.clone(),
                    width_pixels: width,
                    height_pixels: height,
                    incomplete: recognised.faults.incomplete.map(|part| Incomplete {
                        share_read: part.share_read,
                    }),
                    damaged: recognised.faults.damaged.clone(),
                },
                head: Head {
                    bonnet_pixels: pixel_position(head.landmarks.bonnet),
                    blowhead_pixels: pixel_position(head.landmarks.blowhead),
                    head_length_pixels: head.landmarks.head_length(),
                    confidence: head.confidence,
                },
            }
        };
        recognised.heads.iter().map(sighting).collect()
    }

    /// A sighting as the outbox keeps it.
    pub fn message(&self, sighting: &Sighting) -> Message {
        Message {
            kind: Kind::Sighting,
            topic: self.platform.sighting(),
            content_type: self.encoding.content_type().to_owned(),
            time: sighting.event_date,
            expiry: Some(SIGHTING_EXPIRY),
            payload: self.encoding.encode(sighting),
        }
    }

    /// The picture of a sighting's head, as the outbox keeps it; `None` where it cannot be drawn, which is logged.
    pub fn crop(
        &self,
        frame: &Frame,
        sighting: &Sighting,
        landmarks: &Landmarks,
    ) -> Option<Message> {
        Some(Message {
            kind: Kind::Crop,
            topic: self.platform.crop(sighting.occurrence_id),
            content_type: JPEG.to_owned(),
            time: sighting.event_date,
            expiry: Some(CROP_EXPIRY),
            payload: crop(frame, landmarks)?,
        })
    }
}

/// The place as messages carry it.
fn pixel_position(point: Point) -> PixelPosition {
    PixelPosition {
        x: point.x,
        y: point.y,
    }
}

fn crop(frame: &Frame, landmarks: &Landmarks) -> Option<Vec<u8>> {
    let (width, height) = CROP;
    let crop_from_frame = HeadCrop::RIGHT_WHALE.crop_from_frame(landmarks, width, height)?;
    let part = Rectangle::of_image(width, height).bounds_after(&crop_from_frame.inverse()?);
    // The crop is un-squeezed: one scale for both axes.
    let scale = crop_from_frame.determinant().abs().sqrt();
    let drawn = frame
        .photograph
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
