//! The table.

use gradus::check;
use ndarray::{Array1, Array2, array};

#[test]
fn the_worst_comes_first_and_every_tensor_has_a_line() {
    type Tree = (Array2<f64>, Array1<f64>, Array1<f64>, Array1<f64>);
    let mut tree: Tree = (array![[1.0, 2.0], [4.0, 8.0]], array![0.5, 0.25], array![3.0], Array1::zeros(0));
    let grads = (array![[1.0, -1.0], [1.0, 1.0]], array![3.0, 3.0], None::<Array1<f64>>, Array1::<f64>::zeros(0));
    let found = check::gradients(&mut tree, &grads, |(a, b, c, _)| a.sum() + 2.0 * b.sum() + c.sum()).unwrap();
    let expected = "\
worst of 6 elements: error 2.0e0 in \"0\" at [0, 1], gradient -1.000000e0, quotient 1.000000e0
tensor  checked    error  at                  gradient      quotient
0             4    2.0e0  [0, 1]            -1.00000e0     1.00000e0
1             2   3.3e-1  [0]                3.00000e0     2.00000e0
3             0
2      no gradient";
    assert_eq!(found.to_string(), expected);
    let worst = found.worst().unwrap();
    assert_eq!((&*worst.path, &*worst.index, worst.grad), ("0", &[0, 1][..], -1.0));
    assert_eq!(found.tensors()[1].worst_error(), found.tensors()[1].worst.as_ref().unwrap().error);
    assert!(found.tensors()[2].worst_error().is_nan());
}

#[test]
fn what_was_not_really_compared_is_in_the_line() {
    let mut w = array![0.0, 1.0, 1.0];
    let loss = |w: &Array1<f64>| w[0].max(0.0) + 1e-12 * w[1] + w[2];
    let found = check::gradients(&mut w, &array![1.0, 1e-12, 1.0], loss).unwrap();
    let line = found.to_string().lines().last().unwrap().to_owned();
    assert!(line.starts_with("(root)        3 ") && line.ends_with("  1 below rounding  1 beside a kink"), "{line}");

    let nothing = check::gradients(&mut Array1::<f64>::zeros(0), &Array1::zeros(0), |_| 1.0).unwrap();
    let expected = "no element was compared\ntensor  checked    error  at                  gradient      quotient\n(root)        0";
    assert_eq!(nothing.to_string(), expected);
}

/// Where every error is 0, the element that is farthest from its quotient is shown: not simply the first.
#[test]
fn of_equal_errors_the_largest_distance() {
    let mut w = array![0.0, 1.0];
    let found = check::gradients(&mut w, &array![0.0, 2.0], |w| w[1] * w[1]).unwrap();
    let worst = found.worst().unwrap();
    assert_eq!((worst.error, &*worst.index), (0.0, &[1][..]), "{worst:?}");
    let expected = "worst of 2 elements: error 0 in (root) at [1], gradient 2.000000e0, quotient 2.000000e0\n";
    assert!(found.to_string().starts_with(expected), "{found}");
}
