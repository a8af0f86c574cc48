//! What adapters begin with, how far they get, merging, and what is refused.

use gradus::error::ArgumentError;
use gradus::lora::{self, Config, Init, NormGradient};
use gradus::prelude::*;
use gradus::schedule::Cosine;
use gradus::{Error, params::Layout};
use ndarray::{Array2, array};

use crate::{matrix, number, rng, trained};

/// An orthonormal matrix, by Gram and Schmidt.
fn orthonormal(side: usize, phase: usize) -> Array2<f64> {
    let mut q = matrix(side, side, phase);
    for row in 0..side {
        for _ in 0..2 {
            for other in 0..row {
                let along = q.row(row).dot(&q.row(other));
                let other = q.row(other).to_owned();
                q.row_mut(row).scaled_add(-along, &other);
            }
        }
        let norm = q.row(row).dot(&q.row(row)).sqrt();
        q.row_mut(row).mapv_inplace(|x| x / norm);
    }
    q
}

/// Whitened inputs, E[xxᵀ] = I: the mean squared error of an output is ‖W + sBA − T‖²/out, and no B·A of rank r is nearer to
/// T than its r largest singular values (Eckart and Young).
#[test]
fn training_ends_at_the_eckart_young_floor() {
    const SIDE: usize = 32;
    const STEPS: u64 = 6000;
    let (u, v) = (orthonormal(SIDE, 1), orthonormal(SIDE, 2));
    let sigma: Vec<f64> = (0..SIDE).map(|i| 2.0 * 0.8_f64.powi(i as i32)).collect();
    let target =
        Array2::from_shape_fn((SIDE, SIDE), |(i, j)| (0..SIDE).map(|k| u[[k, i]] * sigma[k] * v[[k, j]]).sum());
    let base = Array2::<f64>::zeros((SIDE, SIDE));
    for (rank, floor) in [(1, 0.222_222), (2, 0.142_222), (4, 0.058_254_0), (8, 0.009_773_22)] {
        let exact: f64 = sigma[rank..].iter().map(|sigma| sigma * sigma / SIDE as f64).sum();
        assert!((exact - floor).abs() < 1e-6, "{exact}");
        let mut adapter = Config::new(rank, rank as f64).adapt(&base, &mut rng()).unwrap();
        let mut opt = Adam::new(Cosine::new(0.02, STEPS));
        let x = Array2::<f64>::eye(SIDE) * (SIDE as f64).sqrt(); // of 32 examples the second moment is I
        let wanted = x.dot(&target.t());
        let mut loss = 0.0;
        for _ in 0..=STEPS {
            let error = adapter.forward(&base, &x).unwrap() - &wanted;
            loss = error.mapv(|e| e * e).mean().unwrap();
            let grads = adapter.backward(&base, &x, &(error * (2.0 / (SIDE * SIDE) as f64))).unwrap().grads;
            opt.step(&mut adapter, &grads).unwrap();
        }
        println!("rank {rank}: {loss:.9} where {exact:.9} is the least");
        assert!(loss - exact < 1e-6 && loss > exact - 1e-9, "rank {rank}: {loss} is not {exact}");
    }
}

#[test]
fn an_adapter_begins_with_the_output_of_its_base() {
    let x = matrix(5, 9, 2).mapv(|x| x as f32);
    let weight = matrix(7, 9, 1).mapv(|x| x as f32);
    let expected = x.dot(&weight.t());
    // Relative to the largest output, as PiSSA adds and subtracts numbers of that size.
    let largest = expected.iter().fold(1.0_f32, |most, x| x.abs().max(most));
    let same = |y: Array2<f32>| assert!((y - &expected).iter().all(|x| x.abs() < 1e-6 * largest));
    for init in [Init::Kaiming, Init::Gaussian] {
        for config in [Config::new(3, 6.0).init(init), Config::new(3, 6.0).init(init).dora(NormGradient::Detached)] {
            same(config.adapt(&weight, &mut rng()).unwrap().forward(&weight, &x).unwrap());
        }
    }
    for config in [
        Config::new(3, 6.0),
        Config::new(7, 1.0).rank_stabilized(true),
        Config::new(2, 4.0).dora(NormGradient::Through),
    ] {
        let mut residual = weight.clone();
        let adapter = config.pissa(&mut residual).unwrap();
        same(adapter.forward(&residual, &x).unwrap());
        assert!(residual != weight);
    }
}

/// The adapter has the largest singular values; what the weight keeps has only smaller ones.
#[test]
fn pissa_takes_the_principal_part() {
    let (u, v) = (orthonormal(6, 1), orthonormal(6, 2));
    let sigma = [5.0, 3.0, 1.0, 0.5, 0.25, 0.1];
    let part = |range: std::ops::Range<usize>| {
        Array2::from_shape_fn((6, 6), |(i, j)| range.clone().map(|k| u[[k, i]] * sigma[k] * v[[k, j]]).sum::<f64>())
    };
    let mut weight = part(0..6);
    let adapter = Config::new(2, 8.0).pissa(&mut weight).unwrap();
    let product = adapter.lora_b.dot(&adapter.lora_a) * adapter.scale();
    assert!((product - part(0..2)).iter().all(|x| x.abs() < 1e-12));
    assert!((weight - part(2..6)).iter().all(|x| x.abs() < 1e-12));
    // Evenly: AAᵀ = BᵀB.
    let (a, b) = (adapter.lora_a.dot(&adapter.lora_a.t()), adapter.lora_b.t().dot(&adapter.lora_b));
    assert!((a - b).iter().all(|x| x.abs() < 1e-12));
}

#[test]
fn initializations_have_their_spread() {
    let weight = Array2::<f64>::zeros((2, 10_000));
    let a = |init| Config::new(4, 1.0).init(init).adapt(&weight, &mut rng()).unwrap().lora_a;
    let spread = |a: &Array2<f64>| a.mapv(|x| x * x).mean().unwrap().sqrt();
    let (uniform, normal) = (a(Init::Kaiming), a(Init::Gaussian));
    // Four standard errors of 40,000 numbers: 1.4 and 2 percent.
    assert!(uniform.iter().all(|x| x.abs() <= 0.01) && (spread(&uniform) / (0.01 / 3.0_f64.sqrt()) - 1.0).abs() < 0.02);
    assert!((spread(&normal) / 0.25 - 1.0).abs() < 0.02 && normal.iter().any(|x| x.abs() > 0.75));
}

#[test]
fn merged_and_unmerged_is_the_base() {
    let weight = matrix(7, 9, 1);
    for config in [Config::new(3, 6.0), Config::new(3, 6.0).dora(NormGradient::Detached)] {
        let adapter = trained(config, &weight);
        let (mut merged, x) = (weight.clone(), matrix(5, 9, 2));
        let token = adapter.merge(&mut merged).unwrap();
        assert!((x.dot(&merged.t()) - adapter.forward(&weight, &x).unwrap()).iter().all(|x| x.abs() < 1e-12));
        adapter.unmerge(&mut merged, token).unwrap();
        assert!((&merged - &weight).iter().zip(&weight).all(|(error, w)| error.abs() < 1e-13 * w.abs().max(1.0)));

        let narrow = weight.mapv(|w| w as f32);
        let mut adapter = config.adapt(&narrow, &mut rng()).unwrap();
        adapter.lora_b.indexed_iter_mut().for_each(|((i, j), b)| *b = 0.3 * number(7 * i + j) as f32);
        let mut merged = narrow.clone();
        let token = adapter.merge(&mut merged).unwrap();
        adapter.unmerge(&mut merged, token).unwrap();
        let largest = narrow.iter().fold(0.0_f32, |most, w| w.abs().max(most));
        assert!((&merged - &narrow).iter().all(|error| error.abs() < 1e-6 * largest));
    }
}

#[test]
fn a_merge_that_is_not_finite_is_refused() {
    let mut weight = matrix(3, 4, 1);
    let before = weight.clone();
    let mut adapter = trained(Config::new(2, 2.0), &weight);
    adapter.lora_a[[1, 2]] = f64::INFINITY;
    let error = adapter.merge(&mut weight).unwrap_err();
    assert!(
        matches!(&error, Error::Argument(ArgumentError::NotFinite { argument: "the merged weight", index, .. }) if index == &[0, 2]),
        "{error}"
    );
    let mut dora = trained(Config::new(2, 2.0).dora(NormGradient::Detached), &weight);
    let mut merged = weight.clone();
    dora.magnitude = Some(array![1.0, 0.0, 1.0]);
    let token = dora.merge(&mut merged).unwrap();
    let kept = merged.clone();
    let error = dora.unmerge(&mut merged, token).unwrap_err();
    assert!(
        matches!(error, Error::Argument(ArgumentError::NotFinite { argument: "the unmerged weight", .. })),
        "{error}"
    );
    assert!(weight == before && merged == kept);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut weight = matrix(3, 4, 1);
    let refused = |config: Config| config.adapt(&matrix(3, 4, 1), &mut rng()).unwrap_err().to_string();
    assert_eq!(refused(Config::new(0, 1.0)), "rank is 0; it must be at least 1");
    assert_eq!(refused(Config::new(1, f64::NAN)), "alpha is NaN; it must be a finite number");
    assert_eq!(refused(Config::new(1, 1.0).dropout(1.0)), "dropout is 1; it must be a number in 0 ≤ dropout < 1");
    let error = Config::new(4, 1.0).pissa(&mut weight).unwrap_err();
    assert_eq!(error.to_string(), "rank is 4; it must be at most the smaller side of the weight");
    assert!(Config::new(2, 0.0).pissa(&mut weight).is_err());
    weight[[2, 1]] = f64::NAN;
    let error = Config::new(2, 1.0).pissa(&mut weight).unwrap_err();
    assert_eq!(error.to_string(), "weight is NaN at index [2, 1]");
    assert!(Config::new(2, 1.0).dora(NormGradient::Detached).adapt(&weight, &mut rng()).is_err());

    let (weight, x) = (matrix(3, 4, 1), matrix(5, 4, 2));
    let adapter = trained(Config::new(2, 2.0), &weight);
    let said = |result: gradus::Result<Array2<f64>>| result.unwrap_err().to_string();
    assert_eq!(said(adapter.forward(&weight, &matrix(5, 3, 2))), "x has shape [5, 3] where [5, 4] is needed");
    assert_eq!(said(adapter.forward(&matrix(4, 3, 1), &x)), "weight has shape [4, 3] where [3, 4] is needed");
    let mask = matrix(4, 4, 1);
    assert_eq!(said(adapter.forward_masked(&weight, &x, &mask)), "mask has shape [4, 4] where [5, 4] is needed");
    let backward = |delta: &Array2<f64>| adapter.backward(&weight, &x, delta).map(|backward| backward.input);
    assert_eq!(said(backward(&matrix(5, 4, 3))), "output_grad has shape [5, 4] where [5, 3] is needed");
    let by_weight = adapter.backward_weight(&weight, &x).map(|grads| grads.lora_a);
    assert_eq!(said(by_weight), "weight_grad has shape [5, 4] where [3, 4] is needed");
}

#[test]
fn an_adapter_is_a_tree_and_the_base_is_not_in_it() {
    let weight = matrix(7, 9, 1);
    let adapter = trained(Config::new(3, 6.0).dora(NormGradient::Detached), &weight);
    let layout = Layout::of(&adapter).unwrap();
    assert_eq!(layout.paths().collect::<Vec<_>>(), ["lora_a", "lora_b", "magnitude"]);
    assert_eq!(layout.elements(), 3 * 9 + 7 * 3 + 7);
    assert_eq!(Layout::of(&trained(Config::new(3, 6.0), &weight)).unwrap().len(), 2);
}

#[test]
fn lora_plus_lets_b_learn_faster() {
    let weight = matrix(7, 9, 1);
    for mut adapters in [vec![trained(Config::new(3, 6.0), &weight)], vec![trained(Config::new(3, 6.0), &weight); 2]] {
        let before = adapters.clone();
        let mut opt = lora::plus(Sgd::new(0.5), 16.0);
        let grads = before.clone();
        opt.step(&mut adapters, &grads).unwrap();
        for (after, before) in adapters.iter().zip(&before) {
            assert_eq!(after.lora_a, &before.lora_a - &(&before.lora_a * 0.5));
            assert_eq!(after.lora_b, &before.lora_b - &(&before.lora_b * 8.0));
        }
    }
    let mut alone = trained(Config::new(3, 6.0), &weight);
    let grads = alone.clone();
    lora::plus(Sgd::new(0.5), 16.0).step(&mut alone, &grads).unwrap();
    assert_eq!(alone.lora_b, &grads.lora_b * -7.0);
}

#[test]
fn a_mask_leaves_out_its_share_and_keeps_the_mean() {
    let adapter = trained(Config::new(2, 2.0).dropout(0.25), &matrix(3, 4, 1));
    let mask = adapter.mask((200, 200), &mut rng());
    let left_out = mask.iter().filter(|m| **m == 0.0).count() as f64 / mask.len() as f64;
    assert!((left_out - 0.25).abs() < 0.01 && mask.iter().all(|m| *m == 0.0 || *m == 4.0 / 3.0));
    let none = trained(Config::new(2, 2.0), &matrix(3, 4, 1)).mask((3, 4), &mut rng());
    assert_eq!(none, Array2::<f64>::ones((3, 4)));
}
