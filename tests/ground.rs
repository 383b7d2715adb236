//! The ground station against a real Mosquitto: killed in the middle, nothing is lost and nothing is there twice. Its page in
//! a real Chromium.
#![allow(missing_docs)]

#[path = "common/flying.rs"]
mod flying;
#[path = "common/heard.rs"]
mod heard;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use callosity::rehearsal::draw_photographs;
use flying::{Mosquitto, PASSWORD, USER};
use ground::store::{Role, Search, Store};
use heard::{Ground, PLATFORM, sighting};
use jiff::SignedDuration;
use link::codec::Encoding;
use link::message::{
    CameraHealth, Candidate, ClockHealth, Decision, DiskHealth, Effort, EffortReason, Engine,
    FrameCounts, HardwareHealth, Health, LinkCounts, Place, PositionHealth, Presence, Problem,
    QueueDepths, Sighting, SightingState, StageTime, Status, TimeQuality, Track, Watch, Weather,
};
use link::topic::Platform;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recognition::pixels::encode_jpeg;
use recognition::virtual_survey::{Catalogue, HeadView, render_head};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

/// An aircraft that sends what it is given, each message until it is acknowledged.
struct Sender {
    client: AsyncClient,
    acknowledged: watch::Receiver<u64>,
    sent: u64,
}

impl Sender {
    fn start(port: u16, name: &str) -> Self {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options
            .set_credentials(USER, PASSWORD)
            .set_clean_start(true);
        let (client, mut events) = AsyncClient::new(options, 64);
        let (say, acknowledged) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::PubAck(_))) => say.send_modify(|n| *n += 1),
                    Ok(_) => {}
                    Err(e) => panic!("the sender's connection: {e}"),
                }
            }
        });
        Self {
            client,
            acknowledged,
            sent: 0,
        }
    }

    async fn send(&mut self, topic: String, payload: Vec<u8>) {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .unwrap();
        self.sent += 1;
    }

    async fn say<T: Serialize>(&mut self, topic: String, message: &T) {
        self.send(topic, Encoding::Json.encode(message)).await;
    }

    async fn all_acknowledged(&mut self) {
        let sent = self.sent;
        self.acknowledged.wait_for(|n| *n >= sent).await.unwrap();
    }
}

fn platform() -> Platform {
    PLATFORM.parse().unwrap()
}

fn jpeg_of(number: u64) -> Vec<u8> {
    [b"\xff\xd8\xff".as_slice(), &number.to_be_bytes()].concat()
}

/// Begins what it keeps, with an account; returns its cookie.
async fn account(data: &Path) -> String {
    let store = Store::open(data, None).await.unwrap();
    let invitation = store.invite(Role::Administrator).await.unwrap();
    let session = store
        .accept(&invitation.token, "Ana", "a long enough password".into())
        .await;
    format!("callosity_session={}", session.unwrap().token)
}

/// Of each sighting two revisions and a picture, now and then nonsense.
fn messages(numbers: std::ops::Range<u64>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let topics = platform();
    numbers.flat_map(move |number| {
        let revision = |revision| {
            let message = Encoding::Json.encode(&sighting(number, revision));
            (topics.sighting(), message)
        };
        let crop = topics.crop(sighting(number, 0).occurrence_id);
        let mut messages = vec![revision(0), (crop, jpeg_of(number)), revision(1)];
        if number.is_multiple_of(7) {
            messages.push((
                topics.sighting(),
                format!("{{\"nonsense\": {number}").into_bytes(),
            ));
        }
        messages
    })
}

fn nonsense(sightings: u64) -> u64 {
    sightings.div_ceil(7)
}

/// Waits until everything is there, ends the station, and looks whether everything is there once.
async fn everything_is_there_once(ground: Ground, cookie: &str, data: &Path, sightings: u64) {
    ground.until(cookie, "all sightings arrive", |station| {
        station["sightings"] == sightings
    });
    let nonsense = nonsense(sightings);
    ground.until(cookie, "all nonsense arrives", |station| {
        station["setAsideCount"] == nonsense
    });
    // What came last, and whatever should not have come.
    std::thread::sleep(Duration::from_millis(500));
    ground.stop();
    let store = Store::open(data, None).await.unwrap();
    let mut found = BTreeMap::new();
    for offset in (0..=sightings as u32).step_by(1000) {
        let search = Search {
            limit: Some(1000),
            offset: Some(offset),
            ..Search::default()
        };
        for summary in store.search(&search).await.unwrap() {
            assert!(found.insert(summary.id, summary).is_none(), "twice");
        }
    }
    assert_eq!(found.len() as u64, sightings);
    for number in 0..sightings {
        let id = sighting(number, 0).occurrence_id;
        let details = store.sighting(id).await.unwrap().unwrap();
        assert_eq!((details.revisions, details.summary.revision), (2, 1));
        assert_eq!(details.message, sighting(number, 1));
        assert_eq!(details.crops.len(), 1);
        let picture = store.pictures().get(&details.crops[0]).unwrap().unwrap();
        assert_eq!(picture, jpeg_of(number));
    }
    let (_, set_aside) = store.set_aside(1).await.unwrap();
    assert_eq!(set_aside, nonsense);
}

async fn killed_behind_a_broker(sightings: u64, kills: u64) {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let cookie = account(data.path()).await;
    // From now on the broker keeps what comes while nobody listens.
    Ground::start(&broker, data.path(), &[]).kill();
    let (progress, mut sent) = watch::channel(0_u64);
    let port = broker.port;
    let sending = tokio::spawn(async move {
        let mut sender = Sender::start(port, "aircraft");
        for number in 0..sightings {
            for (topic, payload) in messages(number..number + 1) {
                sender.send(topic, payload).await;
            }
            progress.send_replace(number + 1);
            sleep(Duration::from_millis(2)).await;
        }
        sender.all_acknowledged().await;
    });
    let mut ground = Ground::start(&broker, data.path(), &[]);
    for kill in 1..=kills {
        let at = kill * sightings / (kills + 1);
        sent.wait_for(|sent| *sent >= at).await.unwrap();
        ground.kill();
        ground = Ground::start(&broker, data.path(), &[]);
    }
    sending.await.unwrap();
    everything_is_there_once(ground, &cookie, data.path(), sightings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_is_killed_loses_nothing_and_has_nothing_twice() {
    killed_behind_a_broker(600, 6).await;
}

/// As many kills as the issue asks for: some minutes.
#[ignore = "takes minutes: cargo test --release --test ground -- --ignored killed_100_times"]
#[tokio::test(flavor = "multi_thread")]
async fn killed_100_times() {
    killed_behind_a_broker(20_000, 100).await;
}

/// Sends as an outbox does: a message is gone when it is acknowledged, and until then sent again over the next connection.
async fn send_surely(
    port: u16,
    name: String,
    messages: Vec<(String, Vec<u8>)>,
    done: watch::Sender<u64>,
) {
    let mut left = messages.into_iter().peekable();
    while left.peek().is_some() {
        let mut options = MqttOptions::new(&name, "127.0.0.1", port);
        options.set_clean_start(true);
        let (client, mut events) = AsyncClient::new(options, 8);
        while let Some((topic, payload)) = left.peek() {
            client
                .publish(topic, QoS::AtLeastOnce, false, payload.clone())
                .await
                .unwrap();
            let acknowledged = loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::PubAck(_))) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            if !acknowledged {
                break;
            }
            left.next();
            done.send_modify(|n| *n += 1);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aircraft_send_to_a_station_without_broker_is_acknowledged_when_it_is_stored() {
    const AIRCRAFT: u64 = 8;
    const EACH: u64 = 40;
    let data = tempfile::tempdir().unwrap();
    let cookie = account(data.path()).await;
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut ground = Ground::start_without_broker(port, data.path());
    let (done, mut acknowledged) = watch::channel(0_u64);
    let mut total = 0;
    let sending: Vec<_> = (0..AIRCRAFT)
        .map(|n| {
            let messages: Vec<_> = messages(n * EACH..(n + 1) * EACH).collect();
            total += messages.len() as u64;
            tokio::spawn(send_surely(
                port,
                format!("aircraft {n}"),
                messages,
                done.clone(),
            ))
        })
        .collect();
    for kill in 1..=5 {
        let at = kill * total / 6;
        acknowledged.wait_for(|n| *n >= at).await.unwrap();
        ground.kill();
        ground = Ground::start_without_broker(port, data.path());
    }
    for sender in sending {
        sender.await.unwrap();
    }
    everything_is_there_once(ground, &cookie, data.path(), AIRCRAFT * EACH).await;
}

/// 100 aircraft send 1,000 messages a second; meanwhile the page's list is asked for. Prints how many were stored how fast, how
/// long the page's answers took, and how much memory the station has; asserts that nothing is lost.
#[ignore = "a measurement of some minutes: cargo test --release --test ground -- --ignored --nocapture a_thousand"]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_a_second() {
    let seconds: u64 = std::env::var("CALLOSITY_SECONDS").map_or(60, |s| s.parse().unwrap());
    let broker = Mosquitto::start(false).expect("this measurement needs Mosquitto");
    let data = tempfile::tempdir().unwrap();
    Ground::start(&broker, data.path(), &[]).kill();
    let store = Store::open(data.path(), None).await.unwrap();
    let invitation = store.invite(Role::Administrator).await.unwrap();
    let session = store
        .accept(&invitation.token, "Ana", "a long enough password".into())
        .await;
    let cookie = format!("callosity_session={}", session.unwrap().token);
    drop(store);
    let ground = Ground::start(&broker, data.path(), &[]);
    let begun = Instant::now();
    let mut senders = Vec::new();
    for aircraft in 0..100_u64 {
        let port = broker.port;
        senders.push(tokio::spawn(async move {
            let name = format!("N{aircraft}");
            let mut sender = Sender::start(port, &name);
            let topics: Platform = name.parse().unwrap();
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            for number in 0..10 * seconds {
                ticks.tick().await;
                let mut s = sighting((aircraft << 32) | (number / 2), (number % 2) as u32);
                s.platform.clone_from(&name);
                sender.say(topics.sighting(), &s).await;
            }
            sender.all_acknowledged().await;
        }));
    }
    let mut answers = Vec::new();
    let memory = |id: u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap().trim().to_owned()
    };
    let first = memory(ground.id());
    while senders.iter().any(|sender| !sender.is_finished()) {
        sleep(Duration::from_millis(500)).await;
        let asked = Instant::now();
        let (status, ..) = ground.ask("GET", "/api/sightings?limit=200", &cookie, &json!({}));
        assert_eq!(status, 200);
        answers.push(asked.elapsed());
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let sent_in = begun.elapsed();
    let total = 1000 * seconds;
    ground.until(&cookie, "all arrive", |station| {
        station["sinceStart"]["sightings"] == total
    });
    let stored_in = begun.elapsed();
    answers.sort();
    println!(
        "{total} messages sent and acknowledged by the broker in {sent_in:.1?}, stored in {stored_in:.1?}: {:.0} a second",
        total as f64 / stored_in.as_secs_f64()
    );
    println!(
        "{} answers of 200 sightings meanwhile: median {:.0?}, 95 % within {:.0?}, longest {:.0?}",
        answers.len(),
        answers[answers.len() / 2],
        answers[answers.len() * 95 / 100],
        answers[answers.len() - 1]
    );
    println!(
        "memory of the station: {first} at first, {} at the end",
        memory(ground.id())
    );
}

/// A flight with drawn whales, as an aircraft would tell of it.
struct Told {
    sightings: Vec<Sighting>,
    crops: Vec<Vec<u8>>,
    tracks: Vec<Track>,
}

const KNOWN: usize = 12;

fn told() -> Told {
    let population = Catalogue::new(1, KNOWN, 3);
    let everybody = population.individuals();
    let now = link::message::now();
    let event_id = Uuid::now_v7();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let ago = |seconds: i64| now - SignedDuration::from_secs(seconds);
    // Lines to and fro, off Cape Cod.
    let place = |step: usize| {
        let (line, along) = (step / 30, (step % 30) as f64 / 30.0);
        let east = if line.is_multiple_of(2) {
            along
        } else {
            1.0 - along
        };
        Place {
            decimal_latitude: 41.75 + 0.06 * line as f64,
            decimal_longitude: -69.75 + 0.5 * east,
            coordinate_uncertainty_in_meters: 14.0,
            fix_age_seconds: 0.3,
        }
    };
    let tracks = (0..150).map(|step| Track {
        platform: PLATFORM.into(),
        event_id,
        time: ago(1500 - 10 * step as i64),
        time_quality: TimeQuality::Satellite,
        place: place(step),
        altitude_meters: Some(304.0),
        altitude_datum: None,
        speed_meters_per_second: Some(51.0),
        track_degrees: Some(if (step / 30).is_multiple_of(2) {
            90.0
        } else {
            270.0
        }),
        heading_degrees: None,
        roll_degrees: None,
        pitch_degrees: None,
        watch: Some(Watch::OnLine),
    });
    // Who it is, how sure the machine is of its first candidate, and that it knows nobody like it.
    let seen = [
        (0, 0.985, 0.004),
        (1, 0.93, 0.03),
        (2, 0.55, 0.12),
        (12, 0.4, 0.91),
        (3, 0.97, 0.01),
        (4, 0.48, 0.2),
        (5, 0.88, 0.05),
        (13, 0.3, 0.78),
        (6, 0.99, 0.003),
        (7, 0.7, 0.1),
        (0, 0.99, 0.002),
        (8, 0.62, 0.33),
        (9, 0.95, 0.02),
        (9, 0.9, 0.02),
    ];
    let mut sightings = Vec::new();
    let mut crops = Vec::new();
    for (n, (who, first, unknown)) in seen.into_iter().enumerate() {
        let mut s = sighting(0, 0);
        let name = |i: usize| everybody[i % KNOWN].name.clone();
        // The last two are in one frame.
        let step = 8 + 10 * n.min(12);
        s.occurrence_id = Uuid::now_v7();
        s.event_id = Some(event_id);
        s.event_date = ago(1500 - 10 * step as i64);
        s.camera = Some(if n % 3 == 0 { "right" } else { "left" }.to_owned());
        s.state = SightingState::End;
        s.georeference.place = Some(place(step));
        s.georeference.head_length_meters = Some(2.1);
        s.georeference.head_length_uncertainty_meters = Some(0.15);
        s.frames_seen = Some(1 + n as u32 % 3);
        s.unknown_probability = Some(unknown);
        s.decision = match (unknown, first) {
            (u, _) if u > 0.5 => Decision::Unknown,
            (_, p) if p > 0.85 => Decision::Identified,
            _ => Decision::Uncertain,
        };
        s.provisional_id =
            (s.decision == Decision::Unknown).then(|| format!("unknown {}", who - 11));
        s.organism_id = (s.decision == Decision::Identified).then(|| name(who));
        let rest = 1.0 - first;
        s.candidates = [first, rest * 0.5, rest * 0.25, rest * 0.15, rest * 0.1]
            .into_iter()
            .enumerate()
            .map(|(i, probability)| Candidate {
                organism_id: name(who + 5 * i),
                probability,
            })
            .collect();
        let picture = render_head(&everybody[who].whale, &HeadView::draw(&mut rng), 512, 256);
        crops.push(encode_jpeg(&picture, 85).unwrap());
        sightings.push(s);
    }
    let last = sightings.len() - 1;
    sightings[last].camera = sightings[last - 1].camera.clone();
    sightings[last].event_date = sightings[last - 1].event_date;
    Told {
        sightings,
        crops,
        tracks: tracks.collect(),
    }
}

fn health() -> Health {
    let now = link::message::now();
    let camera = |name: &str, format: Option<&str>| CameraHealth {
        name: name.into(),
        format: format.map(str::to_owned),
        captured: 1482,
        lost: 2,
        failures: u64::from(format.is_none()),
        last_frame: Some(now),
    };
    Health {
        platform: PLATFORM.into(),
        time: now,
        program_version: "0.4.0".into(),
        uptime_seconds: 1510.0,
        frames: FrameCounts {
            captured: 2964,
            identified: 2951,
            dropped: 13,
            heads: 31,
            ..FrameCounts::default()
        },
        cameras: vec![
            camera("left", Some("MJPG 5184 × 3456, 1 a second")),
            camera("right", None),
        ],
        last_failure: None,
        queues: QueueDepths {
            frames_capacity: 4,
            ..QueueDepths::default()
        },
        engine: Engine {
            name: "ONNX Runtime 1.23, TensorRT".into(),
            bundle: "virtual-survey 1.2.0".into(),
            networks: Vec::new(),
        },
        stages: BTreeMap::from([
            (
                "finder".to_owned(),
                StageTime {
                    mean_milliseconds: 41.0,
                    maximum_milliseconds: 88.0,
                    frames: 2951,
                },
            ),
            (
                "identify".to_owned(),
                StageTime {
                    mean_milliseconds: 19.0,
                    maximum_milliseconds: 61.0,
                    frames: 31,
                },
            ),
        ]),
        link: LinkCounts {
            sent: 61,
            acknowledged: 61,
            ..LinkCounts::default()
        },
        clock: Some(ClockHealth {
            time_quality: TimeQuality::Satellite,
            correction_seconds: 0.0,
        }),
        position: Some(PositionHealth {
            connected: true,
            fixes: 1510,
            fix_age_seconds: Some(0.4),
            satellites: Some(14),
            ..PositionHealth::default()
        }),
        hardware: Some(HardwareHealth {
            temperatures_celsius: [("CPU", 61.5), ("GPU", 58.0)]
                .map(|(sensor, celsius)| (sensor.to_owned(), celsius))
                .into(),
            power_mode: Some("MAXN".into()),
            disks: vec![DiskHealth {
                holds: "outbox, archive".into(),
                free_bytes: 412_000_000_000,
                total_bytes: 500_000_000_000,
            }],
            ..HardwareHealth::default()
        }),
        archive: None,
        problems: vec![Problem::after(
            None,
            "camera right",
            "it is unplugged".to_owned(),
        )],
    }
}

async fn tell(sender: &mut Sender, told: &Told) {
    let topics = platform();
    let now = link::message::now();
    let status = Status {
        platform: PLATFORM.into(),
        status: Presence::Online,
        time: now,
        program_version: "0.4.0".into(),
    };
    sender.say(topics.status(), &status).await;
    sender.say(topics.health(), &health()).await;
    for track in &told.tracks {
        sender.say(topics.track(), track).await;
    }
    let effort = Effort {
        platform: PLATFORM.into(),
        event_id: told.tracks[0].event_id,
        revision: 0,
        time: now,
        time_quality: TimeQuality::Satellite,
        reason: EffortReason::Begin,
        watch: Watch::OnLine,
        observers: vec!["K. Example".into()],
        project: None,
        aircraft: None,
        weather: Weather {
            beaufort: Some(2),
            visibility_kilometers: Some(15.0),
            ..Weather::default()
        },
        place: Some(told.tracks[0].place),
        mark: None,
        time_correction_seconds: None,
    };
    sender.say(topics.effort(), &effort).await;
    for (sighting, crop) in told.sightings.iter().zip(&told.crops) {
        sender.say(topics.sighting(), sighting).await;
        sender
            .send(topics.crop(sighting.occurrence_id), crop.clone())
            .await;
    }
    sender
        .send(topics.sighting(), b"{\"occurrenceID\": 7}".to_vec())
        .await;
    sender.all_acknowledged().await;
}

/// What `src/ground/page/test/page.mjs` does in Chromium, with a flight that goes on meanwhile.
#[ignore = "needs Chromium and Node: make test-page"]
#[tokio::test(flavor = "multi_thread")]
async fn the_page_does_what_it_should_in_a_browser() {
    let broker = Mosquitto::start(false).expect("this test needs Mosquitto");
    let data = tempfile::tempdir().unwrap();
    let catalogue = tempfile::tempdir().unwrap();
    draw_photographs(catalogue.path(), Catalogue::new(1, KNOWN, 0).individuals()).unwrap();
    let catalogue = catalogue.path().to_str().unwrap();
    let ground = Ground::start(&broker, data.path(), &["--catalogue", catalogue]);
    drop(ground);
    let store = Store::open(data.path(), None).await.unwrap();
    let invitation = store.invite(Role::Administrator).await.unwrap().token;
    drop(store);
    let ground = Ground::start(&broker, data.path(), &["--catalogue", catalogue]);
    let mut sender = Sender::start(broker.port, "aircraft");
    let told = told();
    tell(&mut sender, &told).await;
    // One more now and then, as long as the page is looked at.
    let flying = tokio::spawn(async move {
        for number in 0.. {
            sleep(Duration::from_secs(2)).await;
            let copied = &told.sightings[number % told.sightings.len()];
            let mut s = copied.clone();
            s.occurrence_id = Uuid::now_v7();
            s.event_date = link::message::now();
            sender.say(platform().sighting(), &s).await;
            let crop = told.crops[number % told.crops.len()].clone();
            sender.send(platform().crop(s.occurrence_id), crop).await;
            sender.say(platform().health(), &health()).await;
        }
    });
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ground/page");
    let pictures = std::env::var_os("CALLOSITY_PAGE_PICTURES").map(PathBuf::from);
    let folder = data.path().join("pictures-of-pages");
    let link = format!("http://{}/#invitation={invitation}", ground.address);
    let tested = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .current_dir(page)
            .args(["test/page.mjs", &link])
            .arg(pictures.unwrap_or(folder))
            .status()
            .unwrap()
    })
    .await
    .unwrap();
    flying.abort();
    assert!(tested.success());
    let (status, _, _) = ground.ask("GET", "/api/sightings", "", &json!({}));
    assert_eq!(status, 401);
}
