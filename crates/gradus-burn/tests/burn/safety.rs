//! Whatever happens, the module has its parameters.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;
use gradus::prelude::*;

use crate::support::{Mlp, addresses, batch, device, facts, grads};

#[test]
fn a_panic_puts_the_parameters_back() {
    let mut model = Mlp::new(4, &device());
    let (before, at) = (facts(&model), addresses(&model));
    let taken = grads(&model, batch(4, 0));
    #[allow(clippy::panic, reason = "it is what it is for")]
    let mut broken = Sgd::new(|_: u64| -> f64 { panic!("broken") });
    let step = AssertUnwindSafe(|| gradus_burn::step(&mut broken, &mut model, taken));
    let message = catch_unwind(step).unwrap_err();
    assert_eq!(*message.downcast_ref::<&str>().unwrap(), "broken");
    assert_eq!(facts(&model), before);
    assert_eq!(addresses(&model), at);
    let taken = grads(&model, batch(4, 0));
    assert!(gradus_burn::step(&mut Sgd::new(0.1), &mut model, taken).unwrap().moved);
}

#[test]
fn a_refused_step_changes_nothing() {
    let mut model = Mlp::new(4, &device());
    let mut opt = Adam::new(0.1);
    let taken = grads(&model, batch(4, 0));
    gradus_burn::step(&mut opt, &mut model, taken).unwrap();
    let (before, at, state) = (facts(&model), addresses(&model), opt.state_dict());

    let nan = batch(4, 1) * f32::NAN;
    let taken = grads(&model, nan);
    let error = gradus_burn::step(&mut (&mut opt).check_finite(), &mut model, taken).unwrap_err();
    assert!(
        matches!(
            error,
            gradus_burn::Error::Gradus(gradus::Error::Step(gradus::error::StepError::NonFiniteGradient { .. }))
        ),
        "{error}"
    );
    assert_eq!(facts(&model), before);
    assert_eq!(addresses(&model), at);
    assert_eq!(opt.state_dict(), state);
}

#[test]
fn what_is_only_read_keeps_its_graph() {
    let mut model = Mlp::new(4, &device());
    let expected = grads(&model, batch(4, 0)).get::<2>(model.hidden.weight.id).unwrap().into_data();
    let loss = model.loss(batch(4, 0));
    drop(gradus_burn::lend(&mut model).unwrap());
    let taken = burn::optim::GradientsParams::from_grads(loss.backward(), &model);
    assert_eq!(taken.len(), 4);
    assert_eq!(taken.get::<2>(model.hidden.weight.id).unwrap().into_data(), expected);
}

#[test]
fn while_lent_the_tensors_are_the_trees() {
    let mut model = Mlp::new(4, &device());
    let before = facts(&model);
    let mut lent = gradus_burn::lend(&mut model).unwrap();
    assert!(format!("{lent:?}").contains("hidden.weight"));
    let mut paths = Vec::new();
    gradus::params::for_each_mut(&mut lent, |path, shape, values| {
        paths.push(path.to_string());
        values.unwrap().view_mut(shape).mapv_inplace(|value| -value);
    });
    assert_eq!(lent.copied().count(), 0);
    drop(lent);
    assert_eq!(paths, before.iter().map(|facts| facts.path.as_str()).collect::<Vec<_>>());
    for (before, after) in before.iter().zip(facts(&model)) {
        let negated: Vec<f32> = before.data.try_to_vec::<f32>().unwrap().iter().map(|value| -value).collect();
        assert_eq!(after.data.try_to_vec::<f32>().unwrap(), negated);
        assert_eq!((after.id, after.is_require_grad), (before.id, before.is_require_grad));
    }
}

#[test]
fn what_is_lent_cannot_be_lent_again() {
    let mut layer = burn::nn::BatchNormConfig::new(2).init(&device());
    let mut clone = layer.clone();
    let before = facts(&layer);
    let lent = gradus_burn::lend(&mut layer).unwrap();
    // The clone has gamma and beta of its own, and the running statistics in common.
    let error = gradus_burn::lend(&mut clone).unwrap_err();
    assert!(matches!(&error, gradus_burn::Error::Lent { path } if path == "running_mean"), "{error:?}");
    assert_eq!(
        error.to_string(),
        r#"parameter "running_mean" is empty because it is lent out; drop the `Lent` guard first"#
    );
    drop(lent);
    assert_eq!(facts(&layer), before);
    drop(gradus_burn::lend(&mut clone).unwrap());
    assert_eq!(facts(&clone), before);
}

/// A module by hand without parameters, whose `map` panics as often as it says.
#[derive(Clone, Debug)]
struct Fuse(Arc<AtomicUsize>);

impl Module for Fuse {
    fn visit<V: ModuleVisitor>(&self, _: &mut V) {}

    #[allow(clippy::panic, reason = "it is what it is for")]
    fn map<M: ModuleMapper>(self, _: &mut M) -> Self {
        let less = self.0.fetch_update(Relaxed, Relaxed, |panics| panics.checked_sub(1));
        if less.is_ok() { panic!("blown") } else { self }
    }

    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        devices
    }

    fn fork(self, _: &Device) -> Self {
        self
    }

    fn to_device(self, _: &Device) -> Self {
        self
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn materialize(self) -> Self {
        self
    }
}

#[test]
fn a_walk_that_panics_half_way_loses_nothing() {
    // When the walk that puts back panics too, it has been as far as the one that took out.
    for panics in [1, 2] {
        let norm = burn::nn::BatchNormConfig::new(2).init(&device());
        let fuse = Fuse(Arc::default());
        let mut module = (norm, fuse.clone());
        let (before, at) = (facts(&module), addresses(&module));
        fuse.0.store(panics, Relaxed);
        let message = catch_unwind(AssertUnwindSafe(|| drop(gradus_burn::lend(&mut module)))).unwrap_err();
        assert_eq!(*message.downcast_ref::<&str>().unwrap(), "blown");
        assert_eq!(fuse.0.load(Relaxed), 0);
        assert_eq!(facts(&module), before);
        assert_eq!(addresses(&module), at);
        drop(gradus_burn::lend(&mut module).unwrap());
        assert_eq!(facts(&module), before);
    }
}
