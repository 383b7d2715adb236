//! The time of a flight.
//!
//! A box without a battery for its clock starts in 1970, or where it was switched off; later the clock jumps, when a
//! network or gpsd tells the time. So what happens in a flight is put in order by *flight time*: the monotonic clock
//! counted from a beginning that never changes, not even when the program is killed and started again. What UTC that is
//! ([`Clock::at_flight_time`]) is told with its quality ([`TimeQuality`]) and may be put right at most once, when a
//! source that can be trusted tells the time first: what was told before is put right by [`Clock::correction`].
//!
//! Nothing before the *floor* is believed: the program was built then, or an earlier flight had that time. Nor is
//! anything twenty years after it, which is what a receiver says after a roll-over of the week number.

mod system;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use link::message::{ClockHealth, TimeQuality};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

pub use system::SystemClock;

/// What the operating system says of time.
pub trait TimeSource: Send + Sync {
    /// The clock on the wall, right or wrong.
    fn wall(&self) -> Timestamp;

    /// Time since some moment; never goes back and never jumps. That of the kernel's time stamps on frames
    /// (`CLOCK_MONOTONIC`).
    fn monotonic(&self) -> Duration;

    /// Whether the operating system keeps the clock on the wall synchronised.
    fn is_synchronised(&self) -> bool;

    /// Within which run of the operating system the monotonic clock counts; `None` where nobody tells.
    fn boot(&self) -> Option<String>;
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
const JUMP_NANOSECONDS: i64 = 1_000_000_000;
/// So many times in a row must satellites tell times that agree before they are believed: a receiver's first may be
/// that of its last flight.
const AGREEING: u32 = 3;
/// A time that is behind need not be a clock that was set: on a busy box messages come late. So many in a row are.
const BEHIND: u32 = 60;
/// So much a second two quartz clocks may drift apart.
const DRIFT_NANOSECONDS: i64 = 100_000;
/// Least often, how a clock stands ([`Clock::memory`]) is to be written down.
pub const REMEMBER: Duration = Duration::from_secs(60);

/// How a clock stands, for the clock of the next program; to be kept on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Within which run of the operating system.
    boot: Option<String>,
    /// The monotonic clock when this was written.
    written: Duration,
    timeline: Timeline,
    /// Nothing before this is believed in this run of the operating system, and in the next one nothing before `seen`.
    floor: Timestamp,
    seen: Timestamp,
}

impl Memory {
    /// What UTC a flight time of that clock is, as far as it knew.
    pub fn at_flight_time(&self, time: Timestamp) -> Stamp {
        self.timeline.at(self.timeline.moment(time))
    }
}

/// Times within one run of the operating system. Offsets are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Timeline {
    /// Flight time is the monotonic clock plus this.
    flight: i64,
    /// Flight time when the first program of this run began.
    began: Timestamp,
    /// UTC is the monotonic clock plus this.
    utc: i64,
    quality: TimeQuality,
    /// What was added to `utc` when it became trusted.
    correction: Option<i64>,
}

/// See the [module](self). Clones tell the same time.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn TimeSource>,
    floor: Timestamp,
    /// How the clock of an earlier run of the operating system stood.
    earlier: Option<Arc<Memory>>,
    /// Whether an earlier program knew the [correction](Self::correction).
    corrected_earlier: bool,
    state: Arc<Mutex<State>>,
}

struct State {
    timeline: Timeline,
    /// What satellites would have as offset of UTC, and how many times in a row they said so.
    satellites: Option<(i64, u32)>,
    /// How many times in a row satellites were behind by more than a jump.
    behind: u32,
    problem: Option<String>,
}

/// What the clock was wrong by before it was trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// The first time that this clock told. What is earlier was told by another.
    pub since: Timestamp,
    /// What is to be added.
    pub by: SignedDuration,
    /// Whether this program found it out, and not one that was killed in the same flight.
    pub is_new: bool,
}

impl Correction {
    /// Puts right a time that this clock told when it was not trusted; tells whether it did.
    pub fn put_right(&self, time: &mut Timestamp, quality: &mut TimeQuality) -> bool {
        if is_trusted(*quality) {
            return false;
        }
        let Some(right) = self.right(*time) else {
            return false;
        };
        *time = right;
        *quality = TimeQuality::Corrected;
        true
    }

    /// What a time is that this clock told before it was trusted; `None` where another told it.
    pub fn right(&self, time: Timestamp) -> Option<Timestamp> {
        let right = time.checked_add(self.by).ok()?;
        (time >= self.since).then(|| right.round(Unit::Millisecond).unwrap_or(right))
    }
}

/// When this program was built.
pub fn built() -> Timestamp {
    let seconds = env!("CALLOSITY_BUILT").parse().ok();
    let built = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    built.unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Clock {
    /// A clock that goes on with the one that `memory` tells of, where that counted within the same run of the operating
    /// system; else one that is not before the program was [built] nor before the other.
    pub fn start(source: Arc<dyn TimeSource>, memory: Option<Memory>) -> Self {
        let (boot, monotonic) = (source.boot(), source.monotonic());
        let goes_on = |memory: &Memory| {
            memory.boot.is_some() && memory.boot == boot && memory.written <= monotonic
        };
        let (timeline, floor, earlier) = match memory {
            Some(memory) if goes_on(&memory) => (memory.timeline, memory.floor, None),
            earlier => {
                let seen = earlier.as_ref().map(|memory| memory.seen);
                let floor = seen.map_or_else(built, |seen| seen.max(built()));
                (begin(&*source, floor), floor, earlier.map(Arc::new))
            }
        };
        let clock = Self {
            source,
            floor,
            earlier,
            corrected_earlier: timeline.correction.is_some(),
            state: Arc::new(Mutex::new(State {
                timeline,
                satellites: None,
                behind: 0,
                problem: None,
            })),
        };
        clock.check();
        match clock.state().timeline.quality {
            TimeQuality::Unset => warn!(
                "the clock cannot be right: times count from {floor} and are flagged until it is set"
            ),
            TimeQuality::Unsynchronised => {
                warn!("the clock is not synchronised: times are flagged until it is");
            }
            _ => {}
        }
        clock
    }

    /// The clock of this machine.
    pub fn of_system() -> Self {
        Self::start(Arc::new(SystemClock), None)
    }

    /// How it stands, for the clock of the next program.
    pub fn memory(&self) -> Memory {
        let written = self.source.monotonic();
        let timeline = self.state().timeline.clone();
        let now = timeline.at(written);
        let seen = match now.quality {
            // Counted from the floor, it may be too early and is not too late. It may be switched off before this is
            // written again.
            TimeQuality::Unset => now.time + REMEMBER,
            quality if is_trusted(quality) => now.time,
            _ => self.floor,
        };
        Memory {
            boot: self.source.boot(),
            written,
            timeline,
            floor: self.floor,
            seen: seen.max(self.floor),
        }
    }

    /// How the clock stood of an earlier run of the operating system, whose flight times are not this clock's; `None` where
    /// there was none or this clock goes on with it.
    pub fn earlier(&self) -> Option<&Memory> {
        self.earlier.as_deref()
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
    pub fn at(&self, moment: Duration) -> Stamp {
        self.state().timeline.at(moment)
    }

    /// The flight time of a moment of the monotonic clock.
    pub fn flight_time(&self, moment: Duration) -> Timestamp {
        timestamp(nanoseconds(moment).saturating_add(self.state().timeline.flight))
    }

    /// The moment of the monotonic clock at a flight time.
    pub fn moment(&self, flight_time: Timestamp) -> Duration {
        self.state().timeline.moment(flight_time)
    }

    /// What UTC a flight time is.
    pub fn at_flight_time(&self, time: Timestamp) -> Stamp {
        let state = self.state();
        state.timeline.at(state.timeline.moment(time))
    }

    /// The moment of the monotonic clock at which this clock tells `time`.
    pub fn monotonic_at(&self, time: Timestamp) -> Duration {
        moment(time, self.state().timeline.utc)
    }

    /// Asks the operating system whether the clock is synchronised by now; to be called about once a second.
    pub fn check(&self) {
        let (wall, monotonic) = (self.source.wall(), self.source.monotonic());
        let synchronised = self.source.is_synchronised();
        let plausible = is_plausible(wall, self.floor);
        let told = offset(wall, monotonic);
        let mut state = self.state();
        state.problem = None;
        if !plausible {
            let floor = self.floor;
            state.problem = Some(format!(
                "the clock of this machine says {wall}, which cannot be: it is not before {floor}; times are counted on"
            ));
        } else if synchronised {
            state.become_trusted(told, TimeQuality::Network);
        } else if state.timeline.quality == TimeQuality::Network {
            // It has lost its source and goes on as it was.
            state.timeline.quality = TimeQuality::Unsynchronised;
        }
    }

    /// A time that satellites tell, with the moment of its arrival. It is believed where it is plausible, others have
    /// said so before, and the operating system has none of its own.
    pub fn satellites_say(&self, time: Timestamp, arrived: Duration) {
        if !is_plausible(time, self.floor) {
            self.state().satellites = None;
            return;
        }
        let told = offset(time, arrived);
        let mut state = self.state();
        let agreeing = match state.satellites {
            Some((before, times)) if (told - before).abs() < JUMP_NANOSECONDS => times + 1,
            _ => 1,
        };
        state.satellites = Some((told, agreeing));
        let quality = state.timeline.quality;
        if agreeing < AGREEING || quality == TimeQuality::Network {
            return;
        }
        let mut told = told;
        if quality == TimeQuality::Satellite {
            let ahead = told - state.timeline.utc;
            state.behind = if ahead < -JUMP_NANOSECONDS {
                state.behind + 1
            } else {
                0
            };
            // The message that took the shortest way tells best.
            if ahead < JUMP_NANOSECONDS && state.behind < BEHIND {
                told = told.max(state.timeline.utc - DRIFT_NANOSECONDS);
            }
        }
        state.become_trusted(told, TimeQuality::Satellite);
    }

    /// What puts right the times that were told before the clock was trusted; `None` as long as it is not, or where it
    /// always was.
    pub fn correction(&self) -> Option<Correction> {
        let state = self.state();
        Some(Correction {
            since: state.timeline.began,
            by: SignedDuration::from_nanos(state.timeline.correction?),
            is_new: !self.corrected_earlier,
        })
    }

    /// What is wrong with the clock, if something is.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// How it fares.
    pub fn health(&self) -> ClockHealth {
        let correction = self.correction();
        ClockHealth {
            time_quality: self.state().timeline.quality,
            correction_seconds: correction.map_or(0.0, |known| known.by.as_secs_f64()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A time is whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timeline {
    fn at(&self, moment: Duration) -> Stamp {
        Stamp {
            time: timestamp(nanoseconds(moment).saturating_add(self.utc)),
            quality: self.quality,
            monotonic: moment,
        }
    }

    fn moment(&self, flight_time: Timestamp) -> Duration {
        moment(flight_time, self.flight)
    }
}

impl State {
    fn become_trusted(&mut self, told: i64, quality: TimeQuality) {
        let timeline = &mut self.timeline;
        let by = told - timeline.utc;
        if !is_trusted(timeline.quality) && timeline.correction.is_none() {
            timeline.correction = Some(by);
            info!(
                "the time is known now ({quality:?}); earlier times of this flight were wrong by {:.3} s",
                by as f64 / 1e9
            );
        } else if by.abs() > JUMP_NANOSECONDS {
            warn!("the clock was set by {:.3} s", by as f64 / 1e9);
        }
        timeline.utc = told;
        timeline.quality = quality;
    }
}

/// The times of a run of the operating system of which nothing is known yet.
fn begin(source: &dyn TimeSource, floor: Timestamp) -> Timeline {
    let wall = source.wall();
    let plausible = is_plausible(wall, floor);
    let began = if plausible { wall } else { floor };
    let began = began.round(Unit::Millisecond).unwrap_or(began);
    let flight = offset(began, source.monotonic());
    Timeline {
        flight,
        began,
        utc: flight,
        quality: match (plausible, source.is_synchronised()) {
            (true, true) => TimeQuality::Network,
            (true, false) => TimeQuality::Unsynchronised,
            (false, _) => TimeQuality::Unset,
        },
        correction: None,
    }
}

fn is_plausible(time: Timestamp, floor: Timestamp) -> bool {
    let after = time.duration_since(floor);
    after >= -SLACK && after <= LATEST
}

/// Years after 2262 are beyond it.
fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What makes of the monotonic clock the time that was told at a moment.
fn offset(time: Timestamp, moment: Duration) -> i64 {
    i64::try_from(time.as_nanosecond())
        .unwrap_or(i64::MAX)
        .saturating_sub(nanoseconds(moment))
}

/// The moment of the monotonic clock at a time that differs from it by an offset.
fn moment(time: Timestamp, offset: i64) -> Duration {
    let nanoseconds = time.as_nanosecond() - i128::from(offset);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    let time = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    time.round(Unit::Millisecond).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A clock that tests set.
    struct Scripted(Mutex<(Timestamp, Duration, bool, u32)>);

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

        fn boot(&self) -> Option<String> {
            Some(self.0.lock().unwrap().3.to_string())
        }
    }

    impl Scripted {
        fn new(wall: Timestamp, synchronised: bool) -> Arc<Self> {
            let uptime = Duration::from_secs(77);
            Arc::new(Self(Mutex::new((wall, uptime, synchronised, 0))))
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

        /// The box is switched off and on.
        fn boot_again(&self, wall: Timestamp) {
            let mut now = self.0.lock().unwrap();
            *now = (wall, Duration::from_secs(20), false, now.3 + 1);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn later(seconds: i64) -> Timestamp {
        built() + SignedDuration::from_secs(seconds)
    }

    fn rounded(time: Timestamp) -> Timestamp {
        time.round(Unit::Millisecond).unwrap()
    }

    /// The time, and by how much it is told wrongly at first; the floor may be minutes or years behind.
    #[test]
    fn a_clock_that_starts_in_1970_counts_from_the_floor_and_is_put_right() {
        for behind in [30, 300, 100_000, 100_000_000] {
            let source = Scripted::new(Timestamp::UNIX_EPOCH, false);
            let clock = Clock::start(source.clone(), None);
            source.pass(SECOND * 10);
            let moment = clock.monotonic();
            let early = clock.at(moment);
            assert_eq!(early.quality, TimeQuality::Unset);
            assert_eq!(early.time, later(10));
            let taken = clock.flight_time(moment);
            clock.check();
            assert!(clock.problem().unwrap().contains("1970"));
            assert_eq!(clock.correction(), None);
            let now = later(10 + behind);
            source.set(now, true);
            clock.check();
            assert_eq!(
                (clock.now().quality, clock.now().time),
                (TimeQuality::Network, now)
            );
            assert_eq!(clock.problem(), None);
            // The record of before is right when its flight time is told anew, and so when the correction is added.
            assert_eq!(clock.flight_time(moment), taken);
            assert_eq!(clock.at_flight_time(taken).time, now);
            let (mut time, mut quality) = (early.time, early.quality);
            let correction = clock.correction().unwrap();
            assert!(correction.put_right(&mut time, &mut quality) && correction.is_new);
            assert_eq!((time, quality), (now, TimeQuality::Corrected));
            assert!(!correction.put_right(&mut time, &mut quality));
            // What was told before this flight is not this clock's.
            let mut time = later(-60);
            assert!(!correction.put_right(&mut time, &mut TimeQuality::Unset.clone()));
        }
    }

    #[test]
    fn a_program_that_is_killed_and_started_again_has_the_same_time() {
        let source = Scripted::new(Timestamp::UNIX_EPOCH, false);
        let clock = Clock::start(source.clone(), None);
        source.pass(SECOND * 10);
        let (moment, began) = (clock.monotonic(), clock.now().time);
        // Written down, killed, started.
        let started = |clock: &Clock| {
            let memory = serde_json::to_string(&clock.memory()).unwrap();
            source.pass(SECOND * 5);
            Clock::start(source.clone(), Some(serde_json::from_str(&memory).unwrap()))
        };
        let clock = started(&clock);
        assert!(clock.earlier().is_none());
        assert_eq!(
            (clock.at(moment).time, clock.flight_time(moment)),
            (began, began)
        );
        assert_eq!(clock.now().quality, TimeQuality::Unset);
        for at in 0..AGREEING {
            clock.satellites_say(later(5000) + SECOND * at, source.monotonic());
            source.pass(SECOND);
        }
        let right = clock.at(moment).time;
        assert!(clock.correction().unwrap().is_new);
        let clock = started(&clock);
        // Satellites need not tell the time again.
        assert_eq!(clock.at(moment).time, right);
        assert_eq!(clock.now().quality, TimeQuality::Satellite);
        assert_eq!(clock.flight_time(moment), began);
        assert!(!clock.correction().unwrap().is_new);
    }

    #[test]
    fn a_box_that_is_switched_off_and_on_is_not_before_itself() {
        let source = Scripted::new(Timestamp::UNIX_EPOCH, false);
        let clock = Clock::start(source.clone(), None);
        source.pass(SECOND * 1000);
        let (taken, told) = (clock.flight_time(clock.monotonic()), clock.now());
        let memory = clock.memory();
        source.pass(SECOND * 50);
        let latest = clock.now().time;
        source.boot_again(Timestamp::UNIX_EPOCH);
        let clock = Clock::start(source.clone(), Some(memory));
        assert!(clock.now().time > latest);
        assert_eq!(clock.now().quality, TimeQuality::Unset);
        let earlier = clock.earlier().unwrap().at_flight_time(taken);
        assert_eq!((earlier.time, earlier.quality), (told.time, told.quality));
        // How long it was off nobody knows, so that what the other told cannot be put right by this clock.
        source.set(later(50_000), true);
        clock.check();
        let mut quality = told.quality;
        let correction = clock.correction().unwrap();
        assert!(!correction.put_right(&mut latest.clone(), &mut quality));

        // A wall that is wrong but might be right is no floor.
        source.boot_again(later(300_000_000));
        let clock = Clock::start(source.clone(), Some(clock.memory()));
        assert_eq!(clock.now().quality, TimeQuality::Unsynchronised);
        let memory = clock.memory();
        source.boot_again(later(60_000));
        let clock = Clock::start(source.clone(), Some(memory));
        assert_eq!(clock.now().time, rounded(later(60_000)));
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
        /// Whatever the wall says, whenever it becomes synchronised and however often the program is killed, moments keep
        /// their order, their distances and their flight times.
        #[test]
        fn one_flight_has_one_timeline(
            walls in prop::collection::vec(
                (0_i64..5_000_000_000, any::<bool>(), 0_u64..5_000, any::<bool>()),
                1..40,
            )
        ) {
            let source = Scripted::new(Timestamp::from_second(walls[0].0).unwrap(), false);
            let mut clock = Clock::start(source.clone(), None);
            let mut moments = Vec::new();
            for (wall, synchronised, passed, killed) in walls {
                source.set(Timestamp::from_second(wall).unwrap(), synchronised);
                source.pass(Duration::from_millis(passed));
                clock.check();
                let stamp = clock.now();
                prop_assert!(stamp.time >= built() - SLACK && stamp.time <= built() + LATEST + SLACK);
                moments.push((stamp.monotonic, clock.flight_time(stamp.monotonic)));
                if killed {
                    clock = Clock::start(source.clone(), Some(clock.memory()));
                }
            }
            for pair in moments.windows(2) {
                let told = clock.at(pair[1].0).time.duration_since(clock.at(pair[0].0).time);
                let passed = pair[1].0.checked_sub(pair[0].0).unwrap();
                let passed = SignedDuration::try_from(passed).unwrap();
                prop_assert!((told - passed).as_millis().abs() <= 1);
                prop_assert_eq!(pair[1].1.duration_since(pair[0].1), passed);
                prop_assert_eq!(clock.flight_time(pair[1].0), pair[1].1);
            }
        }
    }
}
