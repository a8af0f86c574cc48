//! What holds for one step, and whether taps, layers and gradients belong together.

use std::collections::BTreeMap;
use std::ops::Bound;

use ndarray::{Array1, Axis};

use super::adaptor::Kfac;
use super::layer::{Layer, Place};
use crate::error::{ArgumentError, CurvatureError, Error, Result, StepError, ensure_count};
use crate::params::{Layout, Scalar};
use crate::step::share::Extent;
use crate::step::{Step, norm};

/// What holds for one step.
pub(super) struct Settings {
    pub(super) damping: f64,
    pub(super) decay: f64,
    pub(super) kl_clip: Option<f64>,
    /// The number of the step.
    pub(super) at: u64,
    pub(super) places: BTreeMap<String, Place>,
}

impl<A: Scalar> Kfac<A> {
    /// Where the tensors of a layer are.
    pub(super) fn place(&self, layer: &str, layout: &Layout) -> Result<Place> {
        match self.named.get(layer) {
            Some(layer) => layer.place(layout),
            None => Layer::named(layer, layout)?.place(layout),
        }
    }

    /// The hyper-parameters of the step of this number, and where every layer is, if all is in order.
    pub(super) fn settings(&self, step: &Step<'_, A>, at: u64) -> Result<Settings> {
        step.share().ensure(Extent::All, "kfac")?;
        let above_0 = (Bound::Excluded(0.0), Bound::Unbounded);
        let damping = self.damping.within_as::<A>("damping", above_0, at)?;
        let decay = self.decay.within_as::<A>("decay", 0.0..1.0, at)?;
        let kl_clip = self.kl_clip.as_ref().map(|kl_clip| kl_clip.within("kl_clip", above_0, at)).transpose()?;
        ensure_count("factors_every", self.factors_every)?;
        ensure_count("inverses_every", self.inverses_every)?;
        Layout::ensure_known(self.layout.as_ref(), step.layout())?;
        let mut places = BTreeMap::new();
        for name in self.layers.keys().chain(self.pending.keys()) {
            if !places.contains_key(name) {
                let place = self.place(name, step.layout()).map_err(|reason| of_layer(name, reason))?;
                apart(name, &place, places.iter()).map_err(|reason| of_layer(name, reason))?;
                finite_gradient(&place, step)?;
                self.fits(name, &place, step).map_err(|reason| of_layer(name, reason))?;
                self.ensure_countable(name).map_err(|reason| of_layer(name, reason))?;
                places.insert(name.clone(), place);
            }
        }
        // One that has a name and no weight is a misspelt one.
        for name in self.named.keys().filter(|name| !places.contains_key(*name)) {
            self.place(name, step.layout()).map_err(|reason| of_layer(name, reason))?;
        }
        Ok(Settings { damping: damping * self.trust.factor, decay, kl_clip, at, places })
    }

    /// Returns an error unless a layer's next update of its factors, if there is one, can be counted.
    fn ensure_countable(&self, name: &str) -> Result<()> {
        match (self.layers.get(name), self.pending.contains_key(name)) {
            (Some(factors), true) if factors.updates == u64::MAX => {
                Err(Error::Step(StepError::CounterFull { counter: "updates", path: None }))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error unless the taps of a layer match its shape and, for the real targets, its gradient.
    fn fits(&self, name: &str, place: &Place, step: &Step<'_, A>) -> Result<()> {
        let Some(pending) = self.pending.get(name) else { return Ok(()) };
        let rows = pending.rows as usize;
        let seen = (pending.input.nrows(), pending.output.nrows());
        for (argument, expected, found) in [("input", place.inputs, seen.0), ("output_grad", place.outputs, seen.1)] {
            if expected != found {
                return Err(Error::Argument(ArgumentError::Shape {
                    argument,
                    expected: vec![rows, expected],
                    found: vec![rows, found],
                }));
            }
        }
        match (&pending.row_sums, place.gradient(step)) {
            (Some(sums), Some(grad)) if pending.examples > 1 => {
                let examples = pending.examples as usize;
                let sums = if place.bias.is_some() { sums.sum_axis(Axis(0)) } else { sums.row(0).to_owned() };
                let found = grad.rows().into_iter().map(|row| row.iter().map(|x| x.as_f64()).sum());
                ensure_mean(&sums, &found.collect(), examples)
            }
            _ => Ok(()),
        }
    }
}

/// Returns an error if another layer has one of these tensors.
pub(super) fn apart<'p>(
    name: &str,
    place: &Place,
    mut others: impl Iterator<Item = (&'p String, &'p Place)>,
) -> Result<()> {
    match others.find(|(other, known)| *other != name && known.overlaps(place)) {
        Some((other, _)) => Err(Error::Curvature(CurvatureError::SameLayer { other: other.clone() })),
        None => Ok(()),
    }
}

/// Returns an error unless the gradients of a layer are dense and finite.
fn finite_gradient<A: Scalar>(place: &Place, step: &Step<'_, A>) -> Result<()> {
    let of_layer = |at: usize| at == place.weight || Some(at) == place.bias;
    let tensors = step.iter().filter(|(_, tensor)| of_layer(tensor.index()));
    let grads: Vec<_> = tensors.filter_map(|(info, tensor)| Some((info, tensor.grad.as_ref()?))).collect();
    grads.iter().try_for_each(|(info, grad)| grad.ensure_dense(info, "kfac", "observe no layer with this tensor"))?;
    norm::ensure_finite(&grads)
}

/// Returns an error if a gradient is a multiple of the mean over the examples, both summed over the inputs.
///
/// Clipping outside makes it shorter, and of few numbers any other is a multiple: these pass.
fn ensure_mean(sums: &Array1<f64>, found: &Array1<f64>, examples: usize) -> Result<()> {
    let mean = sums / examples as f64;
    let ratio = found.dot(&mean) / mean.dot(&mean);
    let difference = found - &(&mean * ratio);
    // What rounding leaves in f32.
    let is_multiple = difference.dot(&difference) < 1e-8 * found.dot(found);
    let is_sum = (ratio / examples as f64 - 1.0).abs() < 1e-4;
    if is_multiple && (is_sum || (ratio > 1.001 && sums.len() > 2)) {
        return Err(Error::Curvature(CurvatureError::NotTheMean { ratio, examples }));
    }
    Ok(())
}

/// An error as that of a layer.
pub(super) fn of_layer(layer: &str, reason: Error) -> Error {
    Error::Layer { layer: layer.into(), reason: Box::new(reason) }
}
