//! The result of a comparison, as data and as a table.

use std::fmt;

use super::Judgment;
use crate::error::Name;

/// The result of comparing gradients with finite differences. [`Display`](fmt::Display) prints a table with the worst element first.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "assert that `worst_error` is small"]
pub struct Comparison {
    pub(super) tensors: Vec<ComparedTensor>,
    pub(super) without_gradient: Vec<String>,
}

/// The result for one tensor.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedTensor {
    /// The tensor's path.
    pub path: String,
    /// The number of compared elements.
    pub checked: usize,
    /// The number of elements whose gradient and finite difference are within the rounding of the loss and not both 0. They are small, and
    /// nothing else is known about them.
    pub below_rounding: usize,
    /// The number of elements that agree only with a one-sided finite difference, because there is a kink near them.
    pub one_sided: usize,
    /// The element with the largest error; of equal ones, the one farthest from its finite difference. `None` if none was compared.
    pub worst: Option<ComparedElement>,
}

/// One element of the gradient and its finite difference.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedElement {
    /// The tensor's path.
    pub path: String,
    /// Its index in the tensor.
    pub index: Vec<usize>,
    /// The gradient that you passed.
    pub grad: f64,
    /// The finite difference of the loss.
    pub quotient: f64,
    /// The largest effect of the loss's rounding on the finite difference.
    pub rounding: f64,
    /// The relative error, from 0 to 2: see [`Gradients`](super::Gradients).
    pub error: f64,
}

impl Comparison {
    /// The tensors that have a gradient, in the order of the parameters.
    pub fn tensors(&self) -> &[ComparedTensor] {
        &self.tensors
    }

    /// The paths of the tensors whose gradient is `None`; they were not compared.
    pub fn without_gradient(&self) -> &[String] {
        &self.without_gradient
    }

    /// The tensors that could not be checked, because all of their gradients and finite differences are within the rounding of the loss.
    /// [`worst_error`](Self::worst_error) ignores them.
    pub fn unseen(&self) -> impl Iterator<Item = &ComparedTensor> {
        self.tensors.iter().filter(|tensor| tensor.below_rounding > 0 && tensor.below_rounding == tensor.checked)
    }

    /// The number of compared elements.
    pub fn checked(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.checked).sum()
    }

    /// The element with the largest error; of equal ones, the one farthest from its finite difference. `None` if none was compared.
    pub fn worst(&self) -> Option<&ComparedElement> {
        let elements = self.tensors.iter().filter_map(|tensor| tensor.worst.as_ref());
        elements.reduce(|worst, other| if other.key() > worst.key() { other } else { worst })
    }

    /// The largest error. It is NaN, which fails every comparison with a tolerance, if no element was compared or all are below rounding.
    pub fn worst_error(&self) -> f64 {
        match self.worst() {
            Some(worst) if self.tensors.iter().any(|tensor| tensor.below_rounding < tensor.checked) => worst.error,
            _ => f64::NAN,
        }
    }
}

impl ComparedTensor {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.into(), checked: 0, below_rounding: 0, one_sided: 0, worst: None }
    }

    /// The largest error; NaN if no element was compared.
    pub fn worst_error(&self) -> f64 {
        self.worst.as_ref().map_or(f64::NAN, |worst| worst.error)
    }

    pub(super) fn add(&mut self, index: Vec<usize>, grad: f64, judgment: &Judgment) {
        let Judgment { quotient, rounding, error, one_sided } = *judgment;
        let size = grad.abs().max(quotient.abs());
        self.checked += 1;
        self.below_rounding += usize::from(size > 0.0 && size <= rounding);
        self.one_sided += usize::from(one_sided);
        if self.worst.as_ref().is_none_or(|worst| (error, (grad - quotient).abs()) > worst.key()) {
            let path = self.path.clone();
            self.worst = Some(ComparedElement { path, index, grad, quotient, rounding, error });
        }
    }
}

impl ComparedElement {
    /// By which the worst is chosen.
    fn key(&self) -> (f64, f64) {
        (self.error, (self.grad - self.quotient).abs())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worst() {
            None => write!(f, "no element was compared")?,
            Some(ComparedElement { path, index, grad, quotient, error, .. }) => write!(
                f,
                "worst of {} elements: error {} in {} at {index:?}, gradient {grad:.6e}, quotient {quotient:.6e}",
                self.checked(),
                short(*error),
                Name(path),
            )?,
        }
        for (at, tensor) in self.unseen().enumerate() {
            write!(f, "{} {}", if at == 0 { "; all is below rounding in" } else { "," }, Name(&tensor.path))?;
        }
        let name = |path: &str| if path.is_empty() { "(root)".into() } else { path.to_string() };
        let paths = self.tensors.iter().map(|tensor| &tensor.path).chain(&self.without_gradient);
        let width = paths.map(|path| name(path).chars().count()).fold("tensor".len(), usize::max);
        if !self.tensors.is_empty() {
            write!(
                f,
                "\n{:<width$} {:>8} {:>8}  {:<14} {:>13} {:>13}",
                "tensor", "checked", "error", "at", "gradient", "quotient"
            )?;
        }
        for tensor in &self.tensors {
            write!(f, "\n{:<width$} {:>8}", name(&tensor.path), tensor.checked)?;
            if let Some(ComparedElement { index, grad, quotient, error, .. }) = &tensor.worst {
                let index = format!("{index:?}");
                write!(f, " {:>8}  {index:<14} {grad:>13.5e} {quotient:>13.5e}", short(*error))?;
            }
            for (count, what) in [(tensor.below_rounding, "below rounding"), (tensor.one_sided, "beside a kink")] {
                if count > 0 {
                    write!(f, "  {count} {what}")?;
                }
            }
        }
        for path in &self.without_gradient {
            write!(f, "\n{:<width$} no gradient", name(path))?;
        }
        Ok(())
    }
}

/// An error in few letters.
fn short(error: f64) -> String {
    if error == 0.0 { "0".into() } else { format!("{error:.1e}") }
}
