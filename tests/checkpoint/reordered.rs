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

/// Where sums over all tensors, such as a global norm, are rounded in the order of the tree, and how far the parameters may then be
/// from those in the other order, after five steps in f32.
const SUMMED: [&str; 5] =
    ["lbfgs", "clip_global_norm", "accumulate in accumulate", "kfac", "kfac by eigenvalues, clipped, accumulated"];
const SUMMED_TOLERANCE: f32 = 1e-5;

/// Where state is rounded to fewer bits by numbers that go by a tensor's place in the tree, and how far the parameters may then be: an
/// eighth of what five steps of learning rate 0.05 can be apart.
const DRAWN: [&str; 6] = [
    "adam in bf16",
    "adam in 8 bits",
    "adam in 4 bits",
    "momentum in 8 bits",
    "ema in accumulate in route",
    "everything",
];
const DRAWN_TOLERANCE: f32 = 2.0 * 5.0 * 0.05 / 8.0;

#[test]
fn every_chain_goes_on_in_another_order() {
    let known = |name: &&&str| CHAINS.iter().any(|(chain, _)| chain == *name) || name.starts_with("kfac");
    assert_eq!(SUMMED.iter().chain(&DRAWN).filter(known).count(), SUMMED.len() + DRAWN.len());
    for (name, build) in CHAINS {
        let (mut opt, mut params) = (build(), tree(1));
        (0..5).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        let saved = Checkpoint::of(&params, &opt).unwrap();

        let (mut other, mut backwards) = (build(), Backwards(tree(9)));
        saved.load(&mut backwards, &mut other).unwrap();
        assert_eq!(backwards.0, params, "{name}");
        let (state, loaded) = (opt.state_dict(), other.state_dict());
        assert!(state.keys().eq(loaded.keys()), "{name}");
        for key in state.keys() {
            assert_eq!(state.text(key), loaded.text(key), "{name}: {key}");
            assert_eq!(state.tensor::<f32>(key), loaded.tensor(key), "{name}: {key}");
        }
        for step in 5..10 {
            opt.step(&mut params, &grads(step)).unwrap();
            other.step(&mut backwards, &Backwards(grads(step))).unwrap();
        }
        let tolerance = match name {
            _ if SUMMED.contains(&name) => SUMMED_TOLERANCE,
            _ if DRAWN.contains(&name) => DRAWN_TOLERANCE,
            _ => 0.0,
        };
        for (path, tensor) in &params {
            let apart = tensor.iter().zip(&backwards.0[path]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= tolerance, "{name}: {path} is {apart} apart");
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
    assert!(matches!(error, gradus::Error::Step(gradus::error::StepError::ParametersChanged { .. })), "{error}");
}
