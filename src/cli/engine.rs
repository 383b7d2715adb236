//! Arguments that say what networks run on; shared by all commands that run any.

use std::ffi::OsString;
use std::path::PathBuf;

use callosity::settings::{Layers, SettingsError};
use clap::ValueEnum;
use recognition::inference::{EngineChoice, EngineConfig, ExecutionProvider};
use toml::Value;

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
    ///
    /// [default: auto]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// ONNX Runtime's library, 1.20 or later; without it: ORT_DYLIB_PATH, .venv, the system's folders
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
    /// Processors in the order in which they are tried
    /// [default: tensorrt,cuda,cpu]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    providers: Vec<ExecutionProvider>,
    /// Folder in which TensorRT keeps what it has compiled
    #[arg(long, value_name = "DIR")]
    tensorrt_cache: Option<PathBuf>,
}

impl Args {
    /// The arguments that give these settings to another process of this program.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let text = |(name, value): (&str, String)| [format!("--{name}").into(), value.into()];
        let mut arguments: Vec<OsString> = self.texts().into_iter().flat_map(text).collect();
        for (name, path) in self.paths() {
            arguments.extend([format!("--{name}").into(), path.into()]);
        }
        arguments
    }

    /// Sets what is given over what the settings say.
    pub fn set(&self, layers: &mut Layers) -> Result<(), SettingsError> {
        let texts = self.texts().into_iter();
        let paths = self.paths().into_iter();
        let paths = paths.map(|(name, path)| (name, path.to_string_lossy().into_owned()));
        for (name, value) in texts.chain(paths) {
            let key = format!("engine.{}", name.replace('-', "_"));
            let value = match name {
                "providers" => value.split(',').map(Value::from).collect::<Vec<_>>().into(),
                _ => Value::String(value),
            };
            layers.set(&key, value, &format!("argument --{name}"))?;
        }
        Ok(())
    }

    fn texts(&self) -> Vec<(&'static str, String)> {
        let engine = self.engine.and_then(|engine| engine.to_possible_value());
        let engine = engine.map(|engine| ("engine", engine.get_name().to_owned()));
        let providers = self
            .providers
            .iter()
            .map(|provider| provider.to_string().to_lowercase());
        let providers: Vec<_> = providers.collect();
        let providers = (!providers.is_empty()).then(|| ("providers", providers.join(",")));
        engine.into_iter().chain(providers).collect()
    }

    fn paths(&self) -> Vec<(&'static str, PathBuf)> {
        let paths = [
            ("onnxruntime", &self.onnxruntime),
            ("tensorrt-cache", &self.tensorrt_cache),
        ];
        let given = paths
            .into_iter()
            .filter_map(|(name, path)| Some((name, path.clone()?)));
        given.collect()
    }

    /// The settings, with `threads` threads for each network on the CPU, or one for each core.
    pub fn config(&self, threads: Option<usize>) -> EngineConfig {
        let default = EngineConfig::default();
        EngineConfig {
            choice: match self.engine.unwrap_or(Engine::Auto) {
                Engine::Auto => EngineChoice::Auto,
                Engine::Onnxruntime => EngineChoice::OnnxRuntime,
                Engine::Builtin => EngineChoice::Builtin,
            },
            library: self.onnxruntime.clone(),
            providers: if self.providers.is_empty() {
                default.providers
            } else {
                self.providers.clone()
            },
            threads: threads.unwrap_or(default.threads),
            at_once: default.at_once,
            tensorrt_cache: self.tensorrt_cache.clone(),
        }
    }
}
