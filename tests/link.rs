//! The flight service against a real Mosquitto: passwords, TLS, a broker that dies on the way.
#![allow(missing_docs)]

mod common;
#[path = "common/flying.rs"]
mod flying;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tokio::accept_hdr_async;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use callosity::camera::Replay;
use callosity::outbox::{Limits, Outbox};
use callosity::service::fly;
use flying::{
    Mosquitto, PASSWORD, PATIENCE, Recorder, Setup, USER, check, credentials, delivered, flight,
    options_of, payloads, photographs, take_off, terminate,
};
use futures_util::{SinkExt, StreamExt};
use ground::{Received, Receiver};
use image::RgbImage;
use link::message::Presence;
use link::{BrokerAddress, BrokerOptions};
use recognition::pixels::encode_jpeg;
use rumqttc::tokio_rustls::TlsAcceptor;
use rumqttc::tokio_rustls::rustls::{self, pki_types::PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

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
    let mut messages = BTreeSet::new();
    let listen = async {
        loop {
            match receiver.next().await {
                Received::Sighting(s) => {
                    sightings.insert(s.occurrence_id);
                    assert!(messages.insert((s.occurrence_id, s.revision)));
                }
                Received::Crop { sighting, jpeg } => {
                    assert!(jpeg.starts_with(b"\xff\xd8"));
                    crops.insert(sighting);
                }
                Received::Health(h) => health = Some(h),
                Received::Status(s) if s.status == Presence::Stopped => return,
                Received::Status(_) | Received::Track(_) | Received::Effort(_) => {}
                Received::Malformed { topic, reason } => panic!("{topic}: {reason}"),
            }
        }
    };
    timeout(PATIENCE, listen).await.unwrap();
    let report = flying.await.unwrap();
    delivered(&report);
    assert_eq!((report.frames.captured, report.frames.identified), (7, 5));
    // Each is new and ends.
    assert_eq!((sightings.len(), messages.len()), (10, 20));
    assert_eq!(crops, sightings);
    let health = health.unwrap();
    assert_eq!(health.frames.failed, 2);
    // The last health message leaves before the last acknowledgements come.
    assert!(health.link.acknowledged <= 30);
    assert_eq!(report.messages.acknowledged, 30);
    assert!(health.last_failure.unwrap().file.unwrap().starts_with('x'));
}

/// Flies over three photographs and hears what comes of it over the same way.
async fn flies_and_is_heard(options: BrokerOptions) {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path(), 3, &[]);
    let mut receiver = Receiver::connect(options.clone(), "ground").await.unwrap();
    let flying = take_off(
        flight(folder.path(), 50.0, options),
        &CancellationToken::new(),
    );
    let mut sightings = 0;
    let listen = async {
        loop {
            match receiver.next().await {
                Received::Sighting(_) => sightings += 1,
                Received::Status(s) if s.status == Presence::Stopped => return,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, listen).await.unwrap();
    delivered(&flying.await.unwrap());
    // Two heads in three frames, each with its beginning and its end.
    assert_eq!(sightings, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_shows_its_certificate_where_the_broker_asks_for_one() {
    let Some(broker) = Mosquitto::start_as(Setup {
        tls: true,
        client_certificate: true,
        ..Setup::default()
    }) else {
        return;
    };
    let options = broker.options();
    let without = Receiver::connect(options.clone(), "ground").await;
    assert!(without.is_err(), "a client without certificate was let in");
    let at = broker.folder.path();
    let with = |key| {
        options
            .clone()
            .with_client_certificate(&at.join("client.pem"), &at.join(key))
    };
    assert!(with("key.pem").is_err(), "the key is another's");
    flies_and_is_heard(with("client.key").unwrap()).await;
}

/// Takes WebSockets, with TLS where there is an acceptor of it, and passes what they carry to a broker: what web servers
/// before brokers do.
async fn websocket_gateway(broker_port: u16, tls: Option<TlsAcceptor>) -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match tls.clone() {
                None => tokio::spawn(pass_on(stream, broker_port)),
                Some(tls) => tokio::spawn(async move {
                    // Who does not trust the certificate goes away.
                    if let Ok(stream) = tls.accept(stream).await {
                        pass_on(stream, broker_port).await;
                    }
                }),
            };
        }
    });
    port
}

async fn pass_on(stream: impl AsyncRead + AsyncWrite + Unpin, broker_port: u16) {
    #[expect(clippy::result_large_err, reason = "the library's type")]
    let negotiate = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), "/mqtt");
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let socket = accept_hdr_async(stream, negotiate).await.unwrap();
    let (mut to_client, mut from_client) = socket.split();
    let broker = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, broker_port));
    let (mut from_broker, mut to_broker) = broker.await.unwrap().into_split();
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            to_broker.write_all(&message.into_data()).await.unwrap();
        }
    };
    let down = async {
        let mut bytes = vec![0; 4096];
        while let Ok(n @ 1..) = from_broker.read(&mut bytes).await {
            let message = Message::binary(bytes[..n].to_vec());
            if to_client.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_goes_over_a_websocket() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let port = websocket_gateway(broker.port, None).await;
    let address = format!("ws://127.0.0.1:{port}/mqtt").parse().unwrap();
    let options = BrokerOptions::new(address, Some(credentials(PASSWORD)), None);
    flies_and_is_heard(options.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_goes_over_a_websocket_with_tls() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key);
    let port = websocket_gateway(broker.port, Some(Arc::new(server.unwrap()).into())).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, own.cert.pem()).unwrap();
    let options = |ca| {
        let address = format!("wss://localhost:{port}/mqtt").parse().unwrap();
        BrokerOptions::new(address, Some(credentials(PASSWORD)), ca).unwrap()
    };
    let stranger = Receiver::connect(options(None), "ground").await;
    let refused = stranger.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    flies_and_is_heard(options(Some(ca.as_path()))).await;
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
    broker.stop();
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
    broker.stop();
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
    assert_eq!(report.messages.acknowledged, 60);
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
        (40, 0)
    );
    let problem = report.link_problem.unwrap();
    assert!(problem.contains("ground station"), "{problem}");

    let mut recorder = Recorder::start(broker.port).await;
    // The retained status of the first flight.
    recorder.until(Presence::Stopped).await;
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
    flight.cameras = vec![
        Replay::open(folder.path(), 200.0, false)
            .unwrap()
            .as_live()
            .into(),
    ];
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
    assert_eq!(report.messages.sightings, 12);
}

/// Two programs of one name throw each other out: each says so, to its log and to the ground, and neither loses anything.
#[tokio::test(flavor = "multi_thread")]
async fn two_aircraft_of_one_name_are_told() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let mut recorder = Recorder::start(broker.port).await;
    let stop = CancellationToken::new();
    let mut flying = Vec::new();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for folder in &folders {
        photographs(folder.path(), 1, &[]);
        let mut flight = flight(folder.path(), 5.0, broker.options());
        flight.cameras = vec![Replay::open(folder.path(), 5.0, true).unwrap().into()];
        flying.push(take_off(flight, &stop));
    }
    let words = "Two aircraft need two names";
    let told = async {
        loop {
            let publish = recorder.heard.recv().await.unwrap();
            if String::from_utf8_lossy(&publish.payload).contains(words) {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    stop.cancel();
    for flying in flying {
        let report = timeout(2 * PATIENCE, flying).await.unwrap().unwrap();
        assert!(report.messages.is_empty(), "{report:?}");
        assert!(report.connections < 20, "no back-off: {report:?}");
    }
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
    let mut flight = flight(folder.path(), 10.0, options_of(port.parse().unwrap()));
    flight.cameras = vec![Replay::open(folder.path(), 10.0, true).unwrap().into()];
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
        // Each look at it is a sighting.
        .args(["--set", "lost_after_seconds=0"])
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
        .args(["--set", "stop_deadline_seconds=30"])
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
        .args(["--set", "stop_deadline_seconds=1"])
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
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let mut recorder = Recorder::start(broker.port).await;
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
        flight(folder.path(), 50.0, broker.options()),
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
