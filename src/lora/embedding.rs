//! Adapted embeddings: rows by token instead of a product with x.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayRef2, Axis, Zip};

use super::adapter::{Grads, Lora, shape};
use super::passes::scaled;
use crate::error::{ArgumentError, Error, Result};
use crate::params::Scalar;

impl<A: Scalar> Lora<A> {
    /// The rows of these tokens in the adapted embedding, of shape (tokens, width). The weight has the shape (vocabulary, width).
    ///
    /// ```text
    /// y[i] = W[tᵢ] + s·B·A[:, tᵢ]
    /// ```
    /// With DoRA it is the same for the row of the [merged](Self::merge) weight.
    ///
    /// ```
    /// use gradus::lora::Config;
    /// use ndarray::{Array2, array};
    /// # use rand::SeedableRng;
    /// # let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    ///
    /// let weight = Array2::<f64>::zeros((3, 2)); // three tokens
    /// let mut adapter = Config::new(1, 2.0).adapt_embedding(&weight, &mut rng)?;
    /// adapter.lora_a = array![[0.0, 5.0, 1.0]];
    /// adapter.lora_b = array![[1.0], [-1.0]];
    /// assert_eq!(adapter.embed(&weight, &[2, 1])?, array![[2.0, -2.0], [10.0, -10.0]]);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ArgumentError::Shape`]; [`ArgumentError::Range`] for a token that the weight does not have.
    pub fn embed(&self, weight: &ArrayRef2<A>, tokens: &[usize]) -> Result<Array2<A>> {
        let matrix = self.matrix(weight)?;
        self.check_tokens(tokens)?;
        if let Some(rows) = self.dora_columns(&matrix, tokens) {
            return Ok(rows);
        }
        let mut rows = matrix.select(Axis(1), tokens).reversed_axes();
        let reduced = self.lora_a.select(Axis(1), tokens);
        general_mat_mul(self.scale, &reduced.t(), &self.lora_b.t(), A::one(), &mut rows);
        Ok(rows)
    }

    /// The gradients of [`embed`](Self::embed), from dL/dy of shape (tokens, width).
    ///
    /// With DoRA, the gradient of the whole weight is formed: as much memory as the weight has.
    ///
    /// # Errors
    /// Those of [`embed`](Self::embed).
    pub fn embed_backward(
        &self,
        weight: &ArrayRef2<A>,
        tokens: &[usize],
        output_grad: &ArrayRef2<A>,
    ) -> Result<Grads<A>> {
        let matrix = self.matrix(weight)?;
        self.check_tokens(tokens)?;
        shape("output_grad", &[tokens.len(), matrix.nrows()], output_grad.shape())?;
        if self.magnitude.is_some() {
            let mut weight_grad = Array2::zeros(matrix.dim());
            add_columns(&mut weight_grad, tokens, output_grad);
            if let Some(grads) = self.dora_gradients_by_weight(&matrix, &weight_grad) {
                return Ok(grads);
            }
        }
        let reduced = self.lora_a.select(Axis(1), tokens);
        let mut lora_a = Array2::zeros(self.lora_a.dim());
        add_columns(&mut lora_a, tokens, &scaled(output_grad.dot(&self.lora_b), self.scale));
        Ok(Grads { lora_a, lora_b: scaled(output_grad.t().dot(&reduced.t()), self.scale), magnitude: None })
    }

    fn check_tokens(&self, tokens: &[usize]) -> Result<()> {
        let vocabulary = self.lora_a.ncols();
        match tokens.iter().find(|token| **token >= vocabulary) {
            Some(token) => Err(Error::Argument(ArgumentError::Range {
                argument: "token",
                value: *token as f64,
                accepted: format!("below {vocabulary}, the number of rows of the weight"),
            })),
            None => Ok(()),
        }
    }
}

/// Adds each row to the column of its token.
fn add_columns<A: Scalar>(matrix: &mut Array2<A>, tokens: &[usize], rows: &ArrayRef2<A>) {
    for (token, row) in tokens.iter().zip(rows.rows()) {
        Zip::from(matrix.column_mut(*token)).and(row).for_each(|sum, value| *sum += *value);
    }
}
