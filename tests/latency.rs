//! How long a name takes from the end of exposure to the broker, and how much of it is ours.
#![allow(missing_docs)]

#[path = "common/flying.rs"]
mod flying;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use flying::{Mosquitto, PASSWORD, Recorder, USER, presence};
use jiff::Timestamp;
use link::message::{Health, Presence, Sighting};
use tokio::time::timeout;

fn callosity() -> Command {
    Command::new(env!("CARGO_BIN_EXE_callosity"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The program on frames of the virtual survey that have a whale, one after the other, on a real broker.
/// `cargo test --release --test latency -- --ignored --nocapture`; wants a machine that does nothing else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn from_exposure_to_broker() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let drawn = callosity()
        .args([
            "demo",
            "--uninterrupted",
            "--count",
            "40",
            "--rate",
            "10",
            "--out",
        ])
        .arg(folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(drawn.code().is_some());
    // Each camera has its folder there, and names of files are of the whole flight.
    let annotated = folder.path().join("annotated");
    let frames = folder.path().join("with-whales");
    fs::create_dir(&frames).unwrap();
    for of_camera in fs::read_dir(folder.path().join("virtual-frames")).unwrap() {
        let of_camera = of_camera.unwrap().path();
        let files = fs::read_dir(&of_camera).into_iter().flatten();
        for file in files.map(Result::unwrap) {
            if annotated.join(file.file_name()).exists() {
                fs::rename(file.path(), frames.join(file.file_name())).unwrap();
            }
        }
    }
    let mut recorder = Recorder::start(broker.port).await;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/virtual-survey");
    let mut flying = callosity()
        .args([
            "run",
            "--rate",
            "1",
            "--platform",
            "test",
            "--username",
            USER,
        ])
        .args([
            "--set",
            "broker.health_interval_seconds=1",
            "--broker",
            &broker.address().to_string(),
        ])
        .arg("--bundle")
        .arg(models)
        .arg("--replay")
        .arg(&frames)
        .arg("--state")
        .arg(folder.path().join("state"))
        .env("CALLOSITY_MQTT_PASSWORD", PASSWORD)
        .spawn()
        .unwrap();
    let mut total = Vec::new();
    let mut seen = BTreeSet::new();
    let mut health: Option<Health> = None;
    loop {
        let publish = timeout(flying::PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap();
        let now = Timestamp::now();
        if publish.topic.ends_with(b"/sighting") {
            let sighting: Sighting = serde_json::from_slice(&publish.payload).unwrap();
            // The first of a frame: the others come right behind it.
            if seen.insert(sighting.frame.number) {
                let age = now.duration_since(sighting.event_date);
                total.push(1e3 * age.as_secs_f64());
            }
        } else if publish.topic.ends_with(b"/health") {
            health = Some(serde_json::from_slice(&publish.payload).unwrap());
        } else if presence(&publish) == Some(Presence::Stopped) {
            break;
        }
    }
    assert!(flying.wait().unwrap().success());
    let health = health.unwrap();
    let stages: BTreeMap<&str, f64> = health
        .stages
        .iter()
        .map(|(stage, time)| (stage.as_str(), time.mean_milliseconds))
        .collect();
    let networks = stages["find"] + stages["align"] + stages["identify"];
    let total = median(total);
    println!(
        "{} frames of 6.3 megapixels on {}: {total:.1} ms from exposure to the broker (median), of which networks \
         {networks:.1} ms, decoding the JPEG {:.1} ms, the rest {:.1} ms",
        seen.len(),
        health.engine.name,
        stages["decode"],
        total - networks - stages["decode"],
    );
}
