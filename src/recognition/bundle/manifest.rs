use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Role;
use crate::geometry::HeadCrop;

/// Version of the manifest's format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Name of the manifest's file in a bundle.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The content of `manifest.json`.
///
/// Paths are relative to the bundle's directory, with `/`, and never leave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// The bundle's name, such as `right-whales`.
    pub name: String,
    /// The bundle's own version.
    #[schemars(with = "String")]
    pub version: semver::Version,
    /// When the bundle was made, UTC, RFC 3339.
    pub created: String,
    /// The oldest version of `callosity` that can use it.
    #[schemars(with = "String")]
    pub minimum_program_version: semver::Version,
    /// Whom the bundle knows.
    pub catalogue: Catalogue,
    /// Finds heads in a frame. A bundle without finder and aligner names only crops.
    pub finder: Option<Finder>,
    /// Places the landmarks of a found head.
    pub aligner: Option<Aligner>,
    /// Names a head crop.
    pub ensemble: Ensemble,
    /// From probabilities to a decision.
    pub decision: DecisionRule,
    /// Photographs that heads are compared with; absent in a bundle that only its networks' training
    /// taught.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gallery: Option<GalleryFile>,
    /// Inputs with the outputs they must give.
    pub self_test: Vec<SelfTest>,
    /// How the networks came about.
    pub provenance: Provenance,
}

/// The individuals that a bundle can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// What is catalogued, such as `Eubalaena glacialis`.
    pub scientific_name: String,
    /// Labels in the order of the ensemble's logits; opaque strings, each once.
    pub individuals: Vec<String>,
}

/// One ONNX file and how to feed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The ONNX file.
    pub file: String,
    /// SHA-256 of that file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// What goes in.
    pub input: NetworkInput,
    /// Name of the output that is read.
    pub output: String,
}

/// The one input of a network: RGB planes, `float32`, layout `N × 3 × height × width`, any `N`.
///
/// A pixel of value `v` in 0…255 enters as `(v / 255 − mean) / std` of its channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkInput {
    /// Name of the ONNX input.
    pub name: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Mean of red, green and blue, as fractions of full scale.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, as fractions of full scale; above 0.
    pub std: [f32; 3],
}

/// The network that finds heads.
///
/// The whole frame is reduced to fit its input, upright, centred, padded with mid-grey. Where
/// [`closer_look`](Self::closer_look) says so, each peak is then looked at once more, larger. The output is
/// `N × 5 × (height / stride) × (width / stride)`: channel 0 is the logit that a head's centre (half-way
/// between the landmarks) lies in this cell; channels 1 to 4 are the offsets, in input pixels, from the
/// cell's centre to bonnet x, bonnet y, blowhead x, blowhead y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finder {
    /// The ONNX file.
    pub network: Network,
    /// Input pixels for each output cell.
    pub stride: u32,
    /// Probability from which a peak is a head, 0…1; with a closer look, of both looks together.
    pub threshold: f32,
    /// How peaks are looked at again; absent where one look is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closer_look: Option<CloserLook>,
    /// Peaks nearer to a stronger one than this many head lengths are the same head.
    pub suppression_radius_head_lengths: f32,
    /// Most heads reported for one frame.
    pub maximum_heads: usize,
}

/// The finder's second look at a peak, in a part of the frame of the input's shape around it: what water
/// made look like a head at one size seldom does so at another.
///
/// The part is centred on the peak but moved to lie within the frame, and reduced less than the whole
/// frame, or as much where the head is long enough already. The head's logit is then the mean of the
/// first look's and the highest one of the second within half a head length of the peak. What these two leave is
/// seen in further [views](Self::views) of the whole frame and of the part, and in all views of parts of
/// [further sizes](Self::further_head_lengths_pixels); a look's logit is then the mean of its views'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloserLook {
    /// Probability from which a peak of the first look is looked at again, 0…1.
    pub candidate_threshold: f32,
    /// How long the head is then by the first look's estimate, in pixels of the input; above 0.
    pub head_length_pixels: f64,
    /// The same in the parts that are looked at where the first of them leaves a candidate, each above 0; none is
    /// also meant where it is absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_head_lengths_pixels: Vec<f64>,
    /// In how many views each look sees a candidate, 1 to 4: as it is, mirrored left to right, mirrored top to
    /// bottom, turned by half; 1 is also meant where it is absent.
    #[serde(default = "one_view", skip_serializing_if = "is_one_view")]
    pub views: u32,
}

fn one_view() -> u32 {
    1
}

fn is_one_view(views: &u32) -> bool {
    *views == one_view()
}

/// The network that places the landmarks in a crop around a found head.
///
/// The crop is a square of [`field_head_lengths`](Self::field_head_lengths) estimated head lengths,
/// centred on the estimated head centre and turned so that the estimated bonnet lies to the right of
/// the blowhead. The output is `N × 4`: bonnet x, bonnet y, blowhead x, blowhead y as fractions of the
/// crop's side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aligner {
    /// The ONNX file.
    pub network: Network,
    /// Side of the crop in head lengths.
    pub field_head_lengths: f64,
    /// How often the crop is taken anew around the landmarks of the round before; at least 1.
    pub rounds: u32,
    /// Affine views in the last round, whose predictions are mapped back and averaged; at least 1.
    pub views: u32,
}

/// The classifiers and their logistic regression, as one graph.
///
/// The output is `N × individuals`: logits in the catalogue's order, before temperature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// The ONNX file.
    pub network: Network,
    /// Which rectangle around the landmarks the input shows.
    pub head_crop: HeadCrop,
    /// Slightly moved crops whose probabilities are averaged; at least 1.
    pub views: u32,
    /// What the network gives beside the logits; absent in bundles that were made before it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// How its last layer was made; absent in bundles that were made before it was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_layer: Option<LastLayer>,
}

/// How an ensemble's last layer was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LastLayer {
    /// The mean of the classifiers' own last layers, over a temperature: each classifier's own can be read out of
    /// it, and its weights have learnt nothing from the photographs that were held out.
    Averaged,
    /// Fitted on photographs that no classifier was trained on.
    Fitted,
}

/// The ensemble's second output, `N × length`: a unit vector for each head crop, near for crops of one
/// individual. It is the classifiers' standardised pooled features side by side, over their length; in bundles that
/// say less of one individual's variety by a linear map, that map's result over its length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Name of the ONNX output.
    pub output: String,
    /// Values of one embedding.
    pub length: usize,
}

/// The gallery: embeddings of photographs whose individuals are known, and what similarity to them is worth.
///
/// Its individuals are those of the catalogue, in its order, and after them the [enrolled](Self::enrolled)
/// ones. The file is [`Gallery`](super::Gallery)'s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GalleryFile {
    /// The safetensors file.
    pub file: String,
    /// SHA-256 of that file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// From similarities to logits.
    pub neighbours: NeighbourModel,
    /// Individuals that no network was trained to name: they are known by their photographs in the
    /// gallery alone. Opaque strings, each once, none of them in the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrolled: Vec<String>,
}

/// What similarity to an individual's photographs is worth, as a logit.
///
/// A head's embedding `e` is the mean of its views' embeddings, over its length. The similarity to
/// individual `k` is `s_k = max_j e·g_j` over its photographs' embeddings `g_j` in the gallery (cosine; the
/// nearest neighbour), and its neighbour logit is `n_k = slope · s_k + intercept`. With the logits `z_k` of
/// the ensemble over the temperature, what enters the softmax is
///
/// - of an individual of the catalogue `l_k = (1 − share) · z_k + share · n_k`; `z_k` where it has no
///   photograph in the gallery;
/// - of an enrolled one, for which the ensemble has no logit, `l_k = n_k`.
///
/// `n_k` stands for the logarithm of how much likelier the head is if it is `k`'s, up to what all share, so
/// that an individual more changes the others' probabilities only as far as the head looks like it. "Unknown"
/// ([`UnknownModel`]) is worked out from the same `l_k`: a head that is like one enrolled individual raises the
/// score, and is unknown less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeighbourModel {
    /// Change of the logit for each unit of similarity; above 0.
    pub slope: f32,
    /// Logit at similarity 0.
    pub intercept: f32,
    /// Part of the neighbours in the logits of the catalogue's individuals, 0…1.
    pub share: f32,
}

impl NeighbourModel {
    /// The neighbour logit at a similarity.
    pub fn logit(&self, similarity: f32) -> f64 {
        f64::from(self.slope) * f64::from(similarity) + f64::from(self.intercept)
    }
}

/// From logits to a decision. In a bundle with a gallery, from the logits blended with their
/// [neighbours](NeighbourModel).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionRule {
    /// The ensemble's logits are divided by this before the softmax; above 0.
    pub temperature: f32,
    /// Probabilities averaged over views are raised to this power and scaled to sum 1 again; above 0. Above
    /// 1 it sharpens what averaging blurred; 1, which is also meant where it is absent, changes nothing.
    #[serde(default = "unchanged", skip_serializing_if = "is_unchanged")]
    pub power: f32,
    /// How likely the whale is none of the catalogue.
    pub unknown: UnknownModel,
    /// From this probability of "unknown" on the decision is `unknown`, 0…1.
    pub unknown_threshold: f32,
    /// From this [confidence](Confidence) on the decision is `identified`, else `uncertain`.
    pub identified_threshold: f32,
    /// Which probability is compared with that threshold; where absent, that of the best candidate alone.
    #[serde(default, skip_serializing_if = "Confidence::is_of_candidate")]
    pub confidence: Confidence,
    /// What the thresholds were chosen for; absent in bundles that were made before there were aims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aims: Option<DecisionAims>,
}

/// How sure a name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The probability of the best candidate, given that the whale is known.
    #[default]
    Candidate,
    /// The probability that the whale is known and the best candidate: that of the candidate times 1 − "unknown".
    KnownCandidate,
}

impl Confidence {
    /// From the probability of the best candidate, given that the whale is known, and that of "unknown".
    pub fn of(self, best: f64, unknown: f64) -> f64 {
        match self {
            Self::Candidate => best,
            Self::KnownCandidate => (1.0 - unknown) * best,
        }
    }

    fn is_of_candidate(&self) -> bool {
        *self == Self::Candidate
    }
}

/// For what the thresholds of a [`DecisionRule`] were chosen: as many heads as possible shall be called identified, while
/// both aims hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionAims {
    /// Least share of right names among the heads that are called identified, 0…1, where
    /// [`stranger_share`](Self::stranger_share) of the heads are of whales that the bundle does not know.
    pub precision: f64,
    /// Greatest share of the heads of whales that the bundle does not know that may be called identified, 0…1.
    pub strangers: f64,
    /// Share of heads of whales that the bundle does not know among those that are met, 0…1.
    pub stranger_share: f64,
    /// Whether the aims were met where the thresholds were chosen. Where not, the strictest threshold stands.
    pub met: bool,
    /// What was reached there: on photographs that no network was trained on, by cross-validation.
    pub reached: ReachedAims,
}

/// What thresholds do on photographs that no network was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReachedAims {
    /// Share of right names among the heads called identified, at the aims' share of strangers; absent where no head
    /// is called identified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Share of the heads of known whales that are called identified.
    pub known_identified: f64,
    /// Share of the heads of other whales that are called identified; absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strangers_identified: Option<f64>,
    /// Photographs of known whales.
    pub known_photographs: usize,
    /// Photographs of other whales.
    pub stranger_photographs: usize,
    /// These whales.
    pub stranger_individuals: usize,
}

fn unchanged() -> f32 {
    1.0
}

fn is_unchanged(power: &f32) -> bool {
    *power == unchanged()
}

/// Logistic model of "not in the catalogue", fitted on whales held out whole:
/// `p = 1 / (1 + exp(−(intercept + slope · s)))` for the [score](UnknownScore) `s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnknownModel {
    /// What it looks at; where absent, the free energy.
    #[serde(default, skip_serializing_if = "UnknownScore::is_free_energy")]
    pub score: UnknownScore,
    /// Change of the log odds for each unit of the score; negative in a useful model.
    pub slope: f32,
    /// Log odds at score 0.
    pub intercept: f32,
    /// What the score [`Features`](UnknownScore::Features) is made of, each feature once; empty with another score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<WeightedFeature>,
}

/// A feature and what it adds to the score: `weight · (value − mean) / deviation`. One that cannot be worked out of a
/// head adds nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedFeature {
    /// Which.
    pub feature: UnknownFeature,
    /// Its mean over the photographs that the model was fitted on.
    pub mean: f32,
    /// Its standard deviation there; above 0.
    pub deviation: f32,
    /// What a standard deviation more adds to the score.
    pub weight: f32,
}

/// A number that tells whales of the catalogue from others, alone or together with more.
///
/// In those of the gallery `q` is the head's embedding, a unit vector, and `g_j` those of the gallery's photographs.
/// "Individuals" are those of the catalogue and the enrolled ones.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFeature {
    /// [`UnknownScore::FreeEnergy`].
    FreeEnergy,
    /// [`UnknownScore::Concentration`].
    Concentration,
    /// How alike the views name: the mean of the entropies of their probabilities less the entropy of the mean
    /// probabilities, in nats (the Jensen-Shannon divergence with its sign turned); 0 where all say the same.
    ViewAgreement,
    /// The cosine to the nearest photograph: the greatest `q·g_j`.
    Similarity,
    /// By how much the individual with the nearest photograph is nearer than the next individual.
    SimilarityGap,
    /// The greatest `(q·g_j − m_j) / d_j`, where `m_j` and `d_j` are mean and standard deviation of the cosines of
    /// photograph `j` to the 100 photographs of the catalogue's other individuals that are nearest to it (normalising
    /// by a cohort, as in speaker verification: some photographs are near to all others).
    RelativeSimilarity,
    /// The squared distance of `q` to the nearest of the individuals' means of their photographs.
    MeanDistance,
    /// `(q − c)ᵀ (C + t I)⁻¹ (q − c)` with mean `c` and covariance `C` of the catalogue's photographs and `t` the mean
    /// of `C`'s diagonal: how unusual the head is, whoever's it is. With the feature before it makes the relative
    /// Mahalanobis distance (Ren et al. 2021, "A simple fix to Mahalanobis distance for improving near-OOD detection").
    MahalanobisDistance,
}

impl UnknownFeature {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::FreeEnergy,
        Self::Concentration,
        Self::ViewAgreement,
        Self::Similarity,
        Self::SimilarityGap,
        Self::RelativeSimilarity,
        Self::MeanDistance,
        Self::MahalanobisDistance,
    ];

    /// Its name in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FreeEnergy => "free_energy",
            Self::Concentration => "concentration",
            Self::ViewAgreement => "view_agreement",
            Self::Similarity => "similarity",
            Self::SimilarityGap => "similarity_gap",
            Self::RelativeSimilarity => "relative_similarity",
            Self::MeanDistance => "mean_distance",
            Self::MahalanobisDistance => "mahalanobis_distance",
        }
    }

    /// Whether it compares a head with photographs.
    pub const fn needs_gallery(self) -> bool {
        !matches!(
            self,
            Self::FreeEnergy | Self::Concentration | Self::ViewAgreement
        )
    }

    /// Whether it looks at the gallery as a whole ([`GalleryStatistics`](crate::identify::GalleryStatistics)).
    pub const fn needs_statistics(self) -> bool {
        matches!(
            self,
            Self::RelativeSimilarity | Self::MeanDistance | Self::MahalanobisDistance
        )
    }
}

/// A number that is higher for whales of the catalogue than for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownScore {
    /// The natural logarithm of the sum of the exponentials of the logits over the temperature, averaged over
    /// views (the negative free energy of Liu et al. 2020, "Energy-based out-of-distribution detection"). Of
    /// bundles that were made before there was another.
    #[default]
    FreeEnergy,
    /// The natural logarithm of the sum of the squares of the probabilities, averaged over views and not yet
    /// raised to a power: 0 where one individual has all, −ln n where all n are alike (Rényi's entropy of
    /// order 2 with its sign turned). It is near the logarithm of the greatest probability (Hendrycks &
    /// Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples") and smooth.
    Concentration,
    /// The weighted sum of the model's [features](UnknownModel::features).
    Features,
}

impl UnknownScore {
    fn is_free_energy(&self) -> bool {
        *self == Self::FreeEnergy
    }
}

/// A photograph in the bundle and what the networks must say of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// Role of the network under test: `finder`, `aligner` or `ensemble`.
    pub role: String,
    /// Raw little-endian `float32` input of shape `1 × 3 × height × width`.
    pub input: String,
    /// SHA-256 of that file, as [`Network::sha256`]. Bundles from before 0.4.0 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
    /// Raw little-endian `float32` output.
    pub output: String,
    /// SHA-256 of that file, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<String>,
    /// Largest absolute difference allowed.
    pub tolerance: f32,
    /// Whether it is the ensemble's [embedding](Ensemble::embedding) that must come out, not its logits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub embedding: bool,
}

/// How the networks came about; for people, and for the check that stages never saw validation
/// photographs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// SHA-256 of the index of the data.
    pub data_digest: String,
    /// SHA-256 of the split that every network was trained on.
    pub split_digest: String,
    /// SHA-256 of the split on which networks of the same recipes were measured and calibrated, where classifiers
    /// were trained on all photographs with names: no photograph of the data says how good they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated_on_split: Option<String>,
    /// Fold of that split that no network was trained on; absent in bundles that were made before it was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_fold: Option<u32>,
    /// Each network, the classifiers in the order of their features in the ensemble's last layer; empty in bundles
    /// that were made before it was stated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkProvenance>,
    /// Recipe and its digest for each network, by name, in bundles that do not state [`networks`](Self::networks).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recipes: BTreeMap<String, String>,
    /// Metrics of stack and gallery on held-out data, by name; in bundles that do not state
    /// [`networks`](Self::networks) those of networks too, after the recipe's name and a dot.
    pub metrics: BTreeMap<String, f64>,
    /// File names of the real frames that a network was trained on; on these the bundle must not be
    /// measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames_trained_on: Vec<String>,
    /// Individuals outside the catalogue on which the model of "unknown" was fitted; on these alone it
    /// must not be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fitted_unknown_individuals: Vec<String>,
    /// What was put into the gallery after training, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrollments: Vec<Enrollment>,
}

impl Provenance {
    /// SHA-256 of the split that the network of a role was trained on, the classifiers' for the ensemble.
    pub fn split_of(&self, role: Role) -> &str {
        let mut networks = self.networks.iter();
        let network = networks.find(|network| network.role == role);
        let own = network.and_then(|network| network.split_digest.as_deref());
        own.unwrap_or(&self.split_digest)
    }
}

/// How one network came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkProvenance {
    /// What it is for; `ensemble` for each classifier.
    pub role: Role,
    /// Its name, which no other network of the bundle has: that of the folder of its training run.
    pub name: String,
    /// Name of its recipe, which several networks may share.
    pub recipe: String,
    /// SHA-256 of the recipe's file, 64 lower-case hexadecimal digits.
    pub recipe_sha256: String,
    /// Seed of the run; absent where the bundle from which the network was taken over does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// SHA-256 of the file of its trained weights, 64 lower-case hexadecimal digits; absent as the seed is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
    /// SHA-256 of the split that it was trained on; absent where that is the [bundle's](Provenance::split_digest), as it
    /// is of networks that were not taken over from another bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_digest: Option<String>,
    /// Of a classifier how many of the features in the ensemble's last layer are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<usize>,
    /// What was measured of it after the epoch whose weights it has, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// Photographs of an individual that were added to the gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// The individual.
    pub individual: String,
    /// When it was done, UTC, RFC 3339.
    pub enrolled: String,
    /// The photographs.
    pub photographs: Vec<EnrolledPhotograph>,
}

/// A photograph in the gallery that was enrolled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolledPhotograph {
    /// Name of its file, without the folder.
    pub file: String,
    /// SHA-256 of that file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}
