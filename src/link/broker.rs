//! Where the broker is, how to prove who we are, and what can be wrong with that.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use rumqttc::tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use rumqttc::v5::{ConnectionError, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use thiserror::Error;
use url::Url;

/// Name of the environment variable with the broker's password.
pub const PASSWORD_VARIABLE: &str = "CALLOSITY_MQTT_PASSWORD";

/// How long a silent link is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Interval of pings, at least 5 s. A connection without answer is given up after two of them. A ping waits behind
    /// what is under way, so this must exceed the time that the largest message takes.
    pub keep_alive: Duration,
    /// From the first packet to the broker's welcome.
    pub connect_timeout: Duration,
    /// Pause after the broker would not take a message for the moment, or had nobody to give it to.
    pub retry: Duration,
}

impl Default for Timing {
    /// For radio and mobile networks, and for satellites with a few seconds of delay.
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(15),
            // A handshake over a satellite takes many round trips of a second each.
            connect_timeout: Duration::from_secs(30),
            retry: Duration::from_secs(30),
        }
    }
}

/// `mqtt://host[:1883]`, with TLS `mqtts://host[:8883]`; as WebSocket `ws://host[:80][/path]` and with TLS
/// `wss://host[:443][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Path of the WebSocket, beginning with `/`, where there is one.
    pub websocket: Option<String>,
}

impl BrokerAddress {
    /// A broker on this machine, without TLS.
    pub fn loopback(port: u16) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            tls: false,
            websocket: None,
        }
    }

    fn scheme(&self) -> &'static str {
        match (&self.websocket, self.tls) {
            (None, false) => "mqtt",
            (None, true) => "mqtts",
            (Some(_), false) => "ws",
            (Some(_), true) => "wss",
        }
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.websocket.as_deref().unwrap_or_default();
        write!(f, "{}://{}:{}{path}", self.scheme(), self.host, self.port)
    }
}

impl FromStr for BrokerAddress {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let wrong = |reason: &str| LinkError::Address {
            // A password that somebody wrote into the address must not come to a log.
            address: text.rsplit('@').next().unwrap_or_default().to_owned(),
            reason: reason.to_owned(),
        };
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        let (tls, websocket, port) = match url.scheme() {
            "mqtt" => (false, None, 1883),
            "mqtts" => (true, None, 8883),
            "ws" => (false, Some(url.path().to_owned()), 80),
            "wss" => (true, Some(url.path().to_owned()), 443),
            _ => {
                return Err(wrong(
                    "it must begin with mqtt://, mqtts://, ws:// or wss://",
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "user name and password do not belong in it: use --username and \
                 --password-file or CALLOSITY_MQTT_PASSWORD",
            ));
        }
        let unexpected_path = websocket.is_none() && !matches!(url.path(), "" | "/");
        if unexpected_path || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("nothing may follow host and port"));
        }
        let host = url.host_str().filter(|h| !h.is_empty());
        Ok(Self {
            host: host.ok_or_else(|| wrong("the host is missing"))?.to_owned(),
            port: url.port().unwrap_or(port),
            tls,
            websocket,
        })
    }
}

/// User name and password.
#[derive(Clone)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Takes the password from the first line of `password_file`, else from the environment variable
    /// [`PASSWORD_VARIABLE`]; `None` without a user name.
    ///
    /// # Errors
    /// The file cannot be read, or there is a user name without a password or the other way round.
    pub fn gather(
        username: Option<String>,
        password_file: Option<&Path>,
    ) -> Result<Option<Self>, LinkError> {
        let password = match password_file {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(|source| LinkError::PasswordFile {
                    path: path.to_owned(),
                    source,
                })?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            None => std::env::var(PASSWORD_VARIABLE).ok(),
        };
        match (username, password) {
            (Some(username), Some(password)) => Ok(Some(Self { username, password })),
            (Some(username), None) => Err(LinkError::NoPassword { username }),
            (None, _) if password_file.is_some() => Err(LinkError::NoUsername),
            (None, _) => Ok(None),
        }
    }
}

/// How to reach the broker, checked.
#[derive(Clone)]
pub struct BrokerOptions {
    /// Where it is.
    pub address: BrokerAddress,
    /// How long a silent link is waited for.
    pub timing: Timing,
    credentials: Option<Credentials>,
    roots: Option<Arc<RootCertStore>>,
    tls: Option<Arc<ClientConfig>>,
}

impl BrokerOptions {
    /// With TLS the broker's certificate must be signed by one of `ca` (a PEM file), or without it by
    /// one that this system trusts.
    ///
    /// # Errors
    /// The file with certificates cannot be read or holds none; or it is given for an address without
    /// TLS, where it would protect nothing.
    pub fn new(
        address: BrokerAddress,
        credentials: Option<Credentials>,
        ca: Option<&Path>,
    ) -> Result<Self, LinkError> {
        if !address.tls && ca.is_some() {
            return Err(LinkError::Address {
                address: address.to_string(),
                reason: "--ca needs an mqtts:// or wss:// address".to_owned(),
            });
        }
        let roots = address.tls.then(|| trusted(ca)).transpose()?.map(Arc::new);
        let tls = roots
            .clone()
            .map(|roots| tls_config(roots, None))
            .transpose()?;
        Ok(Self {
            address,
            timing: Timing::default(),
            credentials,
            roots,
            tls,
        })
    }

    /// Shows the broker a certificate of our own (a PEM file) with its private key (another, or the same).
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should, the key is not the certificate's, or the address is
    /// without TLS.
    pub fn with_client_certificate(
        mut self,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, LinkError> {
        let Some(roots) = self.roots.clone() else {
            return Err(LinkError::Address {
                address: self.address.to_string(),
                reason: "a client certificate needs an mqtts:// or wss:// address".to_owned(),
            });
        };
        let chain = certificates(certificate)?;
        let secret =
            PrivateKeyDer::from_pem_file(key).map_err(|e| LinkError::ClientCertificate {
                path: key.to_owned(),
                reason: format!("no private key: {e}"),
            })?;
        let identity = tls_config(roots, Some((chain, secret)));
        self.tls = Some(identity.map_err(|e| match e {
            LinkError::Tls { source, .. } => LinkError::ClientCertificate {
                path: certificate.to_owned(),
                reason: source.to_string(),
            },
            other => other,
        })?);
        Ok(self)
    }

    /// Waits for a silent link as `timing` says.
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Options of an MQTT 5 client, with a clean start.
    pub fn client(&self, client_id: &str) -> MqttOptions {
        let host = match &self.address.websocket {
            // For a WebSocket the client library wants the address whole.
            Some(_) => self.address.to_string(),
            None => self.address.host.clone(),
        };
        let mut options = MqttOptions::new(client_id, host, self.address.port);
        options
            .set_keep_alive(self.timing.keep_alive.max(Duration::from_secs(5)))
            .set_connection_timeout(self.timing.connect_timeout.as_secs().max(1))
            .set_clean_start(true);
        if let Some(c) = &self.credentials {
            options.set_credentials(&c.username, &c.password);
        }
        let tls = self.tls.clone().map(TlsConfiguration::Rustls);
        options.set_transport(match (&self.address.websocket, tls) {
            (None, None) => Transport::Tcp,
            (None, Some(tls)) => Transport::Tls(tls),
            (Some(_), None) => Transport::Ws,
            (Some(_), Some(tls)) => Transport::Wss(tls),
        });
        options
    }

    /// Says what went wrong with a connection.
    pub fn explain(&self, error: ConnectionError) -> LinkError {
        let broker = self.address.to_string();
        let io = match error {
            ConnectionError::ConnectionRefused(code) => {
                return LinkError::Refused { broker, code };
            }
            ConnectionError::Timeout(_) => {
                return LinkError::Silent {
                    broker,
                    seconds: self.timing.connect_timeout.as_secs(),
                };
            }
            ConnectionError::Tls(rumqttc::TlsError::Io(io)) | ConnectionError::Io(io) => io,
            other => {
                return LinkError::Lost {
                    broker,
                    source: Box::new(other),
                };
            }
        };
        match io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(source) => LinkError::Tls {
                broker,
                source: source.clone(),
            },
            None => LinkError::Unreachable { broker, source: io },
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let wrong = |reason: String| LinkError::ClientCertificate {
        path: path.to_owned(),
        reason,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| wrong(e.to_string()))?
        .collect();
    let chain = chain.map_err(|e| wrong(e.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("it holds no PEM certificate".to_owned()));
    }
    Ok(chain)
}

fn trusted(ca: Option<&Path>) -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let wrong = |reason: String| LinkError::Ca {
            path: path.to_owned(),
            reason,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("it holds no PEM certificate".to_owned()));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(LinkError::NoSystemCertificates);
        }
    }
    Ok(roots)
}

fn tls_config(
    roots: Arc<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, LinkError> {
    let wrong = |source| LinkError::Tls {
        broker: "TLS".to_owned(),
        source,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots);
    let config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(wrong)?,
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Pauses between attempts to connect: from half a second to half a minute, with jitter, without end.
pub fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}

/// What can be wrong with the link.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The address cannot be used.
    #[error("broker address {address:?}: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// Why.
        reason: String,
    },
    /// The certificates to trust cannot be used.
    #[error("cannot use {} as certificates to trust: {reason}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Our own certificate cannot be shown.
    #[error("cannot use {} to prove who we are: {reason}", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// This system trusts nobody.
    #[error(
        "this system has no trusted certificates: name the broker's certificate authority with --ca"
    )]
    NoSystemCertificates,
    /// The password's file cannot be read.
    #[error("cannot read the password from {}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A user name alone.
    #[error(
        "user {username:?} has no password: set CALLOSITY_MQTT_PASSWORD or use --password-file"
    )]
    NoPassword {
        /// The name.
        username: String,
    },
    /// A password alone.
    #[error("a password file needs --username")]
    NoUsername,
    /// The broker does not let us in.
    #[error("broker {broker} refuses the connection: {}", refusal(*code))]
    Refused {
        /// The broker's address.
        broker: String,
        /// Its reason.
        code: ConnectReturnCode,
    },
    /// The broker does not let us hear.
    #[error("broker {broker} refuses the subscription to {filter}: {reason}")]
    SubscriptionRefused {
        /// The broker's address.
        broker: String,
        /// What was asked for.
        filter: String,
        /// Its reason.
        reason: String,
    },
    /// TLS failed, mostly because of the certificate.
    #[error("no secure connection to broker {broker}: {}", tls_failure(source))]
    Tls {
        /// The broker's address.
        broker: String,
        /// Why.
        source: rustls::Error,
    },
    /// No connection, or an unknown host.
    #[error("cannot reach broker {broker}: {source}")]
    Unreachable {
        /// The broker's address.
        broker: String,
        /// Why.
        source: std::io::Error,
    },
    /// No answer.
    #[error("broker {broker} did not answer for {seconds} s")]
    Silent {
        /// The broker's address.
        broker: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A connection that stood was lost.
    #[error("connection to broker {broker} lost: {source}")]
    Lost {
        /// The broker's address.
        broker: String,
        /// Why.
        source: Box<ConnectionError>,
    },
}

impl LinkError {
    /// Whether trying again cannot help as long as nobody changes the configuration.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(
                code,
                ConnectReturnCode::BadUserNamePassword
                    | ConnectReturnCode::NotAuthorized
                    | ConnectReturnCode::Banned
                    | ConnectReturnCode::BadAuthenticationMethod
                    | ConnectReturnCode::ClientIdentifierNotValid
                    | ConnectReturnCode::UnsupportedProtocolVersion
                    | ConnectReturnCode::RefusedProtocolVersion
                    | ConnectReturnCode::RetainNotSupported
                    | ConnectReturnCode::QoSNotSupported
            ),
            // A clock that is still wrong after start makes good certificates look out of date.
            Self::Tls { source, .. } => match source {
                rustls::Error::InvalidCertificate(e) => !matches!(
                    e,
                    CertificateError::Expired
                        | CertificateError::ExpiredContext { .. }
                        | CertificateError::NotValidYet
                        | CertificateError::NotValidYetContext { .. }
                ),
                _ => false,
            },
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Lost { .. } => false,
            _ => true,
        }
    }

    /// Whether another client with our name has taken the place.
    pub fn is_taken_over(&self) -> bool {
        use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode::SessionTakenOver;
        matches!(
            self,
            Self::Lost { source, .. } if matches!(
                **source,
                ConnectionError::MqttState(StateError::ServerDisconnect {
                    reason_code: SessionTakenOver,
                    ..
                })
            )
        )
    }
}

fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "user name or password is wrong, or missing (--username, and --password-file or \
             CALLOSITY_MQTT_PASSWORD)"
                .to_owned()
        }
        other => format!("{other:?}"),
    }
}

fn tls_failure(error: &rustls::Error) -> String {
    match error {
        // An authority that only bears the right name has the wrong key: the signature fails.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "its certificate is not trusted (unknown issuer); name its certificate authority with --ca"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            e @ (CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }),
        ) => format!("its certificate is for another host ({e})"),
        rustls::Error::InvalidCertificate(e) => format!("its certificate cannot be used ({e})"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| text.parse::<BrokerAddress>();
        let a = parse("mqtt://ground.example").unwrap();
        assert_eq!(
            (a.host.as_str(), a.port, a.tls),
            ("ground.example", 1883, false)
        );
        let a = parse("mqtts://10.0.0.1:9000/").unwrap();
        assert_eq!((a.host.as_str(), a.port, a.tls), ("10.0.0.1", 9000, true));
        for wrong in [
            "ground",
            "http://g",
            "mqtt://",
            "mqtt://g/topic",
            "mqtt://g:99999",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let error = parse("mqtts://me:secret@ground").unwrap_err().to_string();
        assert!(
            !error.contains("secret") && error.contains("--password-file"),
            "{error}"
        );
    }
}
