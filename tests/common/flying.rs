//! What tests of flights share: a recogniser with known answers, a Mosquitto of one's own, a client that writes down what it
//! hears.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callosity::camera::Replay;
use callosity::service::{About, Flight, FlightReport, Recognised, Recogniser, fly};
use callosity::sighting::SeenHead;
use image::RgbImage;
use link::broker::Credentials;
use link::message::{Engine, Presence, SCHEMA_VERSION, Sighting};
use link::{BrokerAddress, BrokerOptions};
use recognition::geometry::{Landmarks, Point};
use recognition::identify::{Candidate, Decision, Identification, Opinion};
use recognition::pixels::{Image, encode_jpeg};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const USER: &str = "aircraft";
pub const PASSWORD: &str = "right whale";

/// Sees two heads in each frame, at known places, after a known time.
#[derive(Default)]
pub struct TwoHeads {
    pub takes: Duration,
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

    fn recognise(&mut self, image: &Image) -> anyhow::Result<Recognised> {
        image.decode(1.0)?;
        std::thread::sleep(self.takes);
        let head = |x: f64, unknown| SeenHead {
            landmarks: Landmarks {
                bonnet: Point::new(x + 20.0, 30.0),
                blowhead: Point::new(x, 30.0),
            },
            confidence: 0.75,
            opinion: Opinion {
                probabilities: vec![0.5, 0.5],
                unknown,
            },
            appearance: None,
        };
        Ok(Recognised {
            heads: vec![head(10.0, 0.125), head(60.0, 0.875)],
            faults: image.faults(),
            stages_ms: vec![("decode".into(), 1.5)],
        })
    }

    fn identify(&self, opinion: &Opinion) -> Identification {
        Identification {
            decision: if opinion.unknown > 0.5 {
                Decision::Unknown
            } else {
                Decision::Identified
            },
            unknown_probability: opinion.unknown,
            candidates: vec![Candidate {
                individual: "Snowcone".into(),
                probability: 0.5,
            }],
        }
    }
}

/// A folder with `good` photographs and, last of all, the given broken ones.
pub fn photographs(folder: &Path, good: usize, broken: &[&[u8]]) {
    let jpeg = encode_jpeg(&RgbImage::new(96, 64), 80).unwrap();
    for i in 0..good {
        fs::write(folder.join(format!("{i:04}.jpg")), &jpeg).unwrap();
    }
    for (i, bytes) in broken.iter().enumerate() {
        fs::write(folder.join(format!("x{i}.jpg")), bytes).unwrap();
    }
}

pub fn mosquitto() -> Option<PathBuf> {
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

/// How a [`Mosquitto`] is reached.
#[derive(Clone, Copy, Default)]
pub struct Setup {
    pub tls: bool,
    /// Whether clients must show a certificate.
    pub client_certificate: bool,
    /// Whether it keeps messages in memory alone, which is much faster.
    pub forgetful: bool,
}

/// A Mosquitto of its own: configuration, port, passwords, certificate. Killed when dropped.
pub struct Mosquitto {
    program: PathBuf,
    pub folder: tempfile::TempDir,
    pub port: u16,
    setup: Setup,
    process: Child,
}

impl Mosquitto {
    pub fn start(tls: bool) -> Option<Self> {
        Self::start_as(Setup {
            tls,
            ..Setup::default()
        })
    }

    /// `ca.pem` in its folder has signed its certificate and that of a client, `client.pem` with `client.key`.
    pub fn start_as(setup: Setup) -> Option<Self> {
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
             max_queued_messages 0\nmax_inflight_messages 0\n",
            passwords.display()
        );
        if !setup.forgetful {
            config += &format!(
                "persistence true\npersistence_location {}/\n\
                 autosave_on_changes true\nautosave_interval 1\n",
                folder.path().display()
            );
        }
        if setup.tls {
            let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
            authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            // OpenSSL takes a certificate for its own issuer's where both bear one name.
            authority
                .distinguished_name
                .push(rcgen::DnType::CommonName, "an authority");
            let authority_key = rcgen::KeyPair::generate().unwrap();
            let authority_certificate = authority.self_signed(&authority_key).unwrap();
            let issuer = rcgen::Issuer::new(authority, authority_key);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
                .unwrap()
                .signed_by(&key, &issuer)
                .unwrap();
            let client_key = rcgen::KeyPair::generate().unwrap();
            let client = rcgen::CertificateParams::new(vec!["aircraft".into()])
                .unwrap()
                .signed_by(&client_key, &issuer)
                .unwrap();
            for (name, pem) in [
                ("ca.pem", authority_certificate.pem()),
                ("cert.pem", certificate.pem()),
                ("key.pem", key.serialize_pem()),
                ("client.pem", client.pem()),
                ("client.key", client_key.serialize_pem()),
            ] {
                fs::write(folder.path().join(name), pem).unwrap();
            }
            let at = folder.path().display();
            config += &format!("certfile {at}/cert.pem\nkeyfile {at}/key.pem\n");
            if setup.client_certificate {
                config += &format!("cafile {at}/ca.pem\nrequire_certificate true\n");
            }
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
            setup,
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

    /// In order, so that it writes down subscriptions and what it has acknowledged: those of the last second would be
    /// lost if it were killed.
    pub fn stop(&mut self) {
        let id = self.process.id().to_string();
        let asked = Command::new("kill").arg(id).status();
        assert!(asked.unwrap().success());
        self.process.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        self.process = Self::spawn(&self.program, self.folder.path(), self.port);
    }

    pub fn address(&self) -> BrokerAddress {
        let scheme = if self.setup.tls { "mqtts" } else { "mqtt" };
        format!("{scheme}://localhost:{}", self.port)
            .parse()
            .unwrap()
    }

    pub fn options(&self) -> BrokerOptions {
        let ca = self.folder.path().join("ca.pem");
        self.options_with(PASSWORD, self.setup.tls.then_some(&ca))
            .unwrap()
    }

    pub fn options_with(
        &self,
        password: &str,
        ca: Option<&PathBuf>,
    ) -> Result<BrokerOptions, link::LinkError> {
        BrokerOptions::new(
            self.address(),
            Some(credentials(password)),
            ca.map(PathBuf::as_path),
        )
    }
}

/// A [`Mosquitto`] without TLS, started by another process.
pub fn options_of(port: u16) -> BrokerOptions {
    options_at(BrokerAddress::loopback(port))
}

/// [`options_of`] one that is reached at an address.
pub fn options_at(address: BrokerAddress) -> BrokerOptions {
    BrokerOptions::new(address, Some(credentials(PASSWORD)), None).unwrap()
}

pub fn credentials(password: &str) -> Credentials {
    Credentials {
        username: USER.into(),
        password: password.into(),
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}

pub fn flight(folder: &Path, rate_hz: f64, broker: BrokerOptions) -> Flight<TwoHeads> {
    flight_with(TwoHeads::default(), folder, rate_hz, broker)
}

/// Each head of each frame is a sighting of its own, so that what arrives can be counted: it begins with its frame and
/// ends with the next.
pub fn flight_with<R>(
    recogniser: R,
    folder: &Path,
    rate_hz: f64,
    broker: BrokerOptions,
) -> Flight<R> {
    let camera = Replay::open(folder, rate_hz, false).unwrap();
    let platform = "test".parse().unwrap();
    let state = folder.join("state");
    Flight {
        health_interval: Duration::from_millis(200),
        stop_deadline: PATIENCE,
        lost_after: Duration::ZERO,
        ..Flight::new(vec![camera.into()], recogniser, broker, platform, state)
    }
}

/// Flies on a thread of its own.
pub fn take_off<R: Recogniser + 'static>(
    flight: Flight<R>,
    stop: &CancellationToken,
) -> JoinHandle<FlightReport> {
    let stop = stop.clone();
    let (landed, landing) = oneshot::channel();
    // Not one of tokio's threads, for which a test that failed would wait for ever.
    std::thread::spawn(move || {
        // A test that failed does not listen any more.
        let _ = landed.send(fly(flight, &stop).unwrap());
    });
    tokio::spawn(async { landing.await.unwrap() })
}

/// Writes down every message with its properties, as a client that shares no code with the receiver.
/// Its session outlives the broker, so that what the broker has acknowledged reaches it.
pub struct Recorder {
    pub heard: mpsc::UnboundedReceiver<Publish>,
}

impl Recorder {
    pub async fn start(port: u16) -> Self {
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
    pub async fn until(&mut self, status: Presence) -> Vec<Publish> {
        let mut all = Vec::new();
        let collect = async {
            loop {
                let publish = self.heard.recv().await.unwrap();
                let said = presence(&publish);
                all.push(publish);
                if said == Some(status) {
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

/// What a status says; `None` for any other message.
pub fn presence(publish: &Publish) -> Option<Presence> {
    let said: serde_json::Value = publish
        .topic
        .ends_with(b"/status")
        .then(|| serde_json::from_slice(&publish.payload).unwrap())?;
    Some(serde_json::from_value(said["status"].clone()).unwrap())
}

/// Asserts that every message is as the committed schema says and carries its properties; returns the
/// ids of the sightings.
pub fn check(heard: &[Publish]) -> BTreeSet<String> {
    let schemas: BTreeMap<_, _> = ["status", "sighting", "health", "track", "effort"]
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
pub fn assert_unknown_probability_is_a_probability(
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
pub fn payloads<'a>(
    heard: &'a [Publish],
    topic: &str,
) -> impl Iterator<Item = serde_json::Value> + 'a {
    let topic = format!("callosity/v1/test/{topic}");
    let of_topic = heard.iter().filter(move |p| p.topic == topic.as_bytes());
    of_topic.map(|p| serde_json::from_slice(&p.payload).unwrap())
}

pub fn delivered(report: &FlightReport) {
    assert!(report.messages.is_empty(), "{report:?}");
    assert_eq!(report.stragglers, Vec::<&str>::new());
    assert_eq!(report.failure, None);
}

/// Memory of this process, as Linux counts it.
pub fn resident_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<u64>().unwrap() / 1000
}

/// Asks a program to end, as systemd does.
pub fn terminate(process: &Child) {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(sent.success());
}
