//! Slots in 8 and 4 bits: codes, and scales that groups of them share.

use pulp::Arch;

use crate::error::Result;
use crate::kernel::aligned::Aligned;
use crate::kernel::four_bits::{CodeRounding, Map, SMALL_GROUP};
use crate::kernel::narrow::{GROUP, Reader, narrow_group};
use crate::params::{Scalar, TensorInfo};
use crate::state::data::Data;
use crate::state::{StateReader, StateWriter};

/// A slot in 8 bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Coded {
    pub(super) codes: Aligned<u8>,
    /// One for every [`GROUP`]; negative where the codes have signs.
    pub(super) scales: Vec<f32>,
}

/// A range of a slot in 8 bits, from the beginning of a group.
#[derive(Default)]
pub(super) struct CodedMut<'s> {
    pub(super) codes: &'s mut [u8],
    pub(super) scales: &'s mut [f32],
}

/// A slot in 4 bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Packed {
    /// Two elements a byte.
    codes: Aligned<u8>,
    /// One for every [`SMALL_GROUP`].
    scales: Vec<f32>,
    map: Map,
}

/// A range of a slot in 4 bits, from the beginning of a group.
#[derive(Default)]
pub(super) struct PackedMut<'s> {
    pub(super) codes: &'s mut [u8],
    pub(super) scales: &'s mut [f32],
    pub(super) map: Map,
}

impl Coded {
    pub(super) fn zeros(elements: usize) -> Self {
        Self { codes: Aligned::zeros(elements, 0), scales: vec![0.0; elements.div_ceil(GROUP)] }
    }

    pub(super) fn as_mut(&mut self) -> CodedMut<'_> {
        CodedMut { codes: &mut self.codes, scales: &mut self.scales }
    }

    /// The number of an element, by its place in memory.
    pub(super) fn number<A: Scalar>(&self, at: usize) -> A {
        Reader::new(self.scales[at / GROUP]).widen(self.codes[at])
    }

    pub(super) fn write(&self, state: &mut StateWriter<'_>, info: &TensorInfo, name: &str) {
        write(state, info, name, (&self.codes, &self.scales));
    }

    pub(super) fn read(state: &StateReader<'_>, info: &TensorInfo, name: &str) -> Result<Self> {
        let (codes, scales) = read(state, info, name, (info.elements(), info.elements().div_ceil(GROUP)))?;
        Ok(Self { codes, scales })
    }

    pub(super) fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(&self.scales[..])
    }
}

impl Packed {
    pub(super) fn zeros(elements: usize, map: Map) -> Self {
        let mut codes = Aligned::zeros(elements.div_ceil(2), 0);
        codes.fill(map.zeros());
        Self { codes, scales: vec![0.0; elements.div_ceil(SMALL_GROUP)], map }
    }

    pub(super) fn as_mut(&mut self) -> PackedMut<'_> {
        PackedMut { codes: &mut self.codes, scales: &mut self.scales, map: self.map }
    }

    /// The number of an element, by its place in memory.
    pub(super) fn number<A: Scalar>(&self, at: usize) -> A {
        self.map.number(&self.codes, &self.scales, at)
    }

    pub(super) fn write(&self, state: &mut StateWriter<'_>, info: &TensorInfo, name: &str) {
        write(state, info, name, (&self.codes, &self.scales));
    }

    pub(super) fn read(state: &StateReader<'_>, info: &TensorInfo, name: &str, map: Map) -> Result<Self> {
        let lengths = (info.elements().div_ceil(2), info.elements().div_ceil(SMALL_GROUP));
        let (codes, scales) = read(state, info, name, lengths)?;
        Ok(Self { codes, scales, map })
    }

    pub(super) fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(&self.scales[..])
    }
}

/// Writes a slot's codes and scales, in the order of memory.
fn write(state: &mut StateWriter<'_>, info: &TensorInfo, name: &str, (codes, scales): (&[u8], &[f32])) {
    state.insert(name, info.path(), &[codes.len()], Data::U8(codes.to_vec()));
    state.insert(&format!("{name}.scales"), info.path(), &[scales.len()], Data::F32(scales.to_vec()));
}

/// Reads what [`write`] wrote, if it has these numbers of codes and scales. Memory is allocated only for numbers that the state has.
fn read(
    state: &StateReader<'_>,
    info: &TensorInfo,
    name: &str,
    (codes, scales): (usize, usize),
) -> Result<(Aligned<u8>, Vec<f32>)> {
    let (path, name_of_scales) = (info.path(), format!("{name}.scales"));
    let missing = |name: &str| state.missing(name, info);
    let bytes = state.numbers::<u8>(name, path, &[codes], "u8")?.ok_or_else(|| missing(name))?;
    let scales = state.numbers(&name_of_scales, path, &[scales], "f32")?.ok_or_else(|| missing(&name_of_scales))?;
    Ok((Aligned::of(bytes, codes), scales))
}

impl<'s> CodedMut<'s> {
    /// The first `at` elements, a multiple of [`GROUP`] or all, and the others.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let (codes, other_codes) = split(self.codes, at);
        let (scales, other_scales) = split(self.scales, at.div_ceil(GROUP));
        (Self { codes, scales }, Self { codes: other_codes, scales: other_scales })
    }

    /// `length` elements from `at`, a multiple of [`GROUP`].
    pub(super) fn range(&mut self, at: usize, length: usize) -> CodedMut<'_> {
        CodedMut {
            codes: self.codes.get_mut(at..at + length).unwrap_or_default(),
            scales: self.scales.get_mut(at / GROUP..(at + length).div_ceil(GROUP)).unwrap_or_default(),
        }
    }

    /// Lets all elements be this number.
    pub(super) fn fill<A: Scalar>(&mut self, value: A) {
        /// A seed whose random bits round the largest of a group to itself.
        const EXACT: u32 = 1;
        let group = [value; GROUP];
        for (codes, scale) in self.codes.chunks_mut(GROUP).zip(&mut *self.scales) {
            *scale = narrow_group(&group[..codes.len()], codes, EXACT);
        }
    }
}

impl<'s> PackedMut<'s> {
    /// The first `at` elements, a multiple of [`SMALL_GROUP`] or all, and the others.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let (codes, other_codes) = split(self.codes, at.div_ceil(2));
        let (scales, other_scales) = split(self.scales, at.div_ceil(SMALL_GROUP));
        let map = self.map;
        (Self { codes, scales, map }, Self { codes: other_codes, scales: other_scales, map })
    }

    /// `length` elements from `at`, a multiple of [`SMALL_GROUP`].
    pub(super) fn range(&mut self, at: usize, length: usize) -> PackedMut<'_> {
        PackedMut {
            codes: self.codes.get_mut(at / 2..(at + length).div_ceil(2)).unwrap_or_default(),
            scales: self.scales.get_mut(at / SMALL_GROUP..(at + length).div_ceil(SMALL_GROUP)).unwrap_or_default(),
            map: self.map,
        }
    }

    /// Lets all elements be this number, or what is next to it.
    pub(super) fn fill<A: Scalar>(&mut self, value: A) {
        let group = [value; SMALL_GROUP];
        for (codes, scale) in self.codes.chunks_mut(SMALL_GROUP / 2).zip(self.scales.chunks_mut(1)) {
            self.map.narrow(Arch::Scalar, &group[..2 * codes.len()], (codes, scale), CodeRounding::Nearest);
        }
    }
}

/// A slice in two; an empty one, as of a slot that the rule does not have, in two empty ones.
pub(super) fn split<T>(slice: &mut [T], at: usize) -> (&mut [T], &mut [T]) {
    slice.split_at_mut(at.min(slice.len()))
}
