//! A flight on one machine: a ground station, a receiver of positions on a virtual path, reference photographs of drawn
//! whales, and the comparison of what arrived with the truth.
//!
//! Owns nothing that flies.

mod ground;
mod photographs;
mod receiver;
mod score;

pub use ground::VirtualGround;
pub use photographs::draw_photographs;
pub use receiver::{VirtualReceiver, mounting, view};
pub use score::{Names, Score, TrueHead, Truth, TruthError, landmarks};
