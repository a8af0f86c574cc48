//! Rules that train other parameters than those to evaluate.

use super::evaluated::Evaluated;
use super::{Elementwise, Rule};
use crate::error::Result;
use crate::params::{Owned, ParamsMut, Scalar, TensorInfo, ValuesMut};
use crate::step::PerTensor;

/// A rule that trains the parameters y, and whose result is an average x of them: `x = y − κ·s`, where s is the rule's first slot.
/// [`Elementwise`] then has the methods [`average`](Elementwise::average) and [`swap`](Elementwise::swap).
pub trait Averaging<A: Scalar>: Rule<A> {
    /// The factor κ of a tensor, from the [numbers](Rule::numbers) that it had in its last step.
    fn factor(&self, numbers: &[f64]) -> f64;
}

impl<A: Scalar, R: Averaging<A>> Elementwise<R, A> {
    /// Replaces the parameters by their average x, which is what to evaluate and to ship. Call it with a copy of the parameters, and train on
    /// with the original.
    ///
    /// Tensors that have had no gradient are unchanged.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the tree has another layout, and
    /// [`StepError::Swapped`](crate::error::StepError::Swapped) while the averages are [swapped in](Self::swap).
    pub fn average(&self, copy: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        self.evaluated.ensure_in_training()?;
        let Some(layout) = self.state.layout() else { return Ok(()) };
        self.to_average(layout.tensors().iter().zip(layout.values_mut(copy)?))
    }

    /// Replaces the parameters by their average x, to evaluate them, or puts the parameters in training back, bit for bit.
    ///
    /// Call it once to evaluate the model, and again to continue training. Between the two calls, `step` returns an error, and the optimizer
    /// holds the parameters in training; its state has them, too. Before the first step, it does nothing.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the tree has another layout. Nothing is changed then.
    pub fn swap(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let Some(layout) = self.state.layout().cloned() else { return Ok(()) };
        let mut values = layout.values_mut(params)?;
        if self.evaluated.swapped {
            for ((info, values), trained) in layout.tensors().iter().zip(&mut values).zip(self.evaluated.trained.all())
            {
                if let Some(trained) = trained {
                    values.view_mut(info.shape()).assign(&trained.as_values().view(info.shape()));
                }
            }
            self.evaluated = Evaluated::default();
            return Ok(());
        }
        let trained = PerTensor::from_fn(layout.clone(), |at, info| {
            let has_moved = self.state.at(at).is_some_and(|state| state.steps > 0);
            has_moved.then(|| Owned::copy(&values[at].as_values(), info.shape()))
        });
        self.to_average(layout.tensors().iter().zip(values))?;
        self.evaluated = Evaluated { trained, swapped: true };
        Ok(())
    }

    /// Makes averages of parameters; of none if there is an error.
    fn to_average<'i, 'v>(&self, tensors: impl Iterator<Item = (&'i TensorInfo, ValuesMut<'v, A>)>) -> Result<()>
    where
        A: 'v,
    {
        let first = self.rule.slots().first().copied().unwrap_or_default();
        for (info, mut values) in tensors {
            if let (Some(state), Some(slot)) = (self.state.get(info.path()), self.slot(info.path(), first)) {
                let factor = self.rule.factor(&state.numbers);
                let average = |y: A, s: A| A::from_f64(y.as_f64() - factor * s.as_f64());
                values.view_mut(info.shape()).zip_mut_with(&slot, |y, s| *y = average(*y, *s));
            }
        }
        Ok(())
    }
}
