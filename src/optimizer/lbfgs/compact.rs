//! The approximate Hessian of L-BFGS as a matrix: B = θI − W·M·Wᵀ, of low rank beside the identity.

use crate::params::Scalar;

/// B, from pairs (s, y): W = [Y, θS], and M⁻¹ = [−D, Lᵀ; L, θSᵀS] with D the diagonal of SᵀY and L what is below it.
pub(super) struct Compact {
    pub(super) theta: f64,
    /// Row by row; empty without pairs.
    w: Vec<f64>,
    width: usize,
    inverse: Factors,
}

impl Compact {
    /// θI, without pairs.
    pub(super) fn identity(theta: f64) -> Self {
        Self { theta, w: Vec::new(), width: 0, inverse: Factors { rows: Vec::new(), pivots: Vec::new() } }
    }

    /// From pairs of vectors, the oldest pair first. Each has `elements` numbers. `None` if M is not finite.
    pub(super) fn of<A: Scalar>(pairs: &[(&[A], &[A])], elements: usize, theta: f64) -> Option<Self> {
        let count = pairs.len();
        let width = 2 * count;
        let mut w = vec![0.0; elements * width];
        for (at, (s, y)) in pairs.iter().enumerate() {
            let rows = w.chunks_mut(width.max(1));
            for ((row, s), y) in rows.zip(*s).zip(*y) {
                (row[at], row[count + at]) = (y.as_f64(), theta * s.as_f64());
            }
        }
        let dot = |a: &[A], b: &[A]| a.iter().zip(b).map(|(a, b)| a.as_f64() * b.as_f64()).sum::<f64>();
        let mut rows = vec![vec![0.0; width]; width];
        for i in 0..count {
            rows[i][i] = -dot(pairs[i].0, pairs[i].1);
            for j in 0..count {
                if j < i {
                    let below = dot(pairs[i].0, pairs[j].1);
                    (rows[count + i][j], rows[j][count + i]) = (below, below);
                }
                if j <= i {
                    let product = theta * dot(pairs[i].0, pairs[j].0);
                    (rows[count + i][count + j], rows[count + j][count + i]) = (product, product);
                }
            }
        }
        Some(Self { theta, w, width, inverse: Factors::of(rows)? })
    }

    /// The number of columns of W.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// A row of W.
    pub(super) fn row(&self, element: usize) -> &[f64] {
        &self.w[element * self.width..(element + 1) * self.width]
    }

    /// M·v.
    pub(super) fn middle(&self, v: &[f64]) -> Vec<f64> {
        self.inverse.solve(v)
    }

    /// Wᵀ·v over these elements.
    pub(super) fn transposed(&self, elements: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
        let mut product = vec![0.0; self.width];
        for (element, value) in elements {
            product.iter_mut().zip(self.row(element)).for_each(|(sum, w)| *sum += w * value);
        }
        product
    }
}

pub(super) fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A small matrix as the product of two triangular ones, with its rows exchanged.
pub(super) struct Factors {
    rows: Vec<Vec<f64>>,
    pivots: Vec<usize>,
}

impl Factors {
    /// `None` if the matrix has no inverse in numbers.
    pub(super) fn of(mut rows: Vec<Vec<f64>>) -> Option<Self> {
        let size = rows.len();
        let mut pivots = Vec::with_capacity(size);
        for column in 0..size {
            let below = column..size;
            let pivot = below.max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
            rows.swap(column, pivot);
            pivots.push(pivot);
            let (above, below) = rows.split_at_mut(column + 1);
            let first = &above[column];
            if first[column] == 0.0 || !first.iter().all(|x| x.is_finite()) {
                return None;
            }
            for row in below {
                let factor = row[column] / first[column];
                row[column] = factor;
                row[column + 1..].iter_mut().zip(&first[column + 1..]).for_each(|(to, from)| *to -= factor * from);
            }
        }
        Some(Self { rows, pivots })
    }

    /// The solution of A·x = b.
    pub(super) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = b.to_vec();
        // The factors of elimination have been exchanged with their rows: first all exchanges.
        self.pivots.iter().enumerate().for_each(|(at, pivot)| x.swap(at, *pivot));
        for at in 0..x.len() {
            x[at] -= inner(&self.rows[at][..at], &x[..at]);
        }
        for at in (0..x.len()).rev() {
            x[at] = (x[at] - inner(&self.rows[at][at + 1..], &x[at + 1..])) / self.rows[at][at];
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_system() {
        let factors = Factors::of(vec![vec![0.0, 2.0, 1.0], vec![4.0, 1.0, 0.0], vec![2.0, 3.0, 5.0]]).unwrap();
        assert_eq!(factors.solve(&[7.0, 6.0, 23.0]), [1.0, 2.0, 3.0]);
        assert!(Factors::of(vec![vec![1.0, 2.0], vec![2.0, 4.0]]).is_none());
        assert!(Factors::of(vec![vec![f64::NAN]]).is_none());
    }

    /// B from its definition: rank-two updates of θI, one pair after the other.
    #[test]
    fn the_compact_form_is_bfgs() {
        let value = |i: usize| (i as f64 * 1.7).sin();
        let (size, theta) = (4, 1.5);
        let s: Vec<Vec<f64>> = (0..3).map(|k| (0..size).map(|i| value(10 * k + i)).collect()).collect();
        // y = A·s with A symmetric and positive: a diagonal and a bit of everything.
        let y: Vec<Vec<f64>> = s
            .iter()
            .map(|s| (0..size).map(|i| (1.0 + i as f64) * s[i] + 0.3 * s.iter().sum::<f64>()).collect())
            .collect();
        let mut dense: Vec<Vec<f64>> =
            (0..size).map(|i| (0..size).map(|j| if i == j { theta } else { 0.0 }).collect()).collect();
        for (s, y) in s.iter().zip(&y) {
            let bs: Vec<f64> = dense.iter().map(|row| inner(row, s)).collect();
            let (sbs, sy) = (inner(&bs, s), inner(s, y));
            for (i, row) in dense.iter_mut().enumerate() {
                let update = |j: usize| y[i] * y[j] / sy - bs[i] * bs[j] / sbs;
                row.iter_mut().enumerate().for_each(|(j, to)| *to += update(j));
            }
        }
        let pairs: Vec<(&[f64], &[f64])> = s.iter().zip(&y).map(|(s, y)| (&s[..], &y[..])).collect();
        let compact = Compact::of(&pairs, size, theta).unwrap();
        for (i, row) in dense.iter().enumerate() {
            let column = compact.middle(compact.row(i));
            for (j, expected) in row.iter().enumerate() {
                let found = if i == j { theta } else { 0.0 } - inner(compact.row(j), &column);
                assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
            }
        }
    }
}
