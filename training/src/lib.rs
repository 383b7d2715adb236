//! Trains Callosity's networks off-line: data set → split → networks → ensemble → ONNX bundle.

pub mod augment;
pub mod cache;
pub mod commands;
pub mod compose;
pub mod curves;
pub mod evaluation;
pub mod features;
pub mod finder_threshold;
pub mod frame_folds;
pub mod gallery;
pub mod graph;
pub mod index;
pub mod loader;
pub mod metrics;
pub mod network;
pub mod onnx;
pub mod optimiser;
mod photograph;
pub mod recipe;
pub mod report;
pub mod run_folder;
pub mod split;
pub mod stack;
pub mod tasks;
pub mod trainer;
pub mod weights;
