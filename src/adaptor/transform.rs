//! Adaptors that only change the step on its way in.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{Adaptor, Outcome, adapted};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Changes a step before the optimizer inside sees it: the scale of a gradient, the learning rate of a tensor, which tensors have a
/// gradient.
///
/// [`transform`](crate::OptimizerExt::transform) adds it to a chain. A closure that takes a [`Step`] is a transform:
///
/// ```
/// use gradus::{Step, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).transform(|step: &mut Step<'_, f64>| {
///     step.grads_mut().for_each(|(_, grad)| grad.scale_by(0.5));
///     Ok(())
/// });
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w, array![-0.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// A transform with hyper-parameters is a type of its own:
///
/// ```
/// use gradus::adaptor::{Outcome, Transform};
/// use gradus::{Hyper, Result, Step, prelude::*};
///
/// /// Shrinks every gradient.
/// struct Shrink {
///     factor: Hyper,
/// }
///
/// impl<A: Element> Transform<A> for Shrink {
///     fn name(&self) -> &'static str { "shrink" }
///     fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> { vec![("factor", &self.factor)] }
///
///     fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
///         let factor = self.factor.within("factor", 0.0..=1.0, step.number())?;
///         step.grads_mut().for_each(|(_, grad)| grad.scale_by(factor));
///         Ok(Outcome::pass())
///     }
/// }
///
/// let opt: Sgd<f32> = Sgd::new(0.1);
/// let opt = opt.transform(Shrink { factor: 0.5.into() }).clip_value(1.0);
/// ```
pub trait Transform<A: Element>: Send + 'static {
    /// The name in an optimizer's state.
    fn name(&self) -> &'static str;

    /// All hyper-parameters by name. An optimizer's state contains that of the schedules among them, under these names.
    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)>;

    /// Changes the step. It is called with a preview when the step is checked, and with the step when that is taken.
    ///
    /// Schedules are evaluated at [`Step::number`]. The step may borrow from the transform, as a gradient that something is
    /// [added](crate::Grad::plus) to.
    ///
    /// # Errors
    /// Any; the step is then refused.
    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome>;
}

impl<A: Element, F: Fn(&mut Step<'_, A>) -> Result<()> + Send + 'static> Transform<A> for F {
    fn name(&self) -> &'static str {
        "transform"
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        Vec::new()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        self(step).map(|()| Outcome::pass())
    }
}

/// A [`Transform`] as an [`Adaptor`]. The transform's own methods can be called on it.
#[derive(Clone)]
pub struct Transforming<T> {
    transform: T,
    /// The parameters of a step that was skipped before the optimizer inside knew them.
    layout: Option<Arc<Layout>>,
}

impl<T> Transforming<T> {
    /// This transform.
    pub fn new(transform: T) -> Self {
        Self { transform, layout: None }
    }

    /// Changes the transform as its own setters do.
    pub(crate) fn with(self, change: impl FnOnce(T) -> T) -> Self {
        Self { transform: change(self.transform), ..self }
    }
}

impl<T> Deref for Transforming<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.transform
    }
}

impl<T> DerefMut for Transforming<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.transform
    }
}

impl<A: Element, T: Transform<A>> Adaptor<A> for Transforming<T> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adapted::check(step, inner, |step| self.transform.transform(step))
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let layout = Arc::clone(step.layout());
        let (report, outcome) = adapted::apply(step, inner, |step| self.transform.transform(step))?;
        if outcome.skip {
            self.layout.get_or_insert(layout);
        }
        Ok(report)
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state.node_if_any(self.transform.name(), |node| {
            self.transform.hyper_parameters().into_iter().for_each(|(name, hyper)| hyper.write_state(name, node));
        });
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let (read, Self { transform, layout }) = (state.layout().cloned(), self);
        let own = Commit::new(move || *layout = read);
        state.node_if_any(transform.name(), |node| {
            let mut hypers = transform.hyper_parameters().into_iter();
            hypers.try_fold(own, |all, (name, hyper)| Ok(all.and(hyper.read_state(name, node)?)))
        })
    }

    fn part(&self) -> &dyn Any {
        &self.transform
    }

    fn part_mut(&mut self) -> &mut dyn Any {
        &mut self.transform
    }
}

impl<T: fmt::Debug> fmt::Debug for Transforming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transform.fmt(f)
    }
}
