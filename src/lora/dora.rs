//! The lengths of a weight's rows, which DoRA learns apart from their directions.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, Axis, Slice, Zip};

use super::adapter::{Backward, Grads, Lora, NormGradient};
use crate::params::{Element, Scalar};
use crate::step::norm::euclidean;

/// At most so many elements of V = W + sBA are formed at a time, or one row.
const FORMED: usize = 1 << 16;

/// Some rows of V, in `f64`: W and sBA may nearly cancel, and what is left must be the same wherever it is used. A direction
/// of other numbers than the length would be none.
struct Rows<'d, A> {
    part: Slice,
    /// n = ‖V‖.
    norms: Array1<f64>,
    /// V/n, and 0 where V is.
    direction: Array2<f64>,
    /// The same, rounded, for the large products.
    rounded: Array2<A>,
    /// Their part of B.
    b: ArrayView2<'d, f64>,
    /// m/n, and 1 where n is 0: a row of zeros stays one.
    factors: Array1<f64>,
}

/// What the large weight does not belong to, in `f64`.
struct Wide {
    a: Array2<f64>,
    b: Array2<f64>,
    magnitude: Array1<f64>,
    scale: f64,
}

/// The numbers in `f64`, row by row.
fn wide<A: Element>(matrix: ArrayView2<'_, A>) -> Array2<f64> {
    let mut wide = Array2::zeros(matrix.dim());
    wide.zip_mut_with(&matrix, |to, from| *to = from.as_f64());
    wide
}

fn narrow<A: Element>(matrix: &Array2<f64>) -> Array2<A> {
    matrix.mapv(A::from_f64)
}

fn lengths(matrix: &Array2<f64>) -> Array1<f64> {
    let length = |row: ndarray::ArrayView1<'_, f64>| row.as_slice().map_or_else(|| euclidean(&row.to_vec()), euclidean);
    matrix.rows().into_iter().map(length).collect()
}

/// The scalar products of the rows of two matrices.
fn row_products(left: &Array2<f64>, right: &Array2<f64>) -> Array1<f64> {
    Zip::from(left.rows()).and(right.rows()).map_collect(|left, right| left.dot(&right))
}

/// The rows of the weight in blocks.
fn blocks((outputs, inputs): (usize, usize)) -> impl Iterator<Item = Slice> {
    let height = (FORMED / inputs.max(1)).max(1);
    (0..outputs).step_by(height).map(move |start| Slice::from(start..outputs.min(start + height)))
}

/// The lengths of the rows of a weight.
pub(super) fn norms<A: Scalar>(weight: &ArrayRef2<A>) -> Array1<A> {
    let length = |part| lengths(&wide(weight.slice_axis(Axis(0), part)));
    blocks(weight.dim()).flat_map(length).map(A::from_f64).collect()
}

impl Wide {
    fn rows<A: Scalar>(&self, weight: &ArrayRef2<A>, part: Slice) -> Rows<'_, A> {
        let mut direction = wide(weight.slice_axis(Axis(0), part));
        let b = self.b.slice_axis(Axis(0), part);
        general_mat_mul(self.scale, &b, &self.a, 1.0, &mut direction);
        let norms = lengths(&direction);
        let factor = |magnitude: &f64, norm: &f64| if *norm == 0.0 { 1.0 } else { magnitude / norm };
        let factors = Zip::from(self.magnitude.slice_axis(Axis(0), part)).and(&norms).map_collect(factor);
        let rows = Zip::from(direction.rows_mut()).and(&norms);
        rows.for_each(|mut row, norm| row.mapv_inplace(|x| if *norm == 0.0 { 0.0 } else { x / norm }));
        Rows { norms, rounded: narrow(&direction), direction, b, factors, part }
    }
}

impl<A: Scalar> Lora<A> {
    /// With DoRA.
    fn wide(&self) -> Option<Wide> {
        let magnitude = self.magnitude.as_ref()?.mapv(|m| m.as_f64());
        Some(Wide { a: wide(self.lora_a.view()), b: wide(self.lora_b.view()), magnitude, scale: self.scale.as_f64() })
    }

    /// With DoRA the output: (m/n)(xVᵀ + s((x̃ − x)Aᵀ)Bᵀ), with x̃ what a mask leaves of x.
    pub(super) fn dora_outputs(
        &self,
        weight: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        masked: Option<&ArrayRef2<A>>,
    ) -> Option<Array2<A>> {
        let own = self.wide()?;
        let change = masked.map(|masked| own.scale * (wide(masked.view()) - wide(x.view())).dot(&own.a.t()));
        let mut y = Array2::zeros((x.nrows(), weight.nrows()));
        for part in blocks(weight.dim()) {
            let rows = own.rows(weight, part);
            let mut outputs = wide(x.dot(&rows.rounded.t()).view()) * own.magnitude.slice_axis(Axis(0), rows.part);
            if let Some(change) = &change {
                outputs += &(change.dot(&rows.b.t()) * &rows.factors);
            }
            y.slice_axis_mut(Axis(1), rows.part).assign(&narrow(&outputs));
        }
        Some(y)
    }

    /// With DoRA the columns of W′ at these places, as rows.
    pub(super) fn dora_columns(&self, weight: &ArrayRef2<A>, columns: &[usize]) -> Option<Array2<A>> {
        let own = self.wide()?;
        let mut y = Array2::zeros((columns.len(), weight.nrows()));
        for part in blocks(weight.dim()) {
            let rows = own.rows(weight, part);
            let directions = rows.direction.select(Axis(1), columns).reversed_axes();
            let values = directions * own.magnitude.slice_axis(Axis(0), rows.part);
            y.slice_axis_mut(Axis(1), rows.part).assign(&narrow(&values));
        }
        Some(y)
    }

    /// With DoRA the gradients from x, what a mask leaves of it, the mask, and dL/dy.
    pub(super) fn dora_gradients(
        &self,
        weight: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        masked: Option<[&ArrayRef2<A>; 2]>,
        output_grad: &ArrayRef2<A>,
    ) -> Option<Backward<A>> {
        let own = self.wide()?;
        let wide_x = wide(x.view());
        let seen = masked.map_or_else(|| wide_x.clone(), |[masked, _]| wide(masked.view()));
        let seen_a = seen.dot(&own.a.t());
        let change = masked.map(|_| own.scale * (&seen - &wide_x).dot(&own.a.t()));
        let mut input = Array2::zeros(x.dim());
        let mut reduced = Array2::zeros((x.nrows(), own.a.nrows())); // δ′B, with δ′ the gradient by what m/n multiplies
        let mut sums = own.sums();
        for part in blocks(weight.dim()) {
            let rows = own.rows(weight, part);
            let grad = wide(output_grad.slice_axis(Axis(1), rows.part));
            let along_rows = match self.norm {
                NormGradient::Detached => wide(x.dot(&rows.rounded.t()).view()),
                NormGradient::Through => wide_x.dot(&rows.direction.t()), // its rounding would be multiplied by m/n
            };
            let mut along = (&grad * &along_rows).sum_axis(Axis(0));
            if let Some(change) = &change {
                let beside = (&grad * &change.dot(&rows.b.t())).sum_axis(Axis(0));
                along += &Zip::from(&beside).and(&rows.norms).map_collect(quotient);
            }
            let times_magnitude = narrow(&(&grad * &own.magnitude.slice_axis(Axis(0), rows.part)));
            general_mat_mul(A::one(), &times_magnitude, &rows.rounded, A::one(), &mut input);
            let inside = grad * &rows.factors;
            reduced += &inside.dot(&rows.b);
            let by_b = inside.t().dot(&seen_a);
            sums.add(self.norm, &own, &rows, along, by_b);
        }
        sums.lora_a += &(own.scale * reduced.t().dot(&seen));
        if let Some([_, mask]) = masked {
            let through_adapter = own.scale * reduced.dot(&own.a);
            Zip::from(&mut input).and(&through_adapter).and(mask).for_each(|input, through, mask| {
                *input += A::from_f64((mask.as_f64() - 1.0) * through);
            });
        }
        Some(Backward { grads: sums.grads(), input })
    }

    /// With DoRA the gradients from dL/dW′.
    pub(super) fn dora_gradients_by_weight(
        &self,
        weight: &ArrayRef2<A>,
        weight_grad: &ArrayRef2<A>,
    ) -> Option<Grads<A>> {
        let own = self.wide()?;
        let mut sums = own.sums();
        for part in blocks(weight.dim()) {
            let rows = own.rows(weight, part);
            let grad = wide(weight_grad.slice_axis(Axis(0), rows.part));
            let along = row_products(&grad, &rows.direction);
            let inside = grad * column(&rows.factors);
            sums.lora_a += &(own.scale * rows.b.t().dot(&inside));
            sums.add(self.norm, &own, &rows, along, inside.dot(&own.a.t()));
        }
        Some(sums.grads())
    }

    /// With DoRA: W ← (m/n)V, and m/n.
    pub(super) fn dora_merged(&self, weight: &mut ArrayRef2<A>) -> Option<Array1<A>> {
        let own = self.wide()?;
        let mut factors = Array1::zeros(weight.nrows());
        for part in blocks(weight.dim()) {
            let rows = own.rows(weight, part);
            let magnitude = own.magnitude.slice_axis(Axis(0), rows.part);
            factors.slice_axis_mut(Axis(0), rows.part).assign(&rows.factors.mapv(A::from_f64));
            let merged = rows.direction * magnitude.insert_axis(Axis(1));
            weight.slice_axis_mut(Axis(0), rows.part).assign(&narrow(&merged));
        }
        Some(factors)
    }
}

/// The gradients of an adapter, block by block, in `f64`.
struct Sums {
    lora_a: Array2<f64>,
    lora_b: Array2<f64>,
    magnitude: Array1<f64>,
}

impl Wide {
    fn sums(&self) -> Sums {
        Sums {
            lora_a: Array2::zeros(self.a.dim()),
            lora_b: Array2::zeros(self.b.dim()),
            magnitude: Array1::zeros(self.magnitude.len()),
        }
    }
}

impl Sums {
    /// Adds what comes of some rows: `along` is ⟨dL/dW′, V/n⟩, and `by_b` is (m/n)·dL/dW′·Aᵀ.
    fn add<A>(
        &mut self,
        norm: NormGradient,
        own: &Wide,
        rows: &Rows<'_, A>,
        along: Array1<f64>,
        mut by_b: Array2<f64>,
    ) {
        if norm == NormGradient::Through {
            // dL/dn = −(m/n)·along, and n changes with V by V/n.
            let pull = Zip::from(&along)
                .and(&rows.factors)
                .and(&rows.norms)
                .map_collect(|along, factor, norm| if *norm == 0.0 { 0.0 } else { along * factor });
            by_b -= &(rows.direction.dot(&own.a.t()) * column(&pull));
            let pulled = &rows.b * &column(&pull);
            self.lora_a -= &(own.scale * pulled.t().dot(&rows.direction));
        }
        self.lora_b.slice_axis_mut(Axis(0), rows.part).assign(&(own.scale * by_b));
        self.magnitude.slice_axis_mut(Axis(0), rows.part).assign(&along);
    }

    fn grads<A: Scalar>(self) -> Grads<A> {
        let magnitude = Some(self.magnitude.mapv(A::from_f64));
        Grads { lora_a: narrow(&self.lora_a), lora_b: narrow(&self.lora_b), magnitude }
    }
}

/// A vector of one number for each row.
pub(super) fn column<A: Element>(factors: &Array1<A>) -> ArrayView2<'_, A> {
    factors.view().insert_axis(Axis(1))
}

/// 0 where there is nothing to divide by.
fn quotient(a: &f64, b: &f64) -> f64 {
    if *b == 0.0 { 0.0 } else { a / b }
}
