use link::message::{Candidate, Decision, Engine, NetworkEngine};
use recognition::geometry::Landmarks;
use recognition::identify::{self, HeadIdentification, Identifier};
use recognition::pixels::{EncodedPhotograph, Faults};

/// Finds and names the whales in a frame: what the service needs of [`identify`](recognition::identify), so that it can
/// be flown with known answers in tests.
pub trait Recogniser: Send {
    /// What it is; asked anew for each frame, since a network may come to run elsewhere.
    fn about(&self) -> About;

    /// The heads in a frame.
    ///
    /// # Errors
    /// The frame cannot be decoded, or a network failed on it.
    fn recognise(&mut self, photograph: &EncodedPhotograph) -> anyhow::Result<Recognised>;
}

/// What recognises.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// What runs the networks, each as it really runs.
    pub engine: Engine,
    /// The species that the bundle catalogues.
    pub scientific_name: String,
}

/// What was recognised in a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recognised {
    /// The heads.
    pub heads: Vec<RecognisedHead>,
    /// What is wrong with the frame; nothing, as a rule.
    pub faults: Faults,
    /// Time of each stage in milliseconds, by its name.
    pub stages_ms: Vec<(String, f64)>,
}

/// One head in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct RecognisedHead {
    /// In the upright frame.
    pub landmarks: Landmarks,
    /// Confidence that it is a head, 0…1.
    pub confidence: f32,
    /// What to make of the candidates.
    pub decision: Decision,
    /// Probability that the bundle does not know the whale, 0…1.
    pub unknown_probability: f32,
    /// Most probable first.
    pub candidates: Vec<Candidate>,
}

impl Recogniser for Identifier {
    fn about(&self) -> About {
        let manifest = self.manifest();
        let networks = self.engines().map(|(role, engine)| NetworkEngine {
            network: role.to_string(),
            engine: engine.to_owned(),
        });
        About {
            engine: Engine {
                name: self.engine(),
                bundle: format!("{} {}", manifest.name, manifest.version),
                networks: networks.collect(),
            },
            scientific_name: manifest.catalogue.scientific_name.clone(),
        }
    }

    fn recognise(&mut self, photograph: &EncodedPhotograph) -> anyhow::Result<Recognised> {
        let frame = self.identify_frame(photograph)?;
        let times = frame.stages_ms;
        let stages = [
            ("decode", times.decode),
            ("find", times.find),
            ("align", times.align),
            ("identify", times.identify),
        ];
        Ok(Recognised {
            heads: frame.heads.into_iter().map(RecognisedHead::from).collect(),
            faults: frame.faults,
            stages_ms: stages.map(|(name, ms)| (name.to_owned(), ms)).into(),
        })
    }
}

impl From<HeadIdentification> for RecognisedHead {
    fn from(head: HeadIdentification) -> Self {
        let candidates = |candidates: Vec<identify::Candidate>| {
            let candidates = candidates.into_iter().map(|candidate| Candidate {
                organism_id: candidate.individual,
                probability: candidate.probability,
            });
            candidates.collect()
        };
        Self {
            landmarks: head.landmarks(),
            confidence: head.confidence,
            decision: match head.decision {
                identify::Decision::Identified => Decision::Identified,
                identify::Decision::Uncertain => Decision::Uncertain,
                identify::Decision::Unknown => Decision::Unknown,
            },
            unknown_probability: head.unknown_probability,
            candidates: candidates(head.candidates),
        }
    }
}
