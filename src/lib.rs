//! Callosity recognises individual North Atlantic right whales from survey aircraft.
//!
//! Frames go one way: camera → [`identify`] (find heads, align them by bonnet and blowhead, name the
//! whale) → MQTT → ground. Each module is a room that owns one thing; its documentation says what it
//! owns and what it may not know.

pub mod bundle;
pub mod geometry;
pub mod pixels;
