//! The optimizers of the golden files.

use gradus::prelude::*;

use super::case::{Case, Setting};

/// A golden file's optimizer with the case's settings; panics at one that it does not have.
pub(crate) fn optimizer<A: Scalar>(name: &str, case: &Case) -> Box<dyn Optimizer<A>> {
    let rate = case.learning_rate();
    let mut options = case.options.clone();
    let mut number = |name: &str| match options.remove(name) {
        Some(Setting::Number(number)) => Some(number),
        None => None,
        switch => panic!("{name} is {switch:?}"),
    };
    // An optimizer; its numbers; its switches.
    macro_rules! with {
        ($optimizer:expr; $($number:ident)*; $($switch:ident)*) => {{
            let optimizer = $optimizer;
            Box::new(options.iter().fold(optimizer, |opt, (option, setting)| match (option.as_str(), *setting) {
                $((stringify!($number), Setting::Number(x)) => opt.$number(x),)*
                $((stringify!($switch), Setting::Switch(on)) => opt.$switch(on),)*
                unknown => panic!("{name} has no {unknown:?}"),
            }))
        }};
    }
    match name {
        "sgd" => with!(Sgd::new(rate); weight_decay;),
        "momentum" => with!(Momentum::new(rate, number("momentum").unwrap()); dampening weight_decay; classical),
        "nesterov" => with!(Nesterov::new(rate, number("momentum").unwrap()); weight_decay; classical),
        "rmsprop" => with!(RmsProp::new(rate); alpha eps momentum weight_decay; centered eps_inside_sqrt classical),
        "lion" => with!(Lion::new(rate); beta1 beta2 weight_decay;),
        "adabelief" => with!(AdaBelief::new(rate); beta1 beta2 eps weight_decay;),
        "adam" => with!(Adam::new(rate); beta1 beta2 eps weight_decay; amsgrad eps_hat bias_correction),
        "adamw" => with!(AdamW::new(rate); beta1 beta2 eps weight_decay; amsgrad eps_hat bias_correction),
        "nadam" => with!(NAdam::new(rate); beta1 beta2 eps momentum_decay weight_decay; momentum_schedule),
        "nadamw" => with!(NAdamW::new(rate); beta1 beta2 eps momentum_decay weight_decay; momentum_schedule),
        "radam" => with!(RAdam::new(rate); beta1 beta2 eps weight_decay; eps_hat),
        "radamw" => with!(RAdamW::new(rate); beta1 beta2 eps weight_decay; eps_hat),
        "adamax" => with!(Adamax::new(rate); beta1 beta2 eps weight_decay; eps_outside_max),
        "adagrad" => with!(Adagrad::new(rate);
            learning_rate_decay initial_accumulator_value eps weight_decay; eps_inside_sqrt),
        "adadelta" => with!(Adadelta::new(rate); rho eps weight_decay;),
        "rprop" => with!(Rprop::new(rate); eta_minus eta_plus min_step_size max_step_size;),
        "sgdschedulefree" => with!(SgdScheduleFree::new(rate); momentum time_power lr_power weight_decay;),
        "adamwschedulefree" => with!(AdamWScheduleFree::new(rate); beta1 beta2 eps time_power lr_power weight_decay;),
        "radamschedulefree" => with!(RAdamScheduleFree::new(rate);
            beta1 beta2 eps time_power lr_power weight_decay; silent),
        "asgd" => with!(Asgd::new(rate); lambda alpha weight_decay;),
        "signum" => with!(Signum::new(rate); momentum weight_decay;),
        "signsgd" => with!(SignSgd::new(rate); weight_decay;),
        "yogi" => with!(Yogi::new(rate); beta1 beta2 eps initial_accumulator_value weight_decay;),
        "laprop" => with!(LaProp::new(rate); beta1 beta2 eps weight_decay;),
        "ademamix" => with!(AdEMAMix::new(rate); beta1 beta2 beta3 alpha eps weight_decay;),
        "simplifiedademamix" => with!(SimplifiedAdEMAMix::new(rate); beta1 beta2 alpha eps weight_decay;),
        "adopt" => with!(Adopt::new(rate); beta1 beta2 eps clip_exponent weight_decay;),
        "adan" => with!(Adan::new(rate); beta1 beta2 beta3 eps weight_decay; proximal),
        "madgrad" => with!(Madgrad::new(rate); momentum eps weight_decay;),
        "adafactor" => with!(Adafactor::new(rate).min_side(number("min_side").unwrap_or(0.0) as usize);
            beta2_decay eps min_scale clip_threshold beta1 weight_decay; eps_inside_mean scale_parameter relative_step),
        _ => panic!("no optimizer {name}"),
    }
}
