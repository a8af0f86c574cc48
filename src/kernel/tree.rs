//! Reductions in a fixed tree, so that the bits depend on neither threads nor layout.

use super::threads;

/// Above this many elements a reduction is worth sharing.
pub(crate) const SERIAL_NORM: usize = 64 * 1024;

/// Reduces `length` elements from `start` on, in a tree over blocks of `block` elements. `leaf` gets the start and the length of a block,
/// and `combine` the results of two neighbors. The tree over blocks of half the size is the same tree with one more row.
pub(crate) fn reduce<T: Send>(
    (start, length): (usize, usize),
    block: usize,
    leaf: &(impl Fn(usize, usize) -> T + Sync),
    combine: &(impl Fn(T, T) -> T + Sync),
) -> T {
    if length <= block {
        return leaf(start, length);
    }
    let left = left_branch(length, block);
    let (left, right) = join(
        length,
        || reduce((start, left), block, leaf, combine),
        || reduce((start + left, length - left), block, leaf, combine),
    );
    combine(left, right)
}

/// The elements in the left branch of a tree over blocks: the largest power of two of blocks that leaves some.
fn left_branch(elements: usize, block: usize) -> usize {
    elements.div_ceil(block).next_power_of_two() / 2 * block
}

/// Both, on two threads if there are enough elements.
pub(crate) fn join<T: Send>(
    elements: usize,
    left: impl FnOnce() -> T + Send,
    right: impl FnOnce() -> T + Send,
) -> (T, T) {
    if elements > SERIAL_NORM { threads::join(left, right) } else { (left(), right()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_blocks_make_the_same_tree() {
        let value = |at: usize| (at as f64 * 0.37).sin();
        let sum = |start: usize, length: usize| (start..start + length).map(value).sum::<f64>();
        let add = |left: f64, right: f64| left + right;
        for length in [0, 1, 16, 17, 64, 65, 1000, 200_003] {
            let wide = |start, length| reduce((start, length), 16, &sum, &add);
            let expected: f64 = reduce((0, length), 16, &sum, &add);
            assert_eq!(reduce((0, length), 128, &wide, &add).to_bits(), expected.to_bits(), "{length}");
            assert!((expected - sum(0, length)).abs() <= 1e-12 * length as f64);
        }
    }
}
