//! The service that flies: start, watch, degrade, stop.
//!
//! Capture, inference and the link run side by side with bounded queues between them. Capture never
//! waits: when inference is behind, the oldest unseen frame is dropped and counted. Inference never
//! waits for the link: what it decides goes to the [outbox](crate::outbox). A frame that cannot be used
//! is counted and reported, and the flight goes on; so is one that is incomplete or damaged and was looked at.
//!
//! An end comes in order: capture ends first, then inference, then the link, which says `stopped` when
//! all is delivered. After the last frame of a replay, frames that wait are still looked at and delivery
//! has no time limit; when asked to stop, waiting frames are dropped and all must be done by a deadline.

mod progress;
mod sightings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::camera::{Frame, Replay};
use crate::link::message::{Candidate, Decision, FrameCounts};
use crate::link::session::{Session, SessionCounters};
use crate::link::topic::Platform;
use crate::link::{BrokerOptions, LinkError};
use crate::outbox::{Depth, Limits, Outbox};
use progress::Progress;
use recognition::geometry::Landmarks;
use recognition::identify::{HeadIdentification, Identifier, Verdict};
use recognition::pixels::{EncodedPhotograph, Faults};

/// Finds and names the whales in a frame: what the service needs of
/// [`identify`](recognition::identify), so that it can be flown with known answers in tests.
pub trait Identify: Send {
    /// What it is; asked anew for each health message.
    fn about(&self) -> About;

    /// The heads in a frame.
    ///
    /// # Errors
    /// The frame cannot be decoded, or a network failed on it.
    fn identify(&mut self, photograph: &EncodedPhotograph) -> anyhow::Result<Seen>;
}

/// What identifies.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Inference engine and execution provider, as they really run.
    pub engine: String,
    /// Name and version of the model bundle.
    pub bundle: String,
    /// The species that the bundle catalogues.
    pub scientific_name: String,
}

/// What was seen in a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The heads.
    pub heads: Vec<SeenHead>,
    /// What is wrong with the frame; nothing, as a rule.
    pub faults: Faults,
    /// Time of each stage in milliseconds, by its name.
    pub stages_ms: Vec<(String, f64)>,
}

/// One head in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenHead {
    /// In the upright frame.
    pub landmarks: Landmarks,
    /// Confidence that it is a head, 0…1.
    pub confidence: f32,
    /// What to make of the candidates.
    pub decision: Decision,
    /// Probability that the bundle does not know the whale, 0…1.
    pub unknown_probability: f32,
    /// Most probable first.
    pub candidates: Vec<Candidate>,
}

impl Identify for Identifier {
    fn about(&self) -> About {
        let manifest = self.manifest();
        About {
            engine: self.engine().to_owned(),
            bundle: format!("{} {}", manifest.name, manifest.version),
            scientific_name: manifest.catalogue.scientific_name.clone(),
        }
    }

    fn identify(&mut self, photograph: &EncodedPhotograph) -> anyhow::Result<Seen> {
        let frame = self.identify_frame(photograph)?;
        let times = frame.stages_ms;
        let stages = [
            ("decode", times.decode),
            ("find", times.find),
            ("align", times.align),
            ("identify", times.identify),
        ];
        let head = |head: HeadIdentification| SeenHead {
            landmarks: head.landmarks(),
            confidence: head.confidence,
            decision: match head.decision {
                Verdict::Identified => Decision::Identified,
                Verdict::Uncertain => Decision::Uncertain,
                Verdict::Unknown => Decision::Unknown,
            },
            unknown_probability: head.unknown_probability,
            candidates: head
                .candidates
                .into_iter()
                .map(|c| Candidate {
                    organism_id: c.individual,
                    probability: c.probability,
                })
                .collect(),
        };
        Ok(Seen {
            heads: frame.heads.into_iter().map(head).collect(),
            faults: frame.faults,
            stages_ms: stages.map(|(name, ms)| (name.to_owned(), ms)).into(),
        })
    }
}

/// How a flight is flown.
pub struct Flight<I> {
    /// Where frames come from.
    pub camera: Replay,
    /// What looks at them.
    pub identifier: I,
    /// Where sightings go.
    pub broker: BrokerOptions,
    /// Who flies.
    pub platform: Platform,
    /// Most frames that wait for inference; rounded up to a power of two.
    pub frame_queue: usize,
    /// Bounds of what waits for the broker.
    pub outbox: Limits,
    /// Time between health messages.
    pub health_interval: Duration,
    /// From being asked to stop to the end, whatever is not done by then.
    pub stop_deadline: Duration,
}

/// Frames that wait by default: a few seconds at survey rates.
pub const FRAME_QUEUE: usize = 4;
/// Default time between health messages.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// Default time from being asked to stop to the end.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How a flight went.
#[derive(Clone, Debug)]
pub struct FlightReport {
    /// What became of the frames.
    pub frames: FrameCounts,
    /// What became of the messages; empty when everything was delivered.
    pub messages: Depth,
    /// Messages handed to the broker, repetitions counted again.
    pub sent: u64,
    /// Connections that the broker accepted.
    pub connections: u64,
    /// What was not done at the deadline.
    pub straggler: Option<&'static str>,
}

/// A flight that could not be flown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FlightError {
    /// The broker cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A defect in the program.
    #[error("inference ended by a defect: {0}")]
    Inference(#[from] JoinError),
}

/// Flies until the camera has no more frames or `stop` is cancelled.
///
/// # Errors
/// The broker cannot be used at all (wrong password, untrusted certificate).
pub async fn fly<I: Identify + 'static>(
    flight: Flight<I>,
    stop: CancellationToken,
) -> Result<FlightReport, FlightError> {
    let Flight {
        mut camera,
        identifier,
        broker,
        platform,
        frame_queue,
        outbox,
        health_interval,
        stop_deadline,
    } = flight;
    let outbox = Outbox::new(outbox);
    let counters = Arc::new(SessionCounters::default());
    let complete = CancellationToken::new();
    let (say_health, health) = watch::channel(None);
    let session = Session {
        broker,
        platform: platform.clone(),
        outbox: outbox.clone(),
        health,
        complete: complete.clone(),
        counters: counters.clone(),
    };
    let frame_queue = frame_queue.max(1).next_power_of_two();
    let about = identifier.about();
    let progress = Arc::new(Progress::new(platform.clone(), frame_queue, about));
    let (queue, frames) = broadcast::channel(frame_queue);
    let queue_depth = queue.downgrade();

    let capture = {
        let (progress, stop) = (progress.clone(), stop.clone());
        async move {
            while let Some(Some(frame)) = stop.run_until_cancelled(camera.next()).await {
                progress.captured();
                match frame {
                    // Sending fails only when inference has ended, which is reported by itself.
                    Ok(frame) => drop(queue.send(Arc::new(frame))),
                    Err(unusable) => progress.failed(unusable.tag, unusable.reason),
                }
            }
        }
    };
    let inference = {
        let (progress, outbox, stop) = (progress.clone(), outbox.clone(), stop.clone());
        spawn_blocking(move || infer(identifier, frames, &progress, &outbox, &platform, &stop))
    };
    let current_health = || {
        let waiting = queue_depth.upgrade().map_or(0, |q| q.len());
        progress.health(waiting, outbox.depth(), &counters)
    };
    let watch_health = async {
        let mut ticks = interval(health_interval);
        loop {
            ticks.tick().await;
            say_health.send_replace(Some(current_health()));
        }
    };

    let delivering = AtomicBool::new(false);
    let straggler = || {
        if delivering.load(Ordering::Relaxed) {
            "delivery"
        } else {
            "inference"
        }
    };
    let work = async {
        let mut session = std::pin::pin!(session.run());
        let look = async {
            let ((), ended) = tokio::join!(capture, inference);
            ended
        };
        tokio::select! {
            ended = &mut session => return ended.map_err(FlightError::from),
            ended = look => ended?,
            () = watch_health => {}
        }
        delivering.store(true, Ordering::Relaxed);
        say_health.send_replace(Some(current_health()));
        complete.cancel();
        session.await.map_err(FlightError::from)
    };
    let deadline = async {
        stop.cancelled().await;
        info!("stopping");
        sleep(stop_deadline).await;
    };
    let straggler = tokio::select! {
        ended = work => ended.map(|()| None)?,
        () = deadline => {
            error!("{} was not done {} s after being asked to stop", straggler(), stop_deadline.as_secs_f64());
            Some(straggler())
        }
    };
    let report = FlightReport {
        frames: progress.frames(),
        messages: outbox.depth(),
        sent: counters.sent(),
        connections: counters.connections(),
        straggler,
    };
    if !report.messages.is_empty() {
        error!(
            "not acknowledged by the broker: {} sightings and {} crops",
            report.messages.sightings + report.messages.sightings_under_way,
            report.messages.crops + report.messages.under_way - report.messages.sightings_under_way,
        );
    }
    Ok(report)
}

fn infer(
    mut identifier: impl Identify,
    mut frames: broadcast::Receiver<Arc<Frame>>,
    progress: &Progress,
    outbox: &Outbox,
    platform: &Platform,
    stop: &CancellationToken,
) {
    loop {
        let frame = match frames.blocking_recv() {
            Ok(frame) => frame,
            Err(RecvError::Lagged(dropped)) => {
                warn!("inference is behind: {dropped} frames dropped unseen");
                progress.dropped(dropped);
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        if stop.is_cancelled() {
            progress.dropped(1);
            continue;
        }
        match identifier.identify(&frame.photograph) {
            Ok(seen) => {
                debug!(frame = frame.tag.number, heads = seen.heads.len(), "seen");
                let about = identifier.about();
                for message in sightings::messages(&frame, &seen, &about, platform) {
                    outbox.put(message);
                }
                progress.identified(&frame.tag, seen, about);
            }
            Err(e) => progress.failed(frame.tag.clone(), format!("{e:#}")),
        }
    }
}
