//! `callosity-train bundle`: trained networks and a stack become a model bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use prost::Message;
use recognition::bundle::{
    Aligner, Bundle, Catalogue, CloserLook, DecisionAims, Embedding, Ensemble, FORMAT_VERSION,
    Finder, GalleryFile, LastLayer, MANIFEST_FILE, Manifest, NetworkProvenance, Provenance, Role,
    SelfTest,
};
use recognition::identify::Identifier;
use recognition::inference::EngineConfig;
use recognition::pixels::write_input;
use tch::{Device, Tensor};
use tract_onnx::pb::ModelProto;

use super::export::{
    StorageChoice, agree, checked, floats, probe, probe_of_size, run_builtin, write,
};
use super::stack::StackFile;
use crate::cache::Cache;
use crate::compose::Composer;
use crate::conditions::ConditionsReport;
use crate::finder_threshold;
use crate::index::Index;
use crate::loader::random;
use crate::network::{Mode, Network, Precision};
use crate::onnx::{self, Interface, Storage};
use crate::quantisation::{observe, quantise};
use crate::recipe::Task;
use crate::run_folder::{TrainedRun, check_names, check_together, sha256};
use crate::split::Split;
use crate::tasks::ALIGNER_FIELD_HEAD_LENGTHS;
use crate::weights::Weights;

/// Version from which programs can use the bundles written here.
const MINIMUM_PROGRAM_VERSION: semver::Version = semver::Version::new(0, 4, 0);
/// Largest difference that a self-test allows, as a fraction of the output's largest value: room for
/// engines that multiply in reduced precision, far less than any decision.
const SELF_TEST_TOLERANCE: f32 = 5e-3;
/// The same where a network computes in 8 bits: engines round values that lie between two steps to either.
const EIGHT_BIT_TOLERANCE: f32 = 2e-2;
/// Frames on which the ranges of a network's values are observed.
const OBSERVED_FRAMES: u32 = 96;
const OBSERVING: u64 = 8;
/// Largest difference that the self-test of the embedding allows in one of its values, most of which are far
/// below 1.
const EMBEDDING_TOLERANCE: f32 = 5e-3;
/// Name of the ensemble's second output.
const EMBEDDING: &str = "embedding";
/// Name of the gallery's file.
const GALLERY_FILE: &str = "gallery.safetensors";
/// The finder's threshold while a better one is looked for.
const LOWEST_THRESHOLD: f32 = 0.02;

/// Make a model bundle of trained networks.
///
/// Refuses networks that were trained on different splits or on the fold that the stack was fitted on. Manifest and card
/// have of each network the metrics of the epoch whose weights are taken, the best, under the name of its run folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the bundle
    #[arg(long)]
    name: String,
    /// Version of the bundle
    #[arg(long, default_value = "1.0.0")]
    bundle_version: semver::Version,
    /// Run folder of the finder; without finder and aligner the bundle names only head crops
    #[arg(long, value_name = "RUN")]
    finder: Option<PathBuf>,
    /// Run folder of the aligner
    #[arg(long, value_name = "RUN")]
    aligner: Option<PathBuf>,
    /// Bundle whose finder is taken over as it is, so that other networks can be exchanged without its run folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["finder", "finder_threshold"])]
    finder_of: Option<PathBuf>,
    /// Bundle whose aligner is taken over as it is
    #[arg(long, value_name = "DIR", conflicts_with = "aligner")]
    aligner_of: Option<PathBuf>,
    /// Run folders of the classifiers, in the order given to `stack`
    #[arg(long, value_name = "RUN", required = true, num_args = 1..)]
    classifiers: Vec<PathBuf>,
    /// The file that `stack` wrote
    #[arg(long, value_name = "FILE", default_value = "runs/stack.json")]
    stack: PathBuf,
    /// The bundle's folder; must not exist or be a bundle, which is then replaced
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Number format in which weights are stored
    #[arg(long, value_enum, default_value_t = StorageChoice::Float16)]
    storage: StorageChoice,
    /// Compute the finder's inner convolutions in 8-bit numbers, which processors with instructions for them do twice as
    /// fast; their ranges are observed on composed frames
    #[arg(long)]
    eight_bit_finder: bool,
    /// Markdown for the model card: where the photographs come from, under which terms, and what the
    /// bundle must not be used for
    #[arg(long, value_name = "FILE")]
    about: Option<PathBuf>,
    /// What `evaluate --conditions --out` measured, for the model card: of this bundle, or of the one that stands for it
    /// because it holds photographs out
    #[arg(long, value_name = "FILE")]
    conditions: Option<PathBuf>,
    /// What is catalogued
    #[arg(long, default_value = "Eubalaena glacialis")]
    scientific_name: String,
    /// Probability from which the finder's peak is a head [default: the one with the best F1 score on
    /// composed frames of heads that the finder never saw]
    #[arg(long)]
    finder_threshold: Option<f32>,
    /// Index of the photographs, for composed frames
    #[arg(long, value_name = "FILE", default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split, for composed frames
    #[arg(long, value_name = "FILE", default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Folder of decoded photographs, for composed frames
    #[arg(long, value_name = "DIR", default_value = "runs/data/cache")]
    cache: PathBuf,
    /// Probability from which a peak is looked at a second time, larger
    #[arg(long, default_value_t = 0.2)]
    candidate_threshold: f32,
    /// Length in pixels of the finder's input that a head then has
    #[arg(long, default_value_t = 50.0)]
    closer_head_length: f64,
    /// The same in further parts, which are looked at where the first leaves a candidate
    #[arg(long, value_name = "PIXELS,…", value_delimiter = ',', default_values_t = [35.0, 70.0])]
    further_head_lengths: Vec<f64>,
    /// Views in which what is left then is seen once more, from a distance and near, 1 to 4: as it is, mirrored
    /// left to right, top to bottom, both
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4))]
    finder_views: u32,
    /// Peaks nearer than this many head lengths to a stronger one are the same head
    #[arg(long, default_value_t = 0.6)]
    suppression_radius: f32,
    /// Most heads reported for one frame
    #[arg(long, default_value_t = 32)]
    maximum_heads: usize,
    /// Side of the aligner's crop in head lengths; as it was trained
    #[arg(long, default_value_t = ALIGNER_FIELD_HEAD_LENGTHS)]
    aligner_field: f64,
    /// How often the aligner's crop is taken anew
    #[arg(long, default_value_t = 4)]
    aligner_rounds: u32,
    /// Affine views in the aligner's last round
    #[arg(long, default_value_t = 8)]
    aligner_views: u32,
    /// Views of the head crop [default: those that the stack was calibrated on]
    #[arg(long)]
    views: Option<u32>,
}

/// Runs the command.
///
/// # Errors
/// Runs that do not belong together, weights that are not finite, a file that does not agree with
/// libtorch, or a folder that cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let open = |folder: &Path, task| -> anyhow::Result<TrainedRun> {
        let run = TrainedRun::open(folder, Device::Cpu)?;
        run.expect(task)?;
        Ok(run)
    };
    let finder_run = args
        .finder
        .as_deref()
        .map(|f| open(f, Task::Finder))
        .transpose()?;
    let aligner_run = args
        .aligner
        .as_deref()
        .map(|f| open(f, Task::Aligner))
        .transpose()?;
    let classifiers: Result<Vec<TrainedRun>, _> = args
        .classifiers
        .iter()
        .map(|f| open(f, Task::Classifier))
        .collect();
    let classifiers = classifiers?;
    let all = || finder_run.iter().chain(&aligner_run).chain(&classifiers);
    check_together(all())?;
    check_names(all())?;
    let stack = StackFile::load(&args.stack)?;
    stack.check_members(&classifiers)?;
    let record = &classifiers[0].record;
    ensure!(
        (&stack.split_digest, stack.held_out_fold) == (&record.split_digest, record.held_out_fold),
        "{} was fitted on fold {} of split {}, the networks were trained without fold {} of split {}: \
         they may have seen what it was fitted on",
        args.stack.display(),
        stack.held_out_fold,
        stack.split_digest,
        record.held_out_fold,
        record.split_digest
    );

    let take_over = |folder: &Option<PathBuf>, role| {
        let folder = folder.as_deref();
        folder.map(|f| TakenOver::open(f, role, &stack)).transpose()
    };
    let (finder_of, aligner_of) = (
        take_over(&args.finder_of, Role::Finder)?,
        take_over(&args.aligner_of, Role::Aligner)?,
    );
    ensure!(
        (finder_run.is_some() || finder_of.is_some())
            == (aligner_run.is_some() || aligner_of.is_some()),
        "a bundle has a finder (--finder or --finder-of) and an aligner (--aligner or --aligner-of), or neither and \
         names only head crops"
    );
    let about = match &args.about {
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| path.display().to_string())?)
        }
        None => None,
    };
    let conditions = args.conditions.as_deref();
    let conditions = conditions.map(ConditionsReport::load).transpose()?;

    let mut writer = Writer::new(&args.out)?;
    let mut finder = match (&finder_run, &finder_of) {
        (Some(run), _) => Some(Finder {
            network: writer.network("finder", run, args.storage.into())?,
            stride: finder_stride(run)?,
            threshold: args.finder_threshold.unwrap_or(LOWEST_THRESHOLD),
            closer_look: Some(CloserLook {
                candidate_threshold: args.candidate_threshold,
                head_length_pixels: args.closer_head_length,
                further_head_lengths_pixels: args.further_head_lengths.clone(),
                views: args.finder_views,
            }),
            suppression_radius_head_lengths: args.suppression_radius,
            maximum_heads: args.maximum_heads,
        }),
        (None, Some(of)) => {
            writer.take_over(of)?;
            of.bundle.manifest().finder.clone()
        }
        (None, None) => None,
    };
    if args.eight_bit_finder {
        let finder = finder.as_mut();
        let finder = finder.context("--eight-bit-finder needs --finder or --finder-of")?;
        let composer = composer(&args, &stack.split_digest, |_| true)
            .context("observing the finder's ranges on composed frames")?;
        writer.quantise_finder(&mut finder.network, &composer)?;
    }
    let aligner = match (&aligner_run, &aligner_of) {
        (Some(run), _) => Some(Aligner {
            network: writer.network("aligner", run, args.storage.into())?,
            field_head_lengths: args.aligner_field,
            rounds: args.aligner_rounds,
            views: args.aligner_views,
        }),
        (None, Some(of)) => {
            writer.take_over(of)?;
            of.bundle.manifest().aligner.clone()
        }
        (None, None) => None,
    };
    let ensemble = Ensemble {
        network: writer.ensemble(&classifiers, &stack, args.storage.into())?,
        head_crop: classifiers[0].recipe.input.head_crop,
        views: args.views.unwrap_or(stack.views),
        embedding: Some(Embedding {
            output: EMBEDDING.to_owned(),
            length: stack.head.mean.len(),
        }),
        last_layer: Some(stack.last_layer()),
    };
    let gallery = match (&stack.gallery, stack.gallery_bytes(&args.stack)?) {
        (Some(gallery), Some(bytes)) => {
            writer.file(GALLERY_FILE, &bytes)?;
            Some(GalleryFile {
                file: GALLERY_FILE.to_owned(),
                sha256: gallery.sha256.clone(),
                neighbours: gallery.neighbours.clone(),
                enrolled: Vec::new(),
            })
        }
        _ => None,
    };
    let decision = match &stack.gallery {
        Some(gallery) => &gallery.decision,
        None => &stack.decision,
    };
    let mut manifest = Manifest {
        format_version: FORMAT_VERSION,
        name: args.name.clone(),
        version: args.bundle_version.clone(),
        created: jiff::Timestamp::now()
            .round(jiff::Unit::Second)
            .context("the clock")?
            .to_string(),
        minimum_program_version: MINIMUM_PROGRAM_VERSION,
        catalogue: Catalogue {
            scientific_name: args.scientific_name.clone(),
            individuals: record.individuals.clone(),
        },
        finder,
        aligner,
        ensemble,
        decision: decision.clone(),
        gallery,
        self_test: std::mem::take(&mut writer.self_test),
        provenance: Provenance {
            data_digest: stack.data_digest.clone(),
            split_digest: stack.split_digest.clone(),
            calibrated_on_split: stack.calibrated_by.as_ref().map(|c| c.split_digest.clone()),
            held_out_fold: Some(stack.held_out_fold),
            networks: all().map(network_provenance).collect(),
            recipes: BTreeMap::new(),
            metrics: metrics_of(&stack),
            frames_trained_on: all()
                .flat_map(|run| &run.record.frames_trained_on)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .cloned()
                .collect(),
            fitted_unknown_individuals: stack.unknown_individuals.clone(),
            enrollments: Vec::new(),
        },
    };
    for of in finder_of.iter().chain(&aligner_of) {
        of.add_provenance(&mut manifest.provenance)?;
    }
    manifest.provenance.networks.sort_by_key(|n| n.role);
    writer.manifest(&manifest)?;
    if let (Some(run), None) = (&finder_run, args.finder_threshold) {
        choose_threshold(&mut manifest, &writer, run, &args)?;
        writer.manifest(&manifest)?;
    }
    let card = model_card(&manifest, &stack, about.as_deref(), conditions.as_ref());
    writer.file("MODEL_CARD.md", card.as_bytes())?;
    let gallery = stack.gallery.as_ref().map_or(String::new(), |gallery| {
        let bytes = gallery.photographs * (2 * stack.head.mean.len() + size_of::<u32>());
        format!(
            ", of which the gallery's {} photographs {:.2} MB (`stack --gallery-photographs` limits them)",
            gallery.photographs,
            bytes as f64 / 1e6
        )
    });
    let size = writer.finish(&args.out)?;
    println!(
        "{}: {:.2} MB{gallery}, {}",
        args.out.display(),
        size as f64 / 1e6,
        manifest.name
    );
    Ok(())
}

/// A bundle whose finder or aligner goes into another one.
struct TakenOver {
    bundle: Bundle,
    role: Role,
}

impl TakenOver {
    /// # Errors
    /// It is no bundle, has no such network, or that was trained on another split or without another fold than the
    /// stack's classifiers.
    fn open(folder: &Path, role: Role, stack: &StackFile) -> anyhow::Result<Self> {
        let bundle = Bundle::open(folder)?;
        let manifest = bundle.manifest();
        ensure!(
            manifest.network(role).is_some(),
            "{} has no {}",
            folder.display(),
            role.name()
        );
        let split = manifest.provenance.split_of(role);
        ensure!(
            split == stack.split_digest || stack.calibrated_by.is_some(),
            "the {} of {} was trained on split {split}, the stack on {}: it may have seen what the stack is measured on",
            role.name(),
            folder.display(),
            stack.split_digest,
        );
        if let Some(fold) = manifest.provenance.held_out_fold {
            ensure!(
                fold == stack.held_out_fold || stack.calibrated_by.is_some(),
                "{} was trained without fold {fold}, the stack's classifiers without fold {}: its {} may have seen what \
                 the stack was fitted on",
                folder.display(),
                stack.held_out_fold,
                role.name()
            );
        }
        Ok(Self { bundle, role })
    }

    /// Says where the network comes from, as its own bundle said it.
    ///
    /// # Errors
    /// That does not tell whose recipe is whose, or another network has the name.
    fn add_provenance(&self, to: &mut Provenance) -> anyhow::Result<()> {
        let from = &self.bundle.manifest().provenance;
        let folder = self.bundle.directory().display();
        let mut network = match from.networks.iter().find(|n| n.role == self.role) {
            Some(network) => network.clone(),
            None => untold(from, self.role).with_context(|| folder.to_string())?,
        };
        let split = from.split_of(self.role);
        network.split_digest = (split != to.split_digest).then(|| split.to_owned());
        ensure!(
            to.networks.iter().all(|other| other.name != network.name),
            "the {} of {folder} is called {}, as another network of this bundle is: give that one's run folder another \
             name",
            self.role.name(),
            network.name
        );
        to.networks.push(network);
        // Only finders are trained on real frames.
        if self.role == Role::Finder {
            let mut frames: BTreeSet<&String> = from.frames_trained_on.iter().collect();
            frames.extend(&to.frames_trained_on);
            to.frames_trained_on = frames.into_iter().cloned().collect();
        }
        Ok(())
    }
}

/// The finder or aligner of a manifest that does not state networks: the one recipe of which there is a metric that
/// only networks of this role have.
///
/// # Errors
/// There is not just one, or a recipe of which nobody can tell what it is for.
fn untold(from: &Provenance, role: Role) -> anyhow::Result<NetworkProvenance> {
    let metrics_of = |recipe: &str| -> BTreeMap<String, f64> {
        let metrics = from.metrics.iter().filter_map(|(name, value)| {
            // The rest has no dot, as opposed to that of a recipe with a longer name.
            let metric = name.strip_prefix(recipe)?.strip_prefix('.')?;
            (!metric.contains('.')).then(|| (metric.to_owned(), *value))
        });
        metrics.collect()
    };
    let role_of = |metrics: &BTreeMap<String, f64>| {
        let has = |ending: &str| metrics.keys().any(|name| name.ends_with(ending));
        // Classifiers that find landmarks for themselves have their error too.
        if has("_top1") {
            Some(Role::Ensemble)
        } else {
            match (has("_head_length_error"), has("_offset_error")) {
                (true, false) => Some(Role::Aligner),
                (false, true) => Some(Role::Finder),
                _ => None,
            }
        }
    };
    let mut found = Vec::new();
    for (recipe, digest) in &from.recipes {
        let metrics = metrics_of(recipe);
        let of = role_of(&metrics).with_context(|| {
            format!(
                "an earlier version wrote its manifest, which has no metric that says what recipe {recipe} is for, so its \
                 {} cannot be told; take the network from its run folder instead",
                role.name()
            )
        })?;
        if of == role {
            found.push((recipe, digest, metrics));
        }
    }
    let [(recipe, digest, metrics)] = &found[..] else {
        let recipes: Vec<&str> = found.iter().map(|(recipe, ..)| recipe.as_str()).collect();
        bail!(
            "an earlier version wrote its manifest, which by its metrics has {} recipes for the {} ({}); take the \
             network from its run folder instead",
            found.len(),
            role.name(),
            recipes.join(", ")
        );
    };
    Ok(NetworkProvenance {
        split_digest: None,
        role,
        name: (*recipe).clone(),
        recipe: (*recipe).clone(),
        recipe_sha256: (*digest).clone(),
        seed: None,
        weights_sha256: None,
        features: None,
        metrics: metrics.clone(),
    })
}

/// Chooses the finder's threshold with the bundle as it is written so far, and records what it does.
fn choose_threshold(
    manifest: &mut Manifest,
    writer: &Writer,
    run: &TrainedRun,
    args: &Args,
) -> anyhow::Result<()> {
    let Some(finder) = &mut manifest.finder else {
        return Ok(());
    };
    let held_out = run.record.held_out_fold;
    let composer = composer(args, &run.record.split_digest, |fold| fold == held_out).context(
        "choosing the finder's threshold on composed frames; --finder-threshold sets one",
    )?;
    let identifier = Identifier::new(&writer.open()?, &EngineConfig::default())?;
    let input = &finder.network.input;
    let chosen = finder_threshold::choose(
        &identifier,
        &composer,
        (input.width, input.height),
        run.recipe.seed,
    )?;
    println!(
        "finder's threshold {:.3}: on composed frames {:.1} % of the heads found, {:.3} false ones a frame",
        chosen.threshold,
        100.0 * chosen.found,
        chosen.false_heads
    );
    finder.threshold = chosen.threshold;
    let networks = &mut manifest.provenance.networks;
    for network in networks.iter_mut().filter(|n| n.role == Role::Finder) {
        network.metrics.extend([
            ("composed_heads_found".to_owned(), chosen.found),
            ("composed_false_heads".to_owned(), chosen.false_heads),
        ]);
    }
    Ok(())
}

/// Composes frames of the photographs of these folds, by the split of this digest.
fn composer(
    args: &Args,
    split_digest: &str,
    of_folds: impl Fn(u32) -> bool,
) -> anyhow::Result<Composer> {
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    ensure!(
        split.digest() == split_digest,
        "{} is split {}, the networks were trained on {split_digest}",
        args.split.display(),
        split.digest(),
    );
    let cache = Cache::open_or_build(&index, &args.cache)?;
    Ok(Composer::from_data(&index, &split, &cache, of_folds)?)
}

fn finder_stride(run: &TrainedRun) -> anyhow::Result<u32> {
    let graph = run.network.graph();
    let (input, output) = (graph.nodes[0].shape, graph.output().shape);
    let stride = input.width / output.width.max(1);
    ensure!(
        output.channels == 5
            && stride * output.width == input.width
            && stride * output.height == input.height,
        "{}: a finder gives 5 planes, its input divided by a whole number; this one gives {} planes of \
         {} × {} for {} × {}",
        run.folder.display(),
        output.channels,
        output.width,
        output.height,
        input.width,
        input.height
    );
    Ok(stride as u32)
}

/// Where a trained network comes from, with what was measured after the epoch whose weights it has; how fast it went
/// is left out.
fn network_provenance(run: &TrainedRun) -> NetworkProvenance {
    const OF_THE_RUN: [&str; 3] = ["images_per_second", "input_wait", "learning_rate"];
    let role = run.recipe.task.role();
    let role = role.expect("bundles are made of networks that have a role in them");
    let graph = run.network.graph();
    let features = graph
        .features()
        .filter(|_| role == Role::Ensemble)
        .map(|index| graph.nodes[index].shape.channels);
    let metrics = run
        .record
        .metrics
        .iter()
        .filter(|(metric, value)| value.is_finite() && !OF_THE_RUN.contains(&metric.as_str()));
    NetworkProvenance {
        split_digest: None,
        role,
        name: run.name.clone(),
        recipe: run.recipe.name.clone(),
        recipe_sha256: run.recipe_digest.clone(),
        seed: Some(run.recipe.seed),
        weights_sha256: Some(run.weights_digest.clone()),
        features,
        metrics: metrics.map(|(m, value)| (m.clone(), *value)).collect(),
    }
}

/// What was measured of stack and gallery.
fn metrics_of(stack: &StackFile) -> BTreeMap<String, f64> {
    let report = &stack.report;
    let mut metrics = BTreeMap::from([
        ("stack.held_out_log_loss".to_owned(), report.log_loss),
        ("stack.held_out_top1".to_owned(), report.top1),
        (
            "stack.averaging_log_loss".to_owned(),
            report.averaging_log_loss,
        ),
        ("stack.averaging_top1".to_owned(), report.averaging_top1),
    ]);
    if let Some(gallery) = &stack.gallery {
        let report = &gallery.report;
        metrics.extend(
            [
                ("log_loss", report.log_loss),
                ("top1", report.top1),
                ("enrolled_top1", report.enrolled_top1),
                ("enrolled_called_unknown", report.unknown_after),
                ("top1_with_enrolled", report.top1_after),
            ]
            .map(|(name, value)| (format!("gallery.held_out_{name}"), value)),
        );
    }
    let separation = match &stack.gallery {
        Some(gallery) => &gallery.report.separation,
        None => &report.separation,
    };
    for (name, value) in [
        ("unknown_auroc", separation.unknown_auroc),
        ("coverage", separation.coverage),
    ] {
        metrics.extend(value.map(|value| (format!("decision.cross_validated_{name}"), value)));
    }
    metrics
}

/// A bundle while it is written, beside where it will lie.
struct Writer {
    folder: tempfile::TempDir,
    self_test: Vec<SelfTest>,
}

impl Writer {
    fn new(out: &Path) -> anyhow::Result<Self> {
        let context = || format!("writing {}", out.display());
        let occupied = out.exists()
            && !out.join(MANIFEST_FILE).exists()
            && std::fs::read_dir(out)
                .with_context(context)?
                .next()
                .is_some();
        if occupied {
            bail!(
                "{} exists and is no bundle; give another folder with --out",
                out.display()
            );
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).with_context(context)?;
        Ok(Self {
            folder: tempfile::tempdir_in(parent).with_context(context)?,
            self_test: Vec::new(),
        })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        write(&self.folder.path().join(name), bytes)
    }

    fn manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(manifest)? + "\n";
        self.file(MANIFEST_FILE, text.as_bytes())
    }

    /// The bundle as it is written so far, checked as the flying program does.
    fn open(&self) -> anyhow::Result<Bundle> {
        Bundle::open(self.folder.path()).context("the bundle just written does not pass its check")
    }

    fn network(
        &mut self,
        role: &str,
        run: &TrainedRun,
        storage: Storage,
    ) -> anyhow::Result<recognition::bundle::Network> {
        let input = run.recipe.input.network_input();
        let interface = Interface {
            input: &input.name,
            output: role,
            features: None,
        };
        let bytes = checked(&run.network, &interface, storage)
            .with_context(|| run.folder.display().to_string())?;
        self.add(role, &bytes, &run.network, run)
    }

    fn ensemble(
        &mut self,
        runs: &[TrainedRun],
        stack: &StackFile,
        storage: Storage,
    ) -> anyhow::Result<recognition::bundle::Network> {
        let weights: Result<Vec<Weights>, _> =
            runs.iter().map(|r| Weights::of(&r.network)).collect();
        let weights = weights?;
        let members: Vec<_> = runs
            .iter()
            .map(|r| r.network.graph())
            .zip(&weights)
            .collect();
        let input = runs[0].recipe.input.network_input();
        let interface = Interface {
            input: &input.name,
            output: "logits",
            features: Some(EMBEDDING),
        };
        let exact = onnx::ensemble(&members, &stack.head, &interface, Storage::Float32)?;
        let images = probe(&runs[0].network, 2);
        let networks: Vec<&Network> = runs.iter().map(|r| &r.network).collect();
        let (logits, embeddings) = ensemble_outputs(&networks, stack, &images)?;
        agree(&exact, &images, 0, &logits).context("the ensemble")?;
        agree(&exact, &images, 1, &embeddings).context("the ensemble's embedding")?;
        let bytes = match storage {
            Storage::Float32 => onnx::encode(&exact),
            Storage::Float16 | Storage::Int8 => {
                onnx::encode(&onnx::ensemble(&members, &stack.head, &interface, storage)?)
            }
        };
        let mut network = self.add("ensemble", &bytes, &runs[0].network, &runs[0])?;
        network.output = "logits".to_owned();
        Ok(network)
    }

    /// Copies the file of another bundle's network, and its self-tests.
    fn take_over(&mut self, of: &TakenOver) -> anyhow::Result<()> {
        let manifest = of.bundle.manifest();
        let copy = |file: &str| {
            let path = of.bundle.directory().join(file);
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            self.file(file, &bytes)
        };
        if let Some(network) = manifest.network(of.role) {
            copy(&network.file)?;
        }
        let own = manifest
            .self_test
            .iter()
            .filter(|test| Role::from_name(&test.role) == Some(of.role));
        for test in own.clone() {
            copy(&test.input)?;
            copy(&test.output)?;
        }
        self.self_test.extend(own.cloned());
        Ok(())
    }

    /// Writes a network's file and its self-test.
    fn add(
        &mut self,
        role: &str,
        bytes: &[u8],
        network: &Network,
        run: &TrainedRun,
    ) -> anyhow::Result<recognition::bundle::Network> {
        let file = format!("{role}.onnx");
        self.file(&file, bytes)?;
        self.test(role, bytes, &probe(network, 1), SELF_TEST_TOLERANCE)?;
        Ok(recognition::bundle::Network {
            file,
            sha256: sha256(bytes),
            input: run.recipe.input.network_input(),
            output: role.to_owned(),
        })
    }

    /// Has the finder, which is written already, compute in 8 bits, its ranges observed on composed frames.
    fn quantise_finder(
        &mut self,
        network: &mut recognition::bundle::Network,
        composer: &Composer,
    ) -> anyhow::Result<()> {
        let path = self.folder.path().join(&network.file);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let mut model = ModelProto::decode(&*bytes).context("the finder's file")?;
        let (input, role) = (&network.input, Role::Finder.name());
        let planes = 3 * input.width as usize * input.height as usize;
        let frames = (0..OBSERVED_FRAMES).map(|i| {
            let mut rng = random(0, OBSERVING, i.into());
            let frame = composer.frame(&mut rng, input.width, input.height);
            let mut planes = vec![0.0; planes];
            write_input(&frame.image, input, &mut planes);
            planes
        });
        let ranges = observe(
            &model,
            frames,
            (input.width as usize, input.height as usize),
        )?;
        quantise(&mut model, &ranges)?;
        let bytes = onnx::encode(&model);
        self.file(&network.file, &bytes)?;
        // That which is there is of the file as it was.
        self.self_test.retain(|test| test.role != role);
        let probe = probe_of_size(input.width.into(), input.height.into(), 1);
        self.test(role, &bytes, &probe, EIGHT_BIT_TOLERANCE)?;
        network.sha256 = sha256(&bytes);
        Ok(())
    }

    /// Writes the self-test of a network; `tolerance` is a fraction of the output's largest value.
    fn test(
        &mut self,
        role: &str,
        bytes: &[u8],
        input: &Tensor,
        tolerance: f32,
    ) -> anyhow::Result<()> {
        let outputs = run_builtin(bytes, input)?;
        let raw =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let input_file = format!("self_test/{role}.input");
        let input_bytes = raw(&floats(input)?);
        self.file(&input_file, &input_bytes)?;
        for (output, embedding) in outputs.iter().zip([false, true]) {
            let (name, tolerance) = if embedding {
                (EMBEDDING, EMBEDDING_TOLERANCE)
            } else {
                let largest = output.iter().fold(1.0_f32, |a, v| a.max(v.abs()));
                ("output", tolerance * largest)
            };
            let output_file = format!("self_test/{role}.{name}");
            let output_bytes = raw(output);
            self.file(&output_file, &output_bytes)?;
            self.self_test.push(SelfTest {
                role: role.to_owned(),
                input: input_file.clone(),
                input_sha256: Some(sha256(&input_bytes)),
                output: output_file,
                output_sha256: Some(sha256(&output_bytes)),
                tolerance,
                embedding,
            });
        }
        Ok(())
    }

    /// Checks the bundle as the flying program does and moves it to its place. Returns its size.
    fn finish(self, out: &Path) -> anyhow::Result<u64> {
        self.open()?;
        let context = || format!("writing {}", out.display());
        let mut size = 0;
        for folder in [
            self.folder.path().to_owned(),
            self.folder.path().join("self_test"),
        ] {
            for entry in std::fs::read_dir(folder).with_context(context)? {
                let metadata = entry.and_then(|e| e.metadata()).with_context(context)?;
                size += if metadata.is_file() {
                    metadata.len()
                } else {
                    0
                };
            }
        }
        if out.exists() {
            std::fs::remove_dir_all(out).with_context(context)?;
        }
        let folder = self.folder.keep();
        // A temporary folder is its maker's alone; a bundle is for all to read.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let all = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&folder, all).with_context(context)?;
        }
        std::fs::rename(folder, out).with_context(context)?;
        Ok(size)
    }
}

/// What libtorch and plain arithmetic make of the ensemble: logits and embeddings.
fn ensemble_outputs(
    networks: &[&Network],
    stack: &StackFile,
    images: &Tensor,
) -> anyhow::Result<(Vec<f32>, Vec<f32>)> {
    let features: Option<Vec<Tensor>> = networks
        .iter()
        .map(|n| tch::no_grad(|| n.forward(images, Mode::Evaluate, Precision::Float32)).features)
        .collect();
    let features = Tensor::cat(&features.context("a classifier has no pooled features")?, 1);
    let head = &stack.head;
    let width = features.size()[1];
    ensure!(
        head.mean.len() as i64 == width
            && head.weight.len() as i64 == width * head.bias.len() as i64,
        "the stack's last layer has {} features, the classifiers {width}",
        head.mean.len()
    );
    let standardised = (features - Tensor::from_slice(&head.mean)) / Tensor::from_slice(&head.std);
    let weight = Tensor::from_slice(&head.weight).view([-1, width]);
    let logits = standardised.linear(&weight, Some(Tensor::from_slice(&head.bias)));
    let whitened = match &head.whitening {
        Some(whitening) => standardised.matmul(&Tensor::from_slice(whitening).view([width, width])),
        None => standardised,
    };
    let length = whitened.norm_scalaropt_dim(2, [1i64], true);
    Ok((floats(&logits)?, floats(&(whitened / length))?))
}

/// What "identified" promises.
fn aims_of_card(aims: &DecisionAims) -> String {
    let reached = &aims.reached;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let or_none = |share: Option<f64>| share.map_or("-".to_owned(), percent);
    let mut text = format!(
        "**Identified.** Thresholds were chosen so that, where {} of the heads are of whales that the bundle does not know, \
         the names of at least {} of the heads called identified are right, and at most {} of the heads of other whales \
         are called identified. ",
        percent(aims.stranger_share),
        percent(aims.precision),
        percent(aims.strangers),
    );
    if !aims.met {
        text.push_str("**These aims could not be met; the strictest threshold stands.** ");
    }
    let _ = write!(
        text,
        "On the {} photographs of known whales and {} of {} other whales on which they were chosen, each judged by what was \
         fitted without it and its whale, {} were right; {} of the known whales' heads and {} of the others' were called \
         identified.\n\n",
        reached.known_photographs,
        reached.stranger_photographs,
        reached.stranger_individuals,
        or_none(reached.precision),
        percent(reached.known_identified),
        or_none(reached.strangers_identified),
    );
    text
}

fn model_card(
    manifest: &Manifest,
    stack: &StackFile,
    about: Option<&str>,
    conditions: Option<&ConditionsReport>,
) -> String {
    let mut card = format!(
        "# {} {}\n\nNames {} individuals of *{}*.\n\n## Networks\n\n| network | for | recipe (SHA-256) | seed | weights (SHA-256) |\n|---|---|---|---|---|\n",
        manifest.name,
        manifest.version,
        manifest.catalogue.individuals.len(),
        manifest.catalogue.scientific_name
    );
    for network in &manifest.provenance.networks {
        let or_dash = |text: Option<String>| text.unwrap_or("–".to_owned());
        let _ = writeln!(
            card,
            "| {} | {} | {} (`{}`) | {} | {} |",
            network.name,
            network.role.name(),
            network.recipe,
            network.recipe_sha256,
            or_dash(network.seed.map(|seed| seed.to_string())),
            or_dash(network.weights_sha256.as_ref().map(|w| format!("`{w}`"))),
        );
    }
    let _ = match manifest.ensemble.last_layer {
        Some(LastLayer::Averaged) => {
            writeln!(
                card,
                "\nThe ensemble's last layer is the average of its classifiers' own."
            )
        }
        Some(LastLayer::Fitted) => writeln!(
            card,
            "\nThe ensemble's last layer was fitted on photographs that no classifier was trained on."
        ),
        None => Ok(()),
    };
    let _ = write!(
        card,
        "\n## Data\n\nIndex `{}`, split `{}`. ",
        manifest.provenance.data_digest, manifest.provenance.split_digest,
    );
    if let Some(calibration) = &stack.calibrated_by {
        let _ = write!(
            card,
            "**The classifiers were trained on all photographs with names.** What follows of how sure they are, and all \
             that was measured of stack and gallery, is of networks that the same recipes trained on split `{}`, which \
             holds photographs out. ",
            calibration.split_digest
        );
    }
    let _ = write!(
        card,
        "The last layer was fitted on {} photographs that no network was trained on, the model of unknown whales on {} \
         photographs of whales that no network knows.\n\n",
        stack.report.photographs, stack.report.unknown_photographs
    );
    if let Some(aims) = &manifest.decision.aims {
        card.push_str(&aims_of_card(aims));
    }
    if let Some(gallery) = &stack.gallery {
        let report = &gallery.report;
        let _ = write!(
            card,
            "The gallery has {} photographs that networks were trained on, at most {} of a whale, in half \
             precision. What similarity to them is worth was fitted on the same photographs as the last layer and \
             on {} of {} whales that no network knows, each enrolled by its other photographs.\n\n",
            gallery.photographs,
            gallery.photographs_of_a_whale,
            report.enrolled_photographs,
            report.enrolled_whales
        );
    }
    card.push_str(about.unwrap_or(
        "Nobody has said where the photographs come from, under which terms, and what this bundle must \
         not be used for.\n",
    ));
    if let Some(conditions) = conditions {
        let section = conditions.card_section(&manifest.ensemble.network.sha256);
        let _ = write!(card, "\n{section}");
    }
    card.push_str(
        "\n## Metrics\n\nOf a network those after the epoch whose weights it has: that with the least loss on the set that \
         is measured first.\n\n| metric | value |\n|---|---|\n",
    );
    let networks = manifest.provenance.networks.iter();
    let of_networks = networks.flat_map(|network| {
        let each = network.metrics.iter();
        each.map(|(metric, value)| (format!("{}.{metric}", network.name), value))
    });
    let others = manifest.provenance.metrics.iter();
    let others = others.map(|(name, value)| (name.clone(), value));
    for (name, value) in of_networks.chain(others) {
        let _ = writeln!(card, "| {name} | {value:.4} |");
    }
    card
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_of_the_released_bundle_are_taken_by_their_role() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for bundle in ["right-whales", "virtual-survey"] {
            let bundle = Bundle::open(models.join(bundle)).unwrap();
            for (role, prefix) in [(Role::Finder, "finder"), (Role::Aligner, "aligner")] {
                let bundle = Bundle::open(bundle.directory()).unwrap();
                let from = bundle.manifest().provenance.clone();
                let mut to = Provenance::default();
                TakenOver { bundle, role }.add_provenance(&mut to).unwrap();
                let [network] = &to.networks[..] else {
                    panic!("{:?}", to.networks);
                };
                assert_eq!(network.role, role);
                assert!(network.recipe.contains(prefix), "{network:?}");
                assert!(
                    network.metrics.contains_key("validation_loss"),
                    "{network:?}"
                );
                assert!(
                    !network.metrics.keys().any(|m| m.contains("top1")),
                    "{network:?}"
                );
                assert!(to.recipes.is_empty() && to.metrics.is_empty());
                let frames: &[String] = match role {
                    Role::Finder => &from.frames_trained_on,
                    _ => &[],
                };
                assert_eq!(to.frames_trained_on, frames);
            }
        }
    }

    fn of_old(metrics: &[&str]) -> Provenance {
        let metrics = metrics.iter().map(|name| ((*name).to_owned(), 0.5));
        let metrics: BTreeMap<String, f64> = metrics.collect();
        let recipes = metrics.keys().map(|name| {
            let recipe = name.split('.').next().unwrap_or_default();
            (recipe.to_owned(), "0".repeat(64))
        });
        Provenance {
            recipes: recipes.collect(),
            metrics: metrics.clone(),
            ..Provenance::default()
        }
    }

    #[test]
    fn a_role_that_a_manifest_does_not_tell_is_not_guessed() {
        // Trained on all photographs: nothing of the classifiers was held out.
        let good = of_old(&[
            "a.trained_on_top1",
            "a.trained_on_head_length_error",
            "b.validation_offset_error",
            "b-longer.validation_head_length_error",
        ]);
        let network = untold(&good, Role::Finder).unwrap();
        assert_eq!((network.name.as_str(), network.metrics.len()), ("b", 1));
        assert_eq!(untold(&good, Role::Aligner).unwrap().name, "b-longer");
        for (metrics, words) in [
            (
                &["a.held_out_top1", "b.validation_loss"][..],
                "what recipe b is for",
            ),
            (&["a.held_out_top1"], "0 recipes for the finder"),
            (
                &["a.validation_offset_error", "b.validation_offset_error"],
                "2 recipes for the finder (a, b)",
            ),
        ] {
            let error = untold(&of_old(metrics), Role::Finder).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
