//! Sums of f64 with twice its digits, so that a projection is in its set to the last bit.

use crate::kernel::squares::near_one;

/// A sum: a number, and what rounding it has lost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) high: f64,
    pub(super) low: f64,
}

impl Sum {
    /// The sum with another number. Knuth's exact sum of two numbers, whose error is kept.
    pub(super) fn plus(self, value: f64) -> Self {
        let high = self.high + value;
        let own = high - self.high;
        let lost = (self.high - (high - own)) + (value - own);
        Self { high, low: self.low + lost }
    }

    /// The sum with the square of a number. Dekker's exact product, for |x| < 1e150.
    fn plus_square(self, x: f64) -> Self {
        /// 2²⁷ + 1
        const SPLIT: f64 = 134_217_729.0;
        let square = x * x;
        let wide = SPLIT * x;
        let head = wide - (wide - x);
        let tail = x - head;
        let lost = ((head * head - square) + 2.0 * head * tail) + tail * tail;
        let sum = self.plus(square);
        Self { low: sum.low + lost, ..sum }
    }

    pub(super) fn value(self) -> f64 {
        self.high + self.low
    }
}

/// The sum of these numbers.
pub(super) fn sum(values: impl Iterator<Item = f64>) -> Sum {
    values.fold(Sum::default(), Sum::plus)
}

/// The Euclidean norm of these numbers, whose largest absolute value is `largest`: finite and above 0. It is infinite if it exceeds the range
/// of f64.
pub(super) fn norm(values: impl Iterator<Item = f64>, largest: f64) -> f64 {
    // A power of two: multiplying with it loses nothing.
    let scale = near_one(largest);
    let squares = values.fold(Sum::default(), |sum, value| sum.plus_square(value * scale));
    let root = squares.value().sqrt();
    // One step of Newton's method, with the rest that the sum keeps.
    let rest = Sum::default().plus_square(root);
    let rest = (squares.high - rest.high) + (squares.low - rest.low);
    (root + rest / (2.0 * root)) / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        assert_eq!(sum([1e16, 1.0, 1.0, -1e16].into_iter()).value(), 2.0);
        assert_eq!(sum(std::iter::repeat_n(0.1, 10)).value(), 1.0); // ten times the f64 next to 0.1, rounded
        assert_eq!(norm([3.0, 4.0].into_iter(), 4.0), 5.0);
        let far = 2.0_f64.powi(700);
        assert_eq!(norm([3.0 * far, 4.0 * far].into_iter(), 4.0 * far), 5.0 * far);
        assert_eq!(norm([3e-320, 4e-320].into_iter(), 4e-320), 5e-320);
        // (1 + 2⁻³⁰)² + 2⁻⁶² = 1 + 2⁻²⁹ + 2⁻⁶⁰ + 2⁻⁶²
        let squares = Sum::default().plus_square(1.0 + 2.0_f64.powi(-30)).plus_square(2.0_f64.powi(-31));
        assert_eq!((squares.high, squares.low), (1.0 + 2.0_f64.powi(-29), 2.0_f64.powi(-60) + 2.0_f64.powi(-62)));
    }
}
