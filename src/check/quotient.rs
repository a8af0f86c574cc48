//! Difference quotients through any points, and what a gradient is beside them.

/// How many roundings of its whole value the loss may have gone through: a sum of many terms, in a fixed order, has more
/// than one.
const ROUNDINGS: f64 = 16.0;

/// The loss where an element is moved by `shift`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) shift: f64,
    pub(super) loss: f64,
}

/// A gradient beside a difference quotient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgment {
    pub(super) quotient: f64,
    /// How far rounding in the loss may have moved the quotient.
    pub(super) rounding: f64,
    pub(super) error: f64,
    /// Whether only the points of one side agree with the gradient.
    pub(super) one_sided: bool,
}

impl Judgment {
    /// The slope at 0 of the polynomial through these points, and the gradient's error beside it.
    pub(super) fn new(grad: f64, points: &[Point], at_rest: f64, epsilon: f64) -> Self {
        let (mut quotient, mut rounding) = (0.0, 0.0);
        for (at, point) in points.iter().enumerate() {
            let weight = weight(points, at);
            // The weights sum to zero: what all losses have in common would only be rounded.
            quotient += weight * (point.loss - at_rest);
            rounding += ROUNDINGS * epsilon * point.loss.abs() * weight.abs();
        }
        let (apart, size) = ((grad - quotient).abs() - rounding, grad.abs().max(quotient.abs()));
        // Never more than 2, and 2 where the quotient is no number.
        let error = if apart <= 0.0 { 0.0 } else { (apart / size).min(2.0) };
        Self { quotient, rounding, error, one_sided: false }
    }
}

/// How the loss of one of the points enters the slope at 0: the derivative there of Lagrange's polynomial that is 1 at
/// this point and 0 at the others.
fn weight(points: &[Point], at: usize) -> f64 {
    let own = points[at].shift;
    let others = || points.iter().enumerate().filter(move |(other, _)| *other != at);
    let terms = others().map(|(left_out, first)| {
        let rest = others().filter(|(other, _)| *other != left_out);
        rest.fold(1.0 / (own - first.shift), |product, (_, point)| product * -point.shift / (own - point.shift))
    });
    terms.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(shifts: &[f64], loss: fn(f64) -> f64) -> Vec<Point> {
        shifts.iter().map(|&shift| Point { shift, loss: loss(shift) }).collect()
    }

    #[test]
    fn the_weights_are_those_of_the_books() {
        let weights = |shifts: &[f64]| {
            let points = points(shifts, |_| 0.0);
            (0..points.len()).map(|at| weight(&points, at)).collect::<Vec<_>>()
        };
        assert_eq!(weights(&[0.5, -0.5]), [1.0, -1.0]);
        assert_eq!(weights(&[0.0, 1.0, 2.0]), [-1.5, 2.0, -0.5]);
        assert_eq!(weights(&[0.0, -1.0, -2.0]), [1.5, -2.0, 0.5]);
        let fourth = weights(&[1.0, -1.0, 2.0, -2.0]);
        let expected = [8.0 / 12.0, -8.0 / 12.0, -1.0 / 12.0, 1.0 / 12.0];
        assert!(fourth.iter().zip(expected).all(|(weight, expected)| (weight - expected).abs() < 1e-15), "{fourth:?}");
    }

    #[test]
    fn a_polynomial_that_the_points_determine_has_its_slope_also_at_uneven_points() {
        let cubic = |x: f64| 4.0 + 3.0 * x - 7.0 * x * x + 5.0 * x * x * x;
        let found = Judgment::new(3.0, &points(&[0.5, -0.25, 1.0, -1.25], cubic), 4.0, f64::EPSILON);
        assert!((found.quotient - 3.0).abs() < 1e-13, "{found:?}");
        let square = |x: f64| 4.0 + 3.0 * x - 7.0 * x * x;
        let found = Judgment::new(3.0, &points(&[0.0, 0.5, 1.25], square), 4.0, f64::EPSILON);
        assert!((found.quotient - 3.0).abs() < 1e-13, "{found:?}");
    }

    #[test]
    fn errors_by_hand() {
        // J = 4 + 8x, so that J(±1/2) = 8, 0; ρ = 16 · 2⁻⁸ · (8 + 0) = 1/2.
        let line = points(&[0.5, -0.5], |x| 4.0 + 8.0 * x);
        let error = |grad| Judgment::new(grad, &line, 4.0, 1.0 / 256.0);
        assert_eq!((error(8.0).quotient, error(8.0).rounding), (8.0, 0.5));
        let errors = [8.0, 8.5, 7.5, 10.0, 0.0, -8.0].map(|grad| error(grad).error);
        assert_eq!(errors, [0.0, 0.0, 0.0, 0.15, 7.5 / 8.0, 15.5 / 8.0]);

        let flat = points(&[0.5, -0.5], |_| 0.0);
        assert_eq!([0.0, 1e-300].map(|grad| Judgment::new(grad, &flat, 0.0, f64::EPSILON).error), [0.0, 1.0]);
        let steep = points(&[1e-6, -1e-6], |x| 1e308 * x.signum());
        assert_eq!(Judgment::new(1.0, &steep, 0.0, f64::EPSILON).error, 2.0);
        let ended = points(&[1.0, -1.0], f64::sqrt);
        assert_eq!(Judgment::new(0.5, &ended, 0.0, f64::EPSILON).error, 2.0);
    }
}
