//! What a rank does. It does not know whether it is a thread or a process.

use std::time::{Duration, Instant};

use gradus::distributed::Collective;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::data::{Digits, Images};
use super::model::Mlp;

pub(crate) const SEED: u64 = 7;
const EPOCHS: usize = 30;
/// Of all ranks together.
const BATCH: usize = 64;
const HIDDEN: usize = 64;
const TARGET_ACCURACY: f64 = 0.96;

/// The sums over a batch are rounded in another order. The differences, of 1e-8 in a step, have come to 3e-7 at the end.
const TOLERANCE: f32 = 1e-5;

/// What a training leaves behind.
struct End {
    model: Mlp,
    loss: f32,
    accuracy: f64,
    time: Duration,
}

/// Trains with the group and, on rank 0, without, and compares.
pub(crate) fn run(group: &impl Collective<f32>, digits: &Digits) -> gradus::Result<()> {
    let (rank, size) = (group.rank(), group.size());
    assert!(BATCH.is_multiple_of(size), "a batch of {BATCH} makes no {size} equal parts");
    let mut opt = adamw(digits).data_parallel(group);
    let together = train(&mut opt, digits, rank, size)?;

    let own = values(&together.model);
    let mut all = vec![0.0; own.len() * size];
    group.all_gather(&own, &mut all)?;
    for other in all.chunks(own.len()) {
        assert!(own.iter().zip(other).all(|(own, other)| own.to_bits() == other.to_bits()), "rank {rank} differs");
    }

    if rank == 0 {
        let alone = train(&mut adamw(digits), digits, 0, 1)?;
        println!("{:<10} {:>10} {:>14} {:>8} {:>14}", "", "train loss", "test accuracy", "time", "sent, a rank");
        for (name, end, sent) in [("alone", &alone, 0), ("together", &together, opt.traffic().total)] {
            let End { loss, accuracy, time, .. } = end;
            let (percent, seconds, megabytes) = (100.0 * accuracy, time.as_secs_f64(), sent as f64 / 1e6);
            println!("{name:<10} {loss:>10.6} {percent:>12.2} % {seconds:>6.2} s {megabytes:>11.1} MB");
        }
        let distances = own.iter().zip(values(&alone.model)).map(|(own, other)| (own - other).abs());
        let farthest = distances.fold(0.0, f32::max);
        println!(
            "\n{size} ranks, the same bits on each; no parameter is farther than {farthest:.1e} from its value alone"
        );
        assert!(farthest < TOLERANCE, "the parameters are others: {farthest:e}");
        assert!((together.loss - alone.loss).abs() < TOLERANCE, "{} where one has {}", together.loss, alone.loss);
        assert!(together.accuracy >= TARGET_ACCURACY, "only {:.4} are read right", together.accuracy);
    }
    group.barrier()
}

fn adamw(digits: &Digits) -> impl Optimizer<f32> + use<> {
    let steps = (EPOCHS * (digits.train.len() / BATCH)) as u64;
    AdamW::new(Cosine::new(5e-3, steps - steps / 20).warmup(steps / 20)).clip_global_norm(1.0)
}

/// Trains on the part of every batch that is this rank's. All ranks draw the same batches.
fn train(opt: &mut impl Optimizer<f32>, digits: &Digits, rank: usize, size: usize) -> gradus::Result<End> {
    let start = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut model = Mlp::new(HIDDEN, &mut rng);
    let Images { pixels, labels } = &digits.train;
    let mut order: Vec<usize> = (0..labels.len()).collect();
    for _ in 0..EPOCHS {
        order.shuffle(&mut rng);
        for batch in order.chunks_exact(BATCH) {
            let part = &batch[rank * BATCH / size..][..BATCH / size];
            let (_, grads) = model.backward(&pixels.select(Axis(0), part), &labels.select(Axis(0), part));
            opt.step(&mut model, &grads)?;
        }
    }
    let time = start.elapsed();
    let (loss, _) = model.backward(pixels, labels);
    Ok(End { loss, accuracy: model.accuracy(&digits.test), time, model })
}

fn values(model: &Mlp) -> Vec<f32> {
    let layers = [&model.hidden, &model.output];
    layers.into_iter().flat_map(|layer| layer.weight.iter().chain(&layer.bias).copied()).collect()
}
