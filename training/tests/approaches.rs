//! Approaches beside the plain classifier, each trained to its end on drawn heads by the program itself.

mod common;

use std::collections::BTreeMap;

use callosity_training::tasks::ALIGNER_FIELD_HEAD_LENGTHS;
use image::{Rgb, RgbImage};
use recognition::bundle::Bundle;
use serde_json::Value;

use common::{Change, HEADS, PLAIN, WHALES, metric, program, read_json, run, split_data, train};

#[test]
fn every_approach_trains_to_its_end_and_is_measured() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();

    train(folder, "plain", &PLAIN, &[]);
    let groups = "photographs_of_a_whale = 4";
    let triplet = Change {
        loss: "classification = 0\nmetric = { kind = \"triplet\", margin = 0.3 }",
        schedule: groups,
        ..PLAIN
    };
    train(folder, "triplet", &triplet, &[]);
    let contrastive = Change {
        loss: "metric = { kind = \"contrastive\", margin = 1 }",
        schedule: groups,
        ..PLAIN
    };
    train(folder, "contrastive", &contrastive, &[]);
    let arcface = Change {
        last: r#"{ op = "cosine", scale = 8, sub_centres = 2 }"#,
        loss: "angular_margin = 0.2",
        ..PLAIN
    };
    train(folder, "arcface", &arcface, &[]);
    let mirrored = Change {
        augmentation: "mirrored_individuals = true",
        ..PLAIN
    };
    train(folder, "mirrored", &mirrored, &[]);

    let transformer = Change {
        layers_before: r#"{ op = "spatial_transformer", aspect = 2.0, width = 32, height = 24, head_crop = { bonnet_x = 0.9, blowhead_x = 0.2, landmark_y = 0.5, aspect = 2.0 }, localisation = [
                { op = "conv", channels = 8, repeat = 2 },
                { op = "conv", channels = 2, plain = true },
                { op = "soft_argmax" },
            ] },"#,
        loss: "classification = 0\nlandmarks = 20",
        ..PLAIN
    };
    train(folder, "landmarks", &transformer, &[]);
    let error = metric(folder, "landmarks", "held_out_head_length_error");
    assert!(error[error.len() - 1] < 0.5 * error[0], "{error:?}");
    let joint = Change {
        loss: "landmarks = 20",
        schedule: "localisation_rate = 0.1",
        ..transformer
    };
    train(folder, "joint", &joint, &["--from", "runs/landmarks"]);
    let begun = metric(folder, "joint", "held_out_head_length_error")[0];
    assert!(
        begun < error[0],
        "it goes on from where it was: {begun}, {error:?}"
    );

    let pretraining = Change {
        task: "pretraining",
        last: r#"{ op = "linear", outputs = 16 }"#,
        loss: "metric = { kind = \"nt_xent\", temperature = 0.2 }",
        ..PLAIN
    };
    train(folder, "pretraining", &pretraining, &[]);
    let losses = metric(folder, "pretraining", "training_loss");
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    train(
        folder,
        "pretrained",
        &PLAIN,
        &["--from", "runs/pretraining"],
    );

    let named = ["pseudo-label", "runs/triplet", "--precision", "0.8"];
    program(folder, &named);
    let file = read_json(&folder.join("runs/data/pseudo_labels.json"));
    let labels = file["labels"].as_array().expect("labels");
    let right = labels.iter().filter(|label| {
        let image = label["image"].as_str().expect("an image");
        let whale = label["individual"]
            .as_str()
            .expect("a whale")
            .replace("whale", "u");
        image.contains(&format!("{whale}_"))
    });
    let share = right.count() as f64 / labels.len() as f64;
    assert!(
        labels.len() > 10 && share > 0.6,
        "{} named, {share}",
        labels.len()
    );
    let pseudo = ["--pseudo-labels", "runs/data/pseudo_labels.json"];
    train(folder, "pseudo", &PLAIN, &pseudo);

    let runs = [
        "plain",
        "triplet",
        "contrastive",
        "arcface",
        "mirrored",
        "joint",
        "pretrained",
        "pseudo",
    ];
    let folders: Vec<String> = runs.iter().map(|run| format!("runs/{run}")).collect();
    let mut arguments = vec!["report", "--table", "table.json"];
    arguments.extend(folders.iter().map(String::as_str));
    program(folder, &arguments);
    let rows = read_json(&folder.join("table.json"));
    let rows = rows["classifiers"].as_array().expect("rows");
    for run in runs {
        let of_run = rows.iter().filter(|row| row["recipe"] == run);
        let top1 = of_run.filter_map(|row| row["naming"]["top1"].as_f64());
        let best = top1.fold(f64::NAN, f64::max);
        assert!(best > 0.5, "{run}: top-1 {best}, by chance 0.25: {rows:?}");
    }
    // It has no logits to name by.
    let by: Vec<&Value> = rows
        .iter()
        .filter(|row| row["recipe"] == "triplet")
        .map(|row| &row["named_by"])
        .collect();
    assert_eq!(by, ["neighbours"]);
}

/// Frames to measure on have the head of a validation photograph each, at the place that the table says.
#[test]
fn whole_frames_are_composed_of_validation_photographs() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    let compose = ["compose", "--validation-frames", "--out", "frames"];
    let size = ["--count", "5", "--frame-width", "384"];
    program(folder, &[&compose[..], &size].concat());

    let rows = |path: &str| -> Vec<BTreeMap<String, String>> {
        let mut table = csv::Reader::from_path(folder.join(path)).expect("a table");
        table.deserialize().map(|row| row.expect("a row")).collect()
    };
    let validation = rows("runs/data/validation.csv");
    let frames = rows("frames/frames.csv");
    assert_eq!(frames.len(), 5);
    for row in frames {
        let number = |column: &str| row[column].parse::<f64>().expect("a number");
        let frame = image::open(folder.join("frames").join(&row["image"])).expect("a picture");
        assert_eq!((frame.width(), frame.height()), (384, 256));
        for (x, y) in [("bonnet_x", "bonnet_y"), ("blowhead_x", "blowhead_y")] {
            let inside = (0.0..384.0).contains(&number(x)) && (0.0..256.0).contains(&number(y));
            assert!(inside, "{row:?}");
        }
        let head = row["image"].trim_start_matches("composed_");
        let head = head.replace(".jpg", ".png");
        let of_head = validation.iter().find(|label| label["image"] == head);
        assert_eq!(
            of_head.expect("a validation photograph")["whale"],
            row["whale"]
        );
    }
}

/// Crops for people to look at are those that aligners are trained on: heads are as long in them.
#[test]
fn composed_crops_show_the_field_that_aligners_see() {
    let folder = split_data(WHALES, "0");
    let folder = folder.path();
    program(folder, &["compose", "--out", "shown", "--count", "60"]);
    // Middles of the crosses of a pure colour that mark bonnet and blowhead.
    let marked = |image: &RgbImage, colour: [u8; 3]| {
        let pixels = image.enumerate_pixels();
        let places: Vec<(f64, f64)> = pixels
            .filter(|(.., pixel)| **pixel == Rgb(colour))
            .map(|(x, y, _)| (f64::from(x), f64::from(y)))
            .collect();
        // One at the edge is cut.
        (places.len() == 9).then(|| {
            let sum = places
                .iter()
                .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
            (sum.0 / 9.0, sum.1 / 9.0)
        })
    };
    let mut lengths = Vec::new();
    for i in 0..60 {
        let path = folder.join(format!("shown/crop_{i:04}.png"));
        let image = image::open(path).expect("a picture").to_rgb8();
        let places = marked(&image, [255, 0, 0]).zip(marked(&image, [0, 255, 0]));
        lengths
            .extend(places.map(|(a, b)| (a.0 - b.0).hypot(a.1 - b.1) / f64::from(image.width())));
    }
    assert!(lengths.len() > 30, "{}", lengths.len());
    lengths.sort_by(f64::total_cmp);
    let median = lengths[lengths.len() / 2];
    // A finder errs as much to one side as to the other. With 2.6 head lengths across it would be 0.385.
    let expected = 1.0 / ALIGNER_FIELD_HEAD_LENGTHS;
    assert!(
        (median / expected - 1.0).abs() < 0.07,
        "{median}, not {expected}"
    );
}

/// The networks that fly are trained on all photographs, with the decision of networks of the same recipe that a
/// split has measured.
#[test]
fn networks_of_all_photographs_decide_as_a_split_has_shown() {
    const WHALES: u32 = 8;
    let folder = split_data(WHALES, "4");
    let folder = folder.path();
    train(folder, "plain", &PLAIN, &[]);
    let stack = ["stack", "runs/plain", "--views", "2", "--average"];
    program(
        folder,
        &[&stack[..], &["--gallery-photographs", "4"]].concat(),
    );

    let all = "runs/data/all.json";
    program(folder, &["split", "--hold-nothing-out", "--output", all]);
    let everything = ["--split", all, "--out", "runs/all", "--from", "runs/plain"];
    train(folder, "plain", &PLAIN, &everything);
    let start = read_json(&folder.join("runs/all/run.json"));
    assert_eq!(start["individuals"].as_array().map(Vec::len), Some(8));
    let calibrated = ["--calibrated-by", "runs/stack.json"];
    let without = ["stack", "runs/all", "--split", all];
    let with = [&stack[..2], &calibrated].concat();
    for (arguments, reason) in [
        (&without[..], "holds nothing out"),
        (&with[..], "holds photographs out"),
    ] {
        let refused = run(folder, arguments);
        let complaint = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && complaint.contains(reason),
            "{complaint}"
        );
    }
    let stack = [
        "stack",
        "runs/all",
        "--split",
        all,
        "--out",
        "runs/all.json",
    ];
    program(folder, &[&stack[..], &calibrated].concat());
    let bundle = ["bundle", "--name", "all", "--classifiers", "runs/all"];
    let of_stack = ["--split", all, "--stack", "runs/all.json", "--out", "all"];
    program(folder, &[&bundle[..], &of_stack].concat());

    let (fitted, manifest) = (
        read_json(&folder.join("runs/stack.json")),
        read_json(&folder.join("all/manifest.json")),
    );
    assert_eq!(manifest["decision"], fitted["gallery"]["decision"]);
    assert_eq!(
        manifest["gallery"]["neighbours"],
        fitted["gallery"]["neighbours"]
    );
    assert_eq!(
        manifest["provenance"]["calibrated_on_split"],
        fitted["split_digest"]
    );
    let card = std::fs::read_to_string(folder.join("all/MODEL_CARD.md")).expect("a card");
    assert!(card.contains("trained on all photographs with names"));
    let bundle = Bundle::open(folder.join("all")).expect("a bundle");
    let gallery = bundle.gallery().expect("whole").expect("a gallery");
    assert_eq!(gallery.len(), 4 * WHALES as usize);

    let evaluate = ["evaluate", "--bundle", "all", "--format", "json"];
    let heads = ["--heads", "data/heads", "--labels", "data/heads.csv"];
    let output = run(folder, &[&evaluate[..], &heads].concat());
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(warning.contains("look better than they are"), "{warning}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["heads"]["known"], HEADS);
    let top1 = report["heads"]["top1"].as_f64().expect("a number");
    assert!(top1 > 0.5, "{top1}");
}
