use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

/// A satellite receiver and an attitude sensor of an aircraft that flies survey lines off Cape Cod, heard as through gpsd
/// (its JSON protocol, version 3), on a free port of the loopback interface. It lives until the process ends.
pub struct VirtualReceiver {
    port: u16,
}

/// Time between two positions.
const PERIOD: Duration = Duration::from_millis(200);

impl VirtualReceiver {
    /// Starts it; the flight begins now.
    ///
    /// # Errors
    /// There is no free port or thread.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let begun = Instant::now();
        thread::Builder::new()
            .name("virtual-receiver".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || {
                        // Ends with the client.
                        let _ = answer(stream, begun);
                    });
                }
            })?;
        Ok(Self { port })
    }

    /// Where it listens, as `--gpsd` takes it.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }
}

fn answer(mut stream: TcpStream, begun: Instant) -> std::io::Result<()> {
    let version =
        json!({"class": "VERSION", "release": "virtual", "proto_major": 3, "proto_minor": 14});
    writeln!(stream, "{version}")?;
    // The client asks to be told.
    BufReader::new(stream.try_clone()?).read_line(&mut String::new())?;
    let devices = json!({"class": "DEVICES", "devices": [{"class": "DEVICE", "path": "virtual"}]});
    writeln!(stream, "{devices}")?;
    loop {
        let flown = State::after(begun.elapsed());
        for report in flown.reports(Timestamp::now()) {
            writeln!(stream, "{report}")?;
        }
        thread::sleep(PERIOD);
    }
}

/// Metres a second.
const SPEED: f64 = 51.0;
/// Metres above the sea, and above the ellipsoid.
const ALTITUDE: f64 = 300.0;
const GEOID: f64 = -28.0;
/// Where the flight begins, in degrees north and east.
const START: (f64, f64) = (41.9, -69.9);
/// Length of a survey line in metres, and radius of the turn between two.
const LINE: f64 = 1500.0;
const TURN: f64 = 500.0;
const METERS_IN_A_DEGREE: f64 = 111_195.0;
const GRAVITY: f64 = 9.81;

/// Where the aircraft is and how it lies in the air.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    /// Metres north and east of the start.
    north: f64,
    east: f64,
    /// Degrees from north by east.
    track: f64,
    /// Degrees, right side down.
    roll: f64,
}

impl State {
    /// Lines to the north and the south by turns, each 1 km east of the one before.
    fn after(flown: Duration) -> Self {
        let half_turn = std::f64::consts::PI * TURN;
        let way = SPEED * flown.as_secs_f64();
        let line = (way / (LINE + half_turn)).floor();
        let along = way - line * (LINE + half_turn);
        let northward = line.rem_euclid(2.0) == 0.0;
        let sign = if northward { 1.0 } else { -1.0 };
        let (from, east) = (if northward { 0.0 } else { LINE }, 2.0 * TURN * line);
        if along <= LINE {
            return Self {
                north: from + sign * along,
                east,
                track: if northward { 0.0 } else { 180.0 },
                roll: 0.0,
            };
        }
        // To the right at the northern end, to the left at the southern.
        let turned = (along - LINE) / TURN;
        let track = if northward {
            turned.to_degrees()
        } else {
            180.0 - turned.to_degrees()
        };
        Self {
            north: from + sign * (LINE + TURN * turned.sin()),
            east: east + TURN * (1.0 - turned.cos()),
            track,
            roll: sign * (SPEED * SPEED / (GRAVITY * TURN)).atan().to_degrees(),
        }
    }

    fn reports(&self, now: Timestamp) -> [Value; 2] {
        let latitude = START.0 + self.north / METERS_IN_A_DEGREE;
        let longitude = START.1 + self.east / (METERS_IN_A_DEGREE * START.0.to_radians().cos());
        let time = format!("{now:.3}");
        let fix = json!({
            "class": "TPV", "device": "virtual", "mode": 3, "time": time,
            "lat": latitude, "lon": longitude, "altMSL": ALTITUDE, "altHAE": ALTITUDE + GEOID,
            "speed": SPEED, "track": self.track, "climb": 0.0, "eph": 4.0, "epv": 6.0,
        });
        let attitude = json!({
            "class": "ATT", "device": "virtual", "time": time,
            "heading": self.track, "roll": self.roll, "pitch": 2.0,
        });
        [fix, attitude]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It flies as fast as it says, where its nose points, and is never in two places.
    #[test]
    fn the_flight_is_smooth() {
        let step = 0.01;
        for k in 0..20_000 {
            let at = |k: i32| State::after(Duration::from_secs_f64(step * f64::from(k)));
            let (a, b) = (at(k), at(k + 1));
            let (north, east) = (b.north - a.north, b.east - a.east);
            assert!(
                (north.hypot(east) - SPEED * step).abs() < 0.01,
                "{a:?} {b:?}"
            );
            let course = east.atan2(north).to_degrees();
            let off = (course - a.track + 540.0).rem_euclid(360.0) - 180.0;
            assert!(off.abs() < 0.2, "{a:?} {b:?}");
        }
    }
}
