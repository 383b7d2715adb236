//! Trains Callosity's networks off-line: data set → split → networks → ensemble → ONNX bundle.

pub mod cache;
pub mod commands;
pub mod graph;
pub mod index;
pub mod network;
mod photograph;
pub mod recipe;
pub mod split;
