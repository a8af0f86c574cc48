//! Clipping of trees instead of steps.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::adaptor::Transform;
use crate::error::Result;
use crate::params::{Element, Layout, ParamsMut, TensorInfo, collect_mut};
use crate::step::grad::{is_in_type, transform};
use crate::step::{Step, norm};

/// Applies a way of clipping to a tree instead of to a step.
pub(super) fn in_place<T: ParamsMut>(clipping: &impl Transform<T::Elem>, grads: &mut T) -> Result<f64> {
    let mut step = Step::of_grads(grads, Layout::of(grads)?)?;
    let outcome = clipping.transform(&mut step)?;
    let norm = outcome.grad_norm.unwrap_or_default();
    if !norm.is_finite() {
        return Err(norm::non_finite(&step.grads().collect::<Vec<_>>()));
    }
    let changes = changes(step);
    write(changes, grads)?;
    Ok(norm)
}

/// What becomes of one gradient.
pub(super) enum Change<A> {
    Affine { scale: f64, limit: f64 },
    Replace(ArrayD<A>),
}

/// What has been described on the gradients of a step.
pub(super) fn changes<A: Element>(step: Step<'_, A>) -> Vec<(TensorInfo, Change<A>)> {
    let change = |(info, grad): norm::Named<'_, '_, A>| {
        let change = match (grad.is_affine(), grad.scale_and_limit()) {
            (true, (scale, limit)) => Change::Affine { scale, limit },
            (false, _) => Change::Replace(grad.to_array(info.shape())),
        };
        (info.clone(), change)
    };
    step.grads().map(change).collect()
}

/// Makes the changes in one walk, which is looked at first. It may have another order than the step.
pub(super) fn write<T: ParamsMut>(changes: Vec<(TensorInfo, Change<T::Elem>)>, grads: &mut T) -> Result<()> {
    let (infos, changes): (Vec<TensorInfo>, Vec<Change<T::Elem>>) = changes.into_iter().unzip();
    let step = Arc::new(Layout::new(infos)?);
    let (layout, values) = collect_mut(grads, Some(&step), |_, values| values)?;
    if !step.has_tensors_of(&layout) {
        return step.ensure_same(&layout);
    }
    for (info, mut values) in layout.tensors().iter().zip(values) {
        match step.position(info.path()).and_then(|at| changes.get(at)) {
            Some(Change::Affine { scale, limit }) if *scale != 1.0 || limit.is_finite() => {
                let own = [*scale, *limit].map(T::Elem::from_f64);
                match is_in_type::<T::Elem>(*scale) {
                    true => values.map(info.shape(), |value| transform(value, own[0], own[1])),
                    false => {
                        values.map(info.shape(), |value| Element::from_f64(transform(value.as_f64(), *scale, *limit)));
                    }
                }
            }
            Some(Change::Replace(array)) => values.view_mut(info.shape()).assign(array),
            _ => {}
        }
    }
    Ok(())
}
