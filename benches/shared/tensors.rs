//! What is stepped: numbers, and the shapes of a model.

use gradus::Element;
use ndarray::ArrayD;

/// Numbers around 1.5, none of them 0.
pub(crate) fn wave<A: Element>(elements: usize, phase: f64) -> Vec<A> {
    (0..elements).map(|i| A::from_f64((i as f64 * 0.61 + phase).sin() + 1.5)).collect()
}

/// The tensors of GPT-2 small.
pub(crate) fn gpt2(phase: f64) -> Vec<ArrayD<f32>> {
    let tensor = |shape: &[usize]| ArrayD::from_shape_vec(shape, wave(shape.iter().product(), phase));
    gpt2_shapes().into_iter().map(|shape| tensor(shape).expect("as many numbers as the shape has")).collect()
}

/// The 148 tensors of GPT-2 small, 124 million parameters.
pub(crate) fn gpt2_shapes() -> Vec<&'static [usize]> {
    const BLOCK: [&[usize]; 12] = [
        &[768],
        &[768],
        &[768, 2304],
        &[2304],
        &[768, 768],
        &[768],
        &[768],
        &[768],
        &[768, 3072],
        &[3072],
        &[3072, 768],
        &[768],
    ];
    let mut shapes: Vec<&[usize]> = vec![&[50_257, 768], &[1024, 768]];
    (0..12).for_each(|_| shapes.extend(BLOCK));
    shapes.extend([&[768][..]; 2]);
    shapes
}
