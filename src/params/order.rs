//! Orders of elements in memory.

/// The order in which the elements of a contiguous tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(usize)] // a whole word: what holds it is then copied in words too
pub enum Order {
    /// Row-major: the last index varies fastest. This is ndarray's default.
    #[default]
    C,
    /// Column-major (Fortran): the first index varies fastest.
    F,
}
