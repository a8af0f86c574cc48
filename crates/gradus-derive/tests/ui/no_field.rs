use gradus::Params;
use ndarray::Array1;

#[derive(Params)]
struct Unit;

#[derive(Params)]
struct Empty {}

#[derive(Params)]
struct Skipped {
    #[params(skip)]
    weight: Array1<f32>,
}

#[derive(Params)]
struct List {
    next: Option<Box<List>>,
}

fn main() {}
