//! Factor averages, π, kl-clip, periods and adapted damping by hand.

use gradus::error::{ArgumentError, StepError};
use gradus::{Error, LinearTap, StateDict, prelude::*};
use ndarray::{Array2, array};

use crate::{Opt, Problem, close, kfac};

fn factor(state: &StateDict, name: &str) -> Array2<f64> {
    state.tensor(&format!("kfac/{name}/l")).unwrap().into_dimensionality().unwrap()
}

/// k = 1: ε = 0; k = 2: ½; k = 3: ⅔; and never more than the decay.
#[test]
fn factors_are_averages_that_forget_the_beginning() {
    let (mut opt, mut params, grads) = (kfac().decay(0.6), (array![[1.0]], array![0.0]), (array![[0.0]], array![0.0]));
    let (mut a, mut g) = (vec![], vec![]);
    for (input, delta) in [(2.0, 1.0), (4.0, 3.0), (6.0, 5.0)] {
        opt.observe("l", LinearTap::new(&array![[input]], &array![[delta]])).unwrap();
        opt.step(&mut params, &grads).unwrap();
        a.push(factor(&opt.state_dict(), "input_factor"));
        g.push(factor(&opt.state_dict(), "output_factor"));
    }
    assert_eq!(a[0], array![[4.0, 2.0], [2.0, 1.0]]);
    assert_eq!(a[1], array![[10.0, 3.0], [3.0, 1.0]]); // the mean of 4 and 16, of 2 and 4
    assert!(close(&a[2], &array![[20.4, 4.2], [4.2, 1.0]], 1e-15)); // 0.6·10 + 0.4·36, 0.6·3 + 0.4·6
    assert_eq!((g[0].clone(), g[1].clone()), (array![[1.0]], array![[5.0]]));
    assert!(close(&g[2], &array![[13.0]], 1e-15)); // 0.6·5 + 0.4·25
}

/// Means over the batch: of 2 examples, of several taps together, of positions.
#[test]
fn sums_are_divided_by_examples_and_rows() {
    let (x, delta) = (array![[1.0], [3.0], [5.0], [7.0]], array![[2.0], [0.0], [4.0], [2.0]]);
    let after = |observe: &dyn Fn(&mut Opt)| {
        let mut opt = kfac();
        observe(&mut opt);
        opt.step(&mut (array![[0.0]], array![0.0]), &(array![[0.0]], array![0.0])).unwrap();
        let state = opt.state_dict();
        (factor(&state, "input_factor"), factor(&state, "output_factor"))
    };
    let whole = after(&|opt| opt.observe("l", LinearTap::new(&x, &delta)).unwrap());
    assert_eq!(whole, (array![[21.0, 4.0], [4.0, 1.0]], array![[6.0]])); // 84/4, 16/4; 24/4
    let halves = after(&|opt| {
        let ((x, x2), (delta, delta2)) =
            (x.view().split_at(ndarray::Axis(0), 1), delta.view().split_at(ndarray::Axis(0), 1));
        opt.observe("l", LinearTap::new(&x, &delta)).unwrap();
        opt.observe("l", LinearTap::new(&x2, &delta2)).unwrap();
    });
    assert_eq!(halves, whole);
    // Two examples of two positions: Ω is the mean over examples, Γ over all rows.
    let positions = after(&|opt| opt.observe("l", LinearTap::new(&x, &delta).positions(2)).unwrap());
    assert_eq!(positions, (array![[42.0, 8.0], [8.0, 2.0]], array![[6.0]]));
}

/// A = [[4, 2], [2, 1]], G = [4], λ = 0.01: π = √(2.5/4), and the shifts are π/10 and 1/(10π).
#[test]
fn pi_divides_the_damping() {
    let (mut opt, mut params) = (kfac().damping(0.01), (array![[0.0]], array![0.0]));
    opt.observe("l", LinearTap::new(&array![[2.0]], &array![[2.0]])).unwrap();
    opt.step(&mut params, &(array![[1.0]], array![0.0])).unwrap();
    let pi = 0.625_f64.sqrt();
    let (shift, output) = (0.1 * pi, 1.0 / (4.0 + 0.1 / pi));
    let determinant = (4.0 + shift) * (1.0 + shift) - 4.0;
    let expected = [-output * (1.0 + shift) / determinant, output * 2.0 / determinant];
    assert!((params.0[[0, 0]] - expected[0]).abs() < 1e-12 && (params.1[0] - expected[1]).abs() < 1e-12, "{params:?}");
}

/// V and ∇ by hand: κ = η²⟨V, ∇⟩ after scaling.
#[test]
fn kl_clip_limits_the_step() {
    let problem = Problem::new(9, 3, 2);
    let direction = {
        let mut opt = kfac();
        opt.observe("l", problem.tap()).unwrap();
        problem.moved(&mut opt)
    };
    let product = (&direction * &problem.joined()).sum();
    for (learning_rate, kl_clip) in [(1.0, 1e-3), (0.1, 1e-3), (0.5, product), (1e-6, 1e-3)] {
        let mut opt = Sgd::new(learning_rate).kfac().kl_clip(kl_clip);
        opt = opt.layer("l", gradus::curvature::Layer::new("0").bias("1"));
        opt.observe("l", problem.tap()).unwrap();
        let nu = (kl_clip / (learning_rate * learning_rate * product)).sqrt().min(1.0);
        let expected = &direction * (learning_rate * nu);
        assert!(close(&(problem.moved(&mut opt) / &expected), &Array2::ones(expected.dim()), 1e-9));
        assert_eq!(nu == 1.0, kl_clip > 1.0 || learning_rate < 1e-3, "both sides of the limit are tried");
    }
}

#[test]
fn periods() {
    let mut opt = kfac().factors_every(2).inverses_every(4);
    let (mut params, grads) = ((array![[0.0]], array![0.0]), (array![[1.0]], array![1.0]));
    let (mut updates, mut inverses, mut wanted) = (vec![], vec![], vec![]);
    for step in 0..8 {
        wanted.push(opt.wants_taps());
        let x = array![[f64::from(step) + 1.0]];
        opt.observe("l", LinearTap::new(&x, &x)).unwrap();
        opt.step(&mut params, &grads).unwrap();
        let state = opt.state_dict();
        updates.push(state.text("kfac/updates/l").unwrap().parse::<u64>().unwrap());
        inverses.push(factor(&state, "input_inverse"));
    }
    assert_eq!(wanted, [true, false, true, false, true, false, true, false]);
    assert_eq!(updates, [1, 1, 2, 2, 3, 3, 4, 4]);
    assert!(inverses[..4].iter().all(|inverse| *inverse == inverses[0]));
    assert!(inverses[4..].iter().all(|inverse| *inverse == inverses[4]));
    assert_ne!(inverses[0], inverses[4]);
}

/// On a quadratic whose curvature the factors have, the model foretells the change of the loss.
#[test]
fn damping_follows_the_success_of_the_model() {
    // ½(w − 3)² for inputs of 1: curvature 1, δ of variance 1; without a bias.
    let mut opt = Sgd::new(1.0).kfac().no_kl_clip().damping(1e-2).inverses_every(1);
    assert_eq!(opt.adapt_damping(1.0, 0.5), Err(Error::Step(StepError::NoStep)));
    let (mut w, loss) = (array![[0.0]], |w: &Array2<f64>| 0.5 * (w[[0, 0]] - 3.0).powi(2));
    let mut lambda = vec![];
    for _ in 0..2 {
        opt.observe("", LinearTap::new(&array![[1.0]], &array![[1.0]])).unwrap();
        let before = loss(&w);
        let grad = array![[w[[0, 0]] - 3.0]];
        opt.step(&mut w, &grad).unwrap();
        let ratio = opt.adapt_damping(before, loss(&w)).unwrap();
        // The step is g/1.1², the model with its damping foretells ½g²/1.21, and the loss falls by more.
        let length = 1.0 / 1.21;
        assert!(!lambda.is_empty() || (ratio - (2.0 - length)).abs() < 1e-9, "{ratio}");
        lambda.push(opt.state_dict().text("kfac/damping_factor").unwrap().parse::<f64>().unwrap());
    }
    assert!((lambda[0] - 0.95).abs() < 1e-15 && (lambda[1] - 0.9025).abs() < 1e-15, "{lambda:?}");
    // The loss grew where it should have fallen.
    opt.observe("", LinearTap::new(&array![[1.0]], &array![[1.0]])).unwrap();
    opt.step(&mut w, &array![[1.0]]).unwrap();
    opt.step(&mut w, &array![[1.0]]).unwrap();
    assert!(opt.adapt_damping(0.0, 1.0).unwrap() < 0.0);
    assert!((opt.state_dict().text("kfac/damping_factor").unwrap().parse::<f64>().unwrap() - 1.0).abs() < 1e-15);
    assert!(matches!(
        opt.adapt_damping(f64::NAN, 1.0),
        Err(Error::Argument(ArgumentError::NotFinite { argument: "loss_before", .. }))
    ));
    assert!(matches!(
        opt.adapt_damping(1.0, f64::INFINITY),
        Err(Error::Argument(ArgumentError::NotFinite { argument: "loss_after", .. }))
    ));
}
