//! Gradients from burn.

use std::error::Error;

use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use gradus::checkpoint::Checkpoint;
use indicatif::ProgressBar;

use crate::{Batch, HIDDEN, optimizer};

/// As candle and PyTorch store it. burn's own has the weight transposed, which would be another tensor to a checkpoint.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// (out, in)
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
pub(crate) struct Classifier {
    pub(crate) hidden: Linear,
    pub(crate) output: Linear,
}

impl Linear {
    fn zeros(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::zeros([outputs, inputs], (device, DType::F64))),
            bias: Param::from_tensor(Tensor::zeros([outputs], (device, DType::F64))),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

impl Classifier {
    pub(crate) fn zeros(device: &Device) -> Self {
        Self { hidden: Linear::zeros(64, HIDDEN, device), output: Linear::zeros(HIDDEN, 10, device) }
    }

    fn forward(&self, pixels: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(pixels)))
    }
}

pub(crate) fn train(start: &Checkpoint, batches: &[Batch], bar: &ProgressBar) -> Result<Vec<f64>, Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let mut model = Classifier::zeros(&device);
    start.load_params(&mut gradus_burn::lend_as::<f64>(&mut model)?)?;
    let mut opt = optimizer(batches.len());

    let mut losses = Vec::new();
    for batch in batches {
        let (pixels, labels) = tensors(batch, &device);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(model.forward(pixels), labels);
        losses.push(loss.clone().into_scalar());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        gradus_burn::step_as(&mut opt, &mut model, grads)?;
        bar.inc(1);
    }
    Ok(losses)
}

fn tensors(batch: &Batch, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let pixels: Vec<f64> = batch.pixels.iter().copied().collect();
    let labels: Vec<i64> = batch.labels.iter().map(|label| *label as i64).collect();
    let (rows, columns) = batch.pixels.dim();
    (
        Tensor::from_data(TensorData::new(pixels, [rows, columns]), (device, DType::F64)),
        Tensor::from_data(TensorData::new(labels, [rows]), device),
    )
}
