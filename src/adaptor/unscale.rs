//! Loss scaling.

use std::fmt;

use super::{Outcome, Transform};
use crate::error::{Error, Result, StepError};
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::Step;

/// Divides every gradient by the factor that the loss was multiplied by. Created by
/// [`GuardExt::unscale`](crate::GuardExt::unscale).
///
/// Small f16 gradients underflow, so they are usually computed from a loss multiplied by, say, 2¹⁶. `unscale` divides the gradients by the
/// same factor, in the pass that moves the parameters. Write `unscale` after clipping, so that clipping sees the divided gradients.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).clip_global_norm(1.0).exact(true).unscale(1024.0);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![512.0])?;
/// assert_eq!(w, array![-0.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias = "GradScaler")]
#[derive(Clone)]
pub struct Unscale {
    loss_scale: Hyper,
}

impl Unscale {
    /// Divides by this factor: a number, a schedule or a closure.
    pub fn new(loss_scale: impl Into<Hyper>) -> Self {
        Self { loss_scale: loss_scale.into() }
    }
}

impl<A: Element> Transform<A> for Unscale {
    fn name(&self) -> &'static str {
        "unscale"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![("loss_scale", &self.loss_scale)]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let (name, at) = ("loss_scale", step.number());
        // One over a subnormal number may be infinite.
        let scale = self.loss_scale.within(name, f64::MIN_POSITIVE.., at);
        let scale = scale.map_err(|error| error.accepting("a finite number > 0"))?;
        let (dtype, largest) = largest::<A>();
        if !(1.0 / largest..=largest).contains(&scale) {
            let accepted = format!("a number from {:e} to {largest:e} in {dtype}", 1.0 / largest);
            return Err(Error::Step(StepError::HyperParameter {
                name,
                value: scale,
                step: at,
                path: None,
                pattern: None,
                accepted,
            }));
        }
        step.grads_mut().for_each(|(_, grad)| grad.scale_by(1.0 / scale));
        Ok(Outcome::pass())
    }
}

/// The type that gradients are computed with, and its largest number: 16 bits are computed with in f32.
fn largest<A: Element>() -> (&'static str, f64) {
    match size_of::<A>() < size_of::<f32>() {
        true => (f32::DTYPE, f64::from(f32::MAX)),
        false => (A::DTYPE, A::max_value().as_f64()),
    }
}

impl fmt::Debug for Unscale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unscale({:?})", self.loss_scale)
    }
}
