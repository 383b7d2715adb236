//! AdamW with its state in the open.
//!
//! `tch`'s own optimisers keep their moments inside libtorch, where they cannot be read or written, so a
//! run that resumed with one would not go on as it was. The update is that of Loshchilov & Hutter 2019,
//! "Decoupled weight decay regularization", with β = (0.9, 0.999).

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::network::Network;

const BETA: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// First and second moments of the gradients of a network's trainable parameters.
pub struct AdamW {
    moments: BTreeMap<String, (Tensor, Tensor)>,
    weight_decay: f64,
    /// Beginning of names, and the factor of the learning rate for them.
    slower: Option<(&'static str, f64)>,
}

impl AdamW {
    /// Zero moments for `network`. `weight_decay` acts on weights with two or more axes, not on biases
    /// and normalisation.
    pub fn new(network: &Network, weight_decay: f64) -> Self {
        let trainable = network
            .parameters()
            .iter()
            .filter(|(_, p)| p.requires_grad());
        let moments = trainable
            .map(|(name, p)| (name.clone(), (p.zeros_like(), p.zeros_like())))
            .map(|(name, (m, v))| (name, (m.detach(), v.detach())))
            .collect();
        Self {
            moments,
            weight_decay,
            slower: None,
        }
    }

    /// Multiplies the learning rate by `factor` for parameters whose names begin with `prefix`.
    pub fn with_factor(mut self, prefix: &'static str, factor: f64) -> Self {
        self.slower = Some((prefix, factor));
        self
    }

    /// Updates the parameters from their gradients, which are then cleared. `step` counts from 1.
    pub fn step(&mut self, network: &Network, learning_rate: f64, step: u64) {
        let correction = (
            1.0 - BETA.0.powf(step as f64),
            1.0 - BETA.1.powf(step as f64),
        );
        tch::no_grad(|| {
            for (name, (m, v)) in &mut self.moments {
                let mut parameter = network.parameter(name).shallow_clone();
                let mut gradient = parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                let factor = match self.slower {
                    Some((prefix, factor)) if name.starts_with(prefix) => factor,
                    _ => 1.0,
                };
                let learning_rate = learning_rate * factor;
                let _ = m
                    .g_mul_scalar_(BETA.0)
                    .g_add_(&(&gradient * (1.0 - BETA.0)));
                let _ = v
                    .g_mul_scalar_(BETA.1)
                    .g_add_(&(&gradient * &gradient * (1.0 - BETA.1)));
                let denominator = (&*v / correction.1).sqrt() + EPS;
                let update = &*m / denominator * (learning_rate / correction.0);
                if parameter.dim() > 1 {
                    let _ = parameter.g_mul_scalar_(1.0 - learning_rate * self.weight_decay);
                }
                let _ = parameter.g_sub_(&update);
                let _ = gradient.zero_();
            }
        });
    }

    /// The moments by name, for a checkpoint.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let each = self.moments.iter().flat_map(|(name, (m, v))| {
            [
                (format!("first.{name}"), m.shallow_clone()),
                (format!("second.{name}"), v.shallow_clone()),
            ]
        });
        each.collect()
    }

    /// Takes over moments written by [`state`](Self::state). `Err` names one that is missing.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), String> {
        tch::no_grad(|| {
            for (name, (m, v)) in &mut self.moments {
                for (kind, moment) in [("first", m), ("second", v)] {
                    let key = format!("{kind}.{name}");
                    let saved = state.get(&key).ok_or_else(|| key.clone())?;
                    if saved.size() != moment.size() || saved.kind() != Kind::Float {
                        return Err(key);
                    }
                    moment.copy_(saved);
                }
            }
            Ok(())
        })
    }
}

/// One-cycle learning rate (Smith 2018): linear rise to `peak` over the share `warm_up` of the steps,
/// then a cosine fall to zero.
pub fn one_cycle(step: u64, steps: u64, peak: f64, warm_up: f64) -> f64 {
    let at = (step as f64 + 0.5) / steps as f64;
    if at < warm_up {
        peak * at / warm_up
    } else {
        let fall = (at - warm_up) / (1.0 - warm_up);
        peak * 0.5 * (1.0 + (std::f64::consts::PI * fall).cos())
    }
}
