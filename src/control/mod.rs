//! The page of the box and the requests behind it.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /` | the page: fit to fly or not, cameras, sightings, watch and weather, marks |
//! | `GET /status` | all that the page shows, in one |
//! | `GET`, `PUT /effort` | how the survey is flown |
//! | `GET`, `POST /marks`, `PUT /marks/{markID}` | what observers marked |
//! | `GET /cameras` | how the cameras fare, and their settings |
//! | `PUT /cameras/{name}/settings` | exposure, gain, white balance, focus, in flight |
//! | `GET /cameras/{name}/preview` | what a camera sees, as a JPEG of at most one a second |
//! | `GET /sightings/{occurrenceID}/crop` | the head of one of the last sightings, as a JPEG |
//! | `POST /stop` | ends the flight in order, as SIGTERM does |
//! | `GET /metrics` | the counters, as Prometheus reads them |
//!
//! JSON each way. Errors are `{"error": …}`, with `field`, `value` and `allowed` where one field is wrong.
//!
//! Who may ask stands in `access`.

mod access;
mod cameras;
mod effort;
mod metrics;
mod page;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use access::{Token, TokenError};
pub use cameras::{Cameras, KeepSetting};

use crate::effort::EffortLog;
use crate::observe::Counters;

/// Most bytes of a request.
const LARGEST: usize = 64 << 10;

/// Where the page is, and what other machines must show.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is.
    pub address: SocketAddr,
    /// Without it, only this machine is answered.
    pub token: Option<Token>,
}

/// What the page shows and sets. Clones share it.
#[derive(Clone)]
pub struct Controlled {
    /// What the service has done.
    pub counters: Arc<Counters>,
    /// The cameras.
    pub cameras: Cameras,
    /// How the survey is flown, where that is said.
    pub effort: Option<EffortLog>,
    /// Ends the flight.
    pub stop: CancellationToken,
}

/// Answers requests until the future is dropped.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(page: &Page, controlled: Controlled) -> std::io::Result<()> {
    let mut router = Router::new()
        .merge(page::routes())
        .merge(cameras::routes(controlled.cameras.clone()))
        .merge(metrics::routes(controlled.counters.clone()));
    if let Some(effort) = &controlled.effort {
        router = router.merge(effort::routes(effort.clone()));
    }
    let router = router
        .merge(status::routes(controlled))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn_with_state(
            page.token.clone(),
            access::may_ask,
        ));
    let listener = TcpListener::bind(page.address).await?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await
}
