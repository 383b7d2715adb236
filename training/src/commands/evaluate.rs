//! `callosity-train evaluate`: a bundle measured by the code that flies.

mod conditions;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use image::RgbImage;
use indicatif::ParallelProgressIterator;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::bundle::{Bundle, DecisionRule, MANIFEST_FILE, Manifest};
use recognition::geometry::{Landmarks, Point};
use recognition::identify::{Decision, Detection, HeadIdentification, Identifier};
use recognition::inference::EngineConfig;
use recognition::pixels::{EncodedPhotograph, Photograph};
use serde::{Deserialize, Serialize};

use crate::decided::{self, DecisionMetrics, decided};
use crate::decisions::Aims;
use crate::evaluation::{Answer, NamingMetrics, match_heads, naming};
use crate::metrics::{self, auroc, quantile};
use crate::progress::progress_bar;
use crate::stack::StackOptions;

/// Measure a bundle on head photographs or on whole frames.
///
/// Frames that a bundle's finder was trained on are not measured with it. Give the bundles of a
/// cross-validation together, one for each fold: each frame is then measured with the bundle that never
/// saw it.
///
/// With --conditions the same photographs are measured as they are and as other cameras would have taken them, each
/// changed after decoding: another white balance, under- and over-exposed, grey, and so on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle; several for a cross-validation on frames
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    bundle: Vec<PathBuf>,
    /// Folder of aligned head photographs
    #[arg(long, value_name = "DIR")]
    heads: Option<PathBuf>,
    /// Table of them: image, whale. Whales that the bundle does not know count as unknown. With --conditions it may be
    /// left out: then all photographs of the folder are looked at, and what is measured is whether they keep the first
    /// candidate that they have as they are
    #[arg(long, value_name = "CSV", requires = "heads")]
    labels: Option<PathBuf>,
    /// Measure enrollment too: of each whale of the heads that the bundle does not know and that has more than N
    /// photographs, N are enrolled, all whales together, and what then is said of the others is measured
    #[arg(long, value_name = "N", requires = "heads")]
    enroll: Option<NonZeroUsize>,
    /// How often the photographs that are enrolled are drawn; measures are means over it
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(10).expect("above 0"))]
    enroll_draws: NonZeroUsize,
    /// Folder of whole frames
    #[arg(long, value_name = "DIR", requires = "truth")]
    frames: Option<PathBuf>,
    /// Table of the frames' heads: image, whale, bonnet_x, bonnet_y, blowhead_x, blowhead_y
    #[arg(long, value_name = "CSV", requires = "frames")]
    truth: Option<PathBuf>,
    /// Table of pieces of the frames without whales: image, x, y, width, height
    #[arg(long, value_name = "CSV", requires = "frames")]
    open_water: Option<PathBuf>,
    /// Measure under other light and by other cameras, instead
    #[arg(long, conflicts_with = "enroll")]
    conditions: bool,
    /// Keep what --conditions measures, as JSON, for `report` and `bundle`
    #[arg(long, value_name = "FILE", requires = "conditions")]
    out: Option<PathBuf>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Everything measured.
#[derive(Debug, Serialize)]
struct Report {
    bundles: Vec<Subject>,
    engine: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads: Option<HeadsReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment: Option<EnrollmentReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<FramesReport>,
}

/// A bundle that is measured.
#[derive(Debug, Serialize)]
struct Subject {
    name: String,
    version: String,
    finder_threshold: Option<f32>,
}

impl Subject {
    fn of(manifest: &Manifest) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            finder_threshold: manifest.finder.as_ref().map(|f| f.threshold),
        }
    }
}

/// The bundles that are measured.
struct Subjects(Vec<Identifier>);

impl Subjects {
    /// The one that was not trained on a frame, by the name of its file.
    fn for_frame(&self, image: &str) -> anyhow::Result<&Identifier> {
        let image = Path::new(image).file_name().unwrap_or(image.as_ref());
        let unseen = |identifier: &&Identifier| {
            let trained_on = &identifier.manifest().provenance.frames_trained_on;
            !trained_on.iter().any(|frame| image == frame.as_str())
        };
        let mut fitting = self.0.iter().filter(unseen);
        let frame = image.display();
        match (fitting.next(), fitting.next()) {
            (Some(identifier), None) => Ok(identifier),
            (None, _) => bail!(
                "{frame}: every bundle given was trained on this frame; measure on it with the bundles of \
                 a cross-validation, which `train --held-out-frame-fold` makes"
            ),
            (Some(_), Some(_)) => bail!(
                "{frame}: several of the bundles given never saw this frame; give one bundle, or one for \
                 each fold"
            ),
        }
    }
}

#[derive(Debug, Serialize)]
struct HeadsReport {
    #[serde(flatten)]
    metrics: NamingMetrics,
    /// As `unknown_auroc`, without the whales on which the bundle's model of "unknown" was fitted.
    auroc_unknown_not_fitted: Option<f64>,
    /// Share of the bundle's whales called unknown at the bundle's threshold.
    false_unknown_rate: Option<f64>,
    /// Share of other whales called unknown at the bundle's threshold.
    unknown_recall: Option<f64>,
    /// Share of the bundle's whales that are identified, and of those the right ones.
    identified: Option<f64>,
    identified_right: Option<f64>,
    /// What each decision is worth.
    decided: DecisionMetrics,
}

/// What enrolling whales does, as means over draws of the photographs by which they are enrolled.
#[derive(Debug, Serialize)]
struct EnrollmentReport {
    /// Photographs by which each whale is enrolled, and how often these were drawn.
    photographs_each: usize,
    draws: usize,
    /// Whales that are enrolled together.
    whales: usize,
    /// Their other photographs.
    seen_again: SeenAgain,
    /// The same without the whales on which the bundle was fitted.
    seen_again_not_fitted: SeenAgain,
    /// Photographs of whales that the bundle knew already, before and after.
    known_before: Known,
    known_after: Known,
    /// Photographs of whales that are not enrolled: share called unknown before and after.
    others: usize,
    others_unknown_before: Option<f64>,
    others_unknown_after: Option<f64>,
}

/// Photographs of enrolled whales.
#[derive(Debug, Default, Serialize)]
struct SeenAgain {
    /// In one draw.
    photographs: usize,
    /// Share whose first candidate is right, and with the right one among the first five.
    top1: Option<f64>,
    top5: Option<f64>,
    /// Share called unknown before their whale is enrolled and after.
    unknown_before: Option<f64>,
    unknown_after: Option<f64>,
    /// Share that is identified, and of these rightly.
    identified: Option<f64>,
    identified_right: Option<f64>,
}

/// Photographs of whales of the bundle.
#[derive(Debug, Default, Serialize)]
struct Known {
    photographs: usize,
    top1: Option<f64>,
    log_loss: Option<f64>,
    called_unknown: Option<f64>,
}

#[derive(Debug, Serialize)]
struct FramesReport {
    /// With one view of the aligner and of the head crop, and with as many as the manifest says.
    one_view: FrameMetrics,
    all_views: FrameMetrics,
    open_water: Option<OpenWater>,
}

#[derive(Debug, Serialize)]
struct FrameMetrics {
    /// True heads, and how many were found with both landmarks within half a head length.
    heads: usize,
    found: usize,
    /// Found heads in these frames that match no true one.
    other_heads: usize,
    /// Of found heads, mean distance of the landmarks over the head length.
    landmark_error_median: Option<f64>,
    landmark_error_90th_percentile: Option<f64>,
    /// True heads of the bundle's whales.
    catalogued: usize,
    /// Of these found and named rightly by the first candidate.
    top1: usize,
    /// Of those of them that were found how many are named rightly at the landmarks that were found, and how
    /// many at the true ones.
    found_catalogued: usize,
    top1_at_true_landmarks: usize,
}

#[derive(Debug, Serialize)]
struct OpenWater {
    pieces: usize,
    false_heads: usize,
}

#[derive(Debug, Deserialize)]
struct LabelRow {
    image: String,
    whale: String,
}

/// A head in a frame, as the table `--truth` has it; a frame without one has a row without landmarks.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct FrameRow {
    image: String,
    #[serde(default)]
    whale: Option<String>,
    bonnet_x: Option<f64>,
    bonnet_y: Option<f64>,
    blowhead_x: Option<f64>,
    blowhead_y: Option<f64>,
}

impl FrameRow {
    /// A known whale's head, its landmarks in pixels of the frame.
    pub(super) fn new(image: String, whale: String, landmarks: &Landmarks) -> Self {
        let Landmarks { bonnet, blowhead } = landmarks;
        Self {
            image,
            whale: Some(whale),
            bonnet_x: Some(bonnet.x),
            bonnet_y: Some(bonnet.y),
            blowhead_x: Some(blowhead.x),
            blowhead_y: Some(blowhead.y),
        }
    }
}

#[derive(Debug, Deserialize)]
struct PieceRow {
    image: String,
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl PieceRow {
    /// The piece, out of the pixels of its frame.
    fn cut(&self, frame: &RgbImage) -> anyhow::Result<Photograph> {
        let Self {
            image,
            x,
            y,
            width,
            height,
        } = self;
        let fits = |from: u32, size: u32, whole: u32| {
            size > 0 && from.checked_add(size).is_some_and(|end| end <= whole)
        };
        ensure!(
            fits(*x, *width, frame.width()) && fits(*y, *height, frame.height()),
            "the piece {width} × {height} at ({x}, {y}) of {image} lies outside its {} × {} pixels",
            frame.width(),
            frame.height()
        );
        let pixels = image::imageops::crop_imm(frame, *x, *y, *width, *height).to_image();
        Ok(Photograph::whole(pixels))
    }
}

/// Runs the command.
///
/// # Errors
/// The bundle does not pass its check, tables name files that are not there, or a photograph cannot be
/// read.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.heads.is_none() && args.frames.is_none() {
        bail!("nothing to measure on: give --heads with --labels, or --frames with --truth");
    }
    ensure!(
        args.heads.is_none() || args.labels.is_some() || args.conditions,
        "--heads needs --labels to say who is on them; only with --conditions something is measured without"
    );
    let bundles: Result<Vec<Bundle>, _> = args.bundle.iter().map(Bundle::open).collect();
    let bundles = bundles?;
    let config = EngineConfig::default();
    let config = EngineConfig {
        at_once: config.threads,
        ..config
    };
    let identifiers = bundles.iter().map(|b| Identifier::new(b, &config));
    let identifiers = Subjects(identifiers.collect::<Result<_, _>>()?);
    if args.frames.is_some() {
        for bundle in &bundles {
            ensure!(
                bundle.manifest().finder.is_some(),
                "{} has no finder; it can only be measured on --heads",
                bundle.directory().display()
            );
        }
    }
    if args.conditions {
        return measure_conditions(&args, &bundles, &identifiers);
    }
    let (heads, enrollment) = match (&args.heads, &args.labels) {
        (Some(folder), Some(labels)) => {
            let [identifier] = &identifiers.0[..] else {
                bail!("--heads measures one --bundle, {} are given", bundles.len());
            };
            let heads = see_heads(identifier, folder, labels)?;
            let enrollment = args
                .enroll
                .map(|count| measure_enrollment(identifier, &heads, count, args.enroll_draws));
            (
                Some(measure_heads(identifier, &heads)),
                enrollment.transpose()?,
            )
        }
        _ => (None, None),
    };
    let frames = match (&args.frames, &args.truth) {
        (Some(folder), Some(truth)) => {
            let rows: Vec<FrameRow> = read_table(truth)?;
            let rows = group_by_image(rows)?;
            require_files(truth, folder, rows.iter().map(|r| r.image.as_str()))?;
            let single = bundles.iter().map(|bundle| {
                let (_copy, single) = with_one_view(bundle)?;
                Ok(Identifier::new(&single, &config)?)
            });
            let single = Subjects(single.collect::<anyhow::Result<_>>()?);
            Some(FramesReport {
                one_view: measure_frames(&single, folder, &rows)?,
                all_views: measure_frames(&identifiers, folder, &rows)?,
                open_water: match &args.open_water {
                    Some(table) => Some(measure_open_water(&identifiers, folder, table)?),
                    None => None,
                },
            })
        }
        _ => None,
    };
    warn_of_training_on_all(&bundles);
    let report = Report {
        bundles: bundles.iter().map(|b| Subject::of(b.manifest())).collect(),
        engine: identifiers.0[0].engine(),
        heads,
        enrollment,
        frames,
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Table => print_table(&report),
    }
    Ok(())
}

fn measure_conditions(
    args: &Args,
    bundles: &[Bundle],
    identifiers: &Subjects,
) -> anyhow::Result<()> {
    let measured = conditions::measure(args, bundles, identifiers)?;
    if args.labels.is_some() {
        warn_of_training_on_all(bundles);
    }
    if let Some(path) = &args.out {
        measured.save(path)?;
    }
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&measured)?),
        Format::Table => print!("{}\n\n{}", measured.subject(), measured.markdown()),
    }
    Ok(())
}

fn warn_of_training_on_all(bundles: &[Bundle]) {
    for bundle in bundles {
        let manifest = bundle.manifest();
        if let Some(split) = &manifest.provenance.calibrated_on_split {
            eprintln!(
                "warning: the classifiers of {} {} were trained on all photographs with names of data {}: on these they \
                 look better than they are; how good they are say networks of split {split}",
                manifest.name, manifest.version, manifest.provenance.data_digest
            );
        }
    }
}

fn read_table<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    let rows: Result<Vec<T>, _> = reader.deserialize().collect();
    let rows = rows.with_context(|| path.display().to_string())?;
    ensure!(!rows.is_empty(), "{} has no rows", path.display());
    Ok(rows)
}

/// Refuses a table with names of files that are not in the folder.
fn require_files<'a>(
    table: &Path,
    folder: &Path,
    images: impl Iterator<Item = &'a str>,
) -> anyhow::Result<()> {
    let missing: Vec<&str> = images
        .filter(|image| !folder.join(image).is_file())
        .collect();
    if let Some(first) = missing.first() {
        bail!(
            "{} names {} file(s) that are not in {}, such as {first}",
            table.display(),
            missing.len(),
            folder.display()
        );
    }
    Ok(())
}

/// A head photograph that the ensemble has seen, and who is on it.
struct Seen {
    head: Detection,
    whale: String,
    /// Whether the bundle knows that whale.
    known: bool,
}

impl Seen {
    fn answer(&self, said: HeadIdentification) -> Answer {
        Answer::new(said, self.whale.clone(), self.known)
    }
}

fn see_heads(identifier: &Identifier, folder: &Path, labels: &Path) -> anyhow::Result<Vec<Seen>> {
    let rows: Vec<LabelRow> = read_table(labels)?;
    require_files(labels, folder, rows.iter().map(|r| r.image.as_str()))?;
    let individuals: HashSet<&str> = identifier
        .manifest()
        .individuals()
        .map(String::as_str)
        .collect();
    rows.par_iter()
        .progress_with(progress_bar("heads", rows.len()))
        .map(|row| {
            let path = folder.join(&row.image);
            let context = || path.display().to_string();
            let photograph = EncodedPhotograph::open(&path).with_context(context)?;
            let head = identifier.detect_head(&photograph).with_context(context)?;
            Ok(Seen {
                head: head.with_context(context)?,
                known: individuals.contains(row.whale.as_str()),
                whale: row.whale.clone(),
            })
        })
        .collect()
}

/// Enrolls whales that the bundle does not know by `count` of their photographs and looks at the others.
fn measure_enrollment(
    identifier: &Identifier,
    heads: &[Seen],
    count: NonZeroUsize,
    draws: NonZeroUsize,
) -> anyhow::Result<EnrollmentReport> {
    let before = identifier.neighbours().context(
        "--enroll: the bundle has no gallery, so nobody can be enrolled in it; `callosity-train stack` and `bundle` \
         write one",
    )?;
    let mut unknown: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for head in heads.iter().filter(|head| !head.known) {
        unknown.entry(&head.whale).or_default().push(head);
    }
    let (enrolled, others): (Vec<_>, Vec<_>) = unknown
        .into_iter()
        .partition(|(_, photographs)| photographs.len() > count.get());
    ensure!(
        !enrolled.is_empty(),
        "--enroll {count}: none of the whales that the bundle does not know has more than {count} photographs"
    );
    let known: Vec<&Seen> = heads.iter().filter(|head| head.known).collect();
    let others: Vec<&Seen> = others.into_iter().flat_map(|(_, heads)| heads).collect();
    let fitted = &identifier.manifest().provenance.fitted_unknown_individuals;

    let mut again: Vec<(&Seen, HeadIdentification, HeadIdentification)> = Vec::new();
    let (mut known_after, mut others_after) = (Vec::new(), Vec::new());
    let progress = progress_bar("draws", draws.get());
    let mut random = ChaCha8Rng::seed_from_u64(0);
    for _ in 0..draws.get() {
        let mut after = before.clone();
        let mut left: Vec<&Seen> = Vec::new();
        for (whale, photographs) in &enrolled {
            let mut photographs = photographs.clone();
            photographs.shuffle(&mut random);
            let (shown, rest) = photographs.split_at(count.get());
            after.enroll(whale, shown.iter().filter_map(|seen| seen.head.embedding()))?;
            left.extend(rest);
        }
        let judge = |seen: &&Seen| identifier.judge(&seen.head, Some(&after));
        let each = left.par_iter().map(|seen| {
            let unenrolled = identifier.judge(&seen.head, Some(before));
            (*seen, unenrolled, judge(seen))
        });
        again.par_extend(each);
        let each = known.par_iter().map(|seen| seen.answer(judge(seen)));
        known_after.par_extend(each);
        others_after.par_extend(others.par_iter().map(judge));
        progress.inc(1);
    }
    progress.finish_and_clear();

    let measure_again = |wanted: &dyn Fn(&Seen) -> bool| -> SeenAgain {
        let again: Vec<_> = again.iter().filter(|(seen, ..)| wanted(seen)).collect();
        let share = |counted: &dyn Fn(&Seen, &HeadIdentification, &HeadIdentification) -> bool| {
            let counted = again.iter().filter(|(seen, b, a)| counted(seen, b, a));
            metrics::share(counted.count(), again.len())
        };
        let right = |seen: &Seen, after: &HeadIdentification, first: usize| {
            let candidates = after.candidates.iter().take(first);
            candidates.into_iter().any(|c| c.individual == seen.whale)
        };
        let identified = again
            .iter()
            .filter(|(.., a)| a.decision == Decision::Identified);
        let identified: Vec<_> = identified.collect();
        let identified_right = identified.iter().filter(|(seen, _, a)| right(seen, a, 1));
        SeenAgain {
            photographs: again.len() / draws.get(),
            top1: share(&|seen, _, after| right(seen, after, 1)),
            top5: share(&|seen, _, after| right(seen, after, 5)),
            unknown_before: share(&|_, before, _| before.decision == Decision::Unknown),
            unknown_after: share(&|_, _, after| after.decision == Decision::Unknown),
            identified: metrics::share(identified.len(), again.len()),
            identified_right: metrics::share(identified_right.count(), identified.len()),
        }
    };
    let threshold = f64::from(identifier.manifest().decision.unknown_threshold);
    let measure_known = |answers: &[Answer]| -> Known {
        let metrics = naming(answers);
        let unknown = answers.iter().filter(|a| a.unknown >= threshold);
        Known {
            photographs: known.len(),
            top1: metrics.top1,
            log_loss: metrics.log_loss,
            called_unknown: metrics::share(unknown.count(), answers.len()),
        }
    };
    let judge_before = |seen: &&Seen| identifier.judge(&seen.head, Some(before));
    let known_before: Vec<Answer> = known
        .par_iter()
        .map(|seen| seen.answer(judge_before(seen)))
        .collect();
    let others_before: Vec<HeadIdentification> = others.par_iter().map(judge_before).collect();
    let called_unknown = |heads: &[HeadIdentification]| {
        let unknown = heads.iter().filter(|h| h.decision == Decision::Unknown);
        metrics::share(unknown.count(), heads.len())
    };
    Ok(EnrollmentReport {
        photographs_each: count.get(),
        draws: draws.get(),
        whales: enrolled.len(),
        seen_again: measure_again(&|_| true),
        seen_again_not_fitted: measure_again(&|seen| !fitted.contains(&seen.whale)),
        known_before: measure_known(&known_before),
        known_after: measure_known(&known_after),
        others: others.len(),
        others_unknown_before: called_unknown(&others_before),
        others_unknown_after: called_unknown(&others_after),
    })
}

fn measure_heads(identifier: &Identifier, heads: &[Seen]) -> HeadsReport {
    let manifest = identifier.manifest();
    let said: Vec<(Answer, Decision)> = heads
        .par_iter()
        .map(|seen| {
            let said = identifier.judge(&seen.head, identifier.neighbours());
            let decision = said.decision;
            (seen.answer(said), decision)
        })
        .collect();
    let answers: Vec<Answer> = said.iter().map(|(answer, _)| answer.clone()).collect();
    let decision = &manifest.decision;
    let decided = decided(&said, decision.confidence, &aims_of(decision));
    let [of_identified, ..] = &decided.decisions[..] else {
        unreachable!("there are three decisions");
    };
    let (identified, identified_right) =
        (of_identified.known.share, of_identified.known_right.share);
    let called_unknown = |a: &Answer| a.unknown >= f64::from(decision.unknown_threshold);
    let (known, others): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|a| a.catalogued);
    let strangers = |all: &[&Answer]| all.iter().filter(|a| called_unknown(a)).count();
    let fitted = &manifest.provenance.fitted_unknown_individuals;
    let unknown_of = |all: &[&Answer], wanted: &dyn Fn(&Answer) -> bool| -> Vec<f64> {
        let each = all.iter().filter(|a| wanted(a));
        each.map(|a| a.unknown).collect()
    };
    let auroc_unknown_not_fitted = auroc(
        &unknown_of(&others, &|a| !fitted.contains(&a.truth)),
        &unknown_of(&known, &|_| true),
    );
    HeadsReport {
        metrics: naming(&answers),
        auroc_unknown_not_fitted,
        false_unknown_rate: metrics::share(strangers(&known), known.len()),
        unknown_recall: metrics::share(strangers(&others), others.len()),
        identified,
        identified_right,
        decided,
    }
}

/// What a decision was chosen for; of bundles that were made before there were aims, what `stack` asks for.
fn aims_of(decision: &DecisionRule) -> Aims {
    match &decision.aims {
        Some(aims) => Aims {
            precision: aims.precision,
            strangers: aims.strangers,
            stranger_share: aims.stranger_share,
        },
        None => StackOptions::default().aims(),
    }
}

/// A frame and its true heads.
struct FrameTruth {
    image: String,
    heads: Vec<(Option<String>, Landmarks)>,
}

impl FrameTruth {
    fn landmarks(&self) -> Vec<Landmarks> {
        self.heads.iter().map(|head| head.1).collect()
    }
}

/// Rows of one frame together, in the order of their first row. Rows without landmarks are left out.
fn group_by_image(rows: Vec<FrameRow>) -> anyhow::Result<Vec<FrameTruth>> {
    let mut frames: Vec<FrameTruth> = Vec::new();
    for row in rows {
        let (Some(bx), Some(by), Some(hx), Some(hy)) =
            (row.bonnet_x, row.bonnet_y, row.blowhead_x, row.blowhead_y)
        else {
            continue;
        };
        let landmarks = Landmarks {
            bonnet: Point::new(bx, by),
            blowhead: Point::new(hx, hy),
        };
        ensure!(
            landmarks.head_length() > 0.0 && landmarks.head_length().is_finite(),
            "{}: the landmarks coincide or are no numbers",
            row.image
        );
        let head = (row.whale.filter(|w| !w.is_empty()), landmarks);
        match frames.iter_mut().find(|f| f.image == row.image) {
            Some(frame) => frame.heads.push(head),
            None => frames.push(FrameTruth {
                image: row.image,
                heads: vec![head],
            }),
        }
    }
    ensure!(!frames.is_empty(), "no row of the truth has landmarks");
    Ok(frames)
}

/// A copy of the bundle that looks at each head once. The folder lives as long as the first value.
fn with_one_view(bundle: &Bundle) -> anyhow::Result<(tempfile::TempDir, Bundle)> {
    let folder = tempfile::tempdir()?;
    let mut manifest: Manifest = bundle.manifest().clone();
    if let Some(aligner) = &mut manifest.aligner {
        aligner.views = 1;
    }
    manifest.ensemble.views = 1;
    let networks = [
        manifest.finder.as_ref().map(|f| &f.network),
        manifest.aligner.as_ref().map(|a| &a.network),
        Some(&manifest.ensemble.network),
    ];
    let files = networks.into_iter().flatten().map(|n| n.file.clone());
    let tests = manifest
        .self_test
        .iter()
        .flat_map(|t| [t.input.clone(), t.output.clone()]);
    let gallery = manifest.gallery.iter().map(|g| g.file.clone());
    for file in files.chain(tests).chain(gallery) {
        let to = folder.path().join(&file);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(bundle.directory().join(&file), to)?;
    }
    let text = serde_json::to_vec(&manifest)?;
    std::fs::write(folder.path().join(MANIFEST_FILE), text)?;
    let bundle = Bundle::open(folder.path())?;
    Ok((folder, bundle))
}

fn measure_frames(
    subjects: &Subjects,
    folder: &Path,
    frames: &[FrameTruth],
) -> anyhow::Result<FrameMetrics> {
    let seen: anyhow::Result<Vec<[Vec<HeadIdentification>; 2]>> = frames
        .par_iter()
        .progress_with(progress_bar("frames", frames.len()))
        .map(|frame| {
            let path = folder.join(&frame.image);
            let context = || path.display().to_string();
            let photograph = EncodedPhotograph::open(&path).with_context(context)?;
            let identifier = subjects.for_frame(&frame.image)?;
            let found = identifier
                .identify_frame(&photograph)
                .with_context(context)?;
            let at_truth = identifier
                .identify_landmarks(&photograph, &frame.landmarks())
                .with_context(context)?;
            Ok([found.heads, at_truth.heads])
        })
        .collect();
    let mut metrics = FrameMetrics {
        heads: 0,
        found: 0,
        other_heads: 0,
        landmark_error_median: None,
        landmark_error_90th_percentile: None,
        catalogued: 0,
        top1: 0,
        found_catalogued: 0,
        top1_at_true_landmarks: 0,
    };
    let mut errors = Vec::new();
    for (frame, [heads, at_truth]) in frames.iter().zip(seen?) {
        let truth = frame.landmarks();
        let found: Vec<Landmarks> = heads.iter().map(HeadIdentification::landmarks).collect();
        let individuals: Vec<&String> = subjects
            .for_frame(&frame.image)?
            .manifest()
            .individuals()
            .collect();
        let (matched, others) = match_heads(&truth, &found);
        metrics.heads += truth.len();
        metrics.other_heads += others;
        for (((whale, landmarks), matched), at_truth) in
            frame.heads.iter().zip(matched).zip(&at_truth)
        {
            let catalogued = whale.as_ref().filter(|w| individuals.contains(w));
            metrics.catalogued += usize::from(catalogued.is_some());
            let Some(index) = matched else { continue };
            metrics.found += 1;
            errors.push(found[index].error(landmarks));
            let right = |head: &HeadIdentification| {
                let best = head.best().map(|c| &c.individual);
                usize::from(catalogued.is_some() && best == catalogued)
            };
            metrics.found_catalogued += usize::from(catalogued.is_some());
            metrics.top1 += right(&heads[index]);
            metrics.top1_at_true_landmarks += right(at_truth);
        }
    }
    metrics.landmark_error_median = quantile(&errors, 0.5);
    metrics.landmark_error_90th_percentile = quantile(&errors, 0.9);
    Ok(metrics)
}

fn measure_open_water(
    subjects: &Subjects,
    folder: &Path,
    table: &Path,
) -> anyhow::Result<OpenWater> {
    let rows: Vec<PieceRow> = read_table(table)?;
    require_files(table, folder, rows.iter().map(|r| r.image.as_str()))?;
    let mut by_image: std::collections::BTreeMap<&str, Vec<&PieceRow>> = Default::default();
    for row in &rows {
        by_image.entry(&row.image).or_default().push(row);
    }
    let progress = progress_bar("open water", rows.len());
    let mut false_heads = 0;
    for (image, pieces) in by_image {
        let path = folder.join(image);
        let context = || path.display().to_string();
        let identifier = subjects.for_frame(image)?;
        let encoded = EncodedPhotograph::open(&path).with_context(context)?;
        let frame = encoded.decode(1.0).with_context(context)?.pixels;
        for piece in pieces {
            let piece = piece
                .cut(&frame)
                .with_context(|| table.display().to_string())?;
            let seen = identifier
                .identify_photograph(&piece)
                .with_context(context)?;
            false_heads += seen.heads.len();
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(OpenWater {
        pieces: rows.len(),
        false_heads,
    })
}

fn print_table(report: &Report) {
    for Subject { name, version, .. } in &report.bundles {
        println!("{name} {version} on {}", report.engine);
    }
    let line = |name: &str, value: Option<f64>| {
        let text = value.map_or("-".to_owned(), |v| format!("{v:.3}"));
        println!("  {name:<44} {text}");
    };
    if let Some(heads) = &report.heads {
        let m = &heads.metrics;
        println!(
            "heads: {} of whales of the bundle, {} of others",
            m.known, m.unknown
        );
        line("top-1", m.top1);
        line("top-5", m.top5);
        line("MAP@5", m.map5);
        line("log loss", m.log_loss);
        line("expected calibration error", m.calibration_error);
        line("AUROC of known against unknown", m.unknown_auroc);
        line(
            "the same, whales not used for fitting it",
            heads.auroc_unknown_not_fitted,
        );
        line("known ones called unknown", heads.false_unknown_rate);
        line("unknown ones called unknown", heads.unknown_recall);
        line("known ones identified", heads.identified);
        line("of these rightly", heads.identified_right);
        decided::print(&heads.decided);
    }
    if let Some(e) = &report.enrollment {
        println!(
            "{} whales enrolled by {} photographs each, {} draws:",
            e.whales, e.photographs_each, e.draws
        );
        for (name, again) in [
            ("their other photographs", &e.seen_again),
            ("of whales not used for fitting", &e.seen_again_not_fitted),
        ] {
            println!("  {name}: {}", again.photographs);
            line("  top-1", again.top1);
            line("  top-5", again.top5);
            line("  called unknown before", again.unknown_before);
            line("  called unknown after", again.unknown_after);
            line("  identified", again.identified);
            line("  of these rightly", again.identified_right);
        }
        let (before, after) = (&e.known_before, &e.known_after);
        println!("  whales known before: {} photographs", before.photographs);
        for (name, b, a) in [
            ("top-1", before.top1, after.top1),
            ("log loss", before.log_loss, after.log_loss),
            (
                "called unknown",
                before.called_unknown,
                after.called_unknown,
            ),
        ] {
            line(&format!("  {name} before"), b);
            line(&format!("  {name} after"), a);
        }
        println!("  whales not enrolled: {} photographs", e.others);
        line("  called unknown before", e.others_unknown_before);
        line("  called unknown after", e.others_unknown_after);
    }
    if let Some(frames) = &report.frames {
        for (name, m) in [
            ("one view", &frames.one_view),
            ("all views", &frames.all_views),
        ] {
            println!("frames, {name}:");
            println!("  {:<44} {} of {}", "heads found", m.found, m.heads);
            println!("  {:<44} {}", "other heads", m.other_heads);
            line(
                "landmark error, median, in head lengths",
                m.landmark_error_median,
            );
            line(
                "landmark error, 90th percentile",
                m.landmark_error_90th_percentile,
            );
            println!(
                "  {:<44} {} of {}",
                "frame to name, top-1", m.top1, m.catalogued
            );
            println!(
                "  {:<44} {} of {}; at true landmarks {}",
                "of those found, top-1", m.top1, m.found_catalogued, m.top1_at_true_landmarks
            );
        }
        if let Some(water) = &frames.open_water {
            println!(
                "open water: {} false heads in {} pieces",
                water.false_heads, water.pieces
            );
        }
    }
}
