//! Norms and clipped sums through taps against gradients of single examples, formed one by one.

use gradus::curvature::unfold;
use gradus::federated::privacy::{Clipped, PerExample};
use gradus::{Error, LinearTap};
use ndarray::{Array, Array1, Array2, ArrayView2, Axis, array, s};

/// Of a norm; the acceptance asks for this, and sums of some hundred products in f64 keep it by far.
const RELATIVE: f64 = 1e-10;

/// A number in −1 … 1 that depends on nothing but its arguments.
fn numbers(rows: usize, columns: usize, stream: u64) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        ((i * columns + j) as f64 * 0.7 + stream as f64).sin() * (i as f64 * 0.3 + 1.0).cos()
    })
}

/// The gradient of weight and bias of one example, as a sum over its positions.
fn materialized(a: ArrayView2<'_, f64>, delta: ArrayView2<'_, f64>) -> (Array2<f64>, Array1<f64>) {
    (delta.t().dot(&a), delta.sum_axis(Axis(0)))
}

/// One layer: inputs, gradients, rows an example, whether there is a bias.
type Layer = (Array2<f64>, Array2<f64>, usize, bool);

/// A small network: a sequence layer, a dense one, one without bias; `examples` each.
fn network(examples: usize) -> Vec<Layer> {
    let layer = |inputs, outputs, positions, bias, stream| {
        let rows = examples * positions;
        (numbers(rows, inputs, stream), numbers(rows, outputs, stream + 50), positions, bias)
    };
    vec![layer(5, 3, 7, true, 1), layer(9, 4, 1, true, 2), layer(4, 6, 1, false, 3), layer(2, 8, 3, false, 4)]
}

fn batch(layers: &[Layer]) -> PerExample<'_, f64> {
    layers.iter().enumerate().fold(PerExample::new(), |batch, (at, (a, delta, positions, bias))| {
        let tap = LinearTap::new(a, delta).positions(*positions);
        match bias {
            true => batch.layer(&at.to_string(), tap).unwrap(),
            false => batch.weight(&format!("{at}.weight"), tap).unwrap(),
        }
    })
}

/// The norms and the clipped sums by gradients that are formed.
fn naive(layers: &[Layer], examples: usize, max_norm: f64) -> Clipped<f64> {
    let mut naive = Clipped { norms: Array1::zeros(examples), grads: Default::default() };
    for example in 0..examples {
        let own = layers.iter().map(|(a, delta, positions, bias)| {
            let rows = s![example * positions..(example + 1) * positions, ..];
            (materialized(a.slice(rows), delta.slice(rows)), *bias)
        });
        let own: Vec<_> = own.collect();
        let square = |((weight, grad), bias): &((Array2<f64>, Array1<f64>), bool)| {
            let of_bias = grad.iter().map(|x| x * x).sum::<f64>();
            weight.iter().map(|x| x * x).sum::<f64>() + if *bias { of_bias } else { 0.0 }
        };
        let norm = own.iter().map(square).sum::<f64>().sqrt();
        naive.norms[example] = norm;
        let factor = (max_norm / norm).min(1.0);
        for (at, ((weight, grad), bias)) in own.into_iter().enumerate() {
            let mut add = |field: &str, part: ndarray::ArrayD<f64>| {
                let sum = naive.grads.entry(format!("{at}.{field}")).or_insert_with(|| Array::zeros(part.raw_dim()));
                *sum += &(part * factor);
            };
            add("weight", weight.into_dyn());
            if bias {
                add("bias", grad.into_dyn());
            }
        }
    }
    naive
}

#[test]
fn norms_and_sums_are_those_of_gradients_formed_one_by_one() {
    const EXAMPLES: usize = 11;
    let layers = network(EXAMPLES);
    let norms = batch(&layers).norms().unwrap();
    let middle = norms.sum() / EXAMPLES as f64;
    // All clipped, some clipped, none clipped.
    for max_norm in [0.01, middle, 1e6] {
        let (found, expected) = (batch(&layers).clip(max_norm).unwrap(), naive(&layers, EXAMPLES, max_norm));
        for (found, expected) in found.norms.iter().zip(&expected.norms) {
            assert!((found / expected - 1.0).abs() < RELATIVE, "{found} {expected}");
        }
        assert_eq!(found.grads.len(), 6);
        for (path, expected) in &expected.grads {
            let scale = expected.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
            let found = &found.grads[path];
            assert_eq!(found.shape(), expected.shape());
            let near = |(a, b): (&f64, &f64)| (a - b).abs() < RELATIVE * scale;
            assert!(found.iter().zip(expected).all(near), "{path} at {max_norm}");
        }
    }
    let clipped = norms.iter().filter(|norm| **norm > middle).count();
    assert!(0 < clipped && clipped < EXAMPLES);
}

#[test]
fn every_layer_by_itself() {
    for layer in network(4) {
        let layers = [layer];
        let (found, expected) = (batch(&layers).norms().unwrap(), naive(&layers, 4, 1.0).norms);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a / b - 1.0).abs() < RELATIVE), "{found} {expected}");
    }
}

#[test]
fn a_convolution_is_a_layer_of_positions() {
    let image = Array::from_shape_fn((3, 2, 5, 4), |(b, c, y, x)| ((b * 37 + c * 11 + y * 5 + x) as f64).sin());
    let patches = unfold(image.view(), (2, 2), (1, 1), (0, 0)).unwrap();
    let delta = numbers(patches.nrows(), 3, 9);
    let layers = [(patches, delta, 12, true)];
    let (found, expected) = (batch(&layers).clip(0.5).unwrap(), naive(&layers, 3, 0.5));
    assert!(found.norms.iter().zip(&expected.norms).all(|(a, b)| (a / b - 1.0).abs() < RELATIVE));
    let both = found.grads["0.weight"].iter().zip(&expected.grads["0.weight"]);
    assert!(both.into_iter().all(|(a, b)| (a - b).abs() < RELATIVE));
}

#[test]
fn positions_that_cancel_leave_no_norm() {
    let a = Array2::from_elem((2, 3), 1.0 / 3.0);
    let delta = array![[1e4, 0.1], [-1e4, -0.1]];
    let layers = [(a, delta, 2, true)];
    // Exactly cancelled but for the rounding of products of 1e8.
    assert!(batch(&layers).norms().unwrap()[0] < 1e-3);
}

/// Where positions cancel, the rounding of what is summed must not exceed the limit either.
#[test]
fn what_rounding_leaves_is_limited_too() {
    /// The norm's own rounding.
    const ROUNDING: f64 = 1e-6;
    fn largest<A: gradus::Scalar>(a: &Array2<A>, delta: &Array2<A>, limit: f64) -> f64 {
        let clipped =
            PerExample::new().weight("w", LinearTap::new(a, delta).positions(2)).unwrap().clip(limit).unwrap();
        clipped.grads["w"].iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt()
    }

    let a = Array2::from_shape_fn((2, 50), |(_, j)| 1.0 / (j as f32 + 3.0));
    let single = largest(&a, &array![[1e6_f32], [-1e6]], 1e-4);
    assert!(single <= 1e-4 * (1.0 + ROUNDING), "{single}");
    let a = Array2::from_shape_fn((2, 50), |(i, j)| (1.0 + i as f64 * f64::EPSILON) / (j as f64 + 3.0));
    let double = largest(&a, &array![[1e9], [-1e9]], 1e-8);
    assert!(double <= 1e-8 * (1.0 + ROUNDING), "{double}");
}

#[test]
fn single_precision_norms_are_double() {
    // Squares beyond f32, and far below it.
    let (a, delta) = (array![[1e20_f32, 0.0], [1e-30, 0.0]], array![[1e20_f32], [1e-30]]);
    let norms = PerExample::new().weight("w", LinearTap::new(&a, &delta)).unwrap().norms().unwrap();
    assert!((norms[0] / 1e40 - 1.0).abs() < 1e-6 && (norms[1] / 1e-60 - 1.0).abs() < 1e-6, "{norms}");
}

#[test]
fn an_empty_batch_sums_to_nothing() {
    let (a, delta) = (Array2::<f64>::zeros((0, 3)), Array2::<f64>::zeros((0, 2)));
    for positions in [1, 4] {
        let batch = PerExample::new().layer("", LinearTap::new(&a, &delta).positions(positions)).unwrap();
        let clipped = batch.clip(1.0).unwrap();
        assert_eq!((batch.examples(), clipped.norms.len()), (0, 0));
        assert_eq!(clipped.grads["weight"], Array2::<f64>::zeros((2, 3)).into_dyn());
        assert_eq!(clipped.grads["bias"], Array1::<f64>::zeros(2).into_dyn());
    }
}

#[test]
fn nothing_of_batch_by_parameters_is_formed() {
    const EXAMPLES: usize = 64;
    const SIDE: usize = 256;
    let (a, delta) = (numbers(EXAMPLES, SIDE, 1), numbers(EXAMPLES, SIDE, 2));
    let long = (numbers(EXAMPLES * 16, SIDE, 3), numbers(EXAMPLES * 16, SIDE, 4));
    let bytes = |elements: usize| (elements * size_of::<f64>()) as u64;
    let parameters = 2 * (SIDE * SIDE + SIDE);
    let activations = EXAMPLES * 17 * SIDE;
    let used = allocation_counter::measure(|| {
        let batch = PerExample::new().layer("0", LinearTap::new(&a, &delta)).unwrap();
        let batch = batch.layer("1", LinearTap::new(&long.0, &long.1).positions(16)).unwrap();
        assert_eq!(batch.clip(1.0).unwrap().norms.len(), EXAMPLES);
    });
    // The result, one layer's weighted gradients, and as much again for what products pack.
    assert!(used.bytes_max < 2 * bytes(parameters + activations), "{} bytes", used.bytes_max);
    assert!(5 * used.bytes_max < bytes(EXAMPLES * parameters), "{} bytes", used.bytes_max);
    let used = allocation_counter::measure(|| {
        let batch = PerExample::new().layer("0", LinearTap::new(&a, &delta)).unwrap();
        assert_eq!(batch.norms().unwrap().len(), EXAMPLES);
    });
    assert!(used.bytes_max < bytes(SIDE * SIDE) / 8, "{} bytes", used.bytes_max);
}

#[test]
fn what_is_wrong_with_a_layer_is_said() {
    let (a, delta) = (numbers(6, 3, 1), numbers(6, 2, 2));
    let tap = || LinearTap::new(&a, &delta);
    let one = || PerExample::new().layer("one", tap()).unwrap();
    let mut nan = delta.clone();
    nan[[2, 1]] = f64::NAN;
    let short = numbers(4, 2, 3);
    let huge = Array2::from_elem((6, 3), 1e200);
    let table: Vec<(Error, &str)> = vec![
        (
            one().layer("two", tap().positions(2)).unwrap_err(),
            "layer \"two.weight\": the batch has shape [3] where [6] is needed",
        ),
        (
            one().weight("two", LinearTap::new(&a, &nan)).unwrap_err(),
            "layer \"two\": output_grad is NaN at index [2, 1]",
        ),
        (
            one().weight("two", LinearTap::new(&a, &short)).unwrap_err(),
            "layer \"two\": output_grad has shape [4, 2] where [6, 2] is needed",
        ),
        (
            one().weight("two", tap().positions(4)).unwrap_err(),
            "layer \"two\": input has 6 rows; it must have a multiple of 4 positions, and at least one example",
        ),
        (one().layer("one", tap()).unwrap_err(), "two tensors have the path \"one.weight\"; rename one"),
        (
            one().weight_and_bias("w", "one.bias", tap()).unwrap_err(),
            "two tensors have the path \"one.bias\"; rename one",
        ),
        (one().clip(0.0).unwrap_err(), "clip is 0; it must be a finite number above 0"),
        (one().clip(f64::NAN).unwrap_err(), "clip is NaN; it must be a finite number above 0"),
        (
            one().weight("two", LinearTap::new(&huge, &delta)).unwrap().clip(1.0).unwrap_err(),
            "the gradient norm overflows; the largest element is in \"two\"",
        ),
        (
            PerExample::new().weight("w", LinearTap::new(&huge, &delta).positions(2)).unwrap().norms().unwrap_err(),
            "the gradient norm overflows; the largest element is in \"w\"",
        ),
    ];
    for (error, sentence) in table {
        assert_eq!(error.to_string(), sentence);
    }
}
