//! Gradients from candle.

use std::error::Error;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::loss::cross_entropy;
use candle_nn::{Linear, VarBuilder, VarMap, linear};
use gradus::checkpoint::Checkpoint;
use gradus_candle::Vars;
use indicatif::ProgressBar;

use crate::{Batch, HIDDEN, optimizer};

pub(crate) struct Classifier {
    hidden: Linear,
    output: Linear,
}

impl Classifier {
    pub(crate) fn new(builder: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let (hidden, output) = (builder.pp("hidden"), builder.pp("output"));
        Ok(Self { hidden: linear(64, HIDDEN, hidden)?, output: linear(HIDDEN, 10, output)? })
    }

    fn forward(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        self.output.forward(&self.hidden.forward(pixels)?.relu()?)
    }
}

pub(crate) fn train(start: &Checkpoint, batches: &[Batch], bar: &ProgressBar) -> Result<Vec<f64>, Box<dyn Error>> {
    let map = VarMap::new();
    let model = Classifier::new(&VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu))?;
    let mut vars = Vars::<f64>::of(&map)?;
    start.load_params(&mut vars.lend()?)?;
    let mut opt = optimizer(batches.len());

    let mut losses = Vec::new();
    for batch in batches {
        let (pixels, labels) = tensors(batch)?;
        let loss = cross_entropy(&model.forward(&pixels)?, &labels)?;
        vars.step(&mut opt, &loss.backward()?)?;
        losses.push(loss.to_scalar()?);
        bar.inc(1);
    }
    Ok(losses)
}

fn tensors(batch: &Batch) -> candle_core::Result<(Tensor, Tensor)> {
    let pixels: Vec<f64> = batch.pixels.iter().copied().collect();
    let labels: Vec<u32> = batch.labels.iter().map(|label| *label as u32).collect();
    Ok((Tensor::from_vec(pixels, batch.pixels.dim(), &Device::Cpu)?, Tensor::new(labels, &Device::Cpu)?))
}
