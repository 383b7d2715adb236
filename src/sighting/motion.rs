//! Where animals are expected: the sea carries all of them through the picture, and each swims a little.
//!
//! Where position and mounting are known, an animal that lay still is [carried](Place::carried) to where the next frame shows
//! its place on the sea. What is left for the sea's speed is then by how much position and attitude err, which is the same
//! for all animals of a frame too.

use jiff::Timestamp;
use recognition::geometry::{Landmarks, Point};
use serde::{Deserialize, Serialize};

use crate::position::View;

/// Standard deviation of a found head's centre, in head lengths.
const CENTRE: f64 = 0.15;
/// Standard deviation of an animal's own speed along each axis, in head lengths a second: a metre a second.
const OWN_SPEED: f64 = 0.5;
/// How much that changes, in head lengths a second within a second.
const OWN_ACCELERATION: f64 = 0.15;
/// Standard deviation of the sea's speed along each axis where nothing is known of it, in frame heights a second.
const SEA_SPEED: f64 = 0.4;
/// After so many seconds nothing is left of what was known of the sea's speed: the aircraft has turned or climbed.
const SEA_SPEED_HOLDS: f64 = 60.0;

/// Seconds from one time to another; negative where it is earlier.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// How fast the sea moves through a camera's picture, in pixels a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sea {
    pub speed: Point,
    /// Of each coordinate.
    pub variance: f64,
    pub time: Timestamp,
}

impl Sea {
    /// Nothing is known.
    pub fn unknown(frame_height: f64, time: Timestamp) -> Self {
        Self {
            speed: Point::default(),
            variance: (SEA_SPEED * frame_height).powi(2),
            time,
        }
    }

    /// What is still known at another time: it fades as an Ornstein-Uhlenbeck process forgets its start.
    pub fn at(&self, frame_height: f64, time: Timestamp) -> Self {
        let kept = (-seconds(self.time, time).abs() / SEA_SPEED_HOLDS).exp();
        let unknown = Self::unknown(frame_height, time);
        Self {
            speed: self.speed * kept,
            variance: self.variance * kept * kept + unknown.variance * (1.0 - kept * kept),
            // A late frame does not make what is known older.
            time: time.max(self.time),
        }
    }

    /// With another measurement of the speed, in pixels a second.
    pub fn with(&self, speed: Point, variance: f64) -> Self {
        let gain = self.variance / (self.variance + variance);
        Self {
            speed: self.speed + (speed - self.speed) * gain,
            variance: (1.0 - gain) * self.variance,
            time: self.time,
        }
    }
}

/// Where one camera saw an animal last, and how fast it swims: a Kalman filter with the same covariance for both axes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    pub landmarks: Landmarks,
    /// Of the head's centre, smoothed.
    centre: Point,
    /// Of the animal through the water, in pixels a second.
    swims: Point,
    pub time: Timestamp,
    /// Variances of centre and speed, and their covariance.
    centre_variance: f64,
    speed_variance: f64,
    covariance: f64,
    /// From where the camera saw it, where that is known.
    #[serde(default)]
    view: Option<View>,
}

/// Where an animal is expected, were it not for the sea.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub centre: Point,
    /// Of where its head will be found, along each axis.
    pub variance: f64,
    /// Seconds since it was last seen; negative in a frame that comes late.
    pub elapsed: f64,
}

impl Place {
    pub fn new(landmarks: Landmarks, view: Option<View>, time: Timestamp) -> Self {
        let length = landmarks.head_length();
        Self {
            landmarks,
            centre: landmarks.centre(),
            swims: Point::default(),
            time,
            centre_variance: (CENTRE * length).powi(2),
            speed_variance: (OWN_SPEED * length).powi(2),
            covariance: 0.0,
            view,
        }
    }

    /// As it would look in a frame that was taken from `view`, had the animal lain still since it was last seen; with the
    /// standard deviation of that, in pixels. `None` where position does not tell.
    pub fn carried(&self, view: &View, time: Timestamp) -> Option<(Self, f64)> {
        let before = self.view.as_ref()?;
        let elapsed = seconds(self.time, time);
        let carried = |p: Point| {
            let carried = before.carried(view, (p.x, p.y), elapsed)?;
            Some((Point::new(carried.x, carried.y), carried.deviation))
        };
        let (centre, deviation) = carried(self.centre)?;
        let landmarks = Landmarks {
            bonnet: carried(self.landmarks.bonnet)?.0,
            blowhead: carried(self.landmarks.blowhead)?.0,
        };
        let scale = landmarks.head_length() / self.landmarks.head_length().max(1e-3);
        // A second's way at most is in the frame, so that it is carried as heads are.
        let swims = carried(self.centre + self.swims)?.0 - centre;
        let squared = scale * scale;
        let there = Self {
            landmarks,
            centre,
            swims,
            centre_variance: squared * self.centre_variance,
            speed_variance: squared * self.speed_variance,
            covariance: squared * self.covariance,
            ..*self
        };
        (squared.is_finite() && squared > 0.0).then_some((there, deviation))
    }

    /// Likewise, where only the sea's speed in the picture is known.
    pub fn drifted(&self, sea: &Sea, time: Timestamp) -> Self {
        let elapsed = seconds(self.time, time);
        let way = sea.speed * elapsed;
        Self {
            landmarks: Landmarks {
                bonnet: self.landmarks.bonnet + way,
                blowhead: self.landmarks.blowhead + way,
            },
            centre: self.centre + way,
            centre_variance: self.centre_variance + sea.variance * elapsed * elapsed,
            ..*self
        }
    }

    pub fn expected(&self, time: Timestamp) -> Expected {
        let elapsed = seconds(self.time, time);
        let measured = (CENTRE * self.landmarks.head_length()).powi(2);
        Expected {
            centre: self.centre + self.swims * elapsed,
            variance: self.predicted_variance(elapsed.abs()) + measured,
            elapsed,
        }
    }

    fn predicted_variance(&self, dt: f64) -> f64 {
        let wander = (OWN_ACCELERATION * self.landmarks.head_length()).powi(2);
        self.centre_variance
            + 2.0 * self.covariance * dt
            + self.speed_variance * dt * dt
            + wander * dt.powi(3) / 3.0
    }

    /// The animal was found again. A frame that comes late changes nothing: where the animal was later is known.
    pub fn update(&mut self, landmarks: Landmarks, view: Option<View>, sea: &Sea, time: Timestamp) {
        let Expected {
            centre, elapsed, ..
        } = self.expected(time);
        if elapsed < 0.0 {
            return;
        }
        let length = landmarks.head_length();
        let wander = (OWN_ACCELERATION * length).powi(2);
        // How far the sea has moved is not known to the pixel either.
        let centre_variance = self.predicted_variance(elapsed) + sea.variance * elapsed * elapsed;
        let covariance =
            self.covariance + self.speed_variance * elapsed + wander * elapsed * elapsed / 2.0;
        let speed_variance = self.speed_variance + wander * elapsed;
        let innovation = landmarks.centre() - (centre + sea.speed * elapsed);
        let total = centre_variance + (CENTRE * length).powi(2);
        let (gain, speed_gain) = (centre_variance / total, covariance / total);
        *self = Self {
            landmarks,
            centre: centre + sea.speed * elapsed + innovation * gain,
            swims: self.swims + innovation * speed_gain,
            time,
            centre_variance: (1.0 - gain) * centre_variance,
            speed_variance: speed_variance - speed_gain * covariance,
            covariance: (1.0 - gain) * covariance,
            view,
        };
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis((1000.0 * seconds) as i64)
    }

    fn head(centre: Point) -> Landmarks {
        let half = Point::new(100.0, 0.0);
        Landmarks {
            bonnet: centre + half,
            blowhead: centre - half,
        }
    }

    proptest! {
        /// An animal that swims evenly over a sea that moves evenly is expected nearer and nearer to where it is.
        #[test]
        fn an_even_way_is_learnt(
            (x, y) in (-100.0..100.0_f64, -100.0..100.0_f64),
            (sea_x, sea_y) in (-900.0..900.0_f64, -900.0..900.0_f64),
            step in 0.3..2.0_f64,
        ) {
            let way = |t: f64| Point::new(500.0, 400.0) + Point::new(x + sea_x, y + sea_y) * t;
            let sea = Sea { speed: Point::new(sea_x, sea_y), variance: 1.0, time: at(0.0) };
            let mut place = Place::new(head(way(0.0)), None, at(0.0));
            let error = |place: &Place, t: f64| {
                let expected = place.expected(at(t));
                (expected.centre + sea.speed * expected.elapsed).distance(way(t))
            };
            let first = error(&place, step);
            for k in 1..12 {
                let t = step * f64::from(k);
                place.update(head(way(t)), None, &sea, at(t));
                prop_assert!(place.centre_variance > 0.0 && place.speed_variance > 0.0);
            }
            let last = error(&place, 12.0 * step);
            prop_assert!(last <= 0.3 * first + 10.0, "{first} then {last}");
        }

        #[test]
        fn what_is_known_of_the_sea_fades_and_is_never_certain(after in 0.0..1e5_f64) {
            let known = Sea::unknown(2000.0, at(0.0)).with(Point::new(0.0, 700.0), 400.0);
            prop_assert!(known.variance < 400.0 && (known.speed.y - 700.0).abs() < 1.0);
            let later = known.at(2000.0, at(after));
            let unknown = Sea::unknown(2000.0, at(after)).variance;
            prop_assert!(later.variance >= known.variance - 1e-9 && later.variance <= unknown + 1e-6);
            prop_assert!(later.speed.y <= known.speed.y);
        }
    }

    #[test]
    fn a_late_frame_does_not_move_an_animal_back() {
        let sea = Sea::unknown(2000.0, at(0.0));
        let mut place = Place::new(head(Point::new(500.0, 500.0)), None, at(5.0));
        let before = place;
        place.update(head(Point::new(100.0, 100.0)), None, &sea, at(4.0));
        assert_eq!(place, before);
    }
}
