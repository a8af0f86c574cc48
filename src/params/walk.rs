//! One walk through a tree that is to be written, seen as a whole before anything is.
//!
//! A tree of the user's own may show other tensors in each walk. If one walk were checked and another written, a part could be
//! written, or numbers could go into the wrong tensors.

use std::sync::Arc;

use super::{Layout, ParamsMut, TensorInfo, ValuesMut, for_each_mut};
use crate::error::Result;

/// The layout of one walk, which is `known` if it has not changed, and what `make` makes of each tensor's position and
/// values. While the layout is the known one, no path is built and no shape copied.
///
/// # Errors
/// Those of [`Layout::new`].
pub(crate) fn collect_mut<'a, T: ParamsMut + ?Sized, V>(
    tree: &'a mut T,
    known: Option<&Arc<Layout>>,
    mut make: impl FnMut(usize, ValuesMut<'a, T::Elem>) -> V,
) -> Result<(Arc<Layout>, Vec<V>)> {
    let expected = known.map_or(&[][..], |layout| layout.tensors());
    let mut made = Vec::with_capacity(expected.len());
    let mut fresh: Option<Vec<TensorInfo>> = known.is_none().then(Vec::new);
    for_each_mut(tree, |path, shape, values| {
        let Some(values) = values else { return };
        let at = made.len();
        made.push(make(at, values));
        match (&mut fresh, expected.get(at)) {
            (None, Some(info)) if path.is(info.path()) && info.has_shape(shape) => {}
            (fresh, _) => fresh
                .get_or_insert_with(|| expected[..at.min(expected.len())].to_vec())
                .push(TensorInfo::new(path.to_string(), shape)),
        }
    });
    match (fresh, known) {
        (None, Some(layout)) if made.len() == layout.len() => Ok((Arc::clone(layout), made)),
        (fresh, _) => {
            let infos = fresh.unwrap_or_else(|| expected[..made.len()].to_vec());
            Ok((Arc::new(Layout::new(infos)?), made))
        }
    }
}

impl Layout {
    /// The values of a tree of this layout, in its order, to be written.
    ///
    /// # Errors
    /// [`ParametersChanged`](crate::error::StepError::ParametersChanged) if the walk has other tensors, and those of [`Layout::new`].
    pub(crate) fn values_mut<'a, T: ParamsMut + ?Sized>(
        self: &Arc<Self>,
        tree: &'a mut T,
    ) -> Result<Vec<ValuesMut<'a, T::Elem>>> {
        let (found, values) = collect_mut(tree, Some(self), |_, values| values)?;
        Self::ensure_known(Some(self), &found)?;
        Ok(values)
    }
}
