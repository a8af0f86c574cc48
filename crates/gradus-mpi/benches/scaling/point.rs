//! What is measured on every rank.

use std::fmt;
use std::time::{Duration, Instant};

use gradus::distributed::{Collective, RankGroup};
use gradus::prelude::*;
use ndarray::{Array1, aview1};

use super::stopwatch::Stopwatch;

/// As many rounds, of which the fastest counts: the others also have the time of other programs in them.
pub(crate) const ROUNDS: usize = 31;
/// The sizes of a message, powers of two.
pub(crate) const MESSAGES: [u32; 6] = [0, 6, 12, 16, 20, 22];
/// The numbers of parameters, powers of two.
pub(crate) const PARAMETERS: [u32; 2] = [20, 22];
/// Elements that go through a call in one round, so that short ones are timed many at a time; at most this many calls.
const ELEMENTS: usize = 1 << 16;
const CALLS: usize = 100;

/// The time of a call or a step, in seconds: the mean over ranks, in the fastest round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) what: String,
    pub(crate) elements: usize,
    pub(crate) compute: f64,
    pub(crate) communication: f64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, elements, compute, communication } = self;
        write!(f, "{what} {elements} {compute:e} {communication:e}")
    }
}

impl Point {
    /// Reads what `Display` has written.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            what: words.next()?.to_owned(),
            elements: words.next()?.parse().ok()?,
            compute: words.next()?.parse().ok()?,
            communication: words.next()?.parse().ok()?,
        })
    }
}

/// All points, the same on every rank.
pub(crate) fn measure(group: &impl Collective<f32>) -> Vec<Point> {
    // Each rank on one thread: as many cores as ranks, while there are.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
    pool.install(|| {
        let watch = Stopwatch::new(group);
        let mut points = vec![point("agreement", 0, &watch, CALLS, || watch.barrier().unwrap())];
        for elements in MESSAGES.map(|log| 1 << log) {
            let calls = (ELEMENTS / elements).clamp(1, CALLS);
            let mut values = vec![0.0_f32; elements];
            points.push(point("all_reduce", elements, &watch, calls, || watch.all_reduce(&mut values).unwrap()));
        }
        for elements in PARAMETERS.map(|log| 1 << log) {
            let grads: Vec<f32> = (0..elements).map(|at| (at as f32 * 0.37 + group.rank() as f32).sin()).collect();
            let mut step = |what, opt: &mut dyn Optimizer<f32>| {
                let mut params = Array1::<f32>::ones(elements);
                let mut step = || assert!(opt.step(&mut params, &aview1(&grads)).unwrap().moved);
                step();
                points.push(point(what, elements, &watch, 1, step));
            };
            step("adamw", &mut AdamW::new(1e-3));
            step("data_parallel", &mut AdamW::new(1e-3).data_parallel(&watch));
            step("sharded", &mut AdamW::new(1e-3).sharded(&watch));
        }
        points
    })
}

fn point(
    what: &str,
    elements: usize,
    watch: &Stopwatch<&impl RankGroup>,
    calls: usize,
    mut call: impl FnMut(),
) -> Point {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        watch.barrier().unwrap();
        watch.take();
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        let (whole, waited) = (start.elapsed(), watch.take());
        rounds.push([whole.saturating_sub(waited), waited].map(|time| mean(watch, time) / calls as f64));
    }
    let fastest = rounds.into_iter().min_by(|one, other| f64::total_cmp(&(one[0] + one[1]), &(other[0] + other[1])));
    let [compute, communication] = fastest.unwrap();
    Point { what: what.to_owned(), elements, compute, communication }
}

/// The mean over ranks, in seconds.
fn mean(group: &impl RankGroup, time: Duration) -> f64 {
    let mut all = vec![0; size_of::<u64>() * group.size()];
    group.all_gather_bytes(&(time.as_nanos() as u64).to_le_bytes(), &mut all).unwrap();
    let (all, _) = all.as_chunks();
    all.iter().map(|nanoseconds| u64::from_le_bytes(*nanoseconds) as f64 * 1e-9).sum::<f64>() / group.size() as f64
}
