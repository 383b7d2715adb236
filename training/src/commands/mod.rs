//! The commands of `callosity-train`, a file each.

pub mod bench;
pub mod bundle;
pub mod compose;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod pseudo_label;
pub mod report;
pub mod saliency;
pub mod split;
pub mod stack;
pub mod train;
