//! `callosity-train stack`: the ensemble's last layer, decisions and gallery, from the held-out fold.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ndarray::Array2;
use recognition::bundle::{
    DecisionAims, DecisionRule, Gallery, LastLayer, NeighbourModel, UnknownFeature, UnknownScore,
};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::decisions::Separation;
use crate::features::{HeadPhotograph, extract, last_layer};
use crate::gallery::{self, GalleryReport, Held};
use crate::index::{Index, IndexedPhotograph, read_json, write_json};
use crate::onnx::Head;
use crate::recipe::Task;
use crate::run_folder::{Member, TrainedRun, check_together, sha256};
use crate::split::{Role, Split};
use crate::stack::{Power, Regression, StackOptions, StackReport, Standardisation, stack};
use crate::whitening::within_whales;

/// Version of the stack's file that this program reads and writes.
const FORMAT_VERSION: u32 = 2;

/// Fit the ensemble's last layer, temperature, unknown model, thresholds and gallery.
///
/// Fitted on the fold of the training part that no classifier saw, and for the unknown model and enrollment on
/// the whales held out whole. Validation photographs are never used. Thresholds are chosen for stated aims, on what
/// cross-validation says of these photographs: each is judged by what was fitted without it and its whale. The gallery, which later lets
/// whales be enrolled without training, holds photographs of the other folds; it is written beside the stack.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders of the classifiers
    #[arg(required = true, value_name = "RUN")]
    classifiers: Vec<PathBuf>,
    /// Index of the photographs
    #[arg(long, value_name = "FILE", default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split on which the classifiers were trained
    #[arg(long, value_name = "FILE", default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Where the stack is written
    #[arg(short, long, value_name = "FILE", default_value = "runs/stack.json")]
    out: PathBuf,
    /// Slightly moved crops over which probabilities are averaged
    #[arg(long, value_name = "N", default_value_t = 4)]
    views: u32,
    /// Share of whales that the bundle does not know among those that are met, between 0 and 1
    #[arg(long, value_name = "SHARE", default_value_t = StackOptions::default().stranger_share)]
    stranger_share: f64,
    /// So many of the whales held out whole are left out of every fit, so that `evaluate` can measure on them what is
    /// said of strangers and of who is enrolled
    #[arg(long, value_name = "N", default_value_t = 0)]
    unfitted_strangers: usize,
    /// Share of whales enrolled later, without training, among those that are met and not unknown, when as many
    /// are enrolled as are fitted on; between 0 and 1
    #[arg(long, value_name = "SHARE", default_value_t = StackOptions::default().enrolled_share)]
    enrolled_share: f64,
    /// Most photographs of one whale in the gallery; 0 makes none
    #[arg(long, value_name = "N", default_value_t = 0)]
    gallery_photographs: usize,
    /// Share of known whales that may be called unknown; 0 sets the threshold to even odds
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    false_unknown_rate: f64,
    /// Aim: least share of right names among the heads called identified, with --stranger-share of all heads of whales
    /// that the bundle does not know
    #[arg(long, value_name = "SHARE", default_value_t = StackOptions::default().aim_precision)]
    aim_precision: f64,
    /// Aim: greatest share of the heads of whales that the bundle does not know that are called identified
    #[arg(long, value_name = "SHARE", default_value_t = StackOptions::default().aim_strangers)]
    aim_strangers: f64,
    /// Average the classifiers, even where a last layer fitted on the fold is better there
    #[arg(long, conflicts_with = "pca")]
    average: bool,
    /// Fit on so many principal components of the features instead of all of them; both are reported
    #[arg(long, value_name = "N")]
    pca: Option<usize>,
    /// Raise probabilities averaged over views to this power, or to the one that fits the fold best (`fit`)
    #[arg(long, value_name = "POWER|fit", default_value = "1")]
    power: Power,
    /// What unknown whales are told by: how large logits are, which never makes an enrolled whale more unknown,
    /// how much the probabilities lie on few whales, which may tell strangers better but names enrolled whales less,
    /// or several features together
    #[arg(long, value_enum, default_value_t)]
    unknown_score: UnknownScoreChoice,
    /// With `--unknown-score features`: which, with commas between them. Without a gallery, those that need one are left
    /// out
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = unknown_feature,
        default_values_t = StackOptions::default().unknown_features.into_iter().map(FeatureName))]
    unknown_features: Vec<FeatureName>,
    /// Instead of fitting anything, take views, decision and what similarity is worth from the stack of networks that
    /// the same recipes trained on another split: for networks of a split that holds nothing out, of whose whales the
    /// gallery is then made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["views", "stranger_share", "unfitted_strangers",
        "enrolled_share", "gallery_photographs", "false_unknown_rate", "aim_precision", "aim_strangers", "average", "pca",
        "power", "unknown_score", "unknown_features", "seed"])]
    calibrated_by: Option<PathBuf>,
    /// From which the parts of the cross-validation are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// By what unknown whales are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum UnknownScoreChoice {
    /// How large logits are
    #[default]
    FreeEnergy,
    /// How much probabilities lie on few whales
    Concentration,
    /// A logistic model of several features
    Features,
}

/// A feature, as the command line and the manifest name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureName(UnknownFeature);

impl std::fmt::Display for FeatureName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

fn unknown_feature(name: &str) -> Result<FeatureName, String> {
    let mut all = UnknownFeature::ALL.into_iter();
    all.find(|feature| feature.name() == name)
        .map(FeatureName)
        .ok_or_else(|| {
            let names = UnknownFeature::ALL.map(UnknownFeature::name);
            format!("no such feature; there are {}", names.join(", "))
        })
}

impl From<UnknownScoreChoice> for UnknownScore {
    fn from(choice: UnknownScoreChoice) -> Self {
        match choice {
            UnknownScoreChoice::FreeEnergy => Self::FreeEnergy,
            UnknownScoreChoice::Concentration => Self::Concentration,
            UnknownScoreChoice::Features => Self::Features,
        }
    }
}

/// A fitted stack, as its file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackFile {
    format_version: u32,
    /// Digest of the data's index.
    pub data_digest: String,
    /// Digest of the split.
    pub split_digest: String,
    /// The fold it was fitted on.
    pub held_out_fold: u32,
    /// Whales of the unknown model; those it may still be measured on are the other unknown ones.
    pub unknown_individuals: Vec<String>,
    /// The classifiers, in the order of their features.
    pub members: Vec<Member>,
    /// Views over which it was calibrated.
    pub views: u32,
    /// How it was fitted.
    pub options: StackOptions,
    /// What the fold says of it.
    pub report: StackReport,
    /// For the manifest.
    pub decision: DecisionRule,
    /// The last layer.
    pub head: Head,
    /// The gallery; absent where none was asked for or nothing was held out to fit it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gallery: Option<StackGallery>,
    /// Whose decision and report this is, where these networks were trained on all photographs with names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated_by: Option<Calibration>,
}

/// Networks of the same recipes, trained on another split, that a stack was fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Digest of their split.
    pub split_digest: String,
    /// The networks.
    pub members: Vec<Member>,
}

/// The gallery of a stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackGallery {
    /// Name of its file, beside the stack's.
    pub file: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// Photographs in it.
    pub photographs: usize,
    /// Most photographs of one whale.
    pub photographs_of_a_whale: usize,
    /// For the manifest.
    pub neighbours: NeighbourModel,
    /// For the manifest, in place of the decision without a gallery.
    pub decision: DecisionRule,
    /// What the held-out photographs say of it.
    pub report: GalleryReport,
}

impl StackFile {
    /// Reads a stack.
    ///
    /// # Errors
    /// The file cannot be read or has another format.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let remedy = "run `callosity-train stack` again";
        read_json(path, "a stack", FORMAT_VERSION, remedy)
    }

    /// The bytes of the gallery of the stack in the file `path`, where it has one.
    ///
    /// # Errors
    /// They cannot be read or are not those that the stack was fitted with.
    pub fn gallery_bytes(&self, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(gallery) = &self.gallery else {
            return Ok(None);
        };
        let path = path.with_file_name(&gallery.file);
        let bytes = std::fs::read(&path)
            .with_context(|| format!("reading the stack's gallery {}", path.display()))?;
        ensure!(
            sha256(&bytes) == gallery.sha256,
            "{} is not the gallery that the stack was fitted with; run `callosity-train stack` again",
            path.display()
        );
        Ok(Some(bytes))
    }

    /// How its last layer was made. Components are those of the held-out fold, so what was averaged through them is
    /// fitted too.
    pub fn last_layer(&self) -> LastLayer {
        if self.report.strength.is_none() && self.report.components.is_none() {
            LastLayer::Averaged
        } else {
            LastLayer::Fitted
        }
    }

    /// Checks that the stack was fitted on just these networks.
    ///
    /// # Errors
    /// The first that differs.
    pub fn check_members(&self, runs: &[TrainedRun]) -> anyhow::Result<()> {
        ensure!(
            runs.len() == self.members.len(),
            "the stack was fitted on {} classifiers, {} are given",
            self.members.len(),
            runs.len()
        );
        for (run, member) in runs.iter().zip(&self.members) {
            ensure!(
                run.weights_digest == member.weights_digest,
                "{}: the stack was fitted on {} with other weights; give the classifiers in the order \
                 of `stack`, or run it again",
                run.folder.display(),
                member.name
            );
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// Runs do not belong together or to the split, photographs cannot be read, or nothing can be fitted.
pub fn run(args: Args) -> anyhow::Result<()> {
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    let runs: Result<Vec<TrainedRun>, _> = args
        .classifiers
        .iter()
        .map(|f| TrainedRun::open(f, Device::cuda_if_available()))
        .collect();
    let runs = runs?;
    for run in &runs {
        run.expect(Task::Classifier)?;
    }
    check_together(&runs)?;
    let record = &runs[0].record;
    runs[0].expect_split(&split)?;
    ensure!(
        split.data_digest == index.digest(),
        "{} does not belong to {}",
        args.split.display(),
        args.index.display()
    );
    ensure!(
        record.individuals == split.individuals,
        "{} names other individuals than {}",
        runs[0].folder.display(),
        args.split.display()
    );
    let file = match &args.calibrated_by {
        Some(path) => {
            ensure!(
                split.options.hold_nothing_out,
                "--calibrated-by is for networks of a split that holds nothing out; {} holds photographs out, on which \
                 a stack of these networks can be fitted",
                args.split.display()
            );
            calibrated_by(path, &runs, &index, &split, &args)?
        }
        None => {
            ensure!(
                !split.options.hold_nothing_out,
                "{} holds nothing out that a stack could be fitted on; give the stack of networks that were trained \
                 alike on another split with --calibrated-by",
                args.split.display()
            );
            fitted(&runs, &index, &split, &args)?
        }
    };
    write_json(&args.out, &file).with_context(|| args.out.display().to_string())?;
    println!("{}", args.out.display());
    Ok(())
}

fn heads(index: &Index, photographs: Vec<&IndexedPhotograph>) -> Vec<HeadPhotograph> {
    let each = photographs.into_iter();
    each.map(|p| HeadPhotograph::of(index, p)).collect()
}

/// A stack fitted on the fold that the networks did not see.
fn fitted(
    runs: &[TrainedRun],
    index: &Index,
    split: &Split,
    args: &Args,
) -> anyhow::Result<StackFile> {
    let record = &runs[0].record;
    let fold = record.held_out_fold;
    let (known, labels) = split.catalogued(index, |role| role.trains_in(fold));
    let known = heads(index, known);
    let held_out = split.unknown_individuals.len();
    ensure!(
        args.unfitted_strangers <= held_out,
        "--unfitted-strangers {}: the split holds {held_out} whales out whole",
        args.unfitted_strangers
    );
    let fitted = split.unknown_individuals[..held_out - args.unfitted_strangers].to_vec();
    let (unknown, strangers): (Vec<HeadPhotograph>, Vec<usize>) = split
        .labelled(index, |role| role == Role::Unknown)
        .filter_map(|(p, label, _)| {
            let whale = fitted.iter().position(|f| f == label)?;
            Some((HeadPhotograph::of(index, p), whale))
        })
        .unzip();

    let members: Vec<_> = runs.iter().collect();
    let known = extract(&members, &known, args.views)?;
    let unknown: Vec<Array2<f64>> = if unknown.is_empty() {
        vec![]
    } else {
        extract(&members, &unknown, args.views)?
    };
    let layers: Result<Vec<_>, _> = runs.iter().map(last_layer).collect();
    let average = Regression::mean_of(&layers?);
    let options = StackOptions {
        seed: args.seed,
        stranger_share: args.stranger_share,
        enrolled_share: args.enrolled_share,
        false_unknown_rate: (args.false_unknown_rate > 0.0).then_some(args.false_unknown_rate),
        aim_precision: args.aim_precision,
        aim_strangers: args.aim_strangers,
        components: args.pca,
        power: args.power,
        unknown_score: args.unknown_score.into(),
        unknown_features: args.unknown_features.iter().map(|name| name.0).collect(),
        average: args.average,
        ..StackOptions::default()
    };
    let mut stacked = stack(&known, &labels, &unknown, &strangers, &average, &options)?;
    let report = &stacked.report;
    println!(
        "{} photographs of fold {fold}, cross-validated: log loss {:.3} (averaging {:.3}), top-1 {:.3} \
         (averaging {:.3}), L2 {}",
        report.photographs,
        report.log_loss,
        report.averaging_log_loss,
        report.top1,
        report.averaging_top1,
        report
            .strength
            .map_or("infinite: plain averaging".to_owned(), |s| format!("{s}")),
    );
    if let Some(pca) = &report.components {
        println!(
            "{} principal components with {:.1} % of the variance; all features: log loss {:.3}, top-1 {:.3}",
            pca.components,
            100.0 * pca.explained_variance,
            pca.log_loss_without,
            pca.top1_without,
        );
    }
    if let Some(power) = &report.power {
        println!(
            "probabilities to the power of {:.3}; without: log loss {:.3}",
            power.power, power.log_loss_without
        );
    }
    let gallery = if args.gallery_photographs == 0 {
        None
    } else {
        let (shown, whales) = split.catalogued(index, |role| role.trains_outside(fold));
        let shown = extract(&members, &heads(index, shown), args.views)?;
        let limit = args.gallery_photographs;
        let gallery = make_gallery(&mut stacked.head, &shown, &whales, limit)?;
        let embeddings = |views: &[Array2<f64>]| gallery::embeddings(views, &stacked.head);
        let held = Held {
            stack: &stacked,
            labels: &labels,
            known: &embeddings(&known),
            whales: &strangers,
            strangers: &embeddings(&unknown),
        };
        fit_gallery(&gallery, &held, &options, args)?
    };
    let (decision, separation) = match &gallery {
        Some(gallery) => (&gallery.decision, &gallery.report.separation),
        None => (&stacked.decision, &stacked.report.separation),
    };
    if let Some(aims) = &decision.aims {
        print_aims(aims, separation);
    }
    Ok(StackFile {
        format_version: FORMAT_VERSION,
        data_digest: record.data_digest.clone(),
        split_digest: record.split_digest.clone(),
        held_out_fold: fold,
        unknown_individuals: fitted,
        members: runs.iter().map(Member::from).collect(),
        views: args.views,
        options,
        report: stacked.report,
        decision: stacked.decision,
        head: stacked.head,
        gallery,
        calibrated_by: None,
    })
}

/// Says what the thresholds reach, and warns where that is not what was aimed at.
fn print_aims(aims: &DecisionAims, separation: &Separation) {
    let reached = &aims.reached;
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{:.1} %", 100.0 * s));
    println!(
        "cross-validated on {} photographs of known whales and {} of {} others: AUROC of unknown {}, known ones that can \
         be identified at {} right {}",
        reached.known_photographs,
        reached.stranger_photographs,
        reached.stranger_individuals,
        separation
            .unknown_auroc
            .map_or("-".to_owned(), |a| format!("{a:.3}")),
        percent(Some(aims.precision)),
        percent(separation.coverage),
    );
    println!(
        "thresholds: of heads called identified {} right (aim {}, {} of all heads of others), {} of the known ones and {} \
         of the others are (aim at most {})",
        percent(reached.precision),
        percent(Some(aims.precision)),
        percent(Some(aims.stranger_share)),
        percent(Some(reached.known_identified)),
        percent(reached.strangers_identified),
        percent(Some(aims.strangers)),
    );
    if !aims.met {
        eprintln!(
            "warning: no threshold keeps these aims on the photographs held out, so the strictest one stands and hardly any \
             head will be called identified: train better networks, hold more photographs out, or ask for less with \
             --aim-precision and --aim-strangers"
        );
    }
    if reached.stranger_photographs == 0 {
        eprintln!(
            "warning: the split holds no whale out whole, so nothing says how often others would be called identified; \
             the aims were kept on known whales alone"
        );
    }
}

/// A gallery of photographs of known whales, at most `limit` of each; `views` are the features of all there are. The
/// embedding of `head` is whitened by them from then on.
fn make_gallery(
    head: &mut Head,
    views: &[Array2<f64>],
    whales: &[usize],
    limit: usize,
) -> anyhow::Result<Gallery> {
    let standardised = Standardisation::from(&*head).apply(&views[0].view());
    let whitening = within_whales(&standardised, whales);
    head.whitening = Some(whitening.iter().map(|v| *v as f32).collect());
    let embeddings = gallery::embeddings(views, head);
    let rows = gallery::choose(&embeddings, whales, limit);
    Ok(gallery::gallery(&embeddings, whales, &rows)?)
}

/// The members' mean and a gallery of all that they were trained on, with the decision of another stack.
fn calibrated_by(
    path: &Path,
    runs: &[TrainedRun],
    index: &Index,
    split: &Split,
    args: &Args,
) -> anyhow::Result<StackFile> {
    let other = StackFile::load(path)?;
    let name = path.display();
    let recipes = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>();
    let (own, others) = (
        recipes(&mut runs.iter().map(|run| &run.recipe.name)),
        recipes(&mut other.members.iter().map(|member| &member.name)),
    );
    ensure!(
        own == others,
        "{name} is the stack of {}, not of {}: what it says holds for networks of the same recipes, in the same order",
        others.join(", "),
        own.join(", ")
    );
    ensure!(
        other.last_layer() == LastLayer::Averaged,
        "{name} has a last layer that was fitted on its own networks; only one of averaged networks can be taken over, \
         which `stack --average` makes"
    );
    let members: Vec<_> = runs.iter().collect();
    let (shown, whales) = split.catalogued(index, |role| matches!(role, Role::Training { .. }));
    let shown = extract(&members, &heads(index, shown), other.views)?;
    let layers: Result<Vec<_>, _> = runs.iter().map(last_layer).collect();
    let standardisation = Standardisation::of(&shown[0].view());
    let average = standardisation
        .carry(&Regression::mean_of(&layers?))
        .scaled(1.0 / other.report.averaging_temperature);
    let mut head = standardisation.head(&average);
    let gallery = match other.gallery {
        None => None,
        Some(fitted) => {
            let limit = fitted.photographs_of_a_whale;
            let gallery = make_gallery(&mut head, &shown, &whales, limit)?;
            println!("gallery of {} photographs", gallery.len());
            let (file, sha256) = write_gallery(&gallery, &args.out)?;
            Some(StackGallery {
                file,
                sha256,
                photographs: gallery.len(),
                ..fitted
            })
        }
    };
    let record = &runs[0].record;
    Ok(StackFile {
        data_digest: record.data_digest.clone(),
        split_digest: record.split_digest.clone(),
        held_out_fold: record.held_out_fold,
        unknown_individuals: Vec::new(),
        members: runs.iter().map(Member::from).collect(),
        head,
        gallery,
        calibrated_by: Some(Calibration {
            split_digest: other.split_digest,
            members: other.members,
        }),
        ..other
    })
}

/// Writes the gallery beside the stack; its name and digest.
fn write_gallery(gallery: &Gallery, stack: &Path) -> anyhow::Result<(String, String)> {
    let bytes = gallery.write();
    let path = stack.with_extension("gallery.safetensors");
    super::export::write(&path, &bytes)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Ok((file.into_owned(), sha256(&bytes)))
}

/// Fits what similarity to the gallery is worth, and writes the gallery beside the stack.
fn fit_gallery(
    gallery: &Gallery,
    held: &Held<'_>,
    options: &StackOptions,
    args: &Args,
) -> anyhow::Result<Option<StackGallery>> {
    let Some(fitted) = gallery::fit(held, gallery, options)? else {
        println!(
            "no gallery: too few of the whales held out whole have two photographs, so that what similarity is \
             worth cannot be fitted"
        );
        return Ok(None);
    };
    let report = &fitted.report;
    println!(
        "gallery of {} photographs, share {:.2}: log loss {:.3}, top-1 {:.3}; {} whales enrolled, {} photographs of \
         them one at a time: top-1 {:.3}, called unknown {:.3} (before {:.3}), top-1 of the catalogue's {:.3}",
        gallery.len(),
        fitted.neighbours.share,
        report.log_loss,
        report.top1,
        report.enrolled_whales,
        report.enrolled_photographs,
        report.enrolled_top1,
        report.unknown_after,
        report.unknown_before,
        report.top1_after,
    );
    let (file, sha256) = write_gallery(gallery, &args.out)?;
    Ok(Some(StackGallery {
        file,
        sha256,
        photographs: gallery.len(),
        photographs_of_a_whale: args.gallery_photographs,
        neighbours: fitted.neighbours,
        decision: fitted.decision,
        report: fitted.report,
    }))
}
