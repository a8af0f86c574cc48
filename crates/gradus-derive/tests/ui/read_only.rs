use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
#[params(read_only)]
struct Grads {
    weight: &'static Array1<f32>,
}

#[derive(Params)]
struct Model {
    layer: Grads,
}

fn main() {}
