//! Products of matrices by faer, in the numbers' own type.

use std::ops::Range;

use ndarray::{Array2, ArrayRef2, ArrayView2, CowArray, Ix2};
use pulp::NullaryFnOnce;

use crate::kernel::product::real::dense;
use crate::kernel::product::{ROW_TILE, SERIAL_PRODUCT, mirror};
use crate::kernel::{simd, threads};
use crate::params::Scalar;

/// The matrix, or a copy without gaps if it has some.
fn filled<A: Scalar>(view: ArrayView2<'_, A>) -> CowArray<'_, A, Ix2> {
    match dense(&view).is_some() {
        true => view.into(),
        false => view.to_owned().into(),
    }
}

/// `a·b`.
pub(crate) fn multiplied<A: Scalar>(a: &ArrayRef2<A>, b: &ArrayRef2<A>) -> Array2<A> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    multiply(a, b, &mut c);
    c
}

/// `c ← a·b` for a c in row-major order, its rows shared between the threads.
pub(crate) fn multiply<A: Scalar>(a: &ArrayRef2<A>, b: &ArrayRef2<A>, c: &mut Array2<A>) {
    let (a, b) = (filled(a.view()), filled(b.view()));
    let (rows, parts) = (a.nrows(), if a.len() * b.ncols() < SERIAL_PRODUCT { 1 } else { threads::count() });
    let ends: Vec<usize> = (1..parts).map(|part| rows * part / parts / ROW_TILE * ROW_TILE).chain([rows]).collect();
    if let Some(c) = c.as_slice_mut() {
        let mut tasks = tasks(&ends, b.ncols(), c);
        threads::for_each(&mut tasks, &|(rows, c)| A::multiply(&a.view(), &b.view(), rows.clone(), c));
    }
}

/// `c ← α·a·aᵀ + β·c` for a symmetric c in row-major order: half the arithmetic of a product. With β = 0 it does not matter what c
/// was.
pub(crate) fn blend_gram<A: Scalar>(a: ArrayView2<'_, A>, alpha: A, beta: A, c: &mut Array2<A>) {
    let a = filled(a);
    blend_lower((alpha, a.view(), a.view()), beta, c);
    mirror(c.view_mut());
}

/// `c ← a·aᵀ + β·c` on the diagonal and below it.
pub(crate) fn lower_gram<A: Scalar>(a: ArrayView2<'_, A>, beta: A, c: &mut Array2<A>) {
    let a = filled(a);
    blend_lower((A::one(), a.view(), a.view()), beta, c);
}

/// `c ← α·a·bᵀ + β·c` on the diagonal and below it, for a and b without gaps.
pub(crate) fn blend_lower<A: Scalar>(
    (alpha, a, b): (A, ArrayView2<'_, A>, ArrayView2<'_, A>),
    beta: A,
    c: &mut Array2<A>,
) {
    let rows = a.nrows();
    let parts = if a.len() * rows < SERIAL_PRODUCT { 1 } else { threads::count() };
    // The rows get longer: as many elements for each part.
    let end = |part: usize| (rows as f64 * (part as f64 / parts as f64).sqrt()) as usize / ROW_TILE * ROW_TILE;
    let ends: Vec<usize> = (1..parts).map(end).chain([rows]).collect();
    if let Some(c) = c.as_slice_mut() {
        let mut tasks = tasks(&ends, rows, c);
        threads::for_each(&mut tasks, &|(rows, c)| A::blend_lower((alpha, &a, &b), beta, rows.clone(), c));
    }
}

/// The rows up to each end, with their part of a matrix of so many columns.
fn tasks<'c, A>(ends: &[usize], columns: usize, c: &'c mut [A]) -> Vec<(Range<usize>, &'c mut [A])> {
    let (mut start, mut rest, mut tasks) = (0, c, Vec::with_capacity(ends.len()));
    for &end in ends {
        let (part, others) = rest.split_at_mut((end - start) * columns);
        tasks.push((start..end, part));
        (start, rest) = (end, others);
    }
    tasks
}

/// Elements multiplied side by side, the same on every machine.
const DOT_LANES: usize = 16;

/// Σ ab, in f64.
pub(crate) fn dot<A: Scalar>(a: &[A], b: &[A]) -> f64 {
    simd::arch().dispatch(Dot { a, b })
}

struct Dot<'v, A> {
    a: &'v [A],
    b: &'v [A],
}

impl<A: Scalar> NullaryFnOnce for Dot<'_, A> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut lanes = [0.0; DOT_LANES];
        let (a, b) = (self.a.chunks_exact(DOT_LANES), self.b.chunks_exact(DOT_LANES));
        let rest = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a.as_f64() * b.as_f64()).sum::<f64>();
        for (a, b) in a.zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += a.as_f64() * b.as_f64();
            }
        }
        lanes.iter().sum::<f64>() + rest
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn wave(shape: (usize, usize), phase: f64) -> Array2<f64> {
        Array2::from_shape_fn(shape, |(i, j)| ((i * 37 + j * 11) as f64 * 0.1 + phase).sin())
    }

    pub(crate) fn close(found: &Array2<f64>, expected: &Array2<f64>) -> bool {
        found.dim() == expected.dim() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-11)
    }

    #[test]
    fn products_in_any_layout() {
        let (a, b) = (wave((131, 60), 0.0), wave((60, 117), 1.0));
        let expected = a.dot(&b);
        let (a_columns, b_columns) = (a.t().to_owned(), b.t().to_owned());
        assert!(close(&multiplied(&a, &b), &expected));
        assert!(close(&multiplied(&a_columns.t(), &b_columns.t()), &expected));
        let wide = wave((131, 120), 0.0);
        let every = wide.view().slice_axis_move(ndarray::Axis(1), ndarray::Slice::new(0, None, 2));
        assert!(close(&multiplied(&every, &b), &every.dot(&b)));
        assert!(close(&multiplied(&wave((0, 3), 0.0), &wave((3, 2), 0.0)), &Array2::zeros((0, 2))));
    }

    #[test]
    #[cfg(feature = "rayon")]
    fn threads_do_not_change_the_bits() {
        let (a, b) = (wave((301, 130), 0.0), wave((130, 97), 1.0));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut c = Array2::ones((301, 301));
                blend_gram(a.view(), 1.0, 1.0, &mut c);
                (multiplied(&a, &b), c)
            })
        };
        let expected = on(1);
        assert!(close(&expected.1, &(a.dot(&a.t()) + 1.0)) && expected.1 == expected.1.t());
        assert!((2..5).all(|threads| on(threads) == expected));
    }

    #[test]
    fn dots_of_any_length() {
        for length in [0, 1, 15, 16, 17, 100] {
            let (a, b) = (Array2::from_elem((1, length), 3.0_f32), wave((1, length), 0.0).mapv(|x| x as f32));
            let expected: f64 = b.iter().map(|b| 3.0 * f64::from(*b)).sum();
            let found = dot(a.as_slice().unwrap(), b.as_slice().unwrap());
            assert!((found - expected).abs() < 1e-12, "{length}: {found} {expected}");
        }
    }
}
