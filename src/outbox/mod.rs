//! What has been decided and not yet been acknowledged by the broker.
//!
//! A message stays here from the moment it is put in until its acknowledgement; a broken connection
//! moves what was under way back among what waits. **It is held in memory only**: a crash or a loss of
//! power loses it. Store-and-forward on disk is to come in this room, behind the same functions, and
//! nothing outside may rely on more than they say.
//!
//! Sightings go before crops, and older ones first. Sightings are small (under 1 kB) and are never
//! thrown away; crops are bounded by [`Limits::crop_bytes`] and the oldest goes when they exceed it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Never thrown away.
    Sighting,
    /// Thrown away, oldest first, when too many wait.
    Crop,
}

/// Names a message in the outbox; ordered as they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Priority, u64);

/// A message as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What goes first.
    pub priority: Priority,
    /// Where it goes.
    pub topic: String,
    /// What is said.
    pub payload: Vec<u8>,
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of crops that wait.
    pub crop_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            crop_bytes: 64 << 20,
        }
    }
}

/// How much the outbox holds and has let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Sightings that wait.
    pub sightings: usize,
    /// Crops that wait.
    pub crops: usize,
    /// Bytes of the crops that wait.
    pub crop_bytes: usize,
    /// Messages under way.
    pub under_way: usize,
    /// Sightings among them.
    pub sightings_under_way: usize,
    /// Messages acknowledged so far.
    pub acknowledged: u64,
    /// Messages refused so far.
    pub refused: u64,
    /// Crops thrown away so far.
    pub crops_dropped: u64,
}

impl Depth {
    /// Whether nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.sightings + self.crops + self.under_way == 0
    }
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Key, Message>,
    under_way: BTreeMap<Key, Message>,
    next: u64,
    waiting_crop_bytes: usize,
    acknowledged: u64,
    refused: u64,
    crops_dropped: u64,
}

/// See the [module](self). Clones are handles of the same outbox.
#[derive(Clone)]
pub struct Outbox {
    limits: Limits,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Keeps a message until it is acknowledged.
    pub fn put(&self, message: Message) {
        let mut state = self.state();
        let key = Key(message.priority, state.next);
        state.next += 1;
        state.wait(key, message);
        while state.waiting_crop_bytes > self.limits.crop_bytes {
            let oldest = Key(Priority::Crop, 0);
            let Some((&key, _)) = state.waiting.range(oldest..).next() else {
                break;
            };
            state.stop_waiting(key);
            state.crops_dropped += 1;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next message to send, which is under way from now on.
    pub fn next(&self) -> Option<(Key, Message)> {
        let mut state = self.state();
        let (&key, _) = state.waiting.first_key_value()?;
        let message = state.stop_waiting(key)?;
        state.under_way.insert(key, message.clone());
        Some((key, message))
    }

    /// Lets go of a message that the broker has.
    pub fn acknowledge(&self, key: Key) {
        let mut state = self.state();
        if state.under_way.remove(&key).is_some() {
            state.acknowledged += 1;
        }
    }

    /// Lets go of a message that the broker will never take.
    pub fn refuse(&self, key: Key) {
        let mut state = self.state();
        if state.under_way.remove(&key).is_some() {
            state.refused += 1;
        }
    }

    /// After a connection was lost: what was under way waits again, before what came after it.
    pub fn send_again(&self) {
        let mut state = self.state();
        for (key, message) in std::mem::take(&mut state.under_way) {
            state.wait(key, message);
        }
    }

    /// How much it holds.
    pub fn depth(&self) -> Depth {
        let state = self.state();
        let crops = Key(Priority::Crop, 0);
        let sightings = state.waiting.range(..crops).count();
        Depth {
            sightings,
            crops: state.waiting.len() - sightings,
            crop_bytes: state.waiting_crop_bytes,
            under_way: state.under_way.len(),
            sightings_under_way: state.under_way.range(..crops).count(),
            acknowledged: state.acknowledged,
            refused: state.refused,
            crops_dropped: state.crops_dropped,
        }
    }

    /// Waits until something was put in since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each function leaves the state whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, key: Key, message: Message) {
        if key.0 == Priority::Crop {
            self.waiting_crop_bytes += message.payload.len();
        }
        self.waiting.insert(key, message);
    }

    fn stop_waiting(&mut self, key: Key) -> Option<Message> {
        let message = self.waiting.remove(&key)?;
        if key.0 == Priority::Crop {
            self.waiting_crop_bytes -= message.payload.len();
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(Priority, usize),
        Send,
        AcknowledgeOne(usize),
        Lost,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_usize).prop_map(|n| Step::Put(Priority::Sighting, n)),
            (0..60_usize).prop_map(|n| Step::Put(Priority::Crop, n)),
            Just(Step::Send),
            (0..4_usize).prop_map(Step::AcknowledgeOne),
            Just(Step::Lost),
        ]
    }

    proptest! {
        /// Whatever the link does, each sighting is held until it is acknowledged, and crops keep
        /// their bound while they wait.
        #[test]
        fn no_sighting_is_lost(steps in prop::collection::vec(step(), 0..200)) {
            let outbox = Outbox::new(Limits { crop_bytes: 100 });
            let mut put = BTreeSet::new();
            let mut acknowledged = BTreeSet::new();
            let mut under_way: Vec<(Key, Message)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(priority, size) => {
                        let topic = number.to_string();
                        if priority == Priority::Sighting {
                            put.insert(topic.clone());
                        }
                        outbox.put(Message { priority, topic, payload: vec![0; size] });
                        prop_assert!(outbox.depth().crop_bytes <= 100);
                    }
                    Step::Send => under_way.extend(outbox.next()),
                    Step::AcknowledgeOne(i) if i < under_way.len() => {
                        let (key, message) = under_way.remove(i);
                        outbox.acknowledge(key);
                        acknowledged.insert(message.topic);
                    }
                    Step::AcknowledgeOne(_) => {}
                    Step::Lost => {
                        outbox.send_again();
                        under_way.clear();
                    }
                }
                prop_assert_eq!(outbox.depth().under_way, under_way.len());
            }
            outbox.send_again();
            let mut left = Vec::new();
            while let Some((key, message)) = outbox.next() {
                left.push((key, message));
            }
            prop_assert!(left.is_sorted_by_key(|(key, _)| *key), "older first, sightings before crops");
            let held = left.into_iter().map(|(_, m)| m)
                .filter(|m| m.priority == Priority::Sighting).map(|m| m.topic);
            let seen: BTreeSet<_> = acknowledged.iter().cloned().chain(held).collect();
            prop_assert!(put.is_subset(&seen));
        }
    }
}
