//! Input that nothing good can be made of is refused by name, and changes nothing.

use gradus::lora::{Config, NormGradient};
use ndarray::{Array1, Array2, array};

use crate::{matrix, rng, trained};

#[test]
fn a_row_of_zeros_is_merged_and_unmerged() {
    let mut weight = matrix(3, 4, 1);
    weight.row_mut(1).fill(0.0);
    let adapter = Config::new(2, 2.0).dora(NormGradient::Detached).adapt(&weight, &mut rng()).unwrap();
    let mut merged = weight.clone();
    let token = adapter.merge(&mut merged).unwrap();
    adapter.unmerge(&mut merged, token).unwrap();
    assert!((merged - weight).iter().all(|error| error.abs() < 1e-14));
}

#[test]
fn what_another_adapter_merged_is_not_unmerged() {
    let weight = matrix(3, 4, 1);
    let plain = trained(Config::new(2, 2.0), &weight);
    let dora = trained(Config::new(2, 2.0).dora(NormGradient::Detached), &weight);
    for (one, other) in [(&plain, &dora), (&dora, &plain)] {
        let mut merged = weight.clone();
        let token = one.merge(&mut merged).unwrap();
        let kept = merged.clone();
        assert!(other.unmerge(&mut merged, token).is_err());
        assert_eq!(merged, kept);
    }
}

#[test]
fn a_magnitude_of_another_length_is_refused() {
    let (mut weight, x, delta) = (matrix(3, 4, 1), matrix(5, 4, 2), matrix(5, 3, 3));
    let mut adapter = trained(Config::new(2, 2.0), &weight);
    adapter.magnitude = Some(array![1.0, 2.0]);
    let needed = "magnitude has shape [2] where [3] is needed";
    assert_eq!(adapter.forward(&weight, &x).unwrap_err().to_string(), needed);
    assert_eq!(adapter.backward(&weight, &x, &delta).unwrap_err().to_string(), needed);
    assert_eq!(adapter.merge(&mut weight).unwrap_err().to_string(), needed);
}

#[test]
fn a_scale_beyond_the_element_type_is_refused() {
    let weight = Array2::<f32>::eye(3);
    let error = Config::new(1, 1e39).adapt(&weight, &mut rng()).unwrap_err();
    assert_eq!(error.to_string(), "alpha is 1e39; it must be finite as f32");
    assert!(Config::new(1, 1e39).pissa(&mut weight.clone()).is_err());
    assert!(Config::new(1, 1e39).adapt(&Array2::<f64>::eye(3), &mut rng()).is_ok());
}

/// √(σ/s) is beyond f32; the weight is as it was.
#[test]
fn a_residual_that_is_not_finite_is_refused() {
    let mut weight = Array2::<f32>::eye(3);
    let error = Config::new(1, 1e-300).pissa(&mut weight).unwrap_err();
    assert!(
        matches!(
            error,
            gradus::Error::Argument(gradus::error::ArgumentError::NotFinite { argument: "the residual", .. })
        ),
        "{error}"
    );
    assert_eq!(weight, Array2::<f32>::eye(3));
}

#[test]
fn a_rank_beyond_the_memory_is_refused() {
    for rank in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 8] {
        let error = Config::new(rank, 1.0).adapt(&matrix(3, 4, 1), &mut rng()).unwrap_err().to_string();
        assert!(error.ends_with("it must be a rank whose matrices fit into memory"), "{error}");
    }
}

/// An empty batch has an empty output, and gradients of zeros.
#[test]
fn an_empty_batch_passes() {
    let weight = matrix(3, 4, 1);
    for config in [Config::new(2, 2.0), Config::new(2, 2.0).dora(NormGradient::Through)] {
        let adapter = trained(config, &weight);
        let (x, delta) = (Array2::zeros((0, 4)), Array2::zeros((0, 3)));
        assert_eq!(adapter.forward(&weight, &x).unwrap().dim(), (0, 3));
        let backward = adapter.backward(&weight, &x, &delta).unwrap();
        assert_eq!(backward.grads.lora_b, Array2::<f64>::zeros((3, 2)));
        assert_eq!(backward.grads.magnitude, adapter.magnitude.as_ref().map(|m| Array1::zeros(m.len())));
    }
}
