//! An optimizer by hand that can break each law.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gradus::params::{Layout, Order, TensorInfo};
use gradus::prelude::*;
use gradus::testing::{self, Law, OptimizerLaws};
use gradus::{Commit, Error, Grad, Hyper, Report, Result, StateReader, StateWriter, Step, simd};
use ndarray::ArrayD;

use crate::assert_caught;

/// An average of gradients with bias correction. It breaks one law, or none.
pub(crate) struct Average {
    breaks: Option<Law>,
    learning_rate: Hyper,
    steps: u64,
    layout: Option<Arc<Layout>>,
    tensors: BTreeMap<String, (u64, ArrayD<f64>)>,
}

/// A number that is another at each call.
static CALLS: AtomicU64 = AtomicU64::new(0);

impl Average {
    pub(crate) fn new(learning_rate: Hyper, breaks: Option<Law>) -> Self {
        Self { breaks, learning_rate, steps: 0, layout: None, tensors: BTreeMap::new() }
    }

    fn breaks(&self, law: Law) -> bool {
        self.breaks == Some(law)
    }

    /// 1, but for what depends on something that it must not depend on.
    fn factor(&self, step: &Step<'_, f64>) -> f64 {
        let wrong = match self.breaks {
            Some(Law::Deterministic) => CALLS.fetch_add(1, Ordering::Relaxed),
            Some(Law::Threads) => rayon::current_num_threads() as u64,
            Some(Law::SimdLevels) => simd::available().iter().position(|level| *level == simd::level()).unwrap() as u64,
            Some(Law::Leaves) => step.len() as u64,
            Some(Law::ConstantSchedule) => u64::from(format!("{:?}", self.learning_rate) == "closure"),
            Some(Law::Oracle) => 1,
            Some(Law::Parabola | Law::Rosenbrock) => return 1e-3,
            _ => 0,
        };
        1.0 + wrong as f64 * 1e-3
    }

    fn read(&self, grad: &Grad<'_, f64>, info: &TensorInfo) -> ArrayD<f64> {
        if !self.breaks(Law::Accumulation) {
            return grad.to_array(info.shape());
        }
        let mut raw = ArrayD::zeros(info.shape());
        grad.read_raw(info.shape(), Order::C, 0, raw.as_slice_mut().unwrap());
        raw
    }
}

impl fmt::Debug for Average {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.breaks(Law::Debug) {
            true => write!(f, "Average {:?}", self.tensors),
            false => write!(f, "Average(learning_rate: {:?})", self.learning_rate),
        }
    }
}

impl Optimizer<f64> for Average {
    fn check(&self, step: &Step<'_, f64>) -> Result<()> {
        if self.breaks(Law::CheckIsApply) {
            return Ok(());
        }
        step.ensure_fit(self.layout.as_ref())?;
        self.learning_rate.within("learning_rate", 0.0.., self.steps).map(drop)
    }

    fn apply(&mut self, mut step: Step<'_, f64>) -> Result<Report> {
        if self.breaks(Law::Errors) {
            self.tensors.values_mut().for_each(|(steps, _)| *steps += 1);
        }
        step.ensure_fit(self.layout.as_ref())?;
        let learning_rate = self.learning_rate.within("learning_rate", 0.0.., self.steps)?;
        self.layout = Some(Arc::clone(step.layout()));
        self.steps += if self.breaks(Law::Shapes) { 2 } else { 1 };
        let (factor, mut moved) = (self.factor(&step), false);
        for (info, tensor) in step.iter_mut() {
            if self.breaks(Law::NoGradient) && tensor.grad.is_none() {
                tensor.grad = Some(Grad::from_array(ArrayD::zeros(info.shape())));
            }
            let Some(grad) = &tensor.grad else { continue };
            let grad = self.read(grad, info);
            let fresh = || (0, ArrayD::zeros(info.shape()));
            let (steps, average) = self.tensors.entry(info.path().to_owned()).or_insert_with(fresh);
            *steps += 1;
            let counted = if self.breaks == Some(Law::OwnSteps) { self.steps } else { *steps };
            let own = if self.breaks == Some(Law::Groups) {
                learning_rate
            } else {
                tensor.learning_rate.apply(learning_rate)
            };
            let size = own * factor / (1.0 - 0.9_f64.powi(counted as i32));
            let breaks = self.breaks;
            moved |= tensor.update(info, |mut param, _| {
                let size = match breaks {
                    Some(Law::MemoryLayouts) if !param.is_standard_layout() => size * 1.001,
                    Some(Law::ElementsAlone) => size * (1.0 + 1e-3 * param.len() as f64),
                    _ => size,
                };
                average.zip_mut_with(&grad, |m, g| *m = 0.9 * *m + (1.0 - 0.9) * g);
                param.zip_mut_with(average, |p, m| *p -= size * m);
                if breaks == Some(Law::ZeroGradient) {
                    param += 1e-3;
                }
            });
        }
        Ok(Report::new(learning_rate, moved))
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate.at(self.steps)
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        if !self.breaks(Law::LearningRate) {
            self.learning_rate = learning_rate;
        }
    }

    fn part(&self, of: TypeId) -> Option<&dyn Any> {
        (of == TypeId::of::<Self>()).then_some(self)
    }

    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
        (of == TypeId::of::<Self>()).then_some(self)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().filter(|_| !self.breaks(Law::Boxed))
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("average");
        node.value("steps", self.steps);
        self.learning_rate.write_state("learning_rate", &mut node);
        for info in self.layout.iter().flat_map(|layout| layout.tensors()) {
            let Some((steps, average)) = self.tensors.get(info.path()) else { continue };
            node.count("step", info, *steps);
            if !self.breaks(Law::Resume) {
                node.tensor("exp_avg", info, average.iter().copied());
            }
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("average")?;
        let steps = node.value("steps", "a count");
        let steps = if self.breaks(Law::StrictLoading) { steps.unwrap_or(0) } else { steps? };
        let rate = self.learning_rate.read_state("learning_rate", &node)?;
        let mut tensors = BTreeMap::new();
        for info in node.layout().iter().flat_map(|layout| layout.tensors()) {
            let Some(count) = node.count("step", info)? else { continue };
            let values = node.tensor("exp_avg", info)?;
            let values = match (values, self.breaks(Law::Resume)) {
                (None, true) => vec![0.0; info.elements()],
                (None, false) => return Err(Error::Other("exp_avg is missing".into())),
                (Some(values), _) => values,
            };
            let average = ArrayD::from_shape_vec(info.shape(), values).unwrap();
            tensors.insert(info.path().to_owned(), (count, average));
        }
        let layout = node.layout().cloned();
        let own = Commit::new(move || (self.steps, self.layout, self.tensors) = (steps, layout, tensors));
        Ok(rate.and(own))
    }
}

pub(crate) fn laws(breaks: Option<Law>) -> OptimizerLaws<f64, Average> {
    let laws = testing::optimizer(move |learning_rate| Average::new(learning_rate, breaks))
        .oracle(|at, param, grad, [average]| {
            *average = 0.9 * *average + (1.0 - 0.9) * grad;
            param - at.learning_rate * *average / (1.0 - 0.9_f64.powi(at.step as i32))
        })
        .slots(["exp_avg"])
        .debug();
    // It takes long.
    if breaks.is_none_or(|law| law == Law::Rosenbrock) { laws.rosenbrock(2e-3, 20_000) } else { laws }
}

#[test]
fn nothing_is_wrong_with_what_keeps_them() {
    laws(None).run();
    let matrices = |learning_rate| Average::new(learning_rate, None);
    testing::optimizer(matrices).run();
    testing::optimizer(matrices).matrices().run();
}

#[test]
fn each_law_catches_what_breaks_it() {
    Law::OF_OPTIMIZERS.iter().for_each(|law| assert_caught(*law, || laws(Some(*law)).run_one(*law)));
}

#[test]
fn a_law_can_be_left_out() {
    let (whole, without) = (laws(Some(Law::OwnSteps)), laws(Some(Law::OwnSteps)).without(Law::OwnSteps));
    let (whole, without) = (whole.violations(), without.violations());
    assert_eq!(without, whole.iter().filter(|violation| violation.law != Law::OwnSteps).cloned().collect::<Vec<_>>());
    assert_eq!(whole.len(), without.len() + 1);
}

/// The oracle of matrices, the shapes of matrices, and decay.
#[test]
fn what_is_declared_is_tested() {
    let laws = |breaks| testing::optimizer(move |learning_rate| Average::new(learning_rate, breaks)).matrices();
    let with_oracle = |breaks| {
        laws(breaks).matrix_oracle(|at, param, grad, memory| {
            let before = memory.pop().unwrap_or_else(|| grad * 0.0);
            let average = before * 0.9 + grad * (1.0 - 0.9);
            param.scaled_add(-at.learning_rate / (1.0 - 0.9_f64.powi(at.step as i32)), &average);
            memory.push(average);
        })
    };
    with_oracle(None).run();
    let broken: Vec<_> = with_oracle(Some(Law::Oracle)).violations();
    assert_eq!(broken.iter().map(|violation| violation.law).collect::<Vec<_>>(), [Law::Oracle]);
    assert!(with_oracle(Some(Law::Oracle)).tolerance(1e15).violations().is_empty());
    let decays: Vec<_> = laws(None).decays().violations();
    assert_eq!(decays.iter().map(|violation| violation.law).collect::<Vec<_>>(), [Law::ZeroGradient]);
    let joined = laws(Some(Law::Leaves));
    let found: Vec<_> = joined.violations().iter().map(|violation| violation.law).collect();
    assert_eq!(found, [Law::Leaves, Law::OwnSteps]);
    assert!(joined.joins_tensors().violations().is_empty());
}
