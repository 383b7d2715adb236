//! The flight service against a real Mosquitto: passwords, TLS, a broker that dies on the way.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callosity::camera::Replay;
use callosity::outbox::{Limits, Outbox};
use callosity::rehearsal::EmbeddedBroker;
use callosity::service::{
    About, Flight, FlightReport, Recognised, RecognisedHead, Recogniser, fly,
};
use ground::{Received, Receiver};
use image::RgbImage;
use link::broker::Credentials;
use link::codec::Encoding;
use link::message::{Candidate, Decision, Engine, Presence, SCHEMA_VERSION, Sighting};
use link::{BrokerAddress, BrokerOptions};
use recognition::geometry::{Landmarks, Point};
use recognition::pixels::{EncodedPhotograph, encode_jpeg};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const USER: &str = "aircraft";
const PASSWORD: &str = "right whale";

/// Sees two heads in each frame, at known places, after a known time.
struct TwoHeads {
    takes: Duration,
}

impl Recogniser for TwoHeads {
    fn about(&self) -> About {
        About {
            engine: Engine {
                name: "test".into(),
                bundle: "two-heads 1.0.0".into(),
                networks: Vec::new(),
            },
            scientific_name: "Eubalaena glacialis".into(),
        }
    }

    fn recognise(&mut self, photograph: &EncodedPhotograph) -> anyhow::Result<Recognised> {
        photograph.decode(1.0)?;
        std::thread::sleep(self.takes);
        let head = |x: f64, decision| RecognisedHead {
            landmarks: Landmarks {
                bonnet: Point::new(x + 20.0, 30.0),
                blowhead: Point::new(x, 30.0),
            },
            confidence: 0.75,
            decision,
            unknown_probability: if decision == Decision::Unknown {
                0.875
            } else {
                0.125
            },
            candidates: vec![Candidate {
                organism_id: "Snowcone".into(),
                probability: 0.5,
            }],
        };
        Ok(Recognised {
            heads: vec![
                head(10.0, Decision::Identified),
                head(60.0, Decision::Unknown),
            ],
            faults: photograph.faults(),
            stages_ms: vec![("decode".into(), 1.5)],
        })
    }
}

/// A folder with `good` photographs and, last of all, the given broken ones.
fn photographs(folder: &Path, good: usize, broken: &[&[u8]]) {
    let jpeg = encode_jpeg(&RgbImage::new(96, 64), 80).unwrap();
    for i in 0..good {
        fs::write(folder.join(format!("{i:04}.jpg")), &jpeg).unwrap();
    }
    for (i, bytes) in broken.iter().enumerate() {
        fs::write(folder.join(format!("x{i}.jpg")), bytes).unwrap();
    }
}

fn mosquitto() -> Option<PathBuf> {
    let found = [
        "/usr/sbin/mosquitto",
        "/usr/local/sbin/mosquitto",
        "/usr/bin/mosquitto",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|p| p.exists());
    if found.is_none() {
        eprintln!("SKIPPED: mosquitto is not installed");
    }
    found
}

/// A Mosquitto of its own: configuration, port, passwords, certificate. Killed when dropped.
struct Mosquitto {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    tls: bool,
    process: Child,
}

impl Mosquitto {
    fn start(tls: bool) -> Option<Self> {
        let program = mosquitto()?;
        let folder = tempfile::tempdir().unwrap();
        // Mosquitto leaves the rights of root and must still read its files.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let passwords = folder.path().join("passwords");
        fs::write(&passwords, "").unwrap();
        let made = Command::new("mosquitto_passwd")
            .args([
                "-b".as_ref(),
                passwords.as_os_str(),
                USER.as_ref(),
                PASSWORD.as_ref(),
            ])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n\
             persistence true\npersistence_location {}/\n\
             autosave_on_changes true\nautosave_interval 1\n\
             max_queued_messages 0\nmax_inflight_messages 0\n",
            passwords.display(),
            folder.path().display()
        );
        if tls {
            let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
            authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let authority_key = rcgen::KeyPair::generate().unwrap();
            let authority_certificate = authority.self_signed(&authority_key).unwrap();
            let issuer = rcgen::Issuer::new(authority, authority_key);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
                .unwrap()
                .signed_by(&key, &issuer)
                .unwrap();
            for (name, pem) in [
                ("ca.pem", authority_certificate.pem()),
                ("cert.pem", certificate.pem()),
                ("key.pem", key.serialize_pem()),
            ] {
                fs::write(folder.path().join(name), pem).unwrap();
            }
            let at = folder.path().display();
            config += &format!("certfile {at}/cert.pem\nkeyfile {at}/key.pem\n");
        }
        if is_root() {
            config += "user root\n";
        }
        fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        let process = Self::spawn(&program, folder.path(), port);
        Some(Self {
            program,
            folder,
            port,
            tls,
            process,
        })
    }

    fn spawn(program: &Path, folder: &Path, port: u16) -> Child {
        let mut process = Command::new(program)
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return process;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        panic!("mosquitto does not listen on port {port}");
    }

    /// As a loss of power would. What it has acknowledged it keeps for a session that persists: it
    /// writes its state down at each change.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::spawn(&self.program, self.folder.path(), self.port);
    }

    fn address(&self) -> BrokerAddress {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        format!("{scheme}://localhost:{}", self.port)
            .parse()
            .unwrap()
    }

    fn options(&self) -> BrokerOptions {
        let ca = self.folder.path().join("ca.pem");
        self.options_with(PASSWORD, self.tls.then_some(&ca))
            .unwrap()
    }

    fn options_with(
        &self,
        password: &str,
        ca: Option<&PathBuf>,
    ) -> Result<BrokerOptions, link::LinkError> {
        let credentials = Credentials {
            username: USER.into(),
            password: password.into(),
        };
        BrokerOptions::new(self.address(), Some(credentials), ca.map(PathBuf::as_path))
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}

fn flight(folder: &Path, rate_hz: f64, broker: BrokerOptions) -> Flight<TwoHeads> {
    Flight {
        camera: Box::new(Replay::open(folder, rate_hz, false).unwrap()),
        recogniser: TwoHeads {
            takes: Duration::ZERO,
        },
        broker,
        platform: "test".parse().unwrap(),
        state: folder.join("state"),
        outbox: Limits::default(),
        encoding: Encoding::Json,
        largest_message: None,
        health_interval: Duration::from_millis(200),
        stop_deadline: PATIENCE,
    }
}

/// Flies on a thread of its own.
fn take_off(flight: Flight<TwoHeads>, stop: &CancellationToken) -> JoinHandle<FlightReport> {
    let stop = stop.clone();
    spawn_blocking(move || fly(flight, &stop).unwrap())
}

/// Writes down every message with its properties, as a client that shares no code with the receiver.
/// Its session outlives the broker, so that what the broker has acknowledged reaches it.
struct Recorder {
    heard: mpsc::UnboundedReceiver<Publish>,
}

impl Recorder {
    async fn start(port: u16) -> Self {
        let (say, heard) = mpsc::unbounded_channel();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let mut options = MqttOptions::new("recorder", "127.0.0.1", port);
        options
            .set_credentials(USER, PASSWORD)
            .set_clean_start(false)
            .set_session_expiry_interval(Some(3600))
            .set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(options, 8);
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client
                            .try_subscribe("callosity/#", QoS::AtLeastOnce)
                            .unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        ready.take().map(|r| r.send(()));
                    }
                    Ok(Event::Incoming(Packet::Publish(p))) => {
                        if say.send(p).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        timeout(PATIENCE, is_ready).await.unwrap().unwrap();
        Self { heard }
    }

    /// Everything up to and with the given status.
    async fn until(&mut self, status: Presence) -> Vec<Publish> {
        let mut all = Vec::new();
        let collect = async {
            loop {
                let publish = self.heard.recv().await.unwrap();
                let is_status = publish.topic.ends_with(b"/status");
                let said = serde_json::from_slice::<serde_json::Value>(&publish.payload);
                all.push(publish);
                let wanted = serde_json::to_value(status).unwrap();
                if is_status && said.is_ok_and(|v| v["status"] == wanted) {
                    return;
                }
            }
        };
        let ended = timeout(PATIENCE, collect).await;
        let topics: Vec<_> = all
            .iter()
            .map(|p| String::from_utf8_lossy(&p.topic))
            .collect();
        assert!(ended.is_ok(), "{status:?} was not heard, only {topics:?}");
        all
    }
}

/// Asserts that every message is as the committed schema says and carries its properties; returns the
/// ids of the sightings.
fn check(heard: &[Publish]) -> BTreeSet<String> {
    let schemas: BTreeMap<_, _> = ["status", "sighting", "health"]
        .into_iter()
        .map(|name| {
            let path = format!("{}/src/link/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let schema = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            (name, jsonschema::validator_for(&schema).unwrap())
        })
        .collect();
    let mut ids = BTreeSet::new();
    let mut crops = BTreeSet::new();
    for publish in heard {
        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
        let properties = publish.properties.as_ref().unwrap();
        let version = ("schema-version".to_owned(), SCHEMA_VERSION.to_owned());
        assert!(properties.user_properties.contains(&version), "{topic}");
        let name = topic.strip_prefix("callosity/v1/test/").unwrap();
        if let Some(id) = name.strip_prefix("crop/") {
            assert_eq!(properties.content_type.as_deref(), Some("image/jpeg"));
            assert_eq!(
                image::load_from_memory(&publish.payload).unwrap().width(),
                448
            );
            crops.insert(id.to_owned());
            continue;
        }
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(
            properties.message_expiry_interval.is_none(),
            name == "status"
        );
        let value: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
        let errors: Vec<_> = schemas[name]
            .iter_errors(&value)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{topic} {value}: {errors:?}");
        if name == "sighting" {
            assert_eq!(publish.qos, QoS::AtLeastOnce);
            let unknown = value["unknownProbability"].as_f64().unwrap();
            assert_eq!(unknown > 0.5, value["decision"] == "unknown", "{value}");
            assert_unknown_probability_is_a_probability(&schemas[name], &value);
            ids.insert(value["occurrenceID"].as_str().unwrap().to_owned());
        }
    }
    assert!(crops.is_subset(&ids), "a crop without its sighting");
    ids
}

/// The schema holds the probability of "unknown" to 0…1; a message of before schema 1.1, without it, is still one.
fn assert_unknown_probability_is_a_probability(
    schema: &jsonschema::Validator,
    sighting: &serde_json::Value,
) {
    let mut changed = sighting.clone();
    for (value, valid) in [(0.0, true), (1.0, true), (-0.01, false), (1.01, false)] {
        changed["unknownProbability"] = value.into();
        assert_eq!(schema.is_valid(&changed), valid, "{value}");
    }
    changed
        .as_object_mut()
        .unwrap()
        .remove("unknownProbability");
    assert!(schema.is_valid(&changed));
    let read: Sighting = serde_json::from_value(changed).unwrap();
    assert_eq!(read.unknown_probability, None);
}

/// What was said under a topic, as JSON.
fn payloads<'a>(heard: &'a [Publish], topic: &str) -> impl Iterator<Item = serde_json::Value> + 'a {
    let topic = format!("callosity/v1/test/{topic}");
    let of_topic = heard.iter().filter(move |p| p.topic == topic.as_bytes());
    of_topic.map(|p| serde_json::from_slice(&p.payload).unwrap())
}

fn delivered(report: &FlightReport) {
    assert!(report.messages.is_empty(), "{report:?}");
    assert_eq!(report.stragglers, Vec::<&str>::new());
    assert_eq!(report.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_over_tls_and_with_password() {
    let Some(broker) = Mosquitto::start(true) else {
        return;
    };
    // One more listener cannot be had without TLS, so the receiver of the ground hears.
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 5, &[b"", b"\xff\xd8\xff\xe0 no photograph"]);
    let mut receiver = Receiver::connect(broker.options(), "ground").await.unwrap();
    let flying = take_off(
        flight(folder.path(), 50.0, broker.options()),
        &CancellationToken::new(),
    );
    let (mut sightings, mut crops, mut health) = (BTreeSet::new(), BTreeSet::new(), None);
    let listen = async {
        loop {
            match receiver.next().await {
                Received::Sighting(s) => assert!(sightings.insert(s.occurrence_id)),
                Received::Crop { sighting, jpeg } => {
                    assert!(jpeg.starts_with(b"\xff\xd8"));
                    crops.insert(sighting);
                }
                Received::Health(h) => health = Some(h),
                Received::Status(s) if s.status == Presence::Stopped => return,
                Received::Status(_) => {}
                Received::Malformed { topic, reason } => panic!("{topic}: {reason}"),
            }
        }
    };
    timeout(PATIENCE, listen).await.unwrap();
    let report = flying.await.unwrap();
    delivered(&report);
    assert_eq!((report.frames.captured, report.frames.identified), (7, 5));
    assert_eq!(sightings.len(), 10);
    assert_eq!(crops, sightings);
    let health = health.unwrap();
    assert_eq!(health.frames.failed, 2);
    // The last health message leaves before the last acknowledgements come.
    assert!(health.link.acknowledged <= 20);
    assert_eq!(report.messages.acknowledged, 20);
    assert!(health.last_failure.unwrap().file.unwrap().starts_with('x'));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_dies() {
    let Some(mut broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 60, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let flying = take_off(
        flight(folder.path(), 25.0, broker.options()),
        &CancellationToken::new(),
    );
    let mut heard = recorder.until(Presence::Online).await;
    for _ in 0..20 {
        heard.push(
            timeout(PATIENCE, recorder.heard.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    // Frames go on while there is no broker.
    broker.kill();
    sleep(Duration::from_millis(800)).await;
    broker.start_again();
    heard.extend(recorder.until(Presence::Stopped).await);
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    delivered(&report);
    assert!(report.connections >= 2, "{report:?}");
    assert_eq!(report.frames.identified, 60);
    let ids = check(&heard);
    assert_eq!(ids.len() as u64, report.frames.heads, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_may_begin_before_its_broker() {
    let Some(mut broker) = Mosquitto::start(false) else {
        return;
    };
    // The broker keeps its subscription while both are away.
    let mut recorder = Recorder::start(broker.port).await;
    sleep(Duration::from_secs(2)).await;
    broker.kill();
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 10, &[]);
    let flying = take_off(
        flight(folder.path(), 100.0, broker.options()),
        &CancellationToken::new(),
    );
    sleep(Duration::from_millis(300)).await;
    broker.start_again();
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    delivered(&report);
    assert_eq!(report.messages.acknowledged, 40);
    assert_eq!(check(&recorder.until(Presence::Stopped).await).len(), 20);
}

/// A broker that nobody listens to throws away what it acknowledges, so nothing is deleted on its word.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_ground_station_everything_is_kept_for_the_next_flight() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 10, &[]);
    let fly_over = || {
        take_off(
            flight(folder.path(), 100.0, broker.options()),
            &CancellationToken::new(),
        )
    };
    let report = timeout(PATIENCE, fly_over()).await.unwrap().unwrap();
    assert_eq!(
        (report.messages.sightings, report.messages.acknowledged),
        (20, 0)
    );
    let problem = report.link_problem.unwrap();
    assert!(problem.contains("ground station"), "{problem}");

    let mut recorder = Recorder::start(broker.port).await;
    let report = timeout(PATIENCE, fly_over()).await.unwrap().unwrap();
    delivered(&report);
    let heard = recorder.until(Presence::Stopped).await;
    assert_eq!(check(&heard).len(), 40);
    let flights: BTreeSet<_> = payloads(&heard, "sighting")
        .map(|sighting| sighting["eventID"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(flights.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let Some(broker) = Mosquitto::start(true) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let ca = broker.folder.path().join("ca.pem");
    let other_ca = folder.path().join("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut other = rcgen::CertificateParams::new(vec![]).unwrap();
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(&other_ca, other.self_signed(&key).unwrap().pem()).unwrap();
    let no_ca = folder.path().join("no.pem");
    fs::write(&no_ca, "not a certificate").unwrap();

    // The flight is flown all the same, what was seen is kept, and the report says what is wrong.
    let failure = async |options: BrokerOptions| {
        let flight = flight(folder.path(), 100.0, options);
        let flown = take_off(flight, &CancellationToken::new());
        let report = timeout(PATIENCE, flown).await.unwrap().unwrap();
        assert_eq!(report.frames.identified, 1);
        assert!(report.messages.sightings >= 2);
        report.link_problem.unwrap()
    };
    let wrong_password = failure(broker.options_with("wrong", Some(&ca)).unwrap()).await;
    assert!(
        wrong_password.contains("password is wrong"),
        "{wrong_password}"
    );
    assert!(!wrong_password.contains(PASSWORD), "{wrong_password}");
    let untrusted = failure(broker.options_with(PASSWORD, Some(&other_ca)).unwrap()).await;
    assert!(untrusted.contains("not trusted"), "{untrusted}");
    let address = BrokerAddress {
        host: "127.0.0.1".into(),
        ..broker.address()
    };
    let other_name = failure(BrokerOptions::new(address, None, Some(&ca)).unwrap()).await;
    assert!(other_name.contains("another host"), "{other_name}");
    let no_certificate = broker.options_with(PASSWORD, Some(&no_ca)).err().unwrap();
    assert!(
        no_certificate.to_string().contains("no.pem"),
        "{no_certificate}"
    );
    let unknown_host = BrokerAddress {
        host: "no-such-host.invalid".into(),
        port: 1883,
        tls: false,
        websocket: None,
    };
    let options = BrokerOptions::new(unknown_host, None, None).unwrap();
    let error = Receiver::connect(options, "ground").await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("cannot reach broker mqtt://no-such-host.invalid:1883"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_camera_drops_the_frames_for_which_there_is_no_time() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 40, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let mut flight = flight(folder.path(), 200.0, broker.options());
    flight.recogniser.takes = Duration::from_millis(60);
    flight.camera = Box::new(Replay::open(folder.path(), 200.0, false).unwrap().as_live());
    let flying = take_off(flight, &CancellationToken::new());
    let heard = recorder.until(Presence::Stopped).await;
    let report = flying.await.unwrap();
    delivered(&report);
    let frames = &report.frames;
    assert_eq!(frames.captured, 40);
    assert_eq!(frames.identified + frames.dropped, 40);
    assert!(frames.dropped > 0, "{frames:?}");
    assert_eq!(check(&heard).len() as u64, 2 * frames.identified);
    let last = heard
        .iter()
        .filter(|p| p.topic.ends_with(b"/sighting"))
        .map(|p| serde_json::from_slice::<serde_json::Value>(&p.payload).unwrap())
        .map(|s| s["frame"]["number"].as_u64().unwrap())
        .max();
    assert_eq!(last, Some(39), "the newest frame is always looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_keeps_what_was_decided() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 2000, &[]);
    let mut recorder = Recorder::start(broker.port).await;
    let stop = CancellationToken::new();
    let flying = take_off(flight(folder.path(), 50.0, broker.options()), &stop);
    let mut heard = recorder.until(Presence::Online).await;
    for _ in 0..30 {
        heard.push(
            timeout(PATIENCE, recorder.heard.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    stop.cancel();
    heard.extend(recorder.until(Presence::Stopped).await);
    let report = flying.await.unwrap();
    delivered(&report);
    assert!(report.frames.captured < 2000);
    assert_eq!(check(&heard).len() as u64, report.frames.heads);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_broker_ends_at_its_deadline_and_says_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 3, &[]);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let options = BrokerOptions::new(BrokerAddress::loopback(port), None, None).unwrap();
    let mut flight = flight(folder.path(), 100.0, options);
    flight.stop_deadline = Duration::from_millis(300);
    let stop = CancellationToken::new();
    let flying = take_off(flight, &stop);
    sleep(Duration::from_millis(500)).await;
    stop.cancel();
    let report = timeout(PATIENCE, flying).await.unwrap().unwrap();
    assert_eq!(report.stragglers, ["publisher"]);
    assert_eq!(report.messages.sightings, 6);
}

/// Flies until it is killed; started as a process of its own by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that another test kills"]
async fn child_that_is_killed() {
    let Ok(port) = std::env::var("LINK_TEST_PORT") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 1, &[]);
    let credentials = Credentials {
        username: USER.into(),
        password: PASSWORD.into(),
    };
    let address = BrokerAddress::loopback(port.parse().unwrap());
    let options = BrokerOptions::new(address, Some(credentials), None).unwrap();
    let mut flight = flight(folder.path(), 10.0, options);
    flight.camera = Box::new(Replay::open(folder.path(), 10.0, true).unwrap());
    fly(flight, &CancellationToken::new()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_is_said_to_be_offline() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let mut recorder = Recorder::start(broker.port).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--ignored"])
        .env("LINK_TEST_PORT", broker.port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut heard = recorder.until(Presence::Online).await;
    heard.push(
        timeout(PATIENCE, recorder.heard.recv())
            .await
            .unwrap()
            .unwrap(),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    heard.extend(recorder.until(Presence::Offline).await);
    check(&heard);
    let mut late = Receiver::connect(broker.options(), "late").await.unwrap();
    let retained = timeout(PATIENCE, late.next()).await.unwrap();
    assert!(
        matches!(&retained, Received::Status(s) if s.status == Presence::Offline),
        "{retained:?}"
    );
}

/// The program `callosity run` on photographs of one toy whale, over and over.
fn program(folder: &Path, broker: &str) -> Command {
    let mut frame = common::sea(768, 512);
    let whale = common::head((300.0, 180.0), (180.0, 120.0));
    common::draw(&mut frame, &whale, common::colour("indigo"));
    frame.save(folder.join("whale.png")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_callosity"));
    program
        .args(["run", "--loop", "--rate", "5", "--platform", "test"])
        .args(["--engine", "builtin", "--username", USER])
        .args(["--broker", broker, "--source"])
        .arg(folder)
        .arg("--bundle")
        .arg(common::tiny())
        .arg("--state")
        .arg(folder.join("state"))
        .env("CALLOSITY_MQTT_PASSWORD", PASSWORD)
        .env_remove("CALLOSITY_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    program
}

fn terminate(process: &Child) {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_flies_until_it_is_asked_to_stop() {
    let Some(broker) = Mosquitto::start(true) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::connect(broker.options(), "ground").await.unwrap();
    let process = program(folder.path(), &broker.address().to_string())
        .arg("--ca")
        .arg(broker.folder.path().join("ca.pem"))
        .spawn()
        .unwrap();
    let mut sightings = Vec::new();
    let listen = async {
        loop {
            match receiver.next().await {
                Received::Sighting(s) => {
                    sightings.push(s);
                    if sightings.len() == 3 {
                        terminate(&process);
                    }
                }
                Received::Status(s) if s.status == Presence::Stopped => return,
                Received::Malformed { topic, reason } => panic!("{topic}: {reason}"),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, listen).await.unwrap();
    let output = process.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("connected to broker mqtts://"), "{log}");
    assert!(!log.contains(PASSWORD), "{log}");
    assert!(sightings.len() >= 3);
    for sighting in sightings {
        assert_eq!(sighting.organism_id.as_deref(), Some("indigo"));
        assert!(sighting.unknown_probability.is_some_and(|p| p < 0.5));
        assert_eq!(sighting.frame.file.as_deref(), Some("whale.png"));
    }
}

#[test]
fn a_wrong_password_does_not_keep_the_program_from_flying() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut process = program(folder.path(), &broker.address().to_string())
        .env("CALLOSITY_MQTT_PASSWORD", "not it")
        .args(["--stop-deadline", "30"])
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let said = log
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("password is wrong"));
    let said = said.unwrap();
    assert!(!said.contains("not it"), "{said}");
    std::thread::sleep(Duration::from_secs(2));
    terminate(&process);
    let rest: Vec<_> = log.map(Result::unwrap).collect();
    assert_eq!(process.wait().unwrap().code(), Some(2), "{rest:?}");
    let kept = "they are kept, and the next flight sends them";
    assert!(rest.iter().any(|line| line.contains(kept)), "{rest:?}");
    let outbox = Outbox::open(&folder.path().join("state"), Limits::default()).unwrap();
    assert!(outbox.depth().sightings > 0, "{:?}", outbox.depth());
}

#[test]
fn the_program_without_a_broker_says_that_it_tries_again() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = format!("mqtt://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut process = program(folder.path(), &address)
        .args(["--stop-deadline", "1"])
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let warning = log
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("trying again in"))
        .unwrap();
    assert!(warning.contains("WARN"), "{warning}");
    assert!(warning.contains("cannot reach broker"), "{warning}");
    terminate(&process);
    let rest: Vec<_> = log.map(Result::unwrap).collect();
    assert_eq!(process.wait().unwrap().code(), Some(2), "{rest:?}");
    let late = "publisher was not done 1 s after being asked to stop";
    assert!(rest.iter().any(|l| l.contains(late)), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_and_a_damaged_frame_are_told_in_messages_and_counted() {
    let broker = EmbeddedBroker::start().unwrap();
    let options = BrokerOptions::new(broker.address(), None, None).unwrap();
    let mut recorder = Recorder::start(broker.address().port).await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 2, &[]);
    let grain = RgbImage::from_fn(96, 64, |x, y| image::Rgb([(x * 37 + y * 59) as u8; 3]));
    let jpeg = encode_jpeg(&grain, 80).unwrap();
    fs::write(
        folder.path().join("x_cut.jpg"),
        &jpeg[..jpeg.len() * 9 / 10],
    )
    .unwrap();
    let (start, end) = jpeg.split_at(jpeg.len() - 2);
    fs::write(
        folder.path().join("y_odd.jpg"),
        [start, &[9; 40], end].concat(),
    )
    .unwrap();
    fs::write(folder.path().join("z_bad.jpg"), &jpeg[..jpeg.len() / 3]).unwrap();
    fs::write(folder.path().join("._z.jpg"), "fork of a Mac").unwrap();
    let flying = take_off(
        flight(folder.path(), 50.0, options),
        &CancellationToken::new(),
    );
    let heard = recorder.until(Presence::Stopped).await;
    let frames = flying.await.unwrap().frames;
    assert_eq!(
        (frames.captured, frames.identified, frames.failed),
        (5, 4, 1)
    );
    assert_eq!((frames.incomplete, frames.damaged), (1, 1));
    check(&heard);
    for sighting in payloads(&heard, "sighting") {
        let frame = sighting["frame"].as_object().unwrap();
        let share = frame
            .get("incomplete")
            .map(|part| part["shareRead"].as_f64().unwrap());
        let damaged = frame.get("damaged").map(|reason| reason.as_str().unwrap());
        match frame["file"].as_str().unwrap() {
            "x_cut.jpg" => {
                assert!((0.5..1.0).contains(&share.unwrap()));
                assert_eq!(damaged, None);
            }
            "y_odd.jpg" => {
                assert_eq!(share, None);
                assert!(damaged.unwrap().contains("extraneous bytes"));
            }
            _ => assert_eq!((share, damaged), (None, None)),
        }
    }
    let health = payloads(&heard, "health").last().unwrap();
    let counts = &health["frames"];
    assert_eq!(
        (&counts["incomplete"], &counts["damaged"]),
        (&1.into(), &1.into())
    );
    // The file is named beside the reason, not in it.
    let failure = &health["lastFailure"];
    assert_eq!(failure["file"], "z_bad.jpg");
    assert!(
        !failure["reason"].as_str().unwrap().contains("z_bad"),
        "{failure}"
    );
}

/// What the demo asks of the embedded broker: MQTT 5 properties, retained status, order.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_carries_a_flight() {
    let broker = EmbeddedBroker::start().unwrap();
    let options = BrokerOptions::new(broker.address(), None, None).unwrap();
    let mut recorder = Recorder::start(broker.address().port).await;
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 20, &[]);
    let flying = take_off(
        flight(folder.path(), 50.0, options.clone()),
        &CancellationToken::new(),
    );
    let heard = recorder.until(Presence::Stopped).await;
    let report = flying.await.unwrap();
    delivered(&report);
    assert_eq!(check(&heard).len(), 40);
    let mut late = Receiver::connect(options, "late").await.unwrap();
    let retained = timeout(PATIENCE, late.next()).await.unwrap();
    assert!(
        matches!(&retained, Received::Status(s) if s.status == Presence::Stopped),
        "{retained:?}"
    );
}
