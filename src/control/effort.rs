use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::effort::{EffortError, EffortLog};

pub(super) fn routes(effort: EffortLog) -> Router {
    Router::new()
        .route("/effort", get(effort_now).put(change))
        .route("/marks", get(marks).post(mark))
        .route("/marks/{id}", put(fill_in))
        .with_state(effort)
}

async fn effort_now(State(effort): State<EffortLog>) -> Json<Value> {
    Json(effort.report())
}

async fn change(
    State(effort): State<EffortLog>,
    Json(change): Json<Value>,
) -> Result<Json<Value>, EffortError> {
    effort.change(&change)?;
    Ok(Json(effort.report()))
}

async fn marks(State(effort): State<EffortLog>) -> Response {
    Json(effort.marks()).into_response()
}

async fn mark(
    State(effort): State<EffortLog>,
    Json(more): Json<Value>,
) -> Result<Response, EffortError> {
    let mark = effort.mark(&more)?;
    Ok((StatusCode::CREATED, Json(mark)).into_response())
}

async fn fill_in(
    State(effort): State<EffortLog>,
    Path(id): Path<Uuid>,
    Json(more): Json<Value>,
) -> Result<Response, EffortError> {
    Ok(Json(effort.fill_in(id, &more)?).into_response())
}

impl IntoResponse for EffortError {
    fn into_response(self) -> Response {
        let mut said = json!({ "error": self.to_string() });
        let status = match self {
            Self::Refused(refusal) => {
                said["field"] = refusal.field.into();
                said["value"] = refusal.value.into();
                said["allowed"] = refusal.allowed.into();
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::NoMark(_) => StatusCode::NOT_FOUND,
            Self::Ended => StatusCode::CONFLICT,
            Self::Command(_) => StatusCode::BAD_REQUEST,
        };
        (status, Json(said)).into_response()
    }
}
