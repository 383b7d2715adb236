use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing but what this program serves is ever loaded.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router {
    let asset = |kind: &'static str, text: &'static str| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        get(move || async move { (headers, text).into_response() })
    };
    Router::new()
        .route(
            "/",
            asset("text/html; charset=utf-8", include_str!("page/page.html")),
        )
        .route(
            "/page.css",
            asset("text/css; charset=utf-8", include_str!("page/page.css")),
        )
        .route(
            "/icon.svg",
            asset("image/svg+xml", include_str!("page/icon.svg")),
        )
        .route(
            "/page.js",
            asset(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
        )
}
