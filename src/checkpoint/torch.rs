//! The state of PyTorch's optimizers, there and back.
//!
//! PyTorch numbers an optimizer's tensors; state that is to be carried over goes by name. In Python, with
//! `safetensors.torch`:
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
//! and here:
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
//! The slots have the same names: `exp_avg`, `exp_avg_sq`, `max_exp_avg_sq`, `momentum_buffer`, `square_avg`, `grad_avg`, and
//! `step`. PyTorch's SGD with momentum is [`Momentum`](crate::Momentum), node `momentum`, or with `nesterov=True`
//! [`Nesterov`](crate::Nesterov), node `nesterov`.

use std::sync::Arc;

use super::Checkpoint;
use crate::error::{Error, Result};
use crate::params::{Layout, Params};
use crate::state::data::Data;
use crate::state::{StateDict, StateTensor};

const STEP: &str = "step";

/// The state of the optimizer `node`, such as `"adam"`, from a file with tensors `slot/parameter`.
///
/// `params` is the tree that the optimizer is going to step. `steps` is the number of steps taken, for PyTorch's SGD, which
/// does not count; elsewhere the largest `step` holds.
///
/// # Errors
/// [`Error::EntryValue`] for a `step` that is no count, [`Error::UnexpectedEntry`] for a tensor whose name is not
/// `slot/parameter`, [`Error::DuplicatePath`] of `params`. What the state lacks or has too much, loading it tells.
pub fn import(file: &Checkpoint, node: &str, params: &(impl Params + ?Sized), steps: u64) -> Result<StateDict> {
    let layout = Arc::new(Layout::of(params)?);
    let mut state = StateDict::new(Some(Arc::clone(&layout)));
    let mut taken = steps;
    for (key, tensor) in &file.params {
        let (slot, path) = key.split_once('/').ok_or_else(|| Error::UnexpectedEntry { key: key.clone() })?;
        let mut tensor = tensor.clone();
        if slot == STEP {
            let count = count(key, &tensor.data)?;
            taken = taken.max(count);
            tensor = StateTensor { shape: Box::default(), data: Data::U64(vec![count]) };
        }
        state.tensors.insert(format!("{node}/{slot}/{path}"), tensor);
    }
    state.insert_text(format!("{node}/steps"), taken);
    // SGD counts nothing: what has a buffer has taken a step.
    let counted = |path: &str| format!("{node}/{STEP}/{path}");
    for info in layout.tensors() {
        let slots = state.tensors.keys().filter_map(|key| key.strip_prefix(node)?.strip_prefix('/')?.split_once('/'));
        let has_slot = slots.into_iter().any(|(slot, path)| slot != STEP && path == info.path());
        if has_slot && !state.tensors.contains_key(&counted(info.path())) {
            let data = Data::U64(vec![taken.max(1)]);
            state.tensors.insert(counted(info.path()), StateTensor { shape: Box::default(), data });
        }
    }
    Ok(state)
}

/// The state of the optimizer `node` as tensors `slot/parameter`, for PyTorch; `step` in f32, as it is there.
///
/// # Errors
/// [`Error::WrongAlgorithm`] if there is no such node, [`Error::EntryType`] for state in 8 bits.
pub fn export(state: &StateDict, node: &str) -> Result<Checkpoint> {
    let prefix = format!("{node}/");
    if !state.keys().any(|key| key.starts_with(&prefix)) {
        let found = state.keys().filter_map(|key| key.split('/').next()).map(str::to_owned);
        return Err(Error::WrongAlgorithm { expected: node.into(), found: found.collect() });
    }
    let mut file = Checkpoint::default();
    for (key, tensor) in &state.tensors {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        let tensor = match &tensor.data {
            Data::U64(counts) => StateTensor {
                shape: tensor.shape.clone(),
                data: Data::F32(counts.iter().map(|count| *count as f32).collect()),
            },
            Data::U8(_) => return Err(Error::EntryType { key: key.clone(), expected: "f32", found: "u8" }),
            _ => tensor.clone(),
        };
        file.params.insert(name.into(), tensor);
    }
    Ok(file)
}

/// PyTorch's `step`: a tensor of one number, as a rule in f32.
fn count(key: &str, data: &Data) -> Result<u64> {
    let number = match data {
        Data::F32(values) => values.first().map(|value| f64::from(*value)),
        Data::F64(values) => values.first().copied(),
        Data::U64(values) => values.first().map(|value| *value as f64),
        _ => None,
    };
    let whole = number.filter(|number| *number >= 0.0 && number.fract() == 0.0 && *number < 2.0_f64.powi(53));
    whole.map(|number| number as u64).ok_or_else(|| Error::EntryValue {
        key: key.into(),
        value: number.map_or("no number".into(), |number| number.to_string()),
        accepted: "a count",
    })
}
