//! Learning rates that fall with the depth.

use std::sync::Arc;

use super::{around, ask_inner, state_of_inner};
use crate::error::{Error, Result, StepError};
use crate::params::pattern::{Pattern, Selection};
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::step::{Optimizer, Report, Step};

/// Gives each layer a smaller learning rate than the one after it: made by [`OptimizerExt::layerwise_decay`](crate::OptimizerExt::layerwise_decay).
///
/// # Update rule
/// ```text
/// η of layer i of the n given  =  η · rateⁿ⁻¹⁻ⁱ        (i = 0 … n − 1, from the input to the output)
/// ```
/// A tensor that several patterns choose belongs to the last of them; one that none chooses keeps η, as the last layer does.
/// Factors multiply those of [groups](crate::OptimizerExt::group) inside and outside.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `rate` | – | ≥ 0, and its powers are normal numbers | the factor from one layer to the one before it; 0.65 … 0.95 are usual |
///
/// # Errors
/// [`StepError::PatternUnmatched`] for a layer without tensors,
/// [`StepError::HyperParameter`].
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
#[derive(Debug, Clone)]
pub struct LayerwiseDecay<O> {
    inner: O,
    rate: Hyper,
    layers: Vec<Selection>,
}

around!(LayerwiseDecay<O>);

impl<O> LayerwiseDecay<O> {
    pub(crate) fn new(inner: O, rate: impl Into<Hyper>, layers: impl IntoIterator<Item = impl Into<Pattern>>) -> Self {
        Self { inner, rate: rate.into(), layers: layers.into_iter().map(Selection::new).collect() }
    }

    /// Changes the learning rates at a step.
    fn scale<A: Element>(&self, at: u64, step: &mut Step<'_, A>) -> Result<()> {
        const NAME: &str = "layerwise_decay";
        let rate = self.rate.within(NAME, 0.0.., at)?;
        let mut factors = vec![1.0; step.layout().len()];
        for (layer, selection) in self.layers.iter().enumerate() {
            let power = self.layers.len() - 1 - layer;
            let factor = rate.powf(power as f64);
            let chosen = selection.peek(step.layout())?;
            if rate > 0.0 && !factor.is_normal() {
                let accepted = format!("0 or a number whose power of {power} is one");
                let path = selection.first(step.layout());
                return Err(Error::Step(StepError::HyperParameter {
                    name: NAME,
                    value: rate,
                    step: at,
                    path,
                    accepted,
                }));
            }
            factors.iter_mut().zip(&*chosen).filter(|(_, chosen)| **chosen).for_each(|(own, _)| *own = factor);
        }
        step.iter_mut().for_each(|(_, tensor)| tensor.learning_rate.scale *= factors[tensor.index()]);
        Ok(())
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for LayerwiseDecay<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let mut step = step.preview();
        self.scale(self.inner.steps(), &mut step)?;
        self.inner.check(&step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let layout: Arc<Layout> = Arc::clone(step.layout());
        self.layers.iter_mut().try_for_each(|layer| layer.choose(&layout).map(drop))?;
        self.scale(self.inner.steps(), &mut step)?;
        self.inner.apply(step)
    }

    ask_inner!();
    state_of_inner!();
}
