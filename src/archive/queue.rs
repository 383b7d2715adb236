//! What waits to be written. The disk may be slow; whoever gives never waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::index::Worth;

/// Bounded in bytes and in number; what is worth least is dropped first, and of that the oldest.
pub(super) struct Queue<T> {
    most_bytes: usize,
    most: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
}

struct Waiting<T> {
    worth: Worth,
    bytes: usize,
    item: T,
}

impl<T> Queue<T> {
    pub fn new(most_bytes: usize, most: usize) -> Self {
        Self {
            most_bytes,
            most,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Adds something; returns what was dropped for it, itself where everything that waits is worth more. Something that
    /// is larger than the queue waits alone.
    pub fn put(&self, worth: Worth, bytes: usize, item: T) -> Vec<Worth> {
        let mut state = self.state();
        let mut dropped = Vec::new();
        state.bytes += bytes;
        state.waiting.push_back(Waiting { worth, bytes, item });
        while state.waiting.len() > 1
            && (state.bytes > self.most_bytes || state.waiting.len() > self.most)
        {
            let waiting = state.waiting.iter().enumerate();
            let least = waiting.min_by_key(|(place, waiting)| (waiting.worth, *place));
            let Some((place, _)) = least else { break };
            if let Some(gone) = state.waiting.remove(place) {
                state.bytes -= gone.bytes;
                dropped.push(gone.worth);
            }
        }
        drop(state);
        self.changed.notify_all();
        dropped
    }

    /// What has waited longest; waits for it no longer than `timeout`.
    pub fn take(&self, timeout: Duration) -> Option<T> {
        let state = self.state();
        let waited = self
            .changed
            .wait_timeout_while(state, timeout, |state| state.waiting.is_empty());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let first = state.waiting.pop_front()?;
        state.bytes -= first.bytes;
        Some(first.item)
    }

    /// Throws everything away; returns what it was worth.
    pub fn clear(&self) -> Vec<Worth> {
        let mut state = self.state();
        state.bytes = 0;
        state
            .waiting
            .drain(..)
            .map(|waiting| waiting.worth)
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // What waits and its bytes change together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The queue keeps its bounds, loses nothing uncounted, keeps the order, and drops nothing while something of
        /// less worth waits.
        #[test]
        fn what_is_worth_least_is_dropped_first(
            items in prop::collection::vec((0..3_usize, 0..60_usize, prop::bool::ANY), 0..60)
        ) {
            let queue = Queue::new(100, 5);
            let (mut inside, mut taken): (Vec<(Worth, usize, usize)>, _) = (Vec::new(), Vec::new());
            for (number, (worth, bytes, takes)) in items.into_iter().enumerate() {
                let worth = Worth::ALL[worth];
                let dropped = queue.put(worth, bytes, number);
                inside.push((worth, bytes, number));
                for gone in dropped {
                    let least = inside.iter().map(|(worth, ..)| *worth).min().unwrap();
                    prop_assert_eq!(gone, least);
                    let place = inside.iter().position(|(worth, ..)| *worth == least).unwrap();
                    inside.remove(place);
                }
                prop_assert!(inside.len() <= 5);
                prop_assert!(inside.len() == 1 || inside.iter().map(|(_, bytes, _)| bytes).sum::<usize>() <= 100);
                if takes {
                    taken.extend(queue.take(Duration::ZERO));
                    if !inside.is_empty() {
                        prop_assert_eq!(taken.last(), Some(&inside.remove(0).2));
                    }
                }
            }
            prop_assert_eq!(queue.clear().len(), inside.len());
            prop_assert!(taken.is_sorted());
        }
    }
}
