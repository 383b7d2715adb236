//! Fits and measures how frames are joined to sightings: takes minutes to an hour, so these are ignored by `cargo test`.
//!
//! ```sh
//! FLIGHT_PASSES=400 FLIGHT_SEED=11 cargo test --release --test frame_evidence -- --ignored --nocapture virtual_flight
//! HELD_OUT_HEADS=validation_and_unknown.csv cargo test --release --test frame_evidence -- --ignored --nocapture real_heads
//! ```
//!
//! `FLIGHT_CAMERA` is the name of a camera condition, such as `noise`. What the networks say of a virtual flight is kept in
//! `target/flight-<camera>-<seed>-<passes>.jsonl`, so that a second run takes seconds. `HELD_OUT_HEADS` is a table `image,whale` of photographs in `$CALLOSITY_DATA/heads` that the networks of
//! `models/right-whales-measured` were not trained on, as `callosity-train split --list` writes it.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use callosity::rehearsal::{Score, TrueHead, Truth};
use callosity::service::Recogniser;
use callosity::sighting::{
    FrameRecord, HeadRecord, LOST_AFTER, Named, SeenFrame, SeenHead, Tracker,
};
use jiff::{SignedDuration, Timestamp};
use link::message::{FrameReference, Head, PixelPosition};
use recognition::bundle::Bundle;
use recognition::geometry::{Landmarks, Point};
use recognition::identify::{Appearance, FrameCorrelation, Identifier, Opinion, PooledOpinion};
use recognition::inference::EngineConfig;
use recognition::pixels::{CameraCondition, EncodedPhotograph, Photograph};
use recognition::virtual_survey::{Catalogue, RevisitingSurvey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn number(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value.map_or(default, |value| value.parse().expect(variable))
}

fn identifier(bundle: &str) -> Identifier {
    let bundle = Bundle::open(here().join("models").join(bundle)).unwrap();
    Identifier::new(&bundle, &EngineConfig::default()).unwrap()
}

/// A frame with whales, as the networks saw it.
#[derive(Serialize, Deserialize)]
struct Flown {
    number: u64,
    heads: Vec<SeenHead>,
    truth: Vec<(String, Landmarks, u64)>,
}

/// Half the width and height of the demo's: the networks see no more of a head.
const FRAME: (u32, u32) = (1536, 1024);

/// A flight of so many passes.
fn fly(identifier: &mut Identifier, seed: u64, passes: u64) -> Vec<Flown> {
    let camera = std::env::var("FLIGHT_CAMERA").unwrap_or_else(|_| "as-is".to_owned());
    let condition = CameraCondition::MEASURED
        .iter()
        .find(|(name, _)| *name == camera)
        .map_or(CameraCondition::AS_IS, |(_, condition)| *condition);
    println!("camera: {camera} ({condition})");
    let path = here().join(format!("target/flight-{camera}-{seed}-{passes}.jsonl"));
    if let Ok(file) = fs::File::open(&path) {
        let lines = BufReader::new(file).lines();
        return lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
    }
    let population = Catalogue::new(1, 24, 6);
    let mut flown = Vec::new();
    for plan in RevisitingSurvey::new(&population, seed) {
        let Some(pass) = plan.pass else {
            continue;
        };
        if pass >= passes {
            break;
        }
        let frame = plan
            .photograph(&population, FRAME.0, FRAME.1, &condition)
            .unwrap();
        let detections = identifier
            .examine_photograph(&Photograph::whole(frame.image))
            .unwrap();
        let heads = detections.heads.iter().map(|head| SeenHead {
            landmarks: head.landmarks,
            confidence: head.confidence,
            opinion: identifier.opinion(head, identifier.neighbours()),
            appearance: Appearance::of(head),
        });
        let truth = frame.heads.into_iter();
        flown.push(Flown {
            number: plan.number,
            heads: heads.collect(),
            truth: truth.map(|h| (h.individual, h.landmarks, pass)).collect(),
        });
    }
    let mut file = BufWriter::new(fs::File::create(&path).unwrap());
    for frame in &flown {
        serde_json::to_writer(&mut file, frame).unwrap();
        file.write_all(b"\n").unwrap();
    }
    flown
}

fn file(frame: &Flown) -> String {
    format!("{:06}", frame.number)
}

/// What the tracker makes of a flight at one frame a second.
fn track(flown: &[Flown], identifier: &Identifier) -> Score {
    let judge = |opinion: &Opinion| identifier.identify(opinion);
    let mut tracker = Tracker::new(LOST_AFTER);
    let mut records = Vec::new();
    let mut finally: BTreeMap<Uuid, Named> = BTreeMap::new();
    let mut truth = Truth::default();
    let mut end = |changes: Vec<callosity::sighting::SightingChange>| {
        for change in changes {
            let said = Named::new(&change.sighting.identification, change.sighting.stranger);
            finally.insert(change.sighting.id, said);
        }
    };
    for frame in flown {
        let time = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(frame.number as i64);
        let reference = FrameReference {
            number: frame.number,
            file: Some(file(frame)),
            width_pixels: FRAME.0,
            height_pixels: FRAME.1,
            incomplete: None,
            damaged: None,
        };
        let observed = tracker.observe(
            &SeenFrame {
                camera: "left".into(),
                time,
                frame: reference.clone(),
                motion: None,
                heads: frame.heads.clone(),
            },
            &judge,
        );
        end(observed.changes);
        let pixels = |p: Point| PixelPosition { x: p.x, y: p.y };
        let heads = frame.heads.iter().zip(&observed.sightings);
        records.push(FrameRecord {
            camera: "left".into(),
            time,
            frame: reference,
            heads: heads
                .map(|(head, sighting)| HeadRecord {
                    occurrence_id: sighting.id,
                    head: Head {
                        bonnet_pixels: pixels(head.landmarks.bonnet),
                        blowhead_pixels: pixels(head.landmarks.blowhead),
                        head_length_pixels: head.landmarks.head_length(),
                        confidence: head.confidence,
                    },
                    alone: Named::new(&judge(&head.opinion), None),
                    sighting: Named::new(&sighting.identification, sighting.stranger),
                })
                .collect(),
        });
        let heads = frame
            .truth
            .iter()
            .map(|(individual, landmarks, pass)| TrueHead {
                individual: individual.clone(),
                landmarks: *landmarks,
                pass: *pass,
            });
        truth.frames.insert(file(frame), heads.collect());
    }
    end(tracker.end_all());
    let known = identifier.manifest().catalogue.individuals.iter().cloned();
    Score::new(&truth, &records, &finally, &known.collect())
}

/// Heads that are one animal's, in one pass or encounter.
struct Group {
    animal: String,
    /// Heads of one group are in one pass.
    heads: Vec<SeenHead>,
}

/// Log loss and top-1 of groups of several heads, for each correlation, and the log loss of "unknown".
fn fit_correlation(groups: &[Group], individuals: &[String]) {
    let several: Vec<&Group> = groups.iter().filter(|g| g.heads.len() > 1).collect();
    let place = |animal: &str| individuals.iter().position(|i| i == animal);
    println!(
        "{} groups of several heads, {} of them of known animals",
        several.len(),
        several
            .iter()
            .filter(|g| place(&g.animal).is_some())
            .count()
    );
    println!("correlation  log loss   top-1   log loss of unknown");
    for step in 0..=10 {
        let correlation = f64::from(step) / 10.0;
        let both = FrameCorrelation {
            name: correlation,
            unknown: correlation,
        };
        let (mut loss, mut right, mut known, mut unknown_loss) = (0.0, 0, 0, 0.0);
        for group in &several {
            let mut pooled = PooledOpinion::of(&group.heads[0].opinion);
            group.heads[1..].iter().for_each(|h| pooled.add(&h.opinion));
            let said = pooled.opinion_at(both);
            let truth = place(&group.animal);
            let unknown = f64::from(said.unknown).clamp(1e-6, 1.0 - 1e-6);
            match truth {
                Some(index) => {
                    known += 1;
                    let own = said.probabilities[index];
                    loss -= f64::from(own).max(1e-12).ln();
                    right += usize::from(said.probabilities.iter().all(|p| *p <= own));
                    unknown_loss -= (1.0 - unknown).ln();
                }
                None => unknown_loss -= unknown.ln(),
            }
        }
        let known = known.max(1) as f64;
        println!(
            "{correlation:>11.1}  {:>8.4}  {:>5.1} %  {:>8.4}",
            loss / known,
            100.0 * right as f64 / known,
            unknown_loss / several.len() as f64
        );
    }
    println!("in use: {:?}", FrameCorrelation::FITTED);
    let (mut right, mut known) = (0, 0);
    for group in &several {
        if let Some(index) = place(&group.animal) {
            for head in &group.heads {
                let own = head.opinion.probabilities[index];
                known += 1;
                right += u32::from(head.opinion.probabilities.iter().all(|p| *p <= own));
            }
        }
    }
    println!(
        "each of these heads alone: top-1 {:.1} % of {known}",
        100.0 * f64::from(right) / f64::from(known.max(1_u32))
    );
}

/// The line of log-odds over cosine by logistic regression, both answers weighted alike, on pairs of different groups
/// (one animal seen again or two animals) and on pairs within a group.
fn fit_likeness(groups: &[Group]) {
    let heads: Vec<(usize, &str, &Appearance)> = groups
        .iter()
        .enumerate()
        .flat_map(|(g, group)| {
            let looks = group.heads.iter().filter_map(|h| h.appearance.as_ref());
            looks.map(move |a| (g, group.animal.as_str(), a))
        })
        .collect();
    let (mut within, mut again, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (i, a) in heads.iter().enumerate() {
        for b in &heads[..i] {
            let cosine = a.2.similarity(b.2).unwrap();
            let of = match (a.0 == b.0, a.1 == b.1) {
                (true, _) => &mut within,
                (false, true) => &mut again,
                (false, false) => &mut others,
            };
            of.push(cosine);
        }
    }
    for (what, same) in [("within a pass", &mut within), ("seen again", &mut again)] {
        if same.is_empty() {
            continue;
        }
        same.sort_by(f64::total_cmp);
        let quantile = |q: f64| same[((same.len() - 1) as f64 * q) as usize];
        println!(
            "{what}: {} pairs, cosine 5 % {:.2}, median {:.2}, 95 % {:.2}",
            same.len(),
            quantile(0.05),
            quantile(0.5),
            quantile(0.95)
        );
        let (slope, even) = logistic(same, &others);
        println!("    slope {slope:.2}, even at {even:.3}");
    }
    others.sort_by(f64::total_cmp);
    let quantile = |q: f64| others[((others.len() - 1) as f64 * q) as usize];
    println!(
        "of two animals: {} pairs, cosine 5 % {:.2}, median {:.2}, 95 % {:.2}, 99.9 % {:.2}",
        others.len(),
        quantile(0.05),
        quantile(0.5),
        quantile(0.95),
        quantile(0.999)
    );
}

/// Newton's method on slope and intercept.
fn logistic(same: &[f64], others: &[f64]) -> (f64, f64) {
    let (mut slope, mut intercept) = (1.0_f64, 0.0_f64);
    for _ in 0..60 {
        let (mut g, mut h) = ([0.0; 2], [[1e-9, 0.0], [0.0, 1e-9]]);
        for (cosines, label) in [(same, 1.0), (others, 0.0)] {
            let weight = 1.0 / cosines.len().max(1) as f64;
            for &x in cosines {
                let p = 1.0 / (1.0 + (-(slope * x + intercept)).exp());
                let (error, w) = (weight * (label - p), weight * p * (1.0 - p));
                g = [g[0] + error * x, g[1] + error];
                h[0][0] += w * x * x;
                h[0][1] += w * x;
                h[1][1] += w;
            }
        }
        let determinant = h[0][0] * h[1][1] - h[0][1] * h[0][1];
        slope += (h[1][1] * g[0] - h[0][1] * g[1]) / determinant;
        intercept += (h[0][0] * g[1] - h[0][1] * g[0]) / determinant;
    }
    (slope, -intercept / slope)
}

/// The heads of each animal in each pass, by the truth.
fn groups_of(flown: &[Flown]) -> Vec<Group> {
    let mut groups: BTreeMap<(u64, String), Vec<SeenHead>> = BTreeMap::new();
    for frame in flown {
        for (individual, landmarks, pass) in &frame.truth {
            let near = frame.heads.iter().find(|head| {
                let away = head.landmarks.centre().distance(landmarks.centre());
                away < 0.5 * landmarks.head_length()
            });
            if let Some(head) = near {
                let group = groups.entry((*pass, individual.clone())).or_default();
                group.push(head.clone());
            }
        }
    }
    let groups = groups.into_iter();
    groups
        .map(|((_, animal), heads)| Group { animal, heads })
        .collect()
}

#[test]
#[ignore = "draws and recognises some hundred frames"]
fn virtual_flight() {
    let (seed, passes) = (number("FLIGHT_SEED", 11), number("FLIGHT_PASSES", 400));
    let mut identifier = identifier("virtual-survey");
    let flown = fly(&mut identifier, seed, passes);
    println!("flight {seed}: {passes} passes over sea with animals");
    println!("{}", track(&flown, &identifier));
    let groups = groups_of(&flown);
    fit_correlation(&groups, &identifier.manifest().catalogue.individuals);
    fit_likeness(&groups);
    let seen: BTreeSet<_> = groups.iter().map(|g| &g.animal).collect();
    assert!(seen.len() > 20, "{seen:?}");
}

/// Encounters are not named in the data set. What is printed is for all held-out photographs of each whale, which are of
/// several encounters as a rule, so the correlation within one is at least the one found here.
#[test]
#[ignore = "recognises hundreds of photographs"]
fn real_heads() {
    let Ok(table) = std::env::var("HELD_OUT_HEADS") else {
        println!("SKIPPED: HELD_OUT_HEADS names no table");
        return;
    };
    let data = std::env::var_os("CALLOSITY_DATA")
        .map(PathBuf::from)
        .unwrap();
    let identifier = identifier("right-whales-measured");
    let mut groups: BTreeMap<String, Vec<SeenHead>> = BTreeMap::new();
    for row in csv::Reader::from_path(table).unwrap().records() {
        let row = row.unwrap();
        let photograph = EncodedPhotograph::open(&data.join("heads").join(&row[0])).unwrap();
        let head = identifier.detect_head(&photograph).unwrap().unwrap();
        groups.entry(row[1].to_owned()).or_default().push(SeenHead {
            landmarks: head.landmarks,
            confidence: head.confidence,
            opinion: identifier.opinion(&head, identifier.neighbours()),
            appearance: Appearance::of(&head),
        });
    }
    let groups: Vec<Group> = groups
        .into_iter()
        .map(|(animal, heads)| Group { animal, heads })
        .collect();
    fit_correlation(&groups, &identifier.manifest().catalogue.individuals);
    // Each whale's photographs are of one group here: these pairs are "within".
    fit_likeness(&groups);
}
