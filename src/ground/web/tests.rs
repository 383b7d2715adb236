use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use link::codec::Encoding;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::catalogue::Catalogue;
use crate::store::Store;
use crate::store::tests::{of_sighting, sighting};

const PASSWORD: &str = "a long enough password";
const SIGHTING: &str = "00000000-0000-0000-0000-000000000001";

struct Fixture {
    station: Arc<Station>,
    router: Router,
    _folder: TempDir,
}

impl Fixture {
    async fn new(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None).await.unwrap();
        store
            .keep(&[of_sighting(&sighting(1, 0), Encoding::Json)])
            .await
            .unwrap();
        let station = Station::new(store, Catalogue::default()).await.unwrap();
        Self {
            router: router(station.clone(), access),
            station,
            _folder: folder,
        }
    }

    /// The token of a new session.
    async fn session(&self, role: Role) -> String {
        let store = &self.station.store;
        let invitation = store.invite(role).await.unwrap();
        let name = format!("{role:?} {}", &invitation.token[..8]);
        let session = store
            .accept(&invitation.token, &name, PASSWORD.into())
            .await;
        session.unwrap().token
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, method: &Method, path: &str, token: Option<&str>, body: Value) -> Response {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost:8460")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::COOKIE, format!("a=b; callosity_session={token}"));
        }
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }
}

async fn json_of(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A path with something in place of each parameter.
fn filled(path: &str) -> String {
    path.replace("{id}", SIGHTING)
        .replace("{platform}", "N57RW")
        .replace("{number}", "0")
        .replace("{name}", "nobody")
}

#[tokio::test]
async fn each_route_is_answered_to_the_roles_that_it_needs_alone() {
    let fixture = Fixture::new(Access::Accounts { https: false }).await;
    let mut asked = 0;
    for route in routes() {
        for role in [None].into_iter().chain(Role::ALL.map(Some)) {
            let token = match role {
                Some(role) => Some(fixture.session(role).await),
                None => None,
            };
            let path = filled(route.path);
            let response = fixture
                .ask(&route.method, &path, token.as_deref(), json!({}))
                .await;
            let status = response.status();
            let what = format!("{} {path} as {role:?}: {status}", route.method);
            let expected = match (route.needs, role) {
                (Needs::Nothing, _) => None,
                (Needs::Role(_), None) => Some(StatusCode::UNAUTHORIZED),
                (Needs::Role(needed), Some(role)) if role < needed => Some(StatusCode::FORBIDDEN),
                (Needs::Role(_), Some(_)) => None,
            };
            match expected {
                Some(expected) => assert_eq!(status, expected, "{what}"),
                // A request without content is no good one for some, but it is let in.
                None => assert!(
                    !matches!(
                        status,
                        StatusCode::UNAUTHORIZED
                            | StatusCode::FORBIDDEN
                            | StatusCode::METHOD_NOT_ALLOWED
                    ),
                    "{what}"
                ),
            }
            let policy = response.headers().get(header::CONTENT_SECURITY_POLICY);
            assert!(
                policy.is_some_and(|p| p.to_str().unwrap().contains("default-src 'none'")),
                "{what}"
            );
            asked += 1;
        }
        // What is not in the list is not answered.
        let listed: BTreeSet<String> = routes()
            .iter()
            .filter(|r| r.path == route.path)
            .map(|r| r.method.to_string())
            .collect();
        for method in [Method::PUT, Method::PATCH, Method::POST, Method::DELETE] {
            if !listed.contains(method.as_str()) {
                let response = fixture
                    .ask(&method, &filled(route.path), None, json!({}))
                    .await;
                assert_eq!(
                    response.status(),
                    StatusCode::METHOD_NOT_ALLOWED,
                    "{method} {}",
                    route.path
                );
            }
        }
    }
    assert!(asked >= 4 * 20, "{asked}");
    // Only these may be asked by everybody: the page's own files, and what one needs to log in.
    let open: BTreeSet<_> = routes()
        .into_iter()
        .filter(|route| route.needs == Needs::Nothing && route.path.starts_with("/api/"))
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let expected = [
        "GET /api/session",
        "POST /api/accounts",
        "POST /api/session",
    ];
    assert_eq!(open, expected.map(str::to_owned).into());
}

#[tokio::test]
async fn pages_of_other_sites_set_nothing() {
    let fixture = Fixture::new(Access::Accounts { https: true }).await;
    let token = fixture.session(Role::Administrator).await;
    for route in routes().iter().filter(|route| route.method != Method::GET) {
        for origin in ["https://elsewhere.example", "null", "http://localhost:8461"] {
            let request = Request::builder()
                .method(&route.method)
                .uri(filled(route.path))
                .header(header::HOST, "localhost:8460")
                .header(header::ORIGIN, origin)
                .header(header::COOKIE, format!("callosity_session={token}"))
                .body(Body::empty());
            let response = fixture.send(request.unwrap()).await;
            assert_eq!(
                response.status(),
                StatusCode::FORBIDDEN,
                "{} {origin}",
                route.path
            );
        }
    }
    // A form of another site cannot send JSON.
    let form = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/sightings/{SIGHTING}/decisions"))
        .header(header::HOST, "localhost:8460")
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::COOKIE, format!("callosity_session={token}"))
        .body(Body::from("{}"));
    let response = fixture.send(form.unwrap()).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn without_accounts_only_this_machine_is_answered() {
    let fixture = Fixture::new(Access::ThisMachine).await;
    for (host, expected) in [
        ("localhost:8460", StatusCode::OK),
        ("127.0.0.1", StatusCode::OK),
        ("elsewhere.example:8460", StatusCode::FORBIDDEN),
        ("127.0.0.1.elsewhere.example", StatusCode::FORBIDDEN),
    ] {
        let request = Request::builder()
            .uri("/api/aircraft")
            .header(header::HOST, host);
        let response = fixture.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), expected, "{host}");
    }
    let everywhere = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(everywhere, fixture.station.clone(), Access::ThisMachine).await;
    assert!(refused.unwrap_err().to_string().contains("other machines"));
}

#[tokio::test]
async fn an_account_is_made_logged_into_and_left() {
    let fixture = Fixture::new(Access::Accounts { https: true }).await;
    let invitation = fixture
        .station
        .store
        .invite(Role::Reviewer)
        .await
        .unwrap()
        .token;
    let path = format!("/api/session?invitation={invitation}");
    let before = json_of(fixture.ask(&Method::GET, &path, None, json!({})).await).await;
    assert_eq!(
        (&before["account"], &before["invitedAs"]),
        (&Value::Null, &json!("reviewer"))
    );
    let body = json!({"invitation": invitation, "name": "Ana", "password": PASSWORD});
    let made = fixture
        .ask(&Method::POST, "/api/accounts", None, body)
        .await;
    let cookie = made.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let token = cookie.split(['=', ';']).nth(1).unwrap();
    let wrong = json!({"name": "Ana", "password": "guessed wrong"});
    let wrong = fixture
        .ask(&Method::POST, "/api/session", None, wrong)
        .await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let who = json_of(
        fixture
            .ask(&Method::GET, "/api/session", Some(token), json!({}))
            .await,
    )
    .await;
    assert_eq!(who["account"], json!({"name": "Ana", "role": "reviewer"}));

    // Decided in that name, whatever else is said.
    let path = format!("/api/sightings/{SIGHTING}/decisions");
    let decision = json!({"revision": 0, "decisions": 0, "verdict": "cannotTell", "person": "Ben"});
    let decided = fixture
        .ask(&Method::POST, &path, Some(token), decision.clone())
        .await;
    let decided = json_of(decided).await;
    assert_eq!(decided["summary"]["standing"]["person"], "Ana");
    let late = fixture
        .ask(&Method::POST, &path, Some(token), decision)
        .await;
    assert_eq!(late.status(), StatusCode::CONFLICT);
    let late = json_of(late).await;
    assert_eq!(late["history"][0]["verdict"], "cannotTell");

    fixture
        .ask(&Method::DELETE, "/api/session", Some(token), json!({}))
        .await;
    let left = fixture
        .ask(&Method::GET, "/api/sightings", Some(token), json!({}))
        .await;
    assert_eq!(left.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_told_so_in_json() {
    let fixture = Fixture::new(Access::ThisMachine).await;
    for (method, path, body, status) in [
        (Method::GET, "/api/sightings?order=sideways", json!({}), 400),
        (Method::GET, "/api/sightings?south=1", json!({}), 422),
        (Method::GET, "/api/sightings?from=yesterday", json!({}), 400),
        (Method::GET, "/api/sightings/me", json!({}), 400),
        (
            Method::GET,
            "/api/sightings/00000000-0000-0000-0000-000000000009",
            json!({}),
            404,
        ),
        (
            Method::GET,
            "/api/pictures/..%2F..%2Fground.sqlite",
            json!({}),
            404,
        ),
        (
            Method::GET,
            "/api/animals/..%2F../references/0",
            json!({}),
            404,
        ),
        (
            Method::POST,
            "/api/aircraft/nobody/effort",
            json!({"effort": {}}),
            404,
        ),
        (Method::POST, "/api/aircraft/N57RW/effort", json!({}), 422),
        (
            Method::POST,
            "/api/aircraft/N57RW/effort",
            json!({"effort": "off"}),
            422,
        ),
        (
            Method::POST,
            "/api/invitations",
            json!({"role": "king"}),
            422,
        ),
    ] {
        let response = fixture.ask(&method, path, None, body).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let error = json_of(response).await;
        assert!(
            error["error"].as_str().is_some_and(|e| !e.is_empty()),
            "{path}: {error}"
        );
    }
}
