//! State in 4 bits, and 16-bit parameters with Kahan summation, from `precision.json`.

use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use half::bf16;
use ndarray::Array1;
use serde_json::Value;

use super::{F32_DECAY_BEFORE, F32_EPSILON, beside, grad, param, unit};

const STEPS: u64 = 100;
const FOUR_BITS: StatePrecision = StatePrecision::Blockwise4(Rounding::Nearest);

/// Both sides evaluate the same formulas in f32, in another order: some ulp of parameters within 1. A moment that is rounded to another code would make a
/// difference of more than a hundredth of a step, 1e-5.
const F32: f64 = 4.0 * F32_EPSILON;

/// Twice the distance of neighboring compensations, which are at most half that of the parameters, within 1: optimi adds −η·m/√v to the compensation where gradus
/// adds the difference that this makes to an f32, which may be rounded the other way.
const COMPENSATION: f64 = 1.0 / 32768.0;

struct Golden {
    file: Value,
    size: usize,
    indices: Vec<usize>,
    steps: Vec<u64>,
}

impl Golden {
    fn read() -> Self {
        let file = beside::golden("precision");
        let counts = |key: &str| file[key].as_array().unwrap().iter().map(|count| count.as_u64().unwrap());
        let (indices, steps) = (counts("indices").map(|index| index as usize).collect(), counts("steps").collect());
        Self { size: file["size"].as_u64().unwrap() as usize, indices, steps, file }
    }

    fn cases(&self, kind: &str, count: usize) -> Vec<&Value> {
        let cases = self.file["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == kind);
        let cases: Vec<_> = cases.collect();
        assert_eq!(cases.len(), count, "{kind}");
        cases
    }

    fn tensor<A: Element>(&self, element: impl Fn(usize) -> f64) -> Array1<A> {
        (0..self.size).map(|i| A::from_f64(element(i))).collect()
    }

    fn pick<A: Element>(&self, values: &Array1<A>) -> Vec<f64> {
        self.indices.iter().map(|index| values[*index].as_f64()).collect()
    }
}

/// The numbers that a key has for every recorded step.
fn recorded(case: &Value, key: &str) -> Vec<Vec<f64>> {
    let numbers = |values: &Value| values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    case[key].as_array().unwrap().iter().map(numbers).collect()
}

fn number(case: &Value, key: &str, default: f64) -> f64 {
    case["options"][key].as_f64().unwrap_or(default)
}

/// To the last bit.
#[test]
fn codes_are_those_of_torchao() {
    let golden = Golden::read();
    let cubes = golden.tensor::<f32>(|i| unit(i as u64) * unit(i as u64) * unit(i as u64));
    for case in golden.cases("codes", 2) {
        let mut params = golden.tensor::<f32>(|_| 0.0);
        let slot = match case["signed"].as_bool().unwrap() {
            true => {
                let mut opt = Momentum::new(0.0, 0.9).state_precision(FOUR_BITS);
                opt.step(&mut params, &cubes).unwrap();
                opt.slot("", "momentum_buffer").unwrap()
            }
            false => {
                let mut opt = Adagrad::new(0.0).state_precision(FOUR_BITS);
                opt.step(&mut params, &cubes).unwrap();
                opt.slot("", "sum").unwrap()
            }
        };
        let expected = case["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32);
        let found: Vec<f32> = golden.indices.iter().map(|index| slot[*index]).collect();
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
}

/// The largest difference of a trajectory with state of this precision.
fn distance(golden: &Golden, case: &Value, precision: StatePrecision) -> f64 {
    let base = case["learning_rate"].as_f64().unwrap();
    let rate = move |step: u64| base * 0.5_f64.powi((step / 20) as i32);
    macro_rules! with_options {
        ($opt:expr) => {
            Box::new(
                $opt.beta1(number(case, "beta1", 0.9))
                    .beta2(number(case, "beta2", 0.999))
                    .eps(number(case, "eps", 1e-8))
                    .weight_decay(number(case, "weight_decay", 0.0))
                    .state_precision(precision),
            )
        };
    }
    let mut opt: Box<dyn Optimizer<f32>> = match case["options"]["decoupled"].as_bool().unwrap() {
        true => with_options!(AdamW::new(rate)),
        false => with_options!(Adam::new(rate)),
    };
    let mut params = golden.tensor::<f32>(param);
    let mut expected = recorded(case, "values").into_iter();
    let mut worst = 0.0_f64;
    for step in 0..STEPS {
        opt.step(&mut params, &golden.tensor(|i| grad(step, i))).unwrap();
        if golden.steps.contains(&opt.steps()) {
            let pairs = golden.pick(&params).into_iter().zip(expected.next().unwrap());
            worst = pairs.map(|(found, expected)| (found - expected).abs()).fold(worst, beside::larger);
        }
    }
    assert_eq!(expected.next(), None);
    worst
}

#[test]
fn state_in_4_bits_agrees_with_torchao() {
    let golden = Golden::read();
    for case in golden.cases("four_bits", 4) {
        let found = distance(&golden, case, FOUR_BITS);
        // torchao subtracts ηλθ where gradus multiplies with 1 − ηλ.
        let is_decoupled = case["options"]["decoupled"].as_bool().unwrap();
        let allowed = if is_decoupled { F32_DECAY_BEFORE.absolute } else { F32 };
        println!("{}: {found:e}", case["options"]);
        assert!(found <= allowed, "{}: {found:e}", case["options"]);
        for other in
            [StatePrecision::Full, StatePrecision::Blockwise8, StatePrecision::Blockwise4(Rounding::Stochastic)]
        {
            assert!(distance(&golden, case, other) > 100.0 * allowed, "{}: {other:?}", case["options"]);
        }
    }
}

/// bf16 parameters to the last bit, and with what Kahan summation adds to them within two ulp of that.
#[test]
fn kahan_agrees_with_optimi() {
    let golden = Golden::read();
    for case in golden.cases("kahan", 4) {
        let rate = case["learning_rate"].as_f64().unwrap();
        let momentum = number(case, "momentum", 0.0);
        let mut opt: Box<dyn Optimizer<bf16>> = match case["name"].as_str().unwrap() {
            "sgd" if momentum > 0.0 => Box::new(Momentum::new(rate, momentum).kahan()),
            "sgd" => Box::new(Sgd::new(rate).kahan()),
            _ => {
                let opt = Adam::new(rate).beta1(number(case, "beta1", 0.9)).beta2(number(case, "beta2", 0.999));
                Box::new(opt.eps(number(case, "eps", 1e-8)).kahan())
            }
        };
        let mut params = golden.tensor::<bf16>(param);
        let (mut values, mut compensations) =
            (recorded(case, "values").into_iter(), recorded(case, "compensations").into_iter());
        let mut worst = 0.0_f64;
        for step in 0..STEPS {
            opt.step(&mut params, &golden.tensor(|i| grad(step, i))).unwrap();
            if !golden.steps.contains(&opt.steps()) {
                continue;
            }
            let compensation = opt.state_dict().tensor::<bf16>("kahan/compensation/").unwrap();
            let expected = values.next().unwrap().into_iter().zip(compensations.next().unwrap());
            for (index, (value, rest)) in golden.indices.iter().zip(expected) {
                // The file has the fewest digits that identify an f32.
                let (value, rest) = (f64::from(value as f32), f64::from(rest as f32));
                assert_eq!(params[*index].as_f64(), value, "{}", case["options"]);
                worst = beside::larger(worst, (compensation[*index].as_f64() - rest).abs());
            }
        }
        assert!(worst <= COMPENSATION, "{}: {worst:e}", case["options"]);
    }
}
