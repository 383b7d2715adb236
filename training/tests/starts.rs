//! What networks are made from is recorded and checked: what a run may start from and go on with, and what a bundle
//! says of its networks.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use callosity_training::network::load_tensors;
use callosity_training::trainer::RunInfo;
use serde_json::{Value, json};

use common::{Change, PLAIN, WHALES, program, read_json, run, split_data, train, write_recipe};

/// Runs the program, which fails, and returns its complaint.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the program, which succeeds, and returns what it said on standard error.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &path);
        } else {
            std::fs::copy(entry.path(), path).expect("copied");
        }
    }
}

#[test]
fn a_run_that_has_seen_what_is_held_out_here_is_no_start() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    train(folder, "plain", &PLAIN, &[]);
    let other = [
        "split",
        "--unknown-whales",
        "0",
        "--folds",
        "4",
        "--seed",
        "1",
    ];
    program(folder, &[&other[..], &["--output", "other.json"]].concat());
    program(
        folder,
        &["split", "--hold-nothing-out", "--output", "all.json"],
    );
    let all = ["--split", "all.json", "--out", "runs/all"];
    // Where nothing is held out any run is a start.
    train(
        folder,
        "plain",
        &PLAIN,
        &[&all[..], &["--from", "runs/plain"]].concat(),
    );

    for start in ["--from", "--grow"] {
        let from = |run: &str, more: &[&str]| {
            let arguments = ["train", "plain.toml", "--out", "runs/new", start, run];
            refused(folder, &[&arguments[..], more].concat())
        };
        let complaint = from("runs/plain", &["--split", "other.json"]);
        assert!(
            complaint.contains("runs/plain was trained on split"),
            "{complaint}"
        );
        let complaint = from("runs/plain", &["--held-out-fold", "1"]);
        assert!(
            complaint.contains("without fold 0") && complaint.contains("without fold 1"),
            "{complaint}"
        );
        let complaint = from("runs/all", &[]);
        assert!(
            complaint.contains("runs/all was trained on split"),
            "{complaint}"
        );
        assert!(
            !folder.join("runs/new").exists(),
            "nothing is left of what was refused"
        );
    }
    // A split of other photographs goes with no index but its own.
    let split = std::fs::read_to_string(folder.join("other.json")).expect("a split");
    let data = read_json(&folder.join("other.json"))["data_digest"].clone();
    let data = data.as_str().expect("a digest");
    std::fs::write(
        folder.join("foreign.json"),
        split.replace(data, &"0".repeat(64)),
    )
    .expect("written");
    let complaint = refused(
        folder,
        &[
            "train",
            "plain.toml",
            "--split",
            "foreign.json",
            "--out",
            "runs/new",
        ],
    );
    assert!(complaint.contains("does not belong to"), "{complaint}");
}

/// Here those of a network that sees its input as it is, by one that standardises it.
#[test]
fn a_run_of_no_epochs_measures_and_keeps_the_weights_that_it_starts_from() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    train(folder, "plain", &PLAIN, &[]);
    let none = ["--set", "schedule.epochs=0"];
    let complaint = refused(
        folder,
        &[&["train", "plain.toml", "--out", "runs/random"], &none[..]].concat(),
    );
    assert!(complaint.contains("schedule.epochs is 0"), "{complaint}");

    let standardised = Change {
        layers_before: r#"{ op = "standardise" },"#,
        ..PLAIN
    };
    let from = ["--from", "runs/plain"];
    train(
        folder,
        "standardised",
        &standardised,
        &[none, from].concat(),
    );
    let weights = |path: &str| load_tensors(&folder.join(path)).expect("weights");
    let start = weights("runs/plain/best.safetensors");
    for kept in ["best", "last"] {
        let kept = weights(&format!("runs/standardised/{kept}.safetensors"));
        assert_eq!(start.len(), kept.len());
        assert!(start.iter().all(|(name, tensor)| tensor.equal(&kept[name])));
    }
    let record = RunInfo::load(&folder.join("runs/standardised")).expect("a record");
    assert_eq!(record.metrics["epoch"], 0.0);
    assert!(record.metrics.contains_key("validation_loss"), "{record:?}");
    assert!(!record.metrics.contains_key("training_loss"), "{record:?}");
    let other = RunInfo::load(&folder.join("runs/plain")).expect("a record");
    assert_ne!(
        record.metrics["validation_loss"],
        other.metrics["validation_loss"]
    );
}

#[test]
fn an_unfinished_run_is_taken_by_nobody() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    train(folder, "plain", &PLAIN, &[]);
    program(folder, &["stack", "runs/plain"]);
    copy(&folder.join("runs/plain"), &folder.join("runs/half"));
    std::fs::remove_file(folder.join("runs/half/last.safetensors")).expect("there");
    let bundle = [
        "bundle",
        "--name",
        "b",
        "--out",
        "b",
        "--classifiers",
        "runs/half",
    ];
    for arguments in [
        &["export", "runs/half", "--out", "half.onnx"][..],
        &["stack", "runs/half", "--out", "half.json"],
        &["pseudo-label", "runs/half"],
        &["report", "runs/half"],
        &["saliency", "runs/half"],
        &bundle,
        &[
            "train",
            "plain.toml",
            "--out",
            "runs/new",
            "--from",
            "runs/half",
        ],
        &[
            "train",
            "plain.toml",
            "--out",
            "runs/new",
            "--grow",
            "runs/half",
        ],
    ] {
        let complaint = refused(folder, arguments);
        for words in ["runs/half", "unfinished", "8 of 8 epochs", "--resume"] {
            assert!(complaint.contains(words), "{arguments:?}: {complaint}");
        }
    }
}

/// Trains until there is a checkpoint, and is killed.
fn start_and_kill(folder: &Path, out: &str, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callosity-train"));
    command.env("OMP_NUM_THREADS", "1").current_dir(folder);
    command
        .args(arguments)
        .args(["--out", out, "--checkpoint-every", "0"]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("it starts");
    let checkpoint = || {
        let mut names = std::fs::read_dir(folder.join(out)).into_iter().flatten();
        names.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("checkpoint-")))
    };
    while !checkpoint() {
        assert_eq!(
            child.try_wait().expect("a child"),
            None,
            "it ended too soon"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

#[test]
fn a_run_goes_on_with_what_it_was_started_with_alone() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    train(folder, "plain", &PLAIN, &[]);
    train(
        folder,
        "plain",
        &PLAIN,
        &["--set", "seed = 4", "--out", "runs/other"],
    );
    program(
        folder,
        &[
            "pseudo-label",
            "runs/plain",
            "--precision",
            "0.5",
            "--out",
            "names.json",
        ],
    );
    let mut fewer = read_json(&folder.join("names.json"));
    let labels = fewer["labels"].as_array_mut().expect("labels");
    assert!(labels.pop().is_some());
    std::fs::write(folder.join("fewer.json"), fewer.to_string()).expect("written");
    std::fs::copy(folder.join("names.json"), folder.join("copy.json")).expect("copied");

    write_recipe(folder, "student", &PLAIN);
    let train = [
        "train",
        "student.toml",
        "--workers",
        "1",
        "--set",
        "schedule.epochs = 40",
    ];
    let names = ["--pseudo-labels", "names.json"];
    let from = ["--from", "runs/plain"];
    start_and_kill(
        folder,
        "runs/student",
        &[&train[..], &from, &names].concat(),
    );
    let resume = [&train[..], &["--out", "runs/student", "--resume"]].concat();
    for (other, argument) in [
        (
            [&from[..], &["--pseudo-labels", "fewer.json"]].concat(),
            "--pseudo-labels",
        ),
        (from.to_vec(), "--pseudo-labels"),
        ([&["--from", "runs/other"][..], &names].concat(), "--from"),
        ([&["--grow", "runs/plain"][..], &names].concat(), "--from"),
        (
            [&["--weights", "runs/plain/best.safetensors"][..], &names].concat(),
            "--from",
        ),
        (names.to_vec(), "--from"),
        (
            [&from[..], &names, &["--held-out-fold", "1"]].concat(),
            "fold",
        ),
    ] {
        let complaint = refused(folder, &[&resume[..], &other].concat());
        let words = format!("was started with another {argument}");
        let known =
            complaint.contains(&words) || argument == "fold" && complaint.contains("fold 0");
        assert!(known, "{other:?}: {complaint}");
    }
    // The same file under the same name, but with other names in it.
    std::fs::copy(folder.join("fewer.json"), folder.join("names.json")).expect("copied");
    let complaint = refused(folder, &[&resume[..], &from, &names].concat());
    assert!(complaint.contains("another --pseudo-labels"), "{complaint}");
    // What it was started with, wherever it lies.
    std::fs::rename(folder.join("runs/plain"), folder.join("runs/moved")).expect("moved");
    let same = ["--from", "runs/moved", "--pseudo-labels", "copy.json"];
    program(folder, &[&resume[..], &same].concat());
    let info = RunInfo::load(&folder.join("runs/student")).expect("a record");
    assert_eq!(info.epochs_completed, 40);
    let arguments: Vec<&String> = info.inputs.keys().collect();
    assert_eq!(arguments, ["--from", "--pseudo-labels"]);
}

fn bundle<'a>(out: &'a str, runs: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let command = ["bundle", "--name", out, "--out", out, "--classifiers"];
    [&command[..], runs, more].concat()
}

fn made(folder: &Path, out: &str, runs: &[&str]) -> Value {
    program(folder, &bundle(out, runs, &[]));
    read_json(&folder.join(out).join("manifest.json"))
}

/// The manifest of a bundle as earlier versions wrote it.
fn as_of_old(folder: &Path, bundle: &str, change: impl Fn(&mut Value)) {
    let path = folder.join(bundle).join("manifest.json");
    let mut manifest = read_json(&path);
    let ensemble = manifest["ensemble"].as_object_mut().expect("an object");
    ensemble.remove("last_layer");
    let provenance = manifest["provenance"].as_object_mut().expect("an object");
    let networks = provenance.remove("networks").expect("stated");
    provenance.remove("held_out_fold");
    let (mut recipes, mut metrics) = (json!({}), provenance["metrics"].clone());
    for network in networks.as_array().expect("networks") {
        let name = network["name"].as_str().expect("a name");
        recipes[name] = network["recipe_sha256"].clone();
        for (metric, value) in network["metrics"].as_object().expect("metrics") {
            metrics[format!("{name}.{metric}")] = value.clone();
        }
    }
    provenance.insert("recipes".to_owned(), recipes);
    provenance.insert("metrics".to_owned(), metrics);
    change(&mut manifest);
    std::fs::write(path, manifest.to_string()).expect("written");
}

#[test]
fn a_bundle_says_what_each_network_is_and_gives_its_last_layers() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    let runs = ["runs/plain", "runs/plain-seed-4", "runs/wide"];
    train(folder, "plain", &PLAIN, &[]);
    train(
        folder,
        "plain",
        &PLAIN,
        &["--set", "seed = 4", "--out", runs[1]],
    );
    // Not as many features as the others.
    let wide = Change {
        layers_before: r#"{ op = "conv", channels = 8 },"#,
        last: r#"{ op = "linear" }"#,
        ..PLAIN
    };
    write_recipe(folder, "wide", &wide);
    let text = std::fs::read_to_string(folder.join("wide.toml")).expect("a recipe");
    std::fs::write(
        folder.join("wide.toml"),
        text.replace("channels = 16", "channels = 12"),
    )
    .expect("written");
    program(folder, &["train", "wide.toml", "--workers", "1"]);

    let stack = [
        "stack",
        runs[0],
        runs[1],
        runs[2],
        "--views",
        "2",
        "--average",
        "--power",
        "fit",
    ];
    program(folder, &stack);
    let manifest = made(folder, "averaged", &runs);
    assert_eq!(manifest["ensemble"]["last_layer"], "averaged");
    assert_eq!(manifest["provenance"]["held_out_fold"], 0);
    let networks = manifest["provenance"]["networks"]
        .as_array()
        .expect("networks");
    let stated: Vec<(&str, &str, u64, u64)> = networks
        .iter()
        .map(|network| {
            let text = |key: &str| network[key].as_str().expect("a text");
            let number = |key: &str| network[key].as_u64().expect("a number");
            assert_eq!(text("role"), "ensemble");
            (
                text("name"),
                text("recipe"),
                number("seed"),
                number("features"),
            )
        })
        .collect();
    let expected = [
        ("plain", "plain", 3, 16),
        ("plain-seed-4", "plain", 4, 16),
        ("wide", "wide", 3, 12),
    ];
    assert_eq!(stated, expected, "two seeds of one recipe are two networks");
    // Metrics are of the epoch whose weights are taken, and each network has its own.
    let card = std::fs::read_to_string(folder.join("averaged/MODEL_CARD.md")).expect("a card");
    for (network, run) in networks.iter().zip(runs) {
        let info = RunInfo::load(&folder.join(run)).expect("a record");
        let epoch = network["metrics"]["epoch"].as_f64().expect("a number");
        assert_eq!(Some(epoch as u32), info.best_epoch);
        let loss = network["metrics"]["held_out_loss"]
            .as_f64()
            .expect("a number");
        assert_eq!(loss, info.metrics["held_out_loss"]);
        let row = format!(
            "| {}.held_out_loss | {loss:.4} |",
            network["name"].as_str().expect("a name")
        );
        assert!(card.contains(&row), "{card}");
    }

    // One name for two networks is refused, not overwritten.
    copy(
        &folder.join("runs/plain-seed-4"),
        &folder.join("elsewhere/plain"),
    );
    program(
        folder,
        &[
            "stack",
            "runs/plain",
            "elsewhere/plain",
            "--out",
            "clash.json",
        ],
    );
    let same = ["runs/plain", "elsewhere/plain"];
    let complaint = refused(folder, &bundle("clash", &same, &["--stack", "clash.json"]));
    assert!(complaint.contains("both called plain"), "{complaint}");

    // Each classifier gets its own last layer back: it names as the run did from which the bundle came.
    let from = |bundle: &str, member: &str, recipe: &str, more: &[&str]| {
        let still = [
            "--set",
            "schedule = { epochs = 1, batch = 8, learning_rate = 1e-12 }",
        ];
        let train = [
            "train",
            recipe,
            "--workers",
            "1",
            "--out",
            "runs/again",
            "--from-bundle",
            bundle,
        ];
        [&train[..], &["--member", member], &still, more]
            .concat()
            .join("\u{1f}")
    };
    let go = |arguments: String| -> String {
        let _ = std::fs::remove_dir_all(folder.join("runs/again"));
        said(folder, &arguments.split('\u{1f}').collect::<Vec<_>>())
    };
    let stop = |arguments: String| -> String {
        let _ = std::fs::remove_dir_all(folder.join("runs/again"));
        refused(folder, &arguments.split('\u{1f}').collect::<Vec<_>>())
    };
    // Directions of the last layer's rows; a temperature divides all of them alike.
    let last_layer = |run: &str| {
        let tensors = load_tensors(&folder.join(run).join("best.safetensors")).expect("weights");
        let (_, weight) = tensors
            .into_iter()
            .find(|(name, _)| name.ends_with("linear.weight"))
            .expect("a last layer");
        weight.flatten(0, -1)
    };
    let alike = |run: &str| {
        let (a, b) = (last_layer("runs/again"), last_layer(run));
        let product = |a: &tch::Tensor, b: &tch::Tensor| a.dot(b).double_value(&[]);
        product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
    };
    for (member, run, recipe) in [
        ("1", runs[0], "plain.toml"),
        ("2", runs[1], "plain.toml"),
        ("3", runs[2], "wide.toml"),
    ] {
        let said = go(from("averaged", member, recipe, &[]));
        assert!(said.contains("the last for 4 of 4 outputs"), "{said}");
        assert!(said.contains("as the manifest says"), "{said}");
        assert!(alike(run) > 0.99, "{run}: {}", alike(run));
    }
    let said = go(from(
        "averaged",
        "1",
        "plain.toml",
        &["--last-layer", "random"],
    ));
    assert!(
        said.contains("STARTS AT RANDOM: --last-layer asks for it"),
        "{said}"
    );
    assert!(alike(runs[0]) < 0.9);
    let complaint = stop(from("averaged", "4", "plain.toml", &[]));
    assert!(complaint.contains("m4/"), "{complaint}");
    // It does not hide from the bundle's networks what they have not seen.
    let complaint = stop(from(
        "averaged",
        "1",
        "plain.toml",
        &["--held-out-fold", "1"],
    ));
    assert!(complaint.contains("without fold 0"), "{complaint}");

    // The manifest of an earlier version does not say; the power made the log losses differ.
    program(
        folder,
        &[&stack[..3], &stack[4..], &["--out", "two.json"]].concat(),
    );
    program(folder, &bundle("old", &runs[..2], &["--stack", "two.json"]));
    as_of_old(folder, "old", |manifest| {
        let metrics = &mut manifest["provenance"]["metrics"];
        metrics["stack.averaging_log_loss"] = json!(1.446883776291852);
        metrics["stack.held_out_log_loss"] = json!(1.446879010589154);
    });
    let said = go(from("old", "2", "plain.toml", &[]));
    assert!(said.contains("the last for 4 of 4 outputs"), "{said}");
    assert!(
        said.contains("the manifest, older than this version, does not say"),
        "{said}"
    );
    assert!(said.contains("does not say which fold"), "{said}");
    assert!(alike(runs[1]) > 0.99);
    as_of(
        folder,
        "old",
        "/provenance/metrics/stack.held_out_log_loss",
        json!(1.43),
    );
    let complaint = stop(from("old", "2", "plain.toml", &[]));
    assert!(
        complaint.contains("give --last-layer averaged if"),
        "{complaint}"
    );
    let said = go(from(
        "old",
        "2",
        "plain.toml",
        &["--last-layer", "averaged"],
    ));
    assert!(said.contains("the last for 4 of 4 outputs"), "{said}");

    as_of(folder, "averaged", "/ensemble/last_layer", json!("fitted"));
    let said = go(from("averaged", "1", "plain.toml", &[]));
    assert!(
        said.contains("STARTS AT RANDOM: the bundle's was fitted"),
        "{said}"
    );
    let complaint = stop(from(
        "averaged",
        "1",
        "plain.toml",
        &["--last-layer", "averaged"],
    ));
    assert!(complaint.contains("was fitted"), "{complaint}");
}

/// Another value in a bundle's manifest.
fn as_of(folder: &Path, bundle: &str, pointer: &str, value: Value) {
    let path = folder.join(bundle).join("manifest.json");
    let mut manifest = read_json(&path);
    *manifest.pointer_mut(pointer).expect("there") = value;
    std::fs::write(path, manifest.to_string()).expect("written");
}
