//! Weights and flushes through whole chains.

use gradus::Error;
use gradus::error::StepError;
use gradus::prelude::*;
use ndarray::array;

use crate::{Boxed, ROUNDING, Tree, cut, difference, grads, start};

/// Adaptors on both sides of `accumulate`; the second chain has none.
fn chains() -> Vec<(&'static str, Boxed, Boxed)> {
    let adam = || Adam::new(0.05);
    vec![
        ("boxed", adam().boxed().accumulate(4).boxed().boxed(), adam().boxed()),
        ("clip inside", adam().clip_global_norm(0.01).accumulate(4).boxed(), adam().clip_global_norm(0.01).boxed()),
        ("freeze outside", adam().accumulate(4).freeze("1").boxed(), adam().freeze("1").boxed()),
        (
            "group outside",
            adam().accumulate(4).group("0", Group::new().scale_learning_rate(0.1)).boxed(),
            adam().group("0", Group::new().scale_learning_rate(0.1)).boxed(),
        ),
        ("averages", adam().ema(0.9).accumulate(4).ema(0.9).boxed(), adam().ema(0.9).ema(0.9).boxed()),
        ("lookahead", adam().lookahead(2, 0.5).accumulate(4).boxed(), adam().lookahead(2, 0.5).boxed()),
        ("guards", adam().accumulate(4).skip_nonfinite().check_finite().boxed(), adam().boxed()),
        ("scale, sign", adam().accumulate(4).unscale(8.0).maximize().boxed(), adam().unscale(8.0).maximize().boxed()),
        (
            "route inside",
            adam().route("1", Sgd::new(0.1)).accumulate(4).boxed(),
            adam().route("1", Sgd::new(0.1)).boxed(),
        ),
        (
            "in every branch",
            adam().accumulate(4).route("1", Sgd::new(0.1).accumulate(4)).boxed(),
            adam().route("1", Sgd::new(0.1)).boxed(),
        ),
        // Windows of windows: the outer mean has the weight of all of its micro-batches.
        ("twice", adam().accumulate(2).accumulate(2).boxed(), adam().boxed()),
    ]
}

/// One window of four micro-batches, and one of three that is flushed.
#[test]
fn weights_and_flushes_go_through_a_chain() {
    for (name, mut small, mut large) in chains() {
        let (mut by_parts, mut by_whole) = (start(), start());
        for round in 0..3 {
            for sizes in [&[5, 1, 2, 9][..], &[4, 1, 6]] {
                let mut from = 3 * round;
                for size in sizes {
                    let part = grads(&by_parts, from..from + size);
                    small.step_weighted(&mut by_parts, &part, *size as f64).unwrap();
                    from += size;
                }
                if sizes.len() < 4 {
                    assert!(small.flush(&mut by_parts).unwrap().moved, "{name}");
                }
                let whole = grads(&by_whole, 3 * round..from);
                large.step(&mut by_whole, &whole).unwrap();
            }
            // Nothing is left anywhere.
            let before = (by_parts.clone(), small.state_dict());
            assert!(!small.flush(&mut by_parts).unwrap().moved, "{name}");
            assert_eq!((&by_parts, small.state_dict()), (&before.0, before.1), "{name}");
        }
        let difference = difference(&by_parts, &by_whole);
        assert!(difference < ROUNDING, "{name}: {difference}");
        assert_eq!(small.steps(), large.steps(), "{name}");
    }
}

/// Of a router only the branches step that have gathered something.
#[test]
fn a_flush_leaves_branches_that_gather_nothing() {
    let mut opt = Momentum::new(1.0, 0.5).route("1", Sgd::new(1.0).accumulate(3));
    let mut w = (array![0.0], array![0.0]);
    opt.step(&mut w, &(array![1.0], array![4.0])).unwrap();
    assert_eq!(w, (array![-1.0], array![0.0]));
    assert!(opt.flush(&mut w).unwrap().moved);
    assert_eq!((&w, opt.steps()), (&(array![-1.0], array![-4.0]), 1));
    opt.step(&mut w, &(array![0.0], array![4.0])).unwrap();
    assert_eq!(w, (array![-1.5], array![-4.0]));
}

/// What was frozen after its gradients were summed does not move.
#[test]
fn a_flush_does_not_move_what_is_frozen() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(4).freeze("0"), (array![0.0], array![0.0]));
    opt.unfreeze("**").unwrap();
    opt.step(&mut w, &(array![1.0], array![1.0])).unwrap();
    opt.refreeze("0").unwrap();
    opt.flush(&mut w).unwrap();
    assert_eq!(w, (array![0.0], array![-1.0]));
}

/// With `accumulate` outside, the window of ascents and the window of steps end early, each by a flush.
#[test]
fn sam_inside() {
    let (mut small, mut large) = (Sgd::new(0.1).sam(0.05).accumulate(4), Sgd::new(0.1).sam(0.05));
    let (mut by_parts, mut by_whole) = (start(), start());
    let gather = |opt: &mut dyn Optimizer<f64>, w: &mut Tree, ascends: bool| {
        for part in cut(0..9, 2) {
            let (part, weight) = (grads(w, part.clone()), part.len() as f64);
            let report = match ascends {
                true => {
                    assert!(weight > 0.0);
                    opt.ascend(w, &part).unwrap() // has no weight: the parts of the ascent count alike
                }
                false => opt.step_weighted(w, &part, weight).unwrap(),
            };
            assert!(!report.moved);
        }
    };
    gather(&mut small, &mut by_parts, true);
    let before = by_parts.clone();
    assert!(small.flush(&mut by_parts).unwrap().moved);
    assert!(by_parts != before && small.inner().has_ascended() && small.steps() == 0);
    gather(&mut small, &mut by_parts, false);
    let perturbed = by_parts.clone();
    assert!(small.flush(&mut by_parts).unwrap().moved);
    assert!(!small.inner().has_ascended() && small.steps() == 1);

    let parts = cut(0..9, 2).map(|part| grads(&by_whole, part));
    let mean = (0.5 * (&parts[0].0 + &parts[1].0), 0.5 * (&parts[0].1 + &parts[1].1));
    large.ascend(&mut by_whole, &mean).unwrap();
    assert!(difference(&perturbed, &by_whole) < ROUNDING);
    let whole = grads(&by_whole, 0..9);
    large.step(&mut by_whole, &whole).unwrap();
    assert!(difference(&by_parts, &by_whole) < ROUNDING);
}

/// With `accumulate` inside, every micro-batch has its own perturbation, and a flush between two of them is a step.
#[test]
fn sam_outside() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(4).sam(0.5), array![1.0]);
    for _ in 0..2 {
        assert!(!opt.step_with(&mut w, |w: &ndarray::Array1<f64>| (w[0], array![3.0])).unwrap().step.moved);
    }
    opt.ascend(&mut w, &array![3.0]).unwrap();
    let perturbed = w.clone();
    assert_eq!(opt.flush(&mut w).unwrap_err(), Error::Step(StepError::AlreadyAscended));
    assert_eq!((&w, opt.inner().gathered()), (&perturbed, 2));
    opt.retreat(&mut w).unwrap();
    assert!(opt.flush(&mut w).unwrap().moved);
    assert_eq!((w, opt.steps()), (array![-2.0], 1));
}

/// A weight has no effect where nothing is averaged.
#[test]
fn a_weight_without_an_average() {
    let (mut opt, mut w) = (Sgd::new(1.0).clip_global_norm(9.0), array![0.0]);
    let report = opt.step_weighted(&mut w, &array![2.0], 64.0).unwrap();
    assert_eq!((report.moved, report.grad_norm, w), (true, Some(2.0), array![-2.0]));
}

#[cfg(feature = "half")]
#[test]
fn inside_of_16_bits() {
    use half::bf16;
    let bf = |x: f32| array![bf16::from_f32(x)];
    let mut opt = Sgd::new(1.0).accumulate(4).master_weights().boxed();
    let mut w = bf(0.0);
    opt.step_weighted(&mut w, &bf(2.0), 3.0).unwrap();
    opt.step_weighted(&mut w, &bf(6.0), 1.0).unwrap();
    assert!(opt.flush(&mut w).unwrap().moved);
    assert_eq!(w, bf(-3.0));
    assert!(!opt.flush(&mut w).unwrap().moved);
}

/// Through a file, in the middle of a window with weights.
#[cfg(feature = "checkpoint")]
#[test]
fn a_checkpoint_has_the_weights() {
    use gradus::checkpoint::Checkpoint;
    let build = || Momentum::new(0.1, 0.9).clip_global_norm(0.1).accumulate(3);
    let path = std::env::temp_dir().join(format!("gradus-weights-{}.safetensors", std::process::id()));
    let (mut opt, mut w) = (build(), start());
    for samples in [0..7, 7..9] {
        let part = grads(&w, samples.clone());
        opt.step_weighted(&mut w, &part, samples.len() as f64).unwrap();
    }
    Checkpoint::of(&w, &opt).unwrap().save(&path).unwrap();
    let (mut resumed, mut params) = (build(), (w.0.clone() * 0.0, w.1.clone() * 0.0));
    Checkpoint::open(&path).unwrap().load(&mut params, &mut resumed).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(opt.flush(&mut w).unwrap().moved && resumed.flush(&mut params).unwrap().moved);
    assert_eq!(params, w);
    let (mut large, mut by_whole) = (Momentum::new(0.1, 0.9).clip_global_norm(0.1), start());
    let whole = grads(&by_whole, 0..9);
    large.step(&mut by_whole, &whole).unwrap();
    assert!(difference(&w, &by_whole) < ROUNDING);
}
