//! Every optimizer finds the bottom of two functions within a stated number of steps.

use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::{Array1, Axis, array};

use super::rows::Row;

/// Weight decay, 0.01 to 0.03 where a row has it, moves the bottom of Rosenbrock's valley; this is well above what it
/// costs there. The start is at 24.2.
const ROSENBROCK: f64 = 1e-3;

/// The distance left of √14. The bottom is at 0, from where weight decay does not move it.
const PARABOLA: f64 = 1e-3;

/// The same for every row.
const PARABOLA_STEPS: u64 = 500;

pub(crate) fn on_the_parabola<A: Scalar>(row: &Row<A>) {
    let end = minimize(row, (row.parabola, PARABOLA_STEPS), array![1.0, -2.0, 3.0], |x| x.clone());
    assert!(end.dot(&end).sqrt() < PARABOLA, "{end}");
}

pub(crate) fn on_rosenbrock<A: Scalar>(row: &Row<A>) {
    let end = minimize(row, row.rosenbrock, array![-1.2, 1.0], |x| {
        let (x, y) = (x[0], x[1]);
        array![-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)]
    });
    let (x, y) = (end[0], end[1]);
    let loss = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
    assert!(loss < ROSENBROCK, "{loss} at {end}");
}

/// The end of a descent in the row's element type; the learning rate falls to 0 along a cosine.
fn minimize<A: Scalar>(
    row: &Row<A>,
    (peak, steps): (f64, u64),
    start: Array1<f64>,
    gradient: impl Fn(&Array1<f64>) -> Array1<f64>,
) -> Array1<f64> {
    let mut opt = row.with(Cosine::new(peak, steps));
    let mut params = start.mapv(A::from_f64);
    for _ in 0..steps {
        let grads = gradient(&params.mapv(A::as_f64)).mapv(A::from_f64);
        match row.is_elementwise() {
            true => opt.step(&mut params, &grads).unwrap(),
            // A row is a matrix.
            false => opt.step(&mut params.view_mut().insert_axis(Axis(0)), &grads.insert_axis(Axis(0))).unwrap(),
        };
    }
    params.mapv(A::as_f64)
}
