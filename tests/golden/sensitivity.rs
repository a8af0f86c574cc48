//! That the comparison would notice: every setting, slightly off, takes the trajectory out of tolerance.

use std::collections::BTreeMap;

use serde_json::Value;

use super::case::{Case, Setting, cases};
use super::{F32, F32_RMSPROP, F64, Tolerance, compare};

/// The name of every file.
const OPTIMIZERS: [&str; 30] = [
    "sgd",
    "momentum",
    "nesterov",
    "rmsprop",
    "lion",
    "adabelief",
    "adam",
    "adamw",
    "nadam",
    "nadamw",
    "radam",
    "radamw",
    "adamax",
    "adagrad",
    "adadelta",
    "rprop",
    "asgd",
    "adafactor",
    "signum",
    "signsgd",
    "yogi",
    "laprop",
    "ademamix",
    "simplifiedademamix",
    "adopt",
    "adan",
    "madgrad",
    "sgdschedulefree",
    "adamwschedulefree",
    "radamschedulefree",
];

/// The cases of 9 elements in f64.
fn small_cases(name: &str) -> Vec<Case> {
    cases(name).into_iter().filter(|case| case.size == 9 && case.dtype == "f64").collect()
}

fn rejects(name: &str, case: &Case, tolerance: Tolerance, change: &str) {
    if let Ok(worst) = compare(name, case, tolerance) {
        panic!("{change} is no more than {worst:e} off: {name} {}", case.describe());
    }
}

#[test]
fn a_setting_that_is_slightly_off_is_noticed() {
    for name in OPTIMIZERS {
        let mut noticed = 0;
        for case in small_cases(name) {
            for (option, setting) in &case.options {
                // Vectors have no sides; and numbers near 1 have no place for a small ε.
                if option == "min_side" && case.shape.len() < 2
                    || option == "eps_inside_mean" && !case.options.contains_key("eps")
                {
                    continue;
                }
                let mut wrong = case.clone();
                match setting {
                    // With a constant learning rate all powers of it are the same.
                    Setting::Number(_) if option == "lr_power" && !case.has_changing_rates() => continue,
                    // Only a larger difference turns a sign.
                    Setting::Number(x) if ["lion", "signum"].contains(&name) && option != "weight_decay" => {
                        wrong.options.insert(option.clone(), Setting::Number(x * 0.9))
                    }
                    Setting::Number(x) => wrong.options.insert(option.clone(), Setting::Number(x * (1.0 - 1e-6))),
                    // With a constant learning rate it makes no difference where it stands.
                    Setting::Switch(_) if option == "classical" && !case.has_changing_rates() => continue,
                    Setting::Switch(_) => wrong.options.remove(option),
                };
                rejects(name, &wrong, F64, option);
                noticed += 1;
            }
            let mut wrong = case.clone();
            // ADOPT's first step does not move, and its second is a tenth of the length of others.
            // Schedule-free RAdam's first steps do not move either.
            let (at, more) = match name {
                "adopt" => (usize::from(case.has_changing_rates()), 1e-7),
                "radamschedulefree" => (wrong.learning_rates.len() - 1, 1e-6),
                _ => (0, 1e-9),
            };
            wrong.learning_rates[at] *= 1.0 + more;
            rejects(name, &wrong, F64, "the learning rate");
            if case.has_changing_rates() {
                let mut wrong = case.clone();
                wrong.learning_rates.rotate_left(1);
                rejects(name, &wrong, F64, "a learning rate one step early");
            }
            let wrong = Case { maximize: !case.maximize, ..case };
            rejects(name, &wrong, F64, "the sign");
        }
        assert!(noticed > 0, "{name}");
    }
}

/// Settings beside the defaults, for cases that have the defaults.
#[test]
fn a_default_that_is_slightly_off_is_noticed() {
    let noticed = |name: &str, dtype: &str, tolerance: Tolerance, option: &str, setting: Setting| {
        let plain = |case: &Case| case.name == "plain" && case.size == 1000 && case.dtype == dtype;
        let mut plain: Vec<Case> = cases(name).into_iter().filter(plain).collect();
        assert!(!plain.is_empty());
        let matters = |case: &&mut Case| option != "lr_power" || case.has_changing_rates();
        for case in plain.iter_mut().filter(matters) {
            assert_eq!(case.options.insert(option.into(), setting), None);
            rejects(name, case, tolerance, option);
        }
    };
    for (name, option, value) in [
        ("sgd", "weight_decay", 1e-9),
        ("momentum", "dampening", 1e-9),
        ("momentum", "weight_decay", 1e-9),
        ("nesterov", "weight_decay", 1e-9),
        ("rmsprop", "alpha", 0.990_001),
        ("rmsprop", "eps", 1.01e-8),
        ("rmsprop", "momentum", 1e-9),
        ("rmsprop", "weight_decay", 1e-9),
        ("lion", "beta1", 0.95),
        ("lion", "beta2", 0.98),
        ("lion", "weight_decay", 1e-9),
        ("adabelief", "beta1", 0.900_001),
        ("adabelief", "beta2", 0.999_000_1),
        ("adabelief", "eps", 1e-12),
        ("adabelief", "weight_decay", 1e-9),
        ("adam", "beta1", 0.900_001),
        ("adam", "beta2", 0.999_000_1),
        ("adam", "eps", 1.01e-8),
        ("adam", "weight_decay", 1e-9),
        ("adamw", "beta1", 0.900_001),
        ("adamw", "beta2", 0.999_000_1),
        ("adamw", "eps", 1.01e-8),
        ("adamw", "weight_decay", 0.010_000_1),
        ("nadam", "beta1", 0.900_001),
        ("nadam", "beta2", 0.999_000_1),
        ("nadam", "eps", 1.01e-8),
        ("nadam", "momentum_decay", 4.000_1e-3),
        ("nadam", "weight_decay", 1e-9),
        ("nadamw", "momentum_decay", 4.000_1e-3),
        ("nadamw", "weight_decay", 1e-9),
        ("radam", "beta1", 0.900_001),
        ("radam", "beta2", 0.999_000_1),
        ("radam", "eps", 1.01e-8),
        ("radam", "weight_decay", 1e-9),
        ("radamw", "weight_decay", 1e-9),
        ("adamax", "beta1", 0.900_001),
        ("adamax", "beta2", 0.999_000_1),
        ("adamax", "eps", 1.01e-8),
        ("adamax", "weight_decay", 1e-9),
        ("adagrad", "learning_rate_decay", 1e-9),
        ("adagrad", "initial_accumulator_value", 1e-9),
        ("adagrad", "eps", 2e-10),
        ("adagrad", "weight_decay", 1e-9),
        ("adadelta", "rho", 0.900_001),
        ("adadelta", "eps", 1.000_001e-6),
        ("adadelta", "weight_decay", 1e-9),
        ("rprop", "eta_minus", 0.500_001),
        ("rprop", "eta_plus", 1.200_001),
        ("rprop", "min_step_size", 1.001e-6),
        ("asgd", "lambda", 1.000_1e-4),
        ("asgd", "alpha", 0.751),
        ("asgd", "weight_decay", 1e-9),
        ("adafactor", "beta2_decay", -0.800_001),
        ("adafactor", "eps", 0.5),
        ("adafactor", "min_scale", 1.0),
        ("adafactor", "clip_threshold", 1.000_001),
        ("adafactor", "beta1", 1e-9),
        ("adafactor", "weight_decay", 1e-9),
        ("signum", "momentum", 0.95),
        ("signum", "weight_decay", 1e-9),
        ("signsgd", "weight_decay", 1e-9),
        ("yogi", "beta1", 0.900_001),
        ("yogi", "beta2", 0.999_000_1),
        ("yogi", "eps", 1.01e-3),
        ("yogi", "initial_accumulator_value", 1.01e-6),
        ("yogi", "weight_decay", 1e-9),
        ("laprop", "beta1", 0.900_001),
        ("laprop", "beta2", 0.999_000_1),
        ("laprop", "eps", 1e-9),
        ("laprop", "weight_decay", 1e-9),
        ("ademamix", "beta1", 0.900_001),
        ("ademamix", "beta2", 0.999_000_1),
        ("ademamix", "beta3", 0.999_900_1),
        ("ademamix", "alpha", 5.000_01),
        ("ademamix", "eps", 1.01e-8),
        ("ademamix", "weight_decay", 1e-9),
        ("simplifiedademamix", "beta1", 0.990_001),
        ("simplifiedademamix", "beta2", 0.950_001),
        ("simplifiedademamix", "alpha", 1e-6),
        ("simplifiedademamix", "eps", 1.01e-8),
        ("simplifiedademamix", "weight_decay", 1e-9),
        ("adopt", "beta1", 0.900_001),
        ("adopt", "beta2", 0.999_901),
        ("adopt", "eps", 0.4),
        ("adopt", "clip_exponent", 0.250_001),
        ("adopt", "weight_decay", 1e-9),
        ("adan", "beta1", 0.980_001),
        ("adan", "beta2", 0.920_001),
        ("adan", "beta3", 0.990_001),
        ("adan", "eps", 1.01e-8),
        ("adan", "weight_decay", 1e-9),
        ("madgrad", "momentum", 0.900_001),
        ("madgrad", "eps", 1.01e-6),
        ("madgrad", "weight_decay", 1e-9),
        ("sgdschedulefree", "momentum", 0.900_001),
        ("sgdschedulefree", "time_power", 1e-6),
        ("sgdschedulefree", "lr_power", 2.000_001),
        ("sgdschedulefree", "weight_decay", 1e-9),
        ("adamwschedulefree", "beta1", 0.900_001),
        ("adamwschedulefree", "beta2", 0.999_000_1),
        ("adamwschedulefree", "eps", 1.01e-8),
        ("adamwschedulefree", "time_power", 1e-6),
        ("adamwschedulefree", "lr_power", 2.000_001),
        ("adamwschedulefree", "weight_decay", 1e-9),
        ("radamschedulefree", "beta1", 0.900_001),
        ("radamschedulefree", "beta2", 0.999_000_1),
        ("radamschedulefree", "eps", 1.01e-8),
        ("radamschedulefree", "time_power", 1e-6),
        ("radamschedulefree", "lr_power", 2.000_001),
        ("radamschedulefree", "weight_decay", 1e-9),
    ] {
        noticed(name, "f64", F64, option, Setting::Number(value));
    }
    for (name, option, on) in [
        ("rmsprop", "centered", true),
        ("rmsprop", "eps_inside_sqrt", true),
        ("adam", "amsgrad", true),
        ("adam", "eps_hat", true),
        ("adam", "bias_correction", false),
        ("adamw", "amsgrad", true),
        ("adamw", "eps_hat", true),
        ("adamw", "bias_correction", false),
        ("nadam", "momentum_schedule", false),
        ("nadamw", "momentum_schedule", false),
        ("radam", "eps_hat", false),
        ("radamw", "eps_hat", false),
        ("adamax", "eps_outside_max", true),
        ("adagrad", "eps_inside_sqrt", true),
        ("adafactor", "scale_parameter", false),
        ("adafactor", "relative_step", false),
        ("radamschedulefree", "silent", false),
    ] {
        noticed(name, "f64", F64, option, Setting::Switch(on));
    }
    for name in ["adam", "adamw"] {
        noticed(name, "f32", F32, "beta2", Setting::Number(0.9991));
    }
    noticed("rmsprop", "f32", F32_RMSPROP, "alpha", Setting::Number(0.9901));
}

#[test]
fn the_place_of_the_learning_rate_matters_only_if_it_changes() {
    for name in ["momentum", "nesterov"] {
        let mut plain: Vec<Case> = small_cases(name).into_iter().filter(|case| case.name == "plain").collect();
        plain
            .iter_mut()
            .for_each(|case| assert_eq!(case.options.insert("classical".into(), Setting::Switch(true)), None));
        let [constant, changing] = &plain[..] else { panic!("{} cases of 9 elements", plain.len()) };
        assert!(!constant.has_changing_rates() && changing.has_changing_rates());
        compare(name, constant, F64).unwrap();
        rejects(name, changing, F64, "the place of the learning rate");
    }
}

#[test]
fn one_wrong_value_is_noticed() {
    for name in OPTIMIZERS {
        let mut case = small_cases(name).pop().unwrap();
        compare(name, &case, F64).unwrap();
        let last = case.values.last_mut().unwrap().last_mut().unwrap();
        *last += 1e-2_f64.max(last.abs()) * 3e-12;
        rejects(name, &case, F64, "the last value");
    }
}

#[test]
#[should_panic(expected = "adam has no (\"dampening\", Number(0.1))")]
fn an_unknown_option_is_refused() {
    let mut case = small_cases("adam").pop().unwrap();
    case.options = BTreeMap::from([("dampening".into(), Setting::Number(0.1))]);
    let _ = compare("adam", &case, F64);
}

#[test]
#[should_panic(expected = "weight_decoy")]
fn an_unknown_key_is_refused() {
    let mut case = serde_json::json!({ "weight_decoy": 0.1 });
    for key in "dtype indices learning_rate maximize name options size source steps values".split(' ') {
        case[key] = Value::Null;
    }
    Case::read(&case);
}
