//! Gradients by hand: the model and the backward pass of the example `digits`.

use std::error::Error;

use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::Mlp;
use crate::{Batch, HIDDEN, optimizer};

pub(crate) fn train(start: &Checkpoint, batches: &[Batch], bar: &ProgressBar) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut model = Mlp::new(HIDDEN, &mut ChaCha8Rng::seed_from_u64(0));
    start.load_params(&mut model)?;
    let mut opt = optimizer(batches.len());

    let mut losses = Vec::new();
    for Batch { pixels, labels } in batches {
        let (loss, grads) = model.backward(pixels, labels);
        opt.step(&mut model, &grads)?;
        losses.push(loss);
        bar.inc(1);
    }
    Ok(losses)
}
