//! `sam` with other adaptors, on either side.

use gradus::adaptor::{Accumulate, Ema};
use gradus::error::StepError;
#[cfg(feature = "half")]
use gradus::params::Element;
use gradus::prelude::*;
use gradus::{Error, Step};
use ndarray::{Array1, Array2, array};

use super::{Pair, bits, difference, grads, pair, perturbed, two_calls};

/// If gradients do not depend on the parameters, both are the same, and SAM is the optimizer inside: for every adaptor around.
#[test]
fn without_curvature_it_is_the_optimizer_inside() {
    type Wrap = fn(Box<dyn Optimizer<f64>>) -> Box<dyn Optimizer<f64>>;
    let wraps: Vec<(&str, Wrap)> = vec![
        ("nothing", |opt| opt),
        ("ema", |opt| Box::new(opt.ema(0.9).warmup(true))),
        ("swa", |opt| Box::new(opt.swa(1, 2))),
        ("lookahead", |opt| Box::new(opt.lookahead(2, 0.5))),
        ("freeze", |opt| Box::new(opt.freeze("1"))),
        ("group", |opt| Box::new(opt.group("0", Group::new().learning_rate(0.3).weight_decay(0.1)))),
        ("clip_value", |opt| Box::new(opt.clip_value(0.5))),
        ("clip_global_norm", |opt| Box::new(opt.clip_global_norm(0.5))),
        ("layerwise_decay", |opt| Box::new(opt.layerwise_decay(0.5, ["0", "1"]))),
        ("unscale", |opt| Box::new(opt.unscale(8.0))),
        ("maximize, centralize", |opt| Box::new(opt.maximize().centralize())),
        ("check_finite", |opt| Box::new(opt.check_finite().skip_nonfinite())),
    ];
    type Inner = fn() -> Box<dyn Optimizer<f64>>;
    let inners: [Inner; 5] = [
        || Box::new(AdamW::new(0.1)),
        || Box::new(SgdScheduleFree::new(0.1).weight_decay(0.1)),
        || Box::new(AdamW::new(0.1).route("0", Muon::new(0.1))),
        || Box::new(Adam::new(0.1).ema(0.9).accumulate(2)),
        || Box::new(Prodigy::new(1.0)),
    ];
    for (name, wrap) in wraps {
        for (at, inner) in inners.iter().enumerate() {
            let (mut opt, mut params) = (wrap(Box::new(inner().sam(0.5))), pair(0));
            let (mut plain, mut expected) = (wrap(inner()), pair(0));
            for step in 0..5 {
                let grads = pair(50 + step);
                assert!(opt.ascend(&mut params, &grads).unwrap().moved);
                assert_ne!(params.0, expected.0);
                let report = opt.step(&mut params, &grads).unwrap();
                assert_eq!(report, plain.step(&mut expected, &grads).unwrap(), "{name}, {at}");
                assert_eq!(bits(&params), bits(&expected), "{name}, {at}");
            }
            let read = |opt: &dyn Optimizer<f64>| {
                let mut average = pair(7);
                if let Some(ema) = opt.find::<Ema<f64>>() {
                    ema.read(&mut average).unwrap();
                }
                bits(&average)
            };
            assert_eq!(read(&*opt), read(&*plain), "{name}, {at}");
        }
    }
}

#[test]
fn only_tensors_with_a_gradient_are_perturbed() {
    let mut opt = Sgd::new(0.1).sam(0.5).freeze("1");
    let (mut params, start) = (pair(0), pair(0));
    opt.ascend(&mut params, &pair(1)).unwrap();
    assert!(params.0 != start.0 && params.1 == start.1);
    // The norm is that of the tensors that are perturbed.
    let squares: f64 = pair(1).0.iter().map(|g| g * g).sum();
    assert!(difference(&params, &(&start.0 + &(&pair(1).0 * (0.5 / squares.sqrt())), start.1.clone())) < 1e-14);
    opt.step(&mut params, &pair(1)).unwrap();
    assert!(params.0 != start.0 && params.1 == start.1);

    // `None` in one of the calls.
    let mut opt = Sgd::new(0.1).sam(0.5);
    let (mut params, start) = (pair(0), pair(0));
    opt.ascend(&mut params, &(pair(1).0, None::<Array1<f64>>)).unwrap();
    assert!(params.0 != start.0 && params.1 == start.1);
    opt.step(&mut params, &(None::<Array2<f64>>, pair(1).1)).unwrap();
    assert!(params.0 == start.0 && params.1 == &start.1 - &(0.1 * &pair(1).1));
    // What is held is that of the last ascent.
    opt.ascend(&mut params, &(None::<Array2<f64>>, None::<Array1<f64>>)).unwrap();
    opt.step(&mut params, &(None::<Array2<f64>>, None::<Array1<f64>>)).unwrap();
    assert_eq!(params.0, start.0);
}

#[test]
fn rows_perturb_rows() {
    let (start, rows) = (Array2::from_shape_fn((6, 3), |(i, j)| (i + j) as f64), vec![4, 1]);
    let values = array![[1.0, 2.0, 3.0], [-1.0, 0.5, 0.25]];
    let mut dense = Array2::zeros((6, 3));
    dense.row_mut(4).assign(&values.row(0));
    dense.row_mut(1).assign(&values.row(1));
    for adaptive in [false, true] {
        let opt = || if adaptive { Sgd::new(0.1).sam(0.5).adaptive(0.1) } else { Sgd::new(0.1).sam(0.5) };
        let (mut sparse, mut full, mut w, mut v) = (opt(), opt(), start.clone(), start.clone());
        sparse.ascend(&mut w, &Rows::new(rows.clone(), values.clone())).unwrap();
        full.ascend(&mut v, &dense).unwrap();
        assert!(w == v && w.row(0) == start.row(0) && w.row(4) != start.row(4));
        sparse.step(&mut w, &Rows::new(rows.clone(), values.clone())).unwrap();
        full.step(&mut v, &dense).unwrap();
        assert!(w == v && w == &start - &(0.1 * &dense));
    }
    let mut opt = Sgd::new(0.1).sam(0.5).surrogate_gap(0.5);
    let error = opt.ascend(&mut start.clone(), &Rows::new(rows, values)).unwrap_err();
    assert!(error.to_string().starts_with("surrogate_gap cannot use the gradient of rows"), "{error}");
}

#[test]
fn clipping_inside_sees_the_second_gradient_only() {
    let (mut params, start) = (pair(0), pair(0));
    let mut opt = Sgd::new(1.0).clip_value(0.01).sam(0.5);
    let first = grads(&params, 0);
    opt.ascend(&mut params, &first).unwrap();
    assert!(difference(&params, &perturbed(&start, &first, 0.5)) < 1e-14);
    let second = grads(&params, 0);
    opt.step(&mut params, &second).unwrap();
    assert!(params.0 == &start.0 - &second.0.mapv(|g| g.clamp(-0.01, 0.01)));

    let mut outside = Sgd::new(1.0).sam(0.5).clip_value(0.01);
    let mut params = pair(0);
    outside.ascend(&mut params, &first).unwrap();
    let clipped = |g: &Pair| (g.0.mapv(|g| g.clamp(-0.01, 0.01)), g.1.mapv(|g| g.clamp(-0.01, 0.01)));
    assert!(difference(&params, &perturbed(&start, &clipped(&first), 0.5)) < 1e-14);
}

/// Inside, each micro-batch has a perturbation of its own; outside, all have one together.
#[test]
fn accumulation_is_inside_or_outside() {
    let (mut inside, mut params, start) = (Sgd::new(0.1).accumulate(2).sam(0.5), pair(0), pair(0));
    let seconds = [0, 1].map(|micro| grads(&perturbed(&start, &grads(&start, micro), 0.5), micro));
    for micro in 0..2 {
        let first = grads(&params, micro);
        assert!(inside.ascend(&mut params, &first).unwrap().moved);
        let second = grads(&params, micro);
        assert_eq!(inside.step(&mut params, &second).unwrap().moved, micro == 1);
    }
    let mean = (0.5 * (&seconds[0].0 + &seconds[1].0), 0.5 * (&seconds[0].1 + &seconds[1].1));
    assert!(difference(&params, &(&start.0 - &(0.1 * &mean.0), &start.1 - &(0.1 * &mean.1))) < 1e-13);

    let (mut outside, mut params) = (Sgd::new(0.1).sam(0.5).accumulate(2), pair(0));
    let firsts = [0, 1].map(|micro| grads(&start, micro));
    let mean = (0.5 * (&firsts[0].0 + &firsts[1].0), 0.5 * (&firsts[0].1 + &firsts[1].1));
    assert!(!outside.ascend(&mut params, &firsts[0]).unwrap().moved);
    // A step in between is an error, and the sum is as it was.
    assert_eq!(outside.step(&mut params, &firsts[1]).unwrap_err(), Error::Step(StepError::NotAscended));
    assert!(outside.gathered() == 1 && bits(&params) == bits(&start));
    assert!(outside.ascend(&mut params, &firsts[1]).unwrap().moved);
    assert!(difference(&params, &perturbed(&start, &mean, 0.5)) < 1e-14);
    let there = params.clone();
    assert!(!outside.step(&mut params, &grads(&there, 0)).unwrap().moved);
    assert_eq!(outside.ascend(&mut params, &firsts[0]).unwrap_err(), Error::Step(StepError::AlreadyAscended));
    assert!(outside.step(&mut params, &grads(&there, 1)).unwrap().moved);
    let seconds = [0, 1].map(|micro| grads(&there, micro));
    let mean = (0.5 * (&seconds[0].0 + &seconds[1].0), 0.5 * (&seconds[0].1 + &seconds[1].1));
    assert!(difference(&params, &(&start.0 - &(0.1 * &mean.0), &start.1 - &(0.1 * &mean.1))) < 1e-14);
    assert_eq!(outside.steps(), 1);

    // One call cannot be k calls of either.
    let state = outside.state_dict();
    let before = params.clone();
    let error = outside.step_with(&mut params, |params: &Pair| (0.0, grads(params, 0))).unwrap_err();
    assert!(error.to_string().contains("write `accumulate` before `sam`"), "{error}");
    assert!(bits(&params) == bits(&before) && outside.state_dict() == state);
    assert_eq!(outside.find::<Accumulate<f64>>().map(Accumulate::gathered), Some(0));
}

/// After `retreat`, the second gradients that were gathered belong to no step: the next one has new first gradients.
#[test]
fn second_gradients_are_not_mixed_with_first_ones() {
    let chain = || Adam::new(0.1).sam(0.5).surrogate_gap(0.3).accumulate(2);
    for skipped in [false, true] {
        let (mut opt, mut params) = (Adam::new(0.1).sam(0.5).non_finite(NonFinite::Skip).accumulate(2), pair(0));
        let mut first = pair(1);
        if skipped {
            first.1[0] = f64::INFINITY;
        }
        assert!(!opt.ascend(&mut params, &pair(1)).unwrap().moved);
        assert_eq!(opt.ascend(&mut params, &first).unwrap().moved, !skipped);
        assert!(!opt.step(&mut params, &pair(2)).unwrap().moved && opt.gathered() == 1);
        // A resumed run knows what its sum is of.
        let mut resumed = Adam::new(0.1).sam(0.5).non_finite(NonFinite::Skip).accumulate(2);
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        for opt in [&mut opt, &mut resumed] {
            let mut params = params.clone();
            opt.retreat(&mut params).unwrap();
            assert!(opt.gathered() == 0 && bits(&params) == bits(&pair(0)));
            assert!(!opt.ascend(&mut params, &pair(3)).unwrap().moved);
            assert!(opt.ascend(&mut params, &pair(3)).unwrap().moved);
            assert!(difference(&params, &perturbed(&pair(0), &pair(3), 0.5)) < 1e-14);
        }
    }
    // First gradients stay, as the parameters are where they were.
    let (mut opt, mut params) = (chain(), pair(0));
    opt.ascend(&mut params, &pair(1)).unwrap();
    opt.retreat(&mut params).unwrap();
    assert_eq!(opt.gathered(), 1);
    // And so does the sum of an `accumulate` inside, whose micro-batches are steps of `sam`.
    let (mut inside, mut params) = (Sgd::new(0.1).accumulate(2).sam(0.5), pair(0));
    two_calls_of_a_micro_batch(&mut inside, &mut params);
    let state = inside.state_dict();
    inside.ascend(&mut params, &pair(1)).unwrap();
    inside.retreat(&mut params).unwrap();
    assert!(inside.inner().gathered() == 1 && inside.state_dict() == state);
    let report = inside.step_with(&mut params, |params: &Pair| (0.0, grads(params, 1))).unwrap();
    assert!(report.step.moved && inside.inner().gathered() == 0);
}

fn two_calls_of_a_micro_batch(opt: &mut impl Optimizer<f64>, params: &mut Pair) {
    assert!(opt.ascend(params, &pair(1)).unwrap().moved);
    assert!(!opt.step(params, &pair(1)).unwrap().moved);
}

/// While first gradients are summed up, `step_with` is an error: it does not call its closure, and the sum can go on.
#[test]
fn a_closure_does_not_fill_a_sum() {
    let (mut opt, mut params) = (Adam::new(0.1).sam(0.5).accumulate(2), pair(0));
    opt.ascend(&mut params, &pair(1)).unwrap();
    let (state, mut calls) = (opt.state_dict(), 0);
    let mut resumed = Adam::new(0.1).sam(0.5).accumulate(2);
    resumed.load_state_dict(&state).unwrap();
    for opt in [&mut opt, &mut resumed] {
        let error = opt.step_with(&mut params, |params: &Pair| {
            calls += 1;
            (0.0, grads(params, 0))
        });
        assert!(error.unwrap_err().to_string().contains("write `accumulate` before `sam`"));
        assert!(calls == 0 && opt.state_dict() == state && bits(&params) == bits(&pair(0)));
    }
    // With a sum of one there is nothing in the middle.
    let (mut one, mut other) = (Adam::new(0.1).sam(0.5).accumulate(1), pair(0));
    assert!(one.step_with(&mut other, |params: &Pair| (0.0, grads(params, 0))).unwrap().step.moved);
}

/// An adaptor outside that skips the second gradient leaves the parameters at the perturbed point, and a closure brings them back.
#[test]
fn a_step_that_is_skipped_outside_is_taken_back() {
    let (mut opt, mut params) = (Adam::new(0.1).sam(0.5).skip_nonfinite(), pair(0));
    let mut wrong = pair(3);
    wrong.1[2] = f64::NAN;
    let mut calls = 0;
    let report = opt.step_with(&mut params, |params: &Pair| {
        calls += 1;
        (0.0, if calls == 2 { wrong.clone() } else { grads(params, 0) })
    });
    assert!(!report.unwrap().step.moved && bits(&params) == bits(&pair(0)) && opt.skipped() == 1);
    let first = grads(&params, 0);
    opt.ascend(&mut params, &first).unwrap();
    assert!(!opt.step(&mut params, &wrong).unwrap().moved);
    opt.retreat(&mut params).unwrap();
    assert_eq!(bits(&params), bits(&pair(0)));
    // The first gradient, outside.
    let report = opt.step_with(&mut params, |_: &Pair| (0.0, wrong.clone())).unwrap();
    assert!(!report.step.moved && report.perturbed_loss.is_none() && bits(&params) == bits(&pair(0)));
    two_calls(&mut opt, &mut params, 0);
}

#[test]
fn averages_that_are_swapped_in_are_not_perturbed() {
    let (mut opt, mut params) = (AdamWScheduleFree::new(0.1).sam(0.5), pair(0));
    two_calls(&mut opt, &mut params, 0);
    opt.inner_mut().swap(&mut params).unwrap();
    let before = bits(&params);
    assert_eq!(opt.ascend(&mut params, &pair(1)).unwrap_err(), Error::Step(StepError::Swapped));
    assert_eq!(bits(&params), before);
    opt.inner_mut().swap(&mut params).unwrap();
    two_calls(&mut opt, &mut params, 1);
}

/// A transform may remove tensors from a step: those that have moved must not stay at the perturbed point.
#[test]
fn every_tensor_must_return() {
    let mut opt = Sgd::new(0.1).sam(0.5);
    let (mut params, start) = (pair(0), pair(0));
    opt.ascend(&mut params, &pair(1)).unwrap();
    let there = bits(&params);
    let second = pair(1);
    let layout = opt.layout().cloned();
    let step = Step::pair(&mut params, &second, layout.as_ref()).unwrap();
    let mut parts = step.split(2, |info, _| usize::from(info.path() == "1"));
    let error = opt.apply(parts.remove(0)).unwrap_err();
    assert!(error.to_string().contains("removed tensors"), "{error}");
    drop(parts);
    assert_eq!(bits(&params), there);
    opt.retreat(&mut params).unwrap();
    assert_eq!(bits(&params), bits(&start));
}

#[cfg(feature = "half")]
#[test]
fn sixteen_bits_are_perturbed_outside_of_master_weights() {
    use half::bf16;
    let bf = bf16::from_f64;
    let mut opt = Sgd::new(0.125).master_weights().sam(0.5);
    let mut w = array![bf(1.0), bf(2.0)];
    opt.ascend(&mut w, &array![bf(3.0), bf(4.0)]).unwrap();
    assert_eq!(w, array![bf(1.3), bf(2.4)]);
    opt.step(&mut w, &array![bf(1.0), bf(2.0)]).unwrap();
    assert_eq!(w, array![bf(0.875), bf(1.75)]);
    let mut adaptive = Sgd::new(0.125).master_weights().sam(0.5).adaptive(1.0);
    adaptive.ascend(&mut w, &array![bf(1.0), bf(0.0)]).unwrap();
    assert_eq!(w, array![bf(0.875 + 0.5 * 1.875), bf(1.75)]);

    let mut inside = Sgd::new(0.125).sam(0.5).master_weights();
    let error = inside.ascend(&mut w, &array![bf(1.0), bf(0.0)]).unwrap_err();
    assert!(error.to_string().contains("write `sam` after them"), "{error}");
}

/// Neither α nor the two parts of the sum may make a number too large that the result is not.
#[cfg(feature = "half")]
#[test]
fn the_surrogate_gap_of_sixteen_bits_does_not_overflow() {
    use half::{bf16, f16};
    /// What `sam` passes on along g and h: the same in f64, rounded once.
    fn check<H: Element>(alpha: f64, first: [f64; 3], second: [f64; 3]) {
        let round = |values: [f64; 3]| Array1::from_iter(values.map(H::from_f64));
        let (g, h) = (round(first), round(second));
        let mut opt = Sgd::new(1.0).master_weights().sam(0.0).surrogate_gap(alpha);
        let mut w = round([0.0; 3]);
        opt.ascend(&mut w, &g).unwrap();
        opt.step(&mut w, &h).unwrap();
        let [g, h] = [g, h].map(|x| x.mapv(Element::as_f64));
        let along = 1.0 + alpha * g.dot(&h) / h.dot(&h);
        let expected: Vec<_> = (along * &h - alpha * &g).iter().map(|x| H::from_f64(-x)).collect();
        assert_eq!(w.to_vec(), expected, "{alpha} in {}", H::DTYPE);
        assert!(w.iter().all(|w| w.is_finite()));
    }
    for alpha in [1.0, 0.3, 1e-3, 1e-12] {
        check::<f16>(alpha, [100.0, -3.0, 0.5], [120.0, 7.0, -0.25]);
        check::<f16>(alpha, [50_000.0, -3.0, 0.5], [30_000.0, 7.0, 40_000.0]);
        check::<bf16>(alpha, [100.0, -3.0, 0.5], [120.0, 7.0, -0.25]);
    }
    // In f32 the same for an α that is all but 0.
    let (mut opt, mut w) = (Sgd::new(0.5).sam(0.0).surrogate_gap(1e-37), array![1.0_f32, 2.0]);
    opt.ascend(&mut w, &array![1.0, 2.0]).unwrap();
    opt.step(&mut w, &array![100.0, 200.0]).unwrap();
    assert_eq!(w, array![-49.0, -98.0]);
    let (mut opt, mut w) = (Sgd::new(0.5).sam(0.0).surrogate_gap(1e-42), array![1.0_f32, 2.0]);
    opt.ascend(&mut w, &array![1.0, 2.0]).unwrap();
    opt.step(&mut w, &array![1.0, 2.0]).unwrap();
    assert_eq!(w, array![0.5, 1.0]);
}
