use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tracing::error;

/// What the end of a stage means where it was not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// The flight ends, with what was decided delivered.
    EndFlight,
    /// The stage begins anew after a pause.
    Retry(Duration),
}

/// The end of a stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub stage: String,
    /// What went wrong, where it did and the stage was not begun anew.
    pub failure: Option<String>,
}

/// Runs each stage on a thread of its own and hears when it ends, however it ends.
pub(super) struct Supervisor {
    say: Sender<Ended>,
    hear: Receiver<Ended>,
    running: BTreeSet<String>,
}

impl Supervisor {
    pub fn new() -> Self {
        let (say, hear) = mpsc::channel();
        Self {
            say,
            hear,
            running: BTreeSet::new(),
        }
    }

    /// Starts a stage. An `Err` and a panic are failures.
    pub fn start(
        &mut self,
        stage: impl Into<String>,
        on_failure: OnFailure,
        mut work: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<()> {
        let (say, stage) = (self.say.clone(), stage.into());
        let name = stage.clone();
        thread::Builder::new().name(stage.clone()).spawn(move || {
            let failure = loop {
                let done = catch_unwind(AssertUnwindSafe(&mut work));
                let failure = match done {
                    Ok(Ok(())) => break None,
                    Ok(Err(reason)) => reason,
                    Err(panic) => defect(&*panic),
                };
                match on_failure {
                    OnFailure::EndFlight => break Some(failure),
                    OnFailure::Retry(pause) => {
                        error!("{stage} failed and begins anew: {failure}");
                        thread::sleep(pause);
                    }
                }
            };
            // Nobody listens once the deadline has passed.
            let _ = say.send(Ended { stage, failure });
        })?;
        self.running.insert(name);
        Ok(())
    }

    /// Waits for the next stage to end, no longer than `timeout`.
    pub fn next_ended(&mut self, timeout: Duration) -> Option<Ended> {
        match self.hear.recv_timeout(timeout) {
            Ok(ended) => {
                self.running.remove(&ended.stage);
                Some(ended)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Stages that have not ended.
    pub fn running(&self) -> Vec<String> {
        self.running.iter().cloned().collect()
    }

    pub fn is_running(&self, stage: &str) -> bool {
        self.running.contains(stage)
    }
}

/// What a panic said, as a failure.
pub(super) fn defect(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("it panicked without a word");
    format!("a defect in the program: {text}")
}

/// Time left until `deadline`, at most `longest`; all of `longest` without one.
pub(super) fn wait_until(deadline: Option<Instant>, longest: Duration) -> Duration {
    deadline.map_or(longest, |deadline| {
        deadline
            .saturating_duration_since(Instant::now())
            .min(longest)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn an_error_and_a_panic_are_heard() {
        let mut supervisor = Supervisor::new();
        let end = OnFailure::EndFlight;
        supervisor.start("well", end, || Ok(())).unwrap();
        let ended = supervisor.next_ended(PATIENCE).unwrap();
        assert_eq!((ended.stage.as_str(), ended.failure), ("well", None));
        supervisor
            .start("bad", end, || Err("no lens".to_owned()))
            .unwrap();
        let ended = supervisor.next_ended(PATIENCE).unwrap();
        assert_eq!(ended.failure.as_deref(), Some("no lens"));
        supervisor
            .start("worse", end, || panic!("index {} of {}", 3, 2))
            .unwrap();
        let ended = supervisor.next_ended(PATIENCE).unwrap();
        assert!(ended.failure.unwrap().contains("index 3 of 2"));
        assert!(supervisor.running().is_empty());
    }

    #[test]
    fn a_stage_that_may_be_retried_is() {
        let mut supervisor = Supervisor::new();
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = attempts.clone();
        let retry = OnFailure::Retry(Duration::ZERO);
        supervisor
            .start("flaky", retry, move || {
                match counted.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("once"),
                    1 => Err("twice".to_owned()),
                    _ => Ok(()),
                }
            })
            .unwrap();
        let ended = supervisor.next_ended(PATIENCE).unwrap();
        assert_eq!(ended.failure, None);
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
    }
}
