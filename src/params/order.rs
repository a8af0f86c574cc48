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
