//! The steps are those that arrays of the same values take.

use burn::optim::GradientsParams;
use gradus::prelude::*;
use gradus::schedule::Cosine;

use crate::support::{Mlp, Named, batch, device, grads, values};

const WIDTH: usize = 16;

/// The gradients as arrays, without taking them out.
fn arrays(model: &Mlp, grads: &GradientsParams) -> Named {
    let mut found = values(model);
    let matrix = |id| grads.get::<2>(id).unwrap().into_data();
    let vector = |id| grads.get::<1>(id).unwrap().into_data();
    let (hidden, output) = (&model.hidden, &model.output);
    let data = [
        matrix(hidden.weight.id),
        vector(hidden.bias.as_ref().unwrap().id),
        matrix(output.weight.id),
        vector(output.bias.as_ref().unwrap().id),
    ];
    for ((_, array), data) in found.0.iter_mut().zip(data) {
        array.iter_mut().zip(data.try_to_vec::<f32>().unwrap()).for_each(|(to, from)| *to = from);
    }
    found
}

/// 100 steps of both, with the bits compared after each.
fn compare<O: Optimizer<f32>>(optimizer: impl Fn() -> O) {
    let mut model = Mlp::new(WIDTH, &device());
    let (mut opt, mut plain) = (optimizer(), optimizer());
    let mut arrays_of_model = values(&model);
    let start = arrays_of_model.clone();
    for step in 0..100 {
        let grads = grads(&model, batch(WIDTH, step));
        let reports = (
            plain.step(&mut arrays_of_model, &arrays(&model, &grads)).unwrap(),
            gradus_burn::step(&mut opt, &mut model, grads).unwrap(),
        );
        assert_eq!(reports.0, reports.1.step);
        assert_eq!(values(&model), arrays_of_model, "after step {step}");
    }
    assert_ne!(values(&model), start);
    assert_eq!(opt.state_dict(), plain.state_dict());
}

#[test]
fn adamw() {
    compare(|| AdamW::new(1e-2));
}

#[test]
fn adamw_clipped_in_groups_on_a_schedule() {
    compare(|| {
        AdamW::new(Cosine::new(1e-2, 100).warmup(10))
            .weight_decay(0.1)
            .group("*.bias", Group::no_decay())
            .group("output.**", Group::new().scale_learning_rate(0.5))
            .clip_global_norm(0.1)
    });
}

#[test]
fn accumulated_and_averaged() {
    compare(|| Momentum::new(1e-2, 0.9).ema(0.9).accumulate(3));
}
