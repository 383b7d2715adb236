//! MQTT between aircraft and ground: topics, messages, and the session with the broker.
//!
//! This room owns what goes over the wire: the [messages](message), their JSON schemas in
//! `src/link/schema/`, the [`topic`]s and the [`session`] that sends what the
//! [outbox](crate::outbox) holds until the broker has acknowledged it. It does not know where
//! sightings come from, nor what the ground does with them.

pub mod broker;
pub mod message;
pub mod schema;
pub mod session;
pub mod topic;

pub use broker::{BrokerAddress, BrokerOptions, LinkError};
