//! Tensors one after the other, each in row-major order, as they go from rank to rank.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::group::Collective;
use crate::error::Result;
use crate::kernel::blocks;
use crate::params::{Element, Layout, Order, TensorInfo, Values, ValuesMut};
use crate::step::{Grad, Step, Tensor, norm};

/// Where a tensor lies among packed values.
#[derive(Debug, Clone, Copy)]
pub struct Place<'l> {
    index: usize,
    info: &'l TensorInfo,
    start: usize,
    /// The rows that these are, if they are not the whole tensor.
    rows: Option<&'l [usize]>,
}

impl<'l> Place<'l> {
    /// The places of tensors one after the other, given their positions in the layout.
    ///
    /// Positions beyond the layout are left out.
    pub fn of(layout: &'l Layout, tensors: impl IntoIterator<Item = usize>) -> Vec<Self> {
        let mut start = 0;
        let known = tensors.into_iter().filter_map(|index| Some((index, layout.tensors().get(index)?)));
        let place = |(index, info): (usize, &'l TensorInfo)| {
            let place = Self { index, info, start, rows: None };
            start += info.elements();
            place
        };
        known.map(place).collect()
    }

    /// The tensor's position in the layout.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The tensor's path and shape.
    pub fn info(&self) -> &'l TensorInfo {
        self.info
    }

    /// The same place, of these rows.
    pub(super) fn of_rows(self, rows: Option<&'l [usize]>) -> Self {
        Self { rows, ..self }
    }

    /// The gradient that lies here among packed ones; `info` is the whole tensor's.
    pub(super) fn grad<'s, A: Element>(&self, info: &TensorInfo, packed: &'s [A]) -> Grad<'s, A>
    where
        'l: 's,
    {
        let values = Values::Contiguous(&packed[self.range()], Order::C);
        match self.rows {
            Some(rows) => Grad::of_rows(info, Cow::Borrowed(rows), Grad::new(values)),
            None => Grad::new(values),
        }
    }

    /// Where its elements are.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.info.elements()
    }
}

/// The places of those tensors of a step that are chosen.
pub(super) fn places<'l, A: Element>(
    layout: &'l Layout,
    step: &Step<'_, A>,
    chosen: impl Fn(&Tensor<'_, A>) -> bool,
) -> Vec<Place<'l>> {
    Place::of(layout, step.iter().filter(|(_, tensor)| chosen(tensor)).map(|(_, tensor)| tensor.index()))
}

/// How many elements these are.
pub(super) fn elements(places: &[Place<'_>]) -> usize {
    places.last().map_or(0, |place| place.range().end)
}

/// Room for so many elements, of what there is already or larger.
pub(super) fn room<A: Element>(buffer: &mut Vec<A>, elements: usize) -> &mut [A] {
    if buffer.len() < elements {
        *buffer = vec![A::zero(); elements];
    }
    &mut buffer[..elements]
}

/// Reads a tensor's values.
pub(super) fn read<A: Element>(values: Values<'_, A>, info: &TensorInfo, packed: &mut [A]) {
    Grad::new(values).read_raw(info.shape(), Order::C, 0, packed);
}

/// Writes a tensor's values.
pub(super) fn write<A: Element>(packed: &[A], info: &TensorInfo, values: &mut ValuesMut<'_, A>) {
    match values {
        ValuesMut::Contiguous(values, Order::C) => values.copy_from_slice(packed),
        _ => blocks::update(&mut values.view_mut(info.shape()), 0, packed, |to, from| *to = *from),
    }
}

/// Packs the gradients of a step.
pub(super) fn pack_grads<A: Element>(step: &Step<'_, A>, places: &[Place<'_>], packed: &mut [A]) {
    for ((info, grad), place) in step.grads().zip(places) {
        let out = &mut packed[place.range()];
        match place.rows {
            Some(rows) => grad.within(rows).read(place.info.shape(), Order::C, 0, out),
            None => grad.read(info.shape(), Order::C, 0, out),
        }
    }
}

/// The parameters of a step, packed.
pub(super) fn pack_params<A: Element>(step: &Step<'_, A>) -> Vec<A> {
    let places = places(step.layout(), step, |_| true);
    let mut packed = vec![A::zero(); elements(&places)];
    for ((info, tensor), place) in step.iter().zip(&places) {
        read(tensor.param(), info, &mut packed[place.range()]);
    }
    packed
}

/// Writes packed parameters.
pub(super) fn put_params<A: Element>(step: &mut Step<'_, A>, packed: &[A]) {
    let layout = Arc::clone(step.layout());
    let places = places(&layout, step, |_| true);
    for ((info, tensor), place) in step.iter_mut().zip(&places) {
        write(&packed[place.range()], info, &mut tensor.param);
    }
}

/// Sums values over all ranks, a bucket at a time, and divides by the number of ranks. Returns the bytes sent.
pub(super) fn mean<A: Element>(group: &impl Collective<A>, values: &mut [A], bucket: usize) -> Result<u64> {
    values.chunks_mut(bucket).try_for_each(|bucket| group.all_reduce(bucket))?;
    let size = A::from_f64(group.size() as f64);
    values.iter_mut().for_each(|value| *value /= size);
    Ok(size_of_val(values) as u64)
}

/// The first of packed values that is not finite, with its tensor's path and its place there.
pub(super) fn non_finite<A: Element>(places: &[Place<'_>], packed: &[A]) -> Option<(String, Vec<usize>, f64)> {
    let values = |place: &Place<'_>| Values::Contiguous(&packed[place.range()], Order::C);
    places.iter().find_map(|place| {
        let (path, mut index, value) = norm::non_finite_value(place.info, &values(place))?;
        if let (Some(rows), Some(row)) = (place.rows, index.first_mut()) {
            *row = rows[*row];
        }
        Some((path, index, value))
    })
}
