//! Errors by hand: wrong gradients, right ones near zero, at kinks and in noise, and f32.

use gradus::check::{self, Gradients};
use ndarray::{Array1, array};

use super::TOLERANCE;

/// Three digits: what a difference quotient in f32 has.
const SINGLE: f64 = 1e-2;

#[test]
fn the_quotient_by_hand() {
    let mut asked = Vec::new();
    let square = |w: &Array1<f64>| {
        asked.push(w[0]);
        w[0] * w[0]
    };
    let found = Gradients::new().step(0.5).compare(&mut array![3.0], &array![6.0], square).unwrap();
    assert_eq!(asked, [3.0, 3.0, 4.5, 1.5]); // d = 0.5 · 3
    let worst = found.worst().unwrap();
    assert_eq!((worst.grad, worst.quotient, worst.error), (6.0, 6.0, 0.0)); // (20.25 − 2.25)/3
    assert_eq!(worst.rounding, 16.0 * f64::EPSILON * 22.5 / 3.0);
}

#[test]
fn a_second_look_is_of_fourth_order() {
    let mut asked = Vec::new();
    let cube = |w: &Array1<f64>| {
        asked.push(w[0]);
        w[0].powi(3)
    };
    // The first quotient is (15.625 − 3.375)/1 = 12.25.
    let found = Gradients::new().step(0.25).compare(&mut array![2.0], &array![12.0], cube).unwrap();
    assert_eq!(asked, [2.0, 2.0, 2.5, 1.5, 3.0, 1.0]);
    let worst = found.worst().unwrap();
    assert!((worst.quotient - 12.0).abs() < 1e-13 && worst.error == 0.0, "{worst:?}");
    assert_eq!(found.tensors()[0].one_sided, 0);
}

#[test]
fn a_sign_a_term_a_factor() {
    let w = Array1::from_shape_fn(5, |i| 1.0 + i as f64);
    for (factor, error) in [(1.0, 0.0), (-1.0, 2.0), (0.0, 1.0), (2.0, 0.5), (0.5, 0.5), (1.01, 0.01 / 1.01)] {
        let mut grads = w.mapv(f64::cos);
        grads[3] *= factor;
        let found = check::gradients(&mut w.clone(), &grads, |w| w.mapv(f64::sin).sum()).unwrap();
        assert!((found.worst_error() - error).abs() < TOLERANCE, "{factor}: {found}");
        assert!(error == 0.0 || found.worst().unwrap().index == [3], "{found}");
    }
}

#[test]
fn an_element_is_measured_by_itself_not_by_its_tensor() {
    let slopes = array![1.0, 1e-3, 1e-6];
    let mut grads = slopes.clone();
    grads[2] *= 2.0;
    let found = check::gradients(&mut array![0.5, 0.5, 0.5], &grads, |w| w.dot(&slopes)).unwrap();
    assert_eq!(found.worst().unwrap().index, [2]);
    // ρ is 3e-10, for the quotient of one side 12e-10: 6e-4 of this gradient.
    assert!((found.worst_error() - 0.5).abs() < 1e-3, "{found}");
}

#[test]
fn rounding_is_no_error_and_what_it_hides_is_counted() {
    // 1000 has 1e-13 between neighbors: the quotients have 1e-8.
    let slopes = Array1::from_shape_fn(50, |i| if i % 2 == 0 { 1e-8 } else { 1e-4 });
    let mut w = Array1::from_shape_fn(50, |i| (i as f64).sin());
    let found = check::gradients(&mut w, &slopes, |w| 1000.0 + w.dot(&slopes)).unwrap();
    assert_eq!((found.worst_error(), found.tensors()[0].below_rounding), (0.0, 25), "{found}");
    let worst = found.worst().unwrap();
    assert!((worst.grad - worst.quotient).abs() > TOLERANCE * worst.grad, "there is rounding to forgive: {worst:?}");

    // What is larger is seen all the same.
    let found = check::gradients(&mut w, &-&slopes, |w| 1000.0 + w.dot(&slopes)).unwrap();
    assert!(found.worst_error() > 1.9, "{found}");
    assert_eq!(found.tensors()[0].below_rounding, 25);

    // Where nothing is seen, nothing is said, right or wrong.
    let found = check::gradients(&mut w, &-&slopes, |w| 1e10 + w.dot(&slopes)).unwrap();
    assert_eq!((found.worst().unwrap().error, found.tensors()[0].below_rounding), (0.0, 50));
    assert!(found.worst_error().is_nan());

    // Of a tensor like that beside others the report says so.
    let mut tree = (w, array![1.0, 1.0]);
    let found = check::gradients(&mut tree, &(slopes, array![0.0, 1.0]), |(_, b)| 1e10 + b[1]).unwrap();
    assert_eq!(found.unseen().map(|tensor| &*tensor.path).collect::<Vec<_>>(), ["0"]);
    let first = found.to_string().lines().next().unwrap().to_owned();
    assert!(first.ends_with("; all is below rounding in \"0\""), "{first}");
}

#[test]
fn a_dead_element_agrees_with_zero_and_with_nothing_else() {
    let mut w = array![1.0, 2.0];
    let compare = |w: &mut Array1<f64>, dead: f64| check::gradients(w, &array![2.0, dead], |w| w[0] * w[0]).unwrap();
    let found = compare(&mut w, 0.0);
    assert_eq!((found.worst_error(), found.tensors()[0].below_rounding), (0.0, 0));
    let found = compare(&mut w, 1e-6);
    assert_eq!(found.worst().unwrap().index, [1]);
    assert!(found.worst_error() > 0.99, "{found}");
}

#[test]
fn beside_a_kink_the_smooth_side_counts() {
    let relu = |w: &Array1<f64>| 0.5 * w[0] + w[0].max(0.0);
    let error = |at: f64, grad: f64| {
        let found = check::gradients(&mut array![at], &array![grad], relu).unwrap();
        (found.worst_error(), found.tensors()[0].one_sided)
    };
    for (at, right, wrong) in [(2e-6, 1.5, 0.5), (-2e-6, 0.5, 1.5)] {
        let (found, one_sided) = error(at, right);
        assert!(found < TOLERANCE && one_sided == 1, "{found}");
        for wrong in [wrong, 0.0, -right, 0.9] {
            assert!(error(at, wrong).0 > 0.05, "{wrong} at {at}");
        }
    }
    // Exactly there both sides are right.
    assert!(error(0.0, 0.5).0 < TOLERANCE && error(0.0, 1.5).0 < TOLERANCE);
    assert!(error(0.0, 0.7).0 > 0.1);
    assert_eq!(error(1.0, 1.5), (0.0, 0), "far from it there is no need for sides");
}

#[test]
fn the_steps_are_as_documented() {
    let reach = |at: f64| {
        let mut asked = Vec::new();
        let note = |w: &Array1<f64>| {
            asked.push(w[0]);
            0.0
        };
        _ = check::gradients(&mut array![at], &array![0.0], note).unwrap();
        (asked[2] - at, at - asked[3])
    };
    let h = f64::EPSILON.cbrt();
    assert_eq!(reach(0.0), (h, h));
    for at in [1.0, -100.0] {
        let (right, left) = reach(at);
        assert!((right / (h * at.abs()) - 1.0).abs() < 1e-9 && (left / right - 1.0).abs() < 1e-9);
    }

    let mut asked = Vec::new();
    let note = |w: &Array1<f32>| {
        asked.push(w[0]);
        0.0_f32
    };
    _ = check::gradients(&mut array![0.0_f32], &array![0.0], note).unwrap();
    assert_eq!(asked, [0.0, 0.0, f32::EPSILON.cbrt(), -f32::EPSILON.cbrt()]);
}

#[test]
fn f32_with_a_loss_of_either_type() {
    let mut w = Array1::from_shape_fn(40, |i| (i as f32).sin());
    let right = w.mapv(f32::cos);
    let mut wrong = right.clone();
    wrong[7] = -wrong[7];
    for (grads, errors) in [(right, 0.0..SINGLE), (wrong, 1.9..2.0)] {
        let single = check::gradients(&mut w, &grads, |w| w.mapv(f32::sin).sum()).unwrap();
        let double = check::gradients(&mut w, &grads, |w| w.iter().map(|x| f64::from(x.sin())).sum::<f64>()).unwrap();
        for found in [single, double] {
            assert!(errors.contains(&found.worst_error()), "{found}");
        }
    }
}

/// A loss is as coarse as its type, whatever the parameters'.
#[test]
fn a_loss_in_f32_of_parameters_in_f64_is_taken_for_what_it_is() {
    let mut w = array![0.5, 1.5];
    let grads = w.mapv(f64::cos);
    let loss = |w: &Array1<f64>| w.mapv(f64::sin).sum() as f32;
    let found = check::gradients(&mut w, &grads, loss).unwrap();
    assert!(found.worst_error() < SINGLE, "{found}");
    assert!(found.worst().unwrap().rounding > 1e-4, "{found:?}");
    assert!(check::gradients(&mut w, &-grads, loss).unwrap().worst_error() > 1.9);
}

/// A small step where an element is large is still a step.
#[test]
fn the_smallest_step_moves() {
    let mut w = array![3.0, -1.0, 1.0e5, 0.0];
    let line = |w: &Array1<f64>| w.sum();
    let found = Gradients::new().step(f64::EPSILON).compare(&mut w, &array![1.0, 1.0, 1.0, 1.0], line).unwrap();
    assert!(found.worst().unwrap().quotient.is_finite() && found.worst().unwrap().error == 0.0, "{found}");
}
