use link::message::{Engine, NetworkEngine};
use recognition::identify::{Appearance, Detection, Identification, Identifier, Opinion};
use recognition::pixels::{Faults, Image};

use crate::sighting::SeenHead;

/// Finds and names the whales in a frame: what the service needs of [`identify`](recognition::identify), so that it can
/// be flown with known answers in tests.
pub trait Recogniser: Send {
    /// What it is; asked anew for each frame, since a network may come to run elsewhere.
    fn about(&self) -> About;

    /// The heads in a frame.
    ///
    /// # Errors
    /// The frame cannot be decoded, or a network failed on it.
    fn recognise(&mut self, image: &Image) -> anyhow::Result<Recognised>;

    /// Names an animal by what one frame says of its head, or several together.
    fn identify(&self, opinion: &Opinion) -> Identification;
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
    /// The heads, not named yet.
    pub heads: Vec<SeenHead>,
    /// What is wrong with the frame; nothing, as a rule.
    pub faults: Faults,
    /// Time of each stage in milliseconds, by its name.
    pub stages_ms: Vec<(String, f64)>,
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

    fn recognise(&mut self, image: &Image) -> anyhow::Result<Recognised> {
        let frame = self.examine_image(image)?;
        let times = frame.stages_ms;
        let stages = [
            ("decode", times.decode),
            ("find", times.find),
            ("align", times.align),
            ("identify", times.identify),
        ];
        let seen = |head: Detection| SeenHead {
            landmarks: head.landmarks,
            confidence: head.confidence,
            opinion: self.opinion(&head, self.neighbours()),
            appearance: Appearance::of(&head),
        };
        Ok(Recognised {
            heads: frame.heads.into_iter().map(seen).collect(),
            faults: frame.faults,
            stages_ms: stages.map(|(name, ms)| (name.to_owned(), ms)).into(),
        })
    }

    fn identify(&self, opinion: &Opinion) -> Identification {
        self.conclude(opinion, self.neighbours())
    }
}
