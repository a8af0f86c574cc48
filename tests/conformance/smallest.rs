//! Gradients of 0, and ones near the smallest numbers, with the smallest ε: parameters stay finite.

use gradus::optimizer::*;
use gradus::prelude::*;
use ndarray::Array2;

/// Steps with each gradient alone, and with all of them in turn. Returns what is not finite.
fn not_finite<A: Scalar, O: Optimizer<A> + Clone>(name: &str, opt: O, scales: &[f64]) -> Option<String> {
    let turns = scales.iter().map(|scale| vec![*scale; 3]).chain([scales.to_vec()]);
    for scales in turns {
        for shape in [(3, 2), (2, 4), (4, 1)] {
            let (mut opt, mut w) = (opt.clone(), Array2::<A>::zeros(shape));
            for scale in &scales {
                let grad = |(i, j): (usize, usize)| A::from_f64(scale * (1.0 + (2 * i + j) as f64).sin());
                opt.step(&mut w, &Array2::from_shape_fn(shape, grad)).unwrap();
                if !w.iter().all(|x| x.is_finite()) {
                    return Some(format!("{name}, {scales:?}, {shape:?}"));
                }
            }
        }
    }
    None
}

fn all_stay_finite<A: Scalar>(eps: f64, scales: &[f64]) {
    let mut found = Vec::new();
    macro_rules! check {
        ($($opt:expr),+ $(,)?) => { $(found.extend(not_finite::<A, _>(stringify!($opt), $opt, scales));)+ };
    }
    for norm in
        [ScionNorm::Auto, ScionNorm::Spectral, ScionNorm::Sign, ScionNorm::Rows, ScionNorm::Columns, ScionNorm::Rms]
    {
        check!(Scion::new(0.1).momentum(0.0).norm(norm).eps(eps));
    }
    check!(
        Muon::new(0.1).eps(eps),
        Muon::new(0.1).eps(eps).momentum(0.0),
        NorMuon::new(0.1).eps(eps),
        NorMuon::new(0.1).eps(eps).momentum(0.0).beta2(0.0),
        AdaMuon::new(0.1).eps(eps),
        AdaMuon::new(0.1).eps(eps).momentum(0.0).beta2(0.0),
        Dion::new(0.1).eps(eps),
        Apollo::new(0.1).rank(2).eps(eps),
        ApolloMini::new(0.1).eps(eps),
    );
    #[cfg(feature = "second-order")]
    check!(
        Soap::new(0.1).eps(eps).normalize_gradient(true),
        Soap::new(0.1).eps(eps).normalize_gradient(true).beta1(0.0).every(1),
        Soap::new(0.1).eps(eps).beta1(0.0),
        KlSoap::new(0.1).eps(eps).normalize_gradient(true),
        Kron::new(0.1),
        Kron::new(0.1).precond_init_scale(eps),
        GaLore::new(0.1).rank(2).eps(eps),
        Shampoo::new(0.1).eps(eps),
    );
    assert!(found.is_empty(), "ε = {eps}: {found:#?}");
}

#[test]
fn parameters_of_f32_stay_finite() {
    for eps in [1e-45, 1e-38] {
        all_stay_finite::<f32>(eps, &[0.0, 1e-45, 1e-40, 1e-38, 1e-30, 1e-22, 1e-10, 1.0, 1e-38, 0.0]);
    }
}

#[test]
fn parameters_of_f64_stay_finite() {
    for eps in [5e-324, 1e-308] {
        all_stay_finite::<f64>(eps, &[0.0, 5e-324, 1e-310, 1e-308, 1e-200, 1e-162, 1e-100, 1.0, 1e-308, 0.0]);
    }
}
