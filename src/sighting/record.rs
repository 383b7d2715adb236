use jiff::Timestamp;
use link::message::{Decision, FrameReference, Head, Sighting};
use recognition::identify::{self, Identification};
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

impl Named {
    /// Whom an identification names, and the number of an animal that the bundle does not know.
    pub fn new(said: &Identification, stranger: Option<u32>) -> Self {
        Self {
            decision: decision(said.decision),
            leading: said.candidates.first().map(|c| c.individual.clone()),
            stranger,
        }
    }
}

/// What a message on a sighting says.
impl From<&Sighting> for Named {
    fn from(sighting: &Sighting) -> Self {
        let number = sighting.provisional_id.as_deref();
        Self {
            decision: sighting.decision,
            leading: sighting.candidates.first().map(|c| c.organism_id.clone()),
            stranger: number.and_then(|id| id.strip_prefix(PROVISIONAL)?.parse().ok()),
        }
    }
}

/// What an animal that the bundle does not know is called, before its number.
const PROVISIONAL: &str = "unknown ";

/// What messages call an animal that the bundle does not know, by its number.
pub(crate) fn provisional_id(stranger: u32) -> String {
    format!("{PROVISIONAL}{stranger}")
}

/// A decision as messages carry it.
pub(crate) fn decision(decision: identify::Decision) -> Decision {
    match decision {
        identify::Decision::Identified => Decision::Identified,
        identify::Decision::Uncertain => Decision::Uncertain,
        identify::Decision::Unknown => Decision::Unknown,
    }
}
