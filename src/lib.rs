//! What flies: frames go one way, camera → [recognition] → [sighting] → [outbox] → MQTT → ground.
//!
//! Each module is a room that owns one thing; its documentation says what it owns and what it may not know.

pub mod archive;
pub mod bundles;
pub mod camera;
pub mod check;
pub mod clock;
pub mod control;
pub mod effort;
mod network_share;
pub mod observe;
pub mod outbox;
pub mod position;
pub mod rehearsal;
pub mod service;
pub mod settings;
pub mod sighting;
mod sqlite;

pub use sqlite::share_without_locks;
