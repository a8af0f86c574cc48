//! DoRA where W and sBA nearly cancel: norm and output are those of the same small rows.

use gradus::Scalar;
use gradus::lora::{Config, Lora, NormGradient};
use ndarray::{Array1, Array2, array};

use crate::{matrix, number, rng};

const NORMS: [NormGradient; 2] = [NormGradient::Detached, NormGradient::Through];

/// W = [[3, 4]], A = W, B = [[d − 1]]: W + BA = dW, whose direction is W's.
fn shrunk<A: Scalar>(d: f64, norm: NormGradient) -> (Array2<A>, Lora<A>) {
    let weight = array![[3.0, 4.0]].mapv(A::from_f64);
    let mut adapter = Config::new(1, 1.0).dora(norm).adapt(&weight, &mut rng()).unwrap();
    adapter.lora_a.assign(&weight);
    adapter.lora_b[[0, 0]] = A::from_f64(d - 1.0);
    (weight, adapter)
}

#[test]
fn the_direction_stays_however_little_is_left() {
    fn check<A: Scalar>(least: f64) {
        for d in [1.0, 0.1, 1e-2, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, least].into_iter().filter(|d| *d >= least) {
            // A product, a quotient and a sum of numbers of the type, and of the numbers of f64 what is left of them.
            let relative = 4.0 * A::epsilon().as_f64() + 16.0 * f64::EPSILON / d;
            for norm in NORMS {
                let (weight, adapter) = shrunk::<A>(d, norm);
                let x = array![[A::one(), A::one()], [A::one(), -A::one()]];
                let close = |found: A, expected: f64, what: &str| {
                    let error = (found.as_f64() - expected).abs();
                    assert!(
                        error <= relative * expected.abs(),
                        "{what} for d = {d}, {norm:?}: {found} is not {expected}"
                    );
                };
                let y = adapter.forward(&weight, &x).unwrap();
                close(y[[0, 0]], 7.0, "output");
                close(y[[1, 0]], -1.0, "output");
                let all = Array2::from_elem((2, 2), A::one());
                let masked = adapter.forward_masked(&weight, &x, &all).unwrap();
                close(masked[[0, 0]], 7.0, "masked output");
                let mut merged = weight.clone();
                _ = adapter.merge(&mut merged).unwrap();
                close(merged[[0, 0]], 3.0, "merged");
                close(merged[[0, 1]], 4.0, "merged");

                // L = y₀ has dL/dx = m·direction, dL/dm = x·direction.
                let delta = array![[A::one()], [A::zero()]];
                let backward = adapter.backward(&weight, &x, &delta).unwrap();
                close(backward.input[[0, 0]], 3.0, "input");
                close(backward.input[[0, 1]], 4.0, "input");
                let by_weight = adapter.backward_weight(&weight, &delta.t().dot(&x)).unwrap();
                for (grads, way) in [(&backward.grads, "outputs"), (&by_weight, "weight")] {
                    close(grads.magnitude.as_ref().unwrap()[0], 1.4, way);
                    // The scale of the rows is m/n = 1/d, with d as B has it.
                    let left = 1.0 + adapter.lora_b[[0, 0]].as_f64();
                    let b = (left - 1.0) / left;
                    let (a, expected_b): ([f64; 2], f64) = match norm {
                        NormGradient::Detached => ([b, b], 7.0 / left),
                        // Only what is orthogonal to the direction passes, and A has nothing that is.
                        NormGradient::Through => ([0.16 * b, -0.12 * b], 0.0),
                    };
                    close(grads.lora_a[[0, 0]], a[0], way);
                    close(grads.lora_a[[0, 1]], a[1], way);
                    let error = (grads.lora_b[[0, 0]].as_f64() - expected_b).abs() * left / 7.0;
                    assert!(error < relative, "B by {way} for d = {d}, {norm:?}: {}", grads.lora_b);
                }
            }
        }
    }
    check::<f32>(6e-8);
    check::<f64>(1e-6);
}

/// Rows of a larger matrix, each shrunk by another factor, against f64: outputs, merged weight and gradients.
#[test]
fn rows_that_nearly_vanish_have_the_digits_of_the_type() {
    const RELATIVE: f64 = 2e-6;
    let (outputs, inputs, batch) = (40, 300, 6);
    let narrow = |matrix: Array2<f64>| matrix.mapv(|x| x as f32);
    let wide = |matrix: &Array2<f32>| matrix.mapv(f64::from);
    let weight = narrow(matrix(outputs, inputs, 1));
    for norm in NORMS {
        let mut adapter = Config::new(outputs, outputs as f64).dora(norm).adapt(&weight, &mut rng()).unwrap();
        adapter.lora_a.assign(&weight);
        for row in 0..outputs {
            // Every row is its own, taken away but for a little; and a little of another.
            adapter.lora_b[[row, row]] = (0.1_f64.powi((row % 7) as i32) - 1.0) as f32;
            adapter.lora_b[[row, (row + 1) % outputs]] = (1e-6 * number(row)) as f32;
        }
        adapter.magnitude.iter_mut().flatten().enumerate().for_each(|(i, m)| *m *= 1.0 + 0.2 * number(i) as f32);
        let exact_weight = wide(&weight);
        let mut exact = Config::new(outputs, outputs as f64).dora(norm).adapt(&exact_weight, &mut rng()).unwrap();
        exact.lora_a = wide(&adapter.lora_a);
        exact.lora_b = wide(&adapter.lora_b);
        exact.magnitude = adapter.magnitude.as_ref().map(|m| m.mapv(f64::from));
        let (x, delta) = (narrow(matrix(batch, inputs, 2)), narrow(matrix(batch, outputs, 3)));
        let (exact_x, exact_delta) = (wide(&x), wide(&delta));

        // Each row or column relative to its largest element.
        let close = |found: &Array2<f32>, expected: &Array2<f64>, what: &str| {
            for (found, expected) in found.rows().into_iter().zip(expected.rows()) {
                let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                let worst =
                    found.iter().zip(&expected).fold(0.0_f64, |most, (a, b)| most.max((f64::from(*a) - b).abs()));
                assert!(worst <= RELATIVE * largest, "{what}, {norm:?}: {worst:e} of {largest:e}");
            }
        };
        let column = |vector: &Option<Array1<f32>>| vector.clone().unwrap().insert_axis(ndarray::Axis(1));
        let exact_column = |vector: &Option<Array1<f64>>| vector.clone().unwrap().insert_axis(ndarray::Axis(1));
        let y = adapter.forward(&weight, &x).unwrap();
        close(&y.t().to_owned(), &exact.forward(&exact_weight, &exact_x).unwrap().t().to_owned(), "y");
        let found = adapter.backward(&weight, &x, &delta).unwrap();
        let expected = exact.backward(&exact_weight, &exact_x, &exact_delta).unwrap();
        close(&found.input, &expected.input, "dx");
        close(&found.grads.lora_a, &expected.grads.lora_a, "dA");
        close(&found.grads.lora_b, &expected.grads.lora_b, "dB");
        let grad = exact_delta.t().dot(&exact_x);
        let by_weight = adapter.backward_weight(&weight, &narrow(grad.clone())).unwrap();
        let expected = exact.backward_weight(&exact_weight, &grad).unwrap();
        close(&by_weight.lora_a, &expected.lora_a, "dA by dW");
        close(&by_weight.lora_b, &expected.lora_b, "dB by dW");
        assert_eq!(column(&by_weight.magnitude).dim(), exact_column(&expected.magnitude).dim());
        let (mut merged, mut exact_merged) = (weight.clone(), exact_weight.clone());
        _ = adapter.merge(&mut merged).unwrap();
        _ = exact.merge(&mut exact_merged).unwrap();
        close(&merged, &exact_merged, "merged");
    }
}

/// Squares of the elements leave f32 where the lengths do not.
#[test]
fn lengths_at_the_ends_of_the_range() {
    fn check<A: Scalar>(scales: &[f64]) {
        for scale in scales.iter().copied() {
            let weight = array![[3.0, 4.0]].mapv(|w| A::from_f64(w * scale));
            let adapter = Config::new(1, 1.0).dora(NormGradient::Detached).adapt(&weight, &mut rng()).unwrap();
            let magnitude = adapter.magnitude.clone().unwrap()[0].as_f64();
            assert!((magnitude / scale / 5.0 - 1.0).abs() < 4.0 * A::epsilon().as_f64(), "{scale:e}: {magnitude:e}");
            let y = adapter.forward(&weight, &array![[A::one(), A::one()]]).unwrap()[[0, 0]].as_f64();
            assert!((y / scale / 7.0 - 1.0).abs() < 4.0 * A::epsilon().as_f64(), "{scale:e}: {y:e}");
        }
    }
    check::<f32>(&[1e-36, 1e-30, 1e-20, 1.0, 1e20, 1e30, 1e37]);
    check::<f64>(&[1e-300, 1e-200, 1.0, 1e200, 1e300]);
}
