use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use link::message::AltitudeDatum;
use recognition::virtual_survey::{AircraftState, FlightPath, SurveyCamera};
use serde_json::{Value, json};

use crate::position::{Altitude, Fix, Mounting, Pose, Source, View};

/// The satellite receiver and the attitude sensor of an aircraft that flies a virtual path, heard as through gpsd (its JSON
/// protocol, version 3), on a free port of the loopback interface. It lives until the process ends.
pub struct VirtualReceiver {
    port: u16,
}

/// Time between two positions.
const PERIOD: Duration = Duration::from_millis(200);
/// Metres of sea level above the ellipsoid.
const GEOID: f64 = -28.0;

impl VirtualReceiver {
    /// Starts it. The flight along the path begins at a time, which may be in the future: before it the aircraft flies
    /// towards the path's beginning.
    ///
    /// # Errors
    /// There is no free port or thread.
    pub fn start(path: FlightPath, begins: Timestamp) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let path = Arc::new(path);
        thread::Builder::new()
            .name("virtual-receiver".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let path = path.clone();
                    thread::spawn(move || {
                        // Ends with the client.
                        let _ = answer(stream, &path, begins);
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

fn answer(mut stream: TcpStream, path: &FlightPath, begins: Timestamp) -> std::io::Result<()> {
    let version =
        json!({"class": "VERSION", "release": "virtual", "proto_major": 3, "proto_minor": 14});
    writeln!(stream, "{version}")?;
    // The client asks to be told.
    BufReader::new(stream.try_clone()?).read_line(&mut String::new())?;
    let devices = json!({"class": "DEVICES", "devices": [{"class": "DEVICE", "path": "virtual"}]});
    writeln!(stream, "{devices}")?;
    loop {
        let now = Timestamp::now();
        let flown = now.duration_since(begins).as_secs_f64();
        for report in reports(&path.at(flown), now) {
            writeln!(stream, "{report}")?;
        }
        thread::sleep(PERIOD);
    }
}

fn reports(state: &AircraftState, now: Timestamp) -> [Value; 2] {
    let time = format!("{now:.3}");
    let fix = json!({
        "class": "TPV", "device": "virtual", "mode": 3, "time": time,
        "lat": state.place.latitude, "lon": state.place.longitude,
        "altMSL": state.altitude, "altHAE": state.altitude + GEOID,
        "speed": state.speed, "track": state.track, "climb": 0.0, "eph": 4.0, "epv": 6.0,
    });
    let attitude = json!({
        "class": "ATT", "device": "virtual", "time": time,
        "heading": state.heading, "roll": state.roll, "pitch": state.pitch,
    });
    [fix, attitude]
}

/// How a virtual camera sits in the airframe: turned to the left, with the top of its frames to the right.
pub fn mounting(camera: &SurveyCamera) -> Mounting {
    Mounting {
        pitch_degrees: -camera.left_degrees,
        yaw_degrees: 90.0,
        ..Mounting::straight_down(
            SurveyCamera::FOCAL_LENGTH_MILLIMETERS,
            SurveyCamera::SENSOR_WIDTH_MILLIMETERS,
        )
    }
}

/// What a camera of a virtual aircraft sees in frames of this size in pixels, by instruments that err by nothing.
pub fn view(state: &AircraftState, camera: &SurveyCamera, size: (u32, u32)) -> View {
    let altitude = Altitude {
        meters: state.altitude,
        datum: AltitudeDatum::Sea,
        error: Some(6.0),
    };
    let pose = Pose {
        fix: Fix {
            latitude: state.place.latitude,
            longitude: state.place.longitude,
            altitude: Some(altitude),
            speed: Some(state.speed),
            track: Some(state.track),
            error: Some(4.0),
        },
        fix_age: Duration::ZERO,
        uncertainty: 4.0,
        heading: (state.heading, Source::Measured),
        pitch: (state.pitch, Source::Measured),
        roll: (state.roll, Source::Measured),
    };
    View::new(pose, mounting(camera), size)
}

#[cfg(test)]
mod tests {
    use geographiclib_rs::{Geodesic, InverseGeodesic};
    use recognition::virtual_survey::{Catalogue, VirtualFlight};

    use super::*;

    const CAMERAS: [SurveyCamera; 2] = [SurveyCamera::BELLY, SurveyCamera::WINDOW];

    fn apart(a: (f64, f64), b: (f64, f64)) -> f64 {
        Geodesic::wgs84().inverse(a.0, a.1, b.0, b.1)
    }

    /// The flight draws whales by a projection of its own; photogrammetry finds each of them where it lies, and projects it
    /// to where it is drawn.
    #[test]
    fn photogrammetry_finds_the_whales_of_a_frame_where_they_are() {
        let catalogue = Catalogue::new(3, 3, 2);
        let flight = VirtualFlight::new(&catalogue, 5, &CAMERAS, 0.5, 1500);
        let size = (1536, 1024);
        let mut seen = [0, 0];
        let mut worst: f64 = 0.0;
        for flown in flight.frames() {
            let state = flight.path().at(flown.seconds);
            let view = view(&state, &CAMERAS[flown.camera], size);
            for head in flown.plan.heads_at(&catalogue, size.0, size.1) {
                let centre = head.landmarks.centre();
                let found = view.locate(centre.x, centre.y);
                let truth = head.place.unwrap();
                let away = apart(
                    (found.latitude, found.longitude),
                    (truth.latitude, truth.longitude),
                );
                assert!(away < found.uncertainty, "{away} m: {found:?}");
                worst = worst.max(away);
                let (x, y) = view.project(truth.latitude, truth.longitude).unwrap();
                assert!(
                    (x - centre.x).hypot(y - centre.y) < 4.0,
                    "{x} {y} {centre:?}"
                );
                let (bonnet, blowhead) = (head.landmarks.bonnet, head.landmarks.blowhead);
                let length = view
                    .length((bonnet.x, bonnet.y), (blowhead.x, blowhead.y))
                    .unwrap();
                assert!((1.8..2.7).contains(&length.meters), "{length:?}");
                seen[flown.camera] += 1;
            }
        }
        assert!(seen[0] > 30 && seen[1] > 100, "{seen:?}");
        // Instruments that err by nothing leave what a flat sea leaves.
        assert!(worst < 0.1, "{worst} m");
    }

    /// The aircraft flies as fast as it says, where its track leads, turns as its bank has it, and never stands in two places.
    #[test]
    fn the_path_is_that_of_an_aircraft() {
        let catalogue = Catalogue::new(3, 3, 2);
        let flight = VirtualFlight::new(&catalogue, 5, &CAMERAS, 0.5, 600);
        let path = flight.path();
        let step = 0.02;
        let (mut level, mut circling) = (0, 0);
        for k in -500..15_500 {
            let at = |k: i32| path.at(step * f64::from(k));
            let (a, b) = (at(k), at(k + 1));
            let (distance, course, _, _): (f64, f64, f64, f64) = Geodesic::wgs84().inverse(
                a.place.latitude,
                a.place.longitude,
                b.place.latitude,
                b.place.longitude,
            );
            let speed = f64::midpoint(a.speed, b.speed);
            assert!(
                (distance - speed * step).abs() < 0.01 * speed * step,
                "{a:?} {b:?}"
            );
            let turn = |from: f64, to: f64| (to - from + 540.0).rem_euclid(360.0) - 180.0;
            assert!(turn(a.track, course).abs() < 0.5, "{course}: {a:?} {b:?}");
            let rate = turn(a.track, b.track) / step;
            let coordinated = (9.81 * a.roll.to_radians().tan() / speed).to_degrees();
            assert!(
                (rate - coordinated).abs() < 2.5,
                "{rate} {coordinated} {a:?}"
            );
            assert!((290.0..320.0).contains(&a.altitude), "{a:?}");
            level += usize::from(a.roll.abs() < 3.0);
            circling += usize::from(a.roll < -43.0);
        }
        assert!(level > 3000 && circling > 2000, "{level} {circling}");
    }
}
