//! Where threads leave numbers for each other.

use std::sync::{PoisonError, RwLock};

/// Where ranks put what others are to read. Each rank writes its own entries, before the meeting after which others read them.
#[derive(Debug)]
pub(super) struct Board<T> {
    pub(super) given: Vec<RwLock<Vec<T>>>,
    pub(super) sums: Vec<RwLock<Vec<T>>>,
}

impl<T: Copy> Board<T> {
    pub(super) fn new(size: usize) -> Self {
        let places = || (0..size).map(|_| RwLock::default()).collect();
        Self { given: places(), sums: places() }
    }

    pub(super) fn put(place: &RwLock<Vec<T>>, values: &[T]) {
        let mut place = place.write().unwrap_or_else(PoisonError::into_inner);
        place.clear();
        place.extend_from_slice(values);
    }

    pub(super) fn take(place: &RwLock<Vec<T>>, values: &mut [T]) {
        values.copy_from_slice(&place.read().unwrap_or_else(PoisonError::into_inner));
    }
}
