//! Polynomial decay.

use super::anneal::{floor_and_peak, left_out, mix, progress, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Falls from a peak to a floor as a power of the remaining steps.
///
/// # Formula
/// ```text
/// p = min(t / steps, 1)
/// at(t) = floor + (peak − floor) · (1 − p)^power
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `peak` | – | finite | the value at step 0 | the hyper-parameter's |
/// | `steps` | – | any | the length of the decay | steps |
/// | [`power`](Self::power) | 1 | > 0 | above 1 the value falls faster at the start, below 1 faster at the end | 1 |
/// | [`floor`](Self::floor) | 0 | ≤ `peak` | the value at the end | the hyper-parameter's |
///
/// # Values
/// `peak` at step 0, `floor` at step `steps` and beyond. With 0 steps it is `floor` everywhere.
///
/// # Conventions
/// PyTorch's `PolynomialLR(total_iters, power)` and optax's `polynomial_schedule`, step for step; optax also lets it
/// rise, and for 0 steps stays at the peak. Hugging Face's `get_polynomial_decay_schedule_with_warmup(w, n, lr_end)` is
/// `Polynomial::new(lr, n - w).floor(lr_end).warmup(w)`.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Polynomial, Schedule};
///
/// let schedule = Polynomial::new(1.0, 4).power(2.0);
/// assert_eq!([0, 1, 2, 3, 4, 5].map(|t| schedule.at(t)), [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]);
/// ```
///
/// # References
/// L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille, *DeepLab: Semantic Image Segmentation with Deep
/// Convolutional Nets, Atrous Convolution, and Fully Connected CRFs*, 2016, [arXiv:1606.00915](https://arxiv.org/abs/1606.00915), sec. 4.1.
#[doc(alias("PolynomialLR", "polynomial_schedule"))]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Polynomial {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    steps: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::power", with = "number"))]
    power: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::floor", with = "number"))]
    floor: f64,
}

left_out!(left_out: Polynomial::new(0.0, 0); power: f64, floor: f64);

in_one_line!(Polynomial: peak, steps; Polynomial::new(0.0, 0) => power, floor);

impl Polynomial {
    /// From `peak` to 0 in `steps` steps, linearly unless [`power`](Self::power) is set.
    pub fn new(peak: f64, steps: u64) -> Self {
        Self { peak, steps, power: 1.0, floor: 0.0 }
    }

    /// The power of the remaining fraction; 1 by default.
    pub fn power(mut self, power: f64) -> Self {
        self.power = power;
        self
    }

    /// The value at the end; 0 by default.
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }
}

impl Schedule for Polynomial {
    fn at(&self, step: u64) -> f64 {
        let left = 1.0 - progress(step, self.steps);
        mix(self.floor, self.peak, left.powf(self.power))
    }

    fn first_value(&self) -> f64 {
        self.peak
    }

    fn check(&self) -> Result<()> {
        floor_and_peak("Polynomial", self.floor, self.peak)?;
        let right = self.power.is_finite() && self.power > 0.0;
        require(right, "Polynomial", "power", self.power, "a finite number > 0")
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_below_and_above_one() {
        assert_eq!(Polynomial::new(1.0, 4).power(0.5).at(3), 0.5);
        assert_eq!(Polynomial::new(1.0, 4).power(3.0).at(2), 0.125);
    }

    #[test]
    fn the_floor_holds_beyond_the_end() {
        let schedule = Polynomial::new(1.0, 4).power(2.0).floor(0.2);
        assert_eq!([0, 2, 4, 9].map(|t| schedule.at(t)), [1.0, 0.4, 0.2, 0.2]);
    }
}
