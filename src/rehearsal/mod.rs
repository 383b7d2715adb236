//! A flight on one machine: an embedded broker, a receiver of positions on a virtual path, reference photographs of drawn
//! whales, and the comparison of what arrived with the truth.
//!
//! Owns nothing that flies.

mod broker;
mod photographs;
mod receiver;
mod score;

pub use broker::{EmbeddedBroker, EmbeddedBrokerError};
pub use photographs::draw_photographs;
pub use receiver::{VirtualReceiver, mounting, view};
pub use score::{Names, Score, TrueHead, Truth, TruthError, landmarks};
