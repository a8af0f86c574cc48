//! Ranks as threads of one process.

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::board::Board;
use super::group::{Collective, RankGroup, ensure_parts, ensure_root};
use crate::error::{Error, RankError, Result};
use crate::params::Scalar;

/// The time that a rank waits for the others, unless another is given.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A rank that is a thread of this process: for machines with several sockets, for tests, and to try a program before it runs under
/// MPI.
///
/// Sums are computed in the order of the ranks, so every call gives the same bits, and so do
/// [`reduce_scatter`](Collective::reduce_scatter) and [`all_reduce`](Collective::all_reduce).
///
/// If a rank is dropped while others wait for it, because its thread has returned or panicked, the others get [`RankError::RankLeft`]. If a
/// rank is too late, the others get [`RankError::RankTimeout`]. After either error the group cannot be used any more. Ranks that make
/// different calls get [`RankError::RanksDisagree`] and can continue.
///
/// ```
/// use gradus::distributed::{Collective, RankGroup, ThreadGroup};
///
/// let sums = ThreadGroup::run(4, |group| {
///     let mut values = [group.rank() as f64, 1.0];
///     group.all_reduce(&mut values)?;
///     Ok::<_, gradus::Error>(values)
/// });
/// assert!(sums.into_iter().all(|sum| sum == Ok([6.0, 4.0])));
/// ```
#[derive(Debug)]
pub struct ThreadGroup {
    rank: usize,
    timeout: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
    f32: Board<f32>,
    f64: Board<f64>,
    bytes: Board<u8>,
}

/// Where ranks wait for each other.
#[derive(Debug)]
struct Meeting {
    /// What each rank that has arrived is about to do.
    calls: Vec<Option<Call>>,
    /// The first rank whose buffers do not fit its call.
    refused: Option<(usize, Error)>,
    arrived: usize,
    /// How many meetings there have been, and what came of the last.
    held: u64,
    verdict: Result<()>,
    /// Why there will be no other.
    over: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Call {
    operation: &'static str,
    elements: usize,
    /// The type of the elements.
    dtype: &'static str,
    root: usize,
}

impl Call {
    fn new(operation: &'static str, elements: usize, dtype: &'static str) -> Self {
        Self { operation, elements, dtype, root: 0 }
    }

    fn describe(&self) -> String {
        format!("a call {}({} elements in {}, root {})", self.operation, self.elements, self.dtype, self.root)
    }
}

impl ThreadGroup {
    /// Creates the ranks of a group; move each to a thread of its own.
    ///
    /// # Errors
    /// [`RankError::NoRank`] if `size` is 0.
    pub fn new(size: usize) -> Result<Vec<Self>> {
        ensure_root(0, size)?;
        let meeting =
            Meeting { calls: vec![None; size], refused: None, arrived: 0, held: 0, verdict: Ok(()), over: None };
        let shared = Arc::new(Shared {
            size,
            meeting: Mutex::new(meeting),
            changed: Condvar::new(),
            f32: Board::new(size),
            f64: Board::new(size),
            bytes: Board::new(size),
        });
        Ok((0..size).map(|rank| Self { rank, timeout: TIMEOUT, shared: Arc::clone(&shared) }).collect())
    }

    /// Runs a function on `size` threads, each with its rank of a group, and returns the results in the order of the ranks.
    ///
    /// # Panics
    /// If a rank panics. The other ranks get an error instead of waiting, and the panic continues when all have ended.
    pub fn run<T: Send>(size: usize, rank: impl Fn(Self) -> T + Sync) -> Vec<T> {
        let ranks = Self::new(size).unwrap_or_default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = ranks.into_iter().map(|own| scope.spawn(|| rank(own))).collect();
            let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            ends.into_iter().map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    /// Sets how long this rank waits for the others in one call; the default is 60 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting> {
        self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all ranks are here and about to do the same. What is wrong with this rank's own buffers all hear of.
    fn meet(&self, call: Call, own: Result<()>) -> Result<()> {
        let operation = call.operation;
        let mut meeting = self.meeting();
        if let Some(why) = &meeting.over {
            return Err(why.clone());
        }
        meeting.calls[self.rank] = Some(call);
        if let Err(error) = &own {
            meeting.refused.get_or_insert((self.rank, error.clone()));
        }
        meeting.arrived += 1;
        if meeting.arrived == self.shared.size {
            meeting.hold();
            self.shared.changed.notify_all();
            return own.and(meeting.verdict.clone());
        }
        let held = meeting.held;
        let waiting = |meeting: &mut Meeting| meeting.held == held && meeting.over.is_none();
        let waited = self.shared.changed.wait_timeout_while(meeting, self.timeout, waiting);
        let (mut meeting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if meeting.held > held {
            // No other meeting can have been held since: it would have needed this rank.
            return own.and(meeting.verdict.clone());
        }
        let missing = || {
            let calls = meeting.calls.iter().enumerate();
            let missing = calls.filter(|(_, call)| call.is_none()).map(|(rank, _)| rank).collect();
            Error::Ranks(RankError::RankTimeout { operation, waited: self.timeout, missing })
        };
        let why = meeting.over.clone().unwrap_or_else(missing);
        meeting.over = Some(why.clone());
        self.shared.changed.notify_all();
        Err(why)
    }

    /// The elements of a whole that this rank sums up.
    fn share(&self, elements: usize) -> Range<usize> {
        let at = |rank: usize| (elements as u128 * rank as u128 / self.shared.size as u128) as usize;
        at(self.rank)..at(self.rank + 1)
    }

    /// The sums over all ranks of these elements, into `sums`.
    fn sum<A: Scalar>(&self, board: &Board<A>, range: Range<usize>, sums: &mut [A]) {
        for (rank, given) in board.given.iter().enumerate() {
            let given = given.read().unwrap_or_else(PoisonError::into_inner);
            let given = &given[range.clone()];
            match rank {
                0 => sums.copy_from_slice(given),
                _ => sums.iter_mut().zip(given).for_each(|(sum, given)| *sum += *given),
            }
        }
    }

    fn gather<T: Copy>(&self, board: &Board<T>, call: Call, own: &[T], all: &mut [T]) -> Result<()> {
        Board::put(&board.given[self.rank], own);
        self.meet(call, ensure_parts(all.len(), own.len(), self.shared.size))?;
        let length = own.len().max(1);
        board.given.iter().zip(all.chunks_mut(length)).for_each(|(given, all)| Board::take(given, all));
        self.meet(call, Ok(()))
    }

    fn board<A: Scalar>(&self) -> &Board<A> {
        let boards: [&dyn Any; 2] = [&self.shared.f32, &self.shared.f64];
        match boards.into_iter().find_map(|board| board.downcast_ref()) {
            Some(board) => board,
            None => unreachable!("a scalar is f32 or f64"),
        }
    }
}

impl Meeting {
    /// All are here.
    fn hold(&mut self) {
        let calls: Vec<_> = self.calls.iter_mut().filter_map(Option::take).collect();
        self.verdict = match (calls.iter().position(|call| *call != calls[0]), self.refused.take()) {
            (None, None) => Ok(()),
            (_, Some((rank, error))) => Err(Error::Ranks(RankError::RankRefused { rank, reason: error.to_string() })),
            (Some(rank), None) => {
                let [expected, found] = [&calls[0], &calls[rank]].map(Call::describe);
                Err(Error::Ranks(RankError::RanksDisagree { rank, expected, found }))
            }
        };
        self.arrived = 0;
        self.held += 1;
    }
}

impl Drop for ThreadGroup {
    fn drop(&mut self) {
        self.meeting().over.get_or_insert(Error::Ranks(RankError::RankLeft { rank: self.rank }));
        self.shared.changed.notify_all();
    }
}

impl RankGroup for ThreadGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn barrier(&self) -> Result<()> {
        self.meet(Call::new("barrier", 0, "u8"), Ok(()))
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.gather(&self.shared.bytes, Call::new("all_gather_bytes", own.len(), "u8"), own, all)
    }
}

impl<A: Scalar> Collective<A> for ThreadGroup {
    fn all_reduce(&self, values: &mut [A]) -> Result<()> {
        let board = self.board::<A>();
        Board::put(&board.given[self.rank], values);
        let call = Call::new("all_reduce", values.len(), A::DTYPE);
        self.meet(call, Ok(()))?;
        let share = self.share(values.len());
        let own = &mut values[share.clone()];
        self.sum(board, share, own);
        Board::put(&board.sums[self.rank], own);
        self.meet(call, Ok(()))?;
        // Nobody writes sums before the next call's first meeting, for which this rank is needed.
        let mut rest = values;
        for sums in &board.sums {
            let sums = sums.read().unwrap_or_else(PoisonError::into_inner);
            let (now, later) = rest.split_at_mut(sums.len());
            now.copy_from_slice(&sums);
            rest = later;
        }
        Ok(())
    }

    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
        let board = self.board::<A>();
        Board::put(&board.given[self.rank], values);
        let call = Call::new("reduce_scatter", values.len(), A::DTYPE);
        self.meet(call, ensure_parts(values.len(), own.len(), self.shared.size))?;
        self.sum(board, self.share(values.len()), own);
        self.meet(call, Ok(()))
    }

    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
        self.gather(self.board(), Call::new("all_gather", own.len(), A::DTYPE), own, all)
    }

    fn broadcast(&self, values: &mut [A], root: usize) -> Result<()> {
        let board = self.board::<A>();
        if self.rank == root {
            Board::put(&board.given[root], values);
        }
        let call = Call { root, ..Call::new("broadcast", values.len(), A::DTYPE) };
        self.meet(call, ensure_root(root, self.shared.size))?;
        if self.rank != root {
            Board::take(&board.given[root], values);
        }
        self.meet(call, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ArgumentError;

    fn ranks<T: Send>(rank: impl Fn(ThreadGroup) -> T + Sync) {
        [1, 2, 3, 4].into_iter().for_each(|size| drop(ThreadGroup::run(size, &rank)));
    }

    #[test]
    fn numbers_go_where_they_should() {
        ranks(|group| {
            let (rank, size) = (group.rank(), group.size());
            for elements in [0, 1, 2, 7, 1000] {
                let value = |rank: usize, at: usize| ((rank * 31 + at) as f64).sin();
                let sum = |at: usize| (1..size).fold(value(0, at), |sum, rank| sum + value(rank, at));
                let mut values: Vec<_> = (0..elements).map(|at| value(rank, at)).collect();
                group.all_reduce(&mut values).unwrap();
                assert!(values.iter().enumerate().all(|(at, found)| *found == sum(at)));

                let whole: Vec<_> = (0..elements * size).map(|at| value(rank, at)).collect();
                let mut own = vec![0.0; elements];
                group.reduce_scatter(&whole, &mut own).unwrap();
                assert!(own.iter().enumerate().all(|(at, found)| *found == sum(rank * elements + at)));

                let own: Vec<_> = (0..elements).map(|at| value(rank, at) as f32).collect();
                let mut all = vec![0.0; elements * size];
                group.all_gather(&own, &mut all).unwrap();
                for (at, found) in all.iter().enumerate() {
                    assert_eq!(*found, value(at / elements, at % elements) as f32);
                }
                let root = size - 1;
                let mut values = own;
                group.broadcast(&mut values, root).unwrap();
                assert!(values.iter().enumerate().all(|(at, found)| *found == value(root, at) as f32));

                let mut all = vec![0; 2 * size];
                group.all_gather_bytes(&[rank as u8, 7], &mut all).unwrap();
                assert!(all.chunks(2).enumerate().all(|(rank, pair)| pair == [rank as u8, 7]));
                group.barrier().unwrap();
            }
        });
    }

    #[test]
    fn different_calls_are_an_error_on_all_and_the_group_goes_on() {
        let ends = ThreadGroup::run(3, |group| {
            let mut values = vec![1.0_f32; if group.rank() == 2 { 4 } else { 3 }];
            let refused = group.all_reduce(&mut values);
            let other = if group.rank() == 1 { group.barrier() } else { group.broadcast(&mut [0.0_f64], 0) };
            let mut values = [1.0];
            group.all_reduce(&mut values).unwrap();
            assert_eq!(values, [3.0]);
            (refused, other)
        });
        for (refused, other) in ends {
            let expected = "rank 2 has a call all_reduce(4 elements in f32, root 0) where rank 0 has a call all_reduce(3 elements in f32, root 0)";
            assert_eq!(refused.unwrap_err().to_string(), expected);
            assert!(matches!(other, Err(Error::Ranks(RankError::RanksDisagree { rank: 1, .. }))));
        }
    }

    #[test]
    fn buffers_of_another_type_or_length_are_an_error_on_all() {
        ThreadGroup::run(2, |group| {
            let typed = match group.rank() {
                0 => group.all_gather(&[1.0_f32], &mut [0.0; 2]),
                _ => group.all_gather(&[1.0_f64], &mut [0.0; 2]),
            };
            let [expected, found] =
                ["f32", "f64"].map(|dtype| format!("a call all_gather(1 elements in {dtype}, root 0)"));
            assert_eq!(typed, Err(Error::Ranks(RankError::RanksDisagree { rank: 1, expected, found })));
            let room = if group.rank() == 1 { 3 } else { 2 };
            let lengths = [
                group.all_gather(&[1.0], &mut vec![0.0; room]),
                group.reduce_scatter(&vec![0.0; room], &mut [1.0]),
                group.broadcast(&mut [0.0], room - 1),
            ];
            for result in lengths {
                match (group.rank(), result.unwrap_err()) {
                    (0, error) => {
                        assert!(matches!(error, Error::Ranks(RankError::RankRefused { rank: 1, .. })), "{error}")
                    }
                    (_, error) => {
                        assert!(
                            matches!(
                                error,
                                Error::Argument(ArgumentError::Shape { .. }) | Error::Ranks(RankError::NoRank { .. })
                            ),
                            "{error}"
                        )
                    }
                }
            }
            let mut values = [1.0];
            group.all_reduce(&mut values).unwrap();
            assert_eq!(values, [2.0]);
        });
    }

    #[test]
    fn who_leaves_leaves_nobody_waiting() {
        let ends = ThreadGroup::run(3, |group| match group.rank() {
            1 => Ok(()),
            _ => group.barrier(),
        });
        assert_eq!(
            ends,
            [
                Err(Error::Ranks(RankError::RankLeft { rank: 1 })),
                Ok(()),
                Err(Error::Ranks(RankError::RankLeft { rank: 1 }))
            ]
        );

        let mut group = ThreadGroup::new(2).unwrap();
        let (other, own) = (group.pop().unwrap(), group.pop().unwrap());
        let own = own.timeout(Duration::from_millis(20));
        let late = Error::Ranks(RankError::RankTimeout { operation: "barrier", waited: own.timeout, missing: vec![1] });
        assert_eq!(own.barrier(), Err(late.clone()));
        assert_eq!(other.barrier(), Err(late));
    }

    #[test]
    #[should_panic(expected = "by intent")]
    fn a_panic_ends_all() {
        ThreadGroup::run(2, |group| if group.rank() == 0 { panic!("by intent") } else { group.barrier() });
    }

    #[test]
    fn what_is_no_call_is_refused() {
        assert_eq!(ThreadGroup::new(0).unwrap_err(), Error::Ranks(RankError::NoRank { rank: 0, size: 0 }));
        let group = ThreadGroup::new(1).unwrap().remove(0);
        assert_eq!(group.broadcast(&mut [1.0], 1).unwrap_err(), Error::Ranks(RankError::NoRank { rank: 1, size: 1 }));
        assert!(matches!(group.all_gather(&[1.0], &mut [0.0; 2]), Err(Error::Argument(ArgumentError::Shape { .. }))));
    }
}
