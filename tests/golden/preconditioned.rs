//! SOAP with its options, KL-SOAP and PSGD Kron, from `preconditioned.json`.

use gradus::optimizer::{KronMemory, KronProbe, SoapRule};
use gradus::prelude::*;
use gradus::rule::Matrixwise;
use serde_json::{Value, json};

use super::{beside, unit};

/// Eigenvectors steepen rounding by the inverse distance of eigenvalues, and the libraries' products round in another order. Parameters are within 1.
const F64: f64 = 1e-12;

/// The same in f32, in which a library's f64 is off by 2⁻²⁴ per operation: 50 steps of 0.01, most of whose errors cancel. The largest, 2.2e-6, is that of
/// KL-SOAP on a matrix with more rows than columns: it weights the rounding in the directions without a gradient by 1/ε = 100.
const F32: f64 = 4e-6;

/// Sets the options of a case; panics at one that the optimizer does not have.
macro_rules! with {
    ($opt:expr, $case:expr; $($number:ident)*; $($count:ident)*; $($switch:ident)*; $others:expr) => {{
        let mut opt = $opt;
        for (name, value) in $case["options"].as_object().unwrap() {
            opt = match name.as_str() {
                $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                $(stringify!($count) => opt.$count(value.as_u64().unwrap().try_into().unwrap()),)*
                $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                name => $others(opt, name, value.as_str()),
            };
        }
        opt
    }};
}

fn soap<const KL: bool, A: Scalar>(opt: Matrixwise<SoapRule<KL>, A>, case: &Value) -> Box<dyn Optimizer<A>> {
    Box::new(with!(opt, case; beta1 beta2 shampoo_beta eps momentum_decay weight_decay; every max_side;
        nesterov correct_bias normalize_gradient precondition_1d; |_, name, _| unknown(name)))
}

fn kron<A: Scalar>(opt: Kron<A>, case: &Value) -> Box<dyn Optimizer<A>> {
    let memory = |opt: Kron<A>, name: &str, value: Option<&str>| match (name, value) {
        ("memory_save_mode", Some("OneDiag")) => opt.memory_save_mode(KronMemory::OneDiag),
        ("memory_save_mode", Some("SmartOneDiag")) => opt.memory_save_mode(KronMemory::SmartOneDiag),
        ("memory_save_mode", Some("AllDiag")) => opt.memory_save_mode(KronMemory::AllDiag),
        _ => unknown(name),
    };
    let probe = |_: &str, step: u64, element: usize| 2.0 * unit(step * 11_000_033 + element as u64 + (1 << 42));
    Box::new(with!(opt.probe(KronProbe::from_fn(probe)), case;
        momentum weight_decay update_probability precond_lr precond_init_scale;
        max_size_triangular min_ndim_triangular; momentum_into_precond_update; memory))
}

fn unknown<T>(name: &str) -> T {
    panic!("nothing is called {name}")
}

fn optimizer<A: Scalar>(case: &Value) -> Box<dyn Optimizer<A>> {
    let rate = case["learning_rate"].as_f64().unwrap();
    match case["name"].as_str().unwrap() {
        "soap" => soap(Soap::new(rate), case),
        "klsoap" => soap(KlSoap::new(rate), case),
        "kron" => kron(Kron::new(rate), case),
        name => unknown(name),
    }
}

/// The largest difference to the golden parameters.
fn compare<A: Scalar>(case: &Value, steps: &[u64]) -> f64 {
    beside::worst_of_one_tensor(optimizer::<A>(case), case, steps, |found, expected| (found - expected).abs())
}

/// The recorded steps and the cases.
fn golden() -> (Vec<u64>, Vec<Value>) {
    let golden = beside::golden("preconditioned");
    (beside::recorded_steps(&golden), golden["cases"].as_array().unwrap().clone())
}

#[test]
fn preconditioned_agree() {
    let (steps, cases) = golden();
    assert_eq!(steps, [1, 2, 10, 50]);
    assert_eq!(cases.len(), 32);
    let mut failed = Vec::new();
    for case in &cases {
        let (wide, narrow) = (compare::<f64>(case, &steps), compare::<f32>(case, &steps));
        println!("{} {} {}: {wide:e}, {narrow:e}", case["name"], case["source"], case["options"]);
        if !(wide <= F64 && narrow <= F32) {
            failed.push(format!("{} {} {}: {wide:e}, {narrow:e}", case["name"], case["shape"], case["options"]));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_default_that_is_slightly_off_is_noticed() {
    let (steps, cases) = golden();
    for (name, option, value) in [
        ("soap", "beta1", json!(0.95 + 1e-9)),
        ("soap", "beta2", json!(0.95 + 1e-9)),
        ("soap", "shampoo_beta", json!(0.951)),
        ("soap", "eps", json!(2e-8)),
        ("soap", "every", json!(9)),
        ("soap", "correct_bias", json!(false)),
        ("soap", "normalize_gradient", json!(true)),
        ("soap", "nesterov", json!(true)),
        ("klsoap", "shampoo_beta", json!(0.951)),
        ("klsoap", "eps", json!(2e-8)),
        ("kron", "momentum", json!(0.9 + 1e-9)),
        ("kron", "precond_lr", json!(0.1 + 1e-9)),
        ("kron", "precond_init_scale", json!(1.0 + 1e-9)),
        ("kron", "update_probability", json!(0.99)),
        ("kron", "max_size_triangular", json!(5)),
        ("kron", "min_ndim_triangular", json!(3)),
        ("kron", "momentum_into_precond_update", json!(false)),
    ] {
        // The first of a name has the defaults.
        let mut case = cases.iter().find(|case| case["name"] == name).unwrap().clone();
        case["options"][option] = value;
        let difference = compare::<f64>(&case, &steps);
        assert!(difference > F64, "{name}, {option}: {difference:e}");
    }
    let case = cases.iter().find(|case| case["options"]["nesterov"] == true).unwrap();
    for (option, value) in [("momentum_decay", 4e-3 + 1e-8), ("beta1", 0.95 + 1e-9)] {
        let mut case = case.clone();
        case["options"][option] = json!(value);
        assert!(compare::<f64>(&case, &steps) > F64, "{option}");
    }
}
