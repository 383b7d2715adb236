//! Ctrl-C and requests to terminate.

use std::sync::OnceLock;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

static ASKED: OnceLock<CancellationToken> = OnceLock::new();

/// From now on the first Ctrl-C (or SIGTERM) is only noted, so that the program can end cleanly: the token is cancelled. A
/// second one ends it at once.
pub fn install() -> anyhow::Result<CancellationToken> {
    if let Some(asked) = ASKED.get() {
        return Ok(asked.clone());
    }
    let asked = ASKED.get_or_init(CancellationToken::new).clone();
    let noted = asked.clone();
    ctrlc::set_handler(move || {
        if noted.is_cancelled() {
            std::process::exit(i32::from(super::INTERRUPTED));
        }
        noted.cancel();
    })
    .context("cannot prepare for Ctrl-C")?;
    Ok(asked)
}

/// Whether the program was asked to end.
pub fn asked() -> bool {
    ASKED.get().is_some_and(CancellationToken::is_cancelled)
}
