//! A step is taken in the parameters' own memory.

use burn::optim::GradientsParams;
use gradus::prelude::*;

use crate::support::{Mlp, addresses, batch, device, grads};

/// Wide enough that the smallest matrix is larger than all that a step needs besides.
const WIDTH: usize = 256;

/// Bytes of one weight.
const WEIGHT: u64 = (WIDTH * WIDTH * size_of::<f32>()) as u64;

fn optimizer() -> impl Optimizer<f32> {
    AdamW::new(1e-3).weight_decay(0.01).group("*.bias", Group::no_decay()).clip_global_norm(1.0)
}

#[test]
fn the_buffers_stay_where_they_are() {
    let (mut model, mut opt) = (Mlp::new(8, &device()), optimizer());
    let before = addresses(&model);
    for step in 0..1000 {
        let loss = model.loss(batch(8, step));
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let report = gradus_burn::step(&mut opt, &mut model, grads).unwrap();
        assert!(report.moved && report.grad_norm.is_some());
        assert_eq!(report.copied, [""; 0], "at step {step}");
        drop(loss); // alive during the step, as in a loop that prints it
    }
    assert_eq!(addresses(&model), before);
}

#[test]
fn a_step_allocates_nothing_of_a_parameters_size() {
    let (mut model, mut opt) = (Mlp::new(WIDTH, &device()), optimizer());
    for step in 0..3 {
        let grads = grads(&model, batch(WIDTH, step));
        gradus_burn::step(&mut opt, &mut model, grads).unwrap();
    }
    let grads = grads(&model, batch(WIDTH, 3));
    let used = allocation_counter::measure(|| {
        let report = gradus_burn::step(&mut opt, &mut model, grads).unwrap();
        assert!(report.moved);
    });
    println!("{} bytes in all, {} at a time; a weight has {WEIGHT}", used.bytes_total, used.bytes_max);
    assert!(used.bytes_total < WEIGHT / 4, "{} bytes, where a weight has {WEIGHT}", used.bytes_total);
}

#[test]
fn the_count_sees_a_copy() {
    let (mut model, mut opt) = (Mlp::new(WIDTH, &device()), optimizer());
    for step in 0..3 {
        let grads = grads(&model, batch(WIDTH, step));
        gradus_burn::step(&mut opt, &mut model, grads).unwrap();
    }
    let grads = grads(&model, batch(WIDTH, 3));
    let clone = model.clone();
    let used = allocation_counter::measure(|| {
        let report = gradus_burn::step(&mut opt, &mut model, grads).unwrap();
        assert_eq!(report.copied.len(), 4);
    });
    assert!(used.bytes_total > 2 * WEIGHT);
    drop(clone);
}

#[test]
fn lending_to_read_copies_nothing() {
    let mut model = Mlp::new(WIDTH, &device());
    let clone = model.clone();
    let before = addresses(&model);
    let used = allocation_counter::measure(|| {
        let lent = gradus_burn::lend(&mut model).unwrap();
        gradus::params::for_each(&lent, |_, _, values| assert!(values.is_some()));
    });
    assert!(used.bytes_total < WEIGHT / 4, "{} bytes, where a weight has {WEIGHT}", used.bytes_total);
    assert_eq!(addresses(&model), before);
    assert_eq!(addresses(&clone), before, "still shared");
}
