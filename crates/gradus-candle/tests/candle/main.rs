//! Models of candle, stepped by gradus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod in_place;
mod refusals;
mod sixteen_bits;
mod trajectory;
mod trees;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use gradus_candle::CandleElement;

/// Numbers without a pattern that arithmetic would keep.
fn wave<A: CandleElement>(len: usize, phase: f64) -> Vec<A> {
    (0..len).map(|i| <A as gradus::Element>::from_f64((0.37 * i as f64 + phase).sin())).collect()
}

fn tensor<A: CandleElement>(shape: &[usize], phase: f64) -> Tensor {
    Tensor::from_vec(wave::<A>(shape.iter().product(), phase), shape, &Device::Cpu).unwrap()
}

/// A store of exactly these gradients.
fn store(grads: impl IntoIterator<Item = (Var, Tensor)>) -> GradStore {
    let mut store = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap().backward().unwrap();
    for (var, grad) in grads {
        store.insert(&var, grad);
    }
    store
}

fn values<A: CandleElement>(var: &Tensor) -> Vec<A> {
    var.flatten_all().unwrap().to_vec1().unwrap()
}
