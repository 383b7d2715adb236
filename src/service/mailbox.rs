use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::camera::Backlog;

/// Between threads that give and one that takes: each that gives has a place of its own. See [`Backlog`] for what becomes
/// of what is too much.
pub(super) struct Mailbox<T> {
    backlogs: Vec<Backlog>,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    places: Vec<Place<T>>,
    /// The place that is looked into first.
    next: usize,
}

struct Place<T> {
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
    pub fn new(backlogs: Vec<Backlog>) -> Self {
        let place = |_: &Backlog| Place {
            waiting: VecDeque::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(State {
                places: backlogs.iter().map(place).collect(),
                next: 0,
            }),
            backlogs,
            changed: Condvar::new(),
        }
    }

    /// How many can wait.
    pub fn capacity(&self) -> usize {
        self.backlogs.iter().map(capacity).sum()
    }

    pub fn len(&self) -> usize {
        let places = &self.state().places;
        places.iter().map(|place| place.waiting.len()).sum()
    }

    /// Waits for room no longer than `timeout`, and not at all where only the newest counts.
    pub fn put(&self, place: usize, item: T, timeout: Duration) -> Put<T> {
        let backlog = &self.backlogs[place];
        let mut state = self.state();
        if *backlog == Backlog::Newest {
            let here = &mut state.places[place];
            if here.closed {
                return Put::NoRoom(item);
            }
            let earlier = here.waiting.pop_front();
            here.waiting.push_back(item);
            self.changed.notify_all();
            return earlier.map_or(Put::Waits, Put::InPlaceOf);
        }
        let until = Instant::now() + timeout;
        while state.places[place].is_full(backlog) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Put::NoRoom(item);
            }
            state = self.wait(state, left);
        }
        let here = &mut state.places[place];
        if here.closed {
            return Put::NoRoom(item);
        }
        here.waiting.push_back(item);
        self.changed.notify_all();
        Put::Waits
    }

    /// The next, of each place in turn, and its place; `None` when the mailbox is closed and empty.
    pub fn take(&self) -> Option<(usize, T)> {
        let mut state = self.state();
        loop {
            let count = state.places.len();
            let from = state.next;
            let turns = (0..count).map(|turn| (from + turn) % count);
            for place in turns {
                if let Some(item) = state.places[place].waiting.pop_front() {
                    state.next = place + 1;
                    self.changed.notify_all();
                    return Some((place, item));
                }
            }
            if state.places.iter().all(|place| place.closed) {
                return None;
            }
            state = self.wait(state, Duration::from_secs(3600));
        }
    }

    /// Nothing more goes into a place.
    pub fn close(&self, place: usize) {
        self.state().places[place].closed = true;
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

impl<T> Place<T> {
    fn is_full(&self, backlog: &Backlog) -> bool {
        self.waiting.len() >= capacity(backlog) && !self.closed
    }
}

fn capacity(backlog: &Backlog) -> usize {
    match backlog {
        Backlog::Newest => 1,
        Backlog::Bounded(most) => (*most).max(1),
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
        let mailbox = Mailbox::new(vec![Backlog::Newest]);
        assert_eq!(mailbox.put(0, 1, LONG), Put::Waits);
        assert_eq!(mailbox.put(0, 2, LONG), Put::InPlaceOf(1));
        assert_eq!(mailbox.put(0, 3, LONG), Put::InPlaceOf(2));
        mailbox.close(0);
        assert_eq!(mailbox.put(0, 4, LONG), Put::NoRoom(4));
        assert_eq!((mailbox.take(), mailbox.take()), (Some((0, 3)), None));
    }

    #[test]
    fn a_replay_waits_and_nothing_is_lost() {
        let mailbox = Arc::new(Mailbox::new(vec![Backlog::Bounded(2)]));
        assert_eq!(mailbox.put(0, 0, LONG), Put::Waits);
        assert_eq!(mailbox.put(0, 1, LONG), Put::Waits);
        assert_eq!(mailbox.put(0, 2, NOT_LONG), Put::NoRoom(2));
        let taker = {
            let mailbox = mailbox.clone();
            thread::spawn(move || std::iter::from_fn(|| mailbox.take()).collect::<Vec<_>>())
        };
        for i in 2..100 {
            assert_eq!(mailbox.put(0, i, LONG), Put::Waits);
        }
        mailbox.close(0);
        assert_eq!(
            taker.join().unwrap(),
            (0..100).map(|i| (0, i)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn closing_wakes_who_waits() {
        let mailbox = Arc::new(Mailbox::new(vec![Backlog::Bounded(1)]));
        assert_eq!(mailbox.put(0, 0, LONG), Put::Waits);
        let giver = {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.put(0, 1, LONG))
        };
        thread::sleep(NOT_LONG);
        mailbox.close(0);
        assert_eq!(giver.join().unwrap(), Put::NoRoom(1));
    }

    #[test]
    fn one_camera_does_not_push_the_others_out() {
        let mailbox = Mailbox::new(vec![Backlog::Newest, Backlog::Bounded(3), Backlog::Newest]);
        assert_eq!(mailbox.capacity(), 5);
        for i in 0..3 {
            assert_eq!(mailbox.put(1, i, NOT_LONG), Put::Waits);
        }
        assert_eq!(mailbox.put(1, 3, NOT_LONG), Put::NoRoom(3));
        assert_eq!(mailbox.put(0, 10, LONG), Put::Waits);
        assert_eq!(mailbox.put(2, 20, LONG), Put::Waits);
        assert_eq!(mailbox.put(2, 21, LONG), Put::InPlaceOf(20));
        assert_eq!(mailbox.len(), 5);
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.take()).take(4).collect();
        assert_eq!(taken, [(0, 10), (1, 0), (2, 21), (1, 1)]);
        // One that has ended does not end the others.
        mailbox.close(0);
        assert_eq!(mailbox.put(0, 11, LONG), Put::NoRoom(11));
        assert_eq!(mailbox.put(2, 22, LONG), Put::Waits);
        mailbox.close(1);
        mailbox.close(2);
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.take()).collect();
        assert_eq!(taken, [(2, 22), (1, 2)]);
    }
}
