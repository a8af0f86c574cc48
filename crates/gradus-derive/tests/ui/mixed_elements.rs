use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
struct Mixed {
    weight: Array1<f32>,
    bias: Array1<f64>,
}

fn step<T: gradus::params::Params>(_: T) {}

fn main() {
    step(Mixed { weight: Array1::zeros(1), bias: Array1::zeros(1) });
}
