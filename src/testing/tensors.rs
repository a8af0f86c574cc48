//! Tensors with known numbers, in every memory layout: what the laws are tested on, for tests of your own.
//!
//! ```
//! use gradus::{prelude::*, testing::tensors::{Arranged, Arrangement, bits, numbers}};
//!
//! let (start, grads) = (numbers::<f32>(&[3, 4], 0), numbers(&[3, 4], 1));
//! let mut row_major = start.clone();
//! Adam::new(0.1).step(&mut row_major, &grads)?;
//! for arrangement in Arrangement::ALL {
//!     let mut params = Arranged::new(&start, arrangement);
//!     Adam::new(0.1).step(&mut params, &grads)?;
//!     assert_eq!(bits(&params.view()), bits(&row_major), "{arrangement:?}");
//! }
//! # Ok::<(), gradus::Error>(())
//! ```

use ndarray::{ArrayD, ArrayRef, ArrayViewD, ArrayViewMutD, Axis, Dimension, IxDyn, ShapeBuilder, Slice};

use crate::kernel::split_mix::signed;
use crate::params::{Element, Params, ParamsMut, Visitor, VisitorMut};

/// A number in −1 … 1. It depends only on its two arguments (splitmix64), so it is the same on every machine.
pub fn number<A: Element>(stream: u64, index: u64) -> A {
    A::from_f64(signed((stream << 32).wrapping_add(index)))
}

/// A tensor of [numbers](number), with indices from 1.
pub fn numbers<A: Element>(shape: &[usize], stream: u64) -> ArrayD<A> {
    let mut index = 0;
    ArrayD::from_shape_simple_fn(shape, || {
        index += 1;
        number(stream, index)
    })
}

/// The order of a tensor's elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Row-major.
    C,
    /// Column-major.
    F,
    /// The last axis slowest, the others row-major: with three axes neither C nor F.
    Rotated,
    /// Every second element of a larger array, along every axis.
    Sliced,
    /// Every axis backwards.
    Reversed,
}

impl Arrangement {
    /// All arrangements.
    pub const ALL: [Self; 5] = [Self::C, Self::F, Self::Rotated, Self::Sliced, Self::Reversed];
}

/// A tensor in one of the arrangements, with the memory around it. It is a tree of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Arranged<A> {
    memory: ArrayD<A>,
    arrangement: Arrangement,
}

impl<A: Element> Arranged<A> {
    /// These values in this arrangement.
    pub fn new(values: &ArrayD<A>, arrangement: Arrangement) -> Self {
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

    /// The tensor.
    pub fn view(&self) -> ArrayViewD<'_, A> {
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

    /// The tensor, to be changed.
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, A> {
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

    /// The position of each axis of the tensor among those of the memory.
    fn axes(&self, count: usize) -> IxDyn {
        let mut axes: Vec<usize> = (0..count).collect();
        if self.arrangement == Arrangement::Rotated && count > 0 {
            axes.rotate_left(1);
        }
        IxDyn(&axes)
    }

    /// The memory around the tensor, with the tensor's own elements overwritten: 0.5 everywhere, unless something wrote out of bounds.
    pub fn surroundings(&self) -> Vec<A> {
        let mut memory = self.clone();
        memory.view_mut().fill(A::from_f64(0.5));
        memory.memory.iter().copied().collect()
    }
}

impl<A: Element> Params for Arranged<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.tensor(self.view());
    }
}

impl<A: Element> ParamsMut for Arranged<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        visitor.tensor(self.view_mut());
    }
}

/// Mantissa, exponent and sign of a number. With `==` on floats, 0 equals −0, and NaN does not equal itself.
pub type Bits = (u64, i16, i8);

/// The bits of every element, in the order of the axes.
pub fn bits<A: Element, D: Dimension>(values: &ArrayRef<A, D>) -> Vec<Bits> {
    values.iter().map(|value| value.integer_decode()).collect()
}
