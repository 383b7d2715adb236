//! What `callosity-train` can be told to do: a module for each command.

pub mod import;
pub mod split;
