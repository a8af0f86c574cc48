//! The length of Muon's steps.

/// The factor by which [`Muon`](crate::Muon) multiplies the orthogonal matrix, from its rows (outputs) and columns (inputs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MuonScale {
    /// √max(1, rows/columns).
    Original,
    /// 0.2·√max(rows, columns): the usual length of AdamW's steps, so that its learning rate and weight decay fit.
    MatchRmsAdamw,
    /// √(rows/columns): inputs and outputs of RMS 1 keep it, so that the learning rate carries over between widths.
    RmsToRms,
    /// 1: singular values of about 1.
    Unscaled,
}

impl MuonScale {
    pub(super) fn of(self, (rows, columns): (usize, usize)) -> f64 {
        let ratio = rows as f64 / columns as f64;
        match self {
            Self::Original => ratio.max(1.0).sqrt(),
            Self::MatchRmsAdamw => 0.2 * (rows.max(columns) as f64).sqrt(),
            Self::RmsToRms => ratio.sqrt(),
            Self::Unscaled => 1.0,
        }
    }
}
