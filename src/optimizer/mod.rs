//! The optimizer trait and the optimizers, one algorithm a file.

mod adam;

use std::sync::Arc;

use crate::error::Result;
use crate::params::{Layout, Params, ParamsMut};
use crate::scalar::Scalar;
use crate::step::{Report, Step};

pub use adam::{Adam, AdamRule, AdamW};

/// Moves parameters along their gradients.
pub trait Optimizer<A: Scalar>: Send {
    /// Whether [`apply`](Optimizer::apply) would accept this step. Changes nothing.
    fn check(&self, step: &Step<'_, A>) -> Result<()>;

    /// Takes the step, all of it or, on an error, none.
    fn apply(&mut self, step: Step<'_, A>) -> Result<Report>;

    /// The learning rate that the next step will use.
    fn learning_rate(&self) -> f64;

    /// The number of steps taken.
    fn steps(&self) -> u64;

    /// The layout of the parameters, once known.
    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    /// Moves `params` along `grads`.
    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        let step = Step::pair(params, grads, self.layout())?;
        self.apply(step)
    }
}

macro_rules! forward {
    ($($optimizer:tt)*) => {
        impl<A: Scalar, O: Optimizer<A> + ?Sized> Optimizer<A> for $($optimizer)* {
            fn check(&self, step: &Step<'_, A>) -> Result<()> {
                (**self).check(step)
            }

            fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
                (**self).apply(step)
            }

            fn learning_rate(&self) -> f64 {
                (**self).learning_rate()
            }

            fn steps(&self) -> u64 {
                (**self).steps()
            }

            fn layout(&self) -> Option<&Arc<Layout>> {
                (**self).layout()
            }
        }
    };
}

forward!(Box<O>);
forward!(&mut O);
