//! The lengths of a weight's rows, which DoRA learns apart from their directions.

use ndarray::{Array1, ArrayRef2, Zip};

use super::{Grads, Lora, column, scaled};
use crate::scalar::Scalar;

/// Whether gradients pass through the norm n that DoRA divides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Norm {
    /// n is a constant to the gradients: peft's way and the paper's advice (section 4.3), which saves memory there.
    #[default]
    Detached,
    /// The whole derivative.
    Through,
}

/// The lengths of the rows.
pub(super) fn norms<A: Scalar>(weight: &ArrayRef2<A>) -> Array1<A> {
    row_products(weight, weight).mapv_into(A::sqrt)
}

/// The scalar products of the rows of two matrices.
pub(super) fn row_products<A: Scalar>(left: &ArrayRef2<A>, right: &ArrayRef2<A>) -> Array1<A> {
    Zip::from(left.rows()).and(right.rows()).map_collect(|left, right| left.dot(&right))
}

impl<A: Scalar> Lora<A> {
    /// With DoRA n = ‖W + sBA‖ and m/n of every row. Without forming BA:
    /// n² = ‖W‖² + 2s⟨B, WAᵀ⟩ + s²⟨B, B(AAᵀ)⟩, row by row. A row of zeros stays one.
    pub(super) fn rows(&self, weight: &ArrayRef2<A>) -> Option<(Array1<A>, Array1<A>)> {
        let magnitude = self.magnitude.as_ref()?;
        let (a, b) = (&self.lora_a, &self.lora_b);
        let products = scaled(weight.dot(&a.t()), self.scale + self.scale)
            + scaled(b.dot(&a.dot(&a.t())), self.scale * self.scale);
        let squares = row_products(weight, weight) + row_products(b, &products);
        let norms = squares.mapv_into(|square| square.max(A::zero()).sqrt()); // rounding may end below 0
        let factors = Zip::from(magnitude).and(&norms).map_collect(|magnitude, norm| match *norm > A::zero() {
            true => *magnitude / *norm,
            false => A::one(),
        });
        Some((norms, factors))
    }

    /// The gradient of m, and what passes through n. `along` is ⟨dL/dW′, W + sBA⟩ of every row.
    pub(super) fn through_magnitude(
        &self,
        weight: &ArrayRef2<A>,
        along: &Array1<A>,
        norms: &Array1<A>,
        grads: &mut Grads<A>,
    ) {
        let Some(magnitude) = &self.magnitude else { return };
        let quotient = |a: &A, b: &A| if *b > A::zero() { *a / *b } else { A::zero() };
        let grad = Zip::from(along).and(norms).map_collect(quotient);
        if self.norm == Norm::Through {
            // dL/dn = −m·along/n², and n changes with V = W + sBA by V/n.
            let pull = Zip::from(&grad).and(magnitude).and(norms).map_collect(|grad, magnitude, norm| {
                let squared = *norm * *norm;
                quotient(&(-*grad * *magnitude), &squared)
            });
            let (a, b) = (&self.lora_a, &self.lora_b);
            let pulled = b * &column(&pull);
            let products = weight.dot(&a.t()) + scaled(b.dot(&a.dot(&a.t())), self.scale);
            grads.lora_b += &scaled(products * column(&pull), self.scale);
            grads.lora_a += &scaled(pulled.t().dot(weight), self.scale);
            grads.lora_a += &scaled(pulled.t().dot(b).dot(a), self.scale * self.scale);
        }
        grads.magnitude = Some(grad);
    }
}
