//! Memory that is held elsewhere is copied, and the report says so.

use burn::module::{Lora, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, s};
use gradus::prelude::*;
use gradus_burn::Report;

use crate::support::{Mlp, Named, addresses, batch, device, grads, numbers, values};

const PATHS: [&str; 4] = ["hidden.weight", "hidden.bias", "output.weight", "output.bias"];

fn step(model: &mut Mlp) -> Report {
    let grads = grads(model, batch(4, 0));
    gradus_burn::step(&mut Sgd::new(0.1), model, grads).unwrap()
}

#[test]
fn a_clone_keeps_its_values_and_is_told_of_once() {
    let mut model = Mlp::new(4, &device());
    let clone = model.clone();
    let start = values(&clone);
    assert_eq!(step(&mut model).copied, PATHS);
    assert_eq!(values(&clone), start);
    assert_ne!(values(&model), start);
    assert_eq!(step(&mut model).copied, [""; 0], "the model has memory of its own");
}

#[test]
fn one_tensor_held_by_the_user() {
    let mut model = Mlp::new(4, &device());
    let held = model.output.weight.val();
    let before = held.to_data();
    assert_eq!(step(&mut model).copied, ["output.weight"]);
    assert_eq!(held.to_data(), before);
}

#[test]
fn a_graph_that_lives_on() {
    let mut model = Mlp::new(4, &device());
    let grads = grads(&model, batch(4, 0));
    let other = model.forward(batch(4, 1));
    let report = gradus_burn::step(&mut Sgd::new(0.1), &mut model, grads).unwrap();
    assert!(report.copied.contains(&"output.weight".into()), "the graph of `other` needs it for `backward`");
    drop(other);
    assert_eq!(step(&mut model).copied, [""; 0]);
}

#[test]
fn a_shared_frozen_base_is_copied_once() {
    let base = Mlp::new(4, &device());
    let adapted = || base.clone().apply_lora(Lora::new(2, 4.0));
    let (mut first, mut second) = (adapted(), adapted());
    let (before, at) = (values(&base), addresses(&base));
    drop(base);
    let frozen = |model: &Mlp| {
        let tensors = values(model).0.into_iter().zip(addresses(model));
        let (values, addresses) = tensors.filter(|((path, _), _)| !path.contains("lora")).unzip();
        (Named(values), addresses)
    };
    assert_eq!(frozen(&first), (before.clone(), at.clone()));
    assert_eq!(frozen(&second), (before.clone(), at.clone()), "one base");

    assert_eq!(step(&mut first).copied, PATHS);
    let own: (Named, Vec<_>) = frozen(&first);
    assert_eq!(own.0, before);
    assert!(own.1.iter().all(|address| !at.contains(address)));

    assert_eq!(step(&mut first).copied, [""; 0], "the first has a base of its own");
    assert_eq!(frozen(&first), own);
    assert_eq!(step(&mut second).copied, [""; 0], "and so has the second");
    assert_eq!(frozen(&second), (before, at));
}

#[test]
fn shared_running_statistics_are_copied_once() {
    let mut norm = BatchNormConfig::new(2).init(&device());
    let valid = norm.valid();
    let step = |norm: &mut BatchNorm| gradus_burn::step(&mut Sgd::new(0.1), norm, GradientsParams::new()).unwrap();
    assert_eq!(step(&mut norm).copied, ["gamma", "beta", "running_mean", "running_var"]);
    assert_eq!(step(&mut norm).copied, [""; 0]);
    assert_eq!(values(&norm), values(&valid));
}

/// One parameter under two names.
#[derive(Module, Debug)]
struct Tied {
    encoder: Param<Tensor<1>>,
    decoder: Param<Tensor<1>>,
}

#[test]
fn two_names_of_one_tensor() {
    let encoder = Param::from_data([1.0, 2.0], &device());
    let mut model = Tied { decoder: encoder.clone(), encoder };
    let loss = (model.encoder.val() * model.decoder.val()).sum();
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let report = gradus_burn::step(&mut Sgd::new(0.5), &mut model, grads).unwrap();
    assert_eq!(report.copied, ["encoder"]);
    // burn gives the gradient to the first of the two.
    assert_eq!(values(&model).0[0].1.as_slice().unwrap(), [0.0, 0.0]);
    assert_eq!(values(&model).0[1].1.as_slice().unwrap(), [1.0, 2.0]);
}

#[test]
fn a_part_of_a_larger_tensor_stays_in_place_alone() {
    let whole = Tensor::<1>::from_data(numbers([8], 1, DType::F32), &device());
    let mut param = Param::from_tensor(whole.clone().narrow(0, 2, 3));
    let grads = |param: &Param<Tensor<1>>| GradientsParams::from_grads(param.val().sum().backward(), param);
    let mut opt = Sgd::new(0.1);
    let taken = grads(&param);
    assert_eq!(gradus_burn::step(&mut opt, &mut param, taken).unwrap().copied, [""]);
    assert_eq!(whole.into_data(), numbers([8], 1, DType::F32));
    let (before, taken) = (addresses(&param), grads(&param));
    assert_eq!(gradus_burn::step(&mut opt, &mut param, taken).unwrap().copied, [""; 0]);
    assert_eq!(addresses(&param), before);
}

/// A parameter whose elements do not fill their memory one by one moves to where they do, and is right.
fn moved(arrange: impl Fn(Tensor<1>) -> Tensor<1>) {
    let whole = || Tensor::<1>::from_data(numbers([6], 1, DType::F32), &device());
    let mut param = Param::from_tensor(arrange(whole()).detach());
    let before = param.val().into_data().try_to_vec::<f32>().unwrap();
    for step in 0..2 {
        let grads = GradientsParams::from_grads(param.val().sum().backward(), &param);
        let report = gradus_burn::step(&mut Sgd::new(0.5), &mut param, grads).unwrap();
        assert_eq!(report.copied.len(), 1 - step);
    }
    let after: Vec<f32> = before.iter().map(|value| value - 0.5 - 0.5).collect();
    assert_eq!(param.val().into_data().try_to_vec::<f32>().unwrap(), after);
}

#[test]
fn backwards_broadcast_or_with_gaps() {
    moved(|tensor| tensor.flip([0]));
    moved(|tensor| tensor.narrow(0, 3, 1).expand([4]));
    moved(|tensor| tensor.slice(s![..;2]));
}

#[test]
fn a_column_major_weight_stays_one() {
    let config = LinearConfig::new(3, 5).with_layout(LinearLayout::Col);
    let mut column = config.init(&device());
    let mut row = LinearConfig::new(3, 5).init(&device());
    row.weight = Param::from_tensor(Tensor::from_data(column.weight.val().into_data(), &device()));
    row.bias = Some(Param::from_tensor(Tensor::from_data(column.bias.as_ref().unwrap().val().into_data(), &device())));
    let bias = |layer: &Linear| layer.bias.as_ref().unwrap().id;
    let before = (addresses(&column), addresses(&row));
    let mut opts = (AdamW::new(0.1).clip_global_norm(1.0), AdamW::new(0.1).clip_global_norm(1.0));
    for seed in 0..5 {
        let x = Tensor::<2>::from_data(numbers([2, 3], seed, DType::F32), &device());
        let of_column = GradientsParams::from_grads(column.forward(x).square().sum().backward(), &column);
        let mut of_row = GradientsParams::new();
        of_row.register(row.weight.id, of_column.get::<2>(column.weight.id).unwrap());
        of_row.register(bias(&row), of_column.get::<1>(bias(&column)).unwrap());
        assert_eq!(gradus_burn::step(&mut opts.0, &mut column, of_column).unwrap().copied, [""; 0]);
        assert_eq!(gradus_burn::step(&mut opts.1, &mut row, of_row).unwrap().copied, [""; 0]);
    }
    assert_eq!((addresses(&column), addresses(&row)), before);
    assert_eq!(values(&column), values(&row));
}
