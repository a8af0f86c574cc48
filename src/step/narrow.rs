//! f32 values whose memory has 16 bits: they are widened when they are read, and rounded when they are written.

use std::fmt;
use std::sync::OnceLock;

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD};
use pulp::Arch;

use super::grad::{WIDE_BLOCK, read, with_buffer};
use crate::kernel::blocks;
use crate::kernel::sixteen_bits::{RandomBits, SixteenBits};
use crate::params::viewed::{Narrow, NarrowPart, Viewed};
use crate::params::{Order, Values, ValuesMut};

/// Values of 16 bits, read as f32.
pub(crate) struct Widening<'a, H> {
    values: Values<'a, H>,
    shape: &'a [usize],
    wide: OnceLock<ArrayD<f32>>,
}

impl<'a, H: SixteenBits> Widening<'a, H> {
    pub(crate) fn new(values: Values<'a, H>, shape: &'a [usize]) -> Self {
        Self { values, shape, wide: OnceLock::new() }
    }
}

impl<H: SixteenBits> Viewed<f32> for Widening<'_, H> {
    fn as_view(&self) -> ArrayViewD<'_, f32> {
        self.wide.get_or_init(|| self.values.view(self.shape).map(|value| value.widen())).view()
    }

    fn order(&self) -> Order {
        self.values.order()
    }

    fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [f32]) -> bool {
        read_wide(&self.values, shape, order, start, out);
        true
    }
}

/// Reads elements `start …` of values of 16 bits.
fn read_wide<H: SixteenBits>(values: &Values<'_, H>, shape: &[usize], order: Order, start: usize, out: &mut [f32]) {
    if let Some(values) = values.as_slice(order) {
        return out.iter_mut().zip(&values[start..]).for_each(|(out, value)| *out = value.widen());
    }
    with_buffer(out.len(), |buffer| {
        for (start, out) in (start..).step_by(WIDE_BLOCK).zip(out.chunks_mut(WIDE_BLOCK)) {
            let narrow = &mut buffer[..out.len()];
            read(values, shape, order, start, narrow);
            out.iter_mut().zip(narrow).for_each(|(out, value)| *out = value.widen());
        }
    });
}

/// How new values of a tensor are rounded.
pub(crate) enum Rounded<'a, H> {
    /// To one of the two neighbors, at random.
    Stochastic {
        /// The tensor's bits in this step.
        bits: RandomBits,
        /// Where the tensor begins in the one that it is a part of, in row-major order.
        start: usize,
    },
    /// To the nearest number; what is lost is added to the next change.
    Kahan(ValuesMut<'a, H>),
}

/// One parameter of 16 bits in a step that computes in f32.
pub(crate) struct Lent<'a, H> {
    values: ValuesMut<'a, H>,
    rounded: Rounded<'a, H>,
    shape: &'a [usize],
    /// The parameter in f32, for those that need it as a whole.
    wide: OnceLock<ArrayD<f32>>,
    wide_is_written: bool,
    is_written: bool,
}

impl<'a, H: SixteenBits> Lent<'a, H> {
    pub(crate) fn new(values: ValuesMut<'a, H>, rounded: Rounded<'a, H>, shape: &'a [usize]) -> Self {
        Self { values, rounded, shape, wide: OnceLock::new(), wide_is_written: false, is_written: false }
    }

    /// Rounds what has been written to an array. Returns whether anything has been written at all.
    pub(crate) fn settle(&mut self, arch: Arch) -> bool {
        let shape = self.shape;
        if let Some(wide) = self.wide.take().filter(|_| self.wide_is_written)
            && let Some(mut part) = self.in_order(shape, Order::C)
        {
            let elements = wide.len();
            let wide = Values::new(wide.view());
            with_buffer(elements, |buffer| {
                for start in (0..elements).step_by(WIDE_BLOCK) {
                    let block = &mut buffer[..WIDE_BLOCK.min(elements - start)];
                    read(&wide, shape, Order::C, start, block);
                    part.write(arch, start, block);
                }
            });
        }
        self.is_written
    }
}

impl<H: SixteenBits> Viewed<f32> for Lent<'_, H> {
    fn as_view(&self) -> ArrayViewD<'_, f32> {
        let widened = || self.values.as_values().view(self.shape).map(|value| value.widen());
        self.wide.get_or_init(widened).view()
    }

    fn order(&self) -> Order {
        self.values.as_values().order()
    }

    fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [f32]) -> bool {
        if !self.wide_is_written {
            read_wide(&self.values.as_values(), shape, order, start, out);
        }
        !self.wide_is_written
    }
}

impl<H: SixteenBits> Narrow<f32> for Lent<'_, H> {
    fn as_view_mut(&mut self) -> ArrayViewMutD<'_, f32> {
        _ = self.as_view();
        (self.wide_is_written, self.is_written) = (true, true);
        match self.wide.get_mut() {
            Some(wide) => wide.view_mut(),
            None => unreachable!("it has just been made"),
        }
    }

    fn in_order(&mut self, shape: &[usize], order: Order) -> Option<Box<dyn NarrowPart<f32> + '_>> {
        if self.wide.get().is_some() && self.wide_is_written {
            return None;
        }
        // What has been read of an array is older than what is written now.
        self.wide.take();
        self.is_written = true;
        let elements = shape.iter().product();
        let values = Memory::of(&mut self.values, shape, order);
        let rounding = match &mut self.rounded {
            Rounded::Stochastic { bits, start } => {
                let reversed = (order == Order::F).then(|| shape.iter().rev().copied().collect());
                InOrder::Stochastic { bits: *bits, start: *start, reversed, first: 0 }
            }
            Rounded::Kahan(compensation) => InOrder::Kahan(Memory::of(compensation, shape, order)),
        };
        Some(Box::new(Part { values, rounding, elements }))
    }
}

/// Elements in an order.
enum Memory<'a, H> {
    Slice(&'a mut [H]),
    /// With axes turned so that row-major order is this order.
    View(ArrayViewMutD<'a, H>),
}

impl<'a, H: SixteenBits> Memory<'a, H> {
    fn of(values: &'a mut ValuesMut<'_, H>, shape: &[usize], order: Order) -> Self {
        match values.in_order(shape, order) {
            Ok(slice) => Self::Slice(slice),
            Err(view) => Self::View(view),
        }
    }

    fn is_slice(&self) -> bool {
        matches!(self, Self::Slice(_))
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let (left, right) = match self {
            Self::Slice(values) => values.split_at_mut(at),
            Self::View(_) => Default::default(),
        };
        (Self::Slice(left), Self::Slice(right))
    }

    /// Calls `f` with elements `start …` as a slice.
    fn with(&mut self, start: usize, length: usize, f: impl FnOnce(&mut [H])) {
        match self {
            Self::Slice(values) => f(&mut values[start..start + length]),
            Self::View(view) => with_buffer(length, |buffer| {
                blocks::read(&view.view(), start, buffer);
                f(buffer);
                blocks::update(view, start, buffer, |element, value| *element = *value);
            }),
        }
    }
}

enum InOrder<'a, H> {
    Stochastic {
        bits: RandomBits,
        start: usize,
        /// The shape from its end, if elements are not in row-major order.
        reversed: Option<Box<[usize]>>,
        /// The part's first element in its order.
        first: usize,
    },
    Kahan(Memory<'a, H>),
}

struct Part<'a, H> {
    values: Memory<'a, H>,
    rounding: InOrder<'a, H>,
    elements: usize,
}

impl<H: SixteenBits> NarrowPart<f32> for Part<'_, H> {
    fn len(&self) -> usize {
        self.elements
    }

    fn is_divisible(&self) -> bool {
        let is_slice = match &self.rounding {
            InOrder::Stochastic { .. } => true,
            InOrder::Kahan(compensation) => compensation.is_slice(),
        };
        self.values.is_slice() && is_slice
    }

    fn read(&self, start: usize, out: &mut [f32]) {
        match &self.values {
            Memory::Slice(values) => {
                out.iter_mut().zip(&values[start..]).for_each(|(out, value)| *out = value.widen());
            }
            Memory::View(view) => with_buffer(out.len(), |buffer| {
                blocks::read(&view.view(), start, buffer);
                out.iter_mut().zip(buffer).for_each(|(out, value)| *out = value.widen());
            }),
        }
    }

    fn write(&mut self, arch: Arch, at: usize, values: &[f32]) {
        let Self { values: memory, rounding, .. } = self;
        match rounding {
            InOrder::Stochastic { bits, start, reversed, first } => {
                let (bits, offset, first) = (*bits, *start, *first + at);
                memory.with(at, values.len(), |params| match reversed {
                    None => arch.dispatch(
                        #[inline(always)]
                        move || {
                            let params = params;
                            let elements = (offset + first..).zip(params).zip(values);
                            elements
                                .for_each(|((element, param), value)| *param = H::stochastic(*value, bits.of(element)));
                        },
                    ),
                    Some(shape) => {
                        let elements = (first..).zip(params).zip(values);
                        elements.for_each(|((element, param), value)| {
                            *param = H::stochastic(*value, bits.of(offset + Order::F.place(element, shape)));
                        });
                    }
                });
            }
            InOrder::Kahan(compensation) => compensation.with(at, values.len(), |compensations| {
                memory.with(at, values.len(), |params| {
                    arch.dispatch(
                        #[inline(always)]
                        move || {
                            let (params, compensations) = (params, compensations);
                            let elements = params.iter_mut().zip(compensations).zip(values);
                            elements.for_each(|((param, compensation), value)| kahan(param, compensation, *value));
                        },
                    );
                });
            }),
        }
    }

    fn split_at<'s>(self: Box<Self>, at: usize) -> (Box<dyn NarrowPart<f32> + 's>, Box<dyn NarrowPart<f32> + 's>)
    where
        Self: 's,
    {
        let Self { values, rounding, elements } = *self;
        let (left, right) = values.split_at(at);
        let (left_rounding, right_rounding) = match rounding {
            InOrder::Stochastic { bits, start, reversed, first } => (
                InOrder::Stochastic { bits, start, reversed: reversed.clone(), first },
                InOrder::Stochastic { bits, start, reversed, first: first + at },
            ),
            InOrder::Kahan(compensation) => {
                let (left, right) = compensation.split_at(at);
                (InOrder::Kahan(left), InOrder::Kahan(right))
            }
        };
        let part = |values, rounding, elements| Box::new(Part { values, rounding, elements });
        (part(left, left_rounding, at), part(right, right_rounding, elements - at))
    }
}

/// Moves a parameter to the value, by the sum of that change and of what earlier ones have lost.
#[inline(always)]
fn kahan<H: SixteenBits>(param: &mut H, compensation: &mut H, value: f32) {
    let from = param.widen();
    let change = H::nearest(compensation.widen() + (value - from)).widen();
    // A parameter that has left the range of its type has lost nothing that could bring it back.
    let new = if from.is_finite() { H::nearest(from + change) } else { H::nearest(value) };
    let lost = H::nearest(change + (from - new.widen()));
    (*param, *compensation) = (new, if lost.is_finite() { lost } else { H::zero() });
}

impl<H> fmt::Debug for Lent<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}
