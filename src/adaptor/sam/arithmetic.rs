//! The perturbation, and sums over pairs of elements.

use crate::error::{Error, Result, StepError};
use crate::kernel::tree;
use crate::params::{Element, Order, TensorInfo, Values};
use crate::step::grad::{BLOCK, Grad, WIDE_BLOCK, is_in_type, read, with_buffer};
use crate::step::{Step, Tensor};

/// Added to a norm that is divided by.
pub(super) const NORM_EPS: f64 = 1e-12;

/// How far a perturbation moves the parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Climb {
    /// ρ divided by the norm.
    scale: f64,
    /// η of ASAM.
    eta: Option<f64>,
}

impl Climb {
    /// The ascent by `rho` along the gradients of a step, which have this norm, or with η this adaptive norm.
    pub(super) fn new<A: Element>(rho: f64, eta: Option<f64>, norm: f64, step: &Step<'_, A>) -> Result<Self> {
        let scale = rho / (norm + NORM_EPS);
        let is_wide = size_of::<A>() >= size_of::<f32>();
        let kept = if is_wide { A::from_f64(scale).as_f64() } else { scale };
        // A norm that is not finite has passed the policy.
        if norm.is_finite() && !kept.is_finite() {
            let accepted = format!("so small that rho/(‖g‖ + 1e-12), here {scale:e}, is finite in {}", A::DTYPE);
            let (step, value) = (step.number(), rho);
            let error = StepError::HyperParameter { name: "rho", value, step, path: None, pattern: None, accepted };
            return Err(Error::Step(error));
        }
        Ok(Self { scale, eta })
    }

    /// Moves a tensor along its gradient.
    pub(super) fn perturb<A: Element>(self, info: &TensorInfo, tensor: &mut Tensor<'_, A>) {
        let Some(grad) = &tensor.grad else { return };
        let shape = info.shape();
        let order = tensor.param.as_values().order();
        match tensor.param.in_order(shape, order) {
            Ok(params) => {
                for (block, params) in params.chunks_mut(WIDE_BLOCK).enumerate() {
                    with_buffer(params.len(), |grads| {
                        grad.read(shape, order, block * WIDE_BLOCK, grads);
                        self.move_all(params.iter_mut().zip(&*grads));
                    });
                }
            }
            Err(mut view) => {
                let grads = grad.to_array(shape);
                let grads = if order == Order::F { grads.reversed_axes() } else { grads };
                self.move_all(view.iter_mut().zip(&grads));
            }
        }
    }

    /// θ + s·g, or θ + s·T²g with T = |θ| + η: in the element type, or in `f64` if that has no digits for s.
    fn move_all<'e, A: Element>(self, pairs: impl Iterator<Item = (&'e mut A, &'e A)>) {
        let Self { scale, eta } = self;
        match (is_in_type::<A>(scale), eta) {
            (true, None) => {
                let scale = A::from_f64(scale);
                pairs.for_each(|(param, grad)| *param += *grad * scale);
            }
            (true, Some(eta)) if size_of::<A>() >= size_of::<f32>() => {
                let (scale, eta) = (A::from_f64(scale), A::from_f64(eta));
                pairs.for_each(|(param, grad)| {
                    let reach = param.abs() + eta;
                    *param += reach * reach * *grad * scale;
                });
            }
            (_, eta) => pairs.for_each(|(param, grad)| {
                let reach = eta.map_or(1.0, |eta| param.as_f64().abs() + eta);
                *param = A::from_f64(param.as_f64() + reach * reach * grad.as_f64() * scale);
            }),
        }
    }
}

/// ‖Tg‖ of a step, over all shares. It is not finite if a parameter is not.
pub(super) fn adaptive_norm<A: Element>(step: &Step<'_, A>, eta: f64) -> Result<f64> {
    /// 2⁻⁶⁰⁰, with which the square of no number overflows.
    const SMALL: f64 = 2.409919865102884e-181;
    let norm_by = |factor: f64| {
        let tensors = step.iter().filter_map(|(info, tensor)| Some((info, tensor, tensor.grad.as_ref()?)));
        let squares = tensors.map(|(info, tensor, grad)| {
            let [squares] = sum_over(info, &tensor.param(), grad, |param, grad| {
                let product = (param.abs() + eta) * factor * grad;
                [product * product]
            });
            squares
        });
        squares.sum::<f64>().sqrt() / factor
    };
    let plain = norm_by(1.0);
    step.share().norm(if plain.is_finite() { plain } else { norm_by(SMALL) }, 2.0)
}

/// The sums of some terms over the elements of some values and a gradient: in `f64`, over fixed blocks.
pub(super) fn sum_over<A: Element, const N: usize>(
    info: &TensorInfo,
    values: &Values<'_, A>,
    grad: &Grad<'_, A>,
    terms: impl Fn(f64, f64) -> [f64; N] + Sync,
) -> [f64; N] {
    let add = |mut sums: [f64; N], terms: [f64; N]| {
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        sums
    };
    let leaf = |start: usize, length: usize| {
        with_buffer(length, |own: &mut [A]| {
            read(values, info.shape(), Order::C, start, own);
            with_buffer(length, |grads: &mut [A]| {
                grad.read(info.shape(), Order::C, start, grads);
                let terms = own.iter().zip(&*grads).map(|(own, grad)| terms(own.as_f64(), grad.as_f64()));
                terms.fold([-0.0; N], add)
            })
        })
    };
    tree::reduce((0, info.elements()), BLOCK, &leaf, &add)
}
