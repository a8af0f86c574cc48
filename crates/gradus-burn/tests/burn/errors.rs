//! What is refused, in words, and that it is refused before anything is changed.

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use gradus::prelude::*;
use gradus_burn::Error;

use crate::support::{Mlp, addresses, batch, device, facts, grads, numbers};

/// The error of a step that leaves model and optimizer as they were.
fn refused(model: &mut Mlp, taken: GradientsParams) -> Error {
    let mut opt = AdamW::new(0.1);
    let (before, at, state) = (facts(model), addresses(model), opt.state_dict());
    let error = gradus_burn::step(&mut opt, model, taken).unwrap_err();
    assert_eq!(facts(model), before);
    assert_eq!(addresses(model), at);
    assert_eq!(opt.state_dict(), state);
    error
}

#[track_caller]
fn says(error: &Error, sentence: &str) {
    assert_eq!(error.to_string(), sentence);
}

/// The model with the second layer's bias in f64.
fn mixed() -> Mlp {
    let mut model = Mlp::new(4, &device());
    model.output.bias =
        model.output.bias.map(|bias| bias.map(|tensor| tensor.cast(DType::F64).detach().require_grad()));
    model
}

#[test]
fn a_parameter_of_another_type() {
    let error = refused(&mut mixed(), GradientsParams::new());
    let is = matches!(&error, Error::Dtype { path, what: "parameter", found: DType::F64, expected: DType::F32 } if path == "output.bias");
    assert!(is, "{error:?}");
    says(&error, r#"parameter "output.bias" is of F64, not of F32"#);
    says(&gradus_burn::lend_as::<f64>(&mut mixed()).unwrap_err(), r#"parameter "hidden.weight" is of F32, not of F64"#);
}

#[test]
fn a_gradient_of_another_type() {
    let mut model = Mlp::new(4, &device());
    let mut taken = grads(&model, batch(4, 0));
    taken.register(model.hidden.weight.id, Tensor::<2>::zeros([4, 4], (&Device::flex(), DType::F64)));
    says(&refused(&mut model, taken), r#"gradient "hidden.weight" is of F64, not of F32"#);
}

#[test]
fn another_backend() {
    // Of burn's other backends this one, which records instead of computing, is the smallest.
    let capture = Device::capture();
    let scope = capture.clone().capture_scope(|scope| {
        let mut weight = Param::from_tensor(Tensor::<1>::zeros([4], &capture));
        let error = gradus_burn::lend(&mut weight).unwrap_err();
        assert!(matches!(&error, Error::NotFlex { path, what: "parameter", .. } if path.is_empty()), "{error:?}");
        says(
            &error,
            &format!(
                "parameter (root) is on {capture:?}; gradus steps what is on burn's flex backend, `Device::flex()`"
            ),
        );

        let mut model = Mlp::new(4, &device());
        let mut taken = grads(&model, batch(4, 0));
        taken.register(model.output.weight.id, Tensor::<2>::zeros([4, 4], &capture));
        let error = refused(&mut model, taken);
        assert!(
            matches!(&error, Error::NotFlex { path, what: "gradient", .. } if path == "output.weight"),
            "{error:?}"
        );
        scope.complete([], [])
    });
    assert!(scope.is_ok());
}

#[test]
fn a_gradient_of_another_shape() {
    let mut model = Mlp::new(4, &device());
    let mut taken = grads(&model, batch(4, 0));
    taken.register(model.hidden.weight.id, Tensor::<2>::zeros([4, 3], &Device::flex()));
    let error = refused(&mut model, taken);
    assert!(
        matches!(error, Error::Gradus(gradus::Error::Step(gradus::error::StepError::ShapeMismatch { .. }))),
        "{error:?}"
    );
    says(&error, r#"gradient "hidden.weight" has shape [4, 3] where the parameter has [4, 4]"#);
}

#[test]
fn gradients_of_another_module() {
    let mut model = Mlp::new(4, &device());
    let other = Mlp::new(4, &device());
    let error = refused(&mut model, grads(&other, batch(4, 0)));
    assert!(matches!(error, Error::UnexpectedGradients { count: 4 }), "{error:?}");
    says(&error, "4 of the gradients belong to no parameter of the module");
}

#[test]
fn a_computed_parameter() {
    let mut model = Mlp::new(4, &device());
    model.hidden.weight = model.hidden.weight.map(|tensor| tensor * 2.0);
    let error = refused(&mut model, GradientsParams::new());
    assert!(matches!(&error, Error::Computed { path } if path == "hidden.weight"), "{error:?}");
    says(&error, r#"parameter "hidden.weight" is computed from other tensors; `detach` it before it becomes one"#);
}

#[test]
fn two_parameters_of_one_path() {
    let param = |seed| Param::from_tensor(Tensor::<1>::from_data(numbers([2], seed, DType::F32), &device()));
    let mut twins = crate::modules::Twins { first: param(0), second: param(1) };
    let before = facts(&twins);
    let error = gradus_burn::step(&mut Sgd::new(0.1), &mut twins, GradientsParams::new()).unwrap_err();
    assert!(
        matches!(&error, Error::Gradus(gradus::Error::Step(gradus::error::StepError::DuplicatePath { path })) if path == "twin"),
        "{error:?}"
    );
    assert_eq!(facts(&twins), before);
}

#[test]
fn what_gradus_refuses() {
    let mut model = Mlp::new(4, &device());
    let taken = grads(&model, batch(4, 0));
    let before = facts(&model);
    let error = gradus_burn::step(&mut AdamW::new(-1.0), &mut model, taken).unwrap_err();
    assert_eq!(facts(&model), before);
    says(&error, "learning_rate is -1 at step 0; it must be a finite number ≥ 0");
}
