//! The table: every optimizer and option, with its update rule as the docs give it.

use std::fmt;

use gradus::prelude::*;
use gradus::rule::{Elementwise, Rounding, Rule, StatePrecision};
use gradus::testing::{self, Law, OptimizerLaws};
use gradus::{Hyper, Scalar};
use ndarray::{Array2, ArrayD};

use super::{matrices, moments, parameter_free, tensors};
use Oracle::Element;

/// An optimizer whose state can be copied and looked at.
pub(crate) trait Subject<A: Scalar>: Optimizer<A> + fmt::Debug {
    fn boxed_clone(&self) -> Box<dyn Subject<A>>;

    /// The tensor's slots with their names, once there are any.
    fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)>;

    fn tensor_steps(&self, path: &str) -> u64;

    /// Those of the slots that the rule says are never negative.
    fn non_negative(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// The same with state of this precision, if the optimizer has a choice.
    fn state_precision(self: Box<Self>, precision: StatePrecision) -> Option<Box<dyn Subject<A>>>;
}

impl<A: Scalar, R: Rule<A> + Clone + 'static> Subject<A> for Elementwise<R, A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)> {
        let slot = |name: &&'static str| Some((*name, self.slot(path, name)?));
        self.rule().slots().iter().filter_map(slot).collect()
    }

    fn tensor_steps(&self, path: &str) -> u64 {
        Elementwise::tensor_steps(self, path)
    }

    fn non_negative(&self) -> Vec<&'static str> {
        let (slots, named) = (self.rule().slots(), self.rule().non_negative());
        slots.iter().copied().filter(|slot| named.contains(slot)).collect()
    }

    fn state_precision(self: Box<Self>, precision: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        Some(Box::new(Elementwise::state_precision(*self, precision)))
    }
}

impl<A: Scalar> Clone for Box<dyn Subject<A>> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

/// The update rule in f64, written straight from the docs. The step counts from 1.
#[derive(Clone, Copy)]
pub(crate) enum Oracle {
    /// Of one element: step, learning rate, parameter, gradient, slots in the order of the docs.
    Element(fn(t: i32, learning_rate: f64, param: f64, grad: f64, slots: &mut [f64; 4]) -> f64),
    /// Of a matrix: step, learning rate, parameter, gradient, and whatever it needs to remember.
    Matrix(MatrixOracle),
}

pub(crate) type MatrixOracle =
    fn(t: i32, learning_rate: f64, param: &mut Array2<f64>, grad: &Array2<f64>, memory: &mut Vec<Array2<f64>>);

/// Where an element is after the five steps of [`value_stability`](super::value_stability).
#[derive(Clone, Copy)]
pub(crate) enum Pinned {
    /// In f32 and in f64, to the last bit.
    Bits(f32, f64),
    /// In f64. Matrix products round as the processor's instructions make them, so the last bits are free.
    Near(f64),
}

/// One optimizer with one choice of options.
pub(crate) struct Row<A> {
    pub(crate) name: &'static str,
    pub(crate) optimizer: fn(Hyper) -> Box<dyn Subject<A>>,
    pub(crate) oracle: Oracle,
    /// The slots that the docs list; of a matrix with both sides above 1.
    pub(crate) slots: &'static [&'static str],
    /// Whether parameters stay where they are while the gradient has always been zero: not with weight decay.
    pub(crate) rests: bool,
    /// The peak learning rate with which the parabola's bottom is found.
    pub(crate) parabola: f64,
    /// The peak learning rate with which Rosenbrock's valley is walked to its end, and the steps it takes.
    pub(crate) rosenbrock: (f64, u64),
    pub(crate) pinned: Pinned,
}

impl<A: Scalar> Row<A> {
    pub(crate) fn with(&self, learning_rate: impl Into<Hyper>) -> Box<dyn Subject<A>> {
        (self.optimizer)(learning_rate.into())
    }

    /// Whether all tensors are one vector, so that one of them is not stepped as it would be alone.
    pub(crate) fn joins_tensors(&self) -> bool {
        self.name == "lbfgs" || self.is_parameter_free() && !self.name.contains("layerwise")
    }

    /// Whether it finds its learning rate from sums over whole tensors. It steps vectors, too.
    pub(crate) fn is_parameter_free(&self) -> bool {
        ["prodigy", "dog", "dowg", "dadapt"].iter().any(|name| self.name.starts_with(name))
    }

    /// Whether the rule speaks of single elements; else of matrices.
    pub(crate) fn is_elementwise(&self) -> bool {
        matches!(self.oracle, Element(_))
    }

    /// Whether it steps vectors, too, and its oracle speaks of matrices only because rows and columns have means.
    pub(crate) fn is_factored(&self) -> bool {
        ["adafactor", "adammini", "sm3", "came"].iter().any(|name| self.name.starts_with(name))
    }

    /// Whether 4 bits are too coarse for its state: it remembers parameters, whose direction is a difference, or step sizes.
    pub(crate) fn is_coarse_in_4_bits(&self) -> bool {
        let coarse = ["schedule free", "madgrad", "rprop"];
        self.is_parameter_free() || coarse.iter().any(|name| self.name.contains(name))
    }

    /// The laws, as the row's flags have them.
    pub(crate) fn laws(&self) -> OptimizerLaws<A, Box<dyn Subject<A>>> {
        self.laws_of(self.optimizer)
    }

    /// The laws of the same optimizer with state of each precision that it has; if the tests are not optimized, of the one that rounds most.
    pub(crate) fn laws_of_precisions(&self) -> Vec<OptimizerLaws<A, Box<dyn Subject<A>>>> {
        let mut all = vec![self.laws()];
        let (optimizer, rounding) = (self.optimizer, [Rounding::Stochastic, Rounding::Nearest]);
        let few_bits = rounding.map(StatePrecision::Blockwise4).into_iter().chain([StatePrecision::Blockwise8]);
        let precisions = few_bits.chain(rounding.map(StatePrecision::Bf16));
        for precision in precisions.take(if cfg!(debug_assertions) { 1 } else { usize::MAX }) {
            if self.with(0.1).state_precision(precision).is_some() {
                let laws = self.laws_of(move |lr| optimizer(lr).state_precision(precision).unwrap());
                all.push(laws.named(format_args!("{}, {precision:?}", self.name)));
            }
        }
        all
    }

    fn laws_of(
        &self,
        optimizer: impl Fn(Hyper) -> Box<dyn Subject<A>> + 'static,
    ) -> OptimizerLaws<A, Box<dyn Subject<A>>> {
        let (peak, steps) = self.rosenbrock;
        let laws =
            testing::optimizer(optimizer).named(self.name).debug().parabola(self.parabola).rosenbrock(peak, steps);
        let laws = if self.rests { laws } else { laws.decays() };
        let laws = if self.joins_tensors() { laws.joins_tensors() } else { laws };
        // The row's taps come in `apply`, from where `check` cannot know them.
        // Its steps, relative to the parameters and at most 1/√t, leave a little more of the way to 0.
        let relative = ["adafactor", "adafactor, optax, no clip"];
        let laws = if relative.contains(&self.name) { laws.without(Law::Parabola) } else { laws };
        // Its moments start from 1e-6, so that it moves a little without a gradient.
        let laws = if self.name == "yogi" { laws.without(Law::ZeroGradient) } else { laws };
        // Its first steps, a millionth of the learning rate, are lost in the last bit of an f32.
        let laws = if self.name == "dadaptsgd" { laws.without(Law::MemoryLayouts) } else { laws };
        let laws = if self.name == "kfac" { laws.without(Law::CheckIsApply) } else { laws };
        match self.oracle {
            Element(oracle) => laws
                .slots(self.slots.iter().copied())
                .oracle(move |at, param, grad, slots| oracle(at.step as i32, at.learning_rate, param, grad, slots)),
            Oracle::Matrix(oracle) => {
                let laws = match () {
                    () if self.is_factored() => laws,
                    () if self.is_parameter_free() => laws.tolerance(parameter_free::STEEP),
                    () => laws.matrices().tolerance(matrices::STEEP),
                };
                laws.matrix_oracle(move |at, param, grad, memory| {
                    oracle(at.step as i32, at.learning_rate, param, grad, memory)
                })
            }
        }
    }
}

const BUFFER: &[&str] = &["momentum_buffer"];
const MOMENTS: &[&str] = &["exp_avg", "exp_avg_sq"];
const BELIEF: &[&str] = &["exp_avg", "exp_avg_var"];
const AMSGRAD: &[&str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

/// Every row, for one element type.
#[rustfmt::skip]
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    let mut rows = vec![
        Row { name: "sgd", slots: &[], rests: true, parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Bits(0.72646827, 0.7264683546069802),
            optimizer: |lr| Box::new(Sgd::new(lr)),
            oracle: Element(|_, lr, p, g, _| p - lr * g) },
        Row { name: "sgd, weight decay", slots: &[], rests: false, parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Bits(0.7256278, 0.7256277704644899),
            optimizer: |lr| Box::new(Sgd::new(lr).weight_decay(0.01)),
            oracle: Element(|_, lr, p, g, _| p - lr * (g + 0.01 * p)) },

        Row { name: "momentum", slots: BUFFER, rests: true, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.70276064, 0.7027606656634291),
            optimizer: |lr| Box::new(Momentum::new(lr, 0.9)),
            oracle: Element(|_, lr, p, g, [v, ..]| { *v = 0.9 * *v + g; p - lr * *v }) },
        Row { name: "momentum, dampening, weight decay", slots: BUFFER, rests: false, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.700549, 0.7005490208724872),
            optimizer: |lr| Box::new(Momentum::new(lr, 0.9).dampening(0.3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, [v, ..]| {
                let g = g + 0.01 * p;
                *v = if t == 1 { g } else { 0.9 * *v + (1.0 - 0.3) * g };
                p - lr * *v
            }) },
        Row { name: "momentum, classical", slots: BUFFER, rests: true, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.6533886, 0.6533886108801966),
            optimizer: |lr| Box::new(Momentum::new(lr, 0.9).classical(true)),
            oracle: Element(|_, lr, p, g, [v, ..]| { *v = 0.9 * *v + lr * g; p - *v }) },
        Row { name: "momentum, classical, dampening", slots: BUFFER, rests: true, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.6521773, 0.6521772775465228),
            optimizer: |lr| Box::new(Momentum::new(lr, 0.9).classical(true).dampening(0.3)),
            oracle: Element(|t, lr, p, g, [v, ..]| {
                *v = if t == 1 { lr * g } else { 0.9 * *v + (lr * (1.0 - 0.3)) * g };
                p - *v
            }) },

        Row { name: "nesterov", slots: BUFFER, rests: true, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.6839529, 0.6839529537040664),
            optimizer: |lr| Box::new(Nesterov::new(lr, 0.9)),
            oracle: Element(|_, lr, p, g, [v, ..]| { *v = 0.9 * *v + g; p - lr * (g + 0.9 * *v) }) },
        Row { name: "nesterov, weight decay", slots: BUFFER, rests: false, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.6816628, 0.6816628171235083),
            optimizer: |lr| Box::new(Nesterov::new(lr, 0.9).weight_decay(0.01)),
            oracle: Element(|_, lr, p, g, [v, ..]| {
                let g = g + 0.01 * p;
                *v = 0.9 * *v + g;
                p - lr * (g + 0.9 * *v)
            }) },
        Row { name: "nesterov, classical", slots: BUFFER, rests: true, parabola: 0.1, rosenbrock: (5e-4, 10_000),
            pinned: Pinned::Bits(0.63951814, 0.6395181043991572),
            optimizer: |lr| Box::new(Nesterov::new(lr, 0.9).classical(true)),
            oracle: Element(|_, lr, p, g, [v, ..]| { *v = 0.9 * *v + lr * g; p - (0.9 * *v + lr * g) }) },

        Row { name: "rmsprop", slots: &["square_avg"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.27277592, 0.2727758677707267),
            optimizer: |lr| Box::new(RmsProp::new(lr)),
            oracle: Element(|_, lr, p, g, [s, ..]| {
                *s = 0.99 * *s + (1.0 - 0.99) * g * g;
                p - lr * g / (s.sqrt() + 1e-8)
            }) },
        Row { name: "rmsprop, weight decay", slots: &["square_avg"], rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.5969213, 0.5969214049084544),
            optimizer: |lr| Box::new(RmsProp::new(lr).alpha(0.9).eps(1e-6).weight_decay(0.01)),
            oracle: Element(|_, lr, p, g, [s, ..]| {
                let g = g + 0.01 * p;
                *s = 0.9 * *s + (1.0 - 0.9) * g * g;
                p - lr * g / (s.sqrt() + 1e-6)
            }) },
        Row { name: "rmsprop, eps inside", slots: &["square_avg"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.60246736, 0.6024673168470843),
            optimizer: |lr| Box::new(RmsProp::new(lr).alpha(0.9).eps(1e-3).eps_inside_sqrt(true)),
            oracle: Element(|_, lr, p, g, [s, ..]| {
                *s = 0.9 * *s + (1.0 - 0.9) * g * g;
                p - lr * g / (*s + 1e-3).sqrt()
            }) },
        Row { name: "rmsprop, centered", slots: &["square_avg", "grad_avg"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.2798121, 0.2798120916023567),
            optimizer: |lr| Box::new(RmsProp::new(lr).eps(1e-3).centered(true)),
            oracle: Element(|_, lr, p, g, [s, a, ..]| {
                *s = 0.99 * *s + (1.0 - 0.99) * g * g;
                *a = 0.99 * *a + (1.0 - 0.99) * g;
                p - lr * g / ((*s - *a * *a).max(0.0).sqrt() + 1e-3)
            }) },
        Row { name: "rmsprop, momentum", slots: &["square_avg", "momentum_buffer"], rests: true, parabola: 0.1, rosenbrock: (2e-3, 10_000),
            pinned: Pinned::Bits(-0.20869943, -0.20869954580911393),
            optimizer: |lr| Box::new(RmsProp::new(lr).momentum(0.9)),
            oracle: Element(|_, lr, p, g, [s, b, ..]| {
                *s = 0.99 * *s + (1.0 - 0.99) * g * g;
                *b = 0.9 * *b + g / (s.sqrt() + 1e-8);
                p - lr * *b
            }) },
        Row { name: "rmsprop, centered, momentum, eps inside, classical", slots: &["square_avg", "grad_avg", "momentum_buffer"],
            rests: true, parabola: 0.1, rosenbrock: (2e-4, 20_000),
            pinned: Pinned::Bits(-0.9077474, -0.907747439015675),
            optimizer: |lr| Box::new(RmsProp::new(lr).centered(true).momentum(0.9).eps(1e-3).eps_inside_sqrt(true).classical(true)),
            oracle: Element(|_, lr, p, g, [s, a, b, _]| {
                *s = 0.99 * *s + (1.0 - 0.99) * g * g;
                *a = 0.99 * *a + (1.0 - 0.99) * g;
                *b = 0.9 * *b + lr * g / (*s - *a * *a + 1e-3).sqrt();
                p - *b
            }) },

        Row { name: "adabelief", slots: BELIEF, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.66232586, 0.6623257916279987),
            optimizer: |lr| Box::new(AdaBelief::new(lr)),
            oracle: Element(|t, lr, p, g, s| adabelief(t, lr, p, g, s, [0.9, 0.999, 1e-16])) },
        Row { name: "adabelief, betas, eps, weight decay", slots: BELIEF, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.67136306, 0.6713632084070855),
            optimizer: |lr| Box::new(AdaBelief::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| adabelief(t, lr, p * (1.0 - lr * 0.01), g, s, [0.8, 0.98, 1e-3])) },

        Row { name: "lion", slots: &["exp_avg"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.68916667, 0.6891666666666667),
            optimizer: |lr| Box::new(Lion::new(lr)),
            oracle: Element(|_, lr, p, g, [m, ..]| lion(lr, p, g, m, 0.9, 0.99)) },
        Row { name: "lion, betas, weight decay", slots: &["exp_avg"], rests: false, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.63502437, 0.6350243009760475),
            optimizer: |lr| Box::new(Lion::new(lr).beta1(0.95).beta2(0.98).weight_decay(0.01)),
            oracle: Element(|_, lr, p, g, [m, ..]| lion(lr, p * (1.0 - lr * 0.01), g, m, 0.95, 0.98)) },

        Row { name: "adam", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6706532, 0.6706532725855109),
            optimizer: |lr| Box::new(Adam::new(lr)),
            oracle: Element(|t, lr, p, g, s| adam(t, lr, p, g, s, Moments::default())) },
        Row { name: "adam, betas, eps, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6731077, 0.6731077002894772),
            optimizer: |lr| Box::new(Adam::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| {
                adam(t, lr, p, g + 0.01 * p, s, Moments { beta1: 0.8, beta2: 0.98, eps: 1e-3, ..Moments::default() })
            }) },
        Row { name: "adam, amsgrad", slots: AMSGRAD, rests: true, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.670659, 0.6706590660222471),
            optimizer: |lr| Box::new(Adam::new(lr).amsgrad(true)),
            oracle: Element(|t, lr, p, g, s| adam(t, lr, p, g, s, Moments { amsgrad: true, ..Moments::default() })) },
        Row { name: "adam, eps hat", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6753841, 0.6753841170204876),
            optimizer: |lr| Box::new(Adam::new(lr).eps_hat(true).eps(1e-3)),
            oracle: Element(|t, lr, p, g, [m, v, ..]| {
                *m = 0.9 * *m + (1.0 - 0.9) * g;
                *v = 0.999 * *v + (1.0 - 0.999) * g * g;
                let (first, second) = (1.0 - 0.9_f64.powi(t), 1.0 - 0.999_f64.powi(t));
                p - (lr * second.sqrt() / first) * (*m / (v.sqrt() + 1e-3))
            }) },
        Row { name: "adam, no bias correction", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.4530109, 0.4530108605255341),
            optimizer: |lr| Box::new(Adam::new(lr).bias_correction(false)),
            oracle: Element(|_, lr, p, g, [m, v, ..]| {
                *m = 0.9 * *m + (1.0 - 0.9) * g;
                *v = 0.999 * *v + (1.0 - 0.999) * g * g;
                p - lr * (*m / (v.sqrt() + 1e-8))
            }) },
        Row { name: "adamw", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6698374, 0.6698374609163863),
            optimizer: |lr| Box::new(AdamW::new(lr)),
            oracle: Element(|t, lr, p, g, s| adam(t, lr, p * (1.0 - lr * 0.01), g, s, Moments::default())) },
        Row { name: "adamw, amsgrad, weight decay", slots: AMSGRAD, rests: false, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.6705774, 0.6705774537391271),
            optimizer: |lr| Box::new(AdamW::new(lr).amsgrad(true).weight_decay(1e-3)),
            oracle: Element(|t, lr, p, g, s| {
                adam(t, lr, p * (1.0 - lr * 1e-3), g, s, Moments { amsgrad: true, ..Moments::default() })
            }) },

        Row { name: "nadam", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.69575846, 0.6957584283398645),
            optimizer: |lr| Box::new(NAdam::new(lr)),
            oracle: Element(|t, lr, p, g, s| nadam(t, lr, p, g, s, Nesterovs::default())) },
        Row { name: "nadam, betas, eps, momentum decay, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.69111234, 0.6911123058263984),
            optimizer: |lr| Box::new(NAdam::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).momentum_decay(0.3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| {
                nadam(t, lr, p, g + 0.01 * p, s, Nesterovs { beta1: 0.8, beta2: 0.98, eps: 1e-3, momentum_decay: Some(0.3) })
            }) },
        Row { name: "nadam, no momentum schedule", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.65796775, 0.6579677094148023),
            optimizer: |lr| Box::new(NAdam::new(lr).momentum_schedule(false)),
            oracle: Element(|t, lr, p, g, s| nadam(t, lr, p, g, s, Nesterovs { momentum_decay: None, ..Nesterovs::default() })) },
        Row { name: "nadamw", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6949364, 0.694936338027423),
            optimizer: |lr| Box::new(NAdamW::new(lr).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| nadam(t, lr, p * (1.0 - lr * 0.01), g, s, Nesterovs::default())) },

        Row { name: "radam", slots: MOMENTS, rests: true, parabola: 0.3, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.71612257, 0.7161225482038291),
            optimizer: |lr| Box::new(RAdam::new(lr)),
            oracle: Element(|t, lr, p, g, s| radam(t, lr, p, g, s, (0.9, 0.999, 1e-8, true))) },
        Row { name: "radam, betas, eps after the correction, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.7163602, 0.7163602186873429),
            optimizer: |lr| Box::new(RAdam::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).eps_hat(false).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| radam(t, lr, p, g + 0.01 * p, s, (0.8, 0.98, 1e-3, false))) },
        Row { name: "radamw", slots: MOMENTS, rests: false, parabola: 0.3, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.71528506, 0.7152851124964533),
            optimizer: |lr| Box::new(RAdamW::new(lr).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| radam(t, lr, p * (1.0 - lr * 0.01), g, s, (0.9, 0.999, 1e-8, true))) },

        Row { name: "adamax", slots: &["exp_avg", "exp_inf"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.68104935, 0.6810493771512598),
            optimizer: |lr| Box::new(Adamax::new(lr)),
            oracle: Element(|t, lr, p, g, [m, u, ..]| {
                *m = 0.9 * *m + (1.0 - 0.9) * g;
                *u = (0.999 * *u).max(g.abs() + 1e-8);
                p - lr / (1.0 - 0.9_f64.powi(t)) * *m / *u
            }) },
        Row { name: "adamax, betas, eps outside, weight decay", slots: &["exp_avg", "exp_inf"], rests: false, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.6821551, 0.6821551142960551),
            optimizer: |lr| Box::new(Adamax::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).eps_outside_max(true).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, [m, u, ..]| {
                let g = g + 0.01 * p;
                *m = 0.8 * *m + (1.0 - 0.8) * g;
                *u = (0.98 * *u).max(g.abs());
                p - lr / (1.0 - 0.8_f64.powi(t)) * *m / (*u + 1e-3)
            }) },

        Row { name: "adagrad", slots: &["sum"], rests: true, parabola: 1.0, rosenbrock: (0.5, 10_000),
            pinned: Pinned::Bits(0.7022653, 0.7022653839799521),
            optimizer: |lr| Box::new(Adagrad::new(lr)),
            oracle: Element(|_, lr, p, g, [s, ..]| { *s += g * g; p - lr * g / (s.sqrt() + 1e-10) }) },
        Row { name: "adagrad, learning rate decay, start, eps inside, weight decay", slots: &["sum"], rests: false, parabola: 1.0, rosenbrock: (0.5, 20_000),
            pinned: Pinned::Bits(0.708957, 0.7089570240450387),
            optimizer: |lr| Box::new(Adagrad::new(lr).learning_rate_decay(1e-4).initial_accumulator_value(0.1).eps(1e-3)
                .eps_inside_sqrt(true).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, [s, ..]| {
                let g = g + 0.01 * p;
                *s = if t == 1 { 0.1 } else { *s } + g * g;
                p - lr / (1.0 + f64::from(t - 1) * 1e-4) * g / (*s + 1e-3).sqrt()
            }) },

        Row { name: "adadelta", slots: &["square_avg", "acc_delta"], rests: true, parabola: 10.0, rosenbrock: (1.0, 20_000),
            pinned: Pinned::Bits(0.74985206, 0.7498520880440913),
            optimizer: |lr| Box::new(Adadelta::new(lr)),
            oracle: Element(|_, lr, p, g, [s, a, ..]| {
                *s = 0.9 * *s + (1.0 - 0.9) * g * g;
                let delta = (*a + 1e-6).sqrt() / (*s + 1e-6).sqrt() * g;
                *a = 0.9 * *a + (1.0 - 0.9) * delta * delta;
                p - lr * delta
            }) },

        Row { name: "rprop", slots: &["prev", "step_size"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.73749995, 0.7374999999999999),
            optimizer: |lr| Box::new(Rprop::new(lr)),
            oracle: Element(|t, lr, p, g, s| rprop(t, lr, p, g, s, (0.5, 1.2), (1e-6, 50.0))) },
        Row { name: "rprop, factors, step sizes", slots: &["prev", "step_size"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.748, 0.748),
            optimizer: |lr| Box::new(Rprop::new(lr).eta_minus(0.6).eta_plus(1.1).min_step_size(1e-5).max_step_size(0.06)),
            oracle: Element(|t, lr, p, g, s| rprop(t, lr, p, g, s, (0.6, 1.1), (1e-5, 0.06))) },

        Row { name: "sgdschedulefree", slots: &["z_minus_y"], rests: true, parabola: 0.5, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Bits(0.7263732, 0.7263732075922988),
            optimizer: |lr| Box::new(SgdScheduleFree::new(lr)),
            oracle: Element(|t, lr, y, g, [s, ..]| schedule_free(lr, y, g, s, (0.9, 1.0 / f64::from(t)))) },
        Row { name: "sgdschedulefree, momentum, powers, weight decay", slots: &["z_minus_y"], rests: false, parabola: 0.5, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Bits(0.725768, 0.7257680671048841),
            optimizer: |lr| Box::new(SgdScheduleFree::new(lr).momentum(0.8).time_power(1.0).lr_power(0.0).weight_decay(0.01)),
            oracle: Element(|t, lr, y, g, [s, ..]| schedule_free(lr, y, g + 0.01 * y, s, (0.8, 2.0 / f64::from(t + 1)))) },
        Row { name: "adamwschedulefree", slots: &["z_minus_y", "exp_avg_sq"], rests: true, parabola: 0.3, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.7028972, 0.7028971653346126),
            optimizer: |lr| Box::new(AdamWScheduleFree::new(lr)),
            oracle: Element(|t, lr, y, g, [s, v, ..]| {
                *v = 0.999 * *v + (1.0 - 0.999) * g * g;
                let d = g / ((*v / (1.0 - 0.999_f64.powi(t))).sqrt() + 1e-8);
                schedule_free(lr, y, d, s, (0.9, 1.0 / f64::from(t)))
            }) },
        Row { name: "adamwschedulefree, betas, eps, powers, weight decay", slots: &["z_minus_y", "exp_avg_sq"], rests: false, parabola: 0.3, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.7026511, 0.7026509695190833),
            optimizer: |lr| Box::new(AdamWScheduleFree::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).time_power(1.0).weight_decay(0.01)),
            oracle: Element(|t, lr, y, g, [s, v, ..]| {
                *v = 0.98 * *v + (1.0 - 0.98) * g * g;
                let d = g / ((*v / (1.0 - 0.98_f64.powi(t))).sqrt() + 1e-3) + 0.01 * y;
                schedule_free(lr, y, d, s, (0.8, 2.0 / f64::from(t + 1)))
            }) },
        Row { name: "radamschedulefree", slots: &["z_minus_y", "exp_avg_sq"], rests: true, parabola: 1.0, rosenbrock: (2e-3, 40_000),
            pinned: Pinned::Bits(0.7262358, 0.7262358271523212),
            // Laws look for steps that move.
            optimizer: |lr| Box::new(RAdamScheduleFree::new(lr).silent(false)),
            oracle: Element(|t, lr, y, g, [s, v, ..]| {
                *v = 0.999 * *v + (1.0 - 0.999) * g * g;
                // The table's learning rate falls with 1/t.
                let rate = |i: i32| lr * f64::from(t) / f64::from(i) * rectified(0.999, i).unwrap_or(1.0);
                let weights = (1..=t).scan(0.0, |largest: &mut f64, i| { *largest = largest.max(rate(i)); Some(largest.powi(2)) });
                let (sum, last) = weights.fold((0.0, 0.0), |(sum, _), weight| (sum + weight, weight));
                let adaptive = g / ((*v / (1.0 - 0.999_f64.powi(t))).sqrt() + 1e-8);
                let d = if rectified(0.999, t).is_some() { adaptive } else { g };
                schedule_free(rate(t), y, d, s, (0.9, if sum > 0.0 { last / sum } else { 0.0 }))
            }) },

        Row { name: "asgd", slots: &[], rests: false, parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Bits(0.7264599, 0.726459943337342),
            optimizer: |lr| Box::new(Asgd::new(lr)),
            oracle: Element(|t, lr, p, g, _| {
                let eta = lr / (1.0 + 1e-4 * lr * f64::from(t - 1)).powf(0.75);
                p * (1.0 - 1e-4 * eta) - eta * g
            }) },
    ];
    rows.extend(moments::rows());
    rows.extend(matrices::rows());
    rows.extend(tensors::rows());
    rows.extend(parameter_free::rows());
    #[cfg(feature = "federated")]
    rows.extend(super::servers::rows());
    rows
}

fn lion(learning_rate: f64, param: f64, grad: f64, m: &mut f64, beta1: f64, beta2: f64) -> f64 {
    let average = beta1 * *m + (1.0 - beta1) * grad;
    *m = beta2 * *m + (1.0 - beta2) * grad;
    let direction = if average == 0.0 { 0.0 } else { average.signum() };
    param - learning_rate * direction
}

fn adabelief(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, s, ..]: &mut [f64; 4],
    [beta1, beta2, eps]: [f64; 3],
) -> f64 {
    *m = beta1 * *m + (1.0 - beta1) * grad;
    *s = beta2 * *s + (1.0 - beta2) * (grad - *m).powi(2) + eps;
    let m_hat = *m / (1.0 - beta1.powi(t));
    let s_hat = *s / (1.0 - beta2.powi(t));
    param - learning_rate * m_hat / (s_hat.sqrt() + eps)
}

struct Moments {
    beta1: f64,
    beta2: f64,
    eps: f64,
    amsgrad: bool,
}

impl Default for Moments {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, amsgrad: false }
    }
}

fn adam(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, max, _]: &mut [f64; 4],
    Moments { beta1, beta2, eps, amsgrad }: Moments,
) -> f64 {
    *m = beta1 * *m + (1.0 - beta1) * grad;
    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
    *max = max.max(*v);
    let w = if amsgrad { *max } else { *v };
    let m_hat = *m / (1.0 - beta1.powi(t));
    let w_hat = w / (1.0 - beta2.powi(t));
    param - learning_rate * m_hat / (w_hat.sqrt() + eps)
}

struct Nesterovs {
    beta1: f64,
    beta2: f64,
    eps: f64,
    momentum_decay: Option<f64>,
}

impl Default for Nesterovs {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, momentum_decay: Some(4e-3) }
    }
}

fn nadam(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, ..]: &mut [f64; 4],
    Nesterovs { beta1, beta2, eps, momentum_decay }: Nesterovs,
) -> f64 {
    let momentum = |t: i32| match momentum_decay {
        Some(psi) => beta1 * (1.0 - 0.5 * 0.96_f64.powf(f64::from(t) * psi)),
        None => beta1,
    };
    let product: f64 = (1..=t).map(momentum).product();
    *m = beta1 * *m + (1.0 - beta1) * grad;
    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
    let ahead = momentum(t + 1) * *m / (1.0 - product * momentum(t + 1));
    let m_hat = ahead + (1.0 - momentum(t)) * grad / (1.0 - product);
    param - learning_rate * m_hat / ((*v / (1.0 - beta2.powi(t))).sqrt() + eps)
}

fn radam(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, ..]: &mut [f64; 4],
    (beta1, beta2, eps, eps_hat): (f64, f64, f64, bool),
) -> f64 {
    *m = beta1 * *m + (1.0 - beta1) * grad;
    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
    let (m_hat, root) = (*m / (1.0 - beta1.powi(t)), (1.0 - beta2.powi(t)).sqrt());
    let longest = 2.0 / (1.0 - beta2) - 1.0;
    let rho = longest - 2.0 * f64::from(t) * beta2.powi(t) / (1.0 - beta2.powi(t));
    if rho <= 5.0 {
        return param - learning_rate * m_hat;
    }
    let r = ((rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho)).sqrt();
    let divisor = if eps_hat { (v.sqrt() + eps) / root } else { v.sqrt() / root + eps };
    param - learning_rate * r * m_hat / divisor
}

/// z, its average x and y between them, of which the slot is z − y; c is the fraction of z in x.
fn schedule_free(learning_rate: f64, y: f64, d: f64, slot: &mut f64, (beta, c): (f64, f64)) -> f64 {
    let (z, x) = (y + *slot, y - (1.0 - beta) / beta * *slot);
    let z = z - learning_rate * d;
    let x = (1.0 - c) * x + c * z;
    let y = (1.0 - beta) * z + beta * x;
    *slot = z - y;
    y
}

/// RAdam's r, once ρ is above 4.
fn rectified(beta2: f64, t: i32) -> Option<f64> {
    let longest = 2.0 / (1.0 - beta2) - 1.0;
    let rho = longest - 2.0 * f64::from(t) * beta2.powi(t) / (1.0 - beta2.powi(t));
    let square = (rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho);
    (rho > 4.0).then(|| square.sqrt())
}

fn rprop(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [prev, size, ..]: &mut [f64; 4],
    (minus, plus): (f64, f64),
    (least, most): (f64, f64),
) -> f64 {
    let agreement = grad * *prev;
    *size = if t == 1 { learning_rate } else { *size };
    *size *= if agreement > 0.0 {
        plus
    } else if agreement < 0.0 {
        minus
    } else {
        1.0
    };
    *size = size.max(least).min(most);
    *prev = if agreement < 0.0 { 0.0 } else { grad };
    let sign = if *prev == 0.0 { 0.0 } else { prev.signum() };
    param - sign * *size
}
