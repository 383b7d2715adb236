//! Recipes: TOML files that say how one network is built and trained.

use std::fmt;
use std::path::{Path, PathBuf};

use recognition::bundle::{NetworkInput, Role};
use recognition::geometry::HeadCrop;
#[cfg(doc)]
use recognition::pixels::CameraCondition;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use crate::graph::{Graph, GraphError, Layer, Op};
use crate::metric_learning::MetricLoss;

/// Everything that decides what a training run does, but for the data and the split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the network; that of the run folder too.
    pub name: String,
    /// What is special about it, in a few words for tables; decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
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
    /// What a classifier learns, and by how much each.
    #[serde(default)]
    pub loss: Loss,
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
    /// The individual, on photographs of heads.
    Classifier,
    /// Features, on head photographs without names: each photograph is told from all others in two random
    /// views, by the recipe's metric loss (self-supervised, Chen et al. 2020, "SimCLR"). Its weights are the
    /// start of a classifier.
    Pretraining,
}

impl Task {
    /// Which of a bundle's networks learns this; `None` where none does.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Finder => Some(Role::Finder),
            Self::Aligner => Some(Role::Aligner),
            Self::Classifier => Some(Role::Ensemble),
            Self::Localiser | Self::Pretraining => None,
        }
    }
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
    /// Whether a mirrored whale is an individual of its own: the network then has twice as many outputs,
    /// whales first and then their mirrored selves, and learns half of its photographs mirrored.
    pub mirrored_individuals: bool,
    /// Share of photographs blurred.
    pub blur: f64,
    /// Share of photographs of which a random rectangle is erased.
    pub erase: f64,
    /// Cameras, light and files that photographs could have come from; absent, none is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<CameraVariation>,
}

/// How cameras, light and files vary. [`draw`](Self::draw) gives one photograph's [`CameraCondition`], which says in
/// which order they act and clips at both ends. Zero switches a change off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraVariation {
    /// Standard deviation of the natural logarithm of red's and of blue's gain; green keeps its own.
    pub white_balance: f64,
    /// Standard deviation of the exposure, in stops: one doubles the light, and encoded values grow by 2^(1/2.2).
    pub exposure_stops: f64,
    /// Standard deviation of the natural logarithm of the tone curve's exponent.
    pub gamma: f64,
    /// Share of photographs without colour.
    pub grey: f64,
    /// Largest part of the light that haze replaces, 0…1.
    pub haze: f64,
    /// Share of photographs with a sensor's noise: 300 to 10,000 electrons at white, evenly in their logarithm.
    pub noise: f64,
    /// Share of photographs that went through a JPEG of quality 15 to 70.
    pub jpeg: f64,
}

/// The parts of a classifier's loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Weight of the cross entropy of the individuals. At 0 a whale is named by the nearest photographs
    /// that the network was trained on.
    pub classification: f64,
    /// Added to the angle between a photograph and its own whale, in radians, where the last layer is
    /// [`cosine`](Layer::Cosine) ("ArcFace").
    pub angular_margin: f64,
    /// Loss on the embedding, the pooled features divided by their length.
    pub metric: Option<MetricLoss>,
    /// Weight of the metric loss.
    pub metric_weight: f64,
    /// Weight of the mean squared error of a [spatial transformer's](Layer::SpatialTransformer) landmarks.
    pub landmarks: f64,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            classification: 1.0,
            angular_margin: 0.0,
            metric: None,
            metric_weight: 1.0,
            landmarks: 0.0,
        }
    }
}

/// Epochs, batches and the optimiser: AdamW (Loshchilov & Hutter 2019) with a one-cycle learning rate
/// (Smith 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Times that each training photograph is seen. At 0 the weights that a run starts from are measured and kept,
    /// such as those of a bundle behind another treatment of the input.
    pub epochs: u32,
    /// Composed samples in an epoch, for finder and aligner.
    #[serde(default)]
    pub samples_per_epoch: usize,
    /// Share of a finder's training frames that are windows of real frames with landmarks instead of
    /// composed; it is then measured on the frames of a fold that was left out.
    #[serde(default)]
    pub real_frames: f64,
    /// Photographs in a step.
    pub batch: usize,
    /// A classifier's photographs of one whale that come together in a batch, as a metric loss needs them;
    /// at 1 the order is drawn without regard to whales.
    #[serde(default = "one")]
    pub photographs_of_a_whale: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Factor of the learning rate for a [spatial transformer's](Layer::SpatialTransformer) own layers; at 0
    /// they stay as they are.
    #[serde(default = "whole")]
    pub localisation_rate: f64,
    /// Share of the steps in which the learning rate rises to its peak.
    #[serde(default = "default_warm_up")]
    pub warm_up: f64,
    /// Decay of weights (not of biases and normalisation), decoupled from the gradient.
    #[serde(default)]
    pub weight_decay: f64,
    /// Share of the target probability spread over all individuals (Szegedy et al. 2016).
    #[serde(default)]
    pub label_smoothing: f64,
    /// How much pairs of a batch are blended (mixup, Zhang et al. 2018), 0 to 1. In every batch each photograph is
    /// blended with another of the same batch, and so are their losses: the other's share is one number for the
    /// whole batch, drawn evenly from 0 to half of this. 0 switches it off.
    #[serde(default)]
    pub mixup: f64,
    /// Factor of the moving average of weights that is evaluated and kept; 0 switches it off.
    #[serde(default)]
    pub weight_average: f64,
}

fn one() -> usize {
    1
}
fn whole() -> f64 {
    1.0
}
fn default_warm_up() -> f64 {
    0.2
}

/// A line of a recipe's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
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
    #[error("{at}: {reason}")]
    Recipe { at: Place, reason: String },
    #[error("--set {settings}: {reason}")]
    Settings { settings: String, reason: String },
}

/// A recipe's text with the places of its values.
struct Document<'t> {
    text: &'t str,
    root: Spanned<DeValue<'t>>,
}

impl<'t> Document<'t> {
    fn parse(text: &'t str) -> Result<Self, toml::de::Error> {
        let root = DeTable::parse(text)?;
        let root = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
        Ok(Self { text, root })
    }

    /// Line of a field such as `schedule.batch`, or of the table around it where the file leaves it out.
    fn line_of(&self, field: &str) -> usize {
        let mut found = &self.root;
        for key in field.split('.') {
            match found.get_ref().get(key) {
                Some(value) => found = value,
                None => break,
            }
        }
        line(self.text, found.span().start)
    }

    fn layers(&self) -> impl Iterator<Item = &Spanned<DeValue<'t>>> {
        let network = self.root.get_ref().get("network");
        let layers = network.and_then(|network| network.get_ref().get("layers"));
        let layers = layers.and_then(|layers| layers.get_ref().as_array());
        layers.into_iter().flat_map(|layers| layers.iter())
    }

    fn line_of_layer(&self, layer: usize) -> usize {
        match self.layers().nth(layer - 1) {
            Some(found) => line(self.text, found.span().start),
            None => self.line_of("network.layers"),
        }
    }

    /// Line and reason of an error. One inside of a layer has no place of its own, since `serde` chooses the
    /// kind of a layer by its key `op` only after it has read the others; so that layer is looked for.
    fn explain(&self, error: &toml::de::Error) -> (usize, String) {
        for (index, layer) in self.layers().enumerate() {
            let read = Layer::deserialize(ValueDeserializer::from(layer.clone()));
            if let Err(reason) = read {
                let op = layer
                    .get_ref()
                    .get("op")
                    .and_then(|op| op.get_ref().as_str());
                let op = op.map(|op| format!(" ({op})")).unwrap_or_default();
                let message = format!("layer {}{op}: {}", index + 1, reason.message());
                return (line(self.text, layer.span().start), message);
            }
        }
        explain(self.text, error)
    }
}

/// Line of a byte of a text, from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Line and reason of an error of TOML's.
fn explain(text: &str, error: &toml::de::Error) -> (usize, String) {
    let line = error.span().map_or(1, |span| line(text, span.start));
    let found = text.lines().nth(line - 1).unwrap_or_default().trim();
    // "invalid type" does not say of what.
    let message = error.message();
    (line, format!("{message}, in: {found}"))
}

/// A field with a value that cannot be used, that value, and what is wanted.
type Fault = (&'static str, String, &'static str);

/// Takes over all values of `changes`, tables value by value.
fn merge(table: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(inner)), Value::Table(change)) => merge(inner, change),
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

/// The first of what was checked that is not good.
fn first_fault(
    checks: impl IntoIterator<Item = (bool, &'static str, String, &'static str)>,
) -> Result<(), Fault> {
    match checks.into_iter().find(|(good, ..)| !good) {
        Some((_, field, value, wanted)) => Err((field, value, wanted)),
        None => Ok(()),
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// It cannot be read, has an unknown key or a value that cannot be used, or its layers are no network: with
    /// the line.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        Self::load_with(path, &[])
    }

    /// Reads and checks a recipe, and once more with values of `settings` instead of its own: lines of TOML such
    /// as `schedule.learning_rate = 3e-3`.
    ///
    /// # Errors
    /// As of [`load`](Self::load), or a setting is no TOML, or the recipe cannot be used with it.
    pub fn load_with(path: &Path, settings: &[String]) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read {
            path: path.to_owned(),
            source,
        })?;
        let recipe = Self::parse(&text).map_err(|(line, reason)| RecipeError::Recipe {
            at: Place {
                path: path.to_owned(),
                line,
            },
            reason,
        })?;
        if settings.is_empty() {
            return Ok(recipe);
        }
        let refuse = |settings: &[String], reason: String| RecipeError::Settings {
            settings: settings.join(" --set "),
            reason,
        };
        let mut table = toml::from_str(&text).expect("has been read as TOML");
        for setting in settings {
            let changes = toml::from_str(setting).map_err(|error: toml::de::Error| {
                let reason = error.message().to_owned();
                refuse(std::slice::from_ref(setting), reason)
            })?;
            merge(&mut table, changes);
        }
        let text = toml::to_string(&table).expect("was read from TOML");
        Self::parse(&text).map_err(|(_, reason)| refuse(settings, reason))
    }

    /// Checks a recipe's text. An error is its line and the reason.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let document = Document::parse(text).map_err(|error| explain(text, &error))?;
        let recipe: Self = toml::from_str(text).map_err(|error| document.explain(&error))?;
        let refuse_value = |(field, value, wanted): Fault| {
            let reason = format!("{field} is {value}; {wanted}");
            (document.line_of(field), reason)
        };
        recipe.check().map_err(refuse_value)?;
        let graph = recipe.graph(1).map_err(|error| {
            let line = match &error {
                GraphError::Layer { layer, .. } => document.line_of_layer(*layer),
                GraphError::Empty => document.line_of("network.layers"),
            };
            (line, error.to_string())
        })?;
        recipe.check_network(&graph).map_err(refuse_value)?;
        Ok(recipe)
    }

    /// The first field with a value that cannot be used, that value, and what is wanted.
    fn check(&self) -> Result<(), Fault> {
        let s = &self.schedule;
        let a = &self.augmentation;
        for (value, field) in [
            (self.input.width, "input.width"),
            (self.input.height, "input.height"),
        ] {
            if value == 0 {
                return Err((field, value.to_string(), "must be above 0"));
            }
        }
        for (share, field) in [
            (self.network.leak, "network.leak"),
            (a.flip, "augmentation.flip"),
            (a.blur, "augmentation.blur"),
            (a.erase, "augmentation.erase"),
            (s.warm_up, "schedule.warm_up"),
            (s.label_smoothing, "schedule.label_smoothing"),
            (s.mixup, "schedule.mixup"),
            (s.weight_average, "schedule.weight_average"),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err((field, share.to_string(), "must be from 0 to 1"));
            }
        }
        if let Some(camera) = &a.camera {
            for (share, field) in [
                (camera.grey, "augmentation.camera.grey"),
                (camera.haze, "augmentation.camera.haze"),
                (camera.noise, "augmentation.camera.noise"),
                (camera.jpeg, "augmentation.camera.jpeg"),
            ] {
                if !(0.0..=1.0).contains(&share) {
                    return Err((field, share.to_string(), "must be from 0 to 1"));
                }
            }
            for (deviation, field) in [
                (camera.white_balance, "augmentation.camera.white_balance"),
                (camera.exposure_stops, "augmentation.camera.exposure_stops"),
                (camera.gamma, "augmentation.camera.gamma"),
            ] {
                if !(0.0..=4.0).contains(&deviation) {
                    return Err((field, deviation.to_string(), "must be from 0 to 4"));
                }
            }
        }
        let framing = &self.input.framing;
        let checks = [
            (
                *framing == Framing::HeadCrop
                    || self.task == Task::Classifier
                        && self.input.head_crop == whole_head_photograph(),
                "input.framing",
                format!("{framing:?}"),
                "only a classifier without input.head_crop takes another one than head_crop",
            ),
            (
                !matches!(framing, Framing::Box { padding } if !(0.0..=2.0).contains(padding)),
                "input.framing",
                format!("{framing:?}"),
                "the padding is a fraction of the box, 0 to 2",
            ),
            (
                self.task != Task::Localiser && *framing == Framing::HeadCrop
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
                matches!(self.task, Task::Classifier | Task::Pretraining)
                    || s.samples_per_epoch > 0,
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
            (
                !a.mirrored_individuals || self.input.head_crop.landmark_y == 0.5,
                "input.head_crop.landmark_y",
                self.input.head_crop.landmark_y.to_string(),
                "mirrored individuals need the landmarks half-way down, 0.5",
            ),
            (
                s.photographs_of_a_whale > 0,
                "schedule.photographs_of_a_whale",
                s.photographs_of_a_whale.to_string(),
                "must be above 0",
            ),
            (
                self.loss.metric.is_none() || s.mixup == 0.0,
                "schedule.mixup",
                s.mixup.to_string(),
                "blended photographs show two whales, a metric loss needs one; take 0",
            ),
            (
                self.task != Task::Pretraining || self.loss.metric.is_some(),
                "loss.metric",
                "absent".to_owned(),
                "pretraining has no other loss; take { kind = \"nt_xent\", temperature = 0.2 }",
            ),
            (
                match self.loss.metric {
                    None => true,
                    Some(MetricLoss::Triplet { margin } | MetricLoss::Contrastive { margin }) => {
                        margin > 0.0
                    }
                    Some(MetricLoss::NtXent { temperature }) => temperature > 0.0,
                },
                "loss.metric",
                format!("{:?}", self.loss.metric),
                "margin and temperature must be above 0",
            ),
        ];
        first_fault(checks)
    }

    /// As [`check`](Self::check), of what only the network's layers show to be useless.
    fn check_network(&self, graph: &Graph) -> Result<(), Fault> {
        let l = &self.loss;
        let checks = [
            (
                l.metric.is_none() || graph.features().is_some(),
                "loss.metric",
                format!("{:?}", l.metric),
                "the network has no pooled features for it; end in linear or cosine",
            ),
            (
                l.angular_margin == 0.0 || matches!(graph.output().op, Op::Cosine { .. }),
                "loss.angular_margin",
                l.angular_margin.to_string(),
                "only a network that ends in cosine has angles",
            ),
            (
                l.landmarks == 0.0 || graph.landmarks().is_some(),
                "loss.landmarks",
                l.landmarks.to_string(),
                "only a network that begins with a spatial_transformer has landmarks",
            ),
        ];
        first_fault(checks)
    }

    /// Whether the network's outputs are logits of individuals, so that it names by them.
    pub fn outputs_logits(&self) -> bool {
        self.task == Task::Classifier && self.loss.classification > 0.0
    }

    /// The network, with an output for each of `individuals` where the last layer leaves its size open, and
    /// one for the mirrored self of each where those are individuals too.
    pub fn graph(&self, individuals: usize) -> Result<Graph, GraphError> {
        let selves = if self.augmentation.mirrored_individuals {
            2
        } else {
            1
        };
        Graph::build(
            &self.network.layers,
            self.input.width as usize,
            self.input.height as usize,
            self.network.leak,
            selves * individuals,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"name = "tiny"
task = "classifier"

[input]
width = 24
height = 16

[network]
leak = 0.1
layers = [
  { op = "conv", channels = 6, stride = 2 },
  # A comment, and a layer over two lines.
  { op = "residual", channels = 8,
    stride = 2 },
  { op = "max_pool" },
  { op = "global_average_pool" },
  { op = "linear" },
]

[augmentation]
blur = 0.1

[schedule]
epochs = 4
batch = 4
learning_rate = 1e-2
"#;

    fn load(text: &str) -> Result<Recipe, RecipeError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.toml");
        std::fs::write(&path, text).expect("written");
        Recipe::load(&path)
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_line_and_the_reason() {
        load(RECIPE).expect("good as it is");
        // What stands there instead of what, the line, and what must be said.
        let faults = [
            ("batch = 4", "batchs = 4", 25, "unknown field `batchs`"),
            ("width = 24", "widht = 24", 5, "unknown field `widht`"),
            (
                "task = ",
                "colour = 3\ntask = ",
                2,
                "unknown field `colour`",
            ),
            ("[schedule]", "[shedule]", 23, "unknown field `shedule`"),
            (
                "\"classifier\"",
                "\"painter\"",
                2,
                "unknown variant `painter`",
            ),
            (
                "epochs = 4",
                "epochs = 4.5",
                24,
                "invalid type: floating point `4.5`, expected u32",
            ),
            ("epochs = 4", "epochs = = 4", 24, "epochs = = 4"),
            (
                "learning_rate = 1e-2\n",
                "",
                23,
                "missing field `learning_rate`",
            ),
            (
                "{ op = \"max_pool\" }",
                "{ op = \"max_pool\", side = 2 }",
                15,
                "layer 3 (max_pool): unknown field `side`",
            ),
            (
                "op = \"residual\"",
                "op = \"residul\"",
                13,
                "layer 2 (residul): unknown variant `residul`",
            ),
            (
                "channels = 6, ",
                "",
                11,
                "layer 1 (conv): missing field `channels`",
            ),
            (
                "{ op = \"max_pool\" }",
                "{ op = \"max_pool\", size = 8 }",
                15,
                "layer 3 (max_pool): a window of 8 does not fit a map of 6 × 4",
            ),
            (
                "{ op = \"global_average_pool\" },\n",
                "\n",
                17,
                "layer 4 (linear): needs a vector",
            ),
            (
                "height = 16",
                "height = 0",
                6,
                "input.height is 0; must be above 0",
            ),
            (
                "blur = 0.1",
                "blur = 1.1",
                21,
                "augmentation.blur is 1.1; must be from 0 to 1",
            ),
            (
                "batch = 4",
                "batch = 1",
                25,
                "schedule.batch is 1; batch normalisation",
            ),
            ("leak = 0.1", "leak = nan", 9, "network.leak is NaN"),
            (
                "\"classifier\"",
                "\"aligner\"",
                23,
                "schedule.samples_per_epoch is 0",
            ),
        ];
        for (from, to, line, words) in faults {
            assert_eq!(RECIPE.matches(from).count(), 1, "{from}");
            let error = load(&RECIPE.replace(from, to)).expect_err(to).to_string();
            let place = format!("tiny.toml:{line}: ");
            assert!(error.contains(&place), "{to}: {error}, not {place}");
            assert!(error.contains(words), "{to}: {error}");
        }
        let start = RECIPE.find("[\n").expect("layers");
        let end = RECIPE.find("]\n\n[augmentation").expect("layers");
        let empty = format!("{}[{}", &RECIPE[..start], &RECIPE[end..]);
        let error = load(&empty).expect_err("no layers").to_string();
        assert!(error.contains("tiny.toml:10: "), "{error}");
    }

    #[test]
    fn settings_stand_in_for_values_of_the_recipe() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.toml");
        std::fs::write(&path, RECIPE).expect("written");
        let with = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|&s| s.to_owned()).collect();
            Recipe::load_with(&path, &settings)
        };
        let mut wanted = load(RECIPE).expect("good as it is");
        wanted.name = "other".to_owned();
        wanted.input.width = 32;
        wanted.input.height = 24;
        wanted.schedule.learning_rate = 3e-3;
        wanted.schedule.weight_decay = 0.1;
        let changed = with(&[
            "name = 'other'",
            "schedule.learning_rate = 4",
            "input = { width = 32, height = 24 }",
            "schedule = { weight_decay = 0.1, learning_rate = 3e-3 }",
        ]);
        assert_eq!(changed.expect("good"), wanted);
        for (setting, words) in [
            ("schedule.batch = 1", "schedule.batch is 1; batch norm"),
            ("schedule.batchs = 8", "unknown field `batchs`"),
            ("name = other", "--set name = other: "),
            ("input.width = 'wide'", "invalid type: string"),
            (
                "network.layers = [{ op = \"linear\" }]",
                "layer 1 (linear): needs a vector",
            ),
        ] {
            let error = with(&[setting]).expect_err(setting).to_string();
            assert!(error.contains(words), "{setting}: {error}");
        }
    }

    #[test]
    fn layers_may_be_tables_of_their_own() {
        let start = RECIPE.find("layers = [").expect("layers");
        let end = RECIPE.find("[augmentation").expect("layers");
        let tables = "[[network.layers]]\nop = \"conv\"\nchannels = 4\n\n\
                      [[network.layers]]\nop = \"global_average_pool\"\nsize = 3\n\n";
        let text = format!("{}{tables}{}", &RECIPE[..start], &RECIPE[end..]);
        load(&text.replace("size = 3\n", "")).expect("good");
        let error = load(&text).expect_err("a size").to_string();
        assert!(error.contains("tiny.toml:14: layer 2"), "{error}");
    }

    #[test]
    fn every_recipe_of_the_repository_can_be_used() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let mut loaded = 0;
        for entry in std::fs::read_dir(folder).expect("recipes") {
            let path = entry.expect("an entry").path();
            let recipe = Recipe::load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                path.file_stem().and_then(|s| s.to_str()),
                Some(recipe.name.as_str())
            );
            loaded += 1;
        }
        assert!(loaded > 20);
    }
}
