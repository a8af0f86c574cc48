//! Layer-wise learning-rate decay.

use std::fmt;

use super::{Outcome, Transform};
use crate::error::{Error, Result, StepError};
use crate::params::Element;
use crate::params::pattern::{Pattern, Selection};
use crate::schedule::Hyper;
use crate::step::Step;
use crate::step::memo::Note;

const NAME: &str = "layerwise_decay";

/// Gives each layer a smaller learning rate than the layer after it. Created by
/// [`OptimizerExt::layerwise_decay`](crate::OptimizerExt::layerwise_decay).
///
/// # Update rule
/// ```text
/// learning rate of layer i  =  η · rateⁿ⁻¹⁻ⁱ        (layers i = 0 … n − 1, from the input to the output)
/// ```
/// If several patterns match a tensor, the last one wins. A tensor that no pattern matches keeps η, as the last layer does. The factors
/// multiply with those of [groups](crate::OptimizerExt::group).
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `rate` | – | ≥ 0, and its powers are normal numbers | the factor from one layer to the one before it; 0.65 … 0.95 are usual |
///
/// # Errors
/// [`StepError::PatternUnmatched`] if a layer has no tensors, and [`StepError::HyperParameter`] if `rate` is out of range.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).layerwise_decay(0.5, ["0", "1", "2"]);
/// let mut w = [array![0.0], array![0.0], array![0.0]];
/// opt.step(&mut w, &[array![1.0], array![1.0], array![1.0]])?;
/// assert_eq!(w, [array![-0.25], array![-0.5], array![-1.0]]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Howard and S. Ruder, *Universal Language Model Fine-tuning for Text Classification* (2018), [arXiv:1801.06146](https://arxiv.org/abs/1801.06146), sec. 3.2.
#[derive(Clone)]
pub struct LayerwiseDecay {
    rate: Hyper,
    layers: Vec<Selection>,
}

impl LayerwiseDecay {
    /// Multiplies the learning rate by `rate` for each layer further from the output. `layers` has one pattern per layer, from the input to
    /// the output.
    pub fn new(rate: impl Into<Hyper>, layers: impl IntoIterator<Item = impl Into<Pattern>>) -> Self {
        Self { rate: rate.into(), layers: layers.into_iter().map(Selection::new).collect() }
    }
}

impl<A: Element> Transform<A> for LayerwiseDecay {
    fn name(&self) -> &'static str {
        "layerwise_decay"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![(NAME, &self.rate)]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let rate = self.rate.within(NAME, 0.0.., step.number())?;
        let mut factors = vec![1.0; step.layout().len()];
        for (layer, selection) in self.layers.iter().enumerate() {
            let power = self.layers.len() - 1 - layer;
            let factor = rate.powf(power as f64);
            let chosen = selection.choose(step.layout())?;
            if rate > 0.0 && !factor.is_normal() {
                let accepted = format!("0 or a number whose power of {power} is one");
                let path = selection.first(step.layout());
                return Err(Error::Step(StepError::HyperParameter {
                    name: NAME,
                    value: rate,
                    step: step.number(),
                    path,
                    pattern: None,
                    accepted,
                }));
            }
            factors.iter_mut().zip(&*chosen).filter(|(_, chosen)| **chosen).for_each(|(own, _)| *own = factor);
        }
        step.note(factors.iter().enumerate().map(|(at, factor)| (at, Note::Group(format!("{NAME} {factor}")))));
        step.zip_mut(factors).for_each(|(_, tensor, factor)| tensor.learning_rate.scale *= factor);
        Ok(Outcome::pass())
    }
}

impl fmt::Debug for LayerwiseDecay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers: Vec<_> = self.layers.iter().map(Selection::pattern).collect();
        write!(f, "layerwise_decay({:?}, {layers:?})", self.rate)
    }
}
