//! AdamW on the parameters of candle and burn, by gradus through its adapters and by the frameworks' own.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use candle_core::Var;
use candle_core::backprop::GradStore;
use gradus::AdamW;
use gradus_candle::Vars;

use crate::rust::{self, EIGHT};
use crate::{LEARNING_RATE, Peer, Problem, ROUNDS, WEIGHT_DECAY, check, medians, wave};

/// 2^22 parameters.
const PROBLEM: Problem = Problem { count: 50, length: (1 << 22) / 50, clip: 0.0 };

pub(crate) fn table() {
    let mut peers: Vec<(&str, Box<dyn Peer>)> = vec![
        ("gradus, arrays", Box::new(rust::Gradus::new(PROBLEM))),
        ("gradus in candle", Box::new(InCandle::new(PROBLEM))),
        ("candle-nn", Box::new(rust::Candle::new(PROBLEM))),
        ("gradus in burn", Box::new(InBurn::new(PROBLEM))),
        ("burn", Box::new(rust::Burn::new(PROBLEM))),
    ];
    check(&mut peers, PROBLEM);
    let times = medians(&mut peers);
    println!("| AdamW, {} × {} | ms | × arrays |\n|---|---|---|", PROBLEM.count, PROBLEM.length);
    for ((name, _), time) in peers.iter().zip(&times) {
        println!("| {name} | {:.3} | {:.2} |", 1e3 * time, time / times[0]);
    }
    println!(
        "\nThe framework's own takes {:.1} times as long as gradus in candle, {:.1} in burn ({ROUNDS} rounds).",
        times[2] / times[1],
        times[4] / times[3]
    );
}

struct InCandle {
    opt: AdamW<f32>,
    vars: Vars<f32>,
    grads: GradStore,
}

impl InCandle {
    fn new(problem: Problem) -> Self {
        let (vars, grads) = rust::candle_variables(problem);
        let named = vars.into_iter().enumerate().map(|(index, var): (usize, Var)| (format!("w{index}"), var));
        let opt = AdamW::new(LEARNING_RATE).weight_decay(WEIGHT_DECAY);
        Self { opt, vars: Vars::named(named).expect("variables"), grads }
    }
}

impl Peer for InCandle {
    fn step(&mut self) {
        self.vars.step(&mut self.opt, &self.grads).expect("a step");
    }

    fn values(&mut self) -> Vec<f32> {
        let first = self.vars.iter().next().map(|(_, var)| var.to_vec1::<f32>().expect("values"));
        first.unwrap_or_default().into_iter().take(EIGHT).collect()
    }
}

#[derive(Module, Debug)]
struct Tensors {
    all: Vec<Param<Tensor<1>>>,
}

struct InBurn {
    opt: AdamW<f32>,
    module: Tensors,
    grads: Vec<Tensor<1>>,
}

impl InBurn {
    fn new(problem: Problem) -> Self {
        let device = Device::default().autodiff();
        let tensor = |phase: f32, device: &Device| {
            Tensor::<1>::from_data(TensorData::new(wave(problem.length, phase), [problem.length]), device)
        };
        let all = (0..problem.count).map(|_| Param::from_tensor(tensor(0.0, &device))).collect();
        let grads = (0..problem.count).map(|_| tensor(1.0, &Device::default())).collect();
        let opt = AdamW::new(LEARNING_RATE).weight_decay(WEIGHT_DECAY);
        Self { opt, module: Tensors { all }, grads }
    }
}

impl Peer for InBurn {
    fn step(&mut self) {
        let mut grads = GradientsParams::new();
        for (param, grad) in self.module.all.iter().zip(&self.grads) {
            grads.register(param.id, grad.clone());
        }
        gradus_burn::step(&mut self.opt, &mut self.module, grads).expect("a step");
    }

    fn values(&mut self) -> Vec<f32> {
        let values = self.module.all[0].val().into_data().try_to_vec::<f32>().expect("values");
        values.into_iter().take(EIGHT).collect()
    }
}
