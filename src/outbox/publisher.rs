//! Sends what is in the outbox.
//!
//! The client library keeps its state in memory, forgets what was not acknowledged when the broker has forgotten the
//! session, and may hang in a flush. So nothing is entrusted to it: a small [`Window`] of messages is under way at a
//! time, the outbox lets go of each only at its PUBACK, and on any error or silence the whole client is thrown away, a
//! fresh one made, and what is unacknowledged sent again.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::broker::{BrokerOptions, LinkError, pauses};
use link::codec::Encoding;
use link::message::{
    HEALTH_EXPIRY, HISTORICAL_AFTER, HISTORICAL_PROPERTY, Health, JSON, Presence, Problem,
    SCHEMA_VERSION, SCHEMA_VERSION_PROPERTY, Status,
};
use link::topic::Platform;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    LastWill, LastWillProperties, Packet, PubAckReason, Publish, PublishProperties,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use rumqttc::{Outgoing, valid_topic};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Key, Message, Outbox, Window};

/// Small, because all of it is sent again after a lost connection, and because a new name waits for what is under way.
/// One crop of 30 kB alone takes two minutes at 2 kbit/s.
const WINDOW: Window = Window {
    messages: 16,
    bytes: 64 << 10,
    crops: 1,
};

/// Room for the window, two statuses and a health message in the client's channel, so that handing a message over
/// never waits.
const CHANNEL: usize = WINDOW.messages + 8;

/// After this time of a connection it is not disputed any more that the platform's name is ours.
const UNDISPUTED: Duration = Duration::from_secs(60);

/// So many connections in a row that ended before are a dispute. Not each broker, and not each client library, lets the
/// reason through, though MQTT 5 has one (0x8E, session taken over).
const DISPUTES: u32 = 3;

/// What the publisher has done so far; readable while it runs.
#[derive(Debug, Default)]
pub struct PublisherCounters {
    sent: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    without_subscriber: AtomicU64,
    problem: Mutex<Option<Problem>>,
    /// Whether another client seems to have our name; told to the ground, which only a connection can do.
    disputed: AtomicBool,
}

impl PublisherCounters {
    /// Messages of the outbox handed to the broker, repetitions counted again.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Connections that the broker accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Times that the broker refused a message.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Times that a message reached the broker and nobody had subscribed to it.
    pub fn without_subscriber(&self) -> u64 {
        self.without_subscriber.load(Ordering::Relaxed)
    }

    /// What is wrong with the link at the moment.
    pub fn problem(&self) -> Option<Problem> {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.clone()
    }

    fn has_problem(&self, reason: String) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        *problem = Some(Problem::after(problem.as_ref(), "link", reason));
    }

    fn is_well(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.disputed.store(false, Ordering::Relaxed);
    }
}

/// Sends what is in the [outbox](super) over MQTT, and says how the service fares.
#[derive(Clone)]
pub struct Publisher {
    /// How to reach the broker.
    pub broker: BrokerOptions,
    /// Who speaks.
    pub platform: Platform,
    /// What is to be said.
    pub outbox: Outbox,
    /// How status and health are encoded.
    pub encoding: Encoding,
    /// Messages with more bytes are not sent: crops are thrown away, others set aside.
    pub largest_message: Option<usize>,
    /// Tells how the service fares.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    /// Time between health messages.
    pub health_interval: Duration,
    /// Cancelled when nothing more will come into the outbox.
    pub complete: CancellationToken,
    /// What was done.
    pub counters: Arc<PublisherCounters>,
    /// Hears commands from the ground, where this aircraft obeys some.
    pub commands: Option<Arc<CommandListener>>,
}

/// Hears what was said under the topic of commands.
pub type CommandListener = dyn Fn(&Publish) + Send + Sync;

/// What is with the client.
enum Sent {
    Message(Key),
    Health,
    Online,
    Stopped,
}

impl Publisher {
    /// Sends what is in the outbox until it is [complete](Self::complete) and empty, says `stopped` and ends. Tries
    /// again without end when the connection fails, unless the outbox is complete and trying again cannot help.
    /// Dropping the future ends it as a crash would, so that the broker says `offline`.
    pub async fn run(mut self) {
        // An earlier run may have ended in the middle.
        self.outbox.send_again();
        let mut pause = pauses();
        let mut disputes = 0;
        loop {
            let mut connected_at = None;
            let Err(error) = self.connection(&mut connected_at).await else {
                return;
            };
            let lived = connected_at.map(|at| at.elapsed());
            self.outbox.send_again();
            match lived {
                Some(lived) if lived < UNDISPUTED => disputes += 1,
                Some(_) => disputes = 0,
                None => {}
            }
            let disputed = error.is_taken_over() || disputes >= DISPUTES;
            // Two of one name throw each other out, so each comes back later and later.
            if lived.is_some() && !disputed {
                pause = pauses();
            }
            let pause = pause.next().unwrap_or(self.broker.timing.retry);
            warn!("{error}; trying again in {:.1} s", pause.as_secs_f64());
            if disputed {
                let reason = format!(
                    "the broker ends each connection soon after it began ({error}): does another program fly as platform \
                     {}? Two aircraft need two names",
                    self.platform
                );
                error!("{reason}");
                self.counters.has_problem(reason);
            } else {
                self.counters.has_problem(error.to_string());
            }
            self.counters.disputed.store(disputed, Ordering::Relaxed);
            tokio::select! {
                biased;
                () = self.complete.cancelled(), if error.is_permanent() => {
                    debug!("the broker does not let us in; what waits stays in the outbox");
                    return;
                }
                () = sleep(pause) => {}
            }
        }
    }

    /// One connection, from its beginning to its end in order or to its error. Writes down when the broker welcomed us.
    async fn connection(&mut self, connected_at: &mut Option<Instant>) -> Result<(), LinkError> {
        let mut options = self.broker.client(&format!("callosity-{}", self.platform));
        options.set_last_will(LastWill::new(
            self.platform.status(),
            self.status(Presence::Offline),
            QoS::AtLeastOnce,
            true,
            Some(LastWillProperties {
                delay_interval: None,
                payload_format_indicator: Some(u8::from(self.encoding == Encoding::Json)),
                message_expiry_interval: None,
                content_type: Some(self.encoding.content_type().to_owned()),
                response_topic: None,
                correlation_data: None,
                user_properties: user_properties(false),
            }),
        ));
        let (client, events) = AsyncClient::new(options, CHANNEL);
        let mut connection = Connection {
            publisher: self,
            client,
            connected_at,
            window: WINDOW,
            largest_packet: None,
            handed_over: VecDeque::new(),
            under_way: HashMap::new(),
            health_is_with_client: false,
            paused_until: None,
            nobody_listens: false,
            stopping: false,
        };
        connection.run(events).await
    }

    fn status(&self, status: Presence) -> Vec<u8> {
        self.encoding.encode(&Status {
            platform: self.platform.to_string(),
            status,
            time: self.outbox.now(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

struct Connection<'a> {
    publisher: &'a mut Publisher,
    client: AsyncClient,
    /// When the broker welcomed us; nothing is sent before.
    connected_at: &'a mut Option<Instant>,
    window: Window,
    /// The broker's limit, in bytes.
    largest_packet: Option<u32>,
    /// Handed to the client, which has given no packet id yet; in the order of handing over.
    handed_over: VecDeque<Sent>,
    /// By packet id.
    under_way: HashMap<u16, Sent>,
    /// One health message at a time, so that they cannot fill the channel.
    health_is_with_client: bool,
    /// Nothing is sent before.
    paused_until: Option<Instant>,
    /// Whether the last message had no subscriber.
    nobody_listens: bool,
    /// Whether `stopped` was handed over.
    stopping: bool,
}

impl Connection<'_> {
    async fn run(&mut self, mut events: EventLoop) -> Result<(), LinkError> {
        let mut health = interval(self.publisher.health_interval);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.next_event(&mut events, &mut health).await? {
                Event::Incoming(Packet::ConnAck(ack)) => {
                    let properties = ack.properties.as_ref();
                    self.largest_packet = properties.and_then(|p| p.max_packet_size);
                    let receive_maximum = properties.and_then(|p| p.receive_max);
                    let receive_maximum = receive_maximum.unwrap_or(u16::MAX);
                    self.window.messages = WINDOW.messages.min(receive_maximum.into());
                    let counters = &self.publisher.counters;
                    let earlier = counters.connections.fetch_add(1, Ordering::Relaxed);
                    if !counters.disputed.load(Ordering::Relaxed) {
                        counters.is_well();
                    }
                    *self.connected_at = Some(Instant::now());
                    let again = if earlier > 0 { " again" } else { "" };
                    info!(
                        "connected{again} to broker {}",
                        self.publisher.broker.address
                    );
                    self.publisher.outbox.retry_set_aside();
                    self.say_status(Presence::Online, Sent::Online);
                    if self.publisher.commands.is_some() {
                        let topic = self.publisher.platform.command();
                        if let Err(e) = self.client.try_subscribe(topic, QoS::AtLeastOnce) {
                            warn!("commands are not heard: {e}");
                        }
                    }
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    if let Some(obey) = &self.publisher.commands {
                        obey(&publish);
                    }
                }
                // The client sends in the order in which messages were handed over; 0 is the id of those that are not
                // acknowledged.
                Event::Outgoing(Outgoing::Publish(id)) => match self.handed_over.pop_front() {
                    Some(Sent::Health) => self.health_is_with_client = false,
                    Some(sent) => {
                        self.under_way.insert(id, sent);
                    }
                    None => {}
                },
                Event::Incoming(Packet::PubAck(ack)) => match self.under_way.remove(&ack.pkid) {
                    Some(Sent::Message(key)) => self.acknowledged(key, ack.reason),
                    Some(Sent::Stopped) => {
                        info!("status at the broker is stopped");
                        if let Err(e) = self.client.try_disconnect() {
                            warn!("cannot say good-bye to the broker: {e}");
                            return Ok(());
                        }
                    }
                    Some(Sent::Online | Sent::Health) | None => {}
                },
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => {}
            }
            self.hand_over();
        }
    }

    /// Polls the client, and meanwhile hands it what comes. The poll is never given up half-way, since that would begin
    /// a connection anew.
    async fn next_event(
        &mut self,
        events: &mut EventLoop,
        health: &mut tokio::time::Interval,
    ) -> Result<Event, LinkError> {
        let mut poll = pin!(events.poll());
        // The client pings each `keep_alive`, so an event comes at least that often. If none does, it hangs.
        let longest = self.publisher.broker.timing.keep_alive * 2;
        let silence = Instant::now() + longest;
        let outbox = self.publisher.outbox.clone();
        let complete = self.publisher.complete.clone();
        loop {
            let talking = self.is_talking();
            let resume = self.paused_until.unwrap_or(silence);
            tokio::select! {
                event = &mut poll => {
                    return event.map_err(|e| self.publisher.broker.explain(e));
                }
                () = outbox.changed(), if talking => self.hand_over(),
                _ = health.tick(), if talking => self.say_health(),
                () = sleep_until(resume), if talking && self.paused_until.is_some() => {
                    self.paused_until = None;
                    outbox.retry_set_aside();
                    self.hand_over();
                }
                () = complete.cancelled(), if talking && self.is_done() => self.hand_over(),
                () = sleep_until(silence), if self.connected_at.is_some() => {
                    return Err(LinkError::Silent {
                        broker: self.publisher.broker.address.to_string(),
                        seconds: longest.as_secs(),
                    });
                }
            }
        }
    }

    fn is_talking(&self) -> bool {
        self.connected_at.is_some() && !self.stopping
    }

    /// Whether all that can be delivered is.
    fn is_done(&self) -> bool {
        let depth = self.publisher.outbox.depth();
        depth.is_empty() || (self.nobody_listens && depth.under_way == 0)
    }

    /// Fills the window; when all is delivered and nothing more will come, says `stopped`.
    fn hand_over(&mut self) {
        if !self.is_talking() {
            return;
        }
        while self.paused_until.is_none() {
            let Some((key, message)) = self.publisher.outbox.take(&self.window) else {
                break;
            };
            self.send(key, message);
        }
        // In this order: after `complete` nothing is put in, so the emptiness that is seen is final.
        if self.publisher.complete.is_cancelled() && self.is_done() {
            self.say_health();
            self.say_status(Presence::Stopped, Sent::Stopped);
            self.stopping = true;
        }
    }

    fn send(&mut self, key: Key, message: Message) {
        // Fixed header, properties and their names, with room to spare.
        let size = message.payload.len() + message.topic.len() + 200;
        let largest = [
            self.publisher.largest_message,
            self.largest_packet.map(|bytes| bytes as usize),
        ];
        let largest = largest.into_iter().flatten().min();
        if largest.is_some_and(|largest| size > largest) || !valid_topic(&message.topic) {
            let may_go = message.kind.is_dropped();
            let what = if may_go { "thrown away" } else { "set aside" };
            let bytes = message.payload.len();
            let topic = &message.topic;
            if may_go {
                debug!("message for {topic} of {bytes} bytes cannot be sent: {what}");
            } else {
                error!("message for {topic} of {bytes} bytes cannot be sent: {what}");
            }
            self.publisher.outbox.give_up(key);
            return;
        }
        debug!("sending to {}", message.topic);
        let age = self.publisher.outbox.now().duration_since(message.time);
        let age = Duration::try_from(age).unwrap_or_default();
        // What may not be lost has all its time from now on, however long it waited here.
        let left = message.expiry.map(|expiry| {
            if message.kind.is_dropped() {
                expiry.saturating_sub(age)
            } else {
                expiry
            }
        });
        let sent = self.client.try_publish_with_properties(
            message.topic,
            QoS::AtLeastOnce,
            false,
            message.payload,
            properties(&message.content_type, left, age > HISTORICAL_AFTER),
        );
        if let Err(e) = sent {
            // The channel has room for the window, so this is not expected; it is sent when something has left.
            warn!("message cannot be handed to the client yet: {e}");
            self.publisher.outbox.put_back(key);
            self.pause(Duration::from_millis(100));
            return;
        }
        self.publisher.counters.sent.fetch_add(1, Ordering::Relaxed);
        self.handed_over.push_back(Sent::Message(key));
    }

    fn pause(&mut self, pause: Duration) {
        self.paused_until = Some(Instant::now() + pause);
    }

    fn acknowledged(&mut self, key: Key, reason: PubAckReason) {
        let outbox = &self.publisher.outbox;
        let counters = self.publisher.counters.clone();
        let retry = self.publisher.broker.timing.retry;
        let problem = match reason {
            PubAckReason::Success => {
                outbox.acknowledge(key);
                if self.nobody_listens {
                    self.nobody_listens = false;
                    counters.is_well();
                }
                return;
            }
            PubAckReason::NoMatchingSubscribers => {
                counters.without_subscriber.fetch_add(1, Ordering::Relaxed);
                outbox.set_aside(key);
                self.nobody_listens = true;
                self.pause(retry);
                "the broker has nobody to give messages to: is a ground station subscribed? \
                 They are kept and sent again"
                    .to_owned()
            }
            // It may take them later.
            PubAckReason::QuotaExceeded
            | PubAckReason::UnspecifiedError
            | PubAckReason::ImplementationSpecificError
            | PubAckReason::PacketIdentifierInUse => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                outbox.put_back(key);
                self.pause(retry);
                format!("the broker takes no messages for the moment ({reason:?})")
            }
            PubAckReason::NotAuthorized
            | PubAckReason::TopicNameInvalid
            | PubAckReason::PayloadFormatInvalid => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                outbox.set_aside(key);
                format!(
                    "the broker refuses a message ({reason:?}): it is kept; may this user write to callosity/v1/{}/#?",
                    self.publisher.platform
                )
            }
        };
        if counters
            .problem()
            .is_none_or(|earlier| earlier.reason != problem)
        {
            error!("{problem}");
        }
        counters.has_problem(problem);
    }

    fn say_status(&mut self, status: Presence, sent: Sent) {
        let encoding = self.publisher.encoding;
        let said = self.client.try_publish_with_properties(
            self.publisher.platform.status(),
            QoS::AtLeastOnce,
            true,
            self.publisher.status(status),
            properties(encoding.content_type(), None, false),
        );
        match said {
            Ok(()) => self.handed_over.push_back(sent),
            Err(e) => error!("status cannot be sent: {e}"),
        }
    }

    fn say_health(&mut self) {
        if self.health_is_with_client {
            return;
        }
        let counters = &self.publisher.counters;
        let lived = self.connected_at.map(|at| at.elapsed());
        if counters.disputed.load(Ordering::Relaxed) && lived > Some(UNDISPUTED) {
            counters.is_well();
        }
        let encoding = self.publisher.encoding;
        let payload = encoding.encode(&(self.publisher.health)());
        let said = self.client.try_publish_with_properties(
            self.publisher.platform.health(),
            QoS::AtMostOnce,
            false,
            payload,
            properties(encoding.content_type(), Some(HEALTH_EXPIRY), false),
        );
        match said {
            Ok(()) => {
                self.health_is_with_client = true;
                self.handed_over.push_back(Sent::Health);
            }
            Err(e) => debug!("health was not sent: {e}"),
        }
    }
}

fn user_properties(historical: bool) -> Vec<(String, String)> {
    let version = (SCHEMA_VERSION_PROPERTY, SCHEMA_VERSION);
    let historical = historical.then_some((HISTORICAL_PROPERTY, "true"));
    let all = std::iter::once(version).chain(historical);
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn properties(content_type: &str, expiry: Option<Duration>, historical: bool) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(u8::from(content_type == JSON)),
        message_expiry_interval: expiry
            .map(|expiry| u32::try_from(expiry.as_secs().max(1)).unwrap_or(u32::MAX)),
        user_properties: user_properties(historical),
        content_type: Some(content_type.to_owned()),
        ..PublishProperties::default()
    }
}
