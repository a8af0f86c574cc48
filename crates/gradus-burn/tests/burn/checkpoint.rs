//! A training is interrupted and goes on.

use burn::module::Module;
use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;

use crate::support::{Mlp, addresses, batch, device, facts, grads, values};

fn optimizer() -> impl Optimizer<f32> {
    AdamW::new(1e-2).group("*.bias", Group::no_decay()).ema(0.9).clip_global_norm(0.5)
}

fn train(model: &mut Mlp, opt: &mut impl Optimizer<f32>, steps: std::ops::Range<usize>) {
    for step in steps {
        let taken = grads(model, batch(8, step));
        gradus_burn::step(opt, model, taken).unwrap();
    }
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let (mut model, mut opt) = (Mlp::new(8, &device()), optimizer());
    train(&mut model, &mut opt, 0..10);
    {
        let lent = gradus_burn::lend(&mut model).unwrap();
        Checkpoint::of(&lent, &opt).unwrap().save(&file).unwrap();
    }
    train(&mut model, &mut opt, 10..20);

    let (mut other, mut resumed) = (Mlp::new(8, &device()), optimizer());
    assert_ne!(values(&other), values(&model));
    let (ids, at) = (facts(&other), addresses(&other));
    let saved = Checkpoint::open(&file).unwrap();
    saved.load(&mut gradus_burn::lend(&mut other).unwrap(), &mut resumed).unwrap();
    assert_eq!(addresses(&other), at, "loaded in place");
    train(&mut other, &mut resumed, 10..20);
    assert_eq!(values(&other), values(&model));
    assert_eq!(resumed.state_dict(), opt.state_dict());
    assert!(ids.iter().zip(facts(&other)).all(|(before, after)| before.id == after.id && after.is_require_grad));
}

#[test]
fn a_checkpoint_of_another_module_changes_nothing() {
    let (mut model, opt) = (Mlp::new(8, &device()), optimizer());
    let saved = Checkpoint::of(&gradus_burn::lend(&mut model).unwrap(), &opt).unwrap();
    let mut other = Mlp::new(4, &device());
    let before = facts(&other);
    let error = saved.load_params(&mut gradus_burn::lend(&mut other).unwrap()).unwrap_err();
    assert!(matches!(error, gradus::Error::State(gradus::error::StateError::EntryShape { .. })), "{error}");
    assert_eq!(facts(&other), before);
    assert!(before.iter().all(|facts| facts.is_require_grad) && other.num_params() == 40);
}
