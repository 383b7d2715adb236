use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

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
        let due = self.due();
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait.min(timeout));
        if wait > timeout {
            return Captured::Nothing;
        }
        self.next_due = Some(due.max(Instant::now()) + self.period);
        if self.unplugged.contains(&self.number) {
            self.number += 1;
            return Captured::Trouble("it is unplugged, as the rehearsal asks for".to_owned());
        }
        let name = self.files[index % self.files.len()].clone();
        let path = self.folder.join(&name);
        let tag = FrameTag {
            file: Some(name),
            ..FrameTag::new(self.name.clone(), self.number, SystemClock.monotonic())
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
