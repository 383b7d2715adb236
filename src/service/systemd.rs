//! What systemd is told: ready, how it goes, and that it still goes. Without systemd nobody is told.

use std::time::{Duration, Instant};

use link::message::Health;
use sd_notify::NotifyState;
use tracing::debug;

/// Tells the service manager what it does before it flies, such as that it loads networks.
pub fn warming_up(what: &str) {
    tell(&[NotifyState::Status(&format!("warming up: {what}"))]);
}

/// Feeds the watchdog as long as frames are completed, or none wait.
pub(super) struct Watchdog {
    /// The longest that systemd waits, where it waits.
    every: Option<Duration>,
    fed: Instant,
    completed: u64,
}

impl Watchdog {
    /// The service is ready.
    pub fn ready() -> Self {
        tell(&[NotifyState::Ready, NotifyState::Status("flying")]);
        Self {
            every: sd_notify::watchdog_enabled(),
            fed: Instant::now(),
            completed: 0,
        }
    }

    /// To be called often.
    pub fn look_at(&mut self, health: &Health) {
        let frames = &health.frames;
        let completed = frames.identified + frames.failed + frames.dropped;
        let goes_on = self.goes_on(completed, health.queues.frames);
        let is_due = self
            .every
            .is_some_and(|every| self.fed.elapsed() >= every / 4);
        if goes_on && is_due {
            self.fed = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Whether frames were completed since the last time, or none `waiting` is there that could have been.
    fn goes_on(&mut self, completed: u64, waiting: u64) -> bool {
        let before = std::mem::replace(&mut self.completed, completed);
        completed != before || waiting == 0
    }

    /// How it goes, in a line.
    pub fn status(&self, sentence: &str) {
        tell(&[NotifyState::Status(sentence)]);
    }

    /// The service ends in order.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

fn tell(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        debug!("systemd cannot be told: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_wait_and_are_not_completed_starve_the_watchdog() {
        let mut watchdog = Watchdog {
            every: None,
            fed: Instant::now(),
            completed: 0,
        };
        // No camera gives frames: restarting would not mend that.
        assert!(watchdog.goes_on(0, 0));
        assert!(watchdog.goes_on(3, 1));
        assert!(!watchdog.goes_on(3, 1));
        assert!(!watchdog.goes_on(3, 2));
        assert!(watchdog.goes_on(4, 2));
    }
}
