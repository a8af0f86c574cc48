//! Embeddings, convolutions, and layers that store their weight as (in, out): against the linear layer of the same matrix.

use gradus::lora::{AdaptedLayer, Config, Lora, NormGradient};
use ndarray::{Array2, Array4, Axis};

use crate::{matrix, number, rng};

/// Two ways to the same sum, of some tens of products in f64.
const CLOSE: f64 = 1e-12;

const CONFIGS: fn() -> [Config; 3] = || {
    let plain = Config::new(2, 3.0);
    [plain, plain.dora(NormGradient::Detached), plain.dora(NormGradient::Through)]
};

/// The same numbers in every adapter of a matrix of this shape.
fn filled(mut adapter: Lora<f64>) -> Lora<f64> {
    adapter.lora_a.indexed_iter_mut().for_each(|((i, j), a)| *a = number(3 * i + 5 * j + 1));
    adapter.lora_b.indexed_iter_mut().for_each(|((i, j), b)| *b = 0.3 * number(7 * i + j));
    adapter.magnitude.iter_mut().flatten().enumerate().for_each(|(i, m)| *m *= 1.0 + 0.2 * number(i));
    adapter
}

fn distance(left: &Array2<f64>, right: &Array2<f64>) -> f64 {
    assert_eq!(left.dim(), right.dim());
    (left - right).iter().fold(0.0, |most, x| x.abs().max(most))
}

/// W of shape (6, 5), and its transpose as a weight.
#[test]
fn a_transposed_weight_is_the_same_layer() {
    let (weight, x, delta) = (matrix(6, 5, 1), matrix(4, 5, 2), matrix(4, 6, 3));
    let transposed = weight.t().as_standard_layout().into_owned();
    for config in CONFIGS() {
        let linear = filled(config.adapt(&weight, &mut rng()).unwrap());
        let other = filled(config.fan_in_fan_out(true).adapt(&transposed, &mut rng()).unwrap());
        assert_eq!((linear.layer(), other.layer()), (&AdaptedLayer::Linear, &AdaptedLayer::FanInFanOut));
        let y = linear.forward(&weight, &x).unwrap();
        assert!(distance(&y, &other.forward(&transposed, &x).unwrap()) < CLOSE);
        let mask = x.mapv(|x| if x > 0.0 { 2.0 } else { 0.0 });
        let y = linear.forward_masked(&weight, &x, &mask).unwrap();
        assert!(distance(&y, &other.forward_masked(&transposed, &x, &mask).unwrap()) < CLOSE);
        let [one, two] =
            [linear.backward(&weight, &x, &delta).unwrap(), other.backward(&transposed, &x, &delta).unwrap()];
        assert!(distance(&one.input, &two.input) < CLOSE && distance(&one.grads.lora_a, &two.grads.lora_a) < CLOSE);
        let grad = delta.t().dot(&x);
        let one = linear.backward_weight(&weight, &grad).unwrap();
        let two = other.backward_weight(&transposed, &grad.t().to_owned()).unwrap();
        assert!(distance(&one.lora_b, &two.lora_b) < CLOSE && distance(&one.lora_a, &two.lora_a) < CLOSE);

        let (mut merged, mut other_merged) = (weight.clone(), transposed.clone());
        _ = linear.merge(&mut merged).unwrap();
        let token = other.merge(&mut other_merged).unwrap();
        assert!(distance(&merged, &other_merged.t().to_owned()) < CLOSE);
        other.unmerge(&mut other_merged, token).unwrap();
        assert!(distance(&other_merged, &transposed) < CLOSE);
        let needed = "weight has shape [6, 5] where [5, 6] is needed";
        assert_eq!(other.forward(&weight, &x).unwrap_err().to_string(), needed);
    }
}

#[test]
fn pissa_of_a_transposed_weight() {
    let weight = matrix(6, 5, 1);
    let (mut rest, mut other_rest) = (weight.clone(), weight.t().to_owned());
    let one = Config::new(2, 3.0).pissa(&mut rest).unwrap();
    let two = Config::new(2, 3.0).fan_in_fan_out(true).pissa(&mut other_rest).unwrap();
    assert!(distance(&rest, &other_rest.t().to_owned()) < CLOSE);
    assert!(distance(&one.lora_b.dot(&one.lora_a), &two.lora_b.dot(&two.lora_a)) < CLOSE);
}

/// An embedding is a linear layer whose x has a 1 for each token.
#[test]
fn an_embedding_is_a_product_with_ones() {
    let (table, tokens) = (matrix(7, 4, 1), [3, 0, 3, 6]);
    let x = Array2::from_shape_fn((4, 7), |(row, token)| f64::from(u8::from(tokens[row] == token)));
    let delta = matrix(4, 4, 2);
    for config in CONFIGS() {
        let adapter = filled(config.adapt_embedding(&table, &mut rng()).unwrap());
        let rows = adapter.embed(&table, &tokens).unwrap();
        assert!(distance(&rows, &adapter.forward(&table, &x).unwrap()) < CLOSE);
        let mut merged = table.clone();
        _ = adapter.merge(&mut merged).unwrap();
        assert!(distance(&rows, &merged.select(Axis(0), &tokens)) < CLOSE);
        let found = adapter.embed_backward(&table, &tokens, &delta).unwrap();
        let expected = adapter.backward(&table, &x, &delta).unwrap().grads;
        assert!(distance(&found.lora_a, &expected.lora_a) < CLOSE && distance(&found.lora_b, &expected.lora_b) < CLOSE);
        match (found.magnitude, expected.magnitude) {
            (Some(found), Some(expected)) => assert!((found - expected).iter().all(|error| error.abs() < CLOSE)),
            (found, expected) => assert!(found.is_none() && expected.is_none()),
        }
        let error = adapter.embed(&table, &[7]).unwrap_err().to_string();
        assert_eq!(error, "token is 7; it must be below 7, the number of rows of the weight");
        assert!(adapter.embed_backward(&table, &[7], &matrix(1, 4, 2)).is_err());
        assert!(adapter.embed_backward(&table, &tokens, &matrix(3, 4, 2)).is_err());
    }
}

#[test]
fn a_new_embedding_adapter_changes_nothing() {
    let table = matrix(300, 40, 1);
    for config in CONFIGS() {
        let adapter = config.adapt_embedding(&table, &mut rng()).unwrap();
        assert!(adapter.lora_a.iter().all(|a| *a == 0.0));
        let mean_square = adapter.lora_b.iter().map(|b| b * b).sum::<f64>() / adapter.lora_b.len() as f64;
        assert!((mean_square - 1.0).abs() < 0.5, "{mean_square}"); // of 80 numbers: a standard deviation of 0.16
        let rows = adapter.embed(&table, &[299, 1]).unwrap();
        assert!(distance(&rows, &table.select(Axis(0), &[299, 1])) < CLOSE);
    }
    assert!(Config::new(0, 1.0).adapt_embedding(&table, &mut rng()).is_err());
}

/// The kernel of shape (3, 2, 2, 2) is the matrix of shape (3, 8), in any order of memory.
#[test]
fn a_convolution_is_the_layer_of_its_matrix() {
    let (weight, patches, delta) = (matrix(3, 8, 1), matrix(5, 8, 2), matrix(5, 3, 3));
    let kernel: Array4<f64> = weight.clone().into_shape_with_order((3, 2, 2, 2)).unwrap();
    let mut strided = Array4::zeros((2, 2, 2, 3)).permuted_axes([3, 1, 0, 2]);
    strided.assign(&kernel);
    for config in CONFIGS() {
        let linear = filled(config.adapt(&weight, &mut rng()).unwrap());
        for kernel in [&kernel, &strided] {
            let adapter = filled(config.adapt(kernel, &mut rng()).unwrap());
            assert_eq!(*adapter.layer(), AdaptedLayer::Convolution { window: vec![2, 2, 2] });
            let y = adapter.forward(kernel, &patches).unwrap();
            assert!(distance(&y, &linear.forward(&weight, &patches).unwrap()) < CLOSE);
            let found = adapter.backward(kernel, &patches, &delta).unwrap();
            assert!(distance(&found.input, &linear.backward(&weight, &patches, &delta).unwrap().input) < CLOSE);
            let (mut merged, mut expected) = (kernel.clone(), weight.clone());
            _ = adapter.merge(&mut merged).unwrap();
            _ = linear.merge(&mut expected).unwrap();
            let merged = merged.as_standard_layout().into_owned().into_shape_with_order((3, 8)).unwrap();
            assert!(distance(&merged, &expected) < CLOSE);
        }
    }
    let error = Config::new(1, 1.0).adapt(&weight.row(0), &mut rng()).unwrap_err().to_string();
    assert_eq!(error, "axes of the weight is 1; it must be 2 or more");
}
