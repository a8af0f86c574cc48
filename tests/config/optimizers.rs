//! Every optimizer: what a file makes is what the code makes.

use gradus::optimizer::{
    AdamMiniBlocks, AdamMiniPartition, Graft, KronMemory, MuonBlocks, MuonCoefficients, MuonScale, ScionNorm,
};
use gradus::prelude::*;
use gradus::rule::{DecayRate, Rounding, StatePrecision};
use gradus::schedule::Linear;

use crate::Boxed;

/// An optimizer with its settings in TOML and in code.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) code: fn() -> Boxed,
}

macro_rules! text {
    ($text:literal) => {
        stringify!($text)
    };
    ($text:literal $code:expr) => {
        $text
    };
}

macro_rules! code {
    ($text:literal) => {
        $text
    };
    ($text:literal $code:expr) => {
        $code
    };
}

/// Each setting has a literal that is both TOML and Rust, or one of each.
macro_rules! rows {
    ($($name:ident $(($second:ident: $number:literal))? { $($key:ident: $text:literal $(=> $code:expr)?),* })*) => {
        vec![$(Row {
            name: stringify!($name),
            text: {
                let text = [
                    format!("[optimizer]\nname = \"{}\"\n", stringify!($name)),
                    "learning_rate = { schedule = \"Linear\", start = 0.01, end = 0.001, steps = 10 }\n".to_owned(),
                    $(format!("{} = {}\n", stringify!($second), stringify!($number)),)?
                    $(format!("{} = {}\n", stringify!($key), text!($text $($code)?)),)*
                ];
                text.concat()
            },
            code: || {
                let opt = gradus::$name::<f64>::new(Linear::new(0.01, 0.001, 10) $(, $number)?);
                opt$(.$key(code!($text $($code)?)))*.boxed()
            },
        }),*]
    };
}

/// Each optimizer with all settings of its own.
pub(crate) fn rows() -> Vec<Row> {
    rows! {
        AdaBelief { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-12, nesterov: true }
        Adadelta { weight_decay: 0.1, rho: 0.8, eps: 1e-5 }
        Adafactor {
            weight_decay: 0.1, beta2_decay: -0.7, min_scale: 1e-2, clip_threshold: 0.9, eps: 1e-20, beta1: 0.5, beta2_cap: 0.99,
            eps_inside_mean: true, scale_parameter: false, relative_step: false, warmup_init: false, clip_updates: false,
            momentum_first: true, scaled_decay: true, decay_offset: 3, longest_axes: true, min_side: 2
        }
        Adagrad { weight_decay: 0.1, learning_rate_decay: 0.1, initial_accumulator_value: 0.2, eps: 1e-8, eps_inside_sqrt: true }
        AdaHessian { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-10 }
        Adam {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, amsgrad: true, eps_hat: true, bias_correction: true, nesterov: true
        }
        AdamMini {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6,
            partition: "[['a', 'Rows'], [['b'], { Parts = 3 }]]" =>
                AdamMiniPartition::default().with("a", AdamMiniBlocks::Rows).with(["b"], AdamMiniBlocks::Parts(3))
        }
        Adamax { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, eps_outside_max: true }
        AdamW {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, amsgrad: false, eps_hat: true, bias_correction: false, nesterov: false
        }
        Adan { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, beta3: 0.9, eps: 1e-6, proximal: false }
        AdEMAMix { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, beta3: 0.99, alpha: 2.0, eps: 1e-6 }
        Adopt { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-5, clip_exponent: 0.3 }
        Asgd { weight_decay: 0.1, lambda: 1e-3, alpha: 0.5 }
        Came { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, beta3: 0.99, eps1: 1e-20, eps2: 1e-10, clip_threshold: 0.8 }
        DAdaptAdam {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, d0: 1e-3, growth_rate: 1.5, bias_correction: false
        }
        DAdaptSgd { weight_decay: 0.1, momentum: 0.5, d0: 1e-3, growth_rate: 1.5 }
        DoG {
            weight_decay: 0.1, relative_distance: 1e-3, eps: 1e-6, initial_distance: 0.1, initial_rate: 0.2, layerwise: true
        }
        DoWG { weight_decay: 0.1, eps: 1e-3, initial_distance_sq: 0.1 }
        Kron {
            weight_decay: 0.1, momentum: 0.8, update_probability: 0.5, precond_lr: 0.2, precond_init_scale: 0.5, clip_rms: 1.5,
            max_size_triangular: 64, min_ndim_triangular: 1, memory_save_mode: "'OneDiag'" => KronMemory::OneDiag,
            momentum_into_precond_update: false, seed: 7
        }
        Lamb {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-5, amsgrad: true, eps_hat: false, bias_correction: false, nesterov: false
        }
        Lars(momentum: 0.5) { weight_decay: 0.1, dampening: 0.0, trust_coefficient: 1e-2, eps: 1e-6, nesterov: true }
        LaProp { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-12 }
        Lbfgs { history: 5, iterations: 3, evaluations: 4, tolerance_grad: 1e-9, tolerance_change: 1e-12, strong_wolfe: true }
        Lion { weight_decay: 0.1, beta1: 0.8, beta2: 0.95 }
        Apollo {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-5, scale: 2.0, rank: 2, update_proj_gap: 3, limit_growth: false, seed: 5
        }
        ApolloMini {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-5, scale: 64.0, rank: 2, update_proj_gap: 3, limit_growth: false, seed: 5
        }
        GaLore { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-5, scale: 0.5, rank: 2, update_proj_gap: 3 }
        Madgrad { weight_decay: 0.1, momentum: 0.8, eps: 1e-5 }
        Mars { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, gamma: 0.05, eps: 1e-6, vectors: true, plain_first_step: true }
        MarsLion { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, gamma: 0.05, eps: 1e-6, vectors: true, plain_first_step: true }
        Momentum(momentum: 0.5) { weight_decay: 0.1, dampening: 0.1, classical: true }
        AdaMuon {
            weight_decay: 0.1, momentum: 0.8, beta2: 0.9, eps: 1e-8, nesterov: false, iterations: 3,
            coefficients: "'Dion'" => MuonCoefficients::Dion, blocks: "{ Rows = 1 }" => MuonBlocks::Rows(1),
            scale: "'RmsToRms'" => MuonScale::RmsToRms
        }
        NorMuon {
            weight_decay: 0.1, momentum: 0.8, beta2: 0.9, eps: 1e-8, nesterov: false, iterations: 3,
            coefficients: "'PolarExpress'" => MuonCoefficients::PolarExpress, blocks: "{ Parts = 1 }" => MuonBlocks::Parts(1),
            scale: "'Unscaled'" => MuonScale::Unscaled
        }
        Dion { weight_decay: 0.1, momentum: 0.8, eps: 1e-6, rank_fraction: 0.5, seed: 3 }
        Muon {
            weight_decay: 0.1, momentum: 0.8, eps: 1e-6, nesterov: false, iterations: 3,
            coefficients: "{ List = [[3.0, -3.2, 1.2]] }" => [[3.0, -3.2, 1.2]], blocks: "'LeadingAxes'" => MuonBlocks::LeadingAxes,
            scale: "'MatchRmsAdamw'" => MuonScale::MatchRmsAdamw
        }
        Scion {
            weight_decay: 0.1, momentum: 0.8, radius: 2.0, eps: 1e-6, norm: "'Sign'" => ScionNorm::Sign, one_hot: true, transposed: true,
            iterations: 3, coefficients: "'Jordan'" => MuonCoefficients::Jordan
        }
        NAdam { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, momentum_decay: 1e-2, momentum_schedule: true }
        NAdamW { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, momentum_decay: 1e-2, momentum_schedule: false }
        Nesterov(momentum: 0.5) { weight_decay: 0.1, classical: true }
        NovoGrad { weight_decay: 0.1, beta1: 0.8, beta2: 0.5, eps: 1e-5, grad_averaging: true, decoupled: true }
        Prodigy {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, d0: 1e-3, d_coef: 0.5, beta3: 0.9, growth_rate: 1.5,
            safeguard_warmup: true, bias_correction: true, coupled_decay: true
        }
        RAdam { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, eps_hat: false }
        RAdamW { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, eps_hat: false }
        RmsProp {
            weight_decay: 0.1, alpha: 0.9, eps: 1e-6, momentum: 0.5, centered: true, eps_inside_sqrt: true, classical: true
        }
        Rprop { weight_decay: 0.1, eta_minus: 0.4, eta_plus: 1.3, min_step_size: 1e-5, max_step_size: 10.0 }
        AdamWScheduleFree { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, time_power: 0.5, lr_power: 1.0 }
        RAdamScheduleFree {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, time_power: 0.5, lr_power: 1.0, silent: false
        }
        SgdScheduleFree { weight_decay: 0.1, momentum: 0.8, time_power: 0.5, lr_power: 1.0 }
        Sgd { weight_decay: 0.1 }
        Sm3 { weight_decay: 0.1, eps: 1e-6, momentum: 0.5, beta2: 0.9 }
        SimplifiedAdEMAMix { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, alpha: 2.0, eps: 1e-6 }
        SignSgd { weight_decay: 0.1 }
        Signum { weight_decay: 0.1, momentum: 0.5 }
        Shampoo {
            weight_decay: 0.1, eps: 1e-5, beta2: 0.9, momentum: 0.5, graft: "'Adam'" => Graft::Adam, every: 3, block_size: 2
        }
        KlSoap {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.9, eps: 1e-6, momentum_decay: 1e-2, shampoo_beta: 0.8, every: 3, max_side: 100,
            nesterov: true, correct_bias: false, normalize_gradient: true, precondition_1d: true
        }
        Soap {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.9, eps: 1e-6, momentum_decay: 1e-2, shampoo_beta: 0.8, every: 3, max_side: 100,
            nesterov: true, correct_bias: false, normalize_gradient: true, precondition_1d: true
        }
        Sophia { weight_decay: 0.1, beta1: 0.8, beta2: 0.9, gamma: 0.05, threshold: 0.5, eps: 1e-10, bias_correction: true }
        StableAdamW {
            weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-5, amsgrad: true, eps_hat: true, bias_correction: true, nesterov: false
        }
        Yogi { weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-4, initial_accumulator_value: 1e-3 }
    }
}

/// The options that all optimizers of a driver share.
pub(crate) fn shared() -> Vec<Row> {
    rows! {
        Adam { decoupled_decay: "'Fixed'" => DecayRate::Fixed, cautious: true, cautious_decay: true, weight_decay: 0.1 }
        AdamW { decoupled_decay: "{ Relative = { max_learning_rate = 0.01 } }" => DecayRate::Relative { max_learning_rate: 0.01 } }
        AdamW { trust_ratio: true, always_adapt: false, update_clipping: true, keep_norm: true }
        AdamW { state_precision: "'Blockwise8'" => StatePrecision::Blockwise8 }
        AdamW { state_precision: "{ Bf16 = 'Nearest' }" => StatePrecision::Bf16(Rounding::Nearest) }
        Muon { cautious: true, cautious_decay: true, weight_decay: 0.1 }
        Adafactor { trust_ratio: true, keep_norm: true }
    }
}

#[test]
fn every_optimizer_of_a_file_is_that_of_the_code() {
    for Row { name, text, code } in rows().into_iter().chain(shared()) {
        crate::same(name, &text, code);
    }
}

#[test]
fn every_optimizer_has_a_row_with_all_its_settings() {
    let schema: serde_json::Value = serde_json::from_str(&crate::schema()).unwrap();
    let rows = rows();
    let shared = [
        "cautious",
        "cautious_decay",
        "trust_ratio",
        "always_adapt",
        "update_clipping",
        "keep_norm",
        "decoupled_decay",
    ];
    let (mut missing, mut seen) = (Vec::new(), 0);
    for name in gradus::optimizer::NAMES.iter().flat_map(|file| file.iter()) {
        let Some(row) = rows.iter().find(|row| row.name == *name) else { panic!("{name} has no row") };
        let optimizers = schema["$defs"]["optimizer"]["oneOf"].as_array().unwrap();
        let own = optimizers.iter().find(|own| own["properties"]["name"]["const"] == **name);
        let keys =
            own.unwrap_or_else(|| panic!("{name} is not in the schema"))["properties"].as_object().unwrap().keys();
        let keys =
            keys.filter(|key| !shared.contains(&key.as_str()) && !["probe", "state_precision"].contains(&key.as_str()));
        seen += keys.clone().count();
        missing.extend(keys.filter(|key| !row.text.contains(&format!("{key} = "))).map(|key| format!("{name}: {key}")));
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(seen > 300, "{seen}");
}
