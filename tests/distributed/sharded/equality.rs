//! Every step is that of one process with the mean gradient.

use gradus::clip::QkClip;
use gradus::distributed::{Collective, ThreadGroup};
use gradus::optimizer::{AdamMiniBlocks, MuonBlocks};
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::Cosine;
use ndarray::{Array1, Array2, Array3, array, s};

use super::{Boxed, Run, Tree, bits, params};

const STEPS: usize = 7;

/// What the order of a norm's sum may change: a few ulp of `f64`, over the steps.
const SUM_ORDER: f64 = 1e-12;

pub(crate) type Build<A> = fn() -> Boxed<A>;

fn precise<A: Scalar>(precision: StatePrecision) -> Boxed<A> {
    Box::new(AdamW::new(0.01).state_precision(precision))
}

/// Chains that must agree to the last bit.
#[rustfmt::skip] // one chain, one line
pub(crate) fn chains<A: Scalar>() -> Vec<(&'static str, Build<A>)> {
    vec![
        ("sgd", || Box::new(Sgd::new(0.1))),
        ("momentum", || Box::new(Momentum::new(0.1, 0.9).weight_decay(0.01))),
        ("nesterov", || Box::new(Nesterov::new(0.1, 0.9))),
        ("rmsprop", || Box::new(RmsProp::new(0.01).centered(true).momentum(0.9))),
        ("amsgrad", || Box::new(Adam::new(Cosine::new(0.05, 5).warmup(2)).amsgrad(true))),
        ("adamw", || Box::new(AdamW::new(0.05))),
        ("groups", || Box::new(AdamW::new(0.05).group("*.bias", Group::no_decay()).group("b.**", Group::new().scale_learning_rate(0.1)))),
        ("groups of other values", || Box::new(AdamW::new(0.05).group("*.bias", Group::new().set("beta1", 0.5).set("eps", 1e-3)))),
        ("groups by shape", || Box::new(AdamW::new(0.05).weight_decay(0.5).group(|_: &str, shape: &[usize]| shape.len() < 2, Group::no_decay()))),
        ("freeze", || Box::new(AdamW::new(0.05).freeze("c.**").unfreeze_at(3, "c.bias"))),
        ("freeze all but one", || Box::new(AdamW::new(0.05).freeze(["a.**", "b.**", "c.**"]).ema(0.9).warmup(true))),
        ("ema", || Box::new(AdamW::new(0.05).ema(0.9).debiased(true))),
        ("lookahead", || Box::new(AdamW::new(0.05).lookahead(3, 0.5))),
        ("accumulate inside", || Box::new(AdamW::new(0.05).accumulate(3))),
        ("route", || Box::new(AdamW::new(0.05).route("a.**", Momentum::new(0.1, 0.9)))),
        ("clip_value", || Box::new(AdamW::new(0.05).clip_value(0.3))),
        ("clip_global_norm that is never reached", || Box::new(AdamW::new(0.05).clip_global_norm(f64::INFINITY))),
        ("numbers of a tensor", || Box::new(RAdamScheduleFree::new(Cosine::new(0.05, 5).warmup(2)).silent(false).weight_decay(0.1))),
        ("in bf16", || precise(StatePrecision::Bf16(Rounding::Stochastic))),
        ("in bf16, to nearest", || precise(StatePrecision::Bf16(Rounding::Nearest))),
        ("in 8 bits", || precise(StatePrecision::Blockwise8)),
        ("in 4 bits", || precise(StatePrecision::Blockwise4(Rounding::Stochastic))),
        ("in 4 bits, to nearest", || precise(StatePrecision::Blockwise4(Rounding::Nearest))),
        ("8 bits of momentum", || Box::new(Momentum::new(0.1, 0.9).state_precision(StatePrecision::Blockwise8))),
    ]
}

/// Chains of whole tensors.
#[rustfmt::skip] // one chain, one line
pub(crate) fn chains_by_tensor() -> Vec<(&'static str, Build<f64>)> {
    #[allow(unused_mut, reason = "only second-order adds to it")]
    let mut all: Vec<(&str, Build<f64>)> = vec![
        ("muon beside adamw", || Box::new(AdamW::new(0.05).route("*.weight", Muon::new(0.02)))),
        ("heads of muon", || Box::new(AdamW::new(0.05).route("*.weight", Muon::new(0.02).blocks(MuonBlocks::Rows(1))))),
        ("blocks", || Box::new(AdaMuon::new(0.02).blocks(MuonBlocks::LeadingAxes)
            .route("b.weight", NorMuon::new(0.02).blocks(MuonBlocks::Rows(1)))
            .route("c.weight", NorMuon::new(0.02).blocks(MuonBlocks::Parts(4)))
            .route("*.{bias,scale}", AdamW::new(0.05)).route(["d"], AdamW::new(0.05)))),
        ("dion beside scion", || Box::new(Scion::new(0.02).route("*.weight", Dion::new(0.02).rank_fraction(0.25)))),
        ("norms of tensors", || Box::new(Mars::new(0.05).route("*.bias", NovoGrad::new(0.05)))),
        ("clip_per_tensor_norm", || Box::new(AdamW::new(0.05).clip_per_tensor_norm(0.5).p(1.0))),
        ("clip_adaptive", || Box::new(AdamW::new(0.05).clip_adaptive(0.1))),
        ("numbers of a tensor", || Box::new(SgdScheduleFree::new(Cosine::new(0.05, 5).warmup(2)))),
        ("kept norms", || Box::new(AdamW::new(0.05).keep_norm(true).route("*.weight", Muon::new(0.02).keep_norm(true)))),
        ("blocks of adam-mini", || Box::new(AdamMini::new(0.05).blocks("*.weight", AdamMiniBlocks::Rows).blocks("**.bias", AdamMiniBlocks::Elements))),
        ("bounds of rows and columns", || Box::new(Sm3::new(0.05).momentum(0.9))),
        ("confidence of rows and columns", || Box::new(Came::new(0.005).weight_decay(0.1))),
        ("subspaces", || Box::new(AdamW::new(0.05).route("*.weight", Apollo::new(0.02).rank(2)).route("c.weight", ApolloMini::new(0.01)))),
        ("kept norms of rows and columns", || Box::new(Adafactor::new(0.05).keep_norm(true))),
    ];
    #[cfg(feature = "second-order")]
    all.extend([
        ("shampoo", (|| Box::new(AdamW::new(0.05).route("*.weight", Shampoo::new(0.02)))) as Build<f64>),
        ("galore", || Box::new(AdamW::new(0.05).route("*.weight", GaLore::new(0.02).rank(2)))),
        ("soap", || Box::new(AdamW::new(0.05).route("*.weight", Soap::new(0.02)))),
        ("kron", || Box::new(AdamW::new(0.05).route("*.weight", Kron::new(0.02).update_probability(0.5)))),
    ]);
    all
}

/// This rank's parameters after each step are those of one process, and so are the reports.
pub(crate) fn equals_one_process<A: Scalar>(
    group: &impl Collective<A>,
    run: &Run<A>,
    name: &str,
    build: Build<A>,
    by_tensor: bool,
) {
    let ranks = group.size();
    let (mut sharded, mut alone) = (build().sharded(group), build());
    if by_tensor {
        sharded = sharded.by_tensor();
    }
    let (mut own, mut expected) = (params::<A>(), params::<A>());
    for step in 0..STEPS {
        let found = run.train(&mut sharded, &mut own, step..step + 1);
        let reports = run.train_alone(&mut alone, &mut expected, step..step + 1);
        assert!(bits(&own) == bits(&expected), "{name} on {ranks} ranks, step {step}");
        assert_eq!(found[0].moved, reports[0].moved, "{name}, step {step}");
        assert_eq!(found[0].learning_rate, reports[0].learning_rate, "{name}, step {step}");
    }
    assert_eq!(sharded.steps(), alone.steps());
}

/// All chains on all numbers of ranks, with the same numbers.
fn on_ranks<A: Scalar>(ranks: impl IntoIterator<Item = usize>, chains: &[(&'static str, Build<A>)], by_tensor: bool) {
    for ranks in ranks {
        let run = Run::new(ranks, STEPS as u64);
        ThreadGroup::run(ranks, |group| {
            chains.iter().for_each(|(name, build)| equals_one_process::<A>(&group, &run, name, *build, by_tensor));
        });
    }
}

#[test]
fn steps_are_those_of_one_process() {
    on_ranks(1..=5, &chains::<f64>(), false);
    on_ranks([3], &chains::<f32>(), false);
}

#[test]
fn steps_by_tensor_are_those_of_one_process() {
    on_ranks([1, 2, 4], &chains_by_tensor(), true);
    on_ranks([3], &chains::<f64>(), true);
}

/// Each rank scales the weights that it has.
fn clips_logits(group: &impl Collective<f64>, run: &Run<f64>) {
    let build = || AdamW::new(0.05).qk_clip(100.0);
    let (mut sharded, mut alone) = (build().sharded(group).by_tensor(), build());
    let (mut own, mut expected) = (params::<f64>(), params::<f64>());
    for step in 0..STEPS {
        // 80 heads of one row, which share one key head.
        let logits = (0..80).map(|head| 20.0 * (head % 8 * (step + 1)) as f64);
        sharded.find_mut::<QkClip>().unwrap().observe("c.weight", "d", logits.clone()).unwrap();
        alone.observe("c.weight", "d", logits).unwrap();
        run.train(&mut sharded, &mut own, step..step + 1);
        run.train_alone(&mut alone, &mut expected, step..step + 1);
        assert!(bits(&own) == bits(&expected), "step {step} on {} ranks", group.size());
    }
}

#[test]
fn logits_are_clipped_on_the_rank_that_has_the_weights() {
    for ranks in [1, 2, 3] {
        let run = Run::new(ranks, STEPS as u64);
        ThreadGroup::run(ranks, |group| clips_logits(&group, &run));
    }
}

/// A norm is summed in another order.
pub(crate) fn clips_the_whole(group: &impl Collective<f64>, run: &Run<f64>, by_tensor: bool) {
    for p in [1.0, 2.0, 3.0, f64::INFINITY] {
        let build = || AdamW::new(0.05).clip_global_norm(0.05).p(p);
        let (mut sharded, mut alone) = (build().sharded(group), build());
        if by_tensor {
            sharded = sharded.by_tensor();
        }
        let (mut own, mut expected) = (params(), params());
        let found = run.train(&mut sharded, &mut own, 0..STEPS);
        let reports = run.train_alone(&mut alone, &mut expected, 0..STEPS);
        for (found, expected) in found.iter().zip(&reports) {
            let (found, expected) = (found.grad_norm.unwrap(), expected.grad_norm.unwrap());
            assert!(expected > 0.05 && (found - expected).abs() <= SUM_ORDER * expected, "{found} {expected}");
        }
        for (found, expected) in own.values().flatten().zip(expected.values().flatten()) {
            assert!((found - expected).abs() <= SUM_ORDER * expected.abs().max(1.0), "{found} {expected}");
        }
    }
}

#[test]
fn a_global_norm_is_that_of_the_whole_mean_gradient() {
    for ranks in 1..=5 {
        let run = Run::new(ranks, STEPS as u64);
        ThreadGroup::run(ranks, |group| {
            clips_the_whole(&group, &run, false);
            clips_the_whole(&group, &run, true);
        });
    }
}

/// Where the elements lie does not matter: strided, turned, backwards.
fn any_layout(group: &impl Collective<f64>) {
    let rank = group.rank() as f64;
    let value = |at: usize| (at as f64 * 0.7).sin();
    let mut memory = (
        Array2::from_shape_fn((60, 40), |(i, j)| value(i * 40 + j)),
        Array3::from_shape_fn((9, 8, 14), |(i, j, k)| value(i + j * 9 + k * 72)),
        Array1::from_shape_fn(1200, value),
    );
    let outside = memory.0.slice(s![1..;2, ..]).to_owned();
    let grads = (
        Array2::from_shape_fn((30, 40), |(i, j)| value(i + 30 * j) + rank),
        Array3::from_shape_fn((14, 9, 8), |(i, j, k)| value(7 * i + j + k) - rank),
        Array1::from_shape_fn(600, |at| value(3 * at) * (rank + 1.0)),
    );
    let turned = memory.1.view().permuted_axes([2, 0, 1]).as_standard_layout().to_owned();
    let mut copies = (memory.0.slice(s![..;2, ..]).to_owned(), turned, memory.2.slice(s![..;-2]).to_owned());
    let (mut strided, mut plain) = (AdamW::new(0.1).sharded(group), AdamW::new(0.1).sharded(group));
    for _ in 0..3 {
        let mut views = (
            memory.0.slice_mut(s![..;2, ..]),
            memory.1.view_mut().permuted_axes([2, 0, 1]),
            memory.2.slice_mut(s![..;-2]),
        );
        strided.step(&mut views, &grads).unwrap();
        plain.step(&mut copies, &grads).unwrap();
    }
    assert_eq!(memory.0.slice(s![..;2, ..]), copies.0);
    assert_eq!(memory.1.view().permuted_axes([2, 0, 1]), copies.1);
    assert_eq!(memory.2.slice(s![..;-2]), copies.2);
    assert_eq!(memory.0.slice(s![1..;2, ..]), outside);
}

#[test]
fn parameters_and_gradients_may_lie_anyhow() {
    ThreadGroup::run(3, |group| any_layout(&group));
}

/// Large steps of several micro-batches, of which only the last communicates.
fn accumulates_outside(group: &impl Collective<f64>) {
    let (rank, ranks) = (group.rank(), group.size());
    let grad = |rank: usize, call: usize| Array1::from_shape_fn(700, |at| ((at + 31 * rank + 7 * call) as f64).sin());
    let mut opt = AdamW::new(0.1).sharded(group).accumulate(2);
    let mut alone = AdamW::new(0.1);
    let (mut own, mut expected) = (Array1::zeros(700), Array1::zeros(700));
    for call in 0..6 {
        let report = opt.step(&mut own, &grad(rank, call)).unwrap();
        assert_eq!(report.moved, call % 2 == 1);
        if call % 2 == 1 {
            let large = |rank| (grad(rank, call - 1) + grad(rank, call)) * 0.5;
            let sum = (1..ranks).fold(large(0), |sum, rank| sum + large(rank));
            alone.step(&mut expected, &(sum / ranks as f64)).unwrap();
        }
        assert!(own == expected, "call {call}");
    }
}

/// What follows the parameters follows all of them, on every rank.
fn averages_outside(group: &impl Collective<f64>, run: &Run<f64>) {
    let mut own = params();
    let (mut opt, mut alone) =
        (AdamW::new(0.1).sharded(group).ema(0.9).freeze("a.**"), AdamW::new(0.1).ema(0.9).freeze("a.**"));
    let mut expected = params();
    let rank = group.rank();
    for step in 0..STEPS {
        opt.step(&mut own, run.own(rank, step)).unwrap();
        run.train_alone(&mut alone, &mut expected, step..step + 1);
    }
    assert!(bits(&own) == bits(&expected));
    let (mut average, mut other): (Tree<f64>, Tree<f64>) = (params(), params());
    opt.inner().read(&mut average).unwrap();
    alone.inner().read(&mut other).unwrap();
    assert!(bits(&average) == bits(&other) && bits(&average) != bits(&own));
}

#[test]
fn adaptors_outside_see_all_parameters() {
    for ranks in [1, 2, 4] {
        let run = Run::new(ranks, STEPS as u64);
        ThreadGroup::run(ranks, |group| {
            accumulates_outside(&group);
            averages_outside(&group, &run);
        });
    }
}

/// Ranks that begin differently go on with the parameters of rank 0.
fn begins_with_rank_0(group: &impl Collective<f64>, early: bool) {
    let begin = |rank: usize| Array2::from_shape_fn((20, 30), |(i, j)| (i * j + 100 * rank) as f64);
    let (mut opt, mut alone) = (Momentum::new(0.1, 0.9).sharded(group), Momentum::new(0.1, 0.9));
    let (mut own, mut expected) = (begin(group.rank()).reversed_axes(), begin(0).reversed_axes());
    if early {
        opt.broadcast(&mut own).unwrap();
        assert!(own == expected);
    }
    for _ in 0..2 {
        let grads = own.mapv(|_| 1.0);
        opt.step(&mut own, &grads).unwrap();
        alone.step(&mut expected, &grads).unwrap();
        assert!(own == expected);
    }
}

/// A tree with a gap.
fn broadcasts_what_is_there(group: &impl Collective<f64>) {
    let rank = group.rank() as f64;
    let mut opt = Sgd::new(1.0).sharded(group);
    let mut params = (array![rank], None::<Array1<f64>>, Some(array![[rank, 1.0], [2.0, rank]].reversed_axes()));
    opt.broadcast(&mut params).unwrap();
    assert!(params == (array![0.0], None, Some(array![[0.0, 2.0], [1.0, 0.0]])));
}

#[test]
fn parameters_are_those_of_rank_0() {
    for ranks in 1..=3 {
        ThreadGroup::run(ranks, |group| {
            broadcasts_what_is_there(&group);
            begins_with_rank_0(&group, false);
            begins_with_rank_0(&group, true);
        });
    }
}

/// More ranks than elements, none at all, and no gradient.
fn little_to_do(group: &impl Collective<f64>) {
    let mut opt = Adam::new(Cosine::new(0.1, 10)).clip_global_norm(1.0).sharded(group);
    let mut params = (array![1.0], Array1::<f64>::zeros(0), array![2.0]);
    let report = opt.step(&mut params, &(None::<Array1<f64>>, None::<Array1<f64>>, None::<Array1<f64>>)).unwrap();
    assert!(!report.moved && opt.steps() == 1);
    let report = opt.step(&mut params, &(None::<Array1<f64>>, Array1::zeros(0), array![3.0])).unwrap();
    assert!(report.moved && opt.steps() == 2 && report.grad_norm == Some(3.0));
    assert!(params.0 == array![1.0] && params.2[0] < 2.0);

    let mut nothing: Vec<Array1<f64>> = Vec::new();
    let mut opt = Adam::new(0.1).sharded(group);
    assert!(!opt.step(&mut nothing, &Vec::<Array1<f64>>::new()).unwrap().moved);
}

#[test]
fn ranks_without_elements_take_part() {
    (1..=5).for_each(|ranks| drop(ThreadGroup::run(ranks, |group| little_to_do(&group))));
}

/// The share of each rank, and a block.
fn holds_its_share(group: &impl Collective<f64>, precision: StatePrecision) {
    const BLOCK: usize = 256;
    let build = || AdamW::new(0.1).state_precision(precision);
    let (mut opt, mut alone) = (build().sharded(group), build());
    let mut params = (Array2::<f64>::zeros((90, 100)), Array1::<f64>::zeros(333), Array1::<f64>::zeros(5000));
    let grads = params.clone();
    opt.step(&mut params, &grads).unwrap();
    alone.step(&mut params, &grads).unwrap();
    let (slots, element) = (2, size_of::<f64>());
    let most = alone.state_bytes().div_ceil(group.size()) + BLOCK * slots * element;
    assert!(opt.inner().state_bytes() <= most, "{} of {}", opt.inner().state_bytes(), alone.state_bytes());
    // Beside state in 4 bits, the full state of a small tensor is a large part.
    let times = if matches!(precision, StatePrecision::Blockwise4(_)) { 2 } else { 3 };
    assert!(group.size() < 5 || opt.inner().state_bytes() * times < alone.state_bytes());
}

#[test]
fn state_is_a_share_and_at_most_a_block() {
    let precisions = [
        StatePrecision::Full,
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Stochastic),
    ];
    for ranks in 1..=5 {
        ThreadGroup::run(ranks, |group| {
            precisions.into_iter().for_each(|precision| holds_its_share(&group, precision))
        });
    }
}

/// What a step on so many rows allocates, when there have been some.
fn allocated(group: &impl Collective<f32>, rows: usize) -> (u64, u64) {
    let mut opt = AdamW::new(0.1).clip_global_norm(1.0).ema(0.9).sharded(group);
    let (mut params, grads) = (Array2::zeros((rows, 64)), Array2::ones((rows, 64)));
    // All in one thread, which is the one whose allocations are counted.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
        let info = allocation_counter::measure(|| _ = opt.step(&mut params, &grads).unwrap());
        (info.count_total, info.bytes_total)
    })
}

#[test]
fn a_step_allocates_nothing_that_grows_with_the_elements() {
    // Of all ranks together: where they meet, it is the last to come that makes the list of who is there.
    let of_all = |rows: usize| {
        let ranks = ThreadGroup::run(2, |group| allocated(&group, rows));
        ranks.into_iter().fold((0, 0), |sum, rank| (sum.0 + rank.0, sum.1 + rank.1))
    };
    let (small, large) = (of_all(64), of_all(1024));
    assert!(small.0 > 0, "the counter counts");
    assert_eq!(small, large);
}
