use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::camera::{Setting, Settings};
use crate::observe::Counters;

/// The cameras of a flight, as they are asked and told. Clones share them.
#[derive(Clone)]
pub struct Cameras {
    counters: Arc<Counters>,
    settings: Arc<BTreeMap<String, Settings>>,
}

impl Cameras {
    /// `settings` are those of the cameras that have any, by their names.
    pub fn new(counters: Arc<Counters>, settings: BTreeMap<String, Settings>) -> Self {
        Self {
            counters,
            settings: Arc::new(settings),
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
    let of_camera = |camera: &link::message::CameraHealth| {
        let mut said = serde_json::to_value(camera).unwrap_or_default();
        if let Some(settings) = cameras.settings.get(&camera.name) {
            said["settings"] = in_json(settings);
        }
        let about = |part: &str| part.ends_with(&format!("camera {}", camera.name));
        let problems = health.problems.iter().filter(|p| about(&p.part));
        said["problems"] = problems.map(|p| Value::from(p.reason.as_str())).collect();
        said
    };
    Json(health.cameras.iter().map(of_camera).collect())
}

/// Sets the settings that the body names, such as `{"exposure": 5, "gain": "auto"}`; the others stay. A camera that cannot
/// be set so says it among its problems.
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
            Value::Number(number) => number.as_i64().map(Setting::Number),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(setting) = setting else {
            let allowed = "a whole number, \"auto\" or the name of a menu's item";
            let error = format!("{field} is {value}, and must be {allowed}");
            let said = json!({"error": error, "field": field, "value": value, "allowed": allowed});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(said)).into_response();
        };
        parsed.push((field, setting));
    }
    for (field, setting) in parsed {
        settings.set(field, setting);
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
