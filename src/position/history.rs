//! Fixes and attitudes by the monotonic clock, and what lies between them.

use std::collections::VecDeque;
use std::time::Duration;

use link::message::AltitudeDatum;
use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use super::georeference::{EARTH_RADIUS, ecef, geodetic};

/// An altitude of the aircraft.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Altitude {
    /// Metres above the datum.
    pub meters: f64,
    /// What it is measured from.
    pub datum: AltitudeDatum,
    /// Error that the receiver estimates, in metres, 95 %.
    pub error: Option<f64>,
}

/// What a receiver said of the position.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// Degrees north (WGS 84).
    pub latitude: f64,
    /// Degrees east, −180…180.
    pub longitude: f64,
    /// Only with a three-dimensional fix.
    pub altitude: Option<Altitude>,
    /// Over ground, m/s.
    pub speed: Option<f64>,
    /// Course over ground in degrees clockwise from true north.
    pub track: Option<f64>,
    /// Horizontal error that the receiver estimates, in metres, 95 %.
    pub error: Option<f64>,
}

/// How the airframe lies in the air; see the [module](super) for the signs. In degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attitude {
    /// Where the nose points, clockwise from true north, 0…360.
    pub heading: Option<f64>,
    /// Nose up.
    pub pitch: Option<f64>,
    /// Right side down.
    pub roll: Option<f64>,
}

/// Where an angle comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An attitude sensor.
    Measured,
    /// From the track: the nose points along it, and in a turn the aircraft banks as it must.
    Track,
    /// Nothing is known: taken to be level, or north.
    Unknown,
}

/// Where the aircraft was at a moment, and how it lay in the air.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// Position; speed and track where there are some.
    pub fix: Fix,
    /// Time to the nearest fix.
    pub fix_age: Duration,
    /// Radius in metres of the circle around the position that holds the true one with 95 %.
    pub uncertainty: f64,
    /// Heading in degrees, and where it comes from.
    pub heading: (f64, Source),
    /// Pitch, likewise.
    pub pitch: (f64, Source),
    /// Roll, likewise.
    pub roll: (f64, Source),
}

/// Enough for frames that wait long, and little memory.
const KEPT: Duration = Duration::from_secs(600);
const MOST: usize = 10_000;
/// Fixes further apart are not joined by a line.
const GAP: Duration = Duration::from_secs(5);
/// An attitude this old says nothing of a frame.
const ATTITUDE_AGE: Duration = Duration::from_secs(1);
/// A position is carried on along its track no longer.
const CARRIED_ON: f64 = 30.0;
/// Where the receiver estimates no error: that of a plain receiver under a free sky, in metres, 95 %.
const ERROR: f64 = 15.0;
/// Acceleration of a survey aircraft in a steep turn (45° of bank).
const ACCELERATION: f64 = 9.81;
/// Where the speed is not known; m/s.
const SPEED: f64 = 80.0;
/// Slower than this, the track says nothing of the heading; m/s.
const FLYING: f64 = 15.0;

/// The last minutes of a flight.
#[derive(Clone, Debug, Default)]
pub struct History {
    fixes: VecDeque<(Duration, Fix)>,
    attitudes: VecDeque<(Duration, Attitude)>,
}

impl History {
    /// A fix of a moment of the monotonic clock. One that is not after those before takes their place.
    pub fn add_fix(&mut self, at: Duration, fix: Fix) {
        add(&mut self.fixes, at, fix);
    }

    /// An attitude, likewise.
    pub fn add_attitude(&mut self, at: Duration, attitude: Attitude) {
        add(&mut self.attitudes, at, attitude);
    }

    /// The latest fix and its moment.
    pub fn latest(&self) -> Option<(Duration, Fix)> {
        self.fixes.back().copied()
    }

    /// Where the aircraft was at a moment: on the line between two fixes, or carried on from one. `None` only where
    /// there never was a fix.
    pub fn at(&self, moment: Duration) -> Option<Pose> {
        let (before, after) = around(&self.fixes, moment);
        let (fix, fix_age, drift) = match (before, after) {
            (Some(before), Some(after)) if after.0.saturating_sub(before.0) <= GAP => {
                between(before, after, moment)
            }
            (None, None) => return None,
            (before, after) => {
                let nearest = [before, after].into_iter().flatten();
                let nearest = nearest.min_by_key(|(at, _)| at.abs_diff(moment))?;
                carried_on(nearest, moment)
            }
        };
        let error = fix.error.unwrap_or(ERROR);
        let attitude = self.attitude(moment);
        let turning = self.turning(moment);
        Some(Pose {
            uncertainty: error.hypot(drift),
            heading: heading(attitude, &fix),
            pitch: match attitude.pitch {
                Some(pitch) => (pitch, Source::Measured),
                None => (0.0, Source::Unknown),
            },
            roll: match (attitude.roll, turning, fix.speed) {
                (Some(roll), ..) => (roll, Source::Measured),
                // A coordinated turn: tan(bank) = v ω / g.
                (None, Some(rate), Some(speed)) if speed >= FLYING => {
                    let bank = (speed * rate.to_radians() / 9.81).atan().to_degrees();
                    (bank, Source::Track)
                }
                _ => (0.0, Source::Unknown),
            },
            fix,
            fix_age,
        })
    }

    fn attitude(&self, moment: Duration) -> Attitude {
        let (before, after) = around(&self.attitudes, moment);
        let near = |held: Option<(Duration, Attitude)>| {
            held.filter(|(at, _)| at.abs_diff(moment) <= ATTITUDE_AGE)
        };
        match (near(before), near(after)) {
            (Some(before), Some(after)) => {
                let share = share(before.0, after.0, moment);
                let (a, b) = (before.1, after.1);
                Attitude {
                    heading: join(a.heading, b.heading, |a, b| {
                        turn(a, b, share).rem_euclid(360.0)
                    }),
                    pitch: join(a.pitch, b.pitch, |a, b| a + share * (b - a)),
                    roll: join(a.roll, b.roll, |a, b| turn(a, b, share)),
                }
            }
            (Some((_, attitude)), None) | (None, Some((_, attitude))) => attitude,
            (None, None) => Attitude::default(),
        }
    }

    /// Degrees a second that the track turns to the right.
    fn turning(&self, moment: Duration) -> Option<f64> {
        let (before, after) = around(&self.fixes, moment);
        let (a, b) = match (before, after) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => {
                let mut last = self.fixes.iter().rev();
                let b = *last.next()?;
                (*last.next()?, b)
            }
            _ => return None,
        };
        let seconds = b.0.saturating_sub(a.0).as_secs_f64();
        let near = b.0.abs_diff(moment) <= GAP && a.0.abs_diff(moment) <= GAP;
        if !near || seconds < 0.05 {
            return None;
        }
        Some(difference(a.1.track?, b.1.track?) / seconds)
    }
}

fn add<T>(held: &mut VecDeque<(Duration, T)>, at: Duration, value: T) {
    while held.back().is_some_and(|(last, _)| *last >= at) {
        held.pop_back();
    }
    held.push_back((at, value));
    while held.len() > MOST
        || held
            .front()
            .is_some_and(|(first, _)| at.saturating_sub(*first) > KEPT && held.len() > 2)
    {
        held.pop_front();
    }
}

type Held<T> = Option<(Duration, T)>;

/// The last at or before the moment, the first after it.
fn around<T: Copy>(held: &VecDeque<(Duration, T)>, moment: Duration) -> (Held<T>, Held<T>) {
    let next = held.partition_point(|(at, _)| *at <= moment);
    let before = next.checked_sub(1).and_then(|i| held.get(i)).copied();
    (before, held.get(next).copied())
}

fn share(from: Duration, to: Duration, moment: Duration) -> f64 {
    let whole = to.saturating_sub(from).as_secs_f64();
    let part = moment.saturating_sub(from).as_secs_f64();
    if whole > 0.0 {
        (part / whole).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

fn join(a: Option<f64>, b: Option<f64>, between: impl Fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(between(a, b)),
        (one, other) => one.or(other),
    }
}

/// From one direction to another the shorter way, −180…180.
fn difference(from: f64, to: f64) -> f64 {
    (to - from + 180.0).rem_euclid(360.0) - 180.0
}

fn turn(from: f64, to: f64, share: f64) -> f64 {
    from + share * difference(from, to)
}

/// On the line between two fixes. The last value is how far off the aircraft may be.
fn between(a: (Duration, Fix), b: (Duration, Fix), moment: Duration) -> (Fix, Duration, f64) {
    let share = share(a.0, b.0, moment);
    let mix = |a: f64, b: f64| a + share * (b - a);
    let place =
        ecef(a.1.latitude, a.1.longitude, 0.0).lerp(&ecef(b.1.latitude, b.1.longitude, 0.0), share);
    let (latitude, longitude) = geodetic(&place);
    let altitude = match (a.1.altitude, b.1.altitude) {
        (Some(a), Some(b)) if a.datum == b.datum => Some(Altitude {
            meters: mix(a.meters, b.meters),
            datum: a.datum,
            error: join(a.error, b.error, f64::max),
        }),
        (a, b) => b.or(a),
    };
    let fix = Fix {
        latitude,
        longitude,
        altitude,
        speed: join(a.1.speed, b.1.speed, mix),
        track: join(a.1.track, b.1.track, |a, b| {
            turn(a, b, share).rem_euclid(360.0)
        }),
        error: join(a.1.error, b.1.error, f64::max),
    };
    let age = a.0.abs_diff(moment).min(b.0.abs_diff(moment));
    // The arc that an aircraft flies in its steepest turn leaves its chord by a t (T − t) / 2.
    let whole = b.0.saturating_sub(a.0).as_secs_f64();
    let bulge = 0.5 * ACCELERATION * share * (1.0 - share) * whole * whole;
    (fix, age, bulge)
}

/// From the nearest fix along its track.
fn carried_on((at, fix): (Duration, Fix), moment: Duration) -> (Fix, Duration, f64) {
    let age = at.abs_diff(moment);
    let seconds = age.as_secs_f64();
    let sign = if moment < at { -1.0 } else { 1.0 };
    let flown = sign * seconds.min(CARRIED_ON) * fix.speed.unwrap_or(0.0);
    let mut there = fix;
    if let Some(track) = fix.track {
        let (sin, cos) = track.to_radians().sin_cos();
        let north = Vector3::new(flown * cos, flown * sin, 0.0);
        (there.latitude, there.longitude) = super::georeference::moved(&fix, &north);
    }
    // It may have turned away at once, or flown any way since; never further than around the Earth.
    let speed = fix.speed.unwrap_or(0.0).max(SPEED);
    let drift = (0.5 * ACCELERATION * seconds * seconds).min(2.0 * speed * seconds);
    (there, age, drift.min(std::f64::consts::PI * EARTH_RADIUS))
}

fn heading(attitude: Attitude, fix: &Fix) -> (f64, Source) {
    match (attitude.heading, fix.track, fix.speed) {
        (Some(heading), ..) => (heading, Source::Measured),
        (None, Some(track), Some(speed)) if speed >= FLYING => (track, Source::Track),
        _ => (0.0, Source::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use geographiclib_rs::{DirectGeodesic, Geodesic, InverseGeodesic};
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fix(latitude: f64, longitude: f64, track: f64) -> Fix {
        Fix {
            latitude,
            longitude,
            altitude: Some(Altitude {
                meters: 300.0,
                datum: AltitudeDatum::Sea,
                error: None,
            }),
            speed: Some(50.0),
            track: Some(track),
            error: Some(5.0),
        }
    }

    fn distance(a: &Fix, b: &Fix) -> f64 {
        Geodesic::wgs84().inverse(a.latitude, a.longitude, b.latitude, b.longitude)
    }

    fn ahead(from: &Fix, meters: f64) -> Fix {
        let (latitude, longitude): (f64, f64) =
            Geodesic::wgs84().direct(from.latitude, from.longitude, from.track.unwrap(), meters);
        Fix {
            latitude,
            longitude,
            ..*from
        }
    }

    proptest! {
        /// Against Karney's geodesics: between two fixes, beyond the last, and over the date line.
        #[test]
        fn positions_lie_on_the_geodesic(
            latitude in -80.0..80.0_f64, longitude in -180.0..180.0_f64, track in 0.0..360.0_f64,
            share in 0.0..1.0_f64, beyond in 0.0..5.0_f64,
        ) {
            let start = fix(latitude, longitude, track);
            let end = ahead(&start, 50.0);
            let mut history = History::default();
            history.add_fix(SECOND, start);
            history.add_fix(SECOND * 2, end);
            let pose = history.at(SECOND + SECOND.mul_f64(share)).unwrap();
            prop_assert!(distance(&pose.fix, &ahead(&start, 50.0 * share)) < 0.01);
            prop_assert!(pose.fix_age <= SECOND / 2);
            let pose = history.at(SECOND * 2 + SECOND.mul_f64(beyond)).unwrap();
            prop_assert!(distance(&pose.fix, &ahead(&start, 50.0 * (1.0 + beyond))) < 0.05);
            prop_assert!((pose.fix_age.as_secs_f64() - beyond).abs() < 1e-6);
        }

        /// The older the fix, the less is known, and the aircraft is within the circle however it turned.
        #[test]
        fn uncertainty_grows_with_the_age_of_the_fix(
            ages in prop::collection::vec(0.0..10_000.0_f64, 2..20), turn in -3.0..3.0_f64
        ) {
            let start = fix(41.0, -69.0, 30.0);
            let mut history = History::default();
            history.add_fix(SECOND, start);
            let mut ages = ages;
            ages.sort_by(f64::total_cmp);
            let mut least = 0.0;
            for age in ages {
                let pose = history.at(SECOND + SECOND.mul_f64(age)).unwrap();
                prop_assert!(pose.uncertainty >= least);
                least = pose.uncertainty;
                // Where an aircraft is that turned all the time, up to 3 degrees a second.
                let mut true_place = start;
                let mut flown = 0.0;
                while flown < age.min(300.0) {
                    let step = (age.min(300.0) - flown).min(1.0);
                    true_place = ahead(&true_place, 50.0 * step);
                    true_place.track = Some(true_place.track.unwrap() + turn * step);
                    flown += step;
                }
                if age <= 300.0 {
                    prop_assert!(distance(&true_place, &pose.fix) <= pose.uncertainty);
                }
            }
        }

        #[test]
        fn any_order_of_fixes_gives_a_pose(
            moments in prop::collection::vec(0_u64..100_000, 1..50), asked in 0_u64..200_000
        ) {
            let mut history = History::default();
            for at in &moments {
                let at = Duration::from_millis(*at);
                history.add_fix(at, fix(41.0, 179.9999, 90.0));
                history.add_attitude(at, Attitude { heading: Some(359.0), ..Attitude::default() });
            }
            let pose = history.at(Duration::from_millis(asked)).unwrap();
            prop_assert!(pose.fix.longitude.abs() <= 180.0 && pose.uncertainty.is_finite());
        }
    }

    #[test]
    fn attitude_is_interpolated_the_short_way_and_forgotten() {
        let mut history = History::default();
        history.add_fix(SECOND, fix(41.0, -69.0, 0.0));
        for (i, (heading, roll)) in [(350.0, -2.0), (10.0, 4.0)].into_iter().enumerate() {
            let at = SECOND + SECOND.mul_f64(i as f64);
            history.add_attitude(
                at,
                Attitude {
                    heading: Some(heading),
                    pitch: None,
                    roll: Some(roll),
                },
            );
        }
        let pose = history.at(SECOND + SECOND / 2).unwrap();
        assert!(
            pose.heading.0.min(360.0 - pose.heading.0) < 1e-9,
            "{pose:?}"
        );
        assert_eq!(pose.roll, (1.0, Source::Measured));
        assert_eq!(pose.pitch, (0.0, Source::Unknown));
        let later = history.at(SECOND * 5).unwrap();
        assert_eq!(later.heading, (0.0, Source::Track));
        assert_eq!(later.roll.1, Source::Unknown);
    }

    #[test]
    fn without_a_sensor_a_turn_tells_the_bank() {
        let mut history = History::default();
        history.add_fix(SECOND, fix(41.0, -69.0, 358.0));
        history.add_fix(SECOND * 2, fix(41.0005, -69.0, 1.0));
        let (roll, source) = history.at(SECOND + SECOND / 2).unwrap().roll;
        assert_eq!(source, Source::Track);
        // A rate-one turn at 50 m/s needs 15 degrees.
        assert!((roll - 14.9).abs() < 0.2, "{roll}");
    }
}
