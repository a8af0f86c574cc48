//! A training that changes its framework.

use std::error::Error;

use burn::optim::GradientsParams;
use burn::tensor::{DType as BurnDType, Device as BurnDevice, Tensor as BurnTensor, TensorData};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use gradus_candle::Vars;
use ndarray::{ArrayBase, Dimension, OwnedRepr};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::Mlp;
use crate::{HIDDEN, in_burn, in_candle};

/// The optimizer's schedule is in its middle when the checkpoint is written.
const STEPS: usize = 20;

fn opt() -> impl Optimizer<f64> {
    crate::optimizer(2 * STEPS)
}

/// Other gradients each step.
fn gradients(step: usize) -> Mlp<f64> {
    Mlp::new(HIDDEN, &mut ChaCha8Rng::seed_from_u64(step as u64))
}

fn in_order(mlp: &Mlp<f64>) -> [(&'static str, Vec<usize>, Vec<f64>); 4] {
    fn tensor<D: Dimension>(array: &ArrayBase<OwnedRepr<f64>, D>) -> (Vec<usize>, Vec<f64>) {
        (array.shape().to_vec(), array.iter().copied().collect())
    }
    let Mlp { hidden, output } = mlp;
    [
        ("hidden.weight", tensor(&hidden.weight)),
        ("hidden.bias", tensor(&hidden.bias)),
        ("output.weight", tensor(&output.weight)),
        ("output.bias", tensor(&output.bias)),
    ]
    .map(|(name, (shape, values))| (name, shape, values))
}

/// The gradients as candle's backward pass would give them.
fn for_candle(map: &VarMap, grads: &Mlp<f64>) -> Result<GradStore, Box<dyn Error>> {
    let mut store = Tensor::zeros((), DType::F64, &Device::Cpu)?.backward()?;
    let vars = map.data().lock().map_err(|_| "poisoned")?;
    for (name, shape, values) in in_order(grads) {
        store.insert(&vars[name], Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(store)
}

/// The gradients as burn's backward pass would give them.
fn for_burn(model: &in_burn::Classifier, grads: &Mlp<f64>) -> GradientsParams {
    fn tensor<const D: usize>((_, shape, values): &(&str, Vec<usize>, Vec<f64>)) -> BurnTensor<D> {
        BurnTensor::from_data(TensorData::new(values.clone(), shape.clone()), (&BurnDevice::flex(), BurnDType::F64))
    }
    let [hidden_weight, hidden_bias, output_weight, output_bias] = in_order(grads);
    let mut params = GradientsParams::new();
    params.register::<2>(model.hidden.weight.id, tensor(&hidden_weight));
    params.register::<1>(model.hidden.bias.id, tensor(&hidden_bias));
    params.register::<2>(model.output.weight.id, tensor(&output_weight));
    params.register::<1>(model.output.bias.id, tensor(&output_bias));
    params
}

fn bits(tree: &impl Params<Elem = f64>) -> Vec<(String, Vec<u64>)> {
    let mut all = Vec::new();
    gradus::params::for_each(tree, |path, shape, values| {
        if let Some(values) = values {
            all.push((path.to_string(), values.view(shape).iter().map(|value| value.to_bits()).collect()));
        }
    });
    all.sort();
    all
}

#[test]
fn what_candle_began_goes_on_in_burn_and_on_arrays() -> Result<(), Box<dyn Error>> {
    let map = VarMap::new();
    in_candle::Classifier::new(&VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu))?;
    let (mut vars, mut opt_of_candle) = (Vars::<f64>::of(&map)?, opt());
    for step in 0..STEPS {
        vars.step(&mut opt_of_candle, &for_candle(&map, &gradients(step))?)?;
    }
    let file = std::env::temp_dir().join(format!("gradus-frameworks-{}.safetensors", std::process::id()));
    Checkpoint::of(&vars.lend()?, &opt_of_candle)?.save(&file)?;

    let checkpoint = Checkpoint::open(&file)?;
    std::fs::remove_file(&file)?;
    let (mut arrays, mut opt_of_arrays) = (gradients(1000), opt());
    checkpoint.load(&mut arrays, &mut opt_of_arrays)?;
    let (mut module, mut opt_of_burn) = (in_burn::Classifier::zeros(&BurnDevice::flex().autodiff()), opt());
    checkpoint.load(&mut gradus_burn::lend_as::<f64>(&mut module)?, &mut opt_of_burn)?;

    let before = bits(&arrays);
    for step in STEPS..2 * STEPS {
        let grads = gradients(step);
        vars.step(&mut opt_of_candle, &for_candle(&map, &grads)?)?;
        opt_of_arrays.step(&mut arrays, &grads)?;
        let grads = for_burn(&module, &grads);
        gradus_burn::step_as(&mut opt_of_burn, &mut module, grads)?;
        assert_eq!(bits(&arrays), bits(&vars.lend()?), "candle after step {step}");
        assert_eq!(bits(&arrays), bits(&gradus_burn::lend_as::<f64>(&mut module)?), "burn after step {step}");
    }
    assert_ne!(bits(&arrays), before);
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
