//! A broker that does what a test tells it: for what no real one can be made to do.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::BytesMut;
use link::broker::Timing;
use link::{BrokerAddress, BrokerOptions};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet, PingResp, PubAck, PubAckReason, Publish,
};
use rumqttc::v5::mqttbytes::{self, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct ScriptedBroker {
    listener: TcpListener,
}

/// One client's connection, seen from the broker.
pub struct Client {
    stream: TcpStream,
    read: BytesMut,
}

impl ScriptedBroker {
    pub async fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener }
    }

    pub fn options(&self) -> BrokerOptions {
        let port = self.listener.local_addr().unwrap().port();
        let address = BrokerAddress::loopback(port);
        let options = BrokerOptions::new(address, None, None).unwrap();
        options.with_timing(Timing {
            retry: Duration::from_millis(200),
            ..Timing::default()
        })
    }

    /// The next client, welcomed.
    pub async fn accept(&self, receive_max: Option<u16>) -> Client {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client {
            stream,
            read: BytesMut::new(),
        };
        let Some(Packet::Connect(..)) = client.next().await else {
            panic!("no CONNECT");
        };
        let properties = ConnAckProperties {
            session_expiry_interval: None,
            receive_max,
            max_qos: None,
            retain_available: None,
            max_packet_size: None,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        };
        client
            .send(Packet::ConnAck(ConnAck {
                session_present: false,
                code: ConnectReturnCode::Success,
                properties: Some(properties),
            }))
            .await;
        client
    }
}

impl Client {
    /// The next packet, or `None` when the client has gone. Pings are answered.
    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.read, None) {
                Ok(Packet::PingReq(_)) => self.send(Packet::PingResp(PingResp)).await,
                Ok(packet) => return Some(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {
                    if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                        return None;
                    }
                }
                // rumqttc's reader knows no packets without a body but pings.
                Err(mqttbytes::Error::PayloadRequired) => return None,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The next message, or `None` when the client has gone.
    pub async fn next_publish(&mut self) -> Option<Publish> {
        loop {
            if let Packet::Publish(publish) = self.next().await? {
                return Some(publish);
            }
        }
    }

    pub async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        // A client that has gone shows when it is read from.
        let _ = self.stream.write_all(&bytes).await;
    }

    pub async fn acknowledge(&mut self, publish: &Publish, reason: PubAckReason) {
        if publish.qos == QoS::AtLeastOnce {
            let ack = PubAck {
                pkid: publish.pkid,
                reason,
                properties: None,
            };
            self.send(Packet::PubAck(ack)).await;
        }
    }
}
