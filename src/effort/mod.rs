//! How the survey is flown: who flies for which project, whether observers watch, in which weather, and what they mark.
//!
//! [`EffortLog`] holds it. Each change is checked, and then put into the [outbox](crate::outbox) as an effort message
//! together with the new state, in one transaction: what was said survives a crash, and is said to the ground.
//! [`control`](crate::control) lets the box's own machine read and set it; [`EffortLog::command`] obeys the ground.

mod change;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use link::codec::{Encoding, decode};
use link::message::{Command, EFFORT_EXPIRY, Effort, EffortReason, Mark, Place, Watch, Weather};
use link::topic::Platform;
use rumqttc::v5::mqttbytes::v5::Publish;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tracing::warn;
use uuid::Uuid;

use crate::clock::{Clock, Correction, is_trusted};
use crate::outbox::{Kind, Message, Outbox};
use crate::position::Positioning;

pub use change::Refusal;

/// Under this name the outbox keeps the state.
const BOOKMARK: &str = "effort";
/// Watch and weather of a flight that ended longer ago say nothing of this one.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(6);
/// Marks that can be filled in.
const MARKS: usize = 500;
/// Commands whose repetitions are told.
const COMMANDS: usize = 256;

/// Who flies, as it is configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EffortSettings {
    /// Who observes.
    pub observers: Vec<String>,
    /// The survey.
    pub project: Option<String>,
    /// Registration or type of the aircraft.
    pub aircraft: Option<String>,
}

/// How the survey is flown at the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffortState {
    /// What the observers do.
    pub watch: Watch,
    /// Who observes.
    #[serde(default)]
    pub observers: Vec<String>,
    /// The survey.
    #[serde(default)]
    pub project: Option<String>,
    /// Registration or type of the aircraft.
    #[serde(default)]
    pub aircraft: Option<String>,
    /// Conditions.
    #[serde(default, flatten)]
    pub weather: Weather,
}

/// As it outlives the program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    state: EffortState,
    marks: VecDeque<Mark>,
    /// When this was said.
    said: Option<Timestamp>,
    /// The flight, with the revision of its next message: one that was cut short goes on.
    next: Option<(Uuid, u32)>,
}

/// A change that was not made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EffortError {
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such mark.
    #[error("there is no mark {0}: GET /marks lists those that can be filled in")]
    NoMark(Uuid),
    /// The flight has said that it ends: nothing more is said of its effort.
    #[error("the flight has ended; say it to the next one")]
    Ended,
    /// A command that cannot be read.
    #[error("a command cannot be read: {0}")]
    Command(String),
}

/// See the [module](self). Clones share it.
#[derive(Clone)]
pub struct EffortLog {
    /// What all messages of the flight have in common.
    flight: Arc<FlightOf>,
    outbox: Outbox,
    clock: Clock,
    positioning: Option<Positioning>,
    state: Arc<Mutex<State>>,
}

/// Which flight.
#[derive(Clone, Debug)]
pub struct FlightOf {
    /// Who flies.
    pub platform: Platform,
    /// The flight.
    pub event_id: Uuid,
    /// How messages are encoded.
    pub encoding: Encoding,
}

struct State {
    kept: Kept,
    revision: u32,
    commands: VecDeque<Uuid>,
    problem: Option<String>,
    ended: bool,
}

impl EffortLog {
    /// Goes on with what an earlier process left, and says that the flight begins.
    pub fn begin(
        flight: FlightOf,
        settings: EffortSettings,
        outbox: Outbox,
        clock: Clock,
        positioning: Option<Positioning>,
    ) -> Self {
        let kept = outbox
            .bookmark(BOOKMARK)
            .map(|text| serde_json::from_str::<Kept>(&text));
        let mut kept = match kept {
            Some(Ok(kept)) => kept,
            Some(Err(e)) => {
                warn!("what was kept of the effort cannot be read: {e}");
                Kept::default()
            }
            None => Kept::default(),
        };
        let now = clock.now();
        let age = kept.said.map(|said| now.time.duration_since(said));
        // Where the time is not known, the program was most likely started again in flight.
        if is_trusted(now.quality) && age.is_none_or(|age| age > FORGOTTEN) {
            kept.state.watch = Watch::Off;
            kept.state.weather = Weather::default();
        }
        let state = &mut kept.state;
        if !settings.observers.is_empty() {
            state.observers = settings.observers;
        }
        state.project = settings.project.or(state.project.take());
        state.aircraft = settings.aircraft.or(state.aircraft.take());
        let next = kept
            .next
            .filter(|(event_id, _)| *event_id == flight.event_id);
        let log = Self {
            flight: Arc::new(flight),
            outbox,
            clock,
            positioning,
            state: Arc::new(Mutex::new(State {
                kept,
                revision: next.map_or(0, |(_, revision)| revision),
                commands: VecDeque::new(),
                problem: None,
                ended: false,
            })),
        };
        log.say(&mut log.state(), EffortReason::Begin, None, None);
        log
    }

    /// How the survey is flown.
    pub fn now(&self) -> EffortState {
        self.state().kept.state.clone()
    }

    /// The flight and the time, with [`now`](Self::now), as `GET /effort` gives it.
    pub fn report(&self) -> Value {
        let mut report = serde_json::to_value(self.now()).unwrap_or_default();
        let stamp = self.clock.now();
        report["platform"] = self.flight.platform.as_str().into();
        report["eventID"] = self.flight.event_id.to_string().into();
        report["time"] = stamp.time.to_string().into();
        report["timeQuality"] = serde_json::to_value(stamp.quality).unwrap_or_default();
        report
    }

    /// Sets the fields that `change` names, as `PUT /effort` takes them; `null` takes what was said back.
    ///
    /// # Errors
    /// A field is not known or a value is out of its range; nothing is changed then.
    pub fn change(&self, change: &Value) -> Result<EffortState, EffortError> {
        let mut state = self.flying()?;
        let changed = change::apply(&state.kept.state, change)?;
        // Said again though nothing is different: somebody confirmed it.
        state.kept.state = changed.clone();
        self.say(&mut state, EffortReason::Change, None, None);
        Ok(changed)
    }

    /// Marks this moment and the place of the aircraft; `more` may fill in what is known already, or be null.
    ///
    /// # Errors
    /// As of [`fill_in`](Self::fill_in).
    pub fn mark(&self, more: &Value) -> Result<Mark, EffortError> {
        let stamp = self.clock.now();
        let mark = Mark {
            mark_id: Uuid::now_v7(),
            revision: 0,
            time: stamp.time,
            time_quality: stamp.quality,
            place: self.place(stamp.monotonic),
            scientific_name: None,
            individual_count: None,
            occurrence_remarks: None,
        };
        let mark = change::fill_in(&mark, more)?;
        let mut state = self.flying()?;
        state.kept.marks.push_back(mark.clone());
        if state.kept.marks.len() > MARKS {
            state.kept.marks.pop_front();
        }
        self.say(&mut state, EffortReason::Mark, Some(mark.clone()), None);
        Ok(mark)
    }

    /// Writes more into a mark, also one of an earlier flight.
    ///
    /// # Errors
    /// There is no such mark, a field is not known, or a value is out of its range.
    pub fn fill_in(&self, mark_id: Uuid, more: &Value) -> Result<Mark, EffortError> {
        let mut state = self.flying()?;
        let mut marks = state.kept.marks.iter_mut();
        let mark = marks.find(|mark| mark.mark_id == mark_id);
        let mark = mark.ok_or(EffortError::NoMark(mark_id))?;
        let mut filled = change::fill_in(mark, more)?;
        filled.revision += 1;
        *mark = filled.clone();
        self.say(&mut state, EffortReason::Mark, Some(filled.clone()), None);
        Ok(filled)
    }

    /// The marks that can be filled in, latest first.
    pub fn marks(&self) -> Vec<Mark> {
        self.state().kept.marks.iter().rev().cloned().collect()
    }

    /// Does what the ground asks. What is wrong with it becomes the [problem](Self::problem).
    pub fn command(&self, publish: &Publish) {
        let obeyed = self.obey(publish);
        if let Err(e) = &obeyed {
            warn!("{e}");
        }
        self.state().problem = obeyed.err().map(|e| e.to_string());
    }

    fn obey(&self, publish: &Publish) -> Result<(), EffortError> {
        if publish.retain {
            return Err(EffortError::Command(
                "it was retained by the broker, so nobody knows how old it is; send it without the retain flag"
                    .to_owned(),
            ));
        }
        let command: Command = decode(publish.properties.as_ref(), &publish.payload)
            .map_err(|e| EffortError::Command(e.to_string()))?;
        {
            let mut state = self.flying()?;
            if state.commands.contains(&command.command_id) {
                return Ok(());
            }
            if state.commands.len() == COMMANDS {
                state.commands.pop_front();
            }
            state.commands.push_back(command.command_id);
        }
        if let Some(change) = &command.effort {
            self.change(change)?;
        }
        if let Some(mark) = &command.mark {
            self.mark(mark)?;
        }
        Ok(())
    }

    /// What is wrong with the last command, if something is.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Puts the times of this flight's marks right, and says by how much to whoever has heard earlier messages.
    pub fn clock_was_put_right(&self, correction: Correction) {
        let mut state = self.state();
        for mark in &mut state.kept.marks {
            correction.put_right(&mut mark.time, &mut mark.time_quality);
        }
        let seconds = correction.by.as_secs_f64();
        self.say(&mut state, EffortReason::Clock, None, Some(seconds));
    }

    /// Says that the service ends in order.
    pub fn end(&self) {
        let mut state = self.state();
        self.say(&mut state, EffortReason::End, None, None);
        // What came later would be said by nobody: the outbox is being emptied.
        state.ended = true;
    }

    /// The state of a flight that has not ended.
    fn flying(&self) -> Result<MutexGuard<'_, State>, EffortError> {
        let state = self.state();
        if state.ended {
            return Err(EffortError::Ended);
        }
        Ok(state)
    }

    /// Where the aircraft is at a moment of the monotonic clock.
    fn place(&self, moment: std::time::Duration) -> Option<Place> {
        let pose = self.positioning.as_ref()?.at(moment)?;
        Some(pose.place())
    }

    fn say(
        &self,
        state: &mut State,
        reason: EffortReason,
        mark: Option<Mark>,
        time_correction_seconds: Option<f64>,
    ) {
        let stamp = self.clock.now();
        let effort = state.kept.state.clone();
        let message = Effort {
            platform: self.flight.platform.to_string(),
            event_id: self.flight.event_id,
            revision: state.revision,
            time: stamp.time,
            time_quality: stamp.quality,
            reason,
            watch: effort.watch,
            observers: effort.observers,
            project: effort.project,
            aircraft: effort.aircraft,
            weather: effort.weather,
            place: self.place(stamp.monotonic),
            mark,
            time_correction_seconds,
        };
        state.revision += 1;
        state.kept.said = Some(stamp.time);
        state.kept.next = Some((self.flight.event_id, state.revision));
        let kept = serde_json::to_string(&state.kept).unwrap_or_default();
        let message = Message {
            kind: Kind::Effort,
            topic: self.flight.platform.effort(),
            content_type: self.flight.encoding.content_type().to_owned(),
            time: stamp.time,
            expiry: Some(EFFORT_EXPIRY),
            payload: self.flight.encoding.encode(&message),
        };
        // The outbox holds it in memory where the disk takes no more, and the service reports that.
        let bookmark = [(BOOKMARK, kept.as_str())];
        if let Err(e) = self.outbox.put_with_bookmarks(vec![message], &bookmark) {
            warn!("{e}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use link::message::Glare;
    use rumqttc::v5::mqttbytes::QoS;
    use serde_json::json;

    use super::*;
    use crate::clock::SystemClock;
    use crate::outbox::{Limits, Window};

    fn log(folder: &std::path::Path) -> (EffortLog, Outbox) {
        log_of(folder, Uuid::now_v7())
    }

    fn log_of(folder: &std::path::Path, event_id: Uuid) -> (EffortLog, Outbox) {
        let outbox = Outbox::open(folder, Limits::default()).unwrap();
        let flight = FlightOf {
            platform: "test".parse().unwrap(),
            event_id,
            encoding: Encoding::Json,
        };
        let settings = EffortSettings {
            observers: vec!["A".into(), "B".into()],
            project: Some("Gulf".into()),
            aircraft: None,
        };
        let clock = Clock::start(Arc::new(SystemClock), None);
        let log = EffortLog::begin(flight, settings, outbox.clone(), clock, None);
        (log, outbox)
    }

    fn said(outbox: &Outbox) -> Vec<Effort> {
        let all = Window {
            messages: 1000,
            bytes: 1 << 30,
            crops: 1,
        };
        outbox.send_again();
        let messages = std::iter::from_fn(|| outbox.take(&all));
        let efforts = messages.map(|(_, message)| {
            assert_eq!(message.kind, Kind::Effort);
            serde_json::from_slice(&message.payload).unwrap()
        });
        efforts.collect()
    }

    #[test]
    fn nothing_is_said_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (log, outbox) = log(folder.path());
        let mark = log.mark(&Value::Null).unwrap();
        log.end();
        let before = said(&outbox).len();
        let change = json!({"watch": "online"});
        assert!(matches!(log.change(&change), Err(EffortError::Ended)));
        assert!(matches!(log.mark(&Value::Null), Err(EffortError::Ended)));
        let filled = log.fill_in(mark.mark_id, &json!({"individualCount": 2}));
        assert!(matches!(filled, Err(EffortError::Ended)));
        let command = Command {
            command_id: Uuid::now_v7(),
            effort: Some(change),
            mark: None,
        };
        let payload = serde_json::to_vec(&command).unwrap();
        let publish = Publish::new("callosity/v1/demo/command", QoS::AtLeastOnce, payload, None);
        log.command(&publish);
        assert!(log.problem().is_some_and(|said| said.contains("has ended")));
        assert_eq!(said(&outbox).len(), before);
        assert_eq!(log.now().watch, Watch::Off);
    }

    #[test]
    fn each_change_is_said_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let mark = {
            let (log, outbox) = log(folder.path());
            let change = json!({"watch": "online", "beaufort": 3, "glareLeft": "severe", "cloudPercent": 40});
            log.change(&change).unwrap();
            log.change(&json!({"beaufort": 4, "cloudPercent": null}))
                .unwrap();
            let mark = log.mark(&Value::Null).unwrap();
            let filled = log
                .fill_in(mark.mark_id, &json!({"individualCount": 2}))
                .unwrap();
            assert_eq!((filled.revision, filled.time), (1, mark.time));
            let said = said(&outbox);
            let revisions: Vec<_> = said.iter().map(|effort| effort.revision).collect();
            assert_eq!(revisions, [0, 1, 2, 3, 4]);
            assert_eq!(said[0].reason, EffortReason::Begin);
            assert_eq!(said[0].observers, ["A", "B"]);
            assert_eq!(
                (said[1].watch, said[1].weather.cloud_percent),
                (Watch::OnLine, Some(40))
            );
            assert_eq!(said[2].weather.beaufort, Some(4));
            assert_eq!(
                (said[2].weather.cloud_percent, said[2].weather.glare_left),
                (None, Some(Glare::Severe))
            );
            assert_eq!(said[4].mark.as_ref().unwrap().individual_count, Some(2));
            mark
        };
        // As after a crash: nothing was closed.
        let (log, _) = log(folder.path());
        assert_eq!(log.now().watch, Watch::OnLine);
        assert_eq!(log.now().weather.beaufort, Some(4));
        assert_eq!(log.marks().len(), 1);
        log.fill_in(mark.mark_id, &json!({"occurrenceRemarks": "calf"}))
            .unwrap();
        assert_eq!(log.marks()[0].individual_count, Some(2));
        let nobody = log
            .fill_in(Uuid::now_v7(), &Value::Null)
            .unwrap_err()
            .to_string();
        assert!(nobody.contains("GET /marks"), "{nobody}");
    }

    /// Receivers drop what has a flight's revision again.
    #[test]
    fn a_flight_that_was_cut_short_goes_on_counting() {
        let folder = tempfile::tempdir().unwrap();
        let event_id = Uuid::now_v7();
        for begun in 0..3 {
            let (log, outbox) = log_of(folder.path(), event_id);
            log.change(&json!({"beaufort": begun})).unwrap();
            let revisions: Vec<_> = said(&outbox).iter().map(|effort| effort.revision).collect();
            assert_eq!(revisions, (0..2 * (begun + 1)).collect::<Vec<_>>());
        }
        let (_, outbox) = log(folder.path());
        assert_eq!(said(&outbox).last().unwrap().revision, 0);
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (log, outbox) = log(folder.path());
        let before = log.now();
        for change in [
            json!({"watch": "online", "beaufort": 13}),
            json!({"wind": 3}),
            json!(3),
        ] {
            log.change(&change).unwrap_err();
        }
        log.mark(&json!({"individualCount": 0})).unwrap_err();
        assert_eq!(
            (log.now(), log.marks().len(), said(&outbox).len()),
            (before, 0, 1)
        );
    }

    #[test]
    fn commands_are_obeyed_once_and_their_errors_told() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = log(folder.path());
        let publish = |value: &Value| {
            Publish::new(
                "callosity/v1/test/command",
                QoS::AtLeastOnce,
                value.to_string(),
                None,
            )
        };
        let command = json!({"commandID": Uuid::now_v7(), "effort": {"watch": "circling"}, "mark": {"individualCount": 3}});
        for _ in 0..3 {
            log.command(&publish(&command));
        }
        assert_eq!((log.now().watch, log.marks().len()), (Watch::Circling, 1));
        assert_eq!(log.problem(), None);
        let wrong = json!({"commandID": Uuid::now_v7(), "effort": {"beaufort": 99}});
        log.command(&publish(&wrong));
        assert!(log.problem().unwrap().contains("beaufort"));
        log.command(&publish(&json!({"effort": {}})));
        assert!(log.problem().unwrap().contains("commandID"));
        let mut old = publish(&json!({"commandID": Uuid::now_v7(), "effort": {"watch": "off"}}));
        old.retain = true;
        log.command(&old);
        assert!(log.problem().unwrap().contains("retain"));
        assert_eq!(log.now().watch, Watch::Circling);
    }

    #[test]
    fn marks_are_put_right_once() {
        let folder = tempfile::tempdir().unwrap();
        let (log, outbox) = log(folder.path());
        let mark = log.mark(&Value::Null).unwrap();
        let by = SignedDuration::from_secs(3600);
        let correction = Correction {
            since: mark.time,
            by,
            is_new: true,
        };
        log.clock_was_put_right(correction);
        log.clock_was_put_right(correction);
        let right = if is_trusted(mark.time_quality) {
            mark.time
        } else {
            mark.time + by
        };
        assert_eq!(log.marks()[0].time, right);
        assert_eq!(
            said(&outbox).last().unwrap().time_correction_seconds,
            Some(3600.0)
        );
    }
}
