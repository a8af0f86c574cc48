// An array of another version of ndarray is another type.
use gradus::prelude::*;
use old_ndarray::array;

fn main() {
    let mut opt = Sgd::<f64>::new(0.1);
    let mut w = array![1.0_f64];
    let _ = opt.step(&mut w, &array![0.5_f64]);
}
