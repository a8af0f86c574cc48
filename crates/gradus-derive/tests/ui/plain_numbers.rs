// Parameters are arrays, not plain numbers.
use gradus::prelude::*;

fn main() {
    let mut opt = Sgd::<f64>::new(0.1);
    let mut numbers = vec![1.0_f64, 2.0];
    let _ = opt.step(&mut numbers, &vec![0.5_f64, 0.5]);
}
