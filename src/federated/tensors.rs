//! Values of a model's shape: a change, a sum of changes, a control variate.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayView, ArrayViewD, ArrayViewMut, IxDyn};

use crate::error::Result;
use crate::params::{Element, Layout, Order, Params, ParamsMut, TensorInfo, Values, Visitor, VisitorMut, for_each};
use crate::state::{StateReader, StateWriter};
use crate::step::Step;
use crate::step::memo::SourceId;

/// One value per element of a model: the tensors of its layout one after the other, each row by row.
///
/// It is a parameter tree with the model's paths and shapes.
///
/// ```
/// use gradus::federated::Tensors;
/// use ndarray::{array, aview1};
///
/// let model = (array![[1.0, 2.0], [3.0, 4.0]], array![5.0]);
/// let copy = Tensors::of(&model)?;
/// assert_eq!(copy.values(), [1.0, 2.0, 3.0, 4.0, 5.0]);
/// assert_eq!(copy.tensor("1"), Some(aview1(&[5.0]).into_dyn()));
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tensors<A> {
    layout: Arc<Layout>,
    values: Vec<A>,
}

impl<A: Element> Tensors<A> {
    /// Creates zeros for a model of this layout.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        Self { values: vec![A::zero(); layout.elements()], layout }
    }

    /// Copies the values of a tree.
    ///
    /// # Errors
    /// [`StepError::DuplicatePath`](crate::error::StepError::DuplicatePath).
    pub fn of<T: Params<Elem = A> + ?Sized>(tree: &T) -> Result<Self> {
        let mut values = Vec::new();
        let layout = flatten(tree, |part| values.extend_from_slice(part))?;
        Ok(Self { layout: Arc::new(layout), values })
    }

    /// Puts the values of a tree in the place of others, which must be of its layout, as must be whatever else is `known`.
    ///
    /// They are gathered in `room`, which has the others then: on an error nothing has changed, and from the second time on nothing is
    /// allocated for values.
    pub(super) fn renew<'k, T: Params<Elem = A> + ?Sized>(
        place: &mut Option<Self>,
        known: impl IntoIterator<Item = &'k Arc<Layout>>,
        tree: &T,
        room: &mut Vec<A>,
    ) -> Result<()> {
        room.clear();
        let layout = flatten(tree, |part| room.extend_from_slice(part))?;
        place.iter().try_for_each(|tensors| tensors.layout.ensure_same(&layout))?;
        known.into_iter().try_for_each(|known| known.ensure_same(&layout))?;
        let tensors = place.get_or_insert_with(|| Self::zeros(Arc::new(layout)));
        std::mem::swap(&mut tensors.values, room);
        Ok(())
    }

    /// Writes the values into a state, tensor by tensor.
    pub(super) fn write(&self, state: &mut StateWriter<'_>, name: &str) {
        for (info, range) in ranges(&self.layout) {
            // Of a round, whose other clients know nothing of other rows.
            state.insert(name, info.path(), info.shape(), A::pack(self.values[range].to_vec()));
        }
    }

    /// Reads what [`write`](Self::write) wrote; `None` if the state is of no parameters.
    pub(super) fn read(state: &StateReader<'_>, name: &str) -> Result<Option<Self>> {
        let Some(layout) = state.layout() else { return Ok(None) };
        let mut values = Vec::with_capacity(layout.elements());
        for info in layout.tensors() {
            values.extend(state.tensor::<A>(name, info)?.ok_or_else(|| state.missing(name, info))?);
        }
        Ok(Some(Self { layout: Arc::clone(layout), values }))
    }

    /// The paths and shapes.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// All values.
    pub fn values(&self) -> &[A] {
        &self.values
    }

    /// All values, mutable.
    pub fn values_mut(&mut self) -> &mut [A] {
        &mut self.values
    }

    /// The tensor at this path.
    pub fn tensor(&self, path: &str) -> Option<ArrayViewD<'_, A>> {
        let (info, range) = ranges(&self.layout).find(|(info, _)| info.path() == path)?;
        ArrayView::from_shape(IxDyn(info.shape()), &self.values[range]).ok()
    }
}

/// Where in the values each tensor lies.
pub(super) fn ranges(layout: &Layout) -> impl Iterator<Item = (&TensorInfo, Range<usize>)> {
    layout.tensors().iter().scan(0, |start, info| {
        let range = *start..*start + info.elements();
        *start = range.end;
        Some((info, range))
    })
}

/// Calls `f` with the values of a tree, tensor by tensor and row by row, in pieces of any length, and returns the layout.
///
/// Both of one walk: what another walk would show need not be the same.
pub(super) fn flatten<T: Params + ?Sized>(tree: &T, mut f: impl FnMut(&[T::Elem])) -> Result<Layout> {
    let mut infos = Vec::new();
    for_each(tree, |path, shape, values| {
        let Some(values) = values else { return };
        infos.push(TensorInfo::new(path.to_string(), shape));
        match values.as_slice(Order::C) {
            Some(slice) => f(slice),
            None => values.view(shape).iter().for_each(|value| f(&[*value])),
        }
    });
    Layout::new(infos)
}

/// Adds values of this layout to the gradients of a step, where there are any.
pub(super) fn plus<'a, A: Element>(step: &mut Step<'a, A>, layout: &Layout, values: &'a [A], id: SourceId) {
    for (_, tensor, (_, range)) in step.zip_mut(ranges(layout)) {
        let values = Values::Contiguous(&values[range], Order::C);
        tensor.grad = tensor.grad.take().map(|grad| grad.plus_known(values, id));
    }
}

impl<A: Element> Params for Tensors<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        for (info, range) in ranges(&self.layout) {
            let Ok(view) = ArrayView::from_shape(IxDyn(info.shape()), &self.values[range]) else { continue };
            visitor.tensor_at(info.path(), view);
        }
    }
}

impl<A: Element> ParamsMut for Tensors<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        let mut rest = &mut self.values[..];
        for info in self.layout.tensors() {
            let (now, later) = rest.split_at_mut(info.elements());
            rest = later;
            let Ok(view) = ArrayViewMut::from_shape(IxDyn(info.shape()), now) else { continue };
            visitor.tensor_at(info.path(), view);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ndarray::{Array2, Axis, ShapeBuilder, array};

    use super::*;
    use crate::prelude::*;

    #[test]
    fn any_tree_is_flattened_row_by_row_and_steps_as_itself() {
        let columns = Array2::from_shape_fn((2, 3).f(), |(i, j)| (3 * i + j) as f64);
        let mut upside_down = columns.clone();
        upside_down.invert_axis(Axis(0));
        let model = (vec![(columns, array![6.0])], upside_down);
        let tensors = Tensors::of(&model).unwrap();
        assert_eq!(tensors.values(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
        assert_eq!(*Layout::of(&tensors).unwrap().tensors(), *tensors.layout().tensors());

        let (mut by_tree, mut by_tensors) = (model.clone(), tensors.clone());
        Sgd::new(0.5).step(&mut by_tree, &tensors).unwrap();
        Sgd::new(0.5).step(&mut by_tensors, &model).unwrap();
        assert_eq!(Tensors::of(&by_tree).unwrap(), by_tensors);
    }

    #[test]
    fn the_root_and_names_with_dots_keep_their_paths() {
        let single = Tensors::of(&array![1.0, 2.0]).unwrap();
        assert_eq!(*Layout::of(&single).unwrap().tensors(), *single.layout().tensors());
        let map = BTreeMap::from([("a.b", array![1.0]), ("c", array![2.0])]);
        let tensors = Tensors::of(&map).unwrap();
        assert_eq!(Layout::of(&tensors).unwrap().paths().collect::<Vec<_>>(), ["a.b", "c"]);
    }
}
