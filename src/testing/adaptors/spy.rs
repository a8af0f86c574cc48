//! An optimizer that records the steps that it is asked about and given.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayD;

use crate::error::Result;
use crate::optimizer::list::Sgd;
use crate::params::{Layout, Scalar};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Adjust, Optimizer, Replaced, Report, Step};
use crate::testing::tree::same;
use crate::testing::violation::{Held, ensure};

/// A tensor of a step, as an optimizer sees it.
#[derive(Debug, Clone)]
pub(super) struct SeenTensor<A> {
    pub(super) path: String,
    pub(super) grad: Option<ArrayD<A>>,
    rates: [Adjust; 2],
    replaced: Replaced,
}

/// What an optimizer was asked about in `check`, and what it was given in `apply`, each step a list of tensors.
#[derive(Debug)]
pub(super) struct Seen<A> {
    pub(super) asked: Vec<Vec<SeenTensor<A>>>,
    pub(super) given: Vec<Vec<SeenTensor<A>>>,
}

/// Plain descent, watched.
pub(super) struct Spy<A> {
    sgd: Sgd<A>,
    seen: Arc<Mutex<Seen<A>>>,
}

/// Reads what a [`Spy`] has seen, and forgets it.
pub(super) struct Watch<A>(Arc<Mutex<Seen<A>>>);

impl<A: Scalar> Spy<A> {
    pub(super) fn new(learning_rate: impl Into<Hyper>) -> (Self, Watch<A>) {
        let seen = Arc::new(Mutex::new(Seen { asked: Vec::new(), given: Vec::new() }));
        (Self { sgd: Sgd::new(learning_rate), seen: Arc::clone(&seen) }, Watch(seen))
    }

    fn see(&self, write: impl FnOnce(&mut Seen<A>)) {
        write(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<A> Watch<A> {
    pub(super) fn take(&self) -> Seen<A> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut seen, Seen { asked: Vec::new(), given: Vec::new() })
    }
}

fn seen<A: Scalar>(step: &Step<'_, A>) -> Vec<SeenTensor<A>> {
    let tensors = step.iter().map(|(info, tensor)| SeenTensor {
        path: info.path().to_owned(),
        grad: tensor.grad.as_ref().map(|grad| grad.to_array(info.shape())),
        rates: [tensor.learning_rate, tensor.weight_decay],
        replaced: tensor.replaced.clone(),
    });
    tensors.collect()
}

/// Returns an error unless the optimizer was asked about the step that it was given.
pub(super) fn same_description<A: Scalar>(asked: &[SeenTensor<A>], given: &[SeenTensor<A>]) -> Held {
    let paths = |seen: &[SeenTensor<A>]| seen.iter().map(|tensor| tensor.path.clone()).collect::<Vec<_>>();
    ensure(paths(asked) == paths(given), || {
        format!("the step has the tensors {:?} in `check` and {:?} in `apply`", paths(asked), paths(given))
    })?;
    for (asked, given) in asked.iter().zip(given) {
        let path = &asked.path;
        ensure(asked.rates == given.rates, || {
            format!("{path:?} has {:?} in `check` and {:?} in `apply`", asked.rates, given.rates)
        })?;
        ensure(asked.replaced == given.replaced, || {
            format!("{path:?} has {:?} in `check` and {:?} in `apply`", asked.replaced, given.replaced)
        })?;
        match (&asked.grad, &given.grad) {
            (Some(asked), Some(given)) => {
                same(path, given.view(), asked.view(), "the gradient in `check`; that in `apply` is named first")?;
            }
            (None, None) => {}
            (asked, given) => ensure(false, || {
                let has = |grad: &Option<_>| if grad.is_some() { "a gradient" } else { "none" };
                format!("{path:?} has {} in `check` and {} in `apply`", has(asked), has(given))
            })?,
        }
    }
    Ok(())
}

impl<A: Scalar> Optimizer<A> for Spy<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.see(|own| own.asked.push(seen(step)));
        self.sgd.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        self.see(|own| own.given.push(seen(&step)));
        self.sgd.apply(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.sgd.conclude(result)
    }

    fn learning_rate(&self) -> f64 {
        self.sgd.learning_rate()
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.sgd.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: TypeId) -> Option<&dyn Any> {
        if of == TypeId::of::<Self>() { Some(self) } else { self.sgd.part(of) }
    }

    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
        if of == TypeId::of::<Self>() { Some(self) } else { self.sgd.part_mut(of) }
    }

    fn steps(&self) -> u64 {
        self.sgd.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.sgd.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.sgd.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        self.sgd.read_state(state)
    }
}
