//! Warm-up, a long plateau, and a short decay.

use super::anneal::{Anneal, finite, floor_and_peak, left_out, progress};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Rises to a peak, stays at the peak, and falls at the end (WSD, also called a trapezoid).
///
/// # Formula
/// ```text
/// t < warmup             at(t) = start + (peak − start) · t / warmup
/// … < warmup + stable    at(t) = peak
/// … < … + decay          at(t) = floor + (peak − floor) · f(p),  p = (t − warmup − stable) / decay
/// from then on           at(t) = floor
///
/// f(p) = (1 + cos πp) / 2   Anneal::Cosine
///        1 − p              Anneal::Linear
///        1 − √p             Anneal::OneMinusSqrt
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `peak` | – | finite | the value of the stable part | the hyper-parameter's |
/// | `warmup`, `stable`, `decay` | – | any | the length of each part | steps |
/// | [`start`](Self::start) | 0 | finite | the value at step 0 | the hyper-parameter's |
/// | [`floor`](Self::floor) | 0 | ≤ `peak` | the value at the end | the hyper-parameter's |
/// | [`anneal`](Self::anneal) | `Cosine` | | the shape of the decay | |
///
/// # Values
/// `start` at step 0, `peak` at steps `warmup` to `warmup + stable`, `floor` from step `warmup + stable + decay` on. A part of 0 steps is skipped.
///
/// # Conventions
/// Hugging Face's `get_wsd_schedule(num_warmup_steps, num_decay_steps, num_stable_steps=…, warmup_type="linear",
/// decay_type=…)`, step for step; its `min_lr_ratio` sets both ends: `.start(ratio * peak).floor(ratio * peak)`. PyTorch and optax have no
/// counterpart. The length of the stable part need not be known in advance: a run can be extended from any point of it.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Anneal, Schedule, WarmupStableDecay};
///
/// let schedule = WarmupStableDecay::new(1.0, 10, 70, 20).anneal(Anneal::OneMinusSqrt);
/// assert_eq!([0, 5, 10, 80, 85, 100].map(|t| schedule.at(t)), [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]);
/// ```
///
/// # References
/// S. Hu et al., *MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies*, 2024,
/// [arXiv:2404.06395](https://arxiv.org/abs/2404.06395), sec. 4; `1 − √p`: A. Hägele et al., *Scaling Laws and Compute-Optimal Training Beyond Fixed
/// Training Durations*, 2024, [arXiv:2405.18392](https://arxiv.org/abs/2405.18392).
#[doc(alias = "WSD")]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct WarmupStableDecay {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    warmup: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    stable: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    decay: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::start", with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::floor", with = "number"))]
    floor: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::anneal"))]
    anneal: Anneal,
}

left_out!(left_out: WarmupStableDecay::new(0.0, 0, 0, 0); start: f64, floor: f64, anneal: Anneal);

in_one_line!(WarmupStableDecay: peak, warmup, stable, decay; WarmupStableDecay::new(0.0, 0, 0, 0) => start, floor, anneal);

impl WarmupStableDecay {
    /// `warmup` steps up to the peak, `stable` steps at the peak, `decay` steps down.
    pub fn new(peak: f64, warmup: u64, stable: u64, decay: u64) -> Self {
        Self { peak, warmup, stable, decay, start: 0.0, floor: 0.0, anneal: Anneal::Cosine }
    }

    /// The value at step 0; 0 by default.
    pub fn start(mut self, start: f64) -> Self {
        self.start = start;
        self
    }

    /// The value at the end; 0 by default.
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }

    /// The shape of the decay; [`Anneal::Cosine`] by default.
    pub fn anneal(mut self, anneal: Anneal) -> Self {
        self.anneal = anneal;
        self
    }
}

impl Schedule for WarmupStableDecay {
    fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return Anneal::Linear.between(self.start, self.peak, progress(step, self.warmup));
        }
        match (step - self.warmup).checked_sub(self.stable) {
            None => self.peak,
            Some(step) => self.anneal.between(self.peak, self.floor, progress(step, self.decay)),
        }
    }

    fn first_value(&self) -> f64 {
        if self.warmup == 0 { self.peak } else { self.start }
    }

    fn check(&self) -> Result<()> {
        finite("WarmupStableDecay", "start", self.start)?;
        floor_and_peak("WarmupStableDecay", self.floor, self.peak)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_parts() {
        let schedule = WarmupStableDecay::new(1.0, 2, 3, 4).start(0.5).floor(0.2).anneal(Anneal::Linear);
        let expected = [0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2];
        for (step, value) in (0..).zip(expected) {
            assert!((schedule.at(step) - value).abs() <= f64::EPSILON, "{step}");
        }
    }

    #[test]
    fn parts_of_no_length_are_left_out() {
        assert_eq!(WarmupStableDecay::new(1.0, 0, 0, 0).floor(0.25).at(0), 0.25);
        assert_eq!(WarmupStableDecay::new(1.0, 0, 2, 0).floor(0.25).at(1), 1.0);
        assert_eq!(WarmupStableDecay::new(1.0, 0, 2, 0).floor(0.25).at(2), 0.25);
    }
}
