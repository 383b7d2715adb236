//! A survey flight over virtual whales as an aircraft flies it: one path on which everything else rests.
//!
//! [`FlightPath`] is the path of the aircraft over the sea. Whales lie at places on that sea and swim, [`SurveyCamera`]s are
//! fixed in the airframe, and what a frame shows follows by projection. Whoever tells the aircraft's position
//! tells that of this path, so that photogrammetry finds a whale of a frame where it is.
//!
//! # The path
//! Straight lines at 100 knots and 305 m (1,000 ft). A group ahead is flown over, which the camera in the belly sees; one on
//! the left is circled at 85 knots and 45° of bank for some seconds, which the camera in the left window sees. Air is not
//! quite still: the airframe rolls, pitches and yaws by about half a degree.
//!
//! # What changes from frame to frame
//! Frames of one pass are not independent, and are not drawn so. Each of these follows the time between them:
//! - how deep the head lies and how much white water is about it: a part stays the same for the pass, the rest changes over
//!   about two seconds, as an animal lifts its head to breathe and waves go over it;
//! - a blow hides part of the head for a second and a half, every 8 to 20 seconds;
//! - angle and distance follow from where the aircraft is;
//! - glare is where the camera looks towards the mirrored sun, which changes as the aircraft circles;
//! - motion blur follows from the speed of the picture and the time of exposure, and the camera shakes.
//!
//! The flight knows no networks; how hard frames are is set once, by constants, to what single photographs of real
//! surveys get (see `EXPOSURE`).

use std::f64::consts::{PI, TAU};

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::survey::{draw_individual, inside};
use super::{Catalogue, FramePlan, PlannedHead, Pose, REFERENCE_WIDTH, SeaState};
use crate::geometry::{Affine, Landmarks, Point};

/// Height of the frames for which plans are made.
const REFERENCE_HEIGHT: f64 = super::survey::REFERENCE_HEIGHT;
/// 100 knots, on lines; m/s.
const LINE_SPEED: f64 = 51.44;
/// 85 knots, in circles; m/s.
const CIRCLE_SPEED: f64 = 43.73;
/// 1,000 feet above the sea, in metres.
const ALTITUDE: f64 = 304.8;
const GRAVITY: f64 = 9.806_65;
/// Seconds in which an aircraft rolls into its bank or out of it.
const ROLL_IN: f64 = 3.0;
/// Bank in circles, in degrees: steep, so that animals are seen from not too far aside.
const CIRCLE_BANK: f64 = 45.0;
/// Seconds between two steps of the path's table.
const STEP: f64 = 0.05;
/// Where flights begin (off Cape Cod), in degrees north and east.
const START: GeographicPoint = GeographicPoint {
    latitude: 41.95,
    longitude: -69.9,
};
/// Further away than this, in metres, the aircraft turns towards the start.
const FAR: f64 = 15_000.0;

/// Share of groups that are circled. Right whales are circled to photograph them, where they stay at the surface.
const CIRCLED: f64 = 0.6;
/// Seconds for which a group is circled with the camera on it.
const CIRCLING: std::ops::Range<f64> = 3.0..8.0;
/// Seconds of empty sea between two groups.
const EMPTY: std::ops::Range<f64> = 1.0..3.0;
/// Nobody is met again before so many other passes.
const PASSES_BEFORE_SEEN_AGAIN: usize = 2;

/// A right whale's body is so many times as long as its head is drawn from bonnet to blowhead.
const HEADS_IN_A_BODY: f64 = 5.85;
/// Lengths of bodies, in metres: from juveniles to large adults.
const BODY: std::ops::Range<f64> = 11.0..15.5;
/// Length in metres of a head by which the sea's waves are scaled.
const USUAL_HEAD: f64 = 2.4;

/// How deep a head may lie, in head lengths; and how often it lies deep (the lower, the more often). Heads for training
/// lie up to 0.19 deep, as in photographs that were chosen for a catalogue; in a survey nobody chooses.
const DEEPEST: f32 = 0.30;
const OFTEN_DEEP: f32 = 1.4;
/// Share of the variance of depth and white water that stays for a pass; the rest changes over `CHANGES_IN` seconds.
const STAYS: f64 = 0.4;
const CHANGES_IN: f64 = 2.0;
/// A blow hides the head for so many seconds.
const BLOW: f64 = 1.5;
/// Times of exposure in seconds. Through them single frames are as hard as single photographs of real surveys, of which 0.79
/// get the right name first: half and twice these times gave 0.87 and 0.6.
const EXPOSURE: std::ops::Range<f64> = 1.0 / 1100.0..1.0 / 280.0;
/// Standard deviation in degrees a second of how a camera shakes.
const SHAKES: f64 = 9.0;

/// A place on the sea (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeographicPoint {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

impl GeographicPoint {
    /// Some metres to the north and the east of it; for ways of up to some kilometres.
    fn moved(self, north: f64, east: f64) -> Self {
        let (meridian, parallel) = self.meters_in_a_degree();
        Self {
            latitude: self.latitude + north / meridian,
            longitude: self.longitude + east / parallel,
        }
    }

    /// Metres to the north and the east at which another place lies, as near as in [`moved`](Self::moved).
    fn offset(self, to: Self) -> (f64, f64) {
        let (meridian, parallel) = self.meters_in_a_degree();
        (
            (to.latitude - self.latitude) * meridian,
            (to.longitude - self.longitude) * parallel,
        )
    }

    /// Of latitude and of longitude, by the ellipsoid's radii of curvature.
    fn meters_in_a_degree(self) -> (f64, f64) {
        const A: f64 = 6_378_137.0;
        const E2: f64 = 0.006_694_379_990_14;
        let (sin, cos) = self.latitude.to_radians().sin_cos();
        let w = (1.0 - E2 * sin * sin).sqrt();
        let degree = PI / 180.0;
        (A * (1.0 - E2) / w.powi(3) * degree, A / w * cos * degree)
    }
}

/// Where the aircraft is and how it lies in the air. Angles are in degrees: clockwise from north, nose up, right side down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AircraftState {
    /// Below the aircraft.
    pub place: GeographicPoint,
    /// Metres above the sea.
    pub altitude: f64,
    /// Over ground, in m/s.
    pub speed: f64,
    /// The way over ground, 0…360.
    pub track: f64,
    /// Where the nose points, 0…360.
    pub heading: f64,
    /// Nose up.
    pub pitch: f64,
    /// Right side down.
    pub roll: f64,
}

/// The path of an aircraft: see the module.
#[derive(Clone, Debug)]
pub struct FlightPath {
    steps: Vec<Step>,
    unrest: [Unrest; 4],
}

#[derive(Clone, Copy, Debug)]
struct Step {
    place: GeographicPoint,
    /// Degrees, not wrapped.
    track: f64,
    bank: f64,
    speed: f64,
}

impl FlightPath {
    fn begin(rng: &mut impl Rng) -> Self {
        let unrest = std::array::from_fn(|_| Unrest::draw(rng, 2.5));
        let first = Step {
            place: START,
            track: rng.random_range(0.0..360.0),
            bank: 0.0,
            speed: LINE_SPEED,
        };
        Self {
            steps: vec![first],
            unrest,
        }
    }

    /// Seconds that are planned.
    fn planned(&self) -> f64 {
        STEP * (self.steps.len() - 1) as f64
    }

    /// Where the aircraft is so many seconds after the flight began. Before its beginning and after its end it flies
    /// straight on.
    pub fn at(&self, seconds: f64) -> AircraftState {
        let last = self.steps.len() - 1;
        let along = (seconds / STEP).clamp(0.0, last as f64);
        let i = (along.floor() as usize).min(last.saturating_sub(1));
        let (a, b) = (self.steps[i], self.steps[(i + 1).min(last)]);
        let share = along - i as f64;
        let mix = |a: f64, b: f64| a + share * (b - a);
        let (track, speed) = (mix(a.track, b.track), mix(a.speed, b.speed));
        let beyond = (seconds - along * STEP) * speed;
        let (sin, cos) = track.to_radians().sin_cos();
        let place = GeographicPoint {
            latitude: mix(a.place.latitude, b.place.latitude),
            longitude: mix(a.place.longitude, b.place.longitude),
        };
        let [roll, pitch, yaw, climb] = self.unrest.each_ref().map(|unrest| unrest.at(seconds));
        AircraftState {
            place: place.moved(beyond * cos, beyond * sin),
            altitude: ALTITUDE + 3.0 * climb,
            speed,
            track: track.rem_euclid(360.0),
            heading: (track + 0.5 * yaw).rem_euclid(360.0),
            pitch: 2.0 + 0.4 * pitch,
            roll: mix(a.bank, b.bank) + 0.6 * roll,
        }
    }

    /// Flies on for some seconds, with the bank in degrees by the seconds since.
    fn fly(&mut self, seconds: f64, bank: impl Fn(f64) -> f64) {
        for k in 1..=(seconds / STEP).round() as usize {
            let before = self.last();
            let bank = bank(STEP * k as f64);
            let speed = LINE_SPEED + (CIRCLE_SPEED - LINE_SPEED) * bank.abs() / CIRCLE_BANK;
            // A coordinated turn: tan(bank) = v ω / g.
            let mean = 0.5 * (bank + before.bank);
            let turned = (GRAVITY * mean.to_radians().tan() / speed * STEP).to_degrees();
            let (sin, cos) = (before.track + 0.5 * turned).to_radians().sin_cos();
            let way = STEP * 0.5 * (speed + before.speed);
            self.steps.push(Step {
                place: before.place.moved(way * cos, way * sin),
                track: before.track + turned,
                bank,
                speed,
            });
        }
    }

    fn line(&mut self, seconds: f64) {
        self.fly(seconds, |_| 0.0);
    }

    fn last(&self) -> Step {
        self.steps[self.steps.len() - 1]
    }
}

/// In metres: of a coordinated turn, v² / (g tan(bank)).
fn circle_radius() -> f64 {
    CIRCLE_SPEED.powi(2) / (GRAVITY * CIRCLE_BANK.to_radians().tan())
}

/// Something that comes and goes around 0 with a standard deviation of 1, and after some seconds has forgotten where it was: a
/// sum of waves with the spectrum of an Ornstein-Uhlenbeck process (Lorentz).
#[derive(Clone, Debug)]
struct Unrest {
    /// Angular frequencies and phases.
    waves: [(f64, f64); 16],
}

impl Unrest {
    fn draw(rng: &mut impl Rng, forgets_in: f64) -> Self {
        let waves = std::array::from_fn(|_| {
            let u = rng.random_range(0.0..0.9_f64);
            (
                (0.5 * PI * u).tan() / forgets_in,
                rng.random_range(0.0..TAU),
            )
        });
        Self { waves }
    }

    fn at(&self, seconds: f64) -> f64 {
        let waves = self.waves.iter();
        let sum: f64 = waves
            .map(|(rate, phase)| (rate * seconds + phase).cos())
            .sum();
        sum * (2.0 / self.waves.len() as f64).sqrt()
    }
}

/// A camera that is fixed in the airframe. The width of its frames lies along the fuselage, with their top to the right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SurveyCamera {
    /// What it is called.
    pub name: &'static str,
    /// Degrees by which it looks to the left of the airframe's straight down.
    pub left_degrees: f64,
}

impl SurveyCamera {
    /// In the belly: it sees what the aircraft flies over.
    pub const BELLY: Self = Self {
        name: "belly",
        left_degrees: 0.0,
    };
    /// Out of the left window: it sees what the aircraft circles to the left.
    pub const WINDOW: Self = Self {
        name: "window",
        // Arctan of the circle's radius over the altitude, and the bank.
        left_degrees: 32.6 + CIRCLE_BANK,
    };
    /// Of all of them.
    pub const FOCAL_LENGTH_MILLIMETERS: f64 = 300.0;
    /// Likewise: the part that the width of a frame shows.
    pub const SENSOR_WIDTH_MILLIMETERS: f64 = 35.9;
    /// Focal length in pixels of a plan.
    const FOCAL: f64 =
        Self::FOCAL_LENGTH_MILLIMETERS / Self::SENSOR_WIDTH_MILLIMETERS * REFERENCE_WIDTH;

    /// Where a place on the sea is seen, in pixels of frames of 3072 × 2048; `None` behind the camera.
    fn project(&self, from: &AircraftState, place: GeographicPoint) -> Option<Point> {
        let (north, east) = from.place.offset(place);
        let turn = |(a, b): (f64, f64), degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            (a * cos + b * sin, b * cos - a * sin)
        };
        // From north, east, down to forward, right, down: heading, then pitch, then roll.
        let (forward, right) = turn((north, east), from.heading);
        let (down, forward) = turn((from.altitude, forward), from.pitch);
        let (right, down) = turn((right, down), from.roll);
        // Towards the camera's axis, which is tilted to the left.
        let (depth, right) = turn((down, right), -self.left_degrees);
        let scale = Self::FOCAL / depth;
        let middle = Point::new(REFERENCE_WIDTH / 2.0, REFERENCE_HEIGHT / 2.0);
        (depth > 1.0).then(|| middle - Point::new(forward, right) * scale)
    }

    /// How far from straight down it looks, in radians, and in which direction in degrees from north.
    fn looks(&self, from: &AircraftState) -> (f64, f64) {
        // With the right side down the belly looks to the left.
        let left = self.left_degrees + from.roll;
        (left.abs().to_radians(), from.heading - 90.0 * left.signum())
    }
}

/// A frame of a [`VirtualFlight`].
#[derive(Clone, Debug)]
pub struct FlownFrame {
    /// Index of its camera.
    pub camera: usize,
    /// Number of the exposure, from 0; all cameras expose at once.
    pub exposure: u64,
    /// When, in seconds after the flight began.
    pub seconds: f64,
    /// What it shows.
    pub plan: FramePlan,
}

/// A planned flight over a population, in its own path: see the module. The same seed gives the same flight.
///
/// A quarter of the whales, known and unknown, were met some groups before; groups are of up to twelve.
pub struct VirtualFlight {
    path: FlightPath,
    cameras: Vec<SurveyCamera>,
    encounters: Vec<Encounter>,
    interval: f64,
    exposures: u64,
    seed: u64,
}

/// A group that is met.
struct Encounter {
    pass: u64,
    /// Seconds of the flight in which a camera may see it.
    during: std::ops::Range<f64>,
    animals: Vec<Animal>,
    /// With the directions of wind and light from north by east.
    sea: SeaState,
    /// Degrees from straight up at which the sun stands, and from north by east; none under clouds.
    sun: Option<(f64, f64)>,
    exposure: f64,
}

/// A whale of a group.
struct Animal {
    individual: usize,
    /// From bonnet to blowhead, in metres.
    length: f64,
    /// Where the middle between both is at `since`.
    place: GeographicPoint,
    since: f64,
    /// m/s.
    speed: f64,
    heading: f64,
    /// What stays for the pass: depth and white water, in standard deviations.
    stays: [f64; 2],
    unrest: [Unrest; 7],
    turbidity: f32,
    /// Across the head, as it is drawn from above.
    stretch: f64,
    /// Seconds between two blows, and when one was.
    blows: (f64, f64),
    /// How thick.
    blow: f32,
}

impl VirtualFlight {
    /// A flight with so many exposures of each camera, `interval` seconds apart.
    pub fn new(
        catalogue: &Catalogue,
        seed: u64,
        cameras: &[SurveyCamera],
        interval: f64,
        exposures: u64,
    ) -> Self {
        let mut planner = Planner::new(catalogue, seed, cameras);
        while planner.path.planned() < interval * exposures as f64 {
            planner.plan();
        }
        Self {
            path: planner.path,
            encounters: planner.encounters,
            cameras: cameras.to_vec(),
            interval,
            exposures,
            seed,
        }
    }

    /// The aircraft's.
    pub fn path(&self) -> &FlightPath {
        &self.path
    }

    /// Its frames, exposure by exposure and in each in the order of the cameras. Numbered in this order.
    pub fn frames(&self) -> impl Iterator<Item = FlownFrame> {
        let cameras = self.cameras.len();
        (0..self.exposures).flat_map(move |exposure| {
            (0..cameras).map(move |camera| {
                let seconds = self.interval * exposure as f64;
                FlownFrame {
                    camera,
                    exposure,
                    seconds,
                    plan: self.frame(camera, exposure * cameras as u64 + camera as u64, seconds),
                }
            })
        })
    }

    fn frame(&self, camera: usize, number: u64, seconds: f64) -> FramePlan {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number + 1);
        let from = self.path.at(seconds);
        let camera = &self.cameras[camera];
        // Between two groups the weather of the next one is there already.
        let next = self.encounters.partition_point(|e| e.during.end < seconds);
        let encounter = &self.encounters[next.min(self.encounters.len() - 1)];
        let heads: Vec<PlannedHead> = if encounter.during.contains(&seconds) {
            let animals = encounter.animals.iter();
            animals
                .filter_map(|animal| animal.seen(camera, &from, seconds))
                .collect()
        } else {
            Vec::new()
        };
        let (tilt, _) = camera.looks(&from);
        let shake = |rng: &mut ChaCha8Rng| -> f64 {
            let shake: f64 = StandardNormal.sample(rng);
            (SHAKES * shake).to_radians() * SurveyCamera::FOCAL
        };
        let shaken = Point::new(shake(&mut rng), shake(&mut rng));
        // How fast the picture of the sea moves, where the first animal is.
        let moves = encounter.animals.first().and_then(|animal| {
            let place = animal.place;
            let later = self.path.at(seconds + 0.01);
            let way = camera.project(&later, place)? - camera.project(&from, place)?;
            Some(way * 100.0)
        });
        FramePlan {
            number,
            pass: (!heads.is_empty()).then_some(encounter.pass),
            sea: encounter.sea_as_seen(camera, &from),
            head_length: USUAL_HEAD * SurveyCamera::FOCAL * tilt.cos() / from.altitude,
            heads,
            seed: rng.random(),
            blur: (moves.unwrap_or_default() + shaken) * encounter.exposure,
        }
    }
}

impl Encounter {
    /// Wind, light and glare follow from where the camera looks.
    fn sea_as_seen(&self, camera: &SurveyCamera, from: &AircraftState) -> SeaState {
        let (tilt, azimuth) = camera.looks(from);
        // The right of a frame is aft.
        let turned = (from.heading + 180.0).to_radians() as f32;
        let glitter = self.sun.map_or(0.0, |(zenith, sun)| {
            let zenith = zenith.to_radians();
            // From where the camera looks to the mirrored sun.
            let cos = tilt.cos() * zenith.cos()
                + tilt.sin() * zenith.sin() * (sun - azimuth).to_radians().cos();
            let away = cos.clamp(-1.0, 1.0).acos().to_degrees();
            (-(away / 25.0).powi(2)).exp() as f32
        });
        SeaState {
            wind: self.sea.wind - turned,
            light: self.sea.light - turned,
            foreshortening: (tilt.cos() as f32).max(0.3),
            glitter: self.sea.glitter.clamp(0.2, 1.0) * glitter,
            ..self.sea.clone()
        }
    }
}

impl Animal {
    fn heading_at(&self, seconds: f64) -> f64 {
        self.heading + 5.0 * self.unrest[2].at(seconds)
    }

    fn place_at(&self, seconds: f64) -> GeographicPoint {
        let way = self.speed * (seconds - self.since);
        let (sin, cos) = self.heading.to_radians().sin_cos();
        self.place.moved(way * cos, way * sin)
    }

    /// Its head, where it lies within a frame.
    fn seen(
        &self,
        camera: &SurveyCamera,
        from: &AircraftState,
        seconds: f64,
    ) -> Option<PlannedHead> {
        let place = self.place_at(seconds);
        let (sin, cos) = self.heading_at(seconds).to_radians().sin_cos();
        // Ahead of the middle and to the right of it, in head lengths.
        let at = |ahead: f64, right: f64| {
            let (ahead, right) = (ahead * self.length, right * self.length);
            let there = place.moved(ahead * cos - right * sin, ahead * sin + right * cos);
            camera.project(from, there)
        };
        let (bonnet, blowhead, beside) = (at(0.5, 0.0)?, at(-0.5, 0.0)?, at(-0.5, 1.0)?);
        let landmarks = Landmarks { bonnet, blowhead };
        if !inside(&landmarks, REFERENCE_WIDTH, REFERENCE_HEIGHT, 12.0) {
            return None;
        }
        let along = bonnet - blowhead;
        let across = (beside - blowhead) * self.stretch;
        let picture_from_whale = Affine {
            xx: along.x,
            xy: across.x,
            x0: blowhead.x,
            yx: along.y,
            yy: across.y,
            y0: blowhead.y,
        };
        picture_from_whale.inverse()?;
        Some(PlannedHead {
            individual: self.individual,
            pose: self.pose_at(picture_from_whale, seconds),
            place: Some(place),
        })
    }

    fn pose_at(&self, picture_from_whale: Affine, seconds: f64) -> Pose {
        let changes = |i: usize| {
            let sum =
                STAYS.sqrt() * self.stays[i] + (1.0 - STAYS).sqrt() * self.unrest[i].at(seconds);
            // The distribution function of the normal distribution, nearly: 0…1.
            (1.0 / (1.0 + (-1.702 * sum).exp())) as f32
        };
        let small = |i: usize| self.unrest[i].at(seconds).clamp(-2.0, 2.0) as f32;
        let (period, blown) = self.blows;
        let since_blow = (seconds - blown).rem_euclid(period);
        Pose {
            picture_from_whale,
            submergence: -0.03 + DEEPEST * changes(0).powf(OFTEN_DEEP),
            roll: 0.1 * small(3),
            pitch: 0.005 + 0.02 * small(4),
            bend: 0.025 * small(5),
            white_water: (1.25 * changes(1) - 0.25).max(0.0),
            turbidity: self.turbidity,
            blow: if since_blow < BLOW {
                self.blow * (1.0 - 0.5 * (since_blow / BLOW) as f32)
            } else {
                0.0
            },
        }
    }
}

/// What plans groups along the path.
struct Planner<'a> {
    catalogue: &'a Catalogue,
    cameras: Vec<SurveyCamera>,
    rng: ChaCha8Rng,
    path: FlightPath,
    encounters: Vec<Encounter>,
}

impl<'a> Planner<'a> {
    fn new(catalogue: &'a Catalogue, seed: u64, cameras: &[SurveyCamera]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            catalogue,
            cameras: cameras.to_vec(),
            path: FlightPath::begin(&mut rng),
            rng,
            encounters: Vec::new(),
        }
    }

    /// Flies over some empty sea and then over or around a group.
    fn plan(&mut self) {
        let (north, east) = self.path.last().place.offset(START);
        if north.hypot(east) > FAR {
            self.turn_home();
        }
        let empty = self.rng.random_range(EMPTY);
        let circled = self.rng.random_bool(CIRCLED);
        // Nothing is flown that no camera sees.
        let circled = match (
            self.has(SurveyCamera::BELLY),
            self.has(SurveyCamera::WINDOW),
        ) {
            (true, true) => circled,
            (_, window) => window,
        };
        self.path.line(empty);
        let began = self.path.planned();
        let (centre, reach) = if circled {
            (self.circle(), (16.0, 16.0))
        } else {
            self.path.line(0.8);
            let below = self.path.last().place;
            self.path.line(0.8);
            (below, (15.0, 12.0))
        };
        let track = self.path.at(began).track;
        let during = began..self.path.planned();
        let encounter = self.encounter(during, centre, track, reach);
        self.encounters.push(encounter);
    }

    fn has(&self, camera: SurveyCamera) -> bool {
        self.cameras.contains(&camera)
    }

    /// Turns to the left until the start is ahead.
    fn turn_home(&mut self) {
        let path = &mut self.path;
        path.fly(ROLL_IN, |t| -CIRCLE_BANK * (t / ROLL_IN).min(1.0));
        let (north, east) = path.last().place.offset(START);
        let home = east.atan2(north).to_degrees();
        let turn = (path.last().track - home).rem_euclid(360.0);
        let rate = (CIRCLE_SPEED / circle_radius()).to_degrees();
        path.fly(turn / rate, |_| -CIRCLE_BANK);
        path.fly(ROLL_IN, |t| -CIRCLE_BANK * (1.0 - t / ROLL_IN).max(0.0));
    }

    /// Flies a part of a circle to the left, and returns what it goes around.
    fn circle(&mut self) -> GeographicPoint {
        let path = &mut self.path;
        path.fly(ROLL_IN, |t| -CIRCLE_BANK * (t / ROLL_IN).min(1.0));
        let begun = path.last();
        let radius = circle_radius();
        let (sin, cos) = (begun.track - 90.0).to_radians().sin_cos();
        let centre = begun.place.moved(radius * cos, radius * sin);
        path.fly(self.rng.random_range(CIRCLING), |_| -CIRCLE_BANK);
        path.fly(ROLL_IN, |t| -CIRCLE_BANK * (1.0 - t / ROLL_IN).max(0.0));
        centre
    }

    /// A group around a place; `reach` is how far it goes along the track and across it, in metres.
    fn encounter(
        &mut self,
        during: std::ops::Range<f64>,
        centre: GeographicPoint,
        track: f64,
        reach: (f64, f64),
    ) -> Encounter {
        let rng = &mut self.rng;
        let mut sea = SeaState::draw(rng);
        let sunny = sea.glitter > 0.0;
        let sun = sunny.then(|| (rng.random_range(25.0..60.0), rng.random_range(0.0..360.0)));
        if let Some((_, azimuth)) = sun {
            sea.light = (azimuth as f32).to_radians();
        }
        let (short, long) = (EXPOSURE.start.ln(), EXPOSURE.end.ln());
        let exposure = rng.random_range(short..long).exp();
        let size = *[1, 1, 1, 1, 1, 1, 2, 2, 3, 5, 12]
            .choose(rng)
            .expect("there are sizes");
        let heading = rng.random_range(0.0..360.0);
        let middle = f64::midpoint(during.start, during.end);
        let mut animals: Vec<Animal> = Vec::new();
        let tries = if self.catalogue.individuals().is_empty() {
            0
        } else {
            4 * size
        };
        for _ in 0..tries {
            if animals.len() == size {
                break;
            }
            let individual = self.draw_individual();
            let rng = &mut self.rng;
            let along = reach.0 * rng.random_range(-1.0..1.0);
            let across = reach.1 * rng.random_range(-1.0..1.0);
            let (sin, cos) = track.to_radians().sin_cos();
            let place = centre.moved(along * cos - across * sin, along * sin + across * cos);
            let taken = animals.iter().any(|other| {
                let (north, east) = other.place.offset(place);
                other.individual == individual || north.hypot(east) < 1.8 * USUAL_HEAD
            });
            if taken {
                continue;
            }
            let heading = if rng.random_bool(0.6) {
                heading + rng.random_range(-30.0..30.0)
            } else {
                rng.random_range(0.0..360.0)
            };
            let whale = &self.catalogue.individuals()[individual].whale;
            animals.push(Animal::draw(
                rng,
                individual,
                whale.seed(),
                place,
                heading,
                middle,
            ));
        }
        Encounter {
            pass: self.encounters.len() as u64,
            during,
            animals,
            sea,
            sun,
            exposure,
        }
    }

    /// Somebody who was met before, or anybody.
    fn draw_individual(&mut self) -> usize {
        let before = self
            .encounters
            .len()
            .saturating_sub(PASSES_BEFORE_SEEN_AGAIN);
        let (before, lately) = self.encounters.split_at(before);
        let met = |encounters: &[Encounter]| -> Vec<usize> {
            let animals = encounters.iter().flat_map(|e| &e.animals);
            animals.map(|animal| animal.individual).collect()
        };
        let lately = met(lately);
        let mut again = met(before);
        again.retain(|individual| !lately.contains(individual));
        // One who was met often is not met again more often.
        again.sort_unstable();
        again.dedup();
        if self.rng.random_bool(0.25)
            && let Some(individual) = again.choose(&mut self.rng)
        {
            return *individual;
        }
        draw_individual(self.catalogue, &mut self.rng)
    }
}

impl Animal {
    fn draw(
        rng: &mut impl Rng,
        individual: usize,
        whale: u64,
        place: GeographicPoint,
        heading: f64,
        since: f64,
    ) -> Self {
        // The same animal is as long whenever it is met.
        let body = ChaCha8Rng::seed_from_u64(whale).random_range(BODY);
        let period = rng.random_range(8.0..20.0);
        Self {
            individual,
            length: body / HEADS_IN_A_BODY,
            place,
            since,
            speed: rng.random_range(0.2..1.4),
            heading,
            stays: std::array::from_fn(|_| StandardNormal.sample(rng)),
            unrest: std::array::from_fn(|_| Unrest::draw(rng, CHANGES_IN)),
            turbidity: rng.random_range(0.8..2.6),
            stretch: rng.random_range(0.92..1.04),
            blows: (period, rng.random_range(0.0..period)),
            blow: rng.random_range(0.3..0.9),
        }
    }
}
