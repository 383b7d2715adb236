//! The split: which photograph trains, which one validates, which whales are held out as unknown.
//!
//! Made once and stored with its digest; every network of a bundle is trained on the same one, so that
//! no validation photograph was ever seen by an earlier stage.
//!
//! # Rules
//! - Photographs with the same content, and a head and the frame it was cut from, stay together.
//! - Some whales, drawn among those with a middling number of photographs, are held out whole as
//!   [`Role::Unknown`].
//! - About the asked fraction of the other labelled photographs is [`Role::Validation`], drawn evenly
//!   over whales. Every whale keeps at least one training photograph; a whale with one photograph
//!   stays in training. Heads whose whole frame is in the index come first.
//! - Whole frames with landmarks are [`Role::Validation`]: they are only ever measured on, but for a
//!   finder that is trained on some of them and measured on the others
//!   ([folds of frames](crate::frame_folds)).
//! - Training photographs carry a fold. A whale with one training photograph is never in fold 0, which
//!   is the one held out from the networks of an ensemble for stacking.
//! - Where [nothing is held out](SplitOptions::hold_nothing_out) all labelled heads are in fold 1.
//! - Unlabelled heads train, except where they show the same as a held-out photograph.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::index::{Index, IndexedPhotograph, PhotographKind, write_json};

/// Version of the format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Why a split could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no split.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file was written by another version or is inconsistent.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The options cannot be met.
    #[error("{0}")]
    Options(String),
    /// A network has seen, or may have seen, what a run of this split holds out.
    #[error(
        "{network} was trained on {theirs} of these photographs, this run on {ours}: what shall be held out here may \
         have trained it; start from a network of the same split and held-out fold"
    )]
    Seen {
        /// The network's run or bundle.
        network: String,
        /// On what it was trained.
        theirs: String,
        /// On what the run is trained.
        ours: String,
    },
}

/// What a network was trained on, from which a run shall start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainedOn<'a> {
    /// Its run or bundle, for messages.
    pub network: &'a str,
    /// Digest of the data's index.
    pub data_digest: &'a str,
    /// Digest of the split.
    pub split_digest: &'a str,
    /// The fold that it did not see; `None` where that is not known.
    pub held_out_fold: Option<u32>,
}

/// How sure it is that a network has seen nothing that a run holds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It has not, or nothing is held out.
    Sure,
    /// It was trained on other data, which may show the same.
    OtherData,
    /// It was trained on the same split, but without which fold is not known.
    UnknownFold,
}

/// What a photograph is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Networks are trained on it.
    Training {
        /// Which of the folds, from 0.
        fold: u32,
    },
    /// Only measured on; its whale is in the catalogue.
    Validation,
    /// Only measured on; its whale is not in the catalogue.
    Unknown,
}

impl Role {
    /// Whether it trains, and in this fold.
    pub fn trains_in(self, fold: u32) -> bool {
        self == Self::Training { fold }
    }

    /// Whether it trains, and in another fold than this.
    pub fn trains_outside(self, fold: u32) -> bool {
        matches!(self, Self::Training { fold: own } if own != fold)
    }
}

/// How to split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Seed of everything drawn.
    pub seed: u64,
    /// Fraction of the labelled photographs of the catalogue's whales for validation, 0 to below 1.
    pub validation_fraction: f64,
    /// Number of folds of the training photographs, at least 2.
    pub folds: u32,
    /// How many whales are held out whole.
    pub unknown_whales: usize,
    /// Fewest photographs of a whale held out whole.
    pub unknown_minimum: usize,
    /// Most photographs of a whale held out whole.
    pub unknown_maximum: usize,
    /// Whether all labelled heads train in all networks: there is no validation, no whale held out and nothing in
    /// fold 0. For the networks that fly, once another split has said how good such networks are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold_nothing_out: bool,
}

impl SplitOptions {
    /// These, but with nothing held out.
    pub fn holding_nothing_out(self) -> Self {
        Self {
            validation_fraction: 0.0,
            unknown_whales: 0,
            hold_nothing_out: true,
            ..self
        }
    }
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            validation_fraction: 0.15,
            folds: 20,
            unknown_whales: 20,
            unknown_minimum: 4,
            unknown_maximum: 15,
            hold_nothing_out: false,
        }
    }
}

/// What every photograph is used for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// [`Index::digest`] of the data that was split.
    pub data_digest: String,
    /// How it was split.
    #[serde(flatten)]
    pub options: SplitOptions,
    /// The catalogue: whales that are not held out, sorted. Indices of classes follow this order.
    pub individuals: Vec<String>,
    /// Whales held out whole, sorted.
    pub unknown_individuals: Vec<String>,
    /// Role by identifier of photograph. What is not here is not used.
    pub roles: BTreeMap<String, Role>,
    /// Photographs that are not used: they show the same as a held-out one.
    pub excluded: BTreeSet<String>,
    /// Training heads whose whole frame is measured on, because their whale has too few photographs.
    /// Finder and aligner must not be trained on them.
    pub hidden_from_finder: BTreeSet<String>,
}

/// The labelled photographs of one content, which go one way.
#[derive(Clone, Debug)]
struct Unit {
    images: Vec<String>,
    /// Its whole frame is in the index.
    has_frame: bool,
    /// A photograph of the same content has another name: it is kept where it does no harm.
    contradictory: bool,
}

impl Split {
    /// Splits the data.
    ///
    /// # Errors
    /// Where the options cannot be met by the data.
    pub fn make(index: &Index, options: SplitOptions) -> Result<Self, SplitError> {
        if !(0.0..1.0).contains(&options.validation_fraction) {
            let fraction = options.validation_fraction;
            let reason = format!("validation fraction {fraction}: expected 0 to below 1");
            return Err(SplitError::Options(reason));
        }
        if options.folds < 2 {
            let reason = format!("{} folds: expected at least 2", options.folds);
            return Err(SplitError::Options(reason));
        }
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let whales = units_by_whale(index);
        let unknown = draw_unknown(&whales, &options, &mut random)?;
        let known: BTreeMap<&String, &Vec<Unit>> = whales
            .iter()
            .filter(|(whale, _)| !unknown.contains(*whale))
            .collect();

        let mut roles = BTreeMap::new();
        for whale in &unknown {
            for image in whales[whale].iter().flat_map(|unit| &unit.images) {
                roles.insert(image.clone(), Role::Unknown);
            }
        }
        let fraction = options.validation_fraction;
        let (validation, training) = if options.hold_nothing_out {
            let all = known.values().map(|units| units.iter().collect());
            (Vec::new(), all.collect())
        } else {
            draw_validation(&known, fraction, &mut random)
        };
        for image in validation.iter().flat_map(|unit| &unit.images) {
            roles.insert(image.clone(), Role::Validation);
        }
        for (fold, unit) in deal_folds(&training, options.folds, &mut random) {
            let fold = if options.hold_nothing_out { 1 } else { fold };
            for image in &unit.images {
                roles.insert(image.clone(), Role::Training { fold });
            }
        }

        let hidden_from_finder = give_frames_roles(index, &mut roles);
        let mut excluded = give_unlabelled_roles(index, options.folds, &mut roles, &mut random);
        let frames = index.photographs.iter();
        let unused = frames
            .filter(|p| p.kind == PhotographKind::Frame && !roles.contains_key(&p.image))
            .map(|p| p.image.clone());
        excluded.extend(unused);
        Ok(Self {
            format_version: FORMAT_VERSION,
            data_digest: index.digest(),
            options,
            individuals: known.keys().map(|whale| (*whale).clone()).collect(),
            unknown_individuals: unknown.into_iter().collect(),
            roles,
            excluded,
            hidden_from_finder,
        })
    }

    /// Reads a split.
    ///
    /// # Errors
    /// Where the file cannot be read, is no split, has another format, or its catalogue is unsorted.
    pub fn load(path: &Path) -> Result<Self, SplitError> {
        let text = std::fs::read(path).map_err(|source| SplitError::File {
            path: path.into(),
            source,
        })?;
        let split: Self = serde_json::from_slice(&text).map_err(|source| SplitError::Json {
            path: path.into(),
            source,
        })?;
        let invalid = |reason: String| SplitError::Invalid {
            path: path.into(),
            reason,
        };
        if split.format_version != FORMAT_VERSION {
            return Err(invalid(format!(
                "split format {}, this program reads {FORMAT_VERSION}",
                split.format_version
            )));
        }
        if !split.individuals.is_sorted_by(|a, b| a < b) {
            let reason = "the individuals must be sorted, each once";
            return Err(invalid(reason.into()));
        }
        Ok(split)
    }

    /// Writes the split; a reader never sees half of it.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SplitError> {
        write_json(path, self).map_err(|source| SplitError::File {
            path: path.into(),
            source,
        })
    }

    /// SHA-256 of what the split says, lower-case hexadecimal.
    pub fn digest(&self) -> String {
        let content = serde_json::to_vec(self).expect("a split has only strings and numbers");
        hex::encode(Sha256::digest(&content))
    }

    /// Checks that a network, from which a run of this split without `held_out_fold` starts, has seen nothing that
    /// the run holds out.
    ///
    /// # Errors
    /// It was trained on another split of the same data, or with the fold.
    pub fn check_start(
        &self,
        held_out_fold: u32,
        start: &TrainedOn<'_>,
    ) -> Result<Unseen, SplitError> {
        if self.options.hold_nothing_out {
            return Ok(Unseen::Sure);
        }
        if start.data_digest != self.data_digest {
            return Ok(Unseen::OtherData);
        }
        let digest = self.digest();
        let refuse = |theirs: String, ours: String| {
            let network = start.network.to_owned();
            Err(SplitError::Seen {
                network,
                theirs,
                ours,
            })
        };
        if start.split_digest != digest {
            return refuse(
                format!("split {}", start.split_digest),
                format!("split {digest}"),
            );
        }
        match start.held_out_fold {
            None => Ok(Unseen::UnknownFold),
            Some(fold) if fold == held_out_fold => Ok(Unseen::Sure),
            Some(fold) => refuse(
                format!("this split without fold {fold}"),
                format!("it without fold {held_out_fold}"),
            ),
        }
    }

    /// What a photograph is used for; `None` where it is not used.
    pub fn role(&self, image: &str) -> Option<Role> {
        self.roles.get(image).copied()
    }

    /// Place of a whale in the catalogue.
    pub fn individual_index(&self, label: &str) -> Option<usize> {
        self.individuals
            .binary_search_by(|whale| whale.as_str().cmp(label))
            .ok()
    }

    /// The labelled [head photographs](Index::head_photographs) with the roles asked for, in the index's
    /// order.
    pub fn labelled<'a>(
        &'a self,
        index: &'a Index,
        wanted: impl Fn(Role) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a IndexedPhotograph, &'a str, Role)> {
        index.head_photographs().filter_map(move |photograph| {
            let role = self.role(&photograph.image).filter(|role| wanted(*role))?;
            Some((photograph, photograph.individual.as_deref()?, role))
        })
    }

    /// As [`labelled`](Self::labelled), of whales of the catalogue, each with its whale's place there.
    pub fn catalogued<'a>(
        &'a self,
        index: &'a Index,
        wanted: impl Fn(Role) -> bool + 'a,
    ) -> (Vec<&'a IndexedPhotograph>, Vec<usize>) {
        self.labelled(index, wanted)
            .filter_map(|(photograph, whale, _)| Some((photograph, self.individual_index(whale)?)))
            .unzip()
    }

    /// Head photographs without names that train, each content once.
    pub fn unlabelled<'a>(
        &'a self,
        index: &'a Index,
    ) -> impl Iterator<Item = &'a IndexedPhotograph> {
        index.unlabelled_heads().filter(|p| {
            p.duplicate_of.is_none() && matches!(self.role(&p.image), Some(Role::Training { .. }))
        })
    }
}

/// Identifier of the first photograph with the same content.
pub(crate) fn content(photograph: &IndexedPhotograph) -> &str {
    photograph
        .duplicate_of
        .as_deref()
        .unwrap_or(&photograph.image)
}

fn units_by_whale(index: &Index) -> BTreeMap<String, Vec<Unit>> {
    let mut whales_of_content: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut units: BTreeMap<(&str, &str), Unit> = BTreeMap::new();
    for photograph in index.head_photographs() {
        let Some(whale) = photograph.individual.as_deref() else {
            continue;
        };
        whales_of_content
            .entry(content(photograph))
            .or_default()
            .insert(whale);
        let unit = units
            .entry((whale, content(photograph)))
            .or_insert_with(|| Unit {
                images: Vec::new(),
                has_frame: false,
                contradictory: false,
            });
        unit.images.push(photograph.image.clone());
        unit.has_frame |= photograph.frame.as_deref().is_some_and(|frame| {
            index
                .get(frame)
                .is_some_and(|frame| !frame.landmarks.is_empty())
        });
    }
    let mut whales: BTreeMap<String, Vec<Unit>> = BTreeMap::new();
    for ((whale, content), mut unit) in units {
        unit.contradictory = whales_of_content[content].len() > 1;
        whales.entry(whale.to_owned()).or_default().push(unit);
    }
    whales
}

fn count(units: &[Unit]) -> usize {
    units.iter().map(|unit| unit.images.len()).sum()
}

fn draw_unknown(
    whales: &BTreeMap<String, Vec<Unit>>,
    options: &SplitOptions,
    random: &mut ChaCha8Rng,
) -> Result<BTreeSet<String>, SplitError> {
    let range = options.unknown_minimum..=options.unknown_maximum;
    let mut eligible: Vec<&String> = whales
        .iter()
        .filter(|(_, units)| range.contains(&count(units)))
        .filter(|(_, units)| units.iter().all(|u| !u.has_frame && !u.contradictory))
        .map(|(whale, _)| whale)
        .collect();
    if eligible.len() < options.unknown_whales {
        return Err(SplitError::Options(format!(
            "{} whales are to be held out, only {} have {} to {} photographs: ask for fewer \
             (--unknown-whales) or a wider range",
            options.unknown_whales,
            eligible.len(),
            options.unknown_minimum,
            options.unknown_maximum
        )));
    }
    eligible.shuffle(random);
    eligible.truncate(options.unknown_whales);
    Ok(eligible.into_iter().cloned().collect())
}

/// A whale's photographs while validation is drawn.
struct Drawing<'a> {
    /// Free to be drawn, in random order, those with a frame first.
    units: Vec<&'a Unit>,
    /// How many of `units`, from the front, are drawn.
    drawn: usize,
    /// Must train.
    kept: Vec<&'a Unit>,
}

impl Drawing<'_> {
    fn limit(&self) -> usize {
        let all_free = self.kept.is_empty();
        self.units.len().saturating_sub(usize::from(all_free))
    }

    fn forced(&self) -> usize {
        let with_frame = self.units.iter().filter(|u| u.has_frame).count();
        with_frame.min(self.limit())
    }
}

/// Validation and training units of the known whales.
fn draw_validation<'a>(
    known: &BTreeMap<&String, &'a Vec<Unit>>,
    fraction: f64,
    random: &mut ChaCha8Rng,
) -> (Vec<&'a Unit>, Vec<Vec<&'a Unit>>) {
    let photographs: usize = known.values().map(|units| count(units)).sum();
    let target = (fraction * photographs as f64).round() as usize;
    let mut drawings: Vec<Drawing> = known
        .values()
        .map(|units| {
            let (kept, mut free): (Vec<&Unit>, Vec<&Unit>) =
                units.iter().partition(|u| u.contradictory);
            free.shuffle(random);
            free.sort_by_key(|unit| !unit.has_frame);
            Drawing {
                units: free,
                drawn: 0,
                kept,
            }
        })
        .collect();
    drawings.shuffle(random);

    // Systematic sampling over the whales in random order: each whale gets its share rounded up or
    // down, and the sum of the shares is met.
    let mut share = 0.5;
    for drawing in &mut drawings {
        let before = f64::floor(share);
        share += fraction * (drawing.units.len() + drawing.kept.len()) as f64;
        let quota = (share.floor() - before) as usize;
        drawing.drawn = quota.clamp(drawing.forced(), drawing.limit());
    }
    let total = |drawings: &[Drawing]| -> usize {
        let drawn = drawings.iter().flat_map(|d| &d.units[..d.drawn]);
        drawn.map(|unit| unit.images.len()).sum()
    };
    // What whales without a photograph to spare could not give, or frames gave too much, is
    // balanced where the whale's own fraction is farthest off.
    loop {
        let sum = total(&drawings);
        let fraction_with =
            |d: &Drawing, drawn: usize| drawn as f64 / (d.units.len() + d.kept.len()) as f64;
        let next = if sum < target {
            let candidates = drawings.iter_mut().filter(|d| d.drawn < d.limit());
            candidates
                .min_by(|a, b| {
                    fraction_with(a, a.drawn + 1).total_cmp(&fraction_with(b, b.drawn + 1))
                })
                .map(|d| (d.drawn + 1, d))
        } else {
            let candidates = drawings.iter_mut().filter(|d| {
                d.drawn > d.forced() && sum - d.units[d.drawn - 1].images.len() >= target
            });
            candidates
                .max_by(|a, b| fraction_with(a, a.drawn).total_cmp(&fraction_with(b, b.drawn)))
                .map(|d| (d.drawn - 1, d))
        };
        match next {
            Some((drawn, drawing)) => drawing.drawn = drawn,
            None => break,
        }
        // Adding may overshoot by part of a unit; that is near enough.
        if total(&drawings) >= target && sum < target {
            break;
        }
    }

    let mut validation = Vec::new();
    let mut training = Vec::new();
    for drawing in drawings {
        validation.extend(&drawing.units[..drawing.drawn]);
        let rest = drawing.units[drawing.drawn..].iter();
        training.push(rest.chain(&drawing.kept).copied().collect());
    }
    (validation, training)
}

/// Deals each whale's training units over the folds.
fn deal_folds<'a>(
    training: &[Vec<&'a Unit>],
    folds: u32,
    random: &mut ChaCha8Rng,
) -> Vec<(u32, &'a Unit)> {
    let mut dealt = Vec::new();
    let (mut next, mut next_single) = (0, 0);
    for units in training {
        if let [unit] = units.as_slice() {
            dealt.push((1 + next_single % (folds - 1), *unit));
            next_single += 1;
            continue;
        }
        let mut units = units.clone();
        units.shuffle(random);
        for unit in units {
            dealt.push((next % folds, unit));
            next += 1;
        }
    }
    dealt
}

/// Frames with landmarks are measured on, frames without are a source of sea unless their head is held
/// out. Returns the training heads whose frame is measured on.
fn give_frames_roles(index: &Index, roles: &mut BTreeMap<String, Role>) -> BTreeSet<String> {
    let mut held_out = BTreeSet::new();
    let of_held_out_heads: BTreeSet<&str> = index
        .photographs
        .iter()
        .filter(|p| matches!(roles.get(&p.image), Some(Role::Validation | Role::Unknown)))
        .filter_map(|p| p.frame.as_deref())
        .collect();
    for photograph in &index.photographs {
        if photograph.kind == PhotographKind::Frame && !roles.contains_key(&photograph.image) {
            let role = if photograph.landmarks.is_empty() {
                if of_held_out_heads.contains(photograph.image.as_str()) {
                    continue;
                }
                Role::Training { fold: 0 }
            } else {
                held_out.insert(photograph.image.clone());
                Role::Validation
            };
            roles.insert(photograph.image.clone(), role);
        }
    }
    index
        .photographs
        .iter()
        .filter(|p| p.frame.as_ref().is_some_and(|f| held_out.contains(f)))
        .filter(|p| matches!(roles.get(&p.image), Some(Role::Training { .. })))
        .map(|p| p.image.clone())
        .collect()
}

/// Unlabelled heads train, in the fold of what shows the same; returns those that must not.
fn give_unlabelled_roles(
    index: &Index,
    folds: u32,
    roles: &mut BTreeMap<String, Role>,
    random: &mut ChaCha8Rng,
) -> BTreeSet<String> {
    let mut of_content: HashMap<&str, Vec<Role>> = HashMap::new();
    for photograph in &index.photographs {
        if let Some(role) = roles.get(&photograph.image) {
            let content = content(photograph);
            of_content.entry(content).or_default().push(*role);
        }
    }
    let mut contents: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut place: HashMap<&str, usize> = HashMap::new();
    for photograph in &index.photographs {
        let unlabelled =
            photograph.kind != PhotographKind::Frame && photograph.individual.is_none();
        if unlabelled {
            let content = content(photograph);
            let at = *place.entry(content).or_insert_with(|| {
                contents.push((content, Vec::new()));
                contents.len() - 1
            });
            contents[at].1.push(&photograph.image);
        }
    }
    contents.shuffle(random);
    let mut excluded = BTreeSet::new();
    for (i, (content, images)) in contents.into_iter().enumerate() {
        let same = of_content
            .get(content)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let fold = same.iter().find_map(|role| match role {
            Role::Training { fold } => Some(*fold),
            _ => None,
        });
        let held_out = same.iter().any(|r| !matches!(r, Role::Training { .. }));
        for image in images {
            if held_out {
                excluded.insert(image.to_owned());
            } else {
                let fold = fold.unwrap_or(1 + i as u32 % (folds - 1));
                roles.insert(image.to_owned(), Role::Training { fold });
            }
        }
    }
    excluded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index;

    #[test]
    fn a_start_has_seen_nothing_that_is_held_out() {
        let index = data(&[9; 6], 100, 100);
        let make = |options: SplitOptions| Split::make(&index, options).unwrap();
        let options = SplitOptions {
            unknown_whales: 1,
            folds: 3,
            ..SplitOptions::default()
        };
        let (split, all) = (make(options), make(options.holding_nothing_out()));
        let (own, other) = (split.digest(), all.digest());
        let start = |data: &str, digest: &str, fold| {
            let network = "runs/before";
            split.check_start(
                2,
                &TrainedOn {
                    network,
                    data_digest: data,
                    split_digest: digest,
                    held_out_fold: fold,
                },
            )
        };
        let data = &split.data_digest;
        assert_eq!(start(data, &own, Some(2)).unwrap(), Unseen::Sure);
        assert_eq!(start(data, &own, None).unwrap(), Unseen::UnknownFold);
        assert_eq!(start("more", &other, Some(0)).unwrap(), Unseen::OtherData);
        for (digest, fold, words) in [
            (&own, Some(1), ["without fold 1", "without fold 2"]),
            (&other, Some(2), [other.as_str(), own.as_str()]),
            (&other, None, [other.as_str(), own.as_str()]),
        ] {
            let error = start(data, digest, fold).unwrap_err().to_string();
            let known = words.iter().all(|w| error.contains(w)) && error.contains("runs/before");
            assert!(known, "{error}");
        }
        let seen = TrainedOn {
            network: "runs/before",
            data_digest: data,
            split_digest: &own,
            held_out_fold: Some(1),
        };
        assert_eq!(all.check_start(0, &seen).unwrap(), Unseen::Sure);
    }

    /// Whales with these numbers of photographs; every `same`-th photograph shows the same as the one
    /// before it; every `framed`-th has its frame; as many unlabelled heads, some of them copies.
    fn data(whales: &[usize], same: usize, framed: usize) -> Index {
        let mut photographs = Vec::new();
        let mut frames = Vec::new();
        for (w, &n) in whales.iter().enumerate() {
            let whale = format!("whale_{w}");
            for i in 0..n {
                let name = format!("w_{w}_{i}.jpg");
                let mut head =
                    IndexedPhotograph::example(&name, PhotographKind::Head, Some(&whale));
                let serial = photographs.len() + 1;
                if serial.is_multiple_of(same) && i > 0 {
                    let before: &IndexedPhotograph = &photographs[serial - 2];
                    head.duplicate_of = Some(content(before).to_owned());
                }
                if serial.is_multiple_of(framed) {
                    let frame = format!("frames/{name}");
                    head.frame = Some(frame.clone());
                    frames.push(IndexedPhotograph::example(
                        &frame,
                        PhotographKind::Frame,
                        Some(&whale),
                    ));
                }
                photographs.push(head);
            }
        }
        for i in 0..photographs.len() {
            let name = format!("u_{i}.jpg");
            let mut unlabelled =
                IndexedPhotograph::example(&name, PhotographKind::UnlabelledHead, None);
            if i % 3 == 0 {
                unlabelled.duplicate_of = Some(content(&photographs[i]).to_owned());
            }
            photographs.push(unlabelled);
        }
        photographs.extend(frames);
        Index {
            format_version: index::FORMAT_VERSION,
            root: PathBuf::new(),
            photographs,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn all_labelled_heads_train_in_all_networks_where_nothing_is_held_out(
            whales in prop::collection::vec(1..20usize, 3..30), same in 2..9usize, framed in 3..40usize,
        ) {
            let index = data(&whales, same, framed);
            let options = SplitOptions::default().holding_nothing_out();
            let split = Split::make(&index, options).expect("the options can be met");
            prop_assert_eq!(split.individuals.len(), whales.len());
            let heads = whales.iter().sum::<usize>();
            prop_assert_eq!(split.labelled(&index, |role| role.trains_outside(0)).count(), heads);
            prop_assert_eq!(split.labelled(&index, |role| !role.trains_outside(0)).count(), 0);
            let unlabelled = index.photographs.iter().filter(|p| p.kind == PhotographKind::UnlabelledHead);
            for photograph in unlabelled {
                prop_assert!(split.role(&photograph.image).is_some_and(|role| role.trains_outside(0)));
            }
        }

        #[test]
        fn keeps_its_rules(
            whales in prop::collection::vec(1..20usize, 3..30),
            same in 2..9usize,
            framed in 3..40usize,
            seed in any::<u64>(),
            fraction in 0.0..0.5f64,
        ) {
            let index = data(&whales, same, framed);
            let options = SplitOptions {
                seed,
                validation_fraction: fraction,
                folds: 5,
                unknown_whales: 0,
                ..SplitOptions::default()
            };
            let eligible = units_by_whale(&index)
                .values()
                .filter(|u| (4..=15).contains(&count(u)) && u.iter().all(|u| !u.has_frame))
                .count();
            let options = SplitOptions { unknown_whales: eligible / 2, ..options };
            let split = Split::make(&index, options).expect("the options can be met");
            prop_assert_eq!(&split, &Split::make(&index, options).expect("again"));
            prop_assert_eq!(split.unknown_individuals.len(), eligible / 2);

            let side = |role: Option<Role>| match role {
                Some(Role::Training { .. }) => Some("training"),
                Some(_) => Some("held out"),
                None => None,
            };
            let by_name: HashMap<&str, &IndexedPhotograph> =
                index.photographs.iter().map(|p| (p.image.as_str(), p)).collect();
            let mut training: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
            let mut contents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for p in &index.photographs {
                let role = split.role(&p.image);
                prop_assert_eq!(role.is_none(), split.excluded.contains(&p.image));
                match p.kind {
                    PhotographKind::Frame => {
                        prop_assert_eq!(role, Some(Role::Validation));
                        continue;
                    }
                    PhotographKind::Head => {
                        let whale = p.individual.as_deref().expect("heads are named");
                        match role {
                            Some(Role::Unknown) => {
                                prop_assert_eq!(split.individual_index(whale), None);
                            }
                            Some(_) => prop_assert!(split.individual_index(whale).is_some()),
                            None => prop_assert!(false, "{} has no role", &p.image),
                        }
                        if let Some(Role::Training { fold }) = role {
                            training.entry(whale).or_default().insert(fold);
                            prop_assert_eq!(
                                p.frame.is_some(),
                                split.hidden_from_finder.contains(&p.image)
                            );
                        }
                    }
                    PhotographKind::UnlabelledHead => {
                        let first = by_name[content(p)];
                        if side(split.role(&first.image)) == Some("held out") {
                            prop_assert_eq!(role, None);
                        } else {
                            prop_assert_eq!(role, split.role(&first.image));
                        }
                    }
                }
                contents.entry(content(p)).or_default().extend(side(role));
            }
            for sides in contents.values() {
                prop_assert_eq!(sides.len(), 1);
            }
            for whale in &split.individuals {
                let folds = training.get(whale.as_str());
                prop_assert!(folds.is_some_and(|f| f.iter().any(|&fold| fold > 0)), "{}", whale);
            }
        }
    }

    #[test]
    fn asks_for_what_the_data_cannot_give() {
        let index = data(&[3, 3], 100, 100);
        let error = Split::make(&index, SplitOptions::default()).expect_err("no whale is eligible");
        assert!(error.to_string().contains("only 0 have 4 to 15"), "{error}");
        for wrong in [
            SplitOptions {
                folds: 1,
                unknown_whales: 0,
                ..SplitOptions::default()
            },
            SplitOptions {
                validation_fraction: 1.0,
                unknown_whales: 0,
                ..SplitOptions::default()
            },
            SplitOptions {
                validation_fraction: f64::NAN,
                unknown_whales: 0,
                ..SplitOptions::default()
            },
        ] {
            assert!(matches!(
                Split::make(&index, wrong),
                Err(SplitError::Options(_))
            ));
        }
    }

    #[test]
    fn reads_what_it_wrote_and_refuses_another_format() {
        let index = data(&[3, 9, 12], 4, 7);
        let options = SplitOptions {
            unknown_whales: 0,
            ..SplitOptions::default()
        };
        let split = Split::make(&index, options).expect("a split");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("split.json");
        split.save(&path).expect("written");
        let read = Split::load(&path).expect("read");
        assert_eq!(read, split);
        assert_eq!(read.digest(), split.digest());
        let newer = Split {
            format_version: 99,
            ..split
        };
        newer.save(&path).expect("written");
        assert!(matches!(
            Split::load(&path),
            Err(SplitError::Invalid { .. })
        ));
    }
}
