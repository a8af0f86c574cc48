//! The table of adaptors: every one keeps the laws, in both element types.

use gradus::adaptor::Monitor;
use gradus::clip::Norm;
use gradus::prelude::*;
use gradus::set::{Interval, MaxNorm};
use gradus::testing::{AdaptorLaws, Law, wrapper};

/// Every adaptor of one optimizer, with options that change what it does.
#[rustfmt::skip]
fn adaptors<A: Scalar>() -> Vec<AdaptorLaws<A>> {
    let laws = vec![
        wrapper::<A, _>(|inner| inner.clip_global_norm(1.0)).named("clip_global_norm"),
        wrapper::<A, _>(|inner| inner.clip_global_norm(1.0).exact(true).non_finite(NonFinite::Skip)).named("clip_global_norm, exact, skip"),
        wrapper::<A, _>(|inner| inner.transform(Norm::global(1.0).p(1.0))).named("clip_global_norm, p = 1"),
        wrapper::<A, _>(|inner| inner.clip_per_tensor_norm(1.0)).named("clip_per_tensor_norm"),
        wrapper::<A, _>(|inner| inner.clip_value(0.1)).named("clip_value"),
        wrapper::<A, _>(|inner| inner.clip_adaptive(0.1)).named("clip_adaptive"),
        // Without logits it passes everything on.
        wrapper::<A, _>(|inner| inner.qk_clip(100.0)).named("qk_clip"),
        wrapper::<A, _>(|inner| inner.accumulate(3)).named("accumulate"),
        wrapper::<A, _>(|inner| inner.accumulate(2).sum(true)).named("accumulate, sum"),
        wrapper::<A, _>(|inner| inner.accumulate_by(|step: u64| 1.0 + (step % 3) as f64)).named("accumulate_by"),
        wrapper::<A, _>(|inner| inner.ema(0.9)).named("ema"),
        wrapper::<A, _>(|inner| inner.ema(0.9).warmup(true).debiased(true)).named("ema, warm-up, debiased"),
        wrapper::<A, _>(|inner| inner.swa(1, 2)).named("swa"),
        wrapper::<A, _>(|inner| inner.lookahead(3, 0.5)).named("lookahead"),
        wrapper::<A, _>(|inner| inner.keep_best()).named("keep_best"),
        wrapper::<A, _>(|inner| inner.monitor(Monitor::every(1))).named("monitor"),
        wrapper::<A, _>(|inner| inner.stop().patience(2).relative_change(0.1)).named("stop"),
        wrapper::<A, _>(|inner| inner.check_finite()).named("check_finite"),
        wrapper::<A, _>(|inner| inner.skip_nonfinite()).named("skip_nonfinite"),
        wrapper::<A, _>(|inner| inner.loss_scaling().initial_scale(8.0).growth_interval(2)).named("loss_scaling"),
        wrapper::<A, _>(|inner| inner.zero_nans()).named("zero_nans"),
        wrapper::<A, _>(|inner| inner.skip_spikes(3.0).warmup(1)).named("skip_spikes"),
        wrapper::<A, _>(|inner| inner.skip_spikes(1e3).z_score(true).warmup(4)).named("skip_spikes, z_score"),
        wrapper::<A, _>(|inner| inner.skip_nonfinite().max_skipped(3)).named("max_skipped"),
        wrapper::<A, _>(|inner| inner.maximize()).named("maximize"),
        wrapper::<A, _>(|inner| inner.unscale(8.0)).named("unscale"),
        wrapper::<A, _>(|inner| inner.group("**", Group::new().scale_learning_rate(0.5).weight_decay(0.1))).named("group"),
        wrapper::<A, _>(|inner| inner.layerwise_decay(0.5, ["**"])).named("layerwise_decay"),
        wrapper::<A, _>(|inner| inner.project("**", Interval::new(-0.5, 0.5))).named("project, bounds"),
        wrapper::<A, _>(|inner| inner.project("**", MaxNorm::per_row(0.5))).named("project, norm"),
        wrapper::<A, _>(|inner| inner.freeze("**").unfreeze_at(0, "**")).named("freeze, unfreeze_at"),
        // Its learning rate and its steps are those of the base optimizer, not of the branch.
        wrapper::<A, _>(|inner| Momentum::new(0.1, 0.9).route("**", inner)).named("route").without(Law::PassesOn),
    ];
    // Without a tap it passes everything on.
    #[cfg(feature = "second-order")]
    let laws = laws.into_iter().chain([wrapper::<A, _>(|inner| inner.kfac()).named("kfac")]).collect();
    laws
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes if it is not optimized; .ci/run asks for it, optimized")]
fn every_adaptor_keeps_the_laws_in_f32() {
    adaptors::<f32>().iter().for_each(AdaptorLaws::run);
}

#[test]
fn every_adaptor_keeps_the_laws_in_f64() {
    adaptors::<f64>().iter().for_each(AdaptorLaws::run);
}
