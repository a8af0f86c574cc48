//! Where L-BFGS-B goes: the minimum of the quadratic model within the bounds, first along the projected gradient and then in the subspace of
//! the elements that are not at a bound.

use super::compact::{Compact, Factors, inner};
use super::limits::Bounds;

/// A direction from `x` to a point within the bounds. The paper's section 4 and 5.1, and for the end of the latter Morales and Nocedal.
pub(super) fn direction(x: &[f64], grad: &[f64], bounds: &Bounds, compact: &Compact) -> Vec<f64> {
    let (cauchy, c) = cauchy_point(x, grad, bounds, compact);
    let end = minimum_of_subspace(x, grad, bounds, compact, (&cauchy, &c)).unwrap_or(cauchy);
    end.iter().zip(x).map(|(end, x)| end - x).collect()
}

/// The first minimum of the model along the projected gradient, and Wᵀ times the way there.
fn cauchy_point(x: &[f64], grad: &[f64], bounds: &Bounds, compact: &Compact) -> (Vec<f64>, Vec<f64>) {
    let theta = compact.theta;
    let ends: Vec<f64> = (0..x.len())
        .map(|at| match grad[at] {
            g if g < 0.0 => (x[at] - bounds.upper[at]) / g,
            g if g > 0.0 => (x[at] - bounds.lower[at]) / g,
            _ => f64::INFINITY,
        })
        .collect();
    let mut d: Vec<f64> = grad.iter().zip(&ends).map(|(g, end)| if *end > 0.0 { -g } else { 0.0 }).collect();
    let mut p = compact.transposed(d.iter().copied().enumerate());
    let mut c = vec![0.0; compact.width()];
    let mut cauchy = x.to_vec();
    // Derivatives of the model along the path.
    let mut slope = -inner(&d, &d);
    let mut curvature = -theta * slope - inner(&p, &compact.middle(&p));
    let least = f64::EPSILON * curvature.abs();
    let mut breaks: Vec<usize> = (0..x.len()).filter(|at| ends[*at] > 0.0 && ends[*at] < f64::INFINITY).collect();
    breaks.sort_unstable_by(|a, b| ends[*a].total_cmp(&ends[*b]));
    let mut before = 0.0;
    for at in breaks {
        let length = ends[at] - before;
        if -slope / curvature.max(least) < length {
            break;
        }
        // The element stays at its bound from here on.
        cauchy[at] = if d[at] > 0.0 { bounds.upper[at] } else { bounds.lower[at] };
        let (way, g, row) = (cauchy[at] - x[at], grad[at], compact.row(at));
        c.iter_mut().zip(&p).for_each(|(c, p)| *c += length * p);
        let turned = compact.middle(row);
        slope += length * curvature + g * g + theta * g * way - g * inner(&turned, &c);
        curvature -= theta * g * g + 2.0 * g * inner(&turned, &p) + g * g * inner(&turned, row);
        p.iter_mut().zip(row).for_each(|(p, w)| *p += g * w);
        d[at] = 0.0;
        before = ends[at];
    }
    let rest = if slope < 0.0 { -slope / curvature.max(least) } else { 0.0 };
    if rest.is_finite() {
        c.iter_mut().zip(&p).for_each(|(c, p)| *c += rest * p);
        for (at, (end, d)) in cauchy.iter_mut().zip(&d).enumerate().filter(|(_, (_, d))| **d != 0.0) {
            *end = (x[at] + (before + rest) * d).max(bounds.lower[at]).min(bounds.upper[at]);
        }
    }
    (cauchy, c)
}

/// The minimum of the model among the points that differ from the Cauchy point only in elements within their bounds; projected onto the bounds
/// or, if that does not descend, as far on the way there as they allow. `None` if there is none in numbers.
fn minimum_of_subspace(
    x: &[f64],
    grad: &[f64],
    bounds: &Bounds,
    compact: &Compact,
    (cauchy, c): (&[f64], &[f64]),
) -> Option<Vec<f64>> {
    let theta = compact.theta;
    let free: Vec<usize> =
        (0..x.len()).filter(|at| bounds.lower[*at] < cauchy[*at] && cauchy[*at] < bounds.upper[*at]).collect();
    let turned = compact.middle(c);
    // The gradient of the model at the Cauchy point.
    let reduced: Vec<f64> =
        free.iter().map(|at| grad[*at] + theta * (cauchy[*at] - x[*at]) - inner(compact.row(*at), &turned)).collect();
    let mut step: Vec<f64> = reduced.iter().map(|r| -r / theta).collect();
    if compact.width() > 0 {
        // (I − M·Wᵀ·W/θ)⁻¹·M·Wᵀ·r, by the formula of Sherman, Morrison and Woodbury.
        let v = compact.middle(&compact.transposed(free.iter().copied().zip(reduced.iter().copied())));
        let width = compact.width();
        let mut rows = vec![vec![0.0; width]; width];
        for column in 0..width {
            let products = compact.transposed(free.iter().map(|at| (*at, compact.row(*at)[column])));
            let turned = compact.middle(&products);
            for (at, (row, turned)) in rows.iter_mut().zip(&turned).enumerate() {
                row[column] = if at == column { 1.0 } else { 0.0 } - turned / theta;
            }
        }
        let v = Factors::of(rows)?.solve(&v);
        step.iter_mut().zip(&free).for_each(|(step, at)| *step -= inner(compact.row(*at), &v) / (theta * theta));
    }
    if !step.iter().all(|step| step.is_finite()) {
        return None;
    }
    let mut end = cauchy.to_vec();
    for (at, step) in free.iter().zip(&step) {
        end[*at] = (cauchy[*at] + step).max(bounds.lower[*at]).min(bounds.upper[*at]);
    }
    let slope: f64 = (0..x.len()).map(|at| grad[at] * (end[at] - x[at])).sum();
    if slope < 0.0 {
        return Some(end);
    }
    let share = free.iter().zip(&step).fold(1.0_f64, |most, (at, step)| match *step {
        step if step > 0.0 => most.min((bounds.upper[*at] - cauchy[*at]) / step),
        step if step < 0.0 => most.min((bounds.lower[*at] - cauchy[*at]) / step),
        _ => most,
    });
    for (at, step) in free.iter().zip(&step) {
        end[*at] = (cauchy[*at] + share * step).max(bounds.lower[*at]).min(bounds.upper[*at]);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(lower: &[f64], upper: &[f64]) -> Bounds {
        Bounds { lower: lower.to_vec(), upper: upper.to_vec() }
    }

    /// Without pairs the model is θ/2·‖d‖² + ⟨g, d⟩, whose minimum within bounds is known element by element.
    #[test]
    fn the_minimum_of_a_round_model() {
        let (x, grad) = ([0.0, 0.5, 1.0, -1.0, 2.0], [1.0, -2.0, 0.5, 0.0, -8.0]);
        let bounds = bounds(&[-0.1, f64::NEG_INFINITY, 0.0, -1.0, 0.0], &[1.0, 1.0, 1.0, 0.0, f64::INFINITY]);
        let found = direction(&x, &grad, &bounds, &Compact::identity(2.0));
        for (found, expected) in found.iter().zip([-0.1, 0.5, -0.25, 0.0, 4.0]) {
            assert!((found - expected).abs() < 1e-15, "{found} is not {expected}");
        }
    }

    /// With a pair, inside the bounds: Newton's step of the model, as if there were no bounds.
    #[test]
    fn far_from_the_bounds_it_is_a_quasi_newton_step() {
        let (s, y) = ([1.0, 0.5, -0.25], [2.0, 0.25, -0.5]);
        let theta = inner(&y, &y) / inner(&s, &y);
        let compact = Compact::of(&[(&s[..], &y[..])], 3, theta).unwrap();
        let grad = [0.3, -0.2, 0.1];
        let far = bounds(&[-1e3; 3], &[1e3; 3]);
        let d = direction(&[0.0; 3], &grad, &far, &compact);
        // B·d = −g
        let turned = compact.middle(&compact.transposed(d.iter().copied().enumerate()));
        for (at, (d, g)) in d.iter().zip(grad).enumerate() {
            let product = theta * d - inner(compact.row(at), &turned);
            assert!((product + g).abs() < 1e-13, "{product}");
        }
    }
}
