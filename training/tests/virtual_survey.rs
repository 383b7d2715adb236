//! Virtual whales from the photograph to the name that arrives over MQTT: import, split, training of a
//! finder, an aligner and a classifier, stack, bundle and evaluation through the real program, then a
//! flight over frames that none of them saw.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use callosity::camera::Replay;
use callosity::rehearsal::{Score, TrueHead, Truth, VirtualGround};
use callosity::service::{Flight, fly};
use callosity::sighting::{FrameRecord, Named};
use ground::Received;
use link::BrokerOptions;
use link::message::{Presence, Sighting};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use recognition::bundle::{Bundle, Manifest, Role};
use recognition::geometry::Landmarks;
use recognition::identify::Identifier;
use recognition::inference::EngineConfig;
use recognition::pixels::encode_jpeg;
use recognition::virtual_survey::{Catalogue, HeadView, Individual, Survey, render_head};
use tokio_util::sync::CancellationToken;

const POPULATION: u64 = 1;
const KNOWN: usize = 12;
const STRANGERS: usize = 8;
const HEADS_EACH: usize = 28;
const HEADS_OF_STRANGER: usize = 10;
const HEAD_SIDE: u32 = 128;
const FRAME: (u32, u32) = (768, 512);

fn save(path: &Path, image: &image::RgbImage) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, encode_jpeg(image, 90).expect("encoded")).expect("written");
}

fn table(path: &Path, header: &[&str], rows: &[Vec<String>]) {
    let mut writer = csv::Writer::from_path(path).expect("a table");
    writer.write_record(header).expect("written");
    for row in rows {
        writer.write_record(row).expect("written");
    }
    writer.flush().expect("written");
}

fn coordinates(landmarks: &Landmarks) -> [String; 4] {
    let (a, b) = (landmarks.bonnet, landmarks.blowhead);
    [a.x, a.y, b.x, b.y].map(|v| format!("{v:.1}"))
}

/// Draws heads of each whale into a folder; returns file and whale.
fn draw_heads(folder: &Path, whales: &[Individual], each: usize, stream: u64) -> Vec<Vec<String>> {
    (0..whales.len() * each)
        .into_par_iter()
        .map(|i| {
            let whale = &whales[i / each];
            let mut rng = ChaCha8Rng::seed_from_u64(stream);
            rng.set_stream(i as u64);
            let view = HeadView::draw(&mut rng);
            let image = render_head(&whale.whale, &view, HEAD_SIDE, HEAD_SIDE);
            let name = format!("v_{stream}_{i:05}.jpg");
            save(&folder.join(&name), &image);
            vec![name, whale.name.clone()]
        })
        .collect()
}

/// Draws frames of a survey into a folder; returns the truth.
fn draw_frames(folder: &Path, population: &Catalogue, seed: u64, count: usize) -> Truth {
    let plans: Vec<_> = Survey::new(population, seed).take(count).collect();
    let frames: Vec<(String, Vec<TrueHead>)> = plans
        .par_iter()
        .map(|plan| {
            let frame = plan.render(population, FRAME.0, FRAME.1);
            let file = format!("f_{:05}.jpg", frame.number);
            save(&folder.join(&file), &frame.image);
            let pass = frame.number;
            let heads = frame.heads.into_iter().map(|h| TrueHead {
                individual: h.individual,
                landmarks: h.landmarks,
                pass,
            });
            (file, heads.collect())
        })
        .collect();
    Truth {
        frames: frames.into_iter().collect(),
    }
}

/// A data set as `callosity virtual-survey` writes it.
fn write_data(folder: &Path, population: &Catalogue) {
    let into = folder.join("heads");
    let mut heads = draw_heads(&into, population.known(), HEADS_EACH, 1);
    heads.extend(draw_heads(
        &into,
        population.unknown(),
        HEADS_OF_STRANGER,
        2,
    ));
    table(&folder.join("heads.csv"), &["image", "whale"], &heads);
    // Where heads lie in frames follows the survey's own distribution.
    let poses = Survey::new(population, 77)
        .flat_map(|plan| plan.heads.into_iter().map(|head| head.pose.landmarks()));
    let landmarks: Vec<Vec<String>> = heads
        .iter()
        .zip(poses)
        .map(|(row, pose)| {
            let size = ["3072".to_owned(), "2048".to_owned()];
            [row[0].clone()]
                .into_iter()
                .chain(size)
                .chain(coordinates(&pose))
                .collect()
        })
        .collect();
    let corners = ["bonnet_x", "bonnet_y", "blowhead_x", "blowhead_y"];
    let header = [&["image", "width", "height"][..], &corners].concat();
    table(&folder.join("landmarks.csv"), &header, &landmarks);

    let truth = draw_frames(&folder.join("frames"), population, 3, 12);
    let size = [FRAME.0.to_string(), FRAME.1.to_string()];
    let mut rows = Vec::new();
    for (file, heads) in &truth.frames {
        for head in heads {
            let start = [file.clone(), head.individual.clone()];
            let row = start.into_iter().chain(size.clone());
            rows.push(row.chain(coordinates(&head.landmarks)).collect());
        }
        if heads.is_empty() {
            let start = [file.clone(), String::new()];
            let row = start.into_iter().chain(size.clone());
            rows.push(row.chain(vec![String::new(); 4]).collect());
        }
    }
    let header = [&["image", "whale", "width", "height"][..], &corners].concat();
    table(&folder.join("frames.csv"), &header, &rows);
}

/// Runs the program in `folder`; returns what it printed.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let (success, said, complaint) = try_run(folder, arguments);
    assert!(success, "{arguments:?}: {said}{complaint}");
    said
}

/// Runs the program in `folder`; returns whether it succeeded, what it printed, and its complaint.
fn try_run(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let started = std::time::Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_callosity-train"))
        .env("OMP_NUM_THREADS", "1")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!(
        "{} {:.0} s\n{said}{complaint}",
        arguments.join(" "),
        started.elapsed().as_secs_f64()
    );
    (output.status.success(), said, complaint)
}

fn recipe(kind: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/recipes/virtual-{kind}.toml"))
        .display()
        .to_string()
}

/// Flies over frames, each head of each frame a sighting of its own; returns what arrives at the ground station, and what
/// was seen in each frame.
fn flight(frames: &Path, bundle: &Bundle) -> (Vec<Sighting>, Vec<FrameRecord>) {
    let identifier = Identifier::new(bundle, &EngineConfig::default()).expect("an engine");
    let camera = Replay::open(frames, 20.0, false).expect("frames");
    let ground = VirtualGround::start().expect("a ground station");
    let options = BrokerOptions::new(ground.address(), None, None).expect("an address");
    let state = tempfile::tempdir().expect("a folder");
    let record = state.path().join("record.jsonl");
    let flight = Flight {
        stop_deadline: Duration::from_secs(120),
        lost_after: Duration::ZERO,
        record: Some(record.clone()),
        ..Flight::new(
            vec![camera.into()],
            identifier,
            options,
            "test".parse().expect("a name"),
            state.path().to_owned(),
        )
    };
    let report = fly(flight, &CancellationToken::new()).expect("it flies");
    assert_eq!(report.frames.dropped + report.frames.failed, 0);
    let mut sightings = Vec::new();
    loop {
        match ground.heard().recv_timeout(Duration::from_secs(60)) {
            Ok(Received::Sighting(sighting)) => sightings.push(*sighting),
            Ok(Received::Status(status)) if status.status == Presence::Stopped => break,
            Ok(Received::Malformed { topic, reason }) => panic!("{topic}: {reason}"),
            Ok(_) => {}
            Err(e) => panic!("the end is not heard: {e}"),
        }
    }
    let record = std::fs::read_to_string(record).expect("a record");
    let frames = record
        .lines()
        .map(|line| serde_json::from_str(line).expect("a frame"));
    (sightings, frames.collect())
}

fn make_bundle(folder: &Path, finder: &str, out: &str) {
    let bundle = [
        "bundle",
        "--name",
        "virtual",
        "--out",
        out,
        "--finder",
        finder,
        "--aligner",
        "runs/virtual-aligner",
        "--classifiers",
        "runs/virtual-classifier",
        "--finder-threshold",
        "0.3",
    ];
    run(folder, &bundle);
}

/// Trains two finders on with windows of the real frames, each without a fold, and measures bundles of them
/// on the frames of these folds.
fn frames_are_measured_by_who_never_saw_them(folder: &Path) {
    let text = std::fs::read_to_string(recipe("finder")).expect("the recipe");
    let text = text
        .replace("\"virtual-finder\"", "\"virtual-finder-real\"")
        .replace("epochs = 12", "epochs = 1")
        .replace(
            "samples_per_epoch = 1600",
            "samples_per_epoch = 160\nreal_frames = 0.5",
        );
    std::fs::write(folder.join("real.toml"), text).expect("written");
    let mut unseen: Vec<BTreeSet<String>> = Vec::new();
    for fold in ["0", "1"] {
        let out = format!("runs/without-{fold}");
        let train = [
            "train",
            "real.toml",
            "--from",
            "runs/virtual-finder",
            "--out",
            &out,
        ];
        run(
            folder,
            &[&train[..], &["--held-out-frame-fold", fold]].concat(),
        );
        make_bundle(folder, &out, &format!("bundle-without-{fold}"));
        let manifest = folder.join(format!("bundle-without-{fold}"));
        let seen = Bundle::open(manifest)
            .expect("a bundle")
            .manifest()
            .provenance
            .clone();
        let seen: BTreeSet<String> = seen.frames_trained_on.into_iter().collect();
        let all = std::fs::read_dir(folder.join("data/frames")).expect("frames");
        let all = all.map(|f| {
            f.expect("a frame")
                .file_name()
                .into_string()
                .expect("a name")
        });
        unseen.push(all.filter(|frame| !seen.contains(frame)).collect());
    }
    let mut table = csv::Reader::from_path(folder.join("data/frames.csv")).expect("the table");
    let header = table.headers().expect("a header").clone();
    let rows: Vec<csv::StringRecord> = table.records().collect::<Result<_, _>>().expect("rows");
    let with_heads = rows.iter().filter(|row| !row[4].is_empty());
    let of_folds: Vec<&csv::StringRecord> = with_heads
        .filter(|row| unseen.iter().any(|frames| frames.contains(&row[0])))
        .collect();
    assert!(
        unseen
            .iter()
            .all(|frames| of_folds.iter().any(|row| frames.contains(&row[0])))
    );
    let mut writer = csv::Writer::from_path(folder.join("folds.csv")).expect("a table");
    writer.write_record(&header).expect("written");
    for row in &of_folds {
        writer.write_record(*row).expect("written");
    }
    drop(writer);

    let evaluate = |bundles: &[&str], truth: &str| {
        let frames = [
            "--frames",
            "data/frames",
            "--format",
            "json",
            "--truth",
            truth,
        ];
        try_run(
            folder,
            &[&["evaluate", "--bundle"][..], bundles, &frames].concat(),
        )
    };
    let folds = ["bundle-without-0", "bundle-without-1"];
    let (success, said, _) = evaluate(&folds, "folds.csv");
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(
        success && report["frames"]["all_views"]["heads"] == of_folds.len(),
        "{report}"
    );
    let (success, _, complaint) = evaluate(&folds[1..], "folds.csv");
    assert!(
        !success && complaint.contains("was trained on this frame"),
        "{complaint}"
    );
    let (success, _, complaint) = evaluate(&["bundle", "bundle-without-0"], "folds.csv");
    assert!(
        !success && complaint.contains("several of the bundles"),
        "{complaint}"
    );
}

/// Metrics of the epoch whose weights were kept: that with the least loss on the set `first`.
fn best_epoch(run: &Path, first: &str) -> BTreeMap<String, f64> {
    let mut table = csv::Reader::from_path(run.join("metrics.csv")).expect("metrics");
    let rows: Vec<BTreeMap<String, String>> = table
        .deserialize()
        .collect::<Result<_, _>>()
        .expect("a table");
    let numbers = |row: BTreeMap<String, String>| -> BTreeMap<String, f64> {
        let each = row.into_iter();
        each.filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect()
    };
    let loss = format!("{first}_loss");
    rows.into_iter()
        .map(numbers)
        .filter(|row| row.contains_key(&loss))
        .min_by(|a, b| a[&loss].total_cmp(&b[&loss]))
        .expect("a measured epoch")
}

/// The report's numbers are those that training measured, by another way, when it kept its best weights, and
/// the table is completed run by run.
fn networks_are_compared(folder: &Path) {
    let (table, markdown) = ("results/table.json", "results/table.md");
    let kept = ["--table", table, "--markdown", markdown];
    let page = || std::fs::read_to_string(folder.join("runs/report.html")).expect("a page");
    let rows = || -> serde_json::Value {
        let text = std::fs::read_to_string(folder.join(table)).expect("the rows");
        serde_json::from_str(&text).expect("JSON")
    };
    run(
        folder,
        &[&["report", "runs/virtual-classifier"][..], &kept].concat(),
    );
    let of_classifier = page();
    for part in [
        "virtual-classifier",
        "<svg",
        "data:image/jpeg;base64,",
        "On what classifiers rely",
        "not in the catalogue",
        "</html>",
    ] {
        assert!(of_classifier.contains(part), "the page has no {part}");
    }
    assert!(
        !of_classifier.contains("src=\"http"),
        "the page needs the network"
    );
    let measured = rows()["classifiers"].clone();
    let ways: Vec<&serde_json::Value> = measured.as_array().expect("rows").iter().collect();
    let named_by: Vec<&str> = ways.iter().filter_map(|w| w["named_by"].as_str()).collect();
    assert_eq!(named_by[..2], ["logits", "neighbours"], "{measured}");
    let top1 = |way: &serde_json::Value| way["naming"]["top1"].as_f64().expect("a number");
    let best = best_epoch(&folder.join("runs/virtual-classifier"), "held_out");
    // In other precision, and from the photographs' files instead of the cache.
    let there = best["validation_top1"];
    assert!((top1(ways[0]) - there).abs() < 0.05, "{measured}, {there}");
    // Chance is 1 in 12.
    for way in &ways {
        assert!(top1(way) > 0.4, "{way}");
        assert_eq!(way["epochs"], way["scheduled_epochs"]);
        assert!(way["naming"]["unknown_auroc"].as_f64() > Some(0.5), "{way}");
    }

    run(
        folder,
        &[&["report", "runs/virtual-aligner"][..], &kept].concat(),
    );
    let all = rows();
    assert_eq!(all["classifiers"], measured, "rows of other runs stay");
    let aligner = &all["aligners"][0];
    let best = best_epoch(&folder.join("runs/virtual-aligner"), "validation");
    // On other crops of the same kind.
    let (mean, there) = (
        aligner["mean"].as_f64(),
        best["validation_head_length_error"],
    );
    let near = mean.is_some_and(|mean| (mean / there - 1.0).abs() < 0.3);
    assert!(near, "{aligner}, {there}");
    let with_views = aligner["by_views"].as_array().expect("errors");
    assert_eq!(with_views.len(), 5, "{aligner}");
    let of_aligner = page();
    assert!(
        of_aligner.contains("Errors of landmarks") && of_aligner.contains("virtual-classifier")
    );

    // Without any run folder everything is still there, but for the pictures.
    run(folder, &[&["report"][..], &kept].concat());
    assert_eq!(rows(), all);
    let text = std::fs::read_to_string(folder.join(markdown)).expect("Markdown");
    let with = |name: &str| text.lines().filter(|l| l.starts_with(name)).count();
    assert_eq!(with("| virtual-classifier |"), ways.len(), "{text}");
    assert_eq!(with("| virtual-aligner |"), 1, "{text}");

    let (success, _, complaint) = try_run(folder, &["report", "runs/virtual-finder"]);
    assert!(
        !success && complaint.contains("trained a Finder"),
        "{complaint}"
    );
}

fn saliency_is_shown(folder: &Path) {
    let map = ["saliency", "runs/virtual-classifier", "--stride", "0.2"];
    run(folder, &[&map[..], &["--count", "2"]].concat());
    let shown = folder.join("runs/saliency");
    let page = std::fs::read_to_string(shown.join("saliency.html")).expect("a page");
    let pictures: Vec<PathBuf> = std::fs::read_dir(&shown)
        .expect("pictures")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|e| e == "jpg"))
        .collect();
    assert_eq!(pictures.len(), 2);
    for picture in pictures {
        let name = picture
            .file_name()
            .and_then(|n| n.to_str())
            .expect("a name");
        assert!(page.contains(name), "{name} is not on the page");
        image::open(&picture).expect("a picture");
    }
    let (success, _, complaint) = try_run(
        folder,
        &[&map[..], &["--photograph", "v_2_00000.jpg"]].concat(),
    );
    assert!(
        !success && complaint.contains("in its catalogue"),
        "{complaint}"
    );
}

/// Without its run folder the classifier is taken out of the bundle. Its last layer, which was fitted on the fold
/// that is held out again, starts at random, but its features are there: a few epochs suffice.
fn a_bundle_is_trained_on(folder: &Path) {
    let text = std::fs::read_to_string(recipe("classifier")).expect("the recipe");
    let text = text
        .replace("\"virtual-classifier\"", "\"from-bundle\"")
        .replace("epochs = 60", "epochs = 8")
        .replace("weight_average = 0.98", "");
    std::fs::write(folder.join("from_bundle.toml"), text).expect("written");
    let train = ["train", "from_bundle.toml", "--from-bundle", "bundle"];
    run(folder, &train);
    let top1 =
        |name: &str| best_epoch(&folder.join("runs").join(name), "held_out")["validation_top1"];
    let (there, here) = (top1("virtual-classifier"), top1("from-bundle"));
    assert!(here > there - 0.3, "{there} became {here}");

    let (success, _, complaint) = try_run(
        folder,
        &[&train[..], &["--member", "2", "--out", "runs/second"]].concat(),
    );
    assert!(!success && complaint.contains("m2/"), "{complaint}");
}

/// Classifiers in the place of those of another bundle, whose finder and aligner stay. The card says what light does
/// to them.
fn classifiers_are_exchanged(folder: &Path, in_light: &str) {
    let bundle = [
        "bundle",
        "--name",
        "virtual",
        "--out",
        "exchanged",
        "--finder-of",
        "bundle",
        "--aligner-of",
        "bundle",
        "--classifiers",
        "runs/virtual-classifier",
        "--conditions",
        "runs/conditions.json",
    ];
    run(folder, &bundle);
    let open = |name: &str| Bundle::open(folder.join(name)).expect("a bundle");
    let (before, after) = (open("bundle"), open("exchanged"));
    let (before, after) = (before.manifest(), after.manifest());
    assert_eq!(before.finder, after.finder);
    assert_eq!(before.aligner, after.aligner);
    assert_eq!(before.ensemble, after.ensemble);
    assert_eq!(before.provenance, after.provenance);
    let of = |role: Role| -> Vec<&str> {
        let networks = after.provenance.networks.iter();
        let networks = networks.filter(|network| network.role == role);
        networks.map(|network| network.name.as_str()).collect()
    };
    for (role, name) in [
        (Role::Finder, "virtual-finder"),
        (Role::Aligner, "virtual-aligner"),
        (Role::Ensemble, "virtual-classifier"),
    ] {
        assert_eq!(of(role), [name]);
    }
    let tests = |m: &Manifest| -> BTreeSet<String> {
        let tests = m.self_test.iter();
        tests.map(|t| format!("{} {}", t.role, t.output)).collect()
    };
    assert_eq!(tests(before), tests(after));
    let card = std::fs::read_to_string(folder.join("bundle/MODEL_CARD.md")).expect("a card");
    assert!(!card.contains("white balance"));
    let card = std::fs::read_to_string(folder.join("exchanged/MODEL_CARD.md")).expect("a card");
    assert!(
        card.contains("Measured with the classifiers of this bundle") && card.contains(in_light)
    );
}

/// What light does to a bundle stands on a page. Returns the row of another white balance.
fn light_is_measured(folder: &Path) -> String {
    let measure = [
        "evaluate",
        "--bundle",
        "bundle",
        "--conditions",
        "--heads",
        "data/heads",
        "--labels",
        "runs/data/validation_and_unknown.csv",
        "--out",
        "runs/conditions.json",
    ];
    let table = run(folder, &measure);
    let row = table
        .lines()
        .find(|line| line.starts_with("| white balance: red × 0.75, blue × 1.25"))
        .expect("the white balance");
    run(folder, &["report", "--conditions", "runs/conditions.json"]);
    let page = std::fs::read_to_string(folder.join("runs/report.html")).expect("a page");
    assert!(page.contains("<td class=\"text\">white balance: red × 0.75, blue × 1.25</td>"));
    row.to_owned()
}

/// Rows of the stack, without its gallery and with it.
fn stack_is_measured(folder: &Path) -> Vec<serde_json::Value> {
    let table = "results/stacks.json";
    let report = ["report", "runs/virtual-classifier", "--table", table];
    run(
        folder,
        &[&report[..], &["--stack", "runs/stack.json"]].concat(),
    );
    let text = std::fs::read_to_string(folder.join(table)).expect("the rows");
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rows = rows["stacks"].as_array().expect("rows").clone();
    let galleries: Vec<bool> = rows.iter().filter_map(|r| r["gallery"].as_bool()).collect();
    assert_eq!(galleries, [false, true], "{rows:?}");
    let page = std::fs::read_to_string(folder.join("runs/report.html")).expect("a page");
    assert!(page.contains("Stacks of classifiers"));
    rows
}

/// Photographs of each stranger by which it is enrolled.
const SHOWN: usize = 5;

/// What the bundle names on heads that no network saw, and once the strangers are enrolled.
fn heads_are_measured(folder: &Path) -> serde_json::Value {
    let shown = SHOWN.to_string();
    let evaluate = [
        "evaluate",
        "--bundle",
        "bundle",
        "--heads",
        "data/heads",
        "--labels",
        "runs/data/validation_and_unknown.csv",
        "--enroll",
        &shown,
        "--format",
        "json",
    ];
    serde_json::from_str(&run(folder, &evaluate)).expect("JSON")
}

fn strangers_are_enrolled_and_named(folder: &Path, report: &serde_json::Value) {
    let bundle = Bundle::open(folder.join("bundle")).expect("a bundle");
    let gallery = bundle.gallery().expect("whole").expect("a gallery");
    assert!(
        gallery
            .photographs(KNOWN)
            .iter()
            .all(|count| (1..=8).contains(count))
    );
    let enrollment = &report["enrollment"];
    let number = |place: &str| {
        enrollment
            .pointer(place)
            .and_then(|n| n.as_f64())
            .expect("a number")
    };
    assert_eq!(number("/whales") as usize, STRANGERS);
    let left = HEADS_OF_STRANGER - SHOWN;
    assert_eq!(number("/seen_again/photographs") as usize, STRANGERS * left);
    // An embedding that was learnt from twelve whales says little of others. Chance is 1 in 20.
    assert!(number("/seen_again/top1") > 0.15, "{enrollment}");
    assert!(
        number("/seen_again/unknown_after") <= number("/seen_again/unknown_before"),
        "{enrollment}"
    );
    // Eight more than the twelve that were known.
    assert!(
        number("/known_after/top1") > number("/known_before/top1") - 0.2,
        "{enrollment}"
    );
}

/// Runs one of the training crate's scripts with hardly anything to train on.
fn run_small(script: &str, arguments: &[&Path]) {
    let train = Path::new(env!("CARGO_BIN_EXE_callosity-train"));
    let output = Command::new("bash")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .args(arguments)
        .env("SMOKE", "1")
        .env("OMP_NUM_THREADS", "1")
        .env("CALLOSITY", train.with_file_name("callosity"))
        .env("CALLOSITY_TRAIN", train)
        .output()
        .expect("bash starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}

/// The script of the long schedules for any camera, with hardly anything to train on.
#[test]
#[ignore = "takes minutes; run it after a change of the script"]
fn the_script_of_the_long_schedules_runs_from_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data, runs, out] = ["data", "runs", "bundle"].map(|name| folder.path().join(name));
    let population = Catalogue::new(1, 24, 6);
    write_data(&data, &population);
    draw_heads(&data.join("unlabelled_heads"), population.known(), 3, 5);
    run_small("right-whales-long.sh", &[&data, &runs, &out]);
    let bundle = Bundle::open(&out).expect("a bundle");
    let networks = &bundle.manifest().provenance.networks;
    let names: Vec<&str> = networks.iter().map(|n| n.name.as_str()).collect();
    let students = ["student-111", "student-112", "student-113"];
    assert_eq!(
        names,
        [&["finder-long", "aligner-long"][..], &students].concat()
    );
    assert!(runs.join("conditions-long.json").exists());
}

/// The script that trains the released bundle of drawn whales, with hardly anything to train on.
#[test]
fn the_script_of_the_virtual_survey_runs_from_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let (runs, out) = (folder.path().join("runs"), folder.path().join("bundle"));
    // The script draws by the program that flies, where that was built; else its data are here before it asks.
    let train = Path::new(env!("CARGO_BIN_EXE_callosity-train"));
    if !train.with_file_name("callosity").exists() {
        write_data(&runs.join("virtual"), &Catalogue::new(1, 24, 6));
    }
    run_small("virtual-survey.sh", &[&runs, &out]);
    let bundle = Bundle::open(&out).expect("a bundle");
    let manifest = bundle.manifest();
    assert_eq!(manifest.catalogue.individuals.len(), 24);
    let provenance = &manifest.provenance;
    let names: Vec<&str> = provenance
        .networks
        .iter()
        .map(|n| n.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "virtual-finder",
            "virtual-aligner-longer",
            "virtual-classifier-longer"
        ]
    );
    // Drawn frames alone.
    let frames = &provenance.frames_trained_on;
    assert!(
        frames.iter().all(|frame| frame.starts_with(['v', 'f'])),
        "{frames:?}"
    );
}

#[test]
fn virtual_whales_are_learnt_and_named_over_mqtt() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let population = Catalogue::new(POPULATION, KNOWN, STRANGERS);
    write_data(&folder.join("data"), &population);

    let said = run(folder, &["import", "data", "--strict"]);
    let heads = KNOWN * HEADS_EACH + STRANGERS * HEADS_OF_STRANGER;
    let expected = format!(
        "heads: {heads}, named {heads} ({} whales)",
        KNOWN + STRANGERS
    );
    assert!(said.contains(&expected), "{said}");
    // The strangers are those with few photographs.
    let (strangers, most) = (STRANGERS.to_string(), HEADS_OF_STRANGER.to_string());
    let split = [
        "split",
        "--unknown-whales",
        &strangers,
        "--unknown-minimum",
        "1",
        "--unknown-maximum",
        &most,
        "--folds",
        "6",
    ];
    run(folder, &split);
    for kind in ["classifier", "finder", "aligner"] {
        run(folder, &["train", &recipe(kind)]);
        let run = folder.join(format!("runs/virtual-{kind}"));
        for file in ["metrics.csv", "learning_curves.svg", "last.safetensors"] {
            assert!(run.join(file).exists(), "{kind} left no {file}");
        }
    }
    networks_are_compared(folder);
    saliency_is_shown(folder);
    let stack = ["stack", "runs/virtual-classifier"];
    let said = run(
        folder,
        &[&stack[..], &["--pca", "12", "--power", "fit"]].concat(),
    );
    assert!(said.contains("12 principal components"), "{said}");
    // Of the strangers half stay for measuring.
    let unfitted = (STRANGERS / 2).to_string();
    let with_gallery = [
        "--gallery-photographs",
        "8",
        "--unfitted-strangers",
        &unfitted,
    ];
    run(folder, &[&stack[..], &with_gallery].concat());
    let stack_rows = stack_is_measured(folder);
    make_bundle(folder, "runs/virtual-finder", "bundle");
    a_bundle_is_trained_on(folder);
    let in_light = light_is_measured(folder);
    classifiers_are_exchanged(folder, &in_light);
    frames_are_measured_by_who_never_saw_them(folder);

    let report = heads_are_measured(folder);
    strangers_are_enrolled_and_named(folder, &report);
    let number = |name: &str| report["heads"][name].as_f64().expect("a number");
    assert!(number("known") > 30.0, "{report}");
    assert_eq!(number("unknown") as usize, STRANGERS * HEADS_OF_STRANGER);
    // Chance is 1 in 12.
    assert!(number("top1") > 0.5, "{report}");
    // What the bundle says through ONNX, with its gallery.
    let by_report = &stack_rows[1]["naming"];
    for name in ["top1", "log_loss", "calibration_error"] {
        let there = by_report[name].as_f64().expect("a number");
        assert!(
            (number(name) - there).abs() < 0.05,
            "{name}: {report} {by_report}"
        );
    }
    assert!(number("auroc_unknown_not_fitted") > 0.5, "{report}");

    // Frames of another survey over the same whales.
    let frames: PathBuf = folder.join("flight");
    let truth = draw_frames(&frames, &population, 1000, 40);
    let bundle = Bundle::open(folder.join("bundle")).expect("a bundle");
    let catalogue: BTreeSet<String> = population.names().into_iter().collect();
    let (sightings, records) = flight(&frames, &bundle);
    let finally = sightings.iter().map(|s| (s.occurrence_id, Named::from(s)));
    let score = Score::new(&truth, &records, &finally.collect(), &catalogue);
    eprintln!("{score}\n{score:?}");
    let catalogued = truth
        .frames
        .values()
        .flatten()
        .filter(|h| catalogue.contains(&h.individual))
        .count();
    assert!(catalogued > 10, "{catalogued} heads are too few to tell");
    // Named by guessing, and if every head were found: 1 in 12.
    let named = score.by_frame.right + score.by_frame.right_uncertain;
    assert!(4 * named > catalogued, "{named} of {catalogued}: {score:?}");
    let found = score.by_frame.seen;
    assert!(2 * found > score.heads, "{found} of {}", score.heads);
}
