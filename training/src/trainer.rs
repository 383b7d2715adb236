//! The training loop and the run folder.
//!
//! A run folder holds `recipe.toml`, `run.json` ([`RunInfo`]), `metrics.csv`, `learning_curves.svg`,
//! `best.safetensors`, `last.safetensors`, and while it is unfinished `checkpoint.safetensors` with
//! `checkpoint.json`. Random numbers follow from the recipe's seed and the step's number alone, so a run
//! that was interrupted goes on as if it had not been.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::graph::LOCALISATION;
use crate::loader::{Batch, Loader, Samples};
use crate::network::{Mode, Network, Precision, load_tensors, save_tensors, tensor_is_finite};
use crate::optimiser::{AdamW, one_cycle};
use crate::recipe::Recipe;
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
    /// Trainable parameters.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Epochs completed.
    pub epochs_completed: u32,
    /// Metrics after the last epoch, by column of `metrics.csv`.
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
}

const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// A network in training, with everything that a checkpoint keeps.
struct Run<'a> {
    recipe: &'a Recipe,
    folder: &'a Path,
    network: Network,
    average: Option<Network>,
    optimiser: AdamW,
    position: Position,
    info: RunInfo,
}

/// Trains `recipe` on `task` into `folder`.
///
/// # Errors
/// Where the folder holds another run, a file cannot be written, or the loss is no finite number (the
/// last good checkpoint stays).
pub fn train(
    recipe: &Recipe,
    task: &dyn Task,
    info: RunInfo,
    folder: &Path,
    execution: &Execution,
) -> anyhow::Result<Ending> {
    let samples = task.training();
    let steps_in_epoch = (samples.len() / recipe.schedule.batch) as u64;
    if steps_in_epoch == 0 {
        bail!(
            "{} training samples do not fill one batch of {}; take a smaller schedule.batch in {}",
            samples.len(),
            recipe.schedule.batch,
            recipe.name
        );
    }
    let mut run = Run::start(recipe, task, info, folder, execution)?;
    let steps = steps_in_epoch * u64::from(recipe.schedule.epochs);
    let first = run.position.step;
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
        epoch_clock.waited += asked.elapsed();
        epoch_clock.images += batch.size;
        let loss = run.step(task, &*samples, &batch, steps, execution)?;
        bar.inc(batch.size as u64);
        if run.position.step % steps_in_epoch == 0 {
            run.finish_epoch(task, steps_in_epoch, steps, &epoch_clock, execution, &bar)?;
            epoch_clock = EpochClock::start();
        } else {
            bar.set_message(format!("loss {loss:.3}"));
        }
        let stop = execution.interrupted.load(Ordering::Relaxed);
        if run.position.step < steps && (stop || checkpointed.elapsed() > CHECKPOINT_EVERY) {
            run.write_checkpoint()?;
            checkpointed = Instant::now();
        }
        if stop && run.position.step < steps {
            bar.abandon_with_message("interrupted; go on with --resume");
            return Ok(Ending::Interrupted);
        }
    }
    if run.position.step < steps {
        bail!("a worker that prepares batches failed; its message stands above");
    }
    run.evaluated().save(&folder.join("last.safetensors"))?;
    for file in [CHECKPOINT, POSITION] {
        let path = folder.join(file);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    bar.finish();
    Ok(Ending::Completed)
}

const RUN_INFO: &str = "run.json";
const CHECKPOINT: &str = "checkpoint.safetensors";
const POSITION: &str = "checkpoint.json";

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
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating run folder {}", folder.display()))?;
        tch::manual_seed(recipe.seed as i64);
        let graph = recipe.graph(info.individuals.len())?;
        let mut network = Network::new(graph.clone(), execution.device);
        match &info.initialised_from {
            Some(weights) => network.load(weights)?,
            None => task.initialise(&network),
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
            optimiser,
            position: Position {
                step: 0,
                best_loss: None,
                rows: Vec::new(),
                loss_sum: 0.0,
            },
            info,
        };
        let checkpoint = folder.join(POSITION);
        match (checkpoint.exists(), execution.resume) {
            (true, true) => run.read_checkpoint()?,
            (true, false) => bail!(
                "{} holds an unfinished run; go on with --resume, or remove the folder",
                folder.display()
            ),
            (false, _) if folder.join("last.safetensors").exists() => bail!(
                "{} holds a finished run; take another --out, or remove the folder",
                folder.display()
            ),
            (false, _) => {
                let text = toml::to_string(recipe).context("writing the recipe")?;
                write_whole(&folder.join("recipe.toml"), text.as_bytes())?;
            }
        }
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
    ) -> anyhow::Result<f64> {
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
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            bail!(
                "the loss became {value} in step {} of {}; the last checkpoint in {} is good: lower \
                 schedule.learning_rate and start again",
                self.position.step + 1,
                self.recipe.name,
                self.folder.display()
            );
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
        self.position.loss_sum += value;
        Ok(value)
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
        let seconds = clock.started.elapsed().as_secs_f64();
        let epoch = self.position.step / steps_in_epoch;
        let schedule = &self.recipe.schedule;
        let rate = one_cycle(
            self.position.step - 1,
            steps,
            schedule.learning_rate,
            schedule.warm_up,
        );
        let mut row = BTreeMap::from([
            ("epoch".to_owned(), epoch as f64),
            ("learning_rate".to_owned(), rate),
            (
                "training_loss".to_owned(),
                self.position.loss_sum / steps_in_epoch as f64,
            ),
            (
                "images_per_second".to_owned(),
                clock.images as f64 / seconds,
            ),
            (
                "input_wait".to_owned(),
                clock.waited.as_secs_f64() / seconds,
            ),
        ]);
        self.position.loss_sum = 0.0;
        let last = u64::from(schedule.epochs);
        let due = epoch == last || epoch.is_multiple_of(measure_every(last));
        let mut first_loss = None;
        if due {
            for (set, samples) in task.measured() {
                if samples.is_empty() {
                    continue;
                }
                let metrics = measure(self.evaluated(), task, &samples, self.recipe, execution);
                for (name, value) in metrics {
                    if name == "loss" && first_loss.is_none() {
                        first_loss = Some(value);
                    }
                    row.insert(format!("{set}_{name}"), value);
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
        self.info.epochs_completed = epoch as u32;
        self.info.metrics.extend(row.clone());
        self.position.rows.push(row);
        if let Some(loss) = first_loss
            && self.position.best_loss.is_none_or(|best| loss < best)
        {
            self.position.best_loss = Some(loss);
            self.evaluated()
                .save(&self.folder.join("best.safetensors"))?;
        }
        self.write_metrics()
    }

    fn write_metrics(&self) -> anyhow::Result<()> {
        let rows = &self.position.rows;
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
        let path = self.folder.join("metrics.csv");
        write_whole(&path, &table)?;
        crate::curves::draw(&path, &self.folder.join("learning_curves.svg"))?;
        let info = serde_json::to_vec_pretty(&self.info)?;
        write_whole(&self.folder.join(RUN_INFO), &info)
    }

    fn write_checkpoint(&self) -> anyhow::Result<()> {
        let mut tensors = self.optimiser.state();
        let mut add = |prefix: &str, network: &Network| {
            for (name, t) in network.parameters() {
                tensors.insert(format!("{prefix}.{name}"), t.shallow_clone());
            }
        };
        add("network", &self.network);
        if let Some(average) = &self.average {
            add("average", average);
        }
        let step = Tensor::from_slice(&[self.position.step as i64]);
        tensors.insert("step".to_owned(), step);
        save_tensors(&tensors, &self.folder.join(CHECKPOINT))?;
        let position = serde_json::to_vec(&self.position)?;
        write_whole(&self.folder.join(POSITION), &position)
    }

    fn read_checkpoint(&mut self) -> anyhow::Result<()> {
        let path = self.folder.join(POSITION);
        let mut written = Recipe::load(&self.folder.join("recipe.toml"))?;
        written.about.clone_from(&self.recipe.about);
        if written != *self.recipe {
            bail!(
                "{} was started with another recipe; its own stands in recipe.toml there",
                self.folder.display()
            );
        }
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        self.position = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no checkpoint", path.display()))?;
        let path = self.folder.join(CHECKPOINT);
        let tensors = load_tensors(&path)?;
        let step = tensors.get("step").map(|t| t.int64_value(&[0]) as u64);
        if step != Some(self.position.step) {
            bail!(
                "{} is of step {step:?}, {POSITION} of step {}: the two do not belong together; \
                 remove the folder and start again",
                path.display(),
                self.position.step
            );
        }
        let restore = |prefix: &str, network: &Network| -> anyhow::Result<()> {
            for (name, t) in network.parameters() {
                let saved = tensors
                    .get(&format!("{prefix}.{name}"))
                    .filter(|saved| saved.size() == t.size() && tensor_is_finite(saved))
                    .with_context(|| format!("{}: no good {prefix}.{name}", path.display()))?;
                tch::no_grad(|| t.shallow_clone().copy_(saved));
            }
            Ok(())
        };
        restore("network", &self.network)?;
        if let Some(average) = &self.average {
            restore("average", average)?;
        }
        self.optimiser
            .restore(&tensors)
            .map_err(|name| anyhow::anyhow!("{}: no good {name}", path.display()))
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

fn to_tensors(
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
) -> Vec<(&'static str, f64)> {
    let mut sums: Vec<(&'static str, f64)> = Vec::new();
    let size = recipe.schedule.batch.min(samples.len());
    for first in (0..samples.len()).step_by(size) {
        let items: Vec<usize> = (first..(first + size).min(samples.len())).collect();
        let batch = crate::loader::measured_batch(&**samples, recipe.seed, &items);
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
    sums
}

/// Writes a file whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial: PathBuf = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("writing {}", path.display()))
}
