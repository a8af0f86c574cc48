//! What a comparison has found, as data and as a table.

use std::fmt;

use super::Judgement;
use crate::error::Name;

/// Gradients beside difference quotients. [`Display`](fmt::Display) is a table with the worst element in its first line.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "assert that `worst_error` is small"]
pub struct Comparison {
    pub(super) tensors: Vec<ComparedTensor>,
    pub(super) without_gradient: Vec<String>,
}

/// What was found in one tensor.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedTensor {
    /// The tensor's path.
    pub path: String,
    /// How many elements were compared.
    pub checked: usize,
    /// How many of them have a gradient and a quotient that rounding in the loss could explain, and not both 0: of these
    /// nothing is known but that they are small.
    pub below_rounding: usize,
    /// How many of them agree only with the quotient of one side: there is a kink beside them.
    pub one_sided: usize,
    /// The element with the largest error, of several the one farthest from its quotient; `None` if none was compared.
    pub worst: Option<ComparedElement>,
}

/// One element of the gradient beside its difference quotient.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedElement {
    /// The tensor's path.
    pub path: String,
    /// Where in the tensor it is.
    pub index: Vec<usize>,
    /// The gradient, as it was given.
    pub grad: f64,
    /// The difference quotient of the loss.
    pub quotient: f64,
    /// How far rounding in the loss may have moved the quotient.
    pub rounding: f64,
    /// The relative error, from 0 to 2: see [`Gradients`](super::Gradients).
    pub error: f64,
}

impl Comparison {
    /// The tensors that have a gradient, in the order of the parameters.
    pub fn tensors(&self) -> &[ComparedTensor] {
        &self.tensors
    }

    /// The paths of the tensors for which the gradient tree says `None`: they were not compared.
    pub fn without_gradient(&self) -> &[String] {
        &self.without_gradient
    }

    /// The tensors of which nothing was seen: their gradients and quotients are all within the rounding of the loss. They are zero, or too
    /// small beside the loss; [`worst_error`](Self::worst_error) does not speak of them.
    pub fn unseen(&self) -> impl Iterator<Item = &ComparedTensor> {
        self.tensors.iter().filter(|tensor| tensor.below_rounding > 0 && tensor.below_rounding == tensor.checked)
    }

    /// How many elements were compared.
    pub fn checked(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.checked).sum()
    }

    /// The element with the largest error, of several the one farthest from its quotient; `None` if none was compared.
    pub fn worst(&self) -> Option<&ComparedElement> {
        let elements = self.tensors.iter().filter_map(|tensor| tensor.worst.as_ref());
        elements.reduce(|worst, other| if other.key() > worst.key() { other } else { worst })
    }

    /// The largest error; NaN, which no tolerance accepts, if no element was compared or all are below rounding.
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

    pub(super) fn add(&mut self, index: Vec<usize>, grad: f64, judgement: &Judgement) {
        let Judgement { quotient, rounding, error, one_sided } = *judgement;
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
