//! Callosity recognises individual North Atlantic right whales from survey aircraft.
//!
//! Frames go one way: camera → [`identify`] (find heads, align them by bonnet and blowhead, name the
//! whale) → MQTT → ground. Each module is a room that owns one thing; its documentation says what it
//! owns and what it may not know.

pub mod annotate;
pub mod bundle;
#[cfg(feature = "flight")]
pub mod camera;
pub mod geometry;
#[cfg(feature = "flight")]
pub mod ground;
pub mod identify;
pub mod inference;
#[cfg(feature = "flight")]
pub mod link;
#[cfg(feature = "flight")]
pub mod outbox;
pub mod pixels;
#[cfg(feature = "flight")]
pub mod rehearsal;
#[cfg(feature = "flight")]
pub mod service;
pub mod virtual_survey;
