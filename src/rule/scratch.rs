//! Memory for copies.

use std::sync::{Mutex, PoisonError};

use crate::kernel::aligned::Aligned;
use crate::params::Scalar;

/// Memory for what has to be read before it is swept, one piece a thread: kept, because to get it from the system anew
/// costs as much as the sweep.
pub(super) struct Scratch<A>(Mutex<Vec<Aligned<A>>>);

impl<A> Default for Scratch<A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A> Clone for Scratch<A> {
    /// Memory of its own, which it gets when it is needed.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<A: Scalar> Scratch<A> {
    /// Calls `f` with so many elements of anything.
    pub(super) fn with<T>(&self, elements: usize, f: impl FnOnce(&mut [A]) -> T) -> T {
        let pieces = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut piece = pieces().pop().unwrap_or_default();
        if piece.len() < elements {
            piece = Aligned::zeros(elements, 0);
        }
        let result = f(&mut piece[..elements]);
        pieces().push(piece);
        result
    }
}
