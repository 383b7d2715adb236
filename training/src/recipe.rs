//! Recipes: TOML files that say how one network is built and trained.

use std::path::{Path, PathBuf};

use callosity::bundle::NetworkInput;
use callosity::geometry::HeadCrop;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, GraphError, Layer};

/// Everything that decides what a training run does, but for the data and the split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the network; that of the run folder too.
    pub name: String,
    /// What the network learns.
    pub task: Task,
    /// From which all randomness of the run follows.
    #[serde(default)]
    pub seed: u64,
    /// Size and normalisation of the input.
    pub input: Input,
    /// The layers.
    pub network: Declaration,
    /// How training photographs are varied.
    pub augmentation: Augmentation,
    /// Epochs, batches and the optimiser.
    pub schedule: Schedule,
}

/// What a network learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Heat map of head centres and offsets to the landmarks, on composed frames.
    Finder,
    /// The two landmarks in a crop around a head, on composed crops.
    Aligner,
    /// The upright box around the head, on composed frames with one head.
    Localiser,
    /// The individual, on head crops.
    Classifier,
}

/// The network's input; see [`NetworkInput`] for how pixels are normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Mean of red, green and blue, as fractions of full scale.
    #[serde(default = "grey_mean")]
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, as fractions of full scale.
    #[serde(default = "grey_std")]
    pub std: [f32; 3],
    /// Which rectangle around the landmarks a classifier of head crops sees.
    #[serde(default = "whole_head_photograph")]
    pub head_crop: HeadCrop,
    /// What a classifier sees of a head.
    #[serde(default)]
    pub framing: Framing,
}

/// What a classifier sees of a head. [`framing`](crate::framing) makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Framing {
    /// The rectangle `head_crop` around the landmarks, turned upright: what flies.
    #[default]
    HeadCrop,
    /// The upright box around the head, at whatever angle it lies, in a frame that is composed around the
    /// photograph; stretched to the input.
    Box {
        /// Added on each side, as a fraction of the box's width and height, as far as the frame reaches.
        padding: f64,
    },
    /// All of a frame that is composed around the photograph.
    WholeFrame,
}

fn whole_head_photograph() -> HeadCrop {
    HeadCrop::RIGHT_WHALE
}
fn grey_mean() -> [f32; 3] {
    [0.4; 3]
}
fn grey_std() -> [f32; 3] {
    [0.22; 3]
}

impl Input {
    /// The same as the manifest states it.
    pub fn network_input(&self) -> NetworkInput {
        NetworkInput {
            name: "image".to_owned(),
            width: self.width,
            height: self.height,
            mean: self.mean,
            std: self.std,
        }
    }
}

/// The layers of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Slope of the leaky ReLU below zero; 1/3 is the published "very leaky" one.
    pub leak: f64,
    /// In order; see [`Layer`].
    pub layers: Vec<Layer>,
}

/// Ranges of the random changes made to a training photograph. Zero switches a change off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Largest rotation either way.
    pub rotation_degrees: f64,
    /// Largest change of scale, as a fraction: 0.1 is 1/1.1 to 1.1.
    pub scale: f64,
    /// Largest change of the ratio of width to height, as a fraction.
    pub aspect: f64,
    /// Largest shift, as a fraction of the input's width and height.
    pub shift: f64,
    /// Largest shear factor.
    pub shear: f64,
    /// Largest change of brightness, as a fraction of full scale.
    pub brightness: f64,
    /// Largest change of contrast, as a fraction.
    pub contrast: f64,
    /// Largest change of each colour channel's gain, as a fraction.
    pub colour: f64,
    /// Share of a classifier's photographs mirrored at the line through bonnet and blowhead, and of a
    /// localiser's frames mirrored upside down.
    pub flip: f64,
    /// Share of photographs blurred.
    pub blur: f64,
    /// Share of photographs of which a random rectangle is erased.
    pub erase: f64,
}

/// Epochs, batches and the optimiser: AdamW (Loshchilov & Hutter 2019) with a one-cycle learning rate
/// (Smith 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Times that each training photograph is seen.
    pub epochs: u32,
    /// Composed samples in an epoch, for finder, aligner and localiser.
    #[serde(default)]
    pub samples_per_epoch: usize,
    /// Share of a finder's training frames that are windows of real frames with landmarks instead of
    /// composed; it is then measured on the frames of a fold that was left out.
    #[serde(default)]
    pub real_frames: f64,
    /// Photographs in a step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises to its peak.
    #[serde(default = "default_warm_up")]
    pub warm_up: f64,
    /// Decay of weights (not of biases and normalisation), decoupled from the gradient.
    #[serde(default)]
    pub weight_decay: f64,
    /// Share of the target probability spread over all individuals (Szegedy et al. 2016).
    #[serde(default)]
    pub label_smoothing: f64,
    /// Share of batches in which pairs are blended (mixup, Zhang et al. 2018).
    #[serde(default)]
    pub mixup: f64,
    /// Factor of the moving average of weights that is evaluated and kept; 0 switches it off.
    #[serde(default)]
    pub weight_average: f64,
}

fn default_warm_up() -> f64 {
    0.2
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecipeError {
    #[error("cannot read recipe {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("recipe {path}: {source}")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("recipe {path}: {field} is {value}; {wanted}")]
    Value {
        path: PathBuf,
        field: &'static str,
        value: String,
        wanted: &'static str,
    },
    #[error("recipe {path}: network: {source}")]
    Network { path: PathBuf, source: GraphError },
}

impl Recipe {
    /// Reads and checks a recipe.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read {
            path: path.to_owned(),
            source,
        })?;
        let recipe: Self = toml::from_str(&text).map_err(|source| RecipeError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        recipe.check(path)?;
        Ok(recipe)
    }

    fn check(&self, path: &Path) -> Result<(), RecipeError> {
        let s = &self.schedule;
        let a = &self.augmentation;
        let checks: [(bool, &'static str, String, &'static str); 11] = [
            (
                self.input.width > 0 && self.input.height > 0,
                "input",
                format!("{} × {}", self.input.width, self.input.height),
                "both sides must be above 0",
            ),
            (
                self.input.framing == Framing::HeadCrop
                    || self.task == Task::Classifier
                        && self.input.head_crop == whole_head_photograph(),
                "input.framing",
                format!("{:?}", self.input.framing),
                "only a classifier without head_crop takes another one than head_crop",
            ),
            (
                !matches!(self.input.framing, Framing::Box { padding } if !(0.0..=2.0).contains(&padding)),
                "input.framing",
                format!("{:?}", self.input.framing),
                "the padding is a fraction of the box, 0 to 2",
            ),
            (
                self.task != Task::Localiser && self.input.framing == Framing::HeadCrop
                    || [self.input.width, self.input.height]
                        .iter()
                        .all(|side| (32..=4096).contains(side)),
                "input",
                format!("{} × {}", self.input.width, self.input.height),
                "both sides of a composed picture must be from 32 to 4096",
            ),
            (
                self.input.std.iter().all(|&s| s > 0.0),
                "input.std",
                format!("{:?}", self.input.std),
                "each must be above 0",
            ),
            (
                [a.flip, a.blur, a.erase]
                    .iter()
                    .all(|share| (0.0..=1.0).contains(share)),
                "augmentation",
                format!("flip {}, blur {}, erase {}", a.flip, a.blur, a.erase),
                "each is a share of the photographs, 0 to 1",
            ),
            (
                s.epochs > 0,
                "schedule.epochs",
                s.epochs.to_string(),
                "must be above 0",
            ),
            (
                s.batch > 1,
                "schedule.batch",
                s.batch.to_string(),
                "batch normalisation needs at least 2",
            ),
            (
                s.learning_rate > 0.0 && s.learning_rate.is_finite(),
                "schedule.learning_rate",
                s.learning_rate.to_string(),
                "must be above 0",
            ),
            (
                self.task == Task::Classifier || s.samples_per_epoch > 0,
                "schedule.samples_per_epoch",
                s.samples_per_epoch.to_string(),
                "finder, aligner and localiser need a number of composed samples",
            ),
            (
                s.real_frames == 0.0
                    || self.task == Task::Finder && (0.0..=1.0).contains(&s.real_frames),
                "schedule.real_frames",
                s.real_frames.to_string(),
                "a finder takes 0 to 1, other networks train on no real frames",
            ),
        ];
        for (good, field, value, wanted) in checks {
            if !good {
                return Err(RecipeError::Value {
                    path: path.to_owned(),
                    field,
                    value,
                    wanted,
                });
            }
        }
        self.graph(1)
            .map(drop)
            .map_err(|source| RecipeError::Network {
                path: path.to_owned(),
                source,
            })
    }

    /// Whether its pictures are composed from photographs of heads.
    pub fn composes_frames(&self) -> bool {
        self.task != Task::Classifier || self.input.framing != Framing::HeadCrop
    }

    /// The network, with `individuals` outputs where the last layer leaves its size open.
    pub fn graph(&self, individuals: usize) -> Result<Graph, GraphError> {
        Graph::build(
            &self.network.layers,
            self.input.width as usize,
            self.input.height as usize,
            self.network.leak,
            individuals,
        )
    }
}
