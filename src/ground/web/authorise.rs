//! Who may ask what.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::handlers::Failure;
use super::{Access, Needs, Server};
use crate::store::{Account, Role};

/// Name of the cookie with the session's token.
const COOKIE: &str = "callosity_session";

/// The session's token that a browser shows.
#[derive(Clone, Debug)]
pub(super) struct Token(pub String);

/// Lets a request pass that may be asked, with the [`Account`] of whoever asks it. Everything passes here.
pub(super) async fn authorise(
    State((server, needs)): State<(Server, Needs)>,
    mut request: Request,
    next: Next,
) -> Response {
    let refuse = |status, reason: &str| Failure::new(status, reason).into_response();
    let headers = request.headers();
    if server.access == Access::ThisMachine && !is_this_machine(headers) {
        // A page of another site, whose name its owner lets point here.
        return refuse(StatusCode::FORBIDDEN, "this is not its name: ask 127.0.0.1");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !is_own_page(headers) {
        return refuse(StatusCode::FORBIDDEN, "a page of another site asks this");
    }
    let token = token(headers);
    let account = match who(&server, token.as_deref()).await {
        Ok(account) => account,
        Err(failure) => return failure.into_response(),
    };
    if let Needs::Role(role) = needs {
        match &account {
            None => return refuse(StatusCode::UNAUTHORIZED, "log in first"),
            Some(account) if account.role < role => {
                return refuse(StatusCode::FORBIDDEN, "your account may not do this");
            }
            Some(_) => {}
        }
    }
    if let Some(account) = account {
        request.extensions_mut().insert(account);
    }
    if let Some(token) = token {
        request.extensions_mut().insert(Token(token));
    }
    next.run(request).await
}

async fn who(server: &Server, token: Option<&str>) -> Result<Option<Account>, Failure> {
    if server.access == Access::ThisMachine {
        return Ok(Some(Account {
            name: "demo".to_owned(),
            role: Role::Administrator,
        }));
    }
    match token {
        Some(token) => Ok(server.station.store.session(token).await?),
        None => Ok(None),
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut cookies = cookies
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    cookies.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then(|| value.to_owned())
    })
}

/// The cookie of a session, or without one what has the browser forget it.
pub(super) fn cookie(access: Access, token: Option<&str>) -> String {
    let secure = if access == (Access::Accounts { https: true }) {
        "; Secure"
    } else {
        ""
    };
    let (value, age) = match token {
        Some(token) => (token, 14 * 24 * 3600),
        None => ("", 0),
    };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_this_machine(headers: &HeaderMap) -> bool {
    let host = text(headers, header::HOST).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// Browsers say whose page sends something; other programs do not.
fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = text(headers, header::ORIGIN) else {
        return true;
    };
    let host = text(headers, header::HOST).unwrap_or_default();
    let origin = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    origin.is_some_and(|origin| origin == host)
}
