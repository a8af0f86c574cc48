// What the derive macro refuses of an enum.
use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
enum Nothing {
    Relu,
    #[params(skip)]
    Dense(Array1<f32>),
}

#[derive(Params)]
enum Endless {
    More(Box<Self>),
}

#[derive(Params)]
enum Renamed {
    Dense(Array1<f32>),
    #[params(rename = "relu")]
    Relu,
}

#[derive(Params)]
enum Words {
    #[params(name = "dense")]
    Dense(Array1<f32>),
}

#[derive(Params)]
enum Names {
    Dense {
        weight: Array1<f32>,
        #[params(rename = "weight")]
        bias: Array1<f32>,
    },
}

#[derive(Params)]
enum Mixed {
    Single(Array1<f32>),
    Epochs(usize),
}

fn main() {}
