//! What is answered.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use jiff::{SignedDuration, Timestamp};
use link::topic::Platform;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use uuid::Uuid;

use super::authorise::{Token, cookie};
use super::{Access, Server};
use crate::catalogue::Reference;
use crate::store::{
    Account, AccountError, Animal, Area, DecisionError, Details, NewDecision, Order, Role, Search,
    Session, StoreError, Summary, Verdict,
};

/// An answer that says why there is none.
pub(super) struct Failure {
    status: StatusCode,
    body: Value,
}

impl Failure {
    pub fn new(status: StatusCode, reason: &str) -> Self {
        Self {
            status,
            body: json!({ "error": reason }),
        }
    }

    fn nothing(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, &format!("there is no {what}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::error!("{error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
    }
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        let reason = error.to_string();
        match error {
            DecisionError::Store(error) => error.into(),
            DecisionError::NoSighting(_) => Self::new(StatusCode::NOT_FOUND, &reason),
            DecisionError::Conflict(history) => Self {
                status: StatusCode::CONFLICT,
                body: json!({ "error": reason, "history": history }),
            },
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        }
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        let reason = error.to_string();
        let status = match error {
            AccountError::Store(error) => return error.into(),
            AccountError::Wrong | AccountError::NoInvitation => StatusCode::UNAUTHORIZED,
            AccountError::NoAccount(_) => StatusCode::NOT_FOUND,
            AccountError::Taken(_) | AccountError::LastAdministrator => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, &reason)
    }
}

macro_rules! rejections {
    ($($rejection:ty),+) => {$(
        impl From<$rejection> for Failure {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), &rejection.body_text())
            }
        }
    )+};
}
rejections!(JsonRejection, PathRejection, QueryRejection);

type Answer<T> = Result<Json<T>, Failure>;
type Body<T> = Result<Json<T>, JsonRejection>;
type Parameters<T> = Result<Path<T>, PathRejection>;

#[derive(Deserialize)]
pub(super) struct Invited {
    #[serde(default)]
    invitation: Option<String>,
}

/// Who asks, and what an invitation is good for.
pub(super) async fn session(
    State(server): State<Server>,
    account: Option<Extension<Account>>,
    query: Result<Query<Invited>, QueryRejection>,
) -> Answer<Value> {
    let Query(Invited { invitation }) = query?;
    let store = &server.station.store;
    let invited_as = match invitation {
        Some(token) => store.invited_as(&token).await?,
        None => None,
    };
    Ok(Json(json!({
        "account": account.map(|Extension(account)| account),
        "invitedAs": invited_as,
        "accountsAreNeeded": server.access != Access::ThisMachine,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIn {
    name: String,
    password: String,
}

pub(super) async fn log_in(
    State(server): State<Server>,
    body: Body<LogIn>,
) -> Result<Response, Failure> {
    let Json(LogIn { name, password }) = body?;
    let _turn = server.log_in.lock().await;
    match server.station.store.log_in(&name, password).await {
        Ok(session) => Ok(begun(&server, &session)),
        Err(error) => {
            sleep(Duration::from_secs(1)).await;
            Err(error.into())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accept {
    invitation: String,
    name: String,
    password: String,
}

pub(super) async fn accept(
    State(server): State<Server>,
    body: Body<Accept>,
) -> Result<Response, Failure> {
    let Json(body) = body?;
    let store = &server.station.store;
    let session = store
        .accept(&body.invitation, &body.name, body.password)
        .await?;
    Ok(begun(&server, &session))
}

fn begun(server: &Server, session: &Session) -> Response {
    let mut response = Json(json!({ "account": session.account })).into_response();
    set_cookie(&mut response, &cookie(server.access, Some(&session.token)));
    response
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

pub(super) async fn log_out(
    State(server): State<Server>,
    token: Option<Extension<Token>>,
) -> Result<Response, Failure> {
    if let Some(Extension(Token(token))) = token {
        server.station.store.log_out(&token).await?;
    }
    let mut response = Json(json!({})).into_response();
    set_cookie(&mut response, &cookie(server.access, None));
    Ok(response)
}

pub(super) async fn accounts(State(server): State<Server>) -> Answer<Vec<Account>> {
    Ok(Json(server.station.store.accounts().await?))
}

pub(super) async fn remove_account(
    State(server): State<Server>,
    name: Parameters<String>,
) -> Answer<Value> {
    let Path(name) = name?;
    server.station.store.remove_account(&name).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    role: Role,
}

/// The page makes the link of it, since it knows under which name it was reached.
pub(super) async fn invite(State(server): State<Server>, body: Body<Invite>) -> Answer<Value> {
    let Json(Invite { role }) = body?;
    let invitation = server.station.store.invite(role).await?;
    Ok(Json(
        json!({ "invitation": invitation.token, "role": invitation.role }),
    ))
}

/// Pause between two events: at a thousand messages a second nobody wants to be told of each.
const BETWEEN_EVENTS: Duration = Duration::from_millis(250);

/// What changed, by counts; first as they are.
pub(super) async fn events(
    State(server): State<Server>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = server.station.changes();
    changes.mark_changed();
    let stream = unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        let now = *changes.borrow_and_update();
        sleep(BETWEEN_EVENTS).await;
        let event = Event::default().json_data(now).unwrap_or_default();
        Some((Ok(event), changes))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// How the station itself fares.
pub(super) async fn station(State(server): State<Server>) -> Answer<Value> {
    let store = &server.station.store;
    let (waiting, sightings) = store.counts().await?;
    let (set_aside, set_aside_count) = store.set_aside(20).await?;
    Ok(Json(json!({
        "programVersion": env!("CARGO_PKG_VERSION"),
        "sightings": sightings,
        "waitForReview": waiting,
        "setAside": set_aside,
        "setAsideCount": set_aside_count,
        "trouble": server.station.trouble(),
        "sinceStart": *server.station.changes().borrow(),
        "time": link::message::now(),
    })))
}

pub(super) async fn aircraft(State(server): State<Server>) -> Answer<Value> {
    let station = &server.station;
    let aircraft = station.store.aircraft().await?;
    let aircraft = aircraft.iter().map(|aircraft| {
        let mut json = serde_json::to_value(aircraft).unwrap_or_default();
        json["asked"] = json!(station.asked(&aircraft.platform));
        json
    });
    Ok(Json(
        json!({ "time": link::message::now(), "aircraft": aircraft.collect::<Vec<_>>() }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    #[serde(default)]
    effort: Option<Value>,
    #[serde(default)]
    mark: Option<Value>,
}

/// The aircraft's answer is its next effort message.
pub(super) async fn ask(
    State(server): State<Server>,
    platform: Parameters<String>,
    body: Body<Ask>,
) -> Result<Response, Failure> {
    let (Path(name), Json(Ask { effort, mark })) = (platform?, body?);
    let wrong = |reason: &str| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, reason);
    let platform: Platform = name
        .parse()
        .map_err(|_| Failure::nothing("such aircraft"))?;
    let aircraft = server.station.store.aircraft().await?;
    if !aircraft.iter().any(|aircraft| aircraft.platform == name) {
        return Err(Failure::nothing("such aircraft"));
    }
    if effort.is_some() == mark.is_some() {
        return Err(wrong("either effort or mark has to be set"));
    }
    if !effort.iter().chain(&mark).all(Value::is_object) {
        return Err(wrong("effort and mark are objects"));
    }
    server.station.ask(&platform, effort, mark);
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "asked": server.station.asked(&name) })),
    )
        .into_response())
}

#[derive(Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    hours: Option<u16>,
}

/// Where aircraft were in the last 24 hours, or as many as are said: `[time, latitude, longitude]` by flight.
pub(super) async fn tracks(
    State(server): State<Server>,
    query: Result<Query<Since>, QueryRejection>,
) -> Answer<Value> {
    /// 27 hours of one aircraft that tells its position every 5 seconds.
    const MOST: i64 = 20_000;
    let Query(Since { hours }) = query?;
    let hours = SignedDuration::from_hours(hours.unwrap_or(24).min(24 * 366).into());
    let since = Timestamp::now() - hours;
    let mut flights: Vec<(String, String, Vec<Value>)> = Vec::new();
    for place in server.station.store.tracks(since, MOST).await? {
        let point = json!([place.time.as_millisecond(), place.latitude, place.longitude]);
        match flights
            .iter_mut()
            .find(|(flight, ..)| *flight == place.flight)
        {
            Some((_, _, points)) => points.push(point),
            None => flights.push((place.flight, place.platform, vec![point])),
        }
    }
    let flights = flights.into_iter().map(|(flight, platform, points)| {
        json!({ "flight": flight, "platform": platform, "points": points })
    });
    Ok(Json(flights.collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    #[serde(default)]
    order: Order,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    south: Option<f64>,
    west: Option<f64>,
    north: Option<f64>,
    east: Option<f64>,
    animal: Option<String>,
    verdict: Option<Verdict>,
    person: Option<String>,
    flight: Option<String>,
    limit: Option<u32>,
    offset: Option<u32>,
}

pub(super) async fn sightings(
    State(server): State<Server>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Answer<Vec<Summary>> {
    let Query(q) = query?;
    let area = match (q.south, q.west, q.north, q.east) {
        (None, None, None, None) => None,
        (Some(south), Some(west), Some(north), Some(east)) => Some(Area {
            south,
            west,
            north,
            east,
        }),
        _ => {
            let reason = "an area needs south, west, north and east";
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, reason));
        }
    };
    let search = Search {
        order: q.order,
        from: q.from,
        to: q.to,
        area,
        animal: q.animal,
        verdict: q.verdict,
        person: q.person,
        flight: q.flight,
        limit: q.limit,
        offset: q.offset,
    };
    Ok(Json(server.station.store.search(&search).await?))
}

pub(super) async fn sighting(
    State(server): State<Server>,
    id: Parameters<Uuid>,
) -> Answer<Details> {
    let Path(id) = id?;
    let details = server.station.store.sighting(id).await?;
    details
        .map(Json)
        .ok_or_else(|| Failure::nothing("such sighting"))
}

pub(super) async fn decide(
    State(server): State<Server>,
    Extension(account): Extension<Account>,
    id: Parameters<Uuid>,
    body: Body<NewDecision>,
) -> Answer<Details> {
    let (Path(id), Json(decision)) = (id?, body?);
    let store = &server.station.store;
    store.decide(id, &decision, &account.name).await?;
    server.station.decided();
    // What is shown is what is stored.
    let details = store.sighting(id).await?;
    details
        .map(Json)
        .ok_or_else(|| Failure::nothing("such sighting"))
}

/// Animals with names, and how many reference photographs there are of each.
pub(super) async fn animals(State(server): State<Server>) -> Answer<Value> {
    let animals = server.station.store.animals().await?;
    let animals = animals.iter().map(|Animal { name, provisional }| {
        let references = server.station.catalogue.references(name).len();
        json!({ "name": name, "provisional": provisional, "references": references })
    });
    Ok(Json(animals.collect()))
}

pub(super) async fn references(
    State(server): State<Server>,
    name: Parameters<String>,
) -> Answer<Vec<Reference>> {
    let Path(name) = name?;
    Ok(Json(server.station.catalogue.references(&name)))
}

pub(super) async fn reference(
    State(server): State<Server>,
    parameters: Parameters<(String, usize)>,
) -> Result<Response, Failure> {
    let Path((name, number)) = parameters?;
    let station = server.station.clone();
    let read = spawn_blocking(move || station.catalogue.photograph(&name, number)).await;
    match read {
        Ok(Ok(Some((media_type, bytes)))) => {
            Ok(picture_of(media_type, "private, max-age=3600", bytes))
        }
        Ok(Ok(None)) => Err(Failure::nothing("such photograph")),
        Ok(Err(e)) => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            &e.to_string(),
        )),
        Err(e) => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            &e.to_string(),
        )),
    }
}

pub(super) async fn picture(
    State(server): State<Server>,
    name: Parameters<String>,
) -> Result<Response, Failure> {
    let Path(name) = name?;
    let station = server.station.clone();
    let read = spawn_blocking(move || station.store.pictures().get(&name)).await;
    let read = read.map_err(|e| Failure::new(StatusCode::SERVICE_UNAVAILABLE, &e.to_string()))?;
    let bytes = read?.ok_or_else(|| Failure::nothing("such picture"))?;
    // Its name is its content.
    Ok(picture_of(
        "image/jpeg",
        "private, max-age=31536000, immutable",
        bytes,
    ))
}

fn picture_of(media_type: &'static str, cache: &'static str, bytes: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, cache),
    ];
    (headers, bytes).into_response()
}
