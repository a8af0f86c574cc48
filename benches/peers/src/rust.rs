//! The Rust libraries.

use std::collections::HashMap;

use burn::optim::{AdamWConfig, Optimizer as _};
use burn::tensor::{Device, Tensor, TensorData};
use candle_core::backprop::GradStore;
use candle_core::{DType, Var};
use candle_nn::{Optimizer as _, ParamsAdamW};
use gradus::prelude::*;
use ndarray::{Array1, Zip};
use rlx_optim::{OptItem, Optimizer as _};

use crate::{LEARNING_RATE, Peer, Problem, WEIGHT_DECAY, wave};

/// In the order of the table; gradus first.
pub(crate) const NAMES: [&str; 7] =
    ["gradus", "Zip loop", "candle-nn", "burn (flex)", "rlx-optim f32", "rlx-optim f64", "optirs-core"];

/// Which of them are libraries other than gradus.
pub(crate) const LIBRARIES: std::ops::Range<usize> = 2..NAMES.len();

/// What cargo built, as `candle-nn 0.11.1`.
pub(crate) fn versions() -> Vec<String> {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap_or_default();
    let version = |name: &str| {
        let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", package.split('"').next()?))
    };
    ["candle-nn", "burn", "rlx-optim", "optirs-core"].into_iter().filter_map(version).collect()
}

/// The numbers of the libraries that can do the problem; none but gradus clips by the global norm out of the box.
pub(crate) fn able(problem: Problem) -> impl Iterator<Item = usize> {
    if problem.clip > 0.0 { 0..1 } else { 0..NAMES.len() }
}

/// A library by its number in [`NAMES`].
pub(crate) fn peer(number: usize, problem: Problem) -> Box<dyn Peer> {
    match number {
        0 => Box::new(Gradus::new(problem)),
        1 => Box::new(Loop::new(problem)),
        2 => Box::new(Candle::new(problem)),
        3 => Box::new(Burn::new(problem)),
        4 => Box::new(Rlx::new(problem, true)),
        5 => Box::new(Rlx::new(problem, false)),
        _ => Box::new(Optirs::new(problem)),
    }
}

fn arrays(problem: Problem, phase: f32) -> Vec<Array1<f32>> {
    (0..problem.count).map(|_| wave(problem.length, phase).into()).collect()
}

pub(crate) const EIGHT: usize = 8;

pub(crate) struct Gradus {
    opt: Box<dyn Optimizer<f32>>,
    params: Vec<Array1<f32>>,
    grads: Vec<Array1<f32>>,
}

impl Gradus {
    pub(crate) fn new(problem: Problem) -> Self {
        let opt = AdamW::new(LEARNING_RATE).weight_decay(WEIGHT_DECAY);
        let opt: Box<dyn Optimizer<f32>> =
            if problem.clip > 0.0 { Box::new(opt.clip_global_norm(problem.clip)) } else { Box::new(opt) };
        Self { opt, params: arrays(problem, 0.0), grads: arrays(problem, 1.0) }
    }
}

impl Peer for Gradus {
    fn step(&mut self) {
        self.opt.step(&mut self.params, &self.grads).expect("a step");
    }

    fn values(&mut self) -> Vec<f32> {
        self.params[0].iter().take(EIGHT).copied().collect()
    }
}

/// What one writes by hand today.
struct Loop {
    params: Vec<Array1<f32>>,
    grads: Vec<Array1<f32>>,
    moments: [Vec<Array1<f32>>; 2],
    step: i32,
}

impl Loop {
    fn new(problem: Problem) -> Self {
        let zeros = || (0..problem.count).map(|_| Array1::zeros(problem.length)).collect();
        Self { params: arrays(problem, 0.0), grads: arrays(problem, 1.0), moments: [zeros(), zeros()], step: 0 }
    }
}

impl Peer for Loop {
    fn step(&mut self) {
        self.step += 1;
        let (first, second) = (1.0 - 0.9_f32.powi(self.step), 1.0 - 0.999_f32.powi(self.step));
        let (lr, decay) = (LEARNING_RATE as f32, WEIGHT_DECAY as f32);
        let [m, v] = &mut self.moments;
        for (((p, g), m), v) in self.params.iter_mut().zip(&self.grads).zip(m).zip(v) {
            Zip::from(p).and(g).and(m).and(v).for_each(|p, &g, m, v| {
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                *p = *p * (1.0 - lr * decay) - lr * (*m / first) / ((*v / second).sqrt() + 1e-8);
            });
        }
    }

    fn values(&mut self) -> Vec<f32> {
        self.params[0].iter().take(EIGHT).copied().collect()
    }
}

/// Variables of candle, and a backward pass over them.
pub(crate) fn candle_variables(problem: Problem) -> (Vec<Var>, GradStore) {
    let device = candle_core::Device::Cpu;
    let tensor = |phase: f32| {
        candle_core::Tensor::from_vec(wave(problem.length, phase), problem.length, &device).expect("a tensor")
    };
    let vars: Vec<Var> = (0..problem.count).map(|_| Var::from_tensor(&tensor(0.0)).expect("a variable")).collect();
    // The gradient of Σ w·g is g: the store comes from candle itself.
    let sum = vars
        .iter()
        .map(|var| (var.as_tensor() * tensor(1.0)).and_then(|product| product.sum_all()).expect("a product"));
    let loss = sum
        .reduce(|a, b| (a + b).expect("a sum"))
        .unwrap_or_else(|| candle_core::Tensor::zeros((), DType::F32, &device).expect("a zero"));
    (vars, loss.backward().expect("a backward pass"))
}

pub(crate) struct Candle {
    opt: candle_nn::AdamW,
    vars: Vec<Var>,
    grads: GradStore,
}

impl Candle {
    pub(crate) fn new(problem: Problem) -> Self {
        let (vars, grads) = candle_variables(problem);
        let params = ParamsAdamW { lr: LEARNING_RATE, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: WEIGHT_DECAY };
        Self { opt: candle_nn::AdamW::new(vars.clone(), params).expect("an optimizer"), vars, grads }
    }
}

impl Peer for Candle {
    fn step(&mut self) {
        self.opt.step(&self.grads).expect("a step");
    }

    fn values(&mut self) -> Vec<f32> {
        let values = self.vars[0].as_tensor().to_vec1::<f32>().expect("values");
        values.into_iter().take(EIGHT).collect()
    }
}

pub(crate) struct Burn {
    opt: burn::optim::AdamW,
    params: Vec<Option<Tensor<1>>>,
    grads: Vec<Tensor<1>>,
    states: Vec<Option<burn::optim::AdamWState<1>>>,
}

impl Burn {
    pub(crate) fn new(problem: Problem) -> Self {
        let device = Device::default();
        let tensor = |phase: f32| {
            Tensor::<1>::from_data(TensorData::new(wave(problem.length, phase), [problem.length]), &device)
        };
        // burn's own defaults for ε and weight decay are 1e-5 and 1e-4.
        let config = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(WEIGHT_DECAY as f32);
        Self {
            opt: config.build(),
            params: (0..problem.count).map(|_| Some(tensor(0.0))).collect(),
            grads: (0..problem.count).map(|_| tensor(1.0)).collect(),
            states: vec![None; problem.count],
        }
    }
}

impl Peer for Burn {
    fn step(&mut self) {
        for ((param, grad), state) in self.params.iter_mut().zip(&self.grads).zip(&mut self.states) {
            if let Some(old) = param.take() {
                let (new, new_state) = self.opt.step(LEARNING_RATE, old, grad.clone(), state.take());
                (*param, *state) = (Some(new), new_state);
            }
        }
    }

    fn values(&mut self) -> Vec<f32> {
        let values = self.params[0].clone().map(|param| param.into_data().try_to_vec::<f32>().expect("values"));
        values.unwrap_or_default().into_iter().take(EIGHT).collect()
    }
}

struct Rlx {
    opt: rlx_optim::AdamW,
    names: Vec<String>,
    params: HashMap<String, Vec<f32>>,
    grads: Vec<Vec<f32>>,
    shape: [usize; 1],
}

impl Rlx {
    fn new(problem: Problem, f32_math: bool) -> Self {
        let names: Vec<String> = (0..problem.count).map(|i| format!("w{i}")).collect();
        Self {
            opt: rlx_optim::AdamW::new(LEARNING_RATE as f32)
                .with_weight_decay(WEIGHT_DECAY as f32)
                .with_f32_math(f32_math),
            params: names.iter().map(|name| (name.clone(), wave(problem.length, 0.0))).collect(),
            names,
            grads: (0..problem.count).map(|_| wave(problem.length, 1.0)).collect(),
            shape: [problem.length],
        }
    }
}

impl Peer for Rlx {
    fn step(&mut self) {
        for (name, grad) in self.names.iter().zip(&self.grads) {
            if let Some(param) = self.params.get_mut(name) {
                self.opt.step_batch(&mut [OptItem { name, shape: &self.shape, param, grad }]);
            }
        }
        self.opt.end_iteration();
    }

    fn values(&mut self) -> Vec<f32> {
        self.params[&self.names[0]].iter().take(EIGHT).copied().collect()
    }
}

struct Optirs {
    opt: optirs_core::optimizers::AdamW<f32>,
    params: Vec<scirs2_core::ndarray::Array1<f32>>,
    grads: Vec<scirs2_core::ndarray::Array1<f32>>,
}

impl Optirs {
    fn new(problem: Problem) -> Self {
        let arrays = |phase: f32| (0..problem.count).map(|_| wave(problem.length, phase).into()).collect();
        let opt = optirs_core::optimizers::AdamW::new_with_config(
            LEARNING_RATE as f32,
            0.9,
            0.999,
            1e-8,
            WEIGHT_DECAY as f32,
        );
        Self { opt, params: arrays(0.0), grads: arrays(1.0) }
    }
}

impl Peer for Optirs {
    fn step(&mut self) {
        for (index, (param, grad)) in self.params.iter_mut().zip(&self.grads).enumerate() {
            self.opt.step_inplace_indexed(index, param, grad).expect("a step");
        }
    }

    fn values(&mut self) -> Vec<f32> {
        self.params[0].iter().take(EIGHT).copied().collect()
    }
}
