//! Against explicit Kronecker products, solved directly.

use gradus::curvature::Layer;
use gradus::{LinearTap, prelude::*};
use ndarray::{Array1, Array2, Axis};

use crate::{Problem, close, homogeneous, kfac, numbers, solve};

/// G ⊗ A, of matrices (out, in) row by row.
fn kronecker(output: &Array2<f64>, input: &Array2<f64>) -> Array2<f64> {
    let (m, n) = (output.nrows(), input.nrows());
    Array2::from_shape_fn((m * n, m * n), |(i, j)| output[[i / n, j / n]] * input[[i % n, j % n]])
}

fn divided(curvature: Array2<f64>, grad: &Array2<f64>) -> Array2<f64> {
    let solution = solve(curvature, grad.iter().copied().collect());
    Array2::from_shape_vec(grad.dim(), solution.to_vec()).unwrap()
}

/// Batches of full and of low rank, of one example too.
const SHAPES: [(usize, usize, usize); 4] = [(20, 4, 3), (3, 6, 5), (1, 5, 2), (8, 1, 1)];

#[test]
fn inverse_mode_is_the_product_of_damped_factors() {
    for (batch, inputs, outputs) in SHAPES {
        for damping in [1e-1, 1e-3] {
            let problem = Problem::new(batch, inputs, outputs);
            let mut opt = kfac().damping(damping);
            opt.observe("l", problem.tap()).unwrap();
            let (a, g) = problem.factors();
            let pi = ((a.diag().sum() / a.nrows() as f64) / (g.diag().sum() / g.nrows() as f64)).sqrt();
            let damped = |factor: Array2<f64>, shift: f64| &factor + &(Array2::<f64>::eye(factor.nrows()) * shift);
            let curvature = kronecker(&damped(g, damping.sqrt() / pi), &damped(a, pi * damping.sqrt()));
            let expected = divided(curvature, &problem.joined());
            assert!(close(&problem.moved(&mut opt), &expected, 1e-8), "{batch} × {inputs} × {outputs}");
        }
    }
}

#[test]
fn eigen_mode_is_the_damped_product() {
    for (batch, inputs, outputs) in SHAPES {
        for damping in [1e-1, 1e-3] {
            let problem = Problem::new(batch, inputs, outputs);
            let mut opt = kfac().damping(damping).eigen(true);
            opt.observe("l", problem.tap()).unwrap();
            let (a, g) = problem.factors();
            let curvature = kronecker(&g, &a);
            let size = curvature.nrows();
            let expected = divided(curvature + Array2::<f64>::eye(size) * damping, &problem.joined());
            assert!(close(&problem.moved(&mut opt), &expected, 1e-8), "{batch} × {inputs} × {outputs}");
        }
    }
}

/// A convolution with a bias: Ω, the mean over examples of the sums over positions, and Γ, the mean over all rows.
#[test]
fn several_positions_are_one_example() {
    let (examples, positions, inputs, outputs) = (5, 4, 3, 2);
    let problem = Problem::new(examples * positions, inputs, outputs);
    let tap = problem.tap().positions(positions);
    let rows = homogeneous(&problem.x);
    let omega = rows.t().dot(&rows) / examples as f64;
    let gamma = problem.delta.t().dot(&problem.delta) / (examples * positions) as f64;
    for damping in [1e-1, 1e-3] {
        for eigen in [false, true] {
            let mut opt = kfac().damping(damping);
            opt = if eigen { opt.eigen(true) } else { opt };
            opt.observe("l", tap).unwrap();
            let damped = |factor: &Array2<f64>, shift: f64| factor + &(Array2::<f64>::eye(factor.nrows()) * shift);
            let pi = ((omega.diag().sum() / 4.0) / (gamma.diag().sum() / 2.0)).sqrt();
            let curvature = match eigen {
                true => damped(&kronecker(&gamma, &omega), damping),
                false => kronecker(&damped(&gamma, damping.sqrt() / pi), &damped(&omega, pi * damping.sqrt())),
            };
            let expected = divided(curvature, &problem.joined());
            assert!(close(&problem.moved(&mut opt), &expected, 1e-8), "{damping} {eigen}");
        }
    }
}

/// Squared loss, full batch, G = I, almost no damping: Newton's step, and the bottom is where it ends.
#[test]
fn one_step_lands_on_the_least_squares_solution() {
    let (batch, inputs, outputs) = (60, 7, 3);
    let (x, y) = (numbers(batch, inputs, 1), numbers(batch, outputs, 2));
    // Rows √out·eᵢ in turn: their mean square is I.
    let delta = Array2::from_shape_fn((batch, outputs), |(row, column)| match row % outputs == column {
        true => (outputs as f64).sqrt(),
        false => 0.0,
    });
    for eigen in [false, true] {
        let mut opt = kfac().damping(1e-14);
        opt = if eigen { opt.eigen(true) } else { opt };
        let (mut w, mut b) = (numbers(outputs, inputs, 3), Array1::zeros(outputs));
        opt.observe("l", LinearTap::new(&x, &delta)).unwrap();
        let error = (x.dot(&w.t()) + &b - &y) / batch as f64;
        opt.step(&mut (&mut w, &mut b), &(error.t().dot(&x), error.sum_axis(Axis(0)))).unwrap();

        let (inputs, mut expected) = (homogeneous(&x), Array2::zeros((outputs, inputs + 1)));
        for (mut row, target) in expected.rows_mut().into_iter().zip(y.columns()) {
            row.assign(&solve(inputs.t().dot(&inputs), inputs.t().dot(&target)));
        }
        let found = ndarray::concatenate(Axis(1), &[w.view(), b.view().insert_axis(Axis(1))]).unwrap();
        assert!(close(&found, &expected, 1e-6), "{}", &found - &expected);
    }
}

/// Weights (in, out), without a bias, under a name of their own, in f32.
#[test]
fn layouts_of_layers() {
    let problem = Problem::new(12, 4, 3);
    let expected = {
        let mut opt = Sgd::new(1.0).kfac().no_kl_clip();
        opt.observe("", problem.tap()).unwrap();
        let mut w = problem.w.clone();
        opt.step(&mut w, &problem.grads.0).unwrap();
        w
    };
    let mut opt = Sgd::new(1.0).kfac().no_kl_clip().layer("l", Layer::new("").input_first());
    opt.observe("l", problem.tap()).unwrap();
    let mut w = problem.w.t().to_owned();
    opt.step(&mut w, &problem.grads.0.t()).unwrap();
    assert!(close(&w.t().to_owned(), &expected, 1e-14) && !close(&expected, &problem.w, 1e-3));

    let single = |x: &Array2<f64>| x.mapv(|x| x as f32);
    let (x, delta, mut w) = (single(&problem.x), single(&problem.delta), single(&problem.w));
    let mut opt = Sgd::new(1.0).kfac().no_kl_clip();
    opt.observe("", LinearTap::new(&x, &delta)).unwrap();
    opt.step(&mut w, &single(&problem.grads.0)).unwrap();
    // f32 products of condition about 100.
    assert!(close(&w.mapv(f64::from), &expected, 1e-4), "{w} {expected}");
}

/// What has no tap passes as it is; a weight without a gradient takes its bias with it.
#[test]
fn what_has_no_tap_passes() {
    let problem = Problem::new(12, 4, 3);
    let mut opt = kfac();
    opt.observe("l", problem.tap()).unwrap();
    let mut params = (problem.w.clone(), problem.b.clone(), problem.w.clone());
    let grads = &problem.grads;
    opt.step(&mut params, &(&grads.0, &grads.1, &grads.0)).unwrap();
    assert_eq!(params.2, &problem.w - &grads.0);
    assert_ne!(params.0, params.2);

    let none: Option<Array2<f64>> = None;
    let mut params = (problem.w.clone(), problem.b.clone());
    let mut opt = kfac();
    opt.observe("l", problem.tap()).unwrap();
    opt.step(&mut params, &(none, &grads.1)).unwrap();
    assert_eq!(params, (problem.w.clone(), &problem.b - &grads.1));

    // The bias's part of the curvature stays; its gradient counts as 0.
    let frozen = || {
        let mut opt = kfac();
        opt.observe("l", problem.tap()).unwrap();
        opt.freeze("1")
    };
    let (mut opt, mut params) = (frozen(), (problem.w.clone(), problem.b.clone()));
    opt.step(&mut params, &(&grads.0, &grads.1)).unwrap();
    let zero = Problem { grads: (grads.0.clone(), Array1::zeros(3)), ..Problem::new(12, 4, 3) };
    let mut opt = kfac();
    opt.observe("l", zero.tap()).unwrap();
    let expected = &problem.w - &zero.moved(&mut opt).view().split_at(Axis(1), 4).0;
    assert!(close(&params.0, &expected, 1e-14));
    assert_eq!(params.1, problem.b);
}
