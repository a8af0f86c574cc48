//! Pre-training with 16 bits per parameter and 4 per number of the optimizer's state, without f32 copies of the parameters.

use gradus::params::{Layout, for_each, for_each_mut};
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::Cosine;
use half::bf16;
use ndarray::ArrayD;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::arithmetic::{Example, batch};
use crate::{BLOCKS, Model, Result, TEXTS, WIDTH, progress};

/// Of parameters and state together.
const BYTES_A_PARAMETER: f64 = 4.0;

/// Of the accuracy on held-out sums, in points.
const TOLERANCE: f64 = 0.5;

/// The tensors of the model, as they are kept from step to step.
type Kept = Vec<ArrayD<bf16>>;

fn keep(model: &Model) -> Kept {
    let mut kept = Kept::new();
    for_each(model, |_, shape, values| {
        kept.extend(values.map(|values| values.view(shape).mapv(bf16::from_f32)));
    });
    kept
}

/// The model computes in f32.
fn widen(kept: &Kept, model: &mut Model) {
    let mut tensors = kept.iter();
    for_each_mut(model, |_, shape, values| {
        let (Some(mut values), Some(tensor)) = (values, tensors.next()) else { return };
        values.view_mut(shape).zip_mut_with(tensor, |wide, kept| *wide = kept.to_f32());
    });
}

/// Trains from the same start and on the same texts as the model in f32.
pub(crate) fn compare(steps: u64, full: f64, examples: &[Example], held_out: &[Example]) -> Result<()> {
    let rate = Cosine::new(4e-3, steps - steps / 10).warmup(steps / 10);
    println!("\n| parameters, state | bytes per parameter | held-out sums |\n|---|---|---|");
    println!("| f32, f32 | 12.00 | {:.1} % |", 100.0 * full);
    let precision = StatePrecision::Blockwise4(Rounding::Stochastic);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut model = Model::new(WIDTH, BLOCKS, &mut rng);
    let mut kept = keep(&model);
    let mut opt = AdamW::new(rate).state_precision(precision).clip_global_norm(1.0).stochastic_rounding::<bf16>(1);
    let bar = progress("bf16, 4 bits", steps)?;
    for _ in 0..steps {
        widen(&kept, &mut model);
        let texts = [(); 2].map(|()| batch(examples, TEXTS, &mut rng));
        let ((left, first), (right, second)) = rayon::join(|| model.backward(&texts[0]), || model.backward(&texts[1]));
        let mut mean = keep(&first);
        mean.iter_mut().zip(keep(&second)).for_each(|(mean, other)| {
            mean.zip_mut_with(&other, |mean, other| *mean = bf16::from_f32((mean.to_f32() + other.to_f32()) / 2.0));
        });
        opt.step(&mut kept, &mean)?;
        bar.set_message(format!("loss {:.4}", (left + right) / 2.0));
        bar.inc(1);
    }
    bar.finish();
    widen(&kept, &mut model);
    let accuracy = model.accuracy(None, held_out);
    let state = opt.inner().inner().state_bytes();
    let bytes = 2.0 + state as f64 / Layout::of(&model)?.elements() as f64;
    println!("| bf16, 4 bits | {bytes:.2} | {:.1} % |", 100.0 * accuracy);
    assert!(bytes <= BYTES_A_PARAMETER, "{bytes} bytes per parameter");
    assert!(100.0 * (full - accuracy) <= TOLERANCE, "{accuracy}, and {full} in f32");
    Ok(())
}
