//! What the service has done, for its health messages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::warn;

use super::{About, Seen};
use crate::camera::FrameTag;
use crate::link::message::{
    Engine, FrameCounts, FrameFailure, Health, LinkCounts, QueueDepths, StageTime,
};
use crate::link::session::{SessionCounters, now};
use crate::link::topic::Platform;
use crate::outbox::Depth;

pub(super) struct Progress {
    platform: Platform,
    frame_queue: usize,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    frames: FrameCounts,
    last_failure: Option<FrameFailure>,
    about: About,
    /// Since the last health message.
    stages: BTreeMap<String, StageTime>,
}

impl Progress {
    pub fn new(platform: Platform, frame_queue: usize, about: About) -> Self {
        Self {
            platform,
            frame_queue,
            started: Instant::now(),
            state: Mutex::new(State {
                frames: FrameCounts::default(),
                last_failure: None,
                about,
                stages: BTreeMap::new(),
            }),
        }
    }

    pub fn captured(&self) {
        self.state().frames.captured += 1;
    }

    pub fn dropped(&self, frames: u64) {
        self.state().frames.dropped += frames;
    }

    pub fn failed(&self, tag: FrameTag, reason: String) {
        warn!(
            frame = tag.number,
            file = tag.file,
            "frame cannot be used: {reason}"
        );
        let mut state = self.state();
        state.frames.failed += 1;
        state.last_failure = Some(FrameFailure {
            time: tag.time,
            frame: tag.number,
            file: tag.file,
            reason,
        });
    }

    pub fn identified(&self, tag: &FrameTag, seen: Seen, about: About) {
        let faults = &seen.faults;
        if !faults.is_empty() {
            warn!(frame = tag.number, file = tag.file, "frame is {faults}");
        }
        let mut state = self.state();
        state.frames.identified += 1;
        state.frames.incomplete += u64::from(faults.incomplete.is_some());
        state.frames.damaged += u64::from(faults.damaged.is_some());
        state.frames.heads += seen.heads.len() as u64;
        state.about = about;
        for (stage, ms) in seen.stages_ms {
            let time = state.stages.entry(stage).or_default();
            let frames = time.frames as f64;
            time.mean_milliseconds = (time.mean_milliseconds * frames + ms) / (frames + 1.0);
            time.maximum_milliseconds = time.maximum_milliseconds.max(ms);
            time.frames += 1;
        }
    }

    pub fn frames(&self) -> FrameCounts {
        self.state().frames.clone()
    }

    /// The next health message; stage times begin anew.
    pub fn health(&self, frames_waiting: usize, outbox: Depth, link: &SessionCounters) -> Health {
        let mut state = self.state();
        Health {
            platform: self.platform.to_string(),
            time: now(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            frames: state.frames.clone(),
            last_failure: state.last_failure.clone(),
            queues: QueueDepths {
                frames: frames_waiting as u64,
                frames_capacity: self.frame_queue as u64,
                sightings: outbox.sightings as u64,
                crops: outbox.crops as u64,
                crops_bytes: outbox.crop_bytes as u64,
            },
            engine: Engine {
                name: state.about.engine.clone(),
                bundle: state.about.bundle.clone(),
            },
            stages: std::mem::take(&mut state.stages),
            link: LinkCounts {
                sent: link.sent(),
                acknowledged: outbox.acknowledged,
                unacknowledged: outbox.under_way as u64,
                refused: outbox.refused,
                crops_dropped: outbox.crops_dropped,
                reconnects: link.connections().saturating_sub(1),
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters are whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
