//! Which rank has what of the parameters.

use std::ops::Range;
use std::sync::Arc;

/// Tensors are cut at multiples of this from their first element, so that no rank has a part of what shares a scale of 8-bit state.
pub(super) use crate::kernel::narrow::GROUP as BLOCK;
use crate::params::{Layout, TensorInfo};

/// How the parameters are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Into ranges of elements as equal as blocks allow.
    ByElements,
    /// Tensor by tensor, the largest first, each to the rank that has least.
    ByTensor,
}

/// A range of a tensor's elements, in row-major order, that one rank has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) rank: usize,
    pub(super) elements: Range<usize>,
    /// Where it begins in what the rank has.
    pub(super) at: usize,
}

/// The parameters divided between ranks.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    whole: Arc<Layout>,
    /// Of each tensor, in the order of its elements; none of a tensor without elements.
    pieces: Vec<Vec<Piece>>,
    /// The most elements that a rank has.
    most: usize,
}

impl Cut {
    pub(super) fn new(whole: &Arc<Layout>, ranks: usize, how: How) -> Self {
        let pieces = match how {
            How::ByElements => by_elements(whole, ranks),
            How::ByTensor => by_tensor(whole, ranks),
        };
        let most = pieces.iter().flatten().map(|piece| piece.at + piece.elements.len()).max().unwrap_or(0);
        Self { whole: Arc::clone(whole), pieces, most }
    }

    /// The layout of the parameters.
    pub(super) fn whole(&self) -> &Arc<Layout> {
        &self.whole
    }

    /// The elements of every rank's part of a buffer: the most that a rank has, and one with which it says whether it has stepped.
    pub(super) fn part(&self) -> usize {
        self.most + 1
    }

    /// The pieces of a tensor, in the order of its elements.
    pub(super) fn pieces(&self, tensor: usize) -> &[Piece] {
        self.pieces.get(tensor).map_or(&[], Vec::as_slice)
    }

    /// What a rank has of a tensor: nothing, or one piece.
    pub(super) fn piece(&self, tensor: usize, rank: usize) -> Option<&Piece> {
        self.pieces(tensor).iter().find(|piece| piece.rank == rank)
    }

    /// A tensor as the rank's optimizer sees it: itself if the rank has all of it, else a vector of the elements that it has.
    pub(super) fn info(&self, tensor: usize, rank: usize) -> TensorInfo {
        let whole = &self.whole.tensors()[tensor];
        let elements = self.piece(tensor, rank).map_or(0..0, |piece| piece.elements.clone());
        if elements.len() == whole.elements() { whole.clone() } else { whole.part_of(elements) }
    }

    /// The layout that the rank's optimizer sees. It has all tensors, also those that are elsewhere: so all ranks' optimizers count
    /// the same steps, find the same tensors by their names, and know whether anything moves.
    pub(super) fn layout(&self, rank: usize) -> Arc<Layout> {
        let infos = (0..self.whole.len()).map(|tensor| self.info(tensor, rank));
        Arc::new(Layout::of_distinct(infos.collect()))
    }
}

fn by_elements(whole: &Layout, ranks: usize) -> Vec<Vec<Piece>> {
    let ends: Vec<usize> = (1..=ranks).map(|rank| boundary(whole, rank, ranks)).collect();
    let (mut rank, mut first, mut begun) = (0, 0, 0);
    let pieces = whole.tensors().iter().map(|info| {
        let end = first + info.elements();
        let mut pieces = Vec::new();
        let mut at = first;
        while at < end {
            // The last boundary is the end of all.
            while ends[rank] <= at {
                begun = ends[rank];
                rank += 1;
            }
            let to = end.min(ends[rank]);
            pieces.push(Piece { rank, elements: at - first..to - first, at: at - begun });
            at = to;
        }
        first = end;
        pieces
    });
    pieces.collect()
}

/// Where the elements of the first `rank` ranks end: at the last place to cut that is not beyond their share.
fn boundary(whole: &Layout, rank: usize, ranks: usize) -> usize {
    let share = (whole.elements() as u128 * rank as u128 / ranks as u128) as usize;
    let mut first = 0;
    for info in whole.tensors() {
        let end = first + info.elements();
        if share < end {
            return first + (share - first) / BLOCK * BLOCK;
        }
        first = end;
    }
    first
}

fn by_tensor(whole: &Layout, ranks: usize) -> Vec<Vec<Piece>> {
    let sizes: Vec<usize> = whole.tensors().iter().map(TensorInfo::elements).collect();
    let mut largest_first: Vec<usize> = (0..sizes.len()).collect();
    largest_first.sort_by_key(|&tensor| std::cmp::Reverse(sizes[tensor])); // stable: of equals the first
    let (mut loads, mut owners) = (vec![0; ranks], vec![0; sizes.len()]);
    for tensor in largest_first {
        let least = (0..ranks).min_by_key(|&rank| loads[rank]).unwrap_or(0);
        owners[tensor] = least;
        loads[least] += sizes[tensor];
    }
    let mut at = vec![0; ranks];
    let piece = |(size, rank): (usize, usize)| {
        let begin = at[rank];
        at[rank] += size;
        if size == 0 { vec![] } else { vec![Piece { rank, elements: 0..size, at: begin }] }
    };
    sizes.into_iter().zip(owners).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sizes: &[usize]) -> Arc<Layout> {
        let infos = sizes.iter().enumerate().map(|(at, size)| TensorInfo::new(at.to_string(), &[*size]));
        Arc::new(Layout::new(infos.collect()).unwrap())
    }

    const LAYOUTS: [&[usize]; 8] =
        [&[], &[0], &[1], &[5, 0, 3], &[256, 255, 257, 1, 0, 10_000], &[100_000], &[7; 40], &[1000, 3, 3000, 256, 512]];

    #[test]
    fn every_element_has_one_rank() {
        for sizes in LAYOUTS {
            for ranks in 1..7 {
                for how in [How::ByElements, How::ByTensor] {
                    let cut = Cut::new(&layout(sizes), ranks, how);
                    let mut next = vec![0; ranks];
                    for (tensor, size) in sizes.iter().enumerate() {
                        let mut at = 0;
                        for piece in cut.pieces(tensor) {
                            assert_eq!((piece.elements.start, piece.at), (at, next[piece.rank]), "{sizes:?}");
                            assert!(!piece.elements.is_empty());
                            at = piece.elements.end;
                            next[piece.rank] += piece.elements.len();
                        }
                        assert_eq!(at, *size);
                    }
                    assert_eq!(cut.most, next.into_iter().max().unwrap_or(0));
                }
            }
        }
    }

    #[test]
    fn no_rank_has_more_than_its_share_and_a_block() {
        for sizes in LAYOUTS {
            for ranks in 1..7 {
                let whole = layout(sizes);
                let cut = Cut::new(&whole, ranks, How::ByElements);
                assert!(cut.most as f64 <= whole.elements() as f64 / ranks as f64 + BLOCK as f64, "{sizes:?}");
                let pieces = (0..sizes.len()).flat_map(|tensor| cut.pieces(tensor));
                assert!(pieces.into_iter().all(|piece| piece.elements.start % BLOCK == 0));
            }
        }
    }

    #[test]
    fn the_largest_tensors_come_first() {
        let cut = Cut::new(&layout(&[3, 10, 4, 4]), 2, How::ByTensor);
        let ranks: Vec<usize> = (0..4).map(|tensor| cut.pieces(tensor)[0].rank).collect();
        assert_eq!(ranks, [1, 0, 1, 1]);
        assert_eq!(cut.pieces(3), [Piece { rank: 1, elements: 0..4, at: 7 }]);
        assert_eq!(cut.info(1, 0), cut.whole().tensors()[1]);
        assert!(cut.info(1, 1).is_elsewhere() && cut.info(1, 1).whole_shape() == [10]);
    }
}
