//! What all ways of clipping have in common.

use gradus::clip::{self, Adaptive, Norm, Value};
use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, ShapeBuilder, array, s};

use super::{Clipping, Probe};

type Tree = (Array1<f64>, Array2<f64>);

fn grads() -> Tree {
    (array![3.0, -4.0], array![[12.0, 0.5], [0.0, -0.25]])
}

fn params() -> Tree {
    (array![1.0, 1.0], array![[1.0, 2.0], [3.0, 4.0]])
}

fn with(tree: &Tree, value: f64) -> Tree {
    let mut tree = tree.clone();
    tree.1[[1, 0]] = value;
    tree
}

/// NaN is equal to itself.
fn bits(tree: &Tree) -> Vec<u64> {
    tree.0.iter().chain(&tree.1).map(|value| value.to_bits()).collect()
}

/// Calls `law` with every way of clipping as a function and as an adaptor around plain descent.
fn all_ways(law: impl Fn(&str, &dyn Fn(&mut Tree) -> Result<f64>, &dyn Fn(NonFinite) -> Box<dyn Optimizer<f64>>)) {
    fn adaptor<C: Clipping<f64>>(clipper: C) -> impl Fn(NonFinite) -> Box<dyn Optimizer<f64>> {
        move |policy| Box::new(Sgd::new(0.5).transform(clipper.clone().policy(policy)))
    }
    law("global norm", &|grads| clip::global_norm(grads, 1.0), &adaptor(Norm::global(1.0)));
    law("per-tensor norm", &|grads| clip::per_tensor_norm(grads, 1.0), &adaptor(Norm::per_tensor(1.0)));
    law("value", &|grads| clip::value(grads, 1.0), &adaptor(Value::new(1.0)));
    law("adaptive", &|grads| clip::adaptive(grads, &params(), 0.1), &adaptor(Adaptive::new(0.1)));
}

#[test]
fn a_non_finite_gradient_is_an_error_that_names_it_and_changes_nothing() {
    all_ways(|name, function, adaptor| {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut tree = with(&grads(), value);
            let before = bits(&tree);
            let named = |error: &Error| match error {
                Error::Step(StepError::NonFiniteGradient { path, index, value: found }) => {
                    path == "1" && index == &[1, 0] && found.to_bits() == value.to_bits()
                }
                _ => false,
            };
            let error = function(&mut tree).unwrap_err();
            assert!(named(&error), "{name}: {error}");
            assert_eq!(bits(&tree), before, "{name}");

            let (mut opt, mut moved) = (adaptor(NonFinite::Error), params());
            opt.step(&mut moved, &grads()).unwrap();
            let (before, steps) = (moved.clone(), opt.steps());
            let error = opt.step(&mut moved, &tree).unwrap_err();
            assert!(named(&error), "{name}: {error}");
            assert_eq!((bits(&moved), opt.steps()), (bits(&before), steps), "{name}");
        }
    });
}

#[test]
fn a_non_finite_gradient_can_be_skipped_or_let_through() {
    all_ways(|name, _, adaptor| {
        let broken = with(&grads(), f64::NAN);
        let (mut opt, mut moved) = (adaptor(NonFinite::Skip), params());
        let report = opt.step(&mut moved, &broken).unwrap();
        assert!(!report.moved && !report.grad_norm.unwrap().is_finite(), "{name}: {report:?}");
        assert_eq!((moved, opt.steps()), (params(), 0), "{name}");

        let (mut opt, mut moved) = (adaptor(NonFinite::Allow), params());
        let report = opt.step(&mut moved, &broken).unwrap();
        assert!(report.moved && !report.grad_norm.unwrap().is_finite(), "{name}: {report:?}");
        assert!(moved.1[[1, 0]].is_nan() && moved.0.iter().all(|value| value.is_finite()), "{name}");
        assert_eq!(opt.steps(), 1, "{name}");
    });
}

#[test]
fn the_limit_is_checked() {
    for limit in [-1.0, f64::NAN, f64::NEG_INFINITY] {
        let (mut tree, before) = (grads(), grads());
        let errors = [
            clip::global_norm(&mut tree, limit).unwrap_err(),
            clip::per_tensor_norm(&mut tree, limit).unwrap_err(),
            clip::value(&mut tree, limit).unwrap_err(),
            clip::adaptive(&mut tree, &params(), limit).unwrap_err(),
            Norm::global(1.0).p(0.5).clip(&mut tree).unwrap_err(),
            Norm::global(1.0).p(f64::NAN).clip(&mut tree).unwrap_err(),
            Adaptive::new(1.0).eps(-1.0).clip(&mut tree, &params()).unwrap_err(),
        ];
        let names = errors.map(|error| match error {
            Error::Step(StepError::HyperParameter { name, .. }) => name,
            error => panic!("{error}"),
        });
        assert_eq!(names, ["max_norm", "max_norm", "limit", "clipping", "p", "p", "eps"]);
        assert_eq!(tree, before);
    }
}

/// A limit of 0 leaves nothing; one that is never reached changes no bit.
#[test]
fn limits_at_their_ends() {
    all_ways(|name, function, _| {
        let mut zero = (Array1::zeros(2), Array2::zeros((2, 2)));
        assert_eq!(function(&mut zero).unwrap(), 0.0, "{name}");
        assert_eq!(zero, (Array1::zeros(2), Array2::zeros((2, 2))), "{name}");
    });
    let mut tree = grads();
    clip::global_norm(&mut tree, 0.0).unwrap();
    assert!(bits(&tree).iter().all(|bits| f64::from_bits(*bits) == 0.0));
    for clipped in [
        |tree: &mut Tree| clip::global_norm(tree, 14.0),
        |tree: &mut Tree| clip::per_tensor_norm(tree, 14.0),
        |tree: &mut Tree| clip::value(tree, 12.0),
        |tree: &mut Tree| clip::adaptive(tree, &params(), 100.0),
    ] {
        let mut tree = grads();
        clipped(&mut tree).unwrap();
        assert_eq!(tree, grads());
    }
}

/// Infinity is no limit: the norm is measured and nothing is changed.
#[test]
fn an_infinite_limit_only_measures() {
    for measured in [
        |tree: &mut Tree| clip::global_norm(tree, f64::INFINITY),
        |tree: &mut Tree| clip::per_tensor_norm(tree, f64::INFINITY),
        |tree: &mut Tree| clip::adaptive(tree, &params(), f64::INFINITY),
        |tree: &mut Tree| Norm::global(f64::INFINITY).exact(true).clip(tree),
    ] {
        let mut tree = grads();
        assert!((measured(&mut tree).unwrap() - 13.012_013_680_4).abs() < 1e-9);
        assert_eq!(tree, grads());
    }
    let mut tree = grads();
    assert_eq!((clip::value(&mut tree, f64::INFINITY).unwrap(), tree), (12.0, grads()));
}

#[test]
fn norms_neither_overflow_nor_underflow() {
    const EXACT: f64 = 1e-15;
    let is = |norm: f64, expected: f64| (norm - expected).abs() <= EXACT * expected;
    for scale in [1e-320_f64, 1e-310, 1e-200, 1e-160, 1e-30, 1e100, 1e154, 1e200, 1e307] {
        let mut tree = array![3.0 * scale, -4.0 * scale];
        let expected = (tree[0] / scale).hypot(tree[1] / scale) * scale;
        let tolerance = if scale < 1e-307 { f64::from_bits(2) } else { EXACT * expected };
        let norm = clip::global_norm(&mut tree, f64::MAX).unwrap();
        assert!((norm - expected).abs() <= tolerance, "{scale:e}: {norm:e}");
        let cubic = Norm::global(f64::MAX).p(3.0).clip(&mut tree).unwrap();
        assert!((cubic / scale - 91.0_f64.cbrt()).abs() < 1e-2_f64.max(tolerance / scale), "{scale:e}: {cubic:e}");
    }
    let mut largest = array![f32::MAX, f32::MAX, f32::MAX];
    let norm = clip::global_norm(&mut largest, 1.0).unwrap();
    assert!(is(norm, f64::from(f32::MAX) * 3.0_f64.sqrt()), "{norm:e}");
    assert!(largest.iter().all(|x| (x - 1.0 / 3.0_f32.sqrt()).abs() < 1e-6), "{largest}");
    let mut smallest = array![f32::from_bits(1), f32::from_bits(1)];
    let norm = clip::global_norm(&mut smallest, 1.0).unwrap();
    assert!(is(norm, f64::from(f32::from_bits(1)) * 2.0_f64.sqrt()), "{norm:e}");
}

#[test]
fn a_norm_beyond_f64_is_an_error_of_its_own() {
    let mut tree = (array![1.0], array![f64::MAX, f64::MAX]);
    let before = tree.clone();
    assert_eq!(
        clip::global_norm(&mut tree, 1.0).unwrap_err(),
        Error::Step(StepError::NormOverflow { path: "1".into() })
    );
    assert_eq!(tree, before);
    // By value there is no sum that could overflow.
    assert_eq!(clip::value(&mut tree, 1.0).unwrap(), f64::MAX);
    assert_eq!(tree, (array![1.0], array![1.0, 1.0]));
}

/// Rows, columns, strides, threads: the same bits.
#[test]
fn the_norm_has_the_same_bits_in_any_layout_on_any_number_of_threads() {
    let (rows, columns) = (311, 523);
    let number =
        |i: usize, j: usize| ((i * 7919 + j * 104_729) as f64 * 0.37).sin() * 10.0_f64.powi((i % 9) as i32 - 4);
    let c = Array2::from_shape_fn((rows, columns), |(i, j)| number(i, j));
    let mut f = Array2::zeros((rows, columns).f());
    f.assign(&c);
    let mut wide = Array2::zeros((2 * rows, 3 * columns));
    wide.slice_mut(s![..;2, ..;3]).assign(&c);
    let mut backwards = Array2::zeros((rows, columns));
    backwards.slice_mut(s![..;-1, ..;-1]).assign(&c);
    let views = [c.view(), f.view(), wide.slice(s![..;2, ..;3]), backwards.slice(s![..;-1, ..;-1])];

    let norms = |view: ArrayView2<'_, f64>| -> Vec<u64> {
        let ways = [Norm::global(f64::MAX), Norm::global(f64::MAX).p(1.0), Norm::global(f64::MAX).p(3.5)];
        let measure = |norm: Norm| {
            let mut param = Array2::zeros((rows, columns));
            Probe::default().transform(norm).step(&mut param, &view).unwrap().grad_norm.unwrap().to_bits()
        };
        let adaptive = Probe::default().clip_adaptive(1e300).step(&mut c.clone(), &view).unwrap().grad_norm.unwrap();
        ways.map(measure).into_iter().chain([adaptive.to_bits()]).collect()
    };
    let expected = norms(views[0]);
    let naive = c.iter().map(|x| x * x).sum::<f64>().sqrt();
    approx::assert_relative_eq!(f64::from_bits(expected[0]), naive, max_relative = 1e-12);
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (number, view) in views.iter().enumerate() {
            assert_eq!(pool.install(|| norms(*view)), expected, "view {number} on {threads} threads");
        }
    }
}

#[test]
fn a_scheduled_limit_is_that_of_the_step() {
    let mut opt = Probe::default().clip_global_norm(|step: u64| (step + 1) as f64).exact(true);
    for limit in [1.0, 2.0, 3.0] {
        opt.step(&mut array![0.0], &array![8.0]).unwrap();
        assert_eq!(opt.inner().seen[0][0], limit);
    }
    let mut opt = Probe::default().clip_value(|step: u64| (step + 1) as f64);
    for limit in [1.0, 2.0, 3.0] {
        opt.step(&mut array![0.0], &array![-8.0]).unwrap();
        assert_eq!(opt.inner().seen[0][0], -limit);
    }
}

/// The chain from the outside in: first the mean of the micro-batches, then the clip; or each micro-batch clipped.
#[test]
fn clipping_and_accumulating_in_either_order() {
    let micro = [array![6.0], array![-2.0]];
    let mut mean_clipped = Probe::default().clip_value(1.0).accumulate(2);
    let mut each_clipped = Probe::default().accumulate(2).clip_value(1.0);
    for grads in &micro {
        mean_clipped.step(&mut array![0.0], grads).unwrap();
        each_clipped.step(&mut array![0.0], grads).unwrap();
    }
    assert_eq!(mean_clipped.inner().inner().seen[0][0], 1.0); // (6 − 2)/2 = 2
    assert_eq!(each_clipped.inner().inner().seen[0][0], 0.0); // (1 − 1)/2
}

/// Two clips after one another, and scale after limit.
#[test]
fn clips_compose() {
    let mut opt = Probe::default().clip_global_norm(1.0).exact(true).clip_value(3.0);
    let report = opt.step(&mut array![0.0, 0.0], &array![100.0, -4.0]).unwrap();
    // Values first: [3, −3]; the norm that the outer adaptor reports is that of what it saw.
    assert_eq!(report.grad_norm, Some(100.0));
    let unit = 3.0 / 18.0_f64.sqrt();
    assert!(opt.inner().inner().seen[0].iter().zip([unit, -unit]).all(|(a, b)| (a - b).abs() < 1e-15));

    let mut opt = Probe::default().clip_value(0.5).clip_adaptive(0.1);
    opt.step(&mut array![[3.0, 4.0], [300.0, 400.0]], &array![[30.0, 40.0], [0.3, 4.0]]).unwrap();
    // The first row to a tenth of 5, the second left; then each to ±0.5.
    let seen = &opt.inner().inner().seen[0];
    assert!((seen[[0, 0]] - 0.3_f64).abs() < 1e-12 && (seen[[0, 1]] - 0.4).abs() < 1e-12);
    assert_eq!((seen[[1, 0]], seen[[1, 1]]), (0.3, 0.5));
}

/// What an adaptor shows by description is what the sweep makes of it.
#[test]
fn the_sweep_sees_what_a_reader_sees() {
    all_ways(|name, _, adaptor| {
        let mut moved = params();
        adaptor(NonFinite::Error).step(&mut moved, &grads()).unwrap();
        let mut clipped = grads();
        match name {
            "global norm" => clip::global_norm(&mut clipped, 1.0),
            "per-tensor norm" => clip::per_tensor_norm(&mut clipped, 1.0),
            "value" => clip::value(&mut clipped, 1.0),
            "adaptive" => clip::adaptive(&mut clipped, &params(), 0.1),
            _ => panic!("no function for {name}"),
        }
        .unwrap();
        let expected = (&params().0 - &clipped.0 * 0.5, &params().1 - &clipped.1 * 0.5);
        assert_eq!(bits(&moved), bits(&expected), "{name}");
    });
}

/// Tensors without gradient, and trees without tensors, have the norm 0.
#[test]
fn nothing_to_clip() {
    let mut opt = Sgd::new(1.0).clip_global_norm(1.0);
    let report = opt.step(&mut (array![1.0], array![2.0]), &(None::<Array1<f64>>, None::<Array1<f64>>)).unwrap();
    assert_eq!((report.grad_norm, report.moved), (Some(0.0), false));
    let mut empty: Vec<Array1<f64>> = Vec::new();
    assert_eq!(clip::global_norm(&mut empty, 1.0).unwrap(), 0.0);
    assert_eq!(clip::adaptive(&mut empty, &Vec::<Array1<f64>>::new(), 1.0).unwrap(), 0.0);
    let mut hollow = Array2::<f64>::zeros((0, 3));
    assert_eq!(clip::value(&mut hollow, 1.0).unwrap(), 0.0);
    assert_eq!(clip::adaptive(&mut hollow, &Array2::zeros((0, 3)), 1.0).unwrap(), 0.0);
    assert_eq!(clip::adaptive(&mut Array2::<f64>::zeros((3, 0)), &Array2::zeros((3, 0)), 1.0).unwrap(), 0.0);
}

/// Gradients are matched by path, in whatever order either tree is walked.
#[test]
fn adaptive_clipping_of_trees_in_different_orders() {
    struct Backwards(Array1<f64>, Array1<f64>);

    impl Params for Backwards {
        type Elem = f64;

        fn visit<'a>(&'a self, visitor: &mut gradus::params::Visitor<'_, 'a, f64>) {
            visitor.field("w", &self.0);
            visitor.field("b", &self.1);
        }
    }

    let params = Backwards(array![1e3], array![1e6, 0.0]);
    let mut grads = std::collections::BTreeMap::from([("b", array![1.0, 0.0]), ("w", array![100.0])]);
    clip::adaptive(&mut grads, &params, 0.01).unwrap();
    assert_eq!(grads["b"], array![1.0, 0.0]);
    assert!((grads["w"][0] - 10.0).abs() < 1e-12);
}
