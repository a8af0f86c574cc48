//! Everything that remembers, alone and in chains.

use std::collections::BTreeMap;

use gradus::adaptor::Monitor;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::{Cosine, Plateau};
use gradus::set::{MaxNorm, NonNegative};
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

pub(crate) type Tree = BTreeMap<&'static str, ArrayD<f32>>;
pub(crate) type Grads = BTreeMap<&'static str, Option<ArrayD<f32>>>;
pub(crate) type Build = fn() -> Box<dyn Optimizer<f32>>;

/// A number in −1 … 1.
pub(crate) fn number(stream: u64, index: usize) -> f32 {
    ((stream * 7919 + index as u64 * 104_729) as f64 * 0.37).sin() as f32
}

fn tensor(shape: &[usize], stream: u64, column_major: bool) -> ArrayD<f32> {
    let elements: usize = shape.iter().product();
    let values = (0..elements).map(|index| number(stream, index)).collect();
    ArrayD::from_shape_vec(IxDyn(shape).set_f(column_major), values).unwrap()
}

/// A matrix large enough for 8 bits that lies column by column, a bias, a scalar, nothing, and a name with dots.
pub(crate) fn tree(stream: u64) -> Tree {
    BTreeMap::from([
        ("a.weight", tensor(&[65, 67], stream, true)),
        ("a.bias", tensor(&[5], stream + 1, false)),
        ("scale", tensor(&[], stream + 2, false)),
        ("none", tensor(&[0, 3], stream + 3, false)),
        ("b.weight", tensor(&[70, 61], stream + 4, false)),
    ])
}

/// The gradients of a step, of which some are missing now and then.
pub(crate) fn grads(step: u64) -> Grads {
    let keep = |name: &str| match name {
        "a.bias" => step % 3 != 1,
        "scale" => step > 6,
        _ => true,
    };
    tree(100 * step + 50).into_iter().map(|(name, grad)| (name, Some(grad).filter(|_| keep(name)))).collect()
}

/// All of them: those with curvature if there is any.
#[cfg(not(feature = "second-order"))]
pub(crate) const CHAINS: [(&str, Build); 48] = PLAIN;
#[cfg(feature = "second-order")]
pub(crate) const CHAINS: [(&str, Build); 54] = {
    let mut chains = [PLAIN[0]; 54];
    let mut at = 0;
    while at < chains.len() {
        chains[at] = if at < PLAIN.len() { PLAIN[at] } else { curvature::CHAINS[at - PLAIN.len()] };
        at += 1;
    }
    chains
};

#[cfg(feature = "second-order")]
mod curvature {
    use gradus::LinearTap;
    use gradus::adaptor::Adapted;
    use gradus::curvature::{Kfac, Layer};
    use gradus::optimizer::Graft;
    use ndarray::Array2;

    use super::*;

    /// Taps of two layers: of the state from the beginning, after a step in the factors.
    fn tapped<O: Optimizer<f32>>(mut kfac: Adapted<O, Kfac<f32>>) -> Adapted<O, Kfac<f32>> {
        kfac = kfac.layer("a", Layer::new("a.weight")).inverses_every(7);
        for (name, outputs, inputs) in [("a", 65, 67), ("b", 70, 61)] {
            let numbers =
                |columns, stream| Array2::from_shape_fn((8, columns), |(i, j)| number(stream, i * columns + j));
            kfac.observe(name, LinearTap::new(&numbers(inputs, 7), &numbers(outputs, 8))).unwrap();
        }
        kfac
    }

    #[rustfmt::skip] // one chain, one line
    pub(super) const CHAINS: [(&str, Build); 6] = [
        ("kfac", || Box::new(tapped(Momentum::new(0.05, 0.9).kfac().damping(0.1)))),
        ("kfac by eigenvalues, clipped, accumulated", || Box::new(
            tapped(Sgd::new(0.05).kfac().eigen(true)).clip_global_norm(1.0).accumulate(2))),
        ("shampoo in blocks", || Box::new(Shampoo::new(0.05).block_size(34).every(2).graft(Graft::Adam).momentum(0.9))),
        ("klsoap with nesterov momentum", || Box::new(KlSoap::new(0.02).every(2).nesterov(true).shampoo_beta(0.9))),
        ("kron", || Box::new(Kron::new(0.01).update_probability(0.4).max_size_triangular(66).seed(3))),
        ("soap beside muon", || Box::new(Soap::new(0.02).every(7).max_side(66).route("b.*", Muon::new(0.02)))),
    ];
}

/// Every adaptor, every precision, and chains of them.
#[rustfmt::skip] // one chain, one line
const PLAIN: [(&str, Build); 48] = [
    ("lbfgs", || Box::new(Lbfgs::new(0.01).history(3))),
    ("muon beside adamw", || Box::new(AdamW::new(0.05).route("*.weight", Muon::new(0.02)))),
    ("sgd", || Box::new(Sgd::new(0.1))),
    ("adam with a schedule", || Box::new(Adam::new(Cosine::new(0.05, 20).warmup(3)).weight_decay(0.01))),
    ("amsgrad", || Box::new(Adam::new(0.05).amsgrad(true))),
    ("adam in bf16", || Box::new(Adam::new(0.05).state_precision(StatePrecision::Bf16(Rounding::Stochastic)))),
    ("adam in bf16, to nearest", || Box::new(Adam::new(0.05).state_precision(StatePrecision::Bf16(Rounding::Nearest)))),
    ("adam in 8 bits", || Box::new(Adam::new(0.05).state_precision(StatePrecision::Blockwise8))),
    ("adam in 4 bits", || Box::new(Adam::new(0.05).amsgrad(true).state_precision(StatePrecision::Blockwise4(Rounding::Stochastic)))),
    ("momentum in 4 bits", || Box::new(Momentum::new(0.05, 0.9).state_precision(StatePrecision::Blockwise4(Rounding::Nearest)))),
    ("momentum in 8 bits", || Box::new(Momentum::new(0.05, 0.9).state_precision(StatePrecision::Blockwise8))),
    ("rmsprop", || Box::new(RmsProp::new(0.01).centered(true).momentum(0.9))),
    ("clip_global_norm", || Box::new(AdamW::new(0.05).clip_global_norm(0.5))),
    ("clip_value", || Box::new(AdamW::new(0.05).clip_value(0.5))),
    ("clip_adaptive", || Box::new(AdamW::new(0.05).clip_adaptive(0.1))),
    ("qk_clip", || Box::new(AdamW::new(0.05).qk_clip(Plateau::new(100.0)))),
    ("accumulate", || Box::new(AdamW::new(0.05).accumulate(3))),
    ("accumulate in accumulate", || Box::new(AdamW::new(0.05).accumulate(2).clip_global_norm(0.5).accumulate(3).sum(true))),
    ("accumulate_by", || Box::new(AdamW::new(0.05).accumulate_by(Plateau::new(2.0)))),
    ("ema", || Box::new(AdamW::new(0.05).ema(0.9))),
    ("ema, debiased", || Box::new(AdamW::new(0.05).ema(0.9).debiased(true))),
    ("ema, warm-up", || Box::new(AdamW::new(0.05).ema(0.9).warmup(true))),
    ("swa", || Box::new(AdamW::new(0.05).swa(3, 4))),
    ("monitor", || Box::new(AdamW::new(0.05).clip_global_norm(1.0).monitor(Monitor::every(2)))),
    ("keep_best", || Box::new(AdamW::new(0.05).keep_best())),
    ("stop", || Box::new(AdamW::new(0.05).stop().patience(3))),
    ("lookahead", || Box::new(AdamW::new(0.05).lookahead(4, 0.5))),
    ("averages of averages", || Box::new(AdamW::new(0.05).lookahead(3, 0.5).swa(2, 2).ema(Plateau::new(0.9)))),
    ("layerwise_decay", || Box::new(AdamW::new(0.05).layerwise_decay(0.5, ["a.**", "b.**"]))),
    ("unfreeze_at", || Box::new(AdamW::new(0.05).freeze("**").unfreeze_at(0, "b.**").unfreeze_at(5, "a.bias").unfreeze_at(9, "**"))),
    ("two averages", || Box::new(AdamW::new(0.05).ema(0.9).ema(0.99))),
    ("freeze", || Box::new(AdamW::new(0.05).freeze("a.**"))),
    ("group", || Box::new(AdamW::new(0.05).group("*.bias", Group::no_decay().set("beta1", Plateau::new(0.8))))),
    ("skip_nonfinite", || Box::new(AdamW::new(0.05).skip_nonfinite())),
    ("check_finite", || Box::new(AdamW::new(0.05).check_finite())),
    ("loss_scaling", || Box::new(AdamW::new(0.05).loss_scaling().initial_scale(8.0).growth_interval(3))),
    ("zero_nans", || Box::new(AdamW::new(0.05).zero_nans())),
    ("skip_spikes, max_skipped", || Box::new(AdamW::new(0.05).skip_spikes(Plateau::new(1.01)).warmup(4).max_skipped(24))),
    ("maximize", || Box::new(AdamW::new(0.05).maximize())),
    ("centralize", || Box::new(AdamW::new(0.05).centralize())),
    ("unscale", || Box::new(AdamW::new(0.05).unscale(8.0))),
    ("project", || Box::new(AdamW::new(0.05).project("a.**", NonNegative).project("b.**", MaxNorm::per_row(0.5)))),
    ("route", || Box::new(AdamW::new(0.05).route("a.**", Momentum::new(0.1, 0.9)).route("b.**", AdamW::new(0.1).ema(0.5)))),
    ("boxed", || Box::new((Box::new(AdamW::new(0.05)) as Box<dyn Optimizer<f32>>).accumulate(2).ema(0.9))),
    ("plateau", || Box::new(Sgd::new(Plateau::new(0.1).patience(1)))),
    ("plateaus in schedules", || Box::new(
        Adam::new(Cosine::new(0.05, 9).times(Plateau::new(1.0))).weight_decay(Plateau::new(0.1).warmup(2)).beta1(Plateau::new(0.9)))),
    ("ema in accumulate in route", || Box::new(
        Sgd::new(0.1).route("b.**", Adam::new(0.05).state_precision(StatePrecision::Blockwise8).ema(0.9).accumulate(2)))),
    ("everything", || Box::new(
        AdamW::new(0.05).state_precision(StatePrecision::Bf16(Rounding::Stochastic)).freeze("scale").ema(0.9)
            .group("*.bias", Group::no_decay()).clip_global_norm(0.5).accumulate(2).skip_nonfinite())),
];
