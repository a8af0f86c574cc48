//! What has been measured of gradients: a check of a step and the step itself read them once.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Stands for the values of one source of gradients. Two sources have the same only if they have the same values.
///
/// A source borrows its values or owns them, so that they cannot change while it exists; and no number is given twice.
pub(crate) type SourceId = u64;

/// Returns the first of `count` consecutive numbers that no source has.
pub(crate) fn new_ids(count: usize) -> SourceId {
    /// How many a thread takes at once, so that a short step does not pay for an atomic addition.
    const SUPPLY: u64 = 1 << 20;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static OWN: Cell<Range<SourceId>> = const { Cell::new(0..0) };
    }
    let count = count as u64;
    let mut own = OWN.take();
    if own.end - own.start < count {
        let supply = count.max(SUPPLY);
        own.start = NEXT.fetch_add(supply, Ordering::Relaxed);
        own.end = own.start + supply;
    }
    let first = own.start;
    OWN.set(first + count..own.end);
    first
}

/// What is measured of gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Quantity {
    /// The p-norm of all together.
    Norm { p: f64 },
    /// The p-norm of each.
    NormOfEach { p: f64 },
    /// The Euclidean norm of each unit of each.
    NormOfUnits,
    /// 0 if all are finite.
    Finite,
}

/// What a gradient is: its source and what is made of that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Described {
    pub(super) source: DescribedSource,
    pub(super) scale: u64,
    pub(super) limit: u64,
}

impl Described {
    /// The factor between two gradients of the same values, if it is all that is between them.
    pub(super) fn factor_of(&self, other: &Self) -> Option<f64> {
        let [own, other_scale] = [self.scale, other.scale].map(f64::from_bits);
        let is_linear = [self, other].iter().all(|grad| f64::from_bits(grad.limit) == f64::INFINITY);
        let factor = own / other_scale;
        if let (DescribedSource::Rows(own), DescribedSource::Rows(other)) = (&self.source, &other.source) {
            return own.factor_of(other);
        }
        (is_linear && factor.is_normal() && self.source == other.source).then_some(factor)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DescribedSource {
    Values(SourceId),
    #[cfg(feature = "distributed")]
    Zero,
    Sum(Box<Described>, SourceId),
    /// The factors, bit by bit.
    Units(Box<Described>, Vec<u64>),
    /// Some rows: the source's number stands for their indices, too.
    Rows(Box<Described>),
    #[cfg(feature = "half")]
    Widened(Box<Described>),
}

/// A quantity, the type that it was measured in, and of which gradients by the tensors' positions.
#[derive(Debug, PartialEq)]
struct Key {
    quantity: Quantity,
    dtype: &'static str,
    grads: Vec<(usize, Described)>,
}

/// What has been found, shared by a step, its previews and its parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memo {
    found: Arc<Mutex<Vec<Found>>>,
    /// What adaptors do with each tensor, if somebody wants to know.
    notes: Option<Arc<Mutex<Notes>>>,
}

/// What an adaptor does with a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    Frozen,
    Group(String),
    /// The whole step is left out.
    Skipped,
    /// What comes next, from outside to inside, as the call that has made it.
    Part(String),
    /// What comes next is inside this branch of a router, up to the next branch or the end of branches.
    Branch {
        text: String,
        /// The first is 0.
        number: usize,
    },
    BranchesEnd,
}

/// Each beside the position of its tensor.
type Notes = Vec<(usize, Note)>;

/// What was measured, and the numbers.
type Found = (Key, Arc<[f64]>);

impl Memo {
    /// One that keeps notes.
    pub(super) fn noting() -> Self {
        Self { notes: Some(Arc::default()), ..Self::default() }
    }

    pub(super) fn is_noting(&self) -> bool {
        self.notes.is_some()
    }

    /// Keeps notes of tensors, if somebody wants to know.
    pub(super) fn note(&self, notes: impl Iterator<Item = (usize, Note)>) {
        if let Some(own) = &self.notes {
            own.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
        }
    }

    /// The notes, each with the tensor's position, in the order in which they were made.
    pub(super) fn take_notes(&self) -> Vec<(usize, Note)> {
        let notes = self.notes.as_ref().map(|notes| notes.lock().unwrap_or_else(PoisonError::into_inner));
        notes.map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }

    /// A quantity of these gradients of this type: what was found for the very same, or what `measure` finds.
    pub(super) fn find_or(
        &self,
        quantity: Quantity,
        dtype: &'static str,
        grads: Vec<(usize, Described)>,
        measure: impl FnOnce() -> Arc<[f64]>,
    ) -> Arc<[f64]> {
        let key = Key { quantity, dtype, grads };
        // Not locked while it is measured.
        let found = |all: &Vec<Found>| all.iter().find(|(known, _)| *known == key).map(|(_, own)| own.clone());
        if let Some(found) = found(&self.found.lock().unwrap_or_else(PoisonError::into_inner)) {
            return found;
        }
        let measured = measure();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push((key, Arc::clone(&measured)));
        measured
    }
}

/// Measures; a test counts how often.
pub(super) fn measured<T>(measure: impl FnOnce() -> T) -> T {
    #[cfg(test)]
    tests::MEASURED.with(|measured| measured.set(measured.get() + 1));
    measure()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};

    use ndarray::{Array1, array};

    use super::new_ids;
    use crate::error::Result;
    use crate::prelude::*;
    use crate::step::{Grad, Report, Step};

    #[test]
    fn no_number_is_given_twice() {
        // Some of a thread's supply, more than a supply holds, and other threads'.
        let take = || [3, 1, (1 << 20) - 1, 5 << 20, 0, 2].map(|count| (new_ids(count), count as u64));
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(move || [take(), take()].concat())).collect();
        let mut taken = threads.into_iter().flat_map(|thread| thread.join().unwrap()).chain(take()).collect::<Vec<_>>();
        taken.retain(|(_, count)| *count > 0);
        taken.sort_unstable();
        assert!(taken.is_sorted_by(|(first, count), (next, _)| first + count <= *next), "{taken:?}");
    }

    thread_local! {
        /// How often something has been measured on this thread.
        pub(super) static MEASURED: Cell<usize> = const { Cell::new(0) };
    }

    fn counted<T>(f: impl FnOnce() -> T) -> (T, usize) {
        let before = MEASURED.get();
        let result = f();
        (result, MEASURED.get() - before)
    }

    type Pair = (Array1<f64>, Array1<f64>);

    fn pair() -> Pair {
        (array![3.0, 4.0], array![1.0])
    }

    /// Measurements in each of these calls, and the norms reported.
    fn in_calls(mut opt: impl Optimizer<f64>, calls: usize) -> Vec<usize> {
        let mut params = pair();
        (0..calls).map(|_| counted(|| opt.step(&mut params, &pair()).unwrap()).1).collect()
    }

    #[test]
    fn gradients_are_measured_once() {
        let sgd = || Sgd::<f64>::new(0.1);
        type Chain = fn(Sgd<f64>) -> Box<dyn Optimizer<f64>>;
        let clips: [Chain; 6] = [
            |opt| opt.clip_global_norm(1.0).boxed(),
            |opt| opt.clip_per_tensor_norm(1.0).boxed(),
            |opt| opt.clip_value(1.0).boxed(),
            |opt| opt.clip_adaptive(1.0).boxed(),
            |opt| opt.check_finite().boxed(),
            |opt| opt.skip_nonfinite().boxed(),
        ];
        for clip in clips {
            let clipped = || clip(sgd());
            assert_eq!(in_calls(clipped(), 2), [1, 1]);
            assert_eq!(in_calls(sgd().route("*", clipped()), 2), [1, 1]);
            assert_eq!(in_calls(sgd().route("1", sgd().route("*", clipped())), 2), [1, 1]);
            assert_eq!(in_calls(clipped().accumulate(1), 2), [1, 1]);
            // Each micro-batch, and the mean.
            assert_eq!(in_calls(clipped().accumulate(3), 6), [1, 1, 2, 1, 1, 2]);
            assert_eq!(in_calls(sgd().route("*", clipped().accumulate(3)), 6), [1, 1, 2, 1, 1, 2]);
            let between = clipped().ema(0.9).lookahead(2, 0.5).freeze("1").unscale(2.0).maximize();
            assert_eq!(in_calls(sgd().route("*", between), 3), [1, 1, 1]);
        }
        // Each of two clips measures what it is given.
        assert_eq!(in_calls(sgd().clip_global_norm(0.1).clip_global_norm(0.2).accumulate(1), 1), [2]);
        assert_eq!(in_calls(sgd().clip_global_norm(0.1).clip_global_norm(f64::INFINITY).accumulate(1), 1), [1]);
    }

    #[cfg(feature = "distributed")]
    #[test]
    fn gradients_of_a_share_are_measured_once() {
        let measured = crate::distributed::ThreadGroup::run(2, |group| {
            let mut opt = Sgd::new(0.1).clip_global_norm(1.0).sharded(group);
            let mut params = pair();
            (0..2).map(|_| counted(|| opt.step(&mut params, &pair()).unwrap()).1).collect::<Vec<_>>()
        });
        assert_eq!(measured, [[1, 1], [1, 1]]);
    }

    #[cfg(feature = "half")]
    #[test]
    fn widened_gradients_are_measured_once() {
        let mut opt = Sgd::new(0.1).clip_global_norm(1.0).master_weights().accumulate(1);
        let (mut params, grads) = (array![half::bf16::ONE], array![half::bf16::ONE]);
        for _ in 0..2 {
            assert_eq!(counted(|| opt.step(&mut params, &grads).unwrap()).1, 1);
        }
    }

    /// What is not the same is measured anew, though it may lie where something else was.
    #[test]
    fn other_gradients_are_measured_again() {
        fn reports(opt: impl Optimizer<f64>) -> (Report, usize) {
            let mut opt = opt.accumulate(1); // checks, and then steps
            counted(|| opt.step(&mut pair(), &pair()).unwrap())
        }
        let calls = AtomicU64::new(0);
        let noise = move |step: &mut Step<'_, f64>| -> Result<()> {
            let number = calls.fetch_add(1, Ordering::Relaxed) as f64;
            step.grads_mut()
                .for_each(|(info, grad)| *grad = Grad::from_array(Array1::from_elem(info.elements(), number)));
            Ok(())
        };
        let (report, measured) = reports(Sgd::new(0.1).clip_global_norm(9.0).transform(noise));
        assert_eq!((report.grad_norm, measured), (Some(3.0_f64.sqrt()), 2));

        let calls = AtomicU64::new(0);
        let scale = move |step: &mut Step<'_, f64>| -> Result<()> {
            let number = calls.fetch_add(1, Ordering::Relaxed) as f64;
            step.grads_mut().for_each(|(_, grad)| grad.scale_by(number));
            Ok(())
        };
        let (report, measured) = reports(Sgd::new(0.1).clip_global_norm(9.0).transform(scale));
        assert_eq!((report.grad_norm, measured), (Some(26.0_f64.sqrt()), 2));

        let calls = AtomicU64::new(0);
        let hide = move |step: &mut Step<'_, f64>| -> Result<()> {
            let number = calls.fetch_add(1, Ordering::Relaxed) as usize;
            step.iter_mut().filter(|(_, tensor)| tensor.index() == number).for_each(|(_, tensor)| tensor.grad = None);
            Ok(())
        };
        let (report, measured) = reports(Sgd::new(0.1).clip_global_norm(9.0).transform(hide));
        assert_eq!((report.grad_norm, measured), (Some(5.0), 2));
    }
}
