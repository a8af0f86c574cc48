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

impl Order {
    /// The place in memory of the element that is at `at` in row-major order, in a tensor of this shape.
    pub(crate) fn place(self, at: usize, shape: &[usize]) -> usize {
        if self == Self::C {
            return at;
        }
        let (mut rest, mut place, mut size) = (at, 0, shape.iter().product::<usize>());
        for length in shape.iter().rev() {
            size /= length;
            place += rest % length * size;
            rest /= length;
        }
        place
    }
}
