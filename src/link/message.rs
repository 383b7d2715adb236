//! What is said over MQTT.
//!
//! Field names follow Darwin Core where it has a term. Units stand in field names. Times are UTC. Within one major
//! version fields and values of enumerations may be added: receivers ignore fields that they do not know, and read a
//! value that they do not know as `other`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Version of the messages; sent with each as the user property [`SCHEMA_VERSION_PROPERTY`].
/// The major version is also in the topic.
pub const SCHEMA_VERSION: &str = "1.1.0";

/// Name of the MQTT user property with [`SCHEMA_VERSION`].
pub const SCHEMA_VERSION_PROPERTY: &str = "schema-version";

/// Content type of all messages but crops, unless the link is thin.
pub const JSON: &str = "application/json";

/// Content type of all messages but crops over a thin link; see [`codec`](crate::codec).
pub const CBOR: &str = "application/cbor";

/// Content type of crops.
pub const JPEG: &str = "image/jpeg";

/// Name of the MQTT user property, with the value `true`, of messages about what was seen more than
/// [`HISTORICAL_AFTER`] before they were sent.
pub const HISTORICAL_PROPERTY: &str = "historical";

/// From this age a message is history to whoever reads it: an alarm for it would come too late.
pub const HISTORICAL_AFTER: Duration = Duration::from_secs(60);

/// After this time the broker forgets a sighting that no receiver has taken.
pub const SIGHTING_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// After this time a crop is of no use: the outbox and the broker forget it.
pub const CROP_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// After this time the broker forgets where an aircraft was.
pub const TRACK_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// After this time the broker forgets a change of effort that no receiver has taken.
pub const EFFORT_EXPIRY: Duration = SIGHTING_EXPIRY;
/// After this time the broker forgets how the service fared.
pub const HEALTH_EXPIRY: Duration = Duration::from_secs(300);

/// The time, to milliseconds, as messages carry it.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(jiff::Unit::Millisecond).unwrap_or(now)
}

/// Whether a platform is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Connected.
    Online,
    /// Lost without a word: the broker says so in the platform's place.
    Offline,
    /// Ended in order, with everything delivered.
    Stopped,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// Topic `callosity/v1/<platform>/status`: retained; the last will says `offline`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the aircraft, as in the topic.
    pub platform: String,
    /// Whether it is there.
    pub status: Presence,
    /// When this was written. For `offline`, which is lodged with the broker in advance, the time of
    /// the connection that was lost.
    pub time: Timestamp,
    /// Version of the program that flies.
    pub program_version: String,
}

/// Where a sighting stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SightingState {
    /// First word of it.
    New,
    /// More evidence.
    Update,
    /// The animal was left behind; nothing more will come.
    End,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// Darwin Core's class of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BasisOfRecord {
    /// Made by an instrument, without a person.
    MachineObservation,
    /// A value of a later schema.
    #[serde(other, rename = "other")]
    Other,
}

/// What to make of the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The first candidate is taken to be the animal.
    Identified,
    /// The first candidate is likely, but not enough.
    Uncertain,
    /// Probably nobody whom the bundle knows.
    Unknown,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// An individual that the animal may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The individual's label in the bundle: of its catalogue, or enrolled.
    #[serde(rename = "organismID")]
    pub organism_id: String,
    /// Probability that it is this individual, given that the bundle knows the animal (`unknownProbability` says how
    /// likely it does not); 0…1. Over all individuals of the bundle these add up to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: f32,
}

/// How much of a frame there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incomplete {
    /// Share of the frame's rows that could be read, from 0.5 to below 1.
    pub share_read: f64,
}

/// The frame in which the animal was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameReference {
    /// Running number of the camera's frame since the service started.
    pub number: u64,
    /// Name of the photograph, where the camera gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Width of the upright frame.
    pub width_pixels: u32,
    /// Height of the upright frame.
    pub height_pixels: u32,
    /// Only where the photograph ends early: what lies in the rows that are missing was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// Only where the photograph is damaged: what the decoder objected to first. Some pixels may be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// A place in the upright frame, in pixels: the pair `[x, y]` from the outer corner of the top-left pixel, x to the
/// right, y down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
#[schemars(with = "[f64; 2]")]
pub struct PixelPosition {
    /// To the right.
    pub x: f64,
    /// Down.
    pub y: f64,
}

impl From<[f64; 2]> for PixelPosition {
    fn from([x, y]: [f64; 2]) -> Self {
        Self { x, y }
    }
}

impl From<PixelPosition> for [f64; 2] {
    fn from(position: PixelPosition) -> Self {
        [position.x, position.y]
    }
}

/// Where a time comes from, and so how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeQuality {
    /// From the satellites of the positioning system, by gpsd.
    Satellite,
    /// From a clock that the operating system keeps synchronised.
    Network,
    /// Told by a clock that is not synchronised: it may be wrong by minutes, or by more.
    Unsynchronised,
    /// The clock was not set: it counts from the last time that is known to have been, so that times of one flight are
    /// right to each other and too early.
    Unset,
    /// Told by a clock that was wrong, and put right by the time that had passed when it became synchronised.
    Corrected,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// What an altitude is measured from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AltitudeDatum {
    /// Mean sea level, by the receiver's model of the geoid.
    Sea,
    /// The WGS 84 ellipsoid, which lies up to 107 m from the sea.
    Ellipsoid,
    /// The receiver does not say.
    Unsaid,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// A place on Earth (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Degrees, north positive.
    #[schemars(range(min = -90.0, max = 90.0))]
    pub decimal_latitude: f64,
    /// Degrees, east positive.
    #[schemars(range(min = -180.0, max = 180.0))]
    pub decimal_longitude: f64,
    /// Radius of the circle around it that holds the true place with a probability of 95 %.
    pub coordinate_uncertainty_in_meters: f64,
    /// Time between the moment that is meant and the nearest fix. The place of an old fix is carried on along its track,
    /// and its uncertainty says so.
    pub fix_age_seconds: f64,
}

/// A place on Earth (WGS 84) as the pair `[latitude, longitude]` in degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
#[schemars(with = "[f64; 2]")]
pub struct Corner {
    /// Degrees, north positive.
    pub latitude: f64,
    /// Degrees, east positive.
    pub longitude: f64,
}

impl From<[f64; 2]> for Corner {
    fn from([latitude, longitude]: [f64; 2]) -> Self {
        Self {
            latitude,
            longitude,
        }
    }
}

impl From<Corner> for [f64; 2] {
    fn from(corner: Corner) -> Self {
        [corner.latitude, corner.longitude]
    }
}

/// Where on Earth something in a frame was, and what that was computed from. What is not known is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Georeference {
    /// Where the head was on the sea; only where the aircraft's position is known. Without an altitude or a camera
    /// mounting it is the place of the aircraft, with an uncertainty that says so.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Altitude of the aircraft, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altitude_meters: Option<f64>,
    /// What the altitude is measured from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altitude_datum: Option<AltitudeDatum>,
    /// Focal length of the lens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub focal_length_millimeters: Option<f64>,
    /// Width of the sensor, which is that of the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensor_width_millimeters: Option<f64>,
    /// From bonnet to blowhead on the sea, where altitude and mounting are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_length_meters: Option<f64>,
    /// Half of the interval around `headLengthMeters` that holds the true length with a probability of 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_length_uncertainty_meters: Option<f64>,
    /// Corners of the frame on the sea: top left, top right, bottom right, bottom left. Not over thin links, and not
    /// where a corner looks above the horizon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footprint: Option<[Corner; 4]>,
}

/// Where the head lies in the upright frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Tip of the snout.
    pub bonnet_pixels: PixelPosition,
    /// Just ahead of the blowholes.
    pub blowhead_pixels: PixelPosition,
    /// Distance between the two.
    pub head_length_pixels: f64,
    /// Confidence that this is a head, 0…1.
    pub confidence: f32,
}

/// Topic `callosity/v1/<platform>/sighting`.
///
/// Delivered at least once: receivers drop what has the same `occurrenceID` and `revision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// UUID version 7: stable over the life of the sighting.
    #[serde(rename = "occurrenceID")]
    pub occurrence_id: Uuid,
    /// Where the sighting stands in its life.
    pub state: SightingState,
    /// 0 with `new`, one more with each further message of this sighting.
    pub revision: u32,
    /// When the frame that shows it best was taken.
    pub event_date: Timestamp,
    /// Name of the aircraft, as in the topic.
    pub platform: String,
    /// The flight: one start of the service to its end. Sent since schema 1.1.
    #[serde(default, rename = "eventID", skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// Name of the camera. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// Class of evidence.
    pub basis_of_record: BasisOfRecord,
    /// The species that the bundle catalogues.
    pub scientific_name: String,
    /// Program and model bundle with their versions.
    pub identified_by: String,
    /// What to make of the candidates.
    pub decision: Decision,
    /// The individual, only where the decision is `identified`.
    #[serde(rename = "organismID", skip_serializing_if = "Option::is_none")]
    pub organism_id: Option<String>,
    /// Probability that the bundle does not know the animal, 0…1. The candidates' probabilities are given that it does:
    /// that the animal is one of them is as probable as theirs times 1 − `unknownProbability`. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub unknown_probability: Option<f32>,
    /// The most probable individuals, best first.
    pub candidates: Vec<Candidate>,
    /// Only where the decision is `unknown`: what the animal is called in this flight (`unknown 3`), in each sighting of
    /// it. Sent since schema 1.1.
    #[serde(
        default,
        rename = "provisionalID",
        skip_serializing_if = "Option::is_none"
    )]
    pub provisional_id: Option<String>,
    /// Number of frames in which the animal was seen and on which all this rests. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub frames_seen: Option<u32>,
    /// The frame that shows it best.
    pub frame: FrameReference,
    /// Where the head lies in that frame.
    pub head: Head,
    /// Where `eventDate` comes from. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_quality: Option<TimeQuality>,
    /// Where on Earth. Sent since schema 1.1.
    #[serde(default, flatten)]
    pub georeference: Georeference,
}

/// Topic `callosity/v1/<platform>/track`: where the aircraft was, every few seconds while its position is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Track {
    /// Name of the aircraft, as in the topic.
    pub platform: String,
    /// The flight.
    #[serde(rename = "eventID")]
    pub event_id: Uuid,
    /// When it was there.
    pub time: Timestamp,
    /// Where `time` comes from.
    pub time_quality: TimeQuality,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Altitude, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altitude_meters: Option<f64>,
    /// What the altitude is measured from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altitude_datum: Option<AltitudeDatum>,
    /// Speed over ground.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_meters_per_second: Option<f64>,
    /// Course over ground, clockwise from true north.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_degrees: Option<f64>,
    /// Where the nose points, clockwise from true north; only where an attitude sensor says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heading_degrees: Option<f64>,
    /// Right wing down positive; only where an attitude sensor says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_degrees: Option<f64>,
    /// Nose up positive; only where an attitude sensor says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitch_degrees: Option<f64>,
    /// What the observers do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
}

/// What the observers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// Nobody searches.
    #[default]
    Off,
    /// On the way to or between lines.
    Transit,
    /// On a line of the survey, searching.
    OnLine,
    /// Around animals that were sighted, to photograph them.
    Circling,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// How much the sun's reflection hides of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Glare {
    /// Nothing.
    None,
    /// A little.
    Slight,
    /// A good part.
    Moderate,
    /// Nearly all.
    Severe,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// Why an effort message was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EffortReason {
    /// The service started.
    Begin,
    /// Watch, weather, or who flies changed.
    Change,
    /// An observer marked the moment, or wrote more of a mark.
    Mark,
    /// The clock was put right; `timeCorrectionSeconds` says by how much.
    Clock,
    /// The service ends in order.
    End,
    /// A value of a later schema.
    #[serde(other)]
    Other,
}

/// Conditions of sighting. What nobody has said is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Weather {
    /// Sea state on the Beaufort scale, 0…12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 12))]
    pub beaufort: Option<u8>,
    /// How far one sees, 0…200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 200.0))]
    pub visibility_kilometers: Option<f64>,
    /// Part of the sky that clouds cover, 0…100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub cloud_percent: Option<u8>,
    /// Glare to the left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glare_left: Option<Glare>,
    /// Glare to the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glare_right: Option<Glare>,
}

/// A moment that an observer marked with one touch; the rest may be filled in later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// UUID version 7.
    #[serde(rename = "markID")]
    pub mark_id: Uuid,
    /// 0 at the touch, one more each time that more is filled in.
    pub revision: u32,
    /// The moment of the touch.
    pub time: Timestamp,
    /// Where `time` comes from.
    pub time_quality: TimeQuality,
    /// Where the aircraft was, where that is known.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scientific_name: Option<String>,
    /// How many, 1…10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub individual_count: Option<u32>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrence_remarks: Option<String>,
}

/// Topic `callosity/v1/<platform>/effort`: how the survey is flown, said at each change.
///
/// Delivered at least once: receivers drop what has the same `eventID` and `revision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Effort {
    /// Name of the aircraft, as in the topic.
    pub platform: String,
    /// The flight: one start of the service to its end.
    #[serde(rename = "eventID")]
    pub event_id: Uuid,
    /// 0 with `begin`, one more with each further effort message of this flight.
    pub revision: u32,
    /// When it became so.
    pub time: Timestamp,
    /// Where `time` comes from.
    pub time_quality: TimeQuality,
    /// Why this was written.
    pub reason: EffortReason,
    /// What the observers do from now on.
    pub watch: Watch,
    /// Who observes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<String>,
    /// The survey that this flight belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Registration or type of the aircraft, where its name in topics does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aircraft: Option<String>,
    /// Conditions from now on.
    #[serde(default)]
    pub weather: Weather,
    /// Where the aircraft was, where that is known.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The mark that this message is about; only with `mark`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// To be added to the times of this flight's messages that came before and are `unset` or `unsynchronised`; only
    /// with `clock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_correction_seconds: Option<f64>,
}

/// Topic `callosity/v1/<platform>/command`: what the ground asks the aircraft to set. The effort message that follows is
/// the answer; a command that makes no sense is reported as a health problem of the part `command`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// UUID: a command that comes again is not done again.
    #[serde(rename = "commandID")]
    pub command_id: Uuid,
    /// Fields of the effort to change, as `PUT /effort` on the box takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<serde_json::Value>,
    /// A mark to set now, as `POST /marks` on the box takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<serde_json::Value>,
}

/// What became of the frames since the service started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameCounts {
    /// Frames that the camera gave.
    pub captured: u64,
    /// Frames that were looked at.
    pub identified: u64,
    /// Frames thrown away unseen because inference was behind, or at the end.
    pub dropped: u64,
    /// Frames that could not be read, decoded or identified.
    pub failed: u64,
    /// Of the frames that were looked at, those that end early.
    #[serde(default)]
    pub incomplete: u64,
    /// Of the frames that were looked at, those that are damaged.
    #[serde(default)]
    pub damaged: u64,
    /// Heads found in the frames that were looked at.
    pub heads: u64,
    /// Frames that cameras took and that were lost before they reached the program, by the numbers that cameras give them.
    /// Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Frames whose time stamp cannot be, such as one before that of the frame before: they were looked at, and dated by
    /// when they came. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub time_doubtful: u64,
    /// Detections that lay where a camera sees the aircraft itself, and were dropped. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub masked: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How a camera fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CameraHealth {
    /// Its name, as in sightings.
    pub name: String,
    /// In words, what it gives and was asked for; only while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Frames that it gave, usable or not.
    pub captured: u64,
    /// Frames that it took and that did not reach the program.
    pub lost: u64,
    /// Times that it failed and was closed, to be opened again.
    pub failures: u64,
    /// When its last frame came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_frame: Option<Timestamp>,
}

/// The last frame that could not be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameFailure {
    /// When.
    pub time: Timestamp,
    /// Name of the camera. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// The frame's running number.
    pub frame: u64,
    /// Name of the photograph, where the camera gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What was wrong with it.
    pub reason: String,
}

/// What waits in the queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueDepths {
    /// Frames that wait for inference.
    pub frames: u64,
    /// Most frames that can wait.
    pub frames_capacity: u64,
    /// Sightings that wait to be sent.
    pub sightings: u64,
    /// Crops that wait to be sent.
    pub crops: u64,
    /// Their size.
    pub crops_bytes: u64,
    /// Messages that the broker refused or had nobody to give to: kept, and sent again later.
    #[serde(default)]
    pub set_aside: u64,
    /// Messages that are held in memory alone because the disk takes no more.
    #[serde(default)]
    pub not_durable: u64,
}

/// What runs the networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// The inference engine and its execution provider, as they really run; where networks run differently, all of
    /// them.
    pub name: String,
    /// Name and version of the model bundle.
    pub bundle: String,
    /// What each network really runs on. Sent since schema 1.1.
    #[serde(default)]
    pub networks: Vec<NetworkEngine>,
}

/// What a network runs on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkEngine {
    /// `finder`, `aligner` or `ensemble`.
    pub network: String,
    /// The inference engine and its execution provider.
    pub engine: String,
}

/// Time that a stage took, over all frames since the service started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageTime {
    /// Mean.
    pub mean_milliseconds: f64,
    /// Longest.
    pub maximum_milliseconds: f64,
    /// Number of frames.
    pub frames: u64,
}

/// The link since the service started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkCounts {
    /// Sightings and crops handed to the broker, repetitions counted again.
    pub sent: u64,
    /// Sightings and crops that the broker acknowledged.
    pub acknowledged: u64,
    /// Sightings and crops sent and not acknowledged yet.
    pub unacknowledged: u64,
    /// Times that the broker refused a sighting or a crop; they are set aside.
    pub refused: u64,
    /// Times that a sighting or a crop reached the broker and nobody had subscribed to it; they are set aside.
    #[serde(default)]
    pub without_subscriber: u64,
    /// Crops thrown away because too many waited, they were too old, or too large for the link.
    pub crops_dropped: u64,
    /// Connections to the broker after the first.
    pub reconnects: u64,
}

/// The clock of the aircraft.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockHealth {
    /// Where its times come from.
    pub time_quality: TimeQuality,
    /// By how much the times of this flight were put right, in all.
    pub correction_seconds: f64,
}

/// Positioning since the service started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PositionHealth {
    /// Whether gpsd can be reached.
    pub connected: bool,
    /// Connections to gpsd after the first.
    pub reconnects: u64,
    /// Fixes received.
    pub fixes: u64,
    /// Attitudes received.
    pub attitudes: u64,
    /// What gpsd said that makes no sense.
    pub malformed: u64,
    /// Age of the latest fix, where there ever was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix_age_seconds: Option<f64>,
    /// Satellites used in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satellites: Option<u32>,
}

/// The computer in the aircraft.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardwareHealth {
    /// Temperatures in °C, by the names of the sensors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub temperatures_celsius: BTreeMap<String, f64>,
    /// The power mode, as the maker names or numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mode: Option<String>,
    /// Times since it was switched on that it slowed down because it drew too much current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_current_events: Option<u64>,
    /// Current clock of the processor's slowest core over what it can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_clock_share: Option<f64>,
    /// The disks on which the program writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskHealth>,
}

/// A disk on which the program writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskHealth {
    /// What lies on it, such as `outbox` or `archive`.
    pub holds: String,
    /// Bytes that are free to us.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// The archive of pictures, since the service started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveHealth {
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
    /// Frames without a whale that were deleted to make room.
    pub empty_deleted: u64,
    /// Pictures with a whale, likewise.
    pub whales_deleted: u64,
}

/// Something that is wrong at the moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The part of the service that has it, such as `link` or `outbox`.
    pub part: String,
    /// What is wrong, and where it helps, what to do.
    pub reason: String,
    /// When it began.
    pub since: Timestamp,
}

impl Problem {
    /// What is wrong with a part now. It goes on from the `earlier` problem of that part where there was one.
    pub fn after(earlier: Option<&Self>, part: &str, reason: String) -> Self {
        Self {
            part: part.to_owned(),
            reason,
            since: earlier.map_or_else(now, |earlier| earlier.since),
        }
    }
}

/// Topic `callosity/v1/<platform>/health`: periodic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Name of the aircraft, as in the topic.
    pub platform: String,
    /// When this was written.
    pub time: Timestamp,
    /// Version of the program that flies.
    pub program_version: String,
    /// Time since the service started.
    pub uptime_seconds: f64,
    /// What became of the frames, of all cameras.
    pub frames: FrameCounts,
    /// Each camera. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cameras: Vec<CameraHealth>,
    /// The last frame that could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FrameFailure>,
    /// What waits.
    pub queues: QueueDepths,
    /// What runs the networks.
    pub engine: Engine,
    /// Time of each stage, by its name.
    pub stages: BTreeMap<String, StageTime>,
    /// The link.
    pub link: LinkCounts,
    /// The clock. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockHealth>,
    /// Positioning, where there is a gpsd. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionHealth>,
    /// The computer. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<HardwareHealth>,
    /// Pictures that are kept, where there is an archive. Sent since schema 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveHealth>,
    /// What is wrong at the moment; nothing, as a rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}
