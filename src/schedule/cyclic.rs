//! Cyclic schedules: triangles.

use super::anneal::{decay_factor, finite, left_out, mix, product, progress, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Rises and falls linearly between two values, in repeated triangles.
///
/// # Formula
/// ```text
/// i = ⌊t / (up + down)⌋,  s = t − i · (up + down)
/// x = s / up  if s ≤ up,  else  (up + down − s) / down
/// at(t) = base + (max − base) · x · height
///
/// height = 1         by default (PyTorch's "triangular")
///          2^−i      triangular2
///          gamma^t   exp_range
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `base` | – | finite | the value at the foot of each triangle | the hyper-parameter's |
/// | `max` | – | finite | the value at the top of the first | the hyper-parameter's |
/// | `up` | – | `up + down` ≥ 1 | the length of the rise | steps |
/// | [`down`](Self::down) | `up` | `up + down` ≥ 1 | the length of the fall | steps |
/// | [`triangular2`](Self::triangular2) | no | | halves the height after each triangle | |
/// | [`exp_range`](Self::exp_range) | no | `gamma` ≥ 0 | multiplies the height by `gamma` at each step | 1 |
///
/// # Values
/// `base` at step 0, `max` at step `up`, `base` at step `up + down`. There is no end. If `up` is 0, the first value is `max`.
///
/// # Conventions
/// PyTorch's `CyclicLR(base_lr, max_lr, step_size_up, step_size_down, mode, gamma)` with `cycle_momentum=False`, step
/// for step; PyTorch needs `up` ≥ 1. The momentum that `cycle_momentum=True` moves against the learning rate is
/// `Cyclic::new(max_momentum, base_momentum, up)` with the same options. optax has no counterpart.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Cyclic, Schedule};
///
/// let schedule = Cyclic::new(1.0, 3.0, 4).down(2).triangular2();
/// assert_eq!([0, 2, 4, 5, 6, 10].map(|t| schedule.at(t)), [1.0, 2.0, 3.0, 2.0, 1.0, 2.0]);
/// ```
///
/// # References
/// L. N. Smith, *Cyclical Learning Rates for Training Neural Networks*, 2015, [arXiv:1506.01186](https://arxiv.org/abs/1506.01186), sec. 3.1.
#[doc(alias = "CyclicLR")]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Cyclic {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    base: f64,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    max: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    up: u64,
    /// `None`: as long as the rise.
    #[cfg_attr(feature = "serde", serde(default, deserialize_with = "number::optional_count"))]
    down: Option<u64>,
    #[cfg_attr(feature = "serde", serde(default = "left_out::height"))]
    height: Height,
}

/// How the height of the triangles changes.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Height {
    Same,
    Halved,
    Power(f64),
}

left_out!(left_out: Cyclic::new(0.0, 0.0, 0); height: Height);

in_one_line!(Cyclic: base, max, up; Cyclic::new(0.0, 0.0, 0) => down, height);

impl Cyclic {
    /// From `base` to `max` in `up` steps, and back in `up` steps.
    pub fn new(base: f64, max: f64, up: u64) -> Self {
        Self { base, max, up, down: None, height: Height::Same }
    }

    /// The length of the fall; as long as the rise by default.
    pub fn down(mut self, down: u64) -> Self {
        self.down = Some(down);
        self
    }

    /// Each triangle is half as high as the one before.
    pub fn triangular2(mut self) -> Self {
        self.height = Height::Halved;
        self
    }

    /// The height is multiplied by `gamma` at every step.
    pub fn exp_range(mut self, gamma: f64) -> Self {
        self.height = Height::Power(gamma);
        self
    }
}

impl Schedule for Cyclic {
    fn at(&self, step: u64) -> f64 {
        let down = self.down.unwrap_or(self.up);
        let period = self.up.saturating_add(down).max(1);
        let within = step % period;
        let x = if within <= self.up { progress(within, self.up) } else { progress(period - within, down) };
        let height = match self.height {
            Height::Same => 1.0,
            Height::Halved => (-((step / period) as f64)).exp2(),
            Height::Power(gamma) => gamma.powf(step as f64),
        };
        match product(x, height) {
            part @ 0.0..=1.0 => mix(self.base, self.max, part),
            beyond => self.base + product(self.max - self.base, beyond),
        }
    }

    fn check(&self) -> Result<()> {
        finite("Cyclic", "base", self.base)?;
        finite("Cyclic", "max", self.max)?;
        require(self.up > 0 || self.down > Some(0), "Cyclic", "up", 0.0, "above 0, unless down is")?;
        match self.height {
            Height::Power(gamma) => decay_factor("Cyclic", gamma),
            Height::Same | Height::Halved => Ok(()),
        }
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sawtooth_has_no_fall_or_no_rise() {
        assert_eq!([0, 1, 2, 3, 4].map(|t| Cyclic::new(0.0, 4.0, 4).down(0).at(t)), [0.0, 1.0, 2.0, 3.0, 0.0]);
        assert_eq!([0, 1, 2, 3, 4].map(|t| Cyclic::new(0.0, 4.0, 0).down(4).at(t)), [4.0, 3.0, 2.0, 1.0, 4.0]);
    }

    #[test]
    fn heights() {
        assert_eq!([1, 3, 5].map(|t| Cyclic::new(0.0, 1.0, 1).triangular2().at(t)), [1.0, 0.5, 0.25]);
        assert_eq!([1, 3, 5].map(|t| Cyclic::new(0.0, 1.0, 1).exp_range(0.5).at(t)), [0.5, 0.125, 0.03125]);
        assert_eq!(Cyclic::new(1.0, 2.0, 1).exp_range(2.0).at(3), 9.0);
    }
}
