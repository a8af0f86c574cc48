//! The matrices that Muon finds in a tensor.

use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::TensorInfo;

/// The parts of a tensor that [`Muon`](crate::Muon) orthogonalizes each by itself, such as the heads of an attention layer or the experts of a layer.
///
/// A block has its own norm and its own singular values, and its own rows and columns in [`MuonScale`](super::MuonScale). Blocks are stepped in
/// parallel, and cost less than the whole matrix.
///
/// ```
/// use gradus::{optimizer::MuonBlocks, prelude::*};
///
/// // 8 heads in the rows of the queries, keys and values; one matrix per expert.
/// let heads = Muon::new(3e-4).match_rms_adamw(true).blocks(MuonBlocks::Parts(8));
/// let experts = Muon::new(3e-4).match_rms_adamw(true).blocks(MuonBlocks::LeadingAxes);
/// let hidden = Muon::<f32>::new(3e-4).match_rms_adamw(true);
/// let opt = AdamW::new(3e-4).route("*.hidden", hidden).route("*.{query,key,value}", heads).route("*.experts", experts);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MuonBlocks {
    /// One block: the first axis, and all others together.
    Whole,
    /// Groups of so many rows (elements of the first axis).
    Rows(usize),
    /// So many groups of equally many rows.
    Parts(usize),
    /// A matrix of the last two axes for each index of the axes before them.
    LeadingAxes,
}

impl MuonBlocks {
    /// The rows and columns of a block of a matrix, whose tensor has this shape.
    pub(super) fn shape(self, (rows, columns): (usize, usize), tensor: &[usize]) -> (usize, usize) {
        match self {
            Self::Whole => (rows, columns),
            Self::Rows(block) => (block, columns),
            Self::Parts(parts) => (rows / parts, columns),
            Self::LeadingAxes => match tensor {
                [.., rows, columns] => (*rows, *columns),
                _ => (rows, columns),
            },
        }
    }

    /// Returns an error unless the rows of the tensor can be divided.
    pub(super) fn ensure(self, tensor: &TensorInfo) -> Result<()> {
        let (Self::Rows(blocks) | Self::Parts(blocks)) = self else { return Ok(()) };
        ensure_count("blocks", blocks as u64)?;
        let rows = tensor.shape().first().copied().unwrap_or(1);
        match rows % blocks {
            0 => Ok(()),
            _ => Err(Error::Step(StepError::UnequalBlocks { path: tensor.path().into(), rows, blocks })),
        }
    }
}
