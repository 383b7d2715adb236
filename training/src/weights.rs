//! The parameters of a network, as a run folder stores them: safetensors files, `float32`, under the
//! names of [`Graph::parameters`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::graph::Graph;

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Length of each axis.
    pub shape: Vec<i64>,
    /// Values, the last axis running fastest.
    pub values: Vec<f32>,
}

/// The parameters of one network, each there, of the declared shape and finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights(BTreeMap<String, Tensor>);

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WeightsError {
    #[error("cannot read weights {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("weights {path} are no safetensors file: {source}")]
    Format {
        path: PathBuf,
        source: safetensors::SafeTensorError,
    },
    #[error("weights {path}: {source}")]
    Content {
        path: PathBuf,
        source: Box<WeightsError>,
    },
    #[error("parameter {name} is of type {dtype}; float32 is needed")]
    Type { name: String, dtype: String },
    #[error("parameter {name} is missing; do the weights belong to this recipe?")]
    Missing { name: String },
    #[error("parameter {name} is not in the network; do the weights belong to this recipe?")]
    Surplus { name: String },
    #[error("parameter {name} is {found:?}, the network needs {wanted:?}")]
    Shape {
        name: String,
        found: Vec<i64>,
        wanted: Vec<i64>,
    },
    #[error(
        "parameter {name} holds {value} at position {position}: the training diverged; take an \
         earlier checkpoint"
    )]
    NotFinite {
        name: String,
        value: f32,
        position: usize,
    },
    #[error("parameter {name} holds a negative variance {value} at position {position}")]
    NegativeVariance {
        name: String,
        value: f32,
        position: usize,
    },
}

impl Weights {
    /// Checks that `tensors` are just the parameters of `graph`, all finite.
    pub fn new(graph: &Graph, tensors: BTreeMap<String, Tensor>) -> Result<Self, WeightsError> {
        let wanted = graph.parameters();
        for parameter in &wanted {
            let name = parameter.name.clone();
            let Some(tensor) = tensors.get(&name) else {
                return Err(WeightsError::Missing { name });
            };
            let size: i64 = parameter.shape.iter().product();
            if tensor.shape != parameter.shape || tensor.values.len() as i64 != size {
                return Err(WeightsError::Shape {
                    name,
                    found: tensor.shape.clone(),
                    wanted: parameter.shape.clone(),
                });
            }
            if let Some(position) = tensor.values.iter().position(|v| !v.is_finite()) {
                let value = tensor.values[position];
                return Err(WeightsError::NotFinite {
                    name,
                    value,
                    position,
                });
            }
            let variance = name.ends_with(".running_var");
            if variance && let Some(position) = tensor.values.iter().position(|&v| v < 0.0) {
                let value = tensor.values[position];
                return Err(WeightsError::NegativeVariance {
                    name,
                    value,
                    position,
                });
            }
        }
        let surplus = tensors
            .keys()
            .find(|name| wanted.iter().all(|p| p.name != **name));
        if let Some(name) = surplus {
            let name = name.clone();
            return Err(WeightsError::Surplus { name });
        }
        Ok(Self(tensors))
    }

    /// Reads a safetensors file and checks it against `graph`.
    pub fn load(path: &Path, graph: &Graph) -> Result<Self, WeightsError> {
        let bytes = std::fs::read(path).map_err(|source| WeightsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file = SafeTensors::deserialize(&bytes).map_err(|source| WeightsError::Format {
            path: path.to_owned(),
            source,
        })?;
        let content = |source| WeightsError::Content {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let tensor = tensor(&name, &view).map_err(content)?;
            tensors.insert(name, tensor);
        }
        Self::new(graph, tensors).map_err(content)
    }

    /// Writes a safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, t)| {
                let shape = t.shape.iter().map(|&d| d as usize).collect();
                let bytes = t.values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (name.as_str(), shape, bytes)
            })
            .collect();
        let format = |source| WeightsError::Format {
            path: path.to_owned(),
            source,
        };
        let views: Result<Vec<_>, _> = bytes
            .iter()
            .map(|(name, shape, bytes)| {
                TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (*name, view))
            })
            .collect();
        let file =
            safetensors::serialize(views.map_err(format)?, &None).map_err(format)?;
        std::fs::write(path, file).map_err(|source| WeightsError::Read {
            path: path.to_owned(),
            source,
        })
    }

    /// A parameter by its name.
    ///
    /// # Panics
    /// Where the network has none of this name.
    pub fn get(&self, name: &str) -> &Tensor {
        &self.0[name]
    }

    /// All parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

fn tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor, WeightsError> {
    if view.dtype() != Dtype::F32 {
        return Err(WeightsError::Type {
            name: name.to_owned(),
            dtype: format!("{:?}", view.dtype()),
        });
    }
    let values = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    Ok(Tensor {
        shape: view.shape().iter().map(|&d| d as i64).collect(),
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Layer;

    fn graph() -> Graph {
        let layers = [
            Layer::Conv {
                channels: 2,
                kernel: 3,
                stride: 1,
                repeat: 1,
                plain: false,
                name: None,
            },
            Layer::GlobalAveragePool {},
            Layer::Linear { outputs: None },
        ];
        Graph::build(&layers, 6, 4, 0.3, 3).unwrap()
    }

    fn tensors(graph: &Graph) -> BTreeMap<String, Tensor> {
        let tensor = |shape: Vec<i64>| {
            let size = shape.iter().product::<i64>();
            let values = (0..size).map(|i| i as f32 * 0.1).collect();
            Tensor { shape, values }
        };
        let parameters = graph.parameters();
        parameters
            .into_iter()
            .map(|p| (p.name, tensor(p.shape)))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (graph, folder) = (graph(), tempfile::tempdir().unwrap());
        let weights = Weights::new(&graph, tensors(&graph)).unwrap();
        let path = folder.path().join("best.safetensors");
        weights.save(&path).unwrap();
        assert_eq!(Weights::load(&path, &graph).unwrap(), weights);
    }

    #[test]
    fn unusable_weights_are_refused_by_name() {
        let graph = graph();
        let good = tensors(&graph);
        let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), words: &[&str]| {
            let mut tensors = good.clone();
            change(&mut tensors);
            let error = Weights::new(&graph, tensors).unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        };
        let set = |name: &'static str, position: usize, value: f32| {
            move |t: &mut BTreeMap<String, Tensor>| {
                t.get_mut(name).unwrap().values[position] = value;
            }
        };
        refused(&set("l1_1.weight", 7, f32::NAN), &["l1_1.weight", "NaN", "7"]);
        refused(&set("l3_linear.bias", 1, f32::INFINITY), &["l3_linear.bias", "inf"]);
        refused(
            &set("l1_1_norm.running_var", 1, -1.0),
            &["running_var", "negative"],
        );
        refused(&|t| drop(t.remove("l3_linear.weight")), &["l3_linear.weight", "missing"]);
        refused(
            &|t| t.get_mut("l1_1.weight").unwrap().shape.reverse(),
            &["l1_1.weight", "[3, 3, 3, 2]"],
        );
        refused(
            &|t| {
                let tensor = t["l3_linear.bias"].clone();
                t.insert("l9.bias".into(), tensor);
            },
            &["l9.bias", "not in the network"],
        );
    }

    #[test]
    fn a_file_that_is_no_safetensors_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best.safetensors");
        std::fs::write(&path, b"not a tensor").unwrap();
        let error = Weights::load(&path, &graph()).unwrap_err().to_string();
        assert!(error.contains("best.safetensors"), "{error}");
        let error = Weights::load(&folder.path().join("none"), &graph()).unwrap_err();
        assert!(matches!(error, WeightsError::Read { .. }));
    }
}
