//! Adaptors that only change the step.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::adapted::short_name;
use super::{Adaptor, Outcome, adapted};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// An adaptor without state: it changes a step before the optimizer inside gets it. It can change the scale of a gradient, replace a
/// gradient, change the learning rate of a tensor, or remove tensors. It can also skip the step.
///
/// Add it to a chain with [`transform`](crate::OptimizerExt::transform). A closure that takes a [`Step`] is a transform:
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
/// A transform with hyper-parameters is a struct. Return each hyper-parameter with its name from
/// [`hyper_parameters`](Self::hyper_parameters), so that the state of a [`Plateau`](crate::schedule::Plateau) in it is saved:
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
    /// The name of the transform in a saved state, in lower case.
    fn name(&self) -> &'static str;

    /// The name and the value of every hyper-parameter: `vec![("factor", &self.factor)]`, or `vec![]` if there are none. The state of their
    /// schedules is saved under these names.
    fn hyper_parameters(&self) -> Vec<(&str, &Hyper)>;

    /// The transform as the call that creates it, such as `unscale(8)`, for [`describe`](crate::StepExt::describe). Without an implementation of
    /// your own it is the name of the type.
    fn describe(&self) -> String {
        short_name::<Self>()
    }

    /// Changes the step.
    ///
    /// A step is usually checked first and then taken: this method is then called twice, first with a preview of the step. It must make the
    /// same changes both times. Evaluate hyper-parameters at [`Step::number`], with [`Hyper::within`](crate::Hyper::within). The step may
    /// borrow from the transform, for example a gradient to [add](crate::Grad::plus).
    ///
    /// # Errors
    /// Your own. The step is then not taken.
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

    fn describe(&self) -> String {
        "transform(…)".into()
    }
}

/// A [`Transform`] as an [`Adaptor`]. It has the transform's own methods.
#[derive(Clone)]
pub struct Transforming<T> {
    transform: T,
    /// The layout of a step that was skipped before the optimizer inside had one.
    layout: Option<Arc<Layout>>,
}

impl<T> Transforming<T> {
    /// Makes an adaptor of a transform.
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

    fn describe(&self) -> String {
        self.transform.describe()
    }

    fn moves_parameters(&self) -> bool {
        false
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
