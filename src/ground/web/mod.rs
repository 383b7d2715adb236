//! The page and what it asks: JSON over HTTP, one event stream, pictures.
//!
//! All requests are in one list, [`routes`], with what each needs; one function, `authorise`, decides. Nothing that the
//! page loads comes from elsewhere: everything is in the program, and the Content-Security-Policy allows nothing else.

mod assets;
mod authorise;
mod handlers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use tokio::net::TcpListener;

use crate::station::Station;
use crate::store::Role;

/// Most bytes of a request.
const LARGEST: usize = 64 << 10;

/// Scripts, styles, pictures and requests of this server alone; no forms, no frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whom the page serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Those who have an account and logged in. `https` where a proxy in front of us speaks TLS: browsers then show their
    /// session to nobody else.
    Accounts {
        /// Whether browsers reach us over TLS.
        https: bool,
    },
    /// Whoever sits at this machine, as administrator: for demonstrations. The server then listens on loopback alone.
    ThisMachine,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the page itself, and logging in.
    Nothing,
    /// An account with this role, or one that may do more.
    Role(Role),
}

/// What answers requests.
#[derive(Clone)]
pub(crate) struct Server {
    station: Arc<Station>,
    access: Access,
    /// One password is checked after the other, and each wrong one takes a second: guessing takes ages.
    log_in: Arc<tokio::sync::Mutex<()>>,
}

/// A request that is answered.
pub struct Route {
    /// `GET`, `POST` or `DELETE`.
    pub method: Method,
    /// With parameters in braces.
    pub path: &'static str,
    /// Who may ask it.
    pub needs: Needs,
    handler: MethodRouter<Server>,
}

/// Everything that is answered.
pub fn routes() -> Vec<Route> {
    use Needs::Nothing;
    const SEES: Needs = Needs::Role(Role::Observer);
    const DECIDES: Needs = Needs::Role(Role::Reviewer);
    const MANAGES: Needs = Needs::Role(Role::Administrator);
    let route = |method, path, needs, handler| Route {
        method,
        path,
        needs,
        handler,
    };
    let (read, write, remove) = (Method::GET, Method::POST, Method::DELETE);
    use handlers as h;
    let mut routes = vec![
        route(read.clone(), "/api/session", Nothing, get(h::session)),
        route(write.clone(), "/api/session", Nothing, post(h::log_in)),
        route(remove.clone(), "/api/session", SEES, delete(h::log_out)),
        route(write.clone(), "/api/accounts", Nothing, post(h::accept)),
        route(read.clone(), "/api/accounts", MANAGES, get(h::accounts)),
        route(
            remove,
            "/api/accounts/{name}",
            MANAGES,
            delete(h::remove_account),
        ),
        route(write.clone(), "/api/invitations", MANAGES, post(h::invite)),
        route(read.clone(), "/api/events", SEES, get(h::events)),
        route(read.clone(), "/api/station", SEES, get(h::station)),
        route(read.clone(), "/api/aircraft", SEES, get(h::aircraft)),
        route(
            write.clone(),
            "/api/aircraft/{platform}/effort",
            DECIDES,
            post(h::ask),
        ),
        route(read.clone(), "/api/tracks", SEES, get(h::tracks)),
        route(read.clone(), "/api/sightings", SEES, get(h::sightings)),
        route(read.clone(), "/api/sightings/{id}", SEES, get(h::sighting)),
        route(
            write,
            "/api/sightings/{id}/decisions",
            DECIDES,
            post(h::decide),
        ),
        route(read.clone(), "/api/animals", SEES, get(h::animals)),
        route(
            read.clone(),
            "/api/animals/{name}/references",
            SEES,
            get(h::references),
        ),
        route(
            read.clone(),
            "/api/animals/{name}/references/{number}",
            SEES,
            get(h::reference),
        ),
        route(read.clone(), "/api/pictures/{name}", SEES, get(h::picture)),
    ];
    for asset in assets::ALL {
        let handler =
            get(move |headers: axum::http::HeaderMap| async move { asset.answer(&headers) });
        routes.push(route(read.clone(), asset.path, Nothing, handler));
    }
    routes
}

/// What answers all requests.
pub fn router(station: Arc<Station>, access: Access) -> Router {
    let server = Server {
        station,
        access,
        log_in: Arc::default(),
    };
    let mut router = Router::new();
    for route in routes() {
        let authorised =
            middleware::from_fn_with_state((server.clone(), route.needs), authorise::authorise);
        router = router.route(route.path, route.handler.route_layer(authorised));
    }
    router
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(harden))
        .with_state(server)
}

/// Answers requests until the future is dropped.
///
/// # Errors
/// The address cannot be listened on, or is not this machine's own where nobody needs an account.
pub async fn serve(
    listener: TcpListener,
    station: Arc<Station>,
    access: Access,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    if access == Access::ThisMachine && !address.ip().is_loopback() {
        return Err(open_to_all(address));
    }
    axum::serve(listener, router(station, access)).await
}

fn open_to_all(address: SocketAddr) -> std::io::Error {
    std::io::Error::other(format!(
        "{address} can be reached from other machines, and nobody would need an account"
    ))
}

async fn harden(request: Request, next: Next) -> Response {
    let is_answer = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    if is_answer {
        set(header::CACHE_CONTROL, "no-store");
    }
    response
}
