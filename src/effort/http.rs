//! What the box says and takes over HTTP, on its own machine alone.

use std::net::SocketAddr;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{EffortError, EffortLog};

/// Most bytes of a request.
const LARGEST: usize = 64 << 10;

/// `GET` and `PUT /effort`, `GET` and `POST /marks`, `PUT /marks/{markID}`; JSON each way. Errors are
/// `{"error": …}`, with `field`, `value` and `allowed` where one field is wrong.
///
/// Requests must name this machine as their host and bring JSON, so that no page of another site that is open in a
/// browser here can set anything.
pub fn router(effort: EffortLog) -> Router {
    Router::new()
        .route("/effort", get(effort_now).put(change))
        .route("/marks", get(marks).post(mark))
        .route("/marks/{id}", put(fill_in))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(only_here))
        .with_state(effort)
}

/// Answers requests until the future is dropped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(address: SocketAddr, effort: EffortLog) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router(effort)).await
}

async fn only_here(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or("");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        next.run(request).await
    } else {
        let error = format!("{host:?} is not this machine: ask localhost");
        (StatusCode::FORBIDDEN, Json(json!({ "error": error }))).into_response()
    }
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
            Self::Command(_) => StatusCode::BAD_REQUEST,
        };
        (status, Json(said)).into_response()
    }
}
