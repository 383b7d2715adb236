//! What light does to a bundle: measures by hand, and `evaluate --conditions` on a toy bundle whose networks are right by construction: it finds heads by a red and a
//! green dot and names them by the colour of a bar, so that it is clear what light takes from it.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use callosity_training::conditions::{
    ConditionRow, ConditionsReport, FramesUnder, HeadsUnder, MeasuredBundle, OpenWaterUnder,
    TrueName, first_candidates,
};
use common::{STRANGER, colour, draw, head, sea};
use recognition::geometry::{HeadCrop, Landmarks, Point};
use recognition::identify::{Candidate, Decision, HeadIdentification};
use recognition::pixels::CameraCondition;
use serde_json::Value;

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/bundles/tiny")
}

/// Runs `callosity-train evaluate` on the toy bundle, in a folder.
fn evaluate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_callosity-train"))
        .current_dir(folder)
        .args(["evaluate", "--bundle"])
        .arg(bundle())
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    said
}

/// Heads of the three whales and of a stranger, a frame with two whales, and open water in it.
fn photographs(folder: &Path) {
    let size = (128, 64);
    let crop = HeadCrop::RIGHT_WHALE;
    let place = |x: f64, y: f64| Point::new(x * f64::from(size.0), y * f64::from(size.1));
    let landmarks = Landmarks {
        bonnet: place(crop.bonnet_x, 0.5),
        blowhead: place(crop.blowhead_x, 0.5),
    };
    let mut labels = "image,whale\n".to_owned();
    fs::create_dir(folder.join("heads")).expect("made");
    for whale in ["ash", "indigo", "olive", "stranger"] {
        let bar = match whale {
            "stranger" => STRANGER,
            known => colour(known),
        };
        let mut picture = sea(size.0, size.1);
        draw(&mut picture, &landmarks, bar);
        let name = format!("{whale}.png");
        picture
            .save(folder.join("heads").join(&name))
            .expect("written");
        labels += &format!("{name},{whale}\n");
    }
    fs::write(folder.join("heads.csv"), labels).expect("written");
    // Neither is a photograph.
    fs::write(folder.join("heads/._ash.png"), "resource fork").expect("written");
    fs::write(folder.join("heads/notes.txt"), "four heads").expect("written");

    let whales = [
        ("ash", head((300.0, 180.0), (180.0, 120.0))),
        ("indigo", head((620.0, 440.0), (660.0, 320.0))),
    ];
    let mut frame = sea(768, 512);
    let mut truth = "image,whale,bonnet_x,bonnet_y,blowhead_x,blowhead_y\n".to_owned();
    for (whale, at) in &whales {
        draw(&mut frame, at, colour(whale));
        let (b, h) = (at.bonnet, at.blowhead);
        truth += &format!("two.png,{whale},{},{},{},{}\n", b.x, b.y, h.x, h.y);
    }
    fs::create_dir(folder.join("frames")).expect("made");
    frame.save(folder.join("frames/two.png")).expect("written");
    fs::write(folder.join("frames.csv"), truth).expect("written");
    let water = "image,x,y,width,height\ntwo.png,0,320,300,190\ntwo.png,400,0,360,240\n";
    fs::write(folder.join("water.csv"), water).expect("written");
}

fn row<'a>(report: &'a Value, condition: &str) -> &'a Value {
    let mut rows = report["conditions"].as_array().expect("rows").iter();
    rows.find(|row| row["condition"] == condition)
        .expect(condition)
}

#[test]
fn light_takes_names_and_heads_from_who_knows_colours() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    photographs(folder);
    let heads = ["--conditions", "--heads", "heads", "--labels", "heads.csv"];
    let frames = [
        "--frames",
        "frames",
        "--truth",
        "frames.csv",
        "--open-water",
        "water.csv",
    ];
    let out = ["--out", "measured/conditions.json"];
    let table = said(&evaluate(folder, &[&heads[..], &frames, &out].concat()));
    let text = fs::read_to_string(folder.join(out[1])).expect("kept");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    eprintln!("{table}{report:#}");

    assert_eq!(report["conditions"].as_array().map(Vec::len), Some(10));
    assert_eq!(report["bundles"][0]["name"], "tiny");
    let as_is = row(&report, "as is");
    assert_eq!(as_is["heads"]["photographs"], 4);
    assert_eq!(as_is["heads"]["first_candidate_kept"], 1.0);
    let named = &as_is["heads"]["named"];
    assert_eq!((&named["known"], &named["unknown"]), (&3.into(), &1.into()));
    assert_eq!(
        (&named["top1"], &named["top1_lost_points"]),
        (&1.0.into(), &0.0.into())
    );
    assert_eq!(as_is["frames"]["found"], 2);
    assert_eq!(as_is["frames"]["top1"], 2);

    // Without colours the dots are gone by which heads are found, and blue is as grey as olive.
    let grey = row(&report, "grey");
    assert_eq!(grey["change"], "grey");
    assert_eq!(grey["frames"]["found"], 0);
    assert!(
        grey["heads"]["named"]["top1_lost_points"].as_f64() > Some(30.0),
        "{grey}"
    );
    assert!(
        grey["heads"]["first_candidate_kept"].as_f64() < Some(1.0),
        "{grey}"
    );
    // What a mild JPEG takes is nothing to such networks.
    assert_eq!(row(&report, "jpeg 20")["frames"]["found"], 2);
    for row in report["conditions"].as_array().expect("rows") {
        assert_eq!(row["frames"]["heads"], 2, "{row}");
        assert_eq!(row["frames"]["open_water"]["pieces"], 2, "{row}");
        assert_eq!(row["frames"]["open_water"]["false_heads"], 0, "{row}");
        let start = format!("| {}: ", row["condition"].as_str().expect("a name"));
        assert!(
            table.lines().any(|line| line.starts_with(&start)),
            "{start}: {table}"
        );
    }

    // Noise is the same each time.
    let again = said(&evaluate(
        folder,
        &[&heads[..], &frames, &["--format", "json"]].concat(),
    ));
    assert_eq!(serde_json::from_str::<Value>(&again).expect("JSON"), report);
}

#[test]
fn heads_without_names_are_compared_with_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    photographs(folder);
    let heads = ["--heads", "heads"];
    let conditions = ["--conditions", "--format", "json"];
    let report = said(&evaluate(folder, &[&heads[..], &conditions].concat()));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let (as_is, grey) = (row(&report, "as is"), row(&report, "grey"));
    assert_eq!(as_is["heads"]["photographs"], 4);
    assert_eq!(as_is["heads"]["first_candidate_kept"], 1.0);
    assert!(
        grey["heads"]["first_candidate_kept"].as_f64() < Some(1.0),
        "{report}"
    );
    assert!(
        as_is["heads"]["named"].is_null() && as_is["frames"].is_null(),
        "{report}"
    );

    let refused = evaluate(folder, &heads);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && complaint.contains("--labels"),
        "{complaint}"
    );
    let refused = evaluate(
        folder,
        &[&["--heads", "frames.csv"][..], &conditions].concat(),
    );
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && complaint.contains("frames.csv"),
        "{complaint}"
    );
}

fn said_of(candidates: &[(&str, f32)], decision: Decision) -> HeadIdentification {
    let each = candidates
        .iter()
        .map(|&(individual, probability)| Candidate {
            individual: individual.to_owned(),
            probability,
        });
    HeadIdentification {
        bonnet: Point::new(2.0, 0.0),
        blowhead: Point::default(),
        confidence: 1.0,
        decision,
        candidates: each.collect(),
        unknown_probability: 0.25,
    }
}

/// Three heads, of a, of b, and of somebody whom the bundle does not know.
fn report() -> ConditionsReport {
    let names = ["a", "b", "z"].map(|whale| TrueName {
        whale: whale.to_owned(),
        known: whale != "z",
    });
    let as_is = || {
        vec![
            said_of(&[("a", 0.75), ("b", 0.25)], Decision::Identified),
            said_of(&[("b", 0.75), ("a", 0.25)], Decision::Identified),
            said_of(&[("b", 0.5), ("a", 0.5)], Decision::Unknown),
        ]
    };
    let dark = vec![
        said_of(&[("b", 0.75), ("a", 0.25)], Decision::Identified),
        said_of(&[("b", 0.625), ("a", 0.375)], Decision::Uncertain),
        said_of(&[("a", 0.75), ("b", 0.25)], Decision::Identified),
    ];
    let first = first_candidates(&as_is());
    let frames = |found, false_heads| FramesUnder {
        heads: 4,
        found,
        other_heads: 1,
        catalogued: 3,
        top1: 2,
        open_water: Some(OpenWaterUnder {
            pieces: 7,
            false_heads,
        }),
    };
    let rows = [
        ("as is", as_is(), frames(4, 0)),
        ("dark", dark, frames(3, 2)),
    ];
    let rows = rows.into_iter().map(|(name, said, frames)| ConditionRow {
        heads: Some(HeadsUnder::measure(said, &first, Some(&names))),
        frames: Some(frames),
        ..ConditionRow::new(name, &CameraCondition::AS_IS)
    });
    let bundle = MeasuredBundle {
        name: "toy".to_owned(),
        version: "1.2.3".to_owned(),
        ensemble_sha256: "abc".to_owned(),
        trained_on_all: false,
    };
    ConditionsReport::new(vec![bundle], "built-in".to_owned(), rows.collect())
}

#[test]
fn measures_by_hand() {
    let report = report();
    let [as_is, dark] = &report.conditions[..] else {
        panic!("two conditions");
    };
    let (as_is, dark) = (as_is.heads.as_ref(), dark.heads.as_ref());
    let (as_is, dark) = (as_is.expect("heads"), dark.expect("heads"));
    assert_eq!(as_is.first_candidate_kept, Some(1.0));
    assert_eq!(as_is.identified, Some(2.0 / 3.0));
    assert_eq!(dark.first_candidate_kept, Some(1.0 / 3.0));
    // Of two that are identified one is of another whale and one is a stranger's.
    assert_eq!(dark.identified, Some(2.0 / 3.0));
    let (as_is, dark) = (as_is.named.as_ref(), dark.named.as_ref());
    let (as_is, dark) = (as_is.expect("names"), dark.expect("names"));
    assert_eq!((as_is.metrics.known, as_is.metrics.unknown), (2, 1));
    assert_eq!(
        (as_is.metrics.top1, as_is.top1_lost_points),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(
        (dark.metrics.top1, dark.top1_lost_points),
        (Some(0.5), Some(50.0))
    );
    assert_eq!(
        (as_is.identified_right, dark.identified_right),
        (Some(1.0), Some(0.0))
    );
}

#[test]
fn without_names_only_first_candidates_are_compared() {
    let said = || {
        vec![
            said_of(&[("a", 1.0)], Decision::Uncertain),
            said_of(&[("b", 1.0)], Decision::Unknown),
        ]
    };
    let first = vec![Some("a".to_owned()), Some("a".to_owned())];
    let measured = HeadsUnder::measure(said(), &first, None);
    assert_eq!(measured.first_candidate_kept, Some(0.5));
    assert_eq!((measured.identified, &measured.named), (Some(0.0), &None));
    let row = ConditionRow {
        heads: Some(measured),
        ..ConditionRow::new("as is", &CameraCondition::AS_IS)
    };
    let report = ConditionsReport::new(Vec::new(), "built-in".to_owned(), vec![row]);
    assert_eq!(
        report.header(),
        ["condition", "identified", "first candidate kept"]
    );
}

#[test]
fn the_table_shows_what_was_measured_and_the_card_whose_it_is() {
    let report = report();
    assert_eq!(
            report.markdown(),
            "\
| condition        | top-1 | points lost | top-5 | log loss | identified | of these right | first candidate kept | heads found, of 4 | and named rightly, of 3 | other heads | false heads, 7 waters |
|------------------|------:|------------:|------:|---------:|-----------:|---------------:|---------------------:|------------------:|------------------------:|------------:|----------------------:|
| as is: unchanged | 1.000 |         0.0 | 1.000 |     0.29 |      0.667 |          1.000 |                1.000 |                 4 |                       2 |           1 |                     0 |
| dark: unchanged  | 0.500 |        50.0 | 1.000 |     0.93 |      0.667 |          0.000 |                0.333 |                 3 |                       2 |           1 |                     2 |
"
        );
    let subject = "toy 1.2.3 on built-in; 2 heads of whales of the bundle, 1 of others";
    assert_eq!(report.subject(), subject);
    let mut flown = report.clone();
    flown.bundles[0].trained_on_all = true;
    assert!(flown.subject().contains("look better than they are"));
    assert!(
        report
            .card_section("abc")
            .contains("with the classifiers of this bundle: toy")
    );
    assert!(
        report
            .card_section("def")
            .contains("**Measured with other classifiers")
    );
}

#[test]
fn it_is_read_as_it_was_written_and_nothing_else_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("below/conditions.json");
    report().save(&path).expect("written");
    assert_eq!(ConditionsReport::load(&path).expect("read"), report());
    std::fs::write(&path, "{\"format_version\": 99}").expect("written");
    let error = ConditionsReport::load(&path).expect_err("of another version");
    assert!(
        format!("{error:#}").contains("--conditions --out"),
        "{error:#}"
    );
}
