//! What has been decided and has not been acknowledged by the broker.
//!
//! A message is on disk when [`Outbox::put`] returns, and stays there until the broker has acknowledged it: neither a
//! crash, nor a loss of power, nor a lost session loses it. The [`Publisher`] sends what is here; receivers drop what
//! they have had before by id and revision, since a message whose acknowledgement was lost is sent again.

mod publisher;
mod store;

pub use publisher::{CommandListener, Publisher, PublisherCounters};
pub use store::{Depth, Key, Kind, Limits, Message, Outbox, OutboxError, Window};
