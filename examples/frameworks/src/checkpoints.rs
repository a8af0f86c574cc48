//! A training that changes its framework.

use std::collections::BTreeMap;
use std::error::Error;

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{DType as BurnDType, Device as BurnDevice, Tensor as BurnTensor, TensorData};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use gradus_candle::Vars;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::Mlp;
use crate::{HIDDEN, in_burn, in_candle};

const STEPS: usize = 20;

/// Sums of squares over all tensors are rounded in the order of the tree, which is not the same in a `VarMap`; the difference in a
/// parameter after all steps.
const ROUNDING_OF_THE_NORM: f64 = 1e-13;

/// Other gradients each step.
fn gradients(step: usize) -> Mlp<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(step as u64);
    let mut grads = Mlp::new(HIDDEN, &mut rng);
    grads.hidden.bias.mapv_inplace(|_| rng.random_range(-1.0..1.0));
    grads.output.bias.mapv_inplace(|_| rng.random_range(-1.0..1.0));
    grads
}

/// The gradients as candle's backward pass would give them.
fn for_candle(map: &VarMap, grads: &Mlp<f64>) -> Result<GradStore, Box<dyn Error>> {
    let mut store = Tensor::zeros((), DType::F64, &Device::Cpu)?.backward()?;
    let vars = map.data().lock().map_err(|_| "poisoned")?;
    for (name, values) in values(grads) {
        let var = &vars[&name];
        store.insert(var, Tensor::from_vec(values, var.dims(), &Device::Cpu)?);
    }
    Ok(store)
}

/// The gradients as burn's backward pass would give them.
fn for_burn(model: &in_burn::Classifier, grads: &Mlp<f64>) -> GradientsParams {
    fn give<const D: usize>(to: &mut GradientsParams, param: &Param<BurnTensor<D>>, values: &[f64]) {
        let data = TensorData::new(values.to_vec(), param.dims());
        to.register(param.id, BurnTensor::<D>::from_data(data, (&BurnDevice::flex(), BurnDType::F64)));
    }
    let (values, mut given) = (values(grads), GradientsParams::new());
    for (name, layer) in [("hidden", &model.hidden), ("output", &model.output)] {
        give(&mut given, &layer.weight, &values[&format!("{name}.weight")]);
        give(&mut given, &layer.bias, &values[&format!("{name}.bias")]);
    }
    given
}

/// The values, by name.
fn values(tree: &impl Params<Elem = f64>) -> BTreeMap<String, Vec<f64>> {
    let mut all = BTreeMap::new();
    gradus::params::for_each(tree, |path, shape, values| {
        let values = values.map(|values| values.view(shape).iter().copied().collect());
        all.insert(path.to_string(), values.unwrap_or_default());
    });
    all
}

fn farthest(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = a.values().flatten().zip(b.values().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Trains in candle, saves, and goes on in candle, in burn and on arrays: how far apart they ever are.
fn change_over<O: Optimizer<f64>>(build: impl Fn() -> O) -> Result<f64, Box<dyn Error>> {
    let map = VarMap::new();
    in_candle::Classifier::new(&VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu))?;
    let (mut vars, mut opt_of_candle) = (Vars::<f64>::of(&map)?, build());
    for step in 0..STEPS {
        vars.step(&mut opt_of_candle, &for_candle(&map, &gradients(step))?)?;
    }
    let file = tempfile::NamedTempFile::new()?;
    Checkpoint::of(&vars.lend()?, &opt_of_candle)?.save(file.path())?;

    let checkpoint = Checkpoint::open(file.path())?;
    let (mut arrays, mut opt_of_arrays) = (gradients(1000), build());
    checkpoint.load(&mut arrays, &mut opt_of_arrays)?;
    let (mut module, mut opt_of_burn) = (in_burn::Classifier::zeros(&BurnDevice::flex().autodiff()), build());
    checkpoint.load(&mut gradus_burn::lend_as::<f64>(&mut module)?, &mut opt_of_burn)?;

    let (before, mut apart) = (values(&arrays), 0.0_f64);
    for step in STEPS..2 * STEPS {
        let grads = gradients(step);
        vars.step(&mut opt_of_candle, &for_candle(&map, &grads)?)?;
        opt_of_arrays.step(&mut arrays, &grads)?;
        let grads = for_burn(&module, &grads);
        gradus_burn::step_as(&mut opt_of_burn, &mut module, grads)?;
        let in_candle = values(&vars.lend()?);
        let in_burn = values(&gradus_burn::lend_as::<f64>(&mut module)?);
        apart = apart.max(farthest(&values(&arrays), &in_candle)).max(farthest(&values(&arrays), &in_burn));
    }
    assert!(before.iter().zip(values(&arrays)).all(|((_, before), (_, after))| *before != after));
    Ok(apart)
}

#[test]
fn what_candle_began_goes_on_in_burn_and_on_arrays() -> Result<(), Box<dyn Error>> {
    // The schedule is in its middle when the checkpoint is written.
    let rate = || Cosine::new(5e-3, 2 * STEPS as u64).warmup(3);
    let exact = change_over(|| AdamW::new(rate()).clip_value(0.5).group("*.bias", Group::no_decay()).ema(0.9))?;
    assert_eq!(exact, 0.0);
    assert!(change_over(|| crate::optimizer(2 * STEPS))? < ROUNDING_OF_THE_NORM);
    Ok(())
}

#[test]
fn a_name_that_differs_is_refused() -> Result<(), Box<dyn Error>> {
    let var = Var::zeros((HIDDEN, 64), DType::F64, &Device::Cpu)?;
    let mut vars = Vars::<f64>::named([("hidden.kernel", var)])?;
    let error = Checkpoint::of_params(&gradients(0))?.load_params(&mut vars.lend()?).unwrap_err();
    assert!(error.to_string().contains("hidden.kernel"), "{error}");
    Ok(())
}
