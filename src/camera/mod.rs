//! Sources of frames. A frame carries its time, its number and its pixels as they came.
//!
//! Here is a folder of photographs replayed at a rate. V4L2 devices are to come into this room. It
//! knows nothing of what happens to frames, and never waits for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::warn;

use recognition::pixels::{EncodedPhotograph, Folder, READ_ENDINGS};

/// Which frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameTag {
    /// Running number since the start, from 0; one that could not be read has its own.
    pub number: u64,
    /// When it was taken. In a replay, when it was its turn: a rehearsed flight happens now.
    pub time: Timestamp,
    /// Name of the photograph, where there is one; with `/` between folders below the replayed one.
    pub file: Option<String>,
}

/// One photograph of a flight.
pub struct Frame {
    /// Which.
    pub tag: FrameTag,
    /// Its pixels as they came.
    pub photograph: EncodedPhotograph,
}

/// A frame that the camera could not give.
#[derive(Debug)]
pub struct UnusableFrame {
    /// Which.
    pub tag: FrameTag,
    /// Why.
    pub reason: String,
}

/// No frames will come.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CameraError {
    /// The folder cannot be listed.
    #[error("cannot list the photographs in {}", folder.display())]
    List {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing to replay.
    #[error(
        "no photographs ({}, raw files with a JPEG in them) in {}{}",
        READ_ENDINGS.join(", "),
        folder.display(),
        passed_over.as_ref().map_or_else(String::new, |said| format!("; {said}"))
    )]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// In words, which photographs are of a kind that is not read.
        passed_over: Option<String>,
    },
    /// No pace.
    #[error(
        "a rate of {rate_hz} frames a second cannot be flown: it must be above 0.001 and at most 1000"
    )]
    Rate {
        /// As it was given.
        rate_hz: f64,
    },
}

/// A folder of photographs replayed at a rate, in the order of their names.
pub struct Replay {
    folder: PathBuf,
    files: Vec<String>,
    period: Duration,
    pace: Option<Interval>,
    again_and_again: bool,
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
            folder: folder.to_owned(),
            files,
            period: Duration::from_secs_f64(1.0 / rate_hz),
            pace: None,
            again_and_again,
            number: 0,
        })
    }

    /// How many photographs there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Waits until it is the next frame's turn; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Frame, UnusableFrame>> {
        let index = usize::try_from(self.number).ok()?;
        if index >= self.files.len() && !self.again_and_again {
            return None;
        }
        let name = self.files[index % self.files.len()].clone();
        let pace = self.pace.get_or_insert_with(|| {
            let mut pace = interval(self.period);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        pace.tick().await;
        let tag = FrameTag {
            number: self.number,
            time: crate::link::session::now(),
            file: Some(name.clone()),
        };
        self.number += 1;
        let path = self.folder.join(&name);
        Some(
            // The tag names the file.
            match spawn_blocking(move || EncodedPhotograph::open_unnamed(&path)).await {
                Ok(Ok(photograph)) => Ok(Frame {
                    tag,
                    photograph: photograph.accepting_incomplete(),
                }),
                Ok(Err(e)) => Err(UnusableFrame {
                    tag,
                    reason: e.to_string(),
                }),
                Err(e) => Err(UnusableFrame {
                    tag,
                    reason: format!("reading it failed: {e}"),
                }),
            },
        )
    }
}
