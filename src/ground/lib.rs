//! The ground station: what it hears from aircraft, keeps, and shows to those who decide.
//!
//! | room | what it owns |
//! |---|---|
//! | receiver | the connection to the broker, and what is said over it |
//! | [`store`] | the database and the pictures |
//! | [`catalogue`] | reference photographs |
//! | [`station`] | receiving, storing and acknowledging, in this order; commands until they are answered |
//! | [`web`] | the page, accounts, who may do what |
//!
//! Knows the messages and nothing of how they came about.

pub mod catalogue;
mod receiver;
pub mod station;
pub mod store;
pub mod web;

pub use receiver::{CommandError, Commands, Delivery, Received, Receiver};
