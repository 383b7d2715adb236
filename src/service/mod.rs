//! The service that flies: start, watch, degrade, stop.
//!
//! Each stage has a thread of its own, and the supervisor hears of each one's end, however it ends:
//!
//! | stage | gives to | when it fails |
//! |---|---|---|
//! | each camera | its place in the mailbox | it begins anew; the others go on |
//! | recognition, with [sightings](crate::sighting) | the [outbox](crate::outbox) | a frame: counted, reported, the next one is looked at; three in a row by defects: the flight ends |
//! | position | itself: where the aircraft is | it begins anew; sightings carry an old position or none |
//! | survey | the outbox: track and effort; the clock | it begins anew |
//! | [page](crate::control) | who looks at the box | it begins anew |
//! | [archive] | the archive's disk | it begins anew; what does not go on the disk is counted, sightings go on |
//! | publisher | the broker | it begins anew; until then, and without a broker, what is decided stays in the outbox |
//!
//! A flight ends when all cameras have, and in order: the cameras first, then recognition, then archive and publisher, which says `stopped` when all is
//! delivered. After the last frame of a replay, frames that wait are still looked at and delivery has no time limit;
//! when asked to stop, waiting frames are dropped. Then, and after a failure, all must be done by a deadline, at which
//! the stages that still run are named. What is not delivered then is in the outbox's file, and the next flight sends it.

mod aloft;
mod archiving;
mod mailbox;
mod recogniser;
mod sightings;
mod supervisor;
mod systemd;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use link::BrokerOptions;
use link::archive::ArchivedHead;
use link::codec::Encoding;
use link::message::{FrameCounts, Health};
use link::topic::Platform;
use recognition::geometry::Affine;
use recognition::pixels::{OUTSIDE_FRAME, encode_jpeg, reduce_to_fit, warp};
use rumqttc::v5::mqttbytes::v5::Publish;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::archive::{self, Archive, ArchivedMessage};
use crate::camera::{Camera, Captured, Frame, Mask, MountedCamera};
use crate::clock::Clock;
use crate::control::{self, Cameras, Controlled};
use crate::effort::FlightOf;
use crate::observe::{Counters, Hardware, Phase, Preview};
use crate::outbox::{
    Depth, Key, Kind, Limits, Message, Outbox, OutboxError, Publisher, PublisherCounters,
};
use crate::sighting::{LOST_AFTER, SeenHead};
use aloft::{Aloft, Places};
pub use aloft::{Survey, TRACK_INTERVAL};
use archiving::Archiving;
use mailbox::{Mailbox, Put};
pub use recogniser::{About, Recognised, Recogniser};
use sightings::Sightings;
use supervisor::{OnFailure, Supervisor, defect, wait_until};
use systemd::Watchdog;
pub use systemd::warming_up;

/// How a flight is flown.
pub struct Flight<R> {
    /// Where frames come from; at least one, each with a name of its own.
    pub cameras: Vec<MountedCamera>,
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
    /// A sighting ends when its animal has not been seen for so long; [`LOST_AFTER`] as a rule.
    pub lost_after: Duration,
    /// A file to which a line of JSON is added for each frame that is looked at
    /// ([`FrameRecord`](crate::sighting::FrameRecord)).
    pub record: Option<PathBuf>,
    /// Where position, time and effort come from.
    pub survey: Survey,
    /// Where pictures are kept, if they are.
    pub archive: Option<archive::Settings>,
    /// Where the page of the box is, if there is one.
    pub page: Option<control::Page>,
    /// Called once recognition has gone on for so long without trouble.
    pub flown_well: Option<FlownWell>,
    /// Keeps what is set of a camera in flight, for flights to come.
    pub keep_setting: Option<control::KeepSetting>,
}

impl<R> Flight<R> {
    /// A flight with these parts and the defaults of everything else: no page, no archive, nothing recorded.
    pub fn new(
        cameras: Vec<MountedCamera>,
        recogniser: R,
        broker: BrokerOptions,
        platform: Platform,
        state: PathBuf,
    ) -> Self {
        Self {
            cameras,
            recogniser,
            broker,
            platform,
            state,
            outbox: Limits::default(),
            encoding: Encoding::Json,
            largest_message: None,
            health_interval: HEALTH_INTERVAL,
            stop_deadline: STOP_DEADLINE,
            lost_after: LOST_AFTER,
            record: None,
            survey: Survey::default(),
            archive: None,
            page: None,
            flown_well: None,
            keep_setting: None,
        }
    }
}

/// What is done once recognition has gone on for long enough.
pub struct FlownWell {
    /// So long.
    pub after: Duration,
    /// This.
    pub tell: Box<dyn FnOnce() + Send>,
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

const RECOGNITION: &str = "recognition";
const PUBLISHER: &str = "publisher";
const POSITION: &str = "position";
const SURVEY: &str = "survey";
const ARCHIVE: &str = "archive";
const PAGE: &str = "page";

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
    pub stragglers: Vec<String>,
    /// What became of the pictures for the archive, where there is one.
    pub archive: Option<archive::Counts>,
}

/// A flight that could not be begun.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FlightError {
    /// Nothing can be kept.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Nothing to look at.
    #[error("a flight needs a camera")]
    NoCamera,
    /// Two cameras that messages could not tell apart.
    #[error("two cameras are called {0}: give each a name of its own")]
    SameName(String),
    /// The system has no thread for us.
    #[error("cannot start the thread of a stage")]
    Thread(#[from] std::io::Error),
}

/// Longer side of a preview in pixels.
const PREVIEW_SIDE: u32 = 640;
const PREVIEW_QUALITY: u8 = 75;

/// Flies until no camera has more frames or `stop` is cancelled.
///
/// # Errors
/// There is no camera or two have one name, the outbox cannot be opened, or the system gives no threads.
pub fn fly<R: Recogniser + 'static>(
    flight: Flight<R>,
    stop: &CancellationToken,
) -> Result<FlightReport, FlightError> {
    check_names(&flight.cameras)?;
    let outbox = Outbox::open(&flight.state, flight.outbox)?;
    tell_what_waits(&outbox);
    let mut cameras = flight.cameras;
    let seats: Vec<Seat> = cameras.iter_mut().map(|c| Seat::of(c, &outbox)).collect();
    let backlogs = cameras.iter().map(|mounted| mounted.camera.backlog());
    let mailbox = Arc::new(Mailbox::new(backlogs.collect()));
    let places = Places::begin(&flight.survey, flight.encoding, &outbox);
    let link = Arc::new(PublisherCounters::default());
    let disks = [("outbox", Some(&flight.state))].into_iter();
    let kept = flight.archive.as_ref().map(|archive| &archive.folder);
    let disks = disks.chain([("archive", kept)]);
    let disks = disks.filter_map(|(holds, at)| Some((holds.to_owned(), at?.clone())));
    let counters = Counters::new(
        flight.platform.clone(),
        mailbox.capacity() as u64,
        flight.recogniser.about().engine,
        outbox.clone(),
        link.clone(),
        places.clock().clone(),
    );
    let counters = Arc::new(counters.with_hardware(Hardware::of_this(disks.collect())));
    let commands = flight.survey.commands;
    let archive = flight
        .archive
        .map(|settings| Arc::new(Archive::new(settings)));
    if let Some(archive) = &archive {
        let archive = archive.clone();
        outbox.set_copied(move |key, message| archive_message(&archive, key, message));
    }
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

    let settings = cameras.iter().map(|mounted| &mounted.camera);
    let settings = settings.filter_map(|c| Some((c.name().to_owned(), c.settings()?)));
    let controlled = Controlled {
        cameras: Cameras::new(counters.clone(), settings.collect(), flight.keep_setting),
        counters: counters.clone(),
        effort: aloft.effort.clone(),
        stop: stop.clone(),
    };
    start_survey(&mut supervisor, &aloft, &counters, &landed)?;
    let ended = CancellationToken::new();
    if let Some(page) = flight.page {
        start_page(&mut supervisor, page, controlled, &ended)?;
    }
    if let Some(archive) = &archive {
        start_archive(&mut supervisor, archive, &counters, &landed)?;
    }
    let mut recognition = Recognition {
        sightings,
        seats,
        recogniser: flight.recogniser,
        outbox: outbox.clone(),
        counters: counters.clone(),
        mailbox: mailbox.clone(),
        archiving: archive.clone().map(|archive| Archiving {
            archive,
            platform: flight.platform.clone(),
            places,
            effort: aloft.effort.clone(),
        }),
        stop: stop.clone(),
    };
    supervisor.start(RECOGNITION, OnFailure::EndFlight, move || recognition.run())?;

    // Ends capture when the flight is asked to stop and when recognition has ended.
    let capturing = stop.child_token();
    let stages = start_cameras(&mut supervisor, cameras, |place, camera| Capture {
        camera,
        place,
        mailbox: mailbox.clone(),
        counters: counters.clone(),
        stop: capturing.clone(),
        begun: false,
        complaint: None,
    })?;
    let watch = Watch {
        supervisor,
        cameras: stages,
        counters: &counters,
        outbox: &outbox,
        mailbox: &mailbox,
        stop,
        stop_deadline: flight.stop_deadline,
        capturing,
        landed,
        complete,
        ended,
        archive: archive.as_deref(),
        clock: aloft.clock.clone(),
        trial: OnTrial {
            flown_well: flight.flown_well,
            since: None,
        },
    };
    let (failure, stragglers) = watch.until_all_have_ended();
    Ok(FlightReport {
        archive: archive.map(|archive| archive.counts()),
        ..report(&counters, &outbox, &link, failure, stragglers)
    })
}

/// Gives a message to the archive that the ground has to have, whatever becomes of the link. Pictures of heads go there with
/// their records.
fn archive_message(archive: &Archive, key: Key, message: &Message) {
    if matches!(message.kind, Kind::Sighting | Kind::Effort | Kind::Track) {
        let message = ArchivedMessage {
            topic: message.topic.clone(),
            content_type: message.content_type.clone(),
            payload: message.payload.clone(),
        };
        archive.give_message(key.number(), message);
    }
}

/// Starts what writes pictures to the archive.
fn start_archive(
    supervisor: &mut Supervisor,
    archive: &Arc<Archive>,
    counters: &Arc<Counters>,
    landed: &CancellationToken,
) -> std::io::Result<()> {
    let (archive, counters, landed) = (archive.clone(), counters.clone(), landed.clone());
    supervisor.start(ARCHIVE, OnFailure::Retry(RETRY), move || {
        archive.run(&landed, |problem| counters.says(ARCHIVE, problem));
        Ok(())
    })
}

/// Starts what knows where the aircraft is, what time it is and what its people do.
fn start_survey(
    supervisor: &mut Supervisor,
    aloft: &Aloft,
    counters: &Arc<Counters>,
    landed: &CancellationToken,
) -> std::io::Result<()> {
    if aloft.has_position() {
        let (aloft, landed) = (aloft.clone(), landed.clone());
        supervisor.start(POSITION, OnFailure::Retry(RETRY), move || {
            aloft.listen(&landed);
            Ok(())
        })?;
    }
    let (aloft, landed, counters) = (aloft.clone(), landed.clone(), counters.clone());
    supervisor.start(SURVEY, OnFailure::Retry(RETRY), move || {
        aloft.run(&counters, &landed)
    })
}

/// Starts what serves the page. It outlives all other stages for a moment, so that who looks at it sees how they ended.
fn start_page(
    supervisor: &mut Supervisor,
    page: control::Page,
    controlled: Controlled,
    ended: &CancellationToken,
) -> std::io::Result<()> {
    let ended = ended.clone();
    supervisor.start(PAGE, OnFailure::Retry(RETRY), move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("no runtime: {e}"))?;
        runtime.block_on(async {
            tokio::select! {
                () = ended.cancelled() => {}
                () = keep_serving(&page, &controlled) => {}
            }
        });
        Ok(())
    })
}

/// Serves the page without end; an address that cannot be listened on is tried again.
async fn keep_serving(page: &control::Page, controlled: &Controlled) {
    loop {
        if let Err(e) = control::serve(page, controlled.clone()).await {
            let reason = format!("cannot be served at http://{}: {e}", page.address);
            error!("the page {reason}");
            controlled.counters.has_problem(PAGE, reason);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Starts a thread for each camera, by its place; returns what the stages are called.
fn start_cameras(
    supervisor: &mut Supervisor,
    cameras: Vec<MountedCamera>,
    capture: impl Fn(usize, Box<dyn Camera>) -> Capture,
) -> std::io::Result<Vec<String>> {
    let mut stages = Vec::new();
    for (place, mounted) in cameras.into_iter().enumerate() {
        let mut capture = capture(place, mounted.camera);
        let stage = camera_stage(capture.camera.name());
        capture.counters.has_camera(capture.camera.name());
        supervisor.start(stage.clone(), OnFailure::Retry(RETRY), move || {
            capture.run();
            Ok(())
        })?;
        stages.push(stage);
    }
    Ok(stages)
}

/// What watches over the stages, and ends them in order.
struct Watch<'a> {
    supervisor: Supervisor,
    /// The stages of the cameras, by place.
    cameras: Vec<String>,
    counters: &'a Counters,
    outbox: &'a Outbox,
    mailbox: &'a Mailbox<Frame>,
    /// The flight is asked to stop.
    stop: &'a CancellationToken,
    /// From then on.
    stop_deadline: Duration,
    /// Cancelled to end the cameras.
    capturing: CancellationToken,
    /// Cancelled when nothing more will be decided.
    landed: CancellationToken,
    /// Cancelled when nothing more will come into the outbox.
    complete: CancellationToken,
    /// Cancelled when all stages but the page have ended.
    ended: CancellationToken,
    archive: Option<&'a Archive>,
    clock: Clock,
    trial: OnTrial,
}

/// A bundle that has still to show that it flies well.
struct OnTrial {
    flown_well: Option<FlownWell>,
    /// Since when recognition goes on without trouble.
    since: Option<Instant>,
}

impl OnTrial {
    fn look_at(&mut self, health: &Health) {
        let Some(after) = self.flown_well.as_ref().map(|it| it.after) else {
            return;
        };
        let trouble = health.problems.iter().any(|p| p.part == RECOGNITION);
        if trouble || health.frames.identified == 0 {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= after
            && let Some(flown_well) = self.flown_well.take()
        {
            (flown_well.tell)();
        }
    }
}

/// So long the page is served after everything else has ended.
const LAST_LOOK: Duration = Duration::from_secs(3);

impl Watch<'_> {
    /// Until all stages have ended or the deadline is there. Returns why the flight ended before its time, and which stages
    /// still run.
    fn until_all_have_ended(mut self) -> (Option<String>, Vec<String>) {
        let mut failure = None;
        let mut deadline = None;
        let mut settled = Instant::now();
        let mut watchdog = Watchdog::ready();
        while self.running().next().is_some() {
            if (self.stop.is_cancelled() || failure.is_some()) && deadline.is_none() {
                info!("stopping");
                watchdog.stopping();
                self.counters.is_in(Phase::Stopping);
                deadline = Some(Instant::now() + self.stop_deadline);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            if let Some(ended) = self.supervisor.next_ended(wait_until(deadline, TICK)) {
                if let Some(reason) = ended.failure {
                    error!("{} ended: {reason}", ended.stage);
                    self.counters.has_problem(&ended.stage, reason.clone());
                    failure.get_or_insert(format!("{} ended: {reason}", ended.stage));
                }
                // A camera that has no more frames leaves the others to theirs.
                match self.cameras.iter().position(|stage| *stage == ended.stage) {
                    Some(place) => self.mailbox.close(place),
                    None => self.capturing.cancel(),
                }
            }
            self.end_what_is_left();
            if settled.elapsed() >= RETRY {
                settled = Instant::now();
                settle(self.outbox, self.counters);
                self.observe(&mut watchdog);
            }
        }
        self.landed.cancel();
        // A publisher that is late still says `stopped` if it can.
        self.complete.cancel();
        let mut stragglers: Vec<String> = self.running().collect();
        // Those two are asked to end only now.
        stragglers.retain(|stage| !matches!(stage.as_str(), POSITION | SURVEY));
        for stage in &stragglers {
            let seconds = self.stop_deadline.as_secs_f64();
            error!("{stage} was not done {seconds} s after being asked to stop");
        }
        self.show_the_end(stragglers.is_empty() && failure.is_none());
        (failure, stragglers)
    }

    /// The stages that run, but for the page, which ends last.
    fn running(&self) -> impl Iterator<Item = String> {
        let running = self.supervisor.running().into_iter();
        running.filter(|stage| stage != PAGE)
    }

    /// Looks at what nobody else tells of, and tells systemd.
    fn observe(&mut self, watchdog: &mut Watchdog) {
        self.counters.look_at_hardware();
        if let Some(archive) = self.archive {
            self.counters.has_archived(archive.counts().into());
            if let Some(correction) = self.clock.correction() {
                archive.put_right(correction);
            }
        }
        let health = self.counters.health();
        watchdog.look_at(&health);
        self.trial.look_at(&health);
        watchdog.status(&self.counters.fitness(&health).sentence);
    }

    /// Lets who looks at the page see that power may be cut.
    fn show_the_end(&mut self, in_order: bool) {
        if !self.supervisor.is_running(PAGE) {
            return;
        }
        self.counters.is_in(Phase::Ended { in_order });
        std::thread::sleep(LAST_LOOK);
        self.ended.cancel();
    }

    /// After the cameras and recognition the survey ends, and after it the publisher.
    fn end_what_is_left(&self) {
        let is_running = |stage: &String| self.supervisor.is_running(stage);
        if self.cameras.iter().any(is_running) || self.supervisor.is_running(RECOGNITION) {
            return;
        }
        self.landed.cancel();
        if !self.supervisor.is_running(SURVEY) {
            self.complete.cancel();
        }
    }
}

/// What a camera's stage is called.
fn camera_stage(name: &str) -> String {
    format!("camera {name}")
}

fn check_names(cameras: &[MountedCamera]) -> Result<(), FlightError> {
    if cameras.is_empty() {
        return Err(FlightError::NoCamera);
    }
    let mut names = BTreeSet::new();
    for mounted in cameras {
        let name = mounted.camera.name();
        if !names.insert(name) {
            return Err(FlightError::SameName(name.to_owned()));
        }
    }
    Ok(())
}

fn tell_what_waits(outbox: &Outbox) {
    let left = outbox.depth();
    if !left.is_empty() {
        info!(
            "{} messages of earlier flights wait in the outbox",
            left.messages
        );
    }
}

/// What recognition knows of a camera.
struct Seat {
    bookmark: Option<String>,
    mask: Mask,
}

impl Seat {
    /// Has the camera begin where an earlier flight ended, where it can.
    fn of(mounted: &mut MountedCamera, outbox: &Outbox) -> Self {
        let bookmark = mounted.camera.bookmark();
        let next = bookmark.as_deref().and_then(|name| outbox.bookmark(name));
        if let Some(next) = next.and_then(|next| next.parse().ok()) {
            info!(
                "camera {}: going on with frame {next}",
                mounted.camera.name()
            );
            mounted.camera.begin_with(next);
        }
        Self {
            bookmark,
            mask: std::mem::take(&mut mounted.mask),
        }
    }
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

/// One camera and where its frames go.
struct Capture {
    camera: Box<dyn Camera>,
    /// In the mailbox.
    place: usize,
    mailbox: Arc<Mailbox<Frame>>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    /// Whether it ran before, and ended by a defect.
    begun: bool,
    complaint: Option<String>,
}

impl Capture {
    /// Takes frames until there are no more or the flight is to stop.
    fn run(&mut self) {
        let name = self.camera.name().to_owned();
        let part = camera_stage(&name);
        if std::mem::replace(&mut self.begun, true) {
            let reason = "a defect in the program; the camera is opened anew".to_owned();
            self.counters.has_problem(&part, reason);
            self.counters.camera_failed(&name);
            self.camera.close();
        }
        let mut is_well = false;
        while !self.stop.is_cancelled() {
            match self.camera.next(TICK) {
                Captured::Nothing => {}
                Captured::End => return,
                Captured::Trouble(reason) => {
                    is_well = false;
                    self.counters.camera_failed(&name);
                    self.counters.has_problem(&part, reason);
                }
                Captured::Unusable(unusable) => {
                    self.counters.captured(&unusable.tag);
                    self.counters.failed(&unusable.tag, unusable.reason);
                }
                Captured::Frame(frame) => {
                    if !is_well {
                        is_well = true;
                        self.counters.is_well(&part);
                        self.counters.camera_gives(&name, self.camera.format());
                    }
                    self.look_at_settings(&name);
                    self.counters.captured(&frame.tag);
                    if let Some(unseen) = self.put(*frame) {
                        debug!(
                            camera = name,
                            frame = unseen.tag.number,
                            "no time to look at it"
                        );
                        self.counters.dropped(1);
                    }
                    self.counters.waiting(self.mailbox.len());
                }
            }
        }
    }

    /// Tells what could not be set.
    fn look_at_settings(&mut self, name: &str) {
        let complaint = self.camera.complaint();
        if complaint == self.complaint {
            return;
        }
        let part = format!("settings of camera {name}");
        match &complaint {
            Some(said) => {
                warn!("{part}: {said}");
                self.counters.has_problem(&part, said.clone());
            }
            None => self.counters.is_well(&part),
        }
        self.complaint = complaint;
    }

    /// Waits for room in the mailbox as long as the flight is not to stop; returns the frame that nobody will look at.
    fn put(&self, mut frame: Frame) -> Option<Frame> {
        loop {
            match self.mailbox.put(self.place, frame, TICK) {
                Put::Waits => return None,
                Put::InPlaceOf(earlier) => return Some(earlier),
                Put::NoRoom(same) if self.stop.is_cancelled() => return Some(same),
                Put::NoRoom(same) => frame = same,
            }
        }
    }
}

struct Recognition<R> {
    sightings: Sightings,
    /// Of each camera.
    seats: Vec<Seat>,
    recogniser: R,
    outbox: Outbox,
    counters: Arc<Counters>,
    mailbox: Arc<Mailbox<Frame>>,
    archiving: Option<Archiving>,
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
        while let Some((place, frame)) = self.mailbox.take() {
            self.counters.waiting(self.mailbox.len());
            if self.stop.is_cancelled() {
                self.counters.dropped(1);
                continue;
            }
            let looked = catch_unwind(AssertUnwindSafe(|| self.look_at(place, &frame)));
            let reason = match looked {
                Ok(Ok(heads)) => {
                    defects = 0;
                    self.counters.is_well(RECOGNITION);
                    self.archive(frame, Ok(heads));
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
            self.archive(frame, Err(reason.clone()));
            if defects == DEFECTS_IN_A_ROW {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Gives a frame to the archive: with its heads, or why it could not be looked at.
    fn archive(&self, frame: Frame, seen: Result<Vec<ArchivedHead>, String>) {
        if let Some(archiving) = &self.archiving {
            let about = self.recogniser.about();
            archiving.give_frame(frame, seen, self.sightings.event_id(), &about);
        }
    }

    /// Sightings are on the disk before anything else is made of the frame. Returns its heads.
    fn look_at(&mut self, place: usize, frame: &Frame) -> anyhow::Result<Vec<ArchivedHead>> {
        if self.counters.wants_preview(&frame.tag.camera) {
            self.show(frame);
        }
        let mut recognised = self.recogniser.recognise(&frame.image)?;
        self.drop_masked(place, frame, &mut recognised);
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
            .decide(frame, recognised, &about, &self.recogniser);
        let pictures = std::mem::take(&mut decided.pictures);
        let archived = std::mem::take(&mut decided.heads);
        let next = (frame.tag.number + 1).to_string();
        let bookmark = self.seats[place].bookmark.as_deref();
        let bookmark = bookmark.map(|name| (name, next.as_str()));
        let told = std::mem::take(&mut decided.told);
        if let Err(e) = self.sightings.store(decided, bookmark, &self.outbox) {
            error!("{e}");
            self.counters.has_problem("outbox", e.to_string());
        }
        self.counters
            .looked_at(&frame.tag, heads, &faults, &stages_ms, about.engine.clone());
        for sighting in &told {
            self.counters.tells(sighting);
        }
        for picture in &pictures {
            let Some(crop) = self.sightings.draw(frame, picture) else {
                continue;
            };
            if let Some(archiving) = &self.archiving {
                let head = archived
                    .iter()
                    .find(|h| h.occurrence_id == picture.sighting);
                let jpeg = crop.payload.clone();
                archiving.give_crop(frame, head, jpeg, self.sightings.event_id(), &about);
            }
            self.counters.has_crop(picture.sighting, &crop.payload);
            if let Err(e) = self.outbox.put(vec![crop]) {
                debug!("a crop is lost: {e}");
            }
        }
        Ok(archived)
    }
}

impl<R> Recognition<R> {
    /// Keeps a preview of the frame.
    fn show(&self, frame: &Frame) {
        let time = self.sightings.clock().at(frame.tag.moment).time;
        match preview(frame, time) {
            Ok(preview) => self.counters.has_preview(&frame.tag.camera, preview),
            // Recognition tells what is wrong with the frame.
            Err(e) => debug!(frame = frame.tag.number, "no preview: {e:#}"),
        }
    }

    /// Drops what lies where the aircraft is.
    fn drop_masked(&self, place: usize, frame: &Frame, recognised: &mut Recognised) {
        let mask = &self.seats[place].mask;
        if mask.is_empty() {
            return;
        }
        let found = recognised.heads.len();
        let size = frame.image.size();
        let covered = |head: &SeenHead| mask.covers(head.landmarks.centre(), size);
        recognised.heads.retain(|head| !covered(head));
        self.counters.masked(found - recognised.heads.len());
    }
}

/// The whole frame, at the scale of the finder.
fn preview(frame: &Frame, time: Timestamp) -> anyhow::Result<Preview> {
    let size = frame.image.size();
    let preview_from_frame = reduce_to_fit(size, PREVIEW_SIDE, PREVIEW_SIDE);
    // The picture is as wide and as high as the frame is, without the borders that a square one would have.
    let scale = preview_from_frame.xx;
    let side = |side: u32| (f64::from(side) * scale).round().max(1.0) as u32;
    let photograph = frame.image.decode(scale)?;
    let shown = photograph
        .frame_from_pixels()
        .then(&Affine::scaling(scale, scale));
    let picture = warp(
        &photograph.pixels,
        &shown,
        side(size.0),
        side(size.1),
        OUTSIDE_FRAME,
    );
    Ok(Preview {
        time,
        jpeg: encode_jpeg(&picture, PREVIEW_QUALITY)?.into(),
    })
}

fn report(
    counters: &Counters,
    outbox: &Outbox,
    link: &PublisherCounters,
    failure: Option<String>,
    stragglers: Vec<String>,
) -> FlightReport {
    let report = FlightReport {
        frames: counters.frames(),
        messages: outbox.depth(),
        sent: link.sent(),
        connections: link.connections(),
        link_problem: link.problem().map(|problem| problem.reason),
        failure,
        stragglers,
        archive: None,
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

#[cfg(test)]
mod tests {
    use recognition::pixels::{EncodedPhotograph, PixelFormat, RawImage, YCbCr};

    use super::*;
    use crate::camera::FrameTag;

    #[test]
    fn a_preview_shows_the_whole_frame_reduced() {
        let (width, height) = (1280_u32, 900_u32);
        let pixel = |x: u32| {
            if x < width / 2 {
                [200, 30, 30]
            } else {
                [30, 30, 200]
            }
        };
        let row: Vec<u8> = (0..width).flat_map(pixel).collect();
        let bytes = row.repeat(height as usize);
        let image = RawImage::new(
            PixelFormat::Rgb24,
            (width, height),
            0,
            bytes,
            YCbCr::default(),
        );
        let frame = Frame {
            tag: FrameTag::new("left".into(), 7, Duration::ZERO),
            image: image.unwrap().into(),
        };
        let shown = preview(&frame, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(shown.time, Timestamp::UNIX_EPOCH);
        let shown = EncodedPhotograph::from_bytes(shown.jpeg.to_vec()).unwrap();
        assert_eq!(shown.size(), (640, 450));
        let pixels = shown.decode(1.0).unwrap().pixels;
        for (x, y, expected) in [(5, 5, 0), (300, 440, 0), (340, 10, 2), (634, 445, 2)] {
            let pixel = pixels.get_pixel(x, y).0;
            assert!(
                pixel[expected] > 150 && pixel[2 - expected] < 80,
                "{pixel:?} at {x}, {y}"
            );
        }
    }
}
