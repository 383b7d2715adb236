use super::{Engine, InferenceError, Network};
use crate::bundle::{Bundle, BundleError, Role};

/// What a self-test found.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTestOutcome {
    /// The network.
    pub role: Role,
    /// Whether its embedding was tested, not its logits.
    pub embedding: bool,
    /// The engine and where it ran.
    pub engine: String,
    /// Largest absolute difference between what came out and what must come out.
    pub difference: f32,
    /// Largest difference allowed.
    pub tolerance: f32,
}

impl SelfTestOutcome {
    /// Whether the network gave what it must, on this machine.
    pub fn passed(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// Why a self-test could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// Its vectors cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The network cannot be loaded or run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

/// Loads every network of the bundle and runs its self-tests, in the manifest's order. A network
/// without a self-test is loaded too.
///
/// # Errors
/// A network cannot be loaded or run. A difference above the tolerance is no error here but an outcome
/// that has not [passed](SelfTestOutcome::passed).
pub fn run_self_tests(
    engine: &Engine,
    bundle: &Bundle,
) -> Result<Vec<SelfTestOutcome>, SelfTestError> {
    let tests = bundle.self_tests()?;
    let mut outcomes = Vec::with_capacity(tests.len());
    for role in Role::ALL {
        if bundle.manifest().network(role).is_none() {
            continue;
        }
        let mut network = Network::load(engine, bundle, role)?;
        for (i, test) in tests.iter().enumerate().filter(|(_, t)| t.role == role) {
            let (output, embedding) = network.run_with_embedding(1, &test.input)?;
            let tested = embedding.filter(|_| test.embedding).unwrap_or(output);
            let difference = tested
                .data
                .iter()
                .zip(&test.output)
                .map(|(found, expected)| {
                    let difference = (found - expected).abs();
                    // A NaN among the expected values must not vanish in the maximum.
                    if difference.is_nan() {
                        f32::INFINITY
                    } else {
                        difference
                    }
                })
                .fold(0.0, f32::max);
            outcomes.push((
                i,
                SelfTestOutcome {
                    role,
                    embedding: test.embedding,
                    engine: network.engine().to_owned(),
                    difference,
                    tolerance: test.tolerance,
                },
            ));
        }
    }
    outcomes.sort_by_key(|(i, _)| *i);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
