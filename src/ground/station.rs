//! What a ground station does all the time: it receives, stores and acknowledges, in this order, and repeats commands
//! until aircraft answer them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use link::message::{Command, EffortReason};
use link::topic::Platform;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{interval, sleep};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::catalogue::Catalogue;
use crate::listener::Listener;
use crate::receiver::{Commands, Delivery, Received, Receiver};
use crate::store::{Kept, Store, StoreError};

/// Most messages that are stored in one go.
const TOGETHER: usize = 256;

/// Pause after the store failed, doubled each time to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A command is said again after this time without an answer: an aircraft that has just connected does not listen yet, and
/// does only once what it hears twice.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A command that is not answered in this time is given up: what was meant for that moment would be done later.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// Counts that grow whenever something changes, for those who watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Revisions of sightings and crops that were stored, since the station started.
    pub sightings: u64,
    /// Messages on aircraft.
    pub aircraft: u64,
    /// Messages that make no sense.
    pub set_aside: u64,
    /// Decisions of persons.
    pub decisions: u64,
    /// Messages that came again.
    pub repeated: u64,
}

/// How a command fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// When it was given.
    pub since: Timestamp,
    /// `waiting`, `answered`, `given up`.
    pub state: AskedState,
}

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AskedState {
    /// It is said again and again.
    Waiting,
    /// The aircraft has answered.
    Answered,
    /// The aircraft did not answer.
    GivenUp,
}

struct Pending {
    command: Command,
    answer: EffortReason,
    asked: Asked,
    begun: Instant,
}

/// Where messages come from.
pub enum Source {
    /// A broker.
    Broker(Box<Receiver>),
    /// The aircraft themselves.
    Aircraft(Listener),
}

impl From<Receiver> for Source {
    fn from(receiver: Receiver) -> Self {
        Self::Broker(Box::new(receiver))
    }
}

impl From<Listener> for Source {
    fn from(listener: Listener) -> Self {
        Self::Aircraft(listener)
    }
}

impl Source {
    async fn next_several(&mut self, most: usize) -> Vec<Delivery> {
        match self {
            Self::Broker(receiver) => receiver.next_several(most).await,
            Self::Aircraft(listener) => listener.next_several(most).await,
        }
    }

    fn commands(&self) -> Commands {
        match self {
            Self::Broker(receiver) => receiver.commands(),
            Self::Aircraft(listener) => listener.commands(),
        }
    }
}

/// A ground station.
pub struct Station {
    /// What it keeps.
    pub store: Store,
    /// Reference photographs.
    pub catalogue: Catalogue,
    changes: watch::Sender<Changes>,
    commands: Mutex<Option<Commands>>,
    /// Of each aircraft the last command.
    pending: Mutex<BTreeMap<String, Pending>>,
    /// Why the store takes nothing at the moment.
    trouble: Mutex<Option<String>>,
}

impl Station {
    /// A station of this store; the catalogue's animals get names in it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn new(store: Store, catalogue: Catalogue) -> Result<Arc<Self>, StoreError> {
        store.add_animals(&catalogue.names()).await?;
        Ok(Arc::new(Self {
            store,
            catalogue,
            changes: watch::Sender::default(),
            commands: Mutex::default(),
            pending: Mutex::default(),
            trouble: Mutex::default(),
        }))
    }

    /// Receives and stores until the future is dropped. While the store takes nothing, nothing is acknowledged: the broker,
    /// or the aircraft, keeps it.
    pub async fn receive(self: &Arc<Self>, source: impl Into<Source>) {
        let mut source = source.into();
        *lock(&self.commands) = Some(source.commands());
        let listen = async {
            loop {
                let deliveries = source.next_several(TOGETHER).await;
                let kept = self.keep(&deliveries).await;
                self.hear(&deliveries, kept);
            }
        };
        let repeat = async {
            let mut ticks = interval(SAID_AGAIN_AFTER);
            loop {
                ticks.tick().await;
                self.say_again();
            }
        };
        tokio::join!(listen, repeat);
    }

    /// As [`receive`](Self::receive), until `end` is ready; what is being stored then is not acknowledged and comes again.
    pub async fn receive_until(self: &Arc<Self>, source: impl Into<Source>, end: impl Future) {
        tokio::select! {
            () = self.receive(source) => {}
            _ = end => {}
        }
    }

    async fn keep(&self, deliveries: &[Delivery]) -> Kept {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.store.keep(deliveries).await {
                Ok(kept) => {
                    if lock(&self.trouble).take().is_some() {
                        info!("the store takes messages again");
                    }
                    return kept;
                }
                Err(e) => {
                    error!("nothing can be stored, so nothing is acknowledged: {e}");
                    *lock(&self.trouble) = Some(e.to_string());
                    self.changes.send_modify(|changes| changes.aircraft += 1);
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn hear(&self, deliveries: &[Delivery], kept: Kept) {
        for delivery in deliveries {
            match &delivery.received {
                Received::Effort(effort) => {
                    if let Some(pending) = lock(&self.pending).get_mut(&effort.platform)
                        && pending.asked.state == AskedState::Waiting
                        && pending.answer == effort.reason
                    {
                        pending.asked.state = AskedState::Answered;
                    }
                }
                Received::Malformed { topic, reason } => warn!("{topic}: {reason}"),
                _ => {}
            }
        }
        self.changes.send_modify(|changes| {
            changes.sightings += kept.sightings;
            changes.aircraft += kept.aircraft;
            changes.set_aside += kept.set_aside;
            changes.repeated += kept.repeated;
        });
    }

    /// Watches what changes.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Says that a person decided.
    pub fn decided(&self) {
        self.changes.send_modify(|changes| changes.decisions += 1);
    }

    /// Why the store takes nothing at the moment, if it does not.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Asks an aircraft to set its effort or a mark, again and again until its effort message answers. A command that it
    /// was asked before and has not answered is forgotten.
    pub fn ask(
        &self,
        platform: &Platform,
        effort: Option<serde_json::Value>,
        mark: Option<serde_json::Value>,
    ) {
        let answer = if mark.is_some() {
            EffortReason::Mark
        } else {
            EffortReason::Change
        };
        let pending = Pending {
            command: Command {
                command_id: Uuid::now_v7(),
                effort,
                mark,
            },
            answer,
            asked: Asked {
                since: link::message::now(),
                state: AskedState::Waiting,
            },
            begun: Instant::now(),
        };
        lock(&self.pending).insert(platform.as_str().to_owned(), pending);
        self.say_again();
    }

    /// How the last command to an aircraft fares.
    pub fn asked(&self, platform: &str) -> Option<Asked> {
        lock(&self.pending)
            .get(platform)
            .map(|pending| pending.asked.clone())
    }

    fn say_again(&self) {
        let commands = lock(&self.commands).clone();
        let Some(commands) = commands else {
            return;
        };
        for (platform, pending) in lock(&self.pending).iter_mut() {
            if pending.asked.state != AskedState::Waiting {
                continue;
            }
            if pending.begun.elapsed() > GIVEN_UP_AFTER {
                pending.asked.state = AskedState::GivenUp;
                self.changes.send_modify(|changes| changes.aircraft += 1);
                continue;
            }
            let Ok(platform) = platform.parse() else {
                continue;
            };
            if let Err(e) = commands.send(&platform, &pending.command) {
                warn!("{e}");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever is behind these locks is whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
