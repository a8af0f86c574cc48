//! Chains of optimizers and adaptors, as data: drawn at random, shown in words, built as often as needed.

use std::fmt;

use gradus::adaptor::NonFinite;
use gradus::rule::{Rounding, StatePrecision};
use rand::RngExt;

use crate::dials::Number;
use crate::report::Draw;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sgd,
    Momentum,
    Nesterov,
    RmsProp,
    Adam,
    AdamW,
    FedAdam,
    FedYogi,
    FedAdagrad,
    /// A rule of the user's own.
    Signs,
    /// An optimizer of the user's own.
    Own,
    Lbfgs,
    Adafactor,
    Muon,
    Scion,
    Dion,
    Shampoo,
    Soap,
    KlSoap,
    Kron,
    AdamMini,
    Sm3,
    Came,
    GaLore,
    Apollo,
    /// A rule of matrices of the user's own.
    OwnMatrix,
}

impl Algorithm {
    /// Whether it steps matrices only.
    pub(crate) fn wants_matrices(self) -> bool {
        matches!(
            self,
            Self::Muon
                | Self::Dion
                | Self::Shampoo
                | Self::Soap
                | Self::KlSoap
                | Self::Kron
                | Self::GaLore
                | Self::Apollo
                | Self::OwnMatrix
        )
    }
}

/// An optimizer and its settings; what `a`, `b`, `c` and the options mean is its own affair.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) algorithm: Algorithm,
    pub(crate) learning_rate: Number,
    pub(crate) decay: Option<Number>,
    pub(crate) numbers: [Option<Number>; 3],
    pub(crate) options: [bool; 3],
    pub(crate) precision: StatePrecision,
}

#[derive(Debug, Clone)]
pub(crate) enum Link {
    Accumulate(u64, bool),
    Freeze(Vec<String>, Option<(u64, Vec<String>)>),
    Group(Vec<String>, [Option<Number>; 4]),
    Route(Vec<String>, Box<Chain>),
    AccumulateBy(Number),
    Monitor(u64),
    Finite(NonFinite),
    LossScaling(u64),
    ZeroNans,
    Spikes(Number, bool),
    MaxSkipped(u64),
    Noise(Number, u64),
    Maximize,
    Centralize,
    Project(Vec<String>, f64),
    Unscale(Number),
    ClipNorm {
        max: Number,
        per_tensor: bool,
        p: f64,
        exact: bool,
        policy: NonFinite,
    },
    ClipValue(Number, NonFinite),
    ClipAdaptive(Number, NonFinite),
    Ema {
        decay: Number,
        warmup: bool,
        debiased: bool,
    },
    Swa(u64, u64),
    Lookahead(u64, Number),
    Layerwise(Number, Vec<String>),
    Sharded {
        by_tensor: bool,
        policy: NonFinite,
    },
    DataParallel {
        compress: Compress,
        verify: Option<u64>,
        policy: NonFinite,
    },
    LocalSteps(u64, Box<Chain>),
    Kfac {
        damping: Number,
        eigen: bool,
        periods: (u64, u64),
    },
    Proximal(Number),
    Scaffold,
    /// An adaptor of the user's own.
    Own,
    /// One that does not keep its promises: see the test of the tester.
    Broken,
    MasterWeights,
    StochasticRounding,
    Kahan,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Compress {
    Not,
    Bf16,
    TopK(f64),
    PowerSgd(usize),
}

/// An optimizer, and what is around it, from the inside out.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) base: Base,
    pub(crate) links: Vec<Link>,
}

impl Link {
    /// Whether parameters have 16 bits outside and f32 inside.
    pub(crate) fn is_narrow(&self) -> bool {
        matches!(self, Self::MasterWeights | Self::StochasticRounding | Self::Kahan)
    }

    pub(crate) fn is_between_ranks(&self) -> bool {
        matches!(self, Self::Sharded { .. } | Self::DataParallel { .. } | Self::LocalSteps(..))
    }
}

impl Chain {
    pub(crate) fn any(&self, holds: &impl Fn(&Link) -> bool) -> bool {
        self.links.iter().any(|link| {
            holds(link) || matches!(link, Link::Route(_, chain) | Link::LocalSteps(_, chain) if chain.any(holds))
        })
    }

    /// Whether every slot is kept in the parameters' own type, so that memory layouts do not show.
    pub(crate) fn has_full_state(&self) -> bool {
        self.base.precision == StatePrecision::Full
            && self.links.iter().all(|link| match link {
                Link::Route(_, chain) | Link::LocalSteps(_, chain) => chain.has_full_state(),
                _ => true,
            })
    }
}

/// What is drawn depends on the tensors there are, and on what they are made of.
pub(crate) struct Surroundings<'n> {
    pub(crate) names: &'n [(String, Vec<usize>)],
    pub(crate) is_half: bool,
    /// Several ranks take part.
    pub(crate) is_distributed: bool,
}

impl Surroundings<'_> {
    /// A pattern that chooses something, mostly.
    fn pattern(&self, random: &mut impl RngExt) -> Vec<String> {
        if random.chance(0.03) {
            return vec![random.pick(&["nothing.like.it", "[", "{a,b", "**"]).into()];
        }
        match self.names {
            [] => vec!["**".into()],
            names => (0..1 + random.below(2)).map(|_| names[random.below(names.len())].0.clone()).collect(),
        }
    }

    fn no_matrices(&self) -> Vec<String> {
        self.names.iter().filter(|(_, shape)| shape.len() < 2).map(|(path, _)| path.clone()).collect()
    }

    pub(crate) fn chain(&self, depth: usize, random: &mut impl RngExt) -> Chain {
        let base = base(random);
        let mut links = Vec::new();
        let others = self.no_matrices();
        if base.algorithm.wants_matrices() && !others.is_empty() && random.chance(0.95) {
            let mut other = self::base(random);
            while other.algorithm.wants_matrices() {
                other = self::base(random);
            }
            links.push(Link::Route(others, Box::new(Chain { base: other, links: Vec::new() })));
        }
        let count = random.below(depth + 1);
        links.extend((0..count).map(|_| self.link(depth, random)));
        if self.is_half && depth > 2 {
            let at = links.iter().take_while(|link| matches!(link, Link::Route(..))).count();
            let narrow = [Link::MasterWeights, Link::StochasticRounding, Link::Kahan];
            links.insert(at + random.below(links.len() - at + 1), random.pick(&narrow));
        }
        if self.is_distributed && depth > 2 && !links.iter().any(Link::is_between_ranks) {
            let link = self.between_ranks(depth, random);
            links.insert(random.below(links.len() + 1), link);
        }
        Chain { base, links }
    }

    fn between_ranks(&self, depth: usize, random: &mut impl RngExt) -> Link {
        match random.below(3) {
            0 => Link::Sharded { by_tensor: random.chance(0.5), policy: policy(random) },
            1 => {
                let compress = match random.below(6) {
                    0 => Compress::Bf16,
                    1 => Compress::TopK(random.pick(&[0.1, 0.5, 1.0])),
                    2 => Compress::PowerSgd(1 + random.below(3)),
                    _ => Compress::Not,
                };
                let verify = random.chance(0.3).then(|| 1 + random.below(3) as u64);
                Link::DataParallel { compress, verify, policy: policy(random) }
            }
            _ => {
                let whole = Surroundings { is_half: false, is_distributed: false, ..*self };
                let mut outer = whole.chain(depth.min(2) / 2, random);
                if outer.base.algorithm == Algorithm::Lbfgs {
                    outer.base.algorithm = Algorithm::Nesterov;
                }
                Link::LocalSteps(1 + random.below(3) as u64, Box::new(outer))
            }
        }
    }

    fn link(&self, depth: usize, random: &mut impl RngExt) -> Link {
        let number = |value: f64, random: &mut _| Number::draw(value, false, random);
        match random.below(39) {
            0 | 1 => Link::Accumulate(1 + random.below(3) as u64, random.chance(0.3)),
            2 | 3 => {
                let later = random.chance(0.4).then(|| (1 + random.below(4) as u64, self.pattern(random)));
                Link::Freeze(self.pattern(random), later)
            }
            4 | 5 => {
                let values = [0.05, 0.5, 0.1, 2.0];
                Link::Group(self.pattern(random), values.map(|value| random.chance(0.5).then(|| number(value, random))))
            }
            6 => Link::Route(self.pattern(random), Box::new(self.inner().chain(depth / 2, random))),
            7 => Link::Finite(NonFinite::Error),
            8 => Link::Finite(NonFinite::Skip),
            9 => Link::Maximize,
            10 | 11 => Link::Unscale(number(8.0, random)),
            12 | 13 => {
                let p = random.pick(&[2.0, 2.0, 1.0, f64::INFINITY, 3.0]);
                let max = number(random.pick(&[0.5, 10.0]), random);
                let (per_tensor, exact) = (random.chance(0.5), random.chance(0.5));
                Link::ClipNorm { max, per_tensor, p, exact, policy: policy(random) }
            }
            14 => Link::ClipValue(number(0.5, random), policy(random)),
            15 => Link::ClipAdaptive(number(0.1, random), policy(random)),
            16 | 17 => {
                let decay = Number::draw(0.9, true, random);
                Link::Ema { decay, warmup: random.chance(0.3), debiased: random.chance(0.3) }
            }
            18 => Link::Swa(random.below(3) as u64, 1 + random.below(2) as u64),
            19 | 20 => Link::Lookahead(1 + random.below(3) as u64, Number::draw(0.5, true, random)),
            21 => Link::Layerwise(
                number(0.8, random),
                (0..1 + random.below(2)).flat_map(|_| self.pattern(random)).collect(),
            ),
            22 | 23 => self.between_ranks(depth, random),
            24 | 25 => Link::Kfac {
                damping: number(0.1, random),
                eigen: random.chance(0.5),
                periods: (1 + random.below(2) as u64, 1 + random.below(2) as u64),
            },
            26 | 27 => Link::Proximal(number(0.1, random)),
            28 => Link::Scaffold,
            29 => Link::Centralize,
            30 => Link::Project(self.pattern(random), random.pick(&[0.25, 2.0])),
            31 => Link::AccumulateBy(number(random.pick(&[1.0, 2.0, 3.0]), random)),
            32 => Link::LossScaling(1 + random.below(3) as u64),
            33 => Link::ZeroNans,
            34 => Link::Spikes(number(random.pick(&[1.1, 5.0]), random), random.chance(0.5)),
            35 => Link::MaxSkipped(random.below(3) as u64),
            36 => Link::Noise(number(0.1, random), random.below(3) as u64),
            37 => Link::Monitor(1 + random.below(3) as u64),
            _ => Link::Own,
        }
    }

    fn inner(&self) -> Surroundings<'_> {
        Surroundings { is_half: false, ..*self }
    }
}

fn policy(random: &mut impl RngExt) -> NonFinite {
    random.pick(&[NonFinite::Error, NonFinite::Skip, NonFinite::Allow])
}

fn base(random: &mut impl RngExt) -> Base {
    use Algorithm::*;
    let all = [
        Sgd, Momentum, Nesterov, RmsProp, Adam, AdamW, AdamW, FedAdam, FedYogi, FedAdagrad, Signs, Own, Lbfgs,
        Adafactor, Muon, Scion, Dion, Shampoo, Soap, KlSoap, Kron, AdamMini, Sm3, Came, GaLore, Apollo, OwnMatrix,
    ];
    let algorithm = random.pick(&all);
    let number = |value: f64, random: &mut _| Number::draw(value, true, random);
    let values = match algorithm {
        Momentum | Nesterov => [0.9, 0.3, 0.0],
        RmsProp => [0.9, 1e-6, 0.5],
        Adafactor => [0.9, 1.0, 1e-6],
        Muon | Dion => [0.9, 1e-7, 0.0],
        Scion => [0.9, 1e-7, 2.0],
        Shampoo => [1e-6, 0.9, 0.5],
        Kron => [0.9, 0.3, 0.1],
        Sm3 => [0.9, 0.99, 1e-6],
        FedAdam | FedYogi | FedAdagrad => [0.9, 0.99, 1e-3],
        OwnMatrix => [0.9, 0.0, 0.0],
        _ => [0.9, 0.99, 1e-6],
    };
    let precisions = [
        StatePrecision::Bf16(Rounding::Stochastic),
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Stochastic),
        StatePrecision::Blockwise4(Rounding::Nearest),
    ];
    Base {
        algorithm,
        learning_rate: number(0.05, random),
        decay: random.chance(0.4).then(|| number(0.01, random)),
        numbers: values.map(|value| random.chance(0.4).then(|| number(value, random))),
        options: [random.chance(0.3), random.chance(0.3), random.chance(0.3)],
        precision: if random.chance(0.3) { random.pick(&precisions) } else { StatePrecision::Full },
    }
}

fn optional(f: &mut fmt::Formatter<'_>, name: &str, number: &Option<Number>) -> fmt::Result {
    number.map_or(Ok(()), |number| write!(f, ", {name} {number}"))
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}", self.algorithm, self.learning_rate)?;
        optional(f, "decay", &self.decay)?;
        let names = ["a", "b", "c"].into_iter().zip(&self.numbers);
        names.into_iter().try_for_each(|(name, number)| optional(f, name, number))?;
        if self.options.contains(&true) {
            write!(f, ", options {:?}", self.options)?;
        }
        if self.precision != StatePrecision::Full {
            write!(f, ", {:?}", self.precision)?;
        }
        write!(f, ")")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        for link in &self.links {
            match link {
                Link::Route(pattern, chain) => write!(f, ".route({pattern:?}, {chain})")?,
                Link::LocalSteps(every, outer) => write!(f, ".local_steps({every}, {outer})")?,
                other => write!(f, ".{other:?}")?,
            }
        }
        Ok(())
    }
}
