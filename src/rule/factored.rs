//! The driver for algorithms that remember means of rows and columns.

use std::fmt;

use ndarray::ArrayD;
use pulp::Arch;

use super::factor::FactoredRule;
use super::factors::{Factors, Lines, SquareSums};
use super::lanes::{agree, agreeing};
use super::measured::{Measured, Sums, Wanted};
use super::options::{Move, Options, options};
use super::rates::{Rates, RatesAt, driver, optimizer_of_driver};
use super::scratch::Scratch;
use super::spread::Spread;
use super::valued::Valued;
use super::{At, Decay, HyperParameters};
use crate::error::Result;
use crate::kernel::{blocks, simd, threads, tree};
use crate::params::{Order, Scalar, TensorInfo, Values, ValuesMut};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::grad::rows::ELEMENTWISE;
use crate::step::grad::{BLOCK, WIDE_BLOCK, read};
use crate::step::share::Extent;
use crate::step::{Grad, Optimizer, PerTensor, Report, Step, Tensor, counter, norm};

/// An optimizer from a [`FactoredRule`].
///
/// It has the rule's slots and a step count per tensor, created when the tensor gets its first gradient. Weight decay is decoupled. If an option changes
/// between two steps whether a tensor is factored, or whether there is a momentum, the state is reset as that of a [`Matrixwise`](super::Matrixwise).
///
/// A step reads each gradient three times and each parameter twice. It allocates scratch memory of three numbers per row and column, not of the size of
/// a matrix. The bits depend neither on the number of threads nor on the memory layout.
///
/// # Errors
/// A gradient that is not finite is an error, because it would make a whole matrix NaN. The other errors are those of
/// [`Elementwise`](super::Elementwise).
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Clone)]
pub struct Factored<R, A> {
    pub(crate) rule: R,
    rates: Rates,
    options: Options,
    steps: u64,
    state: PerTensor<State<A>>,
    scratch: Scratch<A>,
}

/// The state of one tensor.
#[derive(Clone)]
struct State<A> {
    steps: u64,
    slots: Vec<Slot<A>>,
    /// The norm that the tensor keeps.
    norm: Option<f64>,
}

#[derive(Clone)]
struct Slot<A> {
    name: &'static str,
    shape: Vec<usize>,
    /// In row-major order.
    values: Vec<A>,
}

impl<A> Default for State<A> {
    fn default() -> Self {
        Self { steps: 0, slots: Vec::new(), norm: None }
    }
}

impl<A: Scalar> State<A> {
    /// Whether the state has slots of these names and shapes: a setter may give the rule other ones later.
    fn has(&self, slots: &[(&'static str, Vec<usize>)]) -> bool {
        let own = self.slots.iter().map(|slot| (slot.name, &slot.shape));
        slots.iter().map(|(name, shape)| (*name, shape)).eq(own)
    }

    /// The state before the first step.
    fn zeros(slots: Vec<(&'static str, Vec<usize>)>) -> Self {
        let zeros = |(name, shape): (_, Vec<usize>)| {
            let values = vec![A::zero(); shape.iter().product()];
            Slot { name, shape, values }
        };
        Self { steps: 0, slots: slots.into_iter().map(zeros).collect(), norm: None }
    }
}

/// One tensor's part in a step.
struct Task<'s, 'a, A> {
    info: &'s TensorInfo,
    tensor: &'s mut Tensor<'a, A>,
    state: &'s mut State<A>,
    sums: Option<SquareSums>,
}

impl<R, A> Factored<R, A> {
    /// Creates an optimizer from a rule, without weight decay.
    pub fn from_rule(rule: R, learning_rate: impl Into<Hyper>) -> Self {
        Self {
            rule,
            rates: Rates::new(learning_rate),
            options: Options::default(),
            steps: 0,
            state: PerTensor::new(),
            scratch: Scratch::default(),
        }
    }
}

driver!(Factored);
options!(Factored);

const MOMENTUM: &str = "exp_avg";

struct StepValues<V> {
    rates: RatesAt,
    rule: Valued<V>,
    /// Of each tensor with a gradient and elements.
    sums: Vec<Option<SquareSums>>,
}

impl<A: Scalar, R: FactoredRule<A>> Factored<R, A> {
    /// The state slot `slot` of the tensor at `path`; `None` before the tensor's first gradient.
    pub fn slot(&self, path: &str, slot: &str) -> Option<ArrayD<A>> {
        let slot = self.state.get(path)?.slots.iter().find(|known| known.name == slot)?;
        ArrayD::from_shape_vec(&slot.shape[..], slot.values.clone()).ok()
    }

    /// The size of the state of all tensors in bytes.
    pub fn state_bytes(&self) -> usize {
        let slots = self.state.iter().flat_map(|(_, state)| &state.slots);
        slots.map(|slot| size_of_val(&slot.values[..])).sum()
    }

    fn lines(&self, shape: &[usize]) -> Lines {
        Lines::new(shape, shape.len() > 1 && self.rule.is_factored(shape))
    }

    /// Where means are, if rows and columns are not the last two axes.
    fn spread(&self, shape: &[usize]) -> Option<Spread> {
        if self.lines(shape).is_factored { Spread::new(shape, self.rule.axes(shape)) } else { None }
    }

    /// The names and shapes of a tensor's slots.
    fn slots(&self, shape: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
        let mut slots = Vec::new();
        if self.lines(shape).is_factored {
            let (mut rows, mut columns) = (shape.to_vec(), shape.to_vec());
            let axes = self.rule.axes(shape);
            (rows[axes.1], columns[axes.0]) = (1, 1);
            slots.extend([("row_var", rows), ("col_var", columns)]);
        } else {
            slots.push(("variance", shape.to_vec()));
        }
        slots.extend(self.rule.has_momentum().then(|| (MOMENTUM, shape.to_vec())));
        slots
    }

    /// The hyper-parameters of this step and the sums over its gradients, if all are in order.
    fn values(&self, step: &Step<'_, A>) -> Result<StepValues<R::Values>> {
        self.state.ensure_known(step)?;
        self.options.check()?;
        self.options.ensure(step, (self.rule.name(), false, Decay::Decoupled, None))?;
        step.share().ensure(Extent::Tensors, self.rule.name())?;
        counter::ensure_next("steps", self.steps)?;
        let (rates, decay) = (self.rates.at(self.steps)?, self.options.decay(Decay::Decoupled));
        for (info, tensor) in step.iter().filter(|(_, tensor)| tensor.grad.is_some()) {
            rates.ensure_adjusted(decay, (info, tensor), self.steps)?;
            counter::ensure_next_of(info, self.state.at(tensor.index()).map_or(0, |state| state.steps))?;
        }
        rates.ensure::<A>(decay, None, self.steps)?;
        let rule = Valued::of::<A, R>(&self.rule, step, self.steps)?;
        Ok(StepValues { rates, rule, sums: self.square_sums(step)? })
    }

    fn square_sums(&self, step: &Step<'_, A>) -> Result<Vec<Option<SquareSums>>> {
        let mut tasks: Vec<(_, _, Option<SquareSums>)> = step.grads().map(|(info, grad)| (info, grad, None)).collect();
        tasks.iter().try_for_each(|(info, grad, _)| grad.ensure_dense(info, self.rule.name(), ELEMENTWISE))?;
        tasks.iter().filter(|(info, ..)| has_slots(info)).try_for_each(|(info, grad, _)| grad.ensure_kept(info))?;
        threads::for_each_tensor(step.layout().elements(), &mut tasks, &|(info, grad, sums)| {
            if has_slots(info) {
                let shape = info.shape();
                *sums = Some(SquareSums::of(grad, shape, self.lines(shape), self.spread(shape).as_ref()));
            }
        });
        let limit = norm::largest_of_squares::<A>();
        let within = |sums: &Option<SquareSums>| sums.as_ref().is_none_or(|sums| sums.norm() <= limit);
        let checked = tasks.into_iter().map(|(info, grad, sums)| match within(&sums) {
            true => Ok(sums),
            false => Err(norm::non_finite(&[(info, grad)])),
        });
        checked.collect()
    }

    /// Steps one tensor.
    fn update(&self, values: &StepValues<R::Values>, task: &mut Task<'_, '_, A>) {
        let Task { info, tensor, state, sums } = task;
        let shape = info.shape();
        let Some(sums) = sums.take() else {
            // It is empty, or it moves on another rank: who watches it here is to know.
            tensor.let_follow(info);
            return state.steps += 1;
        };
        let slots = self.slots(shape);
        if !state.has(&slots) {
            **state = State::zeros(slots);
        }
        state.steps += 1;
        let mut pull = values.rates.of(self.options.decay(Decay::Decoupled), tensor.learning_rate, tensor.weight_decay);
        let own = values.rule.for_tensor(&tensor.replaced);
        let Tensor { param, grad: Some(grad), .. } = &mut **tensor else { return };
        let at = At {
            step: state.steps,
            learning_rate: pull.learning_rate,
            weight_decay: pull.weight_decay,
            ..At::default()
        };
        let moments = self.rule.moments(own, &at);

        let (means, momentum) = state.slots.split_at_mut(if self.lines(shape).is_factored { 2 } else { 1 });
        let mut means = means.iter_mut().map(|slot| &mut slot.values[..]);
        let (rows, columns) = (means.next().unwrap_or_default(), means.next().unwrap_or_default());
        let factors = Factors::update((self.lines(shape), self.spread(shape)), &moments, sums, rows, columns);
        let of_grad = Directions {
            grad,
            shape,
            arch: simd::arch(),
            source: Source::Factors(&factors),
            cautious: false,
            wanted: Wanted { moving: true, norms: true, decaying: self.options.cautious_decay },
            scratch: &self.scratch,
        };
        let mut measured = of_grad.measure(&param.as_values());
        let rms = measured.rms();
        let mut step_size = self.rule.step_size(own, &at, &rms);
        if !self.options.has_fixed_decay() {
            pull.decay *= self.rule.decay_factor(own, &at, &rms);
        }
        let mut directions = of_grad;
        if let [Slot { values: average, .. }] = momentum {
            let [kept, fresh] = [moments.momentum, (1.0 - moments.momentum) * step_size].map(A::from_f64);
            of_grad.for_each(0, average, &|average, direction| *average = kept * *average + fresh * direction);
            directions = Directions { source: Source::Momentum(average), cautious: self.options.cautious, ..of_grad };
            step_size = self.rule.momentum_step_size(own, &at, &rms);
            if self.options.measure() {
                measured = directions.measure(&param.as_values());
            }
        }
        let norm = self.options.keep_norm.then(|| *state.norm.get_or_insert(measured.norm()));
        let Move { step_size, shrink, scale } = self.options.of::<A>(step_size, pull, &measured, norm);
        let [step_size, shrink, scale] = [step_size, shrink, scale].map(A::from_f64);
        let all_decay = !self.options.cautious_decay;
        directions.move_by(param, &|param, direction| {
            let decayed = if all_decay || agree(direction, *param) { *param * shrink } else { *param };
            *param = scale * (decayed - step_size * direction);
        });
        tensor.let_follow(info);
    }
}

/// Where directions come from.
#[derive(Clone, Copy)]
enum Source<'s, A> {
    Factors(&'s Factors<A>),
    Momentum(&'s [A]),
}

/// The directions of one tensor, in row-major order.
#[derive(Clone, Copy)]
struct Directions<'s, 'a, A> {
    grad: &'s Grad<'a, A>,
    shape: &'s [usize],
    arch: Arch,
    source: Source<'s, A>,
    /// Only those that agree with the gradient.
    cautious: bool,
    wanted: Wanted,
    scratch: &'s Scratch<A>,
}

impl<A: Scalar> Directions<'_, '_, A> {
    /// Reads directions from element `start`.
    fn read(&self, start: usize, out: &mut [A]) {
        match self.source {
            Source::Momentum(average) if !self.cautious => out.copy_from_slice(&average[start..start + out.len()]),
            Source::Momentum(average) => {
                self.grad.read(self.shape, Order::C, start, out);
                out.iter_mut().zip(&average[start..]).for_each(|(out, average)| *out = agreeing(*average, *out));
            }
            Source::Factors(factors) => {
                self.grad.read(self.shape, Order::C, start, out);
                factors.apply(self.arch, start, out);
            }
        }
    }

    fn measure(&self, param: &Values<'_, A>) -> Measured {
        let elements = self.shape.iter().product();
        let block = if param.order() == Order::C { self.block() } else { WIDE_BLOCK };
        Measured::of::<A>((elements, block), &|start, length, scales| {
            self.scratch.with(2 * length, |memory| {
                let (direction, buffer) = memory.split_at_mut(length);
                self.read(start, direction);
                let param = match param.as_slice(Order::C) {
                    Some(param) => &param[start..start + length],
                    None => {
                        read(param, self.shape, Order::C, start, buffer);
                        buffer
                    }
                };
                Sums::of(param, direction, self.wanted, scales)
            })
        })
    }

    /// Changes each element of a slice, which begins with element `start`, with its direction.
    fn for_each(&self, start: usize, values: &mut [A], change: &(impl Fn(&mut A, A) + Sync)) {
        let elements = values.len();
        if elements > tree::SERIAL_NORM {
            let middle = (elements / 2).next_multiple_of(BLOCK);
            let (left, right) = values.split_at_mut(middle);
            let later = start + middle;
            threads::join(|| self.for_each(start, left, change), || self.for_each(later, right, change));
            return;
        }
        let block = self.block().min(elements).max(1);
        self.scratch.with(block, |memory| {
            for (start, values) in (start..).step_by(block).zip(values.chunks_mut(block)) {
                let directions = &mut memory[..values.len()];
                self.read(start, directions);
                let pairs = values.iter_mut().zip(&*directions);
                self.arch.dispatch(
                    #[inline(always)]
                    move || pairs.for_each(|(value, direction)| change(value, *direction)),
                );
            }
        });
    }

    /// Changes each element of a parameter with its direction.
    fn move_by(&self, param: &mut ValuesMut<'_, A>, change: &(impl Fn(&mut A, A) + Sync)) {
        let mut view = match param.in_order(self.shape, Order::C) {
            Ok(slice) => return self.for_each(0, slice, change),
            Err(view) => view,
        };
        let elements = view.len();
        self.scratch.with(WIDE_BLOCK.min(elements), |memory| {
            for start in (0..elements).step_by(WIDE_BLOCK) {
                let directions = &mut memory[..WIDE_BLOCK.min(elements - start)];
                self.read(start, directions);
                blocks::update(&mut view, start, directions, |param, direction| change(param, *direction));
            }
        });
    }

    /// How many elements are read at once: more where the gradient lies in another order.
    fn block(&self) -> usize {
        if self.grad.order() == Order::C { BLOCK } else { WIDE_BLOCK }
    }
}

/// Whether a tensor has elements, and is stepped here.
fn has_slots(info: &TensorInfo) -> bool {
    info.elements() > 0 && !info.is_elsewhere()
}

impl<A: Scalar, R: FactoredRule<A>> Optimizer<A> for Factored<R, A> {
    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        let mut values = self.values(&step)?;
        let elements = step.layout().elements();
        step.show(|tensor| tensor.learning_rate.apply(values.rates.learning_rate));
        let mut states = std::mem::take(&mut self.state);
        // Nothing can fail from here on.
        let _ = states.begin(&step, |_, _| State::default());
        let tensors = step.zip_mut(states.all_mut()).filter(|(_, tensor, _)| tensor.grad.is_some());
        let tasks = tensors.zip(std::mem::take(&mut values.sums));
        let tasks = tasks.filter_map(|((info, tensor, state), sums)| Some(Task { info, tensor, state: state?, sums }));
        let mut tasks: Vec<_> = tasks.collect();
        threads::for_each_tensor(elements, &mut tasks, &|task| self.update(&values, task));
        let moved = !tasks.is_empty();
        self.state = states;
        self.steps += 1;
        Ok(Report::new(values.rates.learning_rate, moved))
    }

    optimizer_of_driver!(values);

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node(self.rule.name());
        node.value("steps", self.steps);
        self.rates.write_state(&self.rule, &mut node);
        for (info, state) in self.state.iter().filter(|(_, state)| state.steps > 0) {
            if has_slots(info) && !state.has(&self.slots(info.shape())) {
                continue;
            }
            node.count("step", info, state.steps);
            node.norm(info, state.norm);
            for Slot { name, shape, values } in &state.slots {
                node.insert(name, info.path(), shape, A::pack(values.clone()));
            }
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node(self.rule.name())?;
        let steps = node.value("steps", "a count")?;
        let schedules = self.rates.read_state(&self.rule, &node)?;
        let tensor = |info: &TensorInfo| {
            let Some(steps) = node.count("step", info)? else { return Ok(None) };
            let slots = if has_slots(info) { self.slots(info.shape()) } else { vec![] };
            let slot = |(name, shape): (&'static str, Vec<usize>)| {
                let values = node.numbers::<A>(name, info.path(), &shape, A::DTYPE)?;
                let values = values.ok_or_else(|| node.missing(name, info))?;
                Ok(Slot { name, shape, values })
            };
            let slots = slots.into_iter().map(slot).collect::<Result<_>>()?;
            let norm = if self.options.keep_norm { node.norm(info)? } else { None };
            Ok(Some(State { steps, slots, norm }))
        };
        let tensors = PerTensor::read_state(&node, tensor)?;
        let own = Commit::new(move || (self.steps, self.state) = (steps, tensors));
        Ok(own.and(schedules))
    }
}

/// The rule's name, and what was given or is not the default: `Adafactor(learning_rate: 0.01, weight_decay: 0.1)`.
impl<R: HyperParameters, A> fmt::Debug for Factored<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.options.describe(self.rates.describe(&self.rule)))
    }
}
