//! Cameras by the kernel's own drivers, in the virtual machine of `tests/vm`: `make test-cameras`.
//!
//! Everywhere else these tests are ignored, and pass over themselves: they disconnect cameras.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use callosity::camera::v4l2::{self, Listed, Samples, V4l2Device, Wanted};
use callosity::camera::{
    Camera, Captured, Dated, Device, DeviceError, Frame, Live, Setting, Settings,
};
use callosity::rehearsal::VirtualGround;
use callosity::service::{Flight, fly};
use ground::Received;
use link::BrokerOptions;
use link::message::SightingState;
use recognition::bundle::Bundle;
use recognition::geometry::{Landmarks, Point};
use recognition::identify::Identifier;
use recognition::inference::{EngineChoice, EngineConfig};
use recognition::pixels::{Image, PixelFormat, encode_jpeg};
use recognition::virtual_survey::{Catalogue, FramePlan, Survey};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(200);
const VIVID: &str = "platform-vivid.0/vivid-000-vid-cap";
/// The one with the multi-planar interface.
const MULTIPLANAR: &str = "platform-vivid.0/vivid-001-vid-cap";
const WEBCAM: &str = "SN123";

/// Size of the webcam's frames.
const FRAME: (u32, u32) = (1536, 1024);
/// How many it sends in turn.
const FRAMES: usize = 6;
/// Seed of the population that `models/virtual-survey` knows.
const POPULATION: u64 = 1;

fn is_vm(test: &str) -> bool {
    let is_vm = std::env::var_os("CALLOSITY_VM").is_some();
    if !is_vm {
        eprintln!("SKIPPED {test}: run it with `make test-cameras`");
    }
    is_vm
}

fn device(address: &str, wanted: Wanted) -> V4l2Device {
    V4l2Device::new(address.parse().unwrap(), wanted)
}

fn wanted(format: PixelFormat) -> Wanted {
    Wanted {
        format: Some(format.four_characters()),
        size: Some((640, 360)),
        rate: Some(10.0),
        // vivid draws in sRGB.
        samples: Samples {
            linear: Some(false),
            ..Samples::default()
        },
        ..Wanted::default()
    }
}

fn live(address: &str, wanted: Wanted) -> (Live<V4l2Device>, Settings) {
    let device = device(address, wanted);
    let settings = device.settings();
    (Live::new("test", device), settings.unwrap())
}

/// The next frame; what else happens on the way is put down.
fn next(camera: &mut impl Camera, events: &mut Vec<String>) -> Box<Frame> {
    let start = Instant::now();
    loop {
        match camera.next(TICK) {
            Captured::Frame(frame) => return frame,
            Captured::Unusable(frame) => events.push(format!("unusable: {}", frame.reason)),
            Captured::Trouble(reason) => events.push(format!("trouble: {reason}")),
            Captured::Nothing => {}
            Captured::End => panic!("it ended"),
        }
        assert!(start.elapsed() < PATIENCE, "no frame: {events:?}");
    }
}

fn listed(path: &str) -> Listed {
    let all = v4l2::list().unwrap();
    let paths: Vec<String> = all.iter().map(|l| l.device.path.clone()).collect();
    let mut all = all.into_iter();
    all.find(|listed| listed.device.path == path)
        .unwrap_or_else(|| panic!("{path} is not among {paths:?}"))
}

/// Sets a control of vivid by which it injects faults, from outside.
fn inject(name: &str, value: i64) {
    let listed = listed(VIVID);
    let control = listed.controls.iter().find(|control| control.name == name);
    let names: Vec<&str> = listed.controls.iter().map(|c| c.name.as_str()).collect();
    let control = control.unwrap_or_else(|| panic!("no {name} among {names:?}"));
    let device = ::v4l::Device::with_path(&listed.device.node).unwrap();
    device
        .set_control(::v4l::Control {
            id: control.id,
            value: ::v4l::control::Value::Integer(value),
        })
        .unwrap();
    println!("  injected {name} = {value}");
}

/// Mean levels of small squares in the middle of vivid's eight colour bars, away from its text.
fn bars(image: &Image) -> Vec<[f64; 3]> {
    let photograph = image.decode(1.0).unwrap();
    let (width, height) = photograph.pixels.dimensions();
    let bar = |i: u32| {
        let (x, y) = ((2 * i + 1) * width / 16, 3 * height / 4);
        let mut sum = [0.0; 3];
        for (dx, dy) in (0..8).flat_map(|dx| (0..8).map(move |dy| (dx, dy))) {
            let pixel = photograph.pixels.get_pixel(x + dx, y + dy);
            for (sum, level) in sum.iter_mut().zip(pixel.0) {
                *sum += f64::from(level) / 64.0;
            }
        }
        sum
    };
    (0..8).map(bar).collect()
}

/// By the weights of BT.709, with which vivid makes its grey formats.
fn luma([red, green, blue]: [f64; 3]) -> f64 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// The colour bars in every format that a device offers and that is read.
fn bars_of_all_formats(address: &str) -> BTreeMap<String, Vec<[f64; 3]>> {
    let offered: Vec<String> = listed(address).formats.into_iter().map(|f| f.0).collect();
    let (count, names) = (offered.len(), offered.join(" "));
    println!("{address} offers {count} formats: {names}");
    let mut shown = BTreeMap::new();
    for format in PixelFormat::ALL {
        if !offered.contains(&format.to_string()) {
            println!("  {format}: vivid has it not");
            continue;
        }
        let (mut camera, _) = live(address, wanted(format));
        let mut events = Vec::new();
        let mut numbers = Vec::new();
        let mut frame = next(&mut camera, &mut events);
        for _ in 0..4 {
            numbers.push(frame.tag.number);
            assert_eq!(frame.tag.dated, Dated::Exposed, "{:?}", frame.tag);
            frame = next(&mut camera, &mut events);
        }
        assert!(events.is_empty(), "{format}: {events:?}");
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(frame.image.size(), (640, 360));
        let Image::Raw(raw) = &frame.image else {
            panic!("{format} came as {:?}", frame.image)
        };
        assert_eq!(raw.format(), format);
        println!("  {}", camera.format().unwrap());
        shown.insert(format.to_string(), bars(&frame.image));
    }
    shown
}

/// The kernel draws its colour bars in each format, by either interface: all show the colours that its RGB shows.
#[test]
#[ignore = "needs the virtual machine of tests/vm"]
fn every_format_of_vivid_shows_its_colour_bars() {
    if !is_vm("every_format_of_vivid_shows_its_colour_bars") {
        return;
    }
    let single = bars_of_all_formats(VIVID);
    let truth = single["RGB3"].clone();
    let spread = truth
        .iter()
        .map(|bar| luma(*bar))
        .fold((255.0_f64, 0.0_f64), |(a, b), v| (a.min(v), b.max(v)));
    assert!(spread.1 - spread.0 > 100.0, "no bars: {truth:?}");
    for (address, shown) in [
        (VIVID, single),
        (MULTIPLANAR, bars_of_all_formats(MULTIPLANAR)),
    ] {
        for (format, bars) in &shown {
            let mut largest = 0.0_f64;
            for (bar, expected) in bars.iter().zip(&truth) {
                let is_grey = ["GREY", "Y10", "Y12"].contains(&format.as_str());
                for channel in 0..3 {
                    let expected = if is_grey {
                        luma(*expected)
                    } else {
                        expected[channel]
                    };
                    largest = largest.max((bar[channel] - expected).abs());
                }
            }
            println!("  {address} {format:<5} differs from RGB3 by at most {largest:.1}");
            assert!(largest <= 8.0, "{format}: {bars:?} for {truth:?}");
        }
        assert!(shown.len() >= 16, "{address}: {:?}", shown.keys());
    }
}

#[test]
#[ignore = "needs the virtual machine of tests/vm"]
fn what_is_asked_for_and_given_is_reported_and_settings_are_made() {
    if !is_vm("what_is_asked_for_and_given_is_reported_and_settings_are_made") {
        return;
    }
    // No such size.
    let asked = Wanted {
        size: Some((650, 360)),
        settings: vec![
            ("brightness".into(), Setting::Number(99)),
            ("gain".into(), Setting::Number(17)),
            ("focus".into(), Setting::Number(3)),
        ],
        ..wanted(PixelFormat::Yuyv)
    };
    let (mut camera, settings) = live(VIVID, asked);
    let mut events = Vec::new();
    next(&mut camera, &mut events);
    let format = camera.format().unwrap();
    println!("  {format}");
    assert!(format.starts_with("YUYV 640 × 360") && format.contains("asked for: YUYV 650 × 360"));
    let complaint = camera.complaint().unwrap();
    assert!(
        complaint.contains("focus: 3: the camera has no such control"),
        "{complaint}"
    );
    let value = |name: &str| {
        let controls = listed(VIVID).controls;
        controls
            .into_iter()
            .find(|c| c.name == name)
            .and_then(|c| c.value)
    };
    assert_eq!((value("brightness"), value("gain")), (Some(99), Some(17)));
    settings.set("brightness", Setting::Number(140));
    settings.set("gain", Setting::Number(9999));
    next(&mut camera, &mut events);
    assert_eq!((value("brightness"), value("gain")), (Some(140), Some(17)));
    let complaint = camera.complaint().unwrap();
    assert!(
        complaint.contains("gain: 9999: it takes 0 to 255"),
        "{complaint}"
    );
    println!("  {complaint}");

    // Frames in several pieces are refused, with what can be done.
    let mut in_pieces = device(
        MULTIPLANAR,
        Wanted {
            format: Some(*b"NM12"),
            ..Wanted::default()
        },
    );
    let Err(refused) = in_pieces.open() else {
        panic!("NM12 is read")
    };
    println!("  {refused}");
    let said = refused.to_string();
    assert!(
        said.contains("gives NM12, which is not read; it offers") && said.contains("YUYV,"),
        "{said}"
    );

    // While it is open it is nobody else's.
    let mut same = device(VIVID, wanted(PixelFormat::Yuyv));
    assert!(matches!(same.open(), Err(DeviceError::Taken(_))));
    let missing = device("platform-vivid.7", wanted(PixelFormat::Yuyv)).open();
    assert!(matches!(missing, Err(DeviceError::Missing(_))));
    let unread = device(
        VIVID,
        Wanted {
            format: Some(*b"AR24"),
            ..Wanted::default()
        },
    );
    drop(camera);
    let mut unread = unread;
    let Err(refused) = unread.open() else {
        panic!("AR24 is read")
    };
    println!("  {refused}");
    assert!(
        refused
            .to_string()
            .contains("gives AR24, which is not read; it offers")
    );
}

#[test]
#[ignore = "needs the virtual machine of tests/vm"]
fn vivids_injected_faults_are_counted_and_survived() {
    if !is_vm("vivids_injected_faults_are_counted_and_survived") {
        return;
    }
    let (mut camera, _) = live(VIVID, wanted(PixelFormat::Yuyv));
    let mut events = Vec::new();
    // The edge of the start is no gap.
    let first = next(&mut camera, &mut events);
    assert_eq!(first.tag.lost_before, 0);

    inject("percentage_of_dropped_buffers", 50);
    let lost: u64 = (0..20)
        .map(|_| next(&mut camera, &mut events).tag.lost_before)
        .sum();
    println!("  20 frames came, {lost} were lost");
    assert!(lost >= 5, "{lost}");
    inject("percentage_of_dropped_buffers", 0);

    for (control, said) in [
        ("inject_v4l2_buf_flag_error", "unusable: "),
        ("inject_fatal_streaming_error", "trouble: "),
        ("disconnect", "trouble: "),
    ] {
        events.clear();
        inject(control, 1);
        let start = Instant::now();
        while !events.iter().any(|event| event.starts_with(said)) {
            assert!(start.elapsed() < PATIENCE, "{control}: {events:?}");
            next(&mut camera, &mut events);
        }
        next(&mut camera, &mut events);
        println!("  {control}: {}; frames go on", events.join("; "));
    }

    // What fails at opening fails once for each injection.
    for control in [
        "inject_vidioc_reqbufs_error",
        "inject_vidioc_qbuf_error",
        "inject_vidioc_streamon_error",
        "inject_vidioc_s_fmt_error",
    ] {
        let known = listed(VIVID).controls.iter().any(|c| c.name == control);
        if !known {
            println!("  {control}: vivid has it not");
            continue;
        }
        camera.close();
        events.clear();
        inject(control, 1);
        next(&mut camera, &mut events);
        println!("  {control}: {}; frames go on", events.join("; "));
        assert!(!events.is_empty(), "{control} had no effect");
    }
    let known: Vec<String> = listed(VIVID).controls.into_iter().map(|c| c.name).collect();
    println!("  controls: {}", known.join(" "));
}

/// A camera in user space, on USB.
struct Webcam(Child);

impl Webcam {
    fn plug_in(options: &[&str]) -> Self {
        Self::at_rate(5, options)
    }

    fn at_rate(rate: u32, options: &[&str]) -> Self {
        let mut frames: Vec<_> = std::fs::read_dir("frames")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "jpg"))
            .collect();
        frames.sort();
        let process = Command::new("./uvc_camera")
            .args([FRAME.0.to_string(), FRAME.1.to_string(), rate.to_string()])
            .args(options)
            .args(frames)
            .spawn()
            .unwrap();
        Self(process)
    }

    /// `kill -9`.
    fn pull_out(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn mjpeg() -> Wanted {
    Wanted {
        format: Some(*b"MJPG"),
        ..Wanted::default()
    }
}

fn node() -> Option<String> {
    let all = v4l2::list().unwrap();
    let webcam = all
        .iter()
        .find(|l| l.device.serial.as_deref() == Some(WEBCAM))?;
    Some(format!(
        "{} at {}",
        webcam.device.node.display(),
        webcam.device.path
    ))
}

#[test]
#[ignore = "needs the virtual machine of tests/vm"]
fn a_webcam_whose_cable_is_pulled_out_is_found_again() {
    if !is_vm("a_webcam_whose_cable_is_pulled_out_is_found_again") {
        return;
    }
    assert!(Path::new("frames").exists());
    let (mut camera, _) = live(WEBCAM, mjpeg());
    let mut events = Vec::new();
    for round in 0..3 {
        let webcam = Webcam::plug_in(&[]);
        for _ in 0..5 {
            let frame = next(&mut camera, &mut events);
            assert_eq!(frame.image.size(), FRAME);
            frame.image.decode(0.25).unwrap();
            assert!(frame.image.faults().is_empty(), "{}", frame.image.faults());
        }
        println!(
            "  round {round}: {}, {}",
            node().unwrap(),
            camera.format().unwrap()
        );
        webcam.pull_out();
        let start = Instant::now();
        while camera.format().is_some() {
            assert!(start.elapsed() < PATIENCE, "it still seems to be open");
            match camera.next(TICK) {
                Captured::Trouble(reason) => println!("  pulled out: {reason}"),
                _ => continue,
            }
        }
    }
    assert!(
        events
            .iter()
            .any(|event| event.contains("SN123 is not there")),
        "{events:?}"
    );
}

#[test]
#[ignore = "needs the virtual machine of tests/vm"]
fn a_webcam_that_sends_nonsense_or_nothing_is_survived() {
    if !is_vm("a_webcam_that_sends_nonsense_or_nothing_is_survived") {
        return;
    }
    // Cut in half: half of the rows or an error, and the next is whole.
    let webcam = Webcam::plug_in(&["--truncate", "3"]);
    let (mut camera, _) = live(WEBCAM, mjpeg());
    let mut events = Vec::new();
    let (mut whole, mut cut) = (0, 0);
    for _ in 0..12 {
        let frame = next(&mut camera, &mut events);
        match frame.image.decode(0.5) {
            Ok(_) if frame.image.faults().is_empty() => whole += 1,
            _ => cut += 1,
        }
    }
    println!("  truncated: {whole} whole, {cut} cut, {events:?}");
    assert!(whole >= 6 && cut >= 3);
    drop(camera);
    webcam.pull_out();

    // Marked as damaged: the driver drops them, which is a gap.
    let webcam = Webcam::plug_in(&["--error", "4"]);
    let (mut camera, _) = live(WEBCAM, mjpeg());
    events.clear();
    let lost: u64 = (0..12)
        .map(|_| next(&mut camera, &mut events).tag.lost_before)
        .sum();
    let flagged = events
        .iter()
        .filter(|event| event.starts_with("unusable"))
        .count();
    println!("  error bits: {lost} lost, {flagged} flagged");
    assert!(lost + flagged as u64 >= 2, "{events:?}");
    drop(camera);
    webcam.pull_out();

    // Silent though plugged in: closed and opened, again and again.
    let webcam = Webcam::plug_in(&["--stall", "4"]);
    let (mut camera, _) = live(WEBCAM, mjpeg());
    events.clear();
    for _ in 0..3 {
        next(&mut camera, &mut events);
    }
    let start = Instant::now();
    let said = loop {
        assert!(start.elapsed() < PATIENCE, "nobody noticed");
        if let Captured::Trouble(reason) = camera.next(TICK) {
            break reason;
        }
    };
    println!("  stalled: {said}");
    assert!(said.contains("gave no frame for"), "{said}");
    webcam.pull_out();
    let webcam = Webcam::plug_in(&[]);
    next(&mut camera, &mut events);
    webcam.pull_out();
}

/// The head of a whale in a frame: its name and where it lies.
type TrueHead = (String, Landmarks);

fn truth(bundle: &Bundle) -> (Catalogue, Vec<FramePlan>) {
    let known = &bundle.manifest().catalogue.individuals;
    let population = Catalogue::new(POPULATION, known.len(), 0);
    let plans = Survey::new(&population, 7).filter(|plan| {
        let heads = plan.heads_at(&population, FRAME.0, FRAME.1);
        heads.len() == 1 && heads[0].landmarks.head_length() > 70.0
    });
    let plans = plans.take(FRAMES).collect();
    (population, plans)
}

/// Draws what the webcam sends, into the folder that CALLOSITY_VM_FRAMES names; on the host, for the machine is slow.
#[test]
#[ignore = "part of tests/vm/run"]
fn draws_the_webcams_frames() {
    let Some(folder) = std::env::var_os("CALLOSITY_VM_FRAMES").map(PathBuf::from) else {
        return;
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = Bundle::open(here.join("models/virtual-survey")).unwrap();
    let (population, plans) = truth(&bundle);
    for (i, plan) in plans.iter().enumerate() {
        let frame = plan.render(&population, FRAME.0, FRAME.1);
        let jpeg = encode_jpeg(&frame.image, 90).unwrap();
        std::fs::write(folder.join(format!("{i}.jpg")), jpeg).unwrap();
    }
}

/// Whales go through USB, driver, program and broker, and come out with their names.
#[test]
#[ignore = "needs the virtual machine of tests/vm"]
fn whales_before_a_webcam_arrive_by_name() {
    if !is_vm("whales_before_a_webcam_arrive_by_name") {
        return;
    }
    let bundle = Bundle::open(Path::new("virtual-survey")).unwrap();
    let (population, plans) = truth(&bundle);
    let heads: Vec<TrueHead> = plans
        .iter()
        .flat_map(|plan| plan.heads_at(&population, FRAME.0, FRAME.1))
        .map(|head| (head.individual, head.landmarks))
        .collect();
    let config = EngineConfig {
        choice: EngineChoice::Builtin,
        ..EngineConfig::default()
    };
    let (camera, _) = live(WEBCAM, mjpeg());
    let ground = VirtualGround::start().unwrap();
    let identifier = Identifier::new(&bundle, &config).unwrap();
    let flight = Flight {
        stop_deadline: PATIENCE,
        ..Flight::new(
            vec![camera.into()],
            identifier,
            BrokerOptions::new(ground.address(), None, None).unwrap(),
            "test".parse().unwrap(),
            "/tmp/state".into(),
        )
    };
    let stop = CancellationToken::new();
    let flying = {
        let stop = stop.clone();
        std::thread::spawn(move || fly(flight, &stop).unwrap())
    };
    // Plugged in after the flight has begun.
    let webcam = Webcam::at_rate(1, &[]);
    let (mut right, mut wrong, mut seen) = (0, Vec::<String>::new(), 0);
    // The emulated processor takes minutes for each frame.
    let until = Instant::now() + Duration::from_secs(900);
    while seen < 3 {
        let heard = ground.heard().recv_timeout(until - Instant::now());
        let heard = heard.unwrap_or_else(|e| panic!("only {seen} sightings came: {e}"));
        let Received::Sighting(sighting) = heard else {
            continue;
        };
        if sighting.state != SightingState::New {
            continue;
        }
        seen += 1;
        let centre = Point::new(
            (sighting.head.bonnet_pixels.x + sighting.head.blowhead_pixels.x) / 2.0,
            (sighting.head.bonnet_pixels.y + sighting.head.blowhead_pixels.y) / 2.0,
        );
        let distance = |head: &&TrueHead| head.1.centre().distance(centre);
        let nearest = heads
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let (name, landmarks) = nearest.unwrap();
        let best = &sighting.candidates[0].organism_id;
        println!(
            "  {best} ({:?}), truth {name}, {:.2} head lengths away",
            sighting.decision,
            distance(&nearest.unwrap()) / landmarks.head_length()
        );
        if best == name && distance(&nearest.unwrap()) < 0.5 * landmarks.head_length() {
            right += 1;
        } else {
            wrong.push(best.clone());
        }
    }
    stop.cancel();
    let report = flying.join().unwrap();
    webcam.pull_out();
    println!("  {:?}", report.frames);
    assert_eq!((right, wrong), (3, vec![]));
}
