//! The calls, and what is an error between them.

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, array};

use super::{Pair, bits, difference, grads, pair, pair_in, perturbed, two_calls};

fn refused<T: std::fmt::Debug>(result: gradus::Result<T>) -> StepError {
    match result.unwrap_err() {
        Error::Step(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_step_is_along_the_gradient_at_the_perturbed_point() {
    let (mut opt, mut params) = (Momentum::new(0.1, 0.9).sam(0.5), pair(0));
    let (mut inner, mut expected) = (Momentum::new(0.1, 0.9), pair(0));
    for step in 0..4 {
        let first = grads(&expected, step);
        let there = perturbed(&expected, &first, 0.5);
        let ascended = opt.ascend(&mut params, &first).unwrap();
        assert!(
            ascended.moved && ascended.grad_norm.unwrap() > 1.0 && opt.has_ascended() && opt.steps() == step as u64
        );
        assert!(difference(&params, &there) < 1e-14);
        let second = grads(&params, step);
        assert!(opt.step(&mut params, &second).unwrap().moved && !opt.has_ascended());
        inner.step(&mut expected, &second).unwrap();
        assert_eq!(bits(&params), bits(&expected));
    }
    assert_eq!(opt.inner().state_dict(), inner.state_dict());
}

#[test]
fn a_closure_is_called_at_both_points() {
    let (mut opt, mut params, mut other) = (Adam::new(0.1).sam(0.5), pair(0), pair(0));
    let mut calls = Adam::new(0.1).sam(0.5);
    for step in 0..3 {
        let mut seen = Vec::new();
        let report = opt.step_with(&mut params, |params: &Pair| {
            seen.push(params.clone());
            (seen.len() as f32, grads(params, step))
        });
        let report = report.unwrap();
        assert!(report.step.moved && (report.loss, report.perturbed_loss) == (1.0, Some(2.0)));
        assert_eq!(bits(&seen[0]), bits(&other));
        assert!(difference(&seen[1], &perturbed(&other, &grads(&other, step), 0.5)) < 1e-14);
        two_calls(&mut calls, &mut other, step);
        assert_eq!(bits(&params), bits(&other));
    }
    assert_eq!(opt.state_dict(), calls.state_dict());
}

/// Whatever they are: −0, subnormal, infinite, NaN.
#[test]
fn parameters_return_bit_for_bit() {
    let start = array![-0.0, 5e-324, f64::INFINITY, f64::NAN, 1e300, 0.1];
    let same = |w: &Array1<f64>| w.iter().zip(&start).all(|(a, b)| a.to_bits() == b.to_bits());
    for adaptive in [false, true] {
        let (mut opt, mut w) = (Sgd::new(1.0).sam(0.5), start.clone());
        if adaptive {
            w = array![-0.0, 5e-324, 1.0, 2.0, 1e30, 0.1];
            opt = opt.adaptive(0.01);
        }
        let begin = w.clone();
        opt.ascend(&mut w, &Array1::from_elem(6, 0.3)).unwrap();
        assert!(opt.has_ascended() && w[0] > 0.0 && w[1] > 5e-324);
        opt.retreat(&mut w).unwrap();
        assert!(w.iter().zip(&begin).all(|(a, b)| a.to_bits() == b.to_bits()) && !opt.has_ascended());
    }
    // In a step of which the gradient is `None`, nothing but the return remains.
    let (mut opt, mut w) = (Sgd::new(1.0).sam(0.5), start.clone());
    opt.ascend(&mut w, &Array1::from_elem(6, 0.3)).unwrap();
    assert!(!same(&w));
    opt.step(&mut w, &None::<Array1<f64>>).unwrap();
    assert!(same(&w));
}

#[test]
fn layouts_and_threads_do_not_change_the_bits() {
    let run = |column_major: bool| {
        let mut params = pair_in(0, column_major);
        let mut opt = Momentum::new(0.1, 0.9).sam(0.5).adaptive(0.01).surrogate_gap(0.4);
        (0..3).for_each(|step| two_calls(&mut opt, &mut params, step));
        bits(&params)
    };
    let expected = run(false);
    assert_eq!(run(true), expected);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| run(false)), expected, "{threads} threads");
    }
}

#[test]
fn a_forgotten_call_is_an_error() {
    let mut opt = Adam::new(0.1).sam(0.05).surrogate_gap(0.5).ema(0.9).boxed();
    let mut params = pair(0);
    for step in 0..2 {
        let (before, state) = (params.clone(), opt.state_dict());
        let first = grads(&params, step);
        assert_eq!(refused(opt.step(&mut params, &first)), StepError::NotAscended);
        assert!(bits(&params) == bits(&before) && opt.state_dict() == state);

        opt.ascend(&mut params, &first).unwrap();
        let (there, state) = (params.clone(), opt.state_dict());
        assert_eq!(refused(opt.ascend(&mut params, &first)), StepError::AlreadyAscended);
        assert_eq!(refused(opt.step_with(&mut params, |_: &Pair| (0.0, pair(0)))), StepError::AlreadyAscended);
        #[cfg(feature = "checkpoint")]
        assert_eq!(refused(gradus::checkpoint::Checkpoint::of(&params, &opt)), StepError::AlreadyAscended);
        assert!(bits(&params) == bits(&there) && opt.state_dict() == state);
        opt.retreat(&mut params).unwrap();
        assert_eq!(bits(&params), bits(&before));
        #[cfg(feature = "checkpoint")]
        assert!(gradus::checkpoint::Checkpoint::of(&params, &opt).is_ok());
        two_calls(&mut opt, &mut params, step);
    }
}

#[test]
fn a_chain_that_cannot_ascend_says_why() {
    let (mut w, g) = (array![1.0], array![1.0]);
    let said = |mut opt: Box<dyn Optimizer<f64>>, w: &mut Array1<f64>| opt.ascend(w, &g).unwrap_err().to_string();
    assert!(said(Box::new(Adam::new(0.1).clip_value(1.0)), &mut w).contains("it has no `sam`"));
    assert!(Adam::new(0.1).retreat(&mut w).unwrap_err().to_string().contains("it has no `sam`"));
    let branch = Adam::new(0.1).route("**", Sgd::new(0.1).sam(0.05)).ema(0.9);
    assert!(said(Box::new(branch), &mut w).contains("write `sam` after `route`"));
    assert_eq!(w, array![1.0]);
    // A router inside is no other than another optimizer.
    let mut opt = Adam::new(0.1).route("**", Sgd::new(0.5)).sam(0.25);
    opt.ascend(&mut w, &g).unwrap();
    assert!((w[0] - 1.25).abs() < 1e-9);
    opt.step(&mut w, &g).unwrap();
    assert_eq!(w, array![0.5]);
}

#[test]
fn an_error_at_either_gradient_loses_nothing() {
    let chain = || Adam::new(0.1).sam(0.5).surrogate_gap(0.5).check_finite();
    let (mut opt, mut params) = (chain(), pair(0));
    two_calls(&mut opt, &mut params, 0);
    let (before, state) = (params.clone(), opt.state_dict());
    let mut wrong = pair(3);
    wrong.0[[5, 7]] = f64::NAN;

    // Two calls: each that fails has changed nothing.
    assert!(matches!(refused(opt.ascend(&mut params, &wrong)), StepError::NonFiniteGradient { .. }));
    assert!(bits(&params) == bits(&before) && opt.state_dict() == state);
    let first = grads(&params, 1);
    opt.ascend(&mut params, &first).unwrap();
    let (there, between) = (params.clone(), opt.state_dict());
    assert!(matches!(refused(opt.step(&mut params, &wrong)), StepError::NonFiniteGradient { .. }));
    assert!(bits(&params) == bits(&there) && opt.state_dict() == between);
    opt.retreat(&mut params).unwrap();
    assert!(bits(&params) == bits(&before) && opt.state_dict() == state);

    // One call: the parameters are back, whichever gradient it was. An error of the optimizer inside is one too.
    for wrong_at in 0..2 {
        let mut calls = 0;
        let result = opt.step_with(&mut params, |params: &Pair| {
            calls += 1;
            (0.0, if calls == wrong_at + 1 { wrong.clone() } else { grads(params, 1) })
        });
        assert!(matches!(refused(result), StepError::NonFiniteGradient { .. }));
        assert!(bits(&params) == bits(&before) && opt.state_dict() == state, "{wrong_at}");
    }
    let mut inside = Adam::new(0.1).check_finite().sam(0.5);
    let mut calls = 0;
    let result = inside.step_with(&mut params, |params: &Pair| {
        calls += 1;
        (0.0, if calls == 2 { wrong.clone() } else { grads(params, 1) })
    });
    assert!(result.is_err() && bits(&params) == bits(&before) && inside.steps() == 0);

    // And the loop goes on as if nothing had been.
    let (mut twin, mut other) = (chain(), pair(0));
    two_calls(&mut twin, &mut other, 0);
    two_calls(&mut twin, &mut other, 1);
    two_calls(&mut opt, &mut params, 1);
    assert!(bits(&params) == bits(&other) && opt.state_dict() == twin.state_dict());
}

#[test]
fn training_resumes_between_the_calls() {
    let chain = || Adam::new(0.1).sam(0.5).adaptive(0.01).surrogate_gap(0.5).ema(0.9);
    let (mut opt, mut params) = (chain(), pair(0));
    two_calls(&mut opt, &mut params, 0);
    let first = grads(&params, 1);
    opt.ascend(&mut params, &first).unwrap();
    let (mut resumed, mut other) = (chain(), params.clone());
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    assert!(resumed.find::<gradus::adaptor::Sam<f64>>().is_some_and(|sam| sam.has_ascended()));
    for (opt, params) in [(&mut opt, &mut params), (&mut resumed, &mut other)] {
        let second = grads(params, 1);
        opt.step(params, &second).unwrap();
        two_calls(opt, params, 2);
    }
    assert!(bits(&params) == bits(&other) && opt.state_dict() == resumed.state_dict());

    // At the start, the copies are no part of the state.
    let state: StateDict = opt.state_dict();
    assert!(state.keys().all(|key| !key.contains("start") && !key.contains("first_grad")), "{state:?}");
}

#[test]
fn values_out_of_range_are_refused() {
    let said = |mut opt: Box<dyn Optimizer<f32>>, grad: f32| {
        let mut w = array![1.0_f32];
        let error = opt.ascend(&mut w, &array![grad]).unwrap_err().to_string();
        assert_eq!(w, array![1.0]);
        error
    };
    assert!(said(Box::new(Sgd::new(0.1).sam(-0.1)), 1.0).starts_with("rho is -0.1 at step 0"));
    assert!(said(Box::new(Sgd::new(0.1).sam(f64::NAN)), 1.0).starts_with("rho is NaN"));
    assert!(said(Box::new(Sgd::new(0.1).sam(0.1).adaptive(-1.0)), 1.0).starts_with("eta is -1"));
    assert!(said(Box::new(Sgd::new(0.1).sam(0.1).surrogate_gap(1.5)), 1.0).starts_with("alpha is 1.5"));
    assert!(said(Box::new(Sgd::new(0.1).sam(1e30)), 1e-10).contains("rho/(‖g‖ + 1e-12)"));
    // A gradient of 0 leads nowhere, without a division by 0.
    let (mut opt, mut w) = (Sgd::new(0.1).sam(0.5), array![1.0_f32]);
    opt.ascend(&mut w, &array![0.0]).unwrap();
    assert_eq!(w, array![1.0]);
}

#[test]
fn a_policy_skips_both_calls() {
    for wrong_at in 0..2 {
        let (mut opt, mut params) = (Adam::new(0.1).sam(0.5).non_finite(NonFinite::Skip), pair(0));
        two_calls(&mut opt, &mut params, 0);
        let (before, state) = (params.clone(), opt.state_dict());
        let mut wrong = pair(3);
        wrong.1[2] = f64::INFINITY;
        let pick = |at: usize, params: &Pair| if at == wrong_at { wrong.clone() } else { grads(params, 1) };
        let first = pick(0, &params);
        assert_eq!(opt.ascend(&mut params, &first).unwrap().moved, wrong_at == 1);
        let mut resumed = Adam::new(0.1).sam(0.5).non_finite(NonFinite::Skip);
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        for opt in [&mut opt, &mut resumed] {
            let mut params = params.clone();
            let second = pick(1, &params);
            assert!(!opt.step(&mut params, &second).unwrap().moved);
            assert!(bits(&params) == bits(&before) && opt.state_dict() == state, "{wrong_at}");
        }
        let mut calls = 0;
        let report = opt.step_with(&mut before.clone(), |params: &Pair| {
            calls += 1;
            (calls as f32, pick(calls - 1, params))
        });
        let report = report.unwrap();
        assert_eq!(
            (report.step.moved, report.perturbed_loss, calls),
            (false, (wrong_at == 1).then_some(2.0), wrong_at + 1)
        );
        assert_eq!(opt.state_dict(), state);
    }
    let (mut opt, mut w) = (Sgd::new(0.1).sam(0.5), array![1.0]);
    assert!(matches!(refused(opt.ascend(&mut w, &array![f64::NAN])), StepError::NonFiniteGradient { .. }));
    assert!(opt.clone().non_finite(NonFinite::Allow).ascend(&mut w, &array![f64::NAN]).is_ok());
}

/// The norm of ASAM is that of the gradients times the parameters: it may not be finite where the gradients are.
#[test]
fn the_adaptive_norm_is_under_the_policy() {
    let chain = || Adam::new(0.1).sam(0.5).adaptive(0.01);
    let cases = [
        (array![1.0, f64::INFINITY], array![0.5, 0.25]),
        (array![1.0, f64::INFINITY], array![0.5, 0.0]),
        (array![f64::NAN, 1.0], array![0.5, 0.25]),
        (array![1.0, 1e200], array![0.5, 1e200]),
    ];
    for (start, grads) in cases {
        let same = |w: &Array1<f64>| w.iter().zip(&start).all(|(a, b)| a.to_bits() == b.to_bits());
        let (mut opt, mut w) = (chain(), start.clone());
        let state = opt.state_dict();
        let expected = match start.iter().position(|w| !w.is_finite()) {
            Some(at) => format!("parameter (root) is {} at index [{at}]", start[at]),
            None => "the gradient norm overflows; the largest element is in (root)".into(),
        };
        assert_eq!(opt.ascend(&mut w, &grads).unwrap_err().to_string(), expected);
        assert!(same(&w) && opt.state_dict() == state && !opt.has_ascended());

        let mut opt = chain().non_finite(NonFinite::Skip);
        assert!(!opt.ascend(&mut w, &grads).unwrap().moved && !opt.has_ascended() && same(&w));
        assert!(!opt.step(&mut w, &grads).unwrap().moved && same(&w) && opt.steps() == 0);
        assert!(chain().non_finite(NonFinite::Allow).ascend(&mut w, &grads).unwrap().moved);
    }
    // What is finite is computed, though the squares are not: here all of ρ is the second element's.
    let (mut opt, mut w) = (Adam::new(0.1).sam(0.5).adaptive(0.0), array![1.0, 1.0]);
    assert!(opt.ascend(&mut w, &array![1.0, 1e200]).unwrap().moved);
    assert!(w[0] == 1.0 && (w[1] - 1.5_f64).abs() < 1e-15, "{w}");
}
