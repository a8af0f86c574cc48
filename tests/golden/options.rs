//! Options of the drivers, and the optimizers that are named combinations of them, from `options.json`.

use std::collections::BTreeMap;

use gradus::adaptor::Group;
use gradus::prelude::*;
use gradus::rule::DecayRate;
use ndarray::Array1;
use serde_json::{Map, Value};

use super::{F32_EPSILON, beside, grad, param};

/// What is small beside the parameters, which are within 1: a value near zero has the rounding errors of the larger ones that it had before.
const SMALL: f64 = 1e-2;

/// In f64, relative: both sides evaluate the same formulas, in another order.
const F64: f64 = 1e-12;

/// In f32, relative: half an ulp of the parameter in each of 100 steps, for the decay, the update and the norm's factor, most of which cancels.
const F32: f64 = 16.0 * F32_EPSILON;

/// lion-pytorch's mask of the decay is f32, and with it the factor of the parameter: half an ulp of f32 in each of 100 steps.
const F64_OF_LION: f64 = 50.0 * F32_EPSILON;

const STEPS: u64 = 100;

fn learning_rate(base: f64, step: u64) -> f64 {
    base * 0.5_f64.powi((step / 20) as i32) * (1.0 + 0.25 * (step % 3) as f64)
}

/// The optimizer of a case; panics at an option that it does not have.
fn optimizer<A: Scalar>(case: &Value, options: &Map<String, Value>) -> Box<dyn Optimizer<A>> {
    let base = case["learning_rate"].as_f64().unwrap();
    let rate = move |step: u64| learning_rate(base, step);
    let decay_rate = |value: &Value| match (value[0].as_str().unwrap(), value[1].as_f64()) {
        ("fixed", None) => DecayRate::Fixed,
        ("relative", Some(max_learning_rate)) => DecayRate::Relative { max_learning_rate },
        ("corrected", Some(max_learning_rate)) => DecayRate::Corrected { max_learning_rate },
        _ => panic!("{value} is no decay rate"),
    };
    let mut clip = None;
    macro_rules! with {
        ($opt:expr; $($number:ident)*; $($switch:ident)*) => {{
            let mut opt = $opt;
            for (name, value) in options {
                opt = match name.as_str() {
                    $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                    $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                    "weight_decay" => opt.weight_decay(value.as_f64().unwrap()),
                    "decoupled_decay" => opt.decoupled_decay(decay_rate(value)),
                    "cautious" => opt.cautious(value.as_bool().unwrap()),
                    "cautious_decay" => opt.cautious_decay(value.as_bool().unwrap()),
                    "trust_ratio" => opt.trust_ratio(value.as_bool().unwrap()),
                    "always_adapt" => opt.always_adapt(value.as_bool().unwrap()),
                    "update_clipping" => opt.update_clipping(value.as_bool().unwrap()),
                    "keep_norm" => opt.keep_norm(value.as_bool().unwrap()),
                    "clip_global_norm" => {
                        clip = value.as_f64();
                        opt
                    }
                    name => panic!("{} has no {name}", case["name"]),
                };
            }
            Box::new(opt) as Box<dyn Optimizer<A>>
        }};
    }
    let mut opt = match case["name"].as_str().unwrap() {
        "adam" => with!(Adam::new(rate); beta1 beta2 eps; nesterov eps_hat),
        "adamw" => with!(AdamW::new(rate); beta1 beta2 eps; nesterov),
        "adabelief" => with!(AdaBelief::new(rate); beta1 beta2 eps; nesterov),
        "lamb" => with!(Lamb::new(rate); beta1 beta2 eps; nesterov),
        "lars" => with!(Lars::new(rate, 0.0); momentum dampening trust_coefficient eps; nesterov),
        "lion" => with!(Lion::new(rate); beta1 beta2; ),
        "mars" => with!(Mars::new(rate); beta1 beta2 gamma eps; vectors plain_first_step),
        "marslion" => with!(MarsLion::new(rate); beta1 beta2 gamma eps; vectors plain_first_step),
        "novograd" => with!(NovoGrad::new(rate); beta1 beta2 eps; grad_averaging decoupled),
        "stableadamw" => with!(StableAdamW::new(rate); beta1 beta2 eps; nesterov),
        name => panic!("nothing is called {name}"),
    };
    for tensor in case["undecayed"].as_array().into_iter().flatten() {
        opt = Box::new(opt.group(tensor.to_string(), Group::no_decay()));
    }
    match clip {
        Some(norm) => Box::new(opt.clip_global_norm(norm).exact(true)),
        None => opt,
    }
}

/// The largest error, relative to the value or to what is small beside it.
fn worst<A: Scalar>(case: &Value, options: &Map<String, Value>) -> f64 {
    let counts = |key: &str| case[key].as_array().unwrap().iter().map(|count| count.as_u64().unwrap() as usize);
    let (mut opt, sizes) = (optimizer::<A>(case, options), counts("sizes").collect::<Vec<_>>());
    let tensors = |number: &dyn Fn(usize) -> f64| -> Vec<Array1<A>> {
        let mut next = 0..;
        sizes.iter().map(|size| next.by_ref().take(*size).map(|i| A::from_f64(number(i))).collect()).collect()
    };
    let (mut params, mut recorded) = (tensors(&param), case["values"].as_array().unwrap().iter());
    let mut worst = 0.0_f64;
    for step in 0..STEPS {
        opt.step(&mut params, &tensors(&|i| grad(step, i))).unwrap();
        if ![1, 2, 3, 10, 50, STEPS].contains(&opt.steps()) {
            continue;
        }
        let expected = recorded.next().unwrap().as_array().unwrap();
        let found: Vec<f64> = params.iter().flatten().map(|x| x.as_f64()).collect();
        assert_eq!(expected.len(), case["indices"].as_array().unwrap().len());
        for (index, expected) in counts("indices").zip(expected) {
            let expected = A::from_f64(expected.as_f64().unwrap()).as_f64();
            let scale = if A::DTYPE == "f32" { 1.0 } else { SMALL };
            let error = (found[index] - expected).abs() / expected.abs().max(scale);
            worst = beside::larger(worst, error);
        }
    }
    assert!(recorded.next().is_none());
    worst
}

fn golden() -> Vec<Value> {
    let golden = beside::golden("options");
    golden["cases"].as_array().unwrap().clone()
}

fn describe(case: &Value) -> String {
    let [name, options, source, dtype] = ["name", "options", "source", "dtype"].map(|key| &case[key]);
    format!("{name} {options} of {source} in {dtype}")
}

fn tolerance(case: &Value) -> f64 {
    match case["dtype"].as_str().unwrap() {
        "f32" => F32,
        _ if case["source"].as_str().unwrap().starts_with("lion-pytorch") => F64_OF_LION,
        _ => F64,
    }
}

fn compare(case: &Value, options: &Map<String, Value>) -> f64 {
    if case["dtype"] == "f32" { worst::<f32>(case, options) } else { worst::<f64>(case, options) }
}

#[test]
fn options_agree() {
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for case in golden() {
        let error = compare(&case, case["options"].as_object().unwrap());
        println!("{}: {error:e}", describe(&case));
        assert!(error <= tolerance(&case), "{error:e}: {}", describe(&case));
        *compared.entry(case["source"].as_str().unwrap().into()).or_default() += 1;
    }
    let expected = [
        ("heavyball 3.2.1", 10),
        ("lion-pytorch 0.2.5", 2),
        ("optax 0.2.8", 18),
        ("pytorch-optimizer 4.1.0", 30),
        ("timm 1.0.31", 38),
        ("torch-optimi 0.3.3", 8),
    ];
    assert_eq!(compared, expected.map(|(source, count)| (source.to_owned(), count)).into());
}

/// Every option, off or slightly off, takes the trajectory out of tolerance.
#[test]
fn an_option_that_is_slightly_off_is_noticed() {
    let small = |case: &Value| case["dtype"] == "f64" && case["sizes"].as_array().unwrap().len() > 2;
    for case in golden().into_iter().filter(small) {
        let options = case["options"].as_object().unwrap();
        for (option, value) in options {
            let mut wrong = options.clone();
            match value {
                // Below the sum's rounding, and signs do not change.
                Value::Number(_) if option == "eps" && value.as_f64().unwrap() < 1e-6 => continue,
                Value::Number(_) if tolerance(&case) == F64_OF_LION => continue,
                _ if case["name"] == "marslion" && !["vectors", "weight_decay"].contains(&option.as_str()) => continue,
                Value::Number(number) => {
                    wrong.insert(option.clone(), (number.as_f64().unwrap() * (1.0 + 1e-6) + 1e-9).into())
                }
                _ => wrong.remove(option),
            };
            let error = compare(&case, &wrong);
            assert!(error > tolerance(&case), "{option} is no more than {error:e} off: {}", describe(&case));
        }
    }
}
