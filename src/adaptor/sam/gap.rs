//! GSAM: the part of the first gradient that is perpendicular to the second.

use std::fmt;

use super::arithmetic::{NORM_EPS, sum_over};
use crate::error::Result;
use crate::params::{Element, Order, Owned, TensorInfo};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::grad::is_in_type;
use crate::step::memo::new_ids;
use crate::step::{Grad, PerTensor, Step};

/// What GSAM keeps: the first gradients.
#[derive(Clone)]
pub(super) struct Gap<A> {
    alpha: Hyper,
    firsts: PerTensor<First<A>>,
}

/// The first gradient of a tensor. Its memory is kept from step to step.
#[derive(Clone)]
struct First<A> {
    /// Row-major.
    values: Owned<A>,
    /// Whether there was one in this step.
    is_held: bool,
}

impl<A> Gap<A> {
    pub(super) fn new(alpha: Hyper) -> Self {
        Self { alpha, firsts: PerTensor::new() }
    }
}

impl<A: Element> First<A> {
    fn none() -> Self {
        Self { values: Owned::default(), is_held: false }
    }

    /// `along` times a gradient − `alpha` times the first one: computed in `f64`, and rounded once.
    fn subtracted(&self, info: &TensorInfo, grad: &Grad<'_, A>, (along, alpha): (f64, f64)) -> Grad<'static, A> {
        let (mut values, first) = (vec![A::zero(); info.elements()], self.values.as_values());
        grad.read(info.shape(), Order::C, 0, &mut values);
        let firsts = first.as_slice(Order::C).unwrap_or_default();
        for (value, first) in values.iter_mut().zip(firsts) {
            *value = A::from_f64(along * value.as_f64() - alpha * first.as_f64());
        }
        Grad::owned(values, new_ids(1))
    }
}

impl<A: Element> Gap<A> {
    /// α, if it and the step are in order.
    pub(super) fn check(&self, step: &Step<'_, A>, at: u64) -> Result<f64> {
        step.grads().try_for_each(|(info, grad)| {
            grad.ensure_dense(info, "surrogate_gap", "leave it out, or pass a dense gradient")
        })?;
        self.alpha.within("alpha", 0.0..=1.0, at)
    }

    /// Copies the gradients of a step.
    pub(super) fn keep(&mut self, step: &Step<'_, A>) {
        let made = self.firsts.begin(step, |_, _| First::none());
        _ = self.firsts.settle(made, Ok(()));
        for (info, tensor, first) in step.zip(self.firsts.all_mut()) {
            let Some(first) = first else { continue };
            first.is_held = tensor.grad.is_some();
            if let Some(grad) = &tensor.grad {
                if first.values.as_mut_slice().len() != info.elements() {
                    first.values = Owned::zeros(info.elements(), Order::C, 0);
                }
                grad.read(info.shape(), Order::C, 0, first.values.as_mut_slice());
            }
        }
    }

    /// Subtracts from the gradients h of a step α times the perpendicular part of the first ones: h − α(g − c·h) is (1 + αc)h − αg.
    pub(super) fn decompose<'s>(&'s self, step: &mut Step<'s, A>, at: u64) -> Result<()> {
        let alpha = self.check(step, at)?;
        if alpha == 0.0 {
            return Ok(());
        }
        let [mut product, mut first_squares] = [0.0; 2];
        for (info, tensor, first) in step.zip(self.firsts.all()) {
            let (Some(grad), Some(first)) = (&tensor.grad, first.filter(|first| first.is_held)) else { continue };
            let terms = |first, second| [first * second, first * first];
            let [products, squares] = sum_over(info, &first.values.as_values(), grad, terms);
            (product, first_squares) = (product + products, first_squares + squares);
        }
        let (first_norm, second_norm) = (first_squares.sqrt(), step.grad_norm(2.0)?);
        let cosine = product / (second_norm * first_norm + NORM_EPS);
        let along = 1.0 + alpha * (cosine * first_norm / (second_norm + NORM_EPS));
        let scale = -along / alpha;
        // No element is larger than the norm of all: neither h·scale nor its sum with g overflows.
        let is_in_range = is_in_type::<A>(scale) && scale.abs() * second_norm + first_norm <= A::max_value().as_f64();
        for (info, tensor, first) in step.zip_mut(self.firsts.all()) {
            let Some(grad) = &mut tensor.grad else { continue };
            match first.filter(|first| first.is_held) {
                Some(first) if !is_in_range => *grad = first.subtracted(info, grad, (along, alpha)),
                Some(first) => {
                    grad.scale_by(scale);
                    grad.replace_with(|grad| grad.plus(first.values.as_values()));
                    grad.scale_by(-alpha);
                }
                None => grad.scale_by(along),
            }
        }
        Ok(())
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>, has_ascended: bool) {
        self.alpha.write_state("alpha", node);
        let held = self.firsts.iter().filter(|(info, first)| has_ascended && first.is_held && info.elements() > 0);
        held.for_each(|(info, first)| first.values.write(node, "first_grad", info));
    }

    pub(super) fn read_state<'s>(&'s mut self, node: &StateReader<'_>) -> Result<Commit<'s>> {
        let Self { alpha, firsts } = self;
        let read = |info: &TensorInfo| {
            let values = Owned::read(node, "first_grad", info)?;
            Ok(Some(values.map_or_else(First::none, |values| First { values, is_held: true })))
        };
        let read = PerTensor::read_state(node, read)?;
        Ok(Commit::new(move || *firsts = read).and(alpha.read_state("alpha", node)?))
    }
}

impl<A> fmt::Debug for Gap<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.alpha, f)
    }
}
