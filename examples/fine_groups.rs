//! Parameter groups, freezing and routing: different settings for different tensors, chosen by name.
//!
//! A small text model is fine-tuned. It averages the token embeddings of a sentence, applies a layer norm and a hidden layer (the body), and a
//! linear head says which of four topics the sentence is about. Each part below trains a copy of the model in one way, and asserts the effect:
//!
//! | | one line |
//! |---|---|
//! | no weight decay for biases and norms | `.group(["**.bias", "**.norm.*"], Group::no_decay())` |
//! | a tenth of the learning rate below the head | `.group(["embedding", "body.**"], Group::new().scale_learning_rate(0.1))` |
//! | freeze, and unfreeze later | `.freeze("body.**")` … `opt.unfreeze("**")` |
//! | another optimizer for the embeddings | `.route("embedding", Sgd::new(2.0))` |
//!
//! ```sh
//! cargo run --release --example fine_groups
//! ```

use std::error::Error;

use gradus::check;
use gradus::params::Layout;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::{Array1, Array2, Axis, Zip};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOCABULARY: usize = 200;
const TOPICS: usize = 4;
const WIDTH: usize = 16;
const WORDS: usize = 12;
const BATCH: usize = 32;
const STEPS: usize = 300;
const LEARNING_RATE: f64 = 0.02;

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut model = Model::new(&mut rng);
    let data = Data { train: sentences(STEPS, &mut rng), test: sentences(20, &mut rng) };

    let (batch, (_, grads)) = (&data.train[0], model.backward(&data.train[0]));
    let found = check::gradients(&mut model, &grads, |model| model.forward(batch).loss(batch))?;
    println!("{found}\n");
    assert!(found.worst_error() < 1e-6, "the backward pass is not that of the loss");

    println!("{:<24} shape", "tensor");
    for tensor in Layout::of(&model)?.tensors() {
        println!("{:<24} {:?}", tensor.path(), tensor.shape());
    }
    println!("\n{:<42} {:>10} {:>10}", "", "test loss", "accuracy");
    let rows = [
        ("untrained", model.clone()),
        ("no decay on biases and norms", no_decay(&model, &data)?),
        ("a ten times smaller rate below the head", discriminative(&model, &data)?),
        ("body frozen", frozen(&model, &data)?),
        ("body frozen, then thawed", thawed(&model, &data)?),
        ("embeddings to SGD, the rest to AdamW", routed(&model, &data)?),
        ("all of it", all_of_it(&model, &data)?),
    ];
    for (name, model) in &rows {
        let (loss, accuracy) = data.test(model);
        println!("{name:<42} {loss:>10.4} {:>8.1} %", 100.0 * accuracy);
    }
    let [(_, untrained), trained @ ..] = &rows;
    assert!(data.test(untrained).1 < 0.5);
    assert!(trained.iter().all(|(_, model)| data.test(model).1 > 0.9), "every treatment learns the task");
    Ok(())
}

/// What a bias or a gain does is no matter of size: only matrices decay.
fn no_decay(model: &Model, data: &Data) -> Result<Model, Box<dyn Error>> {
    let decaying = || AdamW::new(LEARNING_RATE).weight_decay(0.1);

    // One step with a decay of 0.1 in the group's way and one without any decay, from the same start.
    let (_, grads) = model.backward(&data.train[0]);
    let (mut grouped, mut undecayed) = (model.clone(), model.clone());
    decaying().group(["**.bias", "**.norm.*"], Group::no_decay()).step(&mut grouped, &grads)?;
    AdamW::new(LEARNING_RATE).weight_decay(0.0).step(&mut undecayed, &grads)?;
    assert_eq!(grouped.head.bias, undecayed.head.bias);
    assert_eq!(grouped.body.hidden.bias, undecayed.body.hidden.bias);
    assert_eq!(grouped.body.norm, undecayed.body.norm);
    let decayed = 1.0 - LEARNING_RATE * 0.1;
    for (start, grouped, undecayed) in [
        (&model.embedding, &grouped.embedding, &undecayed.embedding),
        (&model.body.hidden.weight, &grouped.body.hidden.weight, &undecayed.body.hidden.weight),
        (&model.head.weight, &grouped.head.weight, &undecayed.head.weight),
    ] {
        assert!(distance(&(undecayed - grouped), &(start * (1.0 - decayed))) < 1e-15, "every matrix decays");
    }

    let mut trained = model.clone();
    data.train(&mut trained, &mut decaying().group(["**.bias", "**.norm.*"], Group::no_decay()))?;
    Ok(trained)
}

/// What has been trained before moves slowly, the new head fast.
fn discriminative(model: &Model, data: &Data) -> Result<Model, Box<dyn Error>> {
    let mut opt = Adam::new(LEARNING_RATE).group(["embedding", "body.**"], Group::new().scale_learning_rate(0.1));

    // Adam's first step is as long as its learning rate, but for ε, in every element that has a gradient.
    let mut trained = model.clone();
    let (_, grads) = trained.backward(&data.train[0]);
    opt.step(&mut trained, &grads)?;
    let is = |distance: f64, expected: f64| (distance / expected - 1.0).abs() < 1e-4;
    assert!(is(distance(&trained.head.weight, &model.head.weight), LEARNING_RATE));
    assert!(is(distance(&trained.body.hidden.weight, &model.body.hidden.weight), LEARNING_RATE / 10.0));
    assert!(is(distance(&trained.embedding, &model.embedding), LEARNING_RATE / 10.0));

    data.train(&mut trained, &mut opt)?;
    Ok(trained)
}

/// Only embedding and head learn.
fn frozen(model: &Model, data: &Data) -> Result<Model, Box<dyn Error>> {
    let mut opt = AdamW::new(LEARNING_RATE).freeze("body.**");
    let mut trained = model.clone();
    data.train(&mut trained, &mut opt)?;
    assert_eq!(trained.body, model.body, "bit for bit");
    assert!(opt.inner().slot("body.hidden.weight", "exp_avg").is_none(), "no state for what does not move");
    assert!(opt.inner().slot("head.weight", "exp_avg").is_some());
    Ok(trained)
}

/// The head first, then everything.
fn thawed(model: &Model, data: &Data) -> Result<Model, Box<dyn Error>> {
    let mut opt = AdamW::new(LEARNING_RATE).freeze("body.**");
    let mut trained = model.clone();
    data.train(&mut trained, &mut opt)?;
    opt.unfreeze("**")?;
    data.train(&mut trained, &mut opt)?;
    assert_ne!(trained.body, model.body);
    // Bias correction counts the steps of each tensor: the body's moments are as young as they are.
    assert_eq!(opt.inner().tensor_steps("head.weight"), 2 * STEPS as u64);
    assert_eq!(opt.inner().tensor_steps("body.hidden.weight"), STEPS as u64);
    Ok(trained)
}

/// A sentence touches few embeddings: without moments the others stay where they are, and cost no memory.
fn routed(model: &Model, data: &Data) -> Result<Model, Box<dyn Error>> {
    let mut opt = AdamW::new(LEARNING_RATE).route("embedding", Sgd::new(2.0));

    let (mut trained, mut by_adamw) = (model.clone(), model.clone());
    let (_, grads) = model.backward(&data.train[0]);
    opt.step(&mut trained, &grads)?;
    AdamW::new(LEARNING_RATE).step(&mut by_adamw, &grads)?;
    assert_eq!(trained.embedding, &model.embedding - 2.0 * &grads.embedding);
    assert_eq!((&trained.body, &trained.head), (&by_adamw.body, &by_adamw.head));

    data.train(&mut trained, &mut opt)?;
    Ok(trained)
}

/// Adaptors wrap from the inside out: what is given last sees the gradient first. So clipping stands before `freeze`:
/// it measures what moves.
fn all_of_it(model: &Model, data: &Data) -> Result<Model, Box<dyn Error>> {
    let schedule = Cosine::new(LEARNING_RATE, STEPS as u64 - 20).warmup(20);
    let mut opt = AdamW::new(schedule.clone())
        .route("embedding", Sgd::new(schedule.scale(100.0)))
        .group(["**.bias", "**.norm.*"], Group::no_decay())
        .group("body.**", Group::new().scale_learning_rate(0.1))
        .clip_global_norm(1.0)
        .freeze("body.norm.*");
    let mut trained = model.clone();
    data.train(&mut trained, &mut opt)?;
    assert_eq!(trained.body.norm, model.body.norm);

    // A misspelt name does not pass silently.
    let (_, grads) = model.backward(&data.train[0]);
    let error = AdamW::new(LEARNING_RATE).freeze("boby.**").step(&mut trained, &grads);
    assert!(matches!(error, Err(gradus::Error::Step(gradus::error::StepError::PatternUnmatched { .. }))));
    Ok(trained)
}

/// The largest difference.
fn distance(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    (a - b).into_iter().map(f64::abs).max_by(f64::total_cmp).unwrap_or(0.0)
}

#[derive(Params, Clone)]
struct Model {
    embedding: Array2<f64>,
    body: Body,
    head: Linear,
}

#[derive(Params, Clone, Debug, PartialEq)]
struct Body {
    norm: Norm,
    hidden: Linear,
}

#[derive(Params, Clone, Debug, PartialEq)]
struct Norm {
    gain: Array1<f64>,
    bias: Array1<f64>,
}

#[derive(Params, Clone, Debug, PartialEq)]
struct Linear {
    weight: Array2<f64>,
    bias: Array1<f64>,
}

/// Sentences of equal length and their topics.
struct Batch {
    words: Vec<[usize; WORDS]>,
    topics: Vec<usize>,
}

struct Data {
    train: Vec<Batch>,
    test: Vec<Batch>,
}

impl Data {
    fn train(&self, model: &mut Model, opt: &mut dyn Optimizer<f64>) -> gradus::Result<()> {
        self.train.iter().try_for_each(|batch| {
            let (_, grads) = model.backward(batch);
            opt.step(model, &grads).map(drop)
        })
    }

    /// Mean loss and accuracy on the test sentences.
    fn test(&self, model: &Model) -> (f64, f64) {
        let (mut loss, mut right) = (0.0, 0.0);
        for batch in &self.test {
            let forward = model.forward(batch);
            loss += forward.loss(batch);
            let answers = forward.probabilities.outer_iter().map(|row| argmax(row.iter()));
            right += answers.zip(&batch.topics).filter(|(answer, topic)| answer == *topic).count() as f64;
        }
        (loss / self.test.len() as f64, right / (self.test.len() * BATCH) as f64)
    }
}

fn argmax<'a>(values: impl Iterator<Item = &'a f64>) -> usize {
    values.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(index, _)| index)
}

/// Every word belongs to a topic; in a sentence half of the words are about its own.
fn sentences(batches: usize, rng: &mut impl Rng) -> Vec<Batch> {
    let mut sentence = |topic: usize| {
        let about = VOCABULARY / TOPICS;
        std::array::from_fn(|_| match rng.random_bool(0.5) {
            true => topic + TOPICS * rng.random_range(0..about),
            false => rng.random_range(0..VOCABULARY),
        })
    };
    let mut batch = || {
        let topics: Vec<_> = (0..BATCH).map(|sentence| sentence % TOPICS).collect();
        Batch { words: topics.iter().map(|&topic| sentence(topic)).collect(), topics }
    };
    (0..batches).map(|_| batch()).collect()
}

/// What the backward pass needs of the forward pass.
struct Forward {
    normalized: Array2<f64>,
    deviation: Array1<f64>,
    scaled: Array2<f64>,
    hidden: Array2<f64>,
    probabilities: Array2<f64>,
}

impl Forward {
    /// Mean cross-entropy.
    fn loss(&self, batch: &Batch) -> f64 {
        let rows = self.probabilities.outer_iter().zip(&batch.topics);
        rows.map(|(row, &topic)| -row[topic].ln()).sum::<f64>() / BATCH as f64
    }
}

impl Linear {
    fn new(outputs: usize, inputs: usize, rng: &mut impl Rng) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = Array2::from_shape_simple_fn((outputs, inputs), || rng.random_range(-bound..bound));
        Self { weight, bias: Array1::zeros(outputs) }
    }

    fn forward(&self, inputs: &Array2<f64>) -> Array2<f64> {
        inputs.dot(&self.weight.t()) + &self.bias
    }

    /// The gradients of the inputs and of the layer, from that of the outputs.
    fn backward(&self, inputs: &Array2<f64>, outputs: &Array2<f64>) -> (Array2<f64>, Self) {
        let grads = Self { weight: outputs.t().dot(inputs), bias: outputs.sum_axis(Axis(0)) };
        (outputs.dot(&self.weight), grads)
    }
}

impl Model {
    fn new(rng: &mut impl Rng) -> Self {
        Self {
            embedding: Array2::from_shape_simple_fn((VOCABULARY, WIDTH), || rng.random_range(-1.0..1.0)),
            body: Body {
                norm: Norm { gain: Array1::ones(WIDTH), bias: Array1::zeros(WIDTH) },
                hidden: Linear::new(WIDTH, WIDTH, rng),
            },
            head: Linear::new(TOPICS, WIDTH, rng),
        }
    }

    fn forward(&self, batch: &Batch) -> Forward {
        let mut normalized = Array2::zeros((BATCH, WIDTH));
        for (mut mean, words) in normalized.outer_iter_mut().zip(&batch.words) {
            words.iter().for_each(|&word| mean.scaled_add(1.0 / WORDS as f64, &self.embedding.row(word)));
            let center = mean.mean().unwrap_or(0.0);
            mean -= center;
        }
        let deviation = normalized.map_axis(Axis(1), |row| (row.dot(&row) / WIDTH as f64 + 1e-5).sqrt());
        normalized /= &deviation.view().insert_axis(Axis(1));
        let scaled = &normalized * &self.body.norm.gain + &self.body.norm.bias;
        let hidden = self.body.hidden.forward(&scaled).mapv_into(f64::tanh);
        let mut probabilities = self.head.forward(&hidden).mapv_into(f64::exp);
        probabilities /= &probabilities.sum_axis(Axis(1)).insert_axis(Axis(1));
        Forward { normalized, deviation, scaled, hidden, probabilities }
    }

    /// The loss and its gradient.
    fn backward(&self, batch: &Batch) -> (f64, Self) {
        let forward = self.forward(batch);
        let loss = forward.loss(batch);
        let mut flow = forward.probabilities / BATCH as f64;
        flow.outer_iter_mut().zip(&batch.topics).for_each(|(mut row, &topic)| row[topic] -= 1.0 / BATCH as f64);
        let (mut flow, head) = self.head.backward(&forward.hidden, &flow);
        Zip::from(&mut flow).and(&forward.hidden).for_each(|flow, hidden| *flow *= 1.0 - hidden * hidden);
        let (flow, hidden) = self.body.hidden.backward(&forward.scaled, &flow);

        let norm = Norm { gain: (&flow * &forward.normalized).sum_axis(Axis(0)), bias: flow.sum_axis(Axis(0)) };
        let flow = flow * &self.body.norm.gain;
        let along = (&flow * &forward.normalized).sum_axis(Axis(1)).insert_axis(Axis(1)) / WIDTH as f64;
        let mean = flow.sum_axis(Axis(1)).insert_axis(Axis(1)) / WIDTH as f64;
        let flow = (flow - &mean - &forward.normalized * &along) / &forward.deviation.insert_axis(Axis(1));

        let mut embedding = Array2::zeros(self.embedding.raw_dim());
        for (flow, words) in flow.outer_iter().zip(&batch.words) {
            words.iter().for_each(|&word| embedding.row_mut(word).scaled_add(1.0 / WORDS as f64, &flow));
        }
        (loss, Self { embedding, body: Body { norm, hidden }, head })
    }
}
