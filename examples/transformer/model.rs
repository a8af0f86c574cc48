//! A decoder-only transformer: embedding, blocks of attention and MLP, and the embedding once more as output.

use gradus::lora::{Config, Grads, Lora};
use gradus::{Params, Scalar};
use ndarray::{Array1, Array2, Axis, Zip};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::arithmetic::{ANSWER, Example, LENGTH, QUESTION, VOCABULARY};
use crate::layers::{
    Learned, attention, attention_backward, gelu, gelu_backward, linear, linear_backward, normalize, normalize_backward,
};

const HEADS: usize = 4;

#[derive(Debug, Clone, Params)]
pub(crate) struct Norm<A: Scalar> {
    gain: Array1<A>,
    bias: Array1<A>,
}

#[derive(Debug, Clone, Params)]
pub(crate) struct Block<A: Scalar> {
    attention_norm: Norm<A>,
    query_key_value: Array2<A>,
    attention_output: Array2<A>,
    mlp_norm: Norm<A>,
    up: Array2<A>,
    down: Array2<A>,
}

#[derive(Debug, Clone, Params)]
pub(crate) struct Transformer<A: Scalar> {
    embedding: Array2<A>,
    positions: Array2<A>,
    blocks: Vec<Block<A>>,
    norm: Norm<A>,
}

/// Something beside each of the four matrices of every block.
#[derive(Debug, Clone, Params)]
pub(crate) struct Beside<T> {
    query_key_value: T,
    attention_output: T,
    up: T,
    down: T,
}

pub(crate) type Adapters<A> = Vec<Beside<Lora<A>>>;

/// The gradients of what learns: of the model, or of its adapters.
enum Gradients<A: Scalar> {
    Model(Box<Transformer<A>>),
    Adapters(Vec<Beside<Grads<A>>>),
}

impl<A: Scalar> Norm<A> {
    fn new(width: usize) -> Self {
        Self { gain: Array1::ones(width), bias: Array1::zeros(width) }
    }

    fn forward(&self, x: &Array2<A>) -> (Array2<A>, Normal<A>) {
        let (normal, inverse) = normalize(x);
        (&normal * &self.gain + &self.bias, Normal { normal, inverse })
    }

    fn backward(&self, kept: &Normal<A>, grad: Array2<A>) -> (Array2<A>, Self) {
        let own = Self { gain: (&grad * &kept.normal).sum_axis(Axis(0)), bias: grad.sum_axis(Axis(0)) };
        (normalize_backward(&kept.normal, &kept.inverse, grad * &self.gain), own)
    }
}

/// What the backward pass needs of a norm.
struct Normal<A> {
    normal: Array2<A>,
    inverse: Array1<A>,
}

/// What the backward pass needs of a block.
struct Kept<A> {
    attention_norm: Normal<A>,
    normal: Array2<A>,
    qkv: Array2<A>,
    weights: Vec<Array2<A>>,
    gathered: Array2<A>,
    mlp_norm: Normal<A>,
    mlp_normal: Array2<A>,
    raised: Array2<A>,
    sigmoid: Array2<A>,
    active: Array2<A>,
}

impl<A: Scalar> Block<A> {
    fn forward(&self, beside: Option<&Beside<Lora<A>>>, mut x: Array2<A>) -> (Array2<A>, Kept<A>) {
        let (normal, attention_norm) = self.attention_norm.forward(&x);
        let qkv = linear(&self.query_key_value, beside.map(|b| &b.query_key_value), &normal);
        let (gathered, weights) = attention(&qkv, HEADS);
        x += &linear(&self.attention_output, beside.map(|b| &b.attention_output), &gathered);
        let (mlp_normal, mlp_norm) = self.mlp_norm.forward(&x);
        let raised = linear(&self.up, beside.map(|b| &b.up), &mlp_normal);
        let (active, sigmoid) = gelu(&raised);
        x += &linear(&self.down, beside.map(|b| &b.down), &active);
        let kept =
            Kept { attention_norm, normal, qkv, weights, gathered, mlp_norm, mlp_normal, raised, sigmoid, active };
        (x, kept)
    }

    /// dL/dx, the gradients of the norms, and those of the four matrices or of what is beside them.
    fn backward(
        &self,
        beside: Option<&Beside<Lora<A>>>,
        kept: &Kept<A>,
        grad: Array2<A>,
    ) -> (Array2<A>, [Norm<A>; 2], Beside<Learned<A>>) {
        let (active, down) = linear_backward(&self.down, beside.map(|b| &b.down), &kept.active, &grad);
        let raised = gelu_backward(&kept.raised, &kept.sigmoid, active);
        let (normal, up) = linear_backward(&self.up, beside.map(|b| &b.up), &kept.mlp_normal, &raised);
        let (mlp, mlp_norm) = self.mlp_norm.backward(&kept.mlp_norm, normal);
        let grad = grad + mlp;
        let (gathered, attention_output) =
            linear_backward(&self.attention_output, beside.map(|b| &b.attention_output), &kept.gathered, &grad);
        let qkv = attention_backward(&kept.qkv, &kept.weights, &gathered, HEADS);
        let (normal, query_key_value) =
            linear_backward(&self.query_key_value, beside.map(|b| &b.query_key_value), &kept.normal, &qkv);
        let (attention, attention_norm) = self.attention_norm.backward(&kept.attention_norm, normal);
        (grad + attention, [attention_norm, mlp_norm], Beside { query_key_value, attention_output, up, down })
    }
}

impl<A: Scalar> Transformer<A> {
    pub(crate) fn new(width: usize, blocks: usize, rng: &mut impl Rng) -> Self {
        let mut normal = |shape: (usize, usize), deviation: f64| {
            Array2::from_shape_simple_fn(shape, || A::from_f64(deviation * rng.sample::<f64, _>(StandardNormal)))
        };
        let inward = 1.0 / (width as f64).sqrt();
        // What is added to the stream begins small, the more so the more is added.
        let outward = inward / (2.0 * blocks as f64).sqrt();
        let mut block = || Block {
            attention_norm: Norm::new(width),
            query_key_value: normal((3 * width, width), inward),
            attention_output: normal((width, width), outward),
            mlp_norm: Norm::new(width),
            up: normal((4 * width, width), inward),
            down: normal((width, 4 * width), outward / 2.0),
        };
        let blocks = (0..blocks).map(|_| block()).collect();
        let (embedding, positions) = (normal((VOCABULARY, width), inward), normal((LENGTH, width), inward));
        Self { embedding, positions, blocks, norm: Norm::new(width) }
    }

    /// An adapter beside every matrix of the blocks.
    pub(crate) fn adapters(&self, config: &Config, rng: &mut impl Rng) -> gradus::Result<Adapters<A>> {
        let mut beside = |block: &Block<A>| {
            Ok(Beside {
                query_key_value: config.adapt(&block.query_key_value, rng)?,
                attention_output: config.adapt(&block.attention_output, rng)?,
                up: config.adapt(&block.up, rng)?,
                down: config.adapt(&block.down, rng)?,
            })
        };
        self.blocks.iter().map(&mut beside).collect()
    }

    /// The logits of the answers, a row for each character, and what the backward pass needs.
    fn forward(&self, adapters: Option<&Adapters<A>>, examples: &[Example]) -> (Array2<A>, Vec<Kept<A>>, Last<A>) {
        let mut x = Array2::zeros((examples.len() * LENGTH, self.embedding.ncols()));
        let tokens = examples.iter().flat_map(|example| example.tokens.into_iter().enumerate());
        for (mut row, (place, token)) in x.rows_mut().into_iter().zip(tokens) {
            row.assign(&self.embedding.row(token));
            row += &self.positions.row(place);
        }
        let mut all = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            let (next, kept) = block.forward(adapters.map(|adapters| &adapters[number]), x);
            all.push(kept);
            x = next;
        }
        let rows: Vec<usize> = (0..examples.len()).flat_map(|text| answers(text).collect::<Vec<_>>()).collect();
        let (output, norm) = self.norm.forward(&x.select(Axis(0), &rows));
        (output.dot(&self.embedding.t()), all, Last { rows, output, norm })
    }

    /// The mean cross-entropy of the answers' characters, and its gradients.
    pub(crate) fn backward(&self, examples: &[Example]) -> (f64, Self) {
        match self.gradients(None, examples) {
            (loss, Gradients::Model(grads)) => (loss, *grads),
            (_, Gradients::Adapters(_)) => unreachable!("there are no adapters"),
        }
    }

    /// The same with adapters beside the model, and their gradients.
    pub(crate) fn backward_adapters(
        &self,
        adapters: &Adapters<A>,
        examples: &[Example],
    ) -> (f64, Vec<Beside<Grads<A>>>) {
        match self.gradients(Some(adapters), examples) {
            (loss, Gradients::Adapters(grads)) => (loss, grads),
            (_, Gradients::Model(_)) => unreachable!("there are adapters"),
        }
    }

    fn gradients(&self, adapters: Option<&Adapters<A>>, examples: &[Example]) -> (f64, Gradients<A>) {
        let (logits, kept, last) = self.forward(adapters, examples);
        let (loss, grad) = cross_entropy(logits, examples);
        let mut embedding = grad.t().dot(&last.output);
        let (output, norm) = self.norm.backward(&last.norm, grad.dot(&self.embedding));
        let mut x = Array2::zeros((examples.len() * LENGTH, self.embedding.ncols()));
        last.rows.iter().zip(output.rows()).for_each(|(row, grad)| x.row_mut(*row).assign(&grad));

        let (mut blocks, mut besides) = (Vec::new(), Vec::new());
        for (number, (block, kept)) in self.blocks.iter().zip(&kept).enumerate().rev() {
            let (next, [attention_norm, mlp_norm], learned) =
                block.backward(adapters.map(|adapters| &adapters[number]), kept, x);
            x = next;
            match learned {
                Beside {
                    query_key_value: Learned::Weight(query_key_value),
                    attention_output: Learned::Weight(attention_output),
                    up: Learned::Weight(up),
                    down: Learned::Weight(down),
                } => blocks.push(Block { attention_norm, query_key_value, attention_output, mlp_norm, up, down }),
                Beside {
                    query_key_value: Learned::Adapter(query_key_value),
                    attention_output: Learned::Adapter(attention_output),
                    up: Learned::Adapter(up),
                    down: Learned::Adapter(down),
                } => besides.push(Beside { query_key_value, attention_output, up, down }),
                _ => unreachable!("all have an adapter, or none has"),
            }
        }
        if adapters.is_some() {
            besides.reverse();
            return (loss, Gradients::Adapters(besides));
        }
        blocks.reverse();
        let mut positions = Array2::zeros(self.positions.dim());
        let tokens = examples.iter().flat_map(|example| example.tokens.into_iter().enumerate());
        for (grad, (place, token)) in x.rows().into_iter().zip(tokens) {
            embedding.row_mut(token).zip_mut_with(&grad, |own, grad| *own += *grad);
            positions.row_mut(place).zip_mut_with(&grad, |own, grad| *own += *grad);
        }
        (loss, Gradients::Model(Box::new(Self { embedding, positions, blocks, norm })))
    }

    /// The share of examples whose answer is right to the last character. As each character is right only after those before
    /// it, it does not matter that the model reads the right ones.
    pub(crate) fn accuracy(&self, adapters: Option<&Adapters<A>>, examples: &[Example]) -> f64 {
        let is_right = |logits: &Array2<A>, at: usize, digit: usize| {
            let row = logits.row(at);
            row.iter().all(|other| *other <= row[digit])
        };
        let right: usize = examples
            .chunks(500)
            .map(|examples| {
                let (logits, _, _) = self.forward(adapters, examples);
                let all = |(text, example): &(usize, &Example)| {
                    example.answer.iter().enumerate().all(|(at, digit)| is_right(&logits, text * ANSWER + at, *digit))
                };
                examples.iter().enumerate().filter(all).count()
            })
            .sum();
        right as f64 / examples.len() as f64
    }
}

/// What the backward pass needs of the end of the model.
struct Last<A> {
    rows: Vec<usize>,
    output: Array2<A>,
    norm: Normal<A>,
}

/// The rows from which a text's answer is predicted.
fn answers(text: usize) -> std::ops::Range<usize> {
    text * LENGTH + QUESTION - 1..(text + 1) * LENGTH
}

/// The mean loss, and its gradient in the place of the logits.
fn cross_entropy<A: Scalar>(mut logits: Array2<A>, examples: &[Example]) -> (f64, Array2<A>) {
    let count = logits.nrows() as f64;
    let mut loss = 0.0;
    let answers = examples.iter().flat_map(|example| example.answer);
    for (mut row, answer) in logits.rows_mut().into_iter().zip(answers) {
        let most = row.iter().fold(A::neg_infinity(), |most, x| most.max(*x));
        row.mapv_inplace(|x| (x - most).exp());
        let sum = row.sum();
        row.mapv_inplace(|x| x / sum);
        loss -= row[answer].as_f64().max(1e-30).ln() / count;
        row[answer] -= A::one();
    }
    Zip::from(&mut logits).for_each(|x| *x *= A::from_f64(1.0 / count));
    (loss, logits)
}
