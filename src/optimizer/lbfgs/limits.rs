//! Bounds of each element.

use std::ops::Range;

use crate::error::{ArgumentError, Error, Result};
use crate::params::{Layout, Order, Params, Scalar, TensorInfo};
use crate::step::Step;

/// A lower and an upper bound for each element, tensor after tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits<A> {
    layout: Layout,
    lower: Vec<A>,
    upper: Vec<A>,
}

/// The bounds of the tensors that have a gradient, one after the other.
pub(super) struct Bounds {
    pub(super) lower: Vec<f64>,
    pub(super) upper: Vec<f64>,
}

impl<A: Scalar> Limits<A> {
    /// From two trees of the same tensors.
    pub(super) fn new(
        lower: &(impl Params<Elem = A> + ?Sized),
        upper: &(impl Params<Elem = A> + ?Sized),
    ) -> Result<Self> {
        let [layout, other] = [Layout::of(lower)?, Layout::of(upper)?];
        ensure_trees(&layout, &other)?;
        let limits = Self { lower: values(lower, &layout)?, upper: values(upper, &layout)?, layout };
        for (lower, upper) in limits.lower.iter().zip(&limits.upper) {
            let (argument, value) = match lower.is_nan() {
                true => ("lower bound", lower),
                false => ("upper bound", upper),
            };
            let is_ordered = lower <= upper; // not if one is NaN
            if !is_ordered {
                return Err(Error::argument(argument, value.as_f64(), format!("a number ≥ the lower bound {lower}")));
            }
        }
        Ok(limits)
    }

    /// Returns an error unless there is a bound for each element of a layout, and no other.
    pub(super) fn ensure_for(&self, layout: &Layout) -> Result<()> {
        ensure_trees(&self.layout, layout)
    }

    /// The bounds of the tensors that are `active`.
    pub(super) fn of(&self, active: &[bool]) -> Bounds {
        let (mut bounds, mut at) = (Bounds { lower: Vec::new(), upper: Vec::new() }, 0);
        for (info, active) in self.layout.tensors().iter().zip(active) {
            let part = at..at + info.elements();
            at = part.end;
            if *active {
                bounds.lower.extend(self.lower[part.clone()].iter().map(|x| x.as_f64()));
                bounds.upper.extend(self.upper[part].iter().map(|x| x.as_f64()));
            }
        }
        bounds
    }
}

impl Bounds {
    /// Moves elements that are outside to their bounds.
    pub(super) fn clamp<A: Scalar>(&self, position: &mut [A]) {
        for ((x, lower), upper) in position.iter_mut().zip(&self.lower).zip(&self.upper) {
            *x = A::from_f64(x.as_f64().max(*lower).min(*upper));
        }
    }

    /// The elements of a part after a movement from a position, which it makes one from where they started.
    pub(super) fn ends<A: Scalar>(
        &self,
        part: Range<usize>,
        (start, position): (&[A], &[A]),
        movement: &mut [A],
    ) -> Vec<A> {
        let end = |(at, movement): (usize, &A)| {
            A::from_f64((position[at] + *movement).as_f64().max(self.lower[at]).min(self.upper[at]))
        };
        let ends: Vec<A> = part.clone().zip(&*movement).map(end).collect();
        movement.iter_mut().zip(&ends).zip(&start[part]).for_each(|((to, end), start)| *to = *end - *start);
        ends
    }

    /// The gradient's largest element, if a step along it were to end at the bounds: 0 at a solution.
    pub(super) fn largest_within<A: Scalar>(&self, position: &[A], grad: &[A]) -> f64 {
        let each = position.iter().zip(grad).zip(self.lower.iter().zip(&self.upper));
        each.fold(0.0, |largest: f64, ((x, g), (lower, upper))| {
            let x = x.as_f64();
            largest.max(((x - g.as_f64()).max(*lower).min(*upper) - x).abs())
        })
    }

    /// The longest step along a direction that stays within the bounds.
    pub(super) fn longest<A: Scalar>(&self, position: &[A], direction: &[A]) -> f64 {
        let each = position.iter().zip(direction).zip(self.lower.iter().zip(&self.upper));
        each.fold(f64::INFINITY, |most: f64, ((x, d), (lower, upper))| {
            let (x, d) = (x.as_f64(), d.as_f64());
            match d {
                0.0 => most,
                _ if d > 0.0 => most.min((upper - x) / d),
                _ => most.min((lower - x) / d),
            }
        })
    }
}

/// The elements of a tree, tensor after tensor.
fn values<A: Scalar>(tree: &(impl Params<Elem = A> + ?Sized), layout: &Layout) -> Result<Vec<A>> {
    let step = Step::of_grads(&tree, layout.clone())?;
    let mut flat = Vec::with_capacity(layout.elements());
    for (info, grad) in step.grads() {
        let start = flat.len();
        flat.resize(start + info.elements(), A::zero());
        grad.read(info.shape(), Order::C, 0, &mut flat[start..]);
    }
    Ok(flat)
}

/// Returns an error unless two trees have the same tensors in the same order.
fn ensure_trees(first: &Layout, second: &Layout) -> Result<()> {
    let shape = |info: &TensorInfo| info.shape().to_vec();
    let differs = |(own, other): &(&TensorInfo, &TensorInfo)| own != other;
    let missing = || first.tensors().get(second.len()).or_else(|| second.tensors().get(first.len()));
    let at = first.tensors().iter().zip(second.tensors()).find(differs).map(|(own, _)| own).or_else(missing);
    let Some(info) = at else { return Ok(()) };
    let of = |layout: &Layout| layout.position(info.path()).map(|at| shape(&layout.tensors()[at]));
    let (first, second) = (of(first), of(second));
    Err(Error::Argument(ArgumentError::Trees { path: info.path().into(), first, second }))
}
