use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
struct Duplicate {
    weight: Array1<f32>,
    #[params(rename = "weight")]
    kernel: Array1<f32>,
}

#[derive(Params)]
struct DuplicatePosition(#[params(rename = "1")] Array1<f32>, Array1<f32>);

#[derive(Params)]
struct Empty {
    #[params(rename = "")]
    weight: Array1<f32>,
}

#[derive(Params)]
struct Dotted {
    #[params(rename = "layer.weight")]
    weight: Array1<f32>,
}

#[derive(Params)]
struct Skipped {
    #[params(skip, rename = "kernel")]
    weight: Array1<f32>,
    bias: Array1<f32>,
}

fn main() {}
