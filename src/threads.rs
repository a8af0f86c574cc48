//! Rayon's threads, or without the feature the one that calls.

/// How many threads there are to share work.
#[cfg(feature = "rayon")]
pub(crate) fn count() -> usize {
    rayon::current_num_threads()
}

/// How many threads there are to share work.
#[cfg(not(feature = "rayon"))]
pub(crate) fn count() -> usize {
    1
}

/// Both, side by side.
#[cfg(feature = "rayon")]
pub(crate) fn join<L: Send, R: Send>(left: impl FnOnce() -> L + Send, right: impl FnOnce() -> R + Send) -> (L, R) {
    rayon::join(left, right)
}

/// Both, one after the other.
#[cfg(not(feature = "rayon"))]
pub(crate) fn join<L: Send, R: Send>(left: impl FnOnce() -> L + Send, right: impl FnOnce() -> R + Send) -> (L, R) {
    (left(), right())
}
