//! Muon, Shampoo and SOAP, from `matrices.json`.

use gradus::optimizer::{AdaptiveMuonRule, MuonBlocks, MuonCoefficients, MuonScale, ScionNorm};
use gradus::prelude::*;
use gradus::rule::Matrixwise;
use serde_json::Value;

use super::beside;

/// Newton–Schulz steepens differences of small singular values 485 times, eigenvectors those of close eigenvalues.
const F64: f64 = 1e-11;

/// The same in f32. Parameters are within 1, moved by 50 steps of 0.02 or 0.05.
const F32: f64 = 1e-4;

/// PyTorch's Newton–Schulz in bf16, of 8 bits: 50 steps of 0.02 with up to a tenth of error each, most of which cancels.
const BF16: f64 = 1e-2;

fn unknown<T>(name: &str) -> T {
    panic!("nothing is called {name}")
}

fn blocks(value: &Value) -> MuonBlocks {
    let count = |name: &str| Some(value.get(name)?.as_u64().unwrap().try_into().unwrap());
    match (count("Rows"), count("Parts")) {
        (Some(rows), _) => MuonBlocks::Rows(rows),
        (_, Some(parts)) => MuonBlocks::Parts(parts),
        _ if value == "LeadingAxes" => MuonBlocks::LeadingAxes,
        _ => unknown("blocks"),
    }
}

/// The options of Muon that are more than a number or a switch.
fn muon<A: Scalar>(opt: Muon<A>, name: &str, value: &Value) -> Muon<A> {
    match (name, value.as_str()) {
        ("scale", Some("MatchRmsAdamw")) => opt.scale(MuonScale::MatchRmsAdamw),
        ("scale", Some("RmsToRms")) => opt.scale(MuonScale::RmsToRms),
        ("scale", Some("Unscaled")) => opt.scale(MuonScale::Unscaled),
        ("coefficients", Some("Dion")) => opt.coefficients(MuonCoefficients::Dion),
        ("coefficients", Some("PolarExpress")) => opt.coefficients(MuonCoefficients::PolarExpress),
        ("blocks", _) => opt.blocks(blocks(value)),
        ("coefficients", None) => opt.coefficients(serde_json::from_value::<Vec<_>>(value.clone()).unwrap()),
        _ => unknown(name),
    }
}

/// The same of NorMuon and AdaMuon.
fn adaptive<const ROWS: bool, A: Scalar>(
    opt: Matrixwise<AdaptiveMuonRule<ROWS>, A>,
    name: &str,
    value: &Value,
) -> Matrixwise<AdaptiveMuonRule<ROWS>, A> {
    match (name, value.as_str()) {
        ("scale", Some("Original")) => opt.scale(MuonScale::Original),
        ("blocks", _) => opt.blocks(blocks(value)),
        ("coefficients", Some("Dion")) => opt.coefficients(MuonCoefficients::Dion),
        ("coefficients", Some("PolarExpress")) => opt.coefficients(MuonCoefficients::PolarExpress),
        _ => unknown(name),
    }
}

/// The same of Scion.
fn scion<A: Scalar>(opt: Scion<A>, name: &str, value: &Value) -> Scion<A> {
    match (name, value.as_str()) {
        ("norm", Some("Auto")) => opt.norm(ScionNorm::Auto),
        ("norm", Some("Spectral")) => opt.norm(ScionNorm::Spectral),
        ("norm", Some("SpectralMax")) => opt.norm(ScionNorm::SpectralMax),
        ("norm", Some("Sign")) => opt.norm(ScionNorm::Sign),
        ("norm", Some("Rows")) => opt.norm(ScionNorm::Rows),
        ("norm", Some("Columns")) => opt.norm(ScionNorm::Columns),
        ("norm", Some("Rms")) => opt.norm(ScionNorm::Rms),
        ("coefficients", Some("PolarExpress")) => opt.coefficients(MuonCoefficients::PolarExpress),
        _ => unknown(name),
    }
}

/// The optimizer of a case; panics at a setting that it does not have.
fn optimizer<A: Scalar>(case: &Value) -> Option<Box<dyn Optimizer<A>>> {
    let rate = case["learning_rate"].as_f64().unwrap();
    let options = case["options"].as_object().unwrap();
    macro_rules! with {
        ($opt:expr; $($number:ident)*; $($count:ident)*; $($switch:ident)*; $others:expr) => {{
            let mut opt = $opt;
            for (name, value) in options {
                opt = match name.as_str() {
                    $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                    $(stringify!($count) => opt.$count(value.as_u64().unwrap().try_into().unwrap()),)*
                    $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                    name => $others(opt, name, value),
                };
            }
            Some(Box::new(opt) as Box<dyn Optimizer<A>>)
        }};
    }
    match case["name"].as_str().unwrap() {
        "muon" => with!(Muon::new(rate); momentum weight_decay; iterations; nesterov match_rms_adamw; muon),
        "normuon" => with!(NorMuon::new(rate); momentum beta2 eps weight_decay; iterations; nesterov; adaptive),
        "adamuon" => with!(AdaMuon::new(rate); momentum beta2 eps weight_decay; iterations; nesterov; adaptive),
        "scion" => {
            with!(Scion::new(rate); momentum radius eps weight_decay; iterations; one_hot transposed constrained; scion)
        }
        "dion" => with!(Dion::new(rate); momentum eps weight_decay rank_fraction; seed; ;
            |_, name: &str, _: &Value| unknown(name)),
        #[cfg(feature = "second-order")]
        "shampoo" => {
            use gradus::optimizer::Graft;
            let graft = |opt: Shampoo<A>, name: &str, value: &Value| match (name, value.as_str()) {
                ("graft", Some("sgd")) => opt.graft(Graft::Sgd),
                ("graft", Some("rmsprop")) => opt.graft(Graft::RmsProp),
                ("graft", Some("adam")) => opt.graft(Graft::Adam),
                _ => unknown(name),
            };
            with!(Shampoo::new(rate); eps beta2 momentum weight_decay; every; ; graft)
        }
        #[cfg(feature = "second-order")]
        "soap" => with!(Soap::new(rate); beta1 beta2 eps weight_decay; every max_side; ;
            |_, name: &str, _: &Value| unknown(name)),
        #[cfg(not(feature = "second-order"))]
        "shampoo" | "soap" => None,
        name => unknown(name),
    }
}

/// The largest difference to the golden parameters, if the optimizer is there.
fn compare<A: Scalar>(case: &Value, steps: &[u64]) -> Option<f64> {
    Some(beside::worst_of_one_tensor(optimizer::<A>(case)?, case, steps, |found, expected| (found - expected).abs()))
}

#[test]
fn matrices_agree() {
    let golden = beside::golden("matrices");
    let steps = beside::recorded_steps(&golden);
    assert_eq!(steps, [1, 2, 10, 50]);
    let mut compared = [0; 3];
    for case in golden["cases"].as_array().unwrap() {
        let (found, (kind, tolerance)) = match (case["dtype"].as_str().unwrap(), case["source"].as_str().unwrap()) {
            ("f64", _) => (compare::<f64>(case, &steps), (0, F64)),
            ("f32", "torch") => (compare::<f32>(case, &steps), (1, BF16)),
            ("f32", _) => (compare::<f32>(case, &steps), (2, F32)),
            (_, other) => unknown(other),
        };
        let Some(worst) = found else { continue };
        println!("{} {} {} {}: {worst:e}", case["name"], case["dtype"], case["source"], case["options"]);
        assert!(worst <= tolerance, "{worst:e}: {} {} {}", case["name"], case["shape"], case["options"]);
        compared[kind] += 1;
    }
    let expected = if cfg!(feature = "second-order") { [59, 9, 59] } else { [49, 9, 49] };
    assert_eq!(compared, expected);
}
