//! What one tree saved goes on in another that has the same tensors in another order.

use gradus::checkpoint::Checkpoint;
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use gradus::prelude::*;
use ndarray::array;

use crate::chains::{CHAINS, Grads, Tree, grads, tree};

/// The tensors of the other trees, from the last to the first.
struct Backwards<T>(T);

impl Params for Backwards<Tree> {
    type Elem = f32;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f32>) {
        self.0.iter().rev().for_each(|(name, tensor)| visitor.field(name, tensor));
    }
}

impl ParamsMut for Backwards<Tree> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f32>) {
        self.0.iter_mut().rev().for_each(|(name, tensor)| visitor.field(name, tensor));
    }
}

impl Params for Backwards<Grads> {
    type Elem = f32;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f32>) {
        self.0.iter().rev().for_each(|(name, grad)| visitor.field(name, grad));
    }
}

/// Sums over all tensors are rounded in the order of the tree, and what state of fewer bits is rounded by is drawn by a tensor's place in
/// it.
const ROUNDED_IN_ORDER: [&str; 10] = [
    "lbfgs",
    "adam in bf16",
    "adam in 8 bits",
    "momentum in 8 bits",
    "ema in accumulate in route",
    "clip_global_norm",
    "accumulate in accumulate",
    "everything",
    "kfac",
    "kfac by eigenvalues, clipped, accumulated",
];

#[test]
fn every_chain_goes_on_in_another_order() {
    for (name, build) in CHAINS {
        let (mut opt, mut params) = (build(), tree(1));
        (0..5).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        let saved = Checkpoint::of(&params, &opt).unwrap();

        let (mut other, mut backwards) = (build(), Backwards(tree(9)));
        saved.load(&mut backwards, &mut other).unwrap();
        assert_eq!(backwards.0, params, "{name}");
        let (state, loaded) = (opt.state_dict(), other.state_dict());
        assert!(state.keys().eq(loaded.keys()) && state.bytes() == loaded.bytes(), "{name}");
        for step in 5..10 {
            opt.step(&mut params, &grads(step)).unwrap();
            other.step(&mut backwards, &Backwards(grads(step))).unwrap();
            assert!(ROUNDED_IN_ORDER.contains(&name) || backwards.0 == params, "{name} after step {step}");
        }
        for (path, tensor) in &params {
            let close = tensor.iter().zip(&backwards.0[path]).all(|(a, b)| (a - b).abs() < 0.05);
            assert!(close, "{name}: {path}");
        }
    }
}

#[test]
fn other_tensors_are_no_other_order() {
    let (mut opt, mut params) = (Adam::new(0.1), (array![1.0_f32], array![2.0_f32]));
    opt.step(&mut params, &(array![1.0], array![1.0])).unwrap();
    let saved = Checkpoint::of(&(&params.0,), &opt).unwrap();
    let (mut other, mut alone) = (Adam::new(0.1), (array![3.0_f32],));
    // The parameters are those of the file, but the state is of two tensors.
    saved.load(&mut alone, &mut other).unwrap();
    let error = other.step(&mut alone, &(array![1.0],)).unwrap_err();
    assert!(matches!(error, gradus::Error::ParametersChanged { .. }), "{error}");
}
