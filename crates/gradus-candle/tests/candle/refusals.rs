//! What cannot be stepped is named, and nothing has changed.

use std::error::Error as _;

use candle_core::{DType, Device, Tensor, Var};
use gradus::prelude::*;
use gradus_candle::{Error, Vars};

use crate::{store, tensor, values, wave};

fn var(shape: &[usize]) -> Var {
    Var::from_tensor(&tensor::<f32>(shape, 0.2)).unwrap()
}

#[test]
fn a_variable_of_another_type_or_name() {
    let double = Var::zeros(2, DType::F64, &Device::Cpu).unwrap();
    let error = Vars::<f32>::named([("w", var(&[2])), ("b", double)]).unwrap_err();
    assert_eq!(error.to_string(), r#"variable "b" is of f64, not of f32"#);
    let integers = Var::zeros(2, DType::U8, &Device::Cpu).unwrap();
    let error = Vars::<f32>::named([("ids", integers)]).unwrap_err();
    assert_eq!(error.to_string(), r#"variable "ids" is of u8, not of f32"#);
    let error = Vars::<f32>::named([("w", var(&[2])), ("w", var(&[2]))]).unwrap_err();
    assert_eq!(error.to_string(), r#"two variables have the name "w""#);
    let tied = var(&[2]);
    let error = Vars::<f32>::named([("embedding", tied.clone()), ("head", tied)]).unwrap_err();
    assert_eq!(error.to_string(), r#""head" and "embedding" are one variable; name it once"#);
}

#[test]
fn a_gradient_of_another_type_shape_or_place() {
    let w = var(&[2, 3]);
    let mut vars = Vars::<f32>::named([("w", w.clone())]).unwrap();
    let mut opt = AdamW::new(1e-2);
    let state = opt.state_dict();
    let mut refused = |grad: Tensor| vars.step(&mut opt, &store([(w.clone(), grad)])).unwrap_err().to_string();
    assert_eq!(refused(tensor::<f64>(&[2, 3], 0.0)), r#"gradient "w" is of f64, not of f32"#);
    let shapes = refused(tensor::<f32>(&[3, 2], 0.0));
    assert!(shapes.contains('w') && shapes.contains("[3, 2]") && shapes.contains("[2, 3]"), "{shapes}");
    let own = r#"gradient "w" lies in a variable's own memory; give a copy, `Tensor::copy`"#;
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
    assert!(
        matches!(&error, Error::Gradus(gradus::Error::Step(gradus::error::StepError::NonFiniteGradient { path, .. })) if path == "b"),
        "{error}"
    );
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
        r#"variable "other name" is lent already; drop the other `Lent` first"#
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

#[test]
fn a_panic_gives_everything_back() {
    let w = var(&[5]);
    let mut vars = Vars::<f32>::named([("w", w.clone())]).unwrap();
    let grads = store([(w.clone(), tensor::<f32>(&[5], 0.0))]);
    let mut broken = Sgd::new(|_: u64| -> f64 { panic!("broken") });
    let step = std::panic::AssertUnwindSafe(|| vars.step(&mut broken, &grads));
    assert!(std::panic::catch_unwind(step).is_err());
    assert_eq!(values::<f32>(&w), wave::<f32>(5, 0.2));
    vars.step(&mut Sgd::new(0.1), &grads).unwrap();
}

#[test]
fn a_variable_without_elements_is_a_tensor_like_others() {
    for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 2]] {
        let (w, empty) = (var(&[5]), var(shape));
        let mut vars = Vars::<f32>::named([("w", w.clone()), ("empty", empty.clone())]).unwrap();
        let mut opt = Sgd::new(0.1);
        let given = |grad: &Tensor| store([(w.clone(), tensor::<f32>(&[5], 0.0)), (empty.clone(), grad.clone())]);
        vars.step(&mut opt, &given(&tensor::<f32>(shape, 0.0))).unwrap();
        let within_another =
            tensor::<f32>(&[4, 4, 4], 0.0).flatten_all().unwrap().narrow(0, 9, empty.elem_count()).unwrap();
        vars.step(&mut opt, &given(&within_another.reshape(shape).unwrap())).unwrap();
        assert_ne!(values::<f32>(&w), wave::<f32>(5, 0.2));
        assert_eq!(empty.dims(), shape);
        let error = vars.step(&mut opt, &given(&empty)).unwrap_err();
        assert!(matches!(error, Error::GradientIsVariable { path } if path == "empty"));
    }
}

#[test]
fn a_map_without_variables() {
    let error = Vars::<f32>::of(&candle_nn::VarMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "the map holds no variables; make the model first");
}

/// Products, convolutions, custom and in-place operations, of one lent variable and of two: candle has no check of its own against memory
/// that is too short.
#[test]
fn what_reads_a_lent_variable_gets_an_error() {
    let (w, kernel, x) = (var(&[300, 300]), var(&[8, 8, 3, 3]), tensor::<f32>(&[300, 300], 0.0));
    let image = tensor::<f32>(&[1, 8, 32, 32], 0.0);
    let ids = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap();
    let mut vars = Vars::<f32>::named([("w", w.clone()), ("kernel", kernel.clone())]).unwrap();
    let lent = vars.lend().unwrap();
    let read: [Box<dyn Fn() -> candle_core::Result<Tensor>>; 14] = [
        Box::new(|| x.matmul(&w)),
        Box::new(|| w.matmul(&x)),
        Box::new(|| w.matmul(&w)),
        Box::new(|| x.matmul(&w.t()?)),
        Box::new(|| image.conv2d(&kernel, 1, 1, 1, 1)),
        Box::new(|| image.conv_transpose2d(&kernel, 1, 0, 1, 1)),
        Box::new(|| &x + w.as_tensor()),
        Box::new(|| w.relu()),
        Box::new(|| w.sum_all()),
        Box::new(|| w.contiguous()?.index_select(&ids, 0)),
        Box::new(|| w.t()?.contiguous()),
        Box::new(|| candle_nn::ops::softmax_last_dim(&w)),
        Box::new(|| candle_nn::ops::rms_norm(&x, &w.copy()?.narrow(0, 0, 1)?.squeeze(0)?, 1e-5)),
        Box::new(|| Tensor::cat(&[&x, &w], 0)),
    ];
    for (at, read) in read.iter().enumerate() {
        assert!(read().is_err(), "{at}");
    }
    assert!(w.to_vec2::<f32>().is_err());
    std::thread::scope(|scope| scope.spawn(|| assert!(x.matmul(&w).is_err())).join()).unwrap();
    drop(lent);
    assert!(read.iter().all(|read| read().is_ok()));
}

/// With as many lenders as there is room for between the taking of a variable and the giving back.
#[test]
fn no_variable_is_lost_between_threads() {
    let w = var(&[64]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut vars = Vars::<f32>::named([("w", w.clone())]).unwrap();
                (0..2000).for_each(|_| drop(vars.lend()));
            });
        }
    });
    assert_eq!(values::<f32>(&w), wave::<f32>(64, 0.2));
}
