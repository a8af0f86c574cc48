//! Where clipping could go wrong unseen: state after a skipped step, norms at the ends of the range, trees in any layout.

use gradus::Error;
use gradus::adaptor::{Adapted, Transforming};
use gradus::clip::{self, Adaptive, Norm, Value};
use gradus::error::StepError;
use gradus::prelude::*;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, ShapeBuilder, array, s};

use super::{Clipping, Probe};

type Tree<A> = (Array1<A>, Array2<A>, Array1<A>);

fn tree<A: Scalar>(phase: f64) -> Tree<A> {
    let number = |i: usize| A::from_f64(3.0 * (i as f64 * 0.7 + phase).sin());
    let matrix = Array2::from_shape_fn((3, 4), |(i, j)| number(5 + 4 * i + j));
    (Array1::from_shape_fn(5, number), matrix, Array1::from_shape_fn(2, |i| number(17 + i)))
}

/// NaN equals itself, and 0 is not −0.
fn bits<A: Scalar>((first, second, third): &Tree<A>) -> Vec<u64> {
    first.iter().chain(second).chain(third).map(|value| value.as_f64().to_bits()).collect()
}

/// Runs a generic check on every kind of clipper in both element types.
macro_rules! every_clipper {
    ($check:ident) => {
        every_clipper!($check, f32);
        every_clipper!($check, f64);
    };
    ($check:ident, $element:ty) => {
        $check::<$element, _>(Norm::global(1.0));
        $check::<$element, _>(Norm::global(1.0).p(1.0).exact(true));
        $check::<$element, _>(Norm::global(1.0).p(3.0));
        $check::<$element, _>(Norm::global(1.0).p(f64::INFINITY));
        $check::<$element, _>(Norm::per_tensor(1.0));
        $check::<$element, _>(Norm::per_tensor(1.0).p(f64::INFINITY).exact(true));
        $check::<$element, _>(Value::new(0.5));
        $check::<$element, _>(Adaptive::new(0.5));
        $check::<$element, _>(Adaptive::new(0.5).eps(0.0));
    };
}

/// Two tensors are broken, the second of them in two places.
fn broken<A: Scalar>(value: A) -> Tree<A> {
    let mut broken = tree(1.0);
    broken.1[[1, 2]] = value;
    broken.1[[2, 0]] = -A::infinity();
    broken.2[0] = A::nan();
    broken
}

fn adam<A: Scalar, C: Clipping<A>>(clipper: &C, policy: NonFinite) -> Adapted<Adam<A>, Transforming<C>> {
    Adam::new(0.1).transform(clipper.clone().policy(policy))
}

/// Everything that a step may change.
fn everything<A: Scalar, C: Clipping<A>>(opt: &Adapted<Adam<A>, Transforming<C>>, params: &Tree<A>) -> (u64, Vec<u64>) {
    let mut all = bits(params);
    for path in ["0", "1", "2"] {
        all.push(opt.inner().tensor_steps(path));
        for slot in ["exp_avg", "exp_avg_sq"] {
            all.extend(opt.inner().slot(path, slot).unwrap().iter().map(|value| value.as_f64().to_bits()));
        }
    }
    (opt.steps(), all)
}

#[test]
fn the_first_broken_element_of_the_first_broken_tensor_is_named() {
    fn check<A: Scalar, C: Clipping<A>>(clipper: C) {
        for value in [A::nan(), A::infinity(), A::neg_infinity()] {
            let (mut opt, mut params) = (adam(&clipper, NonFinite::Error), tree(0.0));
            opt.step(&mut params, &tree(0.5)).unwrap();
            let (before, grads) = (everything(&opt, &params), broken(value));
            let error = opt.step(&mut params, &grads).unwrap_err();
            let Error::Step(StepError::NonFiniteGradient { path, index, value: found }) = &error else {
                panic!("{error}")
            };
            assert_eq!((path.as_str(), index.as_slice()), ("1", &[1, 2][..]));
            assert!(found.is_nan() == value.is_nan() && (found.is_nan() || *found == value.as_f64()), "{error}");
            assert_eq!(everything(&opt, &params), before);
            assert_eq!(bits(&grads), bits(&broken(value)));
        }
    }
    every_clipper!(check);
}

#[test]
fn a_skipped_step_leaves_parameters_state_and_counters_alone() {
    fn check<A: Scalar, C: Clipping<A>>(clipper: C) {
        let (mut opt, mut params) = (adam(&clipper, NonFinite::Skip), tree(0.0));
        let (mut unbroken, mut expected) = (opt.clone(), params.clone());
        opt.step(&mut params, &tree(0.5)).unwrap();
        unbroken.step(&mut expected, &tree(0.5)).unwrap();
        assert_ne!(bits(&params), bits(&tree::<A>(0.0)));

        let grads = broken(A::nan());
        let report = opt.step(&mut params, &grads).unwrap();
        assert!(!report.moved && report.grad_norm.is_some_and(|norm| !norm.is_finite()));
        assert_eq!(everything(&opt, &params), everything(&unbroken, &expected));
        assert_eq!(bits(&grads), bits(&broken(A::nan())));

        opt.step(&mut params, &tree(2.0)).unwrap();
        unbroken.step(&mut expected, &tree(2.0)).unwrap();
        assert_eq!(everything(&opt, &params), everything(&unbroken, &expected));
    }
    every_clipper!(check);
}

/// A broken tensor is let through as it is. Tensors with limits of their own are still clipped; those of a broken whole
/// are not.
#[test]
fn what_is_let_through_is_not_clipped() {
    fn seen<C: Clipping<f64>>(clipper: C) -> Vec<ndarray::ArrayD<f64>> {
        let mut opt = Probe::default().transform(clipper.policy(NonFinite::Allow));
        let grads = (array![3.0, -4.0], array![[6.0, f64::NAN], [8.0, f64::NEG_INFINITY]]);
        let report = opt.step(&mut (array![3.0, 4.0], array![[1.0, 0.0], [0.0, 1.0]]), &grads).unwrap();
        assert!(report.moved && report.grad_norm.is_some_and(|norm| norm.is_nan()) && opt.steps() == 1);
        assert!(opt.inner().seen[1][[0, 1]].is_nan());
        opt.inner().seen.clone()
    }
    for clipper in [Norm::global(1.0), Norm::global(1.0).exact(true), Norm::global(1.0).p(f64::INFINITY)] {
        let seen = seen(clipper);
        assert_eq!(seen[0], array![3.0, -4.0].into_dyn());
        assert_eq!((seen[1][[0, 0]], seen[1][[1, 0]], seen[1][[1, 1]]), (6.0, 8.0, f64::NEG_INFINITY));
    }
    for seen in [seen(Norm::per_tensor(2.5).exact(true)), seen(Adaptive::new(0.5))] {
        assert_eq!(seen[0], array![1.5, -2.0].into_dyn());
        assert_eq!((seen[1][[0, 0]], seen[1][[1, 0]], seen[1][[1, 1]]), (6.0, 8.0, f64::NEG_INFINITY));
    }
    let seen = seen(Value::new(3.5));
    assert_eq!(seen[0], array![3.0, -3.5].into_dyn());
    assert_eq!((seen[1][[0, 0]], seen[1][[1, 0]], seen[1][[1, 1]]), (3.5, 3.5, -3.5));
}

#[test]
fn an_overflowing_norm_is_refused_skipped_or_let_through() {
    let grads = (array![1.0], array![[-f64::MAX, f64::MAX / 2.0]], array![f64::MAX]);
    let params = || (array![1.0], array![[0.0, 0.0]], array![0.0]);
    let overflow = Error::Step(StepError::NormOverflow { path: "1".into() });
    for clipper in [Norm::global(1.0), Norm::global(1.0).p(1.0), Norm::global(1.0).p(3.0), Norm::per_tensor(1.0)] {
        let step = |policy| {
            let (mut opt, mut params) = (Sgd::new(0.5).transform(clipper.clone()).non_finite(policy), params());
            let result = opt.step(&mut params, &grads);
            (result, opt.steps(), params)
        };
        assert_eq!(clipper.clip(&mut grads.clone()), Err(overflow.clone()));
        let (result, steps, after) = step(NonFinite::Error);
        assert_eq!((result.unwrap_err(), steps, after), (overflow.clone(), 0, params()));
        let (result, steps, after) = step(NonFinite::Skip);
        let report = result.unwrap();
        assert_eq!((report.moved, report.grad_norm, steps, after), (false, Some(f64::INFINITY), 0, params()));
        let (result, steps, after) = step(NonFinite::Allow);
        let report = result.unwrap();
        assert_eq!((report.moved, report.grad_norm, steps), (true, Some(f64::INFINITY), 1));
        assert_eq!(after.1[[0, 0]], f64::MAX / 2.0);
    }
    // The largest element is always representable.
    assert_eq!(Norm::global(1.0).p(f64::INFINITY).clip(&mut grads.clone()), Ok(f64::MAX));
}

/// Between the largest element and n^(1/p) times it lies every p-norm, at any scale.
#[test]
fn no_p_takes_a_representable_norm_out_of_range() {
    /// The root divides by p the error that the power multiplied by it.
    const RELATIVE: f64 = 1e-13;
    for p in [1.0, 1.5, 2.0, 3.0, 10.0, 64.0, 700.0, 2000.0, 1e6] {
        for scale in [f64::MAX / 16.0, 1e200, 1e3, 1.0, 0.3, 1e-3, 1e-160, 1e-290] {
            let mut grads = array![0.75 * scale, -scale, 0.5 * scale, 0.0];
            let sum = [0.75_f64, 1.0, 0.5].iter().map(|x| x.powf(p)).sum::<f64>();
            let expected = sum.powf(1.0 / p) * scale;
            let norm = Norm::global(f64::MAX).p(p).clip(&mut grads);
            let norm = norm.unwrap_or_else(|error| panic!("p = {p}, scale {scale:e}: {error}"));
            assert!((norm / expected - 1.0).abs() < RELATIVE, "p = {p}, scale {scale:e}: {norm:e} for {expected:e}");
        }
        let smallest = f64::from_bits(8);
        let norm = Norm::global(1.0).p(p).clip(&mut array![smallest, -smallest]).unwrap();
        assert!((smallest..=2.0 * smallest).contains(&norm), "p = {p}: {norm:e}");
    }
}

#[test]
fn gradients_at_the_ends_of_the_range_are_clipped_to_the_norm() {
    /// The factor for f32::MAX is 1.5e-39, below the least normal number, and has the digits that are left there.
    const F32_RELATIVE: f64 = 1e-6;
    for scale in [f32::MAX, f32::MAX / 1e10, f32::MIN_POSITIVE, f32::from_bits(8)] {
        let mut grads = array![scale, -scale, scale, scale];
        let norm = Norm::global(f64::from(scale).min(1.0)).exact(true).clip(&mut grads).unwrap();
        assert!((norm / (2.0 * f64::from(scale)) - 1.0).abs() < f64::EPSILON, "{scale:e}: {norm:e}");
        let expected = f64::from(scale).min(1.0) / 2.0;
        assert!((f64::from(grads[0]) / expected - 1.0).abs() < F32_RELATIVE, "{scale:e}: {grads}");
    }
    for scale in [f64::MAX / 16.0, 1e160, 1e-160, 1e-290] {
        let mut grads = array![scale, -scale, scale, scale];
        let norm = Norm::global(scale.min(1.0)).exact(true).clip(&mut grads).unwrap();
        assert!((norm / (2.0 * scale) - 1.0).abs() < 4.0 * f64::EPSILON, "{scale:e}: {norm:e}");
        assert!((grads[0] / (scale.min(1.0) / 2.0) - 1.0).abs() < 4.0 * f64::EPSILON, "{scale:e}: {grads}");
    }
}

/// Clips a matrix in every layout; what lies between its elements must stay.
#[test]
fn functions_write_the_same_bits_into_any_layout() {
    const BETWEEN: f64 = 7.0;
    let (rows, columns) = (67, 131);
    let c = Array2::from_shape_fn((rows, columns), |(i, j)| ((i * columns + j) as f64 * 0.37).sin());
    let params = Array2::from_shape_fn((rows, columns), |(i, j)| ((i + 3 * j) as f64 * 0.11).cos());
    type Way = fn(&mut ArrayViewMut2<'_, f64>, &Array2<f64>) -> gradus::Result<f64>;
    let ways: [Way; 5] = [
        |grads, _| clip::global_norm(grads, 1.0),
        |grads, _| Norm::global(1.0).p(3.0).exact(true).clip(grads),
        |grads, _| clip::per_tensor_norm(grads, 1.0),
        |grads, _| clip::value(grads, 0.25),
        |grads, params| clip::adaptive(grads, params, 0.5),
    ];
    for way in ways {
        let bits = |view: ArrayView2<'_, f64>| view.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let mut expected = c.clone();
        let norm = way(&mut expected.view_mut(), &params).unwrap();
        assert_ne!(bits(expected.view()), bits(c.view()));

        let mut fortran = Array2::zeros((rows, columns).f());
        fortran.assign(&c);
        assert_eq!(way(&mut fortran.view_mut(), &params).unwrap().to_bits(), norm.to_bits());
        assert_eq!(bits(fortran.view()), bits(expected.view()));

        let mut wide = Array2::from_elem((2 * rows, 3 * columns), BETWEEN);
        let mut backwards = wide.slice_mut(s![..;-2, ..;-3]);
        backwards.assign(&c);
        assert_eq!(way(&mut backwards, &params).unwrap().to_bits(), norm.to_bits());
        assert_eq!(bits(backwards.view()), bits(expected.view()));
        assert_eq!(wide.iter().filter(|value| **value == BETWEEN).count(), 5 * rows * columns);
    }
}

/// For a tensor that is large enough to be shared between threads.
#[test]
fn a_clipped_step_has_the_same_bits_on_any_number_of_threads() {
    let grads: Array1<f32> = (0..150_001).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = || {
        let mut params = Array1::zeros(grads.len());
        let report = Sgd::new(1.0).clip_global_norm(1.0).step(&mut params, &grads).unwrap();
        let bits: Vec<u32> = params.iter().map(|value: &f32| value.to_bits()).collect();
        (report.grad_norm.unwrap().to_bits(), bits)
    };
    let expected = run();
    assert!(f64::from_bits(expected.0) > 1.0);
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(run) == expected, "{threads} threads");
    }
}

/// The limit of a schedule is that of the steps taken: calls that were skipped or gathered are none.
#[test]
fn a_scheduled_limit_waits_for_steps_not_taken() {
    let limit = |step: u64| [8.0, 4.0, 2.0][step as usize];
    let mut opt = Probe::default().clip_global_norm(limit).exact(true).non_finite(NonFinite::Skip);
    for (grad, seen) in [(16.0, 8.0), (f64::NAN, 8.0), (16.0, 4.0), (f64::INFINITY, 4.0), (-16.0, -2.0)] {
        opt.step(&mut array![0.0], &array![grad]).unwrap();
        assert_eq!(opt.inner().seen[0][0], seen);
    }
    let mut opt = Probe::default().clip_global_norm(limit).exact(true).accumulate(2);
    for (calls, seen) in [(2, 8.0), (2, 4.0), (2, 2.0)] {
        for _ in 0..calls {
            opt.step(&mut array![0.0], &array![16.0]).unwrap();
        }
        assert_eq!(opt.inner().inner().seen[0][0], seen);
    }
}

/// The mean is clipped, and the report's norm is the mean's; or each part is clipped, and the mean of that taken.
#[test]
fn a_norm_is_of_the_mean_or_of_each_part() {
    let parts = [array![6.0, 0.0], array![0.0, 8.0]];
    let mut of_mean = Probe::default().clip_global_norm(2.5).exact(true).accumulate(2);
    let mut of_parts = Probe::default().accumulate(2).clip_global_norm(1.0).exact(true);
    let reports = parts.each_ref().map(|part| of_mean.step(&mut array![0.0, 0.0], part).unwrap());
    assert_eq!(reports.map(|report| (report.moved, report.grad_norm)), [(false, None), (true, Some(5.0))]);
    assert_eq!(of_mean.inner().inner().seen[0], array![1.5, 2.0].into_dyn());
    let reports = parts.each_ref().map(|part| of_parts.step(&mut array![0.0, 0.0], part).unwrap());
    assert_eq!(reports.map(|report| (report.moved, report.grad_norm)), [(false, Some(6.0)), (true, Some(8.0))]);
    assert_eq!(of_parts.inner().inner().seen[0], array![0.5, 0.5].into_dyn());
}
