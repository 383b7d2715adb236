//! Sources of frames. A frame carries its time, its number and its pixels as they came.
//!
//! A [`Camera`] blocks, on a thread of its own. Here is a folder of photographs replayed at a rate; V4L2 devices are to
//! come into this room. It knows nothing of what happens to frames.

mod replay;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use recognition::pixels::{EncodedPhotograph, READ_ENDINGS};
use thiserror::Error;

pub use replay::Replay;

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

/// What a camera gave.
pub enum Captured {
    /// A frame.
    Frame(Box<Frame>),
    /// A frame that cannot be used.
    Unusable(UnusableFrame),
    /// Nothing within the time that was waited.
    Nothing,
    /// There will be no more.
    End,
}

/// What becomes of frames that come faster than they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// The world does not wait: one slot holds the newest frame, the one before it is thrown away.
    Newest,
    /// The camera waits while so many frames wait, at least one.
    Bounded(usize),
}

/// A source of frames. Its functions block.
pub trait Camera: Send {
    /// What it is called in messages.
    fn name(&self) -> &str;

    /// What becomes of frames that come faster than they are looked at.
    fn backlog(&self) -> Backlog;

    /// Waits for the next frame, and for no longer than `timeout`.
    fn next(&mut self, timeout: Duration) -> Captured;

    /// Where a flight may go on from where an earlier one ended, even by a crash: the name under which the service keeps
    /// the number of the next frame to look at.
    fn bookmark(&self) -> Option<String> {
        None
    }

    /// Begins with the frame of this number, which the service has kept under [`bookmark`](Self::bookmark).
    fn begin_with(&mut self, _number: u64) {}
}
