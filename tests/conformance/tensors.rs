//! Tensors with known numbers, in every memory layout.

use gradus::params::{Visitor, VisitorMut};
use gradus::prelude::*;
use ndarray::{ArrayD, ArrayRef, ArrayViewD, ArrayViewMutD, Axis, Dimension, IxDyn, ShapeBuilder, Slice};

/// A number in −1 … 1 that depends on nothing but its two arguments (splitmix64).
pub(crate) fn number<A: Scalar>(stream: u64, index: u64) -> A {
    let mut z = (stream << 32).wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    A::from_f64((z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
}

/// A tensor of such numbers.
pub(crate) fn numbers<A: Scalar>(shape: &[usize], stream: u64) -> ArrayD<A> {
    let mut index = 0;
    ArrayD::from_shape_simple_fn(shape, || {
        index += 1;
        number(stream, index)
    })
}

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arrangement {
    /// Row-major.
    C,
    /// Column-major.
    F,
    /// The last axis slowest, the others row-major: for three axes neither C nor F.
    Rotated,
    /// Every second element of a larger array, along every axis.
    Sliced,
    /// Every axis backwards.
    Reversed,
}

impl Arrangement {
    pub(crate) const ALL: [Self; 5] = [Self::C, Self::F, Self::Rotated, Self::Sliced, Self::Reversed];
}

/// A tensor in one of the arrangements, with the memory around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arranged<A> {
    memory: ArrayD<A>,
    arrangement: Arrangement,
}

impl<A: Scalar> Arranged<A> {
    pub(crate) fn new(values: &ArrayD<A>, arrangement: Arrangement) -> Self {
        let shape = values.shape();
        let memory_shape: Vec<usize> = match arrangement {
            Arrangement::Sliced => shape.iter().map(|length| 2 * length + 1).collect(),
            Arrangement::Rotated => {
                shape.iter().rev().take(1).chain(shape.iter().rev().skip(1).rev()).copied().collect()
            }
            _ => shape.to_vec(),
        };
        let memory = ArrayD::from_elem(memory_shape.set_f(arrangement == Arrangement::F), A::from_f64(0.5));
        let mut arranged = Self { memory, arrangement };
        arranged.view_mut().assign(values);
        arranged
    }

    pub(crate) fn view(&self) -> ArrayViewD<'_, A> {
        let mut view = self.memory.view();
        for axis in (0..view.ndim()).map(Axis) {
            match self.arrangement {
                Arrangement::Sliced => view.slice_axis_inplace(axis, Slice::new(1, None, 2)),
                Arrangement::Reversed => view.invert_axis(axis),
                _ => {}
            }
        }
        let axes = self.axes(view.ndim());
        view.permuted_axes(axes)
    }

    pub(crate) fn view_mut(&mut self) -> ArrayViewMutD<'_, A> {
        let axes = self.axes(self.memory.ndim());
        let mut view = self.memory.view_mut();
        for axis in (0..view.ndim()).map(Axis) {
            match self.arrangement {
                Arrangement::Sliced => view.slice_axis_inplace(axis, Slice::new(1, None, 2)),
                Arrangement::Reversed => view.invert_axis(axis),
                _ => {}
            }
        }
        view.permuted_axes(axes)
    }

    /// Where each axis of the tensor lies among those of the memory.
    fn axes(&self, count: usize) -> IxDyn {
        let mut axes: Vec<usize> = (0..count).collect();
        if self.arrangement == Arrangement::Rotated && count > 0 {
            axes.rotate_left(1);
        }
        IxDyn(&axes)
    }

    /// The memory that is not the tensor's: 0.5 throughout, unless something wrote past its bounds.
    pub(crate) fn surroundings(&self) -> Vec<A> {
        let mut memory = self.clone();
        memory.view_mut().fill(A::from_f64(0.5));
        memory.memory.iter().copied().collect()
    }
}

impl<A: Scalar> Params for Arranged<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.tensor(self.view());
    }
}

impl<A: Scalar> ParamsMut for Arranged<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        visitor.tensor(self.view_mut());
    }
}

/// Mantissa, exponent and sign of a number: `==` on floats takes 0 for −0, and NaN not for itself.
pub(crate) type Bits = (u64, i16, i8);

/// The bits of every element, row-major.
pub(crate) fn bits<A: Scalar, D: Dimension>(values: &ArrayRef<A, D>) -> Vec<Bits> {
    values.iter().map(|value| value.integer_decode()).collect()
}
