//! Reduction when a metric stops improving.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::anneal::{finite, left_out, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Memory, Remember, Schedule};
use crate::error::Result;
use crate::state::Commit;

/// Multiplies the value by a factor when a metric has stopped improving.
///
/// This schedule depends on more than the step. A clone is a handle to the same plateau: pass one to the optimizer, keep the other, and call
/// [`observe`](Self::observe) with the metric, usually once per epoch. Set the options before you clone it.
///
/// # Update rule
/// `observe(metric)`, in this order:
/// ```text
/// better(metric)?            best ← metric, bad ← 0        otherwise  bad ← bad + 1
/// pause > 0?                 pause ← pause − 1, bad ← 0
/// bad > patience?            pause ← cooldown, bad ← 0,
///                            new = max(value · factor, floor);  value − new > eps?  value ← new
///
/// better:  relative_threshold   metric < best · (1 − threshold)     maximize: metric > best · (1 + threshold)
///          absolute_threshold   metric < best − threshold           maximize: metric > best + threshold
/// ```
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `start` | – | finite | the first value | the hyper-parameter's |
/// | [`maximize`](Self::maximize) | no | | whether a larger metric is better | |
/// | [`factor`](Self::factor) | 0.1 | 0 ≤ factor < 1 | the factor of each reduction | 1 |
/// | [`patience`](Self::patience) | 10 | any | allowed number of observations without improvement; the next one reduces the value | observations |
/// | [`relative_threshold`](Self::relative_threshold) | 10⁻⁴ | 0 ≤ threshold < 1 | smallest improvement, as a fraction of the best metric | 1 |
/// | [`absolute_threshold`](Self::absolute_threshold) | – | ≥ 0 | smallest improvement, as a difference; it replaces the relative threshold | the metric's |
/// | [`cooldown`](Self::cooldown) | 0 | any | number of observations after a reduction that are ignored | observations |
/// | [`floor`](Self::floor) | 0 | finite | lower limit of reductions | the hyper-parameter's |
/// | [`eps`](Self::eps) | 10⁻⁸ | ≥ 0 | a reduction by this or less is skipped | the hyper-parameter's |
///
/// # State
/// [`PlateauState`]: the value, the best metric and two counts. If the plateau is a hyper-parameter of an optimizer or of an adaptor, its
/// state is part of [`state_dict`](crate::Optimizer::state_dict), and so of a checkpoint. If it is used in any other way, for example
/// inside a closure, save [`state`](Self::state) yourself, and pass it to [`restore`](Self::restore).
///
/// # Conventions
/// PyTorch's `ReduceLROnPlateau`, observation for observation, with its defaults. PyTorch reduces the optimizer's current learning rate; this
/// schedule has its own value. To reduce another schedule, write `schedule.times(Plateau::new(1.0))`; `floor` and `eps` then apply to the
/// factor. optax's `contrib.reduce_on_plateau` also averages the metric.
///
/// As in PyTorch, a NaN metric is an observation without improvement. With a relative threshold and a negative best metric, a slightly
/// *worse* metric counts as better, also as in PyTorch. If the metric can be negative, use [`absolute_threshold`](Self::absolute_threshold).
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Plateau, Schedule};
///
/// let plateau = Plateau::new(0.1).factor(0.5).patience(1);
/// let schedule = plateau.clone(); // for the optimizer
/// assert!(!plateau.observe(3.0)); // the best so far
/// assert!(!plateau.observe(3.0)); // no better: borne once
/// assert!(plateau.observe(4.0)); // no better again: reduced
/// assert_eq!(schedule.at(300), 0.05);
/// ```
#[doc(alias = "ReduceLROnPlateau")]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Plateau {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::maximize"))]
    maximize: bool,
    #[cfg_attr(feature = "serde", serde(default = "left_out::factor", with = "number"))]
    factor: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::patience", deserialize_with = "number::count"))]
    patience: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::threshold"))]
    threshold: Threshold,
    #[cfg_attr(feature = "serde", serde(default = "left_out::cooldown", deserialize_with = "number::count"))]
    cooldown: u64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::floor", with = "number"))]
    floor: f64,
    #[cfg_attr(feature = "serde", serde(default = "left_out::eps", with = "number"))]
    eps: f64,
    /// Shared by the clones; `None` inside until the first observation, so that setters need no lock.
    #[cfg_attr(feature = "serde", serde(skip))]
    state: Arc<Mutex<Option<PlateauState>>>,
}

/// The state of a [`Plateau`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct PlateauState {
    /// The value of the schedule.
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    pub value: f64,
    /// The best metric so far; before the first one +∞, or −∞ if larger is better.
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    pub best: f64,
    /// The number of consecutive observations without improvement.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub bad: u64,
    /// The number of next observations that will be ignored.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub pause: u64,
}

/// How much better a metric must be.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Threshold {
    Relative(f64),
    Absolute(f64),
}

left_out!(
    left_out: Plateau::new(0.0);
    maximize: bool, factor: f64, patience: u64, threshold: Threshold, cooldown: u64, floor: f64, eps: f64
);

in_one_line!(Plateau: start; Plateau::new(0.0) => maximize, factor, patience, threshold, cooldown, floor, eps);

impl Plateau {
    /// The value `start` until the metric stops falling, with PyTorch's defaults.
    pub fn new(start: f64) -> Self {
        Self {
            start,
            maximize: false,
            factor: 0.1,
            patience: 10,
            threshold: Threshold::Relative(1e-4),
            cooldown: 0,
            floor: 0.0,
            eps: 1e-8,
            state: Arc::default(),
        }
    }

    /// Whether a larger metric is better, such as an accuracy. Off by default.
    pub fn maximize(mut self, maximize: bool) -> Self {
        self.maximize = maximize;
        self
    }

    /// The factor of each reduction; 0.1 by default.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The allowed number of observations without improvement; 10 by default.
    pub fn patience(mut self, patience: u64) -> Self {
        self.patience = patience;
        self
    }

    /// The smallest improvement as a fraction of the best metric; 10⁻⁴ by default.
    pub fn relative_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Threshold::Relative(threshold);
        self
    }

    /// The smallest improvement as a difference.
    pub fn absolute_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Threshold::Absolute(threshold);
        self
    }

    /// The number of observations after a reduction that are ignored; 0 by default.
    pub fn cooldown(mut self, cooldown: u64) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// The lower limit of reductions; 0 by default.
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = floor;
        self
    }

    /// A reduction by this or less is skipped; 10⁻⁸ by default.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Records a new metric, and returns whether the value was reduced.
    pub fn observe(&self, metric: f64) -> bool {
        let mut shared = self.lock();
        let mut state = shared.unwrap_or(self.initial());
        if self.better(metric, state.best) {
            state.best = metric;
            state.bad = 0;
        } else {
            state.bad = state.bad.saturating_add(1);
        }
        if state.pause > 0 {
            state.pause -= 1;
            state.bad = 0;
        }
        let mut reduced = false;
        if state.bad > self.patience {
            state.pause = self.cooldown;
            state.bad = 0;
            let value = (state.value * self.factor).max(self.floor);
            reduced = state.value - value > self.eps;
            if reduced {
                state.value = value;
            }
        }
        *shared = Some(state);
        reduced
    }

    /// A copy of the state, to be saved.
    pub fn state(&self) -> PlateauState {
        self.lock().unwrap_or(self.initial())
    }

    /// Restores a saved state, for all clones.
    pub fn restore(&self, state: PlateauState) {
        *self.lock() = Some(state);
    }

    fn better(&self, metric: f64, best: f64) -> bool {
        match (self.threshold, self.maximize) {
            (Threshold::Relative(part), false) => metric < best * (1.0 - part),
            (Threshold::Relative(part), true) => metric > best * (1.0 + part),
            (Threshold::Absolute(difference), false) => metric < best - difference,
            (Threshold::Absolute(difference), true) => metric > best + difference,
        }
    }

    fn initial(&self) -> PlateauState {
        let best = if self.maximize { f64::NEG_INFINITY } else { f64::INFINITY };
        PlateauState { value: self.start, best, bad: 0, pause: 0 }
    }

    /// A state is written whole, so one that a panicking thread left behind is in order.
    fn lock(&self) -> MutexGuard<'_, Option<PlateauState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for PlateauState {
    /// Four numbers, as [`FromStr`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.value, self.best, self.bad, self.pause)
    }
}

impl FromStr for PlateauState {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut numbers = text.split(' ');
        let mut next = || numbers.next().ok_or(());
        let (value, best) = (next()?.parse().map_err(drop)?, next()?.parse().map_err(drop)?);
        let (bad, pause) = (next()?.parse().map_err(drop)?, next()?.parse().map_err(drop)?);
        if numbers.next().is_none() { Ok(Self { value, best, bad, pause }) } else { Err(()) }
    }
}

impl Schedule for Plateau {
    /// The value now, whatever the step.
    fn at(&self, _: u64) -> f64 {
        self.lock().map_or(self.start, |state| state.value)
    }

    fn check(&self) -> Result<()> {
        const PART: &str = "a number in 0 ≤ … < 1";
        const SIZE: &str = "a finite number ≥ 0";
        let (threshold, right, accepted) = match self.threshold {
            Threshold::Relative(part) => (part, (0.0..1.0).contains(&part), PART),
            Threshold::Absolute(difference) => (difference, difference.is_finite() && difference >= 0.0, SIZE),
        };
        finite("Plateau", "start", self.start)?;
        require((0.0..1.0).contains(&self.factor), "Plateau", "factor", self.factor, PART)?;
        require(right, "Plateau", "threshold", threshold, accepted)?;
        finite("Plateau", "floor", self.floor)?;
        require(self.eps.is_finite() && self.eps >= 0.0, "Plateau", "eps", self.eps, SIZE)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::of(self)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Remember for Plateau {
    fn key(&self) -> &'static str {
        "plateau"
    }

    fn save(&self) -> String {
        self.state().to_string()
    }

    fn load(&self, saved: &str) -> Option<Commit<'static>> {
        let (state, shared) = (saved.parse().ok()?, self.clone());
        Some(Commit::new(move || shared.restore(state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(plateau: &Plateau, metrics: &[f64]) -> Vec<f64> {
        metrics
            .iter()
            .map(|metric| {
                plateau.observe(*metric);
                plateau.at(0)
            })
            .collect()
    }

    #[test]
    fn patience_is_borne_then_one_more_reduces() {
        let plateau = Plateau::new(1.0).factor(0.5).patience(2);
        assert_eq!(values(&plateau, &[1.0; 8]), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]);
    }

    #[test]
    fn cooldown_does_not_count() {
        let plateau = Plateau::new(1.0).factor(0.5).patience(0).cooldown(2);
        assert_eq!(values(&plateau, &[1.0; 8]), [1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]);
    }

    #[test]
    fn nan_is_no_improvement_whichever_way_is_better() {
        for plateau in [Plateau::new(1.0), Plateau::new(1.0).maximize(true)] {
            let plateau = plateau.factor(0.5).patience(1);
            assert_eq!(values(&plateau, &[1.0, f64::NAN, f64::NAN, f64::NAN]), [1.0, 1.0, 0.5, 0.5]);
            assert_eq!(plateau.state().best, 1.0);
        }
    }

    #[test]
    fn the_floor_and_eps_stop_the_reduction() {
        let plateau = Plateau::new(1.0).factor(0.5).patience(0).floor(0.3);
        assert!(!plateau.observe(1.0));
        assert!(plateau.observe(1.0));
        assert!(plateau.observe(1.0));
        assert!(!plateau.observe(1.0), "it is at the floor");
        assert_eq!(plateau.at(0), 0.3);
        let plateau = Plateau::new(1.0).factor(0.5).patience(0).eps(0.5);
        assert_eq!(values(&plateau, &[1.0; 3]), [1.0; 3]);
    }

    #[test]
    fn clones_share_their_state_and_a_restored_state_goes_on() {
        let metrics = [5.0, 4.0, 4.0, 4.0, 3.0, 3.5, 3.6, 3.0, 3.0, 3.0];
        let make = || Plateau::new(1.0).factor(0.5).patience(1).cooldown(1);
        let (whole, first, second) = (make(), make(), make());
        let expected = values(&whole, &metrics);
        let clone = first.clone();
        assert_eq!(values(&first, &metrics[..5]), expected[..5]);
        assert_eq!(clone.state(), first.state());
        second.restore(clone.state());
        assert_eq!(values(&second, &metrics[5..]), expected[5..]);
    }
}
