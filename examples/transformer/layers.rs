//! The layers of a transformer, forwards and backwards, for matrices of one row for each token.
#![allow(clippy::expect_used, reason = "an adapter has the shape of the weight that it was made for")]

use gradus::Scalar;
use gradus::lora::{Grads, Lora};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip, s};

use crate::arithmetic::LENGTH;

/// `y = xWᵀ`, with an adapter beside W if there is one.
pub(crate) fn linear<A: Scalar>(weight: &Array2<A>, adapter: Option<&Lora<A>>, x: &Array2<A>) -> Array2<A> {
    match adapter {
        None => x.dot(&weight.t()),
        Some(adapter) => adapter.forward(weight, x).expect("an adapter of this weight"),
    }
}

/// dL/dx, and the gradient of what learns: the adapter, or without one the weight.
pub(crate) fn linear_backward<A: Scalar>(
    weight: &Array2<A>,
    adapter: Option<&Lora<A>>,
    x: &Array2<A>,
    grad: &Array2<A>,
) -> (Array2<A>, Learned<A>) {
    match adapter {
        None => (grad.dot(weight), Learned::Weight(grad.t().dot(x))),
        Some(adapter) => {
            let backward = adapter.backward(weight, x, grad).expect("an adapter of this weight");
            (backward.input, Learned::Adapter(backward.grads))
        }
    }
}

pub(crate) enum Learned<A> {
    Weight(Array2<A>),
    Adapter(Grads<A>),
}

const EPS: f64 = 1e-5;

/// Rows of mean 0 and variance 1, and 1/σ of each.
pub(crate) fn normalize<A: Scalar>(x: &Array2<A>) -> (Array2<A>, Array1<A>) {
    let count = A::from_f64(x.ncols() as f64);
    let (mut normal, mut inverse) = (x.clone(), Array1::zeros(x.nrows()));
    Zip::from(normal.rows_mut()).and(&mut inverse).for_each(|mut row, inverse| {
        let mean = row.sum() / count;
        row.mapv_inplace(|x| x - mean);
        *inverse = (row.dot(&row) / count + A::from_f64(EPS)).sqrt().recip();
        let inverse = *inverse;
        row.mapv_inplace(|x| x * inverse);
    });
    (normal, inverse)
}

/// dL/dx from the gradient of the [normalized](normalize) rows.
pub(crate) fn normalize_backward<A: Scalar>(normal: &Array2<A>, inverse: &Array1<A>, mut grad: Array2<A>) -> Array2<A> {
    let count = A::from_f64(normal.ncols() as f64);
    Zip::from(grad.rows_mut()).and(normal.rows()).and(inverse).for_each(|mut grad, normal, inverse| {
        let (mean, along) = (grad.sum() / count, grad.dot(&normal) / count);
        grad.zip_mut_with(&normal, |grad, normal| *grad = (*grad - mean - *normal * along) * *inverse);
    });
    grad
}

/// GELU in the form with tanh, which is `x·σ(2u)`, and the sigmoid σ of every element.
pub(crate) fn gelu<A: Scalar>(x: &Array2<A>) -> (Array2<A>, Array2<A>) {
    let [minus_two, cubic] = [-2.0 * (2.0 / std::f64::consts::PI).sqrt(), 0.044_715].map(A::from_f64);
    let sigmoid = x.mapv(|x| ((minus_two * (x + cubic * x * x * x)).exp() + A::one()).recip());
    (x * &sigmoid, sigmoid)
}

pub(crate) fn gelu_backward<A: Scalar>(x: &Array2<A>, sigmoid: &Array2<A>, mut grad: Array2<A>) -> Array2<A> {
    let [two, cubic] = [2.0 * (2.0 / std::f64::consts::PI).sqrt(), 3.0 * 0.044_715].map(A::from_f64);
    Zip::from(&mut grad).and(x).and(sigmoid).for_each(|grad, x, sigmoid| {
        let inner = two * (A::one() + cubic * *x * *x);
        *grad *= *sigmoid * (A::one() + *x * (A::one() - *sigmoid) * inner);
    });
    grad
}

/// Causal attention of several heads. `qkv` has queries, keys and values side by side; returns what each token gathers, and
/// the weights with which it does.
pub(crate) fn attention<A: Scalar>(qkv: &Array2<A>, heads: usize) -> (Array2<A>, Vec<Array2<A>>) {
    let width = qkv.ncols() / 3;
    let (mut gathered, mut weights) = (Array2::zeros((qkv.nrows(), width)), Vec::new());
    each_head(qkv.nrows(), width, heads, |rows, [q, k, v]| {
        let [query, key, value] = [q.clone(), k, v].map(|columns| qkv.slice(s![rows.clone(), columns]));
        let mut weight = query.dot(&key.t());
        softmax(&mut weight, A::from_f64(1.0 / ((width / heads) as f64).sqrt()));
        gathered.slice_mut(s![rows, q]).assign(&weight.dot(&value));
        weights.push(weight);
    });
    (gathered, weights)
}

pub(crate) fn attention_backward<A: Scalar>(
    qkv: &Array2<A>,
    weights: &[Array2<A>],
    grad: &Array2<A>,
    heads: usize,
) -> Array2<A> {
    let width = qkv.ncols() / 3;
    let scale = A::from_f64(1.0 / ((width / heads) as f64).sqrt());
    let (mut result, mut weights) = (Array2::zeros(qkv.dim()), weights.iter());
    each_head(qkv.nrows(), width, heads, |rows, [q, k, v]| {
        let Some(weight) = weights.next() else { return };
        let view = |columns: &Columns| qkv.slice(s![rows.clone(), columns.clone()]);
        let (query, key, value): (ArrayView2<'_, A>, _, _) = (view(&q), view(&k), view(&v));
        let grad = grad.slice(s![rows.clone(), q.clone()]);
        let mut scores = grad.dot(&value.t());
        Zip::from(scores.rows_mut()).and(weight.rows()).for_each(|mut grad, weight: ArrayView1<'_, A>| {
            let along = grad.dot(&weight);
            grad.zip_mut_with(&weight, |grad, weight| *grad = (*grad - along) * *weight * scale);
        });
        result.slice_mut(s![rows.clone(), v]).assign(&weight.t().dot(&grad));
        result.slice_mut(s![rows.clone(), k]).assign(&scores.t().dot(&query));
        result.slice_mut(s![rows.clone(), q]).assign(&scores.dot(&key));
    });
    result
}

type Columns = std::ops::Range<usize>;

/// The rows of each text with the columns of query, key and value of each head.
fn each_head(rows: usize, width: usize, heads: usize, mut f: impl FnMut(Columns, [Columns; 3])) {
    let size = width / heads;
    for text in 0..rows / LENGTH {
        for head in 0..heads {
            let columns = [0, 1, 2].map(|part| part * width + head * size..part * width + (head + 1) * size);
            f(text * LENGTH..(text + 1) * LENGTH, columns);
        }
    }
}

/// Softmax of every row up to its own place: no token sees a later one.
fn softmax<A: Scalar>(scores: &mut Array2<A>, scale: A) {
    for (place, mut row) in scores.rows_mut().into_iter().enumerate() {
        let (mut seen, mut later) = row.view_mut().split_at(Axis(0), place + 1);
        let most = seen.iter().fold(A::neg_infinity(), |most, x| most.max(*x));
        seen.mapv_inplace(|x| ((x - most) * scale).exp());
        let sum = seen.sum();
        seen.mapv_inplace(|x| x / sum);
        later.fill(A::zero());
    }
}
