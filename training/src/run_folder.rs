//! Trained networks, read back from their run folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::network::{Mode, Network, Outputs, Precision};
use crate::recipe::{Framing, Recipe, Task};
use crate::split::Split;
use crate::trainer::{BEST, LAST, RECIPE, RunInfo};

/// A trained network and how it came about.
pub struct TrainedRun {
    /// The run folder.
    pub folder: PathBuf,
    /// What it is called where it stands beside others, in tables and bundles: the name of its folder, which runs of
    /// one recipe do not share.
    pub name: String,
    /// Its recipe.
    pub recipe: Recipe,
    /// SHA-256 of the recipe's file.
    pub recipe_digest: String,
    /// What it was made from.
    pub record: RunInfo,
    /// The network with its best weights.
    pub network: Network,
    /// SHA-256 of the weights' file.
    pub weights_digest: String,
}

/// Which classifier stands at a place of an ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Name of its recipe.
    pub name: String,
    /// SHA-256 of its weights' file.
    pub weights_digest: String,
}

impl From<&TrainedRun> for Member {
    fn from(run: &TrainedRun) -> Self {
        Self {
            name: run.recipe.name.clone(),
            weights_digest: run.weights_digest.clone(),
        }
    }
}

/// Lower-case hexadecimal SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The record of a run that came to its end.
///
/// # Errors
/// The folder holds none, or the run is not at its end.
pub fn finished(folder: &Path) -> anyhow::Result<RunInfo> {
    let recipe = folder.join(RECIPE);
    if recipe.exists() && !folder.join(LAST).exists() {
        let completed = RunInfo::load(folder).map_or(0, |info| info.epochs_completed);
        bail!(
            "{} holds an unfinished run, {completed} of {} epochs done: finish it first, `callosity-train train … \
             --resume` goes on with it",
            folder.display(),
            Recipe::load(&recipe)?.schedule.epochs
        );
    }
    RunInfo::load(folder)
}

/// The name of a run's folder.
fn name(folder: &Path) -> anyhow::Result<String> {
    let context = || format!("{}: a run folder", folder.display());
    // `.` has none of its own.
    let whole = std::fs::canonicalize(folder).with_context(context)?;
    let given = folder.file_name().or(whole.file_name());
    let name = given.with_context(|| format!("{}: a folder without a name", folder.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Checks that no two runs have one name, where each has a place by it.
///
/// # Errors
/// The first two that do.
pub fn check_names<'a>(runs: impl IntoIterator<Item = &'a TrainedRun>) -> anyhow::Result<()> {
    let mut seen: HashMap<&str, &Path> = HashMap::new();
    for run in runs {
        if let Some(other) = seen.insert(&run.name, &run.folder) {
            bail!(
                "{} and {} are both called {}, and each network has its place by the name of its run folder: give \
                 one of the folders another name, or leave it out where it is the same",
                other.display(),
                run.folder.display(),
                run.name
            );
        }
    }
    Ok(())
}

impl TrainedRun {
    /// Reads the folder of a finished run, its network with the best weights on `device`. Says on standard error
    /// where its metrics are of other weights.
    ///
    /// # Errors
    /// A file is missing or unreadable, the run is not at its end, or the weights do not fit the recipe or are not
    /// finite.
    pub fn open(folder: &Path, device: Device) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| {
                format!(
                    "reading {}; {} must be a run folder that `callosity-train train` completed",
                    path.display(),
                    folder.display()
                )
            })
        };
        let recipe_digest = sha256(&read(RECIPE)?);
        let recipe = Recipe::load(&folder.join(RECIPE))?;
        let record = finished(folder)?;
        if record.best_epoch.is_none() {
            eprintln!(
                "warning: an earlier version trained {}: metrics in its run.json are of the last epoch, not of the one \
                 whose weights are taken, which metrics.csv has",
                folder.display()
            );
        }
        if recipe.task == Task::Classifier && record.individuals.is_empty() {
            bail!("{}: the classifier names nobody", folder.display());
        }
        let weights_digest = sha256(&read(BEST)?);
        let graph = recipe.graph(record.individuals.len().max(1))?;
        let mut network = Network::new(graph, device);
        network.load(&folder.join(BEST))?;
        Ok(Self {
            folder: folder.to_owned(),
            name: name(folder)?,
            recipe,
            recipe_digest,
            record,
            network,
            weights_digest,
        })
    }

    /// Evaluates the network, in float32 and without gradients, on `N × 3 × height × width` images on its device.
    ///
    /// Where mirrored whales are individuals of their own, the output is the logarithm of the mean of two
    /// probabilities: the whale's in the image, and its mirrored self's in the mirrored image.
    pub fn evaluate(&self, images: &Tensor) -> Outputs {
        let forward = |images: &Tensor| {
            tch::no_grad(|| {
                self.network
                    .forward(images, Mode::Evaluate, Precision::Float32)
            })
        };
        let mut outputs = forward(images);
        if self.recipe.augmentation.mirrored_individuals {
            let individuals = self.record.individuals.len() as i64;
            let half = |output: &Tensor, first: i64| {
                output.narrow(1, first, individuals).softmax(1, Kind::Float)
            };
            let mirrored = forward(&images.flip([2])).output;
            let mean = (half(&outputs.output, 0) + half(&mirrored, individuals)) / 2.0;
            outputs.output = mean.log();
        }
        outputs
    }

    /// Checks that the network learns what is asked for.
    ///
    /// # Errors
    /// It learns something else.
    pub fn expect(&self, task: Task) -> anyhow::Result<()> {
        ensure!(
            self.recipe.task == task,
            "{}: a {task:?} is needed here, this run trained a {:?}",
            self.folder.display(),
            self.recipe.task
        );
        Ok(())
    }

    /// Refuses classifiers of anything but head crops, which are all that is cut in flight.
    ///
    /// # Errors
    /// The network sees a composed frame.
    pub fn expect_head_crops(&self) -> anyhow::Result<()> {
        let framing = self.recipe.input.framing;
        ensure!(
            framing == Framing::HeadCrop,
            "{}: this classifier sees {framing:?} of a composed frame; here only classifiers of head crops will \
             do, whose recipe has no input.framing",
            self.folder.display()
        );
        Ok(())
    }

    /// Checks that the run was trained on this split.
    ///
    /// # Errors
    /// It was trained on another one.
    pub fn expect_split(&self, split: &Split) -> anyhow::Result<()> {
        ensure!(
            self.record.split_digest == split.digest(),
            "{} was trained on split {}, this is {}: a photograph that is measured here may have trained it",
            self.folder.display(),
            self.record.split_digest,
            split.digest()
        );
        Ok(())
    }
}

/// Checks that networks may stand in one bundle: classifiers of head crops, one split, one held-out fold, and
/// for classifiers one catalogue and one size of input.
///
/// # Errors
/// The first that differs, with both values.
pub fn check_together<'a>(runs: impl IntoIterator<Item = &'a TrainedRun>) -> anyhow::Result<()> {
    let mut runs = runs.into_iter();
    let Some(first) = runs.next() else {
        bail!("at least one run is needed");
    };
    let name = |run: &TrainedRun| run.folder.display().to_string();
    first.expect_head_crops()?;
    let mut classifier = (first.recipe.task == Task::Classifier).then_some(first);
    for run in runs {
        run.expect_head_crops()?;
        ensure!(
            run.record.split_digest == first.record.split_digest,
            "{} was trained on split {}, {} on split {}: a photograph that one is measured on may have \
             trained the other; train both on one split",
            name(first),
            first.record.split_digest,
            name(run),
            run.record.split_digest
        );
        ensure!(
            run.record.data_digest == first.record.data_digest,
            "{} and {} were trained on different data",
            name(first),
            name(run)
        );
        ensure!(
            run.record.held_out_fold == first.record.held_out_fold,
            "{} held out fold {}, {} fold {}: there is no fold that none of them saw",
            name(first),
            first.record.held_out_fold,
            name(run),
            run.record.held_out_fold
        );
        if run.recipe.task != Task::Classifier {
            continue;
        }
        let reference = *classifier.get_or_insert(run);
        ensure!(
            run.record.individuals == reference.record.individuals,
            "{} and {} name different individuals",
            name(reference),
            name(run)
        );
        ensure!(
            run.recipe.input == reference.recipe.input,
            "{} takes {:?}, {} {:?}: classifiers of an ensemble share one input",
            name(reference),
            reference.recipe.input,
            name(run),
            run.recipe.input
        );
    }
    Ok(())
}
