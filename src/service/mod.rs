//! The service that flies: start, watch, degrade, stop.
//!
//! Each stage has a thread of its own, and the supervisor hears of each one's end, however it ends:
//!
//! | stage | gives to | when it fails |
//! |---|---|---|
//! | camera | the mailbox | the flight ends |
//! | recognition, with [sightings](crate::sighting) | the [outbox](crate::outbox) | a frame: counted, reported, the next one is looked at; three in a row by defects: the flight ends |
//! | position | itself: where the aircraft is | it begins anew; sightings carry an old position or none |
//! | survey | the outbox: track and effort; clock and HTTP | it begins anew |
//! | publisher | the broker | it begins anew; until then, and without a broker, what is decided stays in the outbox |
//!
//! A flight ends in order: the camera first, then recognition, then the publisher, which says `stopped` when all is
//! delivered. After the last frame of a replay, frames that wait are still looked at and delivery has no time limit;
//! when asked to stop, waiting frames are dropped. Then, and after a failure, all must be done by a deadline, at which
//! the stages that still run are named. What is not delivered then is in the outbox's file, and the next flight sends it.

mod aloft;
mod mailbox;
mod recogniser;
mod sightings;
mod supervisor;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::BrokerOptions;
use link::codec::Encoding;
use link::message::FrameCounts;
use link::topic::Platform;
use rumqttc::v5::mqttbytes::v5::Publish;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::camera::{Camera, Captured, Frame};
use crate::clock::Clock;
use crate::effort::FlightOf;
use crate::observe::Counters;
use crate::outbox::{Depth, Limits, Outbox, OutboxError, Publisher, PublisherCounters};
use aloft::{Aloft, Places};
pub use aloft::{Survey, TRACK_INTERVAL};
use mailbox::{Mailbox, Put};
pub use recogniser::{About, Recognised, Recogniser};
use sightings::Sightings;
use supervisor::{OnFailure, Supervisor, defect, wait_until};

/// How a flight is flown.
pub struct Flight<R> {
    /// Where frames come from.
    pub camera: Box<dyn Camera>,
    /// What looks at them.
    pub recogniser: R,
    /// Where sightings go.
    pub broker: BrokerOptions,
    /// Who flies.
    pub platform: Platform,
    /// Folder of the outbox.
    pub state: PathBuf,
    /// Bounds of what waits for the broker.
    pub outbox: Limits,
    /// How messages are encoded.
    pub encoding: Encoding,
    /// Messages with more bytes are not sent: for links on which a crop takes minutes.
    pub largest_message: Option<usize>,
    /// Time between health messages.
    pub health_interval: Duration,
    /// From being asked to stop to the end, whatever is not done by then.
    pub stop_deadline: Duration,
    /// A sighting ends when its animal has not been seen for so long; [`LOST_AFTER`](crate::sighting::LOST_AFTER) as a
    /// rule.
    pub lost_after: Duration,
    /// A file to which a line of JSON is added for each frame that is looked at
    /// ([`FrameRecord`](crate::sighting::FrameRecord)).
    pub record: Option<PathBuf>,
    /// Where position, time and effort come from.
    pub survey: Survey,
}

/// Default time between health messages.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// Default time from being asked to stop to the end.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// The longest that anything waits before it looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// Pause before a stage that failed begins anew.
const RETRY: Duration = Duration::from_secs(2);
/// Frames in a row on which recognition fails by a defect before the flight ends, so that the program is started anew.
const DEFECTS_IN_A_ROW: u32 = 3;

const CAMERA: &str = "camera";
const RECOGNITION: &str = "recognition";
const PUBLISHER: &str = "publisher";
const POSITION: &str = "position";
const SURVEY: &str = "survey";

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
    /// What is wrong with the link, where it ended with that.
    pub link_problem: Option<String>,
    /// Why the flight ended before its time.
    pub failure: Option<String>,
    /// Stages that were not done at the deadline.
    pub stragglers: Vec<&'static str>,
}

/// A flight that could not be begun.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FlightError {
    /// Nothing can be kept.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The system has no thread for us.
    #[error("cannot start the thread of a stage")]
    Thread(#[from] std::io::Error),
}

/// Flies until the camera has no more frames or `stop` is cancelled.
///
/// # Errors
/// The outbox cannot be opened, or the system gives no threads.
pub fn fly<R: Recogniser + 'static>(
    flight: Flight<R>,
    stop: &CancellationToken,
) -> Result<FlightReport, FlightError> {
    let outbox = Outbox::open(&flight.state, flight.outbox)?;
    let mut camera = flight.camera;
    let bookmark = go_on(camera.as_mut(), &outbox);
    let mailbox = Arc::new(Mailbox::new(camera.backlog()));
    let link = Arc::new(PublisherCounters::default());
    let counters = Arc::new(Counters::new(
        flight.platform.clone(),
        mailbox.capacity() as u64,
        flight.recogniser.about().engine,
        outbox.clone(),
        link.clone(),
    ));
    let commands = flight.survey.commands;
    let places = Places::begin(&flight.survey, flight.encoding, &outbox);
    let sightings = Sightings::begin(
        flight.platform.clone(),
        flight.encoding,
        flight.lost_after,
        flight.record.as_deref(),
        &flight.recogniser.about(),
        &outbox,
        places.clone(),
    );
    let flight_of = FlightOf {
        platform: flight.platform.clone(),
        event_id: sightings.event_id(),
        encoding: flight.encoding,
    };
    let aloft = Aloft::begin(flight.survey, &places, flight_of, outbox.clone());
    let landed = CancellationToken::new();
    let complete = CancellationToken::new();
    let mut supervisor = Supervisor::new();

    let publisher = {
        let counters = counters.clone();
        Publisher {
            broker: flight.broker,
            platform: flight.platform.clone(),
            outbox: outbox.clone(),
            encoding: flight.encoding,
            largest_message: flight.largest_message,
            health: Arc::new(move || counters.health()),
            health_interval: flight.health_interval,
            complete: complete.clone(),
            counters: link.clone(),
            commands: aloft
                .effort
                .clone()
                .filter(|_| commands)
                .map(|effort| Arc::new(move |publish: &Publish| effort.command(publish)) as _),
        }
    };
    supervisor.start(PUBLISHER, OnFailure::Retry(RETRY), move || {
        publish(&publisher)
    })?;

    if aloft.has_position() {
        let (aloft, landed) = (aloft.clone(), landed.clone());
        supervisor.start(POSITION, OnFailure::Retry(RETRY), move || {
            aloft.listen(&landed);
            Ok(())
        })?;
    }
    {
        let (aloft, landed, counters) = (aloft.clone(), landed.clone(), counters.clone());
        supervisor.start(SURVEY, OnFailure::Retry(RETRY), move || {
            aloft.run(&counters, &landed)
        })?;
    }

    let mut recognition = Recognition {
        sightings,
        camera: camera.name().to_owned(),
        bookmark,
        recogniser: flight.recogniser,
        outbox: outbox.clone(),
        counters: counters.clone(),
        mailbox: mailbox.clone(),
        stop: stop.clone(),
    };
    supervisor.start(RECOGNITION, OnFailure::EndFlight, move || recognition.run())?;

    // Ends capture when the flight is asked to stop and when recognition has ended.
    let capturing = stop.child_token();
    let capture_ends = capturing.clone();
    let (frames, counted) = (mailbox.clone(), counters.clone());
    supervisor.start(CAMERA, OnFailure::EndFlight, move || {
        capture(
            camera.as_mut(),
            &frames,
            &counted,
            &aloft.clock,
            &capture_ends,
        );
        Ok(())
    })?;

    let mut failure = None;
    let mut deadline = None;
    let mut settled = Instant::now();
    while !supervisor.running().is_empty() {
        if (stop.is_cancelled() || failure.is_some()) && deadline.is_none() {
            info!("stopping");
            deadline = Some(Instant::now() + flight.stop_deadline);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        if let Some(ended) = supervisor.next_ended(wait_until(deadline, TICK)) {
            if let Some(reason) = ended.failure {
                error!("{} ended: {reason}", ended.stage);
                counters.has_problem(ended.stage, reason.clone());
                failure.get_or_insert(format!("{} ended: {reason}", ended.stage));
            }
            capturing.cancel();
            if !supervisor.is_running(CAMERA) {
                mailbox.close();
            }
        }
        if !supervisor.is_running(CAMERA) && !supervisor.is_running(RECOGNITION) {
            landed.cancel();
            if !supervisor.is_running(SURVEY) {
                complete.cancel();
            }
        }
        if settled.elapsed() >= RETRY {
            settled = Instant::now();
            settle(&outbox, &counters);
        }
    }
    landed.cancel();
    // A publisher that is late still says `stopped` if it can.
    complete.cancel();
    // Those two are asked to end only now.
    let told_late = |stage: &&'static str| matches!(*stage, POSITION | SURVEY);
    let mut stragglers = supervisor.running();
    stragglers.retain(|stage| !told_late(&stage));
    for stage in &stragglers {
        let seconds = flight.stop_deadline.as_secs_f64();
        error!("{stage} was not done {seconds} s after being asked to stop");
    }
    Ok(report(&counters, &outbox, &link, failure, stragglers))
}

/// Begins where an earlier flight ended, where this camera can; returns the camera's bookmark.
fn go_on(camera: &mut dyn Camera, outbox: &Outbox) -> Option<String> {
    let left = outbox.depth();
    if !left.is_empty() {
        info!(
            "{} messages of earlier flights wait in the outbox",
            left.messages
        );
    }
    let bookmark = camera.bookmark()?;
    if let Some(next) = outbox.bookmark(&bookmark)
        && let Ok(next) = next.parse()
    {
        info!("going on with frame {next}");
        camera.begin_with(next);
    }
    Some(bookmark)
}

/// Runs the publisher to its end, on a runtime of its own, so that nothing else can keep it from its work.
fn publish(publisher: &Publisher) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(publisher.clone().run());
    Ok(())
}

/// Gives what a full disk would not take to the disk again, and tells how that goes.
fn settle(outbox: &Outbox, counters: &Counters) {
    match outbox.settle() {
        Ok(()) => counters.is_well("outbox"),
        Err(e) => counters.has_problem("outbox", e.to_string()),
    }
}

/// Takes frames from the camera until it has no more or is asked to stop.
fn capture(
    camera: &mut dyn Camera,
    mailbox: &Mailbox<Frame>,
    counters: &Counters,
    clock: &Clock,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        match camera.next(TICK) {
            Captured::Nothing => {}
            Captured::End => return,
            Captured::Unusable(mut unusable) => {
                unusable.tag.time = clock.at_wall(unusable.tag.time).time;
                counters.captured();
                counters.failed(&unusable.tag, unusable.reason);
            }
            Captured::Frame(mut frame) => {
                frame.tag.time = clock.at_wall(frame.tag.time).time;
                counters.captured();
                if let Some(unseen) = put(*frame, mailbox, stop) {
                    debug!(frame = unseen.tag.number, "no time to look at it");
                    counters.dropped(1);
                }
                counters.waiting(mailbox.len());
            }
        }
    }
}

/// Waits for room in the mailbox as long as the flight is not to stop; returns the frame that nobody will look at.
fn put(mut frame: Frame, mailbox: &Mailbox<Frame>, stop: &CancellationToken) -> Option<Frame> {
    loop {
        match mailbox.put(frame, TICK) {
            Put::Waits => return None,
            Put::InPlaceOf(earlier) => return Some(earlier),
            Put::NoRoom(same) if stop.is_cancelled() => return Some(same),
            Put::NoRoom(same) => frame = same,
        }
    }
}

struct Recognition<R> {
    sightings: Sightings,
    camera: String,
    bookmark: Option<String>,
    recogniser: R,
    outbox: Outbox,
    counters: Arc<Counters>,
    mailbox: Arc<Mailbox<Frame>>,
    stop: CancellationToken,
}

impl<R: Recogniser> Recognition<R> {
    /// Looks at frames until the mailbox is closed and empty; then what is in view is left behind.
    fn run(&mut self) -> Result<(), String> {
        let looked = self.look_at_all();
        self.sightings.end(&self.recogniser.about(), &self.outbox);
        looked
    }

    fn look_at_all(&mut self) -> Result<(), String> {
        let mut defects = 0;
        while let Some(frame) = self.mailbox.take() {
            self.counters.waiting(self.mailbox.len());
            if self.stop.is_cancelled() {
                self.counters.dropped(1);
                continue;
            }
            let looked = catch_unwind(AssertUnwindSafe(|| self.look_at(&frame)));
            let reason = match looked {
                Ok(Ok(())) => {
                    defects = 0;
                    self.counters.is_well(RECOGNITION);
                    continue;
                }
                Ok(Err(reason)) => {
                    defects = 0;
                    format!("{reason:#}")
                }
                Err(panic) => {
                    defects += 1;
                    let reason = defect(&*panic);
                    error!(frame = frame.tag.number, "{reason}");
                    self.counters.has_problem(RECOGNITION, reason.clone());
                    reason
                }
            };
            self.counters.failed(&frame.tag, reason.clone());
            if defects == DEFECTS_IN_A_ROW {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Sightings are on the disk before anything else is made of the frame.
    fn look_at(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let recognised = self.recogniser.recognise(&frame.photograph)?;
        let about = self.recogniser.about();
        debug!(
            frame = frame.tag.number,
            heads = recognised.heads.len(),
            "recognised"
        );
        let (faults, stages_ms) = (recognised.faults.clone(), recognised.stages_ms.clone());
        let heads = recognised.heads.len();
        let mut decided = self
            .sightings
            .decide(&self.camera, frame, recognised, &self.recogniser);
        let pictures = std::mem::take(&mut decided.pictures);
        let next = (frame.tag.number + 1).to_string();
        let bookmark = self.bookmark.as_deref();
        let bookmark = bookmark.map(|name| (name, next.as_str()));
        if let Err(e) = self.sightings.store(decided, bookmark, &self.outbox) {
            error!("{e}");
            self.counters.has_problem("outbox", e.to_string());
        }
        self.counters
            .looked_at(&frame.tag, heads, &faults, &stages_ms, about.engine);
        let crops = pictures.iter();
        for crop in crops.filter_map(|picture| self.sightings.draw(frame, picture)) {
            if let Err(e) = self.outbox.put(vec![crop]) {
                debug!("a crop is lost: {e}");
            }
        }
        Ok(())
    }
}

fn report(
    counters: &Counters,
    outbox: &Outbox,
    link: &PublisherCounters,
    failure: Option<String>,
    stragglers: Vec<&'static str>,
) -> FlightReport {
    let report = FlightReport {
        frames: counters.frames(),
        messages: outbox.depth(),
        sent: link.sent(),
        connections: link.connections(),
        link_problem: link.problem().map(|problem| problem.reason),
        failure,
        stragglers,
    };
    let left = &report.messages;
    if left.messages + left.set_aside > 0 {
        let why = report.link_problem.as_deref();
        error!(
            "not acknowledged by the broker: {} sightings and {} crops{}; they are kept, and the next flight sends them",
            left.sightings,
            left.crops,
            why.map_or_else(String::new, |why| format!(" ({why})"))
        );
    }
    if left.not_durable > 0 {
        error!(
            "{} messages are lost: the disk did not take them",
            left.not_durable
        );
    }
    report
}
