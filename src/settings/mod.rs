//! The settings of a box: one TOML file, drop-ins, the environment, arguments, and what was set in flight.
//!
//! Later ones win, key by key:
//!
//! 1. what the program has by itself;
//! 2. `callosity.toml`;
//! 3. the files `*.toml` in the folder `callosity.toml.d` beside it, in the order of their names;
//! 4. variables of the environment such as `CALLOSITY__BROKER__URL` (see [`VARIABLES`]);
//! 5. `KEY=VALUE` arguments, and options that are short for them;
//! 6. what was set in flight: exposure and the like of cameras, in a file of the state folder ([`InFlight`]).
//!
//! Each file is checked by itself, so that an error names its line; a key that is not known is refused with the nearest
//! one that is. What is wrong with a value is said with the key and where the value comes from.
//!
//! Secrets never stand here: keys name files that hold them, and systemd's credentials are found by themselves.

mod camera;
mod error;
mod flight;
mod in_flight;
mod keys;
mod layers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use camera::{CameraArgument, CameraSettings, SettingValue};
pub use error::SettingsError;
pub use flight::{Link, Numbers};
pub use in_flight::InFlight;
pub use layers::{Layers, VARIABLES};

use crate::archive::EVERY;
use crate::bundles::Bundles;
use crate::sighting::LOST_AFTER;

/// Where the package puts the settings.
pub const SETTINGS_FILE: &str = "/etc/callosity/callosity.toml";

/// Where the service has its state.
const STATE_OF_THE_SERVICE: &str = "/var/lib/callosity";

/// Where the package has the service's secrets lie.
const SECRETS: &str = "/etc/callosity/credentials";

/// Where the package puts the bundle.
pub const INSTALLED_BUNDLE: &str = "/usr/share/callosity/bundles/right-whales";

/// The bundle that is used where nobody names one: that of the repository where one stands in it, else the installed one.
pub fn default_bundle() -> PathBuf {
    let in_repository = Path::new("models/right-whales");
    if in_repository.is_dir() {
        in_repository.to_owned()
    } else {
        INSTALLED_BUNDLE.into()
    }
}

/// The settings file with every key and what it means.
pub const TEMPLATE: &str = include_str!("callosity.toml");

/// Every key of the settings; `callosity.toml` says what each means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Name of the aircraft in topics.
    pub platform: String,
    /// Directory of the model bundle; see [`Loaded::bundle`].
    pub bundle: PathBuf,
    /// minisign's public key of whom this box takes bundles from.
    pub bundle_key: PathBuf,
    /// Folder for what must outlive the program.
    pub state: Option<PathBuf>,
    /// A file to which a line of JSON is added for each frame.
    pub record: Option<PathBuf>,
    /// Seconds after which an animal that is not seen any more is left behind.
    pub lost_after_seconds: f64,
    /// Seconds from being asked to stop to the end.
    pub stop_deadline_seconds: u32,
    /// The link to the ground.
    pub broker: Broker,
    /// What waits for the broker.
    pub outbox: Outbox,
    /// The cameras, by name.
    pub camera: BTreeMap<String, CameraSettings>,
    /// Where the aircraft is.
    pub position: Position,
    /// Who flies, for what.
    pub survey: SurveySettings,
    /// The page of the box.
    pub page: Page,
    /// Pictures that are kept.
    pub archive: Archive,
    /// What networks run on.
    pub engine: Engine,
}

/// The link to the ground.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Broker {
    /// `mqtt://HOST[:PORT]`, `mqtts://`, `ws://` or `wss://`.
    pub url: String,
    /// User name.
    pub username: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities that may vouch for the broker.
    pub ca: Option<PathBuf>,
    /// PEM file of our own certificate.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub client_key: Option<PathBuf>,
    /// Seconds between pings of a silent link.
    pub keep_alive_seconds: u32,
    /// Seconds that the broker has for its welcome.
    pub connect_timeout_seconds: u32,
    /// How messages are encoded.
    pub encoding: Encoding,
    /// Larger messages are not sent.
    pub largest_message_bytes: Option<u32>,
    /// Seconds between health messages.
    pub health_interval_seconds: u32,
}

/// How messages are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Readable by everything.
    Json,
    /// A third of the size.
    Cbor,
}

/// What waits for the broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Outbox {
    /// Most bytes, such as `1GB`.
    pub budget: String,
}

/// Where the aircraft is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Position {
    /// `HOST[:PORT]` of gpsd.
    pub gpsd: Option<String>,
    /// Seconds between messages that say where the aircraft is.
    pub track_interval_seconds: u32,
}

/// Who flies, for what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SurveySettings {
    /// Who observes.
    pub observers: Vec<String>,
    /// The survey that flights belong to.
    pub project: Option<String>,
    /// Registration or type of the aircraft.
    pub aircraft: Option<String>,
    /// Whether the ground may set effort and marks.
    pub commands: bool,
}

/// The page of the box.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Page {
    /// `ADDRESS:PORT`.
    pub address: Option<String>,
    /// File whose first line is what other machines must show.
    pub token_file: Option<PathBuf>,
}

/// Pictures that are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Archive {
    /// Where.
    pub folder: Option<PathBuf>,
    /// Most bytes, such as `200GB`.
    pub budget: Option<String>,
    /// Of frames without a whale one in so many is kept.
    pub every: u64,
    /// Where a disk has to be mounted.
    pub mount: Option<PathBuf>,
}

/// What networks run on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Engine {
    /// `auto`, `onnxruntime` or `builtin`.
    pub engine: String,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// Processors in the order in which they are tried.
    pub providers: Vec<String>,
    /// Folder in which TensorRT keeps what it has compiled.
    pub tensorrt_cache: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            platform: String::new(),
            bundle: default_bundle(),
            bundle_key: "/etc/callosity/bundle-key.pub".into(),
            state: None,
            record: None,
            lost_after_seconds: LOST_AFTER.as_secs_f64(),
            stop_deadline_seconds: 20,
            broker: Broker::default(),
            outbox: Outbox::default(),
            camera: BTreeMap::new(),
            position: Position::default(),
            survey: SurveySettings::default(),
            page: Page::default(),
            archive: Archive::default(),
            engine: Engine::default(),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: None,
            password_file: None,
            ca: None,
            client_certificate: None,
            client_key: None,
            keep_alive_seconds: 15,
            connect_timeout_seconds: 30,
            encoding: Encoding::Json,
            largest_message_bytes: None,
            health_interval_seconds: 10,
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            budget: "1GB".to_owned(),
        }
    }
}

impl Default for Position {
    fn default() -> Self {
        Self {
            gpsd: None,
            track_interval_seconds: 10,
        }
    }
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            folder: None,
            budget: None,
            every: EVERY,
            mount: None,
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            engine: "auto".to_owned(),
            onnxruntime: None,
            providers: ["tensorrt", "cuda", "cpu"].map(str::to_owned).into(),
            tensorrt_cache: None,
        }
    }
}

/// Settings with where each comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// By key, where its value comes from, such as `/etc/callosity/callosity.toml line 12`.
    origins: BTreeMap<String, String>,
    in_flight: Option<InFlight>,
}

impl Loaded {
    /// Where the value of a key comes from; `None` where it is what the program has by itself.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(String::as_str)
    }

    /// Every key that is set, with its value as TOML and where that comes from.
    pub fn all(&self) -> Vec<(String, String, String)> {
        fn below(value: &toml::Value, key: &str, all: &mut Vec<(String, String)>) {
            match value {
                toml::Value::Table(table) => {
                    for (name, value) in table {
                        let key = if key.is_empty() {
                            name.clone()
                        } else {
                            format!("{key}.{name}")
                        };
                        below(value, &key, all);
                    }
                }
                value => all.push((key.to_owned(), value.to_string())),
            }
        }
        let mut all = Vec::new();
        if let Ok(settings) = toml::Value::try_from(&self.settings) {
            below(&settings, "", &mut all);
        }
        let with_origin = |(key, value): (String, String)| {
            let origin = self.origin(&key).unwrap_or("by default").to_owned();
            (key, value, origin)
        };
        all.into_iter().map(with_origin).collect()
    }

    /// What is wrong with a value.
    fn wrong(&self, key: &str, value: impl ToString, reason: impl ToString) -> SettingsError {
        SettingsError::Value {
            key: key.to_owned(),
            value: value.to_string(),
            origin: self.origin(key).unwrap_or("by default").to_owned(),
            reason: reason.to_string(),
        }
    }

    /// A key without which nothing can be flown.
    fn missing(&self, key: &'static str, example: &'static str) -> SettingsError {
        SettingsError::Missing {
            key,
            example,
            files: self.files.clone(),
        }
    }

    /// The bundles that were installed on this box; `None` where the settings name a directory, which then is flown with
    /// whatever is installed.
    pub fn bundles(&self) -> Option<Bundles> {
        let named = self.origin("bundle").is_some();
        let state = self.state().ok().filter(|_| !named)?;
        Some(Bundles::new(state.join("bundles")))
    }

    /// Directory of the bundle to fly with: the one that the settings name, else the one that was installed last, else that
    /// of the package or the repository.
    pub fn bundle(&self) -> PathBuf {
        let installed = self.bundles().and_then(|bundles| bundles.current());
        installed.unwrap_or_else(|| self.settings.bundle.clone())
    }

    /// What the page sets in flight.
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.in_flight.as_ref()
    }

    /// Where state lies.
    ///
    /// # Errors
    /// Nobody says where, and there is no home folder.
    pub fn state(&self) -> Result<PathBuf, SettingsError> {
        self.settings
            .state
            .clone()
            .or_else(state_of_the_unit)
            .or_else(|| {
                let of_the_service = self.files.iter().any(|f| f == Path::new(SETTINGS_FILE));
                of_the_service.then(|| STATE_OF_THE_SERVICE.into())
            })
            .or_else(|| state_at_home("callosity"))
            .ok_or_else(|| self.missing("state", "\"/var/lib/callosity\""))
    }
}

/// Where the state of a service of this name lies when nobody says where: `$STATE_DIRECTORY`, as systemd sets it, or in the
/// home folder. `None` where there is no home folder.
pub fn default_state(service: &str) -> Option<PathBuf> {
    state_of_the_unit().or_else(|| state_at_home(service))
}

fn state_of_the_unit() -> Option<PathBuf> {
    // systemd gives a list where a unit has several.
    std::env::split_paths(&std::env::var_os("STATE_DIRECTORY")?).next()
}

fn state_at_home(service: &str) -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = named("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(named("HOME")?).join(".local/state")));
    Some(base?.join(service))
}

/// A secret that systemd holds for the service (`LoadCredential=`), or that whoever looks at the box may read where the service
/// has it from; `None` where there is none or it is empty.
pub fn credential(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
    let path = folder
        .map_or_else(|| SECRETS.into(), PathBuf::from)
        .join(name);
    let bytes = std::fs::metadata(&path).ok()?.len();
    (bytes > 0).then_some(path)
}
