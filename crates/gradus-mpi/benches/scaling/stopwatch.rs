//! A group that knows how long its calls have taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gradus::Result;
use gradus::distributed::{Collective, RankGroup};

#[derive(Debug)]
pub(crate) struct Stopwatch<G> {
    group: G,
    nanoseconds: AtomicU64,
}

impl<G> Stopwatch<G> {
    pub(crate) fn new(group: G) -> Self {
        Self { group, nanoseconds: AtomicU64::new(0) }
    }

    /// The time of all calls since this was asked before.
    pub(crate) fn take(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.swap(0, Ordering::Relaxed))
    }

    fn time(&self, call: impl FnOnce(&G) -> Result<()>) -> Result<()> {
        let start = Instant::now();
        let end = call(&self.group);
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        end
    }
}

impl<G: RankGroup> RankGroup for Stopwatch<G> {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn barrier(&self) -> Result<()> {
        self.time(|group| group.barrier())
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.time(|group| group.all_gather_bytes(own, all))
    }
}

impl<A, G: Collective<A>> Collective<A> for Stopwatch<G> {
    fn all_reduce(&self, values: &mut [A]) -> Result<()> {
        self.time(|group| group.all_reduce(values))
    }

    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
        self.time(|group| group.reduce_scatter(values, own))
    }

    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
        self.time(|group| group.all_gather(own, all))
    }

    fn broadcast(&self, values: &mut [A], root: usize) -> Result<()> {
        self.time(|group| group.broadcast(values, root))
    }
}
