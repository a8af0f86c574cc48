//! The one-cycle schedule: up to a large value, then down to a tiny one.

use super::anneal::{Anneal, finite, left_out, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Rises to a peak once, and then falls far below the first value.
///
/// # Formula
/// ```text
/// start = peak / div_factor
/// end = start / final_div_factor
///
/// two phases:    0 ─ start→peak ─ pct_start·steps − 1 ─ peak→end ─ steps − 1
/// three phases:  0 ─ start→peak ─ pct_start·steps − 1 ─ peak→start ─ 2·pct_start·steps − 2 ─ start→end ─ steps − 1
/// ```
/// Within a phase from step `a`, value `v`, to step `b`, value `w`, with `p = (t − a) / (b − a)`:
/// ```text
/// cosine: at(t) = v + (w − v) · (1 − cos πp) / 2
/// linear: at(t) = v + (w − v) · p
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `peak` | – | finite | the largest value | the hyper-parameter's |
/// | `steps` | – | any | the number of steps; the last one is `steps − 1` | steps |
/// | [`pct_start`](Self::pct_start) | 0.3 | 0 to 1; three phases: to 0.5 | the fraction of the steps in which the value rises | 1 |
/// | [`div_factor`](Self::div_factor) | 25 | > 0 | peak divided by first value | 1 |
/// | [`final_div_factor`](Self::final_div_factor) | 10⁴ | > 0 | first value divided by last value | 1 |
/// | [`anneal`](Self::anneal) | `Cosine` | | the shape of the phases | |
/// | [`three_phase`](Self::three_phase) | no | | first back to the first value, then to the last value | |
///
/// # Values
/// `peak / div_factor` at step 0, `end` from step `steps − 1` on. The peak may be between two steps, because its position need not be a whole
/// number. With 0 steps the value is `end` everywhere.
///
/// # Conventions
/// PyTorch's `OneCycleLR(max_lr, total_steps, …)` with `cycle_momentum=False`, step for step; after its last step PyTorch raises an error. For
/// `cycle_momentum=True`, set `momentum` or `beta1` to
/// `OneCycle::new(base_momentum, steps).div_factor(base_momentum / max_momentum).final_div_factor(1.0)` with the same other options.
/// optax's `cosine_onecycle_schedule` ends each phase one step later, at a whole step: use [`PiecewiseCosine`](super::PiecewiseCosine), and
/// [`PiecewiseLinear`](super::PiecewiseLinear) for its `linear_onecycle_schedule`.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{OneCycle, Schedule};
///
/// let schedule = OneCycle::new(1.0, 100).div_factor(4.0).final_div_factor(8.0);
/// assert_eq!([0, 29, 99, 100].map(|t| schedule.at(t)), [0.25, 1.0, 0.03125, 0.03125]);
/// ```
///
/// # References
/// L. N. Smith, N. Topin, *Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates*, 2017,
/// [arXiv:1708.07120](https://arxiv.org/abs/1708.07120).
#[doc(alias = "OneCycleLR")]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct OneCycle {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    steps: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::pct_start", with = "number"))]
    pct_start: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::div_factor", with = "number"))]
    div_factor: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::final_div_factor", with = "number"))]
    final_div_factor: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::anneal"))]
    anneal: Anneal,
    #[cfg_attr(feature = "serde", serde(default = "left_out::three_phase"))]
    three_phase: bool,
}

left_out!(
    left_out: OneCycle::new(0.0, 0);
    pct_start: f64, div_factor: f64, final_div_factor: f64, anneal: Anneal, three_phase: bool
);

in_one_line!(OneCycle: peak, steps; OneCycle::new(0.0, 0) => pct_start, div_factor, final_div_factor, anneal, three_phase);

impl OneCycle {
    /// One cycle of `steps` steps, with PyTorch's defaults.
    pub fn new(peak: f64, steps: u64) -> Self {
        Self {
            peak,
            steps,
            pct_start: 0.3,
            div_factor: 25.0,
            final_div_factor: 1e4,
            anneal: Anneal::Cosine,
            three_phase: false,
        }
    }

    /// The fraction of the steps in which the value rises; 0.3 by default.
    pub fn pct_start(mut self, pct_start: f64) -> Self {
        self.pct_start = pct_start;
        self
    }

    /// The peak divided by the first value; 25 by default.
    pub fn div_factor(mut self, div_factor: f64) -> Self {
        self.div_factor = div_factor;
        self
    }

    /// The first value divided by the last; 10⁴ by default.
    pub fn final_div_factor(mut self, final_div_factor: f64) -> Self {
        self.final_div_factor = final_div_factor;
        self
    }

    /// The shape of the phases; [`Anneal::Cosine`] by default.
    pub fn anneal(mut self, anneal: Anneal) -> Self {
        self.anneal = anneal;
        self
    }

    /// Falls to the first value in as many steps as it rose, and then to the last value.
    pub fn three_phase(mut self) -> Self {
        self.three_phase = true;
        self
    }
}

impl Schedule for OneCycle {
    fn at(&self, step: u64) -> f64 {
        let (step, steps) = (step as f64, self.steps as f64);
        let start = self.peak / self.div_factor;
        let end = start / self.final_div_factor;
        let peak_at = self.pct_start * steps - 1.0;
        let back_at = 2.0 * self.pct_start * steps - 2.0;
        let down = if self.three_phase { (back_at, start) } else { (steps - 1.0, end) };

        let (mut since, mut from) = (0.0, start);
        for (until, to) in [(peak_at, self.peak), down, (steps - 1.0, end)] {
            if step <= until {
                let done = if until > since { (step - since) / (until - since) } else { 1.0 };
                return self.anneal.between(from, to, done);
            }
            (since, from) = (until, to);
        }
        end
    }

    fn first_value(&self) -> f64 {
        if self.steps == 0 { self.peak / self.div_factor } else { self.at(0) }
    }

    fn check(&self) -> Result<()> {
        finite("OneCycle", "peak", self.peak)?;
        let (last, accepted) =
            if self.three_phase { (0.5, "0 to 0.5 with three phases") } else { (1.0, "a number from 0 to 1") };
        require((0.0..=last).contains(&self.pct_start), "OneCycle", "pct_start", self.pct_start, accepted)?;
        let (mut value, factors) =
            (self.peak, [("div_factor", self.div_factor), ("final_div_factor", self.final_div_factor)]);
        factors.into_iter().try_for_each(|(name, factor)| {
            require(factor.is_finite() && factor > 0.0, "OneCycle", name, factor, "a finite number > 0")?;
            value /= factor;
            require(value.is_finite(), "OneCycle", name, factor, "a number so large that its quotient is finite")
        })
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_linear_phases() {
        // Up at steps 0 to 2, down at steps 2 to 6.
        let schedule =
            OneCycle::new(1.0, 6).pct_start(0.5).div_factor(2.0).final_div_factor(4.0).anneal(Anneal::Linear);
        let values = [0, 1, 2, 3, 4, 5, 6].map(|t| schedule.at(t));
        let third = (1.0 - 0.125) / 3.0;
        assert_eq!(values[..3], [0.5, 0.75, 1.0]);
        assert!((values[3] - (1.0 - third)).abs() <= f64::EPSILON);
        assert!((values[4] - (1.0 - 2.0 * third)).abs() <= f64::EPSILON);
        assert_eq!(values[5..], [0.125, 0.125]);
    }

    #[test]
    fn three_linear_phases() {
        // Peak at 0.375·8 − 1 = 2, back at 2·0.375·8 − 2 = 4, end at 7.
        let schedule = OneCycle::new(1.0, 8).pct_start(0.375).div_factor(2.0).final_div_factor(4.0);
        let schedule = schedule.anneal(Anneal::Linear).three_phase();
        assert_eq!([0, 1, 2, 3, 4, 7, 8].map(|t| schedule.at(t)), [0.5, 0.75, 1.0, 0.75, 0.5, 0.125, 0.125]);
        assert!((schedule.at(5) - 0.375).abs() <= f64::EPSILON);
    }

    #[test]
    fn a_phase_without_length_is_done() {
        // The peak lies at step 0.
        assert_eq!(OneCycle::new(1.0, 10).pct_start(0.1).at(0), 1.0);
        assert_eq!(OneCycle::new(1.0, 0).div_factor(2.0).final_div_factor(2.0).at(0), 0.25);
        assert_eq!(OneCycle::new(1.0, 1).div_factor(2.0).final_div_factor(2.0).at(0), 0.25);
    }
}
