//! The commands of `callosity-train`, a file each.

pub mod bench;
pub mod compose;
pub mod import;
pub mod split;
pub mod train;
