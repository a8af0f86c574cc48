//! A step moves candle's own memory, and asks for none of a parameter's size.

use candle_core::{Storage, Tensor, Var};
use gradus::prelude::*;
use gradus_candle::Vars;

use crate::{store, tensor};

const STEPS: usize = 1000;
const SHAPES: [&[usize]; 3] = [&[256, 64], &[64], &[64, 256]];

fn address(var: &Tensor) -> *const f32 {
    match &*var.storage_and_layout().0 {
        Storage::Cpu(storage) => storage.as_slice::<f32>().unwrap().as_ptr(),
        _ => panic!("not on the CPU"),
    }
}

fn optimizer() -> impl Optimizer<f32> {
    AdamW::new(1e-3)
        .clip_global_norm(1.0)
        .group("*.bias", Group::no_decay())
        .group("2.*", Group::new().scale_learning_rate(0.5))
}

#[test]
fn the_buffers_stay_where_they_are_and_a_step_allocates_nothing_of_their_size() {
    let names = ["0.weight", "0.bias", "2.weight"];
    let named = names.into_iter().zip(SHAPES);
    let named: Vec<(&str, Var)> =
        named.map(|(name, shape)| (name, Var::from_tensor(&tensor::<f32>(shape, 0.3)).unwrap())).collect();
    let before: Vec<_> = named.iter().map(|(_, var)| address(var)).collect();
    let first = named[0].1.copy().unwrap();
    let mut vars = Vars::<f32>::named(named.clone()).unwrap();
    let mut opt = optimizer();

    // Allocations are counted on this thread, so all work is to happen here.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for step in 0..STEPS {
        let loss = named.iter().map(|(_, var)| var.sqr().unwrap().sum_all().unwrap()).reduce(|a, b| (a + b).unwrap());
        let grads = loss.unwrap().backward().unwrap();
        let used = pool.install(|| allocation_counter::measure(|| assert!(vars.step(&mut opt, &grads).unwrap().moved)));
        // The first step makes the state.
        assert!(step == 0 || used.bytes_total < 4 * 1024, "step {step} allocates {} bytes", used.bytes_total);
    }

    let after: Vec<_> = named.iter().map(|(_, var)| address(var)).collect();
    assert_eq!(before, after);
    let moved = (named[0].1.as_tensor() - first).unwrap().abs().unwrap().max_all().unwrap();
    assert!(moved.to_scalar::<f32>().unwrap() > 0.1);
}

#[test]
fn a_transposed_or_broadcast_gradient_is_read_where_it_is() {
    let var = Var::from_tensor(&tensor::<f32>(&[96, 128], 0.3)).unwrap();
    let twin = Var::from_tensor(&tensor::<f32>(&[96, 128], 0.3)).unwrap();
    let transposed = tensor::<f32>(&[128, 96], 0.7).t().unwrap();
    let narrowed = tensor::<f32>(&[96, 200], 0.7).narrow(1, 50, 128).unwrap();
    let broadcast = tensor::<f32>(&[96, 1], 0.7).broadcast_as((96, 128)).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for grad in [transposed, narrowed, broadcast] {
        assert!(!grad.is_contiguous());
        let plain = store([(twin.clone(), grad.contiguous().unwrap())]);
        let strided = store([(var.clone(), grad)]);
        let (mut vars, mut opt) = (Vars::<f32>::named([("w", var.clone())]).unwrap(), AdamW::new(1e-2));
        let (mut twins, mut twin_opt) = (Vars::<f32>::named([("w", twin.clone())]).unwrap(), AdamW::new(1e-2));
        for step in 0..3 {
            let used = pool.install(|| allocation_counter::measure(|| _ = vars.step(&mut opt, &strided).unwrap()));
            assert!(step == 0 || used.bytes_total < 4 * 1024, "{} bytes", used.bytes_total);
            twins.step(&mut twin_opt, &plain).unwrap();
        }
        assert_eq!(crate::values::<f32>(&var), crate::values::<f32>(&twin));
    }
    assert_ne!(crate::values::<f32>(&var), crate::wave::<f32>(96 * 128, 0.3));
}
