//! The commands of `callosity-train`, a file each.

pub mod bench;
