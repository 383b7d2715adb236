//! Arguments that say what networks run on; shared by all commands that run any.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;
use recognition::inference::{EngineChoice, EngineConfig, ExecutionProvider};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Engine {
    /// ONNX Runtime where it is found, else the built-in engine
    Auto,
    /// ONNX Runtime
    Onnxruntime,
    /// The engine inside this program: slower, needs nothing
    Builtin,
}

/// What networks run on.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Engine")]
pub struct Args {
    /// What runs the networks
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    engine: Engine,
    /// ONNX Runtime's library, 1.20 or later; without it: ORT_DYLIB_PATH, .venv, the system's folders
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
    /// Processors in the order in which they are tried
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "tensorrt,cuda,cpu"
    )]
    providers: Vec<ExecutionProvider>,
    /// Folder in which TensorRT keeps what it has compiled
    #[arg(long, value_name = "DIR")]
    tensorrt_cache: Option<PathBuf>,
}

impl Args {
    /// The arguments that give these settings to another process of this program.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let engine = self.engine.to_possible_value();
        let providers = self.providers.iter().map(ToString::to_string);
        let mut arguments = vec![
            "--engine".into(),
            engine.expect("no engine is hidden").get_name().into(),
            "--providers".into(),
            providers.collect::<Vec<_>>().join(",").into(),
        ];
        for (name, path) in [
            ("--onnxruntime", &self.onnxruntime),
            ("--tensorrt-cache", &self.tensorrt_cache),
        ] {
            if let Some(path) = path {
                arguments.extend([name.into(), path.clone().into_os_string()]);
            }
        }
        arguments
    }

    /// The settings, with `threads` threads for each network on the CPU, or one for each core.
    pub fn config(&self, threads: Option<usize>) -> EngineConfig {
        let default = EngineConfig::default();
        EngineConfig {
            choice: match self.engine {
                Engine::Auto => EngineChoice::Auto,
                Engine::Onnxruntime => EngineChoice::OnnxRuntime,
                Engine::Builtin => EngineChoice::Builtin,
            },
            library: self.onnxruntime.clone(),
            providers: self.providers.clone(),
            threads: threads.unwrap_or(default.threads),
            at_once: default.at_once,
            tensorrt_cache: self.tensorrt_cache.clone(),
        }
    }
}
