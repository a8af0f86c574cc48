//! The laws of schedules.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::law::Law;
use super::optimizers::one_short_line;
use super::violation::{Held, broken, case, ensure, short_name, tests_laws};
use crate::error::Result;
use crate::optimizer::list::Sgd;
use crate::schedule::{Hyper, Memory, Schedule};
use crate::step::Optimizer;

/// A change of a schedule's state.
type Change<S> = dyn Fn(&S);

/// Tests a schedule: made by [`schedule`](super::schedule()).
#[must_use = "`run` tests the laws"]
pub struct ScheduleLaws<S> {
    build: Box<dyn Fn() -> S>,
    subject: String,
    range: RangeInclusive<f64>,
    steps: u64,
    change: Option<Box<Change<S>>>,
    without: Vec<Law>,
}

impl<S: Schedule + 'static> ScheduleLaws<S> {
    pub(super) fn new(build: impl Fn() -> S + 'static) -> Self {
        Self {
            build: Box::new(build),
            subject: short_name::<S>(),
            range: f64::MIN..=f64::MAX,
            steps: 1000,
            change: None,
            without: Vec::new(),
        }
    }

    /// The name in messages. The default is the name of the type.
    pub fn named(self, name: impl fmt::Display) -> Self {
        Self { subject: name.to_string(), ..self }
    }

    /// The range of the values, for [`Law::InRange`]. The default is all finite numbers.
    pub fn range(self, range: RangeInclusive<f64>) -> Self {
        Self { range, ..self }
    }

    /// The number of steps that are looked at, from 0. The default is 1000. Steps near the largest numbers are looked at in any case.
    pub fn steps(self, steps: u64) -> Self {
        Self { steps, ..self }
    }

    /// A change of the schedule's state, such as an observation: for [`Law::Memory`], which is not tested without it.
    pub fn changed(self, change: impl Fn(&S) + 'static) -> Self {
        Self { change: Some(Box::new(change)), ..self }
    }

    tests_laws!(Law::OF_SCHEDULES);

    fn holds(&self, law: Law) -> Held {
        match law {
            Law::Pure => self.pure(),
            Law::InRange => self.in_range(),
            Law::Memory => self.memory(),
            Law::Debug => one_short_line(&format!("{:?}", Hyper::from((self.build)()))),
            // The laws of optimizers and adaptors.
            _ => Ok(()),
        }
    }

    fn pure(&self) -> Held {
        let schedule = (self.build)();
        let forth: Vec<_> = (0..self.steps).map(|step| (step, schedule.at(step).to_bits())).collect();
        for (step, first) in forth.into_iter().rev() {
            let second = schedule.at(step).to_bits();
            ensure(first == second, || {
                format!(
                    "the value at step {step} is {:?}, and then {:?}",
                    f64::from_bits(first),
                    f64::from_bits(second)
                )
            })?;
        }
        Ok(())
    }

    fn in_range(&self) -> Held {
        let schedule = (self.build)();
        case("`check`", || Ok(schedule.check()?))?;
        let far = [1 << 52, 1 << 53, (1 << 53) + 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        let values = (0..self.steps).chain(far).map(|step| (format!("step {step}"), schedule.at(step)));
        for (place, value) in values.chain([("`first_value`".into(), schedule.first_value())]) {
            let range = &self.range;
            case(place, || {
                ensure(value.is_finite() && range.contains(&value), || {
                    format!("the value is {value:?}, not in {:?} to {:?}", range.start(), range.end())
                })
            })?;
        }
        Ok(())
    }

    /// Through the state of an optimizer, whose learning rate it is.
    fn memory(&self) -> Held {
        let Some(change) = &self.change else { return Ok(()) };
        let values = |schedule: &S| (0..self.steps).map(|step| schedule.at(step).to_bits()).collect::<Vec<_>>();
        let [fresh, changed] = [(); 2].map(|()| Shared(Arc::new((self.build)())));
        let before = values(&fresh.0);
        change(&changed.0);
        let mut opt = Sgd::<f64>::new(fresh.clone());
        let saved = Sgd::<f64>::new(changed.clone()).state_dict();
        ensure(saved != opt.state_dict(), || "what `changed` does is not in the state".into())?;
        let keys: Vec<_> = saved.keys().filter(|key| key.contains("learning_rate")).map(str::to_owned).collect();
        ensure(!keys.is_empty(), || "no state is saved: `memory` returns none".into())?;
        for key in &keys {
            let mut other = saved.clone();
            other.insert_text(key, "nonsense");
            case(format_args!("a state where {key:?} is \"nonsense\""), || match opt.load_state_dict(&other) {
                Ok(()) => broken("the state is loaded"),
                Err(_) => ensure(values(&fresh.0) == before, || "the error has changed the schedule".into()),
            })?;
        }
        case("a state that is read by an optimizer which refuses it", || {
            let mut other = saved.clone();
            other.insert_text("surplus", 1);
            ensure(opt.load_state_dict(&other).is_err(), || "the state is loaded".into())?;
            ensure(values(&fresh.0) == before, || "`load` changes the schedule before the `Commit`".into())
        })?;
        opt.load_state_dict(&saved)?;
        ensure(values(&fresh.0) == values(&changed.0), || "the values are not those of the saved schedule".into())?;
        ensure(opt.state_dict() == saved, || "what was loaded is not what was saved".into())
    }
}

/// A schedule with a handle on it.
struct Shared<S>(Arc<S>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Schedule> Schedule for Shared<S> {
    fn at(&self, step: u64) -> f64 {
        self.0.at(step)
    }

    fn first_value(&self) -> f64 {
        self.0.first_value()
    }

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.0.memory()
    }
}

impl<S> fmt::Debug for ScheduleLaws<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScheduleLaws").field(&self.subject).finish()
    }
}
