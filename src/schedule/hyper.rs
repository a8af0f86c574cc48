//! Hyper-parameters: every one is a schedule, and a number is the constant schedule.

use std::any::Any;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::error::{Error, Result, StepError};
use crate::params::Element;
use crate::params::scalar::is_kept;
use crate::schedule::Schedule;
use crate::state::{Commit, StateReader, StateWriter};

/// A hyper-parameter: a schedule, or a number, which is the constant schedule.
///
/// Every setter takes `impl Into<Hyper>`, so a number, a [schedule](crate::schedule) and a closure
/// `|step: u64| …` all work. The value is computed in `f64`, at the optimizer's own step counter.
#[derive(Clone)]
pub struct Hyper(Kind);

/// A step evaluates every hyper-parameter: a number is at hand, not behind a pointer.
#[derive(Clone)]
enum Kind {
    Number(f64),
    Schedule(Arc<dyn Schedule>),
}

impl<S> From<S> for Hyper
where
    Self: HyperFrom<S>,
{
    fn from(schedule: S) -> Self {
        Self::hyper_from(schedule)
    }
}

/// What becomes a hyper-parameter. Not the bound `S: Schedule`: the compiler's error would be about `Into` and have no note.
#[doc(hidden)]
#[allow(unnameable_types, reason = "only the compiler names it")]
#[diagnostic::on_unimplemented(
    message = "`{S}` is not a number, a schedule or a closure that a hyper-parameter takes",
    label = "not an `f64`, a schedule or a closure `|step: u64| -> f64`",
    note = "hyper-parameters are `f64`, for models in `f32` too: write `0.1`, or `1.0` instead of `1`; convert a variable `x` with `f64::from(x)`"
)]
pub trait HyperFrom<S> {
    fn hyper_from(schedule: S) -> Self;
}

#[diagnostic::do_not_recommend]
impl<S: Schedule + 'static> HyperFrom<S> for Hyper {
    fn hyper_from(schedule: S) -> Self {
        Self(match (&schedule as &dyn Any).downcast_ref() {
            Some(number) => Kind::Number(*number),
            None => Kind::Schedule(Arc::new(schedule)),
        })
    }
}

impl Hyper {
    fn schedule(&self) -> &dyn Schedule {
        match &self.0 {
            Kind::Number(number) => number,
            Kind::Schedule(schedule) => &**schedule,
        }
    }

    /// The value at a step; the first step is 0.
    #[inline]
    pub fn at(&self, step: u64) -> f64 {
        match &self.0 {
            Kind::Number(number) => *number,
            Kind::Schedule(schedule) => schedule.at(step),
        }
    }

    /// Whether both are the same number, or the same schedule and not only equal ones.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Number(own), Kind::Number(other)) => own.to_bits() == other.to_bits(),
            (Kind::Schedule(own), Kind::Schedule(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Writes the state of the schedule, such as that of a [`Plateau`](crate::schedule::Plateau), under `name`, the name of the hyper-parameter. A
    /// schedule without state writes nothing.
    ///
    /// Call it in an optimizer or an adaptor of your own. For a [rule](crate::rule) and a [`Transform`](crate::adaptor::Transform), it is called for you.
    pub fn write_state(&self, name: &str, state: &mut StateWriter<'_>) {
        self.schedule().memory().keys(name).for_each(|(key, own)| state.value(&key, own.save()));
    }

    /// Reads what [`write_state`](Self::write_state) wrote under the same name.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    pub fn read_state(&self, name: &str, state: &StateReader<'_>) -> Result<Commit<'static>> {
        let mut all = Commit::nothing();
        for (key, own) in self.schedule().memory().keys(name) {
            let mut commit = None;
            state.value_where(&key, "what this schedule has saved", |saved: &String| {
                commit = own.load(saved);
                commit.is_some()
            })?;
            all = commit.into_iter().fold(all, Commit::and);
        }
        Ok(all)
    }

    /// The value at a step. Returns an error unless it is finite and in `range`.
    ///
    /// ```
    /// use gradus::Hyper;
    ///
    /// let momentum = Hyper::from(1.5);
    /// let error = momentum.within("momentum", 0.0..1.0, 7).unwrap_err();
    /// assert_eq!(error.to_string(), "momentum is 1.5 at step 7; it must be a number in 0 ≤ momentum < 1");
    /// ```
    ///
    /// # Errors
    /// [`StepError::HyperParameter`] with the name, the value and the range, and the errors of [`Schedule::check`].
    #[inline(always)]
    pub fn within(&self, name: &'static str, range: impl RangeBounds<f64>, step: u64) -> Result<f64> {
        let value = match &self.0 {
            Kind::Number(number) => *number,
            Kind::Schedule(schedule) => checked(&**schedule, name, step)?,
        };
        if value.is_finite() && range.contains(&value) {
            return Ok(value);
        }
        Err(refused(name, value, step, bounds(&range), ""))
    }

    /// [`within`](Self::within) for a value that is used in the element type `A`. After rounding to `A` the value must still be in `range`, and it
    /// must not become 0 or infinite. The driver checks every hyper-parameter of a rule in this way.
    ///
    /// ```
    /// use gradus::Hyper;
    ///
    /// let eps = Hyper::from(1e-46);
    /// assert!(eps.within_as::<f64>("eps", 0.0.., 0).is_ok());
    /// let error = eps.within_as::<f32>("eps", 0.0.., 0).unwrap_err();
    /// assert_eq!(error.to_string(), "eps is 1e-46 at step 0; it must be a finite number ≥ 0 that does not become 0 in f32");
    /// ```
    ///
    /// # Errors
    /// Those of [`within`](Self::within).
    #[inline(always)]
    pub fn within_as<A: Element>(
        &self,
        name: &'static str,
        range: impl RangeBounds<f64> + Clone,
        step: u64,
    ) -> Result<f64> {
        let value = self.within(name, range.clone(), step)?;
        let rounded = A::from_f64(value).as_f64();
        if is_kept::<A>(value) && range.contains(&rounded) {
            return Ok(value);
        }
        Err(refused(name, value, step, bounds(&range), &format!(" that does not become {rounded} in {}", A::DTYPE)))
    }
}

/// The value of a schedule whose arguments are in order.
fn checked(schedule: &dyn Schedule, name: &'static str, step: u64) -> Result<f64> {
    schedule.check().map_err(|error| error.of_setter(name))?;
    Ok(schedule.at(step))
}

type Bounds<'r> = (Bound<&'r f64>, Bound<&'r f64>);

fn bounds(range: &impl RangeBounds<f64>) -> Bounds<'_> {
    (range.start_bound(), range.end_bound())
}

#[cold]
fn refused(name: &'static str, value: f64, step: u64, range: Bounds<'_>, besides: &str) -> Error {
    let accepted = describe(name, range) + besides;
    Error::Step(StepError::HyperParameter { name, value, step, path: None, pattern: None, accepted })
}

/// The schedule that it is, in one line: `0.001`, `Cosine(peak: 0.001, steps: 9500).warmup(500)`.
impl fmt::Debug for Hyper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.schedule().describe(f)
    }
}

fn describe(name: &str, range: Bounds<'_>) -> String {
    // Not "a number in 0 ≤ x": infinity would be one.
    if let (Bound::Included(low), Bound::Unbounded) = range {
        return format!("a finite number ≥ {low}");
    }
    let low = match range.0 {
        Bound::Included(low) => format!("{low} ≤ "),
        Bound::Excluded(low) => format!("{low} < "),
        Bound::Unbounded => String::new(),
    };
    let high = match range.1 {
        Bound::Included(high) => format!(" ≤ {high}"),
        Bound::Excluded(high) => format!(" < {high}"),
        Bound::Unbounded => String::new(),
    };
    match (low.as_str(), high.as_str()) {
        ("", "") => "a finite number".into(),
        _ => format!("a number in {low}{name}{high}"),
    }
}
