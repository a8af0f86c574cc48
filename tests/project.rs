//! Parameters that stay in a set: after every step, of every optimizer and in every chain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use gradus::prelude::*;
use gradus::set::{Interval, L1Ball, MaxNorm, NonNegative, Simplex, UnitNorm};
use ndarray::{Array1, ArrayD, ArrayView1, Axis, array};
use proptest::prelude::*;

/// Numbers in [−1, 1) without order.
fn number(i: usize) -> f64 {
    ((i as f64 * 12.9898).sin() * 43_758.545_3).rem_euclid(2.0) - 1.0
}

fn tensor<A: Scalar>(shape: &[usize], first: usize, scale: f64) -> ArrayD<A> {
    let elements: usize = shape.iter().product();
    let values = (0..elements).map(|i| A::from_f64(scale * number(first + i))).collect();
    ArrayD::from_shape_vec(shape, values).unwrap()
}

/// The sum of numbers with twice the digits: sums and their errors, which are exact.
fn exact(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for value in values {
        let new = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - new) + value } else { (value - new) + sum };
        sum = new;
    }
    sum + lost
}

/// The sum of squares, where what a product loses is a number of its own.
fn squares(values: impl Iterator<Item = f64>) -> f64 {
    exact(values.flat_map(|x| [x * x, x.mul_add(x, -x * x)]))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    NonNegative,
    Interval(f64, f64),
    UnitNorm,
    MaxNorm(f64),
    Simplex(f64),
    L1Ball(f64),
}

const KINDS: [Kind; 6] = [
    Kind::NonNegative,
    Kind::Interval(-0.3, 0.7),
    Kind::UnitNorm,
    Kind::MaxNorm(0.9),
    Kind::Simplex(1.0),
    Kind::L1Ball(0.8),
];

impl Kind {
    fn around<A: Scalar>(self, opt: Box<dyn Optimizer<A>>, by_row: bool) -> Box<dyn Optimizer<A>> {
        match (self, by_row) {
            (Self::NonNegative, _) => Box::new(opt.project("**", NonNegative)),
            (Self::Interval(lower, upper), _) => Box::new(opt.project("**", Interval::new(lower, upper))),
            (Self::UnitNorm, false) => Box::new(opt.project("**", UnitNorm::per_tensor())),
            (Self::UnitNorm, true) => Box::new(opt.project("**", UnitNorm::per_row())),
            (Self::MaxNorm(radius), false) => Box::new(opt.project("**", MaxNorm::per_tensor(radius))),
            (Self::MaxNorm(radius), true) => Box::new(opt.project("**", MaxNorm::per_row(radius))),
            (Self::Simplex(scale), false) => Box::new(opt.project("**", Simplex::per_tensor().scale(scale))),
            (Self::Simplex(scale), true) => Box::new(opt.project("**", Simplex::per_row().scale(scale))),
            (Self::L1Ball(radius), false) => Box::new(opt.project("**", L1Ball::per_tensor(radius))),
            (Self::L1Ball(radius), true) => Box::new(opt.project("**", L1Ball::per_row(radius))),
        }
    }

    /// By how many ulp of the set's own number values are outside.
    fn outside<A: Scalar>(self, values: ArrayView1<'_, A>) -> f64 {
        let ulp = |of: f64| {
            // Powers of two are where an ulp doubles.
            of.abs().log2().floor().exp2() * A::epsilon().as_f64()
        };
        let each = || values.iter().map(|x| x.as_f64());
        let norm = || squares(each()).sqrt();
        match self {
            Self::NonNegative => each().fold(0.0, |most, x| most.max(-x * 1e300)),
            // The nearest number of the type to a bound is within half an ulp.
            Self::Interval(lower, upper) => {
                each().fold(0.0, |most, x| f64::max(most, f64::max((lower - x) / ulp(lower), (x - upper) / ulp(upper))))
            }
            Self::UnitNorm => (norm() - 1.0).abs() / ulp(1.0),
            Self::MaxNorm(radius) => (norm() - radius).max(0.0) / ulp(radius),
            Self::Simplex(scale) => {
                let below = each().fold(0.0, |most, x| f64::max(most, -x * 1e300));
                f64::max(below, (exact(each()) - scale).abs() / ulp(scale))
            }
            Self::L1Ball(radius) => (exact(each().map(f64::abs)) - radius).max(0.0) / ulp(radius),
        }
    }

    fn outside_of_tensor<A: Scalar>(self, values: &ArrayD<A>, by_row: bool) -> f64 {
        let one = |values: ndarray::ArrayViewD<'_, A>| {
            let flat: Array1<A> = values.iter().copied().collect();
            self.outside(flat.view())
        };
        match by_row && values.ndim() > 1 {
            true => values.axis_iter(Axis(0)).map(one).fold(0.0, f64::max),
            false => one(values.view()),
        }
    }
}

/// Optimizers of every driver, and one with an option that measures.
fn optimizers<A: Scalar>() -> Vec<Box<dyn Optimizer<A>>> {
    vec![
        Box::new(Sgd::new(0.5)),
        Box::new(Adam::new(0.1)),
        Box::new(AdamW::new(0.1).weight_decay(0.1).cautious(true)),
        Box::new(Lamb::new(0.1)),
        Box::new(Rprop::new(0.1)),
        Box::new(Adafactor::new(0.1)),
        Box::new(Muon::new(0.1)),
        Box::new(Sgd::new(0.5).lookahead(2, 0.5)),
        Box::new(Sgd::new(0.5).accumulate(2)),
        Box::new(Adam::new(0.1).state_precision(gradus::rule::StatePrecision::Blockwise8)),
    ]
}

fn every_step_ends_in_the_set<A: Scalar>() {
    for kind in KINDS {
        for by_row in [false, true] {
            for (at, opt) in optimizers::<A>().into_iter().enumerate() {
                let mut opt = kind.around(opt, by_row);
                let mut w = [tensor::<A>(&[7, 5], 0, 1.0), tensor(&[3, 300], 50, 1.0)];
                for step in 0..12 {
                    let grads = [tensor(&[7, 5], 1000 * step, 1.0), tensor(&[3, 300], 1000 * step + 500, 1.0)];
                    if !opt.step(&mut w, &grads).unwrap().moved {
                        continue;
                    }
                    for w in &w {
                        let outside = kind.outside_of_tensor(w, by_row);
                        assert!(outside <= 1.0, "{kind:?}, by row {by_row}, {at}: {outside} ulp after {step}: {w}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_step_ends_in_the_set_in_f32() {
    every_step_ends_in_the_set::<f32>();
}

#[test]
fn every_step_ends_in_the_set_in_f64() {
    every_step_ends_in_the_set::<f64>();
}

fn project<A: Scalar>(kind: Kind, values: &Array1<A>) -> Array1<A> {
    let mut projected = values.clone();
    kind.around(Box::new(Sgd::new(0.1)), false).step(&mut projected, &Array1::zeros(values.len())).unwrap();
    projected
}

/// By bisection, in f64.
fn naive(kind: Kind, x: &Array1<f64>) -> Array1<f64> {
    let thresholded = |x: &Array1<f64>, total: f64| {
        let (mut low, mut high) = (-1e6, 1e6);
        for _ in 0..200 {
            let middle = (low + high) / 2.0;
            if x.mapv(|x| (x - middle).max(0.0)).sum() > total { low = middle } else { high = middle }
        }
        x.mapv(|x| (x - high).max(0.0))
    };
    match kind {
        Kind::NonNegative => x.mapv(|x| x.max(0.0)),
        Kind::Interval(lower, upper) => x.mapv(|x| x.max(lower).min(upper)),
        Kind::UnitNorm => x / x.dot(x).sqrt(),
        Kind::MaxNorm(radius) => x * (radius / x.dot(x).sqrt()).min(1.0),
        Kind::Simplex(scale) => thresholded(x, scale),
        Kind::L1Ball(radius) if x.mapv(f64::abs).sum() <= radius => x.clone(),
        Kind::L1Ball(radius) => thresholded(&x.mapv(f64::abs), radius) * x.mapv(f64::signum),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Against the naive oracle, in the set to 1 ulp, and a second time nothing changes by more than an ulp.
    #[test]
    fn projections_are_those_of_the_oracle(
        values in prop::collection::vec(-1.0..1.0_f64, 1..40),
        exponent in -20_i32..20,
        kind in 0..KINDS.len(),
    ) {
        /// The oracle's sums: some ulp of the largest element.
        const TOLERANCE: f64 = 1e-13;
        let kind = KINDS[kind];
        let x = Array1::from(values) * 2.0_f64.powi(exponent);
        prop_assume!(x.iter().any(|x| *x != 0.0));
        let (found, expected) = (project(kind, &x), naive(kind, &x));
        let largest = x.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= TOLERANCE * largest, "{kind:?} {x}: {found} is not {expected}");
        }
        prop_assert!(kind.outside(found.view()) <= 1.0, "{kind:?} {x}: {} ulp", kind.outside(found.view()));
        let again = project(kind, &found);
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs());
        prop_assert!(again.iter().zip(&found).all(is_near), "{kind:?} {x}: {found} and {again}");
        let narrow = project(kind, &x.mapv(|x| x as f32));
        prop_assert!(kind.outside(narrow.view()) <= 1.0, "{kind:?} {x} in f32: {} ulp", kind.outside(narrow.view()));
    }
}

#[test]
fn the_ends_of_the_range() {
    let x = array![3e-320_f64, 4e-320];
    let unit = project(Kind::UnitNorm, &x);
    assert!((unit[0] - 0.6).abs() < 1e-3 && (unit[1] - 0.8).abs() < 1e-3, "{unit}"); // these numbers have four digits
    assert!(Kind::UnitNorm.outside(unit.view()) <= 1.0);
    let x = array![1.5e308, -1.5e308, 1.5e308];
    for kind in [Kind::UnitNorm, Kind::MaxNorm(0.9), Kind::L1Ball(0.8), Kind::Simplex(1.0)] {
        let found = project(kind, &x);
        assert!(kind.outside(found.view()) <= 1.0, "{kind:?}: {found}");
    }
    // What is not finite stays, and so does what has no direction.
    for kind in [Kind::UnitNorm, Kind::MaxNorm(0.9), Kind::L1Ball(0.8), Kind::Simplex(1.0)] {
        let found = project(kind, &array![f64::NAN, 2.0]);
        assert!(found[0].is_nan() && found[1] == 2.0, "{kind:?}: {found}");
    }
    assert_eq!(project(Kind::UnitNorm, &array![0.0, 0.0]), array![0.0, 0.0]);
    assert_eq!(project(Kind::Simplex(1.0), &array![0.0, 0.0]), array![0.5, 0.5]);
}

#[test]
fn what_is_in_the_set_keeps_its_bits() {
    let inside = array![0.25, 0.1, 0.3, 0.35];
    for kind in
        [Kind::NonNegative, Kind::Interval(-0.3, 0.7), Kind::MaxNorm(0.9), Kind::Simplex(1.0), Kind::L1Ball(1.0)]
    {
        assert_eq!(project(kind, &inside), inside, "{kind:?}");
    }
    assert_eq!(project(Kind::UnitNorm, &array![0.6, 0.8]), array![0.6, 0.8]);
}

/// Gradients of rows: sets of elements and rows project the rows that have one, sets of tensors everything.
#[test]
fn rows_of_an_embedding() {
    let start = array![[3.0, 4.0], [-3.0, 4.0], [-6.0, 8.0]];
    let step = |mut opt: Box<dyn Optimizer<f64>>| {
        let (mut w, mut average) = (start.clone(), start.clone());
        opt.step(&mut w, &Rows::new(vec![2], array![[0.0, 0.0]])).unwrap();
        opt.find::<gradus::adaptor::Ema<f64>>().unwrap().read(&mut average).unwrap();
        assert_eq!(w, average);
        w
    };
    let sgd = || Sgd::new(1.0).ema(0.5);
    assert_eq!(
        step(Box::new(sgd().project("**", MaxNorm::per_row(5.0)))),
        array![[3.0, 4.0], [-3.0, 4.0], [-3.0, 4.0]]
    );
    assert_eq!(step(Box::new(sgd().project("**", NonNegative))), array![[3.0, 4.0], [-3.0, 4.0], [0.0, 8.0]]);
    let both = sgd().project("**", NonNegative).project("**", MaxNorm::per_row(4.0));
    assert_eq!(step(Box::new(both)), array![[3.0, 4.0], [-3.0, 4.0], [0.0, 4.0]]);
    let whole = step(Box::new(sgd().project("**", Simplex::per_tensor())));
    assert_eq!(whole, array![[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]);
}

/// On several threads and row by row, with an average and without.
#[test]
fn large_tensors_on_threads() {
    let start = tensor::<f32>(&[700, 300], 0, 1.0);
    let grads = tensor::<f32>(&[700, 300], 99, 1.0);
    let run = |average: bool| {
        let (mut opt, mut w) = (Adam::new(0.3).project("**", Interval::new(-0.25, 0.5)).boxed(), start.clone());
        if average {
            opt = opt.ema(0.5).boxed();
        }
        for _ in 0..3 {
            opt.step(&mut w, &grads).unwrap();
        }
        w
    };
    let mut parts: Vec<_> = start.axis_chunks_iter(Axis(0), 1).map(|row| row.to_owned()).collect();
    let grad_parts: Vec<_> = grads.axis_chunks_iter(Axis(0), 1).map(|row| row.to_owned()).collect();
    let mut opt = Adam::new(0.3).project("**", Interval::new(-0.25, 0.5));
    (0..3).for_each(|_| _ = opt.step(&mut parts, &grad_parts).unwrap());
    let whole = run(false);
    assert!(whole.iter().eq(parts.iter().flatten()) && whole == run(true));
    assert!(whole.iter().all(|x| (-0.25..=0.5).contains(x)) && whole.iter().any(|x| *x == 0.5));
}

/// Each branch has its own sets, and the base optimizer's apply to the other tensors.
#[test]
fn in_a_router() {
    let mut opt =
        Sgd::new(1.0).project("**", NonNegative).route("1", Sgd::new(1.0).project("1", Interval::at_most(-1.0)));
    let mut w = (array![1.0], array![1.0]);
    opt.step(&mut w, &(array![3.0], array![3.0])).unwrap();
    assert_eq!(w, (array![0.0], array![-2.0]));
}

#[cfg(feature = "half")]
mod half {
    use ::half::bf16;

    use super::*;

    #[test]
    fn weights_of_sixteen_bits() {
        let start = Array1::from_shape_fn(600, |i| bf16::from_f64(number(i)));
        let grads = Array1::from_shape_fn(600, |i| bf16::from_f64(number(i + 7)));
        let project = || Sgd::<f32>::new(0.5).project("**", Interval::new(-0.25, 0.5));
        let chains: [Box<dyn Optimizer<bf16>>; 3] = [
            Box::new(project().master_weights()),
            Box::new(project().stochastic_rounding(1)),
            Box::new(Sgd::<f32>::new(0.5).project("**", MaxNorm::per_tensor(0.5)).master_weights()),
        ];
        for (at, mut opt) in chains.into_iter().enumerate() {
            let mut w = start.clone();
            for _ in 0..5 {
                opt.step(&mut w, &grads).unwrap();
                let wide = w.mapv(f64::from);
                let is_inside = match at {
                    2 => wide.dot(&wide).sqrt() <= 0.5 * (1.0 + 1.0 / 256.0), // half an ulp of bf16
                    _ => wide.iter().all(|x| (-0.25..=0.5).contains(x)),
                };
                assert!(is_inside, "{at}: {wide}");
            }
        }
    }
}

#[cfg(feature = "distributed")]
mod ranks {
    use gradus::distributed::{RankGroup, ThreadGroup};
    use ndarray::Array2;

    use super::*;

    fn train(
        build: impl Fn(&std::sync::Arc<ThreadGroup>) -> Box<dyn Optimizer<f64>> + Sync,
        is_inside: impl Fn(&Array2<f64>) -> bool + Sync,
    ) {
        let found = ThreadGroup::run(2, |group| {
            let group = std::sync::Arc::new(group);
            let mut opt = build(&group);
            let mut w = Array2::from_shape_fn((40, 33), |(i, j)| number(33 * i + j));
            for step in 0..5 {
                let grads = w.mapv(|x| x + number(1000 * step + group.rank()));
                opt.step(&mut w, &grads).unwrap();
                assert!(is_inside(&w), "{w}");
            }
            w
        });
        assert_eq!(found[0], found[1]);
    }

    #[test]
    fn inside_and_outside() {
        let bounded = |w: &Array2<f64>| w.iter().all(|x| (-0.2..=0.3).contains(x));
        let bounds = Interval::new(-0.2, 0.3);
        train(|group| Box::new(Adam::new(0.1).project("**", bounds).sharded(group.clone())), bounded);
        train(|group| Box::new(Adam::new(0.1).sharded(group.clone()).project("**", bounds)), bounded);
        train(|group| Box::new(Adam::new(0.1).data_parallel(group.clone()).project("**", bounds)), bounded);
        let near = |w: &Array2<f64>| squares(w.iter().copied()).sqrt() <= 2.0 * (1.0 + f64::EPSILON);
        let ball = MaxNorm::per_tensor(2.0);
        train(|group| Box::new(Adam::new(0.1).project("**", ball).sharded(group.clone()).by_tensor()), near);
        train(|group| Box::new(Adam::new(0.1).sharded(group.clone()).project("**", ball)), near);
        train(|group| Box::new(Adam::new(0.1).project("**", ball).data_parallel(group.clone())), near);
    }

    #[test]
    fn rounds_end_in_the_set() {
        let group = gradus::distributed::Alone;
        let mut opt = Sgd::new(0.5).local_steps(2, Nesterov::new(1.0, 0.9)).across(group).project("**", NonNegative);
        let mut w = array![1.0, 1.0];
        for _ in 0..6 {
            opt.step(&mut w, &array![0.75, -0.25]).unwrap();
            assert!(w.iter().all(|x| *x >= 0.0), "{w}");
        }
        // The round begins where the projection ended, not below 0: the way back is the same as the way there.
        assert_eq!(w[0], 0.0);
        opt.step(&mut w, &array![-1.0, 0.0]).unwrap();
        assert_eq!(w[0], 0.5);
    }
}
