//! The virtual survey: sea and right whales from above, drawn by rule instead of photographed.

mod sea;
mod texture;

pub use sea::{Colour, Sea, SeaState};
