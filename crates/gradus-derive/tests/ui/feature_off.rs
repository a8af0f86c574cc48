// Methods of features that are off by default.
use gradus::prelude::*;

fn main() {
    let _ = Sgd::<f64>::new(0.1).kfac();
    let _ = Sgd::<f64>::new(0.1).data_parallel(());
    let _ = Sgd::<f64>::new(0.1).proximal(0.1);
    let _ = Sgd::<f32>::new(0.1).master_weights();
}
