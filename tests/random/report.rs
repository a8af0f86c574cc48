//! What every kind of case has in common: how many there are, how a panic is caught, how failures are told.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The panics that a user's own closure makes begin with this.
pub(crate) const USER: &str = "the user's own panic";

/// Failures of this many different kinds are told, one of each kind.
const KINDS: usize = 40;

/// The generator of a case; `part` tells apart what is drawn for different ends.
pub(crate) fn random(seed: u64, part: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part)
}

/// Drawing in words.
pub(crate) trait Draw: RngExt {
    fn chance(&mut self, probability: f64) -> bool {
        self.random_bool(probability)
    }

    fn below(&mut self, end: usize) -> usize {
        self.random_range(0..end.max(1))
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

impl<R: RngExt + ?Sized> Draw for R {}

/// What went wrong in one case.
#[derive(Debug)]
pub(crate) struct Failure {
    /// In which way, for telling one failure of each kind.
    pub(crate) kind: String,
    /// What was done, and what came of it.
    pub(crate) story: String,
}

impl Failure {
    pub(crate) fn new(kind: impl Display, story: impl Display) -> Self {
        Self { kind: kind.to_string(), story: story.to_string() }
    }

    /// With what led to it.
    pub(crate) fn after(self, story: impl Display) -> Self {
        Self { story: format!("{story}\n  {}", self.story), ..self }
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A panic that was caught.
#[derive(Debug, Clone)]
pub(crate) struct Caught {
    pub(crate) message: String,
    /// Where, if it was on this thread.
    pub(crate) place: String,
}

impl Caught {
    pub(crate) fn is_the_users(&self) -> bool {
        self.message.starts_with(USER)
    }
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
    static CASE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are expected by the hundred: their messages go into reports, and not to the terminal.
fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map_or(String::new(), |at| format!("{}:{}", at.file(), at.line()));
            PLACE.with(|last| *last.borrow_mut() = place.clone());
            // A panic while another unwinds ends the process: then this is the last word.
            let text = info.to_string();
            if text.contains("in a destructor") || text.contains("cannot unwind") {
                let case = CASE.with(|case| case.borrow().clone());
                _ = std::io::stderr().write_all(format!("{case} ends the process: {text}\n").as_bytes());
            }
        }));
    });
}

/// Runs `work`, and catches its panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Caught> {
    be_quiet();
    PLACE.with(|place| place.borrow_mut().clear());
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| Caught { message: message(&*panic), place: PLACE.with(|place| place.take()) })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}

/// A case, of which a panic is a failure too.
pub(crate) fn whole(case: impl FnOnce() -> Outcome) -> Outcome {
    caught(case).unwrap_or_else(|panic| Err(Failure::new(format!("panic at {}", panic.place), panic.message)))
}

/// The cases of one kind.
pub(crate) struct Cases {
    kind: &'static str,
    count: u64,
    first: u64,
}

impl Cases {
    /// So many, unless the environment says another number.
    pub(crate) fn of(kind: &'static str, count: u64) -> Self {
        let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let variable = format!("GRADUS_RANDOM_{}", kind.to_uppercase());
        Self { kind, count: asked(&variable).unwrap_or(count), first: asked("GRADUS_RANDOM_SEED").unwrap_or(0) }
    }

    /// Runs all of them and fails with one failure of each kind.
    pub(crate) fn run(self, case: impl Fn(u64) -> Outcome + Sync) {
        self.run_and_shrink(case, |_, _| None);
    }

    /// The same, with a way to tell a failure of this case and kind in its least form.
    pub(crate) fn run_and_shrink(
        self,
        case: impl Fn(u64) -> Outcome + Sync,
        least: impl Fn(u64, &str) -> Option<String>,
    ) {
        let (mut kinds, start) = (BTreeMap::<String, (u64, u64, String)>::new(), Instant::now());
        for (seed, failure) in self.failures(case) {
            let told = kinds.entry(failure.kind).or_insert((0, seed, failure.story));
            told.0 += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{} {} in {seconds:.1} s, the first with the seed {}", self.count, self.kind, self.first);
        for (kind, (times, seed, story)) in kinds.iter().take(KINDS) {
            let variable = format!("GRADUS_RANDOM_{}", self.kind.to_uppercase());
            let least = least(*seed, kind);
            println!("\n{kind} ({times} times)\n  {}", least.as_ref().unwrap_or(story));
            println!(
                "  again: GRADUS_RANDOM_SEED={seed} {variable}=1 cargo test --all-features --test random {}",
                self.kind
            );
        }
        assert!(kinds.is_empty(), "{} kinds of failures in {} {}", kinds.len(), self.count, self.kind);
    }

    /// In the order of the seeds, which are run on every core.
    fn failures(&self, case: impl Fn(u64) -> Outcome + Sync) -> BTreeMap<u64, Failure> {
        let (next, failures) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
        let run = || {
            while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|done| *done < self.count) {
                let seed = self.first + seed;
                CASE.with(|case| *case.borrow_mut() = format!("{} {seed}", self.kind));
                if let Err(failure) = whole(|| case(seed)) {
                    failures.lock().unwrap().insert(seed, failure);
                }
            }
        };
        thread::scope(|scope| {
            (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| _ = scope.spawn(run))
        });
        failures.into_inner().unwrap()
    }
}
