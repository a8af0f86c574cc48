//! Every adaptor: what a file makes is what the code makes.

use gradus::adaptor::{Buffers, Group, Monitor, NonFinite, PowerEma};
use gradus::prelude::*;
use gradus::schedule::Linear;
use gradus::set::{Interval, L1Ball, MaxNorm, NonNegative, Simplex, UnitNorm};

use crate::Boxed;

type Row = (&'static str, fn(AdamW<f64>) -> Boxed);

/// Entries of `then` in TOML, and the calls in code.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        ("clip_global_norm = 0.5", |opt| opt.clip_global_norm(0.5).boxed()),
        ("clip_global_norm = inf", |opt| opt.clip_global_norm(f64::INFINITY).boxed()),
        ("clip_global_norm = { max_norm = 0.5, p = inf, exact = true, non_finite = 'Skip' }", |opt| {
            opt.clip_global_norm(0.5).p(f64::INFINITY).exact(true).non_finite(NonFinite::Skip).boxed()
        }),
        ("clip_per_tensor_norm = { max_norm = 0.5, p = 1, exact = true, non_finite = 'Allow' }", |opt| {
            opt.clip_per_tensor_norm(0.5).p(1.0).exact(true).non_finite(NonFinite::Allow).boxed()
        }),
        (
            "clip_value = { limit = { schedule = 'Linear', start = 1, end = 0.1, steps = 3 }, non_finite = 'Error' }",
            |opt| opt.clip_value(Linear::new(1.0, 0.1, 3)).non_finite(NonFinite::Error).boxed(),
        ),
        ("clip_adaptive = { clipping = 0.01, eps = 1e-2, non_finite = 'Skip' }", |opt| {
            opt.clip_adaptive(0.01).eps(1e-2).non_finite(NonFinite::Skip).boxed()
        }),
        ("qk_clip = 100.0", |opt| opt.qk_clip(100.0).boxed()),
        ("accumulate = 2e0", |opt| opt.accumulate(2).boxed()),
        ("accumulate = { every = 2, sum = true }", |opt| opt.accumulate(2).sum(true).boxed()),
        ("accumulate_by = { every = { schedule = 'Linear', start = 1, end = 3, steps = 2 }, sum = true }", |opt| {
            opt.accumulate_by(Linear::new(1.0, 3.0, 2)).sum(true).boxed()
        }),
        ("keep_best = true", |opt| opt.keep_best().boxed()),
        ("stop = { grad_norm = 1e-9, relative_change = 1e-9, patience = 3, min_delta = 0.1 }", |opt| {
            opt.stop().grad_norm(1e-9).relative_change(1e-9).patience(3).min_delta(0.1).boxed()
        }),
        ("ema = { decay = 0.9, warmup = true, debiased = false, buffers = 'Follow' }", |opt| {
            opt.ema(0.9).warmup(true).debiased(false).buffers(Buffers::Follow).boxed()
        }),
        ("ema = { decay = { schedule = 'PowerEma', gamma = 6.94 } }", |opt| opt.ema(PowerEma::new(6.94)).boxed()),
        ("swa = { start = 1, every = 2, buffers = 'Copy' }", |opt| opt.swa(1, 2).buffers(Buffers::Copy).boxed()),
        ("lookahead = { every = 2, slow_step = 0.5 }", |opt| opt.lookahead(2, 0.5).boxed()),
        ("sam = { rho = 0.05, adaptive = 0.01, surrogate_gap = 0.1, non_finite = 'Skip' }", |opt| {
            opt.sam(0.05).adaptive(0.01).surrogate_gap(0.1).non_finite(NonFinite::Skip).boxed()
        }),
        ("layerwise_decay = { rate = 0.5, layers = ['a', ['b']] }", |opt| opt.layerwise_decay(0.5, ["a", "b"]).boxed()),
        ("freeze = { pattern = ['a', 'b'], unfreeze_at = [[2, 'a'], [3, 'b']] }", |opt| {
            opt.freeze(["a", "b"]).unfreeze_at(2, "a").unfreeze_at(3, "b").boxed()
        }),
        ("freeze = 'a'", |opt| opt.freeze("a").boxed()),
        (
            "group = { pattern = 'a', learning_rate = 0.5, scale_learning_rate = 0.5, weight_decay = 0.0, scale_weight_decay = 2, \
             beta1 = 0.5 }",
            |opt| {
                let group = Group::new().learning_rate(0.5).scale_learning_rate(0.5).weight_decay(0.0);
                opt.group("a", group.scale_weight_decay(2.0).set("beta1", 0.5)).boxed()
            },
        ),
        ("project = { pattern = 'a', set = 'NonNegative' }", |opt| opt.project("a", NonNegative).boxed()),
        ("project = { pattern = 'a', set = 'Interval', lower = -0.5 }", |opt| {
            opt.project("a", Interval::at_least(-0.5)).boxed()
        }),
        ("project = { pattern = 'a', set = 'Interval', lower = -inf, upper = 0.5 }", |opt| {
            opt.project("a", Interval::at_most(0.5)).boxed()
        }),
        ("project = { pattern = '{a,b}', set = 'MaxNorm', radius = 0.5, per_row = true }", |opt| {
            opt.project("{a,b}", MaxNorm::per_row(0.5)).boxed()
        }),
        ("project = { pattern = 'b', set = 'UnitNorm' }", |opt| opt.project("b", UnitNorm::per_tensor()).boxed()),
        ("project = { pattern = 'b', set = 'Simplex', scale = 2, per_row = true }", |opt| {
            opt.project("b", Simplex::per_row().scale(2.0)).boxed()
        }),
        ("project = { pattern = 'b', set = 'L1Ball', radius = 0.5 }", |opt| {
            opt.project("b", L1Ball::per_tensor(0.5)).boxed()
        }),
        ("route = { pattern = 'a', optimizer = { name = 'Sgd', learning_rate = 0.1 } }", |opt| {
            opt.route("a", Sgd::new(0.1)).boxed()
        }),
        (
            "route = { pattern = 'a', optimizer = { name = 'Sgd', learning_rate = 0.1 }, then = [{ clip_value = 0.5 }] }\n\
             [[then]]\nroute = { pattern = 'b', optimizer = { name = 'Lion', learning_rate = 0.01 } }",
            |opt| opt.route("a", Sgd::new(0.1).clip_value(0.5)).route("b", Lion::new(0.01)).boxed(),
        ),
        (
            concat!(
                "monitor = { every = 2, csv = '",
                env!("CARGO_TARGET_TMPDIR"),
                "/config.csv', json_lines = '",
                env!("CARGO_TARGET_TMPDIR"),
                "/config.jsonl', tensorboard = '",
                env!("CARGO_TARGET_TMPDIR"),
                "/config' }"
            ),
            |opt| {
                let file = |name| format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
                let monitor = Monitor::every(2).csv(file("config.csv")).json_lines(file("config.jsonl"));
                opt.monitor(monitor.tensorboard(file("config"))).boxed()
            },
        ),
        ("add_noise = { eta = 0.1, seed = 7, gamma = 0.6 }", |opt| opt.add_noise(0.1, 7).gamma(0.6).boxed()),
        ("centralize = true", |opt| opt.centralize().boxed()),
        ("centralize = false", |opt| opt.boxed()),
        ("centralize = {}", |opt| opt.centralize().boxed()),
        ("maximize = true", |opt| opt.maximize().boxed()),
        ("check_finite = true", |opt| opt.check_finite().boxed()),
        ("skip_nonfinite = true", |opt| opt.skip_nonfinite().boxed()),
        ("unscale = 128", |opt| opt.unscale(128.0).boxed()),
        (
            "loss_scaling = { initial_scale = 128, growth_factor = 4, backoff_factor = 0.25, growth_interval = 2 }",
            |opt| {
                opt.loss_scaling()
                    .initial_scale(128.0)
                    .growth_factor(4.0)
                    .backoff_factor(0.25)
                    .growth_interval(2)
                    .boxed()
            },
        ),
        ("zero_nans = true", |opt| opt.zero_nans().boxed()),
        ("skip_spikes = { threshold = 3, decay = 0.9, warmup = 2, z_score = true }", |opt| {
            opt.skip_spikes(3.0).decay(0.9).warmup(2).z_score(true).boxed()
        }),
        ("max_skipped = 3", |opt| opt.max_skipped(3).boxed()),
        #[cfg(feature = "federated")]
        ("proximal = 0.1", |opt| opt.proximal(0.1).boxed()),
        #[cfg(feature = "federated")]
        ("scaffold = true", |opt| opt.scaffold().boxed()),
        ("accumulate = 2\n[[then]]\nclip_global_norm = 1\n[[then]]\nema = 0.9\n[[then]]\nfreeze = 'b'", |opt| {
            opt.accumulate(2).clip_global_norm(1.0).ema(0.9).freeze("b").boxed()
        }),
    ]
}

/// A whole file with this entry.
pub(crate) fn text(then: &str) -> String {
    format!("[optimizer]\nname = 'AdamW'\nlearning_rate = 0.01\n\n[[then]]\n{then}\n")
}

#[test]
fn every_adaptor_of_a_file_is_that_of_the_code() {
    for (then, code) in rows() {
        crate::same(then, &text(then), || code(AdamW::new(0.01)));
    }
}

#[test]
fn building_writes_no_file() {
    let path = format!("{}/never.csv", env!("CARGO_TARGET_TMPDIR"));
    let opt = crate::built(&text(&format!("monitor = {{ every = 1, csv = '{path}' }}")));
    assert!(opt.describe(&crate::tree(0)).unwrap().to_string().contains(&path));
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn every_method_of_a_chain_can_be_named_or_is_said_to_be_code() {
    let rows = rows();
    let schema: serde_json::Value = serde_json::from_str(&crate::schema()).unwrap();
    let in_schema = schema["$defs"]["adaptor"]["properties"].as_object().unwrap();
    // Methods of a chain that return no optimizer.
    let others =
        ["boxed", "find", "find_mut", "set_learning_rate", "summary", "resize", "step_with", "ascend", "retreat"];
    let mut seen = 0;
    for file in ["ext.rs", "guard_ext.rs"] {
        let path = format!("{}/src/optimizer/{file}", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(path).unwrap();
        let methods = source.lines().filter_map(|line| line.strip_prefix("    fn ")?.split(['(', '<']).next());
        for name in methods.filter(|name| !others.contains(name)) {
            seen += 1;
            let error = gradus::config::Config::from_toml(&text(&format!("{name} = 1"))).unwrap().build::<f64>().err();
            let is_code = error.is_some_and(|error| error.to_string().contains("cannot be set in a file"));
            let own = rows.iter().filter(|(then, _)| then.starts_with(&format!("{name} = ")));
            assert_ne!(is_code, own.clone().count() > 0, "{name}");
            if is_code {
                continue;
            }
            // Every setting is in a row, too.
            let forms = in_schema[name].get("anyOf").and_then(|forms| forms.as_array().cloned());
            let table = forms.map_or_else(|| in_schema[name].clone(), |forms| forms[0].clone());
            let keys: Vec<_> = table["properties"].as_object().unwrap().keys().collect();
            for key in keys.iter().filter(|_| keys.len() > 1) {
                assert!(own.clone().any(|(then, _)| then.contains(&format!("{key} = "))), "no row of {name} has {key}");
            }
        }
    }
    assert!(seen > 35, "{seen}");
}
