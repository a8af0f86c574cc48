//! Gradient ascent.

use std::fmt;

use super::{Outcome, Transform};
use crate::error::Result;
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::Step;

/// Maximizes the objective instead of minimizing it. Created by [`OptimizerExt::maximize`](crate::OptimizerExt::maximize). It changes the
/// sign of the gradient; weight decay still pulls towards zero.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(0.5).maximize();
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w, array![0.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct Maximize;

impl<A: Element> Transform<A> for Maximize {
    fn name(&self) -> &'static str {
        "maximize"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        Vec::new()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        step.grads_mut().for_each(|(_, grad)| grad.scale_by(-1.0));
        Ok(Outcome::pass())
    }
}

impl fmt::Debug for Maximize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("maximize()")
    }
}
