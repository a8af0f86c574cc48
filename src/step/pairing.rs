//! Parameters and gradients, matched by path.

use std::fmt::Write;
use std::sync::Arc;

use super::grad::rows::ensure_rows;
use super::memo::{SourceId, new_ids};
use super::{Grad, Tensor};
use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout, Params, ParamsMut, TensorInfo, Values, collect_mut, for_each};

/// The parameters, still without gradients, with `known` as layout if it is theirs, else with a layout of their own.
pub(super) fn walk_params<'a, A: Element>(
    params: &'a mut (dyn ParamsMut<Elem = A> + '_),
    known: Option<&Arc<Layout>>,
) -> Result<(Arc<Layout>, Vec<Tensor<'a, A>>)> {
    collect_mut(params, known, Tensor::new)
}

/// Gives every tensor its gradient, or none where the tree says so. Returns whether all are dense.
pub(super) fn walk_grads<'a, A: Element>(
    grads: &'a (dyn Params<Elem = A> + '_),
    layout: &Layout,
    tensors: &mut [Tensor<'a, A>],
) -> Result<bool> {
    let (infos, first) = (layout.tensors(), new_ids(layout.len()));
    let (mut next, mut in_order, mut dense) = (0, true, true);
    for_each(grads, |path, shape, values| {
        // Not one `match` on pairs: moving the values into a pair takes as long as the rest of this.
        let info = infos.get(next).filter(|info| in_order && path.is(info.path()));
        match values {
            Some(values) => match info.filter(|info| fits(info, shape, &values)) {
                Some(info) => {
                    dense &= give(&mut tensors[next], info, values, first + next as u64);
                    next += 1;
                }
                None => in_order = false,
            },
            None if info.is_some() => next += 1,
            None if in_order => next += infos[next..].iter().take_while(|info| path.is_above(info.path())).count(),
            None => {}
        }
    });
    if in_order && next == infos.len() {
        return Ok(dense);
    }
    match_by_path(grads, layout, tensors, first)?;
    Ok(tensors.iter().all(|tensor| tensor.grad.as_ref().is_none_or(|grad| grad.rows().is_none())))
}

/// Gives a tensor the gradient with these values, which fit it. Returns whether it is dense.
#[inline]
fn give<'a, A: Element>(tensor: &mut Tensor<'a, A>, info: &TensorInfo, values: Values<'a, A>, id: SourceId) -> bool {
    // Not one assignment of either: the gradient would be built elsewhere and copied, which takes as long as the rest of this.
    match values {
        Values::Rows(rows) => {
            tensor.grad = Some(Grad::of_walked_rows(info, *rows, id));
            false
        }
        values => {
            tensor.grad = Some(Grad::of(values, id));
            true
        }
    }
}

/// Whether values of this shape are a gradient of the tensor.
#[inline]
fn fits<A>(info: &TensorInfo, shape: &[usize], values: &Values<'_, A>) -> bool {
    match values {
        Values::Rows(rows) => ensure_rows(info, rows.0, shape).is_ok(),
        _ => info.has_shape(shape),
    }
}

/// Returns an error unless values of this shape are a gradient of the tensor.
fn ensure_fits<A>(info: &TensorInfo, shape: &[usize], values: &Values<'_, A>) -> Result<()> {
    match values {
        Values::Rows(rows) => ensure_rows(info, rows.0, shape),
        _ if info.has_shape(shape) => Ok(()),
        _ => Err(Error::Step(StepError::ShapeMismatch {
            path: info.path().into(),
            parameter: info.shape().to_vec(),
            gradient: shape.to_vec(),
        })),
    }
}

/// [`walk_grads`] for a tree of another order, and the errors of one that is not the parameters'.
fn match_by_path<'a, A: Element>(
    grads: &'a (dyn Params<Elem = A> + '_),
    layout: &Layout,
    tensors: &mut [Tensor<'a, A>],
    first: SourceId,
) -> Result<()> {
    let infos = layout.tensors();
    let mut seen = vec![false; infos.len()];
    let (mut error, mut name) = (None, String::new());
    tensors.iter_mut().for_each(|tensor| tensor.grad = None);
    for_each(grads, |path, shape, values| {
        name.clear();
        _ = write!(name, "{path}"); // a `String` takes all
        let at = layout.position(&name);
        let Some(values) = values else {
            match at {
                Some(at) => seen[at] = true,
                None if path.is_above("*") => seen.fill(true), // the root is above every name
                None => {
                    name.push('.');
                    layout.positions_below(&name).for_each(|at| seen[at] = true);
                }
            }
            return;
        };
        let result = match at {
            None => Err(Error::Step(StepError::UnexpectedGradient { path: name.clone() })),
            Some(at) if tensors[at].grad.is_some() => Err(Error::Step(StepError::DuplicatePath { path: name.clone() })),
            Some(at) => ensure_fits(&infos[at], shape, &values).map(|()| {
                give(&mut tensors[at], &infos[at], values, first + at as u64);
                seen[at] = true;
            }),
        };
        if let Err(first) = result {
            error.get_or_insert(first);
        }
    });
    let missing = infos.iter().zip(seen).find(|(_, seen)| !seen);
    let missing = missing.map(|(info, _)| Error::Step(StepError::MissingGradient { path: info.path().into() }));
    error.or(missing).map_or(Ok(()), Err)
}
