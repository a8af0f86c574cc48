//! Parameters that stay in a set.

use std::fmt;

use super::{Outcome, Transform};
use crate::error::Result;
use crate::params::pattern::Selection;
use crate::params::{Element, Pattern};
use crate::schedule::Hyper;
use crate::step::Step;
use crate::step::set::{Scope, Set};
use crate::step::share::Extent;

/// Projects parameters onto a [set](crate::set) after every step. Created by [`OptimizerExt::project`](crate::OptimizerExt::project).
///
/// # Update rule
/// ```text
/// θ ← P(θ)        after the optimizer inside has moved θ; P(θ) is the point of the set that is nearest to θ
/// ```
/// The parameters start where they are: they are in the set after the first step. A tensor that does not move is not projected: without a
/// gradient, frozen, or in a call that is skipped or that only accumulates. If the gradient has only some [`Rows`](crate::Rows), a set of elements or
/// rows projects these rows.
///
/// Averages of the parameters, such as [`ema`](crate::OptimizerExt::ema), average the projected values, wherever they are in the chain.
///
/// If several sets apply to a tensor, the set that was written first is projected onto first. Only the last one is then certain to contain the
/// parameters, unless the sets contain each other's projections, as bounds that overlap do.
///
/// # Cost
/// Bounds of elements ([`Interval`](crate::set::Interval), [`NonNegative`](crate::set::NonNegative)) are applied in the pass that moves the parameters.
/// Other sets need one or more passes over the parameters after it.
///
/// # State
/// None.
///
/// # Conventions
/// Projected gradient descent. In optax, apply the functions of `optax.projections` to the parameters after `apply_updates`; in Keras,
/// `kernel_constraint`.
///
/// Write `project` after [`lookahead`](crate::OptimizerExt::lookahead) and `local_steps`, which move
/// parameters themselves. Parameters of 16 bits are projected before they are rounded; with `kahan`, which adds what
/// rounding has lost before, they may end outside of the set by that.
///
/// # Errors
/// [`StepError::PatternUnmatched`](crate::error::StepError::PatternUnmatched), and [`ArgumentError::Range`](crate::error::ArgumentError::Range) for
/// a setting of the set. [`StepError::OptionNotPossible`](crate::error::StepError::OptionNotPossible) for an optimizer whose state does not follow moves
/// that are not its own: [`Lbfgs`](crate::Lbfgs), the schedule-free optimizers and those without a learning rate.
/// [`RankError::CutTensors`](crate::error::RankError::CutTensors) inside `sharded`, if the set is not one of elements; inside
/// `sharded(…).by_tensor()`, and after `sharded`, all sets work.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::Interval};
///
/// let mut opt = Sgd::new(0.5).project("**", Interval::new(0.0, 1.0));
/// let mut w = vec![0.5, 0.25];
/// for _ in 0..10 {
///     let grads = vec![w[0] - 2.0, w[1] - 0.75]; // a minimum at [2, 0.75]
///     opt.step(&mut w, &grads)?;
/// }
/// assert_eq!(w[0], 1.0);
/// assert!((w[1] - 0.75_f64).abs() < 1e-3);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// D. P. Bertsekas, *Nonlinear Programming* (1999), sec. 2.3.
#[doc(alias("constraint", "clamp", "projected gradient descent"))]
pub struct Project<A> {
    selection: Selection,
    set: Box<dyn Set<A>>,
}

impl<A: Element> Project<A> {
    /// Keeps the tensors that the pattern matches in a set.
    pub fn new(pattern: impl Into<Pattern>, set: impl Set<A>) -> Self {
        Self { selection: Selection::new(pattern), set: Box::new(set) }
    }
}

impl<A: Element> Transform<A> for Project<A> {
    fn name(&self) -> &'static str {
        "project"
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        Vec::new()
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        self.set.check()?;
        if !matches!(self.set.scope(), Scope::Elements { .. }) {
            step.share().ensure(Extent::Tensors, "project")?;
        }
        let chosen = self.selection.choose(step.layout())?;
        for (_, tensor, _) in step.zip_mut(&*chosen).filter(|(.., chosen)| **chosen) {
            tensor.projections.push(&*self.set);
        }
        Ok(Outcome::pass())
    }
}

impl<A: Element> fmt::Debug for Project<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "project({:?}, {})", self.selection.pattern(), self.set.describe())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, Array3, ArrayViewMutD, Axis, ShapeBuilder, array};

    use crate::error::{ArgumentError, Error, StepError};
    use crate::prelude::*;
    use crate::set::{Interval, L1Ball, MaxNorm, NonNegative, Simplex, UnitNorm};

    #[test]
    fn a_step_by_hand() {
        let mut opt = Sgd::new(0.5).project("a", Interval::new(-1.0, 1.0)).project("b", MaxNorm::per_row(5.0));
        let tree = |a, b| std::collections::BTreeMap::from([("a", a), ("b", b)]);
        let mut w = tree(array![[0.0, 0.5]], array![[0.0, 0.0], [3.0, 4.0]]);
        opt.step(&mut w, &tree(array![[4.0, 0.5]], array![[-12.0, -16.0], [0.0, 0.0]])).unwrap();
        assert_eq!(w, tree(array![[-1.0, 0.25]], array![[3.0, 4.0], [3.0, 4.0]]));
    }

    #[test]
    fn every_set_by_hand() {
        let moved = |opt: &mut dyn Optimizer<f64>| {
            let mut w = array![3.0, -4.0];
            opt.step(&mut w, &array![0.0, 0.0]).unwrap();
            w
        };
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", NonNegative)), array![3.0, 0.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", Interval::at_least(-1.0))), array![3.0, -1.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", Interval::at_most(-1.0))), array![-1.0, -4.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", UnitNorm::per_tensor())), array![0.6, -0.8]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", UnitNorm::per_row())), array![0.6, -0.8]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", MaxNorm::per_tensor(2.5))), array![1.5, -2.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", MaxNorm::per_tensor(0.0))), array![0.0, 0.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", Simplex::per_tensor().scale(2.0))), array![2.0, 0.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", L1Ball::per_tensor(3.0))), array![1.0, -2.0]);
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", L1Ball::per_tensor(0.0))), array![0.0, 0.0]);
        let doubled = |mut values: ArrayViewMutD<'_, f64>| values *= 2.0;
        assert_eq!(moved(&mut Sgd::new(1.0).project("**", doubled)), array![6.0, -8.0]);
        // The one written first comes first.
        let ordered = |opt: Sgd<f64>| opt.project("**", doubled).project("**", Interval::new(-5.0, 5.0));
        assert_eq!(moved(&mut ordered(Sgd::new(1.0))), array![5.0, -5.0]);
        let reversed = |opt: Sgd<f64>| opt.project("**", Interval::new(-3.5, 3.5)).project("**", doubled);
        assert_eq!(moved(&mut reversed(Sgd::new(1.0))), array![6.0, -7.0]);
        let apart = Sgd::new(1.0).project("**", Interval::at_least(2.0)).project("**", Interval::at_most(-1.0));
        assert_eq!(moved(&mut { apart }), array![-1.0, -1.0]);
    }

    #[test]
    fn what_does_not_move_is_not_projected() {
        let mut opt = Sgd::new(1.0).project("**", UnitNorm::per_tensor()).project("**", NonNegative).freeze("0");
        let mut w = (array![-3.0, 4.0], array![-3.0, 4.0], array![-3.0, 4.0]);
        opt.step(&mut w, &(array![0.0, 0.0], None::<Array1<f64>>, array![0.0, 0.0])).unwrap();
        assert_eq!(w, (array![-3.0, 4.0], array![-3.0, 4.0], array![0.0, 0.8]));
    }

    #[test]
    fn averages_are_of_projected_values() {
        for chain in [true, false] {
            for later in [true, false] {
                let opt = Sgd::new(1.0);
                let mut opt: Box<dyn Optimizer<f64>> = match (chain, later) {
                    (true, true) => Box::new(opt.ema(0.5).project("**", MaxNorm::per_tensor(1.0))),
                    (true, false) => Box::new(opt.ema(0.5).project("**", Interval::at_most(1.0))),
                    (false, true) => Box::new(opt.project("**", MaxNorm::per_tensor(1.0)).ema(0.5)),
                    (false, false) => Box::new(opt.project("**", Interval::at_most(1.0)).ema(0.5)),
                };
                let (mut w, mut average) = (array![0.0], array![0.0]);
                opt.step(&mut w, &array![-0.5]).unwrap();
                opt.step(&mut w, &array![-8.0]).unwrap();
                opt.find::<crate::adaptor::Ema<f64>>().unwrap().read(&mut average).unwrap();
                assert_eq!((w, average), (array![1.0], array![0.75]));
            }
        }
    }

    /// Contiguous and strided, short and long, with and without something beside it.
    #[test]
    fn no_layout_changes_the_bits() {
        let value = |i: usize, j: usize| ((i * 211 + j) as f64 * 0.37).sin();
        let start = Array2::from_shape_fn((300, 211), |(i, j)| value(i, j));
        let grads = Array2::from_shape_fn((300, 211), |(i, j)| value(i + 7, j));
        let expected = (&start - &(&grads * 0.1)).mapv(|x| x.clamp(-0.5, 0.25));
        let mut columns = Array2::zeros((300, 211).f());
        columns.assign(&start);
        let mut wide = Array3::zeros((300, 211, 2));
        let [mut rows, mut followed] = [start.clone(), start.clone()];
        let opt = || Sgd::new(0.1).project("**", Interval::new(-0.5, 0.25));
        opt().step(&mut rows, &grads).unwrap();
        opt().step(&mut columns, &grads).unwrap();
        opt().ema(0.5).step(&mut followed, &grads).unwrap();
        let mut strided = wide.index_axis_mut(Axis(2), 0);
        strided.assign(&start);
        opt().step(&mut strided, &grads).unwrap();
        assert!(strided == expected && rows == expected && columns == expected && followed == expected);
    }

    #[test]
    fn settings_and_patterns_are_checked() {
        let step = |mut opt: Box<dyn Optimizer<f64>>| opt.step(&mut array![1.0], &array![1.0]).unwrap_err();
        let sgd = || Sgd::new(0.1);
        let wrong: [(Box<dyn Optimizer<f64>>, &str, f64); 6] = [
            (Box::new(sgd().project("**", Interval::new(1.0, 0.5))), "upper", 0.5),
            (Box::new(sgd().project("**", MaxNorm::per_tensor(-1.0))), "radius", -1.0),
            (Box::new(sgd().project("**", L1Ball::per_row(-1.0))), "radius", -1.0),
            (Box::new(sgd().project("**", L1Ball::per_row(f64::INFINITY))), "radius", f64::INFINITY),
            (Box::new(sgd().project("**", Simplex::per_row().scale(0.0))), "scale", 0.0),
            (Box::new(sgd().project("**", MaxNorm::per_row(f64::INFINITY))), "radius", f64::INFINITY),
        ];
        for (opt, name, number) in wrong {
            let error = step(opt);
            let is_named = matches!(&error, Error::Argument(ArgumentError::Range { argument, value, .. }) if *argument == name && *value == number);
            assert!(is_named, "{error:?}");
        }
        assert!(
            step(Box::new(sgd().project("**", Interval::at_least(f64::NAN)))).to_string().starts_with("lower is NaN")
        );
        let unmatched = step(Box::new(sgd().project("x", NonNegative)));
        assert!(matches!(unmatched, Error::Step(StepError::PatternUnmatched { .. })));
        let averaged = step(Box::new(SgdScheduleFree::new(0.1).project("**", NonNegative)));
        let distances = step(Box::new(DoG::new(1.0).project("**", NonNegative)));
        let history = step(Box::new(Lbfgs::new(0.1).project("**", NonNegative)));
        for error in [averaged, distances, history] {
            assert!(matches!(error, Error::Step(StepError::OptionNotPossible { option: "project", .. })), "{error:?}");
        }
    }

    #[test]
    fn debug_is_the_call() {
        let opt = Sgd::<f64>::new(0.1).project("a b", MaxNorm::per_row(2.0)).project("**", Interval::new(0.0, 1.0));
        let opt = opt.project("**", Simplex::per_tensor().scale(3.0)).project("**", |_: ArrayViewMutD<'_, f64>| {});
        let expected = "Sgd(learning_rate: 0.1).project(a b, MaxNorm::per_row(2)).project(**, Interval(0, 1))\
                        .project(**, Simplex::per_tensor().scale(3)).project(**, a closure)";
        assert_eq!(format!("{opt:?}"), expected);
    }
}
