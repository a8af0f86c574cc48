//! Memory whose elements lie at cache lines as those of another tensor do.
//!
//! A SIMD store that crosses from one cache line into the next costs ten times one that does not. Sweeps begin their
//! wide loop at the parameter's first cache line; what is written beside the parameter should have one there too.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest SIMD register.
const CACHE_LINE: usize = 64;

/// Fewer elements than this are not worth the padding.
const LEAST_ALIGNED: usize = 32;

/// The number of elements before the first that begins a cache line.
pub(crate) fn before_line<T>(values: &[T]) -> usize {
    values.as_ptr().align_offset(CACHE_LINE).min(values.len())
}

/// The element that begins a cache line in an array of this length that is allocated now: for what is made before the
/// array that it will lie beside.
pub(crate) fn usual_line<T>(len: usize) -> usize {
    let array = Vec::<T>::with_capacity(len);
    array.as_ptr().align_offset(CACHE_LINE).min(len)
}

/// A fixed number of elements, of which a chosen one begins a cache line.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    memory: Vec<T>,
    first: usize,
    len: usize,
    /// The element that begins a cache line.
    line: usize,
}

impl<T> Aligned<T> {
    /// Room for so many elements, and how many to leave out at its beginning.
    fn room(len: usize, line: usize) -> (usize, impl Fn(*const T) -> usize) {
        let per_line = CACHE_LINE / size_of::<T>();
        let padding = if len < LEAST_ALIGNED { 0 } else { 2 * per_line };
        let first = move |memory: *const T| match padding {
            0 => 0,
            _ => (memory.align_offset(CACHE_LINE) + per_line - line % per_line) % per_line,
        };
        (len + padding, first)
    }
}

impl<T: Copy + Default> Aligned<T> {
    /// So many zeros, of which element `line` begins a cache line.
    pub(crate) fn zeros(len: usize, line: usize) -> Self {
        let (room, first) = Self::room(len, line);
        let memory = vec![T::default(); room];
        Self { first: first(memory.as_ptr()), memory, len, line }
    }
}

impl<T: Copy + Default> Aligned<T> {
    /// These elements, as they come; as many as `len`.
    pub(crate) fn of(elements: impl IntoIterator<Item = T>, len: usize) -> Self {
        let mut aligned = Self::zeros(len, usual_line::<T>(len));
        aligned.iter_mut().zip(elements).for_each(|(to, from)| *to = from);
        aligned
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { memory: Vec::new(), first: 0, len: 0, line: 0 }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.memory[self.first..self.first + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.first..self.first + self.len]
    }
}

/// The clone's chosen element begins a cache line, too.
impl<T: Clone> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let (room, first) = Self::room(self.len, self.line);
        let mut memory = Vec::with_capacity(room);
        let first = first(memory.as_ptr());
        memory.extend(self.iter().take(1).cycle().take(first).cloned());
        memory.extend_from_slice(self);
        Self { memory, first, len: self.len, line: self.line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_element_begins_a_cache_line() {
        fn check<T: Copy + Default + PartialEq + std::fmt::Debug>() {
            for line in [0, 1, 3, 12, 15, 40] {
                let aligned = Aligned::<T>::zeros(1000, line);
                assert_eq!((aligned.len(), aligned[line..].as_ptr().align_offset(CACHE_LINE)), (1000, 0));
                assert!(aligned.iter().all(|value| *value == T::default()));
                assert_eq!(before_line(&aligned), line % (CACHE_LINE / size_of::<T>()));
                assert_eq!(aligned.clone()[line..].as_ptr().align_offset(CACHE_LINE), 0);
            }
        }
        check::<f64>();
        check::<f32>();
        check::<u16>();
        check::<u8>();
    }

    #[test]
    fn a_clone_has_the_same_elements() {
        for len in [0, 1, LEAST_ALIGNED, 100] {
            let mut aligned = Aligned::<f32>::zeros(len, 5);
            aligned.iter_mut().zip(1_u16..).for_each(|(value, number)| *value = f32::from(number));
            assert_eq!(*aligned.clone(), *aligned);
            assert_eq!(aligned.len(), len);
        }
    }
}
