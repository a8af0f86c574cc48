//! A group replaces any hyper-parameter: every optimizer with every one of its hyper-parameters, and groups in chains.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gradus::adaptor::Group;
use gradus::error::{Error, StepError};
use gradus::prelude::*;
use gradus::rule::{DecayRate, HyperParameters};
use gradus::schedule::{Linear, Plateau};
use gradus::{Hyper, Optimizer};
use ndarray::{Array2, ArrayD, array};

type Boxed<A> = Box<dyn Optimizer<A>>;

/// A hyper-parameter of an optimizer, with a value: in a group, and set for the optimizer.
struct Product<A> {
    optimizer: &'static str,
    name: &'static str,
    value: f64,
    base: fn() -> Boxed<A>,
    set: fn(Hyper) -> Boxed<A>,
}

/// Optimizers with their hyper-parameters, and the names of those that they have.
struct Table<A> {
    products: Vec<Product<A>>,
    known: Vec<(&'static str, Vec<&'static str>)>,
}

macro_rules! table {
    ($A:ident; $($optimizer:ident: $base:expr; $($name:ident $value:expr),*;)*) => {{
        let (mut products, mut known) = (Vec::<Product<$A>>::new(), Vec::new());
        $({
            fn base<$A: Scalar>() -> $optimizer<$A> {
                $base
            }
            let names = ["learning_rate", "weight_decay"].into_iter();
            let opt = base::<$A>();
            let own = opt.rule().hyper_parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            known.push((stringify!($optimizer), names.chain(own).chain(opt.rule().optional().iter().copied()).collect()));
            products.extend([
                Product {
                    optimizer: stringify!($optimizer),
                    name: "learning_rate",
                    value: 0.02,
                    base: || Box::new(base()),
                    set: |value| { let mut opt = base(); opt.set_learning_rate(value); Box::new(opt) },
                },
                Product {
                    optimizer: stringify!($optimizer),
                    name: "weight_decay",
                    value: 0.3,
                    base: || Box::new(base()),
                    set: |value| Box::new(base().weight_decay(value)),
                },
                $(Product {
                    optimizer: stringify!($optimizer),
                    name: stringify!($name),
                    value: $value,
                    base: || Box::new(base()),
                    set: |value| Box::new(base().$name(value)),
                },)*
            ]);
        })*
        Table { products, known }
    }};
}

/// A learning rate that changes.
fn rate() -> Hyper {
    Linear::new(0.01, 0.05, 5).into()
}

fn table<A: Scalar>() -> Table<A> {
    let mut all = elementwise::<A>();
    for more in [matrices::<A>(), decompositions::<A>()] {
        all.products.extend(more.products);
        all.known.extend(more.known);
    }
    all
}

fn elementwise<A: Scalar>() -> Table<A> {
    table! { A;
        AdaBelief: AdaBelief::new(rate()).eps(1e-8); beta1 0.5, beta2 0.7, eps 0.1;
        Adadelta: Adadelta::new(rate()); rho 0.5, eps 0.1;
        Adagrad: Adagrad::new(rate()); learning_rate_decay 0.5, initial_accumulator_value 0.3, eps 0.1;
        Adam: Adam::new(rate()).amsgrad(true); beta1 0.5, beta2 0.7, eps 0.1;
        AdamW: AdamW::new(rate()).cautious(true); beta1 0.5, beta2 0.7, eps 0.1;
        Adamax: Adamax::new(rate()); beta1 0.5, beta2 0.7, eps 0.1;
        Adan: Adan::new(rate()); beta1 0.5, beta2 0.7, beta3 0.6, eps 0.1;
        AdEMAMix: AdEMAMix::new(rate()); beta1 0.5, beta2 0.7, beta3 0.6, alpha 2.0, eps 0.1;
        AdaHessian: AdaHessian::new(rate()).eps(0.5); beta1 0.5, beta2 0.7, eps 0.1;
        SimplifiedAdEMAMix: SimplifiedAdEMAMix::new(rate()); beta1 0.5, beta2 0.7, alpha 2.0, eps 0.1;
        Adopt: Adopt::new(rate()); beta1 0.5, beta2 0.7, eps 0.9, clip_exponent 0.1;
        Asgd: Asgd::new(rate()); lambda 0.1, alpha 0.5;
        Lamb: Lamb::new(rate()); beta1 0.5, beta2 0.7, eps 0.1;
        LaProp: LaProp::new(rate()); beta1 0.5, beta2 0.7, eps 0.1;
        Lars: Lars::new(rate(), 0.9); momentum 0.5, dampening 0.3, trust_coefficient 0.1, eps 0.5;
        Lion: Lion::new(rate()).beta2(0.5); beta1 0.1, beta2 0.9;
        Madgrad: Madgrad::new(rate()); momentum 0.5, eps 0.1;
        Mars: Mars::new(rate()); beta1 0.5, beta2 0.7, gamma 0.5, eps 0.1;
        MarsLion: MarsLion::new(rate()); beta1 0.5, beta2 0.7, gamma 2.0, eps 0.1;
        Momentum: Momentum::new(rate(), 0.9).decoupled_decay(DecayRate::Fixed); momentum 0.5, dampening 0.3;
        NAdam: NAdam::new(rate()); beta1 0.5, beta2 0.7, eps 0.1, momentum_decay 0.3;
        NAdamW: NAdamW::new(rate()); beta1 0.5, beta2 0.7, eps 0.1, momentum_decay 0.3;
        Nesterov: Nesterov::new(rate(), 0.9); momentum 0.5;
        NovoGrad: NovoGrad::new(rate()); beta1 0.5, beta2 0.7, eps 0.1;
        RAdam: RAdam::new(rate()).beta2(0.9); beta1 0.5, beta2 0.7, eps 0.1;
        RAdamW: RAdamW::new(rate()).beta2(0.9); beta1 0.5, beta2 0.7, eps 0.1;
        RmsProp: RmsProp::new(rate()).momentum(0.9); alpha 0.5, eps 0.1, momentum 0.5;
        Rprop: Rprop::new(rate()); eta_minus 0.3, eta_plus 1.5, min_step_size 0.04, max_step_size 0.005;
        SgdScheduleFree: SgdScheduleFree::new(rate()); momentum 0.5, time_power 1.0, lr_power 1.0;
        AdamWScheduleFree: AdamWScheduleFree::new(rate()); beta1 0.5, beta2 0.7, eps 0.1, time_power 1.0, lr_power 1.0;
        RAdamScheduleFree: RAdamScheduleFree::new(rate()).beta2(0.9); beta1 0.5, beta2 0.7, eps 0.1, time_power 1.0, lr_power 1.0;
        Sgd: Sgd::new(rate()); ;
        SignSgd: SignSgd::new(rate()); ;
        Sophia: Sophia::new(rate()).beta2(0.5).gamma(1.0).eps(0.1); beta1 0.5, beta2 0.7, gamma 0.3, threshold 0.2, eps 0.1;
        Signum: Signum::new(rate()); momentum 0.1;
        StableAdamW: StableAdamW::new(rate()); beta1 0.5, beta2 0.7, eps 0.1;
        Yogi: Yogi::new(rate()); beta1 0.5, beta2 0.7, eps 0.1, initial_accumulator_value 0.5;
    }
}

fn matrices<A: Scalar>() -> Table<A> {
    table! { A;
        Adafactor: Adafactor::new(rate()).eps(1e-3).beta1(0.9).beta2_cap(0.9);
            beta2_decay -0.3, min_scale 0.9, clip_threshold 0.5, eps 0.5, beta1 0.5, beta2_cap 0.1;
        AdamMini: AdamMini::new(rate()); beta1 0.5, beta2 0.7, eps 0.1;
        Apollo: Apollo::new(rate()).limit_growth(false); beta1 0.5, beta2 0.7, eps 0.1, scale 0.5;
        ApolloMini: ApolloMini::new(rate()).limit_growth(false); beta1 0.5, beta2 0.7, eps 0.1, scale 0.5;
        Came: Came::new(rate()); beta1 0.5, beta2 0.7, beta3 0.6, eps1 0.1, eps2 0.1, clip_threshold 0.5;
        Sm3: Sm3::new(rate()).momentum(0.9).beta2(0.9); eps 0.1, momentum 0.5, beta2 0.5;
        AdaMuon: AdaMuon::new(rate()); momentum 0.5, beta2 0.5, eps 0.5;
        Dion: Dion::new(rate()); momentum 0.5, eps 0.5;
        Muon: Muon::new(rate()); momentum 0.5, eps 0.5;
        NorMuon: NorMuon::new(rate()); momentum 0.5, beta2 0.5, eps 0.5;
        Scion: Scion::new(rate()); momentum 0.5, radius 2.0, eps 0.5;
    }
}

#[cfg(feature = "second-order")]
fn decompositions<A: Scalar>() -> Table<A> {
    table! { A;
        GaLore: GaLore::new(rate()).rank(2).update_proj_gap(2); beta1 0.5, beta2 0.7, eps 0.1, scale 0.5;
        Kron: Kron::new(rate());
            momentum 0.5, update_probability 0.3, precond_lr 0.4, precond_init_scale 0.01, clip_rms 0.2;
        Shampoo: Shampoo::new(rate()).every(2).beta2(0.9).momentum(0.9); eps 0.1, beta2 0.5, momentum 0.5;
        KlSoap: KlSoap::new(rate()).every(2).nesterov(true).shampoo_beta(0.9);
            beta1 0.5, beta2 0.7, eps 0.1, shampoo_beta 0.5, momentum_decay 0.3;
        Soap: Soap::new(rate()).every(2).nesterov(true).shampoo_beta(0.9);
            beta1 0.5, beta2 0.7, eps 0.1, shampoo_beta 0.5, momentum_decay 0.3;
    }
}

#[cfg(not(feature = "second-order"))]
fn decompositions<A: Scalar>() -> Table<A> {
    Table { products: Vec::new(), known: Vec::new() }
}

const SHAPES: [(usize, usize); 4] = [(3, 4), (5, 2), (17, 16), (2, 2)];

fn wave<A: Scalar>(shape: (usize, usize), phase: f64) -> Array2<A> {
    Array2::from_shape_fn(shape, |(i, j)| A::from_f64((i as f64 * 1.3 + j as f64 * 0.37 + phase).sin()))
}

const STEPS: usize = 6;

/// Tensors with these numbers; vectors, if `flat`.
fn tree<A: Scalar>(tensors: &[usize], phase: impl Fn(usize) -> f64, flat: bool) -> Vec<ArrayD<A>> {
    let tensor = |at: &usize| {
        let values = wave::<A>(SHAPES[*at], phase(*at));
        if flat { values.flatten().to_owned().into_dyn() } else { values.into_dyn() }
    };
    tensors.iter().map(tensor).collect()
}

/// The parameters after some steps, of the tensors with these numbers.
fn trained<A: Scalar>(mut opt: Boxed<A>, tensors: &[usize], flat: bool) -> (Vec<ArrayD<A>>, Boxed<A>) {
    let mut params = tree(tensors, |at| at as f64, flat);
    for step in 0..STEPS {
        // The Hessian's diagonal, for those that need it.
        let diagonal = tree(tensors, |at| (at + 2 * step) as f64 + 0.25, flat);
        if let Some(sophia) = opt.find_mut::<Sophia<A>>() {
            sophia.curvature(&diagonal).unwrap();
        }
        if let Some(adahessian) = opt.find_mut::<AdaHessian<A>>() {
            adahessian.curvature(&diagonal).unwrap();
        }
        opt.step(&mut params, &tree(tensors, |at| (at + 3 * step) as f64 + 0.5, flat)).unwrap();
    }
    (params, opt)
}

/// Returns the product if its value makes no difference, so that it shows nothing.
fn product_is_that_of_two_optimizers<A: Scalar>(product: &Product<A>) -> Option<String> {
    let Product { optimizer, name, value, base, set } = product;
    let what = format!("{name} of {optimizer} in {}", A::DTYPE);
    // The value is a schedule, which differs from step to step; an optimizer of its own has the same.
    let (first, last) = (*value, value * 0.9);
    let value = move |step: u64| if step < 3 { first } else { last };
    let grouped = |pattern: &str| -> Boxed<A> { Box::new(base().group(pattern, Group::new().set(name, value))) };

    // Of MARS-Lion these are those of vectors.
    let flat = *optimizer == "MarsLion" && matches!(*name, "beta2" | "eps");
    let (all, _) = trained(grouped("{1,2}"), &[0, 1, 2, 3], flat);
    let (others, _) = trained(base(), &[0, 3], flat);
    let (own, _) = trained(set(value.into()), &[1, 2], flat);
    assert_eq!([&all[0], &all[3]], [&others[0], &others[1]], "{what}: tensors outside of the group");
    assert_eq!([&all[1], &all[2]], [&own[0], &own[1]], "{what}");
    let (without, _) = trained(base(), &[1, 2], flat);
    let is_idle = without == own;

    // A resumed run has the same bits.
    let (_, opt) = trained(grouped("{1,2}"), &[0, 1, 2, 3], flat);
    let (mut resumed, mut whole, mut continued) = (grouped("{1,2}"), opt, [all.clone(), all]);
    resumed.load_state_dict(&whole.state_dict()).unwrap();
    let grads = tree(&[0, 1, 2, 3], |_| 7.0, flat);
    whole.step(&mut continued[0], &grads).unwrap();
    resumed.step(&mut continued[1], &grads).unwrap();
    assert_eq!(continued[0], continued[1], "{what}: resumed");
    is_idle.then_some(what)
}

#[test]
fn a_group_is_an_optimizer_with_its_value() {
    let mut idle: Vec<_> = table::<f64>().products.iter().filter_map(product_is_that_of_two_optimizers).collect();
    idle.extend(table::<f32>().products.iter().filter_map(product_is_that_of_two_optimizers));
    assert!(idle.is_empty(), "these values make no difference: {idle:#?}");
}

/// Optimizers without a group of their own: L-BFGS has no rule, and the others learn from all tensors together.
const SHARED: [&str; 6] = ["DAdaptAdam", "DAdaptSgd", "DoG", "DoWG", "Lbfgs", "Prodigy"];

/// Every optimizer but these, and every hyper-parameter.
#[test]
fn the_table_has_every_product() {
    let Table { products, known } = table::<f64>();
    let listed = gradus::optimizer::NAMES.iter().flat_map(|names| names.iter().copied());
    let expected: BTreeSet<_> = listed.filter(|name| !SHARED.contains(name)).collect();
    assert_eq!(known.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), expected);
    for (optimizer, names) in known {
        let names: BTreeSet<_> = names.into_iter().collect();
        let own = products.iter().filter(|product| product.optimizer == optimizer);
        assert_eq!(own.map(|product| product.name).collect::<BTreeSet<_>>(), names, "{optimizer}");
    }
}

/// What is evaluated is made with the group's β, also after a restart.
#[test]
fn an_average_has_the_groups_beta() {
    let base = || AdamWScheduleFree::new(rate());
    let grouped = || base().group("1", Group::new().set("beta1", 0.5));
    let (mut opt, mut alone, mut other) = (grouped(), base().beta1(0.5), base());
    let start = || (wave::<f64>((3, 4), 0.0), wave((3, 4), 1.0));
    let (mut w, (mut second, mut first)) = (start(), (start().1, start().0));
    for step in 0..4 {
        let grad = wave((3, 4), f64::from(step));
        opt.step(&mut w, &(&grad, &grad)).unwrap();
        alone.step(&mut second, &grad).unwrap();
        other.step(&mut first, &grad).unwrap();
    }
    let mut resumed = grouped();
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    alone.average(&mut second).unwrap();
    other.average(&mut first).unwrap();
    for opt in [&opt, &resumed] {
        let mut average = w.clone();
        opt.inner().average(&mut average).unwrap();
        assert_eq!(average, (first.clone(), second.clone()));
    }
}

fn pair() -> (Array2<f64>, Array2<f64>) {
    (wave((3, 4), 0.0), wave((5, 2), 1.0))
}

fn stepped(mut opt: impl Optimizer<f64>) -> (Array2<f64>, Array2<f64>) {
    let mut w = pair();
    for step in 0..STEPS {
        opt.step(&mut w, &(wave((3, 4), step as f64), wave((5, 2), step as f64 + 0.5))).unwrap();
    }
    w
}

#[test]
fn the_last_group_wins_name_by_name() {
    let base = || Adam::new(0.1);
    let group = |beta1: f64| Group::new().set("beta1", beta1);
    let expected = stepped(base().beta1(0.5).eps(0.1));
    assert_eq!(stepped(base().group("**", group(0.8).set("eps", 0.1)).group("**", group(0.5))), expected);
    assert_eq!(stepped(base().group("**", Group::new().set("eps", 0.1)).group("**", group(0.5))), expected);
    assert_eq!(stepped(base().group("**", group(0.8).set("beta1", 0.5).set("eps", 0.1))), expected);
    let one =
        base().group("0", group(0.5).set("eps", 0.1)).group("1", group(0.5)).group("1", Group::new().set("eps", 0.1));
    assert_eq!(stepped(one), expected);
}

#[test]
fn a_name_of_rate_or_decay_is_that_value() {
    let named = Group::new().set("learning_rate", 0.5).set("weight_decay", 0.1);
    assert_eq!(format!("{named:?}"), "Group::new().learning_rate(0.5).weight_decay(0.1)");
    let others = Group::no_decay().set("beta1", 0.5).set("eps", 1e-3);
    assert_eq!(format!("{others:?}"), "Group::new().weight_decay(0).set(\"beta1\", 0.5).set(\"eps\", 0.001)");
}

type Wrap = fn(Boxed<f64>) -> Boxed<f64>;

/// Adaptors inside of a group and outside of it.
#[test]
fn groups_in_chains() {
    let group = || Group::new().set("beta1", 0.5).set("beta2", 0.7);
    let tuned = || Adam::new(0.1).beta1(0.5).beta2(0.7);
    let plain = || Adam::new(0.1);
    let wraps: Vec<(&str, Wrap)> = vec![
        ("boxed", |opt| opt.boxed()),
        ("clip", |opt| Box::new(opt.clip_global_norm(0.5))),
        ("accumulate", |opt| Box::new(opt.accumulate(2))),
        ("ema", |opt| Box::new(opt.ema(0.9))),
        ("lookahead", |opt| Box::new(opt.lookahead(2, 0.5))),
        ("freeze", |opt| Box::new(opt.freeze("0"))),
        ("route", |opt| Box::new(opt.route("0", Sgd::new(0.1)))),
        ("routed", |opt| Box::new(Sgd::new(0.1).route("1", opt))),
        ("layerwise_decay", |opt| Box::new(opt.layerwise_decay(0.5, ["0", "1"]))),
        ("maximize", |opt| Box::new(opt.maximize())),
        ("skip_nonfinite", |opt| Box::new(opt.skip_nonfinite())),
        #[cfg(feature = "distributed")]
        ("data_parallel", |opt| Box::new(opt.data_parallel(gradus::distributed::Alone))),
        #[cfg(feature = "distributed")]
        ("sharded", |opt| Box::new(opt.sharded(gradus::distributed::Alone))),
        #[cfg(feature = "distributed")]
        ("local_steps", |opt| Box::new(opt.local_steps(2, Sgd::new(1.0)))),
        #[cfg(feature = "second-order")]
        ("kfac", |opt| Box::new(opt.kfac())),
    ];
    for (name, wrap) in wraps {
        let expected = stepped(wrap(Box::new(tuned())));
        assert_eq!(stepped(wrap(Box::new(plain().group("**", group())))), expected, "inside of {name}");
        assert_ne!(expected, stepped(wrap(Box::new(plain()))), "{name}: no difference");
        // A group around a router also speaks to its other optimizers.
        if !matches!(name, "route" | "routed") {
            assert_eq!(stepped(wrap(Box::new(plain())).group("**", group())), expected, "outside of {name}");
        }
    }
    let routed = plain().route("0", Sgd::new(0.1)).group("1", group());
    assert_eq!(stepped(routed), stepped(tuned().route("0", Sgd::new(0.1))));
}

#[cfg(feature = "half")]
#[test]
fn master_weights_have_the_group() {
    let grouped = |inside: bool| -> Boxed<half::bf16> {
        let group = Group::new().set("beta1", 0.5);
        match inside {
            true => Box::new(Adam::new(0.1).group("**", group).master_weights()),
            false => Box::new(Adam::new(0.1).master_weights::<half::bf16>().group("**", group)),
        }
    };
    let run = |mut opt: Boxed<half::bf16>| {
        let mut w = wave::<f32>((3, 4), 0.0).mapv(half::bf16::from_f32);
        for step in 0..STEPS {
            opt.step(&mut w, &wave::<f32>((3, 4), step as f64).mapv(half::bf16::from_f32)).unwrap();
        }
        w
    };
    let expected = run(Box::new(Adam::new(0.1).beta1(0.5).master_weights()));
    assert_eq!([run(grouped(true)), run(grouped(false))], [expected.clone(), expected]);
}

/// A metric decides when a group's β falls, and the state has what it has seen.
#[test]
fn a_schedule_of_a_group_remembers() {
    let plateau = || Plateau::new(0.9).factor(0.5).patience(0);
    let build = |plateau: Plateau| Adam::new(0.1).group("1", Group::new().set("beta1", plateau));
    let (reduced, fresh) = (plateau(), plateau());
    let (mut opt, mut w) = (build(reduced.clone()), pair());
    opt.step(&mut w, &pair()).unwrap();
    (0..3).for_each(|_| _ = reduced.observe(1.0));
    let state = opt.state_dict();
    assert!(state.keys().any(|key| key.starts_with("group/beta1")), "{state:?}");
    let mut resumed = build(fresh);
    resumed.load_state_dict(&state).unwrap();
    let mut other = w.clone();
    opt.step(&mut w, &pair()).unwrap();
    resumed.step(&mut other, &pair()).unwrap();
    assert_eq!(w, other);
}

fn refused(mut opt: impl Optimizer<f64>) -> Error {
    let (mut w, before) = (pair(), opt.state_dict());
    let error = opt.step(&mut w, &pair()).unwrap_err();
    assert_eq!((w, opt.state_dict()), (pair(), before));
    error
}

#[test]
fn names_that_an_optimizer_does_not_have() {
    let set = |name: &str| Group::new().set(name, 0.5);
    let known = "it has learning_rate, weight_decay, beta1, beta2, eps";
    for (error, message) in [
        (
            refused(AdamW::new(0.1).group("1", set("beta_2"))),
            format!(
                "AdamW has no hyper-parameter \"beta_2\", which the group \"1\" sets (did you mean \"beta2\"?); {known}"
            ),
        ),
        (
            refused(Adam::new(0.1).group("{0,1}", set("warmup"))),
            format!("Adam has no hyper-parameter \"warmup\", which the group \"{{0,1}}\" sets; {known}"),
        ),
        (
            // In a router, the tensor's own optimizer is asked.
            refused(Adam::new(0.1).route("1", Sgd::new(0.1)).group("**", set("beta1"))),
            "Sgd has no hyper-parameter \"beta1\", which the group \"**\" sets; it has learning_rate, weight_decay"
                .into(),
        ),
        (
            refused(Lbfgs::new(0.1).group("0", set("history"))),
            "Lbfgs has no hyper-parameter \"history\", which the group \"0\" sets; it has learning_rate".into(),
        ),
    ] {
        assert_eq!(error.to_string(), message);
        assert!(matches!(error, Error::Step(StepError::UnknownHyperParameter { .. })));
    }
}

#[test]
fn options_are_the_same_for_all_tensors() {
    let set = |name: &str| Group::new().set(name, 0.5);
    let option = "it is an option, which all tensors share; `route` gives some tensors an optimizer with another";
    let off = "it is off; if the optimizer has a value, a group can change it";
    let shared = "it follows from sums over all tensors, which share it";
    for (error, name, optimizer, reason) in [
        (refused(Adam::new(0.1).group("1", set("amsgrad"))), "amsgrad", "Adam", option),
        (refused(Adam::new(0.1).group("1", set("cautious"))), "cautious", "Adam", option),
        (refused(Adam::new(0.1).group("1", set("state_precision"))), "state_precision", "Adam", option),
        (refused(Muon::new(0.1).group("1", set("nesterov"))), "nesterov", "Muon", option),
        (refused(Adafactor::new(0.1).group("1", set("min_side"))), "min_side", "Adafactor", option),
        (refused(Adafactor::new(0.1).group("1", set("beta1"))), "beta1", "Adafactor", off),
        (refused(RmsProp::new(0.1).group("1", set("momentum"))), "momentum", "RmsProp", off),
        (refused(Prodigy::new(1.0).group("1", set("beta2"))), "beta2", "Prodigy", shared),
        (refused(DoG::new(1.0).group("1", set("eps"))), "eps", "DoG", shared),
    ] {
        assert_eq!(error.to_string(), format!("the group \"1\" cannot change {name} of {optimizer}: {reason}"));
        assert!(matches!(error, Error::Step(StepError::NotInGroup { .. })));
    }
}

#[test]
fn values_out_of_range_name_pattern_and_hyper_parameter() {
    let error = refused(Adam::new(0.1).group("1", Group::new().set("beta1", 0.5).set("beta2", 1.5)));
    assert_eq!(
        error.to_string(),
        "beta2 is 1.5 at step 0 for \"1\" in the group \"1\"; it must be a number in 0 ≤ beta2 < 1"
    );
    // The optimizer's own value is not the group's.
    let error = refused(Adam::new(0.1).eps(-1.0).group("1", Group::new().set("beta2", 0.5)));
    assert_eq!(error.to_string(), "eps is -1 at step 0; it must be a finite number ≥ 0");
    // The group that wins is named.
    let two =
        Adam::new(0.1).group("**", Group::new().set("beta1", 0.5)).group("1", Group::new().set("beta1", f64::NAN));
    assert!(refused(two).to_string().contains("in the group \"1\""));
    let error = refused(Adam::new(0.1).group("*", Group::new().set("eps", Linear::new(f64::NAN, 1.0, 3))));
    assert!(error.to_string().starts_with("eps: Linear: "), "{error}");
    // Later, in the middle of the training.
    let later = |step: u64| if step == 0 { 0.5 } else { 2.0 };
    let (mut opt, mut w) = (Adam::new(0.1).group("0", Group::new().set("beta1", later)), pair());
    opt.step(&mut w, &pair()).unwrap();
    assert!(opt.step(&mut w, &pair()).unwrap_err().to_string().contains("beta1 is 2 at step 1 for \"0\""));
}

/// A schedule of a group is evaluated once per step, not once per tensor.
#[test]
fn values_are_computed_once_per_set() {
    let calls = |tensors: usize| {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let counted = move |_: u64| {
            seen.fetch_add(1, Ordering::Relaxed);
            0.5
        };
        let (outer, inner) = (Group::new().set("beta1", counted), Group::new().set("eps", 0.1));
        let mut opt = Adam::new(0.1).group("*", inner).group("*", outer);
        opt.step(&mut vec![array![1.0]; tensors], &vec![array![1.0]; tensors]).unwrap();
        calls.load(Ordering::Relaxed)
    };
    assert_eq!([calls(2), calls(50)], [1, 1]);
}
