//! A step is taken in the parameters' own memory.

use allocation_counter::AllocationInfo;
use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use gradus::prelude::*;

use crate::support::{Mlp, addresses, batch, device, grads, numbers, values};

/// Wide enough that the smallest matrix is larger than all that a step needs besides.
const WIDTH: usize = 256;

/// Bytes of one weight.
const WEIGHT: u64 = (WIDTH * WIDTH * size_of::<f32>()) as u64;

fn optimizer() -> impl Optimizer<f32> {
    AdamW::new(1e-3).weight_decay(0.01).group("*.bias", Group::no_decay()).clip_global_norm(1.0)
}

/// What the work allocates. Allocations are counted on one thread, so all of the work is to happen there.
fn measure(work: impl FnOnce() + Send) -> AllocationInfo {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| allocation_counter::measure(work))
}

/// A model and an optimizer after steps that made the state, with the gradients of the next.
fn warm() -> (Mlp, impl Optimizer<f32>, GradientsParams) {
    let (mut model, mut opt) = (Mlp::new(WIDTH, &device()), optimizer());
    for step in 0..3 {
        let grads = grads(&model, batch(WIDTH, step));
        gradus_burn::step(&mut opt, &mut model, grads).unwrap();
    }
    let grads = grads(&model, batch(WIDTH, 3));
    (model, opt, grads)
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
    let (mut model, mut opt, grads) = warm();
    let used = measure(|| {
        let report = gradus_burn::step(&mut opt, &mut model, grads).unwrap();
        assert!(report.moved);
    });
    println!("{} bytes in all, {} at a time; a weight has {WEIGHT}", used.bytes_total, used.bytes_max);
    assert!(used.bytes_total < WEIGHT / 4, "{} bytes, where a weight has {WEIGHT}", used.bytes_total);
}

#[test]
fn the_count_sees_a_copy() {
    let (mut model, mut opt, grads) = warm();
    let clone = model.clone();
    let used = measure(|| {
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
    let used = measure(|| {
        let lent = gradus_burn::lend(&mut model).unwrap();
        gradus::params::for_each(&lent, |_, _, values| assert!(values.is_some()));
    });
    assert!(used.bytes_total < WEIGHT / 4, "{} bytes, where a weight has {WEIGHT}", used.bytes_total);
    assert_eq!(addresses(&model), before);
    assert_eq!(addresses(&clone), before, "still shared");
}

#[test]
fn of_a_larger_tensor_only_the_part_is_copied() {
    let whole = Tensor::<2>::from_data(numbers([WIDTH, WIDTH], 0, DType::F32), &device());
    let mut param = Param::from_tensor(whole.clone().narrow(0, 3, 1).detach());
    let grads = GradientsParams::from_grads(param.val().sum().backward(), &param);
    let used = measure(|| {
        assert_eq!(gradus_burn::step(&mut Sgd::new(0.5), &mut param, grads).unwrap().copied, [""]);
    });
    assert!(used.bytes_total < WEIGHT / 4, "{} bytes, where the whole has {WEIGHT}", used.bytes_total);
    assert_eq!(whole.into_data(), numbers([WIDTH, WIDTH], 0, DType::F32));
}

/// A square matrix, whose gradient lies in memory as `arrange` says, steps as with the gradient in order. Returns the most bytes
/// that a step took after the first, which makes the state.
fn arranged(arrange: impl Fn(Tensor<2>) -> Tensor<2>) -> u64 {
    let start = || Tensor::<2>::from_data(numbers([WIDTH, WIDTH], 0, DType::F32), &device());
    let gradient = |seed| arrange(Tensor::from_data(numbers([WIDTH, WIDTH], seed, DType::F32), &Device::flex()));
    let (mut param, mut other) = (Param::from_tensor(start()), Param::from_tensor(start()));
    let adamw = || AdamW::new(1e-2).clip_global_norm(1.0);
    let (mut opts, mut most) = ((adamw(), adamw()), 0);
    for seed in 0..3 {
        let (mut grads, mut in_order) = (GradientsParams::new(), GradientsParams::new());
        in_order.register(other.id, Tensor::<2>::from_data(gradient(seed).into_data(), &Device::flex()));
        grads.register(param.id, gradient(seed));
        let used = measure(|| {
            assert_eq!(gradus_burn::step(&mut opts.0, &mut param, grads).unwrap().copied, [""; 0]);
        });
        gradus_burn::step(&mut opts.1, &mut other, in_order).unwrap();
        assert_eq!(values(&param), values(&other));
        if seed > 0 {
            most = used.bytes_total.max(most);
        }
    }
    most
}

#[test]
fn gradients_are_read_where_they_lie() {
    let transposed = arranged(|gradient| gradient.transpose());
    let broadcast = arranged(|gradient| gradient.narrow(0, 1, 1).expand([WIDTH, WIDTH]));
    assert!(transposed < WEIGHT / 4, "{transposed} bytes");
    assert!(broadcast < WEIGHT / 4, "{broadcast} bytes");
    arranged(|gradient| gradient.flip([0])); // may be copied
}
