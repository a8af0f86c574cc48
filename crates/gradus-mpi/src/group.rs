//! The group of all processes started by MPI.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gradus::distributed::{Collective, RankGroup};
use gradus::error::{ArgumentError, RankError};
use gradus::{Error, Result, Scalar};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence};

use crate::call::{Call, Operation, WORDS, compare};
use crate::pieces::{Pieces, Settings};

/// The elements of a message, unless another length is given: 1 GiB of f64. MPI counts elements in an `i32`, and some networks
/// stop at 2³¹ bytes.
const LONGEST_MESSAGE: usize = 1 << 27;

/// A message that is put together of equal parts may be longer than was asked by one element a rank.
const LARGEST_SETTING: usize = 1 << 30;

/// This process among all that `mpirun` has started.
///
/// # Order of the sums
/// [`all_reduce`](Collective::all_reduce) and [`reduce_scatter`](Collective::reduce_scatter) use MPI's own sums, whose order MPI chooses. The two
/// may differ in the last bit, and so may runs on different numbers of nodes. Each rank gets the same bits from `all_reduce`: the MPI standard
/// strongly recommends it, and Open MPI and MPICH do it. With [`fixed_order`](MpiGroup::fixed_order) the order does not depend on MPI.
///
/// # Agreement
/// Before each call the ranks exchange a description of the call, 56 bytes per rank. If the descriptions differ, all ranks get
/// [`RankError::RanksDisagree`](gradus::error::RankError::RanksDisagree) and can continue. If a group is dropped (at the end of the program, by an early return or by a panic), this rank
/// leaves: the others get [`RankError::RankLeft`](gradus::error::RankError::RankLeft) from this and all later calls instead of waiting forever. The drop returns when every rank has
/// made a call or dropped its group.
///
/// # Failures that end the job
/// A rank that waits inside an MPI call cannot cancel it. Therefore:
/// - If a process is killed, or exits without dropping its group, `mpirun` ends the others.
/// - If a rank does not come within the [`timeout`](MpiGroup::timeout), the job ends through `MPI_Abort`, with a line on standard error that
///   names the call. Without a timeout the others wait.
/// - An error inside MPI ends the job with MPI's message, because the crate `mpi` does not replace MPI's error handler.
///
/// [`RankError::Transport`](gradus::error::RankError::Transport) means that MPI cannot be started.
///
/// # Threads
/// A lock serializes calls from several threads of a process; MPI is initialized with the level `Serialized`. The group is [`Send`] and [`Sync`]
/// without `unsafe`, because it stores no MPI handle: every call uses the constant world communicator. Drop the group in the thread that created
/// it, as the MPI standard requires for `MPI_Finalize`.
///
/// # Example
/// ```
/// use gradus::distributed::{Collective, RankGroup};
/// use gradus_mpi::MpiGroup;
///
/// let group = MpiGroup::world()?;
/// let mut values = [group.rank() as f64, 1.0];
/// group.all_reduce(&mut values)?;
/// assert_eq!(values[1], group.size() as f64);
/// # Ok::<(), gradus::Error>(())
/// ```
pub struct MpiGroup {
    rank: usize,
    size: usize,
    timeout: Option<Duration>,
    settings: Settings,
    meeting: Mutex<Meeting>,
    /// MPI is there as long as this is.
    _universe: Universe,
}

#[derive(Debug, Default)]
struct Meeting {
    calls: Vec<u64>,
    /// Why there will be no other call.
    over: Option<Error>,
    f32: Pieces<f32>,
    f64: Pieces<f64>,
    bytes: Pieces<u8>,
}

/// A number of which there are [`Pieces`].
trait Number: Scalar + Equivalence {
    fn pieces(meeting: &mut Meeting) -> &mut Pieces<Self>;
}

impl Number for f32 {
    fn pieces(meeting: &mut Meeting) -> &mut Pieces<Self> {
        &mut meeting.f32
    }
}

impl Number for f64 {
    fn pieces(meeting: &mut Meeting) -> &mut Pieces<Self> {
        &mut meeting.f64
    }
}

impl MpiGroup {
    /// Starts MPI. It ends when the group is dropped, and cannot be started again.
    ///
    /// # Errors
    /// [`RankError::Transport`](gradus::error::RankError::Transport) if MPI has been started before, or cannot be called from several threads in turn.
    pub fn world() -> Result<Self> {
        let failed =
            |reason: &str| Error::Ranks(RankError::Transport { operation: "world", reason: reason.to_owned() });
        let started = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) = started.ok_or_else(|| failed("MPI has been started before in this process"))?;
        if threading < Threading::Serialized {
            return Err(failed("this MPI is not for programs with threads"));
        }
        let world = universe.world();
        let [rank, size] = [world.rank(), world.size()].map(usize::try_from);
        let outside = |_| failed("MPI has no rank for this process");
        Ok(Self {
            rank: rank.map_err(outside)?,
            size: size.map_err(outside)?,
            timeout: None,
            settings: Settings { longest_message: LONGEST_MESSAGE, fixed_order: false },
            meeting: Mutex::default(),
            _universe: universe,
        })
    }

    /// Ends the job if a rank waits for the others longer than this in one call. The default is to wait forever.
    ///
    /// Ranks wait for the slowest one, so the time must be longer than anything that one rank does alone between two calls, such as an
    /// evaluation or a checkpoint. Dropping the group waits without a limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Computes sums in the order of the ranks. [`reduce_scatter`](Collective::reduce_scatter) and [`all_reduce`](Collective::all_reduce) then
    /// give the same bits, with any MPI, and the same as [`ThreadGroup`](gradus::distributed::ThreadGroup).
    ///
    /// Every rank sends one part to each other rank, sums its own part, and sends the sums back. This sends as few bytes as the best algorithms,
    /// but in N − 1 messages instead of about log₂ N.
    #[must_use]
    pub fn fixed_order(mut self) -> Self {
        self.settings.fixed_order = true;
        self
    }

    /// Sets the number of elements per message, over all ranks together; the default is 2²⁷. Values are clamped to 1 … 2³⁰. Longer data are sent
    /// in pieces.
    ///
    /// A call needs scratch memory for one or two messages, which is kept for the next call.
    #[must_use]
    pub fn longest_message(mut self, elements: usize) -> Self {
        self.settings.longest_message = elements.clamp(1, LARGEST_SETTING);
        self
    }

    /// Waits for all ranks, and returns the lock on what they do together if they all are about to make this call.
    fn meet<T>(
        &self,
        operation: Operation,
        whole: usize,
        part: usize,
        root: usize,
    ) -> Result<(MutexGuard<'_, Meeting>, SimpleCommunicator)> {
        let mut meeting = self.meeting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &meeting.over {
            return Err(why.clone());
        }
        let Settings { longest_message, fixed_order } = self.settings;
        let call = Call { operation, width: size_of::<T>(), whole, part, root, longest_message, fixed_order };
        let world = SimpleCommunicator::world();
        meeting.calls.resize(WORDS * self.size, 0);
        self.exchange(&world, &call, &mut meeting.calls);
        let compared = compare(&meeting.calls);
        if let Err(left @ Error::Ranks(RankError::RankLeft { .. })) = &compared {
            meeting.over = Some(left.clone());
        }
        compared.map(|()| (meeting, world))
    }

    fn exchange(&self, world: &SimpleCommunicator, call: &Call, calls: &mut [u64]) {
        let (own, begin) = (call.words(), Instant::now());
        mpi::request::scope(|scope| {
            let mut request = world.immediate_all_gather_into(scope, &own, calls);
            let timeout = match self.timeout {
                Some(timeout) if call.operation != Operation::Leave => timeout,
                _ => return request.wait_without_status(),
            };
            while let Err(pending) = request.test() {
                if begin.elapsed() > timeout {
                    let (rank, name) = (self.rank, call.operation.name());
                    eprintln!("rank {rank}: {name}: another rank has not come in {timeout:?}; the job ends");
                    world.abort(1);
                }
                std::thread::yield_now();
                request = pending;
            }
        });
    }

    /// Returns an error unless `whole` elements are one part of `part` elements per rank.
    fn ensure_parts(&self, whole: usize, part: usize) -> Result<()> {
        match part.checked_mul(self.size) == Some(whole) {
            true => Ok(()),
            false => Err(Error::Argument(ArgumentError::Shape {
                argument: "the whole buffer",
                expected: vec![part.saturating_mul(self.size)],
                found: vec![whole],
            })),
        }
    }
}

impl Drop for MpiGroup {
    fn drop(&mut self) {
        // The others either leave too or get to know that this rank does: in both cases there is nothing left to do.
        drop(self.meet::<()>(Operation::Leave, 0, 0, 0));
    }
}

impl fmt::Debug for MpiGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, size, timeout, settings, .. } = self;
        f.debug_struct("MpiGroup")
            .field("rank", rank)
            .field("size", size)
            .field("timeout", timeout)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}

impl RankGroup for MpiGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&self) -> Result<()> {
        self.meet::<()>(Operation::Barrier, 0, 0, 0).map(drop)
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        let (mut meeting, world) = self.meet::<u8>(Operation::AllGatherBytes, all.len(), own.len(), 0)?;
        self.ensure_parts(all.len(), own.len())?;
        meeting.bytes.all_gather(&world, self.settings, own, all);
        Ok(())
    }
}

// The lengths are looked at when the ranks have met: then all of them refuse what one of them must.
impl<A: Number> Collective<A> for MpiGroup {
    fn all_reduce(&self, values: &mut [A]) -> Result<()> {
        let (mut meeting, world) = self.meet::<A>(Operation::AllReduce, values.len(), values.len(), 0)?;
        A::pieces(&mut meeting).all_reduce(&world, self.settings, values);
        Ok(())
    }

    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
        let (mut meeting, world) = self.meet::<A>(Operation::ReduceScatter, values.len(), own.len(), 0)?;
        self.ensure_parts(values.len(), own.len())?;
        A::pieces(&mut meeting).reduce_scatter(&world, self.settings, values, own);
        Ok(())
    }

    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
        let (mut meeting, world) = self.meet::<A>(Operation::AllGather, all.len(), own.len(), 0)?;
        self.ensure_parts(all.len(), own.len())?;
        A::pieces(&mut meeting).all_gather(&world, self.settings, own, all);
        Ok(())
    }

    fn broadcast(&self, values: &mut [A], root: usize) -> Result<()> {
        let (mut meeting, world) = self.meet::<A>(Operation::Broadcast, values.len(), values.len(), root)?;
        let known = i32::try_from(root).ok().filter(|_| root < self.size);
        let root = known.ok_or(Error::Ranks(RankError::NoRank { rank: root, size: self.size }))?;
        A::pieces(&mut meeting).broadcast(&world, self.settings, values, root);
        Ok(())
    }
}
