//! Where and when the flight is, and how it is flown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use link::codec::Encoding;
use link::message::{
    Effort, Georeference, Sighting, SightingState, TRACK_EXPIRY, TimeQuality, Track,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::TICK;
use crate::clock::{Clock, Correction, REMEMBER, Stamp, SystemClock, TimeSource};
use crate::effort::{EffortLog, EffortSettings, FlightOf};
use crate::observe::Counters;
use crate::outbox::{Kind, Message, Outbox};
use crate::position::{Gpsd, GpsdAddress, Mountings, Pose, Positioning, Source, View};

/// Where position, time and effort of a flight come from.
pub struct Survey {
    /// The clocks of this machine.
    pub time: Arc<dyn TimeSource>,
    /// Where gpsd listens; without it there are no positions.
    pub gpsd: Option<GpsdAddress>,
    /// How the cameras sit in the airframe, by their names.
    pub mountings: Mountings,
    /// Time between messages that say where the aircraft is.
    pub track_interval: Duration,
    /// Who flies; without it there are no effort messages.
    pub effort: Option<EffortSettings>,
    /// Whether the ground may set the effort; needs `effort`.
    pub commands: bool,
}

/// Default time between messages that say where the aircraft is.
pub const TRACK_INTERVAL: Duration = Duration::from_secs(10);

/// Neither positions nor effort; the time is this machine's.
impl Default for Survey {
    fn default() -> Self {
        Self {
            time: Arc::new(SystemClock),
            gpsd: None,
            mountings: Mountings::new(),
            track_interval: TRACK_INTERVAL,
            effort: None,
            commands: false,
        }
    }
}

/// Under this name the outbox keeps how the clock stands.
const CLOCK: &str = "clock";
/// So long after the time became trusted, records that were under way within the program are put right too.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// Gives sightings their places and times. Clones share what they know.
#[derive(Clone)]
pub(super) struct Places {
    clock: Clock,
    positioning: Option<Positioning>,
    mountings: Arc<Mountings>,
    encoding: Encoding,
}

/// Where the sightings that have not ended were, by their ids: the flight time of their best frames with the place.
pub(super) type Known = BTreeMap<Uuid, (Timestamp, Georeference)>;

impl Places {
    /// Starts the flight's clock, which tells the outbox the time too.
    pub fn begin(survey: &Survey, encoding: Encoding, outbox: &Outbox) -> Self {
        let memory = outbox.bookmark(CLOCK);
        let memory = memory.and_then(|memory| serde_json::from_str(&memory).ok());
        let clock = Clock::start(survey.time.clone(), memory);
        remember(&clock, outbox);
        let told = clock.clone();
        outbox.set_clock(move || told.now().time);
        Self {
            clock,
            positioning: survey.gpsd.as_ref().map(|_| Positioning::default()),
            mountings: Arc::new(survey.mountings.clone()),
            encoding,
        }
    }

    /// The flight's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Gives a sighting, whose best frame was taken at this flight time, its time and the place of that frame.
    pub fn complete(
        &self,
        sighting: &mut Sighting,
        taken: Timestamp,
        stamp: Stamp,
        known: &mut Known,
    ) {
        let id = sighting.occurrence_id;
        let earlier = known.get(&id).filter(|(of, _)| *of == taken);
        let georeference = earlier.map_or_else(
            || self.georeference(sighting, self.clock.moment(taken)),
            |(_, georeference)| *georeference,
        );
        if sighting.state == SightingState::End {
            known.remove(&id);
        } else {
            known.insert(id, (taken, georeference));
        }
        sighting.event_date = stamp.time;
        sighting.time_quality = Some(stamp.quality);
        sighting.georeference = georeference;
    }

    /// Where the aircraft was when a frame of this size in pixels was taken, with the frame's footprint, and where the
    /// camera looked, in degrees clockwise from true north.
    pub fn of_frame(
        &self,
        camera: &str,
        moment: Duration,
        size: (u32, u32),
    ) -> (Georeference, Option<f64>) {
        let Some(pose) = self.pose(moment) else {
            return Default::default();
        };
        match self.view_from(pose, camera, size) {
            Some(view) => (view.frame_georeference(), view.direction()),
            None => {
                let georeference = Georeference {
                    place: Some(pose.place()),
                    ..pose.georeference()
                };
                let (heading, source) = pose.heading;
                (georeference, (source != Source::Unknown).then_some(heading))
            }
        }
    }

    /// From where a camera looked at the sea when it took a frame of this size in pixels, where position and mounting are
    /// known.
    pub fn view(&self, camera: &str, moment: Duration, size: (u32, u32)) -> Option<View> {
        self.view_from(self.pose(moment)?, camera, size)
    }

    fn pose(&self, moment: Duration) -> Option<Pose> {
        self.positioning.as_ref()?.at(moment)
    }

    fn view_from(&self, pose: Pose, camera: &str, size: (u32, u32)) -> Option<View> {
        Some(View::new(pose, *self.mountings.get(camera)?, size))
    }

    fn georeference(&self, sighting: &Sighting, moment: Duration) -> Georeference {
        let Some(pose) = self.pose(moment) else {
            return Georeference::default();
        };
        let frame = &sighting.frame;
        let size = (frame.width_pixels, frame.height_pixels);
        let camera = sighting.camera.as_ref();
        let view = camera.and_then(|name| self.view_from(pose, name, size));
        let mut georeference = match view {
            Some(view) => {
                let head = &sighting.head;
                let (bonnet, blowhead) = (head.bonnet_pixels, head.blowhead_pixels);
                view.georeference((bonnet.x, bonnet.y), (blowhead.x, blowhead.y))
            }
            None => pose.georeference(),
        };
        if self.encoding == Encoding::Cbor {
            georeference.footprint = None;
        }
        georeference
    }
}

/// What the stages of a flight know of place and time. Clones share it.
#[derive(Clone)]
pub(super) struct Aloft {
    pub clock: Clock,
    pub effort: Option<EffortLog>,
    positioning: Option<Positioning>,
    flight: FlightOf,
    outbox: Outbox,
    gpsd: Option<GpsdAddress>,
    track_interval: Duration,
}

impl Aloft {
    pub fn begin(survey: Survey, places: &Places, flight: FlightOf, outbox: Outbox) -> Self {
        let (clock, positioning) = (places.clock.clone(), places.positioning.clone());
        let effort = survey.effort.map(|settings| {
            EffortLog::begin(
                flight.clone(),
                settings,
                outbox.clone(),
                clock.clone(),
                positioning.clone(),
            )
        });
        Self {
            clock,
            effort,
            positioning,
            flight,
            outbox,
            gpsd: survey.gpsd,
            track_interval: survey.track_interval.max(TICK),
        }
    }

    /// Whether there is a gpsd to listen to.
    pub fn has_position(&self) -> bool {
        self.gpsd.is_some()
    }

    /// Listens to gpsd until `landed`.
    pub fn listen(&self, landed: &CancellationToken) {
        if let (Some(address), Some(positioning)) = (&self.gpsd, &self.positioning) {
            let gpsd = Gpsd {
                address: address.clone(),
                clock: self.clock.clone(),
                positioning: positioning.clone(),
            };
            gpsd.run(landed);
        }
    }

    /// Watches the clock and says where the aircraft is until `landed`.
    pub fn run(&self, counters: &Counters, landed: &CancellationToken) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("no runtime: {e}"))?;
        runtime.block_on(async {
            tokio::select! {
                () = landed.cancelled() => {}
                () = self.watch(counters) => {}
                () = self.track() => {}
            }
        });
        remember(&self.clock, &self.outbox);
        if let Some(effort) = &self.effort {
            effort.end();
        }
        Ok(())
    }

    /// Each second: how clock and position fare, and whether times are to be put right.
    async fn watch(&self, counters: &Counters) {
        let mut each_second = interval(Duration::from_secs(1));
        each_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known_since: Option<Duration> = None;
        let mut remembered: Option<(Duration, TimeQuality)> = None;
        loop {
            each_second.tick().await;
            self.clock.check();
            let now = self.clock.monotonic();
            counters.says("clock", self.clock.problem());
            let positioning = self.positioning.as_ref();
            if let Some(positioning) = positioning {
                counters.says("position", positioning.problem(now));
            }
            if let Some(effort) = &self.effort {
                counters.says("command", effort.problem());
            }
            let position = positioning.map(|positioning| positioning.health(now));
            counters.survey(self.clock.health(), position);
            if let Some(correction) = self.clock.correction() {
                let first = known_since.is_none() && correction.is_new;
                let since = *known_since.get_or_insert(now);
                if now.saturating_sub(since) <= STRAGGLERS {
                    self.put_right(correction, first);
                }
            }
            let quality = self.clock.now().quality;
            if remembered.is_none_or(|(at, of)| of != quality || now.saturating_sub(at) >= REMEMBER)
            {
                remembered = Some((now, quality));
                remember(&self.clock, &self.outbox);
            }
        }
    }

    /// Puts the times of this flight's records that wait right. Only the `first` time pictures, whose times are not
    /// said.
    fn put_right(&self, correction: Correction, first: bool) {
        let revise = |kind, revise: &dyn Fn(&Message) -> Option<Message>| match self
            .outbox
            .revise(kind, revise)
        {
            Ok(0) => {}
            Ok(n) => info!("the times of {n} messages were put right"),
            Err(e) => warn!("times of messages are not put right: {e}"),
        };
        revise(Kind::Sighting, &|message| {
            revised(message, |sighting: &mut Sighting| {
                let quality = sighting.time_quality.as_mut()?;
                correction
                    .put_right(&mut sighting.event_date, quality)
                    .then_some(sighting.event_date)
            })
        });
        revise(Kind::Effort, &|message| {
            revised(message, |effort: &mut Effort| {
                if let Some(mark) = &mut effort.mark {
                    correction.put_right(&mut mark.time, &mut mark.time_quality);
                }
                correction
                    .put_right(&mut effort.time, &mut effort.time_quality)
                    .then_some(effort.time)
            })
        });
        revise(Kind::Track, &|message| {
            revised(message, |track: &mut Track| {
                correction
                    .put_right(&mut track.time, &mut track.time_quality)
                    .then_some(track.time)
            })
        });
        if first {
            revise(Kind::Crop, &|message| {
                Some(Message {
                    time: correction.right(message.time)?,
                    ..message.clone()
                })
            });
            if let Some(effort) = &self.effort {
                effort.clock_was_put_right(correction);
            }
        }
    }

    async fn track(&self) {
        let mut due = interval(self.track_interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            if let Some(track) = self.track_now() {
                let message = Message {
                    kind: Kind::Track,
                    topic: self.flight.platform.track(),
                    content_type: self.flight.encoding.content_type().to_owned(),
                    time: track.time,
                    expiry: Some(TRACK_EXPIRY),
                    payload: self.flight.encoding.encode(&track),
                };
                if let Err(e) = self.outbox.put(vec![message]) {
                    warn!("{e}");
                }
            }
        }
    }

    fn track_now(&self) -> Option<Track> {
        let stamp = self.clock.now();
        let pose = self.positioning.as_ref()?.at(stamp.monotonic)?;
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        let measured =
            |(value, source): (f64, Source)| (source == Source::Measured).then_some(rounded(value));
        let Georeference {
            altitude_meters,
            altitude_datum,
            ..
        } = pose.georeference();
        Some(Track {
            platform: self.flight.platform.to_string(),
            event_id: self.flight.event_id,
            time: stamp.time,
            time_quality: stamp.quality,
            place: pose.place(),
            altitude_meters,
            altitude_datum,
            speed_meters_per_second: pose.fix.speed.map(rounded),
            track_degrees: pose.fix.track.map(rounded),
            heading_degrees: measured(pose.heading),
            roll_degrees: measured(pose.roll),
            pitch_degrees: measured(pose.pitch),
            watch: self.effort.as_ref().map(|effort| effort.now().watch),
        })
    }
}

/// Writes down how the clock stands, for the clock of the next program.
fn remember(clock: &Clock, outbox: &Outbox) {
    let memory = serde_json::to_string(&clock.memory()).expect("a clock is plain values");
    if let Err(e) = outbox.put_with_bookmarks(vec![], &[(CLOCK, &memory)]) {
        warn!("{e}");
    }
}

/// A message with its content changed; `change` gives its new time, or `None` where nothing is to change.
fn revised<T: Serialize + DeserializeOwned>(
    message: &Message,
    change: impl Fn(&mut T) -> Option<Timestamp>,
) -> Option<Message> {
    let encoding = Encoding::of(&message.content_type)?;
    let mut content: T = encoding.decode(&message.payload).ok()?;
    let time = change(&mut content)?;
    Some(Message {
        time,
        payload: encoding.encode(&content),
        ..message.clone()
    })
}
