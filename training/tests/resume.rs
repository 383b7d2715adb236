//! Interrupted runs: what goes on from a checkpoint ends as if it had never stopped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callosity_training::loader::Samples;
use callosity_training::network::{Outputs, Precision, load_tensors};
use callosity_training::recipe::Recipe;
use callosity_training::tasks::{Sums, Task};
use callosity_training::trainer::{Ending, Execution, RunInfo, train};
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
struct Levels;

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
        let class = item % CLASSES;
        input.fill_with(|| class as f32 + rng.random_range(-1.0..1.0));
        target[0] = class as f32;
    }
}

/// Sets the flag of an interruption once a step of this number begins.
struct Interrupting {
    losses: Cell<usize>,
    at: usize,
    flag: &'static AtomicBool,
}

impl Task for Interrupting {
    fn training(&self) -> Arc<dyn Samples> {
        Arc::new(Levels)
    }
    fn measured(&self) -> Vec<(&'static str, Arc<dyn Samples>)> {
        vec![("validation", Arc::new(Levels))]
    }
    fn loss(&self, outputs: &Outputs, target: &Tensor) -> Tensor {
        self.losses.set(self.losses.get() + 1);
        // Blended batches ask for the loss twice.
        if self.losses.get() > 2 * self.at {
            self.flag.store(true, Ordering::Relaxed);
        }
        outputs
            .output
            .cross_entropy_for_logits(&target.view([-1]).to_kind(Kind::Int64))
    }
    fn metrics(&self, outputs: &Outputs, target: &Tensor) -> Sums {
        let labels = target.view([-1]).to_kind(Kind::Int64);
        let loss = outputs
            .output
            .cross_entropy_for_logits(&labels)
            .double_value(&[]);
        vec![("loss", loss * target.size()[0] as f64)]
    }
}

/// Trains into `folder` from where it stands, until the step `at` after that.
fn go_on(folder: &Path, at: usize) -> Ending {
    let recipe: Recipe = toml::from_str(RECIPE).expect("a recipe");
    let flag: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let task = Interrupting {
        losses: Cell::new(0),
        at,
        flag,
    };
    let info = RunInfo {
        data_digest: String::new(),
        split_digest: String::new(),
        held_out_fold: 0,
        frames_trained_on: vec![],
        initialised_from: None,
        pseudo_labels: None,
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
        interrupted: flag,
    };
    train(&recipe, &task, info, folder, &execution).expect("it trains")
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
    assert_eq!(go_on(through.path(), usize::MAX / 4), Ending::Completed);
    // Within an epoch, and at its end.
    for stops in [vec![1, 9], vec![STEPS - 1]] {
        let stopped = tempfile::tempdir().expect("a folder");
        for &at in &stops {
            assert_eq!(go_on(stopped.path(), at), Ending::Interrupted);
            assert!(stopped.path().join("checkpoint.safetensors").exists());
            assert!(!stopped.path().join("last.safetensors").exists());
        }
        assert_eq!(go_on(stopped.path(), usize::MAX / 4), Ending::Completed);
        assert!(!stopped.path().join("checkpoint.safetensors").exists());
        for file in ["last.safetensors", "best.safetensors"] {
            same_weights(through.path(), stopped.path(), file);
        }
        // Rows before the stop went through the checkpoint's JSON, which may cost their last bit; the
        // weights do not.
        let (a, b) = (losses(through.path()), losses(stopped.path()));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert!(a.keys().eq(b.keys()), "{a:?} {b:?}");
            for (name, value) in a {
                let difference = (value - b[name]).abs();
                assert!(difference <= 1e-14 * value.abs(), "{name}: {a:?} {b:?}");
            }
        }
    }
    // It must have learnt, or equal weights say little.
    let last = losses(through.path()).pop().expect("four epochs");
    let loss = last["validation_loss"];
    assert!(loss < 0.9 * (CLASSES as f64).ln(), "{last:?}");
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

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_from_which_the_program_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_heads(&folder.join("data"));
    let recipe = RECIPE.replace("epochs = 4", "epochs = 40");
    std::fs::write(folder.join("tiny.toml"), recipe).expect("written");
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callosity-train"));
        // More threads than idle cores would wait for each other in a spin loop.
        command.env("OMP_NUM_THREADS", "1");
        command.current_dir(folder).args(arguments);
        command
    };
    let finish = |arguments: &[&str]| {
        let output = program(arguments).output().expect("it starts");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), complaint)
    };
    assert_eq!(finish(&["import", "data"]).0, Some(0));
    let split = ["split", "--unknown-whales", "0", "--folds", "4"];
    let (code, complaint) = finish(&split);
    assert_eq!(code, Some(0), "{complaint}");

    let mut child = program(&["train", "tiny.toml", "--workers", "1"])
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let run = folder.join("runs/tiny");
    while !run.join("metrics.csv").exists() {
        assert_eq!(
            child.try_wait().expect("a child"),
            None,
            "it ended too soon"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.expect("kill").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(run.join("checkpoint.safetensors").exists());
    assert!(!run.join("last.safetensors").exists());

    // Not by accident over an unfinished run.
    let (code, complaint) = finish(&["train", "tiny.toml"]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("--resume"), "{complaint}");

    let (code, complaint) = finish(&["train", "tiny.toml", "--resume"]);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(run.join("last.safetensors").exists());
    assert!(!run.join("checkpoint.json").exists());
    assert_eq!(losses(&run).len(), 40);
}
