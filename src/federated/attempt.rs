//! A step of the server's optimizer that can be taken back.

use std::sync::Arc;

use crate::distributed::{pack_params, put_params};
use crate::error::{Error, Result, StepError};
use crate::params::Element;
use crate::state::StateDict;
use crate::step::norm::unravel;
use crate::step::{Optimizer, Report, Step};

/// A step that was taken, and what there was before it.
pub(super) struct Attempt<'m, A> {
    pub(super) report: Report,
    step: Step<'m, A>,
    params: Vec<A>,
    state: StateDict,
}

impl<'m, A: Element> Attempt<'m, A> {
    /// Takes the step.
    pub(super) fn new(optimizer: &mut impl Optimizer<A>, mut step: Step<'m, A>) -> Result<Self> {
        let (params, state) = (pack_params(&step), optimizer.state_dict());
        let layout = Arc::clone(step.layout());
        let tensors = step.iter_mut().map(|(_, tensor)| tensor.reborrow()).collect();
        let result = optimizer.apply(Step::from_parts(layout, tensors, None));
        let attempt = Self { report: Report::new(optimizer.learning_rate(), false), step, params, state };
        match result {
            Ok(report) => Ok(Self { report, ..attempt }),
            Err(error) => {
                // One that consists of several may have moved a part.
                attempt.undo(optimizer);
                Err(error.taken_back())
            }
        }
    }

    /// Returns an error unless all numbers of the model and of the optimizer's state are finite.
    ///
    /// An infinite number in the state would not be seen in the model at once: under a second moment that is infinite an element never
    /// moves again.
    pub(super) fn ensure_finite(&self, optimizer: &impl Optimizer<A>) -> Result<()> {
        for (info, tensor) in self.step.iter() {
            let param = tensor.param();
            let view = param.view(info.shape());
            if let Some((at, value)) = view.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                let (path, index) = (info.path().to_owned(), unravel(at, info.shape()));
                return Err(Error::Step(StepError::NonFiniteParameter { path, index, value: value.as_f64() }));
            }
        }
        optimizer.state_dict().ensure_finite()
    }

    /// Puts back what there was before.
    pub(super) fn undo(mut self, optimizer: &mut impl Optimizer<A>) {
        put_params(&mut self.step, &self.params);
        // What an optimizer has written it reads.
        _ = optimizer.load_state_dict(&self.state);
    }
}
