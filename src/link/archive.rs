//! What lies beside each picture of an aircraft's archive: one JSON document, of the same name.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::message::{Decision, FrameReference, Georeference, Head, TimeQuality, Watch, Weather};

/// Why a picture is in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KeptBecause {
    /// A frame in which a head was seen.
    Whale,
    /// A frame without one: every so many of a camera are kept.
    EveryNth,
    /// A frame that could not be looked at, so that nobody knows what it shows.
    NotLookedAt,
    /// The part of a frame that shows the head of a sighting, as it is sent to the ground.
    Crop,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// The file beside a picture of the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveRecord {
    /// Why the picture is kept.
    pub kept_because: KeptBecause,
    /// Name of the picture, in the same folder.
    pub picture: String,
    /// The flight.
    #[serde(rename = "eventID")]
    pub event_id: Uuid,
    /// Name of the aircraft.
    pub platform: String,
    /// Name of the camera.
    pub camera: String,
    /// Which frame.
    pub frame: FrameReference,
    /// When it was taken, in UTC, as it was known when the picture was written. `timeQuality` says whether it is right.
    pub time: Timestamp,
    /// Where `time` comes from.
    pub time_quality: TimeQuality,
    /// When it was taken by the clock of the flight, which never jumps: with it, times that were not known yet can be put
    /// right by those of later pictures.
    pub flight_time: Timestamp,
    /// Where the aircraft was, and which part of the sea the frame shows. `headLengthMeters` is missing here.
    #[serde(flatten)]
    pub georeference: Georeference,
    /// Where the camera looked, in degrees clockwise from true north: its optical axis, or where that is within 10° of
    /// straight down, the top of the frame. Without a camera mounting, the nose of the aircraft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction_degrees: Option<f64>,
    /// How the survey was flown when it was looked at, where observers say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<ArchivedEffort>,
    /// The heads in the frame; of a crop, the one that it shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<ArchivedHead>,
    /// How the pixels were encoded for the archive, where the camera gave them raw, such as `YUYV to JPEG 95`. A picture
    /// that came encoded is kept as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded: Option<String>,
    /// Why the frame could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The program and the model bundle that looked at it.
    pub identified_by: String,
}

/// How the survey is flown, with a picture; the flight's effort messages say since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedEffort {
    /// What the observers do.
    pub watch: Watch,
    /// Who observes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<String>,
    /// The survey that this flight belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Registration or type of the aircraft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aircraft: Option<String>,
    /// Conditions.
    #[serde(default)]
    pub weather: Weather,
}

/// A head in an archived picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedHead {
    /// The sighting that it was taken for.
    #[serde(rename = "occurrenceID")]
    pub occurrence_id: Uuid,
    /// Where it is in the frame.
    pub head: Head,
    /// What the sighting made of it at that moment.
    pub decision: Decision,
    /// The individual, where it was identified.
    #[serde(
        rename = "organismID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub organism_id: Option<String>,
    /// Name of an animal that the bundle does not know, within the flight.
    #[serde(
        rename = "provisionalID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub provisional_id: Option<String>,
}
