//! An optimizer of matrices keeps between steps the state that its docs describe, and no scratch memory.

use allocation_counter::measure;
use gradus::optimizer::*;
use gradus::prelude::*;
use gradus::rule::{Factored, FactoredRule, MatrixRule, Matrixwise};
use ndarray::Array2;

const ROWS: usize = 96;
const COLUMNS: usize = 64;

/// Bytes of paths, names and shapes.
const LABELS: usize = 2000;

trait Measured: Optimizer<f32> + Clone {
    /// Bytes on the heap beside the arrays of the state, fewer than those of a matrix.
    const BESIDE: usize;

    fn state_bytes(&self) -> usize;
}

impl<R: MatrixRule<f32> + Clone> Measured for Matrixwise<R, f32> {
    const BESIDE: usize = LABELS;

    fn state_bytes(&self) -> usize {
        self.state_bytes()
    }
}

impl<R: FactoredRule<f32> + Clone> Measured for Factored<R, f32> {
    /// One buffer of 4096 elements per thread.
    const BESIDE: usize = LABELS + 4 * 4096;

    fn state_bytes(&self) -> usize {
        self.state_bytes()
    }
}

/// The bytes that three steps on one matrix leave on the heap.
fn kept<O: Measured>(opt: &mut O) -> i64 {
    let mut w = Array2::zeros((ROWS, COLUMNS));
    let grad =
        |step: usize| Array2::from_shape_fn(w.dim(), |(i, j)| ((i * 7 + j * 3 + i * j + step) as f32 * 0.7).sin());
    let grads = [0, 1, 2].map(grad);
    measure(|| grads.iter().for_each(|grad| _ = opt.step(&mut w, grad).unwrap())).bytes_current
}

/// Checks that the state has this number of elements, and that the heap has grown by nothing else.
fn holds<O: Measured + Send>(name: &str, opt: O, elements: usize) {
    // With one thread, everything is allocated and freed on the same one.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (mut opt, mut warm) = (opt.clone(), opt);
    let kept = pool.install(|| {
        // The products of faer keep one buffer per thread.
        kept(&mut warm);
        kept(&mut opt)
    });
    let state = opt.state_bytes();
    assert_eq!(state, 4 * elements, "{name}");
    let kept = usize::try_from(kept).unwrap();
    assert!((state..state + O::BESIDE).contains(&kept), "{name} has a state of {state} bytes and keeps {kept}");
}

#[test]
fn the_heap_has_the_state_of_the_docs() {
    let (all, sides) = (ROWS * COLUMNS, ROWS + COLUMNS);
    holds("apollo", Apollo::new(0.1).rank(8), 8 * 2 * ROWS + 1);
    holds("apollomini", ApolloMini::new(0.1), 2 * ROWS + 1);
    holds("dion", Dion::new(0.1).rank_fraction(0.25), all + COLUMNS * 16);
    holds("muon", Muon::new(0.1), all);
    holds("normuon", NorMuon::new(0.1), all + ROWS);
    holds("adamuon", AdaMuon::new(0.1), 2 * all);
    holds("scion", Scion::new(0.1), all);
    holds("adafactor", Adafactor::new(0.1), sides);
    holds("adafactor, momentum", Adafactor::new(0.1).beta1(0.9), all + sides);
    holds("came", Came::new(0.1), all + 2 * sides);
}

#[test]
#[cfg(feature = "second-order")]
fn the_heap_has_the_state_of_the_docs_of_preconditioned_optimizers() {
    let (all, sides, squares) = (ROWS * COLUMNS, ROWS + COLUMNS, ROWS * ROWS + COLUMNS * COLUMNS);
    holds("galore", GaLore::new(0.1).rank(8).update_proj_gap(2), 8 * (2 * ROWS + COLUMNS));
    holds("shampoo", Shampoo::new(0.1).momentum(0.9), 2 * squares + all);
    holds("soap", Soap::new(0.1).every(1), 2 * all + 2 * squares);
    holds("kron", Kron::new(0.1), all + squares + 1);
    let diagonal = Kron::new(0.1).memory_save_mode(KronMemory::AllDiag);
    holds("kron, diagonal", diagonal, all + sides + 1);
}
