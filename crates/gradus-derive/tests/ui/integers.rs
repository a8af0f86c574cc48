// Parameters are floating-point numbers.
use gradus::prelude::*;

fn main() {
    let mut opt = Sgd::<f64>::new(0.1);
    let mut numbers = vec![1, 2];
    let _ = opt.step(&mut numbers, &[0.5, 0.5]);
}
