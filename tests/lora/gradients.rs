//! The two ways to the gradients, finite differences, and what they allocate.

use gradus::LinearTap;
use gradus::lora::{Config, Lora, NormGradient};
use ndarray::{Array2, Zip};

use crate::{matrix, rng, trained};

const OUT: usize = 7;
const IN: usize = 9;
const BATCH: usize = 5;

fn configs() -> [(&'static str, Config); 5] {
    let plain = Config::new(3, 6.0).dropout(0.4);
    [
        ("lora", plain),
        ("rank-stabilized", plain.rank_stabilized(true)),
        ("dora", plain.dora(NormGradient::Detached)),
        ("dora, through the norm", plain.dora(NormGradient::Through)),
        ("rank 1", Config::new(1, -2.0)),
    ]
}

fn sum(left: &Array2<f64>, right: &Array2<f64>) -> f64 {
    Zip::from(left).and(right).fold(0.0, |sum, a, b| sum + a * b)
}

fn distance(left: &Array2<f64>, right: &Array2<f64>) -> f64 {
    (left - right).iter().fold(0.0, |most, x| x.abs().max(most))
}

/// L = ⟨δ, y⟩, whose derivative by y is δ.
#[test]
fn both_routes_agree() {
    let (weight, x, delta) = (matrix(OUT, IN, 1), matrix(BATCH, IN, 2), matrix(BATCH, OUT, 3));
    for (name, config) in configs() {
        let adapter = trained(config, &weight);
        let by_outputs = adapter.backward(&weight, &x, &delta).unwrap();
        let by_weight = adapter.backward_weight(&weight, &delta.t().dot(&x)).unwrap();
        assert!(distance(&by_outputs.grads.lora_a, &by_weight.lora_a) < 1e-10, "{name}");
        assert!(distance(&by_outputs.grads.lora_b, &by_weight.lora_b) < 1e-10, "{name}");
        match (by_outputs.grads.magnitude, by_weight.magnitude) {
            (Some(left), Some(right)) => assert!((left - right).iter().all(|x| x.abs() < 1e-10), "{name}"),
            (left, right) => assert!(left.is_none() && right.is_none(), "{name}"),
        }
    }
}

/// A tap has the gradients of single examples; of two positions each, the sum over them.
#[test]
fn a_tap_gives_the_gradients_of_the_mean() {
    let (weight, x, delta) = (matrix(OUT, IN, 1), matrix(6, IN, 2), matrix(6, OUT, 3));
    for (name, config) in configs() {
        let adapter = trained(config, &weight);
        for positions in [1, 2] {
            let tap = LinearTap::new(&x, &delta).positions(positions);
            let found = adapter.backward_tap(&weight, tap).unwrap();
            let mean = &delta / (6 / positions) as f64;
            assert!(found == adapter.backward(&weight, &x, &mean).unwrap().grads, "{name}");
            let by_weight = adapter.backward_weight(&weight, &tap.weight_grad().unwrap()).unwrap();
            assert!(distance(&found.lora_a, &by_weight.lora_a) < 1e-10, "{name}");
        }
        assert!(adapter.backward_tap(&weight, LinearTap::new(&x, &delta).positions(4)).is_err());
    }
}

/// The formulas of the docs, with W′ written out.
#[test]
fn the_output_is_that_of_the_merged_weight() {
    let (weight, x) = (matrix(OUT, IN, 1), matrix(BATCH, IN, 2));
    for (name, config) in configs() {
        let adapter = trained(config, &weight);
        let mut whole = &weight + &(adapter.lora_b.dot(&adapter.lora_a) * adapter.scale());
        if let Some(magnitude) = &adapter.magnitude {
            for (mut row, magnitude) in whole.rows_mut().into_iter().zip(magnitude) {
                let norm = row.dot(&row).sqrt();
                row *= magnitude / norm;
            }
        }
        let y = adapter.forward(&weight, &x).unwrap();
        assert!(distance(&y, &x.dot(&whole.t())) < 1e-12, "{name}");
        let mut merged = weight.clone();
        _ = adapter.merge(&mut merged).unwrap();
        assert!(distance(&merged, &whole) < 1e-12, "{name}");
        // And the gradient to x is that of a layer with this weight.
        let delta = matrix(BATCH, OUT, 3);
        let input = adapter.backward(&weight, &x, &delta).unwrap().input;
        assert!(distance(&input, &delta.dot(&whole)) < 1e-12, "{name}");
    }
}

/// The derivative of `loss` by every element that `element` shows, against what was found.
fn differences(name: &str, found: impl IntoIterator<Item = f64>, loss: impl Fn(usize, f64) -> f64) {
    const STEP: f64 = 1e-5;
    for (at, found) in found.into_iter().enumerate() {
        let expected = (loss(at, STEP) - loss(at, -STEP)) / (2.0 * STEP);
        // Errors of the difference: STEP² from the third derivative, 1e-16/STEP from rounding.
        assert!((found - expected).abs() < 1e-8 * expected.abs().max(1.0), "{name} {at}: {found} is not {expected}");
    }
}

#[test]
fn finite_differences() {
    let (weight, x, delta) = (matrix(OUT, IN, 1), matrix(BATCH, IN, 2), matrix(BATCH, OUT, 3));
    for (name, config) in configs() {
        let adapter = trained(config, &weight);
        for masked in [false, true] {
            let mask = if masked { adapter.mask(x.dim(), &mut rng()) } else { Array2::ones(x.dim()) };
            assert!(!masked || name == "rank 1" || mask.iter().any(|m| *m == 0.0));
            let loss =
                |adapter: &Lora<f64>, x: &Array2<f64>| sum(&delta, &adapter.forward_masked(&weight, x, &mask).unwrap());
            let backward = adapter.backward_masked(&weight, &x, &mask, &delta).unwrap();
            if !masked {
                assert_eq!(backward, adapter.backward(&weight, &x, &delta).unwrap(), "{name}");
            }
            // A detached norm is a constant; then A and B have no finite differences to be compared with.
            if config != Config::new(3, 6.0).dropout(0.4).dora(NormGradient::Detached) {
                differences(&format!("{name}: A"), backward.grads.lora_a.iter().copied(), |at, step| {
                    let mut other = adapter.clone();
                    *other.lora_a.iter_mut().nth(at).unwrap() += step;
                    loss(&other, &x)
                });
                differences(&format!("{name}: B"), backward.grads.lora_b.iter().copied(), |at, step| {
                    let mut other = adapter.clone();
                    *other.lora_b.iter_mut().nth(at).unwrap() += step;
                    loss(&other, &x)
                });
            }
            differences(&format!("{name}: m"), backward.grads.magnitude.iter().flatten().copied(), |at, step| {
                let mut other = adapter.clone();
                *other.magnitude.iter_mut().flatten().nth(at).unwrap() += step;
                loss(&other, &x)
            });
            differences(&format!("{name}: x"), backward.input.iter().copied(), |at, step| {
                let mut other = x.clone();
                *other.iter_mut().nth(at).unwrap() += step;
                loss(&adapter, &other)
            });
        }
    }
}

/// With the norm detached A and B have the gradients of a layer whose rows are scaled by a constant.
#[test]
fn a_detached_norm_is_a_constant() {
    let (weight, x, delta) = (matrix(OUT, IN, 1), matrix(BATCH, IN, 2), matrix(BATCH, OUT, 3));
    let adapter = trained(Config::new(3, 6.0).dora(NormGradient::Detached), &weight);
    let mut plain = trained(Config::new(3, 6.0), &weight);
    (plain.lora_a, plain.lora_b) = (adapter.lora_a.clone(), adapter.lora_b.clone());
    let whole = &weight + &(adapter.lora_b.dot(&adapter.lora_a) * adapter.scale());
    let norms = whole.rows().into_iter().map(|row| row.dot(&row).sqrt());
    let factors: ndarray::Array1<f64> = adapter.magnitude.iter().flatten().zip(norms).map(|(m, n)| m / n).collect();
    let expected = plain.backward(&weight, &x, &(&delta * &factors)).unwrap().grads;
    let found = adapter.backward(&weight, &x, &delta).unwrap().grads;
    assert!(distance(&found.lora_a, &expected.lora_a) < 1e-12 && distance(&found.lora_b, &expected.lora_b) < 1e-12);
}

/// On the way over (x, δ) nothing as large as the weight is made.
#[test]
fn nothing_of_the_size_of_the_weight_is_formed() {
    const SIDE: usize = 1536;
    let (weight, x, delta) = (matrix(SIDE, SIDE, 1), matrix(4, SIDE, 2), matrix(4, SIDE, 3));
    for config in [
        Config::new(2, 2.0),
        Config::new(2, 2.0).dora(NormGradient::Detached),
        Config::new(2, 2.0).dora(NormGradient::Through),
    ] {
        let adapter = trained(config, &weight);
        let used = allocation_counter::measure(|| {
            let y = adapter.forward(&weight, &x).unwrap();
            let backward = adapter.backward(&weight, &x, &delta).unwrap();
            assert!(y.len() == backward.input.len());
        });
        // The products themselves need some memory for their blocks, however small the matrices are.
        let (weight, most) = ((SIDE * SIDE * size_of::<f64>()) as u64, used.bytes_max);
        println!("{most} bytes at most at a time, where the weight has {weight}");
        assert!(most < weight / 4, "{most} bytes at a time, where the weight has {weight}");
    }
}
