//! The receiving side: what a ground station hears.
//!
//! Knows the messages and nothing of how they came about.

use std::collections::HashSet;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::time::sleep;
use tracing::warn;
use uuid::Uuid;

use crate::link::broker::pauses;
use crate::link::message::{Health, Sighting, Status};
use crate::link::topic::{self, EVERYTHING, Kind};
use crate::link::{BrokerOptions, LinkError};

/// Largest message that is taken: crops are some 30 kB.
const LARGEST_PACKET: u32 = 4 << 20;

/// What was heard.
#[derive(Clone, Debug)]
pub enum Received {
    /// Whether a platform is there.
    Status(Status),
    /// A sighting; each id and revision once.
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
    /// A message that is not as it should be.
    Malformed {
        /// Where it came.
        topic: String,
        /// What is wrong.
        reason: String,
    },
}

/// Listens to all platforms of a broker.
pub struct Receiver {
    broker: BrokerOptions,
    client_id: String,
    client: AsyncClient,
    events: EventLoop,
    seen: HashSet<(Uuid, u32)>,
}

impl Receiver {
    /// Connects and subscribes; on return nothing that is published escapes it.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub async fn connect(broker: BrokerOptions, client_id: &str) -> Result<Self, LinkError> {
        let (client, events) = client(&broker, client_id);
        let mut receiver = Self {
            broker,
            client_id: client_id.to_owned(),
            client,
            events,
            seen: HashSet::new(),
        };
        loop {
            if let Event::Incoming(Packet::SubAck(_)) = receiver.poll().await? {
                return Ok(receiver);
            }
        }
    }

    /// The next message. Connects again when the connection is lost; what is published meanwhile is
    /// not heard. Not cancel-safe while it connects: a cancelled call begins the connection anew.
    pub async fn next(&mut self) -> Received {
        let mut pause = pauses();
        loop {
            match self.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    if let Some(received) = self.read(&publish) {
                        return received;
                    }
                }
                Ok(_) => {}
                Err(e) => {
                    warn!("{e}");
                    (self.client, self.events) = client(&self.broker, &self.client_id);
                    if let Some(pause) = pause.next() {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    async fn poll(&mut self) -> Result<Event, LinkError> {
        let event = self.events.poll().await;
        let event = event.map_err(|e| self.broker.explain(e))?;
        match &event {
            Event::Incoming(Packet::ConnAck(_)) => {
                if let Err(e) = self.client.try_subscribe(EVERYTHING, QoS::AtLeastOnce) {
                    warn!("cannot subscribe: {e}");
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = |code| matches!(code, &SubscribeReasonCode::Success(_));
                if !ack.return_codes.iter().all(granted) {
                    warn!("broker refuses the subscription: {:?}", ack.return_codes);
                }
            }
            _ => {}
        }
        Ok(event)
    }

    /// `None` for what has been heard before and for topics that are not ours.
    fn read(&mut self, publish: &Publish) -> Option<Received> {
        let topic = String::from_utf8_lossy(&publish.topic);
        let (_, kind) = topic::parse(&topic)?;
        let read = match kind {
            Kind::Status => serde_json::from_slice(&publish.payload).map(Received::Status),
            Kind::Health => serde_json::from_slice(&publish.payload).map(Received::Health),
            Kind::Sighting => serde_json::from_slice(&publish.payload).map(Received::Sighting),
            Kind::Crop(sighting) => Ok(Received::Crop {
                sighting,
                jpeg: publish.payload.to_vec(),
            }),
        };
        match read {
            Ok(Received::Sighting(s)) => self
                .seen
                .insert((s.occurrence_id, s.revision))
                .then_some(Received::Sighting(s)),
            Ok(received) => Some(received),
            Err(e) => Some(Received::Malformed {
                topic: topic.into_owned(),
                reason: e.to_string(),
            }),
        }
    }
}

fn client(broker: &BrokerOptions, client_id: &str) -> (AsyncClient, EventLoop) {
    let mut options = broker.client(client_id);
    options.set_max_packet_size(Some(LARGEST_PACKET));
    AsyncClient::new(options, 8)
}
