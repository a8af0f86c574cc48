//! L-BFGS.

use gradus::prelude::*;
use gradus::rule::StatePrecision;
use ndarray::{Array2, ArrayD};

use crate::rows::{Oracle, Pinned, Row, Subject};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "lbfgs", slots: &[], rests: true, parabola: 0.1, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5074312928291839),
            optimizer: |lr| Box::new(Lbfgs::new(lr).history(2)), oracle: Oracle::Matrix(lbfgs) },
    ]
}

impl<A: Scalar> Subject<A> for Lbfgs<A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, _: &str) -> Vec<(&'static str, ArrayD<A>)> {
        Vec::new()
    }

    fn tensor_steps(&self, _: &str) -> u64 {
        self.steps()
    }

    fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        None
    }
}

/// Two pairs. The inverse Hessian is written out as a matrix, by the formula that the two loops unroll.
fn lbfgs(t: i32, lr: f64, p: &mut Array2<f64>, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>) {
    let column =
        |matrix: &Array2<f64>| Array2::from_shape_vec((matrix.len(), 1), matrix.iter().copied().collect()).unwrap();
    let grad = column(g);
    if t > 1 {
        let (movement, before) = (memory.pop().unwrap(), memory.pop().unwrap());
        let change = &grad - &before;
        if (&change * &movement).sum() > 1e-10 {
            memory.extend([movement, change]);
            memory.drain(..memory.len().saturating_sub(4));
        }
    }
    let n = grad.len();
    let mut inverse = Array2::<f64>::eye(n);
    if let [.., s, y] = &memory[..] {
        inverse *= (s * y).sum() / (y * y).sum();
    }
    for pair in memory.chunks(2) {
        let (s, y, product) = (&pair[0], &pair[1], (&pair[0] * &pair[1]).sum());
        let left = Array2::<f64>::eye(n) - s.dot(&y.t()) / product;
        inverse = left.dot(&inverse).dot(&left.t()) + s.dot(&s.t()) / product;
    }
    let first = (1.0 / grad.iter().map(|g| g.abs()).sum::<f64>()).min(1.0);
    let movement = inverse.dot(&grad) * (-lr * if t == 1 { first } else { 1.0 });
    p.iter_mut().zip(&movement).for_each(|(p, movement)| *p += movement);
    memory.extend([grad, movement]);
}
