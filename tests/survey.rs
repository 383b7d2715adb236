//! Where and when a flight is and how it is flown: positions from a real gpsd, clocks that jump, effort over HTTP and
//! by command.
#![allow(missing_docs)]

#[path = "common/flying.rs"]
mod flying;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callosity::camera::{Backlog, Camera, Captured, Replay, Setting, Settings};
use callosity::clock::{SystemClock, TimeSource, built};
use callosity::control::Page;
use callosity::effort::EffortSettings;
use callosity::outbox::{Limits, Outbox};
use callosity::position::Mounting;
use callosity::service::{Flight, Survey};
use flying::{
    Mosquitto, PASSWORD, PATIENCE, Recorder, TwoHeads, USER, check, delivered, flight, payloads,
    photographs, presence, take_off,
};
use jiff::{SignedDuration, Timestamp};
use link::BrokerOptions;
use link::message::{Presence, Sighting, TimeQuality};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use rumqttc::v5::{AsyncClient, MqttOptions};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Where the aircraft is at the beginning of its line, which leads due north.
const START: (f64, f64) = (41.5, -69.25);
/// 100 knots in m/s.
const SPEED: f64 = 51.444;
/// Metres above the sea.
const ALTITUDE: f64 = 304.8;
/// A degree of latitude at 41.5° N (WGS 84, half-way between its values at 41° and 42°).
const DEGREE_NORTH: f64 = 111_065.0;
/// A degree of longitude there.
const DEGREE_EAST: f64 = 83_495.0;

/// An NMEA 0183 log of a receiver on a line flown north from `START` at `began`: once a second what a plain receiver
/// says, with noise of a metre.
fn nmea_log(began: Timestamp, from: i64, seconds: i64) -> String {
    let sentence = |body: String| {
        let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        format!("${body}*{sum:02X}\r\n")
    };
    let minutes = |degrees: f64, width: usize| {
        let degrees = degrees.abs();
        let whole = degrees.floor();
        format!("{whole:0width$.0}{:08.5}", (degrees - whole) * 60.0)
    };
    let mut log = String::new();
    for second in from..from + seconds {
        let time = began + SignedDuration::from_secs(second);
        let noise = ((second * 7919) % 200 - 100) as f64 / 100.0;
        let north = SPEED * second as f64 + noise;
        let (latitude, longitude) = (START.0 + north / DEGREE_NORTH, START.1);
        let (latitude, longitude) = (minutes(latitude, 2), minutes(longitude, 3));
        let clock = time.strftime("%H%M%S");
        let date = time.strftime("%d%m%y");
        log += &sentence(format!(
            "GPRMC,{clock}.00,A,{latitude},N,{longitude},W,100.0,0.0,{date},,,A"
        ));
        log += &sentence(format!(
            "GPGGA,{clock}.00,{latitude},N,{longitude},W,1,09,0.9,{ALTITUDE:.1},M,-31.5,M,,"
        ));
        log += &sentence("GPGSA,A,3,01,02,03,04,05,06,07,08,09,,,,1.6,0.9,1.3".to_owned());
    }
    log
}

/// gpsd, fed by gpsfake with a log, a little faster than its times say, so that a busy machine does not fall behind.
struct FakeGps(Child);

impl FakeGps {
    fn start(port: u16, log: &Path) -> Option<Self> {
        let gpsfake = Path::new("/usr/bin/gpsfake");
        if !gpsfake.exists() {
            eprintln!("SKIPPED: gpsfake is not installed");
            return None;
        }
        let child = Command::new(gpsfake)
            .args(["-q", "-1", "-n", "-c", "0.3", "-P", &port.to_string()])
            .arg(log)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child))
    }
}

impl Drop for FakeGps {
    fn drop(&mut self) {
        // By the interrupt it ends its gpsd.
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        for _ in 0..50 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// What is heard until `is_it`.
async fn hear_until(
    recorder: &mut Recorder,
    heard: &mut Vec<Publish>,
    what: &str,
    is_it: impl Fn(&str, &Value) -> bool,
) -> Value {
    let found = timeout(PATIENCE, async {
        loop {
            let publish = recorder.heard.recv().await.unwrap();
            let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
            let value = serde_json::from_slice(&publish.payload).unwrap_or(Value::Null);
            heard.push(publish);
            let name = topic.rsplit('/').next().unwrap_or("");
            if is_it(name, &value) {
                return value;
            }
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("never heard: {what}"))
}

/// Metres north and east from where the aircraft was at `time`.
fn offset(began: Timestamp, time: Timestamp, value: &Value) -> (f64, f64) {
    let flown = SPEED * time.duration_since(began).as_secs_f64();
    let latitude = value["decimalLatitude"].as_f64().unwrap();
    let longitude = value["decimalLongitude"].as_f64().unwrap();
    (
        (latitude - START.0) * DEGREE_NORTH - flown,
        (longitude - START.1) * DEGREE_EAST,
    )
}

fn time_of(value: &Value, field: &str) -> Timestamp {
    value[field].as_str().unwrap().parse().unwrap()
}

/// A camera that never ends.
fn endless(folder: &Path, broker: BrokerOptions) -> Flight<TwoHeads> {
    photographs(folder, 3, &[]);
    let mut flight = flight(folder, 5.0, broker);
    flight.cameras = vec![Replay::open(folder, 5.0, true).unwrap().into()];
    flight
}

/// The log is cut in the middle of a sentence, gpsd ends, frames go on with a position that grows old, and gpsd comes
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn sightings_have_their_places_from_gpsd_whatever_becomes_of_it() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (port, log) = (free_port(), folder.path().join("flight.nmea"));
    let began = Timestamp::from_second(Timestamp::now().as_second() + 1).unwrap();
    let text = nmea_log(began, 0, 15);
    fs::write(&log, &text[..text.len() - 100]).unwrap();
    let Some(gps) = FakeGps::start(port, &log) else {
        return;
    };
    let frames = folder.path().join("frames");
    fs::create_dir(&frames).unwrap();
    let mut flight = endless(&frames, broker.options());
    // A clock that is not synchronised, so that gpsd tells the time.
    flight.survey = Survey {
        time: Arc::new(Jumping::new(SystemClock.wall(), false)),
        gpsd: Some(format!("127.0.0.1:{port}").parse().unwrap()),
        mountings: [("replay".to_owned(), Mounting::straight_down(50.0, 36.0))].into(),
        track_interval: Duration::from_secs(1),
        ..Survey::default()
    };
    let mut recorder = Recorder::start(broker.port).await;
    let stop = CancellationToken::new();
    let flying = take_off(flight, &stop);
    let mut heard = Vec::new();
    let with_place = |name: &str, value: &Value| {
        name == "sighting"
            && value["timeQuality"] == "satellite"
            && value["headLengthMeters"].is_number()
            && value["fixAgeSeconds"].as_f64().is_some_and(|age| age < 1.0)
    };
    hear_until(&mut recorder, &mut heard, "a place", with_place).await;
    // The log ends: the receiver says nothing more. Then gpsd is ended.
    let silent = |name: &str, value: &Value| {
        let problems = value["problems"].as_array();
        let of_position = |problem: &Value| {
            let reason = problem["reason"].as_str().unwrap();
            problem["part"] == "position" && reason.contains("no fix for")
        };
        name == "health" && problems.is_some_and(|all| all.iter().any(of_position))
    };
    hear_until(&mut recorder, &mut heard, "no more fixes", silent).await;
    let first_log = heard.len();
    drop(gps);
    let lost =
        |name: &str, value: &Value| name == "health" && value["position"]["connected"] == false;
    hear_until(&mut recorder, &mut heard, "gpsd lost", lost).await;
    let old = |name: &str, value: &Value| {
        name == "sighting" && value["fixAgeSeconds"].as_f64().is_some_and(|age| age > 3.0)
    };
    let old = hear_until(&mut recorder, &mut heard, "an old fix", old).await;
    let grown = old["coordinateUncertaintyInMeters"].as_f64().unwrap();
    assert!(grown > 40.0, "{old}");
    let from = Timestamp::now().as_second() - began.as_second() + 1;
    fs::write(&log, nmea_log(began, from, 30)).unwrap();
    let again = FakeGps::start(port, &log).unwrap();
    hear_until(&mut recorder, &mut heard, "a place again", with_place).await;
    let back = |name: &str, value: &Value| {
        name == "health" && value["position"]["reconnects"].as_u64() >= Some(1)
    };
    hear_until(&mut recorder, &mut heard, "gpsd again", back).await;
    stop.cancel();
    heard.extend(recorder.until(Presence::Stopped).await);
    delivered(&flying.await.unwrap());
    drop(again);
    check(&heard);

    // Of the first log alone: the second is not played at the very moments that its times say.
    let heard = &heard[..first_log];
    let sightings: Vec<_> = payloads(heard, "sighting").collect();
    let placed: Vec<_> = sightings
        .iter()
        .filter(|sighting| {
            sighting["timeQuality"] == "satellite" && sighting["headLengthMeters"].is_number()
        })
        .collect();
    // On a busy machine the receiver's messages come too unevenly to tell the time at once.
    assert!(placed.len() >= 3, "{} of {}", placed.len(), sightings.len());
    for sighting in &placed {
        let (north, east) = offset(began, time_of(sighting, "eventDate"), sighting);
        let uncertainty = sighting["coordinateUncertaintyInMeters"].as_f64().unwrap();
        // 0.375 mm a pixel, 50 mm, 304.8 m: 2.286 m a pixel. The heads are at 20 and 70 of 96 columns, 30 of 64 rows.
        let left = sighting["head"]["bonnetPixels"][0].as_f64().unwrap() < 48.0;
        let expected = if left { -28.0 * 2.286 } else { 22.0 * 2.286 };
        let error = (north - 2.0 * 2.286).hypot(east - expected);
        assert!(error <= uncertainty, "{error} m: {sighting}");
        let length = sighting["headLengthMeters"].as_f64().unwrap();
        assert!((length - 20.0 * 2.286).abs() < 0.1, "{sighting}");
        assert_eq!(sighting["altitudeDatum"], "sea");
        assert_eq!(sighting["footprint"].as_array().unwrap().len(), 4);
    }
    // While fixes came, places are right to what the time is right to, far better than the uncertainty.
    let fresh = placed
        .iter()
        .filter(|s| s["fixAgeSeconds"].as_f64().unwrap() < 0.6);
    let mut along: Vec<f64> = fresh
        .map(|s| (offset(began, time_of(s, "eventDate"), s).0 - 4.6).abs())
        .collect();
    along.sort_by(f64::total_cmp);
    let median = along[along.len() / 2];
    assert!(median < 15.0, "{median} m of {}", along.len());
    let tracks: Vec<_> = payloads(heard, "track").collect();
    assert!(tracks.len() > 5, "{}", tracks.len());
    for track in tracks
        .iter()
        .filter(|track| track["timeQuality"] == "satellite")
    {
        let (north, east) = offset(began, time_of(track, "time"), track);
        let uncertainty = track["coordinateUncertaintyInMeters"].as_f64().unwrap();
        assert!(
            north.hypot(east) <= uncertainty.max(20.0),
            "{north} {east} {track}"
        );
    }
}

/// A clock that tests set; the monotonic one is the machine's.
struct Jumping(Mutex<(SignedDuration, bool)>);

impl Jumping {
    fn new(wall: Timestamp, synchronised: bool) -> Self {
        let jumping = Self(Mutex::new((SignedDuration::ZERO, synchronised)));
        jumping.set(wall, synchronised);
        jumping
    }

    fn set(&self, wall: Timestamp, synchronised: bool) {
        *self.0.lock().unwrap() = (wall.duration_since(SystemClock.wall()), synchronised);
    }
}

impl TimeSource for Jumping {
    fn wall(&self) -> Timestamp {
        SystemClock.wall() + self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn is_synchronised(&self) -> bool {
        self.0.lock().unwrap().1
    }

    fn boot(&self) -> Option<String> {
        SystemClock.boot()
    }
}

/// From 1970, with a broker that is away: what waits in the outbox when the time becomes known is put right, through
/// jumps to 2100 and back.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_flight_that_began_in_1970_are_put_right() {
    let Some(mut broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(broker.port).await;
    broker.stop();
    let time = Arc::new(Jumping::new(Timestamp::UNIX_EPOCH, false));
    let mut flight = endless(folder.path(), broker.options());
    let state = flight.state.clone();
    flight.survey = Survey {
        time: time.clone(),
        effort: Some(EffortSettings::default()),
        ..Survey::default()
    };
    let began = Timestamp::now();
    let stop = CancellationToken::new();
    let flying = take_off(flight, &stop);
    let pause = || sleep(Duration::from_secs(3));
    pause().await;
    time.set("2100-01-01T00:00:00Z".parse().unwrap(), true);
    pause().await;
    time.set(SystemClock.wall(), true);
    pause().await;
    time.set(Timestamp::UNIX_EPOCH, false);
    pause().await;
    broker.start_again();
    stop.cancel();
    let heard = recorder.until(Presence::Stopped).await;
    delivered(&flying.await.unwrap());
    let ended = Timestamp::now();
    check(&heard);

    let outbox = Outbox::open(&state, Limits::default()).unwrap();
    let memory: Value = serde_json::from_str(&outbox.bookmark("clock").unwrap()).unwrap();
    let seen = time_of(&memory, "seen");
    assert!(seen > built() && seen <= ended);
    let second = SignedDuration::from_secs(1);
    let within = |time: Timestamp| time >= began - second && time <= ended + second;
    let mut last = Timestamp::UNIX_EPOCH;
    let (mut corrected, mut network) = (0, 0);
    for sighting in payloads(&heard, "sighting") {
        let sighting: Sighting = serde_json::from_value(sighting).unwrap();
        assert!(within(sighting.event_date), "{}", sighting.event_date);
        assert!(sighting.event_date >= last, "times go back");
        last = sighting.event_date;
        match sighting.time_quality.unwrap() {
            TimeQuality::Corrected => corrected += 1,
            TimeQuality::Network => network += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(corrected > 10 && network > 10, "{corrected} {network}");
    let said: Vec<_> = payloads(&heard, "effort").collect();
    let reasons: Vec<_> = said.iter().map(|e| e["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["begin", "clock", "end"]);
    assert!(said.iter().all(|effort| within(time_of(effort, "time"))));
    assert!(said[1]["timeCorrectionSeconds"].is_number());
}

/// A request, and the status and body of its answer, by hand.
fn ask(address: SocketAddr, method: &str, path: &str, host: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    if !body.is_empty() {
        let _ = write!(
            request,
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    stream
        .write_all(format!("{request}\r\n{body}").as_bytes())
        .unwrap();
    // A picture is no text.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn listening(address: SocketAddr) {
    for _ in 0..200 {
        if TcpStream::connect(address).is_ok() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody listens at {address}");
}

fn with_effort(
    frames: &Path,
    state: PathBuf,
    broker: BrokerOptions,
    address: SocketAddr,
) -> Flight<TwoHeads> {
    let mut flight = endless(frames, broker);
    flight.state = state;
    flight.survey = Survey {
        effort: Some(EffortSettings {
            observers: vec!["Ada".into()],
            project: Some("Gulf".into()),
            aircraft: None,
        }),
        commands: true,
        ..Survey::default()
    };
    flight.page = Some(Page {
        address,
        token: None,
    });
    flight
}

/// A camera that takes any exposure and knows no zoom.
struct Adjustable {
    settings: Settings,
    replay: Replay,
}

impl Camera for Adjustable {
    fn name(&self) -> &str {
        "belly"
    }

    fn backlog(&self) -> Backlog {
        Backlog::Newest
    }

    fn next(&mut self, timeout: Duration) -> Captured {
        let mut captured = self.replay.next(timeout);
        if let Captured::Frame(frame) = &mut captured {
            frame.tag.camera = "belly".into();
        }
        captured
    }

    fn settings(&self) -> Option<Settings> {
        Some(self.settings.clone())
    }

    fn complaint(&self) -> Option<String> {
        let wanted = self.settings.wanted();
        let zooms = wanted.iter().any(|(name, _)| name == "zoom");
        zooms.then(|| "zoom: there is no such setting".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_are_set_and_seen_in_flight() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (frames, state) = (folder.path().join("frames"), folder.path().join("state"));
    fs::create_dir(&frames).unwrap();
    let control = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let host = control.to_string();
    let mut flight = with_effort(&frames, state, broker.options(), control);
    let settings = Settings::default();
    settings.set("exposure", Setting::Number(40));
    let camera = Adjustable {
        settings: settings.clone(),
        replay: Replay::open(&frames, 20.0, true).unwrap(),
    };
    flight.cameras.push(camera.into());
    let mut recorder = Recorder::start(broker.port).await;
    let stop = CancellationToken::new();
    let flying = take_off(flight, &stop);
    listening(control).await;
    let set = |name: &str, body: &Value| {
        let path = format!("/cameras/{name}/settings");
        ask(control, "PUT", &path, &host, &body.to_string())
    };
    let wanted = json!({"exposure": 5, "gain": "auto", "zoom": 3});
    assert_eq!(set("belly", &wanted), (200, wanted));
    let expected = [
        ("exposure", Setting::Number(5)),
        ("gain", Setting::Auto),
        ("zoom", Setting::Number(3)),
    ];
    assert_eq!(
        settings.wanted(),
        expected.map(|(name, s)| (name.to_owned(), s))
    );
    let (status, refused) = set("belly", &json!({"exposure": 7, "gain": {"db": 3}}));
    assert_eq!((status, &refused["field"]), (422, &json!("gain")));
    assert_eq!(
        settings.wanted()[0].1,
        Setting::Number(5),
        "half of it was done"
    );
    for (camera, status) in [("replay", 404), ("nose", 404)] {
        assert_eq!(set(camera, &json!({"exposure": 1})).0, status, "{camera}");
    }
    let of_belly = || {
        let (_, cameras) = ask(control, "GET", "/cameras", &host, "");
        let mut cameras = cameras.as_array().unwrap().clone().into_iter();
        cameras.find(|camera| camera["name"] == "belly").unwrap()
    };
    let complains = async {
        while of_belly()["problems"][0] != "zoom: there is no such setting" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, complains).await.unwrap();
    assert_eq!(of_belly()["settings"]["exposure"], 5);
    let seen = async {
        while ask(control, "GET", "/cameras/belly/preview", &host, "").0 != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap();
    assert_eq!(
        ask(control, "GET", "/cameras/nose/preview", &host, "").0,
        404
    );
    stop.cancel();
    recorder.until(Presence::Stopped).await;
    delivered(&flying.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn effort_is_set_over_http_and_by_command_and_survives_a_restart() {
    let Some(broker) = Mosquitto::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (frames, state) = (folder.path().join("frames"), folder.path().join("state"));
    fs::create_dir(&frames).unwrap();
    let control = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let host = control.to_string();
    let mut recorder = Recorder::start(broker.port).await;
    let stop = CancellationToken::new();
    let flying = take_off(
        with_effort(&frames, state.clone(), broker.options(), control),
        &stop,
    );
    let mut heard = recorder.until(Presence::Online).await;
    listening(control).await;

    let on_line = json!({"watch": "online", "beaufort": 2, "glareRight": "slight"}).to_string();
    let (status, now) = ask(control, "PUT", "/effort", &host, &on_line);
    assert_eq!(
        (status, &now["watch"], &now["observers"]),
        (200, &json!("online"), &json!(["Ada"]))
    );
    let (status, refused) = ask(control, "PUT", "/effort", &host, r#"{"beaufort": 20}"#);
    assert_eq!(
        (status, &refused["field"], &refused["value"]),
        (422, &json!("beaufort"), &json!("20"))
    );
    assert!(refused["error"].as_str().unwrap().contains("0 to 12"));
    assert_eq!(
        ask(control, "PUT", "/effort", "evil.example", &on_line).0,
        403
    );
    assert_eq!(ask(control, "PUT", "/effort", &host, "{").0, 400);
    let (status, mark) = ask(control, "POST", "/marks", &host, "{}");
    assert_eq!(status, 201);
    let id = mark["markID"].as_str().unwrap().to_owned();
    let (status, _) = ask(
        control,
        "PUT",
        &format!("/marks/{id}"),
        &host,
        r#"{"individualCount": 4}"#,
    );
    assert_eq!(status, 200);

    // The ground, twice with one command, since MQTT may deliver it twice.
    let mut options = MqttOptions::new("ground", "127.0.0.1", broker.port);
    options.set_credentials(USER, PASSWORD);
    let (client, mut events) = AsyncClient::new(options, 8);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    let command = json!({"commandID": "0197f2a4-0000-7000-8000-000000000001", "effort": {"watch": "circling"}, "mark": {}});
    for command in [
        &command,
        &command,
        &json!({"commandID": "0197f2a4-0000-7000-8000-000000000002", "effort": {"watch": 3}}),
    ] {
        client
            .publish(
                "callosity/v1/test/command",
                QoS::AtLeastOnce,
                false,
                command.to_string(),
            )
            .await
            .unwrap();
    }
    let told = |name: &str, value: &Value| {
        let problems = value["problems"].as_array();
        name == "health" && problems.is_some_and(|all| all.iter().any(|p| p["part"] == "command"))
    };
    hear_until(&mut recorder, &mut heard, "the wrong command", told).await;
    stop.cancel();
    heard.extend(recorder.until(Presence::Stopped).await);
    delivered(&flying.await.unwrap());
    heard.retain(|publish| !publish.topic.ends_with(b"/command"));
    check(&heard);
    let said: Vec<_> = payloads(&heard, "effort").collect();
    let reasons: Vec<_> = said
        .iter()
        .map(|effort| effort["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        ["begin", "change", "mark", "mark", "change", "mark", "end"]
    );
    assert_eq!(said[3]["mark"]["individualCount"], 4);
    assert_eq!(said[4]["watch"], "circling");
    assert_eq!(said[4]["weather"]["beaufort"], 2);

    // The next process goes on with it.
    let control = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let stop = CancellationToken::new();
    let flying = take_off(
        with_effort(&frames, state, broker.options(), control),
        &stop,
    );
    listening(control).await;
    let (status, now) = ask(control, "GET", "/effort", "localhost", "");
    assert_eq!(
        (status, &now["watch"], &now["beaufort"]),
        (200, &json!("circling"), &json!(2))
    );
    let (_, marks) = ask(control, "GET", "/marks", "localhost", "");
    assert_eq!(marks.as_array().unwrap().len(), 2);
    stop.cancel();
    let ended = recorder.until(Presence::Stopped).await;
    assert!(
        ended
            .iter()
            .any(|publish| presence(publish) == Some(Presence::Online))
    );
    delivered(&flying.await.unwrap());
}
