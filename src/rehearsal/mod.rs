//! A flight on one machine: an embedded broker, and the comparison of what arrived with the truth.
//!
//! Owns nothing that flies.

mod broker;
mod score;

pub use broker::{EmbeddedBroker, EmbeddedBrokerError};
pub use score::{Names, Score, TrueHead, Truth, TruthError, landmarks};
