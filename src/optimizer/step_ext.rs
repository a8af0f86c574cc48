//! The calls of a training loop that go through a whole chain.

use crate::adaptor::{LossScaling, accumulate};
use crate::error::Result;
use crate::params::{Element, Params, ParamsMut};
use crate::step::batch::Batch;
use crate::step::{ChainDescription, Optimizer, Report, Step, find, take_step};

/// Methods for a training loop besides [`step`](Optimizer::step). Every [`Optimizer`] has them, and they work through a whole chain, also in a box.
pub trait StepExt<A: Element>: Optimizer<A> {
    /// [`step`](Optimizer::step) for a micro-batch of this weight: its number of samples or tokens, if `grads` is the mean over them.
    ///
    /// The weights count where gradients are averaged: over the micro-batches of [`accumulate`](crate::OptimizerExt::accumulate), and over the
    /// ranks of `data_parallel` and `sharded`. The step is then the one on the large batch, although its parts differ in size. A weight of 1 is
    /// that of [`step`](Optimizer::step). If nothing is averaged, the weight has no effect.
    ///
    /// ```
    /// use gradus::prelude::*;
    /// use ndarray::array;
    ///
    /// let mut opt = Sgd::new(1.0).accumulate(2).boxed();
    /// let mut w = array![0.0];
    /// opt.step_weighted(&mut w, &array![2.0], 3.0)?; // the mean over 3 samples
    /// opt.step_weighted(&mut w, &array![6.0], 1.0)?; // 1 sample
    /// assert_eq!(w, array![-3.0]); // (3 · 2 + 1 · 6)/4
    /// # Ok::<(), gradus::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`step`](Optimizer::step), and [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `weight` is finite and ≥ 0.
    #[doc(alias("num_items_in_batch", "sample_weight"))]
    fn step_weighted(
        &mut self,
        params: &mut dyn ParamsMut<Elem = A>,
        grads: &dyn Params<Elem = A>,
        weight: f64,
    ) -> Result<Report> {
        take_step(self, (params, grads), |step| {
            step.set_batch(Batch::weighted(weight, step.number())?);
            Ok(())
        })
    }

    /// Takes a step with the loss of the parameters before it, for [`keep_best`](crate::OptimizerExt::keep_best) and [`stop`](crate::OptimizerExt::stop): see their examples.
    ///
    /// # Errors
    /// Those of [`step`](Optimizer::step).
    fn step_with_loss(
        &mut self,
        params: &mut dyn ParamsMut<Elem = A>,
        grads: &dyn Params<Elem = A>,
        loss: impl Into<f64>,
    ) -> Result<Report> {
        take_step(self, (params, grads), |step| {
            step.set_loss(loss.into());
            Ok(())
        })
    }

    /// Lists the parts of the chain from outside to inside, and warns about orders that are probably mistakes, such as a clip that clips each
    /// micro-batch. `params` are the parameters that the chain steps.
    ///
    /// ```
    /// use gradus::prelude::*;
    /// use ndarray::array;
    ///
    /// let opt = Sgd::new(0.1).accumulate(4).clip_global_norm(1.0);
    /// let chain = opt.describe(&array![0.0])?;
    /// println!("{chain}");
    /// # assert_eq!(chain.to_string(), "clip_global_norm(1)\naccumulate(4)\nSgd(learning_rate: 0.1)\n\
    /// # warning: clip_global_norm(1) is after accumulate(4) in the chain: it clips each micro-batch; to clip their mean, write it before `accumulate`");
    /// # Ok::<(), gradus::Error>(())
    /// ```
    /// ```text
    /// clip_global_norm(1)
    /// accumulate(4)
    /// Sgd(learning_rate: 0.1)
    /// warning: clip_global_norm(1) is after accumulate(4) in the chain: it clips each micro-batch; to clip their mean, write it before `accumulate`
    /// ```
    ///
    /// # Errors
    /// Those of [`check`](Optimizer::check), for example for a pattern that matches no tensor.
    fn describe<T: Params<Elem = A> + ?Sized>(&self, params: &T) -> Result<ChainDescription> {
        let step = Step::to_note(params, self.steps())?;
        self.check(&step)?;
        Ok(ChainDescription::noted(&step))
    }

    /// The factor to multiply the loss of the next step by: that of [`loss_scaling`](crate::GuardExt::loss_scaling), and 1 without it.
    #[doc(alias("get_scale", "GradScaler"))]
    fn loss_scale(&self) -> f64 {
        find::<LossScaling, A>(self).map_or(1.0, LossScaling::loss_scale)
    }

    /// Takes the step of every [`accumulate`](crate::OptimizerExt::accumulate) in the chain now, with the micro-batches that it has gathered: call it
    /// at the end of an epoch. The mean is over those micro-batches alone; with `sum(true)` it is their sum.
    ///
    /// If nothing has been gathered, nothing happens, and the report has `moved: false`. After a partial window of `ascend` with
    /// [`sam`](crate::OptimizerExt::sam) inside `accumulate`, it is the ascent.
    ///
    /// With ranks, every rank must call it after the same number of steps. The mean is over the micro-batches of all ranks, and a rank may have
    /// gathered none.
    ///
    /// ```
    /// use gradus::prelude::*;
    /// use ndarray::array;
    ///
    /// let mut opt = Sgd::new(1.0).accumulate(4);
    /// let mut w = array![0.0];
    /// for grad in [1.0, 2.0, 6.0] {
    ///     opt.step(&mut w, &array![grad])?;
    /// }
    /// assert!(opt.flush(&mut w)?.moved);
    /// assert_eq!(w, array![-3.0]); // (1 + 2 + 6)/3
    /// # Ok::<(), gradus::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`step`](Optimizer::step). Nothing has changed then.
    #[doc(alias("sync_gradients", "drop_last"))]
    fn flush(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<Report> {
        accumulate::flush(self, params)
    }
}

impl<A: Element, O: Optimizer<A> + ?Sized> StepExt<A> for O {}
