//! What the box says and takes over HTTP, on its own machine alone.
//!
//! | request | what it does |
//! |---|---|
//! | `GET`, `PUT /effort` | how the survey is flown |
//! | `GET`, `POST /marks`, `PUT /marks/{markID}` | what observers marked |
//! | `GET /cameras` | how the cameras fare, and their settings |
//! | `PUT /cameras/{name}/settings` | exposure, gain, white balance, focus, in flight |
//! | `GET /cameras/{name}/preview` | what a camera sees, as a JPEG of at most one a second |
//!
//! JSON each way. Errors are `{"error": …}`, with `field`, `value` and `allowed` where one field is wrong.
//!
//! Requests must name this machine as their host and bring JSON, so that no page of another site that is open in a
//! browser here can set anything.

mod cameras;
mod effort;

use std::net::SocketAddr;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

pub use cameras::Cameras;

use crate::effort::EffortLog;

/// Most bytes of a request.
const LARGEST: usize = 64 << 10;

/// Answers requests until the future is dropped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    effort: EffortLog,
    cameras: Cameras,
) -> std::io::Result<()> {
    let router = Router::new()
        .merge(effort::routes(effort))
        .merge(cameras::routes(cameras))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(only_here));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router).await
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
