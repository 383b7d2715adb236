use std::path::PathBuf;

use ort::ep;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, TensorRef};

use super::engine::{Engine, ExecutionProvider};
use crate::bundle::{self, Bundle, BundleError, NetworkInput, Role};

/// Why a network cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// Its file cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle has no network of that role.
    #[error("the bundle in {bundle} has no {role}. Use a bundle with one, or photographs of heads that are already cut (--aligned)", bundle = bundle.display())]
    Absent {
        /// The bundle's directory.
        bundle: PathBuf,
        /// The role.
        role: Role,
    },
    /// The engine does not take the network.
    #[error("{engine} cannot load the {role} {path}: {reason}", path = path.display())]
    Load {
        /// The engine.
        engine: String,
        /// The network.
        role: Role,
        /// Its file.
        path: PathBuf,
        /// What each execution provider says.
        reason: String,
    },
    /// The network is not what the manifest says.
    #[error(
        "the {role} {path} does not fit the manifest: {what} is {found}, and the manifest says {expected}. Export the bundle again",
        path = path.display()
    )]
    Contract {
        /// The network.
        role: Role,
        /// Its file.
        path: PathBuf,
        /// What was compared.
        what: String,
        /// What the network has.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// Running failed.
    #[error("the {role} failed on {engine}: {reason}")]
    Run {
        /// The network.
        role: Role,
        /// The engine.
        engine: String,
        /// What it says.
        reason: String,
    },
    /// What was to go in has the wrong number of values.
    #[error("the {role} takes {expected} values for a batch of {batch}, and got {found}")]
    InputLength {
        /// The network.
        role: Role,
        /// Images in the batch.
        batch: usize,
        /// Values needed.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// What came out is no finite number.
    #[error(
        "the {role} {path} gave {value} instead of a number (value {index} of its output). Its weights are damaged or its arithmetic overflows on {engine}: check the bundle with `callosity bundle check`",
        path = path.display()
    )]
    NotFinite {
        /// The network.
        role: Role,
        /// Its file.
        path: PathBuf,
        /// The engine.
        engine: String,
        /// The value: NaN or an infinity.
        value: f32,
        /// Where it stands in the output.
        index: usize,
    },
}

/// What a network gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Shape with the batch first.
    pub shape: Vec<usize>,
    /// The values, last dimension fastest; all finite.
    pub data: Vec<f32>,
}

impl Output {
    /// The values of each image in turn.
    pub fn images(&self) -> std::slice::ChunksExact<'_, f32> {
        let each = self.shape[1..].iter().product::<usize>().max(1);
        self.data.chunks_exact(each)
    }
}

/// An output that the manifest promises.
#[derive(Debug)]
struct Promised {
    name: String,
    /// For one image.
    shape: Vec<usize>,
}

/// A network of a bundle, loaded and ready.
#[derive(Debug)]
pub struct Network {
    role: Role,
    path: PathBuf,
    engine: String,
    provider: ExecutionProvider,
    session: Session,
    input: NetworkInput,
    output: Promised,
    /// The ensemble's second output, where it has one.
    embedding: Option<Promised>,
    /// Whether the file fixes the batch at one image.
    single: bool,
}

impl Network {
    /// Loads the network of a role on the first execution provider that takes it whole.
    ///
    /// # Errors
    /// There is none, the file is not the one checked, no provider takes it, or its inputs and outputs
    /// are not those of the manifest.
    pub fn load(engine: &Engine, bundle: &Bundle, role: Role) -> Result<Self, InferenceError> {
        let manifest = bundle.manifest();
        let absent = || InferenceError::Absent {
            bundle: bundle.directory().to_owned(),
            role,
        };
        let declared = manifest.network(role).ok_or_else(absent)?;
        let output = || -> Option<Promised> {
            Some(Promised {
                name: declared.output.clone(),
                shape: manifest.output_shape(role)?,
            })
        };
        let embedding = || -> Option<Promised> {
            let embedding = manifest.ensemble.embedding.as_ref();
            Some(Promised {
                name: embedding.filter(|_| role == Role::Ensemble)?.output.clone(),
                shape: manifest.embedding_shape()?,
            })
        };
        let path = bundle.network_path(role).ok_or_else(absent)?;
        let bytes = bundle.network_bytes(role)?.ok_or_else(absent)?;

        let mut refusals = Vec::new();
        for &provider in providers(engine) {
            match session(engine, provider, &bytes) {
                Ok(session) => {
                    for (refused, reason) in &refusals {
                        tracing::info!(
                            "{refused} does not run the {role}, {provider} does: {reason}"
                        );
                    }
                    let mut network = Self {
                        role,
                        path,
                        engine: if engine.is_builtin() {
                            engine.name()
                        } else {
                            format!("{}, {provider}", engine.name())
                        },
                        provider,
                        session,
                        input: declared.input.clone(),
                        output: output().ok_or_else(absent)?,
                        embedding: embedding(),
                        single: false,
                    };
                    network.single = network.check_contract(declared)?;
                    return Ok(network);
                }
                Err(reason) => refusals.push((provider, reason.to_string())),
            }
        }
        let reasons = refusals
            .into_iter()
            .map(|(provider, reason)| format!("{provider}: {reason}"));
        Err(InferenceError::Load {
            engine: engine.name(),
            role,
            path,
            reason: reasons.collect::<Vec<_>>().join("; "),
        })
    }

    /// What the network is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where it really runs.
    pub fn provider(&self) -> ExecutionProvider {
        self.provider
    }

    /// Most images that it takes at once, at least 1: above it memory grows and speed does not.
    pub fn largest_batch(&self) -> usize {
        match self.provider {
            _ if self.single => 1,
            ExecutionProvider::Cpu => 2,
            ExecutionProvider::Cuda | ExecutionProvider::TensorRt => 16,
        }
    }

    /// The engine and where it runs, such as `ONNX Runtime 1.24.1, CPU` or `built-in`.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// What goes in.
    pub fn input(&self) -> &NetworkInput {
        &self.input
    }

    /// Values of one image: 3 × height × width.
    pub fn input_len(&self) -> usize {
        3 * self.input.width as usize * self.input.height as usize
    }

    /// Runs a batch of `batch` images, `batch × 3 × height × width` values.
    ///
    /// # Errors
    /// The input has another length, the engine fails, the output has another shape than the manifest
    /// promises, or a value in it is no finite number.
    pub fn run(&mut self, batch: usize, input: &[f32]) -> Result<Output, InferenceError> {
        Ok(self.run_for(batch, input, false)?.0)
    }

    /// [`run`](Self::run), with the embeddings where the network gives them.
    ///
    /// # Errors
    /// As [`run`](Self::run), for either output.
    pub fn run_with_embedding(
        &mut self,
        batch: usize,
        input: &[f32],
    ) -> Result<(Output, Option<Output>), InferenceError> {
        self.run_for(batch, input, true)
    }

    fn run_for(
        &mut self,
        batch: usize,
        input: &[f32],
        embed: bool,
    ) -> Result<(Output, Option<Output>), InferenceError> {
        let expected = batch * self.input_len();
        if input.len() != expected {
            return Err(InferenceError::InputLength {
                role: self.role,
                batch,
                expected,
                found: input.len(),
            });
        }
        let empty = |promised: &Promised| {
            let mut shape = vec![batch];
            shape.extend(&promised.shape);
            let data = Vec::with_capacity(shape.iter().product());
            Output { shape, data }
        };
        let mut output = empty(&self.output);
        let mut embedding = self.embedding.as_ref().filter(|_| embed).map(empty);
        if batch > 0 {
            for part in input.chunks(self.largest_batch() * self.input_len()) {
                let images = part.len() / self.input_len();
                self.run_once(images, part, &mut output, embedding.as_mut())?;
            }
        }
        for output in [&output].into_iter().chain(&embedding) {
            let mut values = output.data.iter().enumerate();
            if let Some((index, &value)) = values.find(|(_, v)| !v.is_finite()) {
                return Err(InferenceError::NotFinite {
                    role: self.role,
                    path: self.path.clone(),
                    engine: self.engine.clone(),
                    value,
                    index,
                });
            }
        }
        Ok((output, embedding))
    }

    fn run_once(
        &mut self,
        batch: usize,
        input: &[f32],
        output: &mut Output,
        embedding: Option<&mut Output>,
    ) -> Result<(), InferenceError> {
        let (role, engine) = (self.role, &self.engine);
        let failed = |e: ort::Error| InferenceError::Run {
            role,
            engine: engine.clone(),
            reason: e.to_string(),
        };
        let (height, width) = (self.input.height as usize, self.input.width as usize);
        let tensor =
            TensorRef::from_array_view(([batch, 3, height, width], input)).map_err(failed)?;
        let outputs = self
            .session
            .run(ort::inputs! { self.input.name.as_str() => tensor })
            .map_err(failed)?;
        let wanted = [(&self.output, output)].into_iter();
        for (promised, output) in wanted.chain(self.embedding.iter().zip(embedding)) {
            let value = outputs
                .get(&promised.name)
                .ok_or_else(|| InferenceError::Run {
                    role,
                    engine: engine.clone(),
                    reason: format!("it gave no output {}", promised.name),
                })?;
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let fits = shape.len() == promised.shape.len() + 1
                && usize::try_from(shape[0]) == Ok(batch)
                && shape[1..]
                    .iter()
                    .zip(&promised.shape)
                    .all(|(&found, &expected)| usize::try_from(found) == Ok(expected));
            if !fits {
                return Err(InferenceError::Contract {
                    role,
                    path: self.path.clone(),
                    what: format!("the shape of output {}", promised.name),
                    found: shape_in_words(shape),
                    expected: promised_in_words(&promised.shape),
                });
            }
            output.data.extend_from_slice(values);
        }
        Ok(())
    }

    /// Compares the loaded network with the manifest; gives whether its batch is fixed at one.
    fn check_contract(&self, declared: &bundle::Network) -> Result<bool, InferenceError> {
        let differs = |what: String, found: String, expected: String| InferenceError::Contract {
            role: self.role,
            path: self.path.clone(),
            what,
            found,
            expected,
        };
        let names = |outlets: &[Outlet]| {
            let names: Vec<_> = outlets.iter().map(Outlet::name).collect();
            if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(", ")
            }
        };
        let inputs = self.session.inputs();
        let [input] = inputs else {
            return Err(differs(
                "its input".to_owned(),
                names(inputs),
                declared.input.name.clone(),
            ));
        };
        if input.name() != declared.input.name {
            return Err(differs(
                "its input".to_owned(),
                names(inputs),
                declared.input.name.clone(),
            ));
        }
        let outputs = self.session.outputs();
        let input_shape = [3, self.input.height as usize, self.input.width as usize];
        let mut outlets = vec![("input", input, input_shape.as_slice())];
        for promised in [&self.output].into_iter().chain(&self.embedding) {
            let Some(output) = outputs.iter().find(|o| o.name() == promised.name) else {
                return Err(differs(
                    "its output".to_owned(),
                    names(outputs),
                    promised.name.clone(),
                ));
            };
            outlets.push(("output", output, promised.shape.as_slice()));
        }
        for (what, outlet, promised) in outlets {
            if outlet.dtype().tensor_type() != Some(TensorElementType::Float32) {
                return Err(differs(
                    format!("the type of {what} {}", outlet.name()),
                    outlet.dtype().to_string(),
                    "a tensor of float32".to_owned(),
                ));
            }
            let shape: &[i64] = outlet.dtype().tensor_shape().map_or(&[], |shape| shape);
            // An engine that does not know an output's shape before it runs gives none; it is then
            // compared when it runs.
            let unknown = what == "output" && shape.is_empty();
            let fits = shape.len() == promised.len() + 1
                && matches!(shape[0], -1..=1)
                && shape[1..]
                    .iter()
                    .zip(promised)
                    .all(|(&found, &expected)| found < 0 || found == expected as i64);
            if !fits && !unknown {
                return Err(differs(
                    format!("the shape of {what} {}", outlet.name()),
                    shape_in_words(shape),
                    promised_in_words(promised),
                ));
            }
        }
        let fixed = |outlet: &Outlet| {
            outlet
                .dtype()
                .tensor_shape()
                .and_then(|s| s.first().copied())
                == Some(1)
        };
        Ok(fixed(input))
    }
}

fn shape_in_words(shape: &[i64]) -> String {
    let sides: Vec<_> = shape
        .iter()
        .map(|&side| {
            if side < 0 {
                "N".to_owned()
            } else {
                side.to_string()
            }
        })
        .collect();
    sides.join(" × ")
}

fn promised_in_words(shape: &[usize]) -> String {
    let sides: Vec<_> = shape.iter().map(usize::to_string).collect();
    format!("N × {}", sides.join(" × "))
}

fn providers(engine: &Engine) -> &[ExecutionProvider] {
    if engine.is_builtin() {
        &[ExecutionProvider::Cpu]
    } else {
        &engine.config().providers
    }
}

fn session(
    engine: &Engine,
    provider: ExecutionProvider,
    bytes: &[u8],
) -> Result<Session, ort::Error> {
    let builder = Session::builder(engine.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?;
    if engine.is_builtin() {
        // It has neither threads nor providers to configure, and refuses to be asked.
        let mut builder = builder;
        return builder.commit_from_memory(bytes);
    }
    let config = engine.config();
    let builder = builder
        .with_intra_threads((config.threads / config.at_once).max(1))?
        .with_inter_threads(1)?
        // One plan of memory for each size of batch, kept for good, takes a tenth more of it and no less time.
        .with_memory_pattern(false)?
        // A core that spins while it waits for the next frame heats a box without a fan.
        .with_intra_op_spinning(false)?;
    let mut builder: SessionBuilder = match provider {
        ExecutionProvider::Cpu => builder,
        ExecutionProvider::Cuda => builder
            .with_disable_cpu_fallback()?
            .with_execution_providers([ep::CUDA::default().build().error_on_failure()])?,
        ExecutionProvider::TensorRt => {
            let mut tensorrt = ep::TensorRT::default();
            if let Some(cache) = &config.tensorrt_cache {
                let folder = cache.display().to_string();
                tensorrt = tensorrt
                    .with_engine_cache(true)
                    .with_engine_cache_path(&folder)
                    .with_timing_cache(true)
                    .with_timing_cache_path(&folder);
            }
            // What TensorRT cannot take may go to CUDA, which is there wherever TensorRT is.
            builder
                .with_disable_cpu_fallback()?
                .with_execution_providers([
                    tensorrt.build().error_on_failure(),
                    ep::CUDA::default().build().error_on_failure(),
                ])?
        }
    };
    builder.commit_from_memory(bytes)
}
