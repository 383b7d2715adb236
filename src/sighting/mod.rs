//! Sightings: heads in frames, joined to animals over time.
//!
//! A [`Tracker`] takes the heads of one frame after another, of all cameras, and says what becomes of each animal's
//! [sighting](Summary): it is new, something about it has changed, it has ended. It is pure: time comes in with each
//! frame, and the same frames give the same sightings but for their ids.
//!
//! - *Where is it now?* An animal is expected where the sea has carried it in the picture, give or take its own
//!   swimming (`motion`). Where position, attitude and mounting are known, they tell how the picture has moved; all heads of
//!   a frame tell together by how much they were wrong, or, where nothing is known, how the sea moved.
//! - *Which head is whose?* Place, heading and looks give the log-likelihood ratio of "the same animal" against
//!   "another one"; all of a frame are assigned at once (`association`).
//! - *Who is it?* What single frames say is pooled, tempered because frames of one pass are not independent
//!   ([`PooledOpinion`](recognition::identify::PooledOpinion)). Each sighting has its own pool: no animal's evidence
//!   reaches another's.
//! - *Nobody whom the bundle knows* gets a number, and the same one when it is seen again in the flight (`strangers`).
//!
//! A sighting belongs to the camera that began it, unless another one sees what looks like the same animal at the same
//! time. It ends when the animal has not been seen for [`LOST_AFTER`].
//!
//! Positions are in pixels of the upright frame, times are [flight times](crate::clock::Clock::flight_time), which never jump.

mod association;
mod motion;
mod record;
mod strangers;
mod tracker;

use std::time::Duration;

use jiff::Timestamp;
use link::message::{FrameReference, SightingState};
use recognition::geometry::Landmarks;
use recognition::identify::{Appearance, Identification, Opinion};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::position::View;
pub use record::{FrameRecord, HeadRecord, Named};
pub(crate) use record::{decision, provisional_id};
pub use tracker::Tracker;

/// A sighting ends when its animal has not been seen for so long. A few frames may miss it, and a program that was killed
/// is back within this time.
pub const LOST_AFTER: Duration = Duration::from_secs(6);

/// A head in a frame, with what the frame alone says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenHead {
    /// In pixels of the upright frame.
    pub landmarks: Landmarks,
    /// Confidence that it is a head, 0…1.
    pub confidence: f32,
    /// Whose it may be.
    pub opinion: Opinion,
    /// What it looks like, where the networks tell.
    pub appearance: Option<Appearance>,
}

/// A frame that was looked at.
#[derive(Clone, Debug)]
pub struct SeenFrame {
    /// Name of the camera.
    pub camera: String,
    /// When it was exposed.
    pub time: Timestamp,
    /// Which frame it is, and its size.
    pub frame: FrameReference,
    /// From where the camera looked at the sea, where position and mounting are known.
    pub view: Option<View>,
    /// The heads in it.
    pub heads: Vec<SeenHead>,
}

/// The frame that shows an animal best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestFrame {
    /// Which.
    pub frame: FrameReference,
    /// Name of its camera.
    pub camera: String,
    /// When it was exposed.
    pub time: Timestamp,
    /// Where the head is in it.
    pub landmarks: Landmarks,
    /// Confidence that it is a head, 0…1.
    pub confidence: f32,
    /// How well it shows the head, for comparison with other frames; 0…1.
    pub quality: f64,
}

/// What is known of a sighting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// UUID version 7, of the time when the animal was first seen.
    pub id: Uuid,
    /// 0 in the first change, one more in each further one.
    pub revision: u32,
    /// Number of frames in which the animal was seen.
    pub frames_seen: u32,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// The frame that shows it best.
    pub best: BestFrame,
    /// Whose head it is, by all frames together.
    pub identification: Identification,
    /// The number, from 1, of an animal that the bundle does not know, as long as it is taken for one. The same in all
    /// sightings of the animal in this flight.
    pub stranger: Option<u32>,
}

/// What has become of a sighting.
#[derive(Clone, Debug, PartialEq)]
pub struct SightingChange {
    /// It is new, it has changed, it has ended.
    pub state: SightingState,
    /// What is known of it now.
    pub sighting: Summary,
    /// The index of its head in this frame, where that shows it so well that a picture should be kept.
    pub picture: Option<usize>,
}

/// What a frame has led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Sightings that ended, began or changed, in this order.
    pub changes: Vec<SightingChange>,
    /// The sighting of each head in the frame, as it is after it.
    pub sightings: Vec<Summary>,
}

/// Names an animal by a pooled opinion, as the bundle's decision rule says.
pub trait Judge {
    /// Whose head it is.
    fn judge(&self, opinion: &Opinion) -> Identification;
}

impl<F: Fn(&Opinion) -> Identification> Judge for F {
    fn judge(&self, opinion: &Opinion) -> Identification {
        self(opinion)
    }
}
