//! What aircraft and ground say to each other over MQTT: topics, messages, how they are encoded, and how either side
//! reaches the broker.
//!
//! This crate owns what goes over the wire: the [messages](message), their JSON schemas in `src/link/schema/`, their
//! [encoding](codec), the [`topic`]s. It does not know where sightings come from, what the ground does with them, or
//! which client sends them.

pub mod archive;
pub mod broker;
pub mod codec;
pub mod message;
pub mod schema;
pub mod topic;

pub use broker::{BrokerAddress, BrokerOptions, LinkError};
