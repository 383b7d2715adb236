use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use link::message::{CameraHealth, Health};
use serde_json::{Map, Value, json};
use tracing::warn;

use crate::camera::{Setting, Settings};
use crate::observe::Counters;

/// Keeps a setting of a camera for flights to come, or with none gives it back to the settings file. Arguments: the camera's
/// name, the setting's, and what it is set to. Returns what the camera is to be set to now, where that is known.
pub type KeepSetting =
    Arc<dyn Fn(&str, &str, Option<&Setting>) -> std::io::Result<Option<Setting>> + Send + Sync>;

/// The cameras of a flight, as they are asked and told. Clones share them.
#[derive(Clone)]
pub struct Cameras {
    counters: Arc<Counters>,
    settings: Arc<BTreeMap<String, Settings>>,
    keep: Option<KeepSetting>,
}

impl Cameras {
    /// `settings` are those of the cameras that have any, by their names. Without `keep` what is set ends with the flight.
    pub fn new(
        counters: Arc<Counters>,
        settings: BTreeMap<String, Settings>,
        keep: Option<KeepSetting>,
    ) -> Self {
        Self {
            counters,
            settings: Arc::new(settings),
            keep,
        }
    }

    /// How each camera fares, with its settings and problems.
    pub(super) fn describe(&self, health: &Health) -> Value {
        let of_camera = |camera: &CameraHealth| {
            let mut said = serde_json::to_value(camera).unwrap_or_default();
            if let Some(settings) = self.settings.get(&camera.name) {
                said["settings"] = in_json(settings);
            }
            let about = |part: &str| part.ends_with(&format!("camera {}", camera.name));
            let problems = health.problems.iter().filter(|p| about(&p.part));
            said["problems"] = problems.map(|p| Value::from(p.reason.as_str())).collect();
            said["hasPreview"] = self.counters.preview(&camera.name).is_some().into();
            said
        };
        health.cameras.iter().map(of_camera).collect()
    }

    /// What a camera is to be set to, once it is kept. A disk that takes nothing costs the next flight's setting, not this
    /// one's.
    fn kept(&self, camera: &str, name: &str, setting: Option<Setting>) -> Option<Setting> {
        let Some(keep) = &self.keep else {
            return setting;
        };
        match keep(camera, name, setting.as_ref()) {
            Ok(setting) => setting,
            Err(e) => {
                warn!(
                    "{name} of camera {camera} holds until the program ends, since it cannot be kept: {e}"
                );
                setting
            }
        }
    }
}

pub(super) fn routes(cameras: Cameras) -> Router {
    Router::new()
        .route("/cameras", get(list))
        .route("/cameras/{name}/settings", put(set))
        .route("/cameras/{name}/preview", get(preview))
        .with_state(cameras)
}

async fn list(State(cameras): State<Cameras>) -> Json<Value> {
    let health = cameras.counters.health();
    Json(cameras.describe(&health))
}

/// Sets the settings that the body names, such as `{"exposure": 5, "gain": "auto"}`; the others stay. `null` gives one back
/// to the settings file. A camera that cannot be set so says it among its problems.
async fn set(
    State(cameras): State<Cameras>,
    Path(name): Path<String>,
    Json(wanted): Json<Map<String, Value>>,
) -> Response {
    let Some(settings) = cameras.settings.get(&name) else {
        let known: Vec<_> = cameras.settings.keys().collect();
        let error = format!("there is no camera {name:?} with settings, but {known:?}");
        return (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response();
    };
    let mut parsed = Vec::new();
    for (field, value) in &wanted {
        let setting = match value {
            Value::Null => Some(None),
            Value::Number(number) => number.as_i64().map(|number| Some(Setting::Number(number))),
            Value::String(text) => text.parse().ok().map(Some),
            _ => None,
        };
        let Some(setting) = setting else {
            let allowed = "a whole number, \"auto\", the name of a menu's item, or null";
            let error = format!("{field} is {value}, and must be {allowed}");
            let said = json!({"error": error, "field": field, "value": value, "allowed": allowed});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(said)).into_response();
        };
        parsed.push((field, setting));
    }
    for (field, setting) in parsed {
        if let Some(setting) = cameras.kept(&name, field, setting) {
            settings.set(field, setting);
        }
    }
    Json(in_json(settings)).into_response()
}

async fn preview(State(cameras): State<Cameras>, Path(name): Path<String>) -> Response {
    match cameras.counters.preview(&name) {
        Some(preview) => {
            let headers = [
                (header::CONTENT_TYPE, "image/jpeg".to_owned()),
                (header::CACHE_CONTROL, "no-store".to_owned()),
                (header::LAST_MODIFIED, in_http(preview.time)),
            ];
            (headers, preview.jpeg.to_vec()).into_response()
        }
        None => {
            let error = format!("camera {name:?} has given no frame yet");
            (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
        }
    }
}

/// As RFC 9110 writes dates.
fn in_http(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn in_json(settings: &Settings) -> Value {
    let setting = |(name, setting): (String, Setting)| {
        let value = match setting {
            Setting::Number(number) => Value::from(number),
            other => other.to_string().into(),
        };
        (name, value)
    };
    settings.wanted().into_iter().map(setting).collect()
}
