//! What tests of the ground station share: the program itself, whoever asks it over HTTP, and messages of an aircraft.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use jiff::Timestamp;
use link::message::{
    BasisOfRecord, Candidate, Decision, FrameReference, Georeference, Head, PixelPosition, Place,
    Sighting, SightingState,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::flying::{Mosquitto, PASSWORD, PATIENCE, USER, terminate};

/// What the aircraft of these messages is called.
pub const PLATFORM: &str = "N57RW";

/// A running `callosity ground`.
pub struct Ground {
    process: Child,
    lines: Receiver<String>,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Ground {
    /// Starts it on a broker; it has subscribed when this returns.
    pub fn start(broker: &Mosquitto, data: &Path, more: &[&str]) -> Self {
        let address = format!("mqtt://127.0.0.1:{}", broker.port);
        let over = ["--broker", &address, "--username", USER];
        Self::start_with(data, &[&over, more].concat(), "connected to")
    }

    /// Starts it to hear aircraft itself, at a port.
    pub fn start_without_broker(port: u16, data: &Path) -> Self {
        let address = format!("127.0.0.1:{port}");
        Self::start_with(data, &["--mqtt-listen", &address], "aircraft send to")
    }

    fn start_with(data: &Path, more: &[&str], ready: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_callosity"))
            .args(["ground", "--listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .args(more)
            .env("CALLOSITY_MQTT_PASSWORD", PASSWORD)
            .env_remove("CALLOSITY_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = channel();
        let tell = |stream: Box<dyn Read + Send>| {
            let say = say.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // Shown where a test fails.
                    eprintln!("ground: {line}");
                    if say.send(line).is_err() {
                        return;
                    }
                }
            });
        };
        tell(Box::new(process.stdout.take().unwrap()));
        tell(Box::new(process.stderr.take().unwrap()));
        let mut ground = Self {
            process,
            lines,
            address: String::new(),
        };
        let page = ground.said("the page is at http://");
        ground.address = page.split("http://").nth(1).unwrap().trim().to_owned();
        ground.said(ready);
        ground
    }

    /// Waits for a line with these words.
    pub fn said(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|e| panic!("waiting for {words:?}: {e}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// As a loss of power ends it.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// As systemd ends it.
    pub fn stop(mut self) {
        terminate(&self.process);
        assert!(self.process.wait().unwrap().success());
    }

    /// Asks it; JSON both ways.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        cookie: &str,
        body: &Value,
    ) -> (u16, String, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nCookie: {cookie}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (
            status,
            head.to_owned(),
            serde_json::from_str(body).unwrap_or(Value::Null),
        )
    }

    /// Makes an account by a link of `callosity ground` and returns its cookie.
    pub fn enter(&self, link: &str, name: &str) -> String {
        let invitation = link.split("#invitation=").nth(1).unwrap().trim();
        let body =
            json!({"invitation": invitation, "name": name, "password": "a long enough password"});
        let (status, head, _) = self.ask("POST", "/api/accounts", "", &body);
        assert_eq!(status, 200, "{head}");
        let cookie = head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        cookie.unwrap().split(';').next().unwrap().to_owned()
    }

    /// Waits until what it says of itself is so.
    pub fn until(&self, cookie: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let (_, _, station) = self.ask("GET", "/api/station", cookie, &Value::Null);
            if is_so(&station) {
                return station;
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "{what}: {station}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A sighting of its number, with places along a line.
pub fn sighting(number: u64, revision: u32) -> Sighting {
    let started = Timestamp::from_second(1_790_000_000).unwrap();
    Sighting {
        occurrence_id: Uuid::from_u128(
            0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number),
        ),
        state: SightingState::New,
        revision,
        event_date: started + jiff::SignedDuration::from_secs(number.cast_signed()),
        platform: PLATFORM.into(),
        event_id: Some(Uuid::from_u128(7)),
        camera: Some("left".into()),
        basis_of_record: BasisOfRecord::MachineObservation,
        scientific_name: "Eubalaena glacialis".into(),
        identified_by: "callosity".into(),
        decision: Decision::Identified,
        organism_id: Some("Comet".into()),
        unknown_probability: Some(0.05),
        candidates: vec![Candidate {
            organism_id: "Comet".into(),
            probability: 0.9,
        }],
        provisional_id: None,
        frames_seen: Some(1 + revision),
        frame: FrameReference {
            number,
            file: Some(format!("frame-{number:04}.jpg")),
            width_pixels: 3072,
            height_pixels: 2048,
            incomplete: None,
            damaged: None,
        },
        head: Head {
            bonnet_pixels: PixelPosition { x: 900.0, y: 700.0 },
            blowhead_pixels: PixelPosition { x: 700.0, y: 700.0 },
            head_length_pixels: 200.0,
            confidence: 0.93,
        },
        time_quality: None,
        georeference: Georeference {
            place: Some(Place {
                decimal_latitude: 41.5 + (number % 1000) as f64 * 0.001,
                decimal_longitude: -69.5,
                coordinate_uncertainty_in_meters: 15.0,
                fix_age_seconds: 0.4,
            }),
            ..Georeference::default()
        },
    }
}
