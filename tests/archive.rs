//! Pictures that a flight keeps: what is written and why, disks that are full, slow to come or taken away, and a program
//! that is killed while it writes.
#![allow(missing_docs)]

#[path = "common/flying.rs"]
mod flying;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callosity::archive::{ArchivedMessage, Settings, Store, Worth};
use callosity::camera::{Backlog, Camera, Captured, Frame, FrameTag, Replay};
use callosity::clock::{SystemClock, TimeSource};
use callosity::effort::EffortSettings;
use callosity::position::Mounting;
use callosity::rehearsal::VirtualGround;
use callosity::service::{About, Flight, FlightReport, Recognised, Recogniser, Survey, fly};
use flying::{PATIENCE, TwoHeads, flight_with, is_root};
use ground::store::{NewDecision, Search, Store as Ground, Verdict};
use ground::{Delivery, Received};
use image::RgbImage;
use jiff::Timestamp;
use link::BrokerOptions;
use link::archive::{ArchiveRecord, KeptBecause};
use link::message::{FrameReference, Presence, Sighting, TimeQuality, Watch};
use link::topic::Platform;
use recognition::identify::{Identification, Opinion};
use recognition::pixels::{EncodedPhotograph, Image, PixelFormat, RawImage, YCbCr, encode_jpeg};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use walkdir::WalkDir;

/// Width of frames in which the recogniser sees two whales, none, and fails.
const WHALES: u32 = 256;
const EMPTY: u32 = 260;
const BAD: u32 = 264;

/// [`TwoHeads`] where the frame is as wide as those with whales.
#[derive(Default)]
struct ByWidth(TwoHeads);

impl Recogniser for ByWidth {
    fn about(&self) -> About {
        self.0.about()
    }

    fn recognise(&mut self, image: &Image) -> anyhow::Result<Recognised> {
        let mut recognised = self.0.recognise(image)?;
        match image.size().0 {
            BAD => anyhow::bail!("the provider does not answer"),
            EMPTY => recognised.heads.clear(),
            _ => {}
        }
        Ok(recognised)
    }

    fn identify(&self, opinion: &Opinion) -> Identification {
        self.0.identify(opinion)
    }
}

/// A clock on the wall that somebody sets at a moment.
struct Wall {
    right_from: Duration,
}

impl TimeSource for Wall {
    fn wall(&self) -> Timestamp {
        if self.is_synchronised() {
            SystemClock.wall()
        } else {
            Timestamp::UNIX_EPOCH
        }
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn is_synchronised(&self) -> bool {
        self.monotonic() >= self.right_from
    }

    fn boot(&self) -> Option<String> {
        SystemClock.boot()
    }
}

fn survey_with(right_from: Duration) -> Survey {
    Survey {
        time: Arc::new(Wall { right_from }),
        ..Survey::default()
    }
}

/// With a clock that is right, or that nobody sets.
fn survey(is_right: bool) -> Survey {
    survey_with(if is_right {
        Duration::ZERO
    } else {
        Duration::MAX
    })
}

/// A picture with so much detail that it does not compress well.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    RgbImage::from_fn(width, height, |_, _| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        image::Rgb([state as u8, (state >> 8) as u8, (state >> 16) as u8])
    })
}

/// Photographs of these widths.
fn photographs(folder: &Path, widths: &[u32], height: u32) {
    for (i, width) in widths.iter().enumerate() {
        let jpeg = encode_jpeg(&picture(*width, height, i as u32), 90).unwrap();
        fs::write(folder.join(format!("{i:04}.jpg")), jpeg).unwrap();
    }
}

/// What the ground and the disk hold of a flight.
struct Flown {
    report: FlightReport,
    sightings: Vec<Sighting>,
    crops: BTreeMap<Uuid, Vec<u8>>,
    problems: BTreeSet<String>,
    /// All that the ground heard, as it came.
    deliveries: Vec<Delivery>,
}

/// A message that a station keeps.
fn delivered(received: &Received) -> Option<Delivery> {
    let platform: Platform = "test".parse().unwrap();
    let json = |topic: &str, payload: serde_json::Result<Vec<u8>>| {
        Delivery::from_disk(topic, "application/json", payload.unwrap())
    };
    match received {
        Received::Sighting(said) => json(&platform.sighting(), serde_json::to_vec(said)),
        Received::Track(said) => json(&platform.track(), serde_json::to_vec(said)),
        Received::Effort(said) => json(&platform.effort(), serde_json::to_vec(said)),
        Received::Crop { sighting, jpeg } => {
            Delivery::from_disk(&platform.crop(*sighting), "image/jpeg", jpeg.clone())
        }
        _ => None,
    }
}

/// Flies to the end with a ground station that listens; `meanwhile` is called with the problems of health messages as
/// they come.
fn flown(
    with: impl FnOnce(BrokerOptions) -> Flight<ByWidth>,
    mut meanwhile: impl FnMut(&BTreeSet<String>, &CancellationToken) + Send + 'static,
) -> Flown {
    let ground = VirtualGround::start().unwrap();
    let flight = with(BrokerOptions::new(ground.address(), None, None).unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let ground = std::thread::spawn(move || {
        let (mut sightings, mut crops, mut problems) =
            (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let mut deliveries = Vec::new();
        loop {
            let received = ground.heard().recv_timeout(PATIENCE).unwrap();
            deliveries.extend(delivered(&received));
            match received {
                Received::Sighting(sighting) => sightings.push(*sighting),
                Received::Crop { sighting, jpeg } => {
                    crops.insert(sighting, jpeg);
                }
                Received::Health(health) => {
                    let now = health.problems.into_iter();
                    let now = now.filter(|problem| problem.part == "archive");
                    let now: BTreeSet<_> = now.map(|problem| problem.reason).collect();
                    meanwhile(&now, &stopped);
                    problems.extend(now);
                }
                Received::Status(status) if status.status == Presence::Stopped => {
                    return (sightings, crops, problems, deliveries);
                }
                _ => {}
            }
        }
    });
    let report = fly(flight, &stop).unwrap();
    let (sightings, crops, problems, deliveries) = ground.join().unwrap();
    Flown {
        report,
        sightings,
        crops,
        problems,
        deliveries,
    }
}

fn archived(flight: Flight<ByWidth>, archive: Settings) -> Flight<ByWidth> {
    Flight {
        archive: Some(archive),
        survey: survey(true),
        ..flight
    }
}

/// The records of an archive by the paths of their pictures; every picture has one, and every record a picture.
fn records(archive: &Path) -> BTreeMap<PathBuf, ArchiveRecord> {
    let schema = fs::read_to_string("src/link/schema/archive.json").unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let mut records = BTreeMap::new();
    let mut pictures = BTreeSet::new();
    for file in WalkDir::new(archive).min_depth(2) {
        let file = file.unwrap();
        let path = file.path().to_owned();
        if file.file_type().is_dir() {
            continue;
        }
        if path.extension().is_some_and(|ending| ending == "json") {
            let text = fs::read_to_string(&path).unwrap();
            let said: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(schema.is_valid(&said), "{text}");
            let record: ArchiveRecord = serde_json::from_value(said).unwrap();
            records.insert(path.with_file_name(&record.picture), record);
        } else {
            pictures.insert(path);
        }
    }
    assert_eq!(pictures, records.keys().cloned().collect());
    records
}

fn decoded(path: &Path) -> RgbImage {
    let photograph = EncodedPhotograph::open(path).unwrap();
    photograph.decode(1.0).unwrap().pixels
}

#[test]
fn a_flight_keeps_whales_some_empty_frames_and_crops_with_their_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let mut widths = vec![EMPTY; 9];
    widths[2] = WHALES;
    widths[5] = WHALES;
    widths[7] = BAD;
    photographs(folder.path(), &widths, 64);
    let archive = folder.path().join("archive");
    let settings = Settings {
        every: 4,
        ..Settings::new(archive.clone())
    };
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder.path(), 50.0, options);
            archived(flight, settings)
        },
        |_, _| {},
    );
    let counts = flown.report.archive.clone().unwrap();
    assert_eq!((counts.frames, counts.whales, counts.crops), (5, 2, 4));
    assert_eq!((counts.empty_lost, counts.whales_lost), (0, 0));
    assert!(flown.problems.is_empty(), "{:?}", flown.problems);

    let records = records(&archive);
    let of = |why| {
        let of = records.values().filter(|record| record.kept_because == why);
        let mut numbers: Vec<_> = of.map(|record| record.frame.number).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(of(KeptBecause::Whale), [2, 5]);
    assert_eq!(
        of(KeptBecause::EveryNth),
        [0, 6],
        "the first and the fourth after it"
    );
    assert_eq!(of(KeptBecause::NotLookedAt), [7]);
    assert_eq!(of(KeptBecause::Crop), [2, 2, 5, 5]);
    let heard: BTreeSet<_> = flown.sightings.iter().map(|s| s.occurrence_id).collect();
    let event_id = flown.sightings[0].event_id.unwrap();
    for (path, record) in &records {
        assert_eq!(record.event_id, event_id);
        assert_eq!(record.time_quality, TimeQuality::Network);
        let name = path.to_str().unwrap();
        let time = record.time.strftime("%Y%m%dT%H%M%S").to_string();
        assert!(name.contains(&time), "{name} of {time}");
        let digits = event_id.simple().to_string();
        assert!(name.contains(&digits[20..]), "{name}");
        let (said, source) = (record.frame.file.as_deref(), record.frame.number);
        assert_eq!(said, Some(format!("{source:04}.jpg").as_str()));
        let ids = record.heads.iter().map(|head| head.occurrence_id);
        assert!(
            ids.clone().all(|id| heard.contains(&id)),
            "as the ground heard"
        );
        match record.kept_because {
            KeptBecause::Crop => {
                let id = ids.clone().next().unwrap();
                let sent = EncodedPhotograph::from_bytes(flown.crops[&id].clone()).unwrap();
                assert_eq!(decoded(path), sent.decode(1.0).unwrap().pixels);
                assert_eq!(ids.count(), 1);
            }
            why => {
                let came = folder.path().join(format!("{source:04}.jpg"));
                assert_eq!(decoded(path), decoded(&came));
                assert_eq!(ids.count(), if why == KeptBecause::Whale { 2 } else { 0 });
                let taken = EncodedPhotograph::open(path).unwrap().taken();
                assert_eq!(taken.time, Some(record.time));
            }
        }
        let failure = record.failure.as_deref();
        let failed = record.kept_because == KeptBecause::NotLookedAt;
        assert_eq!(failure, failed.then_some("the provider does not answer"));
    }

    // The program tells what is there, and pins it.
    let program = |arguments: &[&str]| {
        let said = Command::new(env!("CARGO_BIN_EXE_callosity"))
            .arg("archive")
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
        (said.status.code(), text)
    };
    let at = archive.to_str().unwrap();
    let (code, said) = program(&["list", at]);
    assert!(
        code == Some(0) && said.contains(&event_id.to_string()),
        "{said}"
    );
    let whale = flown.sightings[0].occurrence_id.to_string();
    let (code, said) = program(&["pin", at, &whale]);
    assert!(
        code == Some(0) && said.contains("2 pictures pinned"),
        "{said}"
    );
    let (code, said) = program(&["pin", at, "nobody"]);
    assert!(
        code == Some(1) && said.contains("no flight, sighting or picture nobody"),
        "{said}"
    );
    assert_eq!(program(&["verify", at]).0, Some(0));
    let (some, _) = records.first_key_value().unwrap();
    fs::remove_file(some).unwrap();
    let (code, said) = program(&["verify", at]);
    assert!(code == Some(2) && said.contains("missing"), "{said}");
    let (code, said) = program(&["list", folder.path().to_str().unwrap()]);
    assert!(
        code == Some(1) && said.contains("there is no archive"),
        "{said}"
    );
}

/// A camera that gives raw frames.
struct RawCamera(u64);

impl Camera for RawCamera {
    fn name(&self) -> &str {
        "belly/1"
    }

    fn backlog(&self) -> Backlog {
        Backlog::Bounded(2)
    }

    fn next(&mut self, _: Duration) -> Captured {
        self.0 += 1;
        if self.0 > 3 {
            return Captured::End;
        }
        let (width, height) = (WHALES, 64);
        let bytes = (0..width * height * 2).map(|i| (i / 7) as u8).collect();
        let format = PixelFormat::from_four_characters(*b"YUYV").unwrap();
        let raw = RawImage::new(format, (width, height), 0, bytes, YCbCr::default()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        Captured::Frame(Box::new(Frame {
            tag: FrameTag::new(self.name().into(), self.0, SystemClock.monotonic()),
            image: raw.into(),
        }))
    }
}

/// A gpsd that says ten times a second where the aircraft is, which hangs in the air: one that flies on would be elsewhere
/// by the time of a frame.
fn gpsd() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let version =
                r#"{"class":"VERSION","release":"3.25","proto_major":3,"proto_minor":15}"#;
            let mut line = format!("{version}\n");
            while client.write_all(line.as_bytes()).is_ok() {
                std::thread::sleep(Duration::from_millis(100));
                line = format!(
                    "{{\"class\":\"TPV\",\"mode\":3,\"time\":\"{}\",\"lat\":41.5,\"lon\":-69.25,\"altMSL\":304.8,\
                     \"speed\":0.0,\"eph\":5.0}}\n\
                     {{\"class\":\"ATT\",\"heading\":350.0,\"roll\":0.0,\"pitch\":0.0}}\n",
                    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
                );
            }
        }
    });
    format!("127.0.0.1:{port}")
}

#[test]
fn raw_frames_are_encoded_and_all_know_where_they_were_taken() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), &[WHALES], 64);
    let archive = folder.path().join("archive");
    let settings = Settings::new(archive.clone());
    let mounting = Mounting {
        roll_degrees: -30.0,
        ..Mounting::straight_down(50.0, 35.9)
    };
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder.path(), 50.0, options);
            let flight = archived(flight, settings);
            Flight {
                cameras: vec![RawCamera(0).into()],
                survey: Survey {
                    gpsd: Some(gpsd().parse().unwrap()),
                    mountings: [("belly/1".to_owned(), mounting)].into(),
                    effort: Some(EffortSettings {
                        observers: vec!["Ada".into()],
                        project: Some("Gulf".into()),
                        aircraft: None,
                    }),
                    ..flight.survey
                },
                ..flight
            }
        },
        |_, _| {},
    );
    assert_eq!(flown.report.archive.unwrap().whales, 3);
    let records = records(&archive);
    let frames = records
        .iter()
        .filter(|(_, r)| r.kept_because == KeptBecause::Whale);
    let mut placed = 0;
    for (path, record) in frames {
        assert!(path.to_str().unwrap().contains("/belly%2F1/"), "{path:?}");
        assert_eq!(record.encoded.as_deref(), Some("YUYV to JPEG 95"));
        assert_eq!(decoded(path).dimensions(), (WHALES, 64));
        let effort = record.effort.as_ref().unwrap();
        assert_eq!(
            (&effort.observers[..], effort.watch),
            (&["Ada".to_owned()][..], Watch::Off)
        );
        let Some(place) = &record.georeference.place else {
            continue;
        };
        placed += 1;
        assert!(
            place.coordinate_uncertainty_in_meters < 60.0,
            "the aircraft's own"
        );
        let taken = EncodedPhotograph::open(path)
            .unwrap()
            .taken()
            .place
            .unwrap();
        assert!((taken.latitude - 41.5).abs() < 1e-6 && (taken.longitude + 69.25).abs() < 1e-6);
        assert_eq!(taken.altitude, Some(304.8));
        // To the right of the nose, which points to 350°: rolled with the left side down, it looks there.
        let direction = record.direction_degrees.unwrap();
        assert!((direction - 80.0).abs() < 1.0, "{direction}");
        let footprint = record.georeference.footprint.unwrap();
        assert!(
            footprint
                .iter()
                .all(|corner| (corner.latitude - 41.5).abs() < 0.02)
        );
        assert!(record.georeference.head_length_meters.is_none());
    }
    assert!(placed >= 1, "{records:?}");
}

#[test]
fn nothing_is_named_by_a_date_that_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), &[WHALES, EMPTY, WHALES], 64);
    let archive = folder.path().join("archive");
    let settings = Settings::new(archive.clone());
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder.path(), 50.0, options);
            Flight {
                survey: survey(false),
                ..archived(flight, settings)
            }
        },
        |_, _| {},
    );
    assert_eq!(flown.report.archive.unwrap().frames, 3);
    let records = records(&archive);
    assert!(records.len() >= 5);
    let mut names = Vec::new();
    for (path, record) in &records {
        assert_eq!(record.time_quality, TimeQuality::Unset);
        assert_eq!(EncodedPhotograph::open(path).unwrap().taken().time, None);
        let below = path.strip_prefix(&archive).unwrap().to_str().unwrap();
        assert!(below.starts_with("undated_"), "{below}");
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("undated-"), "{name}");
        names.push((name.to_owned(), record.frame.number));
    }
    assert!(names.is_sorted_by_key(|(_, number)| *number), "{names:?}");
}

#[test]
fn records_get_their_date_when_the_time_becomes_known() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), &[WHALES; 10], 64);
    let archive = folder.path().join("archive");
    let settings = Settings::new(archive.clone());
    let begun = SystemClock.wall();
    let from = SystemClock.monotonic() + Duration::from_secs(3);
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder.path(), 1.0, options);
            Flight {
                survey: survey_with(from),
                ..archived(flight, settings)
            }
        },
        |_, _| {},
    );
    assert_eq!(flown.report.archive.unwrap().frames, 10);
    let records = records(&archive);
    let (undated, dated): (Vec<_>, Vec<_>) = records.iter().partition(|(path, _)| {
        let below = path.strip_prefix(&archive).unwrap();
        below.to_str().unwrap().starts_with("undated_")
    });
    assert!(!undated.is_empty() && !dated.is_empty(), "{records:?}");
    for (path, record) in &records {
        let after = record.time.duration_since(begun).as_secs_f64();
        assert!((-1.0..60.0).contains(&after), "{path:?}: {record:?}");
    }
    for (_, record) in undated {
        assert_eq!(record.time_quality, TimeQuality::Corrected);
    }
}

/// `callosity archive pin`, in a process of its own, while this one has the archive open.
#[test]
fn another_process_pins_what_this_one_would_delete() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        budget: Some(1_500_000),
        ..Settings::new(folder.path().to_owned())
    };
    let mut store = Store::open(&settings).unwrap();
    let mut put = |number| {
        let record = test_record(number);
        let worth = callosity::archive::Worth::Whale;
        store
            .put(record, worth, "jpg", &[7; 200_000])
            .unwrap()
            .picture
    };
    let first = put(0);
    let ask = |verb: &str, what: &str| {
        let callosity = std::process::Command::new(env!("CARGO_BIN_EXE_callosity"))
            .args(["archive", verb])
            .arg(folder.path())
            .arg(what)
            .output()
            .unwrap();
        let said = [callosity.stdout, callosity.stderr].concat();
        (callosity.status.success(), String::from_utf8(said).unwrap())
    };
    let (is_well, said) = ask("pin", &first);
    assert!(is_well && said.contains("asked of the callosity"), "{said}");
    let (is_well, said) = ask("pin", "left/none.jpg");
    assert!(!is_well && said.contains("no such picture"), "{said}");
    (1..30).for_each(|number| drop(put(number)));
    assert!(folder.path().join(&first).exists());
    assert!(ask("unpin", &first).0);
    (30..60).for_each(|number| drop(put(number)));
    assert!(!folder.path().join(&first).exists());
}

/// A disk of memory; taken away when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
                .arg(at)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED: no right to mount a disk of memory");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // At once, whoever has files open there: as if it were pulled.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn without_its_disk_nothing_is_written_and_the_flight_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), &[WHALES, EMPTY, WHALES], 64);
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let settings = Settings {
        mount: Some(disk.clone()),
        ..Settings::new(disk.join("archive"))
    };
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder.path(), 5.0, options);
            archived(flight, settings)
        },
        |_, _| {},
    );
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    assert_eq!(flown.report.frames.identified, 3);
    assert!(flown.report.messages.is_empty() && flown.report.failure.is_none());
    let counts = flown.report.archive.unwrap();
    assert_eq!((counts.frames, counts.crops), (0, 0));
    assert_eq!((counts.empty_lost, counts.whales_lost), (1, 6));
    let said = flown.problems.first().unwrap();
    assert!(said.contains("nothing is mounted at"), "{said}");
}

#[test]
fn a_disk_that_comes_goes_and_comes_again_takes_pictures_while_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), &[WHALES, EMPTY], 64);
    let at = folder.path().join("disk");
    fs::create_dir(&at).unwrap();
    let Some(disk) = Disk::mount(&at, "8m") else {
        return;
    };
    drop(disk);
    let settings = Settings {
        every: 1,
        mount: Some(at.clone()),
        ..Settings::new(at.join("archive"))
    };
    let below = at.clone();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let seen = kept.clone();
    let mut disk: Option<Disk> = None;
    let mut phase = 0;
    let begun = Instant::now();
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder.path(), 10.0, options);
            let camera = Replay::open(folder.path(), 10.0, true).unwrap();
            Flight {
                cameras: vec![camera.as_live().into()],
                ..archived(flight, settings)
            }
        },
        move |problems, stop| {
            let pictures = WalkDir::new(at.join("archive")).into_iter().flatten();
            let pictures = pictures.filter(|f| f.path().extension().is_some_and(|e| e == "jpg"));
            let pictures = pictures.count();
            match (phase, problems.is_empty()) {
                (0, false) => {
                    disk = Disk::mount(&at, "8m");
                    phase = 1;
                }
                (1, true) if pictures > 0 => {
                    disk = None;
                    seen.lock().unwrap().push(pictures);
                    phase = 2;
                }
                (2, false) => {
                    disk = Disk::mount(&at, "8m");
                    phase = 3;
                }
                (3, true) if pictures > 0 => {
                    seen.lock().unwrap().push(pictures);
                    stop.cancel();
                    phase = 4;
                }
                _ if begun.elapsed() > PATIENCE * 2 => stop.cancel(),
                _ => {}
            }
            // Kept until the flight has ended.
            let _ = &disk;
        },
    );
    assert_eq!(kept.lock().unwrap().len(), 2, "{:?}", flown.problems);
    assert!(flown.report.failure.is_none());
    // The disk is away again: nothing was ever written below it.
    assert_eq!(fs::read_dir(below).unwrap().count(), 0);
}

#[test]
fn a_disk_that_others_fill_costs_pictures_and_no_sighting() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("disk");
    fs::create_dir(&at).unwrap();
    let Some(disk) = Disk::mount(&at, "12m") else {
        return;
    };
    let fly_over = |photographs: &Path, budget| {
        let settings = Settings {
            every: 1,
            budget,
            ..Settings::new(at.join("archive"))
        };
        flown(
            |options| {
                let flight = flight_with(ByWidth::default(), photographs, 20.0, options);
                archived(flight, settings)
            },
            |_, _| {},
        )
    };
    // More than the disk holds: the oldest without a whale go, and no frame with one has to.
    let many = tempfile::tempdir().unwrap();
    let widths: Vec<_> = (0..60)
        .map(|i| if i % 6 == 0 { WHALES } else { EMPTY })
        .collect();
    photographs(many.path(), &widths, 1600);
    let flown = fly_over(many.path(), None);
    let counts = flown.report.archive.unwrap();
    assert_eq!((counts.whales, counts.crops), (10, 20), "{counts:?}");
    assert_eq!((counts.whales_lost, counts.deleted.whales), (0, 0));
    assert!(counts.deleted.empty > 10, "{counts:?}");
    let before = records(&at.join("archive"));
    let mut whales = before
        .values()
        .filter(|r| r.kept_because == KeptBecause::Whale);
    assert_eq!(whales.by_ref().count(), 10);
    let mut empty: Vec<_> = before
        .values()
        .filter(|r| r.kept_because == KeptBecause::EveryNth)
        .map(|r| r.frame.number)
        .collect();
    empty.sort_unstable();
    let newest: Vec<_> = (0..60)
        .rev()
        .filter(|i| i % 6 != 0)
        .take(empty.len())
        .collect();
    assert!(empty.iter().rev().eq(&newest), "the newest stay: {empty:?}");

    // Somebody else takes every byte that is left.
    let mut hog = fs::File::create(at.join("hog")).unwrap();
    while hog.write_all(&[7; 4096]).is_ok() {}
    let flown = fly_over(many.path(), Some(u64::MAX));
    assert_eq!(flown.report.frames.identified, 60);
    let ids: BTreeSet<_> = flown.sightings.iter().map(|s| s.occurrence_id).collect();
    assert_eq!(ids.len(), 20, "each sighting is delivered");
    assert!(flown.report.messages.is_empty());
    let hogged = fs::metadata(at.join("hog")).unwrap().len();
    assert!(hogged > 1_000_000, "nobody touched it");
    let after = records(&at.join("archive"));
    assert!(!after.is_empty());
    // Once it is gone, pictures are kept again.
    fs::remove_file(at.join("hog")).unwrap();
    let few = tempfile::tempdir().unwrap();
    photographs(few.path(), &[WHALES], 64);
    let flown = fly_over(few.path(), None);
    assert_eq!(flown.report.archive.unwrap().whales, 1);
    drop(disk);
}

fn test_record(number: u64) -> ArchiveRecord {
    ArchiveRecord {
        kept_because: KeptBecause::Whale,
        picture: String::new(),
        event_id: Uuid::from_u128(7),
        platform: "test".into(),
        camera: "left".into(),
        frame: FrameReference {
            number,
            file: None,
            width_pixels: 1,
            height_pixels: 1,
            incomplete: None,
            damaged: None,
        },
        time: "2026-03-01T14:15:59Z".parse().unwrap(),
        time_quality: TimeQuality::Network,
        flight_time: Timestamp::UNIX_EPOCH,
        georeference: link::message::Georeference::default(),
        direction_degrees: None,
        effort: None,
        heads: Vec::new(),
        encoded: None,
        failure: None,
        identified_by: "test".into(),
    }
}

fn small(folder: &Path) -> Settings {
    Settings {
        budget: Some(3_000_000),
        ..Settings::new(folder.to_owned())
    }
}

/// Writes until it is killed; started as a process of its own by the test below.
#[test]
#[ignore = "the process that another test kills"]
fn child_that_writes() {
    let Ok(folder) = std::env::var("ARCHIVE_TEST_FOLDER") else {
        return;
    };
    let mut store = Store::open(&small(Path::new(&folder))).unwrap();
    for number in 0.. {
        let content = vec![number as u8; 1000 + (number as usize * 7919) % 200_000];
        let written = store
            .put(test_record(number), Worth::Empty, "jpg", &content)
            .unwrap();
        println!("\nwritten {}", written.picture);
    }
}

#[test]
fn a_program_that_is_killed_while_it_writes_leaves_whole_pictures_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("holiday.jpg"), "somebody's").unwrap();
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes", "--ignored", "--nocapture"])
            .env("ARCHIVE_TEST_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let names = lines.map_while(Result::ok);
        let mut names = names.filter_map(|line| Some(line.strip_prefix("written ")?.to_owned()));
        let mut written: Vec<_> = names.by_ref().take(20).collect();
        // At any moment of the next ones.
        std::thread::sleep(Duration::from_micros(round * 1700));
        child.kill().unwrap();
        child.wait().unwrap();
        written.extend(names);

        let store = Store::open(&small(folder.path())).unwrap();
        let mut wrong = Vec::new();
        store
            .verify(|name, found| wrong.push((name.to_owned(), found)))
            .unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let total = store.total(Worth::Empty).unwrap();
        let mut files = BTreeSet::new();
        for file in WalkDir::new(folder.path()).min_depth(2) {
            let file = file.unwrap();
            if file.file_type().is_file() {
                let below = file.path().strip_prefix(folder.path()).unwrap();
                files.insert(below.to_str().unwrap().to_owned());
            }
        }
        assert_eq!(files.len() as u64, 2 * total.pictures, "{files:?}");
        for name in &files {
            if name.ends_with(".jpg") {
                let content = fs::read(folder.path().join(name)).unwrap();
                assert!(content.iter().all(|byte| *byte == content[0]), "whole");
            }
        }
        // The last ones that it said to have written are there, but for those that made room for one that it did not say.
        let there = written
            .iter()
            .rev()
            .take_while(|name| files.contains(*name))
            .count();
        assert!(there >= 5, "{there} of {written:?}");
        assert!(total.bytes <= 3_000_000);
    }
    assert_eq!(
        fs::read(folder.path().join("holiday.jpg")).unwrap(),
        b"somebody's"
    );
}

/// What a station has, without when it heard it.
fn held(data: &Path) -> serde_json::Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Ground::open(data, None).await.unwrap();
        let search = Search {
            limit: Some(1000),
            ..Search::default()
        };
        let mut sightings = Vec::new();
        for summary in store.search(&search).await.unwrap() {
            let details = store.sighting(summary.id).await.unwrap().unwrap();
            let crops: BTreeSet<_> = details.crops.iter().collect();
            for crop in &crops {
                assert!(store.pictures().get(crop).unwrap().is_some());
            }
            sightings.push(serde_json::json!([
                summary,
                details.message,
                details.revisions,
                crops
            ]));
        }
        let aircraft = store.aircraft().await.unwrap().into_iter();
        let aircraft: Vec<_> = aircraft
            .map(|a| serde_json::json!([a.platform, a.track, a.effort]))
            .collect();
        let tracks = store.tracks(Timestamp::UNIX_EPOCH, 10_000).await.unwrap();
        let (set_aside, _) = store.set_aside(10).await.unwrap();
        let set_aside: Vec<_> = set_aside.iter().map(|s| &s.reason).collect();
        let held = serde_json::json!({
            "sightings": sightings, "aircraft": aircraft, "tracks": tracks, "setAside": set_aside
        });
        store.close().await;
        held
    })
}

fn receive(data: &Path, deliveries: &[Delivery]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Ground::open(data, None).await.unwrap();
        for delivery in deliveries {
            store.keep(std::slice::from_ref(delivery)).await.unwrap();
        }
        store.close().await;
    });
}

fn import(archive: &Path, data: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let said = Command::new(env!("CARGO_BIN_EXE_callosity"))
        .args(["ground", "import"])
        .arg(archive)
        .arg("--data")
        .arg(data)
        .args(arguments)
        .env_remove("CALLOSITY_DATABASE")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (said.status.code(), text(said.stdout), text(said.stderr))
}

/// A flight over some whales, with all that the ground heard of it.
fn flight_to_import(folder: &Path) -> (PathBuf, Flown) {
    let mut widths = vec![EMPTY; 8];
    for whale in [1, 2, 5, 6] {
        widths[whale] = WHALES;
    }
    photographs(folder, &widths, 64);
    let archive = folder.join("archive");
    let settings = Settings::new(archive.clone());
    let flown = flown(
        |options| {
            let flight = flight_with(ByWidth::default(), folder, 50.0, options);
            let flight = archived(flight, settings);
            Flight {
                survey: Survey {
                    effort: Some(EffortSettings::default()),
                    ..flight.survey
                },
                ..flight
            }
        },
        |_, _| {},
    );
    (archive, flown)
}

/// Whatever a link lost, the archive brings: the store is as if all had come live; and a second import changes nothing.
#[test]
fn what_the_link_lost_comes_from_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, flown) = flight_to_import(folder.path());
    let all = folder.path().join("all");
    receive(&all, &flown.deliveries);
    let expected = held(&all);
    assert!(
        expected["sightings"].as_array().unwrap().len() >= 4,
        "{expected}"
    );
    assert!(expected["aircraft"][0][2].is_object(), "{expected}");
    let mut lottery = 88_172_645_463_325_252_u64;
    for share in [0, 1, 2, 3, 4] {
        let mut deliveries: Vec<_> = flown.deliveries.clone();
        deliveries.retain(|_| {
            lottery ^= lottery << 13;
            lottery ^= lottery >> 7;
            lottery ^= lottery << 17;
            lottery % 4 < share
        });
        // What came live may have come in any order.
        if lottery.is_multiple_of(2) {
            deliveries.reverse();
        }
        let data = tempfile::tempdir_in(folder.path()).unwrap();
        receive(data.path(), &deliveries);
        let (code, said, wrong) = import(&archive, data.path(), &[]);
        assert_eq!(code, Some(0), "{said}{wrong}");
        assert_eq!(held(data.path()), expected, "{share} of 4: {said}");
        let (code, said, _) = import(&archive, data.path(), &[]);
        assert_eq!(code, Some(0));
        for line in said.lines().filter(|line| line.contains("of them new")) {
            assert!(line.ends_with(" 0 of them new"), "{said}");
        }
        assert_eq!(held(data.path()), expected);
    }
}

/// Files that are damaged are named and counted; all else comes.
#[test]
fn what_cannot_be_read_of_an_archive_is_named_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = flight_to_import(folder.path());
    let whole = folder.path().join("whole");
    assert_eq!(import(&archive, &whole, &[]).0, Some(0));
    let records = records(&archive);
    let crops = records
        .iter()
        .filter(|(_, r)| r.kept_because == KeptBecause::Crop);
    let mut crops = crops.map(|(path, _)| path.clone());
    let (cut, gone, strange) = (
        crops.next().unwrap(),
        crops.next().unwrap(),
        crops.next().unwrap(),
    );
    let cut = cut.with_extension("json");
    let text = fs::read(&cut).unwrap();
    fs::write(&cut, &text[..text.len() / 2]).unwrap();
    fs::remove_file(&gone).unwrap();
    fs::write(&strange, "no picture").unwrap();
    let mut store = Store::open_existing(&archive).unwrap();
    let message = |topic: &str, payload: &[u8]| ArchivedMessage {
        topic: topic.to_owned(),
        content_type: "application/json".to_owned(),
        payload: payload.to_vec(),
    };
    let nonsense = [
        (
            1,
            message("callosity/v1/test/sighting", b"{\"occurrenceID\": "),
        ),
        (2, message("elsewhere", b"{}")),
        (3, message("callosity/v1/test/sighting", b"\xff\xfe")),
    ];
    store.keep_messages(Uuid::from_u128(1), &nonsense).unwrap();
    drop(store);
    let data = folder.path().join("data");
    let (code, said, wrong) = import(&archive, &data, &[]);
    assert_eq!(code, Some(2), "{said}{wrong}");
    assert!(said.contains("6 could not be read"), "{said}{wrong}");
    for path in [&cut, &gone, &strange] {
        let named = wrong
            .lines()
            .filter(|line| line.contains(path.to_str().unwrap()));
        assert_eq!(named.count(), 1, "{wrong}");
    }
    assert!(
        wrong.contains("\"elsewhere\": aircraft send nothing there"),
        "{wrong}"
    );
    let (found, whole) = (held(&data), held(&whole));
    let ids = |held: &serde_json::Value| -> Vec<String> {
        let sightings = held["sightings"].as_array().unwrap().iter();
        sightings
            .map(|s| s[0]["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&found), ids(&whole));
    assert_eq!(found["setAside"].as_array().unwrap().len(), 2);
    let (code, ..) = import(&folder.path().join("nowhere"), &data, &[]);
    assert_eq!(code, Some(1));
}

/// A sighting of frame `number` of the left camera, as JSON.
fn message_of(id: u128, number: u64, time: &str, quality: TimeQuality) -> Sighting {
    let time: Timestamp = time.parse().unwrap();
    serde_json::from_value(serde_json::json!({
        "occurrenceID": Uuid::from_u128(id),
        "state": "new",
        "revision": 0,
        "eventDate": time,
        "platform": "test",
        "eventID": Uuid::from_u128(7),
        "camera": "left",
        "basisOfRecord": "MachineObservation",
        "scientificName": "Eubalaena glacialis",
        "identifiedBy": "test",
        "decision": "identified",
        "organismID": "Comet",
        "candidates": [{"organismID": "Comet", "probability": 0.75}],
        "frame": {"number": number, "widthPixels": 256, "heightPixels": 64},
        "head": head(id),
        "timeQuality": quality,
    }))
    .unwrap()
}

/// Where a head lies; each its own.
fn head(id: u128) -> serde_json::Value {
    let x = 20.5 + 40.0 * id as f64;
    serde_json::json!({
        "bonnetPixels": [x + 20.25, 30.5], "blowheadPixels": [x, 30.0], "headLengthPixels": 20.3, "confidence": 0.75
    })
}

fn archived_message(sighting: &Sighting) -> ArchivedMessage {
    ArchivedMessage {
        topic: "callosity/v1/test/sighting".to_owned(),
        content_type: "application/json".to_owned(),
        payload: serde_json::to_vec(sighting).unwrap(),
    }
}

/// A frame with these heads, taken so many seconds after the flight began.
fn put_frame(
    store: &mut Store,
    number: u64,
    ids: &[u128],
    seconds: i64,
    time: Option<&str>,
) -> Vec<u8> {
    let heads = ids.iter().map(|id| {
        serde_json::from_value(serde_json::json!({
            "occurrenceID": Uuid::from_u128(*id), "head": head(*id), "decision": "identified"
        }))
        .unwrap()
    });
    let flight_time = Timestamp::from_second(1_000_000 + seconds).unwrap();
    let record = ArchiveRecord {
        time: time.map_or(flight_time, |time| time.parse().unwrap()),
        time_quality: time.map_or(TimeQuality::Unset, |_| TimeQuality::Satellite),
        flight_time,
        heads: heads.collect(),
        ..test_record(number)
    };
    let jpeg = encode_jpeg(&picture(256, 64, number as u32), 90).unwrap();
    store.put(record, Worth::Whale, "jpg", &jpeg).unwrap();
    jpeg
}

/// The box began with a clock that nobody had set, sent a sighting, and knew the time later: both what came live and what
/// comes from the archive get the right time. Of a flight whose records do not agree nothing is made up.
#[test]
fn an_import_puts_times_right_that_were_sent_wrong() {
    for agree in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive");
        let mut store = Store::open(&Settings::new(archive.clone())).unwrap();
        let wrong = "1970-01-12T13:46:50.000Z";
        let (live, lost) = (
            message_of(1, 4, wrong, TimeQuality::Unset),
            message_of(2, 4, wrong, TimeQuality::Unset),
        );
        let messages = [(1, archived_message(&live)), (2, archived_message(&lost))];
        store.keep_messages(Uuid::from_u128(1), &messages).unwrap();
        put_frame(&mut store, 4, &[1, 2], 10, None);
        put_frame(&mut store, 5, &[], 70, Some("2026-03-01T14:01:10.250Z"));
        if !agree {
            put_frame(&mut store, 6, &[], 80, Some("2026-03-01T14:02:20.250Z"));
        }
        drop(store);
        let data = folder.path().join("data");
        let message = archived_message(&live);
        let delivery = Delivery::from_disk(&message.topic, &message.content_type, message.payload);
        receive(&data, &[delivery.unwrap()]);
        let (code, said, problems) = import(&archive, &data, &[]);
        assert_eq!(code, Some(0), "{said}{problems}");
        let found = held(&data);
        let right = if agree {
            "2026-03-01T14:00:10.25Z"
        } else {
            "1970-01-12T13:46:50Z"
        };
        for sighting in found["sightings"].as_array().unwrap() {
            assert_eq!(sighting[0]["time"], right);
            // As it came.
            assert_eq!(sighting[1]["eventDate"], "1970-01-12T13:46:50Z");
        }
        let times = if agree {
            "of 2 sightings were put right; of 0"
        } else {
            "of 0 sightings were put right; of 2"
        };
        assert!(said.contains(times), "{said}");
        let (code, said, _) = import(&archive, &data, &[]);
        assert_eq!((code, held(&data)), (Some(0), found));
        assert!(said.contains("of 0 sightings were put right"), "{said}");
    }
}

#[test]
fn an_import_that_is_interrupted_goes_on_where_it_is_run_again() {
    const MESSAGES: u128 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let mut store = Store::open(&Settings::new(archive.clone())).unwrap();
    let messages: Vec<_> = (0..MESSAGES)
        .map(|id| {
            let message = message_of(id, 1, "2026-03-01T14:00:00Z", TimeQuality::Satellite);
            (id as i64, archived_message(&message))
        })
        .collect();
    store.keep_messages(Uuid::from_u128(1), &messages).unwrap();
    drop(store);
    let data = folder.path().join("data");
    let importing = Command::new(env!("CARGO_BIN_EXE_callosity"))
        .args(["ground", "import"])
        .arg(&archive)
        .arg("--data")
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = data.join("ground.sqlite-wal");
    let begun = Instant::now();
    while fs::metadata(&log).map_or(0, |file| file.len()) < 300_000 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = importing.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let ended = importing.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("the same command goes on"), "{said}");
    let new = |said: &str| -> u128 {
        let line = said
            .lines()
            .find(|line| line.contains(" messages, "))
            .unwrap()
            .to_owned();
        let mut words = line.split_whitespace();
        words.nth(2).unwrap().parse().unwrap()
    };
    let first = new(&said);
    assert!(first > 0 && first < MESSAGES, "{said}");
    let (code, said, _) = import(&archive, &data, &[]);
    assert_eq!(code, Some(0));
    assert_eq!(first + new(&said), MESSAGES, "{said}");
}

/// A table with its header.
fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path)
        .unwrap()
        .deserialize()
        .map(Result::unwrap)
        .collect()
}

/// What reviewers decided becomes a data set: confirmed heads with landmarks, rejected names, licence and photographer.
#[test]
fn what_was_decided_becomes_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, data) = (folder.path().join("archive"), folder.path().join("data"));
    let mut store = Store::open(&Settings::new(archive.clone())).unwrap();
    // Frame 1 shows 1 and 2, frame 2 shows 3 and 4, frame 3 shows 5 alone.
    let frames = [(1, vec![1, 2]), (2, vec![3, 4]), (3, vec![5])];
    let mut jpegs = BTreeMap::new();
    for (number, ids) in &frames {
        let time = "2026-03-01T14:00:00Z";
        let jpeg = put_frame(&mut store, *number, ids, 10, Some(time));
        jpegs.insert(*number, jpeg);
        for id in ids {
            let message = message_of(*id, *number, time, TimeQuality::Satellite);
            store
                .keep_messages(Uuid::from_u128(*id), &[(1, archived_message(&message))])
                .unwrap();
            let record = ArchiveRecord {
                kept_because: KeptBecause::Crop,
                heads: vec![
                    serde_json::from_value(serde_json::json!({
                        "occurrenceID": Uuid::from_u128(*id), "head": head(*id), "decision": "identified"
                    }))
                    .unwrap(),
                ],
                ..test_record(*number)
            };
            let crop = encode_jpeg(&picture(96, 48, 100 + *id as u32), 80).unwrap();
            store.put(record, Worth::Crop, "jpg", &crop).unwrap();
        }
    }
    drop(store);
    let (code, said, wrong) = import(&archive, &data, &["--frames"]);
    assert_eq!(code, Some(0), "{said}{wrong}");
    assert!(said.contains("5 new frames"), "{said}");
    let (_, said, _) = import(&archive, &data, &["--frames"]);
    assert!(said.contains("0 new frames"), "{said}");

    let decided = [
        (1, Verdict::Identified, Some("Comet"), false),
        (2, Verdict::NotInCatalogue, Some("New, \"one\""), false),
        (3, Verdict::Identified, Some("Marble"), false),
        // Only possible: it teaches nothing, and the frame that it is in neither.
        (4, Verdict::Identified, Some("Comet"), true),
        (5, Verdict::NotAWhale, None, false),
    ];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Ground::open(&data, None).await.unwrap();
        for (id, verdict, animal, possible) in decided {
            let decision = NewDecision {
                revision: 0,
                decisions: 0,
                verdict,
                animal: animal.map(str::to_owned),
                possible,
                note: None,
            };
            store
                .decide(Uuid::from_u128(id), &decision, "Ada")
                .await
                .unwrap();
        }
        store.close().await;
    });
    let out = folder.path().join("out");
    let export = || {
        Command::new(env!("CARGO_BIN_EXE_callosity"))
            .args(["ground", "export-training"])
            .arg(&out)
            .args([
                "--licence",
                "CC-BY-4.0",
                "--photographer",
                "Survey, Inc.",
                "--data",
            ])
            .arg(&data)
            .output()
            .unwrap()
    };
    let exported = export();
    assert!(exported.status.success(), "{exported:?}");
    assert!(!export().status.success(), "never over what is there");

    let name = |id: u128| format!("{}.jpg", Uuid::from_u128(id));
    let heads: BTreeSet<_> = table(&out.join("heads.csv"))
        .into_iter()
        .map(|row| (row["image"].clone(), row["whale"].clone()))
        .collect();
    let expected = [(1, "Comet"), (2, "New, \"one\""), (3, "Marble")];
    assert_eq!(
        heads,
        expected
            .map(|(id, whale)| (name(id), whale.to_owned()))
            .into()
    );
    for id in [1, 2, 3, 5_u128] {
        let folder = if id == 5 { "not_whales" } else { "heads" };
        let crop = encode_jpeg(&picture(96, 48, 100 + id as u32), 80).unwrap();
        assert_eq!(fs::read(out.join(folder).join(name(id))).unwrap(), crop);
    }
    assert_eq!(fs::read_dir(out.join("heads")).unwrap().count(), 3);

    // Frame 2 has a head on which nobody decided for certain, frame 3 shows no whale.
    let rows = table(&out.join("frames.csv"));
    assert_eq!(rows.len(), 2);
    assert_eq!(fs::read_dir(out.join("frames")).unwrap().count(), 1);
    for (row, id) in rows.iter().zip([1, 2]) {
        assert_eq!(
            fs::read(out.join("frames").join(&row["image"])).unwrap(),
            jpegs[&1]
        );
        let message = message_of(id, 1, "2026-03-01T14:00:00Z", TimeQuality::Satellite);
        let number = |column: &str| row[column].parse::<f64>().unwrap();
        assert_eq!((number("width"), number("height")), (256.0, 64.0));
        assert_eq!(number("bonnet_x"), message.head.bonnet_pixels.x);
        assert_eq!(number("bonnet_y"), message.head.bonnet_pixels.y);
        assert_eq!(number("blowhead_x"), message.head.blowhead_pixels.x);
        assert_eq!(number("blowhead_y"), message.head.blowhead_pixels.y);
    }

    let rejected = table(&out.join("rejected.csv"));
    let rejected: BTreeSet<_> = rejected
        .iter()
        .map(|row| (&*row["file"], &*row["whale"]))
        .collect();
    let files = [2, 3].map(|id| format!("heads/{}", name(id)));
    assert_eq!(
        rejected,
        files.iter().map(|file| (&**file, "Comet")).collect()
    );

    let attributed = table(&out.join("attribution.csv"));
    assert_eq!(attributed.len(), 5, "one for each file");
    for row in &attributed {
        assert!(out.join(&row["file"]).is_file(), "{row:?}");
        assert_eq!(
            (&*row["licence"], &*row["photographer"]),
            ("CC-BY-4.0", "Survey, Inc.")
        );
        assert_eq!(
            (&*row["reviewer"], &*row["time"]),
            ("Ada", "2026-03-01T14:00:00Z")
        );
    }

    // Whoever trains reads it.
    let Ok(trainer) = std::env::var("CALLOSITY_TRAIN") else {
        eprintln!("SKIPPED: CALLOSITY_TRAIN does not name callosity-train");
        return;
    };
    let index = folder.path().join("index.json");
    let read = Command::new(trainer)
        .arg("import")
        .arg(&out)
        .arg("--strict")
        .arg("--output")
        .arg(&index)
        .output()
        .unwrap();
    assert!(read.status.success(), "{read:?}");
    let index = fs::read_to_string(&index).unwrap();
    assert!(
        index.contains("Marble") && index.contains("New, \\\"one\\\""),
        "{index}"
    );
}
