//! What goes wrong in flight and must cost nothing: recognition that panics, brokers that refuse, links that break,
//! programs that are killed.
#![allow(missing_docs)]

#[path = "common/bad_link.rs"]
mod bad_link;
#[path = "common/flying.rs"]
mod flying;
#[path = "common/scripted_broker.rs"]
mod scripted_broker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bad_link::{BadLink, Link};
use callosity::camera::Replay;
use callosity::outbox::{Kind, Limits, Message, Outbox};
use callosity::service::{About, Flight, Recognised, Recogniser, fly};
use callosity::sighting::{SeenFrame, Tracker};
use flying::{
    Mosquitto, PATIENCE, Recorder, Setup, TwoHeads, check, delivered, flight, flight_with,
    payloads, photographs, presence, resident_megabytes, take_off,
};
use ground::{Received, Receiver};
use jiff::Timestamp;
use link::broker::Timing;
use link::codec::{Encoding, decode};
use link::message::{CBOR, Decision, FrameReference, Presence, Sighting, SightingState};
use link::{BrokerOptions, LinkError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recognition::identify::{Identification, Opinion};
use recognition::pixels::{EncodedPhotograph, Image};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Packet, PubAckReason, Publish, PublishProperties, SubAck, SubscribeReasonCode,
};
use scripted_broker::ScriptedBroker;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn topic(publish: &Publish) -> String {
    String::from_utf8(publish.topic.to_vec()).unwrap()
}

fn is_sighting(publish: &Publish) -> bool {
    publish.topic.ends_with(b"/sighting")
}

/// Two heads in each frame, but for some on which it panics.
struct Panics {
    frame: u64,
    on: fn(u64) -> bool,
}

impl Recogniser for Panics {
    fn about(&self) -> About {
        TwoHeads::default().about()
    }

    fn recognise(&mut self, image: &Image) -> anyhow::Result<Recognised> {
        self.frame += 1;
        assert!(!(self.on)(self.frame - 1), "a lens cap of {} mm", 58);
        TwoHeads::default().recognise(image)
    }

    fn identify(&self, opinion: &Opinion) -> Identification {
        TwoHeads::default().identify(opinion)
    }
}

fn panicking(folder: &Path, broker: BrokerOptions, on: fn(u64) -> bool) -> Flight<Panics> {
    let mut flight = flight_with(Panics { frame: 0, on }, folder, 100.0, broker);
    flight.cameras = vec![Replay::open(folder, 100.0, true).unwrap().into()];
    flight
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_recognition_costs_its_frame_and_is_told() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let stop = CancellationToken::new();
    let flight = panicking(folder.path(), broker.options(), |frame| frame % 3 == 1);
    let flying = take_off(flight, &stop);
    let mut heard = recorder.until(Presence::Online).await;
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    heard.extend(recorder.until(Presence::Stopped).await);
    let report = flying.await.unwrap();
    delivered(&report);
    let frames = &report.frames;
    assert!(frames.failed >= 5 && frames.identified >= 10, "{frames:?}");
    assert_eq!(check(&heard).len() as u64, 2 * frames.identified);
    let failure = payloads(&heard, "health").last().unwrap()["lastFailure"].clone();
    assert!(
        failure["reason"]
            .as_str()
            .unwrap()
            .contains("a lens cap of 58 mm")
    );
}

/// An endless camera and a broken recogniser: the flight ends loudly instead of going on blind.
#[tokio::test(flavor = "multi_thread")]
async fn recognition_that_only_panics_ends_the_flight_with_everything_delivered() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let flight = panicking(folder.path(), broker.options(), |frame| frame >= 20);
    let flying = take_off(flight, &CancellationToken::new());
    let heard = recorder.until(Presence::Stopped).await;
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    assert!(report.messages.is_empty(), "{report:?}");
    assert_eq!((report.frames.identified, report.frames.failed), (20, 3));
    let failure = report.failure.unwrap();
    assert!(failure.contains("recognition ended"), "{failure}");
    assert_eq!(check(&heard).len(), 40);
    let problems = payloads(&heard, "health").last().unwrap()["problems"].clone();
    assert_eq!(problems[0]["part"], "recognition", "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_one_message_at_a_time_gets_them_all() {
    let broker = ScriptedBroker::listen().await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 40, &[]);
    let mut flight = flight(folder.path(), 500.0, broker.options());
    flight.health_interval = Duration::from_millis(5);
    let flying = take_off(flight, &CancellationToken::new());
    let mut client = broker.accept(Some(1)).await;
    // Long enough for health to fill the client's channel, were it let.
    sleep(Duration::from_secs(1)).await;
    let mut sightings = BTreeSet::new();
    while let Some(publish) = client.next_publish().await {
        if is_sighting(&publish) {
            let sighting: Sighting = serde_json::from_slice(&publish.payload).unwrap();
            let id = (sighting.occurrence_id, sighting.revision);
            assert!(sightings.insert(id), "sent twice");
        }
        client.acknowledge(&publish, PubAckReason::Success).await;
    }
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    delivered(&report);
    assert_eq!((sightings.len(), report.messages.acknowledged), (160, 240));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_refuses_for_the_moment_is_sent_again() {
    let broker = ScriptedBroker::listen().await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 10, &[]);
    let flying = take_off(
        flight(folder.path(), 500.0, broker.options()),
        &CancellationToken::new(),
    );
    let mut client = broker.accept(None).await;
    let mut attempts: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    while let Some(publish) = client.next_publish().await {
        let attempt = attempts.entry(publish.payload.to_vec()).or_default();
        *attempt += 1;
        let reason = if *attempt == 1 && !publish.topic.ends_with(b"/status") {
            PubAckReason::QuotaExceeded
        } else {
            PubAckReason::Success
        };
        client.acknowledge(&publish, reason).await;
    }
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    delivered(&report);
    assert_eq!(report.messages.acknowledged, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_refuses_for_good_is_kept_and_counted() {
    let broker = ScriptedBroker::listen().await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 3, &[]);
    let flying = take_off(
        flight(folder.path(), 500.0, broker.options()),
        &CancellationToken::new(),
    );
    let mut client = broker.accept(None).await;
    while let Some(publish) = client.next_publish().await {
        let reason = if is_sighting(&publish) {
            PubAckReason::NotAuthorized
        } else {
            PubAckReason::Success
        };
        client.acknowledge(&publish, reason).await;
    }
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    assert_eq!(
        (report.messages.sightings, report.messages.set_aside),
        (12, 12)
    );
    let problem = report.link_problem.unwrap();
    assert!(problem.contains("NotAuthorized"), "{problem}");
}

/// At 2 kbit/s a crop of 30 kB takes two minutes: a name never waits behind more than one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_waits_behind_one_crop_at_most() {
    let broker = ScriptedBroker::listen().await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 20, &[]);
    let flying = take_off(
        flight(folder.path(), 20.0, broker.options()),
        &CancellationToken::new(),
    );
    let mut client = broker.accept(None).await;
    let mut unacknowledged_crop = None;
    let mut sightings = 0;
    let mut crops = 0;
    while let Some(publish) = client.next_publish().await {
        if topic(&publish).contains("/crop/") {
            assert!(unacknowledged_crop.is_none(), "two crops under way");
            crops += 1;
            unacknowledged_crop = Some(publish);
        } else {
            sightings += usize::from(is_sighting(&publish));
            client.acknowledge(&publish, PubAckReason::Success).await;
        }
        // The link has room for a crop only when all names are through.
        if sightings == 80
            && let Some(crop) = unacknowledged_crop.take()
        {
            client.acknowledge(&crop, PubAckReason::Success).await;
        }
    }
    delivered(&timeout(PATIENCE, flying).await.unwrap().unwrap());
    assert_eq!((sightings, crops), (80, 40));
}

fn subscribed(packet: Option<Packet>, code: SubscribeReasonCode) -> Packet {
    let Some(Packet::Subscribe(subscribe)) = packet else {
        panic!("no SUBSCRIBE: {packet:?}");
    };
    Packet::SubAck(SubAck {
        pkid: subscribe.pkid,
        return_codes: vec![code],
        properties: None,
    })
}

fn published(topic: &str, pkid: u16, payload: &[u8], version: &str) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: topic.to_owned().into(),
        pkid,
        payload: payload.to_vec().into(),
        properties: Some(PublishProperties {
            user_properties: vec![("schema-version".to_owned(), version.to_owned())],
            ..PublishProperties::default()
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_an_error() {
    let broker = ScriptedBroker::listen().await;
    let connecting = Receiver::connect(broker.options(), "ground");
    let answer = async {
        let mut client = broker.accept(None).await;
        let refusal = subscribed(client.next().await, SubscribeReasonCode::NotAuthorized);
        client.send(refusal).await;
        client.next().await
    };
    let (connected, _) = timeout(PATIENCE, async { tokio::join!(connecting, answer) })
        .await
        .unwrap();
    let error = connected.err().unwrap();
    assert!(
        matches!(error, LinkError::SubscriptionRefused { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_what_comes_early_acknowledges_what_is_stored_and_tells_what_is_odd() {
    let broker = ScriptedBroker::listen().await;
    let status = |platform: &str| {
        format!(
            r#"{{"platform":"{platform}","status":"online","time":"2026-11-30T12:00:00Z","programVersion":"9"}}"#
        )
    };
    let at = "callosity/v1/left/status";
    let connecting = Receiver::connect(broker.options(), "ground");
    let welcome = async {
        let mut client = broker.accept(None).await;
        let subscribe = client.next().await;
        // A broker may send what it has kept before it confirms the subscription.
        client
            .send(Packet::Publish(published(
                at,
                1,
                status("left").as_bytes(),
                "1.7.3",
            )))
            .await;
        client
            .send(subscribed(
                subscribe,
                SubscribeReasonCode::Success(QoS::AtLeastOnce),
            ))
            .await;
        for (id, said, version) in [(2, status("right"), "1.1.0"), (3, status("left"), "2.0.0")] {
            client
                .send(Packet::Publish(published(at, id, said.as_bytes(), version)))
                .await;
        }
        client
    };
    let (receiver, mut client) = timeout(PATIENCE, async { tokio::join!(connecting, welcome) })
        .await
        .unwrap();
    let mut receiver = receiver.unwrap();
    let first = timeout(PATIENCE, receiver.next()).await.unwrap();
    assert!(
        matches!(&first, Received::Status(s) if s.platform == "left"),
        "{first:?}"
    );
    // Not acknowledged before the next one is asked for.
    assert!(
        timeout(Duration::from_millis(300), client.next())
            .await
            .is_err()
    );
    for complaint in ["right", "schema 2.0.0"] {
        let odd = timeout(PATIENCE, receiver.next()).await.unwrap();
        let Received::Malformed { reason, .. } = &odd else {
            panic!("{odd:?}");
        };
        assert!(reason.contains(complaint), "{reason}");
    }
    let last = tokio::spawn(async move { receiver.next().await });
    for id in 1..=3 {
        let Some(Packet::PubAck(ack)) = timeout(PATIENCE, client.next()).await.unwrap() else {
            panic!("no PUBACK");
        };
        assert_eq!(ack.pkid, id);
    }
    last.abort();
}

/// Sixty seconds of what links do: half-open, cut, and then 2 kbit/s with 600 ms of delay each way, on which sightings go
/// as CBOR and crops stay behind.
#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_over_a_link_that_breaks_and_is_thin() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let link = BadLink::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 8, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let mut options = flying::options_of(link.port);
    options.timing = Timing {
        keep_alive: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(20),
        ..Timing::default()
    };
    let mut flight = flight(folder.path(), 0.8, options);
    flight.encoding = Encoding::Cbor;
    flight.largest_message = Some(1000);
    flight.health_interval = Duration::from_secs(30);
    let flying = take_off(flight, &CancellationToken::new());
    sleep(Duration::from_secs(2)).await;
    link.becomes(Link::HalfOpen);
    sleep(Duration::from_secs(12)).await;
    link.becomes(Link::Cut);
    sleep(Duration::from_secs(1)).await;
    link.becomes(Link::Thin {
        rate: 250.0,
        delay: Duration::from_millis(600),
    });
    let report = timeout(2 * PATIENCE, flying).await.unwrap().unwrap();
    delivered(&report);
    assert!(report.connections >= 2, "{report:?}");
    assert_eq!(report.messages.dropped, 16, "crops stay behind");
    let mut sightings = BTreeSet::new();
    while sightings.len() < 16 {
        let publish = timeout(PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap();
        if is_sighting(&publish) {
            let properties = publish.properties.as_ref().unwrap();
            assert_eq!(properties.content_type.as_deref(), Some(CBOR));
            let said: Sighting = decode(Some(properties), &publish.payload).unwrap();
            sightings.insert(said.occurrence_id);
        }
    }
}

/// Eight hours without a link at ten sightings a second: drained in order, names before crops. Takes minutes.
/// `cargo test --release --test faults -- --ignored --nocapture eight_hours_of_outage`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn eight_hours_of_outage_are_drained_in_order() {
    const SIGHTINGS: u64 = 8 * 3600 * 10;
    const CROPS: u64 = 2000;
    let Some(broker) = Mosquitto::start_as(Setup {
        forgetful: true,
        ..Setup::default()
    }) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let state = folder.path().join("state");
    let outbox = Outbox::open(&state, Limits::default()).unwrap();
    let started = Instant::now();
    let message = |kind, number: u64, bytes: usize| Message {
        kind,
        topic: if kind == Kind::Crop {
            format!("callosity/v1/test/crop/{number}")
        } else {
            "callosity/v1/test/sighting".to_owned()
        },
        content_type: "application/octet-stream".to_owned(),
        time: jiff::Timestamp::now(),
        expiry: Some(Duration::from_secs(24 * 3600)),
        payload: [&number.to_le_bytes()[..], &vec![0; bytes - 8]].concat(),
    };
    for second in 0..SIGHTINGS / 10 {
        let sightings = (0..10).map(|i| message(Kind::Sighting, second * 10 + i, 900));
        outbox.put(sightings.collect()).unwrap();
        if second % (SIGHTINGS / 10 / CROPS) == 0 {
            outbox
                .put(vec![message(Kind::Crop, second, 30_000)])
                .unwrap();
        }
    }
    let filled = started.elapsed();
    let depth_started = Instant::now();
    let depth = outbox.depth();
    let depth_took = depth_started.elapsed();
    drop(outbox);
    let opening = Instant::now();
    drop(Outbox::open(&state, Limits::default()).unwrap());
    let opened = opening.elapsed();

    let mut recorder = Recorder::start(broker.port).await;
    let started = Instant::now();
    let flying = take_off(
        flight(folder.path(), 100.0, broker.options()),
        &CancellationToken::new(),
    );
    let (mut next, mut crops, mut resident) = (0, 0, 0);
    while next < SIGHTINGS || crops < CROPS {
        let publish = timeout(PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap();
        let number = publish
            .payload
            .get(..8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        if topic(&publish).contains("/crop/") && publish.payload.len() == 30_000 {
            assert_eq!(next, SIGHTINGS, "a crop before a name");
            crops += 1;
        } else if is_sighting(&publish) && publish.payload.len() == 900 {
            assert_eq!(number, Some(next), "out of order");
            next += 1;
            if next % 10_000 == 0 {
                resident = resident.max(resident_megabytes());
            }
        }
    }
    let drained = started.elapsed();
    delivered(&timeout(PATIENCE, flying).await.unwrap().unwrap());
    println!(
        "{SIGHTINGS} sightings and {CROPS} crops: {} MB, stored in {:.0} s, counted in {depth_took:?}, opened in \
         {:.2} s, drained in order in {:.0} s ({:.0} a second), at most {resident} MB of memory",
        depth.bytes / 1_000_000,
        filled.as_secs_f64(),
        opened.as_secs_f64(),
        drained.as_secs_f64(),
        (SIGHTINGS + CROPS) as f64 / drained.as_secs_f64(),
    );
}

/// Ten sightings a second with their crops for half an hour (`FAULTS_TEST_MINUTES`): memory stays flat.
/// `cargo test --release --test faults -- --ignored --nocapture half_an_hour`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn half_an_hour_of_ten_sightings_a_second_leaves_memory_flat() {
    let minutes = std::env::var("FAULTS_TEST_MINUTES").ok();
    let minutes: u64 = minutes.map_or(30, |minutes| minutes.parse().unwrap());
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let mut flight = flight(folder.path(), 5.0, broker.options());
    flight.cameras = vec![Replay::open(folder.path(), 5.0, true).unwrap().into()];
    let stop = CancellationToken::new();
    let flying = take_off(flight, &stop);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut sightings = 0_u64;
    let mut resident = Vec::new();
    while Instant::now() < end {
        let publish = timeout(PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap();
        if is_sighting(&publish) {
            sightings += 1;
            if sightings.is_multiple_of(300) {
                resident.push(resident_megabytes());
            }
        }
    }
    stop.cancel();
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    delivered(&report);
    let (early, late) = resident.split_at(resident.len() / 2);
    let (early, late) = (early.iter().max().unwrap(), late.iter().max().unwrap());
    println!(
        "{sightings} sightings in {minutes} minutes: {early} MB in the first half, {late} MB in the second"
    );
    assert!(*late <= 300 && *late <= early + 5, "{resident:?}");
}

/// A flight over the photographs of a folder that goes on where the last one ended, until it is killed or done; a
/// process of its own for the test below.
#[test]
#[ignore = "the process that another test kills"]
fn child_that_is_killed_again_and_again() {
    let Ok(folder) = std::env::var("FAULTS_TEST_FOLDER") else {
        return;
    };
    let folder = Path::new(&folder);
    let broker = std::env::var("FAULTS_TEST_BROKER").unwrap();
    let rate: f64 = std::env::var("FAULTS_TEST_RATE").map_or(100.0, |rate| rate.parse().unwrap());
    let lost_after = std::env::var("FAULTS_TEST_LOST_AFTER").map_or(0, |s| s.parse().unwrap());
    let mut flight = flight(folder, rate, flying::options_at(broker.parse().unwrap()));
    flight.cameras = vec![Replay::open(folder, rate, false).unwrap().resuming().into()];
    flight.lost_after = Duration::from_secs(lost_after);
    fly(flight, &CancellationToken::new()).unwrap();
}

/// A sighting ends when its animal was not seen for `lost_after` seconds.
fn start_child(folder: &Path, port: u16, lost_after: u64) -> Child {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.env("FAULTS_TEST_LOST_AFTER", lost_after.to_string());
    start_child_by(program, folder, &format!("mqtt://127.0.0.1:{port}"))
}

/// `program` runs this test program, with the arguments that follow.
fn start_child_by(mut program: Command, folder: &Path, broker: &str) -> Child {
    program
        .args([
            "--exact",
            "child_that_is_killed_again_and_again",
            "--ignored",
        ])
        .env("FAULTS_TEST_FOLDER", folder)
        .env("FAULTS_TEST_BROKER", broker)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a flight that was killed again and again has said.
struct Said {
    /// Every message on a sighting, with how often it came.
    sightings: BTreeMap<(Uuid, u32), (Sighting, usize)>,
    /// Messages on sightings that were ever decided.
    decided: u64,
}

/// Flies over `frames` and kills the program `kills` times at random moments; the broker is killed each `broker_every`
/// times as well. A sighting ends when its animal was not seen for `lost_after` seconds.
async fn fly_and_kill(
    frames: usize,
    kills: u32,
    broker_every: u32,
    lost_after: u64,
) -> Option<Said> {
    let mut broker = Mosquitto::start_as(Setup::default())?;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), frames, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut sightings: BTreeMap<(Uuid, u32), (Sighting, usize)> = BTreeMap::new();
    let mut note = |publish: &Publish| {
        if is_sighting(publish) {
            let said: Sighting = serde_json::from_slice(&publish.payload).unwrap();
            let key = (said.occurrence_id, said.revision);
            let heard = sightings.entry(key).or_insert((said.clone(), 0));
            assert_eq!(heard.0, said, "one revision says two things");
            heard.1 += 1;
        }
    };
    for kill in 0..kills {
        let mut child = start_child(folder.path(), broker.port, lost_after);
        let lives = Instant::now() + Duration::from_millis(random.random_range(20..420));
        while let Ok(publish) = tokio::time::timeout_at(lives.into(), recorder.heard.recv()).await {
            note(&publish.unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if (kill + 1) % broker_every == 0 {
            broker.stop();
            broker.start_again();
        }
    }
    let mut child = start_child(folder.path(), broker.port, lost_after);
    loop {
        let publish = timeout(PATIENCE, recorder.heard.recv()).await;
        let publish = publish.unwrap().unwrap();
        note(&publish);
        if presence(&publish) == Some(Presence::Stopped) {
            break;
        }
    }
    assert!(child.wait().unwrap().success());
    let outbox = Outbox::open(&folder.path().join("state"), Limits::default()).unwrap();
    assert!(outbox.depth().is_empty(), "{:?}", outbox.depth());
    let state = std::fs::read_dir(folder.path().join("state")).unwrap();
    let damaged = state.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("damaged")
    });
    assert_eq!(damaged.count(), 0, "the outbox was damaged");
    Some(Said {
        sightings,
        decided: outbox.ever_stored(Kind::Sighting),
    })
}

/// Asserts that each head of each frame had one beginning and one end; returns how many messages came more than once.
fn each_head_is_told_once(said: &Said, frames: usize) -> usize {
    assert_eq!(said.decided, 4 * frames as u64);
    let mut by_frame = vec![[0; 2]; frames];
    for (sighting, _) in said.sightings.values() {
        let ends = usize::from(sighting.state == SightingState::End);
        by_frame[sighting.frame.number as usize][ends] += 1;
    }
    assert_eq!(
        by_frame,
        vec![[2; 2]; frames],
        "each frame is decided once, none is lost"
    );
    said.sightings.values().filter(|(_, n)| *n > 1).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_decided_twice_when_the_program_is_killed() {
    if let Some(said) = fly_and_kill(200, 12, 4, 0).await {
        each_head_is_told_once(&said, 200);
    }
}

/// The two animals in view all the time are two sightings, however often the program is killed: each begins once, ends
/// once, and counts every frame.
#[tokio::test(flavor = "multi_thread")]
async fn a_sighting_goes_on_when_the_program_is_killed() {
    let Some(said) = fly_and_kill(150, 8, 4, 3600).await else {
        return;
    };
    let mut by_id: BTreeMap<Uuid, Vec<&Sighting>> = BTreeMap::new();
    for (sighting, _) in said.sightings.values() {
        by_id
            .entry(sighting.occurrence_id)
            .or_default()
            .push(sighting);
    }
    assert_eq!(by_id.len(), 2);
    let flights: BTreeSet<_> = said.sightings.values().map(|(s, _)| s.event_id).collect();
    assert_eq!(flights.len(), 1, "it is one flight");
    for of_animal in by_id.values() {
        let revisions = of_animal.iter().map(|s| s.revision);
        assert!(revisions.eq(0..of_animal.len() as u32), "{of_animal:?}");
        let (first, last) = (of_animal[0], of_animal[of_animal.len() - 1]);
        assert_eq!(
            (first.state, first.frames_seen),
            (SightingState::New, Some(1))
        );
        assert_eq!(
            (last.state, last.frames_seen),
            (SightingState::End, Some(150))
        );
        let unknown = last.decision == Decision::Unknown;
        assert_eq!(
            last.provisional_id.as_deref(),
            unknown.then_some("unknown 1")
        );
    }
}

/// A flight that was cut short long ago is not gone on with: what was in view has ended, and unknown animals are numbered
/// anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_flight_that_was_cut_short_long_ago_ends_when_the_next_begins() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let mut child = start_child(folder.path(), broker.port, 3600);
    let mut first = Vec::new();
    while first.len() < 2 {
        let publish = timeout(PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap();
        if is_sighting(&publish) {
            let said: Sighting = serde_json::from_slice(&publish.payload).unwrap();
            first.push(said.occurrence_id);
        }
    }
    // Whether it is killed before its end or not, the state below is what it leaves behind.
    child.kill().unwrap();
    child.wait().unwrap();
    let state = folder.path().join("state");
    let outbox = Outbox::open(&state, Limits::default()).unwrap();
    let earlier = Uuid::now_v7();
    let mut tracker = Tracker::new(Duration::from_secs(6));
    let jpeg = EncodedPhotograph::open(&folder.path().join("0000.jpg"));
    let jpeg = Image::from(jpeg.unwrap());
    let mut recogniser = TwoHeads::default();
    let seen = SeenFrame {
        camera: "replay".into(),
        time: "2026-01-01T00:00:00Z".parse().unwrap(),
        frame: FrameReference {
            number: 0,
            file: None,
            width_pixels: 96,
            height_pixels: 64,
            incomplete: None,
            damaged: None,
        },
        view: None,
        heads: recogniser.recognise(&jpeg).unwrap().heads,
    };
    let judge = |opinion: &Opinion| recogniser.identify(opinion);
    let left: BTreeSet<Uuid> = tracker
        .observe(&seen, &judge)
        .sightings
        .iter()
        .map(|s| s.id)
        .collect();
    let kept = serde_json::json!({ "event_id": earlier, "tracker": tracker });
    let bookmark = ("flight", &*kept.to_string());
    outbox.put_with_bookmarks(Vec::new(), &[bookmark]).unwrap();
    drop(outbox);
    let report = timeout(
        PATIENCE,
        take_off(
            flight(folder.path(), 100.0, broker.options()),
            &CancellationToken::new(),
        ),
    );
    delivered(&report.await.unwrap().unwrap());
    let mut ended = BTreeSet::new();
    let mut anew = BTreeSet::new();
    while ended.len() < 2 || anew.len() < 2 {
        let publish = timeout(PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap();
        if !is_sighting(&publish) {
            continue;
        }
        let said: Sighting = serde_json::from_slice(&publish.payload).unwrap();
        if left.contains(&said.occurrence_id) {
            assert_eq!(
                (said.state, said.event_id),
                (SightingState::End, Some(earlier))
            );
            ended.insert(said.occurrence_id);
        } else if !first.contains(&said.occurrence_id) {
            assert_ne!(said.event_id, Some(earlier));
            let unknown = said.decision == Decision::Unknown;
            assert_eq!(
                said.provisional_id.as_deref(),
                unknown.then_some("unknown 1")
            );
            anew.insert(said.occurrence_id);
        }
    }
    assert_eq!(ended, left);
}

/// `cargo test --release --test faults -- --ignored --nocapture a_thousand_kills`; takes about ten minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_thousand_kills() {
    let start = Instant::now();
    let Some(said) = fly_and_kill(25_000, 1000, 25, 0).await else {
        return;
    };
    let twice = each_head_is_told_once(&said, 25_000);
    println!(
        "1,000 kills, 40 of the broker, 100,000 messages on 50,000 sightings: 0 lost, 0 twice by id and revision \
         ({twice} sent again), outbox whole; {:.0} s",
        start.elapsed().as_secs_f64()
    );
}

/// Sightings until the flight says that it has stopped, by frame: when, by id.
async fn sightings_by_frame(recorder: &mut Recorder) -> BTreeMap<u64, BTreeMap<Uuid, Timestamp>> {
    let mut by_frame: BTreeMap<u64, BTreeMap<Uuid, Timestamp>> = BTreeMap::new();
    loop {
        let publish = timeout(5 * PATIENCE, recorder.heard.recv()).await;
        let publish = publish.unwrap().unwrap();
        if is_sighting(&publish) {
            let said: Sighting = serde_json::from_slice(&publish.payload).unwrap();
            by_frame
                .entry(said.frame.number)
                .or_default()
                .insert(said.occurrence_id, said.event_date);
        }
        if presence(&publish) == Some(Presence::Stopped) {
            return by_frame;
        }
    }
}

/// A host of its own beside this one, on a cable that loses packets on their way to it.
struct LossyHost {
    name: String,
    /// This machine's end of the cable.
    address: std::net::Ipv4Addr,
}

impl LossyHost {
    fn new(percent_lost: u32) -> Self {
        let id = std::process::id();
        let name = format!("callosity{id}");
        let net = format!("10.231.{}", id % 200);
        let (here, there) = (format!("ca{id}"), format!("cb{id}"));
        let inside = format!("ip netns exec {name}");
        for command in [
            format!("ip netns add {name}"),
            format!("ip link add {here} type veth peer name {there}"),
            format!("ip link set {there} netns {name}"),
            format!("ip addr add {net}.1/24 dev {here}"),
            format!("ip link set {here} up"),
            format!("{inside} ip addr add {net}.2/24 dev {there}"),
            format!("{inside} ip link set {there} up"),
            format!("{inside} nft add table inet lossy"),
            format!(
                "{inside} nft add chain inet lossy in {{ type filter hook input priority 0 ; }}"
            ),
            format!(
                "{inside} nft add rule inet lossy in numgen random mod 100 < {percent_lost} drop"
            ),
        ] {
            let words: Vec<_> = command.split(' ').collect();
            let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
            assert!(status.success(), "{command}");
        }
        Self {
            name,
            address: format!("{net}.1").parse().unwrap(),
        }
    }
}

impl Drop for LossyHost {
    fn drop(&mut self) {
        // The cable goes with it.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A tenth of all packets to the aircraft is lost, and its program is killed in between.
/// `cargo test --release --test faults -- --ignored --nocapture a_tenth_of_all_packets`; needs root, iproute2, nftables.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes a network of its own, which root alone may"]
async fn everything_arrives_where_a_tenth_of_all_packets_is_lost() {
    const FRAMES: usize = 500;
    let Some(broker) = Mosquitto::start_as(Setup::default()) else {
        return;
    };
    let host = LossyHost::new(10);
    let link = BadLink::at(host.address, broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), FRAMES, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let start = || {
        let mut program = Command::new("ip");
        program.args(["netns", "exec", &host.name]);
        program.arg(std::env::current_exe().unwrap());
        program.env("FAULTS_TEST_RATE", "20");
        start_child_by(
            program,
            folder.path(),
            &format!("mqtt://{}:{}", host.address, link.port),
        )
    };
    let begun = Instant::now();
    let mut child = start();
    sleep(Duration::from_secs(10)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = start();
    let by_frame = sightings_by_frame(&mut recorder).await;
    assert!(child.wait().unwrap().success());
    assert_eq!(by_frame.len(), FRAMES);
    assert!(by_frame.values().all(|sightings| sightings.len() == 2));
    println!(
        "{} sightings with a tenth of all packets lost and one kill: 0 lost, 0 twice by id; {:.0} s",
        2 * FRAMES,
        begun.elapsed().as_secs_f64()
    );
}

/// The clock of a flying program jumps to 1970, to 2100 and back.
/// `cargo test --release --test faults -- --ignored --nocapture the_clock_jumps`; needs Debian's libfaketime.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime"]
async fn nothing_is_lost_when_the_clock_jumps() {
    const FRAMES: usize = 300;
    let libraries = ["x86_64", "aarch64"]
        .map(|arch| format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1"));
    let library = libraries.iter().find(|path| Path::new(path).exists());
    let library = library.expect("Debian's libfaketime");
    let Some(broker) = Mosquitto::start_as(Setup::default()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), FRAMES, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_RESET", "1")
        .env("FAULTS_TEST_RATE", "25");
    let mut child = start_child_by(
        program,
        folder.path(),
        &format!("mqtt://127.0.0.1:{}", broker.port),
    );
    let jumps = tokio::spawn(async move {
        let mut jumps = [
            "@1970-01-01 00:00:10",
            "+0",
            "@2100-06-01 12:00:00",
            "@1970-01-01 00:00:10",
            "+0",
        ]
        .iter();
        for to in jumps.by_ref() {
            sleep(Duration::from_secs(2)).await;
            std::fs::write(&clock, to).unwrap();
        }
    });
    let by_frame = sightings_by_frame(&mut recorder).await;
    jumps.abort();
    assert!(child.wait().unwrap().success());
    assert_eq!(by_frame.len(), FRAMES);
    assert!(by_frame.values().all(|sightings| sightings.len() == 2));
    let years: BTreeSet<_> = by_frame
        .values()
        .flat_map(BTreeMap::values)
        .map(|time| time.strftime("%Y").to_string())
        .collect();
    // Within a flight the monotonic clock counts.
    let this = jiff::Timestamp::now().strftime("%Y").to_string();
    assert_eq!(years, BTreeSet::from([this]));
    println!(
        "{} sightings while the clock jumps: 0 lost, 0 twice by id",
        2 * FRAMES
    );
}
