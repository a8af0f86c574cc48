//! Elements that are written in an order: a slice if they lie so, else a view.

use ndarray::{ArrayViewMutD, Axis};
use pulp::Arch;

use crate::kernel::blocks;
use crate::params::{Element, Order, ValuesMut};
use crate::step::grad::BLOCK;

/// The elements of one tensor, or a part of them.
pub(crate) enum Target<'a, B> {
    Slice(&'a mut [B]),
    /// With axes turned so that row-major order is the order.
    View(ArrayViewMutD<'a, B>),
}

impl<'a, B: Element> Target<'a, B> {
    /// The elements of a tensor of this shape, in this order.
    pub(crate) fn of(values: &'a mut ValuesMut<'_, B>, shape: &[usize], order: Order) -> Self {
        match values.in_order(shape, order) {
            Ok(slice) => Self::Slice(slice),
            Err(view) => Self::View(view),
        }
    }

    /// Updates the elements from `start`, each with one of these.
    pub(crate) fn update<A>(&mut self, arch: Arch, start: usize, with: &[A], update: impl Fn(&mut B, &A) + Copy) {
        match self {
            Self::Slice(values) => {
                let values = &mut values[start..start + with.len()];
                arch.dispatch(
                    #[inline(always)]
                    move || {
                        let values = values; // what is moved makes this a closure that is called once
                        values.iter_mut().zip(with).for_each(|(value, with)| update(value, with));
                    },
                );
            }
            Self::View(view) => blocks::update(view, start, with, update),
        }
    }

    /// Changes every element.
    pub(crate) fn change(&mut self, arch: Arch, change: impl Fn(&mut B) + Copy) {
        match self {
            Self::Slice(values) => arch.dispatch(
                #[inline(always)]
                move || {
                    let values = values; // as above
                    values.iter_mut().for_each(change);
                },
            ),
            Self::View(view) => view.map_inplace(change),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Slice(values) => values.len(),
            Self::View(view) => view.len(),
        }
    }

    /// The first elements and the others, roughly as many. A view is cut across its first axis that is longer than 1.
    pub(crate) fn halve(self) -> (Self, Self) {
        match self {
            Self::Slice(values) => {
                let middle = (values.len() / 2).next_multiple_of(BLOCK).min(values.len());
                let (left, right) = values.split_at_mut(middle);
                (Self::Slice(left), Self::Slice(right))
            }
            Self::View(view) => {
                let axis = view.shape().iter().position(|length| *length > 1).unwrap_or(0);
                let middle = view.shape()[axis] / 2;
                let (left, right) = view.split_at(Axis(axis), middle);
                (Self::View(left), Self::View(right))
            }
        }
    }
}
