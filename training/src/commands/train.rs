//! `callosity-train train`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use recognition::bundle::Bundle;
use tch::{Cuda, Device};

use crate::bundle_weights::{self, LastLayerChoice};
use crate::cache::Cache;
use crate::compose::{Composer, RealFrame};
use crate::files::sha256_of_file;
use crate::frame_folds::FRAME_FOLDS;
use crate::index::Index;
use crate::network::Precision;
use crate::pseudo_labels::PseudoLabels;
use crate::recipe::{Recipe, Task as TaskKind};
use crate::run_folder::finished;
use crate::split::{Split, TrainedOn, Unseen};
use crate::tasks::{AlignerTask, ClassifierTask, FinderTask, LocaliserTask, PretrainingTask, Task};
use crate::trainer::{Ending, Execution, RunInfo, Start, train};

/// Train one network as a recipe says.
///
/// The run folder gets the recipe, the metrics as CSV, learning curves as SVG, and the best and the last
/// weights. The best, those after the epoch with the least loss on what the network does not see, are the run's:
/// bundle, stack, report, --from and --grow take these, and the metrics of that epoch are reported. Ctrl-C leaves a checkpoint there; the same command with --resume goes on as if nothing had
/// happened, as it does after a crash or a loss of power, then from the last checkpoint. Where training
/// fails, failure.txt there says why.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The recipe, a TOML file such as training/recipes/resnet-18-fine-small.toml
    recipe: PathBuf,
    /// Index of the photographs, written by `callosity-train import`
    #[arg(long, default_value = "runs/data/index.json")]
    index: PathBuf,
    /// The split, written by `callosity-train split`; one for all networks of a bundle
    #[arg(long, default_value = "runs/data/split.json")]
    split: PathBuf,
    /// Folder for decoded photographs, shared by all runs
    #[arg(long, default_value = "runs/data/cache")]
    cache: PathBuf,
    /// Run folder [default: runs/NAME, by the name of the recipe]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with a run that was interrupted, was killed or failed
    #[arg(long)]
    resume: bool,
    /// Fold of the training part that no network of the ensemble sees, kept for stacking
    #[arg(long, default_value_t = 0)]
    held_out_fold: u32,
    /// Fold of the real frames with landmarks that a finder whose recipe has `real_frames` does not see,
    /// so that it can be measured on it [default: it sees all of them]
    #[arg(long, value_parser = clap::value_parser!(u32).range(..i64::from(FRAME_FOLDS)))]
    held_out_frame_fold: Option<u32>,
    /// Run folder with the same layers whose weights are the start, instead of random ones: the best, which it is
    /// reported by (its last ones with --weights RUN/last.safetensors). The last layer stays random for individuals
    /// that are not known there. A run of another split or held-out fold of these photographs is refused
    #[arg(long, value_name = "RUN", conflicts_with = "grow")]
    from: Option<PathBuf>,
    /// Bundle whose network is the start, where the recipe has its layers: one that flies is trained on without
    /// the run folders from which it came
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from", "grow"])]
    from_bundle: Option<PathBuf>,
    /// Which classifier of the bundle's ensemble, from 1
    #[arg(long, value_name = "N", default_value_t = 1, requires = "from_bundle")]
    member: usize,
    /// What a classifier's last layer starts from with --from-bundle [default: what is known there where the bundle's
    /// is the average of its classifiers' own, random where it was fitted on held-out photographs]. Needed for old
    /// bundles that do not say which it is
    #[arg(long, value_enum, requires = "from_bundle")]
    last_layer: Option<LastLayerChoice>,
    /// Weights from elsewhere as the start: a safetensors file with the names and shapes of this network's
    /// layers, such as training/imagenet/efficientnet_lite.py makes; the last layer starts at random where it
    /// has another shape there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "grow", "from_bundle"])]
    weights: Option<PathBuf>,
    /// Names of photographs without names, written by `callosity-train pseudo-label`, that a classifier
    /// is trained on too
    #[arg(long, value_name = "FILE")]
    pseudo_labels: Option<PathBuf>,
    /// Run folder of a smaller network whose function, with its best weights, is the start: the recipe has its
    /// layers, some of them with more channels or a larger repeat (Net2Net)
    #[arg(long, value_name = "RUN")]
    grow: Option<PathBuf>,
    /// A value instead of the recipe's, as a line of TOML: --set schedule.epochs=5, --set "name = 'other'"; may
    /// be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Seconds between checkpoints: what a loss of power costs at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u64,
    /// Number format of the passes
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto)]
    precision: PrecisionChoice,
    /// Threads that prepare batches
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(2, usize::from))]
    workers: usize,
}

/// Number format of the passes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PrecisionChoice {
    /// bf16 on a GPU or a CPU with AMX or AVX-512 BF16, else float32
    Auto,
    /// Single precision
    Float32,
    /// bfloat16 with float32 master weights
    Bf16,
}

/// Set by Ctrl-C and by termination.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Refuses a start that has seen what is held out here, and says where that cannot be told.
fn check_start(split: &Split, fold: u32, start: &TrainedOn<'_>) -> anyhow::Result<()> {
    match split.check_start(fold, start)? {
        Unseen::Sure => {}
        Unseen::OtherData => eprintln!(
            "note: {} was trained on other data; whether photographs that are held out here are among that, nobody \
             checks",
            start.network
        ),
        Unseen::UnknownFold => eprintln!(
            "warning: {} does not say which fold its networks did not see; make sure that it is fold {fold}",
            start.network
        ),
    }
    Ok(())
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("catching Ctrl-C")?;
    let recipe = Recipe::load_with(&args.recipe, &args.settings)?;
    let index = Index::load(&args.index)?;
    let split = Split::load(&args.split)?;
    ensure!(
        split.data_digest == index.digest(),
        "{} does not belong to {}",
        args.split.display(),
        args.index.display()
    );
    let cache = Arc::new(Cache::open_or_build(&index, &args.cache)?);
    let device = Device::cuda_if_available();
    let execution = Execution {
        device,
        precision: match args.precision {
            PrecisionChoice::Auto => Precision::fastest(device),
            PrecisionChoice::Float32 => Precision::Float32,
            PrecisionChoice::Bf16 => Precision::Bf16,
        },
        workers: args.workers,
        resume: args.resume,
        checkpoint_every: Duration::from_secs(args.checkpoint_every),
        interrupted: &INTERRUPTED,
    };
    ensure!(
        recipe.task == TaskKind::Classifier || args.pseudo_labels.is_none(),
        "{}: --pseudo-labels is for classifiers",
        args.recipe.display()
    );
    let real_share = recipe.schedule.real_frames;
    ensure!(
        real_share > 0.0 || args.held_out_frame_fold.is_none(),
        "{}: --held-out-frame-fold is for recipes with schedule.real_frames above 0",
        args.recipe.display()
    );
    let (mut frames_trained_on, real_frames) = if real_share > 0.0 {
        RealFrame::from_data(&index, |fold| Some(fold) != args.held_out_frame_fold)?
    } else {
        Default::default()
    };
    ensure!(
        real_share == 0.0 || !real_frames.is_empty(),
        "{}: schedule.real_frames is {real_share}, but {} has no frames with landmarks to train on",
        args.recipe.display(),
        args.index.display()
    );
    if let Some(run) = args.from.as_ref().or(args.grow.as_ref()) {
        let record = finished(run)?;
        check_start(
            &split,
            args.held_out_fold,
            &TrainedOn {
                network: &run.display().to_string(),
                data_digest: &record.data_digest,
                split_digest: &record.split_digest,
                held_out_fold: Some(record.held_out_fold),
            },
        )?;
        frames_trained_on.extend(record.frames_trained_on);
    }
    let start = if let Some(run) = args.from {
        Start::Run(run)
    } else if let Some(run) = args.grow {
        Start::Grown(run)
    } else if let Some(bundle) = args.from_bundle {
        let opened = Bundle::open(&bundle)?;
        let provenance = &opened.manifest().provenance;
        check_start(
            &split,
            args.held_out_fold,
            &TrainedOn {
                network: &bundle.display().to_string(),
                data_digest: &provenance.data_digest,
                split_digest: recipe
                    .task
                    .role()
                    .map_or(&provenance.split_digest, |role| provenance.split_of(role)),
                held_out_fold: provenance.held_out_fold,
            },
        )?;
        // Only finders see real frames; what the bundle's finder saw, its other networks did not.
        if recipe.task == TaskKind::Finder {
            frames_trained_on.extend(provenance.frames_trained_on.iter().cloned());
        }
        Start::Bundle(bundle_weights::Source {
            bundle,
            member: args.member,
            last_layer: args.last_layer,
        })
    } else if let Some(file) = args.weights {
        Start::Weights(file)
    } else {
        Start::Random
    };
    frames_trained_on.sort();
    frames_trained_on.dedup();
    let composers = || -> anyhow::Result<(Composer, Composer)> {
        let fold = args.held_out_fold;
        let training = Composer::from_data(&index, &split, &cache, |f| f != fold)?;
        let measured = Composer::of_held_out_fold(&index, &split, &cache, fold)?;
        Ok((training, measured))
    };
    let (task, individuals): (Box<dyn Task>, Vec<String>) = match recipe.task {
        TaskKind::Classifier => {
            let mut task =
                ClassifierTask::new(&recipe, &index, &split, &cache, args.held_out_fold)?;
            if let Some(path) = &args.pseudo_labels {
                let named = PseudoLabels::load(path, &split, args.held_out_fold)?;
                let unlabelled = Arc::new(Cache::of_unlabelled_heads(&index, &args.cache)?);
                task.train_on_pseudo_labels(&named, &split, &unlabelled)
                    .with_context(|| path.display().to_string())?;
            }
            (Box::new(task), split.individuals.clone())
        }
        TaskKind::Pretraining => {
            let loss = recipe
                .loss
                .metric
                .context("a recipe for pretraining has a metric loss")?;
            let unlabelled = Arc::new(Cache::of_unlabelled_heads(&index, &args.cache)?);
            let task = PretrainingTask::new(&recipe, loss, &index, &split, &unlabelled);
            (Box::new(task), vec![])
        }
        TaskKind::Aligner => {
            let (training, measured) = composers()?;
            let task = AlignerTask::new(&recipe, Arc::new(training), Arc::new(measured));
            (Box::new(task), vec![])
        }
        TaskKind::Localiser => {
            let (training, measured) = composers()?;
            let task = LocaliserTask::new(&recipe, Arc::new(training), Arc::new(measured));
            (Box::new(task), vec![])
        }
        TaskKind::Finder => {
            let (training, measured) = composers()?;
            let training = training.with_real_frames(real_frames, real_share);
            let task = FinderTask::new(&recipe, Arc::new(training), Arc::new(measured));
            (Box::new(task), vec![])
        }
    };
    let graph = recipe.graph(individuals.len())?;
    let mut inputs = BTreeMap::new();
    if let Some(path) = &args.pseudo_labels {
        let digest = sha256_of_file(path).with_context(|| path.display().to_string())?;
        inputs.insert("--pseudo-labels".to_owned(), digest);
    }
    let info = RunInfo {
        data_digest: index.digest(),
        split_digest: split.digest(),
        held_out_fold: args.held_out_fold,
        frames_trained_on,
        individuals,
        parameters: graph.parameter_count(),
        multiply_adds: graph.multiply_adds(),
        initialised_from: None,
        pseudo_labels: args.pseudo_labels.clone(),
        inputs,
        epochs_completed: 0,
        best_epoch: None,
        metrics: Default::default(),
    };
    let folder = args
        .out
        .unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    eprintln!(
        "{}: {} training samples, {:.2} million parameters, {:.0} million multiply-adds, {:?} on {}",
        recipe.name,
        task.training().len(),
        info.parameters as f64 / 1e6,
        info.multiply_adds as f64 / 1e6,
        execution.precision,
        match device {
            Device::Cuda(n) => format!("CUDA device {n} of {}", Cuda::device_count()),
            _ => format!("{} CPU threads", tch::get_num_threads()),
        },
    );
    match train(&recipe, &*task, &start, info, &folder, &execution)? {
        Ending::Completed => eprintln!("{}: done, in {}", recipe.name, folder.display()),
        Ending::Interrupted => {
            eprintln!(
                "{}: interrupted; the same command with --resume goes on",
                recipe.name
            );
            std::process::exit(130);
        }
    }
    Ok(())
}
