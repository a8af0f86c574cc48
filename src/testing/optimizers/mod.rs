//! The laws of optimizers.

mod agreement;
mod descent;
mod interface;
mod invariance;
mod oracle;
mod refusals;
mod state;
mod trees;

use std::fmt;
use std::marker::PhantomData;

use ndarray::Array2;

use super::law::Law;
use super::tensors::numbers;
use super::tree::{Tree, single};
use super::violation::{Held, short_name, tests_laws};
use crate::params::Scalar;
use crate::rule::At;
use crate::schedule::Hyper;
use crate::step::Optimizer;
use oracle::Oracle;

pub(super) use interface::one_short_line;
pub use invariance::at_every_level;

/// Tests an optimizer: made by [`optimizer`](super::optimizer).
///
/// The methods describe the optimizer, so that the right laws are tested; [`run`](Self::run) tests them.
#[must_use = "`run` tests the laws"]
pub struct OptimizerLaws<A, O> {
    build: Box<dyn Fn(Hyper) -> O>,
    subject: String,
    kind: Kind,
    joins_tensors: bool,
    decays: bool,
    /// Whether it is an adaptor around an optimizer, which may find another mistake first and need not count every call as a step.
    is_of_adaptor: bool,
    oracle: Option<Oracle>,
    tolerance: f64,
    slots: Vec<&'static str>,
    optional_entries: Vec<&'static str>,
    parabola: f64,
    rosenbrock: Option<(f64, u64)>,
    debug: Option<fn(&O) -> String>,
    without: Vec<Law>,
    element: PhantomData<A>,
}

/// The tensors that an optimizer takes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Any, each as a whole.
    Tensors,
    /// Any, each element by itself.
    Elements,
    /// Those of two axes or more.
    Matrices,
}

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn new(build: impl Fn(Hyper) -> O + 'static) -> Self {
        Self {
            build: Box::new(build),
            subject: format!("{} in {}", short_name::<O>(), A::DTYPE),
            kind: Kind::Tensors,
            joins_tensors: false,
            decays: false,
            is_of_adaptor: false,
            oracle: None,
            tolerance: 1.0,
            slots: Vec::new(),
            optional_entries: OPTIONAL_ENTRIES.to_vec(),
            parabola: 0.1,
            rosenbrock: None,
            debug: None,
            without: Vec::new(),
            element: PhantomData,
        }
    }

    /// The name in messages. The default is the name of the type.
    pub fn named(self, name: impl fmt::Display) -> Self {
        Self { subject: format!("{name} in {}", A::DTYPE), ..self }
    }

    /// The optimizer steps every element by itself. The laws then use long vectors, and [`Law::ElementsAlone`] is tested.
    pub fn elementwise(self) -> Self {
        Self { kind: Kind::Elements, ..self }
    }

    /// The optimizer returns an error for tensors of fewer than two axes. The laws then use none.
    pub fn matrices(self) -> Self {
        Self { kind: Kind::Matrices, ..self }
    }

    /// All tensors together are one vector, as in L-BFGS. Then a tensor is not stepped as it would be alone: [`Law::Leaves`],
    /// [`Law::NoGradient`] and [`Law::OwnSteps`] are not tested, and the oracle gets no matrix of one element.
    pub fn joins_tensors(self) -> Self {
        let without = [Law::Leaves, Law::NoGradient, Law::OwnSteps];
        Self { joins_tensors: true, ..without.into_iter().fold(self, Self::without) }
    }

    /// The optimizer has weight decay: [`Law::ZeroGradient`] then requires that every parameter shrinks.
    pub fn decays(self) -> Self {
        Self { decays: true, ..self }
    }

    /// The update rule of one element, in `f64`: for [`Law::Oracle`].
    ///
    /// It gets the step (from 1) and the learning rate, the parameter, the gradient and the slots, which it changes. It returns the new
    /// parameter. Slots are 0 at first; those with [names](Self::slots) come first. Write it from the docs, not from the code.
    pub fn oracle<const N: usize>(self, oracle: impl Fn(&At, f64, f64, &mut [f64; N]) -> f64 + 'static) -> Self {
        Self { oracle: Some(Oracle::of_elements(oracle)), kind: Kind::Elements, ..self }
    }

    /// The update rule of one matrix, in `f64`: for [`Law::Oracle`], which compares square matrices.
    ///
    /// It gets the step (from 1) and the learning rate, the parameter, which it changes, the gradient, and a memory, empty at first.
    pub fn matrix_oracle(
        self,
        oracle: impl Fn(&At, &mut Array2<f64>, &Array2<f64>, &mut Vec<Array2<f64>>) + 'static,
    ) -> Self {
        Self { oracle: Some(Oracle::Matrix(Box::new(oracle))), ..self }
    }

    /// Multiplies the tolerance of [`Law::Oracle`], 4 ulp per step, by a factor: for algorithms that magnify rounding.
    pub fn tolerance(self, factor: f64) -> Self {
        Self { tolerance: factor, ..self }
    }

    /// The names of the slots in a saved state, in the order in which the oracle of an element has them.
    pub fn slots(self, names: impl IntoIterator<Item = &'static str>) -> Self {
        Self { slots: names.into_iter().collect(), ..self }
    }

    /// Parts of the names of entries that may be missing from a state, for [`Law::StrictLoading`]. Those of this crate's own drivers and
    /// adaptors are known.
    pub fn optional_entries(mut self, parts: impl IntoIterator<Item = &'static str>) -> Self {
        self.optional_entries.extend(parts);
        self
    }

    /// The first learning rate of [`Law::Parabola`]. The default is 0.1.
    pub fn parabola(self, learning_rate: f64) -> Self {
        Self { parabola: learning_rate, ..self }
    }

    /// The first learning rate and the number of steps of [`Law::Rosenbrock`], which is not tested without them.
    pub fn rosenbrock(self, learning_rate: f64, steps: u64) -> Self {
        Self { rosenbrock: Some((learning_rate, steps)), ..self }
    }

    /// Tests [`Law::Debug`].
    pub fn debug(self) -> Self
    where
        O: fmt::Debug,
    {
        Self { debug: Some(|opt| format!("{opt:?}")), ..self }
    }

    tests_laws!(Law::OF_OPTIMIZERS);

    pub(super) fn holds(&self, law: Law) -> Held {
        match law {
            Law::Oracle => self.agrees_with_the_oracle(),
            Law::ElementsAlone => self.elements_alone(),
            Law::Shapes => self.shapes(),
            Law::Deterministic => self.deterministic(),
            Law::Threads => self.threads(),
            Law::SimdLevels => self.simd_levels(),
            Law::MemoryLayouts => self.memory_layouts(),
            Law::Leaves => self.leaves(),
            Law::Accumulation => self.accumulation(),
            Law::NoGradient => self.no_gradient(),
            Law::OwnSteps => self.own_steps(),
            Law::ZeroGradient => self.zero_gradient(),
            Law::ConstantSchedule => self.constant_schedule(),
            Law::LearningRate => self.learning_rate(),
            Law::Groups => self.groups(),
            Law::CheckIsApply => self.check_is_apply(),
            Law::Errors => self.errors(),
            Law::Resume => self.resume(),
            Law::StrictLoading => self.strict_loading(),
            Law::Boxed => self.boxed(),
            Law::Debug => self.debug_line(),
            Law::Parabola => self.finds_the_bottom_of_the_parabola(),
            Law::Rosenbrock => self.finds_the_end_of_the_valley(),
            // The laws of adaptors and schedules.
            _ => Ok(()),
        }
    }

    /// The laws of an adaptor around an optimizer.
    pub(super) fn of_adaptor(build: impl Fn(Hyper) -> O + 'static, subject: String) -> Self {
        Self { is_of_adaptor: true, subject, ..Self::new(build) }
    }

    fn with(&self, learning_rate: impl Into<Hyper>) -> O {
        (self.build)(learning_rate.into())
    }

    fn is_elementwise(&self) -> bool {
        self.kind == Kind::Elements
    }

    /// A shape with about this many elements: a vector, or a matrix if the optimizer takes whole tensors.
    fn shape(&self, elements: usize) -> Vec<usize> {
        match self.kind {
            Kind::Elements => vec![elements],
            Kind::Tensors | Kind::Matrices => vec![elements.div_ceil(7).min(60), elements.min(7)],
        }
    }

    /// Those of the shapes that the optimizer takes.
    fn taken<'s>(&self, shapes: &[&'s [usize]]) -> Vec<&'s [usize]> {
        shapes.iter().copied().filter(|shape| self.kind != Kind::Matrices || shape.len() >= 2).collect()
    }

    fn tree(&self, elements: usize, stream: u64) -> Tree<A> {
        single(numbers(&self.shape(elements), stream))
    }
}

impl<A, O> fmt::Debug for OptimizerLaws<A, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OptimizerLaws").field(&self.subject).finish()
    }
}

/// Entries that may be missing. Without an order a tensor is row-major, without a step count it has not begun, it may have no sum or average
/// yet, and K-FAC may not have foretold a loss.
const OPTIONAL_ENTRIES: [&str; 7] =
    ["/order/", "/step/", "accumulate/sum/", "ema/average/", "swa/average/", "lookahead/average/", "kfac/foretold"];

/// 0, 1, around the widths of SIMD registers (4, 8, 16), around a block, and several blocks with a tail.
const TEST_SIZES: [usize; 16] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 1000, 2048, 2049, 5003];

/// Large enough to be divided between threads, into more than one part each.
const LARGE: usize = 100_003;

/// A learning rate that is another at every step.
fn changing(step: u64) -> f64 {
    0.05 / (1.0 + step as f64)
}

/// Takes steps with gradients from the streams 1, 2, …
fn train<A: Scalar>(opt: &mut (impl Optimizer<A> + ?Sized), params: &mut Tree<A>, steps: u64) -> Held {
    for step in 1..=steps {
        let grads = like(params, step);
        opt.step(params, &grads)?;
    }
    Ok(())
}

/// Gradients for a tree.
fn like<A: Scalar>(params: &Tree<A>, stream: u64) -> Tree<A> {
    let shapes: Vec<_> = params.0.iter().filter_map(|(name, tensor)| Some((*name, tensor.as_ref()?.shape()))).collect();
    Tree::new(&shapes, stream)
}
