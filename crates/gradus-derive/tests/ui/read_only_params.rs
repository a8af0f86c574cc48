// A read-only view cannot be moved.
use gradus::prelude::*;
use ndarray::array;

fn main() {
    let mut opt = Sgd::<f64>::new(0.1);
    let w = array![1.0];
    let _ = opt.step(&mut w.view(), &array![0.5]);
}
