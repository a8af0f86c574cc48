//! The rows of optimizers that step whole matrices, and their update rules as the docs give them.

mod adam_mini;
mod apollo;
#[cfg(feature = "second-order")]
pub(crate) mod decomposition;
mod dion;
mod factored;
#[cfg(feature = "second-order")]
mod galore;
#[cfg(feature = "second-order")]
mod kfac;
mod lbfgs;
mod muon;
#[cfg(feature = "second-order")]
mod shampoo;
mod sm3;

use gradus::prelude::*;
use gradus::rule::{MatrixRule, Matrixwise, StatePrecision};
use ndarray::{Array2, ArrayD};

use super::rows::{Row, Subject};

impl<A: Scalar, R: MatrixRule<A> + Clone + 'static> Subject<A> for Matrixwise<R, A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)> {
        let slot = |name: &&'static str| Some((*name, self.slot(path, name)?.into_dyn()));
        SLOTS.iter().filter_map(slot).collect()
    }

    fn tensor_steps(&self, path: &str) -> u64 {
        Matrixwise::tensor_steps(self, path)
    }

    fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        None
    }
}

/// The names of all matrix optimizers' slots.
const SLOTS: [&str; 22] = [
    "momentum_buffer",
    "second_momentum_buffer",
    "graft_exp_avg_sq",
    "graft_exp_avg",
    "exp_avg",
    "exp_avg_sq",
    "left",
    "left_root",
    "right",
    "right_root",
    "left_basis",
    "right_basis",
    "update_counter",
    "right_factor",
    "exp_avg_sq_row",
    "exp_avg_sq_col",
    "exp_avg_res_row",
    "exp_avg_res_col",
    "accumulator_0",
    "accumulator_1",
    "projection",
    "update_norm",
];

/// Every row, for one element type.
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    let families = [
        muon::rows(),
        dion::rows(),
        factored::rows(),
        adam_mini::rows(),
        sm3::rows(),
        apollo::rows(),
        lbfgs::rows(),
        #[cfg(feature = "second-order")]
        shampoo::rows(),
        #[cfg(feature = "second-order")]
        galore::rows(),
        #[cfg(feature = "second-order")]
        kfac::rows(),
        #[cfg(feature = "second-order")]
        super::preconditioned::rows(),
    ];
    families.into_iter().flatten().collect()
}

/// An average that begins at 0.
fn average(memory: &mut Vec<Array2<f64>>, grad: &Array2<f64>, kept: f64) -> Array2<f64> {
    let before = memory.pop().unwrap_or_else(|| Array2::zeros(grad.dim()));
    memory.push(before * kept + grad * (1.0 - kept));
    memory[0].clone()
}

/// Newton–Schulz steepens rounding 485 times, eigenvectors of close eigenvalues as much.
pub(crate) const STEEP: f64 = 500.0;
