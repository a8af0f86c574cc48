// An enum is a tree only with the derive macro.
use gradus::prelude::*;
use ndarray::{Array1, array};

enum Layer {
    Dense(Array1<f32>),
    Relu,
}

fn main() {
    let mut model = vec![Layer::Dense(array![1.0]), Layer::Relu];
    let grads = vec![Layer::Dense(array![1.0]), Layer::Relu];
    let _ = Sgd::<f32>::new(0.1).step(&mut model, &grads);
}
