//! Weights, flushes and schedules around one optimizer.

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Report};
use ndarray::{Array1, array};

use crate::{ROUNDING, SAMPLES, cut, difference, grads, optimizers, start};

/// Acceptance: micro-batches of different sizes are the large batch, also in the last window of an epoch, which is smaller.
#[test]
fn unequal_micro_batches_are_the_large_batch() {
    let sizes = [7, 1, 4, 12, 3, 2, 9, 5, 6]; // windows of 12, 17, 20, and 1 sample that is left
    for (name, build) in optimizers() {
        let (mut small, mut large) = (build().accumulate(3), build());
        let (mut by_parts, mut by_whole) = (start(), start());
        for epoch in 0..4 {
            let (mut from, mut window) = (0, 0);
            for (call, size) in sizes.into_iter().chain([SAMPLES - 49]).enumerate() {
                let part = grads(&by_parts, from..from + size);
                let report = small.step_weighted(&mut by_parts, &part, size as f64).unwrap();
                from += size;
                assert_eq!(report.moved, call % 3 == 2, "{name}");
                if report.moved {
                    let whole = grads(&by_whole, window..from);
                    large.step(&mut by_whole, &whole).unwrap();
                    window = from;
                }
            }
            assert_eq!((from, window, small.gathered()), (SAMPLES, 49, 1));
            assert!(small.flush(&mut by_parts).unwrap().moved);
            let whole = grads(&by_whole, window..SAMPLES);
            large.step(&mut by_whole, &whole).unwrap();
            assert_eq!((small.gathered(), small.steps(), large.steps()), (0, 4 * (epoch + 1), 4 * (epoch + 1)));
        }
        let difference = difference(&by_parts, &by_whole);
        assert!(difference < ROUNDING, "{name}: {difference}");
    }
}

/// Without weights, each micro-batch of a partial window counts alike: the mean is over those that there are.
#[test]
fn a_partial_window_is_divided_by_what_it_has() {
    for (gradients, expected) in [(&[6.0][..], -6.0), (&[1.0, 2.0], -1.5), (&[1.0, 2.0, 6.0], -3.0)] {
        let (mut opt, mut w) = (Sgd::new(1.0).accumulate(4), array![0.0]);
        for grad in gradients {
            assert!(!opt.step(&mut w, &array![*grad]).unwrap().moved);
        }
        assert!(opt.flush(&mut w).unwrap().moved);
        assert_eq!((w[0], opt.gathered(), opt.steps()), (expected, 0, 1));
    }
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(4).sum(true), array![0.0]);
    opt.step(&mut w, &array![1.0]).unwrap();
    opt.step_weighted(&mut w, &array![2.0], 3.0).unwrap();
    opt.flush(&mut w).unwrap();
    assert_eq!(w, array![-7.0]); // 1 + 3 · 2
}

/// After a flush the next window is a whole one.
#[test]
fn a_flush_starts_a_new_window() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(2), array![0.0]);
    opt.step(&mut w, &array![8.0]).unwrap();
    opt.flush(&mut w).unwrap();
    assert!(!opt.step(&mut w, &array![1.0]).unwrap().moved);
    assert!(opt.step(&mut w, &array![3.0]).unwrap().moved);
    assert_eq!(w, array![-10.0]);
}

#[test]
fn a_flush_of_nothing_changes_nothing() {
    let nothing = |learning_rate: f64| Report::new(learning_rate, false);
    for taken in 0..3 {
        let (mut opt, mut w) = (Momentum::new(0.5, 0.9).clip_global_norm(9.0).accumulate(1).ema(0.9), array![1.0]);
        (0..taken).for_each(|_| _ = opt.step(&mut w, &array![1.0]).unwrap());
        let before = (w.clone(), opt.state_dict(), opt.steps());
        assert_eq!(opt.flush(&mut w).unwrap(), nothing(0.5));
        assert_eq!((w, opt.state_dict(), opt.steps()), before);
    }
    // Nothing gathers here.
    let (mut opt, mut w) = (Momentum::new(0.5, 0.9), array![1.0]);
    opt.step(&mut w, &array![1.0]).unwrap();
    let before = (w.clone(), opt.state_dict());
    assert_eq!(opt.flush(&mut w).unwrap(), nothing(0.5));
    assert_eq!((w, opt.state_dict()), before);
}

/// The report of a flush is that of the step: also with a clip outside, which sees no gradient.
#[test]
fn the_report_is_that_of_the_step() {
    let (mut opt, mut w) = (Sgd::new(1.0).clip_global_norm(9.0).accumulate(3).clip_global_norm(9.0), array![0.0, 0.0]);
    opt.step(&mut w, &array![3.0, 4.0]).unwrap();
    let report = opt.flush(&mut w).unwrap();
    assert_eq!((report.moved, report.grad_norm, report.learning_rate), (true, Some(5.0), 1.0));
}

/// Tokens are counted in thousands: only their ratio matters, and equal weights are no weights, bit for bit.
#[test]
fn equal_weights_give_the_same_bits_as_none() {
    for weight in [1.0, 0.1, 3.0, 4096.0, 1e30] {
        let (mut weighted, mut plain) = (AdamW::new(0.1).accumulate(3), AdamW::new(0.1).accumulate(3));
        let (mut w, mut expected) = (start(), start());
        for call in 0..12 {
            let (part, other) = (grads(&w, call..call + 2), grads(&expected, call..call + 2));
            weighted.step_weighted(&mut w, &part, weight).unwrap();
            plain.step(&mut expected, &other).unwrap();
            assert_eq!(w, expected, "{weight}");
        }
        assert_eq!(weighted.steps(), 4);
    }
}

/// A micro-batch of weight 0 is a call that adds nothing.
#[test]
fn a_weight_of_zero_adds_nothing() {
    for zero in 0..3 {
        let (mut opt, mut w) = (Sgd::new(1.0).accumulate(3), array![0.0]);
        for call in 0..3 {
            let weight = if call == zero { 0.0 } else { 2.0 };
            let report = opt.step_weighted(&mut w, &array![if call == zero { 1e9 } else { 3.0 }], weight).unwrap();
            assert_eq!(report.moved, call == 2);
        }
        assert_eq!((&w, opt.steps()), (&array![-3.0], 1));
    }
    // There is no mean of nothing: the step is skipped.
    let (mut opt, mut w) = (Momentum::new(1.0, 0.9).accumulate(2), array![0.0]);
    (0..2).for_each(|_| assert!(!opt.step_weighted(&mut w, &array![1.0], 0.0).unwrap().moved));
    assert_eq!((&w, opt.steps(), opt.gathered()), (&array![0.0], 0, 0));
    opt.step_weighted(&mut w, &array![1.0], 0.0).unwrap();
    assert!(!opt.flush(&mut w).unwrap().moved);
    assert_eq!((w, opt.steps(), opt.gathered()), (array![0.0], 0, 0));
}

/// A tensor without a gradient in some micro-batches has gradient 0 in them, with their weights.
#[test]
fn absent_gradients_have_weights() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(5), (array![0.0], array![0.0], array![0.0]));
    opt.step_weighted(&mut w, &(Some(array![4.0]), None::<Array1<f64>>, None::<Array1<f64>>), 3.0).unwrap();
    opt.step_weighted(&mut w, &(None::<Array1<f64>>, Some(array![4.0]), None::<Array1<f64>>), 1.0).unwrap();
    opt.flush(&mut w).unwrap();
    assert_eq!(w, (array![-3.0], array![-1.0], array![0.0]));
    assert_eq!(["0", "1", "2"].map(|path| opt.inner().tensor_steps(path)), [1, 1, 0]);
}

#[test]
fn rows_have_weights() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(3), ndarray::Array2::zeros((3, 1)));
    opt.step_weighted(&mut w, &Rows::new(vec![2, 0], array![[4.0], [8.0]]), 1.0).unwrap();
    opt.step_weighted(&mut w, &Rows::new(vec![2], array![[8.0]]), 3.0).unwrap();
    assert!(opt.flush(&mut w).unwrap().moved);
    assert_eq!(w, array![[-2.0], [0.0], [-7.0]]);
}

#[test]
fn a_wrong_weight_is_an_error_and_changes_nothing() {
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let (mut opt, mut w) = (Adam::new(0.1).accumulate(2), array![1.0]);
        opt.step(&mut w, &array![1.0]).unwrap();
        let before = opt.state_dict();
        let error = opt.step_weighted(&mut w, &array![1.0], weight).unwrap_err();
        let Error::Step(StepError::HyperParameter { name: "weight", accepted, .. }) = error else { panic!("{error}") };
        assert_eq!(accepted, "a finite number ≥ 0");
        assert_eq!((&w, opt.state_dict()), (&array![1.0], before));
        assert!(opt.step(&mut w, &array![1.0]).unwrap().moved);
    }
    // The ratio of two weights is a number of the gradients' type.
    let (mut opt, mut w) = (Sgd::new(0.1).accumulate(2), array![1.0_f32]);
    opt.step_weighted(&mut w, &array![1.0], 1.0).unwrap();
    let error = opt.step_weighted(&mut w, &array![1.0], 1e39).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::GradientScale { quantity: "scale", .. })), "{error}");
    assert_eq!(opt.gathered(), 1);
}

/// The step that a flush takes may be refused: what was gathered is kept.
#[test]
fn a_refused_flush_keeps_the_sum() {
    let (mut opt, mut w) = (Adam::new(0.1).check_finite().accumulate(4), array![1.0]);
    (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::MAX]).unwrap());
    let before = opt.state_dict();
    let error = opt.flush(&mut w).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{error}");
    assert_eq!((&w, opt.state_dict(), opt.gathered()), (&array![1.0], before, 2));
    opt.discard();
    assert!(!opt.flush(&mut w).unwrap().moved);
    // Other parameters than those of the sum.
    opt.step(&mut w, &array![1.0]).unwrap();
    let error = opt.flush(&mut array![1.0, 2.0]).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{error}");
    assert!(opt.flush(&mut w).unwrap().moved);
}

#[test]
fn a_schedule_changes_the_window() {
    let every = |step: u64| if step < 2 { 1.0 } else { 3.9 };
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate_by(every), array![0.0]);
    let moved = |call: usize| opt.step(&mut w, &array![call as f64]).unwrap().moved;
    assert_eq!((1..=8).map(moved).collect::<Vec<_>>(), [true, true, false, false, true, false, false, true]);
    assert_eq!((w, opt.steps()), (array![-(1.0 + 2.0 + 4.0 + 7.0)], 4));
}

#[test]
fn a_window_below_one_is_an_error() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate_by(|step: u64| 2.0 - step as f64), array![0.0]);
    (0..2).for_each(|_| _ = opt.step(&mut w, &array![1.0]).unwrap());
    assert!(opt.step(&mut w, &array![1.0]).unwrap().moved);
    let error = opt.step(&mut w, &array![1.0]).unwrap_err();
    assert_eq!(error.to_string(), "every is 0 at step 2; it must be a finite number ≥ 1");
    assert_eq!((w, opt.steps()), (array![-2.0], 2));
}

/// A run that is interrupted after any call, in a window with weights and before a flush, is the run that went on.
#[test]
fn a_run_interrupted_anywhere_is_the_same() {
    let build = || AdamW::new(0.1).clip_global_norm(0.1).accumulate_by(|step: u64| 2.0 + (step % 2) as f64);
    let call = |opt: &mut dyn Optimizer<f64>, w: &mut crate::Tree, number: usize| match number % 7 {
        6 => opt.flush(w).unwrap(),
        at => {
            let [part, _] = cut(5 * at..SAMPLES, 1 + at % 4);
            let (part, weight) = (grads(w, part.clone()), part.len() as f64);
            if at == 3 { opt.step(w, &part).unwrap() } else { opt.step_weighted(w, &part, weight).unwrap() }
        }
    };
    let (mut opt, mut w) = (build(), start());
    let saved: Vec<_> = (0..21)
        .map(|number| {
            let saved = (opt.state_dict(), w.clone());
            call(&mut opt, &mut w, number);
            saved
        })
        .collect();
    assert!(opt.steps() >= 9);
    for (at, (state, mut params)) in saved.into_iter().enumerate() {
        let mut resumed = build();
        resumed.load_state_dict(&state).unwrap();
        assert_eq!(resumed.state_dict(), state, "loaded after {at} calls");
        (at..21).for_each(|number| _ = call(&mut resumed, &mut params, number));
        assert_eq!((&params, resumed.state_dict()), (&w, opt.state_dict()), "interrupted after {at} calls");
    }
}

/// A state of before there were weights: each micro-batch counts 1.
#[test]
fn a_state_without_weights() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(3), array![0.0]);
    opt.step(&mut w, &array![2.0]).unwrap();
    let state = opt.state_dict();
    assert_eq!(state.keys().filter(|key| key.contains("weight") || key.contains("unit")).count(), 0);
    let mut resumed = Sgd::new(1.0).accumulate(3);
    resumed.load_state_dict(&state).unwrap();
    resumed.step_weighted(&mut w, &array![8.0], 3.0).unwrap();
    resumed.flush(&mut w).unwrap();
    assert_eq!(w, array![-6.5]); // (2 + 3 · 8)/4
}

#[test]
fn a_broken_weight_in_a_state_is_refused() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(3), array![0.0]);
    opt.step_weighted(&mut w, &array![2.0], 2.0).unwrap();
    for (key, value) in [("accumulate/unit", "-1"), ("accumulate/unit", "NaN"), ("accumulate/weight", "inf")] {
        let mut state = opt.state_dict();
        assert!(state.text(key).is_some(), "{key}");
        state.insert_text(key, value);
        let mut resumed = Sgd::<f64>::new(1.0).accumulate(3);
        let error = resumed.load_state_dict(&state).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
        assert_eq!(resumed.gathered(), 0);
    }
}

/// The last micro-batch of an epoch may be exactly the one that fills the window.
#[test]
fn a_flush_after_a_full_window_is_none() {
    let (mut opt, mut w) = (Sgd::new(1.0).accumulate(2), start());
    for samples in [0..3, 3..50] {
        let part = grads(&w, samples.clone());
        opt.step_weighted(&mut w, &part, samples.len() as f64).unwrap();
    }
    let before = w.clone();
    assert!(!opt.flush(&mut w).unwrap().moved);
    assert!(difference(&w, &before) == 0.0 && opt.steps() == 1);
}
