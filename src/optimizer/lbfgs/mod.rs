//! L-BFGS: quasi-Newton steps from the last few changes of the gradient.

mod bounded;
mod compact;
mod descend;
mod limits;
mod memory;
mod vector;
mod wolfe;

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::{Layout, Params, Scalar};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::grad::rows::ELEMENTWISE;
use crate::step::memo::Note;
use crate::step::share::Extent;
use crate::step::{Optimizer, Report, Step, counter, norm};

use limits::Limits;
use memory::Memory;
use vector::{dot, flat_grads, flat_params, largest, scaled, sum_of_sizes, times};

pub use descend::{LbfgsReport, LbfgsStop};

/// L-BFGS, for problems in which the whole loss is computed at every step.
///
/// # Update rule
/// ```text
/// y = g − g₋₁,  s = θ − θ₋₁                  kept, the last `history` of them, if ⟨y, s⟩ > 1e-10 and ⟨y, s⟩/⟨y, y⟩ is a number
/// q = −g;  for the pairs, last first:         α = ⟨s, q⟩/⟨y, s⟩,  q ← q − αy
/// d = q·⟨y, s⟩/⟨y, y⟩ of the last pair;  first first:  d ← d + (α − ⟨y, d⟩/⟨y, s⟩)s
/// θ ← θ + td                                  t = η, in the first iteration η·min(1, 1/‖g‖₁)
/// ```
/// [`step_with`](Self::step_with) evaluates the loss several times, and with [`strong_wolfe`](Self::strong_wolfe) it searches for t. All tensors together
/// are one vector.
///
/// As an [`Optimizer`], each [`step`](Optimizer::step) is one iteration with t from the learning rate and no search. Use it inside adaptors, which have
/// no `step_with`, or if your loop evaluates the loss itself.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | length of a step, or the first guess of a search; 1 is usual |
/// | [`history`](Self::history) | 100 | ≥ 1 | number of pairs (s, y) kept |
/// | [`iterations`](Self::iterations) | 20 | ≥ 1 | maximum number of iterations in one `step_with` |
/// | [`evaluations`](Self::evaluations) | 1.25 · iterations | ≥ 1 | maximum number of evaluations in one `step_with` |
/// | [`tolerance_grad`](Self::tolerance_grad) | 1e-7 | ≥ 0 | stops if no element of the gradient is larger |
/// | [`tolerance_change`](Self::tolerance_change) | 1e-9 | ≥ 0 | stops if neither parameters nor loss change by more |
/// | [`strong_wolfe`](Self::strong_wolfe) | no | | line search, c₁ = 1e-4, c₂ = 0.9 |
/// | [`bounds`](Self::bounds) | none | lower ≤ upper | the range of each element: L-BFGS-B |
///
/// # State
/// `prev_grad`, `movement` and, per pair, `s.i` and `y.i`: 2 + 2 · history elements per parameter.
///
/// # Conventions
/// `torch.optim.LBFGS`. Unlike PyTorch, a first line search that runs out of evaluations continues, up to 25, instead of returning without progress, unless
/// `evaluations` is set. `steps` counts iterations, without those that are undone. A tensor without a gradient is not part of the vector. The history is
/// reset if other tensors have gradients than in the last iteration, or if the direction overflows. The learning rate of a [group](crate::OptimizerExt::group)
/// scales the group's part of the step.
///
/// # Errors
/// [`StepError::NonFiniteGradient`], [`ArgumentError::NotFinite`](crate::error::ArgumentError::NotFinite) for a loss, [`StepError::HyperParameter`]. If an evaluation
/// returns an error, parameters and state are unchanged. If it panics, the parameters are those of that evaluation. If a loss or gradient is not finite
/// during a line search, the search tries shorter steps. Without a line search, the iteration is undone and the call ends with [`LbfgsStop::NotFinite`].
///
/// # Example
/// ```
/// use gradus::{Lbfgs, prelude::*};
/// use ndarray::{Array1, array};
///
/// let rosenbrock = |w: &Array1<f64>| {
///     let (a, b) = (1.0 - w[0], w[1] - w[0] * w[0]);
///     (a * a + 100.0 * b * b, array![-2.0 * a - 400.0 * w[0] * b, 200.0 * b])
/// };
/// let (mut opt, mut w) = (Lbfgs::new(1.0).history(10).strong_wolfe(true), array![-1.2, 1.0]);
/// let reports: Result<Vec<_>, _> = (0..3).map(|_| opt.step_with(&mut w, rosenbrock)).collect();
/// assert!(reports?[2].loss < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Nocedal and S. J. Wright, *Numerical Optimization* (2006), algorithms 7.4, 7.5, 3.5 and 3.6.
/// D. C. Liu and J. Nocedal, *On the limited memory BFGS method for large scale optimization* (1989).
#[doc(alias("LBFGS", "L-BFGS"))]
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Clone)]
pub struct Lbfgs<A> {
    learning_rate: Hyper,
    history: usize,
    iterations: u64,
    evaluations: Option<u64>,
    tolerance_grad: f64,
    tolerance_change: f64,
    strong_wolfe: bool,
    limits: Option<Arc<Limits<A>>>,
    steps: u64,
    layout: Option<Arc<Layout>>,
    memory: Memory<A>,
}

impl<A: Scalar> Lbfgs<A> {
    /// L-BFGS with this learning rate, a number or a schedule.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self {
            learning_rate: learning_rate.into(),
            history: 100,
            iterations: 20,
            evaluations: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
            strong_wolfe: false,
            limits: None,
            steps: 0,
            layout: None,
            memory: Memory::default(),
        }
    }

    /// With the settings of a configuration.
    #[cfg(feature = "config")]
    pub(crate) fn configured(mut self, settings: &mut crate::config::settings::Settings<'_>) -> Result<Self> {
        self.history = settings.optional("history")?.unwrap_or(self.history);
        self.iterations = settings.optional("iterations")?.unwrap_or(self.iterations);
        self.evaluations = settings.optional("evaluations")?.or(self.evaluations);
        self.tolerance_grad = settings.optional("tolerance_grad")?.unwrap_or(self.tolerance_grad);
        self.tolerance_change = settings.optional("tolerance_change")?.unwrap_or(self.tolerance_change);
        self.strong_wolfe = settings.optional("strong_wolfe")?.unwrap_or(self.strong_wolfe);
        settings.only_in_code("bounds", "they are arrays; call `bounds` on the optimizer")?;
        Ok(self)
    }

    /// Sets the number of pairs kept. From a longer saved history, the most recent pairs are loaded.
    pub fn history(mut self, pairs: usize) -> Self {
        self.history = pairs;
        self
    }

    /// Sets the maximum number of iterations of one [`step_with`](Self::step_with).
    pub fn iterations(mut self, iterations: u64) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets the maximum number of evaluations of one [`step_with`](Self::step_with).
    pub fn evaluations(mut self, evaluations: u64) -> Self {
        self.evaluations = Some(evaluations);
        self
    }

    /// Sets the tolerance of the gradient's largest element.
    pub fn tolerance_grad(mut self, tolerance: f64) -> Self {
        self.tolerance_grad = tolerance;
        self
    }

    /// Sets the tolerance of the change of parameters and loss.
    pub fn tolerance_change(mut self, tolerance: f64) -> Self {
        self.tolerance_change = tolerance;
        self
    }

    /// Whether [`step_with`](Self::step_with) uses a line search with the strong Wolfe conditions. Off by default. [`step`](Optimizer::step) has only
    /// one gradient and cannot search.
    pub fn strong_wolfe(mut self, strong_wolfe: bool) -> Self {
        self.strong_wolfe = strong_wolfe;
        self
    }

    /// Keeps each element within its own bounds. The trees have the tensors of the parameters; a bound may be infinite.
    ///
    /// Directions are then those of L-BFGS-B: to the minimum of the quadratic model within the bounds, first along the projected gradient, then in
    /// the subspace of the elements that are not at a bound. Steps end at the bounds; use [`strong_wolfe`](Self::strong_wolfe) too.
    /// Parameters that start outside are first moved to their bounds. [`tolerance_grad`](Self::tolerance_grad) then applies to the largest element of
    /// P(θ − g) − θ, where P limits to the bounds. A pair is kept if ⟨y, s⟩ > 2.2e-16·⟨y, y⟩. An iteration takes time in proportion to the square of
    /// [`history`](Self::history): use 10, as scipy does.
    ///
    /// ```
    /// use gradus::prelude::*;
    ///
    /// let loss = |w: &Vec<f64>| ((w[0] + 1.0).powi(2) + (w[1] - 2.0).powi(2), [2.0 * (w[0] + 1.0), 2.0 * (w[1] - 2.0)]);
    /// let (lower, upper) = (vec![0.0, 0.0], vec![f64::INFINITY, 5.0]);
    /// let mut opt = Lbfgs::new(1.0).history(10).strong_wolfe(true).bounds(&lower, &upper)?;
    /// let mut w = vec![1.0, 1.0];
    /// opt.step_with(&mut w, loss)?;
    /// assert!(w[0] == 0.0 && (w[1] - 2.0).abs() < 1e-8);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ArgumentError::Trees`](crate::error::ArgumentError::Trees) if the trees differ, and [`ArgumentError::Range`](crate::error::ArgumentError::Range)
    /// unless each lower bound is at most the upper one. A step returns `Trees` if the parameters have other tensors.
    ///
    /// # References
    /// R. H. Byrd, P. Lu, J. Nocedal and C. Zhu, *A limited memory algorithm for bound constrained optimization* (1995), sec. 4 and 5.1.
    /// J. L. Morales and J. Nocedal, *Remark on Algorithm 778* (2011), for the projection in the subspace.
    #[doc(alias("L-BFGS-B", "lbfgsb", "fmin_l_bfgs_b"))]
    pub fn bounds<T, U>(self, lower: &T, upper: &U) -> Result<Self>
    where
        T: Params<Elem = A> + ?Sized,
        U: Params<Elem = A> + ?Sized,
    {
        Ok(Self { limits: Some(Arc::new(Limits::new(lower, upper)?)), ..self })
    }

    /// The learning rate of the coming iteration, if all settings are in order.
    fn settings(&self) -> Result<f64> {
        ensure_count("history", self.history as u64)?;
        ensure_count("iterations", self.iterations)?;
        ensure_count("evaluations", self.most_evaluations())?;
        let tolerances = [("tolerance_grad", self.tolerance_grad), ("tolerance_change", self.tolerance_change)];
        let not_positive = |value: f64| !(value >= 0.0 && value.is_finite());
        if let Some((name, value)) = tolerances.into_iter().find(|(_, value)| not_positive(*value)) {
            let accepted = "a finite number ≥ 0".into();
            return Err(Error::Step(StepError::HyperParameter {
                name,
                value,
                step: self.steps,
                path: None,
                pattern: None,
                accepted,
            }));
        }
        counter::ensure_next("steps", self.steps)?;
        self.rate()
    }

    fn rate(&self) -> Result<f64> {
        let rate = self.learning_rate.within("learning_rate", 0.0.., self.steps)?;
        self.ensure_rate(rate, None)
    }

    /// A learning rate, if it is in range in the element type too.
    fn ensure_rate(&self, value: f64, path: Option<&str>) -> Result<f64> {
        let largest = A::max_value().as_f64();
        if (0.0..=largest).contains(&value) {
            return Ok(value);
        }
        let (step, path) = (self.steps, path.map(str::to_owned));
        let accepted = format!("a number in 0 ≤ learning_rate ≤ {largest:e} in {}", A::DTYPE);
        Err(Error::Step(StepError::HyperParameter {
            name: "learning_rate",
            value,
            step,
            path,
            pattern: None,
            accepted,
        }))
    }

    fn most_evaluations(&self) -> u64 {
        self.evaluations.unwrap_or(self.iterations.saturating_add(self.iterations / 4))
    }
}

/// Returns an error unless every gradient is dense and finite.
fn ensure_finite<A: Scalar>(step: &Step<'_, A>) -> Result<()> {
    step.grads().try_for_each(|(info, grad)| grad.ensure_dense(info, "lbfgs", ELEMENTWISE))?;
    let grads: Vec<_> = step.grads().collect();
    norm::ensure_finite(&grads)
}

impl<A: Scalar> Optimizer<A> for Lbfgs<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        step.note_whole(|| Note::Part(format!("Lbfgs(learning_rate: {:?})", self.learning_rate)));
        let rate = self.settings()?;
        step.share().ensure(Extent::Parameters, "lbfgs")?;
        step.ensure_free("lbfgs", "an optimizer that does not compare gradients along its own moves")?;
        for (_, tensor) in step.iter() {
            tensor.replaced.ensure_known("Lbfgs", &["learning_rate"], std::iter::empty())?;
        }
        step.ensure_fit(self.layout.as_ref())?;
        self.limits.as_ref().map_or(Ok(()), |limits| limits.ensure_for(step.layout()))?;
        for (info, tensor) in step.iter().filter(|(_, tensor)| tensor.grad.is_some()) {
            self.ensure_rate(tensor.learning_rate.apply(rate), Some(info.path()))?;
            let decay = tensor.weight_decay.apply(0.0);
            if decay != 0.0 {
                let (path, accepted) =
                    (Some(info.path().into()), "0: L-BFGS has none, it belongs into the loss".into());
                return Err(Error::Step(StepError::HyperParameter {
                    name: "weight_decay",
                    value: decay,
                    step: self.steps,
                    path,
                    pattern: None,
                    accepted,
                }));
            }
        }
        ensure_finite(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        self.check(&step)?;
        let rate = self.settings()?;
        step.show(|tensor| tensor.learning_rate.apply(rate));
        self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
        self.steps += 1;
        let (active, grad) = flat_grads(&step);
        let bounds = self.limits.as_ref().map(|limits| limits.of(&active));
        let start = if bounds.is_some() { flat_params(&step) } else { Vec::new() };
        let mut position = start.clone();
        let largest = bounds.as_ref().map_or_else(
            || largest(&grad),
            |bounds| {
                bounds.clamp(&mut position);
                bounds.largest_within(&position, &grad)
            },
        );
        let is_inside = start == position;
        if is_inside && largest <= self.tolerance_grad {
            return Ok(Report::new(rate, false));
        }
        self.memory.begin(&active);
        let direction = match &bounds {
            Some(bounds) => self.memory.direction_within((&position, &grad), bounds, self.history),
            None => self.memory.direction(&grad, self.history),
        };
        let first = self.memory.movement.is_empty();
        let length = if first { rate * (1.0 / sum_of_sizes(&grad)).min(1.0) } else { rate };
        let downhill = !is_inside || dot(&grad, &direction) <= -self.tolerance_change;
        self.memory.grad = grad;
        self.memory.movement = scaled(&direction, length);
        let mut at = 0;
        for (info, tensor) in step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some()) {
            let own = tensor.learning_rate.apply(length);
            let part = at..at + info.elements();
            at = part.end;
            let movement = &mut self.memory.movement[part.clone()];
            let own = times(if downhill { own } else { 0.0 });
            movement.iter_mut().zip(&direction[part.clone()]).for_each(|(to, from)| *to = own(*from));
            let ends = bounds.as_ref().map(|bounds| bounds.ends(part, (&start, &position), movement));
            // What says that it has not moved is followed by nothing: not even by a zero.
            if downhill {
                tensor.update(info, |mut param, _| match &ends {
                    Some(ends) => param.iter_mut().zip(ends).for_each(|(param, end)| *param = *end),
                    None => param.iter_mut().zip(&*movement).for_each(|(param, movement)| *param += *movement),
                });
            }
        }
        Ok(Report::new(rate, downhill))
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate.at(self.steps)
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.learning_rate = learning_rate;
    }

    fn part(&self, of: TypeId) -> Option<&dyn Any> {
        if of == TypeId::of::<Self>() { Some(self) } else { None }
    }

    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
        if of == TypeId::of::<Self>() { Some(self) } else { None }
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("lbfgs");
        self.learning_rate.write_state("learning_rate", &mut node);
        node.value("steps", self.steps);
        self.memory.write(&mut node, self.layout.as_deref());
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("lbfgs")?;
        let rate = self.learning_rate.read_state("learning_rate", &node)?;
        let steps = node.value("steps", "a count")?;
        let memory = Memory::read(&node, self.history)?;
        let layout = node.layout().cloned();
        let own = Commit::new(move || (self.steps, self.layout, self.memory) = (steps, layout, memory));
        Ok(own.and(rate))
    }
}

impl<A> fmt::Debug for Lbfgs<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lbfgs")
            .field("learning_rate", &self.learning_rate)
            .field("history", &self.history)
            .field("strong_wolfe", &self.strong_wolfe)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
