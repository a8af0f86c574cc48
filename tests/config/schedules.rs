//! Every schedule and combinator: what a file makes is what the code makes.

use gradus::Hyper;
use gradus::adaptor::PowerEma;
use gradus::prelude::*;
use gradus::schedule::{
    Anneal, Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, Polynomial, Rex, Step, WarmupStableDecay,
};

/// A value of a hyper-parameter in TOML, and in code.
pub(crate) fn rows() -> Vec<(&'static str, Hyper)> {
    const INF: f64 = f64::INFINITY;
    vec![
        ("0.01", 0.01.into()),
        ("1", 1.0.into()),
        ("{ schedule = 'Cosine', peak = 0.1, steps = 1e2 }", Cosine::new(0.1, 100).into()),
        (
            "{ schedule = 'Cosine', peak = 0.1, steps = 100, floor = 0.01, exponent = 2, waves = 1.5, cycles = 3 }",
            Cosine::new(0.1, 100).floor(0.01).exponent(2.0).waves(1.5).cycles(3).into(),
        ),
        (
            "{ schedule = 'CosineRestarts', peak = 0.1, period = 30, factor = 2, floor = 0.01 }",
            CosineRestarts::new(0.1, 30).factor(2).floor(0.01).into(),
        ),
        (
            "{ schedule = 'Cyclic', base = 0.01, max = 0.1, up = 20, down = 7, height = 'Halved' }",
            Cyclic::new(0.01, 0.1, 20).down(7).triangular2().into(),
        ),
        (
            "{ schedule = 'Cyclic', base = 0.01, max = 0.1, up = 20, height = { Power = 0.99 } }",
            Cyclic::new(0.01, 0.1, 20).exp_range(0.99).into(),
        ),
        ("{ schedule = 'Exponential', start = 0.1, gamma = 0.97 }", Exponential::new(0.1, 0.97).into()),
        ("{ schedule = 'Exponential', start = 0.1, gamma = 0.5, over = 9 }", Exponential::new(0.1, 0.5).over(9).into()),
        ("{ schedule = 'HalfLife', start = 0.9, end = 0.9999, steps = 10 }", HalfLife::new(0.9, 0.9999, 10).into()),
        ("{ schedule = 'InverseSqrt', peak = 0.1, timescale = 10 }", InverseSqrt::new(0.1, 10).into()),
        ("{ schedule = 'Linear', start = 0.1, end = 0, steps = 100 }", Linear::new(0.1, 0.0, 100).into()),
        (
            "{ schedule = 'MultiStep', start = 0.1, milestones = [60, 3e1], gamma = 0.1 }",
            MultiStep::new(0.1, [30, 60], 0.1).into(),
        ),
        ("{ schedule = 'Noam', d_model = 512, warmup = 40 }", Noam::new(512, 40).into()),
        (
            "{ schedule = 'OneCycle', peak = 0.1, steps = 100, pct_start = 0.2, div_factor = 5, final_div_factor = 50, \
             anneal = 'Linear', three_phase = true }",
            OneCycle::new(0.1, 100)
                .pct_start(0.2)
                .div_factor(5.0)
                .final_div_factor(50.0)
                .anneal(Anneal::Linear)
                .three_phase()
                .into(),
        ),
        (
            "{ schedule = 'PiecewiseConstant', start = 0.1, points = [[10, 0.2], [50, 0.05]] }",
            PiecewiseConstant::new(0.1, [(10, 0.2), (50, 0.05)]).into(),
        ),
        (
            "{ schedule = 'PiecewiseLinear', start = 0.1, points = [[10, 0.2], [50, 0.05]] }",
            PiecewiseLinear::new(0.1, [(10, 0.2), (50, 0.05)]).into(),
        ),
        (
            "{ schedule = 'PiecewiseCosine', start = 0.1, points = [[10, 0.2], [50, 0.05]] }",
            PiecewiseCosine::new(0.1, [(10, 0.2), (50, 0.05)]).into(),
        ),
        (
            "{ schedule = 'Plateau', start = 0.1, maximize = true, factor = 0.5, patience = 3, threshold = { Absolute = 0.1 }, \
             cooldown = 2, floor = 0.001, eps = 1e-6 }",
            Plateau::new(0.1)
                .maximize(true)
                .factor(0.5)
                .patience(3)
                .absolute_threshold(0.1)
                .cooldown(2)
                .floor(0.001)
                .eps(1e-6)
                .into(),
        ),
        (
            "{ schedule = 'Polynomial', peak = 0.1, steps = 100, power = 2, floor = 0.01 }",
            Polynomial::new(0.1, 100).power(2.0).floor(0.01).into(),
        ),
        ("{ schedule = 'PowerEma', gamma = 6.94 }", PowerEma::new(6.94).into()),
        ("{ schedule = 'PowerEma', width = 0.1 }", PowerEma::of_width(0.1).unwrap().into()),
        ("{ schedule = 'Rex', peak = 0.1, steps = 100 }", Rex::new(0.1, 100).into()),
        ("{ schedule = 'Step', start = 0.1, period = 30, gamma = 0.5 }", Step::new(0.1, 30, 0.5).into()),
        (
            "{ schedule = 'WarmupStableDecay', peak = 0.1, warmup = 10, stable = 50, decay = 100, start = 0.02, floor = 0.01, \
             anneal = 'OneMinusSqrt' }",
            WarmupStableDecay::new(0.1, 10, 50, 100).start(0.02).floor(0.01).anneal(Anneal::OneMinusSqrt).into(),
        ),
        ("{ schedule = 'Cosine', peak = 0.1, steps = 50, warmup = 10 }", Cosine::new(0.1, 50).warmup(10).into()),
        ("[0.1, { warmup = 10 }]", 0.1.warmup(10).into()),
        ("[0.1, { warmup_from = { start_factor = 0.5, steps = 10 } }]", 0.1.warmup_from(0.5, 10).into()),
        (
            "[{ schedule = 'Cosine', peak = 0.1, steps = 50 }, { then = { at = 70, next = 0.01 } }, { scale = 2 }]",
            Cosine::new(0.1, 50).then(70, 0.01).scale(2.0).into(),
        ),
        (
            "[0.1, { times = { other = { schedule = 'Linear', start = 1, end = 0.5, steps = 90 } } }]",
            0.1.times(Linear::new(1.0, 0.5, 90)).into(),
        ),
        (
            "[{ schedule = 'Linear', start = 0.1, end = 0, steps = 10, delay = 3 }, { cycle = 20 }, { per_epoch = 2 }, \
             { clamp = { min = 0.01, max = inf } }]",
            Linear::new(0.1, 0.0, 10).delay(3).cycle(20).per_epoch(2).clamp(0.01, INF).into(),
        ),
        ("[0.1, { clamp = { max = 0.05 } }]", 0.1.clamp(-INF, 0.05).into()),
    ]
}

#[test]
fn every_schedule_of_a_file_is_that_of_the_code() {
    for (text, code) in rows() {
        let text = format!("[optimizer]\nname = 'AdamW'\nlearning_rate = {text}\n");
        let opt = || AdamW::new(code.clone()).boxed();
        crate::same(&text, &text, opt);
        let mut opt = crate::built(&text);
        let mut w = crate::tree(0);
        for step in 0..40 {
            assert_eq!(opt.learning_rate().to_bits(), code.at(step).to_bits(), "step {step} of {text}");
            opt.step(&mut w, &crate::tree(1)).unwrap();
        }
    }
}

#[test]
fn every_schedule_has_a_row() {
    let schema: serde_json::Value = serde_json::from_str(&crate::schema()).unwrap();
    let schedules = schema["$defs"]["schedule"]["oneOf"].as_array().unwrap();
    let named: Vec<&str> =
        schedules.iter().map(|own| own["properties"]["schedule"]["const"].as_str().unwrap()).collect();
    let rows = rows();
    for own in schedules {
        let name = own["properties"]["schedule"]["const"].as_str().unwrap();
        let of_name: Vec<_> = rows.iter().filter(|(text, _)| text.contains(&format!("schedule = '{name}'"))).collect();
        let combinators = schema["$defs"]["combinators"].as_object().unwrap();
        for key in own["properties"].as_object().unwrap().keys() {
            let is_there = of_name.iter().any(|(text, _)| text.contains(&format!("{key} = ")));
            assert!(is_there || combinators.contains_key(key), "no row of {name} has {key}");
        }
    }
    for name in schema["$defs"]["combinators"].as_object().unwrap().keys() {
        assert!(rows.iter().any(|(text, _)| text.contains(&format!("{name} = "))), "no row has {name}");
    }
    // What the module of schedules exports, but for what is none.
    let others = ["Anneal", "ScheduleExt", "Hyper", "Memory", "Remember", "PlateauState"];
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schedule/mod.rs")).unwrap();
    let exported = source.lines().filter_map(|line| line.strip_prefix("pub use ")?.rsplit("::").next());
    let exported: Vec<_> = exported.flat_map(|names| names.split(|c: char| !c.is_alphanumeric())).collect();
    assert!(exported.contains(&"CosineRestarts"), "{exported:?}");
    for name in exported.into_iter().filter(|name| !name.is_empty() && !others.contains(name)) {
        assert!(named.contains(&name), "{name} cannot be named");
    }
}

#[test]
fn a_plateau_of_a_file_can_be_observed() {
    let text =
        "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Plateau', start = 0.5, patience = 0, factor = 0.1 }";
    let config = gradus::config::Config::from_toml(text).unwrap();
    let (opt, plateaus) = gradus::config::Registry::<f64>::default().build_with_plateaus(&config).unwrap();
    let plateau = &plateaus["optimizer.learning_rate"];
    assert!(!plateau.observe(1.0) && plateau.observe(1.0));
    assert_eq!(opt.learning_rate(), 0.05);
}
