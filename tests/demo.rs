//! `callosity demo` with another camera.
#![allow(missing_docs)]

use std::path::Path;

use assert_cmd::Command;
use callosity::archive::{Store, Worth};
use callosity::sighting::FrameRecord;

fn demo(out: &Path) -> Command {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/virtual-survey");
    let mut command = Command::new(env!("CARGO_BIN_EXE_callosity"));
    command.args(["demo", "--engine", "builtin", "--out"]);
    command.arg(out).arg("--bundle").arg(bundle);
    command
}

#[test]
fn a_demo_is_flown_with_another_camera() {
    let out = tempfile::tempdir().unwrap();
    let output = demo(out.path())
        .args(["--camera", "mono", "--count", "2", "--rate", "10"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    assert!(said.contains("2 looked at"), "{said}");
    let score = said.split("camera: mono (grey)\n").nth(1);
    assert!(score.is_some_and(|s| s.contains("in 2 frames")), "{said}");
    let frame = out
        .path()
        .join("virtual-frames/belly/virtual-frame-0000.jpg");
    let frame = image::open(frame).unwrap().to_rgb8();
    let colourless = |p: &image::Rgb<u8>| p[0].abs_diff(p[1]) <= 1 && p[1].abs_diff(p[2]) <= 1;
    assert!(frame.pixels().all(colourless));

    // Photographs have been taken by their own camera.
    let output = demo(out.path())
        .args(["--camera", "mono", "--frames"])
        .arg(out.path())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{complaint}");
    assert!(complaint.contains("--frames"), "{complaint}");
}

/// The whole flight: two cameras of which one is unplugged, places that are right, a watch that the ground sets and that
/// outlives a kill.
#[test]
fn what_a_flight_is_made_of_is_shown() {
    let out = tempfile::tempdir().unwrap();
    let output = demo(out.path()).args(["--count", "80"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    for part in [
        "80 frames of belly and window, 2 a second each",
        "--- camera window: it is unplugged",
        "--- camera window: is well again ---",
        "marks 1 Caretta caretta: on line, Beaufort 2, 41.9",
        "--- the survey ends: on line, Beaufort 2",
        " 0 left in the outbox",
    ] {
        assert!(said.contains(part), "{part}: {said}{complaint}");
    }
    let (before, after) = said.split_once("--- killed (kill -9)").unwrap();
    assert!(before.contains("identified  41.9"), "{said}");
    assert!(
        after.contains("--- the survey begins: on line, Beaufort 2"),
        "{said}"
    );

    // Photogrammetry finds the animals where they were drawn: one flight path for frames and positions.
    let places = after.split("places: ").nth(1).unwrap();
    let mut places = places
        .split(' ')
        .filter_map(|word| word.parse::<usize>().ok());
    let (within, compared) = (places.next().unwrap(), places.next().unwrap());
    assert!(compared >= 3 && 10 * within >= 9 * compared, "{said}");

    // The archive of both programs: one flight, whole files, and the frames with heads but for those that the kill took
    // out of memory.
    let archive = Store::open_existing(&out.path().join("archive")).unwrap();
    let pictures = archive.verify(|name, found| panic!("{name}: {found:?}"));
    assert!(pictures.unwrap() > 0);
    assert_eq!(archive.flights().unwrap().len(), 1);
    let frames = std::fs::read_to_string(out.path().join("frames.jsonl")).unwrap();
    let frames = frames
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let with_heads = frames.filter(|frame: &FrameRecord| !frame.heads.is_empty());
    let (with_heads, kept) = (
        with_heads.count() as u64,
        archive.total(Worth::Whale).unwrap(),
    );
    assert!(with_heads > 10, "{said}");
    let expected = with_heads - 4..=with_heads;
    assert!(expected.contains(&kept.pictures), "{with_heads}: {kept:?}");
    assert!(archive.total(Worth::Crop).unwrap().pictures > 5);
}
