use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
struct Model {
    weight: Array1<f32>,
    epochs: usize,
}

fn main() {}
