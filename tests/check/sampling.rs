//! Some elements of each tensor.

use std::collections::BTreeSet;

use gradus::check::{self, Gradients};
use ndarray::{Array1, Array2};

use super::TOLERANCE;

type Tree = (Array2<f64>, Array1<f64>, Array2<f64>);

fn tree() -> Tree {
    let wave = |i: usize, j: usize| ((i * 31 + j * 7) as f64).sin();
    (
        Array2::from_shape_fn((20, 30), |(i, j)| wave(i, j)),
        Array1::from_shape_fn(3, |i| wave(i, 1)),
        Array2::zeros((0, 5)),
    )
}

fn loss((a, b, _): &Tree) -> f64 {
    a.mapv(f64::sin).sum() + b.dot(b)
}

/// Wrong in every element, each by another factor.
fn wrong() -> Tree {
    let (a, b, c) = tree();
    let mut grads = (a.mapv(f64::cos), b * 2.0, c);
    grads.0.iter_mut().enumerate().for_each(|(number, grad)| *grad *= 1.0 + (number + 1) as f64 * 1e-3);
    grads
}

/// The elements of the first tensor that were moved, row by row.
fn moved(settings: &Gradients) -> BTreeSet<usize> {
    let (mut params, grads, start) = (tree(), wrong(), tree());
    let mut moved = BTreeSet::new();
    let found = settings.compare(&mut params, &grads, |tree| {
        let differs = tree.0.iter().zip(&start.0).enumerate().filter(|(_, (now, before))| now != before);
        moved.extend(differs.map(|(number, _)| number));
        loss(tree)
    });
    assert_eq!(found.unwrap().tensors()[0].checked, moved.len());
    moved
}

#[test]
fn all_of_them_or_some_of_each() {
    assert!(moved(&Gradients::new()).into_iter().eq(0..600));
    let some = moved(&Gradients::new().sample(40, 7));
    assert_eq!(some.len(), 40);
    assert_eq!(moved(&Gradients::new().sample(40, 7)), some, "the seed decides");
    assert_ne!(moved(&Gradients::new().sample(40, 8)), some);
    // One of each fortieth.
    assert!(some.iter().enumerate().all(|(part, element)| element / 15 == part));

    let found = Gradients::new().sample(40, 7).compare(&mut tree(), &wrong(), loss).unwrap();
    let checked: Vec<_> = found.tensors().iter().map(|tensor| tensor.checked).collect();
    assert_eq!(checked, [40, 3, 0]);
}

#[test]
fn a_sample_says_of_an_element_what_the_whole_says() {
    let all = check::gradients(&mut tree(), &wrong(), loss).unwrap();
    for seed in 0..20 {
        let some = Gradients::new().sample(25, seed).compare(&mut tree(), &wrong(), loss).unwrap();
        let worst = some.worst().unwrap();
        assert!(worst.error <= all.worst_error());
        // Element k is wrong by the factor 1 + (k + 1)/1000.
        let excess = (worst.index[0] * 30 + worst.index[1] + 1) as f64 * 1e-3;
        assert!((worst.error - excess / (1.0 + excess)).abs() < TOLERANCE, "{some}");
        assert_eq!(some, Gradients::new().sample(25, seed).compare(&mut tree(), &wrong(), loss).unwrap());
    }
    let whole = Gradients::new().sample(10_000, 3).compare(&mut tree(), &wrong(), loss).unwrap();
    assert_eq!(whole, all);
}
