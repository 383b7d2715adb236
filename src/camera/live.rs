use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use recognition::pixels::{DecodeError, Image};
use thiserror::Error;
use tracing::{info, warn};

use super::{Backlog, Camera, Captured, Dated, Frame, FrameTag, Settings, UnusableFrame};
use crate::clock::{SystemClock, TimeSource};

/// Pause before the first attempt to open a device again; it doubles with each that fails.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A device that gave frames for so long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);
/// Time without a frame after which a device is taken to have stalled, where its rate asks for no longer one.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Frames, at the device's rate, after which it is taken to have stalled.
const STALLED_FRAMES: u32 = 5;
/// The same picture so many times in a row, over [`STALLED_AFTER`] or longer, is no picture of the world: even a lens cap
/// has noise.
const SAME_PICTURES: u32 = 10;
/// A time stamp further back is not believed.
const OLDEST_STAMP: Duration = Duration::from_secs(10);
/// A time stamp that lies no further ahead, or by no more than the time from one frame to the next, is now: some drivers
/// work out when a frame will have ended.
const AHEAD: Duration = Duration::from_millis(100);
/// A gap of more frames than this is a counter that began anew.
const LARGEST_GAP: u32 = 100_000;

/// What gives frames while it is open.
pub trait Device: Send {
    /// An open device. Dropping it closes all of it: what was opened, mapped and asked for.
    type Stream: Stream;

    /// Finds the device and opens it.
    ///
    /// # Errors
    /// It is not there, is another's, or does not give what is needed.
    fn open(&mut self) -> Result<Self::Stream, DeviceError>;

    /// What changes its settings in flight, where it has any.
    fn settings(&self) -> Option<Settings> {
        None
    }
}

/// An open [`Device`].
pub trait Stream: Send {
    /// Waits for the next frame, no longer than `timeout`.
    ///
    /// # Errors
    /// The device is to be closed.
    fn next(&mut self, timeout: Duration) -> Result<Option<Exposure>, DeviceError>;

    /// What a frame shows.
    ///
    /// # Errors
    /// Its bytes are no such frame.
    fn image(&self, bytes: Vec<u8>) -> Result<Image, DecodeError>;

    /// In words, what was asked for and what it gives.
    fn format(&self) -> String;

    /// Time from one frame to the next, as the device says.
    fn period(&self) -> Option<Duration>;

    /// What is not as it was asked for.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// What a device gives for a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposure {
    /// Its pixels as they came.
    pub bytes: Vec<u8>,
    /// The device says that they are not as they should be.
    pub flagged: bool,
    /// The device's number of it; the next frame has the next number, and gaps are frames that it lost.
    pub sequence: u32,
    /// When it was taken, by the monotonic clock of [`Timer::monotonic`].
    pub stamp: Option<Duration>,
}

/// What is wrong with a device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It is not there.
    #[error("{0} is not there: look at its cable; `callosity cameras` lists what is")]
    Missing(String),
    /// Several are meant.
    #[error("{address} may be any of {}: name one by its path", found.join(", "))]
    Ambiguous {
        /// How it was named.
        address: String,
        /// Their paths.
        found: Vec<String>,
    },
    /// Another camera of this program has it.
    #[error("{0} is open already under another name: two cameras cannot be one device")]
    Taken(String),
    /// It does not give what is needed.
    #[error("{device}: {reason}")]
    Unsuitable {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// The system refuses something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No frame in time.
    #[error("gave no frame for {} s", _0.as_secs())]
    Stalled(Duration),
    /// Always the same.
    #[error("gave the same picture {0} times in a row")]
    Frozen(u32),
}

/// How time passes.
pub trait Timer: Send {
    /// By the clock that frames are stamped by, which nobody sets: `CLOCK_MONOTONIC`.
    fn monotonic(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration);
}

impl Timer for SystemClock {
    fn monotonic(&self) -> Duration {
        TimeSource::monotonic(self)
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A device that is kept open. What fails, stalls or gives the same picture again and again is closed whole and opened
/// whole, at once and then at growing intervals of up to ten seconds, for as long as the flight lasts.
///
/// Frames that the device lost are counted by its sequence numbers, from one frame to the next of the same stream: what
/// passes between closing and opening was never taken. A frame whose time stamp cannot be is kept, and marked.
pub struct Live<D: Device, T = SystemClock> {
    name: Arc<str>,
    device: D,
    timer: T,
    number: u64,
    state: State<D::Stream>,
    pause: Duration,
    /// The trouble that was told last.
    told: Option<String>,
}

enum State<S> {
    Closed {
        /// When to open it, by the monotonic clock.
        until: Duration,
    },
    Open(Open<S>),
}

/// What is known of an open device.
struct Open<S> {
    stream: S,
    since: Duration,
    last_frame: Duration,
    sequence: Option<u32>,
    stamp: Option<Duration>,
    picture: u64,
    /// How many times the last picture came, and since when.
    same: (u32, Duration),
}

impl<D: Device> Live<D> {
    /// A device that is opened when the first frame is asked for; `name` is what it is called in messages.
    pub fn new(name: &str, device: D) -> Self {
        Self::with_timer(name, device, SystemClock)
    }
}

impl<D: Device, T: Timer> Live<D, T> {
    /// [`new`](Live::new) by a timer of its own.
    pub fn with_timer(name: &str, device: D, timer: T) -> Self {
        Self {
            name: name.into(),
            device,
            state: State::Closed {
                until: Duration::ZERO,
            },
            timer,
            number: 0,
            pause: SHORTEST_PAUSE,
            told: None,
        }
    }

    /// The device as it was given.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn open(&mut self) -> Result<(), DeviceError> {
        let stream = self.device.open()?;
        let now = self.timer.monotonic();
        info!("camera {}: {}", self.name, stream.format());
        self.state = State::Open(Open {
            stream,
            since: now,
            last_frame: now,
            sequence: None,
            stamp: None,
            picture: 0,
            same: (0, now),
        });
        Ok(())
    }

    /// Closes the device, to be opened again after a pause.
    fn fail(&mut self, error: &DeviceError) -> Captured {
        let now = self.timer.monotonic();
        if let State::Open(open) = &self.state
            && open.last_frame.saturating_sub(open.since) >= RECOVERED_AFTER
        {
            self.pause = SHORTEST_PAUSE;
        }
        self.state = State::Closed {
            until: now + self.pause,
        };
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        let reason = error.to_string();
        // One alarm, then quiet.
        if self.told.as_ref() != Some(&reason) {
            warn!("camera {}: {reason}", self.name);
            self.told = Some(reason.clone());
        }
        Captured::Trouble(reason)
    }

    fn frame(&mut self, exposure: Exposure) -> Result<Captured, DeviceError> {
        let monotonic = self.timer.monotonic();
        let State::Open(open) = &mut self.state else {
            unreachable!("frames come from an open device")
        };
        open.last_frame = monotonic;
        let mut tag = FrameTag::new(self.name.clone(), self.number, monotonic);
        tag.lost_before = open.lost_before(exposure.sequence);
        if let Some(stamp) = exposure.stamp {
            let ahead = AHEAD.max(open.stream.period().unwrap_or_default());
            let age = (stamp <= monotonic + ahead).then(|| monotonic.saturating_sub(stamp));
            let in_order = open.stamp.is_none_or(|before| stamp > before);
            let age = age.filter(|age| in_order && *age <= OLDEST_STAMP);
            (tag.moment, tag.dated) = match age {
                Some(age) => (monotonic - age, Dated::Exposed),
                None => (monotonic, Dated::Doubtful),
            };
            // What follows is measured by what was believed.
            open.stamp = age.map_or(open.stamp, |_| Some(stamp));
        }
        self.number += 1;
        if exposure.flagged {
            let reason =
                "the camera's driver says that the picture did not arrive whole".to_owned();
            return Ok(Captured::Unusable(UnusableFrame { tag, reason }));
        }
        open.compare(&exposure.bytes, monotonic)?;
        Ok(match open.stream.image(exposure.bytes) {
            Ok(image) => Captured::Frame(Box::new(Frame { tag, image })),
            Err(error) => Captured::Unusable(UnusableFrame {
                tag,
                reason: error.to_string(),
            }),
        })
    }
}

impl<S: Stream> Open<S> {
    /// Frames between the last one and that of this number.
    fn lost_before(&mut self, sequence: u32) -> u64 {
        let before = self.sequence.replace(sequence);
        let Some(step) = before.map(|before| sequence.wrapping_sub(before)) else {
            return 0;
        };
        match step {
            1..=LARGEST_GAP => u64::from(step - 1),
            _ => 0,
        }
    }

    /// Fails where the picture has been the same for too long.
    fn compare(&mut self, bytes: &[u8], now: Duration) -> Result<(), DeviceError> {
        let picture = digest(bytes);
        if self.same.0 == 0 || picture != self.picture {
            self.picture = picture;
            self.same = (1, now);
            return Ok(());
        }
        self.same.0 += 1;
        let (times, since) = self.same;
        if times > SAME_PICTURES && now.saturating_sub(since) >= STALLED_AFTER {
            return Err(DeviceError::Frozen(times));
        }
        Ok(())
    }

    fn stalled_after(&self) -> Duration {
        let period = self.stream.period().unwrap_or_default();
        STALLED_AFTER.max(period.saturating_mul(STALLED_FRAMES))
    }
}

/// A number that differs where pictures do: of every eighth piece of a few hundred bytes, for a frozen picture is frozen
/// all over.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.len().hash(&mut hasher);
    for piece in bytes.chunks(256).step_by(8) {
        piece.hash(&mut hasher);
    }
    hasher.finish()
}

impl<D: Device, T: Timer> Camera for Live<D, T> {
    fn settings(&self) -> Option<Settings> {
        self.device.settings()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn backlog(&self) -> Backlog {
        Backlog::Newest
    }

    fn next(&mut self, timeout: Duration) -> Captured {
        if let State::Closed { until } = self.state {
            let wait = until.saturating_sub(self.timer.monotonic());
            if !wait.is_zero() {
                self.timer.sleep(wait.min(timeout));
                return Captured::Nothing;
            }
            if let Err(error) = self.open() {
                return self.fail(&error);
            }
        }
        let State::Open(open) = &mut self.state else {
            return Captured::Nothing;
        };
        let captured = match open.stream.next(timeout) {
            Ok(Some(exposure)) => self.frame(exposure),
            Ok(None) => {
                let silent = self.timer.monotonic().saturating_sub(open.last_frame);
                if silent >= open.stalled_after() {
                    Err(DeviceError::Stalled(silent))
                } else {
                    Ok(Captured::Nothing)
                }
            }
            Err(error) => Err(error),
        };
        match captured {
            Ok(Captured::Frame(frame)) => {
                if self.told.take().is_some() {
                    info!("camera {} gives frames again", self.name);
                }
                Captured::Frame(frame)
            }
            Ok(captured) => captured,
            Err(error) => self.fail(&error),
        }
    }

    fn close(&mut self) {
        self.state = State::Closed {
            until: self.timer.monotonic() + self.pause,
        };
    }

    fn format(&self) -> Option<String> {
        match &self.state {
            State::Open(open) => Some(open.stream.format()),
            State::Closed { .. } => None,
        }
    }

    fn complaint(&self) -> Option<String> {
        match &self.state {
            State::Open(open) => open.stream.complaint(),
            State::Closed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;
    use recognition::pixels::{Depth, PixelFormat, RawImage, YCbCr};

    use super::*;

    /// Time that passes when somebody waits.
    #[derive(Clone, Default)]
    struct Simulated(Arc<Mutex<Duration>>);

    impl Simulated {
        fn pass(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    impl Timer for Simulated {
        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            self.pass(time);
        }
    }

    /// What a device does when it is asked for a frame.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Does {
        /// Gives a frame after losing so many.
        Gives(u32),
        Flagged,
        CutShort,
        Silent,
        Fails,
    }

    /// How many devices are open, and how often one was opened.
    #[derive(Clone, Default)]
    struct Opened(Arc<Mutex<(i32, u32)>>);

    struct Scripted {
        clock: Simulated,
        opened: Opened,
        script: Box<dyn FnMut(Duration) -> Does + Send>,
        /// Whether it is plugged in.
        there: Box<dyn Fn(Duration) -> bool + Send>,
        frozen: bool,
    }

    struct ScriptedStream {
        opened: Opened,
        does: Vec<Does>,
        clock: Simulated,
        sequence: u32,
        frozen: bool,
        fails: bool,
    }

    impl Drop for ScriptedStream {
        fn drop(&mut self) {
            self.opened.0.lock().unwrap().0 -= 1;
        }
    }

    const PERIOD: Duration = Duration::from_millis(500);

    impl Device for Scripted {
        type Stream = ScriptedStream;

        fn open(&mut self) -> Result<ScriptedStream, DeviceError> {
            let now = self.clock.monotonic();
            if !(self.there)(now) {
                return Err(DeviceError::Missing("a camera".into()));
            }
            let mut opened = self.opened.0.lock().unwrap();
            *opened = (opened.0 + 1, opened.1 + 1);
            assert_eq!(opened.0, 1, "opened while still open");
            // Until it fails or is pulled out.
            let mut does = Vec::new();
            let mut at = now;
            while does.len() < 100_000 {
                at += PERIOD;
                let next = if (self.there)(at) {
                    (self.script)(at)
                } else {
                    Does::Fails
                };
                does.push(next);
                if next == Does::Fails {
                    break;
                }
            }
            does.reverse();
            Ok(ScriptedStream {
                opened: self.opened.clone(),
                does,
                clock: self.clock.clone(),
                sequence: 1000,
                frozen: self.frozen,
                fails: false,
            })
        }
    }

    impl Stream for ScriptedStream {
        fn next(&mut self, timeout: Duration) -> Result<Option<Exposure>, DeviceError> {
            assert!(!self.fails, "asked after it failed");
            let does = self.does.pop().unwrap_or(Does::Silent);
            if does == Does::Silent {
                self.clock.pass(timeout);
                return Ok(None);
            }
            self.clock.pass(PERIOD);
            if does == Does::Fails {
                self.fails = true;
                let source = std::io::Error::from_raw_os_error(19);
                return Err(DeviceError::System {
                    doing: "taking a frame".into(),
                    source,
                });
            }
            self.sequence = self.sequence.wrapping_add(1);
            if let Does::Gives(lost) = does {
                self.sequence = self.sequence.wrapping_add(lost);
            }
            let level = if self.frozen { 0 } else { self.sequence as u8 };
            let bytes = vec![level; if does == Does::CutShort { 3 } else { 64 }];
            Ok(Some(Exposure {
                bytes,
                flagged: does == Does::Flagged,
                sequence: self.sequence,
                stamp: Some(self.clock.monotonic()),
            }))
        }

        fn image(&self, bytes: Vec<u8>) -> Result<Image, DecodeError> {
            let format = PixelFormat::Grey(Depth::Eight);
            Ok(RawImage::new(format, (8, 8), 0, bytes, YCbCr::default())?.into())
        }

        fn format(&self) -> String {
            "GREY 8 × 8".into()
        }

        fn period(&self) -> Option<Duration> {
            Some(PERIOD)
        }
    }

    fn live(
        script: impl FnMut(Duration) -> Does + Send + 'static,
        there: impl Fn(Duration) -> bool + Send + 'static,
    ) -> (Live<Scripted, Simulated>, Simulated, Opened) {
        let (clock, opened) = (Simulated::default(), Opened::default());
        let device = Scripted {
            clock: clock.clone(),
            opened: opened.clone(),
            script: Box::new(script),
            there: Box::new(there),
            frozen: false,
        };
        (
            Live::with_timer("left", device, clock.clone()),
            clock,
            opened,
        )
    }

    const TICK: Duration = Duration::from_millis(50);

    proptest! {
        /// What was given, lost, flagged and cut short is what was counted, and numbers run on.
        #[test]
        fn every_frame_is_accounted_for(
            script in prop::collection::vec(
                prop_oneof![
                    (0..4_u32).prop_map(Does::Gives),
                    Just(Does::Flagged),
                    Just(Does::CutShort),
                    Just(Does::Silent),
                    Just(Does::Fails),
                ],
                1..60,
            ),
        ) {
            let mut left = script.clone().into_iter();
            let (mut camera, _, opened) =
                live(move |_| left.next().unwrap_or(Does::Silent), |_| true);
            // The first frame after each opening tells nothing of what was before it.
            let (mut first, mut expected) = (true, (0, 0, 0));
            for does in &script {
                match does {
                    Does::Gives(lost) => {
                        expected.0 += 1;
                        expected.1 += if first { 0 } else { u64::from(*lost) };
                    }
                    Does::Flagged | Does::CutShort => expected.2 += 1,
                    Does::Silent | Does::Fails => {}
                }
                first = match does {
                    Does::Fails => true,
                    Does::Silent => first,
                    _ => false,
                };
            }
            let (mut frames, mut lost, mut unusable, mut number) = (0, 0, 0, 0);
            for _ in 0..script.len() * 250 {
                let tag = match camera.next(TICK) {
                    Captured::Frame(frame) => {
                        frames += 1;
                        prop_assert!(frame.tag.dated == Dated::Exposed);
                        frame.tag
                    }
                    Captured::Unusable(frame) => {
                        unusable += 1;
                        frame.tag
                    }
                    _ => continue,
                };
                lost += tag.lost_before;
                prop_assert_eq!(tag.number, number);
                number += 1;
            }
            prop_assert_eq!((frames, lost, unusable), expected);
            camera.close();
            prop_assert_eq!(opened.0.lock().unwrap().0, 0, "something is still open");
        }
    }

    #[test]
    fn a_camera_that_is_silent_or_frozen_is_closed_whole_and_opened_whole() {
        let (mut camera, clock, opened) = live(|_| Does::Silent, |_| true);
        let mut troubles = Vec::new();
        while clock.monotonic() < Duration::from_secs(60) {
            if let Captured::Trouble(reason) = camera.next(TICK) {
                troubles.push(reason);
            }
        }
        assert!(troubles.len() >= 4, "{troubles:?}");
        assert!(troubles[0].contains("no frame for 5 s"), "{troubles:?}");
        assert!(opened.0.lock().unwrap().1 >= 4);

        let (mut camera, clock, _) = live(|_| Does::Gives(0), |_| true);
        camera.device.frozen = true;
        let reason = loop {
            assert!(clock.monotonic() < Duration::from_secs(60));
            if let Captured::Trouble(reason) = camera.next(TICK) {
                break reason;
            }
        };
        assert!(reason.contains("same picture"), "{reason}");
    }

    /// Ten seconds there, ten seconds gone, for a day.
    #[test]
    fn a_camera_that_flaps_for_a_day_comes_back_each_time() {
        let there = |now: Duration| (now.as_secs() / 10).is_multiple_of(2);
        let (mut camera, clock, opened) = live(|_| Does::Gives(0), there);
        let (mut frames, mut per_hour) = (0_u32, Vec::new());
        for hour in 1..=24 {
            while clock.monotonic() < Duration::from_secs(3600 * hour) {
                if let Captured::Frame(_) = camera.next(TICK) {
                    frames += 1;
                }
            }
            per_hour.push(std::mem::take(&mut frames));
        }
        // It is there for half of the time, at two frames a second; finding it again may take a back-off.
        assert!(
            per_hour.iter().all(|n| (900..=3600).contains(n)),
            "{per_hour:?}"
        );
        let (open, times) = *opened.0.lock().unwrap();
        assert!((0..=1).contains(&open));
        assert!(times >= 24 * 100, "{times}");
    }

    #[test]
    fn a_camera_that_is_missing_is_asked_for_ever_less_and_never_given_up() {
        let (mut camera, clock, opened) =
            live(|_| Does::Gives(0), |now| now > Duration::from_secs(7200));
        let mut troubles = 0;
        while clock.monotonic() < Duration::from_secs(7200) {
            troubles += u32::from(matches!(camera.next(TICK), Captured::Trouble(_)));
        }
        assert!((700..=740).contains(&troubles), "{troubles}");
        while !matches!(camera.next(TICK), Captured::Frame(_)) {
            assert!(clock.monotonic() < Duration::from_secs(7215));
        }
        assert_eq!(opened.0.lock().unwrap().1, 1);
    }

    /// Frames with these time stamps, one a second from 100 s on.
    fn stamped(stamps: Vec<Option<u64>>) -> Vec<(Dated, Duration)> {
        let (mut camera, clock, _) = live(|_| Does::Silent, |_| true);
        clock.pass(Duration::from_secs(100));
        camera.open().unwrap();
        let tag = |(i, stamp): (usize, Option<u64>)| {
            clock.pass(Duration::from_secs(1));
            let exposure = Exposure {
                bytes: vec![i as u8; 64],
                sequence: i as u32,
                stamp: stamp.map(Duration::from_millis),
                ..Exposure::default()
            };
            match camera.frame(exposure).unwrap() {
                Captured::Frame(frame) => (frame.tag.dated, frame.tag.moment),
                _ => panic!("no frame"),
            }
        };
        stamps.into_iter().enumerate().map(tag).collect()
    }

    #[test]
    fn time_stamps_that_cannot_be_are_marked_and_the_frame_kept() {
        use Dated::{Came, Doubtful, Exposed};
        let seen = stamped(vec![
            Some(100_950),
            Some(101_950),
            // Before the one before; after that, in order again.
            Some(101_500),
            Some(103_900),
            // In the future, long ago, none.
            Some(200_000),
            Some(5),
            None,
            // Less than the time to the next frame ahead.
            Some(108_300),
        ]);
        // A doubtful frame is of when it came.
        let expected = [
            (Exposed, 100_950),
            (Exposed, 101_950),
            (Doubtful, 103_000),
            (Exposed, 103_900),
            (Doubtful, 105_000),
            (Doubtful, 106_000),
            (Came, 107_000),
            (Exposed, 108_000),
        ];
        assert_eq!(
            seen,
            expected.map(|(dated, ms)| (dated, Duration::from_millis(ms)))
        );
    }
}
