//! The adaptors that a document can name: the methods of a chain, with their arguments and options.

use super::settings::Settings;
use crate::adaptor::{Group, Monitor, Router};
use crate::error::Result;
use crate::optimizer::{GuardExt, OptimizerExt};
use crate::params::{Element, Pattern};
use crate::schedule::Hyper;
use crate::step::{Optimizer, find_mut};

/// An optimizer of any kind.
pub(super) type Boxed<A> = Box<dyn Optimizer<A>>;

/// Adds an adaptor to an optimizer.
pub(super) type Adapt<A> = fn(Boxed<A>, &mut Settings<'_>) -> Result<Boxed<A>>;

/// A setter of a group.
type SetGroup = fn(Group, Hyper) -> Group;

/// Calls the methods of an adaptor for the options that are there: `opt, settings; method: hyper, …; method: other, …`.
macro_rules! options {
    ($opt:ident, $settings:ident; $($hyper:ident),*; $($option:ident),*) => {{
        let opt = $opt;
        $(
            let opt = match $settings.optional_hyper(stringify!($hyper))? {
                Some(hyper) => opt.$hyper(hyper),
                None => opt,
            };
        )*
        $(
            let opt = match $settings.optional(stringify!($option))? {
                Some(option) => opt.$option(option),
                None => opt,
            };
        )*
        Ok(opt.boxed())
    }};
}

/// All adaptors by name.
pub(super) fn adaptors<A: Element>() -> Vec<(&'static str, Adapt<A>)> {
    vec![
        ("clip_global_norm", |opt, settings| {
            let opt = opt.clip_global_norm(settings.hyper("max_norm")?);
            options!(opt, settings; ; p, exact, non_finite)
        }),
        ("clip_per_tensor_norm", |opt, settings| {
            let opt = opt.clip_per_tensor_norm(settings.hyper("max_norm")?);
            options!(opt, settings; ; p, exact, non_finite)
        }),
        ("clip_value", |opt, settings| {
            let opt = opt.clip_value(settings.hyper("limit")?);
            options!(opt, settings; ; non_finite)
        }),
        ("clip_adaptive", |opt, settings| {
            let opt = opt.clip_adaptive(settings.hyper("clipping")?);
            options!(opt, settings; eps; non_finite)
        }),
        ("qk_clip", |opt, settings| Ok(opt.qk_clip(settings.hyper("threshold")?).boxed())),
        ("accumulate", |opt, settings| {
            let opt = opt.accumulate(settings.get("every")?);
            options!(opt, settings; ; sum)
        }),
        ("accumulate_by", |opt, settings| {
            let opt = opt.accumulate_by(settings.hyper("every")?);
            options!(opt, settings; ; sum)
        }),
        ("keep_best", |opt, _| Ok(opt.keep_best().boxed())),
        ("stop", |opt, settings| {
            let opt = opt.stop();
            options!(opt, settings; ; grad_norm, relative_change, patience, min_delta)
        }),
        ("ema", |opt, settings| {
            let opt = opt.ema(settings.hyper("decay")?);
            options!(opt, settings; ; warmup, debiased, buffers)
        }),
        ("swa", |opt, settings| {
            let opt = opt.swa(settings.get("start")?, settings.get("every")?);
            options!(opt, settings; ; buffers)
        }),
        ("lookahead", |opt, settings| Ok(opt.lookahead(settings.get("every")?, settings.hyper("slow_step")?).boxed())),
        ("sam", |opt, settings| {
            let opt = opt.sam(settings.hyper("rho")?);
            options!(opt, settings; adaptive, surrogate_gap; non_finite)
        }),
        ("layerwise_decay", |opt, settings| {
            let rate = settings.hyper("rate")?;
            Ok(opt.layerwise_decay(rate, settings.get::<Vec<Pattern>>("layers")?).boxed())
        }),
        ("freeze", |opt, settings| {
            let opt = opt.freeze(settings.get::<Pattern>("pattern")?);
            let later: Vec<(u64, Pattern)> = settings.optional("unfreeze_at")?.unwrap_or_default();
            Ok(later.into_iter().fold(opt, |opt, (steps, pattern)| opt.unfreeze_at(steps, pattern)).boxed())
        }),
        ("group", |opt, settings| {
            let pattern: Pattern = settings.get("pattern")?;
            let mut group = Group::new();
            let setters: [(&str, SetGroup); 4] = [
                ("learning_rate", Group::learning_rate),
                ("scale_learning_rate", Group::scale_learning_rate),
                ("weight_decay", Group::weight_decay),
                ("scale_weight_decay", Group::scale_weight_decay),
            ];
            for (name, set) in setters {
                if let Some(hyper) = settings.optional_hyper(name)? {
                    group = set(group, hyper);
                }
            }
            let others = settings.other_hypers()?;
            let group = others.into_iter().fold(group, |group, (name, hyper)| group.set(&name, hyper));
            Ok(opt.group(pattern, group).boxed())
        }),
        ("monitor", |opt, settings| {
            let monitor = Monitor::every(settings.get("every")?);
            let monitor = settings.optional::<String>("csv")?.into_iter().fold(monitor, Monitor::csv);
            let monitor = settings.optional::<String>("json_lines")?.into_iter().fold(monitor, Monitor::json_lines);
            let monitor = settings.optional::<String>("tensorboard")?.into_iter().fold(monitor, Monitor::tensorboard);
            Ok(opt.monitor(monitor).boxed())
        }),
        ("add_noise", |opt, settings| {
            let opt = opt.add_noise(settings.hyper("eta")?, settings.get("seed")?);
            options!(opt, settings; gamma; )
        }),
        ("centralize", |opt, _| Ok(opt.centralize().boxed())),
        ("maximize", |opt, _| Ok(opt.maximize().boxed())),
        ("check_finite", |opt, _| Ok(opt.check_finite().boxed())),
        ("skip_nonfinite", |opt, _| Ok(opt.skip_nonfinite().boxed())),
        ("unscale", |opt, settings| Ok(opt.unscale(settings.hyper("loss_scale")?).boxed())),
        ("loss_scaling", |opt, settings| {
            let opt = opt.loss_scaling();
            options!(opt, settings; ; initial_scale, growth_factor, backoff_factor, growth_interval)
        }),
        ("zero_nans", |opt, _| Ok(opt.zero_nans().boxed())),
        ("skip_spikes", |opt, settings| {
            let opt = opt.skip_spikes(settings.hyper("threshold")?);
            options!(opt, settings; decay; warmup, z_score)
        }),
        ("max_skipped", |opt, settings| Ok(opt.max_skipped(settings.get("most")?).boxed())),
        #[cfg(feature = "federated")]
        ("proximal", |opt, settings| Ok(opt.proximal(settings.hyper("mu")?).boxed())),
        #[cfg(feature = "federated")]
        ("scaffold", |opt, _| Ok(opt.scaffold().boxed())),
    ]
}

/// What a chain can have, but not one from a file; and what to do instead.
pub(super) const ONLY_IN_CODE: &[(&str, &str)] = &[
    ("transform", "it is code; add it to what `build` returns, or register it as an adaptor of the registry"),
    ("kfac", "its layers are observed by their taps; call `kfac` on what `build` returns"),
    ("data_parallel", "its group of ranks is made by code; call `data_parallel` on what `build` returns"),
    ("sharded", "its group of ranks is made by code; call `sharded` on what `build` returns"),
    ("local_steps", "its group of ranks is made by code; call `local_steps` on what `build` returns"),
    ("master_weights", "it changes the element type; call `master_weights` on what `build` returns for f32"),
    ("stochastic_rounding", "it changes the element type; call `stochastic_rounding` on what `build` returns for f32"),
    ("kahan", "it changes the element type; call `kahan` on what `build` returns for f32"),
];

/// A route of an optimizer, or one more if it is a router already.
pub(super) fn route<A: Element>(mut opt: Boxed<A>, pattern: Pattern, branch: Boxed<A>) -> Boxed<A> {
    let (outermost, size): (*const dyn Optimizer<A>, _) = (&*opt, size_of_val(&*opt));
    match find_mut::<Router<A>, A>(&mut *opt) {
        // An adaptor around a router can have its address, but not its size.
        Some(router) if std::ptr::addr_eq(outermost, router) && size == size_of::<Router<A>>() => {
            router.add(pattern, branch);
            opt
        }
        _ => opt.route(pattern, branch).boxed(),
    }
}
