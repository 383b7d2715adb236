//! Settings become what the service flies with.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use link::broker::{Credentials, Timing};
use link::codec;
use link::topic::Platform;
use link::{BrokerAddress, BrokerOptions};
use recognition::inference::{EngineChoice, EngineConfig};

use super::{Encoding, Loaded, SettingsError, credential};
use crate::archive;
use crate::control::{self, Token};
use crate::effort::EffortSettings;
use crate::outbox::Limits;
use crate::service::{Flight, Recogniser, Survey};

/// The link to the ground, ready to be used.
pub struct Link {
    /// How to reach the broker.
    pub broker: BrokerOptions,
    /// Who we are there.
    pub platform: Platform,
}

/// The numbers of a flight, each within its range.
pub struct Numbers {
    /// Bounds of what waits for the broker.
    pub outbox: Limits,
    /// Messages with more bytes are not sent.
    pub largest_message: Option<usize>,
    /// Time between health messages.
    pub health_interval: Duration,
    /// From being asked to stop to the end.
    pub stop_deadline: Duration,
    /// After it an animal that is not seen any more is left behind.
    pub lost_after: Duration,
}

impl Loaded {
    /// What networks run on; `threads` as for [`EngineConfig`], or one for each core.
    ///
    /// # Errors
    /// There is no such engine or processor.
    pub fn engine(&self, threads: Option<usize>) -> Result<EngineConfig, SettingsError> {
        let engine = &self.settings.engine;
        let choice = match engine.engine.as_str() {
            "auto" => EngineChoice::Auto,
            "onnxruntime" => EngineChoice::OnnxRuntime,
            "builtin" => EngineChoice::Builtin,
            other => {
                return Err(self.wrong(
                    "engine.engine",
                    other,
                    "it is auto, onnxruntime or builtin",
                ));
            }
        };
        let providers = engine.providers.iter().map(|name| {
            name.parse()
                .map_err(|reason: String| self.wrong("engine.providers", name, reason))
        });
        let default = EngineConfig::default();
        Ok(EngineConfig {
            choice,
            library: engine.onnxruntime.clone(),
            providers: providers.collect::<Result<_, _>>()?,
            threads: threads.unwrap_or(default.threads),
            at_once: default.at_once,
            tensorrt_cache: engine.tensorrt_cache.clone(),
        })
    }

    /// The link to the ground. The password is that of `broker.password_file`, else of the variable
    /// `CALLOSITY_MQTT_PASSWORD`, else of systemd's credential `mqtt-password`; the client's key likewise is the credential
    /// `mqtt-client-key` where no file is named.
    ///
    /// # Errors
    /// Something is missing, cannot be read, or makes no sense.
    pub fn link(&self) -> Result<Link, SettingsError> {
        let broker = &self.settings.broker;
        if self.settings.platform.is_empty() {
            return Err(self.missing("platform", "\"aircraft-1\""));
        }
        if broker.url.is_empty() {
            return Err(self.missing("broker.url", "\"mqtts://ground.example.org\""));
        }
        let address: BrokerAddress = self.parsed("broker.url", &broker.url)?;
        let password_file = broker.password_file.clone().or_else(|| {
            // It may be there where the broker asks for none.
            broker.username.as_ref()?;
            let of_environment = std::env::var_os(link::broker::PASSWORD_VARIABLE);
            of_environment
                .is_none()
                .then(|| credential("mqtt-password"))
                .flatten()
        });
        let credentials = Credentials::gather(broker.username.clone(), password_file.as_deref())?;
        let keep_alive = self.within(
            "broker.keep_alive_seconds",
            broker.keep_alive_seconds,
            5..=3600,
        )?;
        let connect = self.within(
            "broker.connect_timeout_seconds",
            broker.connect_timeout_seconds,
            1..=3600,
        )?;
        let mut options = BrokerOptions::new(address, credentials, broker.ca.as_deref())?
            .with_timing(Timing {
                keep_alive: seconds(keep_alive),
                connect_timeout: seconds(connect),
                ..Timing::default()
            });
        let key = broker
            .client_key
            .clone()
            .or_else(|| credential("mqtt-client-key"));
        match (&broker.client_certificate, &key) {
            (Some(certificate), Some(key)) => {
                options = options.with_client_certificate(certificate, key)?;
            }
            (Some(certificate), None) => {
                let reason = "its private key is missing: set broker.client_key, or give systemd the credential mqtt-client-key";
                return Err(self.wrong("broker.client_certificate", certificate.display(), reason));
            }
            (None, _) => {
                if let Some(key) = &broker.client_key {
                    let reason = "its certificate is missing: set broker.client_certificate";
                    return Err(self.wrong("broker.client_key", key.display(), reason));
                }
            }
        }
        Ok(Link {
            broker: options,
            platform: self.parsed("platform", &self.settings.platform)?,
        })
    }

    /// Where pictures are kept, if they are.
    ///
    /// # Errors
    /// The budget is no size, or there are other keys without a folder.
    pub fn archive(&self) -> Result<Option<archive::Settings>, SettingsError> {
        let archive = &self.settings.archive;
        let Some(folder) = archive.folder.clone() else {
            for (key, set) in [
                ("budget", archive.budget.is_some()),
                ("mount", archive.mount.is_some()),
            ] {
                if set {
                    let reason = "it needs archive.folder, without which no pictures are kept";
                    return Err(self.wrong(&format!("archive.{key}"), "set", reason));
                }
            }
            return Ok(None);
        };
        let budget = archive.budget.as_deref();
        Ok(Some(archive::Settings {
            folder,
            budget: budget
                .map(|text| self.bytes("archive.budget", text))
                .transpose()?,
            every: archive.every,
            mount: archive.mount.clone(),
        }))
    }

    /// Where position, time and effort come from, and where the page is.
    ///
    /// # Errors
    /// An address or a number cannot be.
    pub fn survey(&self) -> Result<Survey, SettingsError> {
        let (survey, position) = (&self.settings.survey, &self.settings.position);
        let gpsd = position
            .gpsd
            .as_deref()
            .map(|text| self.parsed("position.gpsd", text));
        let track = self.within(
            "position.track_interval_seconds",
            position.track_interval_seconds,
            1..=3600,
        )?;
        let has_effort = !survey.observers.is_empty()
            || survey.project.is_some()
            || survey.aircraft.is_some()
            || survey.commands
            || self.settings.page.address.is_some();
        Ok(Survey {
            gpsd: gpsd.transpose()?,
            mountings: self.mountings()?,
            track_interval: seconds(track),
            effort: has_effort.then(|| EffortSettings {
                observers: survey.observers.clone(),
                project: survey.project.clone(),
                aircraft: survey.aircraft.clone(),
            }),
            commands: survey.commands,
            ..Survey::default()
        })
    }

    /// A flight. What recognises takes seconds to load, so it is asked for when all else is known to be well.
    ///
    /// # Errors
    /// Something is missing or makes no sense, or there is nothing that recognises.
    pub fn flight<R: Recogniser, E: From<SettingsError>>(
        &self,
        recogniser: impl FnOnce() -> Result<R, E>,
    ) -> Result<Flight<R>, E> {
        let settings = &self.settings;
        if settings.camera.is_empty() {
            return Err(self
                .missing("camera.NAME.source", "\"v4l2:PATH-OR-SERIAL\"")
                .into());
        }
        let Link { broker, platform } = self.link()?;
        let numbers = self.numbers()?;
        let (state, cameras) = (self.state()?, self.cameras()?);
        let (survey, archive, page) = (self.survey()?, self.archive()?, self.page()?);
        let in_flight = self.in_flight().cloned();
        Ok(Flight {
            cameras,
            recogniser: recogniser()?,
            broker,
            platform,
            state,
            outbox: numbers.outbox,
            encoding: match settings.broker.encoding {
                Encoding::Json => codec::Encoding::Json,
                Encoding::Cbor => codec::Encoding::Cbor,
            },
            largest_message: numbers.largest_message,
            health_interval: numbers.health_interval,
            stop_deadline: numbers.stop_deadline,
            lost_after: numbers.lost_after,
            record: settings.record.clone(),
            survey,
            archive,
            page,
            flown_well: None,
            keep_setting: in_flight.map(|in_flight| {
                Arc::new(move |camera: &str, name: &str, setting: Option<&_>| {
                    in_flight.set(camera, name, setting)
                }) as _
            }),
        })
    }

    /// The numbers of a flight.
    ///
    /// # Errors
    /// One cannot be.
    pub fn numbers(&self) -> Result<Numbers, SettingsError> {
        let (settings, broker) = (&self.settings, &self.settings.broker);
        let largest = broker
            .largest_message_bytes
            .map(|bytes| self.within("broker.largest_message_bytes", bytes, 1000..=u32::MAX));
        let health = self.within(
            "broker.health_interval_seconds",
            broker.health_interval_seconds,
            1..=3600,
        )?;
        let stop = self.within(
            "stop_deadline_seconds",
            settings.stop_deadline_seconds,
            1..=3600,
        )?;
        let lost = self.within(
            "lost_after_seconds",
            settings.lost_after_seconds,
            0.0..=3600.0,
        )?;
        Ok(Numbers {
            outbox: Limits {
                bytes: self.bytes("outbox.budget", &settings.outbox.budget)?,
            },
            largest_message: largest.transpose()?.map(|bytes| bytes as usize),
            health_interval: seconds(health),
            stop_deadline: seconds(stop),
            lost_after: Duration::from_secs_f64(lost),
        })
    }

    /// Where the page is, if there is one. What other machines must show is in `page.token_file`, else in systemd's
    /// credential `page-token`.
    ///
    /// # Errors
    /// The address cannot be, the token cannot be read, or other machines would be let in without one.
    pub fn page(&self) -> Result<Option<control::Page>, SettingsError> {
        let Some(text) = &self.settings.page.address else {
            return Ok(None);
        };
        let address: SocketAddr = text.parse().map_err(|_| {
            self.wrong(
                "page.address",
                text,
                "it is ADDRESS:PORT, such as 127.0.0.1:8080",
            )
        })?;
        let file = self.settings.page.token_file.clone();
        let token = file.or_else(|| credential("page-token")).map(|file| {
            let shown = file.display().to_string();
            Token::read(&file).map_err(|e| self.wrong("page.token_file", shown, e))
        });
        let token = token.transpose()?;
        if token.is_none() && !address.ip().is_loopback() {
            let reason = "whoever is on the network could set the effort there: set page.token_file, or use 127.0.0.1";
            return Err(self.wrong("page.address", text, reason));
        }
        Ok(Some(control::Page { address, token }))
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &str, text: &str) -> Result<T, SettingsError> {
        text.parse().map_err(|e| self.wrong(key, text, e))
    }

    fn within<T: PartialOrd + Copy + Display>(
        &self,
        key: &str,
        value: T,
        range: RangeInclusive<T>,
    ) -> Result<T, SettingsError> {
        if range.contains(&value) {
            Ok(value)
        } else {
            let reason = format!("it must be {} to {}", range.start(), range.end());
            Err(self.wrong(key, value, reason))
        }
    }

    fn bytes(&self, key: &str, text: &str) -> Result<u64, SettingsError> {
        bytes(text).map_err(|reason| self.wrong(key, text, reason))
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// The least that a budget may be: some frames and an index.
const LEAST: u64 = 50_000_000;

/// A number with a unit, as disks are sold: MB, GB, TB.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("it is a number with MB, GB or TB, such as 200GB, from {LEAST} bytes");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "MB" | "M" => 1e6,
        "GB" | "G" => 1e9,
        "TB" | "T" => 1e12,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * unit;
    if bytes.is_finite() && bytes >= LEAST as f64 {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_number_with_a_unit() {
        assert_eq!(bytes("200GB"), Ok(200_000_000_000));
        assert_eq!(bytes("1.5 tb"), Ok(1_500_000_000_000));
        assert_eq!(bytes("60000000"), Ok(60_000_000));
        for wrong in ["", "GB", "200GiB", "-1GB", "1MB", "NaN GB", "inf", "20 0GB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
