//! Sums and differences as text: `37+58=` and the answer's digits, the last one first, as one adds by hand.

use rand::{Rng, RngExt};

/// Characters of a question, `37+58=`, and of an answer, `590`.
pub(crate) const QUESTION: usize = 6;
pub(crate) const ANSWER: usize = 3;

/// Characters that the model reads: the answer's last one is only predicted.
pub(crate) const LENGTH: usize = QUESTION + ANSWER - 1;

/// Ten digits, plus, minus, equals.
pub(crate) const VOCABULARY: usize = 13;
const EQUALS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Task {
    Addition,
    Subtraction,
}

/// A task written out, and what is to be predicted from [`QUESTION`] − 1 on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example {
    pub(crate) tokens: [usize; LENGTH],
    pub(crate) answer: [usize; ANSWER],
}

impl Task {
    /// All pairs of numbers below 100, of which a subtraction takes the smaller from the larger: those to learn from, and
    /// a tenth that is held out.
    pub(crate) fn examples(self) -> (Vec<Example>, Vec<Example>) {
        let pairs = (0..100).flat_map(|a| (0..100).map(move |b| (a, b)));
        let pairs = pairs.filter(|(a, b)| self == Self::Addition || a >= b);
        // A pair is held out by a hash, so that both tasks hold out the same.
        let held_out = |(a, b): &(usize, usize)| ((a * 100 + b) * 2_654_435_761) % 1_000_003 % 10 == 0;
        let (tests, trainings): (Vec<_>, Vec<_>) = pairs.partition(held_out);
        let write = |pairs: Vec<(usize, usize)>| pairs.into_iter().map(|(a, b)| self.write(a, b)).collect();
        (write(trainings), write(tests))
    }

    fn write(self, a: usize, b: usize) -> Example {
        let (sign, result) = match self {
            Self::Addition => (10, a + b),
            Self::Subtraction => (11, a - b),
        };
        let answer = [result % 10, result / 10 % 10, result / 100];
        let tokens = [a / 10, a % 10, sign, b / 10, b % 10, EQUALS, answer[0], answer[1]];
        Example { tokens, answer }
    }
}

/// Some of the examples, at random.
pub(crate) fn batch(examples: &[Example], count: usize, rng: &mut impl Rng) -> Vec<Example> {
    (0..count).map(|_| examples[rng.random_range(0..examples.len())]).collect()
}
