//! Settings in a configuration file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::adaptor::NonFinite;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::combinators::{Times, Warmup};
use gradus::schedule::{
    Cosine, CosineRestarts, Cyclic, Exponential, InverseSqrt, Linear, MultiStep, Noam, OneCycle, PiecewiseConstant,
    PiecewiseCosine, PiecewiseLinear, Plateau, PlateauState, Polynomial, Schedule, Step, WarmupStableDecay,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

fn copy<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

fn same_values<S: Schedule + Serialize + DeserializeOwned>(schedule: S) {
    let read = copy(&schedule);
    (0..200).for_each(|step| assert_eq!(read.at(step).to_bits(), schedule.at(step).to_bits(), "step {step}"));
}

#[test]
fn every_schedule_comes_back() {
    same_values(Cosine::new(0.1, 100).floor(0.01));
    same_values(CosineRestarts::new(0.1, 30));
    same_values(Cyclic::new(0.01, 0.1, 20));
    same_values(Exponential::new(0.1, 0.97));
    same_values(InverseSqrt::new(0.1, 10));
    same_values(Linear::new(0.1, 0.0, 100));
    same_values(MultiStep::new(0.1, [30, 60], 0.1));
    same_values(Noam::new(512, 40));
    same_values(OneCycle::new(0.1, 100));
    same_values(PiecewiseConstant::new(0.1, [(10, 0.2), (50, 0.05)]));
    same_values(PiecewiseLinear::new(0.1, [(10, 0.2), (50, 0.05)]));
    same_values(PiecewiseCosine::new(0.1, [(10, 0.2), (50, 0.05)]));
    same_values(Polynomial::new(0.1, 100).power(2.0));
    same_values(Step::new(0.1, 30, 0.5));
    same_values(WarmupStableDecay::new(0.1, 10, 50, 100));
    same_values(Cosine::new(0.1, 50).warmup(10).then(70, 0.01).scale(2.0).times(Linear::new(1.0, 0.5, 90)));
    same_values(Linear::new(0.1, 0.0, 10).delay(3).cycle(20).per_epoch(2).clamp(0.01, 0.08));
}

/// The options of a plateau are settings; what it has seen is state.
#[test]
fn a_plateau_comes_back_as_it_was_set() {
    let plateau = Plateau::new(0.5).patience(0).factor(0.1).absolute_threshold(0.0);
    plateau.observe(1.0);
    let read = copy(&plateau);
    assert_eq!(read.at(0), 0.5);
    assert!(!read.observe(1.0) && read.observe(1.0));
    assert_eq!(read.at(0), 0.05);
    let state = PlateauState { value: 0.1, best: 2.0, bad: 1, pause: 3 };
    assert_eq!(copy(&state), state);
}

#[derive(Serialize, Deserialize)]
struct Config {
    learning_rate: Warmup<Cosine>,
    weight_decay: f64,
    beta1: Times<f64, Linear>,
    state: StatePrecision,
    non_finite: NonFinite,
}

#[test]
fn a_configuration_makes_an_optimizer() {
    let config = Config {
        learning_rate: Cosine::new(0.1, 10).warmup(5),
        weight_decay: 0.01,
        beta1: 0.9.times(Linear::new(1.0, 0.9, 10)),
        state: StatePrecision::Bf16(Rounding::Nearest),
        non_finite: NonFinite::Skip,
    };
    let Config { learning_rate, weight_decay, beta1, state, non_finite } = copy(&config);
    assert_eq!((state, non_finite), (config.state, config.non_finite));
    let mut opt = AdamW::new(learning_rate).weight_decay(weight_decay).beta1(beta1).state_precision(state);
    let mut w = ndarray::array![1.0_f32];
    (0..3).for_each(|_| _ = opt.step(&mut w, &ndarray::array![0.5]).unwrap());
    assert_eq!(opt.learning_rate(), config.learning_rate.at(3));
}
