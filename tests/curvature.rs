//! Optimizers that get the Hessian's diagonal: what is kept, what is refused, and that it does not depend on how memory lies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::rule::{Curved, Rounding, StatePrecision};
use gradus::{Error, Rows};
use ndarray::{Array1, Array2, ShapeBuilder, array};

type Pair = (Array2<f64>, Array1<f64>);

fn number(i: usize) -> f64 {
    ((i * 104_729) as f64 * 0.37).sin()
}

fn pair_in(phase: usize, column_major: bool) -> Pair {
    let mut matrix = Array2::zeros((97, 211).set_f(column_major));
    matrix.indexed_iter_mut().for_each(|((i, j), x)| *x = number(i * 211 + j + phase));
    (matrix, Array1::from_shape_fn(5, |i| number(i + 9 * phase)))
}

fn pair(phase: usize) -> Pair {
    pair_in(phase, false)
}

fn bits(pair: &Pair) -> Vec<u64> {
    pair.0.iter().chain(&pair.1).map(|x| x.to_bits()).collect()
}

/// What every such optimizer has.
trait Tested: Optimizer<f64> + Clone {
    fn give(&mut self, diagonal: &dyn Params<Elem = f64>) -> gradus::Result<()>;
    fn with_precision(self, precision: StatePrecision) -> Self;
}

impl<R: Curved<f64> + Clone> Tested for Elementwise<R, f64> {
    fn give(&mut self, diagonal: &dyn Params<Elem = f64>) -> gradus::Result<()> {
        self.curvature(diagonal)
    }

    fn with_precision(self, precision: StatePrecision) -> Self {
        self.state_precision(precision)
    }
}

/// Calls a function with each optimizer.
macro_rules! for_each {
    ($call:ident) => {
        $call(Sophia::new(0.1).gamma(1.0).beta2(0.5).eps(0.1).threshold(100.0).weight_decay(0.1));
        $call(AdaHessian::new(0.1).eps(0.1));
    };
}

fn steps(opt: &mut impl Tested, params: &mut Pair, range: std::ops::Range<usize>) {
    for step in range {
        if step.is_multiple_of(2) {
            opt.give(&pair(500 + step)).unwrap();
        }
        opt.step(params, &pair(50 + step)).unwrap();
    }
}

#[test]
fn memory_and_threads_do_not_change_the_bits() {
    fn check(opt: impl Tested + Sync) {
        let all = [StatePrecision::Full, StatePrecision::Bf16(Rounding::Stochastic), StatePrecision::Blockwise8];
        for precision in all {
            let run = |column_major: bool, diagonal_in: bool| {
                let (mut opt, mut params) = (opt.clone().with_precision(precision), pair_in(0, column_major));
                for step in 0..4 {
                    opt.give(&pair_in(500 + step, diagonal_in)).unwrap();
                    opt.step(&mut params, &pair_in(50 + step, column_major)).unwrap();
                }
                bits(&params)
            };
            let expected = run(false, false);
            assert_eq!(run(false, true), expected);
            if precision == StatePrecision::Full {
                assert!(run(true, false) == expected && run(true, true) == expected);
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            assert_eq!(pool.install(|| run(false, false)), expected);
        }
    }
    for_each!(check);
}

#[test]
fn the_last_diagonal_before_a_step_is_averaged_once() {
    fn check(opt: impl Tested) {
        let (mut once, mut params, mut expected) = (opt.clone(), pair(0), pair(0));
        let mut plain = opt;
        once.give(&pair(9)).unwrap();
        once.give(&pair(500)).unwrap(); // replaces the first
        plain.give(&pair(500)).unwrap();
        for step in 0..2 {
            once.step(&mut params, &pair(step)).unwrap();
            plain.step(&mut expected, &pair(step)).unwrap();
        }
        assert_eq!(bits(&params), bits(&expected));
        assert_eq!(once.state_dict(), plain.state_dict());
        // A second one counts.
        once.give(&pair(9)).unwrap();
        once.step(&mut params, &pair(3)).unwrap();
        plain.step(&mut expected, &pair(3)).unwrap();
        assert_ne!(bits(&params), bits(&expected));
    }
    for_each!(check);
}

#[test]
fn a_tensor_without_a_diagonal_keeps_its_average() {
    fn check(opt: impl Tested) {
        let (mut both, mut one, mut none) = (opt.clone(), opt.clone(), opt);
        let mut params = [pair(0), pair(0), pair(0)];
        let [a, b, c] = &mut params;
        for (opt, params) in [(&mut both, &mut *a), (&mut one, &mut *b), (&mut none, &mut *c)] {
            steps(opt, params, 0..2);
        }
        both.give(&pair(7)).unwrap();
        one.give(&(pair(7).0, None::<Array1<f64>>)).unwrap();
        for (opt, params) in [(&mut both, &mut *a), (&mut one, &mut *b), (&mut none, &mut *c)] {
            opt.step(params, &pair(77)).unwrap();
        }
        assert!(a.0 == b.0 && b.0 != c.0 && b.1 == c.1 && a.1 != b.1);
        // Without a gradient, the diagonal waits for the next.
        let (mut early, mut late) = (both.clone(), both);
        let (mut p, mut q) = (pair(0), pair(0));
        late.give(&pair(8)).unwrap();
        late.step(&mut q, &(pair(1).0, None::<Array1<f64>>)).unwrap();
        assert_eq!(q.1, p.1);
        let state = late.state_dict();
        late.load_state_dict(&state).unwrap();
        early.give(&pair(8)).unwrap();
        early.step(&mut p, &pair(1)).unwrap();
        late.step(&mut q, &(None::<Array2<f64>>, pair(1).1)).unwrap();
        // The numbers of steps of the tensors are the same, and so are the tensors.
        assert_eq!(bits(&p), bits(&q));
    }
    for_each!(check);
}

#[test]
fn training_resumes_between_diagonal_and_step() {
    fn check(opt: impl Tested) {
        for before in [0, 2] {
            let (mut run, mut params) = (opt.clone(), pair(0));
            steps(&mut run, &mut params, 0..before);
            run.give(&pair(99)).unwrap();
            let (mut resumed, mut other) = (opt.clone(), params.clone());
            resumed.load_state_dict(&run.state_dict()).unwrap();
            run.step(&mut params, &pair(3)).unwrap();
            resumed.step(&mut other, &pair(3)).unwrap();
            assert_eq!(bits(&params), bits(&other));
            assert_eq!(run.state_dict(), resumed.state_dict());
            assert!(run.state_dict().keys().all(|key| !key.contains("diagonal/")));
        }
    }
    for_each!(check);
}

#[test]
fn a_diagonal_that_does_not_fit_changes_nothing() {
    fn check(mut opt: impl Tested) {
        let mut params = pair(0);
        for known in [false, true] {
            if known {
                steps(&mut opt, &mut params, 0..1);
                opt.give(&pair(5)).unwrap();
            }
            let state = opt.state_dict();
            let mut nan = pair(1);
            nan.0[[3, 4]] = f64::NAN;
            let error = opt.give(&nan).unwrap_err();
            let path = "0".to_owned();
            assert!(
                matches!(&error, Error::Step(StepError::NonFiniteGradient { path: found, index, .. }) if *found == path && *index == [3, 4]),
                "{error}"
            );
            if known {
                let shape = opt.give(&(array![[1.0]], array![1.0])).unwrap_err();
                assert!(matches!(shape, Error::Step(StepError::ShapeMismatch { .. })), "{shape}");
                let missing = opt.give(&(pair(1).0,)).unwrap_err();
                assert!(matches!(missing, Error::Step(StepError::MissingGradient { .. })), "{missing}");
            }
            assert_eq!(opt.state_dict(), state);
        }
        // One before the first step says what the parameters are.
        let mut first = opt.clone();
        first.load_state_dict(&opt.state_dict()).unwrap();
        let error = first.step(&mut array![1.0], &array![1.0]).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{error}");
    }
    for_each!(check);
}

#[test]
fn only_optimizers_with_a_diagonal_have_one_in_their_state() {
    let (mut opt, mut w) = (Sophia::new(0.1), array![1.0, 2.0]);
    opt.step(&mut w, &array![0.5, 0.25]).unwrap();
    opt.curvature(&w).unwrap();
    let state = opt.state_dict();
    assert!(state.keys().any(|key| key.contains("diagonals/")));
    let (mut adam, mut v) = (Adam::new(0.1), array![1.0, 2.0]);
    adam.step(&mut v, &array![0.5, 0.25]).unwrap();
    let mut foreign = adam.state_dict();
    foreign.insert_tensor("adam/diagonals/diagonal/", w.view());
    assert!(adam.load_state_dict(&foreign).is_err());
}

/// Rows of a gradient are stepped alone, and the diagonal is averaged for all.
#[test]
fn rows_use_a_dense_diagonal() {
    let start = Array2::from_shape_fn((4, 3), |(i, j)| number(3 * i + j));
    let (mut sparse, mut dense) = (Sophia::new(0.1).gamma(1.0), Sophia::new(0.1).gamma(1.0));
    let (mut w, mut v) = (start.clone(), start.clone());
    let diagonal = start.mapv(f64::abs);
    let values = array![[1.0, -2.0, 0.5]];
    let mut full = Array2::zeros((4, 3));
    full.row_mut(2).assign(&values.row(0));
    for opt in [&mut sparse, &mut dense] {
        opt.curvature(&diagonal).unwrap();
    }
    sparse.step(&mut w, &Rows::new(vec![2], values)).unwrap();
    dense.step(&mut v, &full).unwrap();
    assert!(w == v && w.row(1) == start.row(1) && w.row(2) != start.row(2));
    assert_eq!(sparse.slot("", "hessian_moment"), dense.slot("", "hessian_moment"));
}

#[test]
fn a_group_has_its_own_decay_of_the_average() {
    let (mut grouped, mut plain) = (
        Sophia::new(0.1).gamma(1.0).group("1", Group::new().set("beta2", 0.5)),
        Sophia::new(0.1).gamma(1.0).beta2(0.5),
    );
    let (mut w, mut v) = (pair(0), pair(0));
    for step in 0..3 {
        grouped.inner_mut().curvature(&pair(500 + step)).unwrap();
        plain.curvature(&pair(500 + step)).unwrap();
        grouped.step(&mut w, &pair(step)).unwrap();
        plain.step(&mut v, &pair(step)).unwrap();
    }
    assert!(w.1 == v.1 && w.0 != v.0);
}

/// A diagonal before the first step waits for the parameters, which say whether it fits; another takes its place.
#[test]
fn a_first_diagonal_is_checked_by_the_step() {
    fn check(opt: impl Tested) {
        let wrong: [(Box<dyn Params<Elem = f64>>, &str); 4] = [
            (
                Box::new((pair(1).0, Array1::from_elem(3, 1.0))),
                "gradient \"1\" has shape [3] where the parameter has [5]",
            ),
            (Box::new((pair(1).0,)), "no gradient for parameter \"1\""),
            (Box::new((pair(1).0, pair(1).1, array![1.0])), "gradient \"2\" belongs to no parameter"),
            (Box::new(array![1.0]), "gradient (root) belongs to no parameter"),
        ];
        for (diagonal, reason) in wrong {
            let (mut first, mut params) = (opt.clone(), pair(0));
            first.give(&*diagonal).unwrap();
            let state = first.state_dict();
            let mut resumed = opt.clone();
            resumed.load_state_dict(&state).unwrap();
            for first in [&mut first, &mut resumed] {
                let error = first.step(&mut params, &pair(3)).unwrap_err().to_string();
                assert!(error.contains("the diagonal of the Hessian") && error.contains(reason), "{error}");
                assert!(bits(&params) == bits(&pair(0)) && first.state_dict() == state && first.layout().is_none());
            }
            // The right one takes its place.
            first.give(&pair(500)).unwrap();
            let (mut other, mut expected) = (opt.clone(), pair(0));
            other.give(&pair(500)).unwrap();
            first.step(&mut params, &pair(3)).unwrap();
            other.step(&mut expected, &pair(3)).unwrap();
            assert!(bits(&params) == bits(&expected) && first.state_dict() == other.state_dict());
        }
    }
    for_each!(check);
}

#[test]
fn a_first_diagonal_may_lack_tensors() {
    type Halves = (Option<Array2<f64>>, Option<Array1<f64>>);
    fn check(opt: impl Tested) {
        let one: Halves = (Some(pair(500).0), None);
        let other: Halves = (None, Some(pair(500).1));
        let neither: Halves = (None, None);
        for (diagonal, has) in [(&one, [true, false]), (&other, [false, true]), (&neither, [false, false])] {
            let (mut run, mut params) = (opt.clone(), pair(0));
            run.give(diagonal).unwrap();
            let (mut resumed, mut same) = (opt.clone(), pair(0));
            resumed.load_state_dict(&run.state_dict()).unwrap();
            run.step(&mut params, &pair(3)).unwrap();
            resumed.step(&mut same, &pair(3)).unwrap();
            assert!(bits(&params) == bits(&same) && run.state_dict() == resumed.state_dict());
            // What has none is as without any.
            let (mut full, mut none) = (opt.clone(), opt.clone());
            let (mut p, mut q) = (pair(0), pair(0));
            full.give(&pair(500)).unwrap();
            full.step(&mut p, &pair(3)).unwrap();
            none.step(&mut q, &pair(3)).unwrap();
            assert!(p.0 != q.0 && p.1 != q.1);
            assert_eq!(params.0, if has[0] { &p } else { &q }.0);
            assert_eq!(params.1, if has[1] { &p } else { &q }.1);
        }
        // A `None` above tensors, and one for the whole tree.
        let (mut run, mut params) = (opt.clone(), (pair(0), pair(1)));
        run.give(&(None::<Pair>, pair(500))).unwrap();
        run.step(&mut params, &(pair(3), pair(4))).unwrap();
        let (mut run, mut w) = (opt.clone(), pair(0));
        run.give(&None::<Pair>).unwrap();
        run.step(&mut w, &pair(3)).unwrap();
        // The gradient of a tensor may be what lacks: its diagonal waits.
        let (mut run, mut w) = (opt.clone(), pair(0));
        run.give(&pair(500)).unwrap();
        run.step(&mut w, &(pair(3).0, None::<Array1<f64>>)).unwrap();
        let (mut late, mut v) = (opt, pair(0));
        late.give(&pair(500)).unwrap();
        run.step(&mut w, &(None::<Array2<f64>>, pair(3).1)).unwrap();
        late.step(&mut v, &pair(3)).unwrap();
        assert_eq!(w, v);
    }
    for_each!(check);
}

/// Averaging a diagonal leaves the average gradient alone: not a bit of its codes changes.
#[test]
fn a_diagonal_does_not_round_the_average_gradient() {
    let all = [
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Nearest),
        StatePrecision::Blockwise4(Rounding::Stochastic),
        StatePrecision::Bf16(Rounding::Stochastic),
    ];
    for precision in all {
        // With β₁ = 0 nothing is left of the momentum but what a step makes of it, so this has one that stays.
        let sophia = Sophia::new(0.1).beta1(0.5).beta2(0.5).state_precision(precision);
        let (mut with, mut without) = (sophia.clone(), sophia);
        let (mut w, mut v) = (pair(0), pair(0));
        for step in 0..4 {
            with.curvature(&pair(500 + step)).unwrap();
            with.step(&mut w, &pair(50 + step)).unwrap();
            without.step(&mut v, &pair(50 + step)).unwrap();
            let entries = |opt: &Sophia<f64>, slot: &str| {
                let state = opt.state_dict();
                let keys: Vec<_> = state.keys().filter(|key| key.contains(slot)).map(str::to_owned).collect();
                assert!(keys.len() >= 2);
                let values = |key: &String| {
                    format!("{:?}", state.tensor::<f64>(key).map(|values| values.into_raw_vec_and_offset()))
                };
                keys.iter().map(|key| (key.clone(), values(key))).collect::<Vec<_>>()
            };
            assert_eq!(with.slot("0", "momentum"), without.slot("0", "momentum"), "{precision:?}");
            assert_eq!(entries(&with, "/momentum"), entries(&without, "/momentum"), "{precision:?}");
            assert_ne!(with.slot("0", "hessian_moment"), without.slot("0", "hessian_moment"));
        }
    }
}

/// Each rank averages its own part of the diagonal, which is passed whole. The mean of two equal gradients has their bits.
#[cfg(feature = "distributed")]
#[test]
fn sharded_ranks_take_their_parts() {
    use gradus::distributed::{ThreadGroup, unshard};
    let sophia = || Sophia::new(0.1).gamma(1.0).beta2(0.5).eps(0.1).threshold(100.0);
    for by_tensor in [false, true] {
        for early in [false, true] {
            let ends = ThreadGroup::run(2, |group| {
                let mut opt = sophia().sharded(group);
                if by_tensor {
                    opt = opt.by_tensor();
                }
                let mut params = pair(0);
                let mut half = None;
                for step in 0..5 {
                    if early || step > 0 {
                        let sophia = opt.find_mut::<Sophia<f64>>().unwrap();
                        sophia.curvature(&pair(500 + step)).unwrap();
                    }
                    if step == 2 {
                        half = Some(opt.state_dict());
                        let sophia = opt.inner_mut();
                        let error = sophia.curvature(&(pair(1).0, array![1.0])).unwrap_err();
                        assert!(matches!(error, Error::Step(StepError::ShapeMismatch { .. })), "{error}");
                    }
                    opt.step(&mut params, &pair(50 + step)).unwrap();
                }
                (params, opt.state_dict(), half.unwrap())
            });
            let (mut alone, mut expected) = (sophia(), pair(0));
            let mut half = None;
            for step in 0..5 {
                if early || step > 0 {
                    alone.curvature(&pair(500 + step)).unwrap();
                }
                if step == 2 {
                    half = Some(alone.state_dict());
                }
                alone.step(&mut expected, &pair(50 + step)).unwrap();
            }
            assert!(ends.iter().all(|end| bits(&end.0) == bits(&expected)), "{by_tensor}, {early}");
            assert_eq!(unshard(ends.iter().map(|end| &end.1)).unwrap(), alone.state_dict());
            assert_eq!(Some(unshard(ends.iter().map(|end| &end.2)).unwrap()), half);
        }
    }
    // One that does not fit the parameters is an error on all ranks.
    let errors = ThreadGroup::run(2, |group| {
        let (mut opt, mut params) = (sophia().sharded(group), pair(0));
        opt.inner_mut().curvature(&(pair(1).0, array![1.0])).unwrap();
        let error = opt.step(&mut params, &pair(50)).unwrap_err();
        assert_eq!(bits(&params), bits(&pair(0)));
        error.to_string()
    });
    assert!(errors.iter().all(|error| error.contains("gradient \"1\" has shape [1]")), "{errors:?}");
}
