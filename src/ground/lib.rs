//! The ground station: what it hears from aircraft, keeps, and shows to those who decide.
//!
//! | room | what it owns |
//! |---|---|
//! | receiver | the connection to a broker, and what is said over it |
//! | listener | connections of aircraft, where there is no broker |
//! | [`store`] | the database and the pictures |
//! | [`catalogue`] | reference photographs |
//! | [`station`] | receiving, storing and acknowledging, in this order; commands until they are answered |
//! | [`web`] | the page, accounts, who may do what |
//!
//! Knows the messages and nothing of how they came about.

pub mod catalogue;
mod listener;
mod receiver;
pub mod station;
pub mod store;
pub mod web;

pub use listener::Listener;
pub use receiver::{CommandError, Commands, Delivery, Received, Receiver};
