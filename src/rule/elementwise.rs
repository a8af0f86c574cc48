//! The driver: makes an optimizer of a rule.

use std::fmt;

use ndarray::{ArrayD, ShapeBuilder};
use pulp::Arch;

use super::diagonals::Diagonals;
use super::elements::MAX_TOTALS;
use super::evaluated::Evaluated;
use super::lanes::Goal;
use super::memory::State;
use super::names::Names;
use super::now::Now;
use super::options::{Move, Options, options};
use super::precision::StatePrecision;
use super::prelude::Prelude;
use super::rates::{Rates, driver, optimizer_of_driver};
use super::rows::{elements_of_rows, follow_each, gather, project_each, start_rows};
use super::scratch::Scratch;
use super::sweep::{Part, Shared, Sweep};
use super::{At, HyperParameters, MAX_NUMBERS, Rule, TensorNorm};
use crate::error::Result;
use crate::kernel::simd;
use crate::params::{Order, Scalar, Values};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Grad, Optimizer, PerTensor, Report, Step, Tensor, norm};

/// An optimizer from a [`Rule`]. Every element-wise optimizer of this crate is one.
///
/// It has the rule's slots and a step count per tensor, created when the tensor gets its first gradient. State is keyed by the parameters' paths.
///
/// A step is computed in the parameters' element type. The step returns an error before anything moves if a hyper-parameter becomes 0, infinite or
/// out of range in this type, if the scale of a gradient becomes infinite, or if its limit becomes 0. A smaller scale is applied in `f64`. A
/// learning rate may be at most 2⁻⁵⁴ times the type's largest number (about 1.9e22 in `f32`), because bias corrections divide it. A learning rate or
/// weight decay that rounds to 0 counts as 0, because schedules end at 0.
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Clone)]
pub struct Elementwise<R, A> {
    pub(crate) rule: R,
    pub(super) rates: Rates,
    pub(super) options: Options,
    pub(super) precision: StatePrecision,
    pub(super) steps: u64,
    /// No tensor has taken more steps.
    pub(super) most_steps: u64,
    pub(super) state: PerTensor<State<A>>,
    pub(super) evaluated: Evaluated<A>,
    pub(super) diagonals: Diagonals<A>,
    pub(super) scratch: Scratch<A>,
    /// What the rule remembers of all tensors together.
    pub(super) totals: [f64; MAX_TOTALS],
}

impl<R, A> Elementwise<R, A> {
    /// Creates an optimizer from a rule, without weight decay.
    pub fn from_rule(rule: R, learning_rate: impl Into<Hyper>) -> Self {
        Self {
            rule,
            rates: Rates::new(learning_rate),
            options: Options::default(),
            precision: StatePrecision::Full,
            steps: 0,
            most_steps: 0,
            state: PerTensor::new(),
            evaluated: Evaluated::default(),
            diagonals: Diagonals::default(),
            scratch: Scratch::default(),
            totals: [0.0; MAX_TOTALS],
        }
    }

    /// Stores the state in fewer bits. Tensors that already have state keep its precision.
    pub fn state_precision(mut self, precision: StatePrecision) -> Self {
        self.precision = precision;
        self
    }
}

driver!(Elementwise);
options!(Elementwise, precision);

impl<A: Scalar, R: Rule<A>> Elementwise<R, A> {
    /// The state slot `slot` of the tensor at `path`; `None` before the tensor's first gradient.
    pub fn slot(&self, path: &str, slot: &str) -> Option<ArrayD<A>> {
        let (info, state) = self.state.entry(path).filter(|(_, state)| state.steps > 0)?;
        let number = state.names.iter().position(|name| *name == slot)?;
        let shape = info.shape().set_f(state.order == Order::F);
        ArrayD::from_shape_vec(shape, state.slots.values(number, info.elements())).ok()
    }

    pub(super) fn slot_names(&self) -> Names {
        Names { all: self.rule.slots(), non_negative: self.rule.non_negative() }
    }

    /// The size of the state of all tensors in bytes.
    pub fn state_bytes(&self) -> usize {
        self.state.iter().map(|(_, state)| state.slots.bytes()).sum()
    }

    fn accepts(&self, step: &Step<'_, A>) -> Result<()> {
        self.learn(step, &self.values(step)?)?;
        self.diagonals.placed(step.layout()).map(drop)
    }
}

impl<A: Scalar, R: Rule<A>> Optimizer<A> for Elementwise<R, A> {
    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        self.apply_with(&mut step, simd::arch())
    }

    optimizer_of_driver!(accepts, Sweeps);

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node(self.rule.name());
        node.value("steps", self.steps);
        self.rates.write_state(&self.rule, &mut node);
        self.write_totals(&mut node);
        let names = self.names_of_numbers();
        let tensors = self.state.iter().filter(|(_, state)| state.steps > 0);
        tensors.for_each(|(info, state)| state.write(self.slot_names(), names, info, &mut node));
        self.evaluated.write_state(&mut node);
        self.diagonals.write_state(&mut node, self.state.layout());
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut node = state.node(self.rule.name())?;
        let steps = node.value("steps", "a count")?;
        let schedules = self.rates.read_state(&self.rule, &node)?;
        let totals = self.read_totals(&node)?;
        let (slots, numbers) = (self.slot_names(), self.names_of_numbers());
        let keeps_norm = self.options.keep_norm;
        let tensors = PerTensor::read_state(&node, |info| {
            State::read(slots, numbers, info, (self.precision, keeps_norm), &node)
        })?;
        let evaluated = match self.rule.averages() {
            true => {
                let stepped = tensors.iter().filter(|(_, state)| state.steps > 0);
                Evaluated::read_state(&mut node, stepped.map(|(info, _)| info))?
            }
            false => Evaluated::default(),
        };
        let diagonals = Diagonals::read_state(&self.rule, &mut node)?;
        let most_steps = tensors.iter().map(|(_, state)| state.steps).max().unwrap_or(0);
        let own = Commit::new(move || {
            (self.steps, self.most_steps) = (steps, most_steps);
            (self.state, self.evaluated, self.totals) = (tensors, evaluated, totals);
            self.diagonals = diagonals;
        });
        Ok(own.and(schedules))
    }
}

impl<A: Scalar, R: Rule<A>> Elementwise<R, A> {
    /// Takes a step with these SIMD instructions.
    fn apply_with(&mut self, step: &mut Step<'_, A>, arch: Arch) -> Result<Report> {
        step.ensure_writable()?;
        let values = self.values(step)?;
        let learned = self.learn(step, &values)?;
        let has_diagonals = !self.diagonals.is_empty();
        let placed = if has_diagonals { self.diagonals.placed(step.layout())? } else { None };
        // Nothing can fail from here on.
        placed.into_iter().for_each(|placed| self.diagonals = placed);
        let _ = self.state.begin(step, |_, _| State::default());
        let (names, decay) = (self.slot_names(), self.options.decay(self.rule.decay()));
        let of_rows = if step.is_as_paired() { None } else { elements_of_rows(step) };
        step.show(|tensor| tensor.learning_rate.apply(values.rates.learning_rate));
        let mut sweep = Sweep::new(&self.rule, arch, of_rows.unwrap_or(step.layout().elements()));
        let (mut number, has_numbers) = (0, !self.rule.numbers().is_empty());
        let mut known: Option<Now<R::Coefficients>> = None;
        let mut known_in_groups: Vec<_> = (0..values.rule.places()).map(|_| None).collect();
        let (mut moved, mut projects) = (false, false);
        for (info, tensor, state) in step.zip_mut(self.state.all_mut()) {
            let Tensor { index, param, grad, learning_rate, weight_decay, replaced, followers, projections, .. } =
                tensor;
            let (Some(grad), Some(state)) = (grad, state) else { continue };
            state.prepare(names, self.precision, param, info);
            let pull = values.rates.of(decay, *learning_rate, *weight_decay);
            let place = values.rule.place(replaced);
            let own = values.rule.at(place);
            if has_diagonals {
                self.diagonals.absorb((&self.rule, own), arch, (info, *index), state);
            }
            let mut at = At {
                step: state.steps,
                learning_rate: pull.learning_rate,
                weight_decay: pull.weight_decay,
                numbers: match &learned {
                    Some(learned) => learned.of(number),
                    None if has_numbers => state.numbers,
                    None => [0.0; MAX_NUMBERS],
                },
                ..At::default()
            };
            number += 1;
            let ratio = match self.rule.gradient_ratio(own) {
                Some(ratio) if self.options.adapts(pull) => {
                    let grad = norm::norm(&[(info, &*grad)], 2.0);
                    ratio.of(norm::norm(&[(info, &Grad::new(param.as_values()))], 2.0), grad, pull.coupled)
                }
                _ => 1.0,
            };
            let (whole, rows) = (info, grad.rows().map(|(rows, _)| rows));
            let (info, grad) = grad.compact(info);
            let mut prelude = Prelude::of(grad, ratio, pull.coupled);
            let (steps, streams, bounds) = (state.steps, sweep.streams, projections.bounds());
            let later = bounds.is_none() && !projections.is_empty();
            projects |= later;
            let shared = |coefficients, goal, prelude, order| Shared {
                coefficients,
                goal,
                prelude,
                scratch: &self.scratch,
                grad,
                shape: info.shape(),
                order,
                tensor: *index,
                offset: whole.start(),
                step: steps,
                streams,
                bounds,
            };
            at.norm = self.rule.tensor_norm(own, &at, info.shape()).map(|wanted| match wanted {
                TensorNorm::Gradient => norm::norm(&[(info, grad)], 2.0),
                TensorNorm::Directions(coefficients) => {
                    let shared = shared(coefficients, Goal::Move { step_size: A::one() }, prelude, state.order);
                    let param = param.as_values();
                    shared.measure(&self.rule, arch, &param, &state.slots, (Options::NORM, None)).direction_norm()
                }
            });
            // Most tensors of a step, or of a group, have the same coefficients.
            let known = place.map_or(&mut known, |place| &mut known_in_groups[place]);
            let Now { numbers, step_size, coefficients, .. } = match *known {
                Some(now) if now.before == at => now,
                _ => {
                    // Not read back from `known`: a processor waits until what was written in parts can be read as a whole.
                    let now = Now::of::<A, R>(&self.rule, own, at);
                    *known = Some(now);
                    now
                }
            };
            if has_numbers {
                state.numbers = numbers;
            }
            let plain = Move { step_size, shrink: 1.0 - pull.decay, scale: 1.0 };
            let goal;
            (goal, prelude.shrink) = self.options.goal(plain);
            if let Some(rows) = rows {
                start_rows(&self.rule, state, (whole, rows), coefficients);
            }
            let mut shared = shared(coefficients, goal, prelude, state.order);
            if self.options.measure() {
                let moment = if self.options.update_clipping { self.rule.second_moment(own, &at) } else { None };
                let how = (self.options, moment);
                let measured = match rows {
                    None => shared.measure(&self.rule, arch, &param.as_values(), &state.slots, how),
                    Some(rows) => {
                        let (param, slots) =
                            gather(&param.as_values(), &state.slots, names.all.len(), whole.shape(), rows);
                        shared.measure(&self.rule, arch, &Values::Contiguous(&param, Order::C), &slots, how)
                    }
                };
                let norm = self.options.keep_norm.then(|| *state.norm.get_or_insert(measured.norm()));
                let measured = self.options.of::<A>(step_size, pull, &measured, norm);
                (shared.goal, shared.prelude.shrink) = self.options.goal(measured);
            }
            moved = true;
            if let Some(rows) = rows {
                sweep.part(Part::of_rows(shared, rows, (param, whole.shape()), state.slots.as_mut()));
                continue;
            }
            let following = match followers.is_empty() || later {
                true => Vec::new(),
                false => followers.iter_mut().map(|follower| follower.in_order(info.shape(), state.order)).collect(),
            };
            sweep.tensor(&shared, param, state.slots.as_mut(), following);
        }
        sweep.finish();
        if of_rows.is_some() {
            follow_each(step);
        }
        if projects {
            project_each(step);
        }
        if has_diagonals {
            self.diagonals.settle();
        }
        if let Some(learned) = learned {
            self.totals = learned.totals;
        }
        self.steps += 1;
        self.most_steps = self.most_steps.saturating_add(1);
        Ok(Report::new(values.rates.learning_rate, moved))
    }
}

/// The rule's name, and what was given or is not the default: `Adam(learning_rate: 0.001, beta1: 0.8)`.
impl<R: HyperParameters, A> fmt::Debug for Elementwise<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.options.describe(self.rates.describe(&self.rule));
        write!(f, "{}", line.unless("state_precision", self.precision, StatePrecision::Full))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, ArrayViewMut1, Axis, aview_mut1};

    use super::*;
    use crate::error::{Error, StepError};
    use crate::optimizer::{Adam, AdamW, Momentum, Nesterov, OptimizerExt, RmsProp, Sgd};
    use crate::rule::Rounding;

    const PRECISIONS: [StatePrecision; 6] = [
        StatePrecision::Full,
        StatePrecision::Bf16(Rounding::Stochastic),
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Stochastic),
        StatePrecision::Blockwise4(Rounding::Nearest),
    ];

    fn wave<A: Scalar>(elements: usize, phase: f64) -> Array1<A> {
        Array1::from_shape_fn(elements, |i| A::from_f64((i as f64 * 0.73 + phase).sin()))
    }

    /// 5 steps of a tensor of 1,003 elements, with clipping's scale, at every level.
    fn agrees_at_every_level<A: Scalar, R: Rule<A> + Clone>(opt: Elementwise<R, A>) {
        let run = |arch: Arch| {
            let (mut opt, mut params) = (opt.clone(), wave(1003, 0.0));
            for number in 0..5 {
                let grads = wave(1003, f64::from(number));
                let mut step = Step::pair(&mut params, &grads, None).unwrap();
                for grad in step.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()) {
                    grad.scale_by(0.3);
                }
                opt.apply_with(&mut step, arch).unwrap();
            }
            params
        };
        let expected = run(Arch::Scalar);
        for level in simd::available() {
            assert_eq!(level.arch().map(run).as_ref(), Some(&expected), "{} at {level}", opt.rule.name());
        }
    }

    #[test]
    fn where_a_tensor_begins_in_memory_does_not_change_the_bits() {
        for precision in PRECISIONS {
            let run = |offset: usize| {
                let mut opt = Adam::new(0.1).amsgrad(true).state_precision(precision).ema(0.9);
                let (mut params, grads) = (vec![0.5_f32; 5000 + offset], wave::<f32>(5000, 1.0));
                for _ in 0..3 {
                    opt.step(&mut aview_mut1(&mut params[offset..]), &grads).unwrap();
                }
                let mut average = Array1::zeros(5000);
                opt.read(&mut average).unwrap();
                (params.split_off(offset), average)
            };
            let expected = run(0);
            assert!((1..17).all(|offset| run(offset) == expected), "{precision:?}");
        }
    }

    /// What does not fit into the cache has a loop of its own.
    #[test]
    fn a_large_step_has_the_bits_of_small_ones() {
        for precision in [StatePrecision::Full, StatePrecision::Bf16(Rounding::Nearest)] {
            let opt = Adam::new(0.1).state_precision(precision);
            let (mut params, grads) = (wave::<f32>(600_011, 0.0), wave(600_011, 1.0));
            let mut parts = params.clone();
            let step_twice = |mut params: ArrayViewMut1<'_, f32>, grads| {
                let mut opt = opt.clone();
                (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
            };
            step_twice(params.view_mut(), grads.view());
            let chunks = parts.axis_chunks_iter_mut(Axis(0), 100_003).zip(grads.axis_chunks_iter(Axis(0), 100_003));
            chunks.for_each(|(part, grads)| step_twice(part, grads));
            assert!(params == parts, "{precision:?}");
        }
    }

    #[test]
    fn slots_that_a_setter_adds_or_drops_later() {
        for precision in PRECISIONS {
            let grads = wave::<f32>(5000, 1.0);
            let (mut opt, mut params) = (RmsProp::new(0.1).momentum(0.5).state_precision(precision), grads.clone());
            opt.step(&mut params, &grads).unwrap();
            let mut centered = opt.clone().centered(true);
            let (kept, mut same) = (centered.slot("", "momentum_buffer"), params.clone());
            assert!(kept.is_some() && kept == opt.slot("", "momentum_buffer"));
            assert_eq!(centered.slot("", "grad_avg"), None);
            centered.step(&mut params, &grads).unwrap();
            opt.step(&mut same, &grads).unwrap();
            assert_eq!(centered.slot("", "square_avg"), opt.slot("", "square_avg"));
            let gathered = centered.slot("", "grad_avg").unwrap();
            let allowed = if matches!(precision, StatePrecision::Blockwise4(_)) { 0.003 } else { 0.002 };
            assert!(gathered.iter().zip(&grads).all(|(avg, grad)| (avg - 0.01 * grad).abs() < allowed), "{gathered}");
        }
    }

    #[test]
    fn a_tensor_s_counter_ends() {
        let (mut opt, grads) = (Adam::new(0.1), (wave::<f64>(3, 0.0), wave(2, 1.0)));
        let mut params = grads.clone();
        opt.step(&mut params, &grads).unwrap();
        opt.state.all_mut().nth(1).flatten().unwrap().steps = u64::MAX;
        opt.most_steps = u64::MAX;
        let (before, state) = (params.clone(), opt.state_dict());
        let error = opt.step(&mut params, &grads).unwrap_err();
        assert_eq!(error, Error::Step(StepError::CounterFull { counter: "steps", path: Some("1".into()) }));
        assert!(params == before && opt.state_dict() == state);
        opt.step(&mut params, &(&grads.0, None::<Array1<f64>>)).unwrap();
    }

    #[test]
    fn without_decay_an_infinite_parameter_moves_no_gradient() {
        let mut opt = Momentum::new(0.1, 0.9).clip_value(1.0);
        let mut params = Array1::from_elem(2, f64::INFINITY);
        opt.step(&mut params, &Array1::from_elem(2, 3.0)).unwrap();
        assert_eq!(params, Array1::from_elem(2, f64::INFINITY));
        assert_eq!(opt.inner().slot("", "momentum_buffer"), Some(Array1::from_elem(2, 1.0).into_dyn()));
    }

    #[test]
    fn simd_does_not_change_the_bits() {
        fn all<A: Scalar>() {
            agrees_at_every_level::<A, _>(Sgd::new(0.1).weight_decay(0.1));
            agrees_at_every_level::<A, _>(Momentum::new(0.1, 0.9).dampening(0.1));
            agrees_at_every_level::<A, _>(Nesterov::new(0.1, 0.9));
            agrees_at_every_level::<A, _>(RmsProp::new(0.1));
            agrees_at_every_level::<A, _>(RmsProp::new(0.1).centered(true).momentum(0.5).weight_decay(0.1));
            agrees_at_every_level::<A, _>(Adam::new(0.1).weight_decay(0.1));
            agrees_at_every_level::<A, _>(Adam::new(0.1).amsgrad(true));
            agrees_at_every_level::<A, _>(AdamW::new(0.1));
        }
        all::<f32>();
        all::<f64>();
    }
}
