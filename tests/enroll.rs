//! The program `callosity bundle enroll` on toy photographs: a stranger becomes somebody.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use common::{STRANGER, colour, draw, head, onnxruntime, sea, tiny, tiny_with_gallery};
use ground::Delivery;
use ground::store::{NewDecision, Store, Verdict};
use image::Rgb;
use recognition::bundle::Bundle;
use recognition::geometry::{HeadCrop, Landmarks};
use recognition::identify::{Decision, FrameReport, HeadIdentification};
use recognition::pixels::encode_jpeg;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const SUNNY: &str = "Sunny";

struct Box {
    folder: tempfile::TempDir,
    bundle: tempfile::TempDir,
}

impl Box {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            bundle: tiny_with_gallery(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Draws heads into a frame; each number gives the whales other places.
    fn frame(&self, name: &str, whales: &[(Rgb<u8>, u32)]) -> PathBuf {
        let mut image = sea(768, 512);
        for &(colour, number) in whales {
            draw(&mut image, &place(number), colour);
        }
        let path = self.path(name);
        image.save(&path).unwrap();
        path
    }

    fn enroll(&self, bundle: &Path, arguments: &[&str], photographs: &[&Path]) -> Assert {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callosity"));
        command
            .env_remove("ORT_DYLIB_PATH")
            .args(["bundle", "enroll", "--engine", "builtin"])
            .arg(bundle)
            .args(arguments)
            .args(["--out"])
            .arg(self.path("new"))
            .args(photographs);
        command.assert()
    }

    fn named(&self, arguments: &[&str], photographs: &[&Path]) -> Assert {
        let arguments = [&["--individual", SUNNY], arguments].concat();
        self.enroll(self.bundle.path(), &arguments, photographs)
    }
}

fn place(number: u32) -> Landmarks {
    match number % 3 {
        0 => head((300.0, 180.0), (180.0, 120.0)),
        1 => head((620.0, 440.0), (660.0, 320.0)),
        _ => head((200.0, 400.0), (330.0, 420.0)),
    }
}

fn said(assert: &Assert) -> (String, String) {
    let output = assert.get_output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The heads of a photograph.
fn identify(bundle: &Path, engine: &[&str], photograph: &Path) -> Vec<HeadIdentification> {
    let assert = Command::new(env!("CARGO_BIN_EXE_callosity"))
        .env_remove("ORT_DYLIB_PATH")
        .args(["identify", "--format", "jsonl"])
        .args(engine)
        .arg("--bundle")
        .arg(bundle)
        .arg(photograph)
        .assert()
        .success();
    let report: FrameReport = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    report.frame.heads
}

/// Every file of a bundle.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_stranger_is_enrolled_and_named_when_seen_again() {
    let b = Box::new();
    let old = b.bundle.path();
    fs::write(old.join("MODEL_CARD.md"), "what it is").unwrap();
    let before = files(old);
    let shown = [0, 2].map(|i| b.frame(&format!("shown-{i}.png"), &[(STRANGER, i)]));
    let later = b.frame("later.png", &[(STRANGER, 1), (colour("indigo"), 0)]);
    let builtin = ["--engine", "builtin"];
    let stranger = |bundle: &Path, engine: &[&str]| {
        let mut heads = identify(bundle, engine, &later);
        assert_eq!(heads.len(), 2, "{heads:?}");
        heads.sort_by(|a, b| a.bonnet.y.total_cmp(&b.bonnet.y));
        let [indigo, stranger] = heads.try_into().unwrap();
        assert_eq!(indigo.decision, Decision::Identified);
        assert_eq!(indigo.best().unwrap().individual, "indigo");
        stranger
    };
    assert_eq!(stranger(old, &builtin).decision, Decision::Unknown);

    let shown: Vec<&Path> = shown.iter().map(PathBuf::as_path).collect();
    let (out, warnings) = said(&b.named(&[], &shown).success());
    assert!(
        out.contains("tiny 1.0.1, 4 individuals, 1 of them enrolled"),
        "{out}"
    );
    assert!(out.contains("Sunny by 2 photographs"), "{out}");
    assert!(out.contains("identified, Sunny"), "{out}");
    assert_eq!(warnings, "");
    assert_eq!(files(old), before, "the old bundle was changed");

    let new = b.path("new");
    let bundle = Bundle::open(&new).unwrap();
    let manifest = bundle.manifest();
    assert_eq!(manifest.gallery.as_ref().unwrap().enrolled, [SUNNY]);
    assert_eq!(manifest.version.to_string(), "1.0.1");
    let enrollment = &manifest.provenance.enrollments[0];
    assert_eq!(enrollment.individual, SUNNY);
    let digests: Vec<&String> = enrollment.photographs.iter().map(|p| &p.sha256).collect();
    for (digest, path) in digests.into_iter().zip(&shown) {
        assert_eq!(
            *digest,
            hex::encode(Sha256::digest(fs::read(path).unwrap()))
        );
    }
    assert_eq!(fs::read(new.join("MODEL_CARD.md")).unwrap(), b"what it is");
    // No half-written bundle is left beside it.
    let beside = fs::read_dir(b.folder.path()).unwrap();
    assert_eq!(
        beside
            .filter(|e| e.as_ref().unwrap().path().is_dir())
            .count(),
        1
    );

    let mut engines = vec![builtin.to_vec()];
    let library = onnxruntime("a_stranger_is_enrolled_and_named_when_seen_again");
    let library = library.map(|path| path.display().to_string());
    if let Some(library) = &library {
        engines.push(vec!["--engine", "onnxruntime", "--onnxruntime", library]);
    }
    for engine in engines {
        let seen = stranger(&new, &engine);
        assert_eq!(seen.decision, Decision::Identified, "{seen:?}");
        assert_eq!(seen.best().unwrap().individual, SUNNY);
        assert_eq!(seen.candidates.len(), 4);
    }
    // A table of every individual has a column for it.
    let assert = Command::new(env!("CARGO_BIN_EXE_callosity"))
        .env_remove("ORT_DYLIB_PATH")
        .args([
            "identify",
            "--engine",
            "builtin",
            "--distribution",
            "--bundle",
        ])
        .args([&new, &later])
        .assert()
        .success();
    assert!(
        said(&assert)
            .0
            .starts_with("image,ash,indigo,olive,Sunny,unknown,share_read,damaged\n")
    );

    let assert = Command::new(env!("CARGO_BIN_EXE_callosity"))
        .env_remove("ORT_DYLIB_PATH")
        .args(["bundle", "check", "--engine", "builtin"])
        .arg(&new)
        .assert()
        .success();
    let (out, _) = said(&assert);
    assert!(
        out.contains("gallery.safetensors, 5 photographs of 4 individuals"),
        "{out}"
    );
    assert!(
        out.contains("enrolled  Sunny: 2 photographs, last 20"),
        "{out}"
    );
}

#[test]
fn head_photographs_are_enrolled_too_and_more_are_added() {
    let b = Box::new();
    let crop = |name: &str, colour: Rgb<u8>, (width, height): (u32, u32)| {
        let mut image = sea(width, height);
        draw(
            &mut image,
            &HeadCrop::RIGHT_WHALE.landmarks(width, height),
            colour,
        );
        let path = b.path(name);
        image.save(&path).unwrap();
        path
    };
    let first = crop("first.png", STRANGER, (400, 200));
    let (_, warnings) = said(&b.named(&["--aligned"], &[&first]).success());
    assert!(
        warnings.contains("one photograph cannot be compared"),
        "{warnings}"
    );
    fs::rename(b.path("new"), b.path("once")).unwrap();

    let second = crop("second.png", STRANGER, (500, 250));
    let aligned = ["--aligned", "--individual", SUNNY];
    let add = [&aligned[..], &["--add"]].concat();
    let once = b.path("once");
    let (_, complaint) = said(&b.enroll(&once, &aligned, &[&second]).failure().code(1));
    assert!(
        complaint.contains("knows Sunny already") && complaint.contains("--add"),
        "{complaint}"
    );
    let (_, complaint) = said(&b.enroll(&once, &add, &[&first]).failure().code(1));
    assert!(complaint.contains("enrolled already"), "{complaint}");
    let (out, warnings) = said(&b.enroll(&once, &add, &[&second]).success());
    assert!(
        out.contains("tiny 1.0.2, 4 individuals, 1 of them enrolled"),
        "{out}"
    );
    assert!(!warnings.contains("bundle knows"), "{warnings}");
    let bundle = Bundle::open(b.path("new")).unwrap();
    assert_eq!(
        bundle.gallery().unwrap().unwrap().photographs(4),
        [1, 1, 1, 2]
    );
    assert_eq!(bundle.manifest().provenance.enrollments.len(), 2);

    // To a whale of the catalogue.
    fs::remove_dir_all(b.path("new")).unwrap();
    let olive = crop("olive.png", colour("olive"), (400, 200));
    let add = ["--aligned", "--add", "--individual", "olive"];
    let (out, _) = said(&b.enroll(b.bundle.path(), &add, &[&olive]).success());
    assert!(
        out.contains("3 individuals, 0 of them enrolled; olive by 1 photograph"),
        "{out}"
    );
}

#[test]
fn whoever_looks_like_somebody_else_is_warned_of() {
    let b = Box::new();
    let stranger = b.frame("stranger.png", &[(STRANGER, 0)]);
    let indigo = b.frame("indigo.png", &[(colour("indigo"), 1)]);
    let (_, warnings) = said(&b.named(&[], &[&stranger, &indigo]).success());
    assert!(
        warnings.contains("indigo.png looks like indigo"),
        "{warnings}"
    );
    assert!(
        warnings.contains("indigo.png is not much like the other"),
        "{warnings}"
    );
    assert!(
        warnings.contains("stranger.png is not much like the other"),
        "{warnings}"
    );
    assert!(!warnings.contains("stranger.png looks like"), "{warnings}");
}

#[test]
fn what_cannot_be_enrolled_is_refused_and_nothing_is_written() {
    let b = Box::new();
    let good = b.frame("good.png", &[(STRANGER, 0)]);
    let empty = b.frame("empty.png", &[]);
    let two = b.frame("two.png", &[(STRANGER, 0), (colour("ash"), 1)]);
    let copy = b.path("copy.png");
    fs::copy(&good, &copy).unwrap();
    let text = b.path("notes.txt");
    fs::write(&text, "no photograph").unwrap();
    let nowhere = b.path("nowhere.png");
    let old = b.bundle.path().to_owned();
    let plain = tiny();

    let as_sunny = ["--individual", SUNNY];
    let cases: [(&Path, &[&str], &[&Path], &str); 11] = [
        (
            &old,
            &["--individual", "indigo"],
            &[&good],
            "knows indigo already",
        ),
        (
            &old,
            &["--individual", SUNNY, "--add"],
            &[&good],
            "knows nobody called Sunny",
        ),
        (
            &old,
            &["--individual", "unknown"],
            &[&good],
            "gallery.enrolled[0]",
        ),
        (
            &old,
            &["--individual", " "],
            &[&good],
            "gallery.enrolled[0]",
        ),
        (
            &old,
            &as_sunny,
            &[&good, &empty],
            "empty.png: no head found",
        ),
        (&old, &as_sunny, &[&good, &two], "two.png: 2 heads found"),
        (
            &old,
            &as_sunny,
            &[&good, &copy],
            "copy.png: this photograph was enrolled already",
        ),
        (&old, &as_sunny, &[&good, &text], "notes.txt"),
        (&old, &as_sunny, &[&nowhere], "nowhere.png"),
        (&plain, &as_sunny, &[&good], "has no gallery"),
        (&b.path("no-bundle"), &as_sunny, &[&good], "no-bundle"),
    ];
    for (bundle, arguments, photographs, named) in cases {
        let (_, complaint) = said(&b.enroll(bundle, arguments, photographs).failure().code(1));
        assert!(complaint.contains(named), "{named}: {complaint}");
        assert!(!b.path("new").exists(), "{named}: something was written");
    }

    fs::create_dir(b.path("new")).unwrap();
    let (_, complaint) = said(&b.named(&[], &[&good]).failure().code(1));
    assert!(complaint.contains("there already"), "{complaint}");
    assert_eq!(fs::read_dir(b.path("new")).unwrap().count(), 0);
    let folders = fs::read_dir(b.folder.path()).unwrap();
    let folders = folders.filter(|e| e.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 1, "a folder was left over");

    let within = old.join("within");
    Command::new(env!("CARGO_BIN_EXE_callosity"))
        .env_remove("ORT_DYLIB_PATH")
        .args(["bundle", "enroll", "--engine", "builtin"])
        .args([&old, &good])
        .args(["--individual", SUNNY, "--out"])
        .arg(&within)
        .assert()
        .failure()
        .code(1);
    assert!(!within.exists());
}

/// A sighting with a picture of its head, as an aircraft sends them.
fn sent(number: u128, flight: u128, size: u32, colour: Rgb<u8>) -> [Delivery; 2] {
    let mut head = sea(2 * size, size);
    draw(
        &mut head,
        &HeadCrop::RIGHT_WHALE.landmarks(2 * size, size),
        colour,
    );
    let (topic, id) = ("callosity/v1/N57RW/sighting", Uuid::from_u128(number));
    let message = serde_json::json!({
        "occurrenceID": id,
        "state": "new",
        "revision": 0,
        "eventDate": "2026-03-01T14:00:00Z",
        "platform": "N57RW",
        "eventID": Uuid::from_u128(flight),
        "basisOfRecord": "MachineObservation",
        "scientificName": "Eubalaena glacialis",
        "identifiedBy": "test",
        "decision": "unknown",
        "candidates": [{"organismID": "olive", "probability": 0.75}],
        "frame": {"number": 1, "widthPixels": 768, "heightPixels": 512},
        "head": {"bonnetPixels": [30, 20], "blowheadPixels": [10, 20], "headLengthPixels": size, "confidence": 0.75},
    });
    let message = serde_json::to_vec(&message).unwrap();
    let jpeg = encode_jpeg(&head, 90).unwrap();
    let crop = format!("callosity/v1/N57RW/crop/{id}");
    [
        Delivery::from_disk(topic, "application/json", message).unwrap(),
        Delivery::from_disk(&crop, "image/jpeg", jpeg).unwrap(),
    ]
}

/// An unknown whale is named by a reviewer, enrolled from the pictures that were confirmed, and named when it is seen again.
#[test]
fn a_whale_that_a_reviewer_named_is_enrolled_and_named_when_seen_again() {
    let b = Box::new();
    let data = b.path("data");
    let on_store = |decisions: &[(u128, bool)]| {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store = Store::open(&data, None).await.unwrap();
            for (number, possible) in decisions {
                let decision = NewDecision {
                    revision: 0,
                    decisions: 0,
                    verdict: Verdict::NotInCatalogue,
                    animal: Some(SUNNY.to_owned()),
                    possible: *possible,
                    note: None,
                };
                store
                    .decide(Uuid::from_u128(*number), &decision, "Ada")
                    .await
                    .unwrap();
            }
            store.close().await;
        });
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(&data, None).await.unwrap();
        // Five sightings of the stranger in one flight, one in another; somebody else's besides.
        for (number, flight, size, colour) in [
            (1, 1, 150, STRANGER),
            (2, 1, 210, STRANGER),
            (3, 1, 200, STRANGER),
            (4, 1, 160, STRANGER),
            (5, 2, 170, STRANGER),
            (6, 2, 180, colour("indigo")),
        ] {
            store
                .keep(&sent(number, flight, size, colour))
                .await
                .unwrap();
        }
        store.close().await;
    });
    let ground = |command: &str, bundle: &Path, arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_callosity"));
        program
            .env_remove("ORT_DYLIB_PATH")
            .env_remove("CALLOSITY_DATABASE")
            .args(["ground", command, "--engine", "builtin", "--data"])
            .arg(&data);
        if command == "enroll" {
            program.arg("--bundle");
        }
        program.arg(bundle).args(arguments).assert()
    };
    let new = b.path("new");
    let new_text = new.display().to_string();
    let file = b.path("new.tar.zst");
    let file_text = file.display().to_string();
    let arguments = [
        "sunny ", "--out", &new_text, "--each", "2", "--pack", &file_text,
    ];
    let (_, complaint) = said(
        &ground("enroll", b.bundle.path(), &arguments)
            .failure()
            .code(1),
    );
    assert!(
        complaint.contains("confirm some on the page first"),
        "{complaint}"
    );

    on_store(&[(1, false), (2, false), (3, false), (4, true), (5, false)]);
    let (out, warnings) = said(&ground("enroll", b.bundle.path(), &arguments).success());
    // Of the first flight the two with the largest heads; 4 is only possible, 6 is undecided.
    assert!(out.contains("Sunny by 3 photographs"), "{out}{warnings}");
    assert!(out.contains("now sign it"), "{out}");
    let manifest = Bundle::open(&new).unwrap();
    let enrolled = &manifest.manifest().provenance.enrollments[0];
    let enrolled: BTreeSet<_> = enrolled
        .photographs
        .iter()
        .map(|p| p.file.clone())
        .collect();
    let expected = [2, 3, 5].map(|number| format!("{}.jpg", Uuid::from_u128(number)));
    assert_eq!(enrolled, expected.into());
    assert!(fs::metadata(&file).unwrap().len() > 0);

    // The next flight.
    let later = b.frame("later.png", &[(STRANGER, 1)]);
    let seen = |bundle: &Path| identify(bundle, &["--engine", "builtin"], &later).remove(0);
    assert_eq!(seen(b.bundle.path()).decision, Decision::Unknown);
    let again = seen(&new);
    assert_eq!(again.decision, Decision::Identified);
    assert_eq!(again.best().unwrap().individual, SUNNY);

    // What it would have said of all that is stored, beside what the aircraft did.
    let (out, _) = said(&ground("compare", &new, &[]).success());
    assert!(
        out.contains("6 sightings, 6 of them otherwise now"),
        "{out}"
    );
    assert!(
        out.contains(
            "of 4 whose animal a person named for certain, 0 were right before and 4 are now"
        ),
        "{out}"
    );
    let of_6 = out
        .lines()
        .find(|line| line.starts_with(&Uuid::from_u128(6).to_string()))
        .unwrap();
    assert!(
        of_6.contains("identified indigo") && of_6.ends_with('-'),
        "{of_6}"
    );
    let (out, _) = said(&ground("compare", b.bundle.path(), &[]).success());
    assert!(
        out.contains("6 sightings, 1 of them otherwise now"),
        "{out}"
    );

    // Once more there is nothing to add, of one encounter no more by another run.
    let newer = b.path("newer").display().to_string();
    let again = ["Sunny", "--out", &newer, "--each", "2"];
    let (_, complaint) = said(&ground("enroll", &new, &again).failure().code(1));
    assert!(complaint.contains("already"), "{complaint}");
    let again = ["Sunny", "--out", &newer, "--each", "3"];
    let (out, _) = said(&ground("enroll", &new, &again).success());
    assert!(out.contains("Sunny by 1 photograph"), "{out}");
}
