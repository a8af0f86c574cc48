//! What takes the steps: every optimizer, every adaptor, every precision of state.

use gradus::adaptor::Monitor;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::set::{Interval, MaxNorm};

pub(crate) type Build<A> = fn() -> Box<dyn Optimizer<A>>;

/// Every optimizer and how many state slots it has.
pub(crate) fn optimizers<A: Scalar>() -> [(&'static str, usize, Build<A>); 8] {
    [
        ("Adam", 2, || Box::new(Adam::new(1e-3))),
        ("AdamW", 2, || Box::new(AdamW::new(1e-3))),
        ("AMSGrad", 3, || Box::new(Adam::new(1e-3).amsgrad(true))),
        ("RmsProp", 1, || Box::new(RmsProp::new(1e-3))),
        ("RmsProp, centered, momentum", 3, || Box::new(RmsProp::new(1e-3).centered(true).momentum(0.9))),
        ("Momentum", 1, || Box::new(Momentum::new(1e-3, 0.9))),
        ("Nesterov", 1, || Box::new(Nesterov::new(1e-3, 0.9))),
        ("Sgd", 0, || Box::new(Sgd::new(1e-3))),
    ]
}

/// Every adaptor around AdamW, and its options, for trees of two tensors; `group`, `freeze` and `route` choose the second.
pub(crate) const ADAPTORS: [(&str, Build<f32>); 28 + cfg!(feature = "distributed") as usize] = [
    ("none", || Box::new(AdamW::new(1e-3))),
    ("clip_global_norm", || Box::new(AdamW::new(1e-3).clip_global_norm(1.0))),
    ("clip_per_tensor_norm", || Box::new(AdamW::new(1e-3).clip_per_tensor_norm(1.0))),
    ("clip_value", || Box::new(AdamW::new(1e-3).clip_value(1.0))),
    ("clip_adaptive", || Box::new(AdamW::new(1e-3).clip_adaptive(0.1))),
    ("qk_clip", || Box::new(AdamW::new(1e-3).qk_clip(100.0))),
    ("accumulate(1)", || Box::new(AdamW::new(1e-3).accumulate(1))),
    ("accumulate(4), all four", || Box::new(AdamW::new(1e-3).accumulate(4))),
    ("group", || Box::new(AdamW::new(1e-3).group("1", Group::no_decay()))),
    ("freeze", || Box::new(AdamW::new(1e-3).freeze("1"))),
    ("route", || Box::new(AdamW::new(1e-3).route("1", AdamW::new(1e-4)))),
    ("check_finite", || Box::new(AdamW::new(1e-3).check_finite())),
    ("skip_nonfinite", || Box::new(AdamW::new(1e-3).skip_nonfinite())),
    ("unscale", || Box::new(AdamW::new(1e-3).unscale(1024.0))),
    ("maximize", || Box::new(AdamW::new(1e-3).maximize())),
    ("centralize", || Box::new(AdamW::new(1e-3).centralize())),
    ("project, bounds", || Box::new(AdamW::new(1e-3).project("**", Interval::new(-1.0, 1.0)))),
    ("project, norm of rows", || Box::new(AdamW::new(1e-3).project("**", MaxNorm::per_row(1.0)))),
    ("loss_scaling", || Box::new(AdamW::new(1e-3).loss_scaling())),
    ("skip_spikes", || Box::new(AdamW::new(1e-3).skip_spikes(9.0).max_skipped(9))),
    ("zero_nans", || Box::new(AdamW::new(1e-3).zero_nans())),
    ("add_noise", || Box::new(AdamW::new(1e-3).add_noise(1e-6, 7))),
    ("monitor on every step", || Box::new(AdamW::new(1e-3).monitor(Monitor::every(1)))),
    ("keep_best", || Box::new(AdamW::new(1e-3).keep_best())),
    ("stop by norm", || Box::new(AdamW::new(1e-3).stop().grad_norm(1e-9))),
    ("cautious", || Box::new(AdamW::new(1e-3).cautious(true))),
    ("trust_ratio", || Box::new(AdamW::new(1e-3).trust_ratio(true))),
    ("ema", || Box::new(AdamW::new(1e-3).ema(0.999))),
    #[cfg(feature = "distributed")]
    ("data_parallel, one rank", || Box::new(AdamW::new(1e-3).data_parallel(gradus::distributed::Alone))),
];

/// Every precision of state, and the bits of an element of a slot.
pub(crate) const PRECISIONS: [(&str, StatePrecision, usize); 6] = [
    ("f32", StatePrecision::Full, 32),
    ("bf16", StatePrecision::Bf16(Rounding::Stochastic), 16),
    ("bf16, to nearest", StatePrecision::Bf16(Rounding::Nearest), 16),
    ("8 bits", StatePrecision::Blockwise8, 8),
    ("4 bits", StatePrecision::Blockwise4(Rounding::Stochastic), 4),
    ("4 bits, to nearest", StatePrecision::Blockwise4(Rounding::Nearest), 4),
];
