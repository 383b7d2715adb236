use jiff::Timestamp;
use link::message::{Decision, FrameReference, Head};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One frame as it was seen, and which sighting each of its heads was taken for: what is compared with the truth after a
/// rehearsal. One line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrameRecord {
    /// Name of the camera.
    pub camera: String,
    /// When it was exposed.
    pub time: Timestamp,
    /// Which frame.
    pub frame: FrameReference,
    /// The heads in it.
    pub heads: Vec<HeadRecord>,
}

/// A head in a [`FrameRecord`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadRecord {
    /// The sighting that it was taken for.
    #[serde(rename = "occurrenceID")]
    pub occurrence_id: Uuid,
    /// Where it is.
    pub head: Head,
    /// What this frame alone says.
    pub alone: Named,
    /// What the sighting says with this frame and those before it.
    pub sighting: Named,
}

/// A decision with the name that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// What to make of it.
    pub decision: Decision,
    /// The most probable individual of the bundle, whatever the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leading: Option<String>,
    /// The number of an animal that the bundle does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stranger: Option<u32>,
}
