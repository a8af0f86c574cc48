//! Conversion of optimizer states between PyTorch and gradus.
//!
//! PyTorch identifies an optimizer's tensors by number, gradus by name. In Python, with `safetensors.torch`:
//!
//! ```python
//! def save(model, optimizer, path):
//!     names = {p: name for name, p in model.named_parameters()}
//!     save_file({f"{slot}/{names[p]}": torch.as_tensor(value) for p, state in optimizer.state.items()
//!                for slot, value in state.items() if value is not None}, path)
//!
//! def load(model, optimizer, path):
//!     params = dict(model.named_parameters())
//!     for key, value in load_file(path).items():
//!         slot, name = key.split("/", 1)
//!         optimizer.state[params[name]][slot] = value
//! ```
//!
//! In Rust:
//!
//! ```no_run
//! use gradus::checkpoint::{Checkpoint, torch};
//! use gradus::prelude::*;
//! # let model = std::collections::BTreeMap::from([("hidden.weight", ndarray::array![0.0_f32])]);
//!
//! let mut opt: AdamW<f32> = AdamW::new(1e-3);
//! let file = Checkpoint::open("adamw.safetensors")?;
//! opt.load_state_dict(&torch::import(&file, "adamw", &model, 0)?)?;
//!
//! torch::export(&opt.state_dict(), "adamw")?.save("back.safetensors")?;
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! The slots have the same names, such as `exp_avg`, `exp_avg_sq`, `momentum_buffer` and `step`. PyTorch's SGD with momentum is
//! [`Momentum`](crate::Momentum), node `momentum`, or with `nesterov=True` [`Nesterov`](crate::Nesterov), node `nesterov`.
//!
//! Two optimizers of PyTorch store numbers that gradus computes from the step. [`import`] leaves them out. In Python, add them after `load`:
//!
//! | optimizer | entries of `optimizer.state[p]`, after t steps |
//! |---|---|
//! | `NAdam` | `mu_product`: the product of β₁(1 − ½·0.96^(iψ)) for i from 1 to t |
//! | `ASGD` | `eta`: η/(1 + λ₀ηt)^α; `mu`: 1/max(1, t − t₀); `ax`: the average of [`swa`](crate::OptimizerExt::swa), before step t₀ + 2 a copy of p |

use std::collections::HashSet;
use std::sync::Arc;

use super::Checkpoint;
use crate::error::{Error, Result, StateError};
use crate::params::{Layout, Params};
use crate::state::data::Data;
use crate::state::{StateDict, StateTensor};

const STEP: &str = "step";

/// Optimizers and their slots that are computed from the step.
const COMPUTED: [(&str, &str); 5] =
    [("nadam", "mu_product"), ("nadamw", "mu_product"), ("asgd", "eta"), ("asgd", "mu"), ("asgd", "ax")];

/// The types that a slot may have.
const FLOAT: &str = "f32, f64, bf16 or f16";

/// Converts a file with tensors `slot/parameter` to the state of the optimizer `node`, such as `"adam"`.
///
/// `params` is the tree that the optimizer will step. `steps` is the number of steps taken. It is used only for PyTorch's SGD, which does not count steps;
/// for other optimizers, the largest `step` in the file is used. A `step` may have any integer or floating-point type. Other tensors of integers or
/// booleans are ignored, unless they are a slot of a parameter.
///
/// # Errors
/// [`StateError::EntryValue`] if a `step` is not a count below 2⁵³, [`StateError::EntryType`] for integers in another slot of a parameter,
/// [`StateError::UnexpectedEntry`] for a tensor whose name is not `slot/parameter`, [`StepError::DuplicatePath`](crate::error::StepError::DuplicatePath)
/// for `params`. Missing or surplus entries are reported by `load_state_dict`.
pub fn import(file: &Checkpoint, node: &str, params: &(impl Params + ?Sized), steps: u64) -> Result<StateDict> {
    let layout = Arc::new(Layout::of(params)?);
    let mut state = StateDict::new(Some(Arc::clone(&layout)));
    let (mut taken, mut with_slot) = (steps, HashSet::new());
    let parts = |key: &str| match key.split_once('/') {
        Some((slot, path)) => Ok((slot == STEP, format!("{node}/{slot}/{path}"), layout.position(path))),
        None => Err(Error::State(StateError::UnexpectedEntry { key: key.into(), into: "optimizer" })),
    };
    let count_of = |count: u64| StateTensor { shape: Box::default(), data: Data::U64(vec![count]) };
    let is_stored = |key: &str| key.split_once('/').is_none_or(|(slot, _)| !COMPUTED.contains(&(node, slot)));
    for (key, tensor) in file.params.iter().filter(|(key, _)| is_stored(key)) {
        let (is_step, name, at) = parts(key)?;
        if is_step {
            let count = count(key, number(&tensor.data))?;
            taken = taken.max(count);
            state.tensors.insert(name, count_of(count));
        } else {
            with_slot.extend(at);
            state.tensors.insert(name, tensor.clone());
        }
    }
    for (key, other) in &file.others {
        // Counters and masks that are not of a parameter's state.
        let Ok((is_step, name, Some(_))) = parts(key) else { continue };
        if !is_step {
            return Err(Error::State(StateError::EntryType {
                key: key.clone(),
                expected: FLOAT,
                found: other.dtype(),
            }));
        }
        let count = count(key, other.integer().map(|number| number as f64))?;
        taken = taken.max(count);
        state.tensors.insert(name, count_of(count));
    }
    state.insert_text(format!("{node}/steps"), taken);
    // SGD counts nothing: what has a buffer has taken a step.
    for at in with_slot {
        let counted = format!("{node}/{STEP}/{}", layout.tensors()[at].path());
        state.tensors.entry(counted).or_insert_with(|| count_of(taken.max(1)));
    }
    Ok(state)
}

/// Converts the state of the optimizer `node` to tensors `slot/parameter` for PyTorch, with `step` in f32.
///
/// # Errors
/// [`StateError::WrongAlgorithm`] if there is no such node, [`StateError::EntryType`] if the state is in 8 bits.
pub fn export(state: &StateDict, node: &str) -> Result<Checkpoint> {
    let prefix = format!("{node}/");
    if !state.keys().any(|key| key.starts_with(&prefix)) {
        let found = state.keys().filter_map(|key| key.split('/').next()).map(str::to_owned);
        return Err(Error::State(StateError::WrongAlgorithm { expected: node.into(), found: found.collect() }));
    }
    let mut file = Checkpoint::default();
    for (key, tensor) in &state.tensors {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        let tensor = match &tensor.data {
            Data::U64(counts) => StateTensor {
                shape: tensor.shape.clone(),
                data: Data::F32(counts.iter().map(|count| *count as f32).collect()),
            },
            Data::U8(_) => {
                return Err(Error::State(StateError::EntryType { key: key.clone(), expected: "f32", found: "u8" }));
            }
            _ => tensor.clone(),
        };
        file.params.insert(name.into(), tensor);
    }
    Ok(file)
}

/// PyTorch's `step`: a tensor of one number, as a rule in f32.
fn count(key: &str, number: Option<f64>) -> Result<u64> {
    let whole = number.filter(|number| *number >= 0.0 && number.fract() == 0.0 && *number < 2.0_f64.powi(53));
    whole.map(|number| number as u64).ok_or_else(|| {
        Error::State(StateError::EntryValue {
            key: key.into(),
            value: number.map_or("not one number".into(), |number| number.to_string()),
            accepted: "a count",
        })
    })
}

/// The only number of a tensor.
fn number(data: &Data) -> Option<f64> {
    match data.to_f64()?[..] {
        [number] => Some(number),
        _ => None,
    }
}
