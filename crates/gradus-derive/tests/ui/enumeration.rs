use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
enum Layer {
    Dense(Array1<f32>),
}

fn main() {}
