//! The values of other libraries, from `tests/golden/schedules.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use gradus::schedule::{
    Anneal, Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, Polynomial, Schedule, ScheduleExt, Step,
    WarmupStableDecay,
};
use serde_json::Value;

use super::Any;

/// Both sides compute the same formula in f64, but not in the same order. PyTorch steps some of its schedules by a
/// recursion, which rounds up to 1000 times; that too is well inside.
const RELATIVE: f64 = 1e-12;

/// Where a cosine or a difference all but cancels, as in the last steps of PyTorch's `OneCycleLR`, what is left has the
/// rounding error of what was cancelled: two ulp of the largest value of the case.
const CANCELLED: f64 = 2.0 * f64::EPSILON;

/// A case of the golden file.
struct Case<'a>(&'a Value);

impl<'a> Case<'a> {
    fn text(&self, name: &str) -> &'a str {
        self.0[name].as_str().unwrap_or_else(|| panic!("a case has no {name}: {}", self.0))
    }

    fn describe(&self) -> String {
        format!("{} {}", self.text("library"), self.text("call"))
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let list = self.0[name].as_array().unwrap_or_else(|| panic!("no {name} in {}", self.describe()));
        list.iter().map(|number| number.as_f64().unwrap()).collect()
    }

    fn steps(&self) -> Vec<u64> {
        self.0["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect()
    }
}

/// The arguments of a call.
struct Options<'a>(&'a Value);

impl Options<'_> {
    fn f(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("no number {name} in {}", self.0))
    }

    fn u(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {}", self.0))
    }

    fn s(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("no text {name} in {}", self.0))
    }

    fn is(&self, name: &str) -> bool {
        self.0[name].as_bool().unwrap_or_else(|| panic!("no bool {name} in {}", self.0))
    }

    /// A number that may be `null`.
    fn maybe(&self, name: &str) -> Option<f64> {
        self.0[name].as_f64()
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0[name].as_array().unwrap_or_else(|| panic!("no list {name} in {}", self.0)).iter()
    }

    fn counts(&self, name: &str) -> Vec<u64> {
        self.list(name).map(|count| count.as_u64().unwrap()).collect()
    }

    /// optax's factors at steps as values at steps.
    fn scaled_points(&self) -> Vec<(u64, f64)> {
        let points = self.list("boundaries_and_scales");
        let steps_and_scales = points.map(|point| (point[0].as_u64().unwrap(), point[1].as_f64().unwrap()));
        let scan = steps_and_scales.scan(self.f("init_value"), |value, (step, scale)| {
            *value *= scale;
            Some((step, *value))
        });
        scan.collect()
    }
}

/// Schedules one after the other, each from its own step 0.
fn joined(parts: Vec<Any>, boundaries: &[u64]) -> Any {
    assert_eq!(parts.len(), boundaries.len() + 1);
    let mut parts = parts.into_iter().enumerate();
    let (_, first) = parts.next().unwrap();
    parts.fold(first, |so_far, (i, next)| Box::new(so_far.then(boundaries[i - 1], next)))
}

/// The schedule for a call of another library; `None` for one it does not know.
fn schedule_for(library: &str, name: &str, options: &Value, lr: f64) -> Option<Any> {
    match library {
        "torch" => torch(name, options, lr),
        "transformers" => hugging_face(name, options, lr),
        "optax" => optax(name, options),
        "formula" => formula(name, options),
        "pytorch_optimizer" => ademamix(name, options),
        _ => None,
    }
}

fn torch(name: &str, options: &Value, lr: f64) -> Option<Any> {
    let o = Options(options);
    Some(match name {
        "StepLR" => Box::new(Step::new(lr, o.u("step_size"), o.f("gamma"))),
        "MultiStepLR" => Box::new(MultiStep::new(lr, o.counts("milestones"), o.f("gamma"))),
        "ExponentialLR" => Box::new(Exponential::new(lr, o.f("gamma"))),
        "ConstantLR" => Box::new(PiecewiseConstant::new(lr * o.f("factor"), [(o.u("total_iters"), lr)])),
        "LinearLR" => Box::new(Linear::new(lr * o.f("start_factor"), lr * o.f("end_factor"), o.u("total_iters"))),
        "PolynomialLR" => Box::new(Polynomial::new(lr, o.u("total_iters")).power(o.f("power"))),
        "CosineAnnealingLR" => Box::new(Cosine::new(lr, o.u("T_max")).floor(o.f("eta_min"))),
        "CosineAnnealingWarmRestarts" => {
            Box::new(CosineRestarts::new(lr, o.u("T_0")).factor(o.u("T_mult")).floor(o.f("eta_min")))
        }
        "OneCycleLR" => {
            let schedule = OneCycle::new(o.f("max_lr"), o.u("total_steps"))
                .pct_start(o.f("pct_start"))
                .div_factor(o.f("div_factor"))
                .final_div_factor(o.f("final_div_factor"))
                .anneal(anneal(o.s("anneal_strategy")));
            if o.is("three_phase") { Box::new(schedule.three_phase()) } else { Box::new(schedule) }
        }
        "OneCycleLR.momentum" => {
            let (base, max) = (o.f("base_momentum"), o.f("max_momentum"));
            let schedule = OneCycle::new(base, o.u("total_steps"))
                .div_factor(base / max)
                .final_div_factor(1.0)
                .pct_start(o.f("pct_start"))
                .anneal(anneal(o.s("anneal_strategy")));
            if o.is("three_phase") { Box::new(schedule.three_phase()) } else { Box::new(schedule) }
        }
        "ChainedScheduler" => {
            let parts = o.list("schedulers").map(|part| torch(part["name"].as_str()?, part, 1.0));
            parts
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .fold(Box::new(lr), |so_far, next| Box::new(so_far.times(next)))
        }
        "CyclicLR" | "CyclicLR.momentum" => {
            let (foot, top) = match name {
                "CyclicLR" => (o.f("base_lr"), o.f("max_lr")),
                _ => (o.f("max_momentum"), o.f("base_momentum")),
            };
            let schedule = Cyclic::new(foot, top, o.u("step_size_up")).down(o.u("step_size_down"));
            match o.s("mode") {
                "triangular" => Box::new(schedule),
                "triangular2" => Box::new(schedule.triangular2()),
                "exp_range" => Box::new(schedule.exp_range(o.f("gamma"))),
                mode => panic!("unknown mode {mode}"),
            }
        }
        "SequentialLR" => {
            let part = |part: &Value| torch(part["name"].as_str()?, part, lr);
            joined(o.list("schedulers").map(part).collect::<Option<_>>()?, &o.counts("milestones"))
        }
        _ => return None,
    })
}

fn hugging_face(name: &str, options: &Value, lr: f64) -> Option<Any> {
    let o = Options(options);
    let warmup = o.u("num_warmup_steps");
    let rest = || o.u("num_training_steps") - warmup;
    Some(match name {
        "get_constant_schedule_with_warmup" => Box::new(lr.warmup(warmup)),
        "get_linear_schedule_with_warmup" => Box::new(Linear::new(lr, 0.0, rest()).warmup(warmup)),
        "get_cosine_schedule_with_warmup" if o.f("num_cycles") == 0.5 => {
            Box::new(Cosine::new(lr, rest()).warmup(warmup))
        }
        "get_cosine_schedule_with_warmup" => Box::new(Cosine::new(lr, rest()).waves(o.f("num_cycles")).warmup(warmup)),
        "get_cosine_with_hard_restarts_schedule_with_warmup" => {
            Box::new(Cosine::new(lr, rest()).cycles(o.u("num_cycles")).warmup(warmup))
        }
        "get_polynomial_decay_schedule_with_warmup" => {
            Box::new(Polynomial::new(lr, rest()).power(o.f("power")).floor(o.f("lr_end")).warmup(warmup))
        }
        "get_inverse_sqrt_schedule" => Box::new(InverseSqrt::new(lr, o.u("timescale")).warmup(warmup)),
        "get_wsd_schedule" => {
            assert_eq!(o.s("warmup_type"), "linear");
            let floor = lr * o.f("min_lr_ratio");
            let schedule = WarmupStableDecay::new(lr, warmup, o.u("num_stable_steps"), o.u("num_decay_steps"));
            Box::new(schedule.start(floor).floor(floor).anneal(anneal(o.s("decay_type"))))
        }
        _ => return None,
    })
}

fn optax(name: &str, options: &Value) -> Option<Any> {
    let o = Options(options);
    let warmup_from = || (o.f("init_value") / o.f("peak_value"), o.u("warmup_steps"));
    Some(match name {
        "constant_schedule" => Box::new(o.f("value")),
        "linear_schedule" => {
            let begin = options["transition_begin"].as_u64().unwrap_or(0);
            Box::new(Linear::new(o.f("init_value"), o.f("end_value"), o.u("transition_steps")).delay(begin))
        }
        "polynomial_schedule" => {
            let decay = Polynomial::new(o.f("init_value"), o.u("transition_steps"));
            Box::new(decay.power(o.f("power")).floor(o.f("end_value")).delay(o.u("transition_begin")))
        }
        "cosine_decay_schedule" => {
            let peak = o.f("init_value");
            let exponent = o.maybe("exponent").unwrap_or(1.0);
            Box::new(Cosine::new(peak, o.u("decay_steps")).floor(peak * o.f("alpha")).exponent(exponent))
        }
        "warmup_cosine_decay_schedule" => {
            let (factor, warmup) = warmup_from();
            let decay = Cosine::new(o.f("peak_value"), o.u("decay_steps") - warmup).floor(o.f("end_value"));
            Box::new(decay.exponent(o.f("exponent")).warmup_from(factor, warmup))
        }
        "exponential_decay" => exponential(&o, o.f("init_value")),
        "warmup_exponential_decay_schedule" => {
            let (factor, warmup) = warmup_from();
            Box::new(exponential(&o, o.f("peak_value")).warmup_from(factor, warmup))
        }
        "piecewise_constant_schedule" => Box::new(PiecewiseConstant::new(o.f("init_value"), o.scaled_points())),
        "piecewise_interpolate_schedule" => match o.s("interpolate_type") {
            "linear" => Box::new(PiecewiseLinear::new(o.f("init_value"), o.scaled_points())),
            "cosine" => Box::new(PiecewiseCosine::new(o.f("init_value"), o.scaled_points())),
            kind => panic!("unknown interpolation {kind}"),
        },
        "linear_onecycle_schedule" | "cosine_onecycle_schedule" => {
            let (steps, peak) = (o.u("transition_steps"), o.f("peak_value"));
            let start = peak / o.f("div_factor");
            let end = (steps, start / o.f("final_div_factor"));
            let at = |part: &str| (o.f(part) * steps as f64) as u64;
            match name {
                "linear_onecycle_schedule" => {
                    Box::new(PiecewiseLinear::new(start, [(at("pct_start"), peak), (at("pct_final"), start), end]))
                }
                _ => Box::new(PiecewiseCosine::new(start, [(at("pct_start"), peak), end])),
            }
        }
        "sgdr_schedule" => {
            let parts = o.list("cosine_kwargs").map(|part| optax("warmup_cosine_decay_schedule", part));
            let ends = o.list("cosine_kwargs").scan(0, |end, part| {
                *end += part["decay_steps"].as_u64().unwrap();
                Some(*end)
            });
            let ends: Vec<u64> = ends.collect();
            joined(parts.collect::<Option<_>>()?, &ends[..ends.len() - 1])
        }
        "join_schedules" => {
            let part = |part: &Value| optax(part["name"].as_str()?, part);
            joined(o.list("schedules").map(part).collect::<Option<_>>()?, &o.counts("boundaries"))
        }
        _ => return None,
    })
}

/// optax's exponential decay from a value.
fn exponential(o: &Options<'_>, start: f64) -> Any {
    let (steps, rate, begin) = (o.u("transition_steps"), o.f("decay_rate"), o.u("transition_begin"));
    let decay: Any = match o.is("staircase") {
        true => Box::new(Step::new(start, steps, rate)),
        false => Box::new(Exponential::new(start, rate).over(steps)),
    };
    Box::new(decay.delay(begin).clamp(o.maybe("end_value").unwrap_or(0.0), f64::INFINITY))
}

fn formula(name: &str, options: &Value) -> Option<Any> {
    let o = Options(options);
    (name == "noam").then(|| Box::new(Noam::new(o.u("d_model"), o.u("warmup"))) as Any)
}

fn ademamix(name: &str, options: &Value) -> Option<Any> {
    let o = Options(options);
    let steps = o.u("t_alpha_beta3");
    Some(match name {
        "schedule_beta3" => Box::new(HalfLife::new(o.f("beta1"), o.f("beta3"), steps)),
        "schedule_alpha" => Box::new(Linear::new(0.0, o.f("alpha"), steps)),
        _ => return None,
    })
}

fn anneal(name: &str) -> Anneal {
    match name {
        "linear" => Anneal::Linear,
        "cos" | "cosine" => Anneal::Cosine,
        "1-sqrt" => Anneal::OneMinusSqrt,
        _ => panic!("unknown shape {name}"),
    }
}

fn plateau(options: &Value) -> Plateau {
    let o = Options(options);
    let threshold = o.f("threshold");
    let plateau = Plateau::new(o.f("lr"))
        .factor(o.f("factor"))
        .patience(o.u("patience"))
        .cooldown(o.u("cooldown"))
        .floor(o.f("min_lr"))
        .eps(o.f("eps"));
    let plateau = match o.s("threshold_mode") {
        "rel" => plateau.relative_threshold(threshold),
        "abs" => plateau.absolute_threshold(threshold),
        mode => panic!("unknown threshold mode {mode}"),
    };
    match o.s("mode") {
        "min" => plateau,
        "max" => plateau.maximize(true),
        mode => panic!("unknown mode {mode}"),
    }
}

/// The values of a case's plateau, after each of its metrics.
fn plateau_values(case: &Case<'_>) -> Vec<f64> {
    let plateau = plateau(&case.0["options"]);
    plateau.check().unwrap();
    let handle = plateau.clone();
    let observe = |metric: f64| {
        let before = handle.at(0);
        let reduced = plateau.observe(metric);
        assert_eq!(reduced, handle.at(0) < before, "{}", case.describe());
        handle.at(0)
    };
    case.numbers("metrics").into_iter().map(observe).collect()
}

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedules.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn golden_values() {
    let golden = golden();
    let cases = golden["cases"].as_array().expect("the golden file has a list of cases");
    assert!(!cases.is_empty());
    let mut names = BTreeSet::new();
    for case in cases.iter().map(Case) {
        names.insert(case.text("name"));
        let (steps, expected) = (case.steps(), case.numbers("values"));
        assert!(!steps.is_empty() && steps.len() == expected.len(), "{}", case.describe());

        let through = case.0["compare_through"].as_u64();
        let found: Vec<f64> = if case.text("name") == "ReduceLROnPlateau" {
            plateau_values(&case)
        } else {
            let lr = case.0["options"]["lr"].as_f64().unwrap_or(f64::NAN);
            let schedule = schedule_for(case.text("library"), case.text("name"), &case.0["options"], lr);
            let schedule = schedule.unwrap_or_else(|| panic!("no schedule for {}", case.describe()));
            schedule.check().unwrap_or_else(|error| panic!("{}: {error}", case.describe()));
            if let Some(end) = through {
                let beyond = steps.iter().filter(|step| **step > end);
                assert!(beyond.map(|step| schedule.at(*step)).all(|value| value == schedule.at(end)));
            }
            steps.iter().map(|step| schedule.at(*step)).collect()
        };
        assert_eq!(found.len(), expected.len(), "{}", case.describe());

        let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        for ((step, found), expected) in steps.iter().zip(found).zip(expected) {
            if through.is_none_or(|end| *step <= end) {
                let allowed = RELATIVE * expected.abs() + CANCELLED * largest;
                let message = || format!("{found} for {expected} at step {step} of {}", case.describe());
                assert!((found - expected).abs() <= allowed, "{}", message());
            }
        }
    }
    assert!(names.len() >= 25, "the golden file lost most of its schedules: {names:?}");
}
