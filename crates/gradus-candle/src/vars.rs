//! The variables of a model, named.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{DType, DeviceLocation, Tensor, Var, WithDType};
use candle_nn::VarMap;
use gradus::{Optimizer, Report};

use crate::{CandleElement, Error, Gradients, Lent, Result};

/// The named variables of a model.
///
/// The names are the paths for groups, errors and checkpoints. A `Vars` holds handles, not values: a step changes the model's own memory.
///
/// # Example
/// ```
/// use candle_core::{Device, Var};
/// use gradus::{Optimizer, Sgd};
/// use gradus_candle::Vars;
///
/// let weight = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// let mut vars = Vars::<f32>::named([("weight", weight.clone())])?;
/// let loss = weight.sqr()?.sum_all()?;
/// vars.step(&mut Sgd::new(0.25), &loss.backward()?)?;
/// assert_eq!(weight.to_vec1::<f32>()?, [0.5, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Vars<A = f32> {
    named: Arc<[(String, Var)]>,
    element: PhantomData<A>,
}

impl<A: CandleElement> Vars<A> {
    /// Takes the variables of a map, sorted by name. Build the model first.
    ///
    /// # Errors
    /// [`Error::NoVariables`] if there are none, and those of [`named`](Self::named).
    pub fn of(map: &VarMap) -> Result<Self> {
        let map = map.data().lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = map.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        drop(map);
        if named.is_empty() {
            return Err(Error::NoVariables);
        }
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::named(named)
    }

    /// Takes these variables, in this order.
    ///
    /// # Errors
    /// [`Error::Dtype`] if a variable has another type than `A`, [`Error::NotOnCpu`], [`Error::DuplicateName`], and
    /// [`Error::SameVariable`] if one variable has two names.
    pub fn named<N: Into<String>>(named: impl IntoIterator<Item = (N, Var)>) -> Result<Self> {
        let named: Arc<[(String, Var)]> = named.into_iter().map(|(name, var)| (name.into(), var)).collect();
        let (mut names, mut vars) = (HashSet::new(), HashMap::new());
        for (path, var) in named.iter() {
            ensure_fits::<A>(path, "variable", var)?;
            if !names.insert(path) {
                return Err(Error::DuplicateName { path: path.clone() });
            }
            if let Some(first) = vars.insert(var.id(), path) {
                return Err(Error::SameVariable { path: path.clone(), first: first.clone() });
            }
        }
        Ok(Self { named, element: PhantomData })
    }

    /// The names and the variables, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.named.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Takes a step along the gradients of a backward pass. A variable without a gradient keeps its value and its state. If no variable has a
    /// gradient, the report has `moved: false`.
    ///
    /// During the step, the variables are [lent](Self::lend).
    ///
    /// # Errors
    /// Those of [`lend`](Self::lend), of [`gradients`](Self::gradients) and of the optimizer. Variables and optimizer are then unchanged.
    pub fn step<O: Optimizer<A> + ?Sized>(&mut self, optimizer: &mut O, grads: &GradStore) -> Result<Report> {
        let gradients = self.gradients(grads)?;
        Ok(optimizer.step(&mut self.lend()?, &gradients)?)
    }

    /// Lends the values of the variables to gradus, as a tree that can be stepped, saved, loaded or averaged.
    ///
    /// The values are moved, not copied. Until the tree is dropped the variables are empty, and a forward pass on any thread gets an error from
    /// candle. Make the call a statement of its own: in `match opt.swap(&mut vars.lend()?) { … }` the tree lives to the end of the `match`.
    ///
    /// # Errors
    /// [`Error::Lent`] if the values are already lent.
    pub fn lend(&mut self) -> Result<Lent<A>> {
        Lent::new(Arc::clone(&self.named))
    }

    /// The gradients of the variables as a tree, read in candle's memory in any layout.
    ///
    /// # Errors
    /// [`Error::Dtype`] and [`Error::NotOnCpu`] if a gradient has another type or device than its variable, and
    /// [`Error::GradientIsVariable`].
    pub fn gradients<'g>(&self, grads: &'g GradStore) -> Result<Gradients<'g, A>> {
        Gradients::new(&self.named, grads)
    }
}

/// Whether a tensor is of this element type and on the CPU.
pub(crate) fn ensure_fits<A: CandleElement>(path: &str, what: &'static str, tensor: &Tensor) -> Result<()> {
    ensure(path, what, tensor.device().location(), tensor.dtype(), <A as WithDType>::DTYPE)
}

fn ensure(path: &str, what: &'static str, device: DeviceLocation, found: DType, expected: DType) -> Result<()> {
    if device != DeviceLocation::Cpu {
        return Err(Error::NotOnCpu { path: path.into(), what, device });
    }
    if found != expected {
        return Err(Error::Dtype { path: path.into(), what, found: found.as_str(), expected: expected.as_str() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// There is no such device where this is tested.
    #[test]
    fn a_tensor_on_another_device_is_refused() {
        let found = ensure("w", "gradient", DeviceLocation::Cuda { gpu_id: 1 }, DType::F32, DType::F32);
        let message = found.err().map(|error| error.to_string());
        let expected = r#"gradient "w" is on Cuda { gpu_id: 1 }; gradus steps what is on the CPU"#;
        assert_eq!(message.as_deref(), Some(expected));
    }

    #[test]
    fn a_map_that_a_panic_has_poisoned_is_read_all_the_same() -> Result<()> {
        let map = VarMap::new();
        let var = Var::zeros(2, DType::F32, &Device::Cpu)?;
        map.data().lock().unwrap_or_else(PoisonError::into_inner).insert("w".into(), var);
        let poisoning = std::thread::scope(|scope| {
            let hold = || {
                let _held = map.data().lock();
                std::panic::resume_unwind(Box::new(()));
            };
            scope.spawn(hold).join()
        });
        assert!(poisoning.is_err() && map.data().is_poisoned());
        assert_eq!(Vars::<f32>::of(&map)?.iter().count(), 1);
        Ok(())
    }
}
