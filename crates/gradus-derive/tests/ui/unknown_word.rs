use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
#[params(skip)]
struct OnStruct {
    weight: Array1<f32>,
}

#[derive(Params)]
struct OnField {
    #[params(ignore)]
    weight: Array1<f32>,
}

#[derive(Params)]
struct Twice {
    #[params(skip)]
    #[params(skip)]
    weight: Array1<f32>,
}

#[derive(Params)]
struct Bare {
    #[params]
    weight: Array1<f32>,
}

fn main() {}
