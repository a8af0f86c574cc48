//! Collective calls in pieces that one MPI message can hold.

use std::ops::{AddAssign, Range};

use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};

/// Calls over numbers of one type, and the memory that they need beside the caller's: for at most one message each way, kept for the
/// next call.
#[derive(Debug, Default)]
pub(crate) struct Pieces<T> {
    sent: Vec<T>,
    received: Vec<T>,
}

/// How a message is put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The elements of a message, those of all ranks together.
    pub(crate) longest_message: usize,
    /// Whether sums are taken in the order of the ranks.
    pub(crate) fixed_order: bool,
}

impl<T: Equivalence + Copy + Default + AddAssign> Pieces<T> {
    pub(crate) fn all_reduce(&mut self, world: &SimpleCommunicator, settings: Settings, values: &mut [T]) {
        let size = ranks(world);
        for piece in values.chunks_mut(settings.longest_message) {
            self.sent.clear();
            self.sent.extend_from_slice(piece);
            if !settings.fixed_order {
                world.all_reduce_into(&self.sent, piece, SystemOperation::sum());
                continue;
            }
            let part = piece.len().div_ceil(size);
            self.sent.resize(part * size, T::default());
            self.received.resize(part * size, T::default());
            world.all_to_all_into(&self.sent, &mut self.received);
            let (sum, others) = self.received.split_at_mut(part);
            others.chunks(part).for_each(|other| add(sum, other));
            world.all_gather_into(sum, &mut self.sent);
            piece.copy_from_slice(&self.sent[..piece.len()]);
        }
    }

    pub(crate) fn reduce_scatter(
        &mut self,
        world: &SimpleCommunicator,
        settings: Settings,
        values: &[T],
        own: &mut [T],
    ) {
        let size = ranks(world);
        let part = own.len();
        for piece in pieces(part, settings.longest_message / size) {
            let values = if piece.len() == part {
                values
            } else {
                self.sent.clear();
                values.chunks(part).for_each(|values| self.sent.extend_from_slice(&values[piece.clone()]));
                &self.sent
            };
            let own = &mut own[piece];
            if settings.fixed_order {
                self.received.resize(values.len(), T::default());
                world.all_to_all_into(values, &mut self.received);
                let (first, others) = self.received.split_at(own.len());
                own.copy_from_slice(first);
                others.chunks(own.len()).for_each(|other| add(own, other));
            } else {
                world.reduce_scatter_block_into(values, own, SystemOperation::sum());
            }
        }
    }
}

impl<T: Equivalence + Copy + Default> Pieces<T> {
    pub(crate) fn all_gather(&mut self, world: &SimpleCommunicator, settings: Settings, own: &[T], all: &mut [T]) {
        let size = ranks(world);
        let part = own.len();
        for piece in pieces(part, settings.longest_message / size) {
            if piece.len() == part {
                world.all_gather_into(own, all);
                continue;
            }
            self.received.resize(piece.len() * size, T::default());
            world.all_gather_into(&own[piece.clone()], &mut self.received);
            let received = self.received.chunks(piece.len());
            all.chunks_mut(part).zip(received).for_each(|(all, received)| all[piece.clone()].copy_from_slice(received));
        }
    }

    /// `root` is a rank of `world`.
    pub(crate) fn broadcast(&mut self, world: &SimpleCommunicator, settings: Settings, values: &mut [T], root: i32) {
        let root = world.process_at_rank(root);
        values.chunks_mut(settings.longest_message).for_each(|piece| root.broadcast_into(piece));
    }
}

fn ranks(world: &SimpleCommunicator) -> usize {
    usize::try_from(world.size()).unwrap_or(1)
}

/// The elements 0 … `part` − 1 in ranges of at most `longest`, of at least one element.
fn pieces(part: usize, longest: usize) -> impl Iterator<Item = Range<usize>> {
    let longest = longest.max(1);
    (0..part).step_by(longest).map(move |start| start..part.min(start.saturating_add(longest)))
}

fn add<T: Copy + AddAssign>(sum: &mut [T], other: &[T]) {
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_up_the_whole() {
        let of = |part, longest| pieces(part, longest).collect::<Vec<_>>();
        assert_eq!(of(0, 3), []);
        assert_eq!(of(7, 3), [0..3, 3..6, 6..7]);
        assert_eq!(of(2, 0), [0..1, 1..2]);
        assert_eq!(of(6, 3), [0..3, 3..6]);
        assert_eq!(pieces(5, usize::MAX).collect::<Vec<_>>(), vec![0..5]);
    }
}
