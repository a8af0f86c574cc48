// An optimizer for `f64`, parameters of `f32`.
use gradus::prelude::*;
use ndarray::array;

fn train(_: impl Optimizer<f32>) {}

fn main() {
    let mut opt = Sgd::<f64>::new(0.1);
    let mut w = array![1.0_f32];
    let _ = opt.step(&mut w, &array![0.5_f32]);
    train(opt);
}
