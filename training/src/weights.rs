//! The parameters of a network as plain numbers, under the names of [`Graph::parameters`].

use std::collections::BTreeMap;

use tch::{Device, Kind};

use crate::graph::Graph;
use crate::network::Network;

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

/// Why parameters cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum ParameterError {
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
    pub fn new(graph: &Graph, tensors: BTreeMap<String, Tensor>) -> Result<Self, ParameterError> {
        let wanted = graph.parameters();
        for parameter in &wanted {
            let name = parameter.name.clone();
            let Some(tensor) = tensors.get(&name) else {
                return Err(ParameterError::Missing { name });
            };
            let size: i64 = parameter.shape.iter().product();
            if tensor.shape != parameter.shape || tensor.values.len() as i64 != size {
                return Err(ParameterError::Shape {
                    name,
                    found: tensor.shape.clone(),
                    wanted: parameter.shape.clone(),
                });
            }
            if let Some(position) = tensor.values.iter().position(|v| !v.is_finite()) {
                let value = tensor.values[position];
                return Err(ParameterError::NotFinite {
                    name,
                    value,
                    position,
                });
            }
            let variance = name.ends_with(".running_var");
            if variance && let Some(position) = tensor.values.iter().position(|&v| v < 0.0) {
                let value = tensor.values[position];
                return Err(ParameterError::NegativeVariance {
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
            return Err(ParameterError::Surplus { name });
        }
        Ok(Self(tensors))
    }

    /// The parameters of a libtorch module, as they are now.
    pub fn of(network: &Network) -> Result<Self, ParameterError> {
        let tensors = network.parameters().iter().map(|(name, tensor)| {
            let flat = tensor
                .detach()
                .to_device(Device::Cpu)
                .to_kind(Kind::Float)
                .contiguous()
                .view([-1]);
            // A one-dimensional float32 tensor always converts.
            let values = Vec::<f32>::try_from(&flat).expect("a flat float32 tensor");
            let shape = tensor.size();
            (name.clone(), Tensor { shape, values })
        });
        Self::new(network.graph(), tensors.collect())
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
                normalise: true,
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
        refused(
            &set("l1_1.weight", 7, f32::NAN),
            &["l1_1.weight", "NaN", "7"],
        );
        refused(
            &set("l3_linear.bias", 1, f32::INFINITY),
            &["l3_linear.bias", "inf"],
        );
        refused(
            &set("l1_1_norm.running_var", 1, -1.0),
            &["running_var", "negative"],
        );
        refused(
            &|t| drop(t.remove("l3_linear.weight")),
            &["l3_linear.weight", "missing"],
        );
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
}
