//! The traits of a group of ranks: who takes part, and their collective calls.

use crate::error::{ArgumentError, Error, RankError, Result};

/// Ranks 0 … `size` − 1 that train together: threads, or processes of an engine such as MPI.
///
/// All ranks must make the same calls in the same order, with the same lengths. A call returns when every rank has made it. If a call
/// fails, it fails on every rank that has not left.
///
/// To support a new engine, implement this trait, and [`Collective`] for `f32` and `f64`. [`ThreadGroup`](super::ThreadGroup) is an
/// implementation, and [`Alone`](super::Alone) the smallest one.
pub trait RankGroup: Send + Sync {
    /// Which rank this is.
    fn rank(&self) -> usize;

    /// The number of ranks, at least 1.
    fn size(&self) -> usize;

    /// Waits until every rank has called it.
    ///
    /// # Errors
    /// As every collective call: [`RankError::RankLeft`](crate::error::RankError::RankLeft), [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree),
    /// [`RankError::RankTimeout`](crate::error::RankError::RankTimeout), [`RankError::Transport`](crate::error::RankError::Transport).
    fn barrier(&self) -> Result<()>;

    /// Concatenates the bytes of all ranks, in the order of the ranks, in `all`, which is `size` times as long as `own`.
    ///
    /// # Errors
    /// Those of [`barrier`](RankGroup::barrier).
    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()>;
}

/// The collective calls of a [`RankGroup`] for numbers of one type.
pub trait Collective<A>: RankGroup {
    /// Replaces the values by their sums over all ranks. Every rank gets the same bits.
    ///
    /// # Errors
    /// Those of [`barrier`](RankGroup::barrier).
    fn all_reduce(&self, values: &mut [A]) -> Result<()>;

    /// Sums `values` over all ranks and returns one part of the sums to each rank: `values` is `size` times as long as `own`, and rank r
    /// gets the r-th part.
    ///
    /// # Errors
    /// Those of [`barrier`](RankGroup::barrier).
    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()>;

    /// Concatenates the values of all ranks, in the order of the ranks, in `all`, which is `size` times as long as `own`.
    ///
    /// # Errors
    /// Those of [`barrier`](RankGroup::barrier).
    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()>;

    /// Replaces the values by those of rank `root`.
    ///
    /// # Errors
    /// Those of [`barrier`](RankGroup::barrier).
    fn broadcast(&self, values: &mut [A], root: usize) -> Result<()>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {
        $(
            impl<G: RankGroup + ?Sized> RankGroup for $pointer {
                fn rank(&self) -> usize {
                    (**self).rank()
                }

                fn size(&self) -> usize {
                    (**self).size()
                }

                fn barrier(&self) -> Result<()> {
                    (**self).barrier()
                }

                fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
                    (**self).all_gather_bytes(own, all)
                }
            }

            impl<A, G: Collective<A> + ?Sized> Collective<A> for $pointer {
                fn all_reduce(&self, values: &mut [A]) -> Result<()> {
                    (**self).all_reduce(values)
                }

                fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
                    (**self).reduce_scatter(values, own)
                }

                fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
                    (**self).all_gather(own, all)
                }

                fn broadcast(&self, values: &mut [A], root: usize) -> Result<()> {
                    (**self).broadcast(values, root)
                }
            }
        )*
    };
}

forward!(&G, Box<G>, std::sync::Arc<G>);

/// The group of one rank. Its calls only copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl RankGroup for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        copy(own, all)
    }
}

impl<A: Copy> Collective<A> for Alone {
    fn all_reduce(&self, _: &mut [A]) -> Result<()> {
        Ok(())
    }

    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
        copy(values, own)
    }

    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
        copy(own, all)
    }

    fn broadcast(&self, _: &mut [A], root: usize) -> Result<()> {
        ensure_root(root, 1)
    }
}

/// The bytes of all ranks, which may be of different lengths.
pub(crate) fn gather(group: &impl RankGroup, own: &[u8]) -> Result<Vec<Vec<u8>>> {
    let size = group.size();
    let mut lengths = vec![0; size_of::<u64>() * size];
    group.all_gather_bytes(&(own.len() as u64).to_le_bytes(), &mut lengths)?;
    let (lengths, _) = lengths.as_chunks();
    let lengths: Vec<_> = lengths.iter().map(|length| u64::from_le_bytes(*length) as usize).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut padded = own.to_vec();
    padded.resize(longest, 0);
    let mut all = vec![0; longest * size];
    group.all_gather_bytes(&padded, &mut all)?;
    let part = |(rank, length): (usize, usize)| all.get(rank * longest..rank * longest + length).map(<[u8]>::to_vec);
    let parts: Option<_> = lengths.into_iter().enumerate().map(part).collect();
    let cut_off = || RankError::Transport { operation: "all_gather_bytes", reason: "a message is cut off".into() };
    parts.ok_or_else(|| Error::Ranks(cut_off()))
}

fn copy<A: Copy>(from: &[A], to: &mut [A]) -> Result<()> {
    ensure_parts(to.len(), from.len(), 1)?;
    to.copy_from_slice(from);
    Ok(())
}

/// Returns an error unless `whole` elements are `size` parts of `part` elements.
pub(super) fn ensure_parts(whole: usize, part: usize, size: usize) -> Result<()> {
    match part.checked_mul(size) == Some(whole) {
        true => Ok(()),
        false => Err(Error::Argument(ArgumentError::Shape {
            argument: "the whole buffer",
            expected: vec![part.saturating_mul(size)],
            found: vec![whole],
        })),
    }
}

/// Returns an error unless this rank exists.
pub(super) fn ensure_root(root: usize, size: usize) -> Result<()> {
    match root < size {
        true => Ok(()),
        false => Err(Error::Ranks(RankError::NoRank { rank: root, size })),
    }
}
