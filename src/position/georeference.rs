//! From a pixel to a place on the sea.
//!
//! The ray through a pixel is turned from the camera to the airframe by the mounting, to north, east, down by roll,
//! pitch and heading, and cut with the WGS 84 ellipsoid, which is laid at sea level: an error of millimetres, since only
//! the height above the sea counts. Lenses are taken to be without distortion, the optical axis to meet the frame's
//! centre.
//!
//! Uncertainties are radii that hold the truth with 95 %. Each source of error (roll, pitch, heading, altitude) is moved
//! by its own 95 % to both sides, the greater displacement of each is taken, and they are added as independent errors
//! are (root of the sum of squares), with that of the aircraft's own position.

use std::time::Duration;

use link::message::{AltitudeDatum, Corner, Georeference, Place};
use nalgebra::{Rotation3, Vector3};
use serde::{Deserialize, Serialize};

use super::history::{Fix, Pose, Source};
use super::mounting::Mounting;

/// Mean radius of the Earth in metres.
pub(super) const EARTH_RADIUS: f64 = 6_371_008.8;
/// Semi-major axis of WGS 84 in metres.
const A: f64 = 6_378_137.0;
/// Its flattening.
const F: f64 = 1.0 / 298.257_223_563;
/// Square of its first eccentricity.
const E2: f64 = F * (2.0 - F);

/// Surveys of right whales fly at 230 to 305 m; taken where no altitude is known, with an error as large.
const USUAL_ALTITUDE: f64 = 300.0;
/// Where the receiver estimates no error, in metres; with waves and tides.
const ALTITUDE_ERROR: f64 = 30.0;
/// The geoid lies up to 107 m from the ellipsoid.
const GEOID: f64 = 107.0;
/// Of a landmark, in pixels, 95 %.
const LANDMARK_ERROR: f64 = 3.0;

/// By so much one measured angle of the attitude errs from another one's error a moment later, in degrees (standard
/// deviation): noise, and moments that do not quite agree.
const ATTITUDE_NOISE: f64 = 0.6;
/// Where an angle is not measured: how fast it changes, in degrees a second (standard deviation), and by how much at most.
const ATTITUDE_CHANGES: (f64, f64) = (4.0, 4.0);
/// Standard deviation in metres of how far the aircraft flew between two frames, by fixes that are not old.
const WAY_NOISE: f64 = 0.7;
/// An aircraft whose fix is old may have turned or slowed, in m/s², up to a speed.
const MANOEUVRE: (f64, f64) = (5.0, 50.0);
/// With an older fix nobody knows how the sea moves through the picture.
const OLD_FIX: Duration = Duration::from_secs(10);

/// A frame's camera at the moment of exposure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    pose: Pose,
    mounting: Mounting,
    width: f64,
    height: f64,
}

/// Where something in a frame was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Radius in metres of the circle that holds the true place with 95 %.
    pub uncertainty: f64,
}

/// Where something that lies still on the sea is seen in a later or an earlier frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carried {
    /// In pixels of that frame, which it may lie outside of.
    pub x: f64,
    /// Likewise, downwards.
    pub y: f64,
    /// Standard deviation of each.
    pub deviation: f64,
}

/// A length on the sea.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    /// In metres.
    pub meters: f64,
    /// Half of the interval in metres that holds the true length with 95 %.
    pub uncertainty: f64,
}

/// What a place depends on: angles in degrees, height above the sea in metres.
#[derive(Clone, Copy)]
struct Parameters {
    heading: f64,
    pitch: f64,
    roll: f64,
    height: f64,
}

impl Parameters {
    /// Each one moved, one after the other.
    fn each_moved(&self, by: &Self) -> [Self; 4] {
        let (mut heading, mut pitch, mut roll, mut height) = (*self, *self, *self, *self);
        heading.heading += by.heading;
        pitch.pitch += by.pitch;
        roll.roll += by.roll;
        height.height = (height.height + by.height).max(0.5);
        [heading, pitch, roll, height]
    }

    /// A standard deviation is half of what holds 95 %, nearly.
    fn halved(&self) -> Self {
        Self {
            heading: self.heading / 2.0,
            pitch: self.pitch / 2.0,
            roll: self.roll / 2.0,
            height: self.height / 2.0,
        }
    }

    fn larger(&self, other: &Self) -> Self {
        Self {
            heading: self.heading.max(other.heading),
            pitch: self.pitch.max(other.pitch),
            roll: self.roll.max(other.roll),
            height: self.height.max(other.height),
        }
    }
}

impl View {
    /// `size` is that of the upright frame in pixels.
    pub fn new(pose: Pose, mounting: Mounting, size: (u32, u32)) -> Self {
        Self {
            pose,
            mounting,
            width: f64::from(size.0.max(1)),
            height: f64::from(size.1.max(1)),
        }
    }

    /// Where on the sea a pixel of the upright frame is. One above the horizon is at the aircraft, as far as the horizon
    /// may be.
    pub fn locate(&self, x: f64, y: f64) -> Location {
        let parameters = self.parameters();
        let Some(point) = self.on_sea(&parameters, x, y) else {
            return Location {
                latitude: self.pose.fix.latitude,
                longitude: self.pose.fix.longitude,
                uncertainty: self.pose.uncertainty.hypot(horizon(parameters.height)),
            };
        };
        let displaced = self.worst(|moved| match self.on_sea(moved, x, y) {
            Some(there) => (there - point).norm(),
            None => horizon(moved.height),
        });
        let (latitude, longitude) = geodetic(&point);
        Location {
            latitude,
            longitude,
            uncertainty: self.pose.uncertainty.hypot(displaced),
        }
    }

    /// Where a place on the sea, in degrees north and east, is seen, in pixels of the upright frame, inside or outside of it.
    /// `None` for what lies behind the camera or beyond the horizon.
    pub fn project(&self, latitude: f64, longitude: f64) -> Option<(f64, f64)> {
        self.seen_at(&self.parameters(), &ecef(latitude, longitude, 0.0))
    }

    /// Where what this frame shows at a pixel is seen in another frame, `seconds` later or earlier, if it lies still. Errors
    /// that both frames share displace it little, so the deviation is far below the uncertainty of a place; without a
    /// measured attitude it is larger. `None` where a fix is old, or where the deviation is larger than the frame.
    pub fn carried(&self, other: &Self, (x, y): (f64, f64), seconds: f64) -> Option<Carried> {
        let fix_age = self.pose.fix_age.max(other.pose.fix_age);
        if fix_age > OLD_FIX {
            return None;
        }
        let (from, to) = (self.parameters(), other.parameters());
        let place = self.on_sea(&from, x, y)?;
        let at = other.seen_at(&to, &place)?;
        let squared = |(x, y): (f64, f64)| (x - at.0).powi(2) + (y - at.1).powi(2);
        let mut variance = 0.0;
        let shared = self.errors().halved().larger(&other.errors().halved());
        let both = from.each_moved(&shared).into_iter();
        for (from, to) in both.zip(to.each_moved(&shared)) {
            let place = self.on_sea(&from, x, y)?;
            variance += squared(other.seen_at(&to, &place)?);
        }
        for to in to.each_moved(&self.changes(other, seconds)) {
            variance += squared(other.seen_at(&to, &place)?);
        }
        let age = fix_age.as_secs_f64();
        let way = WAY_NOISE.hypot((MANOEUVRE.0 * age).min(MANOEUVRE.1) * seconds);
        for direction in [Vector3::x(), Vector3::y()] {
            let moved = place + north_east_down(&self.pose.fix, &direction) * way;
            variance += squared(other.seen_at(&to, &moved)?);
        }
        // Of both coordinates together until here.
        let deviation = (variance / 2.0).sqrt();
        let carried = Carried {
            x: at.0,
            y: at.1,
            deviation,
        };
        (at.0.is_finite() && at.1.is_finite() && deviation < self.width).then_some(carried)
    }

    /// By how much the errors of another frame's parameters, so many seconds away, differ from those of this one's (standard
    /// deviations).
    fn changes(&self, other: &Self, seconds: f64) -> Parameters {
        let of = |a: Source, b: Source| {
            if a == Source::Measured && b == Source::Measured {
                return ATTITUDE_NOISE;
            }
            (ATTITUDE_CHANGES.0 * seconds.abs()).min(ATTITUDE_CHANGES.1)
        };
        let (a, b) = (&self.pose, &other.pose);
        Parameters {
            heading: of(a.heading.1, b.heading.1),
            pitch: of(a.pitch.1, b.pitch.1),
            roll: of(a.roll.1, b.roll.1),
            height: WAY_NOISE,
        }
    }

    /// Latitude and longitude of the frame's corners: top left, top right, bottom right, bottom left. `None` where one
    /// looks above the horizon.
    pub fn footprint(&self) -> Option<[(f64, f64); 4]> {
        let parameters = self.parameters();
        let corner = |x: f64, y: f64| {
            let point = self.on_sea(&parameters, x * self.width, y * self.height)?;
            Some(geodetic(&point))
        };
        Some([
            corner(0.0, 0.0)?,
            corner(1.0, 0.0)?,
            corner(1.0, 1.0)?,
            corner(0.0, 1.0)?,
        ])
    }

    /// The distance on the sea between two pixels, such as both ends of an animal. `None` where one is above the
    /// horizon, or no altitude is known.
    pub fn length(&self, a: (f64, f64), b: (f64, f64)) -> Option<Length> {
        self.pose.fix.altitude?;
        let between = |parameters: &Parameters, a: (f64, f64), b: (f64, f64)| {
            let ends = (
                self.on_sea(parameters, a.0, a.1)?,
                self.on_sea(parameters, b.0, b.1)?,
            );
            Some((ends.0 - ends.1).norm())
        };
        let parameters = self.parameters();
        let meters = between(&parameters, a, b)?;
        let parameter_error =
            self.worst(|moved| between(moved, a, b).map_or(meters, |there| (there - meters).abs()));
        let of_pixel = meters / (a.0 - b.0).hypot(a.1 - b.1).max(1.0);
        let landmarks = LANDMARK_ERROR * std::f64::consts::SQRT_2 * of_pixel;
        Some(Length {
            meters,
            uncertainty: parameter_error.hypot(landmarks),
        })
    }

    /// All of it as messages carry it, for a head between two landmarks.
    pub fn georeference(&self, bonnet: (f64, f64), blowhead: (f64, f64)) -> Georeference {
        let location = self.locate(
            f64::midpoint(bonnet.0, blowhead.0),
            f64::midpoint(bonnet.1, blowhead.1),
        );
        let length = self.length(bonnet, blowhead);
        let corner = |(latitude, longitude): (f64, f64)| Corner {
            latitude: rounded(latitude, 6),
            longitude: rounded(longitude, 6),
        };
        Georeference {
            place: Some(place(&location, &self.pose)),
            focal_length_millimeters: Some(self.mounting.focal_length_millimeters),
            sensor_width_millimeters: Some(self.mounting.sensor_width_millimeters),
            head_length_meters: length.map(|length| rounded(length.meters, 3)),
            head_length_uncertainty_meters: length.map(|length| rounded(length.uncertainty, 3)),
            footprint: self.footprint().map(|corners| corners.map(corner)),
            ..self.pose.georeference()
        }
    }

    /// The frame as a whole as messages carry it: the place is the aircraft's, with the frame's footprint.
    pub fn frame_georeference(&self) -> Georeference {
        let centre = (self.width / 2.0, self.height / 2.0);
        Georeference {
            place: Some(self.pose.place()),
            head_length_meters: None,
            head_length_uncertainty_meters: None,
            ..self.georeference(centre, centre)
        }
    }

    /// Where the camera looks, in degrees clockwise from true north: its optical axis, or where that is within 10° of
    /// straight down, the top of the frame. `None` where nobody knows where the nose points.
    pub fn direction(&self) -> Option<f64> {
        if self.pose.heading.1 == Source::Unknown {
            return None;
        }
        let parameters = self.parameters();
        let (x, y) = (self.width / 2.0, self.height / 2.0);
        let axis = self.ray(&parameters, x, y);
        let looks = if axis.x.hypot(axis.y) > 10_f64.to_radians().sin() {
            axis
        } else {
            self.ray(&parameters, x, 0.0) - axis
        };
        Some(looks.y.atan2(looks.x).to_degrees().rem_euclid(360.0))
    }

    fn parameters(&self) -> Parameters {
        let altitude = self.pose.fix.altitude;
        Parameters {
            heading: self.pose.heading.0,
            pitch: self.pose.pitch.0,
            roll: self.pose.roll.0,
            // On the ground and below the sea of a bad altitude, the camera still sees what is under it.
            height: altitude
                .map_or(USUAL_ALTITUDE, |altitude| altitude.meters)
                .max(1.0),
        }
    }

    /// How far the result moves when each parameter is off by its error.
    fn worst(&self, displaced: impl Fn(&Parameters) -> f64) -> f64 {
        let at = self.parameters();
        let errors = self.errors();
        let both = |change: &dyn Fn(f64) -> Parameters| {
            displaced(&change(1.0)).max(displaced(&change(-1.0)))
        };
        let squares = [
            both(&|sign| Parameters {
                heading: at.heading + sign * errors.heading,
                ..at
            }),
            both(&|sign| Parameters {
                pitch: at.pitch + sign * errors.pitch,
                ..at
            }),
            both(&|sign| Parameters {
                roll: at.roll + sign * errors.roll,
                ..at
            }),
            both(&|sign| Parameters {
                height: (at.height + sign * errors.height).max(0.5),
                ..at
            }),
        ];
        squares.iter().map(|d| d * d).sum::<f64>().sqrt()
    }

    /// 95 % of each, with that of the mounting's angles.
    fn errors(&self) -> Parameters {
        let pose = &self.pose;
        Parameters {
            heading: match pose.heading.1 {
                Source::Measured => 3.0,
                // Wind turns the nose away from the track.
                Source::Track => 15.0,
                Source::Unknown => 180.0,
            },
            pitch: match pose.pitch.1 {
                Source::Measured => 1.5,
                Source::Track | Source::Unknown => 6.0,
            },
            roll: match pose.roll.1 {
                Source::Measured => 1.5,
                Source::Track => 5.0 + 0.3 * pose.roll.0.abs(),
                Source::Unknown => 15.0,
            },
            height: match pose.fix.altitude {
                None => USUAL_ALTITUDE,
                Some(altitude) => {
                    let error = altitude.error.unwrap_or(ALTITUDE_ERROR);
                    match altitude.datum {
                        AltitudeDatum::Sea => error,
                        _ => error.hypot(GEOID),
                    }
                }
            },
        }
    }

    /// Where the ray through a pixel meets the sea, from the Earth's centre.
    fn on_sea(&self, at: &Parameters, x: f64, y: f64) -> Option<Vector3<f64>> {
        let fix = &self.pose.fix;
        let ray = north_east_down(fix, &self.ray(at, x, y));
        let from = ecef(fix.latitude, fix.longitude, at.height);
        // With its polar axis stretched, the ellipsoid is a sphere.
        let stretch = |v: &Vector3<f64>| Vector3::new(v.x, v.y, v.z / (1.0 - F));
        let (o, d) = (stretch(&from), stretch(&ray));
        let (a, b, c) = (d.norm_squared(), o.dot(&d), o.norm_squared() - A * A);
        let root = b * b - a * c;
        if b >= 0.0 || root < 0.0 {
            return None;
        }
        // The nearer of both, in the form that loses no digits.
        Some(from + ray * (c / (root.sqrt() - b)))
    }

    /// The pixel whose ray goes through a place, given from the Earth's centre. `None` where the sea or the camera's back
    /// is in between.
    fn seen_at(&self, at: &Parameters, place: &Vector3<f64>) -> Option<(f64, f64)> {
        let fix = &self.pose.fix;
        let ray = place - ecef(fix.latitude, fix.longitude, at.height);
        if ray.dot(place) >= 0.0 {
            return None;
        }
        let axis = |axis: Vector3<f64>| ray.dot(&north_east_down(fix, &axis));
        let ray = Vector3::new(axis(Vector3::x()), axis(Vector3::y()), axis(Vector3::z()));
        let ray = self.turned(at).inverse() * ray;
        let mounting = &self.mounting;
        let pixels = mounting.focal_length_millimeters / mounting.sensor_width_millimeters;
        let scale = pixels * self.width / ray.z;
        // The frame's down is aft.
        let pixel = (
            self.width / 2.0 + ray.y * scale,
            self.height / 2.0 - ray.x * scale,
        );
        (ray.z > 0.0).then_some(pixel)
    }

    /// Direction of the ray through a pixel: north, east, down.
    fn ray(&self, at: &Parameters, x: f64, y: f64) -> Vector3<f64> {
        let mounting = &self.mounting;
        let of_pixel = mounting.sensor_width_millimeters / self.width;
        let right = (x - self.width / 2.0) * of_pixel;
        let down_in_frame = (y - self.height / 2.0) * of_pixel;
        // Straight down with the top of the frame ahead: the frame's down is aft.
        let ray = Vector3::new(-down_in_frame, right, mounting.focal_length_millimeters);
        (self.turned(at) * ray).normalize()
    }

    /// From the camera's axes to north, east, down.
    fn turned(&self, at: &Parameters) -> Rotation3<f64> {
        let mounting = &self.mounting;
        let turn = |roll: f64, pitch: f64, yaw: f64| {
            Rotation3::from_euler_angles(roll.to_radians(), pitch.to_radians(), yaw.to_radians())
        };
        let mounted = turn(
            mounting.roll_degrees,
            mounting.pitch_degrees,
            mounting.yaw_degrees,
        );
        let lies = turn(at.roll, at.pitch, at.heading);
        lies * mounted
    }
}

impl Pose {
    /// As messages carry it, for something of which no more is known than that the aircraft was near.
    pub fn georeference(&self) -> Georeference {
        let height = self
            .fix
            .altitude
            .map_or(USUAL_ALTITUDE, |altitude| altitude.meters);
        let location = Location {
            latitude: self.fix.latitude,
            longitude: self.fix.longitude,
            // Cameras look down at up to 70 degrees from straight down.
            uncertainty: self.uncertainty.hypot(3.0 * height.max(1.0)),
        };
        Georeference {
            place: Some(place(&location, self)),
            altitude_meters: self
                .fix
                .altitude
                .map(|altitude| rounded(altitude.meters, 1)),
            altitude_datum: self.fix.altitude.map(|altitude| altitude.datum),
            ..Georeference::default()
        }
    }

    /// Where the aircraft itself was, as messages carry it.
    pub fn place(&self) -> Place {
        let location = Location {
            latitude: self.fix.latitude,
            longitude: self.fix.longitude,
            uncertainty: self.uncertainty,
        };
        place(&location, self)
    }
}

fn place(location: &Location, pose: &Pose) -> Place {
    Place {
        decimal_latitude: rounded(location.latitude, 7),
        decimal_longitude: rounded(location.longitude, 7),
        // Darwin Core has no circle of no size.
        coordinate_uncertainty_in_meters: location.uncertainty.ceil().max(1.0),
        fix_age_seconds: rounded(pose.fix_age.as_secs_f64(), 2),
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Distance to the horizon in metres.
fn horizon(height: f64) -> f64 {
    (2.0 * EARTH_RADIUS * height).sqrt()
}

/// From the Earth's centre, in metres: towards 0° east on the equator, 90° east, the North Pole.
pub(super) fn ecef(latitude: f64, longitude: f64, height: f64) -> Vector3<f64> {
    let (sin, cos) = latitude.to_radians().sin_cos();
    let (sin_east, cos_east) = longitude.to_radians().sin_cos();
    let normal = A / (1.0 - E2 * sin * sin).sqrt();
    Vector3::new(
        (normal + height) * cos * cos_east,
        (normal + height) * cos * sin_east,
        (normal * (1.0 - E2) + height) * sin,
    )
}

/// Latitude and longitude in degrees of a point near the ellipsoid (Bowring 1976, one step: exact on it, and to a
/// millionth of a millimetre within kilometres of it).
pub(super) fn geodetic(point: &Vector3<f64>) -> (f64, f64) {
    let from_axis = point.x.hypot(point.y);
    let b = A * (1.0 - F);
    let (sin, cos) = (point.z * A).atan2(from_axis * b).sin_cos();
    let second = E2 / (1.0 - E2);
    let latitude = (point.z + second * b * sin.powi(3)).atan2(from_axis - E2 * A * cos.powi(3));
    (latitude.to_degrees(), point.y.atan2(point.x).to_degrees())
}

/// A direction in north, east, down at a place, as one from the Earth's centre.
fn north_east_down(fix: &Fix, v: &Vector3<f64>) -> Vector3<f64> {
    let (sin, cos) = fix.latitude.to_radians().sin_cos();
    let (sin_east, cos_east) = fix.longitude.to_radians().sin_cos();
    let north = Vector3::new(-sin * cos_east, -sin * sin_east, cos);
    let east = Vector3::new(-sin_east, cos_east, 0.0);
    let down = Vector3::new(-cos * cos_east, -cos * sin_east, -sin);
    north * v.x + east * v.y + down * v.z
}

/// A place some way (north, east, down, in metres) from a fix: latitude, longitude.
pub(super) fn moved(fix: &Fix, by: &Vector3<f64>) -> (f64, f64) {
    geodetic(&(ecef(fix.latitude, fix.longitude, 0.0) + north_east_down(fix, by)))
}

#[cfg(test)]
mod tests {
    use geographiclib_rs::{DirectGeodesic, Geodesic, InverseGeodesic};
    use proptest::prelude::*;

    use super::super::history::Altitude;
    use super::*;

    const SIZE: (u32, u32) = (6000, 4000);

    fn pose(latitude: f64, longitude: f64, height: f64) -> Pose {
        Pose {
            fix: Fix {
                latitude,
                longitude,
                altitude: Some(Altitude {
                    meters: height,
                    datum: AltitudeDatum::Sea,
                    error: Some(5.0),
                }),
                speed: Some(50.0),
                track: Some(0.0),
                error: Some(4.0),
            },
            fix_age: Duration::ZERO,
            uncertainty: 4.0,
            heading: (0.0, Source::Measured),
            pitch: (0.0, Source::Measured),
            roll: (0.0, Source::Measured),
        }
    }

    /// A pixel as large as a thousandth of the focal length.
    fn mounting() -> Mounting {
        Mounting::straight_down(6.0, 36.0)
    }

    /// Distance and azimuth from the aircraft, by Karney's geodesics.
    fn seen_from(pose: &Pose, location: (f64, f64)) -> (f64, f64) {
        let (distance, azimuth, _, _): (f64, f64, f64, f64) = Geodesic::wgs84().inverse(
            pose.fix.latitude,
            pose.fix.longitude,
            location.0,
            location.1,
        );
        (distance, azimuth.rem_euclid(360.0))
    }

    fn located(view: &View, x: f64, y: f64) -> (f64, f64) {
        let location = view.locate(x, y);
        (location.latitude, location.longitude)
    }

    fn turned(from: f64, to: f64) -> f64 {
        ((to - from + 180.0).rem_euclid(360.0) - 180.0).abs()
    }

    #[test]
    fn the_centre_of_a_level_camera_is_below_the_aircraft() {
        for (latitude, longitude) in [
            (41.5, -69.25),
            (0.0, 0.0),
            (-60.0, 179.999_99),
            (89.0, 10.0),
        ] {
            let pose = pose(latitude, longitude, 300.0);
            let view = View::new(pose, mounting(), SIZE);
            let (distance, _) = seen_from(&pose, located(&view, 3000.0, 2000.0));
            assert!(distance < 1e-6, "{latitude} {longitude}: {distance}");
        }
    }

    /// The signs: what a person in the aircraft would say of each.
    #[test]
    fn angles_turn_the_view_as_they_say() {
        let at = |heading: f64, pitch: f64, roll: f64, mounting: Mounting, x: f64, y: f64| {
            let pose = Pose {
                heading: (heading, Source::Measured),
                pitch: (pitch, Source::Measured),
                roll: (roll, Source::Measured),
                ..pose(41.5, -69.25, 300.0)
            };
            seen_from(&pose, located(&View::new(pose, mounting, SIZE), x, y))
        };
        let down = mounting();
        let (centre_x, centre_y) = (3000.0, 2000.0);
        let near = |(distance, azimuth): (f64, f64), meters: f64, degrees: f64| {
            assert!((distance - meters).abs() < 0.1, "{distance} for {meters}");
            assert!(turned(azimuth, degrees) < 0.1, "{azimuth} for {degrees}");
        };
        // The top of the frame is ahead, its right side to the right.
        near(at(0.0, 0.0, 0.0, down, centre_x, 1000.0), 300.0, 0.0);
        near(at(0.0, 0.0, 0.0, down, 4000.0, centre_y), 300.0, 90.0);
        near(at(120.0, 0.0, 0.0, down, centre_x, 1000.0), 300.0, 120.0);
        // Nose up: it looks ahead. Right wing down: it looks to the left.
        let tan = |degrees: f64| 300.0 * degrees.to_radians().tan();
        near(
            at(120.0, 10.0, 0.0, down, centre_x, centre_y),
            tan(10.0),
            120.0,
        );
        near(
            at(120.0, 0.0, 30.0, down, centre_x, centre_y),
            tan(30.0),
            30.0,
        );
        // The same of the mounting; both add up.
        let left = Mounting {
            roll_degrees: 30.0,
            ..down
        };
        near(
            at(120.0, 0.0, 0.0, left, centre_x, centre_y),
            tan(30.0),
            30.0,
        );
        assert!(at(120.0, 0.0, -30.0, left, centre_x, centre_y).0 < 1e-6);
        near(
            at(120.0, 0.0, 15.0, left, centre_x, centre_y),
            tan(45.0),
            30.0,
        );
        let yawed = Mounting {
            yaw_degrees: 90.0,
            ..down
        };
        near(at(120.0, 0.0, 0.0, yawed, centre_x, 1000.0), 300.0, 210.0);
    }

    /// The distance on the ellipsoid at which a ray `angle` from straight down meets the sea, by walking along the ray
    /// until its geodetic height is none, with another formula for the height (Heiskanen and Moritz, iterated).
    fn walked(pose: &Pose, azimuth: f64, angle: f64, height: f64) -> (f64, f64) {
        let (sin, cos) = angle.to_radians().sin_cos();
        let (south, north) = azimuth.to_radians().sin_cos();
        let ray = north_east_down(&pose.fix, &Vector3::new(sin * north, sin * south, cos));
        let from = ecef(pose.fix.latitude, pose.fix.longitude, height);
        let heights = |t: f64| {
            let p = from + ray * t;
            let axis = p.x.hypot(p.y);
            let mut latitude = p.z.atan2(axis * (1.0 - E2));
            let mut height = 0.0;
            for _ in 0..30 {
                let normal = A / (1.0 - E2 * latitude.sin().powi(2)).sqrt();
                height = axis * latitude.cos() + p.z * latitude.sin() - A * A / normal;
                latitude = p.z.atan2(axis * (1.0 - E2 * normal / (normal + height)));
            }
            (height, latitude.to_degrees(), p.y.atan2(p.x).to_degrees())
        };
        let (mut low, mut high) = (0.0, 3.0 * height / cos);
        for _ in 0..80 {
            let middle = f64::midpoint(low, high);
            if heights(middle).0 > 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (_, latitude, longitude) = heights(low);
        (latitude, longitude)
    }

    proptest! {
        #[test]
        fn rays_meet_the_sea_where_a_walk_along_them_does(
            latitude in -80.0..80.0_f64, longitude in -180.0..180.0_f64, height in 50.0..3000.0_f64,
            heading in 0.0..360.0_f64, angle in 0.1..70.0_f64,
        ) {
            let pose = Pose { heading: (heading, Source::Measured), ..pose(latitude, longitude, height) };
            let view = View::new(pose, Mounting { pitch_degrees: angle, ..mounting() }, SIZE);
            let found = located(&view, 3000.0, 2000.0);
            let expected = walked(&pose, heading, angle, height);
            let apart: f64 = Geodesic::wgs84().inverse(found.0, found.1, expected.0, expected.1);
            prop_assert!(apart < 1e-3, "{apart} m");
            // And as a flat Earth has it, nearly.
            let (distance, azimuth) = seen_from(&pose, found);
            let flat = height * angle.to_radians().tan();
            prop_assert!((distance - flat).abs() < 0.01 * flat + 0.01, "{distance} {flat}");
            prop_assert!(turned(azimuth, heading) < 0.1);
        }

        /// A place on the sea is seen at a pixel, and that pixel is located there: by a projection written apart.
        #[test]
        fn a_place_that_is_projected_is_located(
            heading in 0.0..360.0_f64, pitch in -20.0..20.0_f64, roll in -30.0..30.0_f64,
            north in -200.0..200.0_f64, east in -200.0..200.0_f64,
        ) {
            let pose = Pose {
                heading: (heading, Source::Measured),
                pitch: (pitch, Source::Measured),
                roll: (roll, Source::Measured),
                ..pose(41.5, -69.25, 300.0)
            };
            let view = View::new(pose, mounting(), SIZE);
            let (latitude, longitude): (f64, f64) = Geodesic::wgs84().direct(
                41.5, -69.25, east.atan2(north).to_degrees(), north.hypot(east),
            );
            // In axes of the airframe, by elementary rotations: first heading, then pitch, then roll.
            let (h, p, r) = (heading.to_radians(), pitch.to_radians(), roll.to_radians());
            let (x, y, z) = (north * h.cos() + east * h.sin(), east * h.cos() - north * h.sin(), 300.0);
            let (x, y, z) = (x * p.cos() - z * p.sin(), y, x * p.sin() + z * p.cos());
            let (x, y, z) = (x, y * r.cos() + z * r.sin(), z * r.cos() - y * r.sin());
            prop_assume!(z > 30.0);
            let pixel = (3000.0 + 1000.0 * y / z, 2000.0 - 1000.0 * x / z);
            let found = located(&view, pixel.0, pixel.1);
            let apart: f64 = Geodesic::wgs84().inverse(found.0, found.1, latitude, longitude);
            prop_assert!(apart < 0.1, "{apart} m");
        }

        /// Where a pixel's place is seen is that pixel, from wherever one looks.
        #[test]
        fn what_is_located_is_projected_there(
            heading in 0.0..360.0_f64, pitch in -20.0..20.0_f64, roll in -30.0..30.0_f64,
            tilt in -60.0..20.0_f64, x in 0.0..6000.0_f64, y in 0.0..4000.0_f64,
        ) {
            let pose = Pose {
                heading: (heading, Source::Measured),
                pitch: (pitch, Source::Measured),
                roll: (roll, Source::Measured),
                ..pose(41.5, -69.25, 300.0)
            };
            let mounting = Mounting { roll_degrees: tilt, yaw_degrees: 90.0, ..Mounting::straight_down(180.0, 36.0) };
            let view = View::new(pose, mounting, SIZE);
            let there = located(&view, x, y);
            prop_assume!(there != (41.5, -69.25));
            let (px, py) = view.project(there.0, there.1).unwrap();
            prop_assert!((px - x).hypot(py - y) < 1e-3, "{px} {py}");
        }

        /// An animal lies still while the aircraft flies on, turns and climbs: it is carried to where an independent
        /// projection of its place sees it, and the deviation grows without attitude, with time and with the fix's age.
        #[test]
        fn an_animal_is_carried_to_where_the_next_frame_shows_it(
            track in 0.0..360.0_f64, turned in -10.0..10.0_f64, climbed in -10.0..10.0_f64, seconds in 0.1..2.0_f64,
            rolls in (-8.0..8.0_f64, -8.0..8.0_f64), x in 1500.0..4500.0_f64, y in 1000.0..3000.0_f64, age in 0.0..8.0_f64,
        ) {
            let at = |latitude: f64, longitude: f64, heading: f64, roll: f64, height: f64| Pose {
                heading: (heading, Source::Measured),
                roll: (roll, Source::Measured),
                ..pose(latitude, longitude, height)
            };
            let (latitude, longitude): (f64, f64) = Geodesic::wgs84().direct(41.5, -69.25, track, 51.0 * seconds);
            let before = at(41.5, -69.25, track, rolls.0, 300.0);
            let after = at(latitude, longitude, track + turned, rolls.1, 300.0 + climbed);
            let view = |pose: Pose| View::new(pose, mounting(), SIZE);
            let carried = view(before).carried(&view(after), (x, y), seconds).unwrap();

            let there = located(&view(before), x, y);
            let (distance, azimuth) = seen_from(&after, there);
            let ahead = (azimuth - after.heading.0).to_radians();
            let (forward, right, down) = (distance * ahead.cos(), distance * ahead.sin(), after.fix.altitude.unwrap().meters);
            let roll = rolls.1.to_radians();
            let (right, down) = (right * roll.cos() + down * roll.sin(), down * roll.cos() - right * roll.sin());
            let expected = (3000.0 + 1000.0 * right / down, 2000.0 - 1000.0 * forward / down);
            let apart = (expected.0 - carried.x).hypot(expected.1 - carried.y);
            prop_assert!(apart < 2.0, "{carried:?} {expected:?}");

            let deviation = |a: Pose, b: Pose, seconds: f64| view(a).carried(&view(b), (x, y), seconds).map_or(f64::MAX, |c| c.deviation);
            let known = carried.deviation;
            prop_assert!(known > 0.0);
            let blind = |p: Pose| Pose { roll: (p.roll.0, Source::Unknown), pitch: (0.0, Source::Unknown), ..p };
            prop_assert!(deviation(blind(before), blind(after), seconds.max(0.2)) > known);
            let old = |p: Pose| Pose { fix_age: Duration::from_secs_f64(age), ..p };
            prop_assert!(deviation(old(before), after, seconds) >= known);
            let too_old = Pose { fix_age: Duration::from_secs(11), ..after };
            prop_assert_eq!(view(before).carried(&view(too_old), (x, y), seconds), None);
        }

        #[test]
        fn uncertainty_grows_with_altitude_and_angle_and_without_attitude(
            height in 100.0..1000.0_f64, higher in 1.0..2.0_f64, angle in 0.0..50.0_f64, more in 0.0..10.0_f64,
        ) {
            let uncertainty = |pose: Pose, angle: f64| {
                let mounting = Mounting { roll_degrees: angle, ..mounting() };
                View::new(pose, mounting, SIZE).locate(3000.0, 2000.0).uncertainty
            };
            let low = pose(41.5, -69.25, height);
            let here = uncertainty(low, angle);
            prop_assert!(uncertainty(pose(41.5, -69.25, height * higher), angle) >= here);
            prop_assert!(uncertainty(low, angle + more) >= here);
            for unknown in [
                Pose { heading: (0.0, Source::Track), ..low },
                Pose { heading: (0.0, Source::Unknown), ..low },
                Pose { pitch: (0.0, Source::Unknown), ..low },
                Pose { roll: (0.0, Source::Unknown), ..low },
                Pose { uncertainty: 5.0, ..low },
            ] {
                prop_assert!(uncertainty(unknown, angle) >= here);
            }
            let no_altitude = Pose { fix: Fix { altitude: None, ..low.fix }, ..low };
            prop_assert!(uncertainty(no_altitude, 30.0) >= uncertainty(pose(41.5, -69.25, 300.0), 30.0));
        }

        #[test]
        fn any_pose_locates_any_pixel(
            heading in -400.0..400.0_f64, pitch in -90.0..90.0_f64, roll in -180.0..180.0_f64,
            height in -1000.0..50_000.0_f64, x in -1e4..1e4_f64, y in -1e4..1e4_f64,
        ) {
            let pose = Pose {
                heading: (heading, Source::Measured),
                pitch: (pitch, Source::Measured),
                roll: (roll, Source::Unknown),
                ..pose(41.5, -69.25, height)
            };
            let view = View::new(pose, mounting(), SIZE);
            let location = view.locate(x, y);
            prop_assert!(location.latitude.abs() <= 90.0 && location.longitude.abs() <= 180.0);
            prop_assert!(location.uncertainty.is_finite() && location.uncertainty > 0.0);
            let _ = (view.footprint(), view.length((x, y), (0.0, 0.0)));
            if let Some(carried) = view.carried(&view, (x, y), 1.0) {
                prop_assert!((carried.x - x).hypot(carried.y - y) < 0.1 && carried.deviation.is_finite(), "{carried:?}");
            }
        }
    }

    #[test]
    fn a_level_footprint_is_the_frame_scaled() {
        let pose = Pose {
            heading: (90.0, Source::Measured),
            ..pose(41.5, -69.25, 300.0)
        };
        let corners = View::new(pose, mounting(), SIZE).footprint().unwrap();
        let edge =
            |a: (f64, f64), b: (f64, f64)| -> f64 { Geodesic::wgs84().inverse(a.0, a.1, b.0, b.1) };
        assert!((edge(corners[0], corners[1]) - 1800.0).abs() < 1.0);
        assert!((edge(corners[1], corners[2]) - 1200.0).abs() < 1.0);
        // Flying east, the top of the frame is in the east, its left in the north.
        assert!(corners[0].0 > corners[1].0 && corners[0].1 > corners[3].1);
    }

    /// A whale of 14 m from 300 m: 10 m of altitude are 3 % of its length.
    #[test]
    fn a_length_follows_from_altitude_and_lens() {
        let mut at = pose(41.5, -69.25, 300.0);
        let view = |pose: Pose| View::new(pose, Mounting::straight_down(50.0, 36.0), SIZE);
        // 300 m · 0.006 mm / 50 mm is 36 mm for a pixel.
        let pixels = 14.0 / 0.036;
        let ends = (
            (3000.0 - pixels / 2.0, 2000.0),
            (3000.0 + pixels / 2.0, 2000.0),
        );
        let length = view(at).length(ends.0, ends.1).unwrap();
        assert!((length.meters - 14.0).abs() < 0.01, "{length:?}");
        let exact = length.uncertainty;
        at.fix.altitude = at.fix.altitude.map(|altitude| Altitude {
            error: Some(30.0),
            ..altitude
        });
        let unsure = view(at).length(ends.0, ends.1).unwrap().uncertainty;
        assert!(
            unsure > 1.39 && unsure < 1.6 && exact < 0.5,
            "{unsure} {exact}"
        );
        at.fix.altitude = None;
        assert_eq!(view(at).length(ends.0, ends.1), None);
    }
}
