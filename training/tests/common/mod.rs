//! What tests of the program share: drawn heads, a small recipe, and the program itself.

// Not every test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

pub const WHALES: u32 = 4;
pub const HEADS: u32 = 72;
pub const SIDE: u32 = 48;

/// A head photograph: stripes as wide as the whale says, a bright bonnet and a dark blowhead, and in each
/// photograph light from another side and foam elsewhere, or they would be taken for duplicates.
pub fn head(whale: u32, photograph: u32) -> RgbImage {
    let (sin, cos) = (f64::from(photograph) * 2.4).sin_cos();
    let foam = [0.618, 0.754].map(|step| (f64::from(photograph) * step).fract());
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (u, v) = (
            f64::from(x) / f64::from(SIDE),
            f64::from(y) / f64::from(SIDE),
        );
        let near = |at: f64| (u - at).hypot((v - 0.5) / 2.0) < 0.07;
        let stripes = (f64::from(whale + 1) * 9.0 * u + f64::from(photograph % 3) * 0.2).sin();
        let value = match () {
            () if near(0.8) => 250.0,
            () if near(0.3) => 0.0,
            () if (u - foam[0]).hypot(v - foam[1]) < 0.16 => 215.0,
            () => 120.0 + 45.0 * stripes + 90.0 * ((u - 0.5) * cos + (v - 0.5) * sin),
        };
        let grain = f64::from((x * 31 + y * 17 + photograph * 7) % 11);
        Rgb([(value + grain).clamp(0.0, 255.0) as u8; 3])
    })
}

pub fn write_data(folder: &Path, whales: u32) {
    for name in ["heads", "unlabelled_heads"] {
        std::fs::create_dir_all(folder.join(name)).expect("made");
    }
    let mut labels = String::from("image,whale\n");
    for i in 0..HEADS {
        let name = format!("h_{i}.png");
        let picture = head(i % whales, i);
        picture
            .save(folder.join("heads").join(&name))
            .expect("saved");
        labels += &format!("{name},whale_{}\n", i % whales);
    }
    std::fs::write(folder.join("heads.csv"), labels).expect("written");
    for i in 100..148 {
        let name = format!("u_{}_{i}.png", i % whales);
        let picture = head(i % whales, i);
        picture
            .save(folder.join("unlabelled_heads").join(name))
            .expect("saved");
    }
}

/// A recipe: what `name` differs in from the others.
pub struct Change {
    pub layers_before: &'static str,
    pub last: &'static str,
    pub augmentation: &'static str,
    pub loss: &'static str,
    pub schedule: &'static str,
    pub task: &'static str,
}

pub const PLAIN: Change = Change {
    layers_before: "",
    last: r#"{ op = "linear" }"#,
    augmentation: "",
    loss: "",
    schedule: "",
    task: "classifier",
};

pub fn write_recipe(folder: &Path, name: &str, change: &Change) {
    let Change {
        layers_before,
        last,
        augmentation,
        loss,
        schedule,
        task,
    } = change;
    let text = format!(
        r#"
name = "{name}"
task = "{task}"
seed = 3

[input]
width = 32
height = 24

[network]
leak = 0.1
layers = [
  {layers_before}
  {{ op = "conv", channels = 8, stride = 2 }},
  {{ op = "residual", channels = 16, stride = 2 }},
  {{ op = "global_average_pool" }},
  {{ op = "batch_norm" }},
  {{ op = "dropout", p = 0.1 }},
  {last},
]

[augmentation]
rotation_degrees = 8
shift = 0.05
contrast = 0.1
{augmentation}

[loss]
{loss}

[schedule]
epochs = 8
batch = 8
learning_rate = 1e-2
warm_up = 0.1
{schedule}
"#
    );
    std::fs::write(folder.join(format!("{name}.toml")), text).expect("written");
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_callosity-train"))
        // More threads than idle cores would wait for each other in a spin loop.
        .env("OMP_NUM_THREADS", "1")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("it starts")
}

/// Runs the program, which succeeds, and returns what it printed.
pub fn program(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn train(folder: &Path, name: &str, change: &Change, more: &[&str]) {
    write_recipe(folder, name, change);
    let recipe = format!("{name}.toml");
    let mut arguments = vec!["train", &recipe, "--workers", "1"];
    arguments.extend(more);
    program(folder, &arguments);
}

/// A folder with data of so many whales, imported and split, some of the whales held out as unknown.
pub fn split_data(whales: u32, unknown: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(&folder.path().join("data"), whales);
    program(folder.path(), &["import", "data"]);
    let split = ["split", "--unknown-whales", unknown, "--folds", "4"];
    program(folder.path(), &split);
    folder
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// A column of a run's `metrics.csv`, where it has a value.
pub fn metric(folder: &Path, run: &str, column: &str) -> Vec<f64> {
    let path = folder.join("runs").join(run).join("metrics.csv");
    let mut reader = csv::Reader::from_path(path).expect("metrics");
    let rows = reader.deserialize::<BTreeMap<String, Option<f64>>>();
    rows.filter_map(|row| row.expect("a row").remove(column)?)
        .collect()
}
