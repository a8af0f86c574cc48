//! What layers saw is taken in.

use super::adaptor::Kfac;
use super::factors::Pending;
use super::settings::{apart, of_layer};
use crate::curvature::tap::{LinearTap, shaped};
use crate::error::Result;
use crate::params::Scalar;
use crate::step::Optimizer;

impl<A: Scalar, O: Optimizer<A>> Kfac<O, A> {
    /// Whether the next step uses taps. With a [`factor_period`](Self::factor_period) only some steps do, and the others need no second
    /// backward pass.
    pub fn wants_taps(&self) -> bool {
        self.layers.is_empty() || self.inner.steps().is_multiple_of(self.factor_period.max(1))
    }

    /// Adds a tap of a layer, with gradients of targets **sampled from the model**: see [`sample`](super::sample). Several taps of a layer before
    /// a step, as from micro-batches, are added up.
    ///
    /// `layer` is the path of a [`Params`](trait@crate::Params) struct with the field `weight` and possibly `bias`, the path of a single weight,
    /// or a name given to [`layer`](Self::layer).
    ///
    /// # Errors
    /// [`Layer`](crate::Error::Layer) if the tap is invalid, is not finite, has values whose squares overflow, or does not match the weight's
    /// shape; or if there is no such weight, or it was already observed under another name. Before the first step, names and shapes of the
    /// weights cannot be checked. The first step then returns the error, and so does every other step until [`discard`](Self::discard) is
    /// called.
    pub fn observe(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, false)
    }

    /// Adds a tap of a layer, with the gradients of the **real targets**. The resulting curvature is the empirical Fisher. It needs no second
    /// backward pass, but far from the minimum it differs from the Fisher of [`observe`](Self::observe).
    ///
    /// The next step returns [`NotTheMean`](crate::error::CurvatureError::NotTheMean) if its gradient is a multiple of the mean gradient of the examples in
    /// the taps. This happens if a tap is divided by the batch size, if the gradient is that of a sum, or if the tap lacks its
    /// [`positions`](LinearTap::positions). A smaller gradient is accepted, because clipping produces one. If a layer has fewer than three
    /// outputs, only the gradient of a sum is detected.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe).
    pub fn observe_empirical(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, true)
    }

    fn take(&mut self, layer: &str, tap: &LinearTap<'_, A>, empirical: bool) -> Result<()> {
        let wanted = self.wants_taps() || !self.layers.contains_key(layer);
        let sums = || -> Result<Option<Pending<A>>> {
            tap.check_rows()?;
            if let Some(layout) = self.layout.as_ref().or(self.inner.layout()) {
                let place = self.place(layer, layout)?;
                let others = self.layers.keys().chain(self.pending.keys());
                let others = others.filter_map(|name| Some((name, self.place(name, layout).ok()?)));
                apart(layer, &place, others.collect::<Vec<_>>().iter().map(|(name, place)| (*name, place)))?;
                shaped("input", (tap.rows(), place.inputs), &tap.input)?;
                shaped("output_grad", (tap.rows(), place.outputs), &tap.output_grad)?;
            }
            let known = self.pending.get(layer);
            if let Some(known) = known {
                shaped("input", (tap.rows(), known.input.nrows()), &tap.input)?;
                shaped("output_grad", (tap.rows(), known.output.nrows()), &tap.output_grad)?;
            }
            if !wanted {
                return tap.check_finite().map(|()| None);
            }
            let mut sums = known.cloned().unwrap_or_else(|| Pending::new(tap, empirical, &self.scratch));
            if !empirical {
                sums.row_sums = None;
            }
            sums.add(tap)?;
            // The products have read the tap once already: what is not finite makes its square on the diagonal so.
            if let Err(too_large) = sums.ensure_finite() {
                return Err(tap.check_finite().err().unwrap_or(too_large));
            }
            Ok(Some(sums))
        };
        if let Some(sums) = sums().map_err(|reason| of_layer(layer, reason))? {
            self.pending.insert(layer.to_owned(), sums);
        }
        Ok(())
    }
}
