//! Gradients of rows: against dense steps of these rows, through every adaptor, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adaptors;
mod memory;
mod oracle;
mod refusals;

use gradus::prelude::*;
use gradus::rule::Rule;
use ndarray::{Array2, Axis};

/// A number from −1 to 1 for each place and step.
fn wave<A: Element>(shape: (usize, usize), phase: f64) -> Array2<A> {
    Array2::from_shape_fn(shape, |(i, j)| A::from_f64((i as f64 * 1.3 + j as f64 * 0.37 + phase).sin()))
}

/// Some of the rows 0 … `count` − 1, each once, in an order that differs between steps.
fn some_rows(count: usize, step: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..count).filter(|row| (row * 7 + step * 3) % 5 < 2).collect();
    let middle = if rows.is_empty() { 0 } else { step % rows.len() };
    rows.rotate_left(middle);
    rows
}

/// Calls a macro with each element-wise optimizer.
macro_rules! for_each_optimizer {
    ($call:ident, $float:ty) => {
        $call!(Sgd::<$float>::new(0.01).weight_decay(0.1));
        $call!(Momentum::<$float>::new(0.01, 0.9).dampening(0.1));
        $call!(Momentum::<$float>::new(0.01, 0.9).classical(true));
        $call!(Nesterov::<$float>::new(0.01, 0.9).weight_decay(0.2));
        $call!(RmsProp::<$float>::new(0.01).centered(true).momentum(0.5));
        $call!(Adam::<$float>::new(0.01).amsgrad(true).weight_decay(0.1));
        $call!(AdamW::<$float>::new(0.01).weight_decay(0.3));
        $call!(NAdam::<$float>::new(0.01));
        $call!(RAdam::<$float>::new(0.01));
        $call!(Adamax::<$float>::new(0.01));
        $call!(AdaBelief::<$float>::new(0.01).weight_decay(0.3));
        $call!(Lion::<$float>::new(0.01).weight_decay(0.3));
        $call!(Adagrad::<$float>::new(0.01).initial_accumulator_value(0.1).learning_rate_decay(0.1));
        $call!(Adadelta::<$float>::new(0.5));
        $call!(Rprop::<$float>::new(0.01));
        $call!(SgdScheduleFree::<$float>::new(0.01));
        $call!(AdamWScheduleFree::<$float>::new(0.01).weight_decay(0.1));
        $call!(SignSgd::<$float>::new(0.01));
        $call!(Signum::<$float>::new(0.01));
        $call!(Yogi::<$float>::new(0.01));
        $call!(LaProp::<$float>::new(0.01));
        $call!(AdEMAMix::<$float>::new(0.01));
        $call!(Sophia::<$float>::new(0.01).weight_decay(0.1));
        $call!(AdaHessian::<$float>::new(0.01).eps(0.1));
        $call!(SimplifiedAdEMAMix::<$float>::new(0.01));
        $call!(Adopt::<$float>::new(0.01));
        $call!(Adan::<$float>::new(0.01));
        $call!(Asgd::<$float>::new(0.01));
    };
}
use for_each_optimizer;

/// An element-wise optimizer of this element type.
trait Tested<A: Scalar>: Optimizer<A> + Clone + std::fmt::Debug + Sync {}
impl<A: Scalar, R: Rule<A> + Clone + std::fmt::Debug + Sync> Tested<A> for Elementwise<R, A> where
    Elementwise<R, A>: Optimizer<A> + std::fmt::Debug + Sync
{
}

/// These rows of an array.
fn gathered<A: Element>(array: &Array2<A>, rows: &[usize]) -> Array2<A> {
    array.select(Axis(0), rows)
}
