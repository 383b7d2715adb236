use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use thiserror::Error;

use link::BrokerAddress;

/// An MQTT 5 broker inside this process, on a free port of the loopback interface only, without TLS and
/// passwords. It lives until the process ends, because `rumqttd` cannot be stopped.
pub struct EmbeddedBroker {
    port: u16,
}

/// The embedded broker does not come up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmbeddedBrokerError {
    /// No port or thread.
    #[error("the embedded broker cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// It does not listen.
    #[error("the embedded broker does not listen on port {0}")]
    Deaf(u16),
}

impl EmbeddedBroker {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// There is no free port, or it does not listen within some seconds.
    pub fn start() -> Result<Self, EmbeddedBrokerError> {
        // The library takes no socket that is bound already, only an address.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = ServerSettings {
            name: "embedded".to_owned(),
            listen,
            tls: None,
            next_connection_delay_ms: 1,
            connections: ConnectionSettings {
                connection_timeout_ms: 5_000,
                max_payload_size: 4 << 20,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        let mut broker = Broker::new(Config {
            router: RouterConfig {
                max_connections: 16,
                max_outgoing_packet_count: 200,
                max_segment_size: 16 << 20,
                max_segment_count: 10,
                ..RouterConfig::default()
            },
            v5: Some(HashMap::from([("embedded".to_owned(), server)])),
            ..Config::default()
        });
        thread::Builder::new()
            .name("embedded-broker".to_owned())
            .spawn(move || {
                if let Err(e) = broker.start() {
                    tracing::error!("embedded broker ended: {e}");
                }
            })?;
        for _ in 0..100 {
            if TcpStream::connect_timeout(&listen, Duration::from_millis(100)).is_ok() {
                return Ok(Self { port });
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(EmbeddedBrokerError::Deaf(port))
    }

    /// Where it listens.
    pub fn address(&self) -> BrokerAddress {
        BrokerAddress::loopback(self.port)
    }
}
