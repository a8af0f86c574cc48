//! What cannot be compared is an error that names it, and changes nothing.

use gradus::check::{self, Gradients};
use gradus::error::{ArgumentError, StepError};
use gradus::params::{Visitor, VisitorMut};
use gradus::prelude::*;
use gradus::{Error, Result};
use ndarray::{Array1, Array2, array};

type Tree = (Array2<f64>, Array1<f64>);

fn tree() -> Tree {
    (array![[1.0, 2.0], [3.0, -0.0]], array![0.5, -0.25])
}

fn loss((w, b): &Tree) -> f64 {
    w.sum() + b.sum()
}

fn bits((w, b): &Tree) -> Vec<u64> {
    w.iter().chain(b).map(|x| x.to_bits()).collect()
}

/// The error of a comparison that must leave its parameters alone.
fn refusal(settings: &Gradients, mut params: Tree, grads: &dyn Params<Elem = f64>, loss: fn(&Tree) -> f64) -> Error {
    let before = bits(&params);
    let error = settings.compare(&mut params, grads, loss).unwrap_err();
    assert_eq!(bits(&params), before);
    error
}

#[test]
fn trees_that_differ_are_refused_as_by_an_optimizer() {
    let (w, b) = tree();
    let trees: [Box<dyn Params<Elem = f64>>; 4] = [
        Box::new((w.clone(),)),
        Box::new((w.clone(), b.clone(), b.clone())),
        Box::new((w.clone(), array![[0.5, -0.25]])),
        Box::new(b.clone()),
    ];
    for grads in trees {
        let expected = Sgd::new(0.1).step(&mut tree(), &grads).unwrap_err();
        let error = refusal(&Gradients::new(), tree(), &grads, |_| panic!("it needs no loss to see this"));
        assert_eq!(error, expected);
    }
}

#[test]
fn without_gradient_means_not_compared() {
    let (w, _) = tree();
    let mut asked = 0;
    let none: Option<Array1<f64>> = None;
    let found = check::gradients(&mut tree(), &(w.mapv(|_| 1.0), none), |tree| {
        asked += 1;
        loss(tree)
    });
    let found = found.unwrap();
    assert_eq!((found.checked(), found.tensors().len(), asked), (4, 1, 2 + 2 * 4));
    assert_eq!(found.without_gradient(), ["1"]);

    let nothing: Option<Tree> = None;
    let found = check::gradients(&mut tree(), &nothing, loss).unwrap();
    assert_eq!(found.without_gradient(), ["0", "1"]);
    assert!(found.worst().is_none() && found.worst_error().is_nan(), "no tolerance takes this for right");
}

#[test]
fn settings_outside_their_range() {
    for step in [0.0, -1.0, 1e-17, 1.5, f64::NAN, f64::INFINITY] {
        let error = refusal(&Gradients::new().step(step), tree(), &tree(), loss);
        assert!(matches!(error, Error::Argument(ArgumentError::Range { argument: "step", .. })), "{error}");
    }
    let error = refusal(&Gradients::new().sample(0, 1), tree(), &tree(), loss);
    assert_eq!(error.to_string(), "sample is 0; it must be at least 1");
    let coarse = Gradients::new().step(1e-8).compare(&mut array![1.0_f32], &array![1.0], |w| w[0]);
    assert_eq!(coarse.unwrap_err().to_string(), "step is 1e-8; it must be from 1.1920928955078125e-7 to 1");
}

#[test]
fn what_is_not_finite() {
    let all = Gradients::new();
    let mut grads = tree();
    grads.0[[1, 0]] = f64::NAN;
    let error = refusal(&all, tree(), &grads, loss);
    assert_eq!(error.to_string(), "gradient \"0\" is NaN at index [1, 0]");

    for value in [f64::INFINITY, f64::NAN, -f64::MAX] {
        let mut params = tree();
        params.1[1] = value;
        // A loss that does not look at it, so that it is finite.
        let error = refusal(&all, params, &tree(), |(w, _)| w[[0, 0]]);
        assert!(
            matches!(&error, Error::Step(StepError::NonFiniteParameter { path, index, .. }) if path == "1" && *index == [1]),
            "{error}"
        );
    }

    let error = refusal(&all, tree(), &tree(), |(w, _)| w[[0, 0]] * f64::INFINITY);
    assert_eq!(error.to_string(), "the loss is inf");

    // To the right, and to the left.
    let right = refusal(&all, tree(), &tree(), |(_, b)| (0.5 - b[0]).sqrt());
    let left = refusal(&all, tree(), &tree(), |(_, b)| (b[0] - 0.5).sqrt());
    for error in [right, left] {
        assert_eq!(
            error.to_string(),
            "the loss is NaN after a small change of parameter \"1\" at index [0]; it must be finite"
        );
    }
}

#[test]
fn a_loss_that_is_not_a_function_of_the_parameters() {
    let mut asked = 0.0;
    let dropout = |_: &Tree| {
        asked += 1.5;
        asked
    };
    let error = check::gradients(&mut tree(), &tree(), dropout).unwrap_err();
    assert_eq!(error.to_string(), "the loss is not deterministic: 1.5, then 3 at the same parameters");
}

/// Two steps away the loss may end: the second look then does without.
#[test]
fn a_loss_that_ends_nearby() {
    let edge = 1.5 * f64::EPSILON.cbrt();
    let loss = |w: &Array1<f64>| if w[0].abs() < edge { w[0] } else { f64::NAN };
    let found = check::gradients(&mut array![0.0], &array![-1.0], loss).unwrap();
    assert!((found.worst_error() - 2.0).abs() < 1e-6, "{found}");
    assert_eq!(found.tensors()[0].one_sided, 0);
}

/// A tree that shows another tensor to those who write.
struct Wrong(Array1<f64>, Array1<f64>);

impl Params for Wrong {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        visitor.field("w", &self.0);
    }
}

impl ParamsMut for Wrong {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        visitor.field("w", &mut self.1);
    }
}

#[test]
fn a_tree_of_two_faces() -> Result<()> {
    let error = check::gradients(&mut Wrong(array![1.0, 2.0], array![1.0]), &[(); 0].map(|()| array![0.0]), |_| 0.0);
    assert!(matches!(error, Err(Error::Step(StepError::MissingGradient { .. }))));
    let grads = std::collections::BTreeMap::from([("w", array![0.0, 0.0])]);
    let error = check::gradients(&mut Wrong(array![1.0, 2.0], array![1.0]), &grads, |_| 0.0).unwrap_err();
    let expected = "the parameters have changed since the first step: expected \"w\" of shape [2], found another walk";
    assert_eq!(error.to_string(), expected);
    Ok(())
}
