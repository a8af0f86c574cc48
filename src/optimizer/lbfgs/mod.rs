//! L-BFGS: quasi-Newton steps from the last few changes of the gradient.

mod vector;
mod wolfe;

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::params::scalar::{Scalar, is_kept};
use crate::params::{Layout, Params, ParamsMut};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step, counter, norm};

use vector::{Places, Undo, add, dot, flat_grads, largest, moved, scaled, sum_of_sizes, times};
use wolfe::{Line, Point};

/// L-BFGS, for problems whose whole loss is computed at every step.
///
/// # Update rule
/// ```text
/// y = g − g₋₁,  s = θ − θ₋₁                  kept, the last `history` of them, if ⟨y, s⟩ > 1e-10 and ⟨y, s⟩/⟨y, y⟩ is a number
/// q = −g;  for the pairs, last first:         α = ⟨s, q⟩/⟨y, s⟩,  q ← q − αy
/// d = q·⟨y, s⟩/⟨y, y⟩ of the last pair;  first first:  d ← d + (α − ⟨y, d⟩/⟨y, s⟩)s
/// θ ← θ + td                                  t = η, in the first iteration η·min(1, 1/‖g‖₁)
/// ```
/// [`step_with`](Self::step_with) evaluates the loss as often as it needs to, and with
/// [`strong_wolfe`](Self::strong_wolfe) searches t. All tensors are one vector.
///
/// As an [`Optimizer`], each [`step`](Optimizer::step) is one iteration with t from the learning rate, without a search: for
/// adaptors, which have no `step_with`, and where the loop evaluates the loss itself.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | length of a step, or the first guess; 1 is usual |
/// | [`history`](Self::history) | 100 | ≥ 1 | pairs (s, y) kept |
/// | [`iterations`](Self::iterations) | 20 | ≥ 1 | the most in one `step_with` |
/// | [`evaluations`](Self::evaluations) | 1.25 · iterations | ≥ 1 | the most in one `step_with`, beyond which it stops |
/// | [`tolerance_grad`](Self::tolerance_grad) | 1e-7 | ≥ 0 | it stops when no element of the gradient is larger |
/// | [`tolerance_change`](Self::tolerance_change) | 1e-9 | ≥ 0 | it stops when neither parameters nor loss change by more |
/// | [`strong_wolfe`](Self::strong_wolfe) | no | | search along the line, c₁ = 1e-4, c₂ = 0.9 |
///
/// # State
/// `prev_grad`, `movement` and, of every pair, `s.i` and `y.i`: 2 + 2 · history elements a parameter.
///
/// # Conventions
/// `torch.optim.LBFGS`; `steps` counts iterations, but not one that is taken back. Where a call there would end where it
/// began, as its first search has too few evaluations, it goes on here, up to 25, unless `evaluations` was set. A tensor without a gradient is not part of the vector; when others have gradients
/// than in the iteration before, or its pairs lead to a direction of more than the largest number, the history begins anew. A [group](Optimizer::group)'s learning rate scales its own part of the step.
///
/// # Errors
/// [`Error::NonFiniteGradient`], [`Error::NotFinite`] for a loss, [`Error::HyperParameter`]. On an error in any evaluation
/// parameters and state are what they were before the call; a panic in it leaves the parameters that it was asked about. A loss or gradient that is not finite on the line is turned back from;
/// without the search, the iteration is taken back and the call ends with [`Stop::NotFinite`].
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
/// let (mut opt, mut w) = (Lbfgs::new(1.0).history(10).strong_wolfe(), array![-1.2, 1.0]);
/// let reports: Result<Vec<_>, _> = (0..3).map(|_| opt.step_with(&mut w, rosenbrock)).collect();
/// assert!(reports?[2].loss < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Nocedal and S. J. Wright, *Numerical Optimization* (2006), algorithms 7.4, 7.5, 3.5 and 3.6.
/// D. C. Liu and J. Nocedal, *On the limited memory BFGS method for large scale optimization* (1989).
#[derive(Clone)]
pub struct Lbfgs<A> {
    learning_rate: Hyper,
    history: usize,
    iterations: u64,
    evaluations: Option<u64>,
    tolerance_grad: f64,
    tolerance_change: f64,
    strong_wolfe: bool,
    steps: u64,
    layout: Option<Arc<Layout>>,
    memory: Memory<A>,
}

const LEARNING_RATE: &str = "learning_rate";

/// How often a call's first search evaluates the loss if it has found nothing lower.
const SEARCH: u64 = 25;

/// A pair (s, y); shared with the copy that an error goes back to.
type Pair<A> = Arc<(Vec<A>, Vec<A>)>;

/// What an iteration needs to know of those before.
#[derive(Clone, PartialEq)]
struct Memory<A> {
    /// Which tensors make the vector.
    active: Vec<bool>,
    /// The gradient at the beginning of the last iteration, and how it moved; empty before the first.
    grad: Vec<A>,
    movement: Vec<A>,
    /// (s, y), the oldest first.
    pairs: VecDeque<Pair<A>>,
    /// ⟨y, s⟩/⟨y, y⟩ of the last pair.
    scale: f64,
}

impl<A> Default for Memory<A> {
    fn default() -> Self {
        Self { active: Vec::new(), grad: Vec::new(), movement: Vec::new(), pairs: VecDeque::new(), scale: 1.0 }
    }
}

/// Why [`Lbfgs::step_with`] went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The iterations of a call are over.
    Iterations,
    /// The evaluations of a call are over.
    Evaluations,
    /// The gradient is within its tolerance.
    Gradient,
    /// The parameters, or the loss, changed by less than the tolerance, or the direction leads nowhere.
    Change,
    /// Loss or gradient became NaN or infinite; the parameters are those before that iteration.
    NotFinite,
}

/// What [`Lbfgs::step_with`] did.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LbfgsReport {
    /// The loss at the beginning.
    pub initial_loss: f64,
    /// The last loss evaluated: that of the parameters as they are now, except without a line search after the last iteration.
    pub loss: f64,
    /// Iterations made.
    pub iterations: u64,
    /// How often the loss was evaluated.
    pub evaluations: u64,
    /// Why it ended.
    pub stop: Stop,
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
            steps: 0,
            layout: None,
            memory: Memory::default(),
        }
    }

    /// How many pairs are kept: of a saved state the last ones.
    pub fn history(mut self, pairs: usize) -> Self {
        self.history = pairs;
        self
    }

    /// The most iterations of one [`step_with`](Self::step_with).
    pub fn iterations(mut self, iterations: u64) -> Self {
        self.iterations = iterations;
        self
    }

    /// The most evaluations of one [`step_with`](Self::step_with).
    pub fn evaluations(mut self, evaluations: u64) -> Self {
        self.evaluations = Some(evaluations);
        self
    }

    /// The largest element of a gradient that counts as none.
    pub fn tolerance_grad(mut self, tolerance: f64) -> Self {
        self.tolerance_grad = tolerance;
        self
    }

    /// The largest change that counts as none.
    pub fn tolerance_change(mut self, tolerance: f64) -> Self {
        self.tolerance_change = tolerance;
        self
    }

    /// Searches along each direction until the strong Wolfe conditions hold: in [`step_with`](Self::step_with), as
    /// [`step`](Optimizer::step) has one gradient and nothing to search with.
    pub fn strong_wolfe(mut self) -> Self {
        self.strong_wolfe = true;
        self
    }

    /// The learning rate of the coming iteration, if all settings are in order.
    fn settings(&self) -> Result<f64> {
        let counts = [
            ("history", self.history as u64),
            ("iterations", self.iterations),
            ("evaluations", self.most_evaluations()),
        ];
        let tolerances = [("tolerance_grad", self.tolerance_grad), ("tolerance_change", self.tolerance_change)];
        let bad_count = counts.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| (name, 0.0, "at least 1"));
        let not_positive = |value: f64| !(value >= 0.0 && value.is_finite());
        let bad_tolerance = tolerances.into_iter().find(|(_, value)| not_positive(*value));
        let bad_tolerance = bad_tolerance.map(|(name, value)| (name, value, "a finite number ≥ 0"));
        if let Some((name, value, accepted)) = bad_count.or(bad_tolerance) {
            return Err(Error::HyperParameter { name, value, step: self.steps, path: None, accepted: accepted.into() });
        }
        counter::ensure_next("steps", self.steps)?;
        self.rate()
    }

    fn rate(&self) -> Result<f64> {
        let rate = self.learning_rate.within(LEARNING_RATE, 0.0.., self.steps)?;
        self.ensure_rate(rate, None)
    }

    /// A learning rate, if it is in range in the element type too.
    fn ensure_rate(&self, value: f64, path: Option<&str>) -> Result<f64> {
        let largest = A::max_value().as_f64();
        if (0.0..=largest).contains(&value) {
            return Ok(value);
        }
        let (step, path) = (self.steps, path.map(str::to_owned));
        let accepted = format!("a number in 0 ≤ {LEARNING_RATE} ≤ {largest:e} in {}", A::DTYPE);
        Err(Error::HyperParameter { name: LEARNING_RATE, value, step, path, accepted })
    }

    fn most_evaluations(&self) -> u64 {
        self.evaluations.unwrap_or(self.iterations.saturating_add(self.iterations / 4))
    }

    /// Goes several iterations down the loss, which `evaluate` computes with its gradients: the whole loss, of all data, and the same
    /// at every call.
    ///
    /// # Errors
    /// [`Error::NotFinite`] or [`Error::NonFiniteGradient`] at the beginning, [`Error::HyperParameter`], and those of
    /// [`Step::pair`]. Parameters and state are then what they were: a tree gets back what its first walk has shown, wherever the walk
    /// that puts it back leads.
    pub fn step_with<P, G, L>(&mut self, params: &mut P, mut evaluate: impl FnMut(&P) -> (L, G)) -> Result<LbfgsReport>
    where
        P: ParamsMut<Elem = A>,
        G: Params<Elem = A>,
        L: Into<f64>,
    {
        let (steps, layout, memory) = (self.steps, self.layout.clone(), self.memory.clone());
        let mut undo = None;
        let result = self.descend(params, &mut evaluate, &mut undo);
        if result.is_err() {
            (self.steps, self.layout, self.memory) = (steps, layout, memory);
            if let Some(undo) = undo {
                undo.undo(params);
            }
        }
        result
    }

    /// [`step_with`](Self::step_with), but for taking back what an error leaves; `undo` gets the parameters before the first change.
    fn descend<P, G, L>(
        &mut self,
        params: &mut P,
        evaluate: &mut impl FnMut(&P) -> (L, G),
        undo: &mut Option<Undo<A>>,
    ) -> Result<LbfgsReport>
    where
        P: ParamsMut<Elem = A>,
        G: Params<Elem = A>,
        L: Into<f64>,
    {
        let mut rate = self.settings()?;
        let (loss, grads) = evaluate(params);
        let (mut loss, own) = (loss.into(), Step::pair(params, &grads, self.layout.as_ref())?);
        Layout::ensure_known(self.layout.as_ref(), own.layout())?;
        if !loss.is_finite() {
            return Err(Error::NotFinite { argument: "loss", index: vec![], value: loss });
        }
        ensure_finite(&own)?;
        let layout = Arc::clone(own.layout());
        let (active, mut grad) = flat_grads(&own);
        drop(own);
        let initial_loss = loss;
        let mut report = LbfgsReport { initial_loss, loss, iterations: 0, evaluations: 1, stop: Stop::Gradient };
        self.layout = Some(Arc::clone(&layout));
        if largest(&grad) <= self.tolerance_grad {
            return Ok(report);
        }
        let places = Places::new(&layout, &active);
        let mut position = places.read(params)?;
        let undo = undo.insert(Undo::new(places, &position));
        self.memory.begin(&active);
        // The loss and gradient at another place, and the parameters there. Infinite where they are not finite.
        let mut evaluate_at = |undo: &mut Undo<A>, params: &mut P, position: &[A]| -> Result<(f64, Vec<A>)> {
            undo.write(params, position)?;
            let (loss, grads) = evaluate(params);
            let step = Step::pair(params, &grads, Some(&layout))?;
            layout.ensure_same(step.layout())?;
            let (found, grad) = flat_grads(&step);
            if found != active {
                let missing = layout.tensors().iter().zip(found.iter().zip(&active)).find(|(_, (a, b))| a != b);
                let path = missing.map_or_else(String::new, |(info, _)| info.path().into());
                return Err(Error::MissingGradient { path });
            }
            let loss = loss.into();
            let finite = loss.is_finite() && grad.iter().all(|g| g.is_finite());
            Ok((if finite { loss } else { f64::INFINITY }, grad))
        };
        report.stop = loop {
            let remembered = self.memory.clone();
            let direction = self.memory.direction(&grad, self.history);
            let first = self.memory.movement.is_empty();
            let guess = if first { rate * (1.0 / sum_of_sizes(&grad)).min(1.0) } else { rate };
            let slope = dot(&grad, &direction);
            report.iterations += 1;
            counter::ensure_next("steps", self.steps)?;
            self.steps += 1;
            self.memory.grad.clone_from(&grad);
            if slope.is_nan() || slope > -self.tolerance_change {
                self.memory.movement = scaled(&direction, guess);
                break Stop::Change;
            }
            let before = (position.clone(), loss);
            let last = report.iterations == self.iterations;
            if self.strong_wolfe {
                // If a call ended where it began, so would the next.
                let may_stay = self.evaluations.is_some() || report.iterations > 1;
                let left = self.most_evaluations().saturating_sub(report.evaluations);
                let line = Line {
                    largest: largest(&direction),
                    tolerance: self.tolerance_change,
                    evaluations: left,
                    most: if may_stay { left } else { left.max(SEARCH) },
                };
                let point = Point { length: 0.0, loss, slope, grad };
                let (found, evaluations) = line.search(point, guess, |length| {
                    let (loss, grad) = evaluate_at(undo, params, &moved(&position, &direction, length))?;
                    Ok(Point { length, loss, slope: dot(&grad, &direction), grad })
                })?;
                report.evaluations += evaluations;
                self.memory.movement = scaled(&direction, found.length);
                position = moved(&position, &direction, found.length);
                undo.write(params, &position)?;
                (loss, grad) = (found.loss, found.grad);
            } else {
                self.memory.movement = scaled(&direction, guess);
                position = moved(&position, &direction, guess);
                undo.write(params, &position)?;
                if !last {
                    (loss, grad) = evaluate_at(undo, params, &position)?;
                    report.evaluations += 1;
                }
            }
            if !(loss.is_finite() && position.iter().all(|x| x.is_finite())) {
                (position, loss) = before;
                undo.write(params, &position)?;
                self.memory = remembered;
                self.steps -= 1;
                report.iterations -= 1;
                break Stop::NotFinite;
            }
            rate = self.rate()?;
            if last {
                break Stop::Iterations;
            }
            if report.evaluations >= self.most_evaluations() {
                break Stop::Evaluations;
            }
            if largest(&grad) <= self.tolerance_grad {
                break Stop::Gradient;
            }
            let small = largest(&self.memory.movement) <= self.tolerance_change;
            if small || (loss - before.1).abs() < self.tolerance_change {
                break Stop::Change;
            }
        };
        report.loss = loss;
        Ok(report)
    }
}

impl<A: Scalar> Memory<A> {
    /// Begins anew if the vector is made of other tensors than before.
    fn begin(&mut self, active: &[bool]) {
        if self.active != active {
            *self = Self { active: active.to_vec(), ..Self::default() };
        }
    }

    /// Remembers what the last movement did to the gradient, if the element type has numbers for it, and gives the next direction.
    /// Begins anew, with the gradient's own, if the pairs make none of finite numbers.
    fn direction(&mut self, grad: &[A], history: usize) -> Vec<A> {
        if !self.movement.is_empty() {
            let change: Vec<A> = grad.iter().zip(&self.grad).map(|(now, before)| *now - *before).collect();
            let product = dot(&change, &self.movement);
            let scale = product / dot(&change, &change);
            if product > 1e-10 && scale > 0.0 && is_kept::<A>(scale) {
                while self.pairs.len() >= history {
                    self.pairs.pop_front();
                }
                self.scale = scale;
                self.pairs.push_back(Arc::new((self.movement.clone(), change)));
            }
        }
        let mut direction: Vec<A> = grad.iter().map(|g| -*g).collect();
        let mut shares = Vec::with_capacity(self.pairs.len());
        for (s, y) in self.pairs.iter().map(|pair| &**pair).rev() {
            let (product, share) = (dot(y, s), dot(s, &direction));
            let share = share / product;
            add(&mut direction, y, -share);
            shares.push((share, product));
        }
        let scale = A::from_f64(self.scale);
        direction.iter_mut().for_each(|d| *d *= scale);
        for ((s, y), (share, product)) in self.pairs.iter().map(|pair| &**pair).zip(shares.into_iter().rev()) {
            let other = dot(y, &direction) / product;
            add(&mut direction, s, share - other);
        }
        if !norm::finite(&direction) {
            *self = Self { active: std::mem::take(&mut self.active), ..Self::default() };
            direction = grad.iter().map(|g| -*g).collect();
        }
        direction
    }
}

fn ensure_finite<A: Scalar>(step: &Step<'_, A>) -> Result<()> {
    let grads: Vec<_> = step.grads().collect();
    if norm::all_finite(&grads) { Ok(()) } else { Err(norm::non_finite(&grads)) }
}

impl<A: Scalar> Optimizer<A> for Lbfgs<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let rate = self.settings()?;
        step.ensure_whole("lbfgs")?;
        step.ensure_fit(self.layout.as_ref())?;
        for (info, tensor) in step.iter().filter(|(_, tensor)| tensor.grad.is_some()) {
            self.ensure_rate(tensor.learning_rate.apply(rate), Some(info.path()))?;
            let decay = tensor.weight_decay.apply(0.0);
            if decay != 0.0 {
                let (path, accepted) =
                    (Some(info.path().into()), "0: L-BFGS has none, it belongs into the loss".into());
                return Err(Error::HyperParameter {
                    name: "weight_decay",
                    value: decay,
                    step: self.steps,
                    path,
                    accepted,
                });
            }
        }
        ensure_finite(step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        self.check(&step)?;
        let rate = self.settings()?;
        self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
        self.steps += 1;
        let (active, grad) = flat_grads(&step);
        if largest(&grad) <= self.tolerance_grad {
            return Ok(Report::new(rate, false));
        }
        self.memory.begin(&active);
        let direction = self.memory.direction(&grad, self.history);
        let first = self.memory.movement.is_empty();
        let length = if first { rate * (1.0 / sum_of_sizes(&grad)).min(1.0) } else { rate };
        let downhill = dot(&grad, &direction) <= -self.tolerance_change;
        self.memory.grad = grad;
        self.memory.movement = scaled(&direction, length);
        let mut at = 0;
        for (info, tensor) in step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some()) {
            let own = tensor.learning_rate.apply(length);
            let part = at..at + info.elements();
            at = part.end;
            let movement = &mut self.memory.movement[part.clone()];
            let own = times(if downhill { own } else { 0.0 });
            movement.iter_mut().zip(&direction[part]).for_each(|(to, from)| *to = own(*from));
            // What says that it has not moved is followed by nothing: not even by a zero.
            if downhill {
                tensor.update(info, |mut param, _| {
                    param.iter_mut().zip(&*movement).for_each(|(param, movement)| *param += *movement);
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
        self.learning_rate.write_state(&mut node);
        node.value("steps", self.steps);
        node.value("pairs", self.memory.pairs.len());
        node.value("scale", self.memory.scale);
        let layout = self.layout.iter().flat_map(|layout| layout.tensors());
        let active = layout.zip(&self.memory.active).filter(|(_, active)| **active).map(|(info, _)| info);
        let mut at = 0;
        for info in active {
            let part = at..at + info.elements();
            at = part.end;
            let mut write = |name: &str, vector: &[A]| {
                if let Some(part) = vector.get(part.clone()) {
                    node.tensor(name, info, part.iter().copied());
                }
            };
            write("prev_grad", &self.memory.grad);
            write("movement", &self.memory.movement);
            for (number, pair) in self.memory.pairs.iter().enumerate() {
                write(&format!("s.{number}"), &pair.0);
                write(&format!("y.{number}"), &pair.1);
            }
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut node = state.node("lbfgs")?;
        let rate = self.learning_rate.read_state(&mut node)?;
        let steps = node.value("steps", "a count")?;
        let pairs: usize = node.value("pairs", "a count")?;
        let positive = |scale: &f64| scale.is_finite() && *scale > 0.0;
        let mut memory =
            Memory { scale: node.value_where("scale", "a number above 0", positive)?, ..Memory::default() };
        let part = |name: &str, info| node.tensor::<A>(name, info)?.ok_or_else(|| node.missing(name, info));
        let mut active = Vec::new();
        for info in node.tensors() {
            let grad = node.tensor::<A>("prev_grad", info)?;
            memory.active.push(grad.is_some());
            let Some(grad) = grad else { continue };
            active.push(info);
            memory.grad.extend(grad);
            memory.movement.extend(part("movement", info)?);
        }
        if pairs > 0 && active.is_empty() {
            return Err(node.absent("s.0", ""));
        }
        // All are read, the last ones are kept.
        for number in 0..pairs {
            let whole = |name: String| {
                let parts = active.iter().map(|info| part(&name, info)).collect::<Result<Vec<_>>>();
                Ok::<_, Error>(parts?.concat())
            };
            memory.pairs.push_back(Arc::new((whole(format!("s.{number}"))?, whole(format!("y.{number}"))?)));
            if memory.pairs.len() > self.history {
                memory.pairs.pop_front();
            }
        }
        if !memory.active.contains(&true) {
            memory.active.clear();
        }
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
