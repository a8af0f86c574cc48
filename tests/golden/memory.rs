//! Optimizers with little state, from `memory.json`.

use gradus::optimizer::AdamMiniBlocks;
use gradus::prelude::*;
use gradus::rule::DecayRate;
use serde_json::{Map, Value, json};

use super::beside;

/// A value near zero has the rounding errors of the larger ones that it had before.
const SMALL: f64 = 1e-2;

/// In f64, relative: both sides evaluate the same formulas, in another order.
const F64: f64 = 1e-12;

/// In f32, relative: the libraries compute sums in f32 that are computed in f64 here, which is some ulp in each of 50 steps.
const F32: f64 = 2e-5;

fn learning_rate(base: f64, step: u64) -> f64 {
    base * 0.5_f64.powi((step / 20) as i32) * (1.0 + 0.25 * (step % 3) as f64)
}

/// The optimizer of a case; panics at an option that it does not have.
fn optimizer<A: Scalar>(case: &Value, options: &Map<String, Value>) -> Option<Box<dyn Optimizer<A>>> {
    let base = case["learning_rate"].as_f64().unwrap();
    let is_constant = case["constant"].as_bool().unwrap();
    let rate = move |step: u64| if is_constant { base } else { learning_rate(base, step) };
    macro_rules! with {
        (@ $options:expr; $opt:expr; $($number:ident)*; $($count:ident)*; $($switch:ident)*) => {{
            let mut opt = $opt;
            for (name, value) in $options.iter() {
                opt = match name.as_str() {
                    $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                    $(stringify!($count) => opt.$count(value.as_u64().unwrap().try_into().unwrap()),)*
                    $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                    "fixed_decay" if value == &json!(true) => opt.decoupled_decay(DecayRate::Fixed),
                    "fixed_decay" => opt.decoupled_decay(DecayRate::LearningRate),
                    name => panic!("{} has no {name}", case["name"]),
                };
            }
            Some(Box::new(opt) as Box<dyn Optimizer<A>>)
        }};
        (adafactor $opt:expr) => {
            with!($opt; eps min_scale clip_threshold beta2_decay beta1 beta2_cap weight_decay; min_side decay_offset;
                relative_step scale_parameter warmup_init clip_updates longest_axes)
        };
        ($opt:expr; $($rest:tt)*) => { with!(@ options; $opt; $($rest)*) };
    }
    match case["name"].as_str().unwrap() {
        "adafactor.hugging_face" => with!(adafactor Adafactor::hugging_face(rate)),
        "adafactor.optax" => with!(adafactor Adafactor::optax(rate)),
        "adafactor.big_vision" => with!(adafactor Adafactor::big_vision(rate)),
        "adammini" => {
            let blocks = options.get("blocks").map(blocks);
            let options: Map<_, _> = options.clone().into_iter().filter(|(name, _)| name != "blocks").collect();
            let opt = AdamMini::new(rate);
            let opt = blocks.into_iter().fold(opt, |opt, blocks| opt.blocks("**", blocks));
            with!(@ options; opt; beta1 beta2 eps weight_decay; ;)
        }
        "sm3" => with!(Sm3::new(rate); eps momentum beta2 weight_decay; ;),
        "came" => with!(Came::new(rate); beta1 beta2 beta3 eps1 eps2 clip_threshold weight_decay; ;),
        #[cfg(feature = "second-order")]
        "galore" => with!(GaLore::new(rate); beta1 beta2 eps scale weight_decay; rank update_proj_gap;),
        #[cfg(not(feature = "second-order"))]
        "galore" => None,
        "apollo" => {
            with!(Apollo::new(rate); beta1 beta2 eps scale weight_decay; rank update_proj_gap seed; limit_growth)
        }
        "apollomini" => {
            with!(ApolloMini::new(rate); beta1 beta2 eps scale weight_decay; rank update_proj_gap seed; limit_growth)
        }
        name => panic!("nothing is called {name}"),
    }
}

/// The blocks of Adam-mini: a name and a number.
fn blocks(value: &Value) -> AdamMiniBlocks {
    match value[0].as_str().unwrap() {
        "Whole" => AdamMiniBlocks::Whole,
        "Rows" => AdamMiniBlocks::Rows,
        "Parts" => AdamMiniBlocks::Parts(value[1].as_u64().unwrap().try_into().unwrap()),
        "Elements" => AdamMiniBlocks::Elements,
        other => panic!("no blocks are called {other}"),
    }
}

/// The largest difference to the golden parameters, relative to those that are not small; `None` if the optimizer is not there.
fn compare<A: Scalar>(case: &Value, options: &Map<String, Value>, steps: &[u64]) -> Option<f64> {
    let relative = |found: f64, expected: f64| (found - expected).abs() / expected.abs().max(SMALL);
    Some(beside::worst_of_one_tensor(optimizer::<A>(case, options)?, case, steps, relative))
}

fn golden() -> (Vec<Value>, Vec<u64>) {
    let golden = beside::golden("memory");
    let steps = beside::recorded_steps(&golden);
    assert_eq!(steps, [1, 2, 3, 10, 50]);
    (golden["cases"].as_array().unwrap().clone(), steps)
}

fn options(case: &Value) -> &Map<String, Value> {
    case["options"].as_object().unwrap()
}

#[test]
fn optimizers_with_little_state_agree() {
    let (cases, steps) = golden();
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in &cases {
        let (found, tolerance) = match case["dtype"].as_str().unwrap() {
            "f64" => (compare::<f64>(case, options(case), &steps), F64),
            _ => (compare::<f32>(case, options(case), &steps), F32),
        };
        let Some(worst) = found else { continue };
        let what = format!("{worst:e}: {} {} {} {}", case["name"], case["dtype"], case["shape"], case["options"]);
        println!("{what}");
        wrong.extend((worst > tolerance).then_some(what));
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(compared, CASES);
}

/// The cases of optimizers that are there.
const CASES: usize = if cfg!(feature = "second-order") { 438 } else { 398 };

/// Every option of every optimizer, slightly off, takes some trajectory out of tolerance.
#[test]
fn an_option_that_is_slightly_off_is_noticed() {
    let (cases, steps) = golden();
    let mut noticed = std::collections::BTreeMap::new();
    for case in cases.iter().filter(|case| case["dtype"] == "f64") {
        for (name, value) in options(case) {
            let off = match value {
                Value::Bool(is_on) => json!(!is_on),
                Value::Array(_) => json!(["Rows", 0]),
                value if value.is_u64() => json!(value.as_u64().unwrap() + 1),
                value => json!(value.as_f64().unwrap() * (1.0 - 1e-6)),
            };
            let mut changed = options(case).clone();
            changed.insert(name.clone(), off);
            let Some(worst) = compare::<f64>(case, &changed, &steps) else { continue };
            *noticed.entry(format!("{} of {}", name, case["name"])).or_insert(false) |= worst > F64;
        }
    }
    let unnoticed: Vec<_> = noticed.iter().filter(|(_, noticed)| !**noticed).map(|(what, _)| what).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
    assert!(noticed.len() > 10);
}
