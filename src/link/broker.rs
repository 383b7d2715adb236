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
    pki_types::{CertificateDer, pem::PemObject},
};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use rumqttc::v5::{ConnectionError, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use thiserror::Error;
use url::Url;

/// Name of the environment variable with the broker's password.
pub const PASSWORD_VARIABLE: &str = "CALLOSITY_MQTT_PASSWORD";

/// Interval of pings. A connection without answer is given up after two of them.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Generous, because a handshake over a satellite takes many round trips of a second each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// `mqtt://host[:1883]` or `mqtts://host[:8883]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl BrokerAddress {
    /// A broker on this machine, without TLS.
    pub fn loopback(port: u16) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            tls: false,
        }
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
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
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(wrong("it must begin with mqtt:// or mqtts://")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "user name and password do not belong in it: use --username and \
                 --password-file or CALLOSITY_MQTT_PASSWORD",
            ));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("nothing may follow host and port"));
        }
        let host = url.host_str().filter(|h| !h.is_empty());
        Ok(Self {
            host: host.ok_or_else(|| wrong("the host is missing"))?.to_owned(),
            port: url.port().unwrap_or(if tls { 8883 } else { 1883 }),
            tls,
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
    credentials: Option<Credentials>,
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
                reason: "--ca needs an mqtts:// address".to_owned(),
            });
        }
        let tls = address.tls.then(|| tls_config(ca)).transpose()?;
        Ok(Self {
            address,
            credentials,
            tls,
        })
    }

    /// Options of an MQTT 5 client.
    pub(crate) fn client(&self, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, &self.address.host, self.address.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
            .set_clean_start(true);
        if let Some(c) = &self.credentials {
            options.set_credentials(&c.username, &c.password);
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
                tls.clone(),
            )));
        }
        options
    }

    /// Says what went wrong with a connection.
    pub(crate) fn explain(&self, error: ConnectionError) -> LinkError {
        let broker = self.address.to_string();
        let io = match error {
            ConnectionError::ConnectionRefused(code) => {
                return LinkError::Refused { broker, code };
            }
            ConnectionError::Timeout(_) => {
                return LinkError::Silent {
                    broker,
                    seconds: CONNECT_TIMEOUT.as_secs(),
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

fn tls_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, LinkError> {
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
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| LinkError::Tls {
            broker: "TLS".to_owned(),
            source,
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Pauses between attempts to connect: from half a second to half a minute, with jitter, without end.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
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
    pub(crate) fn is_taken_over(&self) -> bool {
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
