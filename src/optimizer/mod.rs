//! The optimizers, one algorithm a file, and the methods that chain adaptors to them.
//!
//! Every named optimizer is [`Elementwise`](crate::rule::Elementwise), [`Matrixwise`](crate::rule::Matrixwise) or
//! [`Factored`](crate::rule::Factored) over a rule of its own, except [`Lbfgs`]: the rule holds the hyper-parameters and the arithmetic, the
//! driver the state and the way over memory.

mod adabelief;
mod adadelta;
mod adafactor;
mod adagrad;
mod adahessian;
mod adam;
mod adam_mini;
mod adamax;
mod adamw;
mod adan;
mod ademamix;
mod adopt;
mod asgd;
mod came;
#[cfg(feature = "config")]
pub mod config;
mod dadapt_adam;
mod dadapt_sgd;
mod dog;
mod dowg;
mod ext;
#[doc(hidden)]
pub mod features_off;
mod guard_ext;
#[cfg(feature = "second-order")]
mod kron;
mod lamb;
mod laprop;
mod lars;
mod lbfgs;
mod lion;
mod low_rank;
mod madgrad;
mod mars;
mod momentum;
mod muon;
mod nadam;
mod nesterov;
mod novograd;
mod prodigy;
mod radam;
mod resize;
mod rmsprop;
mod rprop;
mod schedule_free;
mod sgd;
#[cfg(feature = "second-order")]
mod shampoo;
mod signum;
mod simplified_ademamix;
mod sm3;
#[cfg(feature = "second-order")]
mod soap;
mod sophia;
mod stable_adamw;
mod step_ext;
mod yogi;

pub use ext::OptimizerExt;
pub use guard_ext::GuardExt;
pub use step_ext::StepExt;

/// The one list of all optimizers: the crate and its prelude export what is in it, and the tests name what one of them lacks.
macro_rules! optimizers {
    ($($(#[$when:meta])* $module:ident: $($optimizer:ident $(($second:ident))?),+; $($other:ident),*;)*) => {
        $($(#[$when])* pub use $module::{$($optimizer,)+ $($other),*};)*

        /// All optimizers, without what belongs to them.
        pub mod list {
            $($(#[$when])* pub use super::{$($optimizer),+};)*
        }

        /// Their names, file by file.
        #[doc(hidden)]
        pub const NAMES: &[&[&str]] = &[$($(#[$when])* &[$(stringify!($optimizer)),+],)*];

        /// What makes each of its settings in a configuration.
        #[cfg(feature = "config")]
        pub(crate) fn configured<A: crate::Scalar>() -> Vec<(&'static str, Configure<A>)> {
            let mut all: Vec<(&'static str, Configure<A>)> = Vec::new();
            $($(#[$when])* {
                $(
                    all.push((stringify!($optimizer), |settings| {
                        let learning_rate = settings.hyper("learning_rate")?;
                        let opt = $optimizer::<A>::new(learning_rate $(, settings.hyper(stringify!($second))?)?);
                        Ok(Box::new(opt.configured(settings)?))
                    }));
                )+
            })*
            all
        }

        /// Names every optimizer, so that a library that is not optimized contains its code: without it every test program compiles that again, and a program of
        /// 45 seconds takes 3.
        #[cfg(all(feature = "testing", debug_assertions))]
        #[doc(hidden)]
        pub fn compiled() {
            fn boxed<A: crate::Scalar, O: crate::Optimizer<A> + 'static>(opt: Box<O>) -> Box<dyn crate::Optimizer<A>> {
                opt
            }
            $($(#[$when])* {
                $(
                    std::hint::black_box(boxed::<f32, $optimizer<f32>> as fn(_) -> _);
                    std::hint::black_box(boxed::<f64, $optimizer<f64>> as fn(_) -> _);
                )+
            })*
        }
    };
}

/// Makes an optimizer of its settings.
#[cfg(feature = "config")]
pub(crate) type Configure<A> = fn(&mut config::settings::Settings<'_>) -> crate::Result<Box<dyn crate::Optimizer<A>>>;

// File: optimizers, with the argument of its constructor besides the learning rate; what else it exports.
optimizers! {
    adabelief: AdaBelief; AdaBeliefRule, AdaBeliefValues;
    adadelta: Adadelta; AdadeltaRule, AdadeltaValues;
    adafactor: Adafactor; AdafactorRule, AdafactorValues;
    adagrad: Adagrad; AdagradRule, AdagradValues;
    adahessian: AdaHessian; AdaHessianRule, AdaHessianValues;
    adam: Adam; AdamRule, AdamValues;
    adam_mini: AdamMini; AdamMiniBlocks, AdamMiniPartition, AdamMiniRule, AdamMiniValues;
    adamax: Adamax; AdamaxRule, AdamaxValues;
    adamw: AdamW; ;
    adan: Adan; AdanRule, AdanValues;
    ademamix: AdEMAMix; AdEMAMixRule, AdEMAMixValues;
    adopt: Adopt; AdoptRule, AdoptValues;
    asgd: Asgd; AsgdRule, AsgdValues;
    came: Came; CameRule, CameValues;
    dadapt_adam: DAdaptAdam; DAdaptAdamRule, DAdaptAdamValues;
    dadapt_sgd: DAdaptSgd; DAdaptSgdRule, DAdaptSgdValues;
    dog: DoG; DoGRule, DoGValues;
    dowg: DoWG; DoWGRule, DoWGValues;
    #[cfg(feature = "second-order")]
    kron: Kron; KronMemory, KronProbe, KronRule, KronValues;
    lamb: Lamb; ;
    lars: Lars(momentum); LarsRule, LarsValues;
    laprop: LaProp; LaPropRule, LaPropValues;
    lbfgs: Lbfgs; LbfgsReport, LbfgsStop;
    lion: Lion; LionRule, LionValues;
    low_rank: Apollo, ApolloMini; ApolloRule, ApolloValues;
    #[cfg(feature = "second-order")]
    low_rank: GaLore; GaLoreRule, GaLoreValues;
    madgrad: Madgrad; MadgradRule, MadgradValues;
    mars: Mars, MarsLion; MarsRule, MarsValues;
    momentum: Momentum(momentum); MomentumRule, MomentumValues;
    muon: AdaMuon, Dion, Muon, NorMuon, Scion;
        AdaptiveMuonRule, AdaptiveMuonValues, DionRule, DionValues, MuonBlocks, MuonCoefficients, MuonRule, MuonScale, MuonValues,
        ScionNorm, ScionRule, ScionValues, newton_schulz;
    nadam: NAdam, NAdamW; NAdamRule, NAdamValues;
    nesterov: Nesterov(momentum); NesterovRule, NesterovValues;
    novograd: NovoGrad; NovoGradRule, NovoGradValues;
    prodigy: Prodigy; ProdigyRule, ProdigyValues;
    radam: RAdam, RAdamW; RAdamRule, RAdamValues;
    rmsprop: RmsProp; RmsPropRule, RmsPropValues;
    rprop: Rprop; RpropRule, RpropValues;
    schedule_free: AdamWScheduleFree, RAdamScheduleFree, SgdScheduleFree;
        AdamWScheduleFreeRule, AdamWScheduleFreeValues, RAdamScheduleFreeRule, RAdamScheduleFreeValues,
        SgdScheduleFreeRule, SgdScheduleFreeValues;
    sgd: Sgd; SgdRule, SgdValues;
    sm3: Sm3; Sm3Rule, Sm3Values;
    simplified_ademamix: SimplifiedAdEMAMix; SimplifiedAdEMAMixRule, SimplifiedAdEMAMixValues;
    signum: SignSgd, Signum; SignSgdRule, SignSgdValues, SignumRule, SignumValues;
    #[cfg(feature = "second-order")]
    shampoo: Shampoo; Graft, ShampooRule, ShampooValues;
    #[cfg(feature = "second-order")]
    soap: KlSoap, Soap; SoapRule, SoapValues;
    sophia: Sophia; SophiaRule, SophiaValues;
    stable_adamw: StableAdamW; ;
    yogi: Yogi; YogiRule, YogiValues;
}
