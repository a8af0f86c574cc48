//! Cosine decay, once or with restarts.

use std::f64::consts::PI;

use super::anneal::{floor_and_peak, left_out, mix, progress, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::{AT_LEAST_1, Result};

/// Falls from a peak to a floor along half a cosine wave, and stays at the floor.
///
/// # Formula
/// ```text
/// p = min(t / steps, 1)
/// at(t) = floor + (peak − floor) · ((1 + cos πp) / 2)^exponent
/// ```
/// With [`cycles`](Self::cycles) or [`waves`](Self::waves):
/// ```text
/// q = the fraction of cycles · p before step `steps`, 1 from there on
/// at(t) = floor + (peak − floor) · ((1 + cos(2π · waves · q)) / 2)^exponent
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `peak` | – | finite | the value at step 0 | the hyper-parameter's |
/// | `steps` | – | any | the length of the decay, without a [warm-up](super::ScheduleExt::warmup) | steps |
/// | [`floor`](Self::floor) | 0 | ≤ `peak` | the value at the end | the hyper-parameter's |
/// | [`exponent`](Self::exponent) | 1 | > 0 | above 1 the value falls earlier | 1 |
/// | [`cycles`](Self::cycles) | 1 | any | number of falls from the peak; with 0 the value stays at the peak until the end | 1 |
/// | [`waves`](Self::waves) | ½ | 0 to 10¹⁵ | number of waves in each cycle | 1 |
///
/// # Values
/// `peak` at step 0, `floor` from step `steps` on. With `waves` the end value is that of the last wave. With 0 steps the value is the end value
/// everywhere.
///
/// # Conventions
/// Up to its end this is PyTorch's `CosineAnnealingLR(T_max, eta_min)`. After `T_max`, PyTorch and Hugging Face's
/// `get_cosine_schedule_with_warmup` rise again, to the peak at `2 · T_max`. This schedule stays at its floor, as optax's
/// `cosine_decay_schedule` does (there `floor = alpha · peak`).
///
/// `steps` is the length of the decay only. Hugging Face's `num_training_steps` and the `decay_steps` of optax's
/// `warmup_cosine_decay_schedule` include the warm-up. For 10 000 steps including a warm-up of 500, write
/// `Cosine::new(lr, 9_500).warmup(500)`; `Cosine::new(lr, 10_000).warmup(500)` ends at step 10 500.
///
/// For `n` steps including a warm-up of `w`, Hugging Face's `get_cosine_schedule_with_warmup(w, n, num_cycles)` is
/// `Cosine::new(lr, n - w).waves(num_cycles).warmup(w)`, and `get_cosine_with_hard_restarts_schedule_with_warmup` is
/// `Cosine::new(lr, n - w).cycles(num_cycles).warmup(w)`, step for step. If a restart is between two steps, it takes place at the second, where
/// the value is already below the peak. `cycles · p` is rounded as in Hugging Face's code: in rare cases, such as 49 cycles of 20 steps, a
/// restart takes place one step late.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Cosine, Schedule, ScheduleExt};
///
/// let schedule = Cosine::new(0.5, 100).floor(0.25);
/// assert_eq!([0, 50, 100, 150].map(|t| schedule.at(t)), [0.5, 0.375, 0.25, 0.25]);
///
/// let warm = Cosine::new(0.5, 9_500).warmup(500); // Hugging Face: num_warmup_steps=500, num_training_steps=10_000
/// assert_eq!([0, 250, 500, 10_000].map(|t| warm.at(t)), [0.0, 0.25, 0.5, 0.0]);
///
/// let restarts = Cosine::new(0.5, 20).cycles(2);
/// assert_eq!([0, 5, 10, 15, 20].map(|t| restarts.at(t)), [0.5, 0.25, 0.5, 0.25, 0.0]);
/// ```
///
/// # References
/// I. Loshchilov, F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2016, [arXiv:1608.03983](https://arxiv.org/abs/1608.03983), eq. 5.
#[doc(alias("CosineAnnealingLR", "cosine_decay_schedule"))]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Cosine {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    steps: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::floor", with = "number"))]
    floor: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::exponent", with = "number"))]
    exponent: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::waves", with = "number"))]
    waves: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::cycles", deserialize_with = "number::count"))]
    cycles: u64,
}

left_out!(left_out: Cosine::new(0.0, 0); floor: f64, exponent: f64, waves: f64, cycles: u64);

in_one_line!(Cosine: peak, steps; Cosine::new(0.0, 0) => floor, exponent, waves, cycles);

impl Cosine {
    /// From `peak` to 0 in `steps` steps.
    pub fn new(peak: f64, steps: u64) -> Self {
        Self { peak, steps, floor: 0.0, exponent: 1.0, waves: 0.5, cycles: 1 }
    }

    /// The value at the end; 0 by default.
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }

    /// Sets the number of waves; one wave goes from peak to peak. The default, ½, goes from the peak to the floor. 1½ also ends at the floor,
    /// 1 and 2 end at the peak. This is `num_cycles` of Hugging Face's `get_cosine_schedule_with_warmup`.
    pub fn waves(mut self, waves: f64) -> Self {
        self.waves = waves;
        self
    }

    /// Sets the number of falls from the peak; the default is 1. Each takes `steps / cycles` steps, which need not be a whole number. This is
    /// `num_cycles` of Hugging Face's `get_cosine_with_hard_restarts_schedule_with_warmup`.
    pub fn cycles(mut self, cycles: u64) -> Self {
        self.cycles = cycles;
        self
    }

    /// The power to which the wave is raised; 1 by default. optax's `exponent`.
    pub fn exponent(mut self, exponent: f64) -> Self {
        self.exponent = exponent;
        self
    }
}

impl Schedule for Cosine {
    fn at(&self, step: u64) -> f64 {
        let done = progress(step, self.steps);
        // The end is that of a cycle, not the beginning of another.
        let of_cycle = if step < self.steps { (self.cycles as f64 * done).fract() } else { 1.0 };
        let wave = (1.0 + (PI * self.waves * 2.0 * of_cycle).cos()) / 2.0;
        mix(self.floor, self.peak, wave.powf(self.exponent))
    }

    fn first_value(&self) -> f64 {
        self.peak
    }

    fn check(&self) -> Result<()> {
        floor_and_peak("Cosine", self.floor, self.peak)?;
        let right = self.exponent.is_finite() && self.exponent > 0.0;
        require(right, "Cosine", "exponent", self.exponent, "a finite number > 0")?;
        // Of more, the step of a wave is lost in rounding.
        require((0.0..=1e15).contains(&self.waves), "Cosine", "waves", self.waves, "a number from 0 to 1e15")
    }

    function_of_the_step!();
}

/// Cosine decay with restarts at the peak (SGDR).
///
/// # Formula
/// ```text
/// period_i = period · factor^i                              the length of decay i = 0, 1, 2, …
/// s = t − (period_0 + … + period_{i−1}),  0 ≤ s < period_i   the step within it
/// at(t) = floor + (peak − floor) · (1 + cos(π s / period_i)) / 2
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `peak` | – | finite | the value at the start of each decay | the hyper-parameter's |
/// | `period` | – | ≥ 1 | the length of the first decay | steps |
/// | [`factor`](Self::factor) | 1 | ≥ 1 | each decay lasts this many times as long as the one before | 1 |
/// | [`floor`](Self::floor) | 0 | ≤ `peak` | the value that each decay approaches | the hyper-parameter's |
///
/// # Values
/// `peak` at step 0 and at every restart (`period`, `period · (1 + factor)`, …). The floor is never reached, because its step is the first step
/// of the next decay. There is no end; use `.then(n, floor)` to add one. `at` takes a number of operations logarithmic in the step.
///
/// # Conventions
/// PyTorch's `CosineAnnealingWarmRestarts(T_0, T_mult, eta_min)`, step for step. PyTorch finds the current decay with a floating-point
/// logarithm, which can be one step off at a late restart; here it is exact. Hugging Face's
/// `get_cosine_with_hard_restarts_schedule_with_warmup`, whose cycles need not be whole numbers of steps, is [`Cosine::cycles`].
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{CosineRestarts, Schedule};
///
/// let schedule = CosineRestarts::new(0.5, 10).factor(2);
/// assert_eq!([0, 5, 10, 20, 30].map(|t| schedule.at(t)), [0.5, 0.25, 0.5, 0.25, 0.5]);
/// ```
///
/// # References
/// I. Loshchilov, F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2016, [arXiv:1608.03983](https://arxiv.org/abs/1608.03983), eq. 5.
#[doc(alias("CosineAnnealingWarmRestarts", "SGDR"))]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CosineRestarts {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    period: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out_of_restarts::factor", deserialize_with = "number::count"))]
    factor: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out_of_restarts::floor", with = "number"))]
    floor: f64,
}

left_out!(left_out_of_restarts: CosineRestarts::new(0.0, 1); factor: u64, floor: f64);

in_one_line!(CosineRestarts: peak, period; CosineRestarts::new(0.0, 1) => factor, floor);

impl CosineRestarts {
    /// From `peak` to 0 every `period` steps.
    pub fn new(peak: f64, period: u64) -> Self {
        Self { peak, period, factor: 1, floor: 0.0 }
    }

    /// How many times as long as the one before each decay lasts; 1 by default. PyTorch's `T_mult`.
    pub fn factor(mut self, factor: u64) -> Self {
        self.factor = factor;
        self
    }

    /// The value that each decay leads to; 0 by default.
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }

    /// The step within its decay, and how long that lasts.
    fn place(&self, step: u64) -> (u64, u64) {
        if self.factor <= 1 {
            return (step.checked_rem(self.period).unwrap_or(0), self.period);
        }
        let (mut step, mut period) = (step, self.period.max(1));
        while step >= period {
            step -= period;
            // At the end of the range of u64 the last period is cut short, which no training reaches.
            period = period.saturating_mul(self.factor);
        }
        (step, period)
    }
}

impl Schedule for CosineRestarts {
    fn at(&self, step: u64) -> f64 {
        let (step, period) = self.place(step);
        Cosine::new(self.peak, period).floor(self.floor).at(step)
    }

    fn first_value(&self) -> f64 {
        self.peak
    }

    fn check(&self) -> Result<()> {
        floor_and_peak("CosineRestarts", self.floor, self.peak)?;
        require(self.period > 0, "CosineRestarts", "period", self.period as f64, AT_LEAST_1)?;
        require(self.factor > 0, "CosineRestarts", "factor", self.factor as f64, AT_LEAST_1)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rounding of one cosine.
    const TOLERANCE: f64 = f64::EPSILON;

    #[test]
    fn thirds_of_the_wave() {
        let schedule = Cosine::new(4.0, 3);
        for (step, value) in [(0, 4.0), (1, 3.0), (2, 1.0), (3, 0.0), (4, 0.0)] {
            assert!((schedule.at(step) - value).abs() <= 4.0 * TOLERANCE, "{step}");
        }
    }

    #[test]
    fn the_exponent_applies_to_the_wave_alone() {
        let schedule = Cosine::new(1.0, 2).floor(0.2).exponent(2.0);
        assert_eq!(schedule.at(0), 1.0);
        assert!((schedule.at(1) - 0.4).abs() <= TOLERANCE);
        assert_eq!(schedule.at(2), 0.2);
    }

    #[test]
    fn restarts_come_where_the_periods_end() {
        let schedule = CosineRestarts::new(1.0, 3).factor(3);
        let places = [0, 2, 3, 11, 12, 38, 39].map(|t| schedule.place(t));
        assert_eq!(places, [(0, 3), (2, 3), (0, 9), (8, 9), (0, 27), (26, 27), (0, 81)]);
        assert_eq!(CosineRestarts::new(1.0, 3).place(11), (2, 3));
    }

    #[test]
    fn restarts_agree_with_pytorch_s_formula() {
        // n = ⌊log(t / T_0 · (T_mult − 1) + 1, T_mult)⌋, T_cur = t − T_0 (T_mult^n − 1) / (T_mult − 1)
        for (period, factor) in [(50_u64, 2_u64), (7, 3), (1, 5)] {
            let schedule = CosineRestarts::new(1.0, period).factor(factor);
            for t in 0..500_u64 {
                let n = (0..).take_while(|n| period * (factor.pow(n + 1) - 1) / (factor - 1) <= t).count() as u32;
                let start = period * (factor.pow(n) - 1) / (factor - 1);
                assert_eq!(schedule.place(t), (t - start, period * factor.pow(n)), "step {t}");
            }
        }
    }
}
