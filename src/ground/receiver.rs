use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use link::broker::pauses;
use link::codec::{Encoding, decode};
use link::message::{
    Command, Effort, Health, SCHEMA_VERSION, SCHEMA_VERSION_PROPERTY, Sighting, Status, Track,
};
use link::topic::{self, EVERYTHING, Kind, Platform};
use link::{BrokerOptions, LinkError};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use thiserror::Error;
use tokio::time::sleep;
use tracing::warn;
use uuid::Uuid;

use crate::listener::{Connections, Listener};

/// Largest message that is taken: crops are some 30 kB.
pub(crate) const LARGEST_PACKET: u32 = 4 << 20;

/// The broker keeps messages for us so long while we are away.
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 3600;

/// Most messages that the broker hands over before the first of them is acknowledged.
const UNDER_WAY: u16 = 256;

/// What was heard. It is delivered at least once: what has the same id and revision is the same.
#[derive(Clone, Debug)]
pub enum Received {
    /// Whether a platform is there.
    Status(Status),
    /// A sighting.
    Sighting(Box<Sighting>),
    /// The picture of a sighting's head.
    Crop {
        /// The sighting.
        sighting: Uuid,
        /// A JPEG file.
        jpeg: Vec<u8>,
    },
    /// How a platform fares.
    Health(Box<Health>),
    /// Where a platform was.
    Track(Box<Track>),
    /// How the survey is flown.
    Effort(Box<Effort>),
    /// A message that is not as it should be.
    Malformed {
        /// Where it came.
        topic: String,
        /// What is wrong.
        reason: String,
    },
}

/// A message with how it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it came.
    pub topic: String,
    /// Who sent it, as its topic says.
    pub platform: Platform,
    /// Whether it was sent now, or the broker had kept it for whoever subscribes.
    pub is_retained: bool,
    /// The MQTT content type.
    pub content_type: Option<String>,
    /// The bytes that came.
    pub payload: Bytes,
    /// What they say.
    pub received: Received,
}

impl Delivery {
    /// A message that did not come over a link but was read from an aircraft's disk; `None` where its topic is none that
    /// aircraft send to. It says nothing of when the aircraft was heard.
    pub fn from_disk(topic: &str, content_type: &str, payload: Vec<u8>) -> Option<Self> {
        let properties = PublishProperties {
            content_type: Some(content_type.to_owned()),
            ..PublishProperties::default()
        };
        let publish = Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties));
        let delivery = deliver(&publish)?;
        Some(Self {
            is_retained: true,
            ..delivery
        })
    }
}

/// Listens to all platforms of a broker, in a session that outlives connections: the broker keeps what comes while we
/// are away for a week.
///
/// Messages are acknowledged when the [next](Self::next) ones are asked for, or by [`acknowledge`](Self::acknowledge), so
/// that they come again where whoever listens ended before they were stored.
pub struct Receiver {
    broker: BrokerOptions,
    client_id: String,
    client: Arc<Mutex<AsyncClient>>,
    events: EventLoop,
    /// Came and was not asked for yet.
    waiting: VecDeque<Publish>,
    /// Was asked for.
    unacknowledged: Vec<Publish>,
}

impl Receiver {
    /// Connects and subscribes; on return nothing that is published escapes it. One `client_id` is one session.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses the connection or the subscription.
    pub async fn connect(broker: BrokerOptions, client_id: &str) -> Result<Self, LinkError> {
        let (client, events) = client(&broker, client_id);
        let mut receiver = Self {
            broker,
            client_id: client_id.to_owned(),
            client: Arc::new(Mutex::new(client)),
            events,
            waiting: VecDeque::new(),
            unacknowledged: Vec::new(),
        };
        loop {
            match receiver.poll().await? {
                Event::Incoming(Packet::SubAck(_)) => return Ok(receiver),
                Event::Incoming(Packet::Publish(publish)) => receiver.waiting.push_back(publish),
                _ => {}
            }
        }
    }

    /// The next message. Connects again when the connection is lost. Not cancel-safe while it connects: a cancelled call
    /// begins the connection anew.
    pub async fn next(&mut self) -> Received {
        loop {
            if let Some(delivery) = self.next_several(1).await.pop() {
                return delivery.received;
            }
        }
    }

    /// The next message with those that came with it, at most so many, in their order; otherwise as [`next`](Self::next).
    /// One that is stored takes as long as twenty that are stored together.
    pub async fn next_several(&mut self, most: usize) -> Vec<Delivery> {
        self.acknowledge();
        let mut pause = pauses();
        loop {
            // What the client library has read already is there without waiting.
            let more_is_there = self.waiting.len() < most && !self.events.state.events.is_empty();
            if !self.waiting.is_empty() && !more_is_there {
                let several = self.take(most);
                if !several.is_empty() {
                    return several;
                }
                continue;
            }
            match self.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => self.waiting.push_back(publish),
                Ok(_) => {}
                Err(e) => {
                    warn!("{e}");
                    // What was not acknowledged on the old connection comes again on the new one.
                    self.waiting.clear();
                    self.unacknowledged.clear();
                    let (client, events) = client(&self.broker, &self.client_id);
                    *lock(&self.client) = client;
                    self.events = events;
                    if let Some(pause) = pause.next() {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// What sends commands over the same connection.
    pub fn commands(&self) -> Commands {
        Commands(Way::Broker(self.client.clone()))
    }

    /// Tells the broker that what was asked for is stored. The acknowledgements leave with the next call of
    /// [`next`](Self::next).
    pub fn acknowledge(&mut self) {
        for publish in self.unacknowledged.drain(..) {
            acknowledge(&self.client, &publish);
        }
    }

    async fn poll(&mut self) -> Result<Event, LinkError> {
        let event = self.events.poll().await;
        let event = event.map_err(|e| self.broker.explain(e))?;
        match &event {
            Event::Incoming(Packet::ConnAck(_)) => {
                if let Err(e) = lock(&self.client).try_subscribe(EVERYTHING, QoS::AtLeastOnce) {
                    warn!("cannot subscribe: {e}");
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = |code| matches!(code, &SubscribeReasonCode::Success(_));
                if !ack.return_codes.iter().all(granted) {
                    return Err(LinkError::SubscriptionRefused {
                        broker: self.broker.address.to_string(),
                        filter: EVERYTHING.to_owned(),
                        reason: format!("{:?}", ack.return_codes),
                    });
                }
            }
            _ => {}
        }
        Ok(event)
    }

    /// Those of our topics; the others are acknowledged at once.
    fn take(&mut self, most: usize) -> Vec<Delivery> {
        let mut several = Vec::new();
        for publish in self.waiting.drain(..most.min(self.waiting.len())) {
            match deliver(&publish) {
                Some(delivery) => {
                    several.push(delivery);
                    self.unacknowledged.push(publish);
                }
                None => acknowledge(&self.client, &publish),
            }
        }
        several
    }
}

/// What a message says; `None` where its topic is not ours, or a command, which aircraft hear.
pub(crate) fn deliver(publish: &Publish) -> Option<Delivery> {
    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
    let parsed = topic::parse(&topic).filter(|(_, kind)| *kind != Kind::Command);
    let (platform, kind) = parsed?;
    let received = read(publish, &platform, kind);
    let properties = publish.properties.as_ref();
    Some(Delivery {
        received: received.unwrap_or_else(|reason| Received::Malformed {
            topic: topic.clone(),
            reason,
        }),
        topic,
        platform,
        is_retained: publish.retain,
        content_type: properties.and_then(|p| p.content_type.clone()),
        payload: publish.payload.clone(),
    })
}

fn acknowledge(client: &Mutex<AsyncClient>, publish: &Publish) {
    if let Err(e) = lock(client).try_ack(publish) {
        warn!("a message cannot be acknowledged and will come again: {e}");
    }
}

/// Asks aircraft to set something. Clones share a [`Receiver`]'s connection, and whatever they send leaves while it is asked
/// for its [next](Receiver::next) message; or a [`Listener`](crate::Listener)'s connections.
#[derive(Clone)]
pub struct Commands(Way);

#[derive(Clone)]
enum Way {
    Broker(Arc<Mutex<AsyncClient>>),
    Connections(Arc<Connections>),
}

/// A command cannot be sent.
#[derive(Debug, Error)]
#[error("the command to {platform} cannot be sent: {reason}")]
pub struct CommandError {
    platform: Platform,
    reason: String,
}

/// A command that the aircraft does not hear in this time is forgotten: what was meant for that moment would be done later.
const COMMAND_EXPIRY_SECONDS: u32 = 60;

impl Commands {
    pub(crate) fn over(listener: &Listener) -> Self {
        Self(Way::Connections(listener.connections()))
    }

    /// Asks an aircraft; its next effort message is the answer.
    ///
    /// # Errors
    /// Too much waits to be sent.
    pub fn send(&self, platform: &Platform, command: &Command) -> Result<(), CommandError> {
        let properties = PublishProperties {
            content_type: Some(Encoding::Json.content_type().to_owned()),
            message_expiry_interval: Some(COMMAND_EXPIRY_SECONDS),
            ..PublishProperties::default()
        };
        let (topic, payload) = (platform.command(), Encoding::Json.encode(command));
        let client = match &self.0 {
            Way::Broker(client) => client,
            Way::Connections(connections) => {
                connections.publish(&topic, payload, properties);
                return Ok(());
            }
        };
        lock(client)
            .try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
            .map_err(|e| CommandError {
                platform: platform.clone(),
                reason: e.to_string(),
            })
    }
}

fn lock(client: &Mutex<AsyncClient>) -> MutexGuard<'_, AsyncClient> {
    // A client is whole after each call.
    client.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(publish: &Publish, platform: &Platform, kind: Kind) -> Result<Received, String> {
    let properties = publish.properties.as_ref();
    let version = properties.and_then(|properties| {
        let mut properties = properties.user_properties.iter();
        properties.find(|(name, _)| name == SCHEMA_VERSION_PROPERTY)
    });
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if let Some((_, version)) = version
        && major(version) != major(SCHEMA_VERSION)
    {
        return Err(format!(
            "schema {version} is not read by this program, which knows {SCHEMA_VERSION}"
        ));
    }
    let payload = &publish.payload;
    let (received, said) = match kind {
        Kind::Status => {
            let status: Status = decode(properties, payload).map_err(|e| e.to_string())?;
            let said = status.platform.clone();
            (Received::Status(status), Some(said))
        }
        Kind::Health => {
            let health: Box<Health> = decode(properties, payload).map_err(|e| e.to_string())?;
            let said = health.platform.clone();
            (Received::Health(health), Some(said))
        }
        Kind::Sighting => {
            let sighting: Box<Sighting> = decode(properties, payload).map_err(|e| e.to_string())?;
            let said = sighting.platform.clone();
            (Received::Sighting(sighting), Some(said))
        }
        Kind::Track => {
            let track: Box<Track> = decode(properties, payload).map_err(|e| e.to_string())?;
            let said = track.platform.clone();
            (Received::Track(track), Some(said))
        }
        Kind::Effort => {
            let effort: Box<Effort> = decode(properties, payload).map_err(|e| e.to_string())?;
            let said = effort.platform.clone();
            (Received::Effort(effort), Some(said))
        }
        Kind::Command => return Err("commands are heard by aircraft".to_owned()),
        Kind::Crop(sighting) => {
            let jpeg = payload.to_vec();
            (Received::Crop { sighting, jpeg }, None)
        }
    };
    match said {
        Some(said) if said != platform.as_str() => Err(format!(
            "the message says that it is of platform {said:?}, its topic that it is of {platform}"
        )),
        _ => Ok(received),
    }
}

fn client(broker: &BrokerOptions, client_id: &str) -> (AsyncClient, EventLoop) {
    let mut options = broker.client(client_id);
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_SECONDS))
        .set_manual_acks(true)
        .set_receive_maximum(Some(UNDER_WAY))
        .set_max_packet_size(Some(LARGEST_PACKET));
    // Acknowledgements of all that is under way find their place, with some commands.
    AsyncClient::new(options, usize::from(UNDER_WAY) + 64)
}
