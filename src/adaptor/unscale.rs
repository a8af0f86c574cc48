//! Loss scaling, undone.

use super::{around, ask_inner, state_of_inner};
use crate::error::{Error, Result, StepError};
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::{Optimizer, Report, Step};

/// Divides every gradient by a factor: made by [`OptimizerExt::unscale`](crate::OptimizerExt::unscale).
///
/// Gradients of f16 that would underflow are computed from a loss multiplied by some 2¹⁶. The sweep that moves the
/// parameters divides again as it reads. Clipping given before `unscale` sees the divided gradients.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).clip_global_norm(1.0).exact().unscale(1024.0);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![512.0])?;
/// assert_eq!(w, array![-0.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias = "GradScaler")]
#[derive(Debug, Clone)]
pub struct Unscale<O> {
    inner: O,
    loss_scale: Hyper,
}

around!(Unscale<O>);

impl<O> Unscale<O> {
    pub(crate) fn new(inner: O, loss_scale: impl Into<Hyper>) -> Self {
        Self { inner, loss_scale: loss_scale.into() }
    }
}

impl<O> Unscale<O> {
    fn divide<A: Element>(&self, step: &mut Step<'_, A>) -> Result<()>
    where
        O: Optimizer<A>,
    {
        // One over a subnormal number may be infinite.
        let (name, at) = ("loss_scale", self.inner.steps());
        let scale = self.loss_scale.within(name, f64::MIN_POSITIVE.., at);
        let scale = scale.map_err(|error| error.accepting("a finite number > 0"))?;
        // Gradients of 16 bits are computed with in f32.
        let (dtype, largest) = match size_of::<A>() < size_of::<f32>() {
            true => (f32::DTYPE, f64::from(f32::MAX)),
            false => (A::DTYPE, A::max_value().as_f64()),
        };
        if !(1.0 / largest..=largest).contains(&scale) {
            let accepted = format!("a number from {:e} to {largest:e} in {dtype}", 1.0 / largest);
            return Err(Error::Step(StepError::HyperParameter { name, value: scale, step: at, path: None, accepted }));
        }
        step.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()).for_each(|grad| grad.scale_by(1.0 / scale));
        Ok(())
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Unscale<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let mut step = step.preview();
        self.divide(&mut step)?;
        self.inner.check(&step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        self.divide(&mut step)?;
        self.inner.apply(step)
    }

    ask_inner!();
    state_of_inner!();
}
