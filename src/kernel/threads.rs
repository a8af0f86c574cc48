//! Rayon's threads, or without the feature the one that calls.

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
