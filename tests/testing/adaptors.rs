//! An adaptor by hand that can break each law.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gradus::adaptor::{self, Adaptor, Outcome};
use gradus::params::{Layout, Order};
use gradus::prelude::*;
use gradus::testing::{self, AdaptorLaws, Law};
use gradus::{Commit, Error, Grad, Hyper, Report, Result, StateReader, StateWriter, Step, simd};
use ndarray::ArrayD;

use crate::assert_caught;

/// Scales gradients by ½, ¼, ½, ¼, … It breaks one law, or none.
struct Alternating {
    breaks: Option<Law>,
    calls: u64,
}

/// A number that is another at each call.
static CALLS: AtomicU64 = AtomicU64::new(0);

impl Alternating {
    fn breaks(&self, law: Law) -> bool {
        self.breaks == Some(law)
    }

    fn describe(&self, step: &mut Step<'_, f64>, is_check: bool) -> Result<Outcome> {
        let mut factor = if self.calls.is_multiple_of(2) { 0.5 } else { 0.25 };
        match self.breaks {
            Some(Law::SameDescription) if is_check => factor *= 2.0,
            Some(Law::Deterministic) => factor += CALLS.fetch_add(1, Ordering::Relaxed) as f64,
            Some(Law::Threads) => factor += rayon::current_num_threads() as f64,
            Some(Law::SimdLevels) => {
                factor += simd::available().iter().position(|level| *level == simd::level()).unwrap() as f64;
            }
            // The thread of a test has a name.
            Some(Law::Boxed) if std::thread::current().name().is_none() => factor *= 2.0,
            _ => {}
        }
        let is_adjusted = step.iter().any(|(_, tensor)| tensor.learning_rate.scale != 1.0);
        if self.breaks(Law::Chains) && is_adjusted {
            return Err(Error::Other("a group".into()));
        }
        for (at, (info, tensor)) in step.iter_mut().enumerate() {
            if self.breaks(Law::NoGradient) && tensor.grad.is_none() {
                tensor.grad = Some(Grad::from_array(ArrayD::zeros(info.shape())));
            }
            let Some(grad) = &mut tensor.grad else { continue };
            let own = match self.breaks {
                Some(Law::TensorOrder) if at == 0 => 2.0,
                Some(Law::MemoryLayouts) if grad.as_slice(Order::C).is_none() => 2.0,
                _ => 1.0,
            };
            grad.scale_by(factor * own);
        }
        Ok(Outcome::pass())
    }
}

impl Adaptor<f64> for Alternating {
    fn check(&self, step: &Step<'_, f64>, inner: &dyn Optimizer<f64>) -> Result<()> {
        if self.breaks(Law::CheckIsApply) {
            return Ok(());
        }
        adaptor::check(step, inner, |step| self.describe(step, true))
    }

    fn apply(&mut self, step: Step<'_, f64>, inner: &mut dyn Optimizer<f64>) -> Result<Report> {
        if self.breaks(Law::Errors) {
            self.calls += 1;
            return Ok(adaptor::apply(step, inner, |step| self.describe(step, false))?.0);
        }
        let (report, _) = adaptor::apply(step, inner, |step| self.describe(step, false))?;
        self.calls += 1;
        Ok(report)
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("alternating");
        node.value("calls", if self.breaks(Law::Resume) { 0 } else { self.calls });
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let calls = state.node("alternating")?.value("calls", "a count");
        let calls = if self.breaks(Law::StrictLoading) { calls.unwrap_or(0) } else { calls? };
        Ok(Commit::new(move || self.calls = calls))
    }
}

/// An optimizer around another that hides it.
struct Hides(Box<dyn Optimizer<f64>>);

impl Optimizer<f64> for Hides {
    fn check(&self, step: &Step<'_, f64>) -> Result<()> {
        self.0.check(step)
    }

    fn apply(&mut self, step: Step<'_, f64>) -> Result<Report> {
        self.0.apply(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.0.conclude(result)
    }

    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.0.replace_learning_rate(learning_rate);
    }

    fn part(&self, _: TypeId) -> Option<&dyn Any> {
        None
    }

    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
        self.0.part_mut(of)
    }

    fn steps(&self) -> u64 {
        self.0.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.0.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.0.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        self.0.read_state(state)
    }
}

fn laws(breaks: Option<Law>) -> AdaptorLaws<f64> {
    match breaks {
        Some(Law::PassesOn) => testing::wrapper(Hides),
        _ => testing::adaptor(move || Alternating { breaks, calls: 0 }),
    }
}

#[test]
fn nothing_is_wrong_with_what_keeps_them() {
    laws(None).run();
    fn halves<A: Scalar>() {
        let halve = |step: &mut Step<'_, A>| {
            step.grads_mut().for_each(|(_, grad)| grad.scale_by(0.5));
            Ok(())
        };
        testing::transform(move || halve).run();
    }
    halves::<f32>();
    halves::<f64>();
}

#[test]
fn each_law_catches_what_breaks_it() {
    Law::OF_ADAPTORS.iter().for_each(|law| assert_caught(*law, || laws(Some(*law)).run_one(*law)));
}
