//! Pieces of the user's own: rules, an optimizer and adaptors, written as the docs show them.

use std::sync::Arc;

use gradus::error::StepError;
use gradus::params::{Layout, TensorInfo};
use gradus::rule::{At, Lanes, MatrixRule, MatrixSlot, Rule};
use gradus::{Commit, Element, Error, Hyper, Report, Result, StateReader, StateWriter, Step, prelude::*};
use ndarray::{Array2, ArrayViewMut2};

use crate::actions::Boxed;

gradus::hyper_parameters! {
    /// A rule as the docs show one.
    pub(crate) struct Signs => SignsValues {
        /// The share of the average that is kept per step.
        momentum: 0.9, 0.0..1.0;
    }
}

impl<A: Scalar> Rule<A> for Signs {
    type Coefficients = [A; 2];

    fn name(&self) -> &'static str {
        "signs"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn coefficients(&self, values: &SignsValues, at: &At) -> (f64, [A; 2]) {
        (at.learning_rate, [values.momentum, 1.0 - values.momentum].map(A::from_f64))
    }

    fn sweep(&self, coefficients: [A; 2], lanes: Lanes<'_, A>) {
        lanes.each(coefficients, |&[momentum, rest], _, grad, [m]: [A; 1]| {
            let m = momentum * m + rest * grad;
            (m.signum(), [m])
        });
    }
}

gradus::hyper_parameters! {
    /// A rule of matrices: momentum, and shorter rows.
    pub(crate) struct Rows => RowsValues {
        /// The momentum.
        momentum: 0.9, 0.0..1.0;
    }
}

impl<A: Scalar> MatrixRule<A> for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        vec![MatrixSlot::new("momentum_buffer", shape)]
    }

    fn direction(
        &self,
        values: &RowsValues,
        _: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let momentum = A::from_f64(values.momentum);
        slots[0].zip_mut_with(&grad, |m, grad| *m = momentum * *m + *grad);
        grad.assign(&slots[0]);
        for mut row in grad.rows_mut() {
            let norm = row.iter().fold(A::zero(), |sum, x| sum + *x * *x).sqrt() + A::one();
            row.mapv_inplace(|x| x / norm);
        }
    }
}

/// An optimizer as the guide shows one.
pub(crate) struct OwnOptimizer {
    pub(crate) rate: Hyper,
    pub(crate) steps: u64,
    pub(crate) layout: Option<Arc<Layout>>,
}

impl OwnOptimizer {
    fn check_own<A: Element>(&self, step: &Step<'_, A>) -> Result<f64> {
        match &self.layout {
            Some(known) if **known != **step.layout() => {
                return Err(Error::Step(StepError::ParametersChanged {
                    expected: "those".into(),
                    found: "others".into(),
                }));
            }
            _ => {}
        }
        if self.steps == u64::MAX {
            return Err(Error::Other("no more steps".into()));
        }
        let rate = self.rate.within("learning_rate", 0.0.., self.steps)?;
        match A::from_f64(rate).is_finite() && (A::from_f64(rate) > A::zero() || rate == 0.0) {
            true => Ok(rate),
            false => Err(Error::Other("the learning rate is no number of this type".into())),
        }
    }
}

impl<A: Scalar> Optimizer<A> for OwnOptimizer {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step).map(drop)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let rate = self.check_own(&step)?;
        let scale = A::from_f64(rate);
        let mut moved = false;
        for (info, tensor) in step.iter_mut() {
            moved |=
                tensor.update(info, |mut param, grad| param.zip_mut_with(&grad, |param, grad| *param -= scale * *grad));
        }
        self.layout = Some(Arc::clone(step.layout()));
        self.steps += u64::from(moved);
        Ok(Report::new(rate, moved))
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.rate = learning_rate;
    }

    fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
        None
    }

    fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        None
    }

    fn learning_rate(&self) -> f64 {
        self.rate.at(self.steps)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("own");
        node.value("steps", self.steps);
        self.rate.write_state("rate", &mut node);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("own")?;
        let (steps, layout) = (node.value("steps", "a count")?, state.layout().cloned());
        let rate = self.rate.read_state("rate", &node)?;
        Ok(Commit::new(move || (self.steps, self.layout) = (steps, layout)).and(rate))
    }
}

/// An adaptor that does nothing, as the guide shows one.
pub(crate) struct OwnAdaptor<A> {
    pub(crate) inner: Boxed<A>,
    /// How often it was called, if it counts: also calls that were refused, which is the fault that the tester is tested with.
    pub(crate) calls: Option<u64>,
}

impl<A: Element> Optimizer<A> for OwnAdaptor<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.inner.check(&step.preview())
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        self.calls = self.calls.map(|calls| calls + 1);
        self.inner.apply(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.inner.conclude(result)
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.inner.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
        self.inner.part(of)
    }

    fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        self.inner.part_mut(of)
    }

    fn learning_rate(&self) -> f64 {
        self.inner.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.inner.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        if let Some(calls) = self.calls {
            state.node("calls").value("calls", calls);
        }
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let Self { inner, calls } = self;
        let read = match calls {
            Some(_) => Some(state.node("calls")?.value("calls", "a count")?),
            None => None,
        };
        Ok(inner.read_state(state)?.and(Commit::new(move || *calls = read)))
    }
}
