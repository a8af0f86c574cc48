//! What layers saw is taken in.

use super::adaptor::Kfac;
use super::factors::Pending;
use super::settings::{apart, of_layer};
use crate::curvature::tap::{LinearTap, shaped};
use crate::error::Result;
use crate::params::Scalar;
use crate::step::Optimizer;

impl<A: Scalar, O: Optimizer<A>> Kfac<O, A> {
    /// Whether the coming step takes taps: with a [`factor_period`](Self::factor_period) one in so many. Otherwise a second
    /// backward pass need not be made.
    pub fn wants_taps(&self) -> bool {
        self.layers.is_empty() || self.inner.steps().is_multiple_of(self.factor_period.max(1))
    }

    /// Takes in what a layer saw, with gradients of targets **drawn from the model**: see [`sample`](super::sample). Of several taps of a layer
    /// before a step, as of micro-batches, the sums are taken.
    ///
    /// `layer` is the path of a [`Params`](trait@crate::Params) struct with the fields `weight` and perhaps `bias`, the path of a weight
    /// alone, or a name given to [`layer`](Self::layer).
    ///
    /// # Errors
    /// [`Layer`](crate::Error::Layer): the tap is none, not finite, so large that its squares are not, or of other shapes than the
    /// weight; there is no such weight, or it has been observed under another name. What names and shapes the weights have, before the first step
    /// only that can tell: it is an error then, and every other step, until [`discard`](Self::discard) forgets the tap.
    pub fn observe(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, false)
    }

    /// [`observe`](Self::observe) with the gradients of the **real targets**, whose curvature is called the empirical Fisher. No
    /// second backward pass is needed, but far from the minimum it is another matrix.
    ///
    /// The step that follows is an error, [`NotTheMean`](crate::error::CurvatureError::NotTheMean), if its gradient is a multiple of that of the mean
    /// over these examples: if the tap is divided by the batch, the gradient that of a sum, or the tap lacks its
    /// [`positions`](LinearTap::positions). What is shorter than the mean, as clipping makes it, is let through, and of layers with
    /// less than three outputs all but the sum.
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
