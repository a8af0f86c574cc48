//! The owners of the images, and four ways in which they train.

use std::sync::{Arc, Mutex, PoisonError};

use gradus::LinearTap;
use gradus::federated::privacy::{GaussianMechanism, PerExample, noise_for};
use gradus::federated::{Client, Failure, Task, Update};
use gradus::prelude::*;
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::data::Images;
use super::model::{Mlp, Signals};
use super::{EPSILON, ROUNDS};

const PASSES: usize = 5;
const BATCH: usize = 16;
const RATE: f64 = 0.1;
/// The pull of FedProx.
const MU: f64 = 0.1;

/// Private clients take few steps a round on all their images: noise is the same for many images as for few.
const PRIVATE_STEPS: usize = 2;
const PRIVATE_RATE: f64 = 0.5;
/// The largest norm of one image's gradient.
const CLIP: f64 = 1.0;
pub(crate) const DELTA: f64 = 1e-5;

/// The most privacy that any client has spent.
#[derive(Clone, Default)]
pub(crate) struct Spent(Arc<Mutex<Option<f64>>>);

impl Spent {
    pub(crate) fn get(&self) -> Option<f64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, epsilon: f64) {
        let mut most = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *most = Some(most.map_or(epsilon, |most| most.max(epsilon)));
    }
}

/// Some images, and the chance in which order they are looked at.
pub(crate) struct Owner {
    images: Images,
    rng: ChaCha8Rng,
}

impl Owner {
    /// The images, shared out: owner k has half of all images of the digit k and half of those of the next.
    pub(crate) fn of_two_digits(images: &Images, owners: usize, seed: u64) -> Vec<Self> {
        let own = |owner: usize| {
            let half = |digit: usize, odd: usize| {
                let of_digit = images.labels.iter().enumerate().filter(move |(_, label)| **label == digit);
                of_digit.map(|(row, _)| row).skip(odd).step_by(2)
            };
            let rows: Vec<_> = half(owner, 0).chain(half((owner + 1) % owners, 1)).collect();
            let (pixels, labels) = (images.pixels.select(Axis(0), &rows), images.labels.select(Axis(0), &rows));
            Self { images: Images { pixels, labels }, rng: ChaCha8Rng::seed_from_u64(seed + owner as u64) }
        };
        (0..owners).map(own).collect()
    }

    fn examples(&self) -> f64 {
        self.images.len() as f64
    }

    /// The training loop that the owner has anyhow.
    fn train(&mut self, model: &mut Mlp, opt: &mut impl Optimizer<f32>) -> gradus::Result<()> {
        let mut order: Vec<usize> = (0..self.images.len()).collect();
        for _ in 0..PASSES {
            order.shuffle(&mut self.rng);
            for batch in order.chunks(BATCH) {
                let (x, y) = (self.images.pixels.select(Axis(0), batch), self.images.labels.select(Axis(0), batch));
                let (_, grads) = model.backward(&x, &y);
                opt.step(model, &grads)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn plain(mut owner: Owner) -> Box<dyn Client<Mlp>> {
    Box::new(move |task: &Task<Mlp>| {
        let mut model = task.model().clone();
        owner.train(&mut model, &mut Sgd::new(RATE))?;
        Ok::<_, Failure>(Update::new(model, owner.examples()))
    })
}

pub(crate) fn proximal(mut owner: Owner) -> Box<dyn Client<Mlp>> {
    let mut opt = Sgd::new(RATE).proximal(MU);
    Box::new(move |task: &Task<Mlp>| {
        let mut model = task.model().clone();
        opt.begin_round(task)?;
        owner.train(&mut model, &mut opt)?;
        Ok::<_, Failure>(Update::new(model, owner.examples()))
    })
}

pub(crate) fn scaffold(mut owner: Owner) -> Box<dyn Client<Mlp>> {
    let mut opt = Sgd::new(RATE).scaffold();
    Box::new(move |task: &Task<Mlp>| {
        let mut model = task.model().clone();
        opt.begin_round(task)?;
        owner.train(&mut model, &mut opt)?;
        let control = opt.end_round(&model)?;
        Ok::<_, Failure>(Update::new(model, owner.examples()).with_control(control))
    })
}

/// Every image's gradient is limited and their sum is noisy: DP-SGD on all images of the owner.
///
/// How many those are is public: it is what the noisy sum is divided by. The answer weighs 1, as everybody's, for a weight by their
/// number would tell it once more, and to everyone who sees the mean.
pub(crate) fn private(owner: Owner, spent: &Spent) -> Box<dyn Client<Mlp>> {
    let (spent, images) = (spent.clone(), owner.images);
    let mechanism = noise_for(EPSILON, DELTA, 1.0, (ROUNDS * PRIVATE_STEPS) as u64)
        .and_then(|noise| GaussianMechanism::new(CLIP, noise, 1.0, images.len()));
    let mut mechanism = mechanism.map_err(|error| error.to_string());
    Box::new(move |task: &Task<Mlp>| {
        let mechanism = mechanism.as_mut().map_err(|error| error.clone())?;
        let (mut model, mut opt) = (task.model().clone(), Sgd::new(PRIVATE_RATE));
        for _ in 0..PRIVATE_STEPS {
            let Signals { hidden, hidden_delta, output_delta, .. } = model.signals(&images.pixels, &images.labels);
            let taps = PerExample::new()
                .layer("hidden", LinearTap::new(&images.pixels, &hidden_delta))?
                .layer("output", LinearTap::new(&hidden, &output_delta))?;
            let mut grads = taps.clip(mechanism.clip())?.grads;
            mechanism.finish(&mut grads)?;
            opt.step(&mut model, &grads)?;
        }
        spent.raise(mechanism.epsilon(DELTA)?.epsilon);
        Ok::<_, Failure>(Update::new(model, 1.0))
    })
}
