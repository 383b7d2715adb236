use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;
use uuid::Uuid;

use super::Controlled;

pub(super) fn routes(controlled: Controlled) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/sightings/{id}/crop", get(crop))
        .route("/stop", post(stop))
        .with_state(controlled)
}

/// All that the page shows.
async fn status(State(controlled): State<Controlled>) -> Json<Value> {
    let counters = &controlled.counters;
    let health = counters.health();
    let sightings = counters.last_sightings();
    let sightings = sightings.iter().map(|last| {
        json!({
            "occurrenceID": last.sighting.occurrence_id,
            "eventDate": last.sighting.event_date,
            "camera": last.sighting.camera,
            "decision": last.sighting.decision,
            "organismID": last.sighting.organism_id,
            "provisionalID": last.sighting.provisional_id,
            "candidates": last.sighting.candidates.iter().take(3).collect::<Vec<_>>(),
            "unknownProbability": last.sighting.unknown_probability,
            "framesSeen": last.sighting.frames_seen,
            "state": last.sighting.state,
            "hasCrop": last.crop.is_some(),
        })
    });
    Json(json!({
        "fitness": counters.fitness(&health),
        "effort": controlled.effort.as_ref().map(|effort| effort.report()),
        "marks": controlled.effort.as_ref().map(|effort| effort.marks().len()),
        "sightings": sightings.collect::<Vec<_>>(),
        "cameras": controlled.cameras.describe(&health),
        "health": health,
    }))
}

async fn crop(State(controlled): State<Controlled>, Path(id): Path<Uuid>) -> Response {
    let last = controlled.counters.last_sightings();
    let crop = last
        .into_iter()
        .find(|last| last.sighting.occurrence_id == id)
        .and_then(|last| last.crop);
    match crop {
        Some(jpeg) => {
            let headers = [
                (header::CONTENT_TYPE, "image/jpeg"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, jpeg.to_vec()).into_response()
        }
        None => {
            let error = format!("there is no picture of sighting {id} among the last ones");
            (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
        }
    }
}

#[derive(Deserialize)]
struct Stop {
    stop: bool,
}

/// The body says so too, `{"stop": true}`, so that nobody ends a flight by a link.
async fn stop(State(controlled): State<Controlled>, Json(body): Json<Stop>) -> Response {
    if !body.stop {
        let error = "the body must be {\"stop\": true}";
        return (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({ "error": error })),
        )
            .into_response();
    }
    info!("asked to stop on the page");
    controlled.stop.cancel();
    StatusCode::ACCEPTED.into_response()
}
