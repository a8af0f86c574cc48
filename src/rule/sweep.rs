//! The way over memory: every tensor of a step, in blocks, in one parallel region.

use ndarray::{ArrayViewMutD, Axis};
use pulp::Arch;

use super::Rule;
use super::lanes::{Goal, Lanes};
use super::prelude::Prelude;
use super::scratch::Scratch;
use super::stored::{MAX_SLOTS, StoredMut};
use crate::kernel::aligned::before_line;
use crate::kernel::narrow::seed;
use crate::kernel::threads::Divisible;
use crate::kernel::{blocks, threads};
#[cfg(feature = "half")]
use crate::params::viewed::NarrowPart;
use crate::params::{Order, Scalar, ValuesMut};
use crate::step::follower::Following;
use crate::step::grad::{BLOCK, Grad, WIDE_BLOCK};
use crate::step::set::limit;

/// Fewer elements than this are swept as they lie.
const SHORT: usize = 128;

/// A step of more elements does not fit into the cache.
const CACHED_STEP: usize = 512 * 1024;

/// What all blocks of a tensor share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'s, A, C> {
    pub(super) coefficients: C,
    pub(super) goal: Goal<A>,
    pub(super) prelude: Prelude<A>,
    pub(super) scratch: &'s Scratch<A>,
    pub(super) grad: &'s Grad<'s, A>,
    pub(super) shape: &'s [usize],
    /// The order in which the slots lie in memory; blocks follow it.
    pub(super) order: Order,
    /// The tensor's index and its step, from which stochastic rounding takes its random bits.
    pub(super) tensor: usize,
    /// Where the tensor begins in the one that it is a part of: there it would get the same random bits.
    pub(super) offset: usize,
    pub(super) step: u64,
    /// Whether the step is too large for the cache.
    pub(super) streams: bool,
    /// What elements are limited to after they have moved.
    pub(super) bounds: Option<[A; 2]>,
}

/// A part of one tensor: elements `start …` in the order of its slots.
pub(super) struct Part<'s, A, C> {
    pub(super) shared: Shared<'s, A, C>,
    pub(super) param: Param<'s, A>,
    pub(super) start: usize,
    pub(super) slots: StoredMut<'s, A>,
    pub(super) followers: Vec<Following<'s, A>>,
    /// The rows that are stepped, if not all.
    pub(super) chosen: Option<Chosen<'s>>,
}

/// Some rows of a part of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'s> {
    /// Increasing indices in the whole tensor.
    pub(super) rows: &'s [usize],
    /// The row that the part begins with.
    pub(super) first: usize,
    /// The elements of a row.
    pub(super) width: usize,
}

pub(super) enum Param<'s, A> {
    Slice(&'s mut [A]),
    /// With axes turned so that row-major order is the order of the slots. Boxed, because it is ten times the size of a
    /// slice and seldom.
    View(Box<ArrayViewMutD<'s, A>>),
    /// In memory of fewer bits.
    #[cfg(feature = "half")]
    Narrow(Box<dyn NarrowPart<A> + 's>),
}

impl<'s, A: Scalar> Param<'s, A> {
    /// A whole parameter of this shape, in this order. With `rows`, it must be possible to divide it.
    pub(super) fn of(param: &'s mut ValuesMut<'_, A>, shape: &[usize], order: Order, rows: bool) -> Self {
        #[cfg(feature = "half")]
        if param.narrow_part(shape, order).is_some_and(|part| !rows || part.is_divisible()) {
            return match param.narrow_part(shape, order) {
                Some(part) => Self::Narrow(part),
                None => unreachable!("it has just been there"),
            };
        }
        let _ = rows;
        match param.in_order(shape, order) {
            Ok(slice) => Self::Slice(slice),
            Err(view) => Self::View(Box::new(view)),
        }
    }
}

impl<'s, A: Scalar, C: Copy> Part<'s, A, C> {
    fn whole(
        shared: Shared<'s, A, C>,
        param: &'s mut ValuesMut<'_, A>,
        slots: StoredMut<'s, A>,
        followers: Vec<Following<'s, A>>,
    ) -> Self {
        let param = Param::of(param, shared.shape, shared.order, false);
        Self { shared, param, start: 0, slots, followers, chosen: None }
    }
}

impl<A: Scalar, C: Copy + Send + Sync> Divisible for Part<'_, A, C> {
    fn len(&self) -> usize {
        match (&self.chosen, &self.param) {
            (Some(chosen), _) => chosen.rows.len() * chosen.width,
            (None, Param::Slice(slice)) => slice.len(),
            (None, Param::View(view)) => view.len(),
            #[cfg(feature = "half")]
            (None, Param::Narrow(part)) => part.len(),
        }
    }

    /// Whether the part can be halved. A slice can at whole blocks, so that no scale and no cache line is shared; a view
    /// only along an axis, which may be anywhere.
    fn is_divisible(&self) -> bool {
        if let Some(chosen) = &self.chosen {
            return chosen.rows.len() > 1 && self.len() > BLOCK;
        }
        let followers = || self.followers.iter().all(|follower| follower.is_divisible());
        let is_divisible = match &self.param {
            Param::Slice(_) => followers(),
            Param::View(_) => self.followers.is_empty() && self.slots.is_full(),
            #[cfg(feature = "half")]
            Param::Narrow(part) => part.is_divisible() && followers(),
        };
        self.len() > BLOCK && is_divisible
    }

    /// Two parts of roughly equal length.
    fn halve(self) -> (Self, Self) {
        let Self { shared, param, start, slots, followers, chosen: None } = self else { return self.halve_rows() };
        let (left, right, middle) = match param {
            Param::Slice(slice) => {
                let middle = (slice.len() / 2).next_multiple_of(BLOCK);
                let (left, right) = slice.split_at_mut(middle);
                (Param::Slice(left), Param::Slice(right), middle)
            }
            Param::View(view) => {
                let axis = view.shape().iter().position(|&length| length > 1).unwrap_or(0);
                let middle = view.shape()[axis] / 2;
                let (left, right) = view.split_at(Axis(axis), middle);
                let middle = left.len();
                (Param::View(Box::new(left)), Param::View(Box::new(right)), middle)
            }
            #[cfg(feature = "half")]
            Param::Narrow(part) => {
                let middle = (part.len() / 2).next_multiple_of(BLOCK);
                let (left, right) = part.split_at(middle);
                (Param::Narrow(left), Param::Narrow(right), middle)
            }
        };
        let (left_slots, right_slots) = slots.split_at(middle);
        let (left_followers, right_followers) = followers.into_iter().map(|follower| follower.split_at(middle)).unzip();
        (
            Self { shared, param: left, start, slots: left_slots, followers: left_followers, chosen: None },
            Self {
                shared,
                param: right,
                start: start + middle,
                slots: right_slots,
                followers: right_followers,
                chosen: None,
            },
        )
    }
}

impl<A: Scalar, C: Copy + Send + Sync> Part<'_, A, C> {
    pub(super) fn run<R: Rule<A, Coefficients = C>>(self, rule: &R, arch: Arch) {
        match self {
            Self { chosen: Some(_), .. } => self.run_rows(rule, arch),
            // All contiguous and nothing beside it: one loop over the whole.
            Self { shared, param: Param::Slice(param), start, slots, followers, .. }
                if followers.is_empty() && shared.bounds.is_none() && shared.grad.as_slice(shared.order).is_some() =>
            {
                let grad = shared.grad.as_slice(shared.order).unwrap_or_default();
                let grad = &grad[start..start + param.len()];
                shared.sweep(rule, arch, start, param, grad, slots);
            }
            Self { shared, param: Param::Slice(param), start, slots: StoredMut::Full(slots), followers, .. }
                if followers.is_empty() && shared.transposed().is_some() =>
            {
                shared.sweep_in_tiles(rule, arch, start, param, slots);
            }
            part => part.run_in_blocks(rule, arch),
        }
    }

    /// Block by block, with whatever is not contiguous in a buffer.
    fn run_in_blocks<R: Rule<A, Coefficients = C>>(mut self, rule: &R, arch: Arch) {
        let (shared, elements) = (self.shared, self.len());
        // The first block ends where a cache line begins, so that the others begin with one.
        let compares = self.followers.iter().any(|follower| follower.compares());
        let first = match &self.param {
            // Sums of squares are those of fixed blocks.
            Param::Slice(param) if !self.slots.is_grouped() && !compares => before_line(param),
            _ => 0,
        };
        let longest = if compares { BLOCK } else { WIDE_BLOCK };
        let (mut at, length_of_buffer) = (0, longest.min(elements));
        let buffers = if compares { 3 } else { 2 };
        shared.scratch.with(buffers * length_of_buffer, |memory| {
            let (grad_buffer, memory) = memory.split_at_mut(length_of_buffer);
            let (param_buffer, before) = memory.split_at_mut(length_of_buffer);
            while at < elements {
                let length = if at < first { first } else { longest.min(elements - at) };
                let start = self.start + at;
                let grad = match shared.grad.as_slice(shared.order) {
                    Some(grad) => &grad[start..start + length],
                    None => {
                        shared.grad.read_raw(shared.shape, shared.order, start, &mut grad_buffer[..length]);
                        &grad_buffer[..length]
                    }
                };
                let param = match &mut self.param {
                    Param::Slice(param) => &mut param[at..at + length],
                    Param::View(view) => {
                        let param = &mut param_buffer[..length];
                        blocks::read(&view.view(), at, param);
                        param
                    }
                    #[cfg(feature = "half")]
                    Param::Narrow(part) => {
                        let param = &mut param_buffer[..length];
                        part.read(at, param);
                        param
                    }
                };
                if compares {
                    self.followers.iter_mut().for_each(|follower| follower.precede(arch, at, param, grad));
                    before[..length].copy_from_slice(param);
                }
                shared.sweep(rule, arch, start, param, grad, self.slots.range(at, length));
                self.followers.iter_mut().for_each(|follower| follower.follow(arch, at, param));
                if compares {
                    self.followers.iter_mut().for_each(|follower| follower.compare(arch, at, &before[..length], param));
                }
                let new = &param_buffer[..length];
                match &mut self.param {
                    Param::Slice(_) => {}
                    Param::View(view) => blocks::update(view, at, new, |element, value| *element = *value),
                    #[cfg(feature = "half")]
                    Param::Narrow(part) => part.write(arch, at, new),
                }
                at += length;
            }
        });
    }
}

/// Bytes of a tile and of its longest row, and its most rows. Rows are whole if they can be: parameter and state are then
/// one stretch of memory.
const TILE: usize = 1 << 21;
const TILE_WIDTH: usize = 1 << 15;
const TILE_HEIGHT: usize = 256;

/// Matrices of fewer rows or columns are read as other tensors are.
const NARROW: usize = 32;

/// What a tile's rows are longer than its width: lines at a distance of a power of two would share one place in the
/// cache.
const PADDING: usize = 16;

impl<A: Scalar, C: Copy> Shared<'_, A, C> {
    /// The gradient of a matrix that lies in the other order, with the numbers of rows and columns that the matrix has in
    /// this one.
    fn transposed(&self) -> Option<(&[A], usize, usize)> {
        let &[rows, columns] = self.shape else { return None };
        if rows.min(columns) < NARROW {
            return None;
        }
        match self.order {
            Order::C => self.grad.as_slice(Order::F).map(|grad| (grad, rows, columns)),
            Order::F => self.grad.as_slice(Order::C).map(|grad| (grad, columns, rows)),
        }
    }

    /// A part of a matrix whose gradient is [transposed](Self::transposed), in tiles of which every line of the gradient
    /// is read once.
    fn sweep_in_tiles<R: Rule<A, Coefficients = C>>(
        &self,
        rule: &R,
        arch: Arch,
        start: usize,
        param: &mut [A],
        mut slots: [&mut [A]; MAX_SLOTS],
    ) {
        let Some((grad, rows, columns)) = self.transposed() else { return };
        let end = start + param.len();
        let tile_width = columns.min(TILE_WIDTH / size_of::<A>());
        let stride = tile_width + PADDING;
        let tile_height = rows.min(TILE_HEIGHT).min(TILE / size_of::<A>() / stride);
        self.scratch.with(tile_height * stride, |tile| {
            let mut row = start / columns;
            while row * columns < end {
                // Whole rows together; those that the part has only a part of alone.
                let whole = |row: usize| row * columns >= start && (row + 1) * columns <= end;
                let height = (row..row + tile_height).take_while(|row| whole(*row)).count().max(1);
                let (from, to) = (start.max(row * columns), end.min((row + height) * columns));
                let last = if height == 1 { to - row * columns } else { columns };
                let mut column = from - row * columns;
                while column < last {
                    let width = tile_width.min(last - column);
                    blocks::read_tile(grad, rows, (row, column), (height, width), stride, tile);
                    for (line, grad) in tile.chunks(stride).map(|line| &line[..width]).take(height).enumerate() {
                        let at = (row + line) * columns + column - start;
                        let param = &mut param[at..at + width];
                        let slots = slots.each_mut().map(|slot| slot.get_mut(at..at + width).unwrap_or_default());
                        self.sweep(rule, arch, start + at, param, grad, StoredMut::Full(slots));
                    }
                    column += width;
                }
                row += height;
            }
        });
    }

    /// Applies the rule to the elements from `start`, and limits them.
    pub(super) fn sweep<R: Rule<A, Coefficients = C>>(
        &self,
        rule: &R,
        arch: Arch,
        start: usize,
        param: &mut [A],
        grad: &[A],
        slots: StoredMut<'_, A>,
    ) {
        self.sweep_freely(rule, arch, start, param, grad, slots);
        if let Some(bounds) = self.bounds {
            arch.dispatch(
                #[inline(always)]
                move || param.iter_mut().for_each(|value| *value = limit(*value, bounds)),
            );
        }
    }

    fn sweep_freely<R: Rule<A, Coefficients = C>>(
        &self,
        rule: &R,
        arch: Arch,
        start: usize,
        param: &mut [A],
        grad: &[A],
        slots: StoredMut<'_, A>,
    ) {
        // The wide loop writes whole cache lines; what lies before the first is a part of its own.
        let head = if slots.is_grouped() || param.len() < SHORT { 0 } else { before_line(param) };
        if head == 0 {
            return self.lanes(rule, arch, start, param, grad, slots);
        }
        let (head_param, param) = param.split_at_mut(head);
        let (head_grad, grad) = grad.split_at(head);
        let (head_slots, slots) = slots.split_at(head);
        self.lanes(rule, arch, start, head_param, head_grad, head_slots);
        self.lanes(rule, arch, start + head, param, grad, slots);
    }

    fn lanes<R: Rule<A, Coefficients = C>>(
        &self,
        rule: &R,
        arch: Arch,
        start: usize,
        param: &mut [A],
        grad: &[A],
        slots: StoredMut<'_, A>,
    ) {
        let seed =
            if slots.is_full() { 0 } else { seed(self.tensor, self.step).wrapping_add((self.offset + start) as u32) };
        let slot_count = rule.slots().len();
        let Self { prelude, goal, streams, .. } = *self;
        let lanes = Lanes { arch, prelude, grad, slot_count, goal, param, slots, seed, streams, measuring: None };
        rule.sweep(self.coefficients, lanes);
    }
}

/// Applies a rule to the tensors of a step: at once if there is little to do or one thread to do it, else when all are
/// known, in one parallel region.
pub(super) struct Sweep<'s, A: Scalar, R: Rule<A>> {
    rule: &'s R,
    arch: Arch,
    /// Whether the step is too large for the cache.
    pub(super) streams: bool,
    share: bool,
    waiting: Vec<Option<Part<'s, A, R::Coefficients>>>,
}

impl<'s, A: Scalar, R: Rule<A>> Sweep<'s, A, R> {
    /// For a step of at most so many elements.
    pub(super) fn new(rule: &'s R, arch: Arch, elements: usize) -> Self {
        let share = threads::are_worth(elements);
        Self { rule, arch, streams: elements > CACHED_STEP, share, waiting: Vec::new() }
    }

    #[inline(always)]
    pub(super) fn tensor(
        &mut self,
        shared: &Shared<'s, A, R::Coefficients>,
        param: &'s mut ValuesMut<'_, A>,
        slots: StoredMut<'s, A>,
        followers: Vec<Following<'s, A>>,
    ) {
        // The short way for the many small tensors.
        if !self.share
            && followers.is_empty()
            && let Some(grad) = shared.grad.as_slice(shared.order)
            && let ValuesMut::Contiguous(param, order) = param
            && *order == shared.order
            && (shared.bounds.is_none() || param.len() <= WIDE_BLOCK)
        {
            return shared.sweep(self.rule, self.arch, 0, param, grad, slots);
        }
        self.part(Part::whole(*shared, param, slots, followers));
    }

    /// A part of a tensor.
    pub(super) fn part(&mut self, part: Part<'s, A, R::Coefficients>) {
        match self.share {
            true => self.waiting.push(Some(part)),
            false => part.run(self.rule, self.arch),
        }
    }

    pub(super) fn finish(mut self) {
        if !self.waiting.is_empty() {
            threads::share(&mut self.waiting, &|part| part.run(self.rule, self.arch));
        }
    }
}
