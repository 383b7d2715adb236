//! Who may ask.
//!
//! - This machine: requests that come from it and name it as their host, so that no page of another site that is open in a
//!   browser here can set anything (it would name that site, or must send JSON, which browsers do not for strangers).
//! - Other machines, where the page has a [`Token`]: who shows it, once in the address (`/?token=…`), from then on in a
//!   cookie that browsers send to no other site's requests, or as `Authorization: Bearer …`.
//!
//! The link in the aircraft is not encrypted: whoever can read it reads the token. The network is that of the aircraft.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::time::sleep;
use tracing::warn;

const COOKIE: &str = "callosity";
/// Pause before a wrong token is refused: a thousand guesses take a quarter of an hour.
const PAUSE: Duration = Duration::from_secs(1);
/// Fewest characters of a token.
const SHORTEST: usize = 16;

/// What other machines must show. Never printed.
#[derive(Clone)]
pub struct Token {
    secret: String,
    digest: [u8; 32],
}

/// A token that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the page's token {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It would be guessed, or cannot stand in an address.
    #[error(
        "the page's token in {} must be {SHORTEST} letters, digits, - or _ or more: make one with `openssl rand -hex 16`",
        path.display()
    )]
    Weak {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// The first line of a file.
    ///
    /// # Errors
    /// It cannot be read, is too short, or has characters that an address has not.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let text = fs::read_to_string(path).map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        let secret = text.lines().next().unwrap_or_default().trim();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if secret.len() < SHORTEST || !secret.bytes().all(allowed) {
            return Err(TokenError::Weak {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            secret: secret.to_owned(),
            digest: Sha256::digest(secret).into(),
        })
    }

    /// Compares digests, so that the time it takes tells nothing of the secret.
    fn is(&self, shown: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(shown)) == self.digest
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Deserialize)]
pub(super) struct Shown {
    token: Option<String>,
}

pub(super) async fn may_ask(
    State(token): State<Option<Token>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(shown): Query<Shown>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or("");
    if peer.ip().to_canonical().is_loopback() && is_this_machine(host) {
        return next.run(request).await;
    }
    let Some(token) = token else {
        return refused(&format!("{host:?} is not this machine: ask localhost"));
    };
    if let Some(shown) = shown.token {
        return if token.is(&shown) {
            welcome(&token)
        } else {
            refuse_guess(peer).await
        };
    }
    match carried(request.headers()) {
        Some(carried) if token.is(&carried) => next.run(request).await,
        Some(_) => refuse_guess(peer).await,
        None => refused(
            "this page is open to who has its token: use the address with ?token=… that belongs to this box",
        ),
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// The token in a cookie or in the header for programs.
fn carried(headers: &HeaderMap) -> Option<String> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let cookies = text(header::COOKIE).unwrap_or_default().split(';');
    let mut named = cookies.filter_map(|cookie| cookie.trim().split_once('='));
    let cookie = || {
        named
            .find(|(name, _)| *name == COOKIE)
            .map(|(_, value)| value)
    };
    bearer.or_else(cookie).map(|shown| shown.trim().to_owned())
}

/// Puts the token from the address into a cookie, so that it stands in no history.
fn welcome(token: &Token) -> Response {
    let cookie = format!(
        "{COOKIE}={}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Strict",
        token.secret
    );
    let mut response = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn refuse_guess(peer: SocketAddr) -> Response {
    warn!("{} showed the page a wrong token", peer.ip());
    sleep(PAUSE).await;
    refused("that is not the token of this box")
}

fn refused(error: &str) -> Response {
    (StatusCode::FORBIDDEN, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::connect_info::MockConnectInfo;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt;

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn token() -> Token {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, format!("{SECRET}\n")).unwrap();
        Token::read(&path).unwrap()
    }

    /// What a machine is answered at `/` and what cookie it gets.
    async fn asked(
        token: Option<Token>,
        peer: &str,
        host: &str,
        more: &[(&str, &str)],
        path: &str,
    ) -> (StatusCode, Option<String>, String) {
        let peer: SocketAddr = peer.parse().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "the page" }))
            .layer(middleware::from_fn_with_state(token, may_ask))
            .layer(MockConnectInfo(peer));
        let mut request = Request::builder().uri(path).header(header::HOST, host);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie = cookie.map(|cookie| cookie.to_str().unwrap().to_owned());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, cookie, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn this_machine_is_answered_under_its_own_names_alone() {
        for (peer, host, status) in [
            ("127.0.0.1:5", "localhost:8080", StatusCode::OK),
            ("[::1]:5", "[::1]:8080", StatusCode::OK),
            // A listener on :: sees IPv4 so.
            ("[::ffff:127.0.0.1]:5", "127.0.0.1", StatusCode::OK),
            // Another site's name that was made to point here.
            ("127.0.0.1:5", "evil.example:8080", StatusCode::FORBIDDEN),
            (
                "127.0.0.1:5",
                "localhost.evil.example",
                StatusCode::FORBIDDEN,
            ),
            // From elsewhere, whatever it says.
            ("10.0.0.7:5", "localhost:8080", StatusCode::FORBIDDEN),
            ("10.0.0.7:5", "10.0.0.1:8080", StatusCode::FORBIDDEN),
        ] {
            assert_eq!(
                asked(None, peer, host, &[], "/").await.0,
                status,
                "{peer} {host}"
            );
        }
    }

    #[tokio::test]
    async fn other_machines_need_the_token() {
        let there = ("10.0.0.7:5", "10.0.0.1:8080");
        let ask = |more: Vec<(&'static str, String)>, path: String| async move {
            let more: Vec<_> = more
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            asked(Some(token()), there.0, there.1, &more, &path).await
        };
        let (status, _, said) = ask(vec![], "/".into()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(said.contains("?token="), "{said}");
        // Shown once in the address, it is carried by a cookie from then on, that no script and no other site can use.
        let (status, cookie, _) = ask(vec![], format!("/?token={SECRET}")).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let cookie = cookie.unwrap();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
            "{cookie}"
        );
        let carried = cookie.split(';').next().unwrap().to_owned();
        let (status, _, said) = ask(vec![("cookie", format!("a=b; {carried}"))], "/".into()).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, "the page"));
        let bearer = vec![("authorization", format!("Bearer {SECRET}"))];
        assert_eq!(ask(bearer, "/".into()).await.0, StatusCode::OK);
        for (more, path) in [
            (vec![("cookie", "callosity=wrong".to_owned())], "/"),
            (vec![("authorization", "Bearer ".to_owned())], "/"),
            (vec![], "/?token=0123456789abcde"),
            (vec![("cookie", carried.clone())], "/?token=wrong"),
        ] {
            let (status, cookie, said) = ask(more, path.into()).await;
            assert_eq!((status, cookie), (StatusCode::FORBIDDEN, None), "{path}");
            assert!(!said.contains(SECRET), "{said}");
        }
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused_and_none_is_printed() {
        assert_eq!(format!("{:?}", token()), "Token(…)");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for weak in ["", "short", "0123456789 abcdef", "0123456789abcde&"] {
            fs::write(&path, weak).unwrap();
            let said = Token::read(&path).unwrap_err().to_string();
            assert!(said.contains("openssl rand"), "{said}");
        }
    }
}
