//! Runs that stop, are killed or fail: what goes on from a checkpoint ends as if nothing had happened. And runs
//! that start from another.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callosity_training::checkpoint::Checkpoints;
use callosity_training::loader::Samples;
use callosity_training::network::{Outputs, Precision, load_tensors};
use callosity_training::recipe::Recipe;
use callosity_training::tasks::{Sums, Task};
use callosity_training::trainer::{Ending, Execution, RunInfo, Start, train};
use image::RgbImage;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// With everything that draws at random or carries state from step to step.
const RECIPE: &str = r#"
name = "tiny"
task = "classifier"
seed = 5

[input]
width = 16
height = 8

[network]
leak = 0.1
layers = [
  { op = "conv", channels = 6, stride = 2 },
  { op = "residual", channels = 8, stride = 2 },
  { op = "global_average_pool" },
  { op = "batch_norm" },
  { op = "dropout", p = 0.3 },
  { op = "linear" },
]

[augmentation]

[schedule]
epochs = 4
batch = 4
learning_rate = 1e-2
weight_decay = 0.05
mixup = 0.5
weight_average = 0.9
"#;

const CLASSES: usize = 3;
/// Steps in an epoch of the 30 samples.
const STEPS: usize = 7;

/// Noise around a level that says the class.
#[derive(Default)]
struct Levels {
    /// Samples that are written before the next one panics; 0 for no such fault.
    good: usize,
    written: AtomicUsize,
}

impl Samples for Levels {
    fn len(&self) -> usize {
        30
    }
    fn input_len(&self) -> usize {
        3 * 16 * 8
    }
    fn target_len(&self) -> usize {
        1
    }
    fn write(&self, item: usize, rng: &mut ChaCha8Rng, input: &mut [f32], target: &mut [f32]) {
        let written = self.written.fetch_add(1, Ordering::Relaxed);
        assert!(self.good == 0 || written < self.good, "a broken photograph");
        let class = item % CLASSES;
        input.fill_with(|| class as f32 + rng.random_range(-1.0..1.0));
        target[0] = class as f32;
    }
}

/// What happens in the first step after so many.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Nothing,
    Interruption,
    NanLoss,
    /// Of a loss that is a number.
    NanGradient,
    OutOfMemory,
    BrokenSample,
    /// Each measurement is worse than the one before.
    Decline,
}

struct Eventful {
    losses: Cell<usize>,
    measurements: Cell<usize>,
    at: usize,
    event: Event,
    flag: &'static AtomicBool,
}

impl Task for Eventful {
    fn training(&self) -> Arc<dyn Samples> {
        let broken = self.event == Event::BrokenSample;
        Arc::new(Levels {
            good: if broken { 4 * self.at } else { 0 },
            ..Levels::default()
        })
    }
    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        vec![("validation", Arc::new(Levels::default()))]
    }
    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        self.losses.set(self.losses.get() + 1);
        let loss = outputs
            .output
            .cross_entropy_for_logits(&target.view([-1]).to_kind(Kind::Int64));
        // Blended batches ask for the loss twice.
        if self.losses.get() <= 2 * self.at {
            return loss;
        }
        match self.event {
            Event::Nothing | Event::BrokenSample | Event::Decline => loss,
            Event::Interruption => {
                self.flag.store(true, Ordering::Relaxed);
                loss
            }
            Event::NanLoss => loss * f64::NAN,
            // The root's slope at 0 is infinite.
            Event::NanGradient => &loss + (&loss * 0.0).sqrt(),
            // More than the address space has.
            Event::OutOfMemory => loss + Tensor::zeros([1i64 << 50], (Kind::Float, Device::Cpu)),
        }
    }
    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let labels = target.view([-1]).to_kind(Kind::Int64);
        let loss = outputs
            .output
            .cross_entropy_for_logits(&labels)
            .double_value(&[]);
        let decline = if self.event == Event::Decline {
            self.measurements.set(self.measurements.get() + 1);
            self.measurements.get() as f64
        } else {
            0.0
        };
        vec![("loss", (loss + decline) * target.size()[0] as f64)]
    }
}

/// Trains into `folder` from where it stands, a checkpoint after each step; the event comes after `at` steps.
fn go_on(folder: &Path, at: usize, event: Event) -> anyhow::Result<Ending> {
    let recipe: Recipe = toml::from_str(RECIPE).expect("a recipe");
    carry_out(&recipe, &Start::Random, folder, (at, event), Duration::ZERO).0
}

/// As [`go_on`], of another recipe, from a start and with a time between checkpoints. How often a loss was asked for
/// is the second of the result.
fn carry_out(
    recipe: &Recipe,
    start: &Start,
    folder: &Path,
    (at, event): (usize, Event),
    checkpoint_every: Duration,
) -> (anyhow::Result<Ending>, usize) {
    let flag: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let task = Eventful {
        losses: Cell::new(0),
        measurements: Cell::new(0),
        at,
        event,
        flag,
    };
    let info = RunInfo {
        data_digest: String::new(),
        split_digest: String::new(),
        held_out_fold: 0,
        frames_trained_on: vec![],
        initialised_from: None,
        pseudo_labels: None,
        inputs: BTreeMap::new(),
        best_epoch: None,
        individuals: vec!["a".into(), "b".into(), "c".into()],
        parameters: 0,
        multiply_adds: 0,
        epochs_completed: 0,
        metrics: BTreeMap::new(),
    };
    let execution = Execution {
        device: Device::Cpu,
        precision: Precision::Float32,
        workers: 2,
        resume: true,
        checkpoint_every,
        interrupted: flag,
    };
    // libtorch has one generator for all threads of a process: runs side by side would take each other's
    // random numbers.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Two threads add up gradients in an order of their own on some processors (seen on an EPYC without
    // AVX-512): then no two runs are alike to the last bit, stopped or not.
    tch::set_num_threads(1);
    let ending = train(recipe, &task, start, info, folder, &execution);
    (ending, task.losses.get())
}

fn to_the_end(folder: &Path) {
    let ending = go_on(folder, 0, Event::Nothing).expect("it trains");
    assert_eq!(ending, Ending::Completed);
}

fn stop_after(folder: &Path, steps: usize) {
    let ending = go_on(folder, steps, Event::Interruption).expect("it trains");
    assert_eq!(ending, Ending::Interrupted);
}

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    Checkpoints::of(folder).list().expect("a folder")
}

/// `a` went through, `b` did not.
fn same_run(a: &Path, b: &Path) {
    for file in ["last.safetensors", "best.safetensors"] {
        same_weights(a, b, file);
    }
    assert_eq!(losses(a), losses(b));
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b), "nothing is left behind");
}

fn same_weights(a: &Path, b: &Path, file: &str) {
    let read = |folder: &Path| load_tensors(&folder.join(file)).expect("weights");
    let (a, b) = (read(a), read(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, tensor) in &a {
        assert!(tensor.equal(&b[name]), "{file}: {name} differs");
    }
}

/// The columns of `metrics.csv` that do not speak of time, row by row.
fn losses(folder: &Path) -> Vec<BTreeMap<String, f64>> {
    let mut reader = csv::Reader::from_path(folder.join("metrics.csv")).expect("metrics");
    let rows = reader.deserialize::<BTreeMap<String, Option<f64>>>();
    rows.map(|row| {
        let cells = row.expect("a row").into_iter();
        let kept =
            cells.filter(|(c, _)| !["images_per_second", "input_wait"].contains(&c.as_str()));
        kept.filter_map(|(c, value)| Some((c, value?))).collect()
    })
    .collect()
}

#[test]
fn a_resumed_run_ends_bit_for_bit_as_one_without_a_stop() {
    let through = tempfile::tempdir().expect("a folder");
    to_the_end(through.path());
    // Within an epoch, and at its end.
    for stops in [vec![1, 9], vec![STEPS - 1]] {
        let stopped = tempfile::tempdir().expect("a folder");
        for &at in &stops {
            stop_after(stopped.path(), at);
            assert!(!checkpoints(stopped.path()).is_empty());
            assert!(!stopped.path().join("last.safetensors").exists());
        }
        to_the_end(stopped.path());
        same_run(through.path(), stopped.path());
    }
    // It must have learnt, or equal weights say little.
    let last = losses(through.path()).pop().expect("four epochs");
    let loss = last["validation_loss"];
    assert!(loss < 0.9 * (CLASSES as f64).ln(), "{last:?}");
}

#[test]
fn a_damaged_checkpoint_is_noticed_and_the_one_before_it_used() {
    let through = tempfile::tempdir().expect("a folder");
    to_the_end(through.path());
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("emptied", |bytes| bytes.clear()),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a byte short", |bytes| bytes.truncate(bytes.len() - 1)),
        ("a bit flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        stop_after(folder, STEPS + 2);
        let both = checkpoints(folder);
        assert_eq!(both.len(), 2, "{what}");
        let mut bytes = std::fs::read(&both[0]).expect("a checkpoint");
        damage(&mut bytes);
        std::fs::write(&both[0], bytes).expect("written");
        // Of a time that the checkpoint before does not know.
        std::fs::write(folder.join("best.safetensors"), "later weights").expect("written");
        std::fs::write(folder.join("half.partial"), "").expect("written");
        to_the_end(folder);
        same_run(through.path(), folder);
    }
    // Where there is none, nothing is guessed.
    let folder = tempfile::tempdir().expect("a folder");
    stop_after(folder.path(), 3);
    for path in checkpoints(folder.path()) {
        std::fs::write(path, "").expect("emptied");
    }
    let error = go_on(folder.path(), 0, Event::Nothing).expect_err("both are empty");
    assert!(error.to_string().contains("start again"), "{error:#}");
}

#[test]
fn a_failure_leaves_its_reason_and_a_good_checkpoint() {
    let through = tempfile::tempdir().expect("a folder");
    to_the_end(through.path());
    let events = [
        (Event::NanLoss, "the loss became NaN"),
        (Event::NanGradient, "became no finite number"),
        (Event::OutOfMemory, "out of memory"),
        (Event::BrokenSample, "a broken photograph"),
    ];
    for (event, words) in events {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        stop_after(folder, 3);
        let error = go_on(folder, STEPS, event).expect_err("it fails");
        assert!(format!("{error:#}").contains(words), "{event:?}: {error:#}");
        let reason = std::fs::read_to_string(folder.join("failure.txt")).expect("a reason");
        let good = checkpoints(folder).remove(0);
        for words in [words, "tiny failed after step", &good.display().to_string()] {
            assert!(reason.contains(words), "{event:?}: {reason}");
        }
        assert!(!reason.contains("frame #"), "no call stack: {reason}");
        assert!(!folder.join("running.txt").exists());
        assert!(!folder.join("last.safetensors").exists());
        if event != Event::BrokenSample {
            let name = good.file_name().expect("a name").to_string_lossy();
            let last_good = format!("checkpoint-{:08}-", 4 + STEPS);
            assert!(name.starts_with(&last_good), "{event:?}: {name}");
        }
        to_the_end(folder);
        same_run(through.path(), folder);
    }
}

/// Losses are read some steps at a time; one that is no number is found before anything is measured or written.
#[test]
fn a_loss_that_is_no_number_is_in_no_checkpoint_whenever_losses_are_read() {
    let recipe: Recipe = toml::from_str(RECIPE).expect("a recipe");
    for at in [1, STEPS - 1, STEPS] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let hour = Duration::from_secs(3600);
        let event = (at, Event::NanLoss);
        let (ending, losses) = carry_out(&recipe, &Start::Random, folder, event, hour);
        let error = ending.expect_err("it fails").to_string();
        let words = format!("the loss became NaN in step {}:", at + 1);
        assert!(error.contains(&words), "{error}");
        // Of the steps to the end of the epoch at most.
        assert!(losses <= 2 * STEPS * (at + 1).div_ceil(STEPS), "{losses}");
        assert!(checkpoints(folder).is_empty());
        for (name, before) in [
            ("best.safetensors", at >= STEPS),
            ("last.safetensors", false),
        ] {
            assert_eq!(
                folder.join(name).exists(),
                before,
                "{name} after {at} steps"
            );
        }
    }
}

/// What is documented of `schedule.mixup`: it is no share of batches.
#[test]
fn mixup_blends_every_batch() {
    for (mixup, each) in [("0.01", 2), ("0.0", 1)] {
        let text = RECIPE.replace("mixup = 0.5", &format!("mixup = {mixup}"));
        let recipe: Recipe = toml::from_str(&text).expect("a recipe");
        let folder = tempfile::tempdir().expect("a folder");
        let event = (0, Event::Nothing);
        let hour = Duration::from_secs(3600);
        let (ending, losses) = carry_out(&recipe, &Start::Random, folder.path(), event, hour);
        assert_eq!(ending.expect("it trains"), Ending::Completed);
        // A blended batch has two losses.
        assert_eq!(losses, each * 4 * STEPS, "{mixup}");
    }
}

#[test]
fn the_metrics_of_a_run_are_of_the_weights_that_are_taken() {
    let before = tempfile::tempdir().expect("a folder");
    let before = before.path();
    let recipe: Recipe = toml::from_str(RECIPE).expect("a recipe");
    let event = (0, Event::Decline);
    let hour = Duration::from_secs(3600);
    let (ending, _) = carry_out(&recipe, &Start::Random, before, event, hour);
    assert_eq!(ending.expect("it trains"), Ending::Completed);
    let info = RunInfo::load(before).expect("a record");
    assert_eq!((info.best_epoch, info.epochs_completed), (Some(1), 4));
    let rows = losses(before);
    for column in ["epoch", "training_loss", "validation_loss"] {
        assert_eq!(info.metrics[column], rows[0][column], "{column}");
        assert_ne!(info.metrics[column], rows[3][column], "{column}");
    }

    // A run that starts from it starts from the same weights; so slow, they stay.
    let text = RECIPE
        .replace("learning_rate = 1e-2", "learning_rate = 1e-12")
        .replace("weight_average = 0.9", "");
    let still: Recipe = toml::from_str(&text).expect("a recipe");
    let starts: [fn(PathBuf) -> Start; 2] = [Start::Run, Start::Grown];
    for start in starts {
        let folder = tempfile::tempdir().expect("a folder");
        let start = start(before.to_owned());
        let (ending, _) = carry_out(&still, &start, folder.path(), (0, Event::Nothing), hour);
        assert_eq!(ending.expect("it trains"), Ending::Completed);
        let read = |folder: &Path, file: &str| {
            load_tensors(&folder.join(file)).expect("weights")["l6_linear.weight"].copy()
        };
        let taken = read(folder.path(), "last.safetensors");
        let from = |file: &str| (&taken - read(before, file)).abs().max().double_value(&[]);
        let (best, last) = (from("best.safetensors"), from("last.safetensors"));
        assert!(best < 1e-5 && last > 1e-3, "{start:?}: {best} {last}");
        let info = RunInfo::load(folder.path()).expect("a record");
        assert_eq!(info.initialised_from, Some(before.join("best.safetensors")));
    }
}

/// A folder of small head photographs that differ by whale.
fn write_heads(folder: &Path) {
    std::fs::create_dir_all(folder.join("heads")).expect("made");
    let mut labels = String::from("image,whale\n");
    for i in 0..48u32 {
        let whale = i % 4;
        // Stripes of another width for each whale, at another place in each photograph.
        let picture = RgbImage::from_fn(32, 32, |x, y| {
            let stripe = ((x * (whale + 1) + i * 5) / 8) % 2 * 120 + (y * 7 + i * 31) % 90;
            image::Rgb([stripe as u8, (stripe + 20) as u8, (i * 4) as u8])
        });
        let name = format!("h_{i}.png");
        picture
            .save(folder.join("heads").join(&name))
            .expect("saved");
        labels += &format!("{name},whale_{whale}\n");
    }
    std::fs::write(folder.join("heads.csv"), labels).expect("written");
}

/// The program on a small data set and a recipe, `tiny.toml`, in a folder of its own.
#[cfg(unix)]
struct Program(tempfile::TempDir);

#[cfg(unix)]
impl Program {
    fn new(recipe: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_heads(&folder.path().join("data"));
        let program = Self(folder);
        program.write("tiny.toml", recipe);
        program.succeed(&["import", "data"]);
        program.succeed(&["split", "--unknown-whales", "0", "--folds", "4"]);
        program
    }

    fn write(&self, name: &str, recipe: &str) {
        std::fs::write(self.0.path().join(name), recipe).expect("written");
    }

    fn run_folder(&self) -> PathBuf {
        self.0.path().join("runs/tiny")
    }

    /// After `limits`, commands of a shell.
    fn limited(&self, limits: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        // More threads than idle cores would wait for each other in a spin loop.
        command.env("OMP_NUM_THREADS", "1");
        command.current_dir(self.0.path());
        let program = env!("CARGO_BIN_EXE_callosity-train");
        command.args(["-c", &format!("{limits} exec \"$@\""), "sh", program]);
        command.args(arguments);
        command
    }

    /// Exit code and what it said.
    fn finish(&self, limits: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.limited(limits, arguments).output();
        let output = output.expect("it starts");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), complaint)
    }

    fn succeed(&self, arguments: &[&str]) {
        let (code, complaint) = self.finish("", arguments);
        assert_eq!(code, Some(0), "{complaint}");
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.limited("", arguments);
        command.stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// Trains until something is in the run folder.
    fn start_until(&self, arguments: &[&str], there: impl Fn(&Path) -> bool) -> Child {
        let mut child = self.start(arguments);
        while !there(&self.run_folder()) {
            let ended = child.try_wait().expect("a child");
            assert_eq!(ended, None, "it ended too soon");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn interrupt(child: &mut Child) {
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.expect("kill").success());
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_from_which_the_program_goes_on() {
    let program = Program::new(&RECIPE.replace("epochs = 4", "epochs = 40"));
    let run = program.run_folder();
    let train = ["train", "tiny.toml", "--workers", "1"];
    let mut child = program.start_until(&train, |run| run.join("metrics.csv").exists());
    Program::interrupt(&mut child);
    assert!(!checkpoints(&run).is_empty());
    assert!(!run.join("last.safetensors").exists());

    // Not by accident over an unfinished run.
    let (code, complaint) = program.finish("", &["train", "tiny.toml"]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("--resume"), "{complaint}");

    // Not with other data.
    let other = ["train", "tiny.toml", "--resume", "--held-out-fold", "1"];
    let (code, complaint) = program.finish("", &other);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("--held-out-fold"), "{complaint}");

    program.succeed(&["train", "tiny.toml", "--resume"]);
    assert!(run.join("last.safetensors").exists());
    assert!(checkpoints(&run).is_empty());
    assert_eq!(losses(&run).len(), 40);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_one_that_is_not() {
    // Long enough that it is not over before the last of them.
    let program = Program::new(&RECIPE.replace("epochs = 4", "epochs = 150"));
    program.succeed(&["train", "tiny.toml", "--out", "through"]);
    let train = ["train", "tiny.toml", "--resume", "--checkpoint-every", "0"];
    let trace = program.run_folder().join("running.txt");
    let mut delays = Vec::new();
    for _ in 0..6 {
        // From the moment it trains, into any step of writing.
        let mut child = program.start_until(&train, |_| trace.exists());
        let delay = rand::rng().random_range(0..300);
        delays.push(delay);
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().expect("killed");
        child.wait().expect("it ends");
        // So that the next one's can be awaited.
        std::fs::remove_file(&trace).expect("the trace of a killed process");
    }
    println!("killed after {delays:?} ms");
    program.succeed(&["train", "tiny.toml", "--resume"]);
    let through = program.0.path().join("through");
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).expect("weights");
        assert!(read(&through) == read(&program.run_folder()), "{file}");
    }
    same_run(&through, &program.run_folder());
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_good_checkpoint_and_names_the_file() {
    // Wide, so that of all files only a checkpoint is larger than the limit.
    let recipe = RECIPE
        .replace("epochs = 4", "epochs = 40")
        .replace("channels = 8", "channels = 64");
    let program = Program::new(&recipe);
    program.succeed(&["train", "tiny.toml", "--out", "through"]);
    let run = program.run_folder();
    let mut child = program.start_until(&["train", "tiny.toml"], |run| {
        run.join("metrics.csv").exists()
    });
    Program::interrupt(&mut child);
    let before = checkpoints(&run);
    // In blocks of 512 bytes: writes beyond the limit fail as they do on a full disk.
    let full = "trap '' XFSZ; ulimit -f 700;";
    let train = ["train", "tiny.toml", "--resume", "--checkpoint-every", "0"];
    let (code, complaint) = program.finish(full, &train);
    assert_eq!(code, Some(1), "{complaint}");
    let reason = std::fs::read_to_string(run.join("failure.txt")).expect("a reason");
    for text in [&complaint, &reason] {
        assert!(text.contains("writing the checkpoint"), "{text}");
        assert!(text.contains("space left"), "{text}");
        assert!(text.contains("runs/tiny"), "{text}");
    }
    assert_eq!(checkpoints(&run), before);
    program.succeed(&["train", "tiny.toml", "--resume"]);
    same_run(&program.0.path().join("through"), &run);
}

#[cfg(unix)]
#[test]
fn a_recipe_that_no_memory_holds_ends_with_that_reason() {
    // Maps of 65,536 × 32,768 pixels.
    let recipe = RECIPE.replace(
        "{ op = \"global_average_pool\" }",
        "{ op = \"upsample\", factor = 16384 }, { op = \"global_average_pool\" }",
    );
    let program = Program::new(&recipe);
    // Less than those take, on a machine that promises more than it has too.
    let limit = "ulimit -v 67108864;";
    let (code, complaint) = program.finish(limit, &["train", "tiny.toml"]);
    assert_eq!(code, Some(1), "{complaint}");
    let reason = std::fs::read_to_string(program.run_folder().join("failure.txt"));
    let reason = reason.expect("a reason");
    for words in ["out of memory", "after step 0 of", "schedule.batch"] {
        assert!(reason.contains(words), "{reason}");
    }
}

#[cfg(unix)]
#[test]
fn a_network_grows_from_a_smaller_one_and_starts_as_good() {
    let program = Program::new(&RECIPE.replace("epochs = 4", "epochs = 40"));
    program.succeed(&["train", "tiny.toml"]);
    // So slow that it stays as it is.
    let larger = RECIPE
        .replace("name = \"tiny\"", "name = \"larger\"")
        .replace("channels = 6", "channels = 9, repeat = 2")
        .replace("channels = 8", "channels = 12, repeat = 2")
        .replace("epochs = 4", "epochs = 1")
        .replace("learning_rate = 1e-2", "learning_rate = 1e-9");
    program.write("larger.toml", &larger);
    program.succeed(&["train", "larger.toml", "--grow", "runs/tiny"]);
    program.succeed(&["train", "larger.toml", "--out", "runs/random"]);
    let run = program.0.path().join("runs/larger");
    let loss = |name: &str| {
        let mut rows = losses(&program.0.path().join("runs").join(name));
        rows.pop().expect("an epoch")["validation_loss"]
    };
    let (before, grown, random) = (loss("tiny"), loss("larger"), loss("random"));
    // The statistics of its normalisation moved a little.
    assert!(
        (grown - before).abs() < 0.5 * (random - before).abs(),
        "{before} {grown} {random}"
    );
    let info = RunInfo::load(&run).expect("a record");
    let from = Path::new("runs/tiny/best.safetensors");
    assert_eq!(info.initialised_from.as_deref(), Some(from));

    let smaller = larger.replace("channels = 12", "channels = 7");
    program.write("larger.toml", &smaller);
    let arguments = ["train", "larger.toml", "--grow", "runs/tiny", "--out", "no"];
    let (code, complaint) = program.finish("", &arguments);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("layer 2 (residual)"), "{complaint}");
}
