//! The receiving side: what a ground station hears.
//!
//! Knows the messages and nothing of how they came about.

mod receiver;

pub use receiver::{CommandError, Commands, Received, Receiver};
