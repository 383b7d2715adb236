//! Where aircraft send to the ground station itself: an MQTT 5 server with one listener, the station.
//!
//! A broker acknowledges a message as soon as it has it, so what a broker inside this program held in memory would be lost
//! with it. Here a message is acknowledged once it is stored: until then the aircraft keeps it in its outbox, and sends it
//! again over its next connection. That is all it does: QoS 0 and 1, last wills, and commands to aircraft that subscribe to
//! theirs; no sessions outlive a connection, no message is kept for anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use link::topic::{self, Kind};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill,
    Packet, PingResp, PubAck, Publish, PublishProperties, SubAck, Subscribe, SubscribeReasonCode,
    UnsubAck, UnsubAckReason,
};
use rumqttc::v5::mqttbytes::{Error as Malformed, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::receiver::{Commands, Delivery, LARGEST_PACKET, Received, deliver};

/// Messages of one aircraft that may be under way.
const UNDER_WAY: u16 = 64;

/// Messages of all aircraft that wait to be stored; more wait in their connections.
const WAITING: usize = 256;

/// Whoever connects has to say who it is in this time.
const GREETING: Duration = Duration::from_secs(10);

/// Most connections at once.
const MOST_CONNECTIONS: usize = 1000;

/// Hears aircraft directly.
pub struct Listener {
    arrivals: mpsc::Receiver<Arrival>,
    /// Was asked for and is not acknowledged yet.
    unacknowledged: Vec<Acknowledgement>,
    connections: Arc<Connections>,
    accepting: JoinHandle<()>,
    address: SocketAddr,
    beside: Option<std::sync::mpsc::Sender<Received>>,
}

struct Arrival {
    publish: Publish,
    acknowledgement: Option<Acknowledgement>,
}

/// What an aircraft waits for.
struct Acknowledgement {
    number: u16,
    to: mpsc::Sender<Packet>,
}

impl Acknowledgement {
    fn send(self) {
        // Whoever is gone meanwhile sends it again.
        let _ = self
            .to
            .try_send(Packet::PubAck(PubAck::new(self.number, None)));
    }
}

impl Listener {
    /// Listens at an address. Whoever reaches it may send.
    ///
    /// # Errors
    /// The address is not free.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (arrive, arrivals) = mpsc::channel(WAITING);
        let connections = Arc::new(Connections::default());
        let accepting = tokio::spawn(accept(listener, arrive, connections.clone()));
        Ok(Self {
            arrivals,
            unacknowledged: Vec::new(),
            connections,
            accepting,
            address,
            beside: None,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What sends commands to whoever is connected.
    pub fn commands(&self) -> Commands {
        Commands::over(self)
    }

    /// Whatever is asked for from now on is told here as well.
    pub fn overhear(&mut self) -> std::sync::mpsc::Receiver<Received> {
        let (say, overheard) = std::sync::mpsc::channel();
        self.beside = Some(say);
        overheard
    }

    /// The next messages in their order, at most so many. Those that were asked for before are acknowledged: they are stored.
    /// Cancel-safe.
    pub async fn next_several(&mut self, most: usize) -> Vec<Delivery> {
        self.unacknowledged
            .drain(..)
            .for_each(Acknowledgement::send);
        loop {
            let mut arrived = Vec::new();
            self.arrivals.recv_many(&mut arrived, most).await;
            let mut several = Vec::new();
            for arrival in arrived {
                match deliver(&arrival.publish) {
                    Some(mut delivery) => {
                        // It is sent now, whatever a broker would keep of it.
                        delivery.is_retained = false;
                        if let Some(say) = &self.beside {
                            let _ = say.send(delivery.received.clone());
                        }
                        several.push(delivery);
                        self.unacknowledged.extend(arrival.acknowledgement);
                    }
                    None => {
                        if let Some(acknowledgement) = arrival.acknowledgement {
                            acknowledgement.send();
                        }
                    }
                }
            }
            if !several.is_empty() {
                return several;
            }
        }
    }

    pub(crate) fn connections(&self) -> Arc<Connections> {
        self.connections.clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.end_all();
    }
}

/// Who is connected, by the names of clients.
#[derive(Default)]
pub(crate) struct Connections(Mutex<BTreeMap<String, Connection>>);

struct Connection {
    /// Told when another client takes its name.
    end: Arc<Notify>,
    say: mpsc::Sender<Packet>,
    /// Of commands.
    topics: BTreeSet<String>,
}

impl Connections {
    /// Sends to all who subscribed to a topic. Whoever does not keep up misses it.
    pub fn publish(&self, topic: &str, payload: Vec<u8>, properties: PublishProperties) {
        let publish = Publish::new(topic, QoS::AtMostOnce, payload, Some(properties));
        for connection in self.lock().values() {
            if connection.topics.contains(topic) {
                let _ = connection.say.try_send(Packet::Publish(publish.clone()));
            }
        }
    }

    /// Whoever had the name is ended.
    fn enter<'a>(&'a self, client: &'a str, say: &mpsc::Sender<Packet>) -> Entered<'a> {
        let end = Arc::new(Notify::new());
        let connection = Connection {
            end: end.clone(),
            say: say.clone(),
            topics: BTreeSet::new(),
        };
        if let Some(earlier) = self.lock().insert(client.to_owned(), connection) {
            earlier.end.notify_one();
        }
        Entered {
            connections: self,
            client,
            end,
        }
    }

    /// Aircraft may hear their commands and nothing else.
    fn subscribe(&self, client: &str, subscribe: &Subscribe) -> SubAck {
        let mut connections = self.lock();
        let codes = subscribe.filters.iter().map(|filter| {
            let is_command =
                topic::parse(&filter.path).is_some_and(|(_, kind)| kind == Kind::Command);
            match connections.get_mut(client) {
                Some(connection) if is_command => {
                    connection.topics.insert(filter.path.clone());
                    SubscribeReasonCode::Success(QoS::AtMostOnce)
                }
                _ => SubscribeReasonCode::NotAuthorized,
            }
        });
        SubAck {
            pkid: subscribe.pkid,
            return_codes: codes.collect(),
            properties: None,
        }
    }

    fn end_all(&self) {
        for connection in self.lock().values() {
            connection.end.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Connection>> {
        // A map is whole after each call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection is known as long as this lives.
struct Entered<'a> {
    connections: &'a Connections,
    client: &'a str,
    end: Arc<Notify>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut connections = self.connections.lock();
        let here = connections.get(self.client);
        if here.is_some_and(|connection| Arc::ptr_eq(&connection.end, &self.end)) {
            connections.remove(self.client);
        }
    }
}

async fn accept(
    listener: TcpListener,
    arrive: mpsc::Sender<Arrival>,
    connections: Arc<Connections>,
) {
    let open = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(turn) = open.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let (arrive, connections) = (arrive.clone(), connections.clone());
                tokio::spawn(async move {
                    let _turn = turn;
                    if let Err(e) = converse(stream, &arrive, &connections).await {
                        info!("the connection from {from} ends: {e}");
                    }
                });
            }
            Err(e) => {
                warn!("no aircraft can connect: {e}");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One connection, from its greeting to its end.
async fn converse(
    stream: TcpStream,
    arrive: &mpsc::Sender<Arrival>,
    connections: &Connections,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.into_split();
    let mut packets = Packets {
        reading,
        buffer: BytesMut::new(),
    };
    let greeting = timeout(GREETING, packets.next()).await;
    let greeting = greeting.unwrap_or_else(|_| Err(wrong("it does not say who it is")))?;
    let Some(Packet::Connect(connect, will, _)) = greeting else {
        return Err(wrong("it does not speak MQTT 5"));
    };
    if connect.client_id.is_empty() {
        return Err(wrong("it has no client id"));
    }
    write(&mut writing, &Packet::ConnAck(welcome())).await?;
    let (say, said) = mpsc::channel(2 * usize::from(UNDER_WAY));
    let entered = connections.enter(&connect.client_id, &say);
    let mut saying = tokio::spawn(write_all(writing, said));
    // A silent connection is given up as the standard has it (MQTT 5, 3.1.2.10).
    let patience = match connect.keep_alive {
        0 => Duration::from_secs(3600),
        seconds => Duration::from_millis(1500 * u64::from(seconds)),
    };
    let ended = loop {
        let packet = tokio::select! {
            packet = timeout(patience, packets.next()) => packet,
            () = entered.end.notified() => {
                let taken_over = Disconnect::new(DisconnectReasonCode::SessionTakenOver);
                let _ = say.try_send(Packet::Disconnect(taken_over));
                break Err(wrong("another client has the same id"));
            }
            _ = &mut saying => break Err(wrong("it takes nothing")),
        };
        let packet = match packet {
            Err(_) => break Err(wrong("it is silent")),
            Ok(Err(e)) => break Err(e),
            Ok(Ok(None)) => break Err(wrong("it was lost")),
            Ok(Ok(Some(packet))) => packet,
        };
        match answer(packet, &connect.client_id, &say, arrive, connections).await {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    drop(entered);
    if let (Err(_), Some(will)) = (&ended, will) {
        let arrival = Arrival {
            publish: of_will(will),
            acknowledgement: None,
        };
        let _ = arrive.send(arrival).await;
    }
    ended
}

/// Whether the conversation goes on.
async fn answer(
    packet: Packet,
    client: &str,
    say: &mpsc::Sender<Packet>,
    arrive: &mpsc::Sender<Arrival>,
    connections: &Connections,
) -> io::Result<bool> {
    let gone = |_| wrong("it takes nothing");
    match packet {
        Packet::Publish(publish) => {
            let acknowledgement = match publish.qos {
                QoS::AtMostOnce => None,
                QoS::AtLeastOnce => Some(Acknowledgement {
                    number: publish.pkid,
                    to: say.clone(),
                }),
                QoS::ExactlyOnce => {
                    return Err(wrong("it sends with QoS 2, which was not offered"));
                }
            };
            let arrival = Arrival {
                publish,
                acknowledgement,
            };
            let sent = arrive.send(arrival).await;
            sent.map_err(|_| wrong("the station ends"))?;
        }
        Packet::Subscribe(subscribe) => {
            let ack = connections.subscribe(client, &subscribe);
            say.send(Packet::SubAck(ack)).await.map_err(gone)?;
        }
        Packet::Unsubscribe(unsubscribe) => {
            let ack = UnsubAck {
                pkid: unsubscribe.pkid,
                reasons: vec![UnsubAckReason::Success; unsubscribe.filters.len()],
                properties: None,
            };
            say.send(Packet::UnsubAck(ack)).await.map_err(gone)?;
        }
        Packet::PingReq(_) => say.send(Packet::PingResp(PingResp)).await.map_err(gone)?,
        Packet::PubAck(_) => {}
        Packet::Disconnect(disconnect) => {
            return match disconnect.reason_code {
                DisconnectReasonCode::NormalDisconnection => Ok(false),
                reason => Err(wrong(&format!("it leaves: {reason:?}"))),
            };
        }
        _ => return Err(wrong("it sends what a client does not send")),
    }
    Ok(true)
}

fn welcome() -> ConnAck {
    ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(ConnAckProperties {
            session_expiry_interval: Some(0),
            receive_max: Some(UNDER_WAY),
            max_qos: Some(1),
            retain_available: None,
            max_packet_size: Some(LARGEST_PACKET),
            assigned_client_identifier: None,
            topic_alias_max: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: Some(0),
            subscription_identifiers_available: Some(0),
            shared_subscription_available: Some(0),
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }),
    }
}

fn of_will(will: LastWill) -> Publish {
    let properties = will.properties.map(|properties| PublishProperties {
        content_type: properties.content_type,
        user_properties: properties.user_properties,
        ..PublishProperties::default()
    });
    Publish {
        topic: will.topic,
        payload: will.message,
        qos: QoS::AtMostOnce,
        properties,
        ..Publish::default()
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is read of a connection.
struct Packets {
    reading: OwnedReadHalf,
    buffer: BytesMut,
}

impl Packets {
    /// The next packet; `None` where the connection ended. Cancel-safe.
    async fn next(&mut self) -> io::Result<Option<Packet>> {
        loop {
            match Packet::read(&mut self.buffer, Some(LARGEST_PACKET)) {
                Ok(packet) => return Ok(Some(packet)),
                Err(Malformed::InsufficientBytes(_)) => {}
                Err(e) => return Err(wrong(&format!("what it sends is no MQTT 5: {e}"))),
            }
            if self.reading.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn write(writing: &mut OwnedWriteHalf, packet: &Packet) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    packet
        .write(&mut bytes, None)
        .map_err(|e| wrong(&format!("{e}")))?;
    writing.write_all(&bytes).await
}

async fn write_all(mut writing: OwnedWriteHalf, mut said: mpsc::Receiver<Packet>) {
    while let Some(packet) = said.recv().await {
        if write(&mut writing, &packet).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use link::codec::Encoding;
    use link::message::{Presence, Status};
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

    use super::*;
    use crate::receiver::Received;
    use crate::store::tests::sighting;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn listener() -> Listener {
        Listener::start("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap()
    }

    fn client(listener: &Listener, name: &str, will: Option<Vec<u8>>) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(name, "127.0.0.1", listener.address().port());
        options.set_clean_start(true);
        if let Some(will) = will {
            let topic = "callosity/v1/N57RW/status";
            options.set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, true, None));
        }
        AsyncClient::new(options, 64)
    }

    async fn until(events: &mut EventLoop, is_it: impl Fn(&Packet) -> bool) -> Packet {
        let look = async {
            loop {
                if let Event::Incoming(packet) = events.poll().await.unwrap()
                    && is_it(&packet)
                {
                    return packet;
                }
            }
        };
        timeout(PATIENCE, look).await.unwrap()
    }

    #[tokio::test]
    async fn a_message_is_acknowledged_when_the_next_is_asked_for() {
        let mut listener = listener().await;
        let (client, mut events) = client(&listener, "N57RW", None);
        let message = Encoding::Json.encode(&sighting(1, 0));
        let topic = "callosity/v1/N57RW/sighting";
        client
            .publish(topic, QoS::AtLeastOnce, false, message)
            .await
            .unwrap();
        until(&mut events, |p| matches!(p, Packet::ConnAck(_))).await;
        let polling = tokio::spawn(async move {
            until(&mut events, |p| matches!(p, Packet::PubAck(_))).await;
        });
        let first = timeout(PATIENCE, listener.next_several(10)).await.unwrap();
        assert!(
            matches!(&first[0].received, Received::Sighting(s) if s.occurrence_id.as_u128() == 1)
        );
        // It would have come by now.
        sleep(Duration::from_millis(300)).await;
        assert!(!polling.is_finished());
        let none = timeout(Duration::from_millis(300), listener.next_several(10)).await;
        assert!(none.is_err());
        timeout(PATIENCE, polling).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_last_word_of_a_lost_aircraft_is_heard_and_one_id_is_one_connection() {
        let mut listener = listener().await;
        let offline = Status {
            platform: "N57RW".into(),
            status: Presence::Offline,
            time: link::message::now(),
            program_version: "0".into(),
        };
        let will = Encoding::Json.encode(&offline);
        let (_one, mut first) = client(&listener, "N57RW", Some(will));
        until(&mut first, |p| matches!(p, Packet::ConnAck(_))).await;
        let (other, mut second) = client(&listener, "N57RW", None);
        until(&mut second, |p| matches!(p, Packet::ConnAck(_))).await;
        let lost = async { while first.poll().await.is_ok() {} };
        timeout(PATIENCE, lost).await.unwrap();
        let heard = timeout(PATIENCE, listener.next_several(10)).await.unwrap();
        assert!(matches!(&heard[0].received, Received::Status(s) if s.status == Presence::Offline));
        // Whoever leaves in order leaves no last word; the second one is still there.
        let connected = || listener.connections().lock().len();
        assert_eq!(connected(), 1);
        other.disconnect().await.unwrap();
        let leave = async { while second.poll().await.is_ok() {} };
        timeout(PATIENCE, leave).await.unwrap();
        let gone = async {
            while connected() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, gone).await.unwrap();
    }

    #[tokio::test]
    async fn commands_reach_those_whom_they_are_for_and_nobody_hears_others() {
        let listener = listener().await;
        let (client, mut events) = client(&listener, "N57RW", None);
        for topic in [
            "callosity/v1/N57RW/command",
            "callosity/#",
            "callosity/v1/N1/sighting",
        ] {
            client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        }
        let mut granted = Vec::new();
        for _ in 0..3 {
            let Packet::SubAck(ack) = until(&mut events, |p| matches!(p, Packet::SubAck(_))).await
            else {
                unreachable!();
            };
            granted.push(matches!(
                ack.return_codes[0],
                SubscribeReasonCode::Success(_)
            ));
        }
        assert_eq!(granted, [true, false, false]);
        let connections = listener.connections();
        for (topic, payload) in [
            ("callosity/v1/N1/command", "no"),
            ("callosity/v1/N57RW/command", "yes"),
        ] {
            connections.publish(topic, payload.into(), PublishProperties::default());
        }
        let Packet::Publish(heard) = until(&mut events, |p| matches!(p, Packet::Publish(_))).await
        else {
            unreachable!();
        };
        assert_eq!(&heard.payload[..], b"yes");
    }

    #[tokio::test]
    async fn nonsense_ends_its_own_connection_alone() {
        let mut listener = listener().await;
        let (client, mut events) = client(&listener, "N57RW", None);
        until(&mut events, |p| matches!(p, Packet::ConnAck(_))).await;
        let connect = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02me";
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0xff; 4096],
            // More than is taken, before anything is said of who it is.
            vec![0x30, 0xff, 0xff, 0xff, 0x7f],
            [connect.as_slice(), b"\x34\x07\x00\x01a\x00\x01\x00x"].concat(),
            [connect.as_slice(), &[0x30, 0xff, 0xff, 0xff, 0x7f]].concat(),
        ] {
            let mut stream = TcpStream::connect(listener.address()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut rest = Vec::new();
            let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{bytes:?}");
        }
        let topic = "callosity/v1/N57RW/sighting";
        client
            .publish(topic, QoS::AtLeastOnce, false, "{")
            .await
            .unwrap();
        let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let heard = timeout(PATIENCE, listener.next_several(10)).await.unwrap();
        assert!(matches!(heard[0].received, Received::Malformed { .. }));
        polling.abort();
    }
}
