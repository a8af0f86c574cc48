//! One step of a module.

use std::ops::Deref;

use burn::module::Module;
use burn::optim::GradientsParams;
use gradus::Optimizer;

use crate::gradients::Gradients;
use crate::{BurnElement, Result, lend_as};

/// The result of a step: the fields of [`gradus::Report`], and the tensors that were copied.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The report of the optimizer.
    pub step: gradus::Report,
    /// The paths of the tensors that were copied before the step. A tensor is copied once, if a clone of the module, another parameter or a
    /// graph also holds its memory, or if its elements are not contiguous in any order of axes. Afterwards it has its own memory, so the list
    /// is usually empty.
    ///
    /// Frozen parameters and running statistics can be in the list, although no step changes their values: if two models share a frozen base,
    /// the first one that is stepped gets its own copy of the base.
    pub copied: Vec<String>,
}

impl Deref for Report {
    type Target = gradus::Report;

    fn deref(&self) -> &gradus::Report {
        &self.step
    }
}

/// Moves the `f32` parameters of a module along their gradients, in their own memory.
///
/// A parameter without a gradient keeps its values, its state and its step count. Parameters are identified by their path in the module. A graph
/// recorded before the step is not connected to the parameters any more, even if the step fails.
///
/// A tensor is copied first if something else also holds its memory, even if it has no gradient: see [`Report::copied`].
///
/// # Errors
/// [`Error::Dtype`](crate::Error::Dtype), [`Error::NotFlex`](crate::Error::NotFlex),
/// [`Error::Computed`](crate::Error::Computed), [`Error::Lent`](crate::Error::Lent),
/// [`Error::UnexpectedGradients`](crate::Error::UnexpectedGradients), and those of [`Optimizer::step`]. Parameters and
/// optimizer are then bit for bit what they were.
///
/// # Panics
/// burn does if a gradient was registered by hand for a parameter of another rank.
///
/// # Example
/// ```
/// use burn::{module::Param, optim::GradientsParams, tensor::{Device, Tensor}};
/// use gradus::prelude::*;
///
/// let mut weight: Param<Tensor<1>> = Param::from_data([1.0, 2.0], &Device::flex().autodiff());
/// let mut opt = Sgd::new(0.5);
/// let loss = weight.val().sum();
/// let grads = GradientsParams::from_grads(loss.backward(), &weight);
/// let report = gradus_burn::step(&mut opt, &mut weight, grads)?;
/// assert!(report.moved && report.copied.is_empty());
/// assert_eq!(weight.val().into_data().try_to_vec::<f32>().unwrap(), [0.5, 1.5]);
/// # Ok::<(), gradus_burn::Error>(())
/// ```
pub fn step(
    optimizer: &mut (impl Optimizer<f32> + ?Sized),
    module: &mut impl Module,
    grads: GradientsParams,
) -> Result<Report> {
    step_as(optimizer, module, grads)
}

/// [`step`] for parameters of another element type, `step_as::<f64>(…)`. The type is inferred from an optimizer with
/// `master_weights::<bf16>()`.
///
/// # Errors
/// Those of [`step`].
///
/// # Panics
/// As [`step`].
pub fn step_as<A: BurnElement>(
    optimizer: &mut (impl Optimizer<A> + ?Sized),
    module: &mut impl Module,
    grads: GradientsParams,
) -> Result<Report> {
    let gradients = Gradients::<A>::of(module, grads)?;
    let mut lent = lend_as(module)?;
    let step = optimizer.step(&mut lent, &gradients)?;
    Ok(Report { step, copied: lent.copied().map(String::from).collect() })
}
