//! What must hold before an element-wise step moves anything.

use super::decay::Decay;
use super::elements::{MAX_TOTALS, Measures};
use super::rates::RatesAt;
use super::rows::ensure_rows;
use super::stored::MAX_SLOTS;
use super::valued::Valued;
use super::{At, Elementwise, MAX_NUMBERS, Rule};
use crate::error::{Error, Result};
use crate::params::Scalar;
use crate::step::share::Extent;
use crate::step::{Step, counter};

/// The hyper-parameters of one step.
pub(super) struct StepValues<V> {
    pub(super) rates: RatesAt,
    pub(super) rule: Valued<V>,
}

impl<A: Scalar, R: Rule<A>> Elementwise<R, A> {
    /// The hyper-parameters of this step, if they and the step are in order.
    pub(super) fn values(&self, step: &Step<'_, A>) -> Result<StepValues<R::Values>> {
        self.state.ensure_known(step)?;
        self.evaluated.ensure_in_training()?;
        self.options.check()?;
        let slots = self.rule.slots().len();
        let refused = |what: &str, found: usize, most: usize| {
            Err(Error::Other(format!("{} has {found} {what} where {most} are possible", self.rule.name())))
        };
        if slots > MAX_SLOTS {
            return refused("state slots", slots, MAX_SLOTS);
        }
        let (numbers, measures) = (self.rule.numbers().len(), self.rule.measures());
        let most = if measures == Some(Measures::Step) { MAX_TOTALS } else { MAX_NUMBERS };
        if numbers > most {
            return refused("numbers", numbers, most);
        }
        counter::ensure_next("steps", self.steps)?;
        let (rates, decay) = (self.rates.at(self.steps)?, self.options.decay(self.rule.decay()));
        let is_plain = step.is_as_paired() && counter::ensure_next("steps", self.most_steps).is_ok();
        if !is_plain {
            self.ensure_each(step, rates)?;
        }
        rates.ensure::<A>(decay, None, self.steps)?;
        let rule = Valued::of::<A, R>(&self.rule, step, self.steps)?;
        if measures == Some(Measures::Step) && rule.places() > 0 {
            step.ensure_none_replaced(self.rule.title(), "it follows from sums over all tensors, which share it")?;
        }
        // A part of a matrix is a vector: the rule is asked about a matrix.
        let has_norm = self.rule.tensor_norm(rule.at(None), &At::default(), &[1, 1]).is_some();
        if has_norm || measures == Some(Measures::Tensor) || self.rule.gradient_ratio(rule.at(None)).is_some() {
            step.share().ensure(Extent::Tensors, self.rule.name())?;
        }
        if self.rule.averages() || measures.is_some() {
            step.ensure_free(self.rule.name(), "an optimizer whose state does not follow its own moves")?;
        }
        if self.options.are_some_on() {
            let at = At { step: 1, learning_rate: rates.learning_rate, ..At::default() };
            let moment = self.rule.second_moment(rule.at(None), &at);
            // A decay that the rule does not see would be a move that it does not see.
            let decay = if measures.is_some() { Decay::Own } else { self.rule.decay() };
            self.options.ensure(step, (self.rule.name(), self.rule.averages() || measures.is_some(), decay, moment))?;
        }
        if !step.is_as_paired() {
            ensure_rows(&self.rule, step, (&self.state, self.precision), &rule, (rates, self.options))?;
        }
        Ok(StepValues { rates, rule })
    }

    /// Returns an error unless what adaptors have described is in order for each tensor, and its counter has a next number.
    fn ensure_each(&self, step: &Step<'_, A>, rates: RatesAt) -> Result<()> {
        for (info, tensor) in step.iter() {
            let Some(grad) = &tensor.grad else { continue };
            rates.ensure_adjusted(self.options.decay(self.rule.decay()), (info, tensor), self.steps)?;
            grad.ensure_kept(info)?;
            counter::ensure_next_of(info, self.state.at(tensor.index()).map_or(0, |state| state.steps))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::super::{At, Elementwise, Lanes, Rule};
    use crate::params::Scalar;
    use crate::step::Optimizer;

    crate::hyper_parameters! {
        /// A rule with more slots than there is room for.
        struct Greedy => GreedyValues {}
    }

    impl<A: Scalar> Rule<A> for Greedy {
        type Coefficients = ();

        fn name(&self) -> &'static str {
            "greedy"
        }

        fn slots(&self) -> &'static [&'static str] {
            &["a", "b", "c", "d", "e"]
        }

        fn coefficients(&self, _: &GreedyValues, at: &At) -> (f64, ()) {
            (at.learning_rate, ())
        }

        fn sweep(&self, (): (), _: Lanes<'_, A>) {}
    }

    #[test]
    fn too_many_slots_are_an_error() {
        let error = Elementwise::from_rule(Greedy::default(), 0.1)
            .step(&mut Array1::<f64>::ones(2), &Array1::ones(2))
            .unwrap_err();
        assert_eq!(error.to_string(), "greedy has 5 state slots where 4 are possible");
    }
}
