//! The numbers that a rule computes from sums over whole tensors, before one of them moves.

use super::checked::StepValues;
use super::elements::{Elements, MAX_SUMS, MAX_TOTALS, Measures};
use super::pieces::Unmoved;
use super::prelude::Prelude;
use super::{At, Elementwise, MAX_NUMBERS, Rule};
use crate::error::{Error, Result};
use crate::kernel::simd;
use crate::params::{Element, Order, Scalar};
use crate::state::{StateReader, StateWriter};
use crate::step::{Step, norm};

/// The numbers of a step: of all tensors together, or of each that has a gradient.
pub(super) struct Learned {
    pub(super) totals: [f64; MAX_TOTALS],
    of_tensors: Vec<[f64; MAX_NUMBERS]>,
}

impl Learned {
    /// What the tensor sees that is the one of this number with a gradient.
    pub(super) fn of(&self, number: usize) -> [f64; MAX_NUMBERS] {
        let [first, second, third, ..] = self.totals;
        self.of_tensors.get(number).copied().unwrap_or([first, second, third])
    }
}

impl<A: Scalar, R: Rule<A>> Elementwise<R, A> {
    /// The names of the numbers of each tensor.
    pub(super) fn names_of_numbers(&self) -> &'static [&'static str] {
        if self.rule.measures() == Some(Measures::Step) { &[] } else { self.rule.numbers() }
    }

    /// The names of the numbers of all tensors together.
    fn names_of_totals(&self) -> &'static [&'static str] {
        if self.rule.measures() == Some(Measures::Step) { self.rule.numbers() } else { &[] }
    }

    /// A number that the rule remembers of all tensors together; 0 before the first step.
    pub(crate) fn total(&self, name: &str) -> f64 {
        self.names_of_totals().iter().zip(self.totals).find(|(own, _)| **own == name).map_or(0.0, |(_, total)| total)
    }

    /// The hyper-parameters of the last step; `None` before the first.
    pub(crate) fn last_values(&self) -> Option<R::Values> {
        self.rule.values::<A>(self.steps.checked_sub(1)?).ok()
    }

    pub(super) fn write_totals(&self, node: &mut StateWriter<'_>) {
        self.names_of_totals().iter().zip(self.totals).for_each(|(name, total)| node.value(name, total));
    }

    /// Reads what [`write_totals`](Self::write_totals) wrote.
    pub(super) fn read_totals(&self, node: &StateReader<'_>) -> Result<[f64; MAX_TOTALS]> {
        let mut totals = [0.0; MAX_TOTALS];
        for (name, total) in self.names_of_totals().iter().zip(&mut totals) {
            *total = node.value_where(name, "a finite number", |number: &f64| number.is_finite())?;
        }
        Ok(totals)
    }

    /// The numbers of this step, of a rule that measures. Changes nothing.
    #[inline(always)]
    pub(super) fn learn(&self, step: &Step<'_, A>, values: &StepValues<R::Values>) -> Result<Option<Learned>> {
        self.rule.measures().map(|measures| self.learned(measures, step, values)).transpose()
    }

    fn learned(&self, measures: Measures, step: &Step<'_, A>, values: &StepValues<R::Values>) -> Result<Learned> {
        let mut learned = Learned { totals: self.totals, of_tensors: Vec::new() };
        let mut all = [0.0; MAX_SUMS];
        for (info, tensor) in step.iter() {
            let Some(grad) = &tensor.grad else { continue };
            let state = self.state.at(tensor.index()).filter(|state| state.steps > 0);
            let state = state.map(|state| state.with(self.slot_names(), info.elements()));
            let pull =
                values.rates.of(self.options.decay(self.rule.decay()), tensor.learning_rate, tensor.weight_decay);
            let numbers = match measures {
                Measures::Step => learned.of(0),
                Measures::Tensor => state.as_ref().map_or([0.0; MAX_NUMBERS], |state| state.numbers),
            };
            let at = At {
                step: state.as_ref().map_or(0, |state| state.steps).saturating_add(1),
                learning_rate: pull.learning_rate,
                weight_decay: pull.weight_decay,
                numbers,
                ..At::default()
            };
            let prelude = Prelude::of(grad, 1.0, pull.coupled);
            let own = values.rule.for_tensor(&tensor.replaced);
            let (param, slot_count) = (tensor.param(), self.rule.slots().len());
            let order = state.as_ref().map_or(Order::C, |state| state.order);
            let stored = state.as_ref().map(|state| &state.slots);
            let tensor = Unmoved::new(&self.scratch, (&param, grad, stored), (info.shape(), order, slot_count));
            let elements = Elements { arch: simd::arch(), prelude, tensor, slot_count };
            let sums = self.rule.measure(own, &at, elements);
            match measures {
                Measures::Step => all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum),
                Measures::Tensor => {
                    let mut numbers = numbers;
                    self.learn_from(step, own, sums, &mut numbers)?;
                    learned.of_tensors.push(numbers);
                }
            }
        }
        if measures == Measures::Step {
            for sum in &mut all {
                *sum = step.share().sum(*sum)?;
            }
            self.learn_from(step, values.rule.at(None), all, &mut learned.totals)?;
        }
        Ok(learned)
    }

    /// The numbers that follow from these sums, if they are numbers.
    fn learn_from(
        &self,
        step: &Step<'_, A>,
        values: &R::Values,
        sums: [f64; MAX_SUMS],
        numbers: &mut [f64],
    ) -> Result<()> {
        let count = self.rule.numbers().len();
        if sums.iter().all(|sum| sum.is_finite()) {
            self.rule.learn(values, sums, &mut numbers[..count]);
            if numbers.iter().all(|number| number.is_finite()) {
                return Ok(());
            }
        }
        Err(not_finite(step))
    }
}

/// Why the sums over a step are not finite.
fn not_finite<A: Element>(step: &Step<'_, A>) -> Error {
    let of_params = if step.are_finite() { norm::non_finite_param(step.iter()) } else { None };
    of_params.unwrap_or_else(|| norm::non_finite(&step.grads().collect::<Vec<_>>()))
}
