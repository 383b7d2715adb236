use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Detection;
use crate::geometry::{Landmarks, Point};
use crate::pixels::Faults;

/// What is said of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The first candidate is probable enough to be named.
    Identified,
    /// Somebody whom the bundle knows, but who is for a person to say from the candidates.
    Uncertain,
    /// Nobody whom the bundle knows.
    Unknown,
}

impl Decision {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identified => "identified",
            Self::Uncertain => "uncertain",
            Self::Unknown => "unknown",
        }
    }
}

/// An individual and how probable it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The label in the bundle: of its catalogue, or enrolled.
    pub individual: String,
    /// Probability that the head is this individual's, given that the bundle knows the whale; 0…1.
    /// Over the catalogue and who is enrolled these add up to 1.
    pub probability: f32,
}

/// Whose a head may be, by one frame or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Identification {
    /// What is said of it.
    pub decision: Decision,
    /// Probability that the bundle does not know the whale, 0…1.
    pub unknown_probability: f32,
    /// Individuals, the most probable first; their probabilities are given that the bundle knows the whale.
    pub candidates: Vec<Candidate>,
}

/// A head in a frame and whose it may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeadIdentification {
    /// Tip of the snout, in pixels of the upright frame at full size.
    pub bonnet: Point,
    /// Just ahead of the blowholes, in pixels of the upright frame at full size.
    pub blowhead: Point,
    /// How sure the finder is that this is a head, 0…1; 1 where the head was given and not found.
    pub confidence: f32,
    /// What is said of it.
    pub decision: Decision,
    /// Probability that the bundle does not know the whale, 0…1.
    pub unknown_probability: f32,
    /// Individuals, the most probable first; their probabilities are given that the bundle knows the whale.
    pub candidates: Vec<Candidate>,
}

impl HeadIdentification {
    /// Both landmarks, in pixels of the upright frame at full size.
    pub fn landmarks(&self) -> Landmarks {
        Landmarks {
            bonnet: self.bonnet,
            blowhead: self.blowhead,
        }
    }

    /// The most probable individual.
    pub fn best(&self) -> Option<&Candidate> {
        self.candidates.first()
    }
}

/// How long each stage of one frame took, in milliseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageTimes {
    /// Decoding, at whatever scales.
    pub decode: f64,
    /// Finding heads.
    pub find: f64,
    /// Placing landmarks.
    pub align: f64,
    /// Naming.
    pub identify: f64,
    /// Of finding, placing and naming together, what the networks themselves took.
    pub inference: f64,
}

/// The heads of a frame as the ensemble has seen them, before any is named.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameDetections {
    /// What is wrong with the photograph; nothing, as a rule.
    pub faults: Faults,
    /// The heads, the one that the finder is surest of first.
    pub heads: Vec<Detection>,
    /// How long it took.
    pub stages_ms: StageTimes,
}

/// What was seen in a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrameIdentification {
    /// Pixels across the upright frame at full size.
    pub width: u32,
    /// Pixels down the upright frame at full size.
    pub height: u32,
    /// What is wrong with the photograph; nothing, as a rule.
    #[serde(flatten)]
    pub faults: Faults,
    /// The heads, the one that the finder is surest of first.
    pub heads: Vec<HeadIdentification>,
    /// How long it took.
    pub stages_ms: StageTimes,
    /// What the networks ran on, such as `ONNX Runtime 1.24.1, CPU`.
    pub engine: String,
}

impl FrameIdentification {
    /// Keeps only the `top` most probable candidates of each head.
    pub fn keep_top(&mut self, top: usize) {
        for head in &mut self.heads {
            head.candidates.truncate(top);
        }
    }
}

/// A frame's name and what was seen in it: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrameReport {
    /// Where the photograph came from, as the user named it.
    pub image: String,
    /// What was seen.
    #[serde(flatten)]
    pub frame: FrameIdentification,
}
