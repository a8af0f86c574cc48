// A `HashMap` has no fixed order.
use std::collections::HashMap;

use gradus::prelude::*;
use ndarray::{Array1, array};

fn main() {
    let mut opt = Sgd::<f64>::new(0.1);
    let mut map: HashMap<String, Array1<f64>> = HashMap::from([("weight".into(), array![1.0])]);
    let grads = map.clone();
    let _ = opt.step(&mut map, &grads);
}
