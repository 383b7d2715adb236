//! Trains Callosity's networks off-line: data set → split → networks → ensemble → ONNX bundle.

pub mod commands;
pub mod graph;
pub mod network;
pub mod onnx;
pub mod optimiser;
pub mod recipe;
pub mod weights;
