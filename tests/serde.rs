//! Settings in a configuration file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use gradus::adaptor::NonFinite;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::combinators::{Times, Warmup};
use gradus::schedule::{
    Anneal, Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, PlateauState, Polynomial, Rex, Step,
    WarmupStableDecay,
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
    same_values(Cosine::new(0.1, 100).exponent(2.0).waves(1.5).cycles(3));
    same_values(CosineRestarts::new(0.1, 30).factor(2).floor(0.01));
    same_values(Cyclic::new(0.01, 0.1, 20).down(7).triangular2());
    same_values(Cyclic::new(0.01, 0.1, 20).exp_range(0.99));
    same_values(OneCycle::new(0.1, 100).three_phase().anneal(Anneal::Linear).pct_start(0.2).div_factor(5.0));
    same_values(WarmupStableDecay::new(0.1, 10, 50, 100).start(0.02).floor(0.01).anneal(Anneal::OneMinusSqrt));
    same_values(Cyclic::new(0.01, 0.1, 20));
    same_values(Exponential::new(0.1, 0.97));
    same_values(HalfLife::new(0.9, 0.9999, 10));
    same_values(InverseSqrt::new(0.1, 10));
    same_values(Linear::new(0.1, 0.0, 100));
    same_values(MultiStep::new(0.1, [30, 60], 0.1));
    same_values(Noam::new(512, 40));
    same_values(OneCycle::new(0.1, 100));
    same_values(PiecewiseConstant::new(0.1, [(10, 0.2), (50, 0.05)]));
    same_values(PiecewiseLinear::new(0.1, [(10, 0.2), (50, 0.05)]));
    same_values(PiecewiseCosine::new(0.1, [(10, 0.2), (50, 0.05)]));
    same_values(Polynomial::new(0.1, 100).power(2.0));
    same_values(Rex::new(0.1, 100));
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

/// JSON has no number for infinity, and a limit may have none.
#[test]
fn infinities_come_back() {
    const INF: f64 = f64::INFINITY;
    same_values(Exponential::new(0.1, 1.1).clamp(-INF, INF));
    same_values(1.0.then(100, INF));
    same_values(INF.then(100, 1.0).times(INF));
    same_values(Linear::new(1.0, -INF, 0));
    same_values(PiecewiseConstant::new(INF, [(10, -INF), (50, 0.05)]));
    for best in [INF, -INF, 0.5] {
        let state = PlateauState { value: 0.1, best, bad: 1, pause: 3 };
        assert_eq!(copy(&state), state);
    }
    let fresh = Plateau::new(0.1).state();
    assert_eq!(copy(&fresh), fresh);
}

/// What reading this text as a schedule says.
fn refusal<T: DeserializeOwned>(text: &str) -> String {
    match serde_json::from_str::<T>(text) {
        Ok(_) => panic!("{text} was read"),
        Err(error) => error.to_string(),
    }
}

/// Reads a setting from a text with one key too many, and looks for the key in what is said.
fn refuses_other_keys<T: DeserializeOwned>(text: &str) {
    serde_json::from_str::<T>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let misspelt = format!("{}, \"flor\": 1.0}}", text.strip_suffix('}').unwrap());
    let said = refusal::<T>(&misspelt);
    assert!(said.contains("unknown field `flor`, expected "), "{misspelt}: {said}");
}

/// The schedule that a text with the arguments of `new` alone gives is the one that `new` gives.
fn defaults<S: Schedule + Serialize + DeserializeOwned>(text: &str, new: S) {
    refuses_other_keys::<S>(text);
    let read: S = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&new).unwrap(), "{text}");
    (0..200).for_each(|step| assert_eq!(read.at(step).to_bits(), new.at(step).to_bits(), "{text}"));
    let message = refusal::<S>("{}");
    assert!(message.starts_with("missing field `"), "{message}");
}

#[test]
fn what_is_left_out_has_its_default_and_what_is_misspelt_is_named() {
    defaults(r#"{"peak": 0.1, "steps": 100}"#, Cosine::new(0.1, 100));
    defaults(r#"{"peak": 0.1, "period": 30}"#, CosineRestarts::new(0.1, 30));
    defaults(r#"{"base": 0.01, "max": 0.1, "up": 20}"#, Cyclic::new(0.01, 0.1, 20));
    defaults(r#"{"start": 0.1, "gamma": 0.97}"#, Exponential::new(0.1, 0.97));
    let over: Exponential = serde_json::from_str(r#"{"start": 1, "gamma": 0.25, "over": 100}"#).unwrap();
    assert_eq!(over.at(50), 0.5);
    defaults(r#"{"start": 0.9, "end": 0.9999, "steps": 10}"#, HalfLife::new(0.9, 0.9999, 10));
    defaults(r#"{"peak": 0.1, "timescale": 10}"#, InverseSqrt::new(0.1, 10));
    defaults(r#"{"start": 0.1, "end": 0, "steps": 100}"#, Linear::new(0.1, 0.0, 100));
    defaults(r#"{"start": 0.1, "milestones": [30, 60], "gamma": 0.1}"#, MultiStep::new(0.1, [30, 60], 0.1));
    defaults(r#"{"d_model": 512, "warmup": 40}"#, Noam::new(512, 40));
    defaults(r#"{"peak": 0.1, "steps": 100}"#, OneCycle::new(0.1, 100));
    let points = r#"{"start": 0.1, "points": [[10, 0.2], [50, 0.05]]}"#;
    defaults(points, PiecewiseConstant::new(0.1, [(10, 0.2), (50, 0.05)]));
    defaults(points, PiecewiseLinear::new(0.1, [(10, 0.2), (50, 0.05)]));
    defaults(points, PiecewiseCosine::new(0.1, [(10, 0.2), (50, 0.05)]));
    defaults(r#"{"start": 0.1}"#, Plateau::new(0.1));
    defaults(r#"{"peak": 0.1, "steps": 100}"#, Polynomial::new(0.1, 100));
    defaults(r#"{"peak": 0.1, "steps": 100}"#, Rex::new(0.1, 100));
    defaults(r#"{"start": 0.1, "period": 30, "gamma": 0.5}"#, Step::new(0.1, 30, 0.5));
    let parts = r#"{"peak": 0.1, "warmup": 10, "stable": 50, "decay": 100}"#;
    defaults(parts, WarmupStableDecay::new(0.1, 10, 50, 100));

    defaults(r#"{"inner": 0.1, "steps": 10}"#, 0.1.warmup(10));
    defaults(r#"{"first": 0.1, "at": 10, "next": 0.2}"#, 0.1.then(10, 0.2));
    defaults(r#"{"inner": 0.1, "factor": 2}"#, 0.1.scale(2.0));
    defaults(r#"{"left": 0.1, "right": 0.2}"#, 0.1.times(0.2));
    defaults(
        r#"{"inner": {"start": 1, "end": 0, "steps": 9}}"#,
        Linear::new(1.0, 0.0, 9).clamp(-f64::INFINITY, f64::INFINITY),
    );
    defaults(r#"{"inner": 0.1, "steps": 10}"#, 0.1.delay(10));
    defaults(r#"{"inner": 0.1, "steps": 10}"#, 0.1.cycle(10));
    defaults(r#"{"inner": 0.1, "steps_per_epoch": 10}"#, 0.1.per_epoch(10));
    refuses_other_keys::<PlateauState>(r#"{"value": 0.1, "best": "inf", "bad": 0, "pause": 0}"#);

    let said = refusal::<NonFinite>(r#""Skp""#);
    assert!(said.contains("unknown variant `Skp`, expected one of `Error`, `Skip`, `Allow`"), "{said}");
    let said = refusal::<StatePrecision>(r#"{"Bf16": "Nearby"}"#);
    assert!(said.contains("unknown variant `Nearby`, expected `Stochastic` or `Nearest`"), "{said}");
    let four_bits: StatePrecision = serde_json::from_str(r#"{"Blockwise4": "Nearest"}"#).unwrap();
    assert_eq!(copy(&four_bits), StatePrecision::Blockwise4(Rounding::Nearest));
}

#[test]
fn a_count_may_be_written_with_an_exponent() {
    let read: Cosine = serde_json::from_str(r#"{"peak": 1, "steps": 1e4}"#).unwrap();
    assert_eq!([0, 5_000, 10_000].map(|step| read.at(step)), [1.0, 0.5, 0.0]);
    let read: MultiStep = serde_json::from_str(r#"{"start": 1, "milestones": [2e1, 1e1], "gamma": 0.5}"#).unwrap();
    assert_eq!([9, 10, 20].map(|step| read.at(step)), [1.0, 0.5, 0.25]);
    let most: Linear = serde_json::from_str(&format!(r#"{{"start": 0, "end": 1, "steps": {}}}"#, u64::MAX)).unwrap();
    assert_eq!(copy(&most).at(u64::MAX / 2), 0.5);
    for (steps, found) in [("1.5", "floating point `1.5`"), ("-3", "integer `-3`"), ("\"ten\"", "string \"ten\"")] {
        let said = refusal::<Cosine>(&format!(r#"{{"peak": 1.0, "steps": {steps}}}"#));
        assert!(said.contains(found) && said.contains("expected a count"), "{said}");
    }
    let said = refusal::<Cosine>(r#"{"peak": "high", "steps": 1}"#);
    assert!(said.contains("string \"high\", expected a number"), "{said}");
}

/// A file's milestones are in no order, like those of `MultiStep::new`.
#[test]
fn milestones_may_be_in_any_order() {
    let read: MultiStep = serde_json::from_str(r#"{"start": 1.0, "milestones": [9, 3, 6], "gamma": 0.5}"#).unwrap();
    let new = MultiStep::new(1.0, [9, 3, 6], 0.5);
    (0..12).for_each(|step| assert_eq!(read.at(step), new.at(step), "step {step}"));
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
