//! The older approaches of the published solutions, from recipe to report, on drawn photographs: a localiser,
//! classifiers of the box around the head, and one of whole frames.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use assert_cmd::Command;
use callosity_training::cache::Cache;
use callosity_training::index::Index;
use callosity_training::loader::Loader;
use callosity_training::recipe::{Framing, Recipe};
use callosity_training::split::Split;
use callosity_training::tasks::{ClassifierTask, Task};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recognition::pixels::encode_jpeg;
use recognition::virtual_survey::{Catalogue, HeadView, render_head};

const WHALES: usize = 4;
const HEADS_EACH: usize = 14;

/// Imports and splits drawn heads into `folder`.
fn data(folder: &Path) {
    let population = Catalogue::new(3, WHALES, 0);
    let mut labels = String::from("image,whale\n");
    std::fs::create_dir_all(folder.join("data/heads")).expect("made");
    for i in 0..WHALES * HEADS_EACH {
        let whale = &population.known()[i % WHALES];
        let mut rng = ChaCha8Rng::seed_from_u64(i as u64);
        let image = render_head(&whale.whale, &HeadView::draw(&mut rng), 64, 64);
        let name = format!("v_{i}.jpg");
        let bytes = encode_jpeg(&image, 90).expect("encoded");
        std::fs::write(folder.join("data/heads").join(&name), bytes).expect("written");
        labels += &format!("{name},{}\n", whale.name);
    }
    std::fs::write(folder.join("data/heads.csv"), labels).expect("written");
    run(folder, &["import", "data"]);
    run(folder, &["split", "--unknown-whales", "0", "--folds", "4"]);
}

fn program(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::cargo_bin("callosity-train").expect("built");
    // More threads than idle cores would wait for each other in a spin loop.
    command.env("OMP_NUM_THREADS", "1");
    command.current_dir(folder).args(arguments);
    command.output().expect("it runs")
}

fn run(folder: &Path, arguments: &[&str]) {
    let output = program(folder, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
}

/// Fails with what it says.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = program(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} did not fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn recipe(name: &str, task: &str, input: &str, layers: &str, schedule: &str) -> String {
    format!(
        "name = \"{name}\"\ntask = \"{task}\"\nseed = 4\n[input]\n{input}\n\
         [network]\nleak = 0.1\nlayers = [\n{layers}\n]\n\
         [augmentation]\nrotation_degrees = 10\nshift = 0.05\n\
         [schedule]\nbatch = 8\nlearning_rate = 4e-3\nweight_average = 0.9\n{schedule}\n"
    )
}

const CLASSIFIER: &str = r#"{ op = "conv", channels = 8, stride = 2 },
  { op = "conv", channels = 12, stride = 2 },
  { op = "global_average_pool" }, { op = "linear" }"#;

/// Measured epochs of a run.
fn metrics(folder: &Path, name: &str) -> Vec<BTreeMap<String, f64>> {
    let path = folder.join("runs").join(name).join("metrics.csv");
    let mut table = csv::Reader::from_path(path).expect("metrics");
    let rows = table.deserialize::<BTreeMap<String, f64>>();
    rows.collect::<Result<_, _>>().expect("numbers")
}

/// The epoch whose weights were kept.
fn best(rows: &[BTreeMap<String, f64>], loss: &str) -> BTreeMap<String, f64> {
    let best = rows.iter().min_by(|a, b| a[loss].total_cmp(&b[loss]));
    best.expect("a measured epoch").clone()
}

#[test]
fn localisers_and_classifiers_of_frames_are_trained_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    data(folder);
    let size = "width = 96\nheight = 64";
    let localiser = recipe(
        "tiny-localiser",
        "localiser",
        size,
        r#"{ op = "conv", channels = 12, stride = 2 },
        { op = "conv", channels = 24, stride = 2 },
        { op = "conv", channels = 32, stride = 2 },
        { op = "locally_connected", channels = 24, kernel = 1 },
        { op = "global_average_pool" }, { op = "linear", outputs = 4 }"#,
        "epochs = 5\nsamples_per_epoch = 320",
    );
    let boxed = recipe(
        "tiny-box",
        "classifier",
        "width = 32\nheight = 32\nframing = { box = { padding = 0.1 } }",
        CLASSIFIER,
        "epochs = 3",
    );
    let whole = recipe(
        "tiny-whole",
        "classifier",
        &format!("{size}\nframing = \"whole_frame\""),
        CLASSIFIER,
        "epochs = 2",
    );
    for (name, text) in [
        ("tiny-localiser", &localiser),
        ("tiny-box", &boxed),
        ("tiny-whole", &whole),
    ] {
        let path = format!("{name}.toml");
        std::fs::write(folder.join(&path), text).expect("written");
        run(folder, &["train", &path, "--precision", "float32"]);
    }
    let found = metrics(folder, "tiny-localiser");
    let (first, last) = (&found[0], found.last().expect("epochs"));
    assert!(
        last["training_loss"] < 0.7 * first["training_loss"]
            && last["validation_loss"] < first["validation_loss"],
        "the localiser learns nothing: {first:?} {last:?}"
    );

    // The report frames the photographs just as training did when it measured.
    let report = [
        "report",
        "runs/tiny-box",
        "runs/tiny-localiser",
        "runs/tiny-whole",
        "--table",
        "table.json",
        "--markdown",
        "table.md",
    ];
    run(folder, &report);
    let page = std::fs::read_to_string(folder.join("runs/report.html")).expect("a page");
    let kept = best(&found, "validation_loss");
    for part in [
        "tiny-localiser".to_owned(),
        format!("<td>{:.3}</td>", kept["validation_iou"]),
        "intersection over union".to_owned(),
    ] {
        assert!(page.contains(&part), "the page has no {part}");
    }
    let table = std::fs::read_to_string(folder.join("table.json")).expect("a table");
    let table: serde_json::Value = serde_json::from_str(&table).expect("JSON");
    let mean_iou = table["localisers"][0]["mean_iou"]
        .as_f64()
        .expect("a number");
    assert!((mean_iou - kept["validation_iou"]).abs() < 1e-6);
    let text = std::fs::read_to_string(folder.join("table.md")).expect("Markdown");
    assert!(text.contains("| tiny-localiser |"), "{text}");
    for name in ["tiny-box", "tiny-whole"] {
        let rows = table["classifiers"].as_array().expect("rows");
        let row = rows
            .iter()
            .find(|row| row["recipe"] == name && row["named_by"] == "logits");
        let row = row.expect("a row of its own outputs");
        let kept = best(&metrics(folder, name), "held_out_loss");
        for (reported, measured) in [("top1", "validation_top1"), ("log_loss", "validation_loss")] {
            let number = row["naming"][reported].as_f64().expect("a number");
            let expected = kept[measured];
            assert!(
                (number - expected).abs() < 1e-3,
                "{name}: {reported} is {number} in the report, {expected} in training"
            );
        }
    }

    // A baseline that sees whole frames beside a classifier that does not, each map of what it sees.
    let maps = ["saliency", "runs/tiny-whole", "runs/tiny-box", "--count"];
    run(folder, &[&maps[..], &["1", "--stride", "0.25"]].concat());
    let shown = std::fs::read_dir(folder.join("runs/saliency")).expect("pictures");
    let mut shown = shown.map(|entry| entry.expect("a file").path());
    let strip = shown.find(|path| path.extension().is_some_and(|e| e == "jpg"));
    let (width, height) = image::image_dimensions(strip.expect("a strip")).expect("its size");
    // The whole frame, of 3 to 2, with and without its map, and the box.
    assert!(height == 240 && width > 3 * 240, "{width} × {height}");

    let complaint = refused(folder, &["stack", "runs/tiny-box"]);
    assert!(
        complaint.contains("only classifiers of head crops") && complaint.contains("tiny-box"),
        "{complaint}"
    );
    for (wrong, said) in [
        (
            localiser.replace("width = 96", "width = 16"),
            "from 32 to 4096",
        ),
        (boxed.replace("padding = 0.1", "padding = -0.1"), "0 to 2"),
        (
            localiser.replace(size, &format!("{size}\nframing = \"whole_frame\"")),
            "only a classifier",
        ),
    ] {
        std::fs::write(folder.join("wrong.toml"), wrong).expect("written");
        let complaint = refused(folder, &["train", "wrong.toml"]);
        assert!(complaint.contains(said), "{complaint}");
    }
}

#[test]
fn the_recipes_of_framed_classifiers_give_batches_of_the_stated_shapes() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    data(folder);
    let index = Index::load(&folder.join("runs/data/index.json")).expect("an index");
    let split = Split::load(&folder.join("runs/data/split.json")).expect("a split");
    let cache = Cache::open_or_build(&index, &folder.join("runs/data/cache")).expect("a cache");
    let cache = Arc::new(cache);
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    for (name, framing, pixels) in [
        (
            "small-box-padding-00",
            Framing::Box { padding: 0.0 },
            56 * 56,
        ),
        (
            "small-box-padding-20",
            Framing::Box { padding: 0.2 },
            56 * 56,
        ),
        ("small-naive-baseline", Framing::WholeFrame, 180 * 120),
    ] {
        let recipe = Recipe::load(&recipes.join(format!("{name}.toml"))).expect("a recipe");
        assert_eq!(recipe.input.framing, framing);
        let graph = recipe.graph(WHALES).expect("a network");
        assert_eq!(graph.output().shape.channels, WHALES);
        let task = ClassifierTask::new(&recipe, &index, &split, &cache, 0).expect("samples");
        let samples = task.training();
        let batch = Loader::start(&samples, recipe.seed, 16, 0..1, 1)
            .next()
            .expect("a batch")
            .expect("no fault");
        assert_eq!(batch.input.len(), 16 * 3 * pixels, "{name}");
        assert!(batch.input.iter().all(|v| v.is_finite()));
        assert_eq!(batch.target.len(), 16 * 5);
        for target in batch.target.chunks_exact(5) {
            assert!((0.0..WHALES as f32).contains(&target[0]));
        }
    }
}
