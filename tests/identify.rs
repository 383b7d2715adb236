//! The program `callosity identify` on toy photographs, on both engines.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::{colour, copy_of_tiny, draw, edit, head, onnxruntime, replace_ensemble, sea, tiny};
use recognition::geometry::Landmarks;
use recognition::identify::{Decision, FrameReport};

/// The program with an engine: ONNX Runtime at a path, or the built-in one.
fn callosity(engine: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callosity"));
    command.env_remove("ORT_DYLIB_PATH").arg("identify");
    match engine {
        Some(library) => command
            .args(["--engine", "onnxruntime", "--onnxruntime"])
            .arg(library),
        None => command.args(["--engine", "builtin"]),
    };
    command
}

fn tiny_identify(engine: Option<&Path>) -> Command {
    let mut command = callosity(engine);
    command.arg("--bundle").arg(tiny());
    command
}

struct Flight {
    folder: tempfile::TempDir,
    two: [Landmarks; 2],
    edge: Landmarks,
}

impl Flight {
    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Photographs in a folder: an empty sea, two whales, a stranger in a folder below, one at the edge.
fn flight() -> Flight {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, image: &image::RgbImage| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
    };
    save("a_empty.jpg", &sea(768, 512));

    let two = [
        head((300.0, 180.0), (180.0, 120.0)),
        head((620.0, 440.0), (660.0, 320.0)),
    ];
    let mut image = sea(768, 512);
    draw(&mut image, &two[0], colour("indigo"));
    draw(&mut image, &two[1], colour("olive"));
    save("b_two.png", &image);

    let mut image = sea(1536, 1024);
    draw(
        &mut image,
        &head((700.0, 500.0), (900.0, 540.0)),
        common::STRANGER,
    );
    save("below/c_stranger.jpg", &image);

    // Both dots are in the frame, most of the crop around them is not.
    let edge = head((740.0, 30.0), (640.0, 30.0));
    let mut image = sea(768, 512);
    draw(&mut image, &edge, colour("ash"));
    save("d_edge.png", &image);
    fs::write(folder.path().join("notes.txt"), "no photograph").unwrap();
    Flight { folder, two, edge }
}

fn reports(output: &[u8]) -> Vec<FrameReport> {
    let text = std::str::from_utf8(output).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn jsonl(command: &mut Command, paths: &[&Path]) -> Vec<FrameReport> {
    let assert = command
        .args(["--format", "jsonl"])
        .args(paths)
        .assert()
        .success();
    reports(&assert.get_output().stdout)
}

fn check_flight(command: &mut Command) {
    let flight = flight();
    let reports = jsonl(command, &[flight.path()]);
    let names: Vec<_> = reports
        .iter()
        .map(|r| Path::new(&r.image).file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["a_empty.jpg", "b_two.png", "c_stranger.jpg", "d_edge.png"]
    );
    let [empty, two, stranger, edge] = reports.as_slice() else {
        panic!("{reports:?}");
    };

    assert_eq!((empty.frame.width, empty.frame.height), (768, 512));
    assert!(empty.frame.heads.is_empty());

    assert_eq!(two.frame.heads.len(), 2, "{two:?}");
    for (truth, name) in flight.two.iter().zip(["indigo", "olive"]) {
        let head = two
            .frame
            .heads
            .iter()
            .min_by(|a, b| {
                let error =
                    |h: &&recognition::identify::HeadIdentification| h.landmarks().error(truth);
                error(a).total_cmp(&error(b))
            })
            .unwrap();
        assert!(head.landmarks().error(truth) < 0.03, "{head:?}");
        assert_eq!(head.decision, Decision::Identified);
        assert_eq!(head.candidates[0].individual, name);
        assert!(head.candidates[0].probability > 0.9);
    }

    assert_eq!(stranger.frame.heads.len(), 1);
    assert_eq!(stranger.frame.heads[0].decision, Decision::Unknown);

    assert_eq!(edge.frame.heads.len(), 1);
    assert!(edge.frame.heads[0].landmarks().error(&flight.edge) < 0.03);
    assert_eq!(edge.frame.heads[0].candidates[0].individual, "ash");
}

#[test]
fn whales_are_found_and_named_on_the_built_in_engine() {
    check_flight(&mut tiny_identify(None));
}

#[test]
fn whales_are_found_and_named_on_onnx_runtime() {
    if let Some(library) = onnxruntime("whales_are_found_and_named_on_onnx_runtime") {
        check_flight(&mut tiny_identify(Some(&library)));
    }
}

#[test]
fn a_closer_look_finds_the_same_heads() {
    let engines = engines("a_closer_look_finds_the_same_heads");
    for (engine, views, further) in engines
        .iter()
        .flat_map(|engine| [(engine, 1, vec![]), (engine, 4, vec![20.0, 32.0])])
    {
        let folder = copy_of_tiny();
        edit(folder.path(), |m| {
            m["finder"]["closer_look"] = serde_json::json!({
                "candidate_threshold": 0.3, "head_length_pixels": 26.0, "views": views,
                "further_head_lengths_pixels": further,
            });
        });
        check_flight(
            callosity(engine.as_deref())
                .arg("--bundle")
                .arg(folder.path()),
        );
    }
}

#[test]
fn both_engines_give_the_same_names_and_places() {
    let Some(library) = onnxruntime("both_engines_give_the_same_names_and_places") else {
        return;
    };
    let flight = flight();
    let one = jsonl(&mut tiny_identify(Some(&library)), &[flight.path()]);
    let other = jsonl(&mut tiny_identify(None), &[flight.path()]);
    assert!(
        one[0].frame.engine.starts_with("ONNX Runtime 1."),
        "{}",
        one[0].frame.engine
    );
    assert!(
        one[0].frame.engine.ends_with("CPU"),
        "{}",
        one[0].frame.engine
    );
    assert_eq!(other[0].frame.engine, "built-in");
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.image, other.image);
        assert_eq!(one.frame.heads.len(), other.frame.heads.len());
        for (a, b) in one.frame.heads.iter().zip(&other.frame.heads) {
            assert_eq!(a.decision, b.decision);
            assert!(a.landmarks().error(&b.landmarks()) < 1e-3);
            for (a, b) in a.candidates.iter().zip(&b.candidates) {
                assert_eq!(a.individual, b.individual);
                assert!((a.probability - b.probability).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn a_line_of_json_has_the_fields_in_their_order() {
    let flight = flight();
    let two = flight.path().join("b_two.png");
    let assert = tiny_identify(None)
        .args(["--format", "jsonl", "--top", "1"])
        .arg(&two)
        .assert()
        .success();
    let line = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let fields = [
        "{\"image\":",
        "\"width\":768",
        "\"height\":512",
        "\"heads\":[{\"bonnet\":[",
        "\"blowhead\":[",
        "\"confidence\":",
        "\"decision\":\"identified\"",
        "\"unknown_probability\":",
        "\"candidates\":[{\"individual\":",
        "\"probability\":",
        "\"stages_ms\":{\"decode\":",
        "\"engine\":\"built-in\"}",
    ];
    let mut from = 0;
    for field in fields {
        from += line[from..]
            .find(field)
            .unwrap_or_else(|| panic!("{field} in {line}"));
    }
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let head = value["heads"][0].as_object().unwrap();
    assert_eq!(head.len(), 6, "{head:?}");
    let unknown = head["unknown_probability"].as_f64().unwrap();
    assert!((0.0..0.5).contains(&unknown), "{head:?}");
    assert_eq!(head["candidates"].as_array().unwrap().len(), 1);
}

/// Beside the candidates of a head, in every format, stands how likely it is nobody of the bundle: as the distribution
/// has it.
#[test]
fn unknown_stands_beside_the_candidates_in_every_format() {
    let flight = flight();
    let output = |arguments: &[&str]| -> Vec<u8> {
        let mut command = tiny_identify(None);
        let command = command.args(arguments).arg(flight.path());
        command.assert().success().get_output().stdout.clone()
    };
    let of_first_heads: Vec<f32> = reports(&output(&["--format", "jsonl"]))
        .iter()
        .filter_map(|report| Some(report.frame.heads.first()?.unknown_probability))
        .collect();
    assert_eq!(of_first_heads.len(), 3);
    let distribution = output(&["--distribution"]);
    let mut csv = csv::Reader::from_reader(distribution.as_slice());
    let in_distribution: Vec<f32> = csv
        .records()
        .filter_map(|row| row.unwrap()[4].parse().ok())
        .collect();
    assert_eq!(in_distribution, of_first_heads);
    let table = output(&["--format", "csv"]);
    let mut csv = csv::Reader::from_reader(table.as_slice());
    let mut column = |name| {
        csv.headers()
            .unwrap()
            .iter()
            .position(|header| header == name)
    };
    let column = column("unknown_probability").expect("a column of its own");
    let in_csv: Vec<f32> = csv
        .records()
        .map(Result::unwrap)
        .filter(|row| &row[1] == "1" && &row[8] == "1")
        .map(|row| row[column].parse().unwrap())
        .collect();
    assert_eq!(in_csv, of_first_heads);
    let table = String::from_utf8(output(&[])).unwrap();
    let mut lines = table.lines();
    let column = lines.next().unwrap().find("unknown").unwrap();
    let firsts = lines.filter(|line| line[40..45].trim() == "1");
    let in_table: Vec<String> = firsts
        .map(|line| line[column..column + 7].trim().to_owned())
        .collect();
    let expected = of_first_heads.iter().map(|p| format!("{:.1} %", 100.0 * p));
    assert_eq!(in_table, expected.collect::<Vec<_>>());
    let help = tiny_identify(None).arg("--help").assert().success();
    let help = String::from_utf8(help.get_output().stdout.clone()).unwrap();
    assert!(
        help.contains("given that the bundle does know it"),
        "{help}"
    );
}

#[test]
fn the_distribution_has_a_row_for_each_photograph() {
    let flight = flight();
    let assert = tiny_identify(None)
        .arg("--distribution")
        .arg(flight.path())
        .assert()
        .success();
    let mut csv = csv::Reader::from_reader(assert.get_output().stdout.as_slice());
    assert_eq!(
        csv.headers().unwrap(),
        vec![
            "image",
            "ash",
            "indigo",
            "olive",
            "unknown",
            "share_read",
            "damaged"
        ]
    );
    let rows: Vec<_> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4);
    assert!(rows[0].iter().skip(1).take(4).all(str::is_empty));
    for row in &rows[1..] {
        let values = row.iter().skip(1).take(4);
        let values: Vec<f64> = values.map(|v| v.parse().unwrap()).collect();
        assert!(
            (values.iter().sum::<f64>() - 1.0).abs() < 1e-4,
            "{values:?}"
        );
    }
    let unknown = |row: &csv::StringRecord| row[4].parse::<f64>().unwrap();
    assert!(unknown(&rows[2]) > 0.5 && unknown(&rows[3]) < 0.1);
    tiny_identify(None)
        .args(["--distribution", "--format", "jsonl"])
        .arg(flight.path())
        .assert()
        .code(64);
}

#[test]
fn heads_that_are_already_cut_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crop.png");
    // A square crop shows the 2:1 rectangle squeezed.
    let mut wide = sea(448, 224);
    draw(
        &mut wide,
        &recognition::geometry::HeadCrop::RIGHT_WHALE.landmarks(448, 224),
        colour("olive"),
    );
    image::imageops::resize(&wide, 224, 224, image::imageops::FilterType::Triangle)
        .save(&path)
        .unwrap();
    let reports = jsonl(tiny_identify(None).arg("--aligned"), &[&path]);
    let [report] = reports.as_slice() else {
        panic!("{reports:?}");
    };
    let head = &report.frame.heads[0];
    assert_eq!(head.candidates[0].individual, "olive");
    assert_eq!(head.decision, Decision::Identified);
    assert!((head.bonnet.x - 179.2).abs() < 1e-6 && (head.blowhead.x - 67.2).abs() < 1e-6);
    assert_eq!(head.confidence, 1.0);
}

#[test]
fn an_unreadable_photograph_is_named_and_the_rest_go_on() {
    let flight = flight();
    fs::write(flight.path().join("b_broken.jpg"), b"\xff\xd8\xffnothing").unwrap();
    let assert = tiny_identify(None)
        .args(["--format", "jsonl"])
        .arg(flight.path())
        .arg(flight.path().join("nowhere.jpg"))
        .assert()
        .code(2);
    let output = assert.get_output();
    let errors = String::from_utf8_lossy(&output.stderr);
    for name in ["b_broken.jpg", "nowhere.jpg"] {
        assert_eq!(errors.matches(name).count(), 1, "{errors}");
    }
    assert_eq!(reports(&output.stdout).len(), 4);
    // Damage that shows only when pixels are decoded.
    let cut = flight.path().join("cut.png");
    let png = fs::read(flight.path().join("b_two.png")).unwrap();
    fs::write(&cut, &png[..png.len() / 2]).unwrap();
    let assert = tiny_identify(None).arg(&cut).assert().code(2);
    let errors = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert_eq!(errors.matches("cut.png").count(), 1, "{errors}");
}

/// A frame with a whale at the top and one at the bottom, of which the file's end is missing with the second.
fn cut_frame() -> Vec<u8> {
    let mut image = sea(768, 512);
    draw(
        &mut image,
        &head((300.0, 180.0), (180.0, 120.0)),
        colour("indigo"),
    );
    draw(
        &mut image,
        &head((620.0, 470.0), (660.0, 400.0)),
        colour("olive"),
    );
    let jpeg = recognition::pixels::encode_jpeg(&image, 90).unwrap();
    // The rows above the second whale are coded as in a picture of them alone.
    let above = image::imageops::crop_imm(&image, 0, 0, 768, 352).to_image();
    let length = recognition::pixels::encode_jpeg(&above, 90).unwrap().len() - 2;
    jpeg[..length].to_vec()
}

#[test]
fn an_incomplete_photograph_is_looked_at_and_says_so_in_each_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.jpg");
    fs::write(&path, cut_frame()).unwrap();
    let output = |arguments: &[&str]| {
        let assert = tiny_identify(None).args(arguments).arg(&path).assert();
        let output = assert.success().get_output().clone();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let share = 344.0 / 512.0;
    let (line, errors) = output(&["--format", "jsonl"]);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["incomplete"]["share_read"], share);
    assert_eq!(
        (&value["width"], &value["height"]),
        (&768.into(), &512.into())
    );
    let heads = value["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 1, "{line}");
    assert_eq!(heads[0]["candidates"][0]["individual"], "indigo");
    assert!(
        errors.contains("looked at 1 photographs; 1 incomplete"),
        "{errors}"
    );
    let report: FrameReport = serde_json::from_str(&line).unwrap();
    assert_eq!(report.frame.faults.share_read(), share);

    let (table, _) = output(&[]);
    let row = table.lines().nth(1).unwrap();
    assert!(row.ends_with("  [incomplete, 67.1 % read]"), "{table}");
    for arguments in [&["--format", "csv"][..], &["--distribution"]] {
        let (table, errors) = output(arguments);
        let mut csv = csv::Reader::from_reader(table.as_bytes());
        let headers = csv.headers().unwrap().clone();
        let row = csv.records().next().unwrap().unwrap();
        let value = |name| &row[headers.iter().position(|h| h == name).unwrap()];
        assert_eq!(value("share_read").parse::<f64>().unwrap(), share);
        assert_eq!(value("damaged"), "");
        // Where there is no head there is no row.
        assert!(
            errors.contains("cut.jpg: incomplete, 67.1 % read"),
            "{errors}"
        );
    }

    // Less than half is refused.
    let bytes = cut_frame();
    fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let assert = tiny_identify(None).arg(&path).assert().code(2);
    let errors = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(errors.contains("ends early"), "{errors}");
    assert_eq!(errors.matches("cut.jpg").count(), 1, "{errors}");
}

#[test]
fn a_damaged_photograph_is_looked_at_and_says_so() {
    let flight = flight();
    let mut jpeg = fs::read(flight.path().join("below/c_stranger.jpg")).unwrap();
    let end = jpeg.len() - 2;
    // The decoder reads some bytes ahead and does not miss these.
    jpeg.splice(end..end, [7; 40]);
    let path = flight.path().join("damaged.jpg");
    fs::write(&path, jpeg).unwrap();
    let reports = jsonl(&mut tiny_identify(None), &[&path]);
    assert_eq!(reports[0].frame.heads.len(), 1);
    let reason = reports[0].frame.faults.damaged.as_deref().unwrap();
    assert!(
        reason.ends_with("extraneous bytes before marker 0xd9"),
        "{reason}"
    );
    let assert = tiny_identify(None).arg(flight.path()).assert().success();
    let output = assert.get_output();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("looked at 5 photographs; 1 damaged"),
        "{errors}"
    );
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        table.matches("[damaged: Corrupt JPEG data: ").count(),
        1,
        "{table}"
    );
}

#[test]
fn hidden_files_are_skipped_unless_they_are_named() {
    let flight = flight();
    let fork = flight.path().join("._a_empty.jpg");
    fs::write(&fork, b"\0\x05\x16\x07Mac OS X").unwrap();
    fs::create_dir(flight.path().join(".Trashes")).unwrap();
    let seen = flight.path().join("a_empty.jpg");
    fs::copy(&seen, flight.path().join(".Trashes/old.jpg")).unwrap();
    let hidden = flight.path().join(".hidden.jpg");
    fs::rename(&seen, &hidden).unwrap();
    for (arguments, said) in [(&[][..], false), (&["-v"], true)] {
        let assert = tiny_identify(None)
            .args(arguments)
            .args(["--format", "jsonl"])
            .arg(flight.path())
            .assert()
            .success();
        let output = assert.get_output();
        assert_eq!(reports(&output.stdout).len(), 3);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            errors.contains("3 hidden files and folders skipped"),
            said,
            "{errors}"
        );
    }
    assert_eq!(jsonl(&mut tiny_identify(None), &[&hidden]).len(), 1);
}

#[test]
fn photographs_that_are_not_read_are_counted_by_kind() {
    let flight = flight();
    let save = |name: &str| fs::write(flight.path().join(name), "no photograph").unwrap();
    // What the camera made of these is beside them.
    let raw = ["a_empty.NEF", "b_two.nef", "below/c_stranger.nef"];
    raw.into_iter()
        .chain(["x.heic", "below/y.HEIC"])
        .for_each(save);
    let assert = tiny_identify(None)
        .args(["--format", "jsonl"])
        .arg(flight.path())
        .assert()
        .success();
    let output = assert.get_output();
    assert_eq!(reports(&output.stdout).len(), 4);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(": 5 files passed over: 3 .nef, 2 .heic\n"),
        "{errors}"
    );

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.heic"), "no photograph").unwrap();
    let assert = tiny_identify(None).arg(folder.path()).assert().code(1);
    let errors = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(
        errors.contains("no photographs") && errors.contains("1 file passed over: 1 .heic"),
        "{errors}"
    );
}

#[test]
fn the_help_says_how_photographs_are_taken() {
    let assert = callosity(None).arg("--help").assert().success();
    let help = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    for word in [
        "DNG, NEF",
        "passed over",
        "incomplete",
        "share_read",
        "damaged",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

/// A card with nothing but raw files.
#[test]
fn a_raw_file_alone_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = sea(768, 512);
    draw(
        &mut image,
        &head((300.0, 180.0), (180.0, 120.0)),
        colour("indigo"),
    );
    let jpeg = recognition::pixels::encode_jpeg(&image, 95).unwrap();
    // A directory as of a DNG: its version, and the JPEG as the one strip.
    let entries: [(u16, u32); 7] = [
        (256, 768),
        (257, 512),
        (259, 7),
        (262, 6),
        (273, 8 + 2 + 7 * 12 + 4),
        (279, jpeg.len() as u32),
        (50_706, 0x0104_0000),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x07\0".to_vec();
    for (tag, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(4u16.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(jpeg);
    fs::write(folder.path().join("DSC_0001.DNG"), bytes).unwrap();
    let reports = jsonl(&mut tiny_identify(None), &[folder.path()]);
    assert_eq!(reports[0].frame.heads[0].candidates[0].individual, "indigo");
}

#[test]
fn a_folder_without_photographs_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "no photograph").unwrap();
    let assert = tiny_identify(None).arg(folder.path()).assert().code(1);
    let errors = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(errors.contains("no photographs"), "{errors}");
}

#[test]
fn annotated_photographs_and_heads_are_written() {
    let flight = flight();
    let out = tempfile::tempdir().unwrap();
    tiny_identify(None)
        .arg("--annotate")
        .arg(out.path())
        .arg(flight.path())
        .assert()
        .success();
    let size = |name: &str| image::image_dimensions(out.path().join(name)).unwrap();
    assert_eq!(size("a_empty.annotated.jpg"), (768, 512));
    assert_eq!(size("b_two.annotated.jpg"), (768, 512));
    assert_eq!(size("below/c_stranger.annotated.jpg"), (1536, 1024));
    assert_eq!(size("b_two.head-1.jpg"), (512, 256));
    assert_eq!(size("b_two.head-2.jpg"), (512, 256));
    assert!(!out.path().join("a_empty.head-1.jpg").exists());
    // The head picture shows the bonnet's red dot where the crop says.
    let picture = image::open(out.path().join("b_two.head-1.jpg"))
        .unwrap()
        .to_rgb8();
    let bonnet = picture.get_pixel(410, 128);
    assert!(bonnet[0] > 200 && bonnet[1] < 80, "{bonnet:?}");
}

fn failure(bundle: &Path, engine: Option<&Path>) -> String {
    let flight = flight();
    let assert = callosity(engine)
        .arg("--bundle")
        .arg(bundle)
        .arg(flight.path().join("b_two.png"))
        .assert()
        .failure();
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

fn engines(test: &str) -> Vec<Option<PathBuf>> {
    [None]
        .into_iter()
        .chain(onnxruntime(test).map(Some))
        .collect()
}

#[test]
fn bad_bundles_are_told_in_words_on_every_engine() {
    for engine in engines("bad_bundles_are_told_in_words_on_every_engine") {
        let engine = engine.as_deref();
        let folder = copy_of_tiny();
        edit(folder.path(), |m| {
            m["ensemble"]["network"]["input"]["height"] = 40.into();
            m["self_test"] = serde_json::json!([]);
        });
        let error = failure(folder.path(), engine);
        assert!(
            error.contains("ensemble") && error.contains("3 × 40 × 32"),
            "{error}"
        );

        let folder = copy_of_tiny();
        replace_ensemble(folder.path(), "nan.onnx");
        let error = failure(folder.path(), engine);
        assert!(
            error.contains("ensemble") && error.contains("NaN"),
            "{error}"
        );

        let folder = copy_of_tiny();
        fs::remove_file(folder.path().join("finder.onnx")).unwrap();
        let error = failure(folder.path(), engine);
        assert!(error.contains("finder.onnx"), "{error}");
    }
}

#[test]
fn a_network_for_one_image_at_a_time_names_the_same() {
    for engine in engines("a_network_for_one_image_at_a_time_names_the_same") {
        let folder = copy_of_tiny();
        replace_ensemble(folder.path(), "one_image.onnx");
        let flight = flight();
        let two = flight.path().join("b_two.png");
        let one = jsonl(
            callosity(engine.as_deref())
                .arg("--bundle")
                .arg(folder.path()),
            &[&two],
        );
        let many = jsonl(&mut tiny_identify(engine.as_deref()), &[&two]);
        let names = |r: &[FrameReport]| -> Vec<String> {
            r[0].frame
                .heads
                .iter()
                .map(|h| h.candidates[0].individual.clone())
                .collect()
        };
        assert_eq!(names(&one).len(), 2);
        assert_eq!(names(&one), names(&many));
    }
}

#[test]
fn a_bundle_without_a_finder_names_only_crops() {
    let folder = copy_of_tiny();
    edit(folder.path(), |m| {
        m["finder"] = serde_json::Value::Null;
        m["aligner"] = serde_json::Value::Null;
        m["self_test"] = serde_json::json!([]);
    });
    let error = failure(folder.path(), None);
    assert!(
        error.contains("no finder") && error.contains("--aligned"),
        "{error}"
    );
    let flight = flight();
    let crop = jsonl(
        callosity(None)
            .arg("--aligned")
            .arg("--bundle")
            .arg(folder.path()),
        &[&flight.path().join("a_empty.jpg")],
    );
    assert_eq!(crop[0].frame.heads.len(), 1);
}

#[test]
fn an_engine_that_is_not_there_is_told_in_words() {
    let flight = flight();
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("libonnxruntime.so");
    fs::write(&nothing, b"nothing").unwrap();
    let assert = tiny_identify(Some(&nothing))
        .arg(flight.path())
        .assert()
        .code(1);
    let error = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(
        error.contains("libonnxruntime.so") && error.contains("--engine builtin"),
        "{error}"
    );
}

#[test]
fn a_command_line_that_makes_no_sense_has_its_own_exit_code() {
    callosity(None).arg("--nonsense").assert().code(64);
    callosity(None).assert().code(64);
    Command::cargo_bin("callosity")
        .unwrap()
        .arg("--help")
        .assert()
        .code(0);
}

#[test]
fn bundle_check_prints_the_self_tests() {
    for engine in engines("bundle_check_prints_the_self_tests") {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callosity"));
        command.args(["bundle", "check"]).arg(tiny());
        match &engine {
            Some(library) => command.arg("--onnxruntime").arg(library),
            None => command.args(["--engine", "builtin"]),
        };
        let assert = command.assert().success();
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        assert_eq!(text.matches(": passed").count(), 2, "{text}");
        assert!(text.contains("3 individuals"), "{text}");
    }
}
