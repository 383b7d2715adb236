//! The time of a flight.
//!
//! A box without a battery for its clock starts in 1970, or where it was switched off; later the clock jumps, when a
//! network or gpsd tells the time. So within a flight time is counted by the monotonic clock, from a beginning that is
//! put right at most once: when a source that can be trusted tells the time first. Each time is told with its quality
//! ([`TimeQuality`]), and what was told before can be put right, by [`Clock::correction`].
//!
//! Nothing before the *floor* is believed: the program was built then, or an earlier flight had a trusted time. Nor is
//! anything twenty years after it, which is what a receiver says after a roll-over of the week number.

mod system;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use link::message::{ClockHealth, TimeQuality};
use tracing::{info, warn};

pub use system::SystemTime;

/// What the operating system says of time.
pub trait TimeSource: Send + Sync {
    /// The clock on the wall, right or wrong.
    fn wall(&self) -> Timestamp;

    /// Time since some moment; never goes back and never jumps. That of the kernel's time stamps on frames
    /// (`CLOCK_MONOTONIC`).
    fn monotonic(&self) -> Duration;

    /// Whether the operating system keeps the clock on the wall synchronised.
    fn is_synchronised(&self) -> bool;
}

/// A time with its quality.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamp {
    /// UTC, to milliseconds.
    pub time: Timestamp,
    /// Where it comes from.
    pub quality: TimeQuality,
    /// The same moment by the [monotonic clock](TimeSource::monotonic).
    pub monotonic: Duration,
}

/// Whether a time of this quality is right.
pub fn is_trusted(quality: TimeQuality) -> bool {
    match quality {
        TimeQuality::Satellite | TimeQuality::Network | TimeQuality::Corrected => true,
        TimeQuality::Unsynchronised | TimeQuality::Unset | TimeQuality::Other => false,
    }
}

/// A clock may be so much before the floor: that of the machine which built the program was a little ahead.
const SLACK: SignedDuration = SignedDuration::from_hours(24);
/// No program flies so long after it was built.
const LATEST: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);
/// Trusted sources differ by less; more is a jump.
const JUMP_NANOSECONDS: i128 = 1_000_000_000;
/// So many times in a row must satellites tell times that agree before they are believed: a receiver's first may be
/// that of its last flight.
const AGREEING: u32 = 3;
/// A time that is behind need not be a clock that was set: on a busy box messages come late. So many in a row are.
const BEHIND: u32 = 60;
/// So much a second two quartz clocks may drift apart.
const DRIFT_NANOSECONDS: i128 = 100_000;

/// See the [module](self). Clones tell the same time.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn TimeSource>,
    floor: Timestamp,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Time is the monotonic clock plus this, in nanoseconds.
    offset: i128,
    quality: TimeQuality,
    /// What was added to `offset` when the time became trusted.
    correction: Option<i128>,
    /// `offset` before that.
    before: i128,
    /// What satellites would have as `offset`, and how many times in a row they said so.
    satellites: Option<(i128, u32)>,
    /// How many times in a row satellites were behind by more than a jump.
    behind: u32,
    problem: Option<String>,
}

/// When this program was built.
pub fn built() -> Timestamp {
    let seconds = env!("CALLOSITY_BUILT").parse().ok();
    let built = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    built.unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Clock {
    /// A clock that is not before the program was [built] nor before `last_seen`, a trusted time of an earlier flight.
    pub fn start(source: Arc<dyn TimeSource>, last_seen: Option<Timestamp>) -> Self {
        let floor = last_seen.map_or_else(built, |seen| seen.max(built()));
        let clock = Self {
            floor,
            state: Arc::new(Mutex::new(State {
                offset: 0,
                quality: TimeQuality::Unset,
                correction: None,
                before: 0,
                satellites: None,
                behind: 0,
                problem: None,
            })),
            source,
        };
        let wall = clock.source.wall();
        let plausible = clock.is_plausible(wall);
        let begin = if plausible { wall } else { floor };
        let mut state = clock.state();
        state.offset = begin.as_nanosecond() - nanoseconds(clock.source.monotonic());
        if plausible && clock.source.is_synchronised() {
            state.quality = TimeQuality::Network;
        } else if plausible {
            state.quality = TimeQuality::Unsynchronised;
            warn!("the clock is not synchronised: times are flagged until it is");
        } else {
            warn!(
                "the clock says {wall}, which cannot be: times count from {floor} and are flagged until it is set"
            );
        }
        drop(state);
        clock
    }

    /// The clock of this machine.
    pub fn of_system() -> Self {
        Self::start(Arc::new(SystemTime), None)
    }

    /// Now.
    pub fn now(&self) -> Stamp {
        self.at(self.source.monotonic())
    }

    /// Now, by the monotonic clock.
    pub fn monotonic(&self) -> Duration {
        self.source.monotonic()
    }

    /// A moment of the monotonic clock.
    pub fn at(&self, monotonic: Duration) -> Stamp {
        let state = self.state();
        Stamp {
            time: timestamp(nanoseconds(monotonic) + state.offset),
            quality: state.quality,
            monotonic,
        }
    }

    /// A moment that was told by the clock on the wall a short while ago. Where that clock has jumped since, or tells
    /// nonsense, it is now.
    pub fn at_wall(&self, wall: Timestamp) -> Stamp {
        let now = self.source.monotonic();
        let age = self.source.wall().duration_since(wall);
        let age = Duration::try_from(age).ok();
        let age = age.filter(|age| *age <= Duration::from_secs(60));
        self.at(now.saturating_sub(age.unwrap_or_default()))
    }

    /// The moment of the monotonic clock at which this clock tells `time`.
    pub fn monotonic_at(&self, time: Timestamp) -> Duration {
        let nanoseconds = time.as_nanosecond() - self.state().offset;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    }

    /// A time that this clock told within the last ten minutes, as it would tell it now: put right where it became
    /// trusted since.
    pub fn again(&self, told: Timestamp) -> Stamp {
        let now = self.source.monotonic();
        let state = self.state();
        let correction = state.correction.map(|_| state.before);
        let moment = |offset: i128| {
            let nanoseconds = u64::try_from(told.as_nanosecond() - offset).ok()?;
            let moment = Duration::from_nanos(nanoseconds);
            let near = moment <= now + Duration::from_secs(1)
                && now.saturating_sub(moment) <= Duration::from_secs(600);
            near.then_some(moment)
        };
        let found = moment(state.offset).or_else(|| moment(correction?));
        drop(state);
        match found {
            Some(moment) => self.at(moment),
            None => Stamp {
                time: told,
                ..self.at(self.monotonic_at(told))
            },
        }
    }

    /// Asks the operating system whether the clock is synchronised by now; to be called about once a second.
    pub fn check(&self) {
        let (wall, monotonic) = (self.source.wall(), self.source.monotonic());
        let synchronised = self.source.is_synchronised();
        let plausible = self.is_plausible(wall);
        let told = wall.as_nanosecond() - nanoseconds(monotonic);
        let mut state = self.state();
        state.problem = None;
        if !plausible {
            let floor = self.floor;
            state.problem = Some(format!(
                "the clock of this machine says {wall}, which cannot be: it is not before {floor}; times are counted on"
            ));
        } else if synchronised {
            state.become_trusted(told, TimeQuality::Network);
        } else if state.quality == TimeQuality::Network {
            // It has lost its source and goes on as it was.
            state.quality = TimeQuality::Unsynchronised;
        }
    }

    /// A time that satellites tell, with the moment of its arrival. It is believed where it is plausible, others have
    /// said so before, and the operating system has none of its own.
    pub fn satellites_say(&self, time: Timestamp, arrived: Duration) {
        if !self.is_plausible(time) {
            self.state().satellites = None;
            return;
        }
        let told = time.as_nanosecond() - nanoseconds(arrived);
        let mut state = self.state();
        let agreeing = match state.satellites {
            Some((before, times)) if (told - before).abs() < JUMP_NANOSECONDS => times + 1,
            _ => 1,
        };
        state.satellites = Some((told, agreeing));
        if agreeing < AGREEING || state.quality == TimeQuality::Network {
            return;
        }
        let mut told = told;
        if state.quality == TimeQuality::Satellite {
            let ahead = told - state.offset;
            state.behind = if ahead < -JUMP_NANOSECONDS {
                state.behind + 1
            } else {
                0
            };
            // The message that took the shortest way tells best.
            if ahead < JUMP_NANOSECONDS && state.behind < BEHIND {
                told = told.max(state.offset - DRIFT_NANOSECONDS);
            }
        }
        state.become_trusted(told, TimeQuality::Satellite);
    }

    /// What is to be added to the times of this flight that were told before the clock was trusted; `None` as long as
    /// it is not, or where it always was.
    pub fn correction(&self) -> Option<SignedDuration> {
        let nanoseconds = self.state().correction?;
        Some(SignedDuration::from_nanos(
            i64::try_from(nanoseconds).unwrap_or(i64::MAX),
        ))
    }

    /// What is wrong with the clock, if something is.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// How it fares.
    pub fn health(&self) -> ClockHealth {
        let correction = self.correction();
        ClockHealth {
            time_quality: self.state().quality,
            correction_seconds: correction.map_or(0.0, |by| by.as_secs_f64()),
        }
    }

    fn is_plausible(&self, time: Timestamp) -> bool {
        let after = time.duration_since(self.floor);
        after >= -SLACK && after <= LATEST
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A time is whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn become_trusted(&mut self, told: i128, quality: TimeQuality) {
        let by = told - self.offset;
        if !is_trusted(self.quality) && self.correction.is_none() {
            self.correction = Some(by);
            self.before = self.offset;
            info!(
                "the time is known now ({quality:?}); earlier times of this flight were wrong by {:.3} s",
                by as f64 / 1e9
            );
        } else if by.abs() > JUMP_NANOSECONDS {
            warn!("the clock was set by {:.3} s", by as f64 / 1e9);
        }
        self.offset = told;
        self.quality = quality;
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX >> 1)
}

fn timestamp(nanoseconds: i128) -> Timestamp {
    let time = Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.round(Unit::Millisecond).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A clock that tests set.
    pub(crate) struct Scripted(Mutex<(Timestamp, Duration, bool)>);

    impl TimeSource for Scripted {
        fn wall(&self) -> Timestamp {
            self.0.lock().unwrap().0
        }

        fn monotonic(&self) -> Duration {
            self.0.lock().unwrap().1
        }

        fn is_synchronised(&self) -> bool {
            self.0.lock().unwrap().2
        }
    }

    impl Scripted {
        fn new(wall: Timestamp, synchronised: bool) -> Arc<Self> {
            let uptime = Duration::from_secs(77);
            Arc::new(Self(Mutex::new((wall, uptime, synchronised))))
        }

        /// Time passes.
        fn pass(&self, by: Duration) {
            let mut now = self.0.lock().unwrap();
            now.0 += by;
            now.1 += by;
        }

        fn set(&self, wall: Timestamp, synchronised: bool) {
            let mut now = self.0.lock().unwrap();
            now.0 = wall;
            now.2 = synchronised;
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn later(seconds: i64) -> Timestamp {
        built() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_starts_in_1970_counts_from_the_floor_and_is_put_right() {
        let source = Scripted::new(Timestamp::UNIX_EPOCH, false);
        let seen = later(5000);
        let clock = Clock::start(source.clone(), Some(seen));
        source.pass(SECOND * 10);
        let early = clock.now();
        assert_eq!(early.quality, TimeQuality::Unset);
        let expected = timestamp((seen + SECOND * 10).as_nanosecond());
        assert_eq!(early.time, expected);
        clock.check();
        assert!(clock.problem().unwrap().contains("1970"));
        assert_eq!(clock.correction(), None);
        let now = later(100_000);
        source.set(now, true);
        clock.check();
        assert_eq!(clock.now().quality, TimeQuality::Network);
        assert_eq!(clock.now().time, timestamp(now.as_nanosecond()));
        assert_eq!(clock.problem(), None);
        // The record of before is right when its moment is told anew, and so when the correction is added.
        let right = clock.at(early.monotonic).time;
        assert_eq!(right, timestamp(now.as_nanosecond()));
        assert_eq!(
            clock.again(early.time).monotonic.as_millis(),
            early.monotonic.as_millis()
        );
        assert_eq!(clock.again(early.time).quality, TimeQuality::Network);
        let added = early.time + clock.correction().unwrap();
        assert!(added.duration_since(right).as_millis().abs() <= 1);
    }

    #[test]
    fn jumps_to_1970_and_2100_in_flight_change_nothing() {
        let source = Scripted::new(later(1000), true);
        let clock = Clock::start(source.clone(), None);
        let mut expected = clock.now().time;
        for wall in ["1970-01-01T00:00:05Z", "2100-01-01T00:00:00Z"] {
            for synchronised in [true, false] {
                source.set(wall.parse().unwrap(), synchronised);
                source.pass(SECOND);
                expected += SECOND;
                clock.check();
                assert_eq!(clock.now().time, expected);
                assert!(clock.problem().is_some());
                assert!(clock.at_wall(later(1000)).time == expected);
            }
        }
        assert_eq!(clock.correction(), None);
    }

    #[test]
    fn satellites_are_believed_when_they_agree_and_are_plausible() {
        let source = Scripted::new(Timestamp::UNIX_EPOCH, false);
        let clock = Clock::start(source.clone(), None);
        // A receiver that is 1024 weeks behind.
        let rolled = later(1000) - SignedDuration::from_hours(1024 * 7 * 24);
        for i in 0..10 {
            clock.satellites_say(rolled + SECOND * i, source.monotonic() + SECOND * i);
        }
        assert_eq!(clock.now().quality, TimeQuality::Unset);
        // One stale time, then right ones.
        clock.satellites_say(later(10), source.monotonic());
        for i in 0..AGREEING {
            assert_eq!(clock.now().quality, TimeQuality::Unset, "{i}");
            clock.satellites_say(later(5000) + SECOND * i, source.monotonic());
            source.pass(SECOND);
        }
        assert_eq!(clock.now().quality, TimeQuality::Satellite);
        assert!(clock.correction().is_some());
        let error = clock.now().time.duration_since(later(5000 + 3));
        assert!(error.as_millis().abs() < 2, "{error:?}");
    }

    /// Messages of gpsd that a busy box reads late do not set the clock back; a clock that was wrong is set.
    #[test]
    fn late_messages_do_not_set_the_clock_back() {
        let source = Scripted::new(Timestamp::UNIX_EPOCH, false);
        let clock = Clock::start(source.clone(), None);
        let say = |late: u32, at: i64| {
            clock.satellites_say(later(5000 + at), source.monotonic() + SECOND * late);
            source.pass(SECOND);
        };
        (0..10).for_each(|at| say(0, at));
        (10..40).for_each(|at| say(4, at));
        let error = clock.now().time.duration_since(later(5040));
        assert!(error.as_millis().abs() < 10, "{error:?}");
        (40..40 + i64::from(BEHIND)).for_each(|at| say(4, at));
        let error = clock
            .now()
            .time
            .duration_since(later(5040 + i64::from(BEHIND) - 4));
        assert!(error.as_millis().abs() < 10, "{error:?}");
    }

    proptest! {
        /// Whatever the wall says and whenever it becomes synchronised, moments keep their order and their distances.
        #[test]
        fn one_flight_has_one_timeline(
            walls in prop::collection::vec((0_i64..5_000_000_000, any::<bool>(), 0_u64..5_000), 1..40)
        ) {
            let source = Scripted::new(Timestamp::from_second(walls[0].0).unwrap(), false);
            let clock = Clock::start(source.clone(), None);
            let mut moments = Vec::new();
            for (wall, synchronised, passed) in walls {
                source.set(Timestamp::from_second(wall).unwrap(), synchronised);
                source.pass(Duration::from_millis(passed));
                clock.check();
                let stamp = clock.now();
                prop_assert!(stamp.time >= built() - SLACK && stamp.time <= built() + LATEST + SLACK);
                moments.push(stamp.monotonic);
            }
            for pair in moments.windows(2) {
                let told = clock.at(pair[1]).time.duration_since(clock.at(pair[0]).time);
                let passed = SignedDuration::try_from(pair[1].checked_sub(pair[0]).unwrap()).unwrap();
                prop_assert!((told - passed).as_millis().abs() <= 1);
            }
        }
    }
}
