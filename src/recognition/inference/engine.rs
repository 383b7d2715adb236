use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

use super::library::{self, Library};

/// Which engine is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime where it is found, else the built-in engine.
    #[default]
    Auto,
    /// ONNX Runtime or an error.
    OnnxRuntime,
    /// The built-in engine.
    Builtin,
}

/// A processor, through ONNX Runtime's means to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionProvider {
    /// NVIDIA GPU, compiled by TensorRT.
    TensorRt,
    /// NVIDIA GPU.
    Cuda,
    /// The processor's own cores.
    Cpu,
}

impl ExecutionProvider {
    /// The name under which it is configured and reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "TensorRT",
            Self::Cuda => "CUDA",
            Self::Cpu => "CPU",
        }
    }
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ExecutionProvider {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::TensorRt, Self::Cuda, Self::Cpu]
            .into_iter()
            .find(|provider| provider.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name} is no execution provider; use tensorrt, cuda or cpu"))
    }
}

/// How networks are run.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which engine.
    pub choice: EngineChoice,
    /// ONNX Runtime's library; where absent it is searched (see the [module](super)).
    pub library: Option<PathBuf>,
    /// Processors in the order in which they are tried; the first that takes a network whole runs it.
    pub providers: Vec<ExecutionProvider>,
    /// Threads that cut a network's input out of a photograph, and that work on it on the CPU; at least 1.
    pub threads: usize,
    /// Photographs that are looked at at the same time; at least 1. Each network that runs on the CPU is loaded so often,
    /// each time with its share of the threads: two photographs on a core each are done sooner than one after the other
    /// on both. The built-in engine has one thread for a photograph.
    pub at_once: usize,
    /// Folder in which TensorRT keeps what it has compiled; without it every start compiles anew,
    /// which takes minutes.
    pub tensorrt_cache: Option<PathBuf>,
}

impl Default for EngineConfig {
    /// ONNX Runtime where it is found, on the best processor, with one thread for each core.
    fn default() -> Self {
        Self {
            choice: EngineChoice::Auto,
            library: None,
            providers: vec![
                ExecutionProvider::TensorRt,
                ExecutionProvider::Cuda,
                ExecutionProvider::Cpu,
            ],
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            at_once: 1,
            tensorrt_cache: None,
        }
    }
}

/// Why no engine runs.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The library that was asked for cannot be used.
    #[error(
        "cannot use {path} as ONNX Runtime: {reason}. Give the path of libonnxruntime.so 1.20 or later with --onnxruntime, or use --engine builtin",
        path = path.display()
    )]
    Library {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// ONNX Runtime was asked for and is nowhere.
    #[error(
        "no ONNX Runtime found (looked at ORT_DYLIB_PATH, .venv and the system's folders{}). Install it with `pip install onnxruntime`, give the path of its library with --onnxruntime, or use --engine builtin",
        in_words(tried)
    )]
    NotFound {
        /// Libraries that were found and what is wrong with each.
        tried: Vec<(PathBuf, String)>,
    },
    /// The program was built without the engine that is asked for, or that would have to do.
    #[error(
        "this program was built without the built-in engine, and uses ONNX Runtime alone{}. Install it with `pip install onnxruntime`, give the path of its library with --onnxruntime, or build with the feature builtin-engine",
        in_words(tried)
    )]
    NotBuiltIn {
        /// Libraries that were found and what is wrong with each.
        tried: Vec<(PathBuf, String)>,
    },
    /// The library was loaded but does not start.
    #[error("{engine} does not start: {reason}")]
    Start {
        /// The engine.
        engine: String,
        /// What it says.
        reason: String,
    },
    /// Another engine runs in this process already.
    #[error("this process already runs its networks on {running}, and a process has one engine")]
    AlreadyStarted {
        /// The engine that runs.
        running: String,
    },
}

fn in_words(tried: &[(PathBuf, String)]) -> String {
    tried
        .iter()
        .map(|(path, reason)| format!("; {}: {reason}", path.display()))
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    OnnxRuntime { path: PathBuf, version: String },
    Builtin,
}

struct Running {
    kind: Kind,
    // The bindings allow one environment for each process and end it when the last copy is dropped.
    environment: Environment,
}

static RUNNING: Mutex<Option<Arc<Running>>> = Mutex::new(None);

/// The engine of this process, with how it is to run networks.
#[derive(Clone)]
pub struct Engine {
    running: Arc<Running>,
    config: EngineConfig,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("kind", &self.running.kind)
            .field("config", &self.config)
            .finish()
    }
}

impl Engine {
    /// Starts the engine asked for, or gives the one that already runs in this process.
    ///
    /// # Errors
    /// There is no such engine on this machine, or another one runs in this process.
    pub fn start(config: &EngineConfig) -> Result<Self, EngineError> {
        let mut slot = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match &*slot {
            Some(running) => {
                let fits = match (&running.kind, config.choice, &config.library) {
                    (Kind::Builtin, EngineChoice::OnnxRuntime, _) => false,
                    (Kind::Builtin, EngineChoice::Auto, Some(_)) => false,
                    (Kind::Builtin, _, _) => true,
                    (Kind::OnnxRuntime { .. }, EngineChoice::Builtin, _) => false,
                    (Kind::OnnxRuntime { path, .. }, _, Some(asked)) => path == asked,
                    (Kind::OnnxRuntime { .. }, _, None) => true,
                };
                if !fits {
                    return Err(EngineError::AlreadyStarted {
                        running: describe(&running.kind),
                    });
                }
                Arc::clone(running)
            }
            None => {
                let running = Arc::new(start(config)?);
                *slot = Some(Arc::clone(&running));
                running
            }
        };
        let mut config = config.clone();
        config.threads = config.threads.max(1);
        config.at_once = config.at_once.max(1);
        if config.providers.is_empty() {
            config.providers.push(ExecutionProvider::Cpu);
        }
        Ok(Self { running, config })
    }

    /// The engine in words, such as `ONNX Runtime 1.24.1` or `built-in`.
    pub fn name(&self) -> String {
        describe(&self.running.kind)
    }

    /// Where ONNX Runtime's library lies; `None` for the built-in engine.
    pub fn library(&self) -> Option<&Path> {
        match &self.running.kind {
            Kind::OnnxRuntime { path, .. } => Some(path),
            Kind::Builtin => None,
        }
    }

    /// Whether this is the built-in engine.
    pub fn is_builtin(&self) -> bool {
        self.running.kind == Kind::Builtin
    }

    /// How networks are run.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.running.environment
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::OnnxRuntime { version, .. } => format!("ONNX Runtime {version}"),
        Kind::Builtin => "built-in".to_owned(),
    }
}

fn start(config: &EngineConfig) -> Result<Running, EngineError> {
    if config.choice == EngineChoice::Builtin {
        return start_builtin(Vec::new());
    }
    if let Some(path) = &config.library {
        let library = Library::load(path).map_err(|reason| EngineError::Library {
            path: path.clone(),
            reason,
        })?;
        return start_onnxruntime(path, library);
    }
    let mut tried = Vec::new();
    for path in library::candidates() {
        match Library::load(&path) {
            Ok(library) => return start_onnxruntime(&path, library),
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "cannot use as ONNX Runtime");
                tried.push((path, reason));
            }
        }
    }
    match config.choice {
        EngineChoice::OnnxRuntime => Err(EngineError::NotFound { tried }),
        EngineChoice::Auto | EngineChoice::Builtin => start_builtin(tried),
    }
}

fn start_onnxruntime(path: &Path, library: Library) -> Result<Running, EngineError> {
    let failed = |reason: String| EngineError::Library {
        path: path.to_owned(),
        reason,
    };
    let version = library.version.clone();
    let builder = if library.is_current() {
        // The same file is loaded once however often it is asked for, so this finds it in memory.
        // Without `init_from` a library that goes missing would be a panic.
        ort::init_from(absolute(path)).map_err(|e| failed(e.to_string()))?
    } else {
        ort::set_api(library.table().map_err(failed)?);
        ort::init()
    };
    let kind = Kind::OnnxRuntime {
        path: path.to_owned(),
        version,
    };
    build(kind, builder)
}

#[cfg(feature = "builtin-engine")]
fn start_builtin(_: Vec<(PathBuf, String)>) -> Result<Running, EngineError> {
    ort::set_api(ort_tract::api());
    build(Kind::Builtin, ort::init())
}

#[cfg(not(feature = "builtin-engine"))]
fn start_builtin(tried: Vec<(PathBuf, String)>) -> Result<Running, EngineError> {
    Err(EngineError::NotBuiltIn { tried })
}

fn build(
    kind: Kind,
    builder: ort::environment::EnvironmentBuilder,
) -> Result<Running, EngineError> {
    let environment = builder
        .with_name("callosity")
        .with_telemetry(false)
        .build()
        .map_err(|e| EngineError::Start {
            engine: describe(&kind),
            reason: e.to_string(),
        })?;
    Ok(Running { kind, environment })
}

/// The bindings read a relative path as relative to the program, the system as relative to the
/// working directory; a bare file name means the system's search.
fn absolute(path: &Path) -> PathBuf {
    if path.components().count() > 1 {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    } else {
        path.to_owned()
    }
}
