//! Sources of frames. A frame carries its time, its number and its pixels as they came.
//!
//! A [`Camera`] blocks, on a thread of its own; it knows nothing of what happens to frames.
//!
//! | source | what it is |
//! |---|---|
//! | [`v4l2`] | a device of Linux, by its USB path or serial number |
//! | [`WatchedFolder`] | a folder that other software fills |
//! | [`Replay`] | a folder of photographs at a rate |
//!
//! [`Live`] keeps a device open: what fails, stalls or freezes is closed whole and opened whole. A [`Mask`] says which
//! parts of a frame show the aircraft.

mod live;
mod mask;
mod replay;
mod settings;
#[cfg(target_os = "linux")]
pub mod v4l2;
mod watched_folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use recognition::pixels::{Image, Place, READ_ENDINGS};
use thiserror::Error;

pub use live::{Device, DeviceError, Exposure, Live, Stream, Timer};
pub use mask::{Mask, MaskError};
pub use replay::Replay;
pub use settings::{Setting, Settings};
pub use watched_folder::{Watch, WatchedFolder};

/// How it is known when a frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dated {
    /// It was exposed then, by the kernel's time stamp or by EXIF.
    Exposed,
    /// It came then; nobody says when it was exposed.
    Came,
    /// It came then. When it was exposed, as is said, cannot be: that lies in the future, long ago, or before the exposure of
    /// the frame before. The frame is good.
    Doubtful,
}

/// Which frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameTag {
    /// Name of the camera, as in messages.
    pub camera: Arc<str>,
    /// Running number of this camera since the start, from 0; one that could not be read has its own.
    pub number: u64,
    /// When it was taken, by the [monotonic clock](crate::clock::TimeSource::monotonic); where nobody says so, when it
    /// came. In a replay, when it was its turn: a rehearsed flight happens now.
    pub moment: Duration,
    /// What `moment` is.
    pub dated: Dated,
    /// Where it was taken, where the file says so.
    pub place: Option<Place>,
    /// Name of the photograph, where there is one; with `/` between folders below the camera's.
    pub file: Option<String>,
    /// Frames that the camera took between the one before and this one, and that did not reach us.
    pub lost_before: u64,
}

impl FrameTag {
    /// A frame that came at `moment`, of which nothing more is known.
    pub fn new(camera: Arc<str>, number: u64, moment: Duration) -> Self {
        Self {
            camera,
            number,
            moment,
            dated: Dated::Came,
            place: None,
            file: None,
            lost_before: 0,
        }
    }
}

/// One photograph of a flight.
pub struct Frame {
    /// Which.
    pub tag: FrameTag,
    /// Its pixels as they came.
    pub image: Image,
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
    /// It cannot be watched.
    #[error("cannot watch {}: {reason}", folder.display())]
    Watch {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
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
    /// No frames at the moment: what is wrong, and where it helps, what to do. The camera goes on trying.
    Trouble(String),
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

    /// Waits for the next frame, and for no longer than `timeout`; opening a device may take longer.
    fn next(&mut self, timeout: Duration) -> Captured;

    /// Lets go of what is open; [`next`](Self::next) opens it anew. Called after a defect.
    fn close(&mut self) {}

    /// In words, what it was asked for and what it gives; `None` while that is not known.
    fn format(&self) -> Option<String> {
        None
    }

    /// What changes its settings in flight, where it has any.
    fn settings(&self) -> Option<Settings> {
        None
    }

    /// What is not as it was asked for, though frames come, such as a setting that the camera has not got.
    fn complaint(&self) -> Option<String> {
        None
    }

    /// Where a flight may go on from where an earlier one ended, even by a crash: the name under which the service keeps
    /// the number of the next frame to look at.
    fn bookmark(&self) -> Option<String> {
        None
    }

    /// Begins with the frame of this number, which the service has kept under [`bookmark`](Self::bookmark).
    fn begin_with(&mut self, _number: u64) {}
}

/// A camera in its place on the aircraft.
pub struct MountedCamera {
    /// The camera.
    pub camera: Box<dyn Camera>,
    /// What of its frames shows the aircraft.
    pub mask: Mask,
}

impl<C: Camera + 'static> From<C> for MountedCamera {
    fn from(camera: C) -> Self {
        Self {
            camera: Box::new(camera),
            mask: Mask::default(),
        }
    }
}
