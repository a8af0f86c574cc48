//! The learning-rate range test: the loss while the learning rate grows.

use crate::error::{ArgumentError, Error, Result, StepError, ensure_count};
use crate::params::{Element, Owned, Params, ParamsMut, for_each, for_each_mut};
use crate::step::{Adjust, Optimizer, take_step};

/// Finds a learning rate: takes steps with rates that grow exponentially from `start` to `end`, and records the loss. Parameters and optimizer are put back.
///
/// The loss falls while the rate is right, and rises when it is too large. The test stops when the smoothed loss exceeds 4 times its lowest value, if a
/// loss is not finite, or if an adaptor rejects a gradient that is not finite. It then restores the parameters and the optimizer's state bit for bit, and also if a step returns an error.
///
/// # Formula
/// In call number i = 0, 1, …, n − 1, with the loss Lᵢ before the step:
/// ```text
/// ηᵢ = start · (end/start)^(i/(n−1))
/// s ← Lᵢ + 0.98·(s − Lᵢ),   smoothed lossᵢ = s/(1 − 0.98^(i+1))        s = 0 at first
/// ```
///
/// # Conventions
/// fastai's `lr_find`: smoothing, end and [suggestions](RangeCurve) are the same if all losses are finite, except that for a valley at the first two points
/// fastai suggests the last rate. There, the last rate is one step before `end`.
///
/// The loss must be positive. If yours is not, add a constant to it. On several ranks, return the mean loss of all ranks, so that all stop at the same step.
///
/// The rate replaces the optimizer's own, schedule and warm-up included. Groups change it as they change any rate: a group with a rate of its own keeps
/// that. State outside of the optimizer, such as that of your data loader, is yours. A [`Monitor`](crate::adaptor::Monitor) in the chain writes the steps
/// of the test, so add it afterwards.
///
/// # Example
/// ```
/// use gradus::{check::RangeTest, prelude::*};
/// use ndarray::{Array1, array};
///
/// let (mut opt, mut w) = (Sgd::new(0.0), array![3.0, -2.0]);
/// let curve = RangeTest::new(1e-4, 10.0, 100).run(&mut opt, &mut w, |w: &Array1<f64>| (w.dot(w), 2.0 * w))?;
/// let rate = curve.valley().unwrap_or(0.01);
/// assert!(0.01 < rate && rate < 1.0, "{rate}"); // above 1 it diverges
/// assert_eq!((&w, opt.steps()), (&array![3.0, -2.0], 0));
/// opt.set_learning_rate(rate);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// L. N. Smith, *Cyclical Learning Rates for Training Neural Networks* (2017), [arXiv:1506.01186](https://arxiv.org/abs/1506.01186), sec. 3.3.
/// fastai 2.7, `fastai.callback.schedule`.
#[doc(alias("lr_find", "LRFinder", "learning rate finder", "auto_lr_find"))]
#[derive(Debug, Clone)]
#[must_use = "call `run`"]
pub struct RangeTest {
    start: f64,
    end: f64,
    steps: u64,
}

/// The fraction of the smoothed loss that is kept per step.
const SMOOTHING: f64 = 0.98;

/// The test ends when the smoothed loss exceeds this many times its lowest value.
const DIVERGENCE: f64 = 4.0;

/// The learning rates of a [`RangeTest`], each with the smoothed loss.
///
/// The suggestions are fastai's. As there, the first tenth of the planned steps and the last 5 points do not count. A suggestion is `None` if fewer than two
/// points are left.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct RangeCurve {
    /// The learning rates, growing.
    pub rates: Vec<f64>,
    /// The smoothed loss of each, before the step with that rate.
    pub losses: Vec<f64>,
    /// The number of steps that were planned. The test has stopped early if there are fewer points.
    pub planned: u64,
}

impl RangeTest {
    /// Plans `steps` steps with learning rates from `start` to `end`. fastai's defaults are 1e-7, 10 and 100.
    pub fn new(start: f64, end: f64, steps: u64) -> Self {
        Self { start, end, steps }
    }

    /// Takes the steps. `evaluate` returns the loss and the gradients at the given parameters, usually on the next batch.
    ///
    /// # Errors
    /// [`ArgumentError::Range`] unless 0 < `start` < `end` < ∞, [`ArgumentError::Zero`] if there are no steps, and those of
    /// [`step`](Optimizer::step). A gradient that is not finite ends the test without an error.
    pub fn run<P, G, L>(
        &self,
        opt: &mut (impl Optimizer<P::Elem> + ?Sized),
        params: &mut P,
        evaluate: impl FnMut(&P) -> (L, G),
    ) -> Result<RangeCurve>
    where
        P: ParamsMut,
        G: Params<Elem = P::Elem>,
        L: Into<f64>,
    {
        let range = |argument, value: f64, accepted: String| {
            Err(Error::Argument(ArgumentError::Range { argument, value, accepted }))
        };
        if !(self.start > 0.0 && self.start.is_finite()) {
            return range("start", self.start, "a finite number > 0".into());
        }
        if !(self.end > self.start && self.end.is_finite()) {
            return range("end", self.end, format!("a finite number > {}, the start", self.start));
        }
        ensure_count("steps", self.steps)?;
        let (state, mut before) = (opt.state_dict(), Vec::new());
        for_each(&*params, |_, shape, values| before.extend(values.map(|values| Owned::copy(&values, shape))));
        let curve = self.take(opt, params, evaluate);
        let mut before = before.iter();
        for_each_mut(params, |_, shape, values| {
            if let (Some(mut values), Some(before)) = (values, before.next()) {
                values.view_mut(shape).assign(&before.as_values().view(shape));
            }
        });
        opt.load_state_dict(&state)?;
        curve
    }

    fn rate(&self, number: u64) -> f64 {
        let part = number as f64 / (self.steps - 1).max(1) as f64;
        self.start.powf(1.0 - part) * self.end.powf(part)
    }

    fn take<A: Element, P: ParamsMut<Elem = A>, G: Params<Elem = A>, L: Into<f64>>(
        &self,
        opt: &mut (impl Optimizer<A> + ?Sized),
        params: &mut P,
        mut evaluate: impl FnMut(&P) -> (L, G),
    ) -> Result<RangeCurve> {
        let mut curve = RangeCurve { rates: Vec::new(), losses: Vec::new(), planned: self.steps };
        let (mut sum, mut weight, mut lowest) = (0.0, 1.0, f64::INFINITY);
        for number in 0..self.steps {
            let (rate, (loss, grads)) = (self.rate(number), evaluate(params));
            let loss = loss.into();
            if !loss.is_finite() {
                break;
            }
            (sum, weight) = (loss + SMOOTHING * (sum - loss), weight * SMOOTHING);
            let smoothed = sum / (1.0 - weight);
            curve.rates.push(rate);
            curve.losses.push(smoothed);
            lowest = smoothed.min(lowest);
            if smoothed > DIVERGENCE * lowest {
                break;
            }
            let result = take_step(opt, (params, &grads), |step| {
                let adjust = Adjust { value: Some(rate), scale: 1.0 };
                step.iter_mut().for_each(|(_, tensor)| tensor.learning_rate = adjust);
                Ok(())
            });
            match result {
                Err(Error::Step(
                    StepError::NonFiniteGradient { .. }
                    | StepError::NormOverflow { .. }
                    | StepError::TooManySkipped { .. },
                )) => break,
                result => _ = result?,
            }
        }
        Ok(curve)
    }
}

impl RangeCurve {
    /// The points that count: none or at least two.
    fn points(&self) -> (&[f64], &[f64]) {
        let points = (self.planned / 10) as usize..self.rates.len().min(self.losses.len()).saturating_sub(5);
        if points.len() < 2 {
            return (&[], &[]);
        }
        (&self.rates[points.clone()], &self.losses[points])
    }

    /// The learning rate at which the loss falls most steeply over the logarithm of the rate: fastai's `steep`.
    pub fn steepest(&self) -> Option<f64> {
        let (rates, losses) = self.points();
        let slopes = losses
            .windows(2)
            .zip(rates.windows(2))
            .map(|(loss, rate)| (loss[1] - loss[0]) / (rate[1].ln() - rate[0].ln()));
        let (at, _) = slopes.enumerate().min_by(|left, right| left.1.total_cmp(&right.1))?;
        rates.get(at).copied()
    }

    /// A rate in the middle of the longest valley, which is the longest falling subsequence of the losses: fastai's `valley`, its default.
    pub fn valley(&self) -> Option<f64> {
        let (rates, losses) = self.points();
        let mut lengths = vec![1_usize; losses.len()];
        let mut end = 0;
        for at in 1..losses.len() {
            let before = (0..at).filter(|before| losses[at] < losses[*before]).map(|before| lengths[before]).max();
            lengths[at] = before.map_or(1, |before| before + 1);
            if lengths[at] > lengths[end] {
                end = at;
            }
        }
        let length = *lengths.get(end)?;
        // From the point before the valley, a third and a half of that: whole points.
        let at = (end + length / 3 + length / 6).saturating_sub(length);
        rates.get(at).copied()
    }

    /// A tenth of the rate with the lowest loss: fastai's `minimum`.
    pub fn minimum(&self) -> Option<f64> {
        let (rates, losses) = self.points();
        let (at, _) = losses.iter().enumerate().min_by(|left, right| left.1.total_cmp(right.1))?;
        rates.get(at).map(|rate| rate / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};
    use serde_json::Value;

    use super::*;
    use crate::prelude::*;
    use crate::state::StateDict;

    /// The rules as the script beside the file has them.
    #[test]
    fn suggestions_are_fastais() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/range_test.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let numbers = |name: &str| -> Vec<f64> {
                case[name].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
            };
            let planned = case["planned"].as_u64().unwrap();
            // The losses of a run that has been stopped are those of the rates that it has reached.
            let test = RangeTest::new(1e-7, 10.0, planned);
            let raw = numbers("raw");
            let mut next = raw.iter();
            let curve =
                test.run(&mut Sgd::new(0.0), &mut array![0.0], |_| (*next.next().unwrap(), array![0.0])).unwrap();
            let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-12;
            let all_near = |found: &[f64], expected: Vec<f64>| {
                found.len() == expected.len()
                    && found.iter().zip(expected).all(|(found, expected)| near(*found, expected))
            };
            assert!(all_near(&curve.rates, numbers("rates")) && all_near(&curve.losses, numbers("losses")));
            for (name, found) in [("steep", curve.steepest()), ("valley", curve.valley()), ("minimum", curve.minimum())]
            {
                let expected = case[name].as_f64();
                assert!(
                    found.zip(expected).map_or(found == expected, |(a, b)| near(a, b)),
                    "{name}: {found:?} {expected:?}"
                );
            }
        }
    }

    fn bits(state: &StateDict) -> String {
        format!("{state:?}")
    }

    /// Whether the test ends, stops or errs, everything is as it was.
    #[test]
    fn parameters_and_state_are_put_back() {
        let grad = |w: &Array1<f64>| (w.dot(w), 2.0 * w);
        for fresh in [true, false] {
            let mut opt =
                Adam::new(0.1).group("nothing.here", Group::no_decay()).into_inner().ema(0.9).clip_global_norm(1.0);
            let mut w = array![3.0, -2.0];
            if !fresh {
                opt.step(&mut w, &array![1.0, 0.1]).unwrap();
            }
            let before = (w.clone(), bits(&opt.state_dict()), opt.layout().cloned());
            let same = |opt: &mut dyn Optimizer<f64>, w: &Array1<f64>| {
                assert_eq!((w.clone(), bits(&opt.state_dict()), opt.layout().cloned()), before);
            };
            let ended = RangeTest::new(1e-9, 1e-8, 20).run(&mut opt, &mut w, grad).unwrap();
            assert_eq!((ended.rates.len(), ended.rates[0]), (20, 1e-9));
            assert!((ended.rates[19] / 1e-8 - 1.0).abs() < 1e-14);
            same(&mut opt, &w);
            let stopped = RangeTest::new(1e-2, 1e9, 50).run(&mut opt, &mut w, grad).unwrap();
            assert!(stopped.rates.len() < 50);
            same(&mut opt, &w);
            let mut calls = 0;
            let not_finite = |w: &Array1<f64>| {
                calls += 1;
                (if calls == 4 { f64::NAN } else { w.dot(w) }, 2.0 * w)
            };
            assert_eq!(RangeTest::new(1e-3, 1.0, 50).run(&mut opt, &mut w, not_finite).unwrap().rates.len(), 3);
            let no_gradient = |w: &Array1<f64>| (w.dot(w), w.mapv(|_| f64::NAN));
            assert_eq!(RangeTest::new(1e-3, 1.0, 50).run(&mut opt, &mut w, no_gradient).unwrap().rates.len(), 1);
            same(&mut opt, &w);
            let mut left = 3;
            let other_shape = |w: &Array1<f64>| {
                left -= 1;
                (w.dot(w), if left == 0 { array![1.0] } else { 2.0 * w })
            };
            let error = RangeTest::new(1e-3, 1.0, 50).run(&mut opt, &mut w, other_shape).unwrap_err();
            assert!(matches!(error, Error::Step(StepError::ShapeMismatch { .. })), "{error}");
            same(&mut opt, &w);
        }
    }

    /// The steps are those of an optimizer with that learning rate, and groups change it as they do there.
    #[test]
    fn steps_are_those_of_the_rates() {
        let tree = |a: f64, b: f64| (array![a], array![b]);
        let chain = |rate: f64| Momentum::new(rate, 0.9).group("1", Group::new().scale_learning_rate(0.5));
        let mut seen = Vec::new();
        let (mut w, mut opt) = (tree(1.0, 1.0), chain(123.0));
        let curve = RangeTest::new(0.001, 0.1, 5).run(&mut opt, &mut w, |w| {
            seen.push(w.clone());
            (1.0, tree(1.0, 1.0))
        });
        let (mut w, mut opt) = (tree(1.0, 1.0), chain(0.0));
        for (rate, seen) in curve.unwrap().rates.into_iter().zip(seen) {
            assert_eq!(w, seen);
            opt.set_learning_rate(rate);
            opt.step(&mut w, &tree(1.0, 1.0)).unwrap();
        }
    }

    #[test]
    fn arguments_are_checked() {
        let run = |start, end, steps| {
            let test = RangeTest::new(start, end, steps);
            test.run(&mut Sgd::new(0.1), &mut array![0.0], |_| (1.0, array![0.0]))
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(run(1e-7, 10.0, 1), Ok(()));
        assert_eq!(run(0.0, 1.0, 5).unwrap_err(), "start is 0; it must be a finite number > 0");
        assert_eq!(run(1.0, 1.0, 5).unwrap_err(), "end is 1; it must be a finite number > 1, the start");
        assert!(run(f64::NAN, 1.0, 5).is_err() && run(0.1, f64::INFINITY, 5).is_err() && run(0.1, 1.0, 0).is_err());
    }
}
