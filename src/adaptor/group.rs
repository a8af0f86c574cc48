//! Learning rate and weight decay by group of tensors.

use super::{around, ask_inner, state_of_inner};
use crate::error::{Error, Result, StepError};
use crate::params::pattern::{Pattern, Selection};
use crate::params::{Element, Layout, TensorInfo};
use crate::schedule::Hyper;
use crate::step::{Adjust, Optimizer, Report, Step};

/// What a group of tensors has of its own.
///
/// Each value is a number or a schedule, evaluated at the optimizer's step counter.
#[doc(alias = "param_groups")]
#[derive(Debug, Clone, Default)]
pub struct Group {
    learning_rate: Own,
    weight_decay: Own,
}

/// A replacement and a factor for one hyper-parameter.
#[derive(Debug, Clone, Default)]
struct Own {
    value: Option<Hyper>,
    scale: Option<Hyper>,
}

impl Group {
    /// A group that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes this learning rate instead of the optimizer's.
    pub fn learning_rate(mut self, learning_rate: impl Into<Hyper>) -> Self {
        self.learning_rate.value = Some(learning_rate.into());
        self
    }

    /// Multiplies the learning rate.
    pub fn scale_learning_rate(mut self, factor: impl Into<Hyper>) -> Self {
        self.learning_rate.scale = Some(factor.into());
        self
    }

    /// Takes this weight decay instead of the optimizer's.
    pub fn weight_decay(mut self, weight_decay: impl Into<Hyper>) -> Self {
        self.weight_decay.value = Some(weight_decay.into());
        self
    }

    /// Multiplies the weight decay.
    pub fn scale_weight_decay(mut self, factor: impl Into<Hyper>) -> Self {
        self.weight_decay.scale = Some(factor.into());
        self
    }

    /// No weight decay: what biases and norms usually get.
    pub fn no_decay() -> Self {
        Self::new().weight_decay(0.0)
    }
}

impl Own {
    fn at(&self, [value, scale]: [&'static str; 2], step: u64) -> Result<Adjust> {
        let within =
            |hyper: &Option<Hyper>, name| hyper.as_ref().map(|hyper| hyper.within(name, 0.0.., step)).transpose();
        Ok(Adjust { value: within(&self.value, value)?, scale: within(&self.scale, scale)?.unwrap_or(1.0) })
    }
}

/// An optimizer with a group: made by [`OptimizerExt::group`](crate::OptimizerExt::group).
///
/// Where groups overlap, factors multiply, and of several replacements the outermost, given last, holds.
///
/// ```
/// use gradus::{adaptor::Group, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0)
///     .group("1", Group::new().scale_learning_rate(0.1))
///     .group("**", Group::new().weight_decay(0.5));
/// let mut w = (array![1.0], array![1.0]);
/// opt.step(&mut w, &(array![0.0], array![0.0]))?;
/// assert_eq!(w, (array![0.5], array![0.95]));
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Grouped<O> {
    inner: O,
    selection: Selection,
    group: Group,
}

around!(Grouped<O>);

impl<O> Grouped<O> {
    pub(crate) fn new(inner: O, pattern: impl Into<Pattern>, group: Group) -> Self {
        Self { inner, selection: Selection::new(pattern), group }
    }

    /// The changes at a step; an error names the first tensor of the group.
    fn adjusts(&self, step: u64, layout: &Layout) -> Result<(Adjust, Adjust)> {
        let Group { learning_rate, weight_decay } = &self.group;
        let learning_rate = learning_rate.at(["learning_rate", "scale_learning_rate"], step);
        let both = learning_rate.and_then(|learning_rate| {
            Ok((learning_rate, weight_decay.at(["weight_decay", "scale_weight_decay"], step)?))
        });
        both.map_err(|error| match error {
            Error::Step(StepError::HyperParameter { name, value, step, accepted, .. }) => {
                Error::Step(StepError::HyperParameter {
                    name,
                    value,
                    step,
                    accepted,
                    path: self.selection.first(layout),
                })
            }
            other => other,
        })
    }

    /// Changes what holds for the group's tensors.
    fn adjust<A: Element>(&self, at: u64, step: &mut Step<'_, A>) -> Result<()> {
        let chosen = self.selection.peek(step.layout())?;
        let (learning_rate, weight_decay) = self.adjusts(at, step.layout())?;
        for (info, tensor) in step.iter_mut().filter(|(_, tensor)| chosen[tensor.index()]) {
            let combine = |name, outer, inner| combined(name, outer, inner, info, at);
            tensor.learning_rate = combine("scale_learning_rate", tensor.learning_rate, learning_rate)?;
            tensor.weight_decay = combine("scale_weight_decay", tensor.weight_decay, weight_decay)?;
        }
        Ok(())
    }
}

/// What an outer group's change and an inner one's are together.
fn combined(name: &'static str, outer: Adjust, inner: Adjust, info: &TensorInfo, step: u64) -> Result<Adjust> {
    let scale = outer.scale * inner.scale;
    if scale == 0.0 && outer.scale != 0.0 && inner.scale != 0.0 {
        let accepted =
            format!("0 or one whose product with the {:e} of a group outside is a number above 0", outer.scale);
        return Err(Error::Step(StepError::HyperParameter {
            name,
            value: inner.scale,
            step,
            path: Some(info.path().into()),
            accepted,
        }));
    }
    Ok(Adjust { value: outer.value.or(inner.value), scale })
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Grouped<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let mut step = step.preview();
        self.adjust(self.inner.steps(), &mut step)?;
        self.inner.check(&step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        self.selection.choose(step.layout())?;
        self.adjust(self.inner.steps(), &mut step)?;
        self.inner.apply(step)
    }

    ask_inner!();
    state_of_inner!();
}
