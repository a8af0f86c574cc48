//! Embeddings: a recommender learns a vector for each user and each film, from gradients of rows.
//!
//! A rating is predicted as `μ + b(user) + c(film) + p(user) · q(film)`: matrix factorization (Koren, Bell and Volinsky, 2009). A batch of 512
//! ratings uses at most 512 rows of the tables of vectors and of biases, and only these rows have a gradient. The backward pass writes it down
//! as it comes, one row per rating, in [`Rows`]; rows that occur several times are added up by the step.
//!
//! The second run has the same gradients in full, with zeros for all other rows. Adam then moves every row in every step, along moments that
//! decay, and its step takes longer the larger the tables are.
//!
//! ```sh
//! cargo run --release --example embedding
//! ```

use std::time::{Duration, Instant};

use gradus::prelude::*;
use gradus::schedule::Linear;
use ndarray::{Array1, Array2, ArrayView2, Ix1, Zip};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const USERS: usize = 10_000;
const FILMS: usize = 1_000;
const WIDTH: usize = 4;
const RATINGS: usize = 600_000;
const TESTED: usize = 20_000;
const BATCH: usize = 512;
/// The largest error of a rating that nobody can predict.
const NOISE: f32 = 0.3;

/// The tables: a row for each user, and one for each film.
#[derive(Params)]
struct Model {
    users: Array2<f32>,
    films: Array2<f32>,
    user_bias: Array1<f32>,
    film_bias: Array1<f32>,
}

/// The gradients: a row for each rating of a batch. They are only read, so they need no `ParamsMut`.
#[derive(Params)]
#[params(read_only)]
struct Grads {
    users: Rows<f32>,
    films: Rows<f32>,
    user_bias: Rows<f32, Ix1>,
    film_bias: Rows<f32, Ix1>,
}

struct Rating {
    user: usize,
    film: usize,
    value: f32,
}

impl Model {
    fn new(size: f32, rng: &mut ChaCha8Rng) -> Self {
        let mut table = |rows| Array2::from_shape_simple_fn((rows, WIDTH), || rng.random_range(-size..size));
        let (users, films) = (table(USERS), table(FILMS));
        let mut biases = |rows| Array1::from_shape_simple_fn(rows, || rng.random_range(-size..size));
        Self { users, films, user_bias: biases(USERS), film_bias: biases(FILMS) }
    }

    fn rate(&self, user: usize, film: usize) -> f32 {
        self.user_bias[user] + self.film_bias[film] + self.users.row(user).dot(&self.films.row(film))
    }

    /// The gradient of half the mean squared error of a batch.
    fn backward(&self, batch: &[Rating]) -> Grads {
        let users: Vec<usize> = batch.iter().map(|rating| rating.user).collect();
        let films: Vec<usize> = batch.iter().map(|rating| rating.film).collect();
        let error = |rating: &Rating| (self.rate(rating.user, rating.film) - rating.value) / batch.len() as f32;
        let errors: Array1<f32> = batch.iter().map(error).collect();
        let times = |table: ArrayView2<'_, f32>, rows: &[usize]| {
            let mut values = table.select(ndarray::Axis(0), rows);
            Zip::from(values.rows_mut()).and(&errors).for_each(|mut row, error| row *= *error);
            values
        };
        Grads {
            users: Rows::new(users.clone(), times(self.films.view(), &films)),
            films: Rows::new(films.clone(), times(self.users.view(), &users)),
            user_bias: Rows::new(users, errors.clone()),
            film_bias: Rows::new(films, errors),
        }
    }

    /// The root of the mean squared error.
    fn error(&self, ratings: &[Rating]) -> f32 {
        let squares = ratings.iter().map(|rating| (self.rate(rating.user, rating.film) - rating.value).powi(2));
        (squares.sum::<f32>() / ratings.len() as f32).sqrt()
    }
}

impl Grads {
    /// The same in full, or `None` if a row is not there.
    fn to_dense(&self) -> Option<Model> {
        Some(Model {
            users: self.users.to_dense(USERS)?,
            films: self.films.to_dense(FILMS)?,
            user_bias: self.user_bias.to_dense(USERS)?,
            film_bias: self.film_bias.to_dense(FILMS)?,
        })
    }
}

fn main() -> gradus::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let truth = Model::new(1.0, &mut rng);
    let ratings: Vec<Rating> = (0..RATINGS + TESTED)
        .map(|_| {
            let (user, film) = (rng.random_range(0..USERS), rng.random_range(0..FILMS));
            Rating { user, film, value: truth.rate(user, film) + rng.random_range(-NOISE..NOISE) }
        })
        .collect();
    let (test, train) = ratings.split_at(TESTED);
    let steps = train.len().div_ceil(BATCH) as u64;

    println!("{USERS} users, {FILMS} films, {RATINGS} ratings; error of {TESTED} other ratings\n");
    println!("| gradient | before | after | microseconds per step |\n|---|---|---|---|");
    let mut error = f32::INFINITY;
    for (name, passes, dense) in [("rows", 4, false), ("in full, 300 steps", 1, true)] {
        let mut model = Model::new(0.3, &mut ChaCha8Rng::seed_from_u64(1));
        let before = model.error(test);
        let mut opt = Adam::new(Linear::new(0.1, 0.001, passes * steps)).clip_global_norm(1.0);
        let (mut spent, mut count) = (Duration::ZERO, 0);
        let batches = (0..passes).flat_map(|_| train.chunks(BATCH));
        for batch in batches.take(if dense { 300 } else { usize::MAX }) {
            let grads = model.backward(batch);
            let full = if dense { grads.to_dense() } else { None };
            let start = Instant::now();
            match &full {
                Some(full) => opt.step(&mut model, full)?,
                None => opt.step(&mut model, &grads)?,
            };
            spent += start.elapsed();
            count += 1;
        }
        let (after, micros) = (model.error(test), spent.as_secs_f64() * 1e6 / f64::from(count));
        println!("| {name} | {before:.3} | {after:.3} | {micros:.0} |");
        error = error.min(after);
    }
    // Uniform noise has the standard deviation NOISE/√3; what is left comes from the finite number of ratings.
    let noise = NOISE / 3.0_f32.sqrt();
    println!("\nthe noise alone: {noise:.3}");
    assert!(error < 1.25 * noise, "the vectors were not learned");
    Ok(())
}
