use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use recognition::geometry::Point;
#[cfg(target_os = "linux")]
use recognition::pixels::WhiteBalance;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

#[cfg(target_os = "linux")]
use crate::camera::Live;
#[cfg(target_os = "linux")]
use crate::camera::v4l2::{Address, Samples, V4l2Device, Wanted};
use crate::camera::{Camera, Mask, MountedCamera, Replay, Setting, Watch, WatchedFolder};
use crate::position::Mounting;

use super::{Loaded, SettingsError};

/// A camera and how it sits in the aircraft.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CameraSettings {
    /// `v4l2:PATH-OR-SERIAL`, `folder:DIR` or `replay:DIR`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Pixel format, such as `MJPG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Frame size in pixels, such as `1920x1080`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Frames a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// In the driver's units, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposure: Option<SettingValue>,
    /// In the driver's units, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<SettingValue>,
    /// In the driver's units, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub white_balance: Option<SettingValue>,
    /// In the driver's units, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub focus: Option<SettingValue>,
    /// What a sensor's samples are: `linear` or `srgb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<String>,
    /// The sample where there is no light.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub black_level: Option<u32>,
    /// What red, green and blue are multiplied with, for white balance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gains: Option<[f64; 3]>,
    /// Further controls by the driver's names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub controls: BTreeMap<String, SettingValue>,
    /// Polygons, in shares of the frame's width and height, where the aircraft is seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<Vec<[f64; 2]>>,
    /// How it sits in the airframe, and its lens and sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounting: Option<Mounting>,
    /// Of a folder: `auto` or `poll`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<String>,
    /// Of a folder: no photograph is passed over.
    #[serde(skip_serializing_if = "is_no")]
    pub all: bool,
    /// Of a replay: again from the beginning, without end.
    #[serde(rename = "loop", skip_serializing_if = "is_no")]
    pub again_and_again: bool,
    /// Of a replay: as a live camera.
    #[serde(skip_serializing_if = "is_no")]
    pub live: bool,
    /// Of a replay: go on where the last flight ended.
    #[serde(skip_serializing_if = "is_no")]
    pub resume: bool,
    /// Of a replay: numbers of frames that it does not take, as `FIRST-LAST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unplugged: Option<String>,
    /// Of a replay: when the first frame was or will be exposed, as `2026-12-01T10:30:00Z`. The others follow at the rate, and
    /// have these times though they are looked at later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
}

fn is_no(yes: &bool) -> bool {
    !yes
}

/// A camera's setting as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SettingValue {
    /// In the driver's units.
    Number(i64),
    /// `auto`, or the name of a menu's item.
    Name(String),
}

impl From<&SettingValue> for Setting {
    fn from(value: &SettingValue) -> Self {
        match value {
            SettingValue::Number(number) => Self::Number(*number),
            SettingValue::Name(name) => {
                let Ok(setting) = name.parse();
                setting
            }
        }
    }
}

impl From<&Setting> for SettingValue {
    fn from(setting: &Setting) -> Self {
        match setting {
            Setting::Number(number) => Self::Number(*number),
            other => Self::Name(other.to_string()),
        }
    }
}

/// Keys of a camera that are settings of its image, and may be set in flight.
pub(super) const IMAGE_SETTINGS: [&str; 4] = ["exposure", "gain", "white_balance", "focus"];

impl CameraSettings {
    /// What is set of the image, by the names that cameras know.
    pub fn image_settings(&self) -> Vec<(String, Setting)> {
        let named = [
            ("exposure", &self.exposure),
            ("gain", &self.gain),
            ("white-balance", &self.white_balance),
            ("focus", &self.focus),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let controls = self
            .controls
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        named
            .chain(controls)
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }

    /// Sets a setting of the image, by the name that cameras know.
    pub(super) fn set(&mut self, name: &str, value: Option<SettingValue>) {
        match name {
            "exposure" => self.exposure = value,
            "gain" => self.gain = value,
            "white-balance" => self.white_balance = value,
            "focus" => self.focus = value,
            _ => match value {
                Some(value) => {
                    self.controls.insert(name.to_owned(), value);
                }
                None => {
                    self.controls.remove(name);
                }
            },
        }
    }
}

/// A camera in one line, `KIND:WHICH[,OPTION]…`, where options are the keys of [`CameraSettings`], such as
/// `v4l2:SN1,name=left,rate=5,gain=auto,control.power_line_frequency=50 Hz,mask=0:0/0.2:0/0:1`.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraArgument {
    /// What it is called.
    pub name: String,
    /// Its settings, of which nothing is checked yet.
    pub settings: Table,
}

impl FromStr for CameraArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (source, options) = text.split_once(',').unwrap_or((text, ""));
        let (kind, which) = source
            .split_once(':')
            .ok_or("a camera is v4l2:PATH-OR-SERIAL, folder:DIR or replay:DIR")?;
        let mut settings = Table::new();
        let mut name = None;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (option.trim(), None),
            };
            match (key, value) {
                ("name", Some(value)) if name.is_none() => name = Some(value.to_owned()),
                ("mask", Some(value)) => {
                    let polygons = settings
                        .entry("mask")
                        .or_insert_with(|| Value::Array(Vec::new()));
                    let polygons = polygons.as_array_mut().ok_or("a mask is a list")?;
                    polygons.push(polygon(value)?);
                }
                ("gains", Some(value)) => {
                    let gains: Option<Vec<Value>> = value
                        .split(':')
                        .map(|gain| gain.parse().ok().map(Value::Float))
                        .collect();
                    let gains = gains.ok_or("gains are RED:GREEN:BLUE, such as 1.9:1:1.6")?;
                    settings.insert(key.to_owned(), Value::Array(gains));
                }
                (_, Some(value)) if key.starts_with("control.") => {
                    let name = key.trim_start_matches("control.").to_owned();
                    let controls = settings
                        .entry("controls")
                        .or_insert_with(|| Value::Table(Table::new()));
                    let controls = controls.as_table_mut().ok_or("controls are a table")?;
                    controls.insert(name, plain(value));
                }
                (_, value) => {
                    let value = value.map_or(Value::Boolean(true), |value| of_key(key, value));
                    if settings.insert(key.replace('-', "_"), value).is_some() || key == "name" {
                        return Err(format!("{key} is given twice or without a value"));
                    }
                }
            }
        }
        let name = match name {
            Some(name) => name,
            None => default_name(kind, which),
        };
        if name.is_empty() {
            return Err("a camera's name is empty".to_owned());
        }
        settings.insert("source".to_owned(), Value::String(source.to_owned()));
        Ok(Self { name, settings })
    }
}

/// What a camera is called that nobody gave a name.
fn default_name(kind: &str, which: &str) -> String {
    match kind {
        "folder" => {
            let path = Path::new(which);
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        }
        "replay" => "replay".to_owned(),
        #[cfg(target_os = "linux")]
        _ => which
            .parse::<Address>()
            .map_or_else(|_| which.to_owned(), |address| address.to_string()),
        #[cfg(not(target_os = "linux"))]
        _ => which.to_owned(),
    }
}

/// A value that the key takes as text, though it may look like a number; else a number where it is one.
fn of_key(key: &str, value: &str) -> Value {
    match key {
        "rate" => value.parse().map_or_else(|_| text(value), Value::Float),
        "format" | "size" | "samples" | "watch" | "unplugged" | "begun" => text(value),
        _ => plain(value),
    }
}

fn plain(value: &str) -> Value {
    value.parse().map_or_else(|_| text(value), Value::Integer)
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// `X:Y/X:Y/X:Y`.
fn polygon(corners: &str) -> Result<Value, String> {
    let corner = |text: &str| {
        let (x, y) = text.split_once(':')?;
        let sides = [x.parse().ok()?, y.parse().ok()?];
        Some(Value::Array(sides.map(Value::Float).into()))
    };
    let polygon: Option<Vec<Value>> = corners.split('/').map(corner).collect();
    polygon.map(Value::Array).ok_or_else(|| {
        format!(
            "mask={corners}: corners are X:Y/X:Y/X:Y, in shares of the frame's width and height"
        )
    })
}

/// A camera of the settings while it is put together.
struct Builder<'a> {
    loaded: &'a Loaded,
    name: &'a str,
    settings: &'a CameraSettings,
}

impl Loaded {
    /// The cameras, by name. Nothing is opened but folders.
    ///
    /// # Errors
    /// One is not as cameras are, or its folder cannot be listed; two are one device.
    pub fn cameras(&self) -> Result<Vec<MountedCamera>, SettingsError> {
        #[cfg(target_os = "linux")]
        self.check_devices()?;
        let cameras = self.settings.camera.iter();
        cameras.map(|(name, _)| self.camera(name)).collect()
    }

    /// One camera.
    ///
    /// # Errors
    /// As [`cameras`](Self::cameras).
    ///
    /// # Panics
    /// There is no such camera.
    pub fn camera(&self, name: &str) -> Result<MountedCamera, SettingsError> {
        let settings = &self.settings.camera[name];
        Builder {
            loaded: self,
            name,
            settings,
        }
        .mount()
    }

    /// How the cameras sit in the airframe.
    ///
    /// # Errors
    /// A number cannot be.
    pub(super) fn mountings(&self) -> Result<crate::position::Mountings, SettingsError> {
        let mut mountings = crate::position::Mountings::new();
        for (name, camera) in &self.settings.camera {
            if let Some(mounting) = &camera.mounting {
                mounting.check().map_err(|range| {
                    let key = format!("camera.{name}.mounting.{}", range.field);
                    let must = format!("it must be {} to {}", range.least, range.most);
                    self.wrong(&key, range.value, must)
                })?;
                mountings.insert(name.clone(), *mounting);
            }
        }
        Ok(mountings)
    }

    #[cfg(target_os = "linux")]
    fn check_devices(&self) -> Result<(), SettingsError> {
        let mut addresses = BTreeSet::new();
        for (name, camera) in &self.settings.camera {
            let which = camera.source.strip_prefix("v4l2:");
            if let Some(address) = which.and_then(|which| which.parse::<Address>().ok())
                && !addresses.insert(address.clone())
            {
                let reason = format!("{address} is named twice: two cameras cannot be one device");
                return Err(self.wrong(&format!("camera.{name}.source"), &camera.source, reason));
            }
        }
        Ok(())
    }
}

impl Builder<'_> {
    fn wrong(&self, key: &str, value: impl fmt::Display, reason: impl ToString) -> SettingsError {
        let key = format!("camera.{}.{key}", self.name);
        self.loaded.wrong(&key, value, reason)
    }

    fn mount(&self) -> Result<MountedCamera, SettingsError> {
        let source = &self.settings.source;
        let kinds = "it is v4l2:PATH-OR-SERIAL, folder:DIR or replay:DIR";
        let (kind, which) = source
            .split_once(':')
            .filter(|(_, which)| !which.is_empty())
            .ok_or_else(|| self.wrong("source", source, kinds))?;
        self.only_what_it_takes(kind)?;
        let camera = match kind {
            "v4l2" => self.v4l2(which)?,
            "folder" => self.folder(which)?,
            "replay" => self.replay(which)?,
            _ => return Err(self.wrong("source", source, kinds)),
        };
        let mut mask = Mask::default();
        for corners in &self.settings.mask {
            let points = corners.iter().map(|[x, y]| Point::new(*x, *y)).collect();
            mask.cover(points)
                .map_err(|e| self.wrong("mask", format!("{corners:?}"), e))?;
        }
        Ok(MountedCamera { camera, mask })
    }

    /// # Errors
    /// A key is set that cameras of other kinds have.
    fn only_what_it_takes(&self, kind: &str) -> Result<(), SettingsError> {
        let s = self.settings;
        let of_device = ["v4l2"].as_slice();
        let set = [
            ("format", s.format.is_some(), of_device),
            ("size", s.size.is_some(), of_device),
            ("exposure", s.exposure.is_some(), of_device),
            ("gain", s.gain.is_some(), of_device),
            ("white_balance", s.white_balance.is_some(), of_device),
            ("focus", s.focus.is_some(), of_device),
            ("controls", !s.controls.is_empty(), of_device),
            ("samples", s.samples.is_some(), of_device),
            ("black_level", s.black_level.is_some(), of_device),
            ("gains", s.gains.is_some(), of_device),
            ("rate", s.rate.is_some(), ["v4l2", "replay"].as_slice()),
            ("watch", s.watch.is_some(), ["folder"].as_slice()),
            ("all", s.all, ["folder"].as_slice()),
            ("loop", s.again_and_again, ["replay"].as_slice()),
            ("live", s.live, ["replay"].as_slice()),
            ("resume", s.resume, ["replay"].as_slice()),
            ("unplugged", s.unplugged.is_some(), ["replay"].as_slice()),
            ("begun", s.begun.is_some(), ["replay"].as_slice()),
        ];
        match set
            .iter()
            .find(|(_, set, kinds)| *set && !kinds.contains(&kind))
        {
            Some((key, _, kinds)) => {
                let reason = format!(
                    "only cameras {}: take it, and this is {}",
                    kinds.join(": and "),
                    s.source
                );
                Err(self.wrong(key, "set", reason))
            }
            None => Ok(()),
        }
    }

    fn rate(&self) -> Result<Option<f64>, SettingsError> {
        match self.settings.rate {
            Some(rate) if !(0.001..=1000.0).contains(&rate) => {
                Err(self.wrong("rate", rate, "frames a second are from 0.001 to 1000"))
            }
            rate => Ok(rate),
        }
    }

    #[cfg(target_os = "linux")]
    fn samples(&self) -> Result<Samples, SettingsError> {
        let linear = match self.settings.samples.as_deref() {
            None => None,
            Some("linear") => Some(true),
            Some("srgb") => Some(false),
            Some(other) => {
                let kinds = "it is linear, as a sensor measures light, or srgb, as a photograph is";
                return Err(self.wrong("samples", other, kinds));
            }
        };
        let white_balance = match self.settings.gains {
            None => WhiteBalance::GreyEdge,
            Some(gains) if gains.iter().all(|gain| (0.1..=16.0).contains(gain)) => {
                WhiteBalance::Gains(gains.map(|gain| gain as f32))
            }
            Some(gains) => {
                let reason = "each of red, green and blue is 0.1 to 16";
                return Err(self.wrong("gains", format!("{gains:?}"), reason));
            }
        };
        Ok(Samples {
            linear,
            black_level: self.settings.black_level.unwrap_or(0),
            white_balance,
        })
    }

    #[cfg(target_os = "linux")]
    fn v4l2(&self, which: &str) -> Result<Box<dyn Camera>, SettingsError> {
        let address: Address = which
            .parse()
            .map_err(|e| self.wrong("source", &self.settings.source, e))?;
        let format = self.settings.format.as_ref().map(|format| {
            <[u8; 4]>::try_from(format!("{format:<4}").as_bytes()).map_err(|_| {
                self.wrong(
                    "format",
                    format,
                    "it has four characters, such as MJPG, YUYV or Y10",
                )
            })
        });
        let size = self.settings.size.as_ref().map(|size| {
            let sides = size.split_once('x');
            let sides =
                sides.and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
            sides.ok_or_else(|| self.wrong("size", size, "it is WIDTHxHEIGHT, such as 1920x1080"))
        });
        let wanted = Wanted {
            format: format.transpose()?,
            size: size.transpose()?,
            rate: self.rate()?,
            settings: self.settings.image_settings(),
            samples: self.samples()?,
        };
        Ok(Box::new(Live::new(
            self.name,
            V4l2Device::new(address, wanted),
        )))
    }

    #[cfg(not(target_os = "linux"))]
    fn v4l2(&self, _: &str) -> Result<Box<dyn Camera>, SettingsError> {
        Err(self.wrong(
            "source",
            &self.settings.source,
            "there is V4L2 on Linux only",
        ))
    }

    fn folder(&self, which: &str) -> Result<Box<dyn Camera>, SettingsError> {
        let watch = match self.settings.watch.as_deref() {
            None | Some("auto") => Watch::Auto,
            Some("poll") => Watch::Poll,
            Some(other) => return Err(self.wrong("watch", other, "it is auto or poll")),
        };
        let camera = WatchedFolder::new(self.name, Path::new(which), watch)
            .map_err(|e| self.wrong("source", &self.settings.source, e))?;
        Ok(Box::new(if self.settings.all {
            camera.looking_at_all()
        } else {
            camera
        }))
    }

    fn replay(&self, which: &str) -> Result<Box<dyn Camera>, SettingsError> {
        let unplugged = match &self.settings.unplugged {
            None => 0..0,
            Some(text) => frame_numbers(text).ok_or_else(|| {
                self.wrong("unplugged", text, "numbers of frames from 0, as FIRST-LAST")
            })?,
        };
        let rate = self.rate()?.unwrap_or(1.0);
        let mut camera = Replay::open(Path::new(which), rate, self.settings.again_and_again)
            .map_err(|e| self.wrong("source", &self.settings.source, e))?
            .named(self.name)
            .unplugged(unplugged);
        if self.settings.live {
            camera = camera.as_live();
        }
        if self.settings.resume {
            camera = camera.resuming();
        }
        if let Some(begun) = &self.settings.begun {
            let first = begun.parse().map_err(|_| {
                self.wrong("begun", begun, "it is a time, such as 2026-12-01T10:30:00Z")
            })?;
            camera = camera.begun(first);
        }
        Ok(Box::new(camera))
    }
}

/// `FIRST-LAST`.
fn frame_numbers(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && last < u64::MAX).then(|| first..last + 1)
}
