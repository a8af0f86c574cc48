//! Everything else of a module is as it was after a step.

use burn::module::{Flag, Lora, Module, ModuleMapper, ModuleVisitor, Param, ParamId, QLora, Quantizer};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::optim::GradientsParams;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{Bool, DType, Device, Int, Tensor};
use gradus::params::Layout;
use gradus::prelude::*;

use crate::support::{Mlp, addresses, batch, device, facts, grads, numbers, values};

/// Takes a step along the sum of what `forward` makes of the module.
fn step<M: Module>(model: &mut M, forward: impl Fn(&M) -> Tensor<1>) -> gradus_burn::Report {
    let grads = GradientsParams::from_grads(forward(model).backward(), model);
    gradus_burn::step(&mut Sgd::new(0.5), model, grads).unwrap()
}

/// The paths of what a step may move.
fn paths(model: &mut impl Module) -> Vec<String> {
    let lent = gradus_burn::lend(model).unwrap();
    Layout::of(&lent).unwrap().paths().map(String::from).collect()
}

#[test]
fn frozen_parameters_are_in_the_tree_and_stay() {
    let mut model = Mlp::new(4, &device());
    model.hidden = model.hidden.no_grad();
    let before = facts(&model);
    let taken = grads(&model, batch(4, 0));
    assert_eq!(taken.len(), 2);
    let report = gradus_burn::step(&mut AdamW::new(0.1), &mut model, taken).unwrap();
    assert_eq!(report.copied, [""; 0]);
    let after = facts(&model);
    assert_eq!(before[..2], after[..2]);
    assert!(!after[0].is_require_grad && after[2].is_require_grad);
    assert!(before[2].data != after[2].data && before[3].data != after[3].data);
    assert_eq!(paths(&mut model), ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]);
}

#[test]
fn ids_autodiff_and_training_state_are_kept() {
    let mut model = Mlp::new(4, &device());
    model.hidden = model.hidden.no_grad();
    let states = |model: &Mlp| {
        facts(model)
            .into_iter()
            .map(|facts| (facts.path, facts.id, facts.is_autodiff, facts.is_require_grad))
            .collect::<Vec<_>>()
    };
    let before = states(&model);
    let taken = grads(&model, batch(4, 0));
    gradus_burn::step(&mut Sgd::new(0.1), &mut model, taken).unwrap();
    assert_eq!(states(&model), before);

    // A validation module has no gradients, but knows which it will have.
    let mut valid = model.valid();
    let mut lent = gradus_burn::lend(&mut valid).unwrap();
    gradus::params::for_each_mut(&mut lent, |_, shape, values| values.unwrap().view_mut(shape).fill(1.0));
    drop(lent);
    assert!(facts(&valid).iter().all(|facts| !facts.is_autodiff && !facts.is_require_grad));
    assert_eq!(states(&valid.train()), before);
}

#[test]
fn the_checkpointing_strategy_is_kept() {
    let device = Device::flex().autodiff().gradient_checkpointing();
    let mut model = Mlp::new(4, &device);
    let strategy = model.hidden.weight.gradient_checkpointing_strategy();
    assert_ne!(strategy, Mlp::new(4, &crate::support::device()).hidden.weight.gradient_checkpointing_strategy());
    for seed in 0..2 {
        let x = Tensor::<2>::from_data(numbers([2, 4], seed, DType::F32), &device);
        let taken = grads(&model, x);
        gradus_burn::step(&mut Sgd::new(0.1), &mut model, taken).unwrap();
        assert_eq!(model.hidden.weight.gradient_checkpointing_strategy(), strategy);
    }
}

#[test]
fn mappers_for_files_are_kept() {
    let mut layer = LinearConfig::new(3, 5).with_layout(LinearLayout::Col).init(&device());
    let x = || Tensor::<2>::from_data(numbers([2, 3], 0, DType::F32), &device());
    step(&mut layer, |layer| layer.forward(x()).sum());
    assert_eq!(layer.weight.dims(), [3, 5]);
    let saved = layer.weight.transform_for_save();
    assert_eq!(saved.dims(), [5, 3]);
    let (id, file) = (layer.weight.id, Tensor::from_data(saved.val().into_data(), &device()));
    assert_eq!(layer.weight.clone().transform_for_load(file, id).val().into_data(), layer.weight.val().into_data());
}

#[test]
fn lazy_parameters_are_initialized_once() {
    let mut model = Mlp::new(4, &device());
    let clone = model.clone();
    assert!(!model.hidden.weight.is_initialized());
    assert_eq!(paths(&mut model).len(), 4);
    assert!(clone.hidden.weight.is_initialized());
    assert_eq!(values(&model), values(&clone));

    let mut alone = Mlp::new(4, &device());
    let mut weight = None;
    gradus::params::for_each_mut(&mut gradus_burn::lend(&mut alone).unwrap(), |_, shape, values| {
        weight.get_or_insert(values.unwrap().view_mut(shape).as_ptr());
    });
    assert_eq!(addresses(&alone)[0], weight.unwrap().cast());
}

/// A module of every kind of container, with values that no gradient moves.
#[derive(Module, Debug)]
struct Nested {
    layers: Vec<Linear>,
    pair: (Param<Tensor<1>>, Option<Param<Tensor<3>>>),
    nothing: Option<Linear>,
    two: [Param<Tensor<1>>; 2],
    choice: Choice,
    counts: Param<Tensor<1, Int>>,
    mask: Param<Tensor<1, Bool>>,
    flag: Param<Flag>,
    #[module(skip)]
    name: String,
}

#[derive(Module, Debug)]
enum Choice {
    Wide(Linear),
    #[allow(dead_code, reason = "the one not taken")]
    Narrow(Param<Tensor<1>>),
}

#[test]
fn containers_of_every_kind() {
    let device = device();
    let vector = |seed| Param::from_tensor(Tensor::<1>::from_data(numbers([2], seed, DType::F32), &device));
    let linear = |bias| LinearConfig::new(2, 2).with_bias(bias).init(&device);
    let mut model = Nested {
        layers: vec![linear(true), linear(false)],
        pair: (vector(1), Some(Param::from_tensor(Tensor::ones([1, 2, 1], &device)))),
        nothing: None,
        two: [vector(2), vector(3)],
        choice: Choice::Wide(linear(false)),
        counts: Param::initialized(ParamId::new(), Tensor::from_data([1, 2, 3], &device)),
        mask: Param::initialized(ParamId::new(), Tensor::from_data([true, false], &device)),
        flag: Param::initialized(ParamId::new(), Flag::new(true)),
        name: "nested".into(),
    };
    let expected = [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "pair.0",
        "pair.1",
        "two.0",
        "two.1",
        "choice.Wide.weight",
    ];
    assert_eq!(paths(&mut model), expected);
    let before = facts(&model);
    let all = |model: &Nested| {
        let Choice::Wide(choice) = &model.choice else { panic!("it is wide") };
        let x = model.pair.1.as_ref().unwrap().val().reshape([1, 2]);
        let y = choice.forward(model.layers[1].forward(model.layers[0].forward(x)));
        (y.reshape([2]) + model.pair.0.val() + model.two[0].val() * model.two[1].val()).sum()
    };
    assert_eq!(step(&mut model, all).copied, [""; 0]);
    for (before, after) in before.iter().zip(facts(&model)) {
        assert_ne!(before.data, after.data, "{}", before.path);
        assert_eq!((&before.path, before.id, before.data.shape()), (&after.path, after.id, after.data.shape()));
    }
    assert_eq!(model.counts.val().into_data().try_to_vec_as::<i64>().unwrap(), [1, 2, 3]);
    assert_eq!(model.mask.val().into_data().try_to_vec::<bool>().unwrap(), [true, false]);
    assert!(model.flag.val().is_enabled());
    assert_eq!(model.name, "nested");
}

#[test]
fn adapters_are_moved_beside_their_base() {
    let mut model = Mlp::new(4, &device()).apply_lora(Lora::new(2, 4.0));
    let lora = ["hidden.weight", "hidden.weight.lora.a", "hidden.weight.lora.b", "hidden.bias"];
    assert_eq!(paths(&mut model)[..4], lora);
    let (start, out) = (facts(&model), model.forward(batch(4, 0)).into_data());
    let mut opt = AdamW::new(0.1).clip_global_norm(1.0);
    for seed in 0..3 {
        let taken = grads(&model, batch(4, seed));
        assert_eq!(taken.len(), 4);
        gradus_burn::step(&mut opt, &mut model, taken).unwrap();
    }
    assert!(model.hidden.weight.adapter().is_some());
    assert_ne!(model.forward(batch(4, 0)).into_data(), out);
    for (before, after) in start.iter().zip(facts(&model)) {
        assert_eq!(before.data != after.data, after.path.contains("lora"), "{}", after.path);
        assert_eq!((before.id, before.is_require_grad), (after.id, after.is_require_grad));
    }
}

#[test]
fn a_quantized_base_is_left_alone() {
    let scheme = Device::flex().settings().quantization.scheme.with_value(QuantValue::Q8S);
    let qlora = QLora::new(Lora::new(2, 4.0), Quantizer::new(Calibration::MinMax, scheme));
    let mut layer = LinearConfig::new(8, 8).with_bias(false).init(&device()).apply_qlora(qlora);
    assert_eq!(paths(&mut layer), ["weight.lora.a", "weight.lora.b"]);
    let base = layer.weight.base().into_data();
    let x = || Tensor::<2>::from_data(numbers([2, 8], 0, DType::F32), &device());
    let adapter = |layer: &Linear| layer.weight.adapter().unwrap().b.val().into_data();
    let before = adapter(&layer);
    step(&mut layer, |layer| layer.forward(x()).sum());
    assert_ne!(adapter(&layer), before);
    assert_eq!(layer.weight.base().into_data(), base);
}

/// A layer with running statistics.
#[derive(Module, Debug)]
struct Normed {
    layer: Linear,
    norm: BatchNorm,
}

#[test]
fn running_statistics_are_in_the_tree_and_burns_to_move() {
    let device = device();
    let mut model =
        Normed { layer: LinearConfig::new(4, 4).init(&device), norm: BatchNormConfig::new(4).init(&device) };
    let names = ["norm.gamma", "norm.beta", "norm.running_mean", "norm.running_var"];
    assert_eq!(paths(&mut model)[2..], names);
    for seed in 0..3 {
        let x = Tensor::<2>::from_data(numbers([3, 4], seed, DType::F32), &device);
        let loss = model.norm.forward(model.layer.forward(x)).square().sum();
        let taken = GradientsParams::from_grads(loss.backward(), &model);
        drop(loss);
        let before = (model.norm.running_mean.value().into_data(), model.norm.running_var.value().into_data());
        assert_eq!(gradus_burn::step(&mut Sgd::new(0.1), &mut model, taken).unwrap().copied, [""; 0]);
        let after = (model.norm.running_mean.value().into_data(), model.norm.running_var.value().into_data());
        assert_eq!(before, after);
    }
    assert_ne!(model.norm.running_mean.value_sync().into_data().try_to_vec::<f32>().unwrap(), [0.0; 4]);
}

/// A module by hand that gives both of its parameters one name, and maps them in the other order.
#[derive(Clone, Debug)]
pub(crate) struct Twins {
    pub(crate) first: Param<Tensor<1>>,
    pub(crate) second: Param<Tensor<1>>,
}

impl Module for Twins {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for param in [&self.first, &self.second] {
            visitor.enter_module("twin", "Struct:Twins");
            param.visit(visitor);
            visitor.exit_module("twin", "Struct:Twins");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let mut map = |param| {
            mapper.enter_module("twin", "Struct:Twins");
            let param = Module::map(param, mapper);
            mapper.exit_module("twin", "Struct:Twins");
            param
        };
        let second = map(self.second);
        Self { first: map(self.first), second }
    }

    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.second.collect_devices(self.first.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self { first: self.first.fork(device), second: self.second.fork(device) }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { first: self.first.to_device(device), second: self.second.to_device(device) }
    }

    fn train(self) -> Self {
        Self { first: self.first.train(), second: self.second.train() }
    }

    fn valid(&self) -> Self {
        Self { first: self.first.valid(), second: self.second.valid() }
    }

    fn materialize(self) -> Self {
        self
    }
}
