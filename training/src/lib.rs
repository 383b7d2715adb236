//! Trains Callosity's networks off-line: data set → split → networks → ensemble → ONNX bundle.

pub mod augment;
pub mod cache;
pub mod commands;
pub mod compose;
pub mod graph;
pub mod index;
pub mod loader;
pub mod network;
pub mod optimiser;
mod photograph;
pub mod recipe;
pub mod split;
pub mod tasks;
pub mod trainer;
