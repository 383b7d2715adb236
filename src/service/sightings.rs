//! From what was seen in a frame to messages.

use tracing::warn;
use uuid::Uuid;

use super::{About, Seen};
use crate::camera::Frame;
use crate::link::message::{
    BasisOfRecord, Decision, FrameReference, Head, Incomplete, Sighting, SightingState,
};
use crate::link::session::json;
use crate::link::topic::Platform;
use crate::outbox::{Message, Priority};
use recognition::geometry::{HeadCrop, Landmarks, Rectangle};
use recognition::pixels::{OUTSIDE_HEAD_PHOTOGRAPH, encode_jpeg, warp};

/// Candidates that a sighting names.
const CANDIDATES: usize = 5;

/// Size of a crop in pixels; un-squeezed, so twice as wide as high.
const CROP: (u32, u32) = (448, 224);

const CROP_QUALITY: u8 = 80;

/// Each head is a sighting of its own, until tracking joins them over frames; its crop follows it.
pub(super) fn messages(
    frame: &Frame,
    seen: &Seen,
    about: &About,
    platform: &Platform,
) -> Vec<Message> {
    let (width, height) = frame.photograph.size();
    let mut messages = Vec::new();
    for head in &seen.heads {
        let mut candidates = head.candidates.clone();
        candidates.truncate(CANDIDATES);
        let best = candidates.first().map(|c| c.organism_id.clone());
        let sighting = Sighting {
            occurrence_id: Uuid::now_v7(),
            state: SightingState::New,
            revision: 0,
            event_date: frame.tag.time,
            platform: platform.to_string(),
            basis_of_record: BasisOfRecord::MachineObservation,
            scientific_name: about.scientific_name.clone(),
            identified_by: format!("callosity {}, {}", env!("CARGO_PKG_VERSION"), about.bundle),
            decision: head.decision,
            organism_id: best.filter(|_| head.decision == Decision::Identified),
            unknown_probability: Some(head.unknown_probability),
            candidates,
            frame: FrameReference {
                number: frame.tag.number,
                file: frame.tag.file.clone(),
                width_pixels: width,
                height_pixels: height,
                incomplete: seen.faults.incomplete.map(|part| Incomplete {
                    share_read: part.share_read,
                }),
                damaged: seen.faults.damaged.clone(),
            },
            head: Head {
                bonnet_pixels: head.landmarks.bonnet,
                blowhead_pixels: head.landmarks.blowhead,
                head_length_pixels: head.landmarks.head_length(),
                confidence: head.confidence,
            },
        };
        messages.push(Message {
            priority: Priority::Sighting,
            topic: platform.sighting(),
            payload: json(&sighting),
        });
        let crop = crop(frame, &head.landmarks);
        messages.extend(crop.map(|payload| Message {
            priority: Priority::Crop,
            topic: platform.crop(sighting.occurrence_id),
            payload,
        }));
    }
    messages
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
