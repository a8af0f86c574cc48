//! From the description of a chain to the chain.

use std::sync::Arc;

use gradus::adaptor::{Group, Monitor, NonFinite};
use gradus::distributed::compress::{Bf16, PowerSgd, TopK};
use gradus::distributed::{Alone, Collective, ThreadGroup};
use gradus::federated::{FedAdagrad, FedAdam, FedYogi};
use gradus::optimizer::{AdamMiniBlocks, AdamMiniPartition, Graft, ScionNorm};
use gradus::rule::{Elementwise, Matrixwise};
use gradus::set::{Interval, MaxNorm};
use gradus::{Element, Result, prelude::*};
use half::{bf16, f16};

use crate::actions::Boxed;
use crate::chains::{Algorithm, Base, Chain, Compress, Link};
use crate::dials::Dials;
use crate::own::{OwnAdaptor, OwnOptimizer, Rows, Signs};

/// The group that a chain's ranks are in.
#[derive(Clone)]
pub(crate) enum Ranks {
    Alone,
    Threads(Arc<ThreadGroup>),
}

/// What a chain is built with.
pub(crate) struct Context<'c> {
    pub(crate) dials: &'c mut Dials,
    pub(crate) ranks: Ranks,
}

macro_rules! forward {
    ($self:ident, $group:ident => $call:expr) => {
        match $self {
            Ranks::Alone => {
                let $group = &Alone;
                $call
            }
            Ranks::Threads($group) => $call,
        }
    };
}

impl gradus::distributed::RankGroup for Ranks {
    fn rank(&self) -> usize {
        forward!(self, group => group.rank())
    }

    fn size(&self) -> usize {
        forward!(self, group => group.size())
    }

    fn barrier(&self) -> Result<()> {
        forward!(self, group => group.barrier())
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        forward!(self, group => group.all_gather_bytes(own, all))
    }
}

impl<A: Scalar> Collective<A> for Ranks {
    fn all_reduce(&self, values: &mut [A]) -> Result<()> {
        forward!(self, group => group.all_reduce(values))
    }

    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
        forward!(self, group => group.reduce_scatter(values, own))
    }

    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
        forward!(self, group => group.all_gather(own, all))
    }

    fn broadcast(&self, values: &mut [A], root: usize) -> Result<()> {
        forward!(self, group => group.broadcast(values, root))
    }
}

/// The element types, each with what only it can do.
pub(crate) trait Number: Element {
    type Group: Collective<Self> + Clone + 'static;

    fn group(ranks: &Ranks) -> Self::Group;

    /// The chain without the links that are left to put around it.
    fn start<'l>(chain: &'l Chain, context: &mut Context<'_>) -> (Boxed<Self>, &'l [Link]);

    /// K-FAC, of what can be computed with.
    fn kfac(inner: Boxed<Self>, link: &Link, context: &mut Context<'_>) -> Boxed<Self>;

    /// Bounds, and norms of rows.
    fn project(inner: Boxed<Self>, pattern: &[String], size: f64) -> Boxed<Self>;
}

macro_rules! computed {
    ($($float:ty)*) => {
        $(
            impl Number for $float {
                type Group = Ranks;

                fn group(ranks: &Ranks) -> Ranks {
                    ranks.clone()
                }

                fn start<'l>(chain: &'l Chain, context: &mut Context<'_>) -> (Boxed<Self>, &'l [Link]) {
                    (base(&chain.base, context.dials), &chain.links)
                }

                fn kfac(inner: Boxed<Self>, link: &Link, context: &mut Context<'_>) -> Boxed<Self> {
                    let Link::Kfac { damping, eigen, periods } = link else { return inner };
                    let damping = context.dials.hyper(*damping);
                    let kfac = inner.kfac().damping(damping).factors_every(periods.0).inverses_every(periods.1);
                    Box::new(if *eigen { kfac.eigen(true) } else { kfac })
                }

                fn project(inner: Boxed<Self>, pattern: &[String], size: f64) -> Boxed<Self> {
                    match size < 1.0 {
                        true => Box::new(inner.project(pattern.to_vec(), Interval::new(-size, size))),
                        false => Box::new(inner.project(pattern.to_vec(), MaxNorm::per_row(size))),
                    }
                }
            }
        )*
    };
}

computed!(f32 f64);

macro_rules! half {
    ($($float:ty)*) => {
        $(
            impl Number for $float {
                type Group = Alone;

                fn group(_: &Ranks) -> Alone {
                    Alone
                }

                fn start<'l>(chain: &'l Chain, context: &mut Context<'_>) -> (Boxed<Self>, &'l [Link]) {
                    let at = chain.links.iter().position(Link::is_narrow).unwrap_or(0);
                    let inner = base::<f32>(&chain.base, context.dials);
                    let inner = chain.links[..at].iter().fold(inner, |inner, link| wrap(inner, link, context));
                    let opt: Boxed<Self> = match chain.links.get(at) {
                        Some(Link::StochasticRounding) => Box::new(inner.stochastic_rounding::<$float>(7)),
                        Some(Link::Kahan) => Box::new(inner.kahan::<$float>()),
                        _ => Box::new(inner.master_weights::<$float>()),
                    };
                    (opt, &chain.links[at..])
                }

                fn kfac(inner: Boxed<Self>, _: &Link, _: &mut Context<'_>) -> Boxed<Self> {
                    inner
                }

                fn project(inner: Boxed<Self>, _: &[String], _: f64) -> Boxed<Self> {
                    inner
                }
            }
        )*
    };
}

half!(bf16 f16);

/// The chain, ready to step.
pub(crate) fn build<A: Number>(chain: &Chain, context: &mut Context<'_>) -> Boxed<A> {
    let (inner, links) = A::start(chain, context);
    links.iter().fold(inner, |inner, link| wrap(inner, link, context))
}

fn wrap<A: Number>(inner: Boxed<A>, link: &Link, context: &mut Context<'_>) -> Boxed<A> {
    let group = A::group(&context.ranks);
    match link {
        Link::Accumulate(every, false) => Box::new(inner.accumulate(*every)),
        Link::Accumulate(every, true) => Box::new(inner.accumulate(*every).sum(true)),
        Link::Freeze(pattern, later) => {
            let freeze = inner.freeze(pattern.clone());
            Box::new(match later {
                Some((steps, pattern)) => freeze.unfreeze_at(*steps, pattern.clone()),
                None => freeze,
            })
        }
        Link::Group(pattern, values) => {
            let set =
                [Group::learning_rate, Group::scale_learning_rate, Group::weight_decay, Group::scale_weight_decay];
            let set = values.iter().zip(set).filter_map(|(value, set)| Some((context.dials.hyper((*value)?), set)));
            Box::new(inner.group(pattern.clone(), set.fold(Group::new(), |group, (value, set)| set(group, value))))
        }
        Link::Route(pattern, chain) => Box::new(inner.route(pattern.clone(), branch::<A>(chain, context))),
        Link::Finite(NonFinite::Skip) => Box::new(inner.skip_nonfinite()),
        Link::Finite(_) => Box::new(inner.check_finite()),
        Link::AccumulateBy(every) => Box::new(inner.accumulate_by(context.dials.hyper(*every))),
        Link::Monitor(every) => Box::new(inner.monitor(Monitor::every(*every))),
        Link::LossScaling(interval) => Box::new(inner.loss_scaling().initial_scale(8.0).growth_interval(*interval)),
        Link::ZeroNans => Box::new(inner.zero_nans()),
        Link::Spikes(threshold, z_score) => {
            Box::new(inner.skip_spikes(context.dials.hyper(*threshold)).warmup(2).z_score(*z_score))
        }
        Link::MaxSkipped(most) => Box::new(inner.max_skipped(*most)),
        Link::Noise(eta, seed) => Box::new(inner.add_noise(context.dials.hyper(*eta), *seed)),
        Link::Centralize => Box::new(inner.centralize()),
        Link::Maximize => Box::new(inner.maximize()),
        Link::Unscale(scale) => Box::new(inner.unscale(context.dials.hyper(*scale))),
        Link::ClipNorm { max, per_tensor, p, exact, policy } => {
            let max = context.dials.hyper(*max);
            let clip = if *per_tensor { inner.clip_per_tensor_norm(max) } else { inner.clip_global_norm(max) };
            let clip = clip.p(*p).non_finite(*policy);
            Box::new(if *exact { clip.exact(true) } else { clip })
        }
        Link::ClipValue(limit, policy) => Box::new(inner.clip_value(context.dials.hyper(*limit)).non_finite(*policy)),
        Link::ClipAdaptive(clipping, policy) => {
            Box::new(inner.clip_adaptive(context.dials.hyper(*clipping)).non_finite(*policy))
        }
        Link::Ema { decay, warmup, debiased } => {
            let ema = inner.ema(context.dials.hyper(*decay));
            let ema = if *warmup { ema.warmup(true) } else { ema };
            Box::new(if *debiased { ema.debiased(true) } else { ema })
        }
        Link::Swa(start, every) => Box::new(inner.swa(*start, *every)),
        Link::Lookahead(every, slow) => Box::new(inner.lookahead(*every, context.dials.hyper(*slow))),
        Link::Layerwise(rate, layers) => Box::new(inner.layerwise_decay(context.dials.hyper(*rate), layers.clone())),
        Link::Sharded { by_tensor, policy } => {
            let sharded = inner.sharded(group).non_finite(*policy);
            Box::new(if *by_tensor { sharded.by_tensor() } else { sharded })
        }
        Link::DataParallel { compress, verify, policy } => {
            let parallel = inner.data_parallel(group).non_finite(*policy).bucket_bytes(64);
            let parallel = match verify {
                Some(steps) => parallel.verify_every(*steps),
                None => parallel,
            };
            Box::new(match compress {
                Compress::Not => parallel,
                Compress::Bf16 => parallel.compress(Bf16::new()),
                Compress::TopK(ratio) => parallel.compress(TopK::new(*ratio)),
                Compress::PowerSgd(rank) => parallel.compress(PowerSgd::new(*rank)),
            })
        }
        Link::LocalSteps(every, outer) => {
            let outer = branch::<A>(outer, context);
            Box::new(inner.local_steps(*every, outer).across(group))
        }
        Link::Kfac { .. } => A::kfac(inner, link, context),
        Link::Project(pattern, size) => A::project(inner, pattern, *size),
        Link::Proximal(mu) => Box::new(inner.proximal(context.dials.hyper(*mu))),
        Link::Scaffold => Box::new(inner.scaffold()),
        Link::Own => Box::new(OwnAdaptor { inner, calls: None }),
        Link::Broken => Box::new(OwnAdaptor { inner, calls: Some(0) }),
        Link::MasterWeights | Link::StochasticRounding | Link::Kahan => inner,
    }
}

/// A chain inside another: in 16 bits it has master weights of its own.
fn branch<A: Number>(chain: &Chain, context: &mut Context<'_>) -> Boxed<A> {
    build(chain, context)
}

fn base<A: Scalar>(base: &Base, dials: &mut Dials) -> Boxed<A> {
    let rate = dials.hyper(base.learning_rate);
    let decay = base.decay.map(|decay| dials.hyper(decay));
    let [a, b, c] = base.numbers.map(|number| number.map(|number| dials.hyper(number)));
    let [first, second, third] = base.options;
    // A setter is called where there is a number for it, or an option is on.
    macro_rules! with {
        ($opt:expr $(, $setter:ident $value:expr)* $(; $option:ident $on:expr)*) => {{
            let opt = $opt;
            $(let opt = match $value { Some(value) => opt.$setter(value), None => opt };)*
            $(let opt = opt.$option($on);)*
            match decay { Some(decay) => opt.weight_decay(decay), None => opt }
        }};
    }
    let precision = base.precision;
    let momentum = || a.clone().unwrap_or(0.9.into());
    match base.algorithm {
        Algorithm::Sgd => Box::new(with!(Sgd::<A>::new(rate))),
        Algorithm::Momentum => {
            let opt = with!(Momentum::<A>::new(rate, momentum()), dampening b; classical first);
            Box::new(opt.state_precision(precision))
        }
        Algorithm::Nesterov => {
            Box::new(with!(Nesterov::<A>::new(rate, momentum()); classical first).state_precision(precision))
        }
        Algorithm::RmsProp => {
            let opt = with!(RmsProp::<A>::new(rate), alpha a, eps b, momentum c;
                centered first; eps_inside_sqrt second; classical third);
            Box::new(opt.state_precision(precision))
        }
        Algorithm::Adam => {
            let opt = with!(Adam::<A>::new(rate), beta1 a, beta2 b, eps c;
                amsgrad first; eps_hat second; bias_correction !third);
            Box::new(opt.state_precision(precision))
        }
        Algorithm::AdamW => {
            let opt = with!(AdamW::<A>::new(rate), beta1 a, beta2 b, eps c;
                amsgrad first; eps_hat second; bias_correction !third);
            Box::new(opt.state_precision(precision))
        }
        Algorithm::FedAdam => Box::new(with!(FedAdam::<A>::new(rate), beta1 a, beta2 b, tau c; flower first)),
        Algorithm::FedYogi => Box::new(with!(FedYogi::<A>::new(rate), beta1 a, beta2 b, tau c; flower first)),
        Algorithm::FedAdagrad => Box::new(with!(FedAdagrad::<A>::new(rate), beta1 a, tau c; flower first)),
        Algorithm::Signs => {
            let opt = Elementwise::<_, A>::from_rule(Signs::default().momentum(momentum()), rate);
            Box::new(with!(opt).state_precision(precision))
        }
        Algorithm::Own => Box::new(OwnOptimizer { rate, steps: 0, layout: None }),
        Algorithm::Lbfgs => {
            let opt = Lbfgs::<A>::new(rate).history(1 + usize::from(first) + 2 * usize::from(second));
            Box::new(opt)
        }
        Algorithm::Adafactor => {
            let opt = with!(Adafactor::<A>::new(rate), beta1 a, clip_threshold b, eps c;
                eps_inside_mean first; scale_parameter second; relative_step third);
            Box::new(opt.min_side(if first { 2 } else { 0 }))
        }
        Algorithm::Muon => {
            Box::new(with!(Muon::<A>::new(rate), momentum a, eps b; nesterov !first; match_rms_adamw second))
        }
        Algorithm::Scion => {
            let opt = with!(Scion::<A>::new(rate), momentum a, eps b, radius c; one_hot first; transposed second);
            Box::new(if third { opt.norm(ScionNorm::Columns) } else { opt })
        }
        Algorithm::Dion => {
            let opt = with!(Dion::<A>::new(rate), momentum a, eps b);
            Box::new(opt.rank_fraction(if first { 0.2 } else { 0.5 }).seed(u64::from(second)))
        }
        Algorithm::Shampoo => {
            let opt = with!(Shampoo::<A>::new(rate), eps a, beta2 b, momentum c);
            let opt = if first { opt.every(2) } else { opt };
            let opt = opt.block_size(if second { 2 } else { 64 }); // decompositions of larger ones take seconds
            Box::new(if third { opt.graft(Graft::Adam) } else { opt })
        }
        Algorithm::Soap => {
            let opt = with!(Soap::<A>::new(rate), beta1 a, beta2 b, eps c);
            let opt = if first { opt.every(2) } else { opt };
            Box::new(opt.max_side(if second { 2 } else { 64 }).nesterov(third))
        }
        Algorithm::Kron => {
            let opt = with!(Kron::<A>::new(rate), momentum a, update_probability b, precond_lr c);
            let opt = opt.max_size_triangular(if first { 2 } else { 64 });
            Box::new(opt.momentum_into_precond_update(second).seed(u64::from(third)))
        }
        Algorithm::KlSoap => {
            let opt = with!(KlSoap::<A>::new(rate), beta1 a, beta2 b, eps c);
            let opt = if first { opt.every(2) } else { opt };
            Box::new(opt.max_side(if second { 2 } else { 64 }).precondition_1d(third))
        }
        Algorithm::AdamMini => {
            let opt = with!(AdamMini::<A>::new(rate), beta1 a, beta2 b, eps c);
            let rows = |_: &str, _: &[usize]| true;
            Box::new(if first {
                opt.partition(AdamMiniPartition::default().with(rows, AdamMiniBlocks::Rows))
            } else {
                opt
            })
        }
        Algorithm::Sm3 => Box::new(with!(Sm3::<A>::new(rate), momentum a, beta2 b, eps c)),
        Algorithm::Came => Box::new(with!(Came::<A>::new(rate), beta1 a, beta2 b, eps2 c)),
        Algorithm::GaLore => {
            let opt = with!(GaLore::<A>::new(rate), beta1 a, beta2 b, eps c).rank(if first { 1 } else { 3 });
            Box::new(opt.update_proj_gap(if second { 2 } else { 200 }))
        }
        Algorithm::Apollo => {
            let opt = with!(Apollo::<A>::new(rate), beta1 a, beta2 b, eps c; limit_growth !third);
            Box::new(opt.rank(if first { 1 } else { 3 }).update_proj_gap(if second { 2 } else { 200 }))
        }
        Algorithm::OwnMatrix => {
            Box::new(with!(Matrixwise::<_, A>::from_rule(Rows::default().momentum(momentum()), rate)))
        }
    }
}
