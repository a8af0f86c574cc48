//! Both ends of every range: that of a hyper-parameter, of the element type that it is computed with in, of a counter.

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Hyper};
use ndarray::{Array1, Array2, array};

type Build = fn(Hyper) -> Box<dyn Optimizer<f64>>;

/// A hyper-parameter, what it belongs to, values in range, and values out of it.
const TABLE: &[(&str, Build, &[f64], &[f64])] = {
    const BELOW_1: (&[f64], &[f64]) = (&[0.0, 0.5, 0.999_999], &[-1e-9, 1.0, 1.5]);
    const BETWEEN: (&[f64], &[f64]) = (&[1e-3, 0.5, 0.999_999], &[-1e-9, 0.0, 1.0, 1.5]);
    const POSITIVE: (&[f64], &[f64]) = (&[0.0, 1e-12, 0.5, 1e6], &[-1e-300, -1.0]);
    const ABOVE_0: (&[f64], &[f64]) = (&[1e-12, 0.5, 1e6], &[0.0, -1e-300, -1.0]);
    const TO_1: (&[f64], &[f64]) = (&[0.0, 1.0], &[-0.1, 1.000_001]);
    &[
        ("learning_rate", |x| Box::new(Sgd::new(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Sgd::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Momentum::new(x, 0.9)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Momentum::new(0.1, x)), BELOW_1.0, BELOW_1.1),
        ("dampening", |x| Box::new(Momentum::new(0.1, 0.9).dampening(x)), TO_1.0, TO_1.1),
        ("weight_decay", |x| Box::new(Momentum::new(0.1, 0.9).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Nesterov::new(x, 0.9)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Nesterov::new(0.1, x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(Nesterov::new(0.1, 0.9).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(RmsProp::new(x)), POSITIVE.0, POSITIVE.1),
        ("alpha", |x| Box::new(RmsProp::new(0.1).alpha(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(RmsProp::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(RmsProp::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(RmsProp::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Adam::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Adam::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Adam::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Adam::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Adam::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(AdamW::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(AdamW::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(AdamW::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(AdamW::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdamW::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(AdaBelief::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(AdaBelief::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(AdaBelief::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(AdaBelief::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdaBelief::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Lamb::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Lamb::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Lamb::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Lamb::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Lamb::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(StableAdamW::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(StableAdamW::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(StableAdamW::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(StableAdamW::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(StableAdamW::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Lars::new(x, 0.9)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Lars::new(0.1, x)), BELOW_1.0, BELOW_1.1),
        ("dampening", |x| Box::new(Lars::new(0.1, 0.9).dampening(x)), TO_1.0, TO_1.1),
        ("trust_coefficient", |x| Box::new(Lars::new(0.1, 0.9).trust_coefficient(x)), &[1e-12, 0.5, 1e6], &[0.0, -1.0]),
        ("eps", |x| Box::new(Lars::new(0.1, 0.9).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Lars::new(0.1, 0.9).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Mars::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Mars::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Mars::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("gamma", |x| Box::new(Mars::new(0.1).gamma(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(Mars::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Mars::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(MarsLion::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(MarsLion::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(MarsLion::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("gamma", |x| Box::new(MarsLion::new(0.1).gamma(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(MarsLion::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(MarsLion::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(NovoGrad::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(NovoGrad::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(NovoGrad::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(NovoGrad::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(NovoGrad::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(NAdam::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(NAdamW::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(NAdam::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("momentum_decay", |x| Box::new(NAdam::new(0.1).momentum_decay(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(RAdam::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(RAdamW::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(RAdam::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(SgdScheduleFree::new(0.1).momentum(x)), BETWEEN.0, BETWEEN.1),
        ("beta1", |x| Box::new(AdamWScheduleFree::new(0.1).beta1(x)), BETWEEN.0, BETWEEN.1),
        ("beta2", |x| Box::new(AdamWScheduleFree::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(AdamWScheduleFree::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("time_power", |x| Box::new(AdamWScheduleFree::new(0.1).time_power(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdamWScheduleFree::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("lr_power", |x| Box::new(RAdamScheduleFree::new(0.1).lr_power(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(RAdamScheduleFree::new(0.1).beta1(x)), BETWEEN.0, BETWEEN.1),
        ("beta1", |x| Box::new(Adamax::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Adamax::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Adamax::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate_decay", |x| Box::new(Adagrad::new(0.1).learning_rate_decay(x)), POSITIVE.0, POSITIVE.1),
        (
            "initial_accumulator_value",
            |x| Box::new(Adagrad::new(0.1).initial_accumulator_value(x)),
            POSITIVE.0,
            POSITIVE.1,
        ),
        ("eps", |x| Box::new(Adagrad::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("rho", |x| Box::new(Adadelta::new(1.0).rho(x)), TO_1.0, TO_1.1),
        ("eps", |x| Box::new(Adadelta::new(1.0).eps(x)), POSITIVE.0, POSITIVE.1),
        ("eta_minus", |x| Box::new(Rprop::new(0.1).eta_minus(x)), &[1e-12, 0.999], &[0.0, -0.5, 1.0, 1.2]),
        ("eta_plus", |x| Box::new(Rprop::new(0.1).eta_plus(x)), &[1.001, 1e6], &[1.0, 0.5, -1.2]),
        ("min_step_size", |x| Box::new(Rprop::new(0.1).min_step_size(x)), POSITIVE.0, POSITIVE.1),
        ("max_step_size", |x| Box::new(Rprop::new(0.1).max_step_size(x)), POSITIVE.0, POSITIVE.1),
        ("lambda", |x| Box::new(Asgd::new(0.1).lambda(x)), POSITIVE.0, POSITIVE.1),
        ("alpha", |x| Box::new(Asgd::new(0.1).alpha(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Adafactor::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta2_decay", |x| Box::new(Adafactor::new(0.1).beta2_decay(x)), &[0.0, -0.5, -1e6], &[1e-300, 1.0]),
        ("eps", |x| Box::new(Adafactor::new(0.1).eps(x)), ABOVE_0.0, ABOVE_0.1),
        ("min_scale", |x| Box::new(Adafactor::new(0.1).min_scale(x)), ABOVE_0.0, ABOVE_0.1),
        ("clip_threshold", |x| Box::new(Adafactor::new(0.1).clip_threshold(x)), ABOVE_0.0, ABOVE_0.1),
        ("beta1", |x| Box::new(Adafactor::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(Adafactor::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("beta2_cap", |x| Box::new(Adafactor::new(0.1).beta2_cap(x)), BELOW_1.0, BELOW_1.1),
        ("learning_rate", |x| Box::new(AdamMini::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(AdamMini::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(AdamMini::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(AdamMini::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdamMini::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Sm3::new(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(Sm3::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Sm3::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Sm3::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(Sm3::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Came::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Came::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Came::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("beta3", |x| Box::new(Came::new(0.1).beta3(x)), BELOW_1.0, BELOW_1.1),
        ("eps1", |x| Box::new(Came::new(0.1).eps1(x)), ABOVE_0.0, ABOVE_0.1),
        ("eps2", |x| Box::new(Came::new(0.1).eps2(x)), ABOVE_0.0, ABOVE_0.1),
        ("clip_threshold", |x| Box::new(Came::new(0.1).clip_threshold(x)), ABOVE_0.0, ABOVE_0.1),
        ("weight_decay", |x| Box::new(Came::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Apollo::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Apollo::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Apollo::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Apollo::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("scale", |x| Box::new(Apollo::new(0.1).scale(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Apollo::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(ApolloMini::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(ApolloMini::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(ApolloMini::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(ApolloMini::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("scale", |x| Box::new(ApolloMini::new(0.1).scale(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(ApolloMini::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Signum::new(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Signum::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(Signum::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(SignSgd::new(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(SignSgd::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Prodigy::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Prodigy::new(1.0).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Prodigy::new(1.0).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("beta3", |x| Box::new(Prodigy::new(1.0).beta3(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Prodigy::new(1.0).eps(x)), POSITIVE.0, POSITIVE.1),
        ("d0", |x| Box::new(Prodigy::new(1.0).d0(x)), ABOVE_0.0, ABOVE_0.1),
        ("d_coef", |x| Box::new(Prodigy::new(1.0).d_coef(x)), ABOVE_0.0, ABOVE_0.1),
        ("growth_rate", |x| Box::new(Prodigy::new(1.0).growth_rate(x)), &[1.0, 1.02, 1e6], &[0.0, 0.999, -1.0]),
        ("weight_decay", |x| Box::new(Prodigy::new(1.0).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(DoG::new(x)), POSITIVE.0, POSITIVE.1),
        ("relative_distance", |x| Box::new(DoG::new(1.0).relative_distance(x)), ABOVE_0.0, ABOVE_0.1),
        ("initial_distance", |x| Box::new(DoG::new(1.0).initial_distance(x)), ABOVE_0.0, ABOVE_0.1),
        ("initial_rate", |x| Box::new(DoG::new(1.0).initial_rate(x)), ABOVE_0.0, ABOVE_0.1),
        ("eps", |x| Box::new(DoG::new(1.0).layerwise(true).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(DoG::new(1.0).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(DoWG::new(x)), POSITIVE.0, POSITIVE.1),
        ("initial_distance_sq", |x| Box::new(DoWG::new(1.0).initial_distance_sq(x)), ABOVE_0.0, ABOVE_0.1),
        ("eps", |x| Box::new(DoWG::new(1.0).eps(x)), ABOVE_0.0, ABOVE_0.1),
        ("weight_decay", |x| Box::new(DoWG::new(1.0).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(DAdaptAdam::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(DAdaptAdam::new(1.0).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(DAdaptAdam::new(1.0).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(DAdaptAdam::new(1.0).eps(x)), POSITIVE.0, POSITIVE.1),
        ("d0", |x| Box::new(DAdaptAdam::new(1.0).d0(x)), ABOVE_0.0, ABOVE_0.1),
        ("growth_rate", |x| Box::new(DAdaptAdam::new(1.0).growth_rate(x)), &[1.0, 1.02, 1e6], &[0.0, 0.999, -1.0]),
        ("weight_decay", |x| Box::new(DAdaptAdam::new(1.0).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(DAdaptSgd::new(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(DAdaptSgd::new(1.0).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("d0", |x| Box::new(DAdaptSgd::new(1.0).d0(x)), ABOVE_0.0, ABOVE_0.1),
        ("growth_rate", |x| Box::new(DAdaptSgd::new(1.0).growth_rate(x)), &[1.0, 1.02, 1e6], &[0.0, 0.999, -1.0]),
        ("weight_decay", |x| Box::new(DAdaptSgd::new(1.0).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Yogi::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Yogi::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Yogi::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Yogi::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        (
            "initial_accumulator_value",
            |x| Box::new(Yogi::new(0.1).initial_accumulator_value(x)),
            POSITIVE.0,
            POSITIVE.1,
        ),
        ("weight_decay", |x| Box::new(Yogi::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(LaProp::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(LaProp::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(LaProp::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(LaProp::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(LaProp::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Sophia::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Sophia::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Sophia::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("gamma", |x| Box::new(Sophia::new(0.1).gamma(x)), POSITIVE.0, POSITIVE.1),
        ("threshold", |x| Box::new(Sophia::new(0.1).threshold(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(Sophia::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Sophia::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(AdaHessian::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(AdaHessian::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(AdaHessian::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(AdaHessian::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdaHessian::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(AdEMAMix::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(AdEMAMix::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(AdEMAMix::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("beta3", |x| Box::new(AdEMAMix::new(0.1).beta3(x)), BELOW_1.0, BELOW_1.1),
        ("alpha", |x| Box::new(AdEMAMix::new(0.1).alpha(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(AdEMAMix::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdEMAMix::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(SimplifiedAdEMAMix::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(SimplifiedAdEMAMix::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(SimplifiedAdEMAMix::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("alpha", |x| Box::new(SimplifiedAdEMAMix::new(0.1).alpha(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(SimplifiedAdEMAMix::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(SimplifiedAdEMAMix::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Adopt::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Adopt::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Adopt::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Adopt::new(0.1).eps(x)), ABOVE_0.0, ABOVE_0.1),
        ("clip_exponent", |x| Box::new(Adopt::new(0.1).clip_exponent(x)), ABOVE_0.0, ABOVE_0.1),
        ("weight_decay", |x| Box::new(Adopt::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Adan::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Adan::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Adan::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("beta3", |x| Box::new(Adan::new(0.1).beta3(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Adan::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Adan::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Madgrad::new(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Madgrad::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Madgrad::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Madgrad::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Scion::new(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Scion::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("radius", |x| Box::new(Scion::new(0.1).radius(x)), ABOVE_0.0, ABOVE_0.1),
        ("eps", |x| Box::new(Scion::new(0.1).eps(x)), ABOVE_0.0, ABOVE_0.1),
        ("max_norm", |x| Box::new(Sgd::new(0.1).clip_global_norm(x)), POSITIVE.0, POSITIVE.1),
        ("max_norm", |x| Box::new(Sgd::new(0.1).clip_per_tensor_norm(x)), POSITIVE.0, POSITIVE.1),
        ("limit", |x| Box::new(Sgd::new(0.1).clip_value(x)), POSITIVE.0, POSITIVE.1),
        ("clipping", |x| Box::new(Sgd::new(0.1).clip_adaptive(x)), POSITIVE.0, POSITIVE.1),
        ("threshold", |x| Box::new(Sgd::new(0.1).qk_clip(x)), ABOVE_0.0, ABOVE_0.1),
        ("eps", |x| Box::new(Sgd::new(0.1).clip_adaptive(1.0).eps(x)), POSITIVE.0, POSITIVE.1),
        ("threshold", |x| Box::new(Sgd::new(0.1).skip_spikes(x)), ABOVE_0.0, ABOVE_0.1),
        ("decay", |x| Box::new(Sgd::new(0.1).skip_spikes(9.0).decay(x)), BELOW_1.0, BELOW_1.1),
        ("every", |x| Box::new(Sgd::new(0.1).accumulate_by(x)), &[1.0, 1.5, 1e300], &[0.99, 0.0, -1.0, f64::NAN]),
        (
            "learning_rate",
            |x| Box::new(Sgd::new(0.1).group("**", Group::new().learning_rate(x))),
            POSITIVE.0,
            POSITIVE.1,
        ),
        (
            "scale_learning_rate",
            |x| Box::new(Sgd::new(0.1).group("**", Group::new().scale_learning_rate(x))),
            POSITIVE.0,
            POSITIVE.1,
        ),
        ("weight_decay", |x| Box::new(Sgd::new(0.1).group("**", Group::new().weight_decay(x))), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Adam::new(0.1).group("**", Group::new().set("beta1", x))), BELOW_1.0, BELOW_1.1),
        (
            "scale_weight_decay",
            |x| Box::new(Sgd::new(0.1).group("**", Group::new().scale_weight_decay(x))),
            POSITIVE.0,
            POSITIVE.1,
        ),
        #[cfg(feature = "second-order")]
        ("beta1", |x| Box::new(Soap::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("beta2", |x| Box::new(Soap::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("shampoo_beta", |x| Box::new(Soap::new(0.1).shampoo_beta(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("eps", |x| Box::new(Soap::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        #[cfg(feature = "second-order")]
        ("momentum_decay", |x| Box::new(Soap::new(0.1).momentum_decay(x)), POSITIVE.0, POSITIVE.1),
        #[cfg(feature = "second-order")]
        ("beta1", |x| Box::new(KlSoap::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("beta2", |x| Box::new(KlSoap::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("shampoo_beta", |x| Box::new(KlSoap::new(0.1).shampoo_beta(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("eps", |x| Box::new(KlSoap::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        #[cfg(feature = "second-order")]
        ("momentum_decay", |x| Box::new(KlSoap::new(0.1).momentum_decay(x)), POSITIVE.0, POSITIVE.1),
        #[cfg(feature = "second-order")]
        ("momentum", |x| Box::new(Kron::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("update_probability", |x| Box::new(Kron::new(0.1).update_probability(x)), TO_1.0, TO_1.1),
        #[cfg(feature = "second-order")]
        ("precond_lr", |x| Box::new(Kron::new(0.1).precond_lr(x)), BELOW_1.0, BELOW_1.1),
        #[cfg(feature = "second-order")]
        ("precond_init_scale", |x| Box::new(Kron::new(0.1).precond_init_scale(x)), ABOVE_0.0, ABOVE_0.1),
        #[cfg(feature = "second-order")]
        ("clip_rms", |x| Box::new(Kron::new(0.1).clip_rms(x)), ABOVE_0.0, ABOVE_0.1),
        #[cfg(feature = "second-order")]
        ("weight_decay", |x| Box::new(Kron::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
    ]
};

#[test]
fn values_in_range_are_taken_and_others_refused() {
    for (name, build, good, bad) in TABLE {
        for value in *good {
            let report = build(Hyper::from(*value)).step(&mut array![[1.0]], &array![[1.0]]);
            assert!(report.is_ok(), "{name} {value}: {report:?}");
        }
        // A clip without a limit is one that only measures.
        let infinity = if matches!(*name, "max_norm" | "limit" | "clipping") { f64::NAN } else { f64::INFINITY };
        for value in bad.iter().chain(&[f64::NAN, infinity, f64::NEG_INFINITY]) {
            refused(name, build(Hyper::from(*value)), *value, 0);
        }
    }
}

/// A schedule may leave the range in the middle of the training.
#[test]
fn a_schedule_is_checked_at_every_step() {
    for (name, build, good, bad) in TABLE {
        let (good, bad) = (good[0], bad[0]);
        let mut opt = build(Hyper::from(move |step: u64| if step < 3 { good } else { bad }));
        for _ in 0..3 {
            opt.step(&mut array![[1.0]], &array![[1.0]]).unwrap();
        }
        refused(name, opt, bad, 3);
    }
}

fn refused(name: &str, mut opt: Box<dyn Optimizer<f64>>, bad: f64, at: u64) {
    let mut w = array![[1.0]];
    match opt.step(&mut w, &array![[1.0]]) {
        Err(Error::Step(StepError::HyperParameter { name: found, value, step, .. })) => {
            assert_eq!((found, value.to_bits(), step), (name, bad.to_bits(), at));
        }
        other => panic!("{name} {bad}: {other:?}"),
    }
    assert_eq!((w[[0, 0]], opt.steps()), (1.0, at), "{name}");
}

type Narrow = fn(Hyper) -> Box<dyn Optimizer<f32>>;

/// What f32 has no number for: values that round to 0, to infinity or out of the range.
fn narrow() -> Vec<(&'static str, Narrow, &'static [f64])> {
    const SHARE: &[f64] = &[1e-46, 1.0 - 1e-9];
    const EPS: &[f64] = &[1e-46, 1e39];
    const RATE: &[f64] = &[1e39, 1e308, 3e38, 1e23]; // the last ones leave no room for a bias correction
    const DECAY: &[f64] = &[1e39, 1e308];
    const LOSS: &[f64] = &[1e39, 1e-39, 1e-46];
    #[cfg_attr(not(feature = "second-order"), expect(unused_mut, reason = "its optimizers are added"))]
    let mut table: Vec<(_, Narrow, _)> = vec![
        ("learning_rate", |x| Box::new(Sgd::new(x)), RATE),
        ("weight_decay", |x| Box::new(Sgd::new(0.1).weight_decay(x)), DECAY),
        ("momentum", |x| Box::new(Momentum::new(0.1, x)), SHARE),
        ("dampening", |x| Box::new(Momentum::new(0.1, 0.9).dampening(x)), &[1e-46]),
        ("momentum", |x| Box::new(Nesterov::new(0.1, x)), SHARE),
        ("alpha", |x| Box::new(RmsProp::new(0.1).alpha(x)), SHARE),
        ("eps", |x| Box::new(RmsProp::new(0.1).eps(x)), EPS),
        ("momentum", |x| Box::new(RmsProp::new(0.1).momentum(x)), SHARE),
        ("learning_rate", |x| Box::new(Adam::new(x)), RATE),
        ("beta1", |x| Box::new(Adam::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Adam::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(Adam::new(0.1).eps(x)), EPS),
        ("eps", |x| Box::new(Adam::new(0.1).eps(x).amsgrad(true)), EPS),
        ("eps", |x| Box::new(AdamW::new(0.1).eps(x).eps_hat(true)), EPS),
        ("weight_decay", |x| Box::new(AdamW::new(1e20).weight_decay(x)), &[1e20, 1e39]),
        ("learning_rate", |x| Box::new(AdaBelief::new(x)), RATE),
        ("beta1", |x| Box::new(AdaBelief::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(AdaBelief::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(AdaBelief::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(AdaBelief::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Lamb::new(x)), RATE),
        ("beta2", |x| Box::new(StableAdamW::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(StableAdamW::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Lamb::new(0.1).weight_decay(x)), DECAY),
        ("momentum", |x| Box::new(Lars::new(0.1, x)), SHARE),
        ("trust_coefficient", |x| Box::new(Lars::new(0.1, 0.9).trust_coefficient(x)), &[1e39, 1e-46]),
        ("eps", |x| Box::new(Lars::new(0.1, 0.9).eps(x)), EPS),
        ("learning_rate", |x| Box::new(Mars::new(x)), RATE),
        ("beta1", |x| Box::new(Mars::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Mars::new(0.1).beta2(x)), SHARE),
        ("gamma", |x| Box::new(Mars::new(0.1).gamma(x)), EPS),
        ("eps", |x| Box::new(Mars::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Mars::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(MarsLion::new(x)), RATE),
        ("beta1", |x| Box::new(MarsLion::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(MarsLion::new(0.1).beta2(x)), SHARE),
        ("gamma", |x| Box::new(MarsLion::new(0.1).gamma(x)), EPS),
        ("eps", |x| Box::new(MarsLion::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(MarsLion::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(NovoGrad::new(x)), RATE),
        ("beta1", |x| Box::new(NovoGrad::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(NovoGrad::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(NovoGrad::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(NovoGrad::new(0.1).weight_decay(x)), DECAY),
        ("beta1", |x| Box::new(NAdam::new(0.1).beta1(x)), SHARE),
        ("momentum_decay", |x| Box::new(NAdamW::new(0.1).momentum_decay(x)), EPS),
        ("beta2", |x| Box::new(RAdam::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(RAdamW::new(0.1).eps(x)), EPS),
        ("beta1", |x| Box::new(AdamWScheduleFree::new(0.1).beta1(x)), SHARE),
        ("eps", |x| Box::new(RAdamScheduleFree::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(AdamWScheduleFree::new(0.1).weight_decay(x)), DECAY),
        ("eps", |x| Box::new(Adamax::new(0.1).eps(x)), EPS),
        ("learning_rate_decay", |x| Box::new(Adagrad::new(0.1).learning_rate_decay(x)), EPS),
        ("initial_accumulator_value", |x| Box::new(Adagrad::new(0.1).initial_accumulator_value(x)), EPS),
        ("rho", |x| Box::new(Adadelta::new(0.1).rho(x)), &[1e-46]),
        ("eta_minus", |x| Box::new(Rprop::new(0.1).eta_minus(x)), SHARE),
        ("eta_plus", |x| Box::new(Rprop::new(0.1).eta_plus(x)), &[1.0 + 1e-9, 1e39]),
        ("max_step_size", |x| Box::new(Rprop::new(0.1).max_step_size(x)), EPS),
        ("lambda", |x| Box::new(Asgd::new(0.1).lambda(x)), EPS),
        ("learning_rate", |x| Box::new(Adafactor::new(x)), RATE),
        ("beta2_decay", |x| Box::new(Adafactor::new(0.1).beta2_decay(x)), &[-1e-46, -1e39]),
        ("eps", |x| Box::new(Adafactor::new(0.1).eps(x)), EPS),
        ("min_scale", |x| Box::new(Adafactor::new(0.1).min_scale(x)), EPS),
        ("clip_threshold", |x| Box::new(Adafactor::new(0.1).clip_threshold(x)), EPS),
        ("beta1", |x| Box::new(Adafactor::new(0.1).beta1(x)), SHARE),
        ("weight_decay", |x| Box::new(Adafactor::new(0.1).weight_decay(x)), DECAY),
        ("beta2_cap", |x| Box::new(Adafactor::new(0.1).beta2_cap(x)), SHARE),
        ("learning_rate", |x| Box::new(AdamMini::new(x)), RATE),
        ("beta1", |x| Box::new(AdamMini::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(AdamMini::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(AdamMini::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(AdamMini::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Sm3::new(x)), RATE),
        ("eps", |x| Box::new(Sm3::new(0.1).eps(x)), EPS),
        ("momentum", |x| Box::new(Sm3::new(0.1).momentum(x)), SHARE),
        ("beta2", |x| Box::new(Sm3::new(0.1).beta2(x)), SHARE),
        ("weight_decay", |x| Box::new(Sm3::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Came::new(x)), RATE),
        ("beta1", |x| Box::new(Came::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Came::new(0.1).beta2(x)), SHARE),
        ("beta3", |x| Box::new(Came::new(0.1).beta3(x)), SHARE),
        ("eps1", |x| Box::new(Came::new(0.1).eps1(x)), EPS),
        ("eps2", |x| Box::new(Came::new(0.1).eps2(x)), EPS),
        ("clip_threshold", |x| Box::new(Came::new(0.1).clip_threshold(x)), EPS),
        ("weight_decay", |x| Box::new(Came::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Apollo::new(x)), RATE),
        ("beta1", |x| Box::new(Apollo::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Apollo::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(Apollo::new(0.1).eps(x)), EPS),
        ("scale", |x| Box::new(Apollo::new(0.1).scale(x)), EPS),
        ("weight_decay", |x| Box::new(Apollo::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(ApolloMini::new(x)), RATE),
        ("beta1", |x| Box::new(ApolloMini::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(ApolloMini::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(ApolloMini::new(0.1).eps(x)), EPS),
        ("scale", |x| Box::new(ApolloMini::new(0.1).scale(x)), EPS),
        ("weight_decay", |x| Box::new(ApolloMini::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Signum::new(x)), RATE),
        ("momentum", |x| Box::new(Signum::new(0.1).momentum(x)), SHARE),
        ("weight_decay", |x| Box::new(Signum::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(SignSgd::new(x)), RATE),
        ("weight_decay", |x| Box::new(SignSgd::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Prodigy::new(x)), RATE),
        ("beta1", |x| Box::new(Prodigy::new(1.0).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Prodigy::new(1.0).beta2(x)), SHARE),
        ("beta3", |x| Box::new(Prodigy::new(1.0).beta3(x)), SHARE),
        ("eps", |x| Box::new(Prodigy::new(1.0).eps(x)), EPS),
        ("d0", |x| Box::new(Prodigy::new(1.0).d0(x)), &[1e39, 1e-46]),
        ("d_coef", |x| Box::new(Prodigy::new(1.0).d_coef(x)), &[1e39, 1e-46]),
        ("weight_decay", |x| Box::new(Prodigy::new(1.0).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(DoG::new(x)), RATE),
        ("relative_distance", |x| Box::new(DoG::new(1.0).relative_distance(x)), &[1e39, 1e-46]),
        ("eps", |x| Box::new(DoG::new(1.0).eps(x)), EPS),
        ("weight_decay", |x| Box::new(DoG::new(1.0).weight_decay(x)), DECAY),
        ("initial_distance_sq", |x| Box::new(DoWG::new(1.0).initial_distance_sq(x)), &[1e39, 1e-46]),
        ("eps", |x| Box::new(DoWG::new(1.0).eps(x)), EPS),
        ("weight_decay", |x| Box::new(DoWG::new(1.0).weight_decay(x)), DECAY),
        ("beta2", |x| Box::new(DAdaptAdam::new(1.0).beta2(x)), SHARE),
        ("d0", |x| Box::new(DAdaptAdam::new(1.0).d0(x)), &[1e39, 1e-46]),
        ("weight_decay", |x| Box::new(DAdaptAdam::new(1.0).weight_decay(x)), DECAY),
        ("momentum", |x| Box::new(DAdaptSgd::new(1.0).momentum(x)), SHARE),
        ("d0", |x| Box::new(DAdaptSgd::new(1.0).d0(x)), &[1e39, 1e-46]),
        ("weight_decay", |x| Box::new(DAdaptSgd::new(1.0).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Yogi::new(x)), RATE),
        ("beta1", |x| Box::new(Yogi::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Yogi::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(Yogi::new(0.1).eps(x)), EPS),
        ("initial_accumulator_value", |x| Box::new(Yogi::new(0.1).initial_accumulator_value(x)), EPS),
        ("weight_decay", |x| Box::new(Yogi::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(LaProp::new(x)), RATE),
        ("beta1", |x| Box::new(LaProp::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(LaProp::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(LaProp::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(LaProp::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Sophia::new(x)), RATE),
        ("beta1", |x| Box::new(Sophia::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Sophia::new(0.1).beta2(x)), SHARE),
        ("gamma", |x| Box::new(Sophia::new(0.1).gamma(x)), EPS),
        ("threshold", |x| Box::new(Sophia::new(0.1).threshold(x)), EPS),
        ("eps", |x| Box::new(Sophia::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Sophia::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(AdaHessian::new(x)), RATE),
        ("beta1", |x| Box::new(AdaHessian::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(AdaHessian::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(AdaHessian::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(AdaHessian::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(AdEMAMix::new(x)), RATE),
        ("beta1", |x| Box::new(AdEMAMix::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(AdEMAMix::new(0.1).beta2(x)), SHARE),
        ("beta3", |x| Box::new(AdEMAMix::new(0.1).beta3(x)), SHARE),
        ("alpha", |x| Box::new(AdEMAMix::new(0.1).alpha(x)), EPS),
        ("eps", |x| Box::new(AdEMAMix::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(AdEMAMix::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(SimplifiedAdEMAMix::new(x)), RATE),
        ("beta1", |x| Box::new(SimplifiedAdEMAMix::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(SimplifiedAdEMAMix::new(0.1).beta2(x)), SHARE),
        ("alpha", |x| Box::new(SimplifiedAdEMAMix::new(0.1).alpha(x)), EPS),
        ("eps", |x| Box::new(SimplifiedAdEMAMix::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(SimplifiedAdEMAMix::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Adopt::new(x)), RATE),
        ("beta1", |x| Box::new(Adopt::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Adopt::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(Adopt::new(0.1).eps(x)), EPS),
        ("clip_exponent", |x| Box::new(Adopt::new(0.1).clip_exponent(x)), EPS),
        ("weight_decay", |x| Box::new(Adopt::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Adan::new(x)), RATE),
        ("beta1", |x| Box::new(Adan::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Adan::new(0.1).beta2(x)), SHARE),
        ("beta3", |x| Box::new(Adan::new(0.1).beta3(x)), SHARE),
        ("eps", |x| Box::new(Adan::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Adan::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Madgrad::new(x)), RATE),
        ("momentum", |x| Box::new(Madgrad::new(0.1).momentum(x)), SHARE),
        ("eps", |x| Box::new(Madgrad::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Madgrad::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Muon::new(x)), RATE),
        ("momentum", |x| Box::new(Muon::new(0.1).momentum(x)), SHARE),
        ("eps", |x| Box::new(Muon::new(0.1).eps(x)), EPS),
        ("learning_rate", |x| Box::new(NorMuon::new(x)), RATE),
        ("momentum", |x| Box::new(NorMuon::new(0.1).momentum(x)), SHARE),
        ("beta2", |x| Box::new(NorMuon::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(AdaMuon::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(AdaMuon::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Dion::new(x)), RATE),
        ("momentum", |x| Box::new(Dion::new(0.1).momentum(x)), SHARE),
        ("eps", |x| Box::new(Dion::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Dion::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Scion::new(x)), RATE),
        ("momentum", |x| Box::new(Scion::new(0.1).momentum(x)), SHARE),
        ("radius", |x| Box::new(Scion::new(0.1).radius(x)), EPS),
        ("eps", |x| Box::new(Scion::new(0.1).eps(x)), EPS),
        ("weight_decay", |x| Box::new(Scion::new(0.1).weight_decay(x)), DECAY),
        ("learning_rate", |x| Box::new(Lbfgs::new(x)), &[1e39, 1e308]),
        ("learning_rate", |x| Box::new(Lbfgs::new(0.1).group("**", Group::new().learning_rate(x))), &[1e39]),
        ("learning_rate", |x| Box::new(Sgd::new(0.1).group("**", Group::new().learning_rate(x))), RATE),
        ("learning_rate", |x| Box::new(Sgd::new(1e20).group("**", Group::new().scale_learning_rate(x))), &[1e20]),
        ("weight_decay", |x| Box::new(Sgd::new(0.1).group("**", Group::new().weight_decay(x))), DECAY),
        ("loss_scale", |x| Box::new(Sgd::new(0.1).unscale(x)), LOSS),
        ("slow_step", |x| Box::new(Sgd::new(0.1).lookahead(1, x)), &[1e-46]),
        ("loss_scale", |x| Box::new(Adam::new(0.1).accumulate(1).unscale(x)), LOSS),
    ];
    #[cfg(feature = "second-order")]
    table.extend([
        ("learning_rate", (|x| Box::new(Shampoo::new(x))) as Narrow, RATE),
        ("eps", |x| Box::new(Shampoo::new(0.1).eps(x)), EPS),
        ("beta2", |x| Box::new(Shampoo::new(0.1).beta2(x)), SHARE),
        ("momentum", |x| Box::new(Shampoo::new(0.1).momentum(x)), SHARE),
        ("beta1", |x| Box::new(Soap::new(0.1).beta1(x)), SHARE),
        ("beta2", |x| Box::new(Soap::new(0.1).beta2(x)), SHARE),
        ("eps", |x| Box::new(Soap::new(0.1).eps(x)), EPS),
        ("shampoo_beta", |x| Box::new(Soap::new(0.1).shampoo_beta(x)), SHARE),
        ("momentum", |x| Box::new(Kron::new(0.1).momentum(x)), SHARE),
        ("precond_lr", |x| Box::new(Kron::new(0.1).precond_lr(x)), SHARE),
        ("precond_init_scale", |x| Box::new(Kron::new(0.1).precond_init_scale(x)), EPS),
        ("clip_rms", |x| Box::new(Kron::new(0.1).clip_rms(x)), EPS),
        ("weight_decay", |x| Box::new(Kron::new(0.1).weight_decay(x)), DECAY),
        ("beta1", |x| Box::new(KlSoap::new(0.1).beta1(x)), SHARE),
        ("eps", |x| Box::new(KlSoap::new(0.1).eps(x)), EPS),
    ]);
    table
}

#[test]
fn what_the_element_type_has_no_number_for_is_refused() {
    for (name, build, bad) in narrow() {
        for value in bad {
            for grad in [0.0, 1.0] {
                let (mut opt, mut w) = (build(Hyper::from(*value)), Array2::from_elem((2, 2), 1.0_f32));
                let result = opt.step(&mut w, &Array2::from_elem((2, 2), grad));
                let named = matches!(&result, Err(Error::Step(StepError::HyperParameter { name: found, .. })) if *found == name);
                assert!(named && w == Array2::from_elem((2, 2), 1.0), "{name} {value}: {result:?} {w}");
                let text = result.unwrap_err().to_string();
                assert!(text.contains("f32") && opt.steps() == 0, "{text}");
            }
        }
    }
    // f64 has them.
    Adam::new(0.1).eps(1e-46).step(&mut array![1.0_f64], &array![0.0]).unwrap();
    Adam::new(1e39).step(&mut array![1.0_f64], &array![0.0]).unwrap();
}

/// Schedules lead a learning rate and a weight decay down to where f32 has no numbers: that is 0, and no error.
#[test]
fn what_a_schedule_lets_fade_is_nothing_in_the_end() {
    let fading = |step: u64| 0.5_f64.powi(step as i32 * 50);
    let (mut opt, mut w) = (AdamW::new(fading).weight_decay(fading), array![1.0_f32]);
    for _ in 0..10 {
        assert!(opt.step(&mut w, &array![1.0]).unwrap().moved && w[0].is_finite());
    }
    let before = w.clone();
    opt.step(&mut w, &array![1.0]).unwrap();
    assert_eq!(w, before);
    let fine = |x: f64| Sgd::new(x).step(&mut array![1.0_f32], &array![1.0]).is_ok();
    assert!(fine(1e-46) && fine(1e-40) && fine(1e20));
}

/// What adaptors multiply and limit a gradient with, all of them together.
#[test]
fn gradients_are_scaled_by_numbers_of_the_element_type() {
    let refused = |opt: Box<dyn Optimizer<f32>>, quantity: &str| {
        let (mut opt, mut w) = (opt, (array![1.0_f32], array![1.0_f32]));
        let error = opt.step(&mut w, &(array![1.0], array![3e38])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(quantity) && text.contains("f32"), "{text}");
        assert_eq!((w, opt.steps()), ((array![1.0], array![1.0]), 0));
    };
    refused(Box::new(Adam::new(0.1).clip_global_norm(1e-46).accumulate(1)), "max_norm");
    refused(Box::new(Momentum::new(0.1, 0.9).clip_value(1e-46)), "limit");
    refused(Box::new(Sgd::new(0.1).unscale(1e-30).unscale(1e-30)), "scale");
    refused(Box::new(Lbfgs::new(0.1).unscale(1e-30).unscale(1e-30)), "scale");
    // A factor below the numbers of f32 is none of its own, but the product is.
    let mut w = array![0.0_f32];
    Sgd::new(1.0).clip_global_norm(1e-10).exact(true).step(&mut w, &array![3e38]).unwrap();
    assert_eq!(w, array![-1e-10]);
    Sgd::new(1.0).unscale(1e30).unscale(1e30).step(&mut w, &array![-1e38]).unwrap();
    assert_eq!(w, array![-1e-10]);
    // Undone by what comes after it, it is a number again; and nothing is larger than a limit that f32 does not have.
    let grads = (array![1e-20_f32], array![0.0]);
    let mut w = (array![1.0_f32], array![1.0]);
    Sgd::new(1.0).unscale(1e-30).unscale(1e30).clip_value(1e39).step(&mut w, &grads).unwrap();
    Sgd::new(1.0).clip_global_norm(0.0).step(&mut w, &grads).unwrap();
    assert_eq!(w, (array![1.0], array![1.0]));
}

/// The last number of a counter is no step's: an error, and nothing has moved.
#[test]
fn a_counter_at_its_end_is_an_error() {
    fn ended<A: Scalar>(name: &str, mut opt: Box<dyn Optimizer<A>>) {
        let (mut w, grads) = (Array2::<A>::ones((2, 2)), Array2::<A>::ones((2, 2)));
        opt.step(&mut w, &grads).unwrap();
        let mut state = opt.state_dict();
        state.insert_text(format!("{name}/steps"), u64::MAX - 1);
        opt.load_state_dict(&state).unwrap();
        opt.step(&mut w, &grads).unwrap();
        let (before, state) = (w.clone(), opt.state_dict());
        let error = opt.step(&mut w, &grads).unwrap_err().to_string();
        assert!(error.contains("steps") && error.contains("18446744073709551615"), "{name}: {error}");
        assert!(w == before && opt.state_dict() == state, "{name}");
    }
    ended::<f32>("sgd", Box::new(Sgd::new(0.1)));
    ended::<f64>("adam", Box::new(Adam::new(0.1)));
    ended::<f64>("adamw", Box::new(AdamW::new(0.1).clip_global_norm(1.0)));
    ended::<f32>("rmsprop", Box::new(RmsProp::new(0.1)));
    ended::<f32>("muon", Box::new(Muon::new(0.1)));
    ended::<f32>("lbfgs", Box::new(Lbfgs::new(0.1)));
    #[cfg(feature = "second-order")]
    ended::<f32>("shampoo", Box::new(Shampoo::new(0.1)));
    #[cfg(feature = "second-order")]
    ended::<f64>("soap", Box::new(Soap::new(0.1)));
    #[cfg(feature = "second-order")]
    ended::<f32>("kron", Box::new(Kron::new(0.1)));
    // In the middle of a call, too.
    let (mut opt, mut w) = (Lbfgs::new(0.1), array![1.0, 2.0]);
    let mut state = opt.state_dict();
    state.insert_text("lbfgs/steps", u64::MAX - 2);
    opt.load_state_dict(&state).unwrap();
    let error = opt.step_with(&mut w, |w: &Array1<f64>| (w.dot(w), w * 2.0)).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::CounterFull { .. })), "{error}");
    assert_eq!((w, opt.steps()), (array![1.0, 2.0], u64::MAX - 2));
}
