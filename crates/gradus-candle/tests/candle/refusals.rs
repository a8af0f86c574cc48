//! What cannot be stepped is named, and nothing has changed.

use std::error::Error as _;

use candle_core::{DType, Device, Tensor, Var};
use gradus::prelude::*;
use gradus::{Commit, Report, StateReader, StateWriter, Step};
use gradus_candle::{Error, Vars};

use crate::{store, tensor, values, wave};

fn var(shape: &[usize]) -> Var {
    Var::from_tensor(&tensor::<f32>(shape, 0.2)).unwrap()
}

#[test]
fn a_variable_of_another_type_or_name() {
    let double = Var::zeros(2, DType::F64, &Device::Cpu).unwrap();
    let error = Vars::<f32>::named([("w", var(&[2])), ("b", double)]).unwrap_err();
    assert_eq!(error.to_string(), "b: the variable is of f64, not of f32");
    let integers = Var::zeros(2, DType::U8, &Device::Cpu).unwrap();
    let error = Vars::<f32>::named([("ids", integers)]).unwrap_err();
    assert_eq!(error.to_string(), "ids: the variable is of u8, not of f32");
    let error = Vars::<f32>::named([("w", var(&[2])), ("w", var(&[2]))]).unwrap_err();
    assert_eq!(error.to_string(), "w: two variables have this name");
    let tied = var(&[2]);
    let error = Vars::<f32>::named([("embedding", tied.clone()), ("head", tied)]).unwrap_err();
    assert_eq!(error.to_string(), "head and embedding are one variable; name it once");
}

#[test]
fn a_gradient_of_another_type_shape_or_place() {
    let w = var(&[2, 3]);
    let mut vars = Vars::<f32>::named([("w", w.clone())]).unwrap();
    let mut opt = AdamW::new(1e-2);
    let state = opt.state_dict();
    let mut refused = |grad: Tensor| vars.step(&mut opt, &store([(w.clone(), grad)])).unwrap_err().to_string();
    assert_eq!(refused(tensor::<f64>(&[2, 3], 0.0)), "w: the gradient is of f64, not of f32");
    let shapes = refused(tensor::<f32>(&[3, 2], 0.0));
    assert!(shapes.contains('w') && shapes.contains("[3, 2]") && shapes.contains("[2, 3]"), "{shapes}");
    let own = "w: the gradient lies in a variable's own memory; give a copy, `Tensor::copy`";
    assert_eq!(refused(w.as_tensor().clone()), own);
    assert_eq!(refused(w.t().unwrap().t().unwrap()), own);
    assert_eq!(values::<f32>(&w), wave::<f32>(6, 0.2));
    assert_eq!(opt.state_dict(), state);
}

#[test]
fn what_gradus_refuses_changes_nothing() {
    let (w, b) = (var(&[4]), var(&[1]));
    let mut vars = Vars::<f32>::named([("w", w.clone()), ("b", b.clone())]).unwrap();
    let mut opt = Sgd::new(0.1).clip_global_norm(1.0);
    let nan = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
    let error = vars.step(&mut opt, &store([(w.clone(), tensor::<f32>(&[4], 0.0)), (b.clone(), nan)])).unwrap_err();
    assert!(matches!(&error, Error::Gradus(gradus::Error::NonFiniteGradient { path, .. }) if path == "b"), "{error}");
    assert!(error.source().is_none(), "its message is said once");
    assert_eq!(values::<f32>(&w), wave::<f32>(4, 0.2));
    assert_eq!(values::<f32>(&b), wave::<f32>(1, 0.2));
}

#[test]
fn a_variable_is_lent_once() {
    let (a, b) = (var(&[2]), var(&[3]));
    let mut vars = Vars::<f32>::named([("a", a.clone()), ("b", b.clone())]).unwrap();
    let mut others = Vars::<f32>::named([("a", a.clone()), ("other name", b.clone())]).unwrap();
    let mut only_b = Vars::<f32>::named([("b", b.clone())]).unwrap();
    let lent = only_b.lend().unwrap();
    assert_eq!(
        others.lend().unwrap_err().to_string(),
        "other name: the variable is lent already; drop the other `Lent` first"
    );
    assert_eq!(values::<f32>(&a), wave::<f32>(2, 0.2), "what came before it is given back");
    let grads = store([(a.clone(), tensor::<f32>(&[2], 0.0))]);
    assert!(matches!(vars.step(&mut Sgd::new(0.1), &grads).unwrap_err(), Error::Lent { path } if path == "b"));
    let aliased = store([(a.clone(), b.narrow(0, 0, 2).unwrap())]);
    assert!(matches!(vars.step(&mut Sgd::new(0.1), &aliased), Err(Error::GradientIsVariable { path }) if path == "a"));
    drop(lent);
    vars.step(&mut Sgd::new(0.1), &grads).unwrap();
    assert_eq!(values::<f32>(&b), wave::<f32>(3, 0.2));
    assert_ne!(values::<f32>(&a), wave::<f32>(2, 0.2));
}

/// Panics where an optimizer would move.
struct Broken;

impl Optimizer<f32> for Broken {
    fn check(&self, _: &Step<'_, f32>) -> gradus::Result<()> {
        Ok(())
    }

    fn apply(&mut self, _: Step<'_, f32>) -> gradus::Result<Report> {
        panic!("broken")
    }

    fn learning_rate(&self) -> f64 {
        0.0
    }

    fn steps(&self) -> u64 {
        0
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> gradus::Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}

#[test]
fn a_panic_gives_everything_back() {
    let (w, empty) = (var(&[5]), var(&[0, 3]));
    let mut vars = Vars::<f32>::named([("w", w.clone()), ("empty", empty)]).unwrap();
    let grads = store([(w.clone(), tensor::<f32>(&[5], 0.0))]);
    let step = std::panic::AssertUnwindSafe(|| vars.step(&mut Broken, &grads));
    assert!(std::panic::catch_unwind(step).is_err());
    assert_eq!(values::<f32>(&w), wave::<f32>(5, 0.2));
    vars.step(&mut Sgd::new(0.1), &grads).unwrap();
}
