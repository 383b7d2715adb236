//! The session of one platform with its broker.
//!
//! The client library keeps its state in memory, forgets what was not acknowledged when the broker has
//! forgotten the session, and may hang in a flush. So nothing is entrusted to it: a small window of
//! messages is under way at a time, the [outbox](crate::outbox) lets go of each only at its PUBACK,
//! and on any error or silence the whole client is thrown away, a fresh one made, and what is
//! unacknowledged sent again. Receivers drop duplicates by id and revision.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    LastWill, LastWillProperties, Packet, PubAckReason, PublishProperties,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::broker::{BrokerOptions, KEEP_ALIVE, LinkError, pauses};
use super::message::{
    Health, JPEG, JSON, Presence, SCHEMA_VERSION, SCHEMA_VERSION_PROPERTY, Status,
};
use super::topic::Platform;
use crate::outbox::{Key, Outbox, Priority};

/// After this time the broker forgets a sighting that no receiver has taken.
pub const SIGHTING_EXPIRY_SECONDS: u32 = 7 * 24 * 3600;
/// After this time the broker forgets a crop that no receiver has taken.
pub const CROP_EXPIRY_SECONDS: u32 = 24 * 3600;
/// After this time the broker forgets how the service fared.
pub const HEALTH_EXPIRY_SECONDS: u32 = 300;

/// Most messages under way at a time. Small: all of it is sent again after a lost connection.
const WINDOW: usize = 16;

/// Room for the window, statuses, health and the good-bye in the client's channel, so that handing a
/// message over never waits.
const CHANNEL: usize = WINDOW + 8;

/// The client pings each [`KEEP_ALIVE`], so an event comes at least that often. If none does for this
/// long, it hangs.
const SILENCE: std::time::Duration = KEEP_ALIVE.saturating_mul(2);

/// What the session has done so far; readable while it runs.
#[derive(Debug, Default)]
pub struct SessionCounters {
    sent: AtomicU64,
    connections: AtomicU64,
}

impl SessionCounters {
    /// Sightings and crops handed to the broker, repetitions counted again.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Connections that the broker accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// See the [module](self).
pub struct Session {
    /// How to reach the broker.
    pub broker: BrokerOptions,
    /// Who speaks.
    pub platform: Platform,
    /// What is to be said.
    pub outbox: Outbox,
    /// The newest health, said once each time it changes, while connected.
    pub health: watch::Receiver<Option<Health>>,
    /// Cancelled when nothing more will come into the outbox.
    pub complete: CancellationToken,
    /// What was done.
    pub counters: Arc<SessionCounters>,
}

/// A message of QoS 1 that is with the client.
enum Sent {
    Message(Key),
    Online,
    Stopped,
}

impl Session {
    /// Sends what is in the outbox until it is [complete](Self::complete) and empty, says `stopped`
    /// and ends. Tries again without end when the connection fails; dropping the future ends it as a
    /// crash would, so that the broker says `offline`.
    ///
    /// # Errors
    /// The very first connection fails for a reason that [is permanent](LinkError::is_permanent).
    /// Later such failures are only logged, because what was decided must not be lost with the process.
    pub async fn run(mut self) -> Result<(), LinkError> {
        let mut pause = pauses();
        loop {
            let before = self.counters.connections();
            let Err(error) = self.connection().await else {
                return Ok(());
            };
            self.outbox.send_again();
            if self.counters.connections() == 0 && error.is_permanent() {
                return Err(error);
            }
            if self.counters.connections() > before {
                pause = pauses();
            }
            if error.is_taken_over() {
                error!(
                    "another program has connected to the broker as platform {}: two aircraft need two names",
                    self.platform
                );
            }
            let pause = pause.next().unwrap_or(KEEP_ALIVE);
            warn!("{error}; trying again in {:.1} s", pause.as_secs_f64());
            sleep(pause).await;
        }
    }

    /// One connection, from its beginning to its end in order or to its error.
    async fn connection(&mut self) -> Result<(), LinkError> {
        let mut options = self.broker.client(&format!("callosity-{}", self.platform));
        options.set_last_will(LastWill::new(
            self.platform.status(),
            self.status(Presence::Offline),
            QoS::AtLeastOnce,
            true,
            Some(LastWillProperties {
                delay_interval: None,
                payload_format_indicator: Some(1),
                message_expiry_interval: None,
                content_type: Some(JSON.to_owned()),
                response_topic: None,
                correlation_data: None,
                user_properties: version(),
            }),
        ));
        let (client, events) = AsyncClient::new(options, CHANNEL);
        let mut connection = Connection {
            session: self,
            client,
            connected: false,
            largest_packet: None,
            handed_over: VecDeque::new(),
            under_way: HashMap::new(),
            stopping: false,
        };
        connection.run(events).await
    }

    fn status(&self, status: Presence) -> Vec<u8> {
        json(&Status {
            platform: self.platform.to_string(),
            status,
            time: now(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

struct Connection<'a> {
    session: &'a mut Session,
    client: AsyncClient,
    connected: bool,
    /// The broker's limit, in bytes.
    largest_packet: Option<u32>,
    /// Handed to the client, which has given no packet id yet; in the order of handing over.
    handed_over: VecDeque<Sent>,
    /// By packet id.
    under_way: HashMap<u16, Sent>,
    /// Whether `stopped` was handed over.
    stopping: bool,
}

impl Connection<'_> {
    async fn run(&mut self, mut events: EventLoop) -> Result<(), LinkError> {
        loop {
            let polled = self.next_event(&mut events).await?;
            match polled {
                Event::Incoming(Packet::ConnAck(ack)) => {
                    self.largest_packet = ack.properties.and_then(|p| p.max_packet_size);
                    self.connected = true;
                    let connections = &self.session.counters.connections;
                    let earlier = connections.fetch_add(1, Ordering::Relaxed);
                    let again = if earlier > 0 { " again" } else { "" };
                    info!("connected{again} to broker {}", self.session.broker.address);
                    self.say_status(Presence::Online, Sent::Online);
                }
                // The client gives packet ids in the order in which messages were handed over, and 0
                // where there will be no acknowledgement.
                Event::Outgoing(Outgoing::Publish(id)) if id != 0 => {
                    if let Some(sent) = self.handed_over.pop_front() {
                        self.under_way.insert(id, sent);
                    }
                }
                Event::Incoming(Packet::PubAck(ack)) => match self.under_way.remove(&ack.pkid) {
                    Some(Sent::Message(key)) => self.acknowledged(key, ack.reason),
                    Some(Sent::Stopped) => {
                        info!("broker has everything; status is stopped");
                        if let Err(e) = self.client.try_disconnect() {
                            warn!("cannot say good-bye to the broker: {e}");
                            return Ok(());
                        }
                    }
                    Some(Sent::Online) | None => {}
                },
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => {}
            }
            self.hand_over();
        }
    }

    /// Polls the client, and meanwhile hands it what comes. The poll is never given up half-way, since
    /// that would begin a connection anew.
    async fn next_event(&mut self, events: &mut EventLoop) -> Result<Event, LinkError> {
        let mut poll = pin!(events.poll());
        let silence = Instant::now() + SILENCE;
        let outbox = self.session.outbox.clone();
        let complete = self.session.complete.clone();
        let mut health_may_change = true;
        loop {
            let waiting_for_end = self.connected && !self.stopping;
            let mut health = self.session.health.clone();
            tokio::select! {
                event = &mut poll => return event.map_err(|e| self.session.broker.explain(e)),
                () = outbox.changed(), if self.connected => self.hand_over(),
                changed = health.changed(), if waiting_for_end && health_may_change => {
                    match changed {
                        Ok(()) => self.say_health(),
                        Err(_) => health_may_change = false,
                    }
                }
                () = complete.cancelled(), if waiting_for_end && outbox.depth().is_empty() => {
                    self.hand_over();
                }
                () = sleep_until(silence), if self.connected => {
                    return Err(LinkError::Silent {
                        broker: self.session.broker.address.to_string(),
                        seconds: SILENCE.as_secs(),
                    });
                }
            }
        }
    }

    /// Fills the window; when all is delivered and nothing more will come, says `stopped`.
    fn hand_over(&mut self) {
        if !self.connected || self.stopping {
            return;
        }
        while self.handed_over.len() + self.under_way.len() < WINDOW {
            let Some((key, message)) = self.session.outbox.next() else {
                break;
            };
            let size = message.payload.len() + message.topic.len() + 200;
            if self.largest_packet.is_some_and(|l| size > l as usize) {
                error!(
                    "message for {} of {} bytes is larger than the broker allows; thrown away",
                    message.topic,
                    message.payload.len()
                );
                self.session.outbox.refuse(key);
                continue;
            }
            let (content_type, expiry) = match message.priority {
                Priority::Sighting => (JSON, SIGHTING_EXPIRY_SECONDS),
                Priority::Crop => (JPEG, CROP_EXPIRY_SECONDS),
            };
            debug!("sending to {}", message.topic);
            let properties = properties(content_type, Some(expiry));
            let sent = self.client.try_publish_with_properties(
                message.topic,
                QoS::AtLeastOnce,
                false,
                message.payload,
                properties,
            );
            if let Err(e) = sent {
                // The channel has room for the window, so this is a topic that can never be sent.
                error!("message cannot be sent: {e}");
                self.session.outbox.refuse(key);
                continue;
            }
            self.session.counters.sent.fetch_add(1, Ordering::Relaxed);
            self.handed_over.push_back(Sent::Message(key));
        }
        // In this order: after `complete` nothing is put in, so the emptiness that is seen is final.
        if self.session.complete.is_cancelled() && self.session.outbox.depth().is_empty() {
            self.say_health();
            self.say_status(Presence::Stopped, Sent::Stopped);
            self.stopping = true;
        }
    }

    fn acknowledged(&mut self, key: Key, reason: PubAckReason) {
        match reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                self.session.outbox.acknowledge(key);
            }
            reason => {
                error!("broker refuses a message for good: {reason:?}; thrown away");
                self.session.outbox.refuse(key);
            }
        }
    }

    fn say_status(&mut self, status: Presence, sent: Sent) {
        let said = self.client.try_publish_with_properties(
            self.session.platform.status(),
            QoS::AtLeastOnce,
            true,
            self.session.status(status),
            properties(JSON, None),
        );
        match said {
            Ok(()) => self.handed_over.push_back(sent),
            Err(e) => error!("status cannot be sent: {e}"),
        }
    }

    fn say_health(&mut self) {
        let Some(payload) = self.session.health.borrow_and_update().as_ref().map(json) else {
            return;
        };
        let said = self.client.try_publish_with_properties(
            self.session.platform.health(),
            QoS::AtMostOnce,
            false,
            payload,
            properties(JSON, Some(HEALTH_EXPIRY_SECONDS)),
        );
        if let Err(e) = said {
            debug!("health was not sent: {e}");
        }
    }
}

fn version() -> Vec<(String, String)> {
    vec![(
        SCHEMA_VERSION_PROPERTY.to_owned(),
        SCHEMA_VERSION.to_owned(),
    )]
}

fn properties(content_type: &str, expiry_seconds: Option<u32>) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(u8::from(content_type == JSON)),
        message_expiry_interval: expiry_seconds,
        user_properties: version(),
        content_type: Some(content_type.to_owned()),
        ..PublishProperties::default()
    }
}

/// A message as JSON.
pub(crate) fn json<T: serde::Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have string keys and no failing serialiser")
}

/// The time, to milliseconds.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(jiff::Unit::Millisecond).unwrap_or(now)
}
