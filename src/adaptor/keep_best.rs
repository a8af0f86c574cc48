//! The parameters of the lowest loss.

use std::fmt;
use std::sync::Arc;

use super::Adaptor;
use crate::error::Result;
use crate::params::{Element, Layout, Owned, ParamsMut};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, PerTensor, Report, Step};

/// Keeps a copy of the parameters whose loss was the lowest so far. Created by [`OptimizerExt::keep_best`](crate::OptimizerExt::keep_best).
///
/// Take steps with [`step_with_loss`](crate::StepExt::step_with_loss), and write the copy into your parameters with
/// [`restore`](Self::restore).
///
/// # Update rule
/// ```text
/// if L < lowest:  best ← θ,  lowest ← L        L the loss of the parameters θ before the step
/// ```
/// The loss belongs to the parameters that it was computed at, which are those before the step. The parameters after the last step have no loss yet.
/// A loss that is NaN is not lower than another. A step without a loss changes nothing here.
///
/// # State
/// One element per parameter (4 bytes in f32), and the lowest loss. A call with a lower loss copies the parameters and checks the step once more.
///
/// # Conventions
/// Keras's `EarlyStopping(restore_best_weights=True)`. The state of the optimizer inside is not copied.
///
/// With [`accumulate`](crate::OptimizerExt::accumulate), write `keep_best` before it, and pass the loss of the whole batch in the last call. On several
/// ranks, pass the same loss on all of them, and write it after `sharded`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
///
/// let mut opt = Sgd::new(1.5).keep_best(); // too long steps: the loss rises
/// let mut w = vec![1.0];
/// for _ in 0..5 {
///     let (loss, grads) = (w[0] * w[0], vec![2.0 * w[0]]);
///     opt.step_with_loss(&mut w, &grads, loss)?;
/// }
/// assert_eq!((w[0], opt.lowest_loss()), (-32.0, Some(1.0)));
/// opt.restore(&mut w)?;
/// assert_eq!(w[0], 1.0);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("ModelCheckpoint", "restore_best_weights", "early stopping"))]
#[derive(Clone)]
pub struct KeepBest<A> {
    best: PerTensor<Owned<A>>,
    lowest: f64,
}

impl<A> Default for KeepBest<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> KeepBest<A> {
    /// Keeps nothing yet.
    pub fn new() -> Self {
        Self { best: PerTensor::new(), lowest: f64::INFINITY }
    }

    /// The lowest loss so far; `None` before the first step with a loss below infinity.
    pub fn lowest_loss(&self) -> Option<f64> {
        Some(self.lowest).filter(|_| self.best.layout().is_some())
    }
}

impl<A: Element> KeepBest<A> {
    /// Writes the parameters of the lowest loss into a tree of the parameters' layout. Before the first step with a loss, it does nothing.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the tree has another layout. Nothing is written then.
    pub fn restore(&self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let Some(layout) = self.best.layout() else { return Ok(()) };
        for (at, (info, mut values)) in layout.tensors().iter().zip(layout.values_mut(params)?).enumerate() {
            if let Some(best) = self.best.at(at) {
                values.view_mut(info.shape()).assign(&best.as_values().view(info.shape()));
            }
        }
        Ok(())
    }
}

impl<A: Element> Adaptor<A> for KeepBest<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.best.ensure_known(step)?;
        inner.check(step)
    }

    fn apply(&mut self, mut step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        self.best.ensure_known(&step)?;
        let Some(loss) = step.loss().filter(|loss| *loss < self.lowest) else { return inner.apply(step) };
        // The copy is made before the parameters move, and must not be made if they will not.
        inner.check(&step)?;
        let _ = self.best.begin(&step, |info, tensor| Owned::copy(&tensor.param(), info.shape()));
        self.best.each(&mut step, |info, tensor, best| {
            let shape = info.shape();
            best.as_values_mut().view_mut(shape).assign(&tensor.param().view(shape));
        });
        self.lowest = loss;
        inner.apply(step)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.best.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("keep_best");
        node.value("lowest", self.lowest);
        self.best.write(&mut node, "best");
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("keep_best")?;
        let lowest = node.value_where("lowest", "a number or infinity", |lowest: &f64| !lowest.is_nan())?;
        let best = if lowest < f64::INFINITY { PerTensor::read(&node, "best")? } else { PerTensor::new() };
        Ok(Commit::new(move || *self = Self { best, lowest }))
    }
}

impl<A> fmt::Debug for KeepBest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keep_best()")
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ShapeBuilder, array};

    use crate::prelude::*;

    #[test]
    fn the_lowest_of_all_losses() {
        let (mut opt, mut w) = (Sgd::new(1.0).keep_best().clip_value(10.0), array![0.0, 0.0]);
        let mut best = array![9.0, 9.0];
        opt.inner().restore(&mut best).unwrap();
        assert_eq!((&best, opt.inner().lowest_loss()), (&array![9.0, 9.0], None)); // nothing yet
        for (loss, lowest, at) in [
            (3.0, 3.0, 0.0),
            (f64::NAN, 3.0, 0.0),
            (2.0, 2.0, 2.0),
            (2.0, 2.0, 2.0),
            (5.0, 2.0, 2.0),
            (-1.0, -1.0, 5.0),
        ] {
            opt.step_with_loss(&mut w, &array![-1.0, 0.0], loss).unwrap();
            opt.inner().restore(&mut best).unwrap();
            assert_eq!((&best, opt.inner().lowest_loss()), (&array![at, 0.0], Some(lowest)));
        }
        opt.step(&mut w, &array![-1.0, 0.0]).unwrap();
        opt.inner().restore(&mut w).unwrap();
        assert_eq!(w, array![5.0, 0.0]);
        assert!(opt.inner().restore(&mut array![1.0]).is_err());
    }

    #[test]
    fn an_error_keeps_nothing() {
        let (mut opt, mut w) = (Sgd::new(1.0).check_finite().keep_best(), array![1.0]);
        let error = opt.step_with_loss(&mut w, &array![f64::NAN], 1.0);
        assert!(error.is_err() && opt.lowest_loss().is_none() && opt.layout().is_none());
    }

    #[test]
    fn every_layout_and_a_resumed_run() {
        let tree = |first: f32| {
            (
                Array2::from_shape_fn((2, 3).f(), |(i, j)| first + (i * 3 + j) as f32),
                array![first],
                Array2::zeros((0, 4)),
            )
        };
        let (mut opt, mut w) = (Adam::new(0.5).keep_best(), tree(1.0));
        opt.step_with_loss(&mut w, &tree(1.0), 2.0_f32).unwrap();
        opt.step_with_loss(&mut w, &tree(1.0), 3.0_f32).unwrap();
        let mut resumed = Adam::new(0.5).keep_best();
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        assert_eq!(resumed.lowest_loss(), Some(2.0));
        resumed.step_with_loss(&mut w, &tree(1.0), 2.5_f32).unwrap();
        resumed.restore(&mut w).unwrap();
        assert_eq!(w, tree(1.0));
    }
}
