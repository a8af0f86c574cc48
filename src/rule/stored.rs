//! The state slots of one tensor, in the bits that they are stored in.

use std::mem::take;

use super::coded::{Coded, CodedMut, Packed, PackedMut, split};
use super::names::Names;
use super::precision::{Rounding, StatePrecision};
use crate::error::Result;
use crate::kernel::aligned::Aligned;
use crate::kernel::narrow::widen_bf16;
use crate::params::{Order, Scalar, TensorInfo, Values};
use crate::state::data::{Data, in_order, row_major};
use crate::state::{StateReader, StateWriter};
use crate::step::grad::read;

/// The largest number of state slots of a rule.
pub const MAX_SLOTS: usize = 4;

/// The state slots of one tensor, as they are stored.
#[derive(Debug, Clone)]
pub(super) enum Stored<A> {
    Full([Aligned<A>; MAX_SLOTS]),
    Bf16([Aligned<u16>; MAX_SLOTS], Rounding),
    Blockwise8([Coded; MAX_SLOTS]),
    Blockwise4([Packed; MAX_SLOTS], Rounding),
}

/// A range of the state slots of one tensor.
pub(super) enum StoredMut<'s, A> {
    Full([&'s mut [A]; MAX_SLOTS]),
    Bf16([&'s mut [u16]; MAX_SLOTS], Rounding),
    /// Boxed, because it is twice the size of the others.
    Blockwise8(Box<[CodedMut<'s>; MAX_SLOTS]>),
    Blockwise4(Box<[PackedMut<'s>; MAX_SLOTS]>, Rounding),
}

impl<A> Default for Stored<A> {
    fn default() -> Self {
        Self::Full(Default::default())
    }
}

impl<A: Scalar> Stored<A> {
    /// These slots, of zeros, whose element `line` begins a cache line.
    pub(super) fn zeros(names: Names, elements: usize, line: usize, precision: StatePrecision) -> Self {
        fn each<T: Default>(names: Names, make: impl Fn(&str) -> T) -> [T; MAX_SLOTS] {
            std::array::from_fn(|slot| names.all.get(slot).map(|name| make(name)).unwrap_or_default())
        }
        match precision {
            StatePrecision::Full => Self::Full(each(names, |_| Aligned::zeros(elements, line))),
            StatePrecision::Bf16(rounding) => Self::Bf16(each(names, |_| Aligned::zeros(elements, line)), rounding),
            StatePrecision::Blockwise8 => Self::Blockwise8(each(names, |_| Coded::zeros(elements))),
            StatePrecision::Blockwise4(rounding) => {
                Self::Blockwise4(each(names, |name| Packed::zeros(elements, names.map(name))), rounding)
            }
        }
    }

    /// Takes over the slots of the names that stay; the others begin at zero.
    pub(super) fn rename(&mut self, old: &[&str], new: Names, elements: usize, line: usize) {
        fn each<T: Default>(slots: &mut [T; MAX_SLOTS], old: &[&str], new: &[&str], make: impl Fn(&str) -> T) {
            let mut all = take(slots);
            *slots = std::array::from_fn(|slot| match new.get(slot) {
                Some(name) => match old.iter().position(|old| old == name) {
                    Some(at) => take(&mut all[at]),
                    None => make(name),
                },
                None => T::default(),
            });
        }
        match self {
            Self::Full(slots) => each(slots, old, new.all, |_| Aligned::zeros(elements, line)),
            Self::Bf16(slots, _) => each(slots, old, new.all, |_| Aligned::zeros(elements, line)),
            Self::Blockwise8(slots) => each(slots, old, new.all, |_| Coded::zeros(elements)),
            Self::Blockwise4(slots, _) => each(slots, old, new.all, |name| Packed::zeros(elements, new.map(name))),
        }
    }

    #[inline(always)]
    pub(super) fn as_mut(&mut self) -> StoredMut<'_, A> {
        match self {
            // Without `map`, which is a call.
            Self::Full([a, b, c, d]) => StoredMut::Full([&mut a[..], &mut b[..], &mut c[..], &mut d[..]]),
            Self::Bf16(slots, rounding) => StoredMut::Bf16(slots.each_mut().map(|slot| &mut slot[..]), *rounding),
            Self::Blockwise8(slots) => StoredMut::Blockwise8(Box::new(slots.each_mut().map(Coded::as_mut))),
            Self::Blockwise4(slots, rounding) => {
                StoredMut::Blockwise4(Box::new(slots.each_mut().map(Packed::as_mut)), *rounding)
            }
        }
    }

    /// The slots, if they are stored in full.
    pub(super) fn in_full(&self) -> Option<[&[A]; MAX_SLOTS]> {
        match self {
            Self::Full(slots) => Some(slots.each_ref().map(|slot| &slot[..])),
            _ => None,
        }
    }

    /// Reads elements `start …` of one slot of a tensor of this shape in row-major order, widened. `order` is that of the slot.
    pub(super) fn read_wide(&self, slot: usize, (shape, order): (&[usize], Order), start: usize, out: &mut [A]) {
        match self {
            Self::Full(slots) => read(&Values::Contiguous(&slots[slot], order), shape, Order::C, start, out),
            Self::Bf16(slots, _) if order == Order::C => {
                out.iter_mut().zip(&slots[slot][start..]).for_each(|(out, bits)| *out = widen_bf16(*bits));
            }
            Self::Bf16(slots, _) => {
                let places = (start..).map(|at| order.place(at, shape));
                out.iter_mut().zip(places).for_each(|(out, at)| *out = widen_bf16(slots[slot][at]));
            }
            Self::Blockwise8(slots) => {
                let places = (start..).map(|at| order.place(at, shape));
                out.iter_mut().zip(places).for_each(|(out, at)| *out = slots[slot].number(at));
            }
            Self::Blockwise4(slots, _) => {
                let places = (start..).map(|at| order.place(at, shape));
                out.iter_mut().zip(places).for_each(|(out, at)| *out = slots[slot].number(at));
            }
        }
    }

    /// One slot's values of a tensor of so many elements, widened, in their order in memory.
    pub(super) fn values(&self, slot: usize, elements: usize) -> Vec<A> {
        let mut values = vec![A::zero(); elements];
        self.read_wide(slot, (&[elements], Order::C), 0, &mut values);
        values
    }

    /// Writes the slots of one tensor, as they are stored.
    pub(super) fn write(&self, state: &mut StateWriter<'_>, info: &TensorInfo, names: &[&str], order: Order) {
        let shape = info.shape();
        match self {
            Self::Full(slots) => {
                for (name, slot) in names.iter().zip(slots) {
                    state.slot(name, info, row_major(slot, order, shape));
                }
            }
            Self::Bf16(slots, _) => {
                for (name, slot) in names.iter().zip(slots) {
                    state.elements(name, info, row_major(slot, order, shape), |_| 0, Data::Bf16);
                }
            }
            Self::Blockwise8(slots) => {
                names.iter().zip(slots).for_each(|(name, slot)| slot.write(state, info, name));
            }
            Self::Blockwise4(slots, _) => {
                names.iter().zip(slots).for_each(|(name, slot)| slot.write(state, info, name));
            }
        }
    }

    /// Reads what [`write`](Self::write) wrote. Nothing is allocated that the state does not have the numbers for.
    pub(super) fn read(
        state: &StateReader<'_>,
        info: &TensorInfo,
        names: Names,
        order: Order,
        precision: StatePrecision,
    ) -> Result<Self> {
        let (path, shape, elements) = (info.path(), info.shape(), info.elements());
        let missing = |name: &str| state.missing(name, info);
        // Slots beyond those of the rule are empty.
        fn each<T: Default>(names: Names, read: impl Fn(&str) -> Result<T>) -> Result<[T; MAX_SLOTS]> {
            let mut slots: [T; MAX_SLOTS] = Default::default();
            for (slot, name) in slots.iter_mut().zip(names.all) {
                *slot = read(name)?;
            }
            Ok(slots)
        }
        Ok(match precision.of(info.whole_elements()) {
            StatePrecision::Full => Self::Full(each(names, |name| {
                let values = state.tensor::<A>(name, info)?.ok_or_else(|| missing(name))?;
                Ok(Aligned::of(in_order(&values, order, shape), elements))
            })?),
            StatePrecision::Bf16(rounding) => {
                let slots = each(names, |name| match state.data(name, path, shape, "bf16")? {
                    Some(Data::Bf16(bits)) => Ok(Aligned::of(in_order(bits, order, shape), elements)),
                    _ => Err(missing(name)),
                })?;
                Self::Bf16(slots, rounding)
            }
            StatePrecision::Blockwise8 => Self::Blockwise8(each(names, |name| Coded::read(state, info, name))?),
            StatePrecision::Blockwise4(rounding) => {
                Self::Blockwise4(each(names, |name| Packed::read(state, info, name, names.map(name)))?, rounding)
            }
        })
    }

    /// How the slots are stored.
    pub(super) fn precision(&self) -> StatePrecision {
        match self {
            Self::Full(_) => StatePrecision::Full,
            Self::Bf16(_, rounding) => StatePrecision::Bf16(*rounding),
            Self::Blockwise8(_) => StatePrecision::Blockwise8,
            Self::Blockwise4(_, rounding) => StatePrecision::Blockwise4(*rounding),
        }
    }

    /// The bytes that the slots take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Full(slots) => slots.iter().map(|slot| size_of_val(&slot[..])).sum(),
            Self::Bf16(slots, _) => slots.iter().map(|slot| size_of_val(&slot[..])).sum(),
            Self::Blockwise8(slots) => slots.iter().map(Coded::bytes).sum(),
            Self::Blockwise4(slots, _) => slots.iter().map(Packed::bytes).sum(),
        }
    }
}

impl<'s, A> StoredMut<'s, A> {
    /// Whether the slots can be divided anywhere, not only between groups.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether elements share scales.
    pub(super) fn is_grouped(&self) -> bool {
        matches!(self, Self::Blockwise8(_) | Self::Blockwise4(..))
    }

    /// The first `at` elements and the others. Where elements share scales, `at` must be a multiple of their group.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Full(slots) => {
                let (left, right) = split_all(slots, at);
                (Self::Full(left), Self::Full(right))
            }
            Self::Bf16(slots, rounding) => {
                let (left, right) = split_all(slots, at);
                (Self::Bf16(left, rounding), Self::Bf16(right, rounding))
            }
            Self::Blockwise8(slots) => {
                let (left, right) = each_in_two(*slots, |slot| slot.split_at(at));
                (Self::Blockwise8(Box::new(left)), Self::Blockwise8(Box::new(right)))
            }
            Self::Blockwise4(slots, rounding) => {
                let (left, right) = each_in_two(*slots, |slot| slot.split_at(at));
                (Self::Blockwise4(Box::new(left), rounding), Self::Blockwise4(Box::new(right), rounding))
            }
        }
    }

    /// `length` elements from `at`, a multiple of the group of those that share scales.
    pub(super) fn range(&mut self, at: usize, length: usize) -> StoredMut<'_, A> {
        match self {
            Self::Full(slots) => StoredMut::Full(range_of_all(slots, at, length)),
            Self::Bf16(slots, rounding) => StoredMut::Bf16(range_of_all(slots, at, length), *rounding),
            Self::Blockwise8(slots) => {
                StoredMut::Blockwise8(Box::new(slots.each_mut().map(|slot| slot.range(at, length))))
            }
            Self::Blockwise4(slots, rounding) => {
                StoredMut::Blockwise4(Box::new(slots.each_mut().map(|slot| slot.range(at, length))), *rounding)
            }
        }
    }
}

/// Every slot in two.
fn split_all<T>(slots: [&mut [T]; MAX_SLOTS], at: usize) -> ([&mut [T]; MAX_SLOTS], [&mut [T]; MAX_SLOTS]) {
    each_in_two(slots, |slot| split(slot, at))
}

#[inline(always)]
fn each_in_two<T: Default>(slots: [T; MAX_SLOTS], split: impl Fn(T) -> (T, T)) -> ([T; MAX_SLOTS], [T; MAX_SLOTS]) {
    let (mut left, mut right): ([T; MAX_SLOTS], [T; MAX_SLOTS]) = Default::default();
    for ((slot, left), right) in slots.into_iter().zip(&mut left).zip(&mut right) {
        (*left, *right) = split(slot);
    }
    (left, right)
}

pub(super) fn range_of_all<'r, T>(
    slots: &'r mut [&mut [T]; MAX_SLOTS],
    at: usize,
    length: usize,
) -> [&'r mut [T]; MAX_SLOTS] {
    slots.each_mut().map(|slot| slot.get_mut(at..at + length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::super::lanes::{Goal, Lanes};
    use super::super::{precision::LEAST_ELEMENTS, prelude::Prelude};
    use super::*;
    use crate::kernel::narrow::{GROUP, random};
    use crate::kernel::simd;

    const SLOT: Names = Names { all: &["slot"], non_negative: &[] };

    const ALL: [StatePrecision; 3] = [
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Bf16(Rounding::Stochastic),
        StatePrecision::Blockwise8,
    ];

    /// Those of 4 bits, whose numbers are not relative to themselves.
    const FOUR_BITS: [StatePrecision; 2] =
        [StatePrecision::Blockwise4(Rounding::Stochastic), StatePrecision::Blockwise4(Rounding::Nearest)];

    /// The largest relative distance of neighboring numbers.
    fn spacing(precision: StatePrecision) -> f64 {
        match precision {
            StatePrecision::Full | StatePrecision::Blockwise4(_) => 0.0,
            StatePrecision::Bf16(Rounding::Nearest) => 2.0_f64.powi(-8),
            StatePrecision::Bf16(Rounding::Stochastic) => 2.0_f64.powi(-7),
            StatePrecision::Blockwise8 => 2.0_f64.powi(-3),
        }
    }

    /// Gives the first slot these values, through the loop that rules run in.
    fn store<A: Scalar>(slots: StoredMut<'_, A>, values: &[A], seed: u32, arch: Arch) {
        let mut param = values.to_vec();
        let (param, grad, prelude, goal) =
            (&mut param[..], values, Prelude::none(), Goal::Move { step_size: A::zero() });
        let (slot_count, streams, measuring) = (1, true, None);
        let lanes = Lanes { arch, prelude, grad, slot_count, goal, param, slots, seed, streams, measuring };
        lanes.each((), |(), _, grad, [slot]: [A; 1]| (slot, [grad]));
    }

    fn round_trip<A: Scalar>(values: &[A], precision: StatePrecision, seed: u32) -> Vec<A> {
        let mut padded = values.to_vec();
        padded.resize(LEAST_ELEMENTS.max(values.len()), A::zero());
        let mut stored = Stored::zeros(SLOT, padded.len(), 0, precision);
        store(stored.as_mut(), &padded, seed, simd::arch());
        let mut loaded = stored.values(0, padded.len());
        loaded.truncate(values.len());
        loaded
    }

    /// Numbers over six decades, of both signs if asked.
    fn numbers<A: Scalar>(count: u32, signs: bool) -> Vec<A> {
        let number = |i: u32| {
            let random = f64::from(random(i)) / f64::from(u32::MAX);
            let sign = if signs && i.is_multiple_of(3) { -1.0 } else { 1.0 };
            A::from_f64(sign * 10.0_f64.powf(if signs { 4.0 } else { 6.0 } * (random - 1.0)))
        };
        (0..count).map(number).collect()
    }

    #[test]
    fn a_number_comes_back_within_the_spacing() {
        fn check<A: Scalar>() {
            for precision in ALL {
                for signs in [false, true] {
                    let values = numbers::<A>(5000, signs);
                    for (value, back) in values.iter().zip(round_trip(&values, precision, 1)) {
                        let error = (back.as_f64() - value.as_f64()).abs();
                        let allowed = spacing(precision) * value.as_f64().abs();
                        assert!(error <= allowed, "{precision:?}: {value} became {back}");
                    }
                }
            }
        }
        check::<f32>();
        check::<f64>();
    }

    /// The mean of many stochastic roundings is the number, where one to the nearest is off.
    #[test]
    fn stochastic_rounding_is_right_on_average() {
        for precision in [StatePrecision::Bf16(Rounding::Stochastic), StatePrecision::Blockwise8] {
            for value in [1.0_f32 + 1.0 / 700.0, 0.3, -0.7, 0.011] {
                let mut values = vec![value; GROUP];
                values[0] = 1.5;
                values[1] = -1.5;
                let rounds = 400;
                let roundings = (0..rounds).flat_map(|round| round_trip(&values, precision, round * 1009).split_off(2));
                let (mut sum, mut count) = (0.0, 0.0);
                for rounded in roundings {
                    sum += f64::from(rounded);
                    count += 1.0;
                }
                // The standard deviation of one is at most half the spacing; of the mean, four of them are allowed.
                let allowed = 4.0 * 0.5 * spacing(precision) * f64::from(value.abs()) / f64::sqrt(count);
                assert!(
                    (sum / count - f64::from(value)).abs() < allowed,
                    "{precision:?}: {value} is {} on average",
                    sum / count
                );
            }
        }
    }

    #[test]
    fn zeros_stay_and_nothing_else_becomes_zero() {
        for precision in ALL {
            assert_eq!(round_trip(&[0.0_f32; 300], precision, 3), [0.0; 300]);
            let back = round_trip(&[1e30_f32, 0.0, 1e-30, f32::MIN_POSITIVE], precision, 3);
            assert!(back[1] == 0.0 && back[2] > 0.0 && back[3] > 0.0, "{precision:?}: {back:?}");
        }
        let tiny = round_trip(&[1e-42_f32, 0.0, -5e-43], StatePrecision::Blockwise8, 3);
        assert!(tiny[0] > 0.0 && tiny[1] == 0.0 && tiny[2] < 0.0, "{tiny:?}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for precision in ALL.into_iter().chain(FOUR_BITS) {
            let back = round_trip(&[1.0_f32, f32::NAN, 2.0], precision, 3);
            assert!(back[1].is_nan(), "{precision:?}: {back:?}");
            let back = round_trip(&[1.0_f32, f32::INFINITY, 2.0], precision, 3);
            assert!(!back[1].is_finite(), "{precision:?}: {back:?}");
        }
    }

    #[test]
    fn the_largest_of_a_group_is_exact() {
        let mut values = vec![0.1_f32; GROUP];
        values[17] = 0.7;
        assert_eq!(round_trip(&values, StatePrecision::Blockwise8, 9)[17], 0.7);
        values[18] = -0.9;
        assert_eq!(round_trip(&values, StatePrecision::Blockwise8, 9)[18], -0.9);
    }

    #[test]
    fn bytes_and_small_tensors() {
        let bytes = |elements, precision: StatePrecision| {
            Stored::<f32>::zeros(SLOT, elements, 0, precision.of(elements)).bytes()
        };
        assert_eq!(bytes(1 << 16, StatePrecision::Full), 4 << 16);
        assert_eq!(bytes(1 << 16, StatePrecision::Bf16(Rounding::Nearest)), 2 << 16);
        assert_eq!(bytes(1 << 16, StatePrecision::Blockwise8), (1 << 16) + 4 * (1 << 8));
        assert_eq!(bytes(1 << 16, FOUR_BITS[0]), (1 << 15) + 4 * (1 << 9));
        assert_eq!(bytes(4097, FOUR_BITS[0]), 2049 + 4 * 33);
        assert!(
            ALL.iter()
                .chain(&FOUR_BITS)
                .all(|precision| bytes(LEAST_ELEMENTS - 1, *precision) == 4 * (LEAST_ELEMENTS - 1))
        );
    }

    /// A slot in pieces holds what it holds in one.
    #[test]
    fn pieces_at_groups() {
        let values = numbers::<f32>(6001, true);
        for precision in ALL.into_iter().chain(FOUR_BITS) {
            let mut whole = Stored::zeros(SLOT, values.len(), 0, precision);
            store(whole.as_mut(), &values, 77, Arch::Scalar);
            for arch in simd::available().into_iter().filter_map(|level| level.arch()) {
                let mut cut = Stored::<f32>::zeros(SLOT, values.len(), 0, precision);
                let (left, mut right) = cut.as_mut().split_at(2048);
                store(left, &values[..2048], 77, arch);
                store(right.range(0, 2048), &values[2048..4096], 77 + 2048, Arch::Scalar);
                store(right.range(2048, 1905), &values[4096..], 77 + 4096, arch);
                assert!(whole.values(0, values.len()) == cut.values(0, values.len()), "{precision:?}, {arch:?}");
            }
        }
    }
}
