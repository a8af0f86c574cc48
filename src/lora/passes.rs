//! Forward and backward passes through an adapted layer; merging an adapter into the weight.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayRef, ArrayRef2, Dimension};

use super::adapter::{Backward, Grads, Lora, Merged, lengths, shape};
use super::dora::column;
use crate::curvature::tap::{LinearTap, finite};
use crate::error::Result;
use crate::params::{Element, Scalar};

impl<A: Scalar> Lora<A> {
    /// The output of the adapted layer, of shape (batch, out), for x of shape (batch, in).
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape).
    pub fn forward<D: Dimension>(&self, weight: &ArrayRef<A, D>, x: &ArrayRef2<A>) -> Result<Array2<A>> {
        let weight = self.matrix(weight)?;
        self.check_input(x)?;
        Ok(self.outputs(&weight, x, None))
    }

    /// [`forward`](Self::forward) with dropout; `mask` has x's shape and comes from [`mask`](Self::mask).
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape).
    pub fn forward_masked<D: Dimension>(
        &self,
        weight: &ArrayRef<A, D>,
        x: &ArrayRef2<A>,
        mask: &ArrayRef2<A>,
    ) -> Result<Array2<A>> {
        let weight = self.matrix(weight)?;
        self.check_input(x)?;
        shape("mask", &[x.nrows(), x.ncols()], mask.shape())?;
        Ok(self.outputs(&weight, x, Some(&(x * mask))))
    }

    /// The gradients, from x of shape (batch, in) and dL/dy of shape (batch, out).
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape).
    pub fn backward<D: Dimension>(
        &self,
        weight: &ArrayRef<A, D>,
        x: &ArrayRef2<A>,
        output_grad: &ArrayRef2<A>,
    ) -> Result<Backward<A>> {
        let weight = self.matrix(weight)?;
        self.check_input(x)?;
        shape("output_grad", &[x.nrows(), self.lora_b.nrows()], output_grad.shape())?;
        Ok(self.gradients(&weight, x, None, output_grad))
    }

    /// The gradients of the mean loss, from a [`LinearTap`] of the layer.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape), and those of [`LinearTap::check`].
    pub fn backward_tap<D: Dimension>(&self, weight: &ArrayRef<A, D>, tap: LinearTap<'_, A>) -> Result<Grads<A>> {
        tap.check()?;
        let examples = A::from_f64(tap.examples() as f64);
        let mean = tap.output_grad.mapv(|grad| grad / examples);
        Ok(self.backward(weight, &tap.input, &mean)?.grads)
    }

    /// [`backward`](Self::backward) of [`forward_masked`](Self::forward_masked), with the same mask.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape).
    pub fn backward_masked<D: Dimension>(
        &self,
        weight: &ArrayRef<A, D>,
        x: &ArrayRef2<A>,
        mask: &ArrayRef2<A>,
        output_grad: &ArrayRef2<A>,
    ) -> Result<Backward<A>> {
        let weight = self.matrix(weight)?;
        self.check_input(x)?;
        shape("mask", &[x.nrows(), x.ncols()], mask.shape())?;
        shape("output_grad", &[x.nrows(), self.lora_b.nrows()], output_grad.shape())?;
        Ok(self.gradients(&weight, x, Some([&(x * mask), mask]), output_grad))
    }

    /// The gradients from dL/dW′ of the weight's shape, where W′ is the [merged](Self::merge) weight. Use it if your backward pass computes dL/dW′.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape).
    pub fn backward_weight<D: Dimension>(
        &self,
        weight: &ArrayRef<A, D>,
        weight_grad: &ArrayRef<A, D>,
    ) -> Result<Grads<A>> {
        let matrix = self.matrix(weight)?;
        shape("weight_grad", weight.shape(), weight_grad.shape())?;
        let weight_grad = self.layer.matrix(weight_grad)?;
        if let Some(grads) = self.dora_gradients_by_weight(&matrix, &weight_grad) {
            return Ok(grads);
        }
        let (a, b) = (&self.lora_a, &self.lora_b);
        Ok(Grads {
            lora_a: scaled(b.t().dot(&weight_grad), self.scale),
            lora_b: scaled(weight_grad.dot(&a.t()), self.scale),
            magnitude: None,
        })
    }

    /// Merges the adapter into the weight: `W ← W + sBA`, with DoRA `W ← (m/n)(W + sBA)`. If the result is not finite, it returns an error and the weight is
    /// unchanged.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape), [`ArgumentError::NotFinite`](crate::error::ArgumentError::NotFinite).
    pub fn merge<D: Dimension>(&self, weight: &mut ArrayRef<A, D>) -> Result<Merged<A>> {
        let mut merged = self.matrix(weight)?.into_owned();
        let factors = self.dora_merged(&mut merged);
        if factors.is_none() {
            general_mat_mul(self.scale, &self.lora_b, &self.lora_a, A::one(), &mut merged);
        }
        finite("the merged weight", &merged)?;
        self.layer.assign(&merged, weight);
        Ok(Merged { factors })
    }

    /// Removes the merged adapter from the weight. The adapter must be the same as when it was merged.
    ///
    /// The weight is restored up to rounding, about 10⁻⁷ relative in f32.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`](crate::error::ArgumentError::Shape); [`ArgumentError::NotFinite`](crate::error::ArgumentError::NotFinite) if a magnitude of DoRA is 0, because the
    /// weight cannot be restored then. On an error the weight is unchanged.
    pub fn unmerge<D: Dimension>(&self, weight: &mut ArrayRef<A, D>, merged: Merged<A>) -> Result<()> {
        let mut base = self.matrix(weight)?.into_owned();
        shape("what was merged", lengths(&self.magnitude), lengths(&merged.factors))?;
        if let Some(factors) = &merged.factors {
            base /= &column(factors);
        }
        general_mat_mul(-self.scale, &self.lora_b, &self.lora_a, A::one(), &mut base);
        finite("the unmerged weight", &base)?;
        self.layer.assign(&base, weight);
        Ok(())
    }

    /// The output; `masked` is what the adapter sees of x, if that is not x itself.
    fn outputs(&self, weight: &ArrayRef2<A>, x: &ArrayRef2<A>, masked: Option<&ArrayRef2<A>>) -> Array2<A> {
        self.dora_outputs(weight, x, masked).unwrap_or_else(|| {
            let mut y = x.dot(&weight.t());
            let reduced = masked.unwrap_or(x).dot(&self.lora_a.t());
            general_mat_mul(self.scale, &reduced, &self.lora_b.t(), A::one(), &mut y);
            y
        })
    }

    /// The gradients; `masked` is what the adapter sees of x, and the mask.
    fn gradients(
        &self,
        weight: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        masked: Option<[&ArrayRef2<A>; 2]>,
        output_grad: &ArrayRef2<A>,
    ) -> Backward<A> {
        if let Some(backward) = self.dora_gradients(weight, x, masked, output_grad) {
            return backward;
        }
        let (a, b) = (&self.lora_a, &self.lora_b);
        let seen = masked.map_or(x, |[masked, _]| masked);
        let reduced = scaled(output_grad.dot(b), self.scale);
        let grads = Grads {
            lora_a: reduced.t().dot(seen),
            lora_b: scaled(output_grad.t().dot(&seen.dot(&a.t())), self.scale),
            magnitude: None,
        };
        let mut input = output_grad.dot(weight);
        match masked {
            None => general_mat_mul(A::one(), &reduced, a, A::one(), &mut input),
            Some([_, mask]) => input += &(reduced.dot(a) * mask),
        }
        Backward { grads, input }
    }
}

pub(super) fn scaled<A: Element>(mut matrix: Array2<A>, scale: A) -> Array2<A> {
    matrix.mapv_inplace(|x| x * scale);
    matrix
}
