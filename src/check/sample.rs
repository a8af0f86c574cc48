//! Which elements of a tensor are compared.

use std::iter::repeat_with;

use crate::kernel::split_mix::{GAMMA, finish};

/// The elements of one tensor after the other.
pub(super) struct Sample {
    /// At most this many of each, if not all.
    elements: Option<usize>,
    random: SplitMix64,
}

impl Sample {
    pub(super) fn new(sample: Option<(usize, u64)>) -> Self {
        Self { elements: sample.map(|(elements, _)| elements), random: SplitMix64(sample.map_or(0, |(_, seed)| seed)) }
    }

    /// Of the next tensor, of so many elements: different ones, in rising order.
    pub(super) fn of(&mut self, length: usize) -> impl Iterator<Item = usize> {
        let parts = self.elements.map_or(length, |elements| elements.min(length));
        let start = move |part: usize| (part as u128 * length as u128 / parts.max(1) as u128) as usize;
        let draws = repeat_with(|| self.random.next());
        // A part that is one element gives that one; the remainder favors none by more than 2⁻³² or so.
        (0..parts).zip(draws).map(move |(part, draw)| {
            let (first, next) = (start(part), start(part + 1));
            first + (draw % (next - first) as u64) as usize
        })
    }
}

/// The generator of Steele, Lea and Flood.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        finish(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of `splitmix64.c` of S. Vigna for this seed.
    #[test]
    fn the_generator_is_the_known_one() {
        let mut random = SplitMix64(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([(); 3].map(|()| random.next()), expected);
    }

    #[test]
    fn one_of_every_part() {
        for length in [0, 1, 5, 6, 7, 100, 101] {
            for elements in [1, 2, 5, 6, 99, 1000] {
                let sample: Vec<_> = Sample::new(Some((elements, 3))).of(length).collect();
                assert_eq!(sample.len(), elements.min(length));
                assert!(sample.is_sorted_by(|a, b| a < b) && sample.iter().all(|element| *element < length));
                // Each of the equal parts has one.
                let parts = sample.len() as u128;
                assert!(sample.iter().enumerate().all(|(part, element)| {
                    let start = |part: usize| part as u128 * length as u128 / parts;
                    (start(part)..start(part + 1)).contains(&(*element as u128))
                }));
            }
            assert!(Sample::new(None).of(length).eq(0..length));
        }
    }

    #[test]
    fn the_seed_decides() {
        let sample = |seed| Sample::new(Some((8, seed))).of(1 << 40).collect::<Vec<_>>();
        assert_eq!(sample(1), sample(1));
        assert_ne!(sample(1), sample(2));
        let mut running = Sample::new(Some((8, 1)));
        let [first, second] = [(); 2].map(|()| running.of(1 << 40).collect::<Vec<_>>());
        assert_ne!(first, second, "tensors alike are not sampled alike");
    }
}
