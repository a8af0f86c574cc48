//! Trajectories of PyTorch and of a naive reference, from `tests/golden/*.json`: the README there has the format.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use approx::relative_eq;
use gradus::prelude::*;
use ndarray::ArrayD;

use build::optimizer;
use case::{Case, STEPS, cases};

mod averages;
mod beside;
mod bounded;
mod build;
mod case;
mod curvature;
mod guards;
mod lbfgs;
mod matrices;
mod memory;
mod options;
mod parameter_free;
#[cfg(feature = "half")]
mod precision;
#[cfg(feature = "second-order")]
mod preconditioned;
mod projections;
mod qk_clip;
mod rows;
mod sam;
mod sensitivity;

/// How far a value may be from the golden one: `relative` of the larger of the two or, near zero, `absolute`.
#[derive(Clone, Copy)]
struct Tolerance {
    absolute: f64,
    relative: f64,
}

/// Both sides evaluate the same formulas, which leave no choice of order: not a bit may differ.
const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

/// PyTorch divides where gradus multiplies with a reciprocal, or the other way round: some ulp in each of 100 steps.
/// A parameter near zero has the rounding errors of the larger values that it had before.
const F64: Tolerance = Tolerance { absolute: 1e-14, relative: 1e-12 };

/// The same in f32, where the steps are a thousandth of the parameters: only the last bit of a sum can differ.
const F32: Tolerance = Tolerance { absolute: F32_EPSILON, relative: F32_EPSILON };

/// RMSProp's steps are up to a hundred times longer than Adam's, and centering cancels digits of the divisor: some ulp.
const F32_RMSPROP: Tolerance = Tolerance { absolute: 8.0 * F32_EPSILON, relative: 8.0 * F32_EPSILON };

/// optax adds the decay to the direction, where ours shrinks the parameter first: in each of 100 steps half an ulp of the parameter.
const F32_DECAY: Tolerance = Tolerance { absolute: 16.0 * F32_EPSILON, relative: 16.0 * F32_EPSILON };

/// Adagrad's and Adadelta's steps are longer than Adam's, and PyTorch adds NAdam's two terms to the parameter one after the other: some ulp.
const F32_LONGER: Tolerance = Tolerance { absolute: 8.0 * F32_EPSILON, relative: 8.0 * F32_EPSILON };

/// PyTorch multiplies the parameter with 1 − λη, which is 1 up to a few ulp: in each of 100 steps half an ulp of the parameter.
const F32_ASGD: Tolerance = Tolerance { absolute: 50.0 * F32_EPSILON, relative: 50.0 * F32_EPSILON };

/// PyTorch sums up the squares of 100,000 numbers in f32, and steps are up to a fifth of the parameters.
const F32_ADAFACTOR: Tolerance = Tolerance { absolute: 32.0 * F32_EPSILON, relative: 32.0 * F32_EPSILON };

/// The same as [`F32_DECAY`] with a larger ηλ: 1 − ηλ is rounded once, and multiplied with in each of 100 steps.
const F32_DECAY_BEFORE: Tolerance = Tolerance { absolute: 32.0 * F32_EPSILON, relative: 32.0 * F32_EPSILON };
/// schedulefree keeps z, and moves it and y by two additions each: in each of 100 steps an ulp of both.
const F32_SCHEDULE_FREE: Tolerance = Tolerance { absolute: 16.0 * F32_EPSILON, relative: 16.0 * F32_EPSILON };

const F32_EPSILON: f64 = f32::EPSILON as f64;

fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in [−1, 1) that is exact in f32 as well.
fn unit(k: u64) -> f64 {
    (splitmix64(k) >> 40) as f64 / (1 << 23) as f64 - 1.0
}

fn param(i: usize) -> f64 {
    unit(i as u64)
}

fn grad(step: u64, i: usize) -> f64 {
    unit((step + 1) * 1_000_003 * 7 + i as u64 + (1 << 40))
}

/// The parameters `indices` after each of the recorded steps.
fn trajectory<A: Scalar>(name: &str, case: &Case) -> Vec<Vec<f64>> {
    let mut opt: Box<dyn Optimizer<A>> = optimizer(name, case);
    if case.maximize {
        opt = Box::new(opt.maximize());
    }
    let tensor = |element: &dyn Fn(usize) -> f64| {
        let elements = (0..case.size).map(|i| A::from_f64(element(i)));
        ArrayD::from_shape_vec(&case.shape[..], elements.collect()).unwrap()
    };
    let mut params = tensor(&param);
    let mut recorded = Vec::new();
    for step in 0..STEPS {
        let grads = tensor(&|i| grad(step, i));
        let report = opt.step(&mut params, &grads).unwrap_or_else(|error| panic!("{}: {error}", case.describe()));
        assert!(report.moved && report.learning_rate == case.learning_rates[step as usize % case.learning_rates.len()]);
        if case.steps.contains(&opt.steps()) {
            let params = params.as_slice().unwrap();
            recorded.push(case.indices.iter().map(|&i| params[i].as_f64()).collect());
        }
    }
    recorded
}

/// The worst error of a case, relative to the value or to what is small for it, or the first value out of tolerance.
fn compare(name: &str, case: &Case, tolerance: Tolerance) -> Result<f64, String> {
    let found = match case.dtype.as_str() {
        "f32" => trajectory::<f32>(name, case),
        _ => trajectory::<f64>(name, case),
    };
    assert_eq!(found.len(), case.values.len(), "{}", case.describe());
    let mut worst = 0.0_f64;
    for ((step, found), expected) in case.steps.iter().zip(found).zip(&case.values) {
        assert_eq!(found.len(), expected.len(), "{}", case.describe());
        for ((index, found), &expected) in case.indices.iter().zip(found).zip(expected) {
            // The file has the fewest digits that identify an f32.
            let (expected, scale) = match case.dtype.as_str() {
                "f32" => (f64::from(expected as f32), 1.0),
                _ => (expected, 1e-2),
            };
            worst = worst.max((found - expected).abs() / expected.abs().max(scale));
            let Tolerance { absolute, relative } = tolerance;
            if !relative_eq!(found, expected, epsilon = absolute, max_relative = relative) {
                let place = format!("element {index} after step {step} of {name} {}", case.describe());
                return Err(format!("{found} for {expected}, off by {:e}: {place}", found - expected));
            }
        }
    }
    Ok(worst)
}

/// Every case of an optimizer's file.
fn agrees(name: &str, f64_tolerance: Tolerance, f32_tolerance: Tolerance) {
    let mut worst = BTreeMap::new();
    for case in cases(name) {
        let tolerance = if case.dtype == "f32" { f32_tolerance } else { f64_tolerance };
        let error = compare(name, &case, tolerance).unwrap_or_else(|error| panic!("{error}"));
        let worst = worst.entry((case.dtype, case.source)).or_insert(0.0_f64);
        *worst = worst.max(error);
    }
    println!("{name}: {worst:?}");
    assert!(worst.len() >= 2, "{name}: only {worst:?} were compared");
}

#[test]
fn sgd_agrees() {
    agrees("sgd", EXACT, EXACT);
}

#[test]
fn momentum_agrees() {
    agrees("momentum", EXACT, EXACT);
}

#[test]
fn nesterov_agrees() {
    agrees("nesterov", EXACT, EXACT);
}

#[test]
fn rmsprop_agrees() {
    agrees("rmsprop", F64, F32_RMSPROP);
}

#[test]
fn lion_agrees() {
    agrees("lion", F64, F32_DECAY);
}

#[test]
fn adabelief_agrees() {
    agrees("adabelief", F64, F32_DECAY);
}

#[test]
fn adam_agrees() {
    agrees("adam", F64, F32);
}

#[test]
fn adamw_agrees() {
    agrees("adamw", F64, F32);
}

#[test]
fn nadam_agrees() {
    agrees("nadam", F64, F32_LONGER);
}

#[test]
fn nadamw_agrees() {
    agrees("nadamw", F64, F32_LONGER);
}

#[test]
fn radam_agrees() {
    agrees("radam", F64, F32);
}

#[test]
fn radamw_agrees() {
    agrees("radamw", F64, F32);
}

#[test]
fn adamax_agrees() {
    agrees("adamax", F64, F32);
}

#[test]
fn adagrad_agrees() {
    agrees("adagrad", F64, F32_LONGER);
}

#[test]
fn adadelta_agrees() {
    agrees("adadelta", F64, F32_LONGER);
}

#[test]
fn rprop_agrees() {
    agrees("rprop", EXACT, EXACT);
}

#[test]
fn asgd_agrees() {
    agrees("asgd", F64, F32_ASGD);
}

#[test]
fn adafactor_agrees() {
    agrees("adafactor", F64, F32_ADAFACTOR);
}

#[test]
fn signum_agrees() {
    agrees("signum", F64, F32_DECAY);
}

#[test]
fn signsgd_agrees() {
    agrees("signsgd", F64, F32_DECAY);
}

#[test]
fn yogi_agrees() {
    agrees("yogi", F64, F32_DECAY);
}

#[test]
fn laprop_agrees() {
    agrees("laprop", F64, F32);
}

#[test]
fn ademamix_agrees() {
    agrees("ademamix", F64, F32_DECAY_BEFORE);
}

#[test]
fn simplified_ademamix_agrees() {
    agrees("simplifiedademamix", F64, F32_DECAY_BEFORE);
}

#[test]
fn adopt_agrees() {
    agrees("adopt", F64, F32_DECAY_BEFORE);
}

#[test]
fn adan_agrees() {
    agrees("adan", F64, F32_DECAY_BEFORE);
}

#[test]
fn madgrad_agrees() {
    agrees("madgrad", F64, F32_LONGER);
}

#[test]
fn sgdschedulefree_agrees() {
    agrees("sgdschedulefree", F64, F32_SCHEDULE_FREE);
}

#[test]
fn adamwschedulefree_agrees() {
    agrees("adamwschedulefree", F64, F32_SCHEDULE_FREE);
}

#[test]
fn radamschedulefree_agrees() {
    agrees("radamschedulefree", F64, F32_SCHEDULE_FREE);
}

/// The README's own test values.
#[test]
#[allow(clippy::excessive_precision, reason = "all digits of an f64")]
fn the_inputs_are_the_generators() {
    assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
    assert_eq!([unit(0), unit(1), unit(2)], [0.7666215896606445, 0.13312304019927979, 0.1823793649673462]);
    assert_eq!([grad(0, 0), grad(0, 1)], [0.3137390613555908, -0.7505589723587036]);
    assert_eq!(grad(99, 100_002), -0.27308642864227295);
}
