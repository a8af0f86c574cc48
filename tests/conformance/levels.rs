//! All SIMD levels of the machine give the same bits.
//!
//! Loops become SIMD only where they are optimized: `.ci/run` runs the whole table with `--release`, too.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use gradus::clip::{self, Norm};
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::simd;
use gradus::testing::tensors::{Bits, bits, numbers};
use gradus::testing::{self, Law};
use ndarray::ArrayD;

use super::changing;
use super::rows::Row;

/// The level belongs to the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What `run` gives, which must be the same at every level.
fn at_every_level<T: PartialEq>(what: &str, run: impl Fn() -> T) -> T {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = testing::at_every_level(|level| {
        assert_eq!(simd::level(), level);
        (level, run())
    });
    assert_eq!(ends.len(), simd::available().len());
    let mut ends = ends.into_iter();
    let (lowest, expected) = ends.next().unwrap();
    ends.for_each(|(level, end)| assert!(end == expected, "{what}: {level} is not {lowest}"));
    expected
}

/// Every rule: plain sweeps, and those of state in fewer bits, of several blocks with a head and a tail.
pub(crate) fn every_simd_level_gives_the_same_bits<A: Scalar>(row: &Row<A>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    row.laws_of_precisions().iter().for_each(|laws| laws.run_one(Law::SimdLevels));
}

/// What stands beside the rules: limits, averages, slow parameters, in the sweep and outside it.
#[test]
fn adaptors_give_the_same_bits_at_every_level() {
    fn all<A: Scalar>() {
        type Build<A> = fn() -> Box<dyn Optimizer<A>>;
        let adaptors: [(&str, Build<A>); 13] = [
            ("clip_global_norm", || Box::new(AdamW::new(changing).clip_global_norm(1.0))),
            ("clip_per_tensor_norm", || Box::new(AdamW::new(changing).clip_per_tensor_norm(1.0))),
            ("clip_value", || Box::new(AdamW::new(changing).clip_value(0.1))),
            ("clip_adaptive", || Box::new(AdamW::new(changing).clip_adaptive(0.1))),
            ("clip_global_norm, p = 1", || Box::new(Sgd::new(changing).transform(Norm::global(1.0).p(1.0)))),
            ("clip_global_norm, p = 3", || Box::new(Sgd::new(changing).transform(Norm::global(1.0).p(3.0)))),
            ("clip_global_norm, p = ∞", || {
                Box::new(Sgd::new(changing).transform(Norm::global(1.0).p(f64::INFINITY)))
            }),
            ("accumulate", || Box::new(AdamW::new(changing).check_finite().accumulate(2))),
            ("ema", || Box::new(AdamW::new(changing).ema(0.9))),
            ("swa, lookahead", || Box::new(Momentum::new(changing, 0.9).lookahead(2, 0.5).swa(1, 1))),
            ("4 bits", || {
                Box::new(Adam::new(changing).state_precision(StatePrecision::Blockwise4(Rounding::Stochastic)))
            }),
            ("4 bits, to nearest", || {
                Box::new(Adam::new(changing).state_precision(StatePrecision::Blockwise4(Rounding::Nearest)))
            }),
            ("8 bits, ema", || Box::new(Adam::new(changing).state_precision(StatePrecision::Blockwise8).ema(0.9))),
        ];
        for (name, build) in adaptors {
            at_every_level(name, || {
                let (mut opt, mut params) = (build(), tensors::<A>(0));
                let step = |step| opt.step(&mut params, &tensors::<A>(step)).unwrap();
                let norms: Vec<_> = (1..=4).map(step).map(|report| report.grad_norm).collect();
                (all_bits(&params), norms, opt.state_dict())
            });
        }
    }
    all::<f32>();
    all::<f64>();
}

/// Parameters of 16 bits are copies that the sweep of the wide ones writes.
#[cfg(feature = "half")]
#[test]
fn narrow_parameters_are_the_same_at_every_level() {
    let narrow = |stream| tensors::<f32>(stream).iter().map(|tensor| tensor.mapv(half::bf16::from_f32)).collect();
    at_every_level("bf16", || {
        let mut params: Vec<ArrayD<half::bf16>> = narrow(0);
        let mut opt = AdamW::new(changing).clip_global_norm(1.0).master_weights();
        (1..=3).for_each(|step| _ = opt.step(&mut params, &narrow(step)).unwrap());
        let bits = |tensor: &ArrayD<half::bf16>| tensor.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        (params.iter().map(bits).collect::<Vec<_>>(), opt.state_dict())
    });
    type Build = fn() -> Box<dyn Optimizer<half::bf16>>;
    let builds: [Build; 2] = [
        || Box::new(AdamW::new(changing).clip_global_norm(1.0).stochastic_rounding(7)),
        || Box::new(AdamW::new(changing).clip_global_norm(1.0).kahan()),
    ];
    for build in builds {
        at_every_level("bf16 without copies", || {
            let (mut params, mut opt): (Vec<ArrayD<half::bf16>>, _) = (narrow(0), build());
            (1..=3).for_each(|step| _ = opt.step(&mut params, &narrow(step)).unwrap());
            let bits = |tensor: &ArrayD<half::bf16>| tensor.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            (params.iter().map(bits).collect::<Vec<_>>(), opt.state_dict())
        });
    }
}

#[test]
fn clipping_in_place_gives_the_same_bits_at_every_level() {
    fn all<A: Scalar>() {
        type Clip<A> = fn(&mut Vec<ArrayD<A>>) -> gradus::Result<f64>;
        let clips: [(&str, Clip<A>); 8] = [
            ("global", |grads| clip::global_norm(grads, 1.0)),
            ("global, p = 1", |grads| Norm::global(1.0).p(1.0).clip(grads)),
            ("global, p = 2.5", |grads| Norm::global(1.0).p(2.5).exact(true).clip(grads)),
            ("global, p = ∞", |grads| Norm::global(0.5).p(f64::INFINITY).clip(grads)),
            ("per tensor", |grads| clip::per_tensor_norm(grads, 1.0)),
            ("value", |grads| clip::value(grads, 0.1)),
            ("adaptive", |grads| clip::adaptive(grads, &tensors::<A>(7), 0.01)),
            ("too small to be squared", |grads| {
                grads.iter_mut().for_each(|grad| grad.mapv_inplace(|x| x * A::min_positive_value()));
                clip::global_norm(grads, A::min_positive_value().as_f64())
            }),
        ];
        for (name, clip) in clips {
            at_every_level(name, || {
                let mut grads = tensors::<A>(1);
                let norm = clip(&mut grads).unwrap();
                (norm.to_bits(), all_bits(&grads))
            });
        }
    }
    all::<f32>();
    all::<f64>();
}

fn tensors<A: Scalar>(stream: u64) -> Vec<ArrayD<A>> {
    let shapes: [&[usize]; 3] = [&[5003], &[37, 61], &[3]];
    shapes.iter().map(|shape| numbers(shape, stream)).collect()
}

fn all_bits<A: Scalar>(tensors: &[ArrayD<A>]) -> Vec<Vec<Bits>> {
    tensors.iter().map(|tensor| bits(tensor)).collect()
}

/// All laws once more at each level below the highest, in a process of its own.
#[test]
#[ignore = "takes as long for each level as all laws; .ci/run asks for it, optimized"]
fn every_law_holds_at_every_lower_level() {
    let levels = simd::available();
    for level in &levels[..levels.len() - 1] {
        let laws = Command::new(std::env::current_exe().unwrap())
            .args(["law::", "the_level_that_was_asked_for", "--skip", "every_simd_level"])
            .env(simd::VARIABLE, level.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&laws.stdout);
        assert!(laws.status.success(), "{level}: {said}{}", String::from_utf8_lossy(&laws.stderr));
        assert!(said.contains("the_level_that_was_asked_for ... ok") && said.contains("law::deterministic ... ok"));
    }
}

/// In the processes that [`every_law_holds_at_every_lower_level`] starts.
#[test]
fn the_level_that_was_asked_for() {
    // Without a wish, tests that run beside this one go through all levels.
    if let Ok(wish) = std::env::var(simd::VARIABLE) {
        assert_eq!(simd::level().name(), wish);
    }
}
