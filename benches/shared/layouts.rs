//! A matrix in memory in other ways than row by row.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

/// Parameter and gradient, as the tables name them.
pub(crate) const LAYOUTS: [(&str, Layout, Layout); 7] = [
    ("C | C", Layout::C, Layout::C),
    ("C | transposed", Layout::C, Layout::Transposed),
    ("C | every second column", Layout::C, Layout::SecondColumns),
    ("C | every second row and column", Layout::C, Layout::SecondRowsAndColumns),
    ("C | reversed", Layout::C, Layout::Reversed),
    ("transposed | transposed", Layout::Transposed, Layout::Transposed),
    ("every second row and column | C", Layout::SecondRowsAndColumns, Layout::C),
];

#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    C,
    Transposed,
    SecondColumns,
    SecondRowsAndColumns,
    Reversed,
}

impl Layout {
    /// An array in which [`view`](Self::view) sees `matrix`, which is square.
    pub(crate) fn hold(self, matrix: &Array2<f32>) -> Array2<f32> {
        let (rows, columns) = matrix.dim();
        let mut memory = match self {
            Self::C | Self::Transposed | Self::Reversed => Array2::zeros((rows, columns)),
            Self::SecondColumns => Array2::zeros((rows, 2 * columns)),
            Self::SecondRowsAndColumns => Array2::zeros((2 * rows, 2 * columns)),
        };
        self.view_mut(&mut memory).assign(matrix);
        memory
    }

    pub(crate) fn view(self, memory: &Array2<f32>) -> ArrayView2<'_, f32> {
        match self {
            Self::C => memory.view(),
            Self::Transposed => memory.t(),
            Self::SecondColumns => memory.slice(s![.., ..;2]),
            Self::SecondRowsAndColumns => memory.slice(s![..;2, ..;2]),
            Self::Reversed => memory.slice(s![..;-1, ..;-1]),
        }
    }

    pub(crate) fn view_mut(self, memory: &mut Array2<f32>) -> ArrayViewMut2<'_, f32> {
        match self {
            Self::C => memory.view_mut(),
            Self::Transposed => memory.view_mut().reversed_axes(),
            Self::SecondColumns => memory.slice_mut(s![.., ..;2]),
            Self::SecondRowsAndColumns => memory.slice_mut(s![..;2, ..;2]),
            Self::Reversed => memory.slice_mut(s![..;-1, ..;-1]),
        }
    }
}
