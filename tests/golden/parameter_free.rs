//! Optimizers that find their learning rate, from `parameter_free.json`.

use std::collections::BTreeMap;

use gradus::adaptor::Group;
use gradus::prelude::*;
use ndarray::Array1;
use serde_json::{Map, Value};

use super::{beside, grad, param, unit};

/// What is small beside the parameters, which begin within 1: a value near zero has the rounding errors of the larger ones that it had before.
const SMALL: f64 = 1e-2;

/// In f64, relative: both sides evaluate the same formulas, in another order.
const F64: f64 = 1e-12;

/// In f32, relative: the first steps are some ulp of the parameters, so that one ulp of a step's length, which the libraries compute from sums in f32, turns
/// the last bit of some parameters and is a thousandth of the distances that the estimates grow from.
const F32: f64 = 2e-3;

const STEPS: u64 = 100;

fn learning_rate(base: f64, step: u64) -> f64 {
    base * 0.5_f64.powi((step / 20) as i32) * (1.0 + 0.25 * (step % 3) as f64)
}

/// A gradient whose direction turns every ten steps.
fn turning(step: u64, i: usize) -> f64 {
    grad(step, i) + if (step / 10).is_multiple_of(2) { 1.0 } else { -1.0 } * unit(i as u64 + (1 << 41))
}

/// The optimizer of a case, and how to read what it has found; panics at an option that it does not have.
fn optimizer<A: Scalar>(case: &Value, options: &Map<String, Value>) -> (Box<dyn Optimizer<A>>, Found<A>) {
    let base = case["learning_rate"].as_f64().unwrap();
    let rate = move |step: u64| learning_rate(base, step);
    macro_rules! with {
        ($kind:ident: $($number:ident)*; $($switch:ident)*; $found:expr) => {{
            let mut opt = $kind::<A>::new(rate);
            for (name, value) in options {
                opt = match name.as_str() {
                    $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                    $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                    name => panic!("{} has no {name}", case["name"]),
                };
            }
            let found: fn(&$kind<A>) -> f64 = $found;
            (Box::new(opt) as Box<dyn Optimizer<A>>, Box::new(move |opt: &Box<dyn Optimizer<A>>| opt.find().map(found)) as Found<A>)
        }};
    }
    let (mut opt, found) = match case["name"].as_str().unwrap() {
        "prodigy" => with!(Prodigy: beta1 beta2 beta3 eps d0 d_coef growth_rate weight_decay;
            safeguard_warmup bias_correction coupled_decay; |opt| opt.d()),
        "dog" => with!(DoG: relative_distance initial_distance initial_rate eps weight_decay; layerwise;
            |opt| opt.step_size().unwrap()),
        "dowg" => with!(DoWG: initial_distance_sq eps weight_decay; ; |opt| opt.step_size().unwrap()),
        "dadaptadam" => with!(DAdaptAdam: beta1 beta2 eps d0 growth_rate weight_decay; bias_correction; |opt| opt.d()),
        "dadaptsgd" => with!(DAdaptSgd: momentum d0 growth_rate weight_decay; ; |opt| opt.d()),
        name => panic!("nothing is called {name}"),
    };
    for tensor in case["resting"].as_array().into_iter().flatten() {
        opt = Box::new(opt.group(tensor.to_string(), Group::new().scale_learning_rate(0.0)));
    }
    (opt, found)
}

type Found<A> = Box<dyn Fn(&Box<dyn Optimizer<A>>) -> Option<f64>>;

/// The largest error, relative to the value or to what is small beside it.
fn worst<A: Scalar>(case: &Value, options: &Map<String, Value>) -> f64 {
    let counts = |key: &str| case[key].as_array().into_iter().flatten().map(|count| count.as_u64().unwrap() as usize);
    let ((mut opt, found), sizes) = (optimizer::<A>(case, options), counts("sizes").collect::<Vec<_>>());
    let tensors = |number: &dyn Fn(usize) -> f64| -> Vec<Array1<A>> {
        let mut next = 0..;
        sizes.iter().map(|size| next.by_ref().take(*size).map(|i| A::from_f64(number(i))).collect()).collect()
    };
    let absent = |step: u64, at: usize| step % 3 == 2 && counts("absent").any(|absent| absent == at);
    let (mut params, mut recorded) = (tensors(&param), case["values"].as_array().unwrap().iter());
    let mut estimates = case["found"].as_array().unwrap().iter();
    let mut worst = 0.0_f64;
    let mut compare = |found: f64, expected: f64, scale: f64| {
        let error = (found - expected).abs() / expected.abs().max(scale);
        worst = beside::larger(worst, error);
    };
    for step in 0..STEPS {
        let grads = tensors(&|i| turning(step, i)).into_iter().enumerate();
        let grads: Vec<_> = grads.map(|(at, grad)| (!absent(step, at)).then_some(grad)).collect();
        opt.step(&mut params, &grads).unwrap();
        if ![1, 2, 3, 10, 50, STEPS].contains(&opt.steps()) {
            continue;
        }
        if let Some(expected) = estimates.next().unwrap().as_f64() {
            compare(found(&opt).unwrap(), expected, 0.0);
        }
        let expected = recorded.next().unwrap().as_array().unwrap();
        let values: Vec<f64> = params.iter().flatten().map(|x| x.as_f64()).collect();
        assert_eq!(expected.len(), counts("indices").count());
        for (index, expected) in counts("indices").zip(expected) {
            let expected = A::from_f64(expected.as_f64().unwrap()).as_f64();
            compare(values[index], expected, if A::DTYPE == "f32" { 1.0 } else { SMALL });
        }
    }
    assert!(recorded.next().is_none());
    worst
}

fn golden() -> Vec<Value> {
    let golden = beside::golden("parameter_free");
    golden["cases"].as_array().unwrap().clone()
}

fn describe(case: &Value) -> String {
    let [name, options, source, dtype, sizes] = ["name", "options", "source", "dtype", "sizes"].map(|key| &case[key]);
    format!("{name} {options} of {source} in {dtype}, {sizes}")
}

fn tolerance(case: &Value) -> f64 {
    if case["dtype"] == "f32" { F32 } else { F64 }
}

fn compare(case: &Value, options: &Map<String, Value>) -> f64 {
    if case["dtype"] == "f32" { worst::<f32>(case, options) } else { worst::<f64>(case, options) }
}

#[test]
fn parameter_free_optimizers_agree() {
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in golden() {
        let error = compare(&case, case["options"].as_object().unwrap());
        println!("{}: {error:e}", describe(&case));
        if error > tolerance(&case) || error.is_nan() {
            wrong.push(format!("{error:e}: {}", describe(&case)));
        }
        *compared.entry(case["source"].as_str().unwrap().into()).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected =
        [("dog-optimizer 1.0.3", 6), ("optax 0.2.8", 28), ("prodigyopt 1.1.2", 24), ("pytorch-optimizer 4.1.0", 10)];
    assert_eq!(compared, expected.map(|(source, count)| (source.to_owned(), count)).into());
}

/// Every hyper-parameter, slightly off, takes the trajectory out of tolerance, and so does every switch.
#[test]
fn a_hyper_parameter_that_is_slightly_off_is_noticed() {
    let small = |case: &Value| case["dtype"] == "f64" && case["sizes"].as_array().unwrap().len() > 2;
    for case in golden().into_iter().filter(small) {
        let rejects = |case: &Value, options: &Map<String, Value>, option: &str| {
            let error = compare(case, options);
            assert!(
                error.is_nan() || error > tolerance(case),
                "{option} is no more than {error:e} off: {}",
                describe(case)
            );
        };
        let options = case["options"].as_object().unwrap();
        for (option, value) in options {
            let mut wrong = options.clone();
            match value.as_f64() {
                Some(number) => wrong.insert(option.clone(), (number * (1.0 + 1e-6) + 1e-9).into()),
                None => wrong.remove(option),
            };
            rejects(&case, &wrong, option);
        }
        // In the first steps from α = 1e-6, nothing is seen of a millionth.
        if options.contains_key("layerwise") && options.len() == 1 {
            continue;
        }
        let mut wrong = case.clone();
        wrong["learning_rate"] = (case["learning_rate"].as_f64().unwrap() * (1.0 + 1e-6)).into();
        rejects(&wrong, options, "learning_rate");
        for (option, value) in other_than_default(case["name"].as_str().unwrap()) {
            if options.is_empty() {
                rejects(&case, &Map::from_iter([(option.to_string(), (*value).into())]), option);
            }
        }
    }
}

/// Values beside the defaults of the hyper-parameters; of a small ε, one that is seen.
fn other_than_default(name: &str) -> &'static [(&'static str, f64)] {
    match name {
        "prodigy" => &[
            ("beta1", 0.900_001),
            ("beta2", 0.999_000_1),
            ("beta3", 0.999_5),
            ("eps", 1e-6),
            ("d0", 1.000_001e-6),
            ("d_coef", 1.000_001),
            ("weight_decay", 1e-6),
        ],
        "dog" => &[("relative_distance", 1.000_001e-6), ("eps", 1e-6), ("weight_decay", 1e-6)],
        "dowg" => &[("initial_distance_sq", 1.000_001e-4), ("eps", 1.000_001e-4), ("weight_decay", 1e-6)],
        "dadaptadam" => {
            &[("beta1", 0.900_001), ("beta2", 0.999_000_1), ("eps", 1e-6), ("d0", 1.000_001e-6), ("weight_decay", 1e-6)]
        }
        "dadaptsgd" => &[("momentum", 0.900_001), ("d0", 1.000_001e-6), ("weight_decay", 1e-6)],
        name => panic!("nothing is called {name}"),
    }
}
