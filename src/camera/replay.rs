use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use recognition::pixels::{EncodedPhotograph, Folder};
use tracing::warn;

use super::{Backlog, Camera, CameraError, Captured, Frame, FrameTag, UnusableFrame};
use crate::clock::{SystemClock, TimeSource};

/// Photographs that wait by default to be looked at.
const BACKLOG: usize = 4;

/// A folder of photographs replayed at a rate, in the order of their names.
pub struct Replay {
    name: Arc<str>,
    folder: PathBuf,
    files: Vec<String>,
    period: Duration,
    next_due: Option<Instant>,
    /// When the first frame was exposed, where the flight has a timetable.
    begun: Option<Timestamp>,
    again_and_again: bool,
    live: bool,
    resuming: bool,
    /// Numbers of the frames that it does not take.
    unplugged: Range<u64>,
    number: u64,
}

impl Replay {
    /// Lists the photographs in `folder`, not in folders below it. `rate_hz` is in frames a second;
    /// with `again_and_again` the first follows the last, without end.
    ///
    /// # Errors
    /// The folder cannot be listed or has no photographs, or the rate is none.
    pub fn open(folder: &Path, rate_hz: f64, again_and_again: bool) -> Result<Self, CameraError> {
        if !(0.001..=1000.0).contains(&rate_hz) {
            return Err(CameraError::Rate { rate_hz });
        }
        let listed = Folder::list(folder).map_err(|source| CameraError::List {
            folder: folder.to_owned(),
            source,
        })?;
        let passed_over = listed.passed_over().map(|said| said.to_string());
        if listed.photographs.is_empty() {
            return Err(CameraError::Empty {
                folder: folder.to_owned(),
                passed_over,
            });
        }
        if let Some(said) = passed_over {
            warn!("{}: {said}", folder.display());
        }
        let names = listed
            .photographs
            .iter()
            .filter_map(|path| path.file_name());
        let files = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        Ok(Self {
            name: "replay".into(),
            folder: folder.to_owned(),
            files,
            period: Duration::from_secs_f64(1.0 / rate_hz),
            next_due: None,
            begun: None,
            again_and_again,
            live: false,
            resuming: false,
            unplugged: 0..0,
            number: 0,
        })
    }

    /// What it is called in messages, instead of `replay`.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Behaves as a live camera does: photographs for which there is no time are not looked at.
    pub fn as_live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Goes on after the last photograph that an earlier flight over this folder looked at.
    pub fn resuming(mut self) -> Self {
        self.resuming = true;
        self
    }

    /// Takes no frames of these numbers, as a camera whose cable is pulled for a while: their time passes, and they are
    /// seen by nobody.
    pub fn unplugged(mut self, numbers: Range<u64>) -> Self {
        self.unplugged = numbers;
        self
    }

    /// Keeps to a timetable: the first photograph was or will be exposed at this time (UTC), the others follow at the rate,
    /// whether anybody looks or not. What is late has the moment at which it was exposed, not that at which it is looked at,
    /// so that it fits the positions of a flight that was recorded or simulated.
    pub fn begun(mut self, first: Timestamp) -> Self {
        self.begun = Some(first);
        self
    }

    /// How many photographs there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// When it is the next frame's turn. A frame that was late does not make the next one early.
    fn due(&self) -> Instant {
        self.next_due.unwrap_or_else(Instant::now)
    }

    /// Time from now until the next frame, and the moment at which it is exposed; past ones wait no longer.
    fn next_exposure(&self) -> (Duration, Duration) {
        let now = SystemClock.monotonic();
        let Some(begun) = self.begun else {
            let wait = self.due().saturating_duration_since(Instant::now());
            return (wait, now + wait);
        };
        let after = self.period.as_secs_f64() * self.number as f64;
        let ahead = begun.duration_since(SystemClock.wall()).as_secs_f64() + after;
        let moment = (now.as_secs_f64() + ahead).max(0.0);
        (
            Duration::from_secs_f64(ahead.max(0.0)),
            Duration::try_from_secs_f64(moment).unwrap_or(now),
        )
    }
}

impl Camera for Replay {
    fn name(&self) -> &str {
        &self.name
    }

    fn backlog(&self) -> Backlog {
        if self.live {
            Backlog::Newest
        } else {
            Backlog::Bounded(BACKLOG)
        }
    }

    fn next(&mut self, timeout: Duration) -> Captured {
        let Ok(index) = usize::try_from(self.number) else {
            return Captured::End;
        };
        if index >= self.files.len() && !self.again_and_again {
            return Captured::End;
        }
        let (wait, moment) = self.next_exposure();
        thread::sleep(wait.min(timeout));
        if wait > timeout {
            return Captured::Nothing;
        }
        // Without a timetable a frame is exposed when somebody takes it.
        let moment = match self.begun {
            Some(_) => moment,
            None => SystemClock.monotonic(),
        };
        self.next_due = Some(self.due().max(Instant::now()) + self.period);
        if self.unplugged.contains(&self.number) {
            self.number += 1;
            return Captured::Trouble("it is unplugged, as the rehearsal asks for".to_owned());
        }
        let name = self.files[index % self.files.len()].clone();
        let path = self.folder.join(&name);
        let tag = FrameTag {
            file: Some(name),
            ..FrameTag::new(self.name.clone(), self.number, moment)
        };
        self.number += 1;
        // The tag names the file.
        match EncodedPhotograph::open_unnamed(&path) {
            Ok(photograph) => Captured::Frame(Box::new(Frame {
                tag,
                image: photograph.accepting_incomplete().into(),
            })),
            Err(e) => Captured::Unusable(UnusableFrame {
                tag,
                reason: e.to_string(),
            }),
        }
    }

    fn bookmark(&self) -> Option<String> {
        if !self.resuming {
            return None;
        }
        let folder = self.folder.canonicalize();
        let folder = folder.as_deref().unwrap_or(&self.folder);
        Some(format!("replay of {}", folder.display()))
    }

    fn begin_with(&mut self, number: u64) {
        self.number = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flight that began some time ago: what is late comes at once, each frame with the moment of its exposure, in this
    /// program and in the one after it.
    #[test]
    fn a_timetable_is_kept_by_those_who_come_late() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..4 {
            let image = image::RgbImage::new(8, 8);
            image
                .save(folder.path().join(format!("{number}.png")))
                .unwrap();
        }
        let begun = SystemClock.wall() - Duration::from_secs(100);
        let replay = || {
            let replay = Replay::open(folder.path(), 0.1, false).unwrap();
            replay.begun(begun)
        };
        let moment = |replay: &mut Replay| match replay.next(Duration::ZERO) {
            Captured::Frame(frame) => frame.tag.moment.as_secs_f64(),
            _ => panic!("no frame"),
        };
        let now = SystemClock.monotonic().as_secs_f64();
        let mut first = replay();
        let (a, b) = (moment(&mut first), moment(&mut first));
        let mut second = replay();
        second.begin_with(2);
        let (c, d) = (moment(&mut second), moment(&mut second));
        // Clocks on the wall may be put right by some milliseconds meanwhile.
        for (moment, ago) in [(a, 100.0), (b, 90.0), (c, 80.0), (d, 70.0)] {
            assert!(
                (now - moment - ago).abs() < 1.0,
                "{moment} is not {ago} s before {now}"
            );
        }
        assert!(matches!(second.next(Duration::ZERO), Captured::End));
        let mut early = Replay::open(folder.path(), 0.1, false).unwrap();
        early = early.begun(SystemClock.wall() + Duration::from_secs(100));
        assert!(matches!(early.next(Duration::ZERO), Captured::Nothing));
    }
}
