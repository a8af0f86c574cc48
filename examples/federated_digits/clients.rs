//! The owners of the images, and three ways in which they train.

use gradus::federated::{Client, Failure, Task, Update};
use gradus::prelude::*;
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::data::Images;
use super::model::Mlp;

const PASSES: usize = 5;
const BATCH: usize = 16;
const RATE: f64 = 0.1;
/// The pull of FedProx.
const MU: f64 = 0.1;

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
