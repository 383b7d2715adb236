use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::camera::Backlog;

/// Between one thread that gives and one that takes; see [`Backlog`] for what becomes of what is too much.
pub(super) struct Mailbox<T> {
    backlog: Backlog,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// What became of something that was put into a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put<T> {
    /// It waits.
    Waits,
    /// It waits in the place of this one.
    InPlaceOf(T),
    /// There was no room within the time that was waited, or nobody takes anything any more.
    NoRoom(T),
}

impl<T> Mailbox<T> {
    pub fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// How many can wait.
    pub fn capacity(&self) -> usize {
        match self.backlog {
            Backlog::Newest => 1,
            Backlog::Bounded(most) => most.max(1),
        }
    }

    pub fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Waits for room no longer than `timeout`, and not at all where only the newest counts.
    pub fn put(&self, item: T, timeout: Duration) -> Put<T> {
        let mut state = self.state();
        if self.backlog == Backlog::Newest {
            if state.closed {
                return Put::NoRoom(item);
            }
            let earlier = state.waiting.pop_front();
            state.waiting.push_back(item);
            self.changed.notify_all();
            return earlier.map_or(Put::Waits, Put::InPlaceOf);
        }
        let until = Instant::now() + timeout;
        while state.waiting.len() >= self.capacity() && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Put::NoRoom(item);
            }
            state = self.wait(state, left);
        }
        if state.closed {
            return Put::NoRoom(item);
        }
        state.waiting.push_back(item);
        self.changed.notify_all();
        Put::Waits
    }

    /// The next, or `None` when the mailbox is closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                self.changed.notify_all();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.wait(state, Duration::from_secs(3600));
        }
    }

    /// Nothing more goes in.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<T>>,
        timeout: Duration,
    ) -> MutexGuard<'a, State<T>> {
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Each function leaves the state whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const NOT_LONG: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_live_camera_never_waits_and_the_newest_frame_is_kept() {
        let mailbox = Mailbox::new(Backlog::Newest);
        assert_eq!(mailbox.put(1, LONG), Put::Waits);
        assert_eq!(mailbox.put(2, LONG), Put::InPlaceOf(1));
        assert_eq!(mailbox.put(3, LONG), Put::InPlaceOf(2));
        mailbox.close();
        assert_eq!(mailbox.put(4, LONG), Put::NoRoom(4));
        assert_eq!((mailbox.take(), mailbox.take()), (Some(3), None));
    }

    #[test]
    fn a_replay_waits_and_nothing_is_lost() {
        let mailbox = Arc::new(Mailbox::new(Backlog::Bounded(2)));
        assert_eq!(mailbox.put(0, LONG), Put::Waits);
        assert_eq!(mailbox.put(1, LONG), Put::Waits);
        assert_eq!(mailbox.put(2, NOT_LONG), Put::NoRoom(2));
        let taker = {
            let mailbox = mailbox.clone();
            thread::spawn(move || std::iter::from_fn(|| mailbox.take()).collect::<Vec<_>>())
        };
        for i in 2..100 {
            assert_eq!(mailbox.put(i, LONG), Put::Waits);
        }
        mailbox.close();
        assert_eq!(taker.join().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn closing_wakes_who_waits() {
        let mailbox = Arc::new(Mailbox::new(Backlog::Bounded(1)));
        assert_eq!(mailbox.put(0, LONG), Put::Waits);
        let giver = {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.put(1, LONG))
        };
        thread::sleep(NOT_LONG);
        mailbox.close();
        assert_eq!(giver.join().unwrap(), Put::NoRoom(1));
    }
}
