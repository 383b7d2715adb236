//! From a frame that was looked at to what the archive keeps of it.

use std::sync::Arc;

use link::archive::{ArchiveRecord, ArchivedEffort, ArchivedHead, KeptBecause};
use link::topic::Platform;
use uuid::Uuid;

use super::About;
use super::aloft::Places;
use super::sightings::{frame_reference, identified_by};
use crate::archive::{Archive, Picture, Pixels};
use crate::camera::Frame;
use crate::effort::{EffortLog, EffortState};

/// Gives pictures to the archive, with what is known of them. Nothing here waits for a disk.
pub(super) struct Archiving {
    pub archive: Arc<Archive>,
    pub platform: Platform,
    pub places: Places,
    pub effort: Option<EffortLog>,
}

impl Archiving {
    /// A frame with its heads, or with the reason why it could not be looked at; one without heads only where it is its
    /// turn.
    pub fn give_frame(
        &self,
        frame: Frame,
        seen: Result<Vec<ArchivedHead>, String>,
        event_id: Uuid,
        about: &About,
    ) {
        let (kept_because, heads, failure) = match seen {
            Ok(heads) if !heads.is_empty() => (KeptBecause::Whale, heads, None),
            Ok(_) if self.archive.wants_empty(&frame.tag.camera) => {
                (KeptBecause::EveryNth, Vec::new(), None)
            }
            Ok(_) => return,
            Err(reason) => (KeptBecause::NotLookedAt, Vec::new(), Some(reason)),
        };
        let record = ArchiveRecord {
            heads,
            failure,
            ..self.record(&frame, kept_because, event_id, about)
        };
        self.archive.give(Picture {
            record,
            pixels: Pixels::Frame(frame.image),
        });
    }

    /// The crop of a head in a frame.
    pub fn give_crop(
        &self,
        frame: &Frame,
        head: Option<&ArchivedHead>,
        jpeg: Vec<u8>,
        event_id: Uuid,
        about: &About,
    ) {
        let record = ArchiveRecord {
            heads: head.cloned().into_iter().collect(),
            ..self.record(frame, KeptBecause::Crop, event_id, about)
        };
        self.archive.give(Picture {
            record,
            pixels: Pixels::Crop(jpeg),
        });
    }

    fn record(
        &self,
        frame: &Frame,
        kept_because: KeptBecause,
        event_id: Uuid,
        about: &About,
    ) -> ArchiveRecord {
        let clock = self.places.clock();
        let moment = frame.tag.moment;
        let stamp = clock.at(moment);
        let camera = frame.tag.camera.to_string();
        let (georeference, direction_degrees) =
            self.places.of_frame(&camera, moment, frame.image.size());
        ArchiveRecord {
            kept_because,
            picture: String::new(),
            event_id,
            platform: self.platform.to_string(),
            camera,
            frame: frame_reference(frame, frame.image.faults()),
            time: stamp.time,
            time_quality: stamp.quality,
            flight_time: clock.flight_time(moment),
            georeference,
            direction_degrees: direction_degrees.map(|degrees| (degrees * 100.0).round() / 100.0),
            effort: self.effort.as_ref().map(effort),
            heads: Vec::new(),
            encoded: None,
            failure: None,
            identified_by: identified_by(about),
        }
    }
}

fn effort(log: &EffortLog) -> ArchivedEffort {
    let EffortState {
        watch,
        observers,
        project,
        aircraft,
        weather,
    } = log.now();
    ArchivedEffort {
        watch,
        observers,
        project,
        aircraft,
        weather,
    }
}
