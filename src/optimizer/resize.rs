//! A parameter with other rows, whose state follows.

use std::sync::Arc;

use crate::adaptor::sam::ensure_settled;
use crate::error::{Error, Result, StateError, StepError, similar_to};
use crate::params::{Element, Layout, Params, TensorInfo, for_each};
use crate::state::resized::Resized;
use crate::state::{StateDict, StateWriter, load};
use crate::step::Optimizer;

/// See [`OptimizerExt::resize`](super::OptimizerExt::resize).
pub(super) fn resize<A: Element, O: Optimizer<A> + ?Sized, T: Params<Elem = A> + ?Sized>(
    optimizer: &mut O,
    path: &str,
    rows: &[Option<usize>],
    params: &T,
) -> Result<()> {
    ensure_settled(optimizer)?;
    let Some(before) = optimizer.layout().cloned() else { return Ok(()) };
    let now = Arc::new(Layout::of(params)?);
    let resized = changed(&before, &now, (path, rows), params)?;
    let mut state = StateDict::new(Some(Arc::clone(&now)));
    optimizer.write_state(&mut StateWriter::of_resized(&mut state, &resized));
    resized.ensure_followed()?;
    // For another layout than the optimizer has, which the state therefore does not have to be of.
    load(&state, Some(&now), None, |reader| optimizer.read_state(reader))
}

/// The change, if the two layouts differ in these rows and nothing else.
fn changed<T: Params + ?Sized>(
    before: &Layout,
    now: &Layout,
    (path, rows): (&str, &[Option<usize>]),
    params: &T,
) -> Result<Resized> {
    let missing = || {
        let similar = similar_to(path, before.paths());
        Error::State(StateError::MissingEntry { key: path.into(), similar })
    };
    let old = before.position(path).map(|at| &before.tensors()[at]).ok_or_else(missing)?;
    let Some((count, width)) = old.shape().split_first() else {
        return Err(Error::argument(
            "rows",
            rows.len() as f64,
            format!("of a parameter with axes, which {old} has not"),
        ));
    };
    if let Some(row) = rows.iter().flatten().find(|row| **row >= *count) {
        return Err(Error::argument("rows", *row as f64, format!("a row of {old}")));
    }
    let shape = [&[rows.len()], width].concat();
    let new = |info: &TensorInfo| if info.path() == path { TensorInfo::new(path, &shape) } else { info.clone() };
    Layout::new(before.tensors().iter().map(new).collect())?.ensure_same(now)?;
    let mut values = Vec::new();
    for_each(params, |found, shape, tensor| {
        if let Some(tensor) = tensor.filter(|_| found.is(path)) {
            values = tensor.view(shape).iter().map(|value| value.as_f64()).collect();
        }
    });
    match values.len() == shape.iter().product::<usize>() {
        true => Ok(Resized::new(old, &shape, rows.to_vec(), values)),
        // A tree that shows other tensors in each walk.
        false => Err(Error::Step(StepError::ParametersChanged {
            expected: TensorInfo::new(path, &shape).to_string(),
            found: format!("{} elements", values.len()),
        })),
    }
}
