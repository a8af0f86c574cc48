//! Orders of elements in memory.

/// In which order the elements of a contiguous tensor lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(usize)] // a whole word: what holds it is then copied in words too
pub enum Order {
    /// Row-major, the last index fastest: ndarray's default.
    #[default]
    C,
    /// Column-major (Fortran), the first index fastest.
    F,
}
