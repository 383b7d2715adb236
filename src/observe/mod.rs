//! What the service has done, counted once: health messages, metrics and the page of the box read it.
//!
//! All counts are since the service started, and reading changes nothing.

mod fitness;
mod hardware;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use link::message::{
    ArchiveHealth, CameraHealth, ClockHealth, Engine, FrameCounts, FrameFailure, Health,
    LinkCounts, PositionHealth, Problem, QueueDepths, Sighting, SightingState, StageTime,
};
use link::topic::Platform;
use recognition::pixels::Faults;
use tracing::warn;
use uuid::Uuid;

pub use fitness::{Fitness, Level, Phase};
pub use hardware::Hardware;

use crate::camera::{Dated, FrameTag};
use crate::clock::Clock;
use crate::outbox::{Outbox, PublisherCounters};

/// See the [module](self).
pub struct Counters {
    platform: Platform,
    frame_queue: u64,
    started: Instant,
    outbox: Outbox,
    link: Arc<PublisherCounters>,
    clock: Clock,
    hardware: Option<Hardware>,
    state: Mutex<State>,
}

struct State {
    frames: FrameCounts,
    waiting: u64,
    last_failure: Option<FrameFailure>,
    engine: Engine,
    stages: BTreeMap<String, StageTime>,
    /// By part.
    problems: BTreeMap<String, Problem>,
    clock: Option<ClockHealth>,
    position: Option<PositionHealth>,
    /// By name.
    cameras: BTreeMap<Arc<str>, CameraState>,
    archive: Option<ArchiveHealth>,
    phase: Phase,
    /// The newest first.
    sightings: VecDeque<LastSighting>,
}

/// One of the last sightings, as it was told last.
#[derive(Clone, Debug)]
pub struct LastSighting {
    /// What was told.
    pub sighting: Sighting,
    /// Its head, as a JPEG file.
    pub crop: Option<Arc<[u8]>>,
}

/// So many of the last sightings are shown.
const LAST_SIGHTINGS: usize = 20;

#[derive(Default)]
struct CameraState {
    health: CameraHealth,
    preview: Option<Preview>,
    /// When the last preview was asked for.
    preview_asked: Option<Instant>,
}

/// A whole frame as the finder sees it, reduced.
#[derive(Clone, Debug)]
pub struct Preview {
    /// When the frame was taken.
    pub time: Timestamp,
    /// The picture.
    pub jpeg: Arc<[u8]>,
}

/// Least time between two previews of a camera.
const PREVIEW_EVERY: Duration = Duration::from_secs(1);

impl Counters {
    /// Nothing done yet. `frame_queue` is how many frames can wait to be looked at.
    pub fn new(
        platform: Platform,
        frame_queue: u64,
        engine: Engine,
        outbox: Outbox,
        link: Arc<PublisherCounters>,
        clock: Clock,
    ) -> Self {
        Self {
            platform,
            frame_queue,
            started: Instant::now(),
            outbox,
            link,
            clock,
            hardware: None,
            state: Mutex::new(State {
                frames: FrameCounts::default(),
                waiting: 0,
                last_failure: None,
                engine,
                stages: BTreeMap::new(),
                problems: BTreeMap::new(),
                clock: None,
                position: None,
                cameras: BTreeMap::new(),
                archive: None,
                phase: Phase::Flying,
                sightings: VecDeque::new(),
            }),
        }
    }

    /// Tells of this computer too.
    pub fn with_hardware(mut self, hardware: Hardware) -> Self {
        self.hardware = Some(hardware);
        self
    }

    /// Looks whether something is wrong with the computer.
    pub fn look_at_hardware(&self) {
        if let Some(hardware) = &self.hardware {
            self.says("computer", hardware.problem());
        }
    }

    /// What became of the pictures for the archive.
    pub fn has_archived(&self, archive: ArchiveHealth) {
        self.state().archive = Some(archive);
    }

    /// How far the flight is.
    pub fn is_in(&self, phase: Phase) {
        self.state().phase = phase;
    }

    /// Whether the box is fit to fly, in a sentence.
    pub fn fitness(&self, health: &Health) -> Fitness {
        let phase = self.state().phase;
        Fitness::of(health, phase)
    }

    /// This is told of a sighting now.
    pub fn tells(&self, sighting: &Sighting) {
        let mut state = self.state();
        let known = state
            .sightings
            .iter()
            .position(|last| last.sighting.occurrence_id == sighting.occurrence_id);
        let crop = known
            .and_then(|at| state.sightings.remove(at))
            .and_then(|last| last.crop);
        // One that ends long after it was seen is not the newest.
        let at = match (sighting.state, known) {
            (SightingState::End, Some(at)) => at.min(state.sightings.len()),
            _ => 0,
        };
        let sighting = sighting.clone();
        state.sightings.insert(at, LastSighting { sighting, crop });
        state.sightings.truncate(LAST_SIGHTINGS);
    }

    /// The head of a sighting that was told.
    pub fn has_crop(&self, sighting: Uuid, jpeg: &[u8]) {
        let mut state = self.state();
        let mut last = state.sightings.iter_mut();
        if let Some(last) = last.find(|last| last.sighting.occurrence_id == sighting) {
            last.crop = Some(jpeg.into());
        }
    }

    /// The last sightings, the newest first.
    pub fn last_sightings(&self) -> Vec<LastSighting> {
        self.state().sightings.iter().cloned().collect()
    }

    /// There is a camera of this name.
    pub fn has_camera(&self, name: &str) {
        self.state().camera(name);
    }

    /// A camera gave a frame, usable or not.
    pub fn captured(&self, tag: &FrameTag) {
        let mut state = self.state();
        state.frames.captured += 1;
        state.frames.lost += tag.lost_before;
        state.frames.time_doubtful += u64::from(tag.dated == Dated::Doubtful);
        let camera = &mut state.camera(&tag.camera).health;
        camera.captured += 1;
        camera.lost += tag.lost_before;
        camera.last_frame = Some(self.clock.at(tag.moment).time);
    }

    /// What a camera gives; `None` while it is not open.
    pub fn camera_gives(&self, name: &str, format: Option<String>) {
        self.state().camera(name).health.format = format;
    }

    /// A camera failed and was closed.
    pub fn camera_failed(&self, name: &str) {
        let mut state = self.state();
        let camera = &mut state.camera(name).health;
        camera.failures += 1;
        camera.format = None;
    }

    /// Whether it is time for a camera's next preview; who is told so makes one.
    pub fn wants_preview(&self, camera: &str) -> bool {
        let mut state = self.state();
        let asked = &mut state.camera(camera).preview_asked;
        let is_due = asked.is_none_or(|at| at.elapsed() >= PREVIEW_EVERY);
        if is_due {
            *asked = Some(Instant::now());
        }
        is_due
    }

    /// What a camera sees.
    pub fn has_preview(&self, camera: &str, preview: Preview) {
        self.state().camera(camera).preview = Some(preview);
    }

    /// What a camera saw last, at most one a second; `None` where there is no such camera or it gave no frame yet.
    pub fn preview(&self, camera: &str) -> Option<Preview> {
        self.state().cameras.get(camera)?.preview.clone()
    }

    /// Detections were dropped because the aircraft is where they lay.
    pub fn masked(&self, heads: usize) {
        self.state().frames.masked += heads as u64;
    }

    /// So many frames wait to be looked at.
    pub fn waiting(&self, frames: usize) {
        self.state().waiting = frames as u64;
    }

    /// Frames were thrown away unseen.
    pub fn dropped(&self, frames: u64) {
        self.state().frames.dropped += frames;
    }

    /// A frame cannot be used.
    pub fn failed(&self, tag: &FrameTag, reason: String) {
        warn!(
            camera = &*tag.camera,
            frame = tag.number,
            file = tag.file,
            "frame cannot be used: {reason}"
        );
        let mut state = self.state();
        state.frames.failed += 1;
        state.last_failure = Some(FrameFailure {
            time: self.clock.at(tag.moment).time,
            camera: Some(tag.camera.to_string()),
            frame: tag.number,
            file: tag.file.clone(),
            reason,
        });
    }

    /// A frame was looked at.
    pub fn looked_at(
        &self,
        tag: &FrameTag,
        heads: usize,
        faults: &Faults,
        stages_ms: &[(String, f64)],
        engine: Engine,
    ) {
        if !faults.is_empty() {
            warn!(frame = tag.number, file = tag.file, "frame is {faults}");
        }
        let mut state = self.state();
        state.frames.identified += 1;
        state.frames.incomplete += u64::from(faults.incomplete.is_some());
        state.frames.damaged += u64::from(faults.damaged.is_some());
        state.frames.heads += heads as u64;
        state.engine = engine;
        for (stage, ms) in stages_ms {
            let time = state.stages.entry(stage.clone()).or_default();
            time.frames += 1;
            time.mean_milliseconds += (ms - time.mean_milliseconds) / time.frames as f64;
            time.maximum_milliseconds = time.maximum_milliseconds.max(*ms);
        }
    }

    /// A part of the service has a problem, until [`is_well`](Self::is_well) is called for it.
    pub fn has_problem(&self, part: &str, reason: String) {
        let mut state = self.state();
        let problem = Problem::after(state.problems.get(part), part, reason);
        state.problems.insert(part.to_owned(), problem);
    }

    /// A part of the service has no problem.
    pub fn is_well(&self, part: &str) {
        self.state().problems.remove(part);
    }

    /// A part of the service has this problem, or none.
    pub fn says(&self, part: &str, problem: Option<String>) {
        match problem {
            Some(reason) => self.has_problem(part, reason),
            None => self.is_well(part),
        }
    }

    /// How clock and position fare.
    pub fn survey(&self, clock: ClockHealth, position: Option<PositionHealth>) {
        let mut state = self.state();
        state.clock = Some(clock);
        state.position = position;
    }

    /// What became of the frames.
    pub fn frames(&self) -> FrameCounts {
        self.state().frames.clone()
    }

    /// Everything, as a health message.
    pub fn health(&self) -> Health {
        let outbox = self.outbox.depth();
        let hardware = self.hardware.as_ref().map(Hardware::health);
        let state = self.state();
        Health {
            platform: self.platform.to_string(),
            time: self.outbox.now(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            frames: state.frames.clone(),
            cameras: state.cameras.values().map(|c| c.health.clone()).collect(),
            last_failure: state.last_failure.clone(),
            queues: QueueDepths {
                frames: state.waiting,
                frames_capacity: self.frame_queue,
                sightings: outbox.sightings,
                crops: outbox.crops,
                crops_bytes: outbox.crop_bytes,
                set_aside: outbox.set_aside,
                not_durable: outbox.not_durable,
            },
            engine: state.engine.clone(),
            stages: state.stages.clone(),
            link: LinkCounts {
                sent: self.link.sent(),
                acknowledged: outbox.acknowledged,
                unacknowledged: outbox.under_way,
                refused: self.link.refused(),
                without_subscriber: self.link.without_subscriber(),
                crops_dropped: outbox.dropped,
                reconnects: self.link.connections().saturating_sub(1),
            },
            clock: state.clock.clone(),
            position: state.position.clone(),
            hardware,
            archive: state.archive.clone(),
            problems: state
                .problems
                .values()
                .cloned()
                .chain(self.link.problem())
                .collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters are whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn camera(&mut self, name: &str) -> &mut CameraState {
        self.cameras
            .entry(name.into())
            .or_insert_with(|| CameraState {
                health: CameraHealth {
                    name: name.to_owned(),
                    ..CameraHealth::default()
                },
                ..CameraState::default()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Limits;

    #[test]
    fn who_reads_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path(), Limits::default()).unwrap();
        let engine = Engine {
            name: "test".to_owned(),
            bundle: "none".to_owned(),
            networks: Vec::new(),
        };
        let (platform, link) = ("demo".parse().unwrap(), Arc::default());
        let clock = Clock::of_system();
        let counters = Counters::new(platform, 4, engine.clone(), outbox, link, clock);
        let tag = FrameTag::new("left".into(), 0, Duration::ZERO);
        for find in [3.0, 5.0] {
            counters.captured(&tag);
            let stages = [("find".to_owned(), find)];
            counters.looked_at(&tag, 2, &Faults::default(), &stages, engine.clone());
        }
        let read = || {
            let health = counters.health();
            (health.stages, health.frames, health.cameras)
        };
        let (stages, frames, _) = read();
        assert_eq!((stages["find"].frames, frames.heads), (2, 4));
        assert_eq!(read(), read());
        assert_eq!(read().0, stages);
    }
}
