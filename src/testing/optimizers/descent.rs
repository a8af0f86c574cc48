//! Every optimizer finds the bottom of two functions.

use ndarray::{Array1, Axis, array};

use super::OptimizerLaws;
use crate::params::Scalar;
use crate::schedule::Cosine;
use crate::step::Optimizer;
use crate::testing::violation::{Held, case, ensure};

/// A weight decay of 0.01 to 0.03 moves the bottom of Rosenbrock's valley; this is well above what it costs there. The start is at
/// 24.2.
const VALLEY_LOSS: f64 = 1e-3;

/// The distance left of √14. The bottom is at 0, from where weight decay does not move it.
const PARABOLA_DISTANCE: f64 = 1e-3;

const PARABOLA_STEPS: u64 = 500;

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn finds_the_bottom_of_the_parabola(&self) -> Held {
        case(format_args!("{PARABOLA_STEPS} steps, first learning rate {}", self.parabola), || {
            let end = self.minimize(self.parabola, PARABOLA_STEPS, array![1.0, -2.0, 3.0], |x| x.clone())?;
            let distance = end.dot(&end).sqrt();
            ensure(distance < PARABOLA_DISTANCE, || {
                format!("the parameters are {end}, at a distance of {distance:e}, not below {PARABOLA_DISTANCE:e}")
            })
        })
    }

    pub(super) fn finds_the_end_of_the_valley(&self) -> Held {
        let Some((peak, steps)) = self.rosenbrock else { return Ok(()) };
        case(format_args!("{steps} steps, first learning rate {peak}"), || {
            let end = self.minimize(peak, steps, array![-1.2, 1.0], |x| {
                let (x, y) = (x[0], x[1]);
                array![-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)]
            })?;
            let (x, y) = (end[0], end[1]);
            let loss = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
            ensure(loss < VALLEY_LOSS, || {
                format!("the parameters are {end}, where the loss is {loss:e}, not below {VALLEY_LOSS:e}")
            })
        })
    }

    /// The end of a descent in the element type; the learning rate falls to 0 along a cosine.
    fn minimize(
        &self,
        peak: f64,
        steps: u64,
        start: Array1<f64>,
        gradient: impl Fn(&Array1<f64>) -> Array1<f64>,
    ) -> Held<Array1<f64>> {
        let mut opt = self.with(Cosine::new(peak, steps));
        let mut params = start.mapv(A::from_f64);
        for _ in 0..steps {
            let grads = gradient(&params.mapv(A::as_f64)).mapv(A::from_f64);
            match self.is_elementwise() {
                true => opt.step(&mut params, &grads)?,
                // A row is a matrix.
                false => opt.step(&mut params.view_mut().insert_axis(Axis(0)), &grads.insert_axis(Axis(0)))?,
            };
        }
        Ok(params.mapv(A::as_f64))
    }
}
