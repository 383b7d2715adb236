//! The training loop and the run folder.
//!
//! A run folder holds `recipe.toml`, `run.json` ([`RunInfo`]), `metrics.csv`, `learning_curves.svg`,
//! `best.safetensors`, `last.safetensors`, and while it is unfinished its [`Checkpoints`]. The best weights, those
//! after the epoch with the least loss on the first set that is measured, are the run's: whatever takes a run takes
//! these, and `run.json` has the metrics of their epoch. The last ones say that the run came to its end. Random numbers
//! follow from the recipe's seed and the step's number alone, and a checkpoint holds everything else, so a
//! run that was interrupted or killed goes on as if it had not been. A run that fails leaves the reason in
//! `failure.txt`.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use recognition::bundle::MANIFEST_FILE;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::bundle_weights;
use crate::checkpoint::Checkpoints;
use crate::claim::Claim;
use crate::files::{remove_partial, sha256_of_file, write_whole};
use crate::graph::LOCALISATION;
use crate::loader::{Batch, Loader, Samples, panic_text};
use crate::network::{Mode, Network, Precision, save_tensors, tensor_is_finite};
use crate::optimiser::{AdamW, one_cycle};
use crate::recipe::Recipe;
use crate::run_folder::finished;
use crate::tasks::Task;

/// What a run was made from, so that networks of one bundle can be checked against each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Digest of the data's index.
    pub data_digest: String,
    /// Digest of the split.
    pub split_digest: String,
    /// Fold of the training part that the network never saw.
    pub held_out_fold: u32,
    /// File names of the real frames that were trained on, here or before the weights that it started
    /// from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames_trained_on: Vec<String>,
    /// Labels in the order of the outputs; empty but for classifiers.
    pub individuals: Vec<String>,
    /// Weights that training started from; `None` where they were random.
    #[serde(default)]
    pub initialised_from: Option<PathBuf>,
    /// Names given by another network that were trained on too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudo_labels: Option<PathBuf>,
    /// What else it was made from, by the argument of `train` that names it: the SHA-256 of a file, or the value. Runs
    /// that were made before this was recorded have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Trainable parameters.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Epochs completed.
    pub epochs_completed: u32,
    /// The epoch whose weights are kept as the best; absent until one is, and in runs that were made before it was
    /// recorded, whose metrics are of the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<u32>,
    /// Metrics after the best epoch, by column of `metrics.csv`.
    pub metrics: BTreeMap<String, f64>,
}

impl RunInfo {
    /// Reads the record of a run from its folder.
    ///
    /// # Errors
    /// The file is missing or has another form.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(RUN_INFO);
        let context = || {
            format!(
                "reading {}; {} must be a run folder that `callosity-train train` made",
                path.display(),
                folder.display()
            )
        };
        let text = std::fs::read(&path).with_context(context)?;
        serde_json::from_slice(&text).with_context(context)
    }
}

/// What the first weights of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Random numbers.
    Random,
    /// The best weights of the same layers in this run folder, those that it is reported by. The last fully connected
    /// layer keeps what it says of individuals that are known there too, and is random for others.
    Run(PathBuf),
    /// The weights in this safetensors file, under the names of the network's own; the last fully connected
    /// layer may have another shape there, and then is random.
    Weights(PathBuf),
    /// The weights of the same layers in a bundle, see [`crate::bundle_weights`].
    Bundle(bundle_weights::Source),
    /// Weights with which the network computes what the smaller one in this run folder does, see
    /// [`crate::net2net`].
    Grown(PathBuf),
}

/// How a run is carried out, apart from what it computes.
pub struct Execution {
    /// Where the network is trained.
    pub device: Device,
    /// Number format of the passes.
    pub precision: Precision,
    /// Threads that prepare batches.
    pub workers: usize,
    /// Goes on from a checkpoint instead of refusing a folder that has one.
    pub resume: bool,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Set by Ctrl-C: the run writes a checkpoint and ends.
    pub interrupted: &'static AtomicBool,
}

/// Whether a run came to the end of its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did.
    Completed,
    /// It was interrupted, and left a checkpoint.
    Interrupted,
}

/// Position of a run, beside the tensors of its checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Position {
    step: u64,
    best_loss: Option<f64>,
    rows: Vec<BTreeMap<String, f64>>,
    loss_sum: f64,
    info: RunInfo,
}

/// Where a run goes on from.
type Resumed = (Position, BTreeMap<String, Tensor>);

/// Where a process takes up a run.
enum Beginning<'a> {
    First(&'a Start),
    Resumed(Box<Resumed>),
}

/// A network in training, with everything that a checkpoint keeps.
struct Run<'a> {
    recipe: &'a Recipe,
    folder: &'a Path,
    network: Network,
    average: Option<Network>,
    /// Weights with the smallest loss so far. The file of them may be ahead of the checkpoint from which a run
    /// goes on.
    best: BTreeMap<String, Tensor>,
    optimiser: AdamW,
    losses: Losses,
    position: Position,
}

/// Steps after which losses are read.
const READ_EVERY: usize = 16;

/// Losses of the last steps, still on the device. To read one is to wait until the device has come so far, in which
/// time nothing new is sent to it, so they are read some at a time.
#[derive(Default)]
struct Losses {
    unread: Vec<Tensor>,
    /// The last that was read.
    last: Option<f64>,
}

impl Losses {
    /// Takes the loss of a step, a single value. Gives whether it is time to read.
    fn push(&mut self, loss: &Tensor) -> bool {
        self.unread.push(loss.detach());
        self.unread.len() >= READ_EVERY
    }

    /// Those that were not read yet, in the order of their steps.
    fn read(&mut self) -> anyhow::Result<Vec<f64>> {
        if self.unread.is_empty() {
            return Ok(Vec::new());
        }
        let unread = std::mem::take(&mut self.unread);
        let values = Tensor::stack(&unread, 0).to_kind(Kind::Double);
        let values = Vec::<f64>::try_from(&values.to_device(Device::Cpu).view([-1]))?;
        self.last = values.last().copied();
        Ok(values)
    }
}

/// Trains `recipe` on `task` into `folder`, from `start` or from a checkpoint there. Of `info`
/// [`initialised_from`](RunInfo::initialised_from) and its [digest](RunInfo::inputs) follow from `start`.
///
/// # Errors
/// Where the folder holds another run or one of other inputs, `start` cannot be read or is an unfinished run, another
/// process trains in the folder, a file cannot be written, memory runs
/// out, a worker fails, or a loss or a weight is no finite number. Once training has begun the reason stands in
/// `failure.txt` too, and the last good checkpoint stays.
pub fn train(
    recipe: &Recipe,
    task: &dyn Task,
    start: &Start,
    mut info: RunInfo,
    folder: &Path,
    execution: &Execution,
) -> anyhow::Result<Ending> {
    info.initialised_from = match start {
        Start::Random => None,
        Start::Run(run) | Start::Grown(run) => Some(run.join(BEST)),
        Start::Weights(file) => Some(file.clone()),
        Start::Bundle(source) => Some(source.bundle.clone()),
    };
    info.inputs.extend(inputs(start)?);
    let samples = task.training();
    let steps_in_epoch = steps_in_epoch(recipe, &*samples);
    if steps_in_epoch == 0 {
        bail!(
            "{} training samples do not fill one batch of {}; take a smaller schedule.batch in {}",
            samples.len(),
            recipe.schedule.batch,
            recipe.name
        );
    }
    let steps = steps_in_epoch * u64::from(recipe.schedule.epochs);
    ensure!(
        steps > 0 || *start != Start::Random,
        "schedule.epochs is 0, which keeps the weights that a run starts from: give --from, --from-bundle, \
         --weights or --grow"
    );
    let mut claim = Claim::take(folder)?;
    let mut checkpoints = Checkpoints::of(folder);
    let resumed = resumed(recipe, &info, folder, execution.resume, &mut checkpoints)?;
    if claim.killed_before {
        eprintln!(
            "warning: the process that trained in {} before was ended from outside, see running.txt there; \
             going on from step {}",
            folder.display(),
            resumed.as_ref().map_or(0, |(position, _)| position.step)
        );
    }
    claim.start()?;
    let step = Cell::new(0);
    // libtorch reports that it has no memory left by a panic.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let beginning = resumed.map_or(Beginning::First(start), |found| {
            Beginning::Resumed(Box::new(found))
        });
        let from = (beginning, &mut checkpoints);
        carry_out(recipe, task, info, folder, execution, from, steps, &step)
    }))
    .unwrap_or_else(|panic| Err(reason_of_panic(&panic_text(&*panic))));
    outcome.inspect_err(|reason| {
        let ahead = match checkpoints.good() {
            Some(path) => format!(
                "{} is good: once the cause is mended, the same command with --resume goes on from it.",
                path.display()
            ),
            None => "There is no checkpoint: once the cause is mended, start again.".to_owned(),
        };
        claim.fail(&format!(
            "{:.0}: {} failed after step {} of {steps}:\n{reason:#}\n{ahead}\n",
            jiff::Timestamp::now(),
            recipe.name,
            step.get(),
        ));
    })
}

/// Whole batches of the training samples.
fn steps_in_epoch(recipe: &Recipe, samples: &dyn Samples) -> u64 {
    (samples.len() / recipe.schedule.batch) as u64
}

/// What `start` is, as [`RunInfo::inputs`] has it.
///
/// # Errors
/// It cannot be read, or is a run that is not at its end.
fn inputs(start: &Start) -> anyhow::Result<BTreeMap<String, String>> {
    let digest = |argument: &str, path: PathBuf| -> anyhow::Result<(String, String)> {
        let digest = sha256_of_file(&path)
            .with_context(|| format!("reading {} of {argument}", path.display()))?;
        Ok((argument.to_owned(), digest))
    };
    let mut inputs = BTreeMap::new();
    match start {
        Start::Random => {}
        Start::Run(run) | Start::Grown(run) => {
            finished(run)?;
            let argument = match start {
                Start::Run(_) => "--from",
                _ => "--grow",
            };
            inputs.extend([digest(argument, run.join(BEST))?]);
        }
        Start::Weights(file) => inputs.extend([digest("--weights", file.clone())?]),
        Start::Bundle(source) => {
            // The manifest has the digests of all else.
            inputs.extend([digest("--from-bundle", source.bundle.join(MANIFEST_FILE))?]);
            inputs.insert("--member".to_owned(), source.member.to_string());
            if let Some(choice) = source.last_layer {
                inputs.insert("--last-layer".to_owned(), choice.to_string());
            }
        }
    }
    Ok(inputs)
}

/// The argument of `train` of which another value is given than a run was started with.
fn other_argument(started: &RunInfo, info: &RunInfo) -> Option<String> {
    let same = [
        ("--index", started.data_digest == info.data_digest),
        ("--split", started.split_digest == info.split_digest),
        (
            "--held-out-fold",
            started.held_out_fold == info.held_out_fold,
        ),
        ("--split", started.individuals == info.individuals),
    ];
    if let Some((argument, _)) = same.iter().find(|(_, same)| !same) {
        return Some((*argument).to_owned());
    }
    // Of runs that were started before digests were recorded only the names of files are known.
    let recorded = !started.inputs.is_empty()
        || started.initialised_from.is_none() && started.pseudo_labels.is_none();
    if recorded {
        let arguments = started.inputs.keys().chain(info.inputs.keys());
        let mut other = arguments.filter(|a| started.inputs.get(*a) != info.inputs.get(*a));
        if let Some(argument) = other.next() {
            return Some(argument.clone());
        }
    } else {
        // Another file of a run was taken then.
        let source = |info: &RunInfo| -> Option<PathBuf> {
            let path = info.initialised_from.as_deref()?;
            let of_run = path
                .file_name()
                .is_some_and(|name| name == LAST || name == BEST);
            Some(if of_run {
                path.with_file_name("")
            } else {
                path.to_owned()
            })
        };
        if source(started) != source(info) {
            return Some("--from, --weights, --from-bundle or --grow".to_owned());
        }
        if started.pseudo_labels != info.pseudo_labels {
            return Some("--pseudo-labels".to_owned());
        }
    }
    (started.frames_trained_on != info.frames_trained_on)
        .then(|| "--held-out-frame-fold, --from or --grow".to_owned())
}

/// Says in words what libtorch ended with, without its call stack.
fn reason_of_panic(text: &str) -> anyhow::Error {
    let call_stack = ["Exception raised from", "frame #0"];
    let text = call_stack
        .iter()
        .fold(text, |text, start| text.split(start).next().unwrap_or(text));
    let reason = anyhow!("{}", text.trim_end_matches("\\n").trim_end());
    let of_memory = ["allocate memory", "out of memory", "bad_alloc", "bad alloc"];
    if of_memory.iter().any(|sign| text.contains(sign)) {
        reason.context(
            "out of memory; free some, take fewer --workers, or begin again with a smaller schedule.batch",
        )
    } else {
        reason
    }
}

/// What `folder` holds to go on from.
///
/// # Errors
/// It holds another run, a finished one, or an unfinished one without `resume`.
fn resumed(
    recipe: &Recipe,
    info: &RunInfo,
    folder: &Path,
    resume: bool,
    checkpoints: &mut Checkpoints,
) -> anyhow::Result<Option<Resumed>> {
    ensure!(
        !folder.join("checkpoint.json").exists(),
        "{} holds a checkpoint that an earlier version wrote; finish it with that, or remove the folder",
        folder.display()
    );
    if checkpoints.list()?.is_empty() {
        ensure!(
            !folder.join(LAST).exists(),
            "{} holds a finished run; take another --out, or remove the folder",
            folder.display()
        );
        return Ok(None);
    }
    ensure!(
        resume,
        "{} holds an unfinished run; go on with --resume, or remove the folder",
        folder.display()
    );
    let mut written = Recipe::load(&folder.join(RECIPE))?;
    written.about.clone_from(&recipe.about);
    ensure!(
        written == *recipe,
        "{} was started with another recipe; its own stands in {RECIPE} there",
        folder.display()
    );
    let (position, tensors) = checkpoints.read::<Position>()?;
    if let Some(argument) = other_argument(&position.info, info) {
        bail!(
            "{} was started with another {argument}; go on with the same, or take another --out",
            folder.display()
        );
    }
    Ok(Some((position, tensors)))
}

/// Trains from where a run stands to its end or until it is interrupted; `at` says how many steps are done.
#[expect(clippy::too_many_arguments, reason = "what one run is made of")]
fn carry_out(
    recipe: &Recipe,
    task: &dyn Task,
    info: RunInfo,
    folder: &Path,
    execution: &Execution,
    (beginning, checkpoints): (Beginning, &mut Checkpoints),
    steps: u64,
    at: &Cell<u64>,
) -> anyhow::Result<Ending> {
    let samples = task.training();
    let steps_in_epoch = steps_in_epoch(recipe, &*samples);
    let mut run = Run::start(recipe, task, info, folder, execution, beginning)?;
    let first = run.position.step;
    at.set(first);
    let mut loader = Loader::start(
        &samples,
        recipe.seed,
        recipe.schedule.batch,
        first..steps,
        execution.workers,
    );
    let bar = progress_bar(steps * recipe.schedule.batch as u64);
    bar.set_position(first * recipe.schedule.batch as u64);
    bar.reset_eta();
    let mut checkpointed = Instant::now();
    let mut epoch_clock = EpochClock::start();
    loop {
        let asked = Instant::now();
        let Some(batch) = loader.next() else { break };
        let batch = batch?;
        epoch_clock.waited += asked.elapsed();
        epoch_clock.images += batch.size;
        run.step(task, &*samples, &batch, steps, execution)?;
        at.set(run.position.step);
        bar.inc(batch.size as u64);
        if run.position.step % steps_in_epoch == 0 {
            run.finish_epoch(task, steps_in_epoch, steps, &epoch_clock, execution, &bar)?;
            epoch_clock = EpochClock::start();
        } else if let Some(loss) = run.losses.last {
            bar.set_message(format!("loss {loss:.3}"));
        }
        let stop = execution.interrupted.load(Ordering::Relaxed);
        if run.position.step < steps
            && (stop || checkpointed.elapsed() >= execution.checkpoint_every)
        {
            run.write_checkpoint(checkpoints)?;
            checkpointed = Instant::now();
        }
        if stop && run.position.step < steps {
            bar.abandon_with_message("interrupted; go on with --resume");
            return Ok(Ending::Interrupted);
        }
    }
    if steps == 0 {
        run.finish_epoch(task, steps_in_epoch, steps, &epoch_clock, execution, &bar)?;
    }
    run.refuse_not_finite()?;
    run.keep_last_where_none_is_best()?;
    run.evaluated().save(&folder.join(LAST))?;
    checkpoints.remove()?;
    bar.finish();
    Ok(Ending::Completed)
}

const RUN_INFO: &str = "run.json";
pub(crate) const RECIPE: &str = "recipe.toml";
const METRICS: &str = "metrics.csv";
const CURVES: &str = "learning_curves.svg";
pub(crate) const BEST: &str = "best.safetensors";
pub(crate) const LAST: &str = "last.safetensors";

struct EpochClock {
    started: Instant,
    waited: Duration,
    images: usize,
}

impl EpochClock {
    fn start() -> Self {
        Self {
            started: Instant::now(),
            waited: Duration::ZERO,
            images: 0,
        }
    }
}

/// Starts from the best weights in a run folder, whose outputs are the individuals `theirs`.
fn start_from_run(
    network: &mut Network,
    recipe: &Recipe,
    individuals: &[String],
    run: &Path,
    theirs: &[String],
) -> anyhow::Result<()> {
    let weights = run.join(BEST);
    let taken = if theirs == individuals {
        match network.load_but_other_last_layer(&weights)? {
            None => return Ok(()),
            Some(_) => 0,
        }
    } else {
        let places: HashMap<&String, usize> = theirs.iter().zip(0..).collect();
        let rows: Vec<Option<usize>> = individuals
            .iter()
            .map(|individual| places.get(individual).copied())
            .collect();
        network.load_rows_of_last_layer(&weights, &rows)?
    };
    eprintln!(
        "{}: the last layer starts at random but for {taken} individuals that {} knows",
        recipe.name,
        run.display()
    );
    Ok(())
}

/// A bar with rate and time left, shown where standard error is a terminal.
fn progress_bar(images: u64) -> ProgressBar {
    let style = "{prefix}[{elapsed_precise}] {bar:30} {percent}% {per_sec}, {eta} left  {msg}";
    ProgressBar::new(images)
        .with_style(ProgressStyle::with_template(style).expect("a fixed template"))
}

impl<'a> Run<'a> {
    fn start(
        recipe: &'a Recipe,
        task: &dyn Task,
        info: RunInfo,
        folder: &'a Path,
        execution: &Execution,
        beginning: Beginning,
    ) -> anyhow::Result<Self> {
        remove_partial(folder).with_context(|| format!("tidying {}", folder.display()))?;
        tch::manual_seed(recipe.seed as i64);
        let graph = recipe.graph(info.individuals.len())?;
        let mut network = Network::new(graph.clone(), execution.device);
        match &beginning {
            Beginning::Resumed(_) => {}
            Beginning::First(Start::Random) => task.initialise(&network),
            Beginning::First(Start::Run(run)) => {
                let theirs = finished(run)?.individuals;
                start_from_run(&mut network, recipe, &info.individuals, run, &theirs)?;
            }
            Beginning::First(Start::Weights(weights)) => {
                if let Some(layer) = network.load_but_other_last_layer(weights)? {
                    eprintln!(
                        "{}: {} has no last layer {layer} of this shape; it starts at random",
                        recipe.name,
                        weights.display()
                    );
                }
            }
            Beginning::First(Start::Bundle(source)) => {
                let samples = task.training();
                let labels = &info.individuals;
                let taken = bundle_weights::start_from(source, &network, recipe, labels, &*samples);
                let bundle = source.bundle.display();
                let taken = taken.with_context(|| {
                    format!("{} cannot start from the bundle {bundle}", recipe.name)
                })?;
                eprintln!("{} starts from {bundle}: {taken}", recipe.name);
            }
            Beginning::First(Start::Grown(run)) => {
                let samples = task.training();
                let (device, labels) = (execution.device, &info.individuals);
                network = crate::net2net::grow_run(run, recipe, labels, device, &*samples)?;
            }
        }
        let average = (recipe.schedule.weight_average > 0.0).then(|| {
            let average = Network::new(graph, execution.device);
            copy_parameters(&network, &average, 0.0);
            average
        });
        let optimiser = AdamW::new(&network, recipe.schedule.weight_decay)
            .with_factor(LOCALISATION, recipe.schedule.localisation_rate);
        let mut run = Self {
            recipe,
            folder,
            network,
            average,
            best: BTreeMap::new(),
            optimiser,
            losses: Losses::default(),
            position: Position {
                step: 0,
                best_loss: None,
                rows: Vec::new(),
                loss_sum: 0.0,
                info,
            },
        };
        match beginning {
            Beginning::Resumed(resumed) => {
                let (position, tensors) = *resumed;
                run.position = position;
                run.restore(&tensors)
                    .with_context(|| format!("the checkpoint in {}", folder.display()))?;
            }
            Beginning::First(_) => {
                let text = toml::to_string(recipe).context("writing the recipe")?;
                write(&folder.join(RECIPE), text.as_bytes())?;
            }
        }
        // A process that was killed may have left files of later steps.
        run.write_best()?;
        run.write_metrics()?;
        Ok(run)
    }

    /// The network that is measured and kept.
    fn evaluated(&self) -> &Network {
        self.average.as_ref().unwrap_or(&self.network)
    }

    fn step(
        &mut self,
        task: &dyn Task,
        samples: &dyn Samples,
        batch: &Batch,
        steps: u64,
        execution: &Execution,
    ) -> anyhow::Result<()> {
        let schedule = &self.recipe.schedule;
        let (mut input, target) = to_tensors(self.recipe, samples, batch, execution.device);
        // Dropout and mixup draw from libtorch's generator; seeded by the step, they do not depend on
        // what ran before.
        tch::manual_seed((self.recipe.seed << 32 ^ (self.position.step + 1)) as i64);
        let blend = (schedule.mixup > 0.0).then(|| {
            let share = Tensor::rand([1], (Kind::Float, Device::Cpu)).double_value(&[0]);
            let order = Tensor::randperm(batch.size as i64, (Kind::Int64, execution.device));
            (share * schedule.mixup * 0.5, order)
        });
        if let Some((share, order)) = &blend {
            input = &input * (1.0 - share) + input.index_select(0, order) * *share;
        }
        let outputs = self
            .network
            .forward(&input, Mode::Train, execution.precision);
        let mut loss = task.loss(&outputs, &target);
        if let Some((share, order)) = &blend {
            let other = task.loss(&outputs, &target.index_select(0, order));
            loss = loss * (1.0 - share) + other * *share;
        }
        loss.backward();
        let rate = one_cycle(
            self.position.step,
            steps,
            schedule.learning_rate,
            schedule.warm_up,
        );
        self.position.step += 1;
        self.optimiser.step(&self.network, rate, self.position.step);
        if let Some(average) = &self.average {
            // Early on the average must forget the random start.
            let step = self.position.step as f64;
            let keep = schedule.weight_average.min((1.0 + step) / (10.0 + step));
            copy_parameters(&self.network, average, keep);
        }
        if self.losses.push(&loss) {
            self.read_losses()?;
        }
        Ok(())
    }

    /// Adds up the losses of the last steps, as must be done before anything of a run is measured or written.
    ///
    /// # Errors
    /// One is no finite number.
    fn read_losses(&mut self) -> anyhow::Result<()> {
        let losses = self.losses.read()?;
        let first = self.position.step + 1 - losses.len() as u64;
        for (step, value) in (first..).zip(losses) {
            ensure!(
                value.is_finite(),
                "the loss became {value} in step {step}: lower schedule.learning_rate, and start again in \
                 another folder"
            );
            self.position.loss_sum += value;
        }
        Ok(())
    }

    fn finish_epoch(
        &mut self,
        task: &dyn Task,
        steps_in_epoch: u64,
        steps: u64,
        clock: &EpochClock,
        execution: &Execution,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        self.read_losses()?;
        let seconds = clock.started.elapsed().as_secs_f64();
        let epoch = self.position.step / steps_in_epoch;
        let schedule = &self.recipe.schedule;
        let mut row = BTreeMap::from([("epoch".to_owned(), epoch as f64)]);
        if let Some(step) = self.position.step.checked_sub(1) {
            let rate = one_cycle(step, steps, schedule.learning_rate, schedule.warm_up);
            row.extend(
                [
                    ("learning_rate", rate),
                    (
                        "training_loss",
                        self.position.loss_sum / steps_in_epoch as f64,
                    ),
                    ("images_per_second", clock.images as f64 / seconds),
                    ("input_wait", clock.waited.as_secs_f64() / seconds),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        self.position.loss_sum = 0.0;
        let last = u64::from(schedule.epochs);
        let due = epoch == last || epoch.is_multiple_of(measure_every(last));
        let mut first_loss = None;
        if due {
            for (set, samples) in task.measured() {
                if samples.is_empty() {
                    continue;
                }
                let metrics = measure(self.evaluated(), task, &samples, self.recipe, execution)?;
                for (name, value) in metrics {
                    ensure!(
                        name != "loss" || value.is_finite(),
                        "the loss on the set {set} became {value} in epoch {epoch}: lower \
                         schedule.learning_rate, and start again in another folder"
                    );
                    if name == "loss" && first_loss.is_none() {
                        first_loss = Some(value);
                    }
                    // A share of nothing is no number, and has no place in a table.
                    if value.is_finite() {
                        row.insert(format!("{set}_{name}"), value);
                    }
                }
            }
        }
        bar.set_message(describe(&row));
        if bar.is_hidden() {
            eprintln!(
                "{}: epoch {epoch}/{last}: {}",
                self.recipe.name,
                describe(&row)
            );
        }
        self.position.info.epochs_completed = epoch as u32;
        self.position.rows.push(row);
        if let Some(loss) = first_loss
            && self.position.best_loss.is_none_or(|best| loss < best)
        {
            self.refuse_not_finite()?;
            self.position.best_loss = Some(loss);
            self.keep()?;
        }
        self.write_metrics()
    }

    /// Keeps the weights after the last epoch as the best, with their metrics.
    fn keep(&mut self) -> anyhow::Result<()> {
        let parameters = self.evaluated().parameters().iter();
        self.best = parameters
            .map(|(name, t)| (name.clone(), t.detach().copy()))
            .collect();
        let info = &mut self.position.info;
        info.best_epoch = Some(info.epochs_completed);
        info.metrics = self.position.rows.last().cloned().unwrap_or_default();
        self.write_best()
    }

    /// Keeps the last weights where there was nothing to measure any on.
    fn keep_last_where_none_is_best(&mut self) -> anyhow::Result<()> {
        if !self.best.is_empty() {
            return Ok(());
        }
        self.keep()?;
        self.write_metrics()
    }

    /// Writes the best weights, or removes those of a run before this one.
    fn write_best(&self) -> anyhow::Result<()> {
        let path = self.folder.join(BEST);
        if self.best.is_empty() {
            return remove_if_there(&path);
        }
        Ok(save_tensors(&self.best, &path)?)
    }

    /// Writes tables and curves, or removes those of a run before this one.
    fn write_metrics(&self) -> anyhow::Result<()> {
        let rows = &self.position.rows;
        if rows.is_empty() {
            let files = [METRICS, CURVES, RUN_INFO];
            return files
                .iter()
                .try_for_each(|file| remove_if_there(&self.folder.join(file)));
        }
        let mut columns: Vec<&String> = rows.iter().flat_map(|r| r.keys()).collect();
        columns.sort();
        columns.dedup();
        columns.sort_by_key(|c| c.as_str() != "epoch");
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&columns)?;
        for row in rows {
            let value = |c: &&String| row.get(*c).map(f64::to_string).unwrap_or_default();
            writer.write_record(columns.iter().map(value))?;
        }
        let table = writer.into_inner().context("writing metrics")?;
        let path = self.folder.join(METRICS);
        write(&path, &table)?;
        crate::curves::draw(&path, &self.folder.join(CURVES))?;
        let info = serde_json::to_vec_pretty(&self.position.info)?;
        write(&self.folder.join(RUN_INFO), &info)
    }

    /// Refuses weights that are no numbers: a gradient can be none while the loss still is one.
    fn refuse_not_finite(&self) -> anyhow::Result<()> {
        for network in [Some(&self.network), self.average.as_ref()]
            .into_iter()
            .flatten()
        {
            for (name, t) in network.parameters() {
                ensure!(
                    tensor_is_finite(t),
                    "parameter {name} became no finite number by step {}: lower schedule.learning_rate, \
                     and start again in another folder",
                    self.position.step
                );
            }
        }
        Ok(())
    }

    fn write_checkpoint(&mut self, checkpoints: &mut Checkpoints) -> anyhow::Result<()> {
        self.read_losses()?;
        self.refuse_not_finite()?;
        let mut tensors = self.optimiser.state();
        let mut add = |prefix: &str, parameters: &BTreeMap<String, Tensor>| {
            for (name, t) in parameters {
                tensors.insert(format!("{prefix}.{name}"), t.shallow_clone());
            }
        };
        add("network", self.network.parameters());
        if let Some(average) = &self.average {
            add("average", average.parameters());
        }
        add("best", &self.best);
        checkpoints.write(self.position.step, tensors, &self.position)
    }

    /// Takes over the tensors that [`write_checkpoint`](Self::write_checkpoint) wrote.
    fn restore(&mut self, tensors: &BTreeMap<String, Tensor>) -> anyhow::Result<()> {
        let restore = |prefix: &str, network: &Network| -> anyhow::Result<()> {
            for (name, t) in network.parameters() {
                let saved = tensors
                    .get(&format!("{prefix}.{name}"))
                    .filter(|saved| saved.size() == t.size())
                    .with_context(|| format!("no good {prefix}.{name}"))?;
                tch::no_grad(|| t.shallow_clone().copy_(saved));
            }
            Ok(())
        };
        restore("network", &self.network)?;
        if let Some(average) = &self.average {
            restore("average", average)?;
        }
        let best = tensors.iter().filter_map(|(name, t)| {
            let name = name.strip_prefix("best.")?;
            Some((name.to_owned(), t.shallow_clone()))
        });
        self.best = best.collect();
        self.optimiser
            .restore(tensors)
            .map_err(|name| anyhow!("no good {name}"))
    }
}

/// Epochs between measurements, which cost time: about 30 measurements in a run.
fn measure_every(epochs: u64) -> u64 {
    epochs.div_ceil(30)
}

fn describe(row: &BTreeMap<String, f64>) -> String {
    let hidden = ["epoch", "learning_rate"];
    let shown = row.iter().filter(|(k, _)| !hidden.contains(&k.as_str()));
    let parts: Vec<String> = shown.map(|(k, v)| format!("{k} {v:.3}")).collect();
    parts.join(", ")
}

/// `to = keep · to + (1 − keep) · from` for all parameters and running statistics.
fn copy_parameters(from: &Network, to: &Network, keep: f64) {
    tch::no_grad(|| {
        for (name, t) in to.parameters() {
            let mut t = t.shallow_clone();
            let _ = t
                .g_mul_scalar_(keep)
                .g_add_(&(from.parameter(name) * (1.0 - keep)));
        }
    });
}

/// Input and target of a batch on `device`.
pub(crate) fn to_tensors(
    recipe: &Recipe,
    samples: &dyn Samples,
    batch: &Batch,
    device: Device,
) -> (Tensor, Tensor) {
    let n = batch.size as i64;
    let (h, w) = (
        i64::from(recipe.input.height),
        i64::from(recipe.input.width),
    );
    let input = Tensor::from_slice(&batch.input).view([n, 3, h, w]);
    let target = Tensor::from_slice(&batch.target).view([n, samples.target_len() as i64]);
    (input.to_device(device), target.to_device(device))
}

/// Means of a task's metrics over a set, with dropout off.
fn measure(
    network: &Network,
    task: &dyn Task,
    samples: &Arc<dyn Samples>,
    recipe: &Recipe,
    execution: &Execution,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let mut sums: Vec<(&'static str, f64)> = Vec::new();
    let size = recipe.schedule.batch.min(samples.len());
    for first in (0..samples.len()).step_by(size) {
        let items: Vec<usize> = (first..(first + size).min(samples.len())).collect();
        let batch = crate::loader::measured_batch(&**samples, recipe.seed, &items)?;
        let (input, target) = to_tensors(recipe, &**samples, &batch, execution.device);
        let metrics = tch::no_grad(|| {
            let outputs = network.forward(&input, Mode::Evaluate, execution.precision);
            task.metrics(&outputs, &target)
        });
        if sums.is_empty() {
            sums = metrics;
        } else {
            for (sum, (_, value)) in sums.iter_mut().zip(metrics) {
                sum.1 += value;
            }
        }
    }
    for (_, sum) in &mut sums {
        *sum /= samples.len() as f64;
    }
    Ok(sums)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_whole(path, bytes).with_context(|| {
        format!(
            "writing {}; is there space left on its disk?",
            path.display()
        )
    })
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_some_at_a_time_and_none_is_left_out() {
        let mut losses = Losses::default();
        let mut read = Vec::new();
        let mut readings = 0;
        let steps = 2 * READ_EVERY + 3;
        for step in 0..steps {
            if losses.push(&Tensor::from(step as f32)) {
                read.extend(losses.read().expect("numbers"));
                readings += 1;
            }
        }
        assert_eq!(readings, 2);
        read.extend(losses.read().expect("numbers"));
        assert_eq!(read, (0..steps).map(|step| step as f64).collect::<Vec<_>>());
        assert_eq!(losses.last, Some(steps as f64 - 1.0));
        assert!(losses.read().expect("none").is_empty());
    }
}
