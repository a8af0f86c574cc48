// A learning rate is an `f64`, a schedule or a closure.
use gradus::prelude::*;

fn main() {
    let _integer: Sgd<f32> = Sgd::new(1);
    let _single: Sgd<f32> = Sgd::new(0.1_f32);
    let _other_step: Sgd<f32> = Sgd::new(|step: u32| f64::from(step));
}
