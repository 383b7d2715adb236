//! Networks that run: the engine of the process, sessions of a bundle's networks, and the self-test.
//!
//! This room knows which library runs the networks and on which processor, and proves that what goes
//! in and comes out has the shape and the finite numbers that the bundle promises. It knows no
//! photographs and no whales.
//!
//! # Engines
//! - **ONNX Runtime**, 1.20 or later, loaded at run time from wherever [`EngineConfig::library`],
//!   `ORT_DYLIB_PATH`, a `.venv` or the system has it. Execution providers (TensorRT, CUDA, CPU) are
//!   asked in the configured order, each with failure as an error and without the CPU as a silent
//!   substitute, so that [`Network::provider`] is what really runs.
//! - **Built-in** (tract), inside the program: no native library, CPU only, several times slower.
//!
//! A process has one engine, chosen by the first [`Engine::start`]: the bindings keep one table of
//! functions for the whole process. Asking for another one later is an error.

mod engine;
mod library;
mod network;
mod self_test;

pub use engine::{Engine, EngineChoice, EngineConfig, EngineError, ExecutionProvider};
pub use network::{InferenceError, Network, Output};
pub use self_test::{SelfTestError, SelfTestOutcome, run_self_tests};
