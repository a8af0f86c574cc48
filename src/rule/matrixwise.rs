//! The driver for algorithms on whole matrices.

use std::borrow::Cow;
use std::fmt;

use ndarray::{Array2, ArrayD, ArrayViewD, Zip};

use super::checked::StepValues;
use super::lanes::{agree, agreeing};
use super::matrix::{MatrixRule, MatrixSlot, as_matrix};
use super::measured::Measured;
use super::options::{Move, Options, options};
use super::rates::{Rates, driver, optimizer_of_driver};
use super::valued::Valued;
use super::{At, HyperParameters};
use crate::error::Result;
use crate::kernel::threads;
use crate::params::{Scalar, TensorInfo};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::grad::rows::ELEMENTWISE;
use crate::step::share::Extent;
use crate::step::{Grad, Optimizer, PerTensor, Report, Step, Tensor, counter, norm};

/// An optimizer from a [`MatrixRule`].
///
/// It has the rule's slots and a step count per tensor, created when the tensor gets its first gradient. If an option changes the slots of a tensor
/// between two steps, the next step starts the tensor over, as if it had taken no step; a state saved in between has no entries for it. A state saved with
/// other slots is rejected. The guide has [the options that determine the state](crate::guide::fine_tuning#settings-that-must-match).
///
/// Tensors are divided between threads, and so are the products of large ones; the bits do not depend on the number of threads. A gradient that is
/// not finite is an error, because it would make a whole matrix NaN. The other errors are those of [`Elementwise`](super::Elementwise). A step
/// allocates scratch memory of a few times the size of the tensors, and frees it. Products of optimizers with the feature `second-order` also keep one
/// buffer of the size of the processor's L2 cache per thread.
#[must_use = "an optimizer moves nothing until `step` is called"]
pub struct Matrixwise<R, A> {
    pub(crate) rule: R,
    rates: Rates,
    options: Options,
    steps: u64,
    state: PerTensor<State<A>>,
}

/// The state of one tensor.
#[derive(Clone)]
struct State<A> {
    steps: u64,
    /// The names of the slots: a setter may give the rule other slots later.
    names: Vec<Cow<'static, str>>,
    slots: Vec<Array2<A>>,
    /// The norm that the tensor keeps.
    norm: Option<f64>,
}

impl<A> Default for State<A> {
    fn default() -> Self {
        Self { steps: 0, names: Vec::new(), slots: Vec::new(), norm: None }
    }
}

impl<A: Scalar> State<A> {
    /// Whether the state has these slots.
    fn has(&self, slots: &[MatrixSlot]) -> bool {
        let own = self.names.iter().zip(self.slots.iter().map(Array2::dim));
        slots.iter().map(|slot| (&slot.name, slot.shape)).eq(own)
    }

    /// The state before the first step.
    fn zeros(slots: Vec<MatrixSlot>) -> Self {
        let zeros = slots.iter().map(|slot| Array2::zeros(slot.shape)).collect();
        Self { steps: 0, names: slots.into_iter().map(|slot| slot.name).collect(), slots: zeros, norm: None }
    }
}

/// One tensor's part in a step.
struct Task<'s, 'a, A> {
    info: &'s TensorInfo,
    tensor: &'s mut Tensor<'a, A>,
    state: &'s mut State<A>,
}

impl<R, A> Matrixwise<R, A> {
    /// Creates an optimizer from a rule, without weight decay.
    pub fn from_rule(rule: R, learning_rate: impl Into<Hyper>) -> Self {
        Self { rule, rates: Rates::new(learning_rate), options: Options::default(), steps: 0, state: PerTensor::new() }
    }
}

driver!(Matrixwise);
options!(Matrixwise);

impl<A: Scalar, R: MatrixRule<A>> Matrixwise<R, A> {
    /// The matrix `slot` of the tensor at `path`; `None` before the tensor's first gradient.
    pub fn slot(&self, path: &str, slot: &str) -> Option<Array2<A>> {
        let state = self.state.get(path)?;
        state.slots.get(state.names.iter().position(|name| *name == slot)?).cloned()
    }

    /// The size of the state of all tensors in bytes.
    pub fn state_bytes(&self) -> usize {
        self.state.iter().flat_map(|(_, state)| &state.slots).map(|slot| slot.len() * size_of::<A>()).sum()
    }

    /// The hyper-parameters of this step, if they and the step are in order.
    fn values(&self, step: &Step<'_, A>) -> Result<StepValues<R::Values>> {
        self.state.ensure_known(step)?;
        self.options.check()?;
        step.share().ensure(Extent::Tensors, self.rule.name())?;
        counter::ensure_next("steps", self.steps)?;
        self.options.ensure(step, (self.rule.name(), false, self.rule.decay(), None))?;
        if self.steps == 0 {
            self.rule.accepts_all(step.layout())?;
        }
        let (rates, decay) = (self.rates.at(self.steps)?, self.options.decay(self.rule.decay()));
        let mut stepped = step.iter().filter(|(_, tensor)| tensor.grad.is_some());
        stepped.try_for_each(|pair| rates.ensure_adjusted(decay, pair, self.steps))?;
        rates.ensure::<A>(decay, None, self.steps)?;
        let values = StepValues { rates, rule: Valued::of::<A, R>(&self.rule, step, self.steps)? };
        let within = |norm: f64| norm <= norm::largest_of_squares::<A>();
        for (info, tensor) in step.iter() {
            let Some(grad) = &tensor.grad else { continue };
            counter::ensure_next_of(info, self.state.at(tensor.index()).map_or(0, |state| state.steps))?;
            if info.is_elsewhere() {
                continue;
            }
            self.rule.accepts(info)?;
            grad.ensure_dense(info, self.rule.name(), ELEMENTWISE)?;
            grad.ensure_kept(info)?;
            let norm = norm::norm(&[(info, grad)], 2.0);
            if !within(norm) {
                return Err(norm::non_finite(&[(info, grad)]));
            }
            let coupled = rates.of(decay, tensor.learning_rate, tensor.weight_decay).coupled;
            if coupled > 0.0 {
                // The decay becomes a part of the gradient.
                let param = [(info, &Grad::new(tensor.param()))];
                if !within(norm + coupled * norm::norm(&param, 2.0)) {
                    return Err(norm::non_finite(&param));
                }
            }
        }
        Ok(values)
    }

    /// Steps one tensor.
    fn update(&self, values: &StepValues<R::Values>, task: &mut Task<'_, '_, A>) {
        let Task { info, tensor, state } = task;
        if info.is_elsewhere() {
            // It moves on another rank: who watches it here is to know.
            tensor.let_follow(info);
            return state.steps += 1;
        }
        let (rows, columns) = as_matrix(info.shape());
        let slots = self.rule.slots_for(info);
        if !state.has(&slots) {
            **state = State::zeros(slots);
        }
        state.steps += 1;
        let own = values.rule.for_tensor(&tensor.replaced);
        let pull = values.rates.of(self.options.decay(self.rule.decay()), tensor.learning_rate, tensor.weight_decay);
        let at = At {
            step: state.steps,
            learning_rate: pull.learning_rate,
            weight_decay: pull.weight_decay,
            ..At::default()
        };
        tensor.update(info, |param, mut grad| {
            if pull.coupled > 0.0 {
                grad.scaled_add(A::from_f64(pull.coupled), &param);
            }
            let before = self.options.cautious.then(|| grad.clone());
            let Ok(matrix) = grad.view_mut().into_shape_with_order((rows, columns)) else {
                unreachable!("a copy of the gradient lies row by row")
            };
            self.rule.direction(own, &at, info, matrix, &mut state.slots);
            if let Some(before) = before {
                grad.zip_mut_with(&before, |direction, grad| *direction = agreeing(*direction, *grad));
            }
            let step_size = pull.learning_rate;
            let mut how = Move { step_size, shrink: 1.0 - pull.decay, scale: 1.0 };
            if self.options.measure() {
                let measured = measure(param.view(), &grad, self.options);
                let norm = self.options.keep_norm.then(|| *state.norm.get_or_insert(measured.norm()));
                how = self.options.of::<A>(step_size, pull, &measured, norm);
            }
            let cautious = self.options.cautious_decay;
            let [step_size, shrink, scale] = [how.step_size, how.shrink, how.scale].map(A::from_f64);
            Zip::from(param).and(&grad).for_each(|param, &direction| {
                let decayed = if !cautious || agree(direction, *param) { *param * shrink } else { *param };
                *param = scale * (decayed - step_size * direction);
            });
        });
    }
}

/// Measures a tensor and its direction, which lies row by row.
fn measure<A: Scalar>(param: ArrayViewD<'_, A>, direction: &ArrayD<A>, options: Options) -> Measured {
    let param = param.as_standard_layout();
    let (param, direction) = (param.as_slice().unwrap_or_default(), direction.as_slice().unwrap_or_default());
    Measured::of_directions(param, direction, options.wanted())
}

impl<A: Scalar, R: MatrixRule<A>> Optimizer<A> for Matrixwise<R, A> {
    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        let values = self.values(&step)?;
        let elements = step.layout().elements();
        step.show(|tensor| tensor.learning_rate.apply(values.rates.learning_rate));
        let mut states = std::mem::take(&mut self.state);
        // Nothing can fail from here on.
        let _ = states.begin(&step, |_, _| State::default());
        let tensors = step.zip_mut(states.all_mut()).filter(|(_, tensor, _)| tensor.grad.is_some());
        let tasks = tensors.filter_map(|(info, tensor, state)| Some(Task { info, tensor, state: state? }));
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
            if !info.is_elsewhere() && !state.has(&self.rule.slots_for(info)) {
                continue;
            }
            node.count("step", info, state.steps);
            node.norm(info, state.norm);
            for (name, values) in state.names.iter().zip(&state.slots) {
                node.matrix(name, info.path(), values);
            }
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node(self.rule.name())?;
        let steps = node.value("steps", "a count")?;
        let schedules = self.rates.read_state(&self.rule, &node)?;
        let tensor = |info: &TensorInfo| {
            let Some(steps) = node.count("step", info)? else { return Ok(None) };
            let shape = as_matrix(info.shape());
            if !info.is_elsewhere() && self.rule.least_slots(shape) > node.tensors_of_all() {
                return Err(node.missing("a matrix of each slot", info));
            }
            let slots = if info.is_elsewhere() { vec![] } else { self.rule.slots_for(info) };
            let slot = |slot: &MatrixSlot| {
                node.matrix(&slot.name, info.path(), slot.shape)?.ok_or_else(|| node.missing(&slot.name, info))
            };
            let values = slots.iter().map(slot).collect::<Result<_>>()?;
            let norm = if self.options.keep_norm { node.norm(info)? } else { None };
            Ok(Some(State { steps, names: slots.into_iter().map(|slot| slot.name).collect(), slots: values, norm }))
        };
        let tensors = PerTensor::read_state(&node, tensor)?;
        let own = Commit::new(move || (self.steps, self.state) = (steps, tensors));
        Ok(own.and(schedules))
    }
}

impl<R: Clone, A: Clone> Clone for Matrixwise<R, A> {
    fn clone(&self) -> Self {
        Self {
            rule: self.rule.clone(),
            rates: self.rates.clone(),
            options: self.options,
            steps: self.steps,
            state: self.state.clone(),
        }
    }
}

/// The rule's name, and what was given or is not the default: `Muon(learning_rate: 0.02, weight_decay: 0.1)`.
impl<R: HyperParameters, A> fmt::Debug for Matrixwise<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.options.describe(self.rates.describe(&self.rule)))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, ArrayViewMut2, ShapeBuilder, array};

    use super::*;
    use crate::error::{Error, StepError};

    crate::hyper_parameters! {
        /// Twice the gradient; if it strays, it tries to answer with something of another shape.
        struct Doubled => DoubledValues {}
        options {
            strays: bool = false;
        }
    }

    impl MatrixRule<f64> for Doubled {
        fn name(&self) -> &'static str {
            "doubled"
        }

        fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
            vec![MatrixSlot::new("sum", shape)]
        }

        fn direction(
            &self,
            _: &DoubledValues,
            _: &At,
            _: &TensorInfo,
            mut grad: ArrayViewMut2<'_, f64>,
            slots: &mut [Array2<f64>],
        ) {
            slots[0] += &grad;
            grad *= 2.0;
            if self.strays {
                grad = grad.reversed_axes();
                grad.swap_axes(0, 1);
                slots[0] = Array2::zeros((7, 7));
            }
            assert!(grad.is_standard_layout());
        }
    }

    /// Whatever memory parameter and gradient have, the rule sees the gradient row by row, and the elements are meant.
    #[test]
    fn directions_for_any_layout() {
        let grad = ArrayD::from_shape_fn(vec![3, 2, 2], |at| (at[0] * 4 + at[1] * 2 + at[2]) as f64);
        let mut turned = ArrayD::zeros(vec![3, 2, 2].f());
        turned.assign(&grad);
        for grad in [grad, turned] {
            for mut w in [ArrayD::zeros(vec![3, 2, 2]), ArrayD::zeros(vec![3, 2, 2].f())] {
                let mut opt = Matrixwise::from_rule(Doubled::default(), 0.5);
                opt.step(&mut w, &grad).unwrap();
                assert_eq!(w, -&grad);
            }
        }
    }

    /// A direction has the gradient's shape whatever a rule does, so that no tensor waits for another; a slot of another shape lets
    /// its tensor begin anew.
    #[test]
    fn nothing_has_another_shape() {
        let mut opt = Matrixwise::from_rule(Doubled::default().strays(true), 0.5);
        let (mut w, grads) = ((array![[1.0, 1.0]], array![1.0]), (array![[1.0, 2.0]], array![3.0]));
        opt.step(&mut w, &grads).unwrap();
        assert_eq!(w, (array![[0.0, -1.0]], array![-2.0]));
        opt.step(&mut w, &grads).unwrap();
        assert_eq!((w, opt.steps()), ((array![[-1.0, -3.0]], array![-5.0]), 2));
        assert_eq!(opt.tensor_steps("0"), 1);
    }

    #[test]
    fn a_tensor_s_counter_ends() {
        let mut opt = Matrixwise::from_rule(Doubled::default(), 0.5);
        let (mut w, grads) = ((array![1.0], array![1.0]), (array![1.0], array![1.0]));
        opt.step(&mut w, &grads).unwrap();
        opt.state.all_mut().nth(1).flatten().unwrap().steps = u64::MAX;
        let (before, state) = (w.clone(), opt.state_dict());
        let error = opt.step(&mut w, &grads).unwrap_err();
        assert_eq!(error, Error::Step(StepError::CounterFull { counter: "steps", path: Some("1".into()) }));
        assert!(w == before && opt.state_dict() == state);
        opt.step(&mut w, &(array![1.0], None::<ndarray::Array1<f64>>)).unwrap();
    }
}
