//! A state that is not the optimizer's own is refused, and changes nothing.

use gradus::prelude::*;
use gradus::rule::StatePrecision;
use gradus::{Error, StateDict};
use ndarray::{ArrayD, aview0, aview1};

use crate::chains::{CHAINS, grads, tree};

/// The error, after which everything is as it was.
fn refused(opt: &mut dyn Optimizer<f32>, state: &StateDict) -> Error {
    let before = opt.state_dict();
    let error = opt.load_state_dict(state).unwrap_err();
    assert!(opt.state_dict() == before, "{error}");
    error
}

/// The state of a run of three steps, changed.
fn with(change: impl FnOnce(&mut StateDict)) -> StateDict {
    let (mut opt, mut params) = (Adam::new(0.1).accumulate(2), tree(1));
    (0..7).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
    let mut state = opt.state_dict();
    change(&mut state);
    state
}

#[test]
fn every_kind_of_wrong_state_has_its_error() {
    let adam = || Adam::<f32>::new(0.1).accumulate(2);
    adam().load_state_dict(&with(|_| {})).unwrap();
    let said = |state: &StateDict, mut opt: Box<dyn Optimizer<f32>>| refused(&mut *opt, state).to_string();
    let whole = with(|_| {});
    assert_eq!(
        said(&whole, Box::new(AdamW::new(0.1).accumulate(2))),
        "expected the state of adamw, found that of accumulate, adam"
    );
    assert_eq!(
        said(&whole, Box::new(Adam::new(0.1))),
        "unexpected entry \"accumulate/gathered\": the optimizer it is loaded into does not have it"
    );
    assert_eq!(said(&StateDict::default(), Box::new(adam())), "expected the state of accumulate, found an empty state");
    let change = |change: &dyn Fn(&mut StateDict)| said(&with(change), Box::new(adam()));
    assert_eq!(
        change(&|state| _ = state.remove("adam/exp_avg/b.weight")),
        "entry \"adam/exp_avg/b.weight\" is missing"
    );
    assert_eq!(change(&|state| _ = state.remove("adam/steps")), "entry \"adam/steps\" is missing");
    assert_eq!(
        change(&|state| state.insert_tensor("adam/exp_avg/c.weight", aview1(&[1.0_f32]))),
        "unexpected entry \"adam/exp_avg/c.weight\": the optimizer it is loaded into does not have it"
    );
    assert_eq!(
        change(&|state| state.insert_tensor("adam/exp_avg/a.bias", aview1(&[1.0_f32]))),
        "entry \"adam/exp_avg/a.bias\" has shape [1] where [5] is needed"
    );
    assert_eq!(
        change(&|state| state.insert_tensor("adam/exp_avg/a.bias", aview1(&[1.0_f64; 5]))),
        "entry \"adam/exp_avg/a.bias\" holds f64 where f32 is needed"
    );
    assert_eq!(
        change(&|state| state.insert_tensor("adam/step/a.bias", aview0(&1.0_f32))),
        "entry \"adam/step/a.bias\" holds f32 where u64 is needed"
    );
    assert_eq!(
        change(&|state| state.insert_text("adam/steps", "many")),
        "entry \"adam/steps\" is \"many\"; it must be a count"
    );
    assert_eq!(
        change(&|state| state.insert_text("accumulate/gathered", 2)),
        "entry \"accumulate/gathered\" is \"2\"; it must be less than the micro-batches of a step"
    );
    assert_eq!(
        change(&|state| state.insert_text("adam/order/a.weight", "diagonal")),
        "entry \"adam/order/a.weight\" is \"diagonal\"; it must be F"
    );
    let narrow = Adam::new(0.1).state_precision(StatePrecision::Blockwise8).accumulate(2);
    assert_eq!(said(&whole, Box::new(narrow)), "entry \"adam/exp_avg/a.weight\" holds f32 where u8 is needed");
    let mut elsewhere = adam();
    elsewhere.step(&mut ArrayD::zeros(vec![3]), &ArrayD::zeros(vec![3])).unwrap();
    assert_eq!(
        said(&whole, Box::new(elsewhere)),
        "the parameters have changed since the first step: expected (root) of shape [3], found \"a.bias\" of shape [5]"
    );
}

/// Whatever entry is gone, nothing is loaded, also of the parts of a chain that came before it.
#[test]
fn a_state_without_one_of_its_entries_changes_nothing() {
    for (name, build) in CHAINS {
        let (mut opt, mut params) = (build(), tree(1));
        (0..5).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        let state = opt.state_dict();
        let (mut other, mut others) = (build(), tree(2));
        (0..2).for_each(|step| _ = other.step(&mut others, &grads(step + 40)).unwrap());
        for key in state.keys() {
            let mut rest = state.clone();
            rest.remove(key);
            // Without its order a tensor is taken to lie row by row, without its step, or a mark, not to have begun, and without
            // a change of the loss none to have been foretold.
            let optional =
                ["order/", "step/", "sum/", "average/", "frozen/", "foretold"].iter().any(|part| key.contains(part));
            let before = other.state_dict();
            match other.load_state_dict(&rest) {
                Err(error) => assert!(other.state_dict() == before, "{name} without {key}: {error}"),
                Ok(()) => {
                    assert!(optional, "{name} loads without {key}");
                    other.load_state_dict(&before).unwrap();
                }
            }
        }
    }
}
