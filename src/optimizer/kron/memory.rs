//! The shapes of Kron's factors.

/// The sides of a matrix for which [`Kron`](crate::optimizer::Kron) has a diagonal factor instead of a triangular one, to save memory and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum KronMemory {
    /// None.
    #[default]
    None,
    /// The longer side; of equally long ones the columns.
    OneDiag,
    /// The longer side, unless both are equally long.
    SmartOneDiag,
    /// Both.
    AllDiag,
}

impl KronMemory {
    /// Whether rows and columns have a diagonal factor.
    pub(super) fn diagonal(self, (rows, columns): (usize, usize)) -> [bool; 2] {
        match self {
            Self::None => [false; 2],
            Self::OneDiag => [rows > columns, rows <= columns],
            Self::SmartOneDiag => [rows > columns, rows < columns],
            Self::AllDiag => [true; 2],
        }
    }
}
