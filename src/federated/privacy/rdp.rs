//! The Rényi divergence of one step of the sampled Gaussian mechanism.
//!
//! With z ~ N(0, σ²) and the likelihood ratio r = 1 − q + q·exp((2z − 1)/2σ²), a step costs ln(A)/(α − 1) at the order α, where
//! A = E[r^α] (Mironov et al. 2019, sec. 3.3). Two forms of A are closed:
//!
//! An integer α expands r^α by the binomial theorem. Because E\[r\] = 1, the expansion with every exponential less 1 is A − 1, of
//! which all terms are positive: a cost far below the precision of 1 keeps all its digits.
//!
//! A fractional α splits the integral where the two parts of r are equal, and expands each side in powers of the smaller part over
//! the larger. The terms fall off only as a power of their index, so a sum that is broken off where a term is small may be wrong in
//! its last digits. But from ⌈α⌉ + 1 on their signs alternate, and their sizes are the moments of a measure on 0 … 1 (those of the
//! binomial coefficients times those of a ratio ≤ 1). For exactly such series, 22 terms in the weighting of Cohen, Rodriguez
//! Villegas and Zagier give the sum to 5.8⁻²².
//!
//! ln(A) is convex in α, so the chord between the neighboring integers lies above the fractional one: it stands in for it where A
//! is 1 in its first twelve digits, and where the series exceeds the range of numbers.

use std::f64::consts::{LN_2, PI, SQRT_2};

/// The divergence at an order above 1; infinite where it exceeds the range of numbers.
pub(super) fn divergence(rate: f64, noise: f64, order: f64) -> f64 {
    let cost = match rate {
        0.0 => 0.0,
        1.0 => order / (2.0 * noise * noise),
        _ => log_moment(rate, noise, order) / (order - 1.0),
    };
    if cost.is_nan() { f64::INFINITY } else { cost }
}

/// ln(A).
fn log_moment(rate: f64, noise: f64, order: f64) -> f64 {
    /// Where the chord is lower, rounding would be more than a thousandth of the series' logarithm.
    const LOST_IN_ROUNDING: f64 = 1e-12;
    let (below, above) = (order.floor(), order.ceil());
    if below == above {
        return whole(rate, noise, order);
    }
    let (low, high) = (whole(rate, noise, below), whole(rate, noise, above));
    let chord = low + (high - low) * (order - below);
    match fractional(rate, noise, order) {
        series if series <= chord && chord > LOST_IN_ROUNDING => series,
        _ => chord,
    }
}

/// ln(A) for an integer order; 0 for the order 1.
fn whole(rate: f64, noise: f64, order: f64) -> f64 {
    let (log_rate, log_rest) = (rate.ln(), (-rate).ln_1p());
    let mut log_binomial = order.ln();
    let terms = (2..=order as u64).map(|k| {
        let k = k as f64;
        log_binomial += ((order - k + 1.0) / k).ln();
        let exponent = k * (k - 1.0) / (2.0 * noise * noise);
        // ln(exp(x) − 1) without overflow.
        let growth = exponent + (-(-exponent).exp_m1()).ln();
        log_binomial + k * log_rate + (order - k) * log_rest + growth
    });
    let excess = log_sum(&terms.collect::<Vec<_>>());
    if excess > 0.0 { excess + (-excess).exp().ln_1p() } else { excess.exp().ln_1p() }
}

/// ln(A) for a fractional order.
fn fractional(rate: f64, noise: f64, order: f64) -> f64 {
    let (log_rate, log_rest) = (rate.ln(), (-rate).ln_1p());
    // Where (1 − q) = q·exp((2z − 1)/2σ²).
    let middle = noise * noise * (log_rest - log_rate) + 0.5;
    let mut log_binomial = 0.0;
    let mut term = |i: usize| {
        let i = i as f64;
        if i > 0.0 {
            log_binomial += ((order - i + 1.0).abs() / i).ln();
        }
        let j = order - i;
        let side = |power: f64, distance: f64| {
            let gaussian = power * (power - 1.0) / (2.0 * noise * noise);
            power * log_rate + (order - power) * log_rest + gaussian - LN_2 + log_erfc(distance / (SQRT_2 * noise))
        };
        log_binomial + log_sum(&[side(i, i - middle), side(j, middle - j)])
    };
    let ahead = order.ceil() as usize + 1;
    let positive: Vec<f64> = (0..ahead).map(&mut term).collect();
    let largest = positive.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = positive.iter().map(|term| (term - largest).exp()).sum();
    let tail = alternating(|k| (term(ahead + k) - largest).exp());
    largest + (sum - tail).ln()
}

/// Σ (−1)ᵏ·term(k) over all k, for terms that are the moments of a measure on 0 … 1. Takes them in order.
///
/// H. Cohen, F. Rodriguez Villegas and D. Zagier, *Convergence acceleration of alternating series*, Experimental Mathematics 9
/// (2000), algorithm 1.
fn alternating(mut term: impl FnMut(usize) -> f64) -> f64 {
    const TERMS: usize = 22;
    let base = (3.0 + 8.0_f64.sqrt()).powi(TERMS as i32);
    let scale = (base + 1.0 / base) / 2.0;
    let (mut b, mut c, mut sum) = (-1.0, -scale, 0.0);
    for k in 0..TERMS {
        c = b - c;
        sum += c * term(k);
        let (k, n) = (k as f64, TERMS as f64);
        b *= (k + n) * (k - n) / ((k + 0.5) * (k + 1.0));
    }
    sum / scale
}

/// ln(Σ exp(term)).
fn log_sum(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    largest + terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln()
}

/// ln(erfc(x)), also where erfc(x) is below the smallest number.
fn log_erfc(x: f64) -> f64 {
    /// From here on the asymptotic series is exact to the last digit, and erfc is still a normal number (down to x = 26.5).
    const ASYMPTOTIC: f64 = 20.0;
    if x < ASYMPTOTIC {
        return libm::erfc(x).ln();
    }
    // erfc(x) = exp(−x²)/(x√π)·(1 − 1/2x² + 1·3/(2x²)² − …)
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..8 {
        term *= -f64::from(2 * n - 1) / (2.0 * x * x);
        sum += term;
    }
    -x * x - (x * PI.sqrt()).ln() + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_of_erfc_goes_on_where_erfc_ends() {
        // mpmath, 30 digits. Relative: a rounding of x² and of the logarithm.
        for (x, expected) in [
            (-3.0, 0.693_136_135_250_446_8),
            (0.5, -0.735_011_129_837_084_4),
            (19.999, -403.529_294_457_089_3),
            (20.0, -403.569_343_334_104_23),
            (26.0, -679.831_199_763_194_2),
            (100.0, -10_005.177_585_122_664),
        ] {
            assert!((log_erfc(x) / expected - 1.0).abs() < 1e-14, "{x}: {}", log_erfc(x));
        }
    }

    #[test]
    fn an_alternating_series_is_summed_to_the_last_digits() {
        assert!((alternating(|k| 1.0 / (k + 1) as f64) - LN_2).abs() < 1e-15);
        assert!((4.0 * alternating(|k| 1.0 / (2 * k + 1) as f64) - PI).abs() < 1e-14);
    }

    #[test]
    fn the_order_two_in_closed_form() {
        // A = 1 + q²(exp(1/σ²) − 1)
        for (rate, noise) in [(0.3, 0.7), (0.01, 4.0), (1e-9, 50.0)] {
            let expected = (rate * rate * (1.0_f64 / (noise * noise)).exp_m1()).ln_1p();
            assert!((divergence(rate, noise, 2.0) / expected - 1.0).abs() < 1e-12, "{rate} {noise}");
        }
    }

    #[test]
    fn orders_between_integers_lie_between_them_and_grow() {
        for (rate, noise) in [(0.04, 1.5), (0.9, 0.3), (1e-7, 30.0), (0.5, 1e-3), (0.3, 100.0)] {
            let costs: Vec<f64> = (11..120).map(|order| divergence(rate, noise, f64::from(order) / 10.0)).collect();
            assert!(costs[0] > 0.0 && costs.iter().all(|cost| cost.is_finite()), "{rate} {noise}: {costs:?}");
            // Rounding: equal numbers may come out one digit apart.
            assert!(costs.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-9)), "{rate} {noise}: {costs:?}");
        }
    }

    #[test]
    fn beyond_the_range_of_numbers_is_infinite() {
        assert_eq!(divergence(0.5, 1e-200, 2.5), f64::INFINITY);
        assert_eq!(divergence(1.0, 1e-200, 2.5), f64::INFINITY);
        assert_eq!(divergence(0.0, 1e-200, 2.5), 0.0);
    }
}
