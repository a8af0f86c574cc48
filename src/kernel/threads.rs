//! Rayon's threads, or without the feature the one that calls.

use std::mem::take;

/// How many threads there are to share work.
#[cfg(feature = "rayon")]
pub(crate) fn count() -> usize {
    rayon::current_num_threads()
}

/// How many threads there are to share work.
#[cfg(not(feature = "rayon"))]
pub(crate) fn count() -> usize {
    1
}

/// Both, side by side.
#[cfg(feature = "rayon")]
pub(crate) fn join<L: Send, R: Send>(left: impl FnOnce() -> L + Send, right: impl FnOnce() -> R + Send) -> (L, R) {
    rayon::join(left, right)
}

/// Both, one after the other.
#[cfg(not(feature = "rayon"))]
pub(crate) fn join<L: Send, R: Send>(left: impl FnOnce() -> L + Send, right: impl FnOnce() -> R + Send) -> (L, R) {
    (left(), right())
}

/// Work on elements that can be divided.
pub(crate) trait Divisible: Send + Sized {
    /// The number of elements.
    fn len(&self) -> usize;

    fn is_divisible(&self) -> bool;

    /// Two parts of roughly equal length, if it is [divisible](Self::is_divisible).
    fn halve(self) -> (Self, Self);
}

/// All parts, of so many elements in all, side by side: halves the work, between parts or within one, until a share is no longer than `grain`.
fn for_each_part<W: Divisible>(parts: &mut [Option<W>], total: usize, grain: usize, run: &(impl Fn(W) + Sync)) {
    if total <= grain {
        return parts.iter_mut().filter_map(take).for_each(run);
    }
    if let [part] = parts {
        let Some(part) = take(part) else { return };
        if !part.is_divisible() {
            return run(part);
        }
        let (left, right) = part.halve();
        let (left_len, right_len) = (left.len(), right.len());
        join(
            || for_each_part(&mut [Some(left)], left_len, grain, run),
            || for_each_part(&mut [Some(right)], right_len, grain, run),
        );
        return;
    }
    let mut left_total = 0;
    let cut = parts.iter().flatten().position(|part| {
        left_total += part.len();
        2 * left_total >= total
    });
    let cut = cut.map_or(parts.len() / 2, |cut| (cut + 1).min(parts.len() - 1));
    let (left, right) = parts.split_at_mut(cut);
    let left_total = left.iter().flatten().map(W::len).sum();
    join(|| for_each_part(left, left_total, grain, run), || for_each_part(right, total - left_total, grain, run));
}

/// A step of at most so many elements is too short to share.
const SERIAL_STEP: usize = 64 * 1024;

/// Whether a step of so many elements is worth several threads.
pub(crate) fn are_worth(elements: usize) -> bool {
    elements > SERIAL_STEP && count() > 1
}

/// [`for_each_part`] with shares that are worth a thread.
pub(crate) fn share<W: Divisible>(parts: &mut [Option<W>], run: &(impl Fn(W) + Sync)) {
    let total: usize = parts.iter().flatten().map(W::len).sum();
    let grain = (total / (8 * count())).max(SERIAL_STEP / 2);
    for_each_part(parts, total, grain, run);
}

/// Fewer elements than this are not worth a second thread, if a task takes a tensor.
const SERIAL_TENSORS: usize = 4096;

/// Each of the tasks of a step of so many elements: side by side, unless they are too short.
pub(crate) fn for_each_tensor<T: Send>(elements: usize, tasks: &mut [T], run: &(impl Fn(&mut T) + Sync)) {
    match elements < SERIAL_TENSORS {
        true => tasks.iter_mut().for_each(run),
        false => for_each(tasks, run),
    }
}

/// Each of the tasks, side by side.
pub(crate) fn for_each<T: Send>(tasks: &mut [T], run: &(impl Fn(&mut T) + Sync)) {
    if tasks.len() < 2 {
        return tasks.iter_mut().for_each(run);
    }
    let (left, right) = tasks.split_at_mut(tasks.len() / 2);
    join(|| for_each(left, run), || for_each(right, run));
}
