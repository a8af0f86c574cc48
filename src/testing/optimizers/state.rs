//! What is saved, and loaded again.

use ndarray::{ArrayD, aview0};

use super::{OptimizerLaws, train};
use crate::params::Scalar;
use crate::schedule::{Cosine, ScheduleExt};
use crate::state::StateDict;
use crate::step::Optimizer;
use crate::testing::tensors::{Arranged, Arrangement, number, numbers};
use crate::testing::tree::{same, same_state};
use crate::testing::violation::{Held, broken, case, ensure};

/// The steps of a run that is interrupted, and in how many places it is.
const INTERRUPTED: (u64, u64) = (24, 20);

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn resume(&self) -> Held {
        let (steps, points) = INTERRUPTED;
        // Large enough for 8 bits, and not row by row: quantized state is in the order of memory.
        let shape = if self.is_elementwise() && !self.is_of_adaptor { [43, 101] } else { [13, 9] };
        let fresh = || self.with(Cosine::new(0.05, 20).warmup(3));
        let (mut opt, mut params) = (fresh(), Arranged::new(&numbers::<A>(&shape, 0), Arrangement::F));
        let step = |opt: &mut O, params: &mut Arranged<A>, stream| opt.step(params, &numbers(&shape, stream));
        let mut seen = Vec::new();
        for number in 0..=steps {
            seen.push((opt.state_dict(), params.clone(), opt.learning_rate()));
            step(&mut opt, &mut params, number)?;
        }
        for point in 0..points {
            let at = (number::<f64>(77, point).abs() * (steps - 1) as f64) as usize;
            let (Some((state, params, _)), Some((next, expected, rate))) = (seen.get(at), seen.get(at + 1)) else {
                continue;
            };
            let has_steps = point % 2 == 1;
            case(
                format_args!("shape {shape:?}, interrupted after {at} steps, loaded after steps: {has_steps}"),
                || {
                    // Into one that has not begun, and into one that is elsewhere.
                    let (mut new, mut params) = (fresh(), params.clone());
                    let resumed = if has_steps { &mut opt } else { &mut new };
                    resumed.load_state_dict(state)?;
                    same_state(&resumed.state_dict(), state, "that was loaded")?;
                    step(resumed, &mut params, at as u64)?;
                    same("", params.view(), expected.view(), "without the interruption")?;
                    same_state(&resumed.state_dict(), next, "without the interruption")?;
                    let found = resumed.learning_rate();
                    ensure(found == *rate, || format!("`learning_rate` is {found:?}, not {rate:?}"))
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn strict_loading(&self) -> Held {
        let run = |steps, elements| {
            let (mut opt, mut params) = (self.with(0.05), self.tree(elements, 0));
            train(&mut opt, &mut params, steps)?;
            Held::Ok(opt)
        };
        let (whole, mut other) = (run(3, 9)?.state_dict(), run(2, 9)?);
        let before = other.state_dict();
        let mut refused = |change: String, state: &StateDict, may_be_missing: bool| {
            case(change, || match other.load_state_dict(state) {
                Ok(()) if may_be_missing => Ok(other.load_state_dict(&before)?),
                Ok(()) => broken("the state is loaded"),
                Err(_) => same_state(&other.state_dict(), &before, "before the error"),
            })
        };
        let changed = |change: &dyn Fn(&mut StateDict)| {
            let mut state = whole.clone();
            change(&mut state);
            state
        };
        if whole.keys().next().is_some() {
            refused("an empty state".into(), &StateDict::default(), false)?;
            refused("the state of another algorithm".into(), &renamed(&whole), false)?;
        }
        let surplus = changed(&|state| state.insert_tensor("surplus/w", aview0(&A::zero())));
        refused("a state with the entry \"surplus/w\"".into(), &surplus, false)?;
        for key in whole.keys() {
            let missing = changed(&|state| _ = state.remove(key));
            let is_optional = self.optional_entries.iter().any(|part| key.contains(part));
            refused(format!("a state without {key:?}"), &missing, is_optional)?;
            if whole.text(key).is_some_and(|text| text.parse::<f64>().is_ok()) {
                let text = changed(&|state| state.insert_text(key, "nonsense"));
                refused(format!("a state where {key:?} is \"nonsense\""), &text, false)?;
            } else if let Some(tensor) = whole.tensors.get(key) {
                let shape = vec![3; tensor.shape.len() + 1];
                let longer = changed(&|state| state.insert_tensor(key, ArrayD::<A>::zeros(&shape[..]).view()));
                refused(format!("a state where {key:?} has shape {shape:?}"), &longer, false)?;
                let of_type = if tensor.data.dtype() == "u64" { A::DTYPE } else { "u64" };
                let typed = changed(&|state| match of_type {
                    "u64" => retype(state, key),
                    _ => state.insert_tensor(key, ArrayD::<A>::zeros(&tensor.shape[..]).view()),
                });
                refused(format!("a state where {key:?} holds {of_type}"), &typed, false)?;
            }
        }
        case("the state of other parameters", || {
            let others = run(2, 20)?.state_dict();
            match other.load_state_dict(&others) {
                Ok(()) => broken("the state is loaded into an optimizer that has stepped other parameters"),
                Err(_) => same_state(&other.state_dict(), &before, "before the error"),
            }
        })
    }
}

/// The same state with other names of its parts.
fn renamed(state: &StateDict) -> StateDict {
    let other = |key: &String| format!("other_{key}");
    StateDict {
        layout: state.layout.clone(),
        texts: state.texts.iter().map(|(key, text)| (other(key), text.clone())).collect(),
        tensors: state.tensors.iter().map(|(key, tensor)| (other(key), tensor.clone())).collect(),
    }
}

/// Replaces an entry's numbers by counts.
fn retype(state: &mut StateDict, key: &str) {
    if let Some(tensor) = state.tensors.get_mut(key) {
        tensor.data = crate::state::data::Data::U64(vec![1; tensor.data.len()]);
    }
}
