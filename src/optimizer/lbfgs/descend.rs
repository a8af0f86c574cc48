//! Several iterations down a loss that is evaluated as often as they need it.

use std::sync::Arc;

use super::vector::{Places, Undo, dot, flat_grads, largest, moved, scaled, sum_of_sizes};
use super::wolfe::{Line, Point};
use super::{Lbfgs, ensure_finite};
use crate::error::{ArgumentError, Error, Result, StepError};
use crate::params::{Layout, Params, ParamsMut, Scalar};
use crate::step::{Step, counter};

/// How often a call's first search evaluates the loss if it has found nothing lower.
const SEARCH: u64 = 25;

/// The reason why [`Lbfgs::step_with`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LbfgsStop {
    /// The maximum number of iterations was reached.
    Iterations,
    /// The maximum number of evaluations was reached.
    Evaluations,
    /// The gradient is within its tolerance.
    Gradient,
    /// The parameters or the loss changed by less than the tolerance, or the direction does not descend.
    Change,
    /// Loss or gradient became NaN or infinite; the parameters are those before that iteration.
    NotFinite,
}

/// The result of [`Lbfgs::step_with`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LbfgsReport {
    /// The loss before the call.
    pub initial_loss: f64,
    /// The last loss evaluated. It belongs to the current parameters, unless the last iteration was taken without a line search.
    pub loss: f64,
    /// The number of iterations.
    pub iterations: u64,
    /// The number of evaluations of the loss.
    pub evaluations: u64,
    /// The reason why it stopped.
    pub stop: LbfgsStop,
}

impl<A: Scalar> Lbfgs<A> {
    /// Takes several iterations. `evaluate` returns the loss and its gradients. The loss must be that of all data, and deterministic.
    ///
    /// # Errors
    /// [`ArgumentError::NotFinite`] or [`StepError::NonFiniteGradient`] for the first evaluation, [`StepError::HyperParameter`], and those of [`Step::pair`]. Parameters
    /// and state are then unchanged.
    pub fn step_with<P, G, L>(&mut self, params: &mut P, mut evaluate: impl FnMut(&P) -> (L, G)) -> Result<LbfgsReport>
    where
        P: ParamsMut<Elem = A>,
        G: Params<Elem = A>,
        L: Into<f64>,
    {
        let (steps, layout, memory) = (self.steps, self.layout.clone(), self.memory.clone());
        let mut undo = None;
        let result = self.descend(params, &mut evaluate, &mut undo);
        if result.is_err() {
            (self.steps, self.layout, self.memory) = (steps, layout, memory);
            if let Some(undo) = undo {
                undo.undo(params);
            }
        }
        result
    }

    /// [`step_with`](Self::step_with), but for taking back what an error leaves; `undo` gets the parameters before the first change.
    fn descend<P, G, L>(
        &mut self,
        params: &mut P,
        evaluate: &mut impl FnMut(&P) -> (L, G),
        undo: &mut Option<Undo<A>>,
    ) -> Result<LbfgsReport>
    where
        P: ParamsMut<Elem = A>,
        G: Params<Elem = A>,
        L: Into<f64>,
    {
        let mut rate = self.settings()?;
        let (loss, grads) = evaluate(params);
        let (mut loss, own) = (loss.into(), Step::pair(params, &grads, self.layout.as_ref())?);
        Layout::ensure_known(self.layout.as_ref(), own.layout())?;
        if !loss.is_finite() {
            return Err(Error::Argument(ArgumentError::NotFinite { argument: "loss", index: vec![], value: loss }));
        }
        ensure_finite(&own)?;
        let layout = Arc::clone(own.layout());
        let (active, mut grad) = flat_grads(&own);
        drop(own);
        let initial_loss = loss;
        let mut report = LbfgsReport { initial_loss, loss, iterations: 0, evaluations: 1, stop: LbfgsStop::Gradient };
        self.layout = Some(Arc::clone(&layout));
        let limits = self.limits.as_ref().map(|limits| limits.ensure_for(&layout).map(|()| limits.of(&active)));
        let bounds = limits.transpose()?;
        let places = Places::new(&layout, &active);
        let mut position = places.read(params)?;
        // The largest element of the gradient that could still lower the loss.
        let largest_of = |position: &[A], grad: &[A]| match &bounds {
            Some(bounds) => bounds.largest_within(position, grad),
            None => largest(grad),
        };
        let start = position.clone();
        bounds.iter().for_each(|bounds| bounds.clamp(&mut position));
        let is_inside = start == position;
        if is_inside && largest_of(&position, &grad) <= self.tolerance_grad {
            return Ok(report);
        }
        let undo = undo.insert(Undo::new(places, &start));
        self.memory.begin(&active);
        // The loss and gradient at another place, and the parameters there. Infinite where they are not finite.
        let mut evaluate_at = |undo: &mut Undo<A>, params: &mut P, position: &[A]| -> Result<(f64, Vec<A>)> {
            undo.write(params, position)?;
            let (loss, grads) = evaluate(params);
            let step = Step::pair(params, &grads, Some(&layout))?;
            layout.ensure_same(step.layout())?;
            let (found, grad) = flat_grads(&step);
            if found != active {
                let missing = layout.tensors().iter().zip(found.iter().zip(&active)).find(|(_, (a, b))| a != b);
                let path = missing.map_or_else(String::new, |(info, _)| info.path().into());
                return Err(Error::Step(StepError::MissingGradient { path }));
            }
            let loss = loss.into();
            let finite = loss.is_finite() && grad.iter().all(|g| g.is_finite());
            Ok((if finite { loss } else { f64::INFINITY }, grad))
        };
        if !is_inside {
            (loss, grad) = evaluate_at(undo, params, &position)?;
            (report.evaluations, report.loss) = (2, loss);
            if !loss.is_finite() {
                return Err(Error::Argument(ArgumentError::NotFinite { argument: "loss", index: vec![], value: loss }));
            }
            if largest_of(&position, &grad) <= self.tolerance_grad {
                return Ok(report);
            }
        }
        report.stop = loop {
            let remembered = self.memory.clone();
            let direction = match &bounds {
                Some(bounds) => self.memory.direction_within((&position, &grad), bounds, self.history),
                None => self.memory.direction(&grad, self.history),
            };
            let longest =
                bounds.as_ref().map_or(f64::INFINITY, |bounds| bounds.longest(&position, &direction).max(1.0));
            let end_of = |position: &[A], length: f64| {
                let mut end = moved(position, &direction, length);
                bounds.iter().for_each(|bounds| bounds.clamp(&mut end));
                end
            };
            let first = self.memory.movement.is_empty();
            let guess = if first { rate * (1.0 / sum_of_sizes(&grad)).min(1.0) } else { rate }.min(longest);
            let slope = dot(&grad, &direction);
            report.iterations += 1;
            counter::ensure_next("steps", self.steps)?;
            self.steps += 1;
            self.memory.grad.clone_from(&grad);
            if slope.is_nan() || slope > -self.tolerance_change {
                self.memory.movement = scaled(&direction, guess);
                break LbfgsStop::Change;
            }
            let before = (position.clone(), loss);
            let last = report.iterations == self.iterations;
            if self.strong_wolfe {
                // If a call ended where it began, so would the next.
                let may_stay = self.evaluations.is_some() || report.iterations > 1;
                let left = self.most_evaluations().saturating_sub(report.evaluations);
                let line = Line {
                    largest: largest(&direction),
                    longest,
                    tolerance: self.tolerance_change,
                    evaluations: left,
                    most: if may_stay { left } else { left.max(SEARCH) },
                };
                let point = Point { length: 0.0, loss, slope, grad };
                let (found, evaluations) = line.search(point, guess, |length| {
                    let (loss, grad) = evaluate_at(undo, params, &end_of(&position, length))?;
                    Ok(Point { length, loss, slope: dot(&grad, &direction), grad })
                })?;
                report.evaluations += evaluations;
                self.memory.movement = scaled(&direction, found.length);
                position = end_of(&position, found.length);
                undo.write(params, &position)?;
                (loss, grad) = (found.loss, found.grad);
            } else {
                self.memory.movement = scaled(&direction, guess);
                position = end_of(&position, guess);
                undo.write(params, &position)?;
                if !last {
                    (loss, grad) = evaluate_at(undo, params, &position)?;
                    report.evaluations += 1;
                }
            }
            if !(loss.is_finite() && position.iter().all(|x| x.is_finite())) {
                (position, loss) = before;
                undo.write(params, &position)?;
                self.memory = remembered;
                self.steps -= 1;
                report.iterations -= 1;
                break LbfgsStop::NotFinite;
            }
            rate = self.rate()?;
            if last {
                break LbfgsStop::Iterations;
            }
            if report.evaluations >= self.most_evaluations() {
                break LbfgsStop::Evaluations;
            }
            if largest_of(&position, &grad) <= self.tolerance_grad {
                break LbfgsStop::Gradient;
            }
            let small = largest(&self.memory.movement) <= self.tolerance_change;
            if small || (loss - before.1).abs() < self.tolerance_change {
                break LbfgsStop::Change;
            }
        };
        report.loss = loss;
        Ok(report)
    }
}
