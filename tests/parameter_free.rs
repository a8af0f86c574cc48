//! Optimizers that find their learning rate from all tensors of a step together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "shared/digits.rs"]
mod digits;

use digits::{Network, digits};
use gradus::error::StepError;
use gradus::rule::{Rounding, Rule, StatePrecision};
use gradus::schedule::Cosine;
use gradus::{
    Adam, DAdaptAdam, DAdaptSgd, DoG, DoWG, Error, Optimizer, OptimizerExt, Prodigy, adaptor::Group, rule::Elementwise,
};
use ndarray::{Array1, Array2, array};

type Pair = (Array1<f64>, Array2<f64>);

fn wave(elements: usize, phase: f64) -> Array1<f64> {
    Array1::from_shape_fn(elements, |i| (i as f64 * 0.73 + phase).sin())
}

fn pair(phase: f64) -> Pair {
    (wave(7, phase), wave(1200, 2.0 * phase).into_shape_with_order((40, 30)).unwrap())
}

/// Along the parameters and with noise, so that estimates grow.
fn grads_at((a, b): &Pair, step: u32) -> Pair {
    let noise = pair(f64::from(step));
    (a + &noise.0 * 0.3 + 1.0, b + &noise.1 * 0.3 + 1.0)
}

fn steps(opt: &mut impl Optimizer<f64>, params: &mut Pair, range: std::ops::Range<u32>) {
    for step in range {
        let grads = grads_at(params, step);
        opt.step(params, &grads).unwrap();
    }
}

/// Calls a macro with each optimizer and how to read its estimate.
macro_rules! for_each {
    ($call:ident) => {
        $call(Prodigy::new(1.0), |opt| opt.d());
        $call(DAdaptAdam::new(1.0), |opt| opt.d());
        $call(DAdaptSgd::new(1.0), |opt| opt.d());
        $call(DoG::new(1.0), |opt| opt.step_size().unwrap_or(0.0));
        $call(DoWG::new(1.0), |opt| opt.step_size().unwrap_or(0.0));
    };
}

#[test]
fn an_error_changes_no_estimate() {
    fn check<R: Rule<f64> + Clone>(mut opt: Elementwise<R, f64>, found: fn(&Elementwise<R, f64>) -> f64) {
        let mut params = pair(0.0);
        assert_eq!(found(&opt), 0.0);
        for calls in 0..3 {
            let (before, state, estimate) = (params.clone(), opt.state_dict(), found(&opt));
            for (wrong, overflows) in [(f64::NAN, false), (f64::INFINITY, false), (1e200, true)] {
                let mut grads = pair(1.0);
                grads.1[[3, 2]] = wrong;
                let error = opt.step(&mut params, &grads).unwrap_err();
                let named = match &error {
                    Error::Step(StepError::NonFiniteGradient { path, index, .. }) => {
                        !overflows && path == "1" && *index == [3, 2]
                    }
                    Error::Step(StepError::NormOverflow { path }) => overflows && path == "1",
                    _ => false,
                };
                // Only squares overflow.
                assert!(named, "{error}");
                assert!(params == before && opt.state_dict() == state && found(&opt) == estimate, "{error}");
            }
            steps(&mut opt, &mut params, calls..calls + 1);
        }
    }
    fn check_finite<R: Rule<f64> + Clone>(mut opt: Elementwise<R, f64>) {
        let mut params = pair(0.0);
        params.0[2] = f64::NAN;
        let (before, state) = (format!("{params:?}"), opt.state_dict());
        let error = opt.step(&mut params, &pair(1.0)).unwrap_err();
        assert!(
            matches!(&error, Error::Step(StepError::NonFiniteParameter { path, index, .. }) if path == "0" && *index == [2]),
            "{error}"
        );
        assert!(format!("{params:?}") == before && opt.state_dict() == state);
    }
    check(DAdaptSgd::new(1.0), |opt| opt.d());
    check(DoG::new(1.0), |opt| opt.step_size().unwrap_or(0.0));
    check(DoWG::new(1.0), |opt| opt.step_size().unwrap_or(0.0));
    check_finite(DoG::new(1.0));
    check_finite(Prodigy::new(1.0).coupled_decay(true).weight_decay(0.1));
}

#[test]
fn a_tensor_without_a_gradient_has_no_part() {
    fn check<R: Rule<f64> + Clone>(opt: Elementwise<R, f64>, found: fn(&Elementwise<R, f64>) -> f64) {
        let (mut alone, mut beside, mut frozen) = (opt.clone(), opt.clone(), opt.clone().freeze("1"));
        let mut params = [pair(0.0), pair(0.0), pair(0.0)];
        for step in 0..5 {
            let (first, second) = grads_at(&params[0], step);
            let [a, b, c] = &mut params;
            alone.step(&mut a.0, &first).unwrap();
            beside.step(b, &(&first, None::<Array2<f64>>)).unwrap();
            frozen.step(c, &(first, second)).unwrap();
        }
        assert!(params[0] == params[1] && params[1] == params[2]);
        assert!(found(&alone) == found(&beside) && found(&beside) == found(frozen.inner()) && found(&alone) > 0.0);
    }
    for_each!(check);
}

#[test]
fn state_of_few_bits_finds_nearly_the_same() {
    fn check<R: Rule<f64> + Clone>(opt: Elementwise<R, f64>, found: fn(&Elementwise<R, f64>) -> f64) {
        let run = |precision: StatePrecision| {
            let (mut opt, mut params) = (opt.clone().state_precision(precision), pair(0.0));
            steps(&mut opt, &mut params, 0..40);
            found(&opt)
        };
        let full = run(StatePrecision::Full);
        for precision in [StatePrecision::Bf16(Rounding::Stochastic), StatePrecision::Blockwise8] {
            let ratio = run(precision) / full;
            assert!((0.8..1.25).contains(&ratio), "{opt:?} {precision:?}: {ratio}");
        }
    }
    for_each!(check);
}

#[test]
fn a_group_scales_steps_and_a_rate_of_0_rests() {
    let mut resting = Prodigy::new(1.0).group("1", Group::new().scale_learning_rate(0.0));
    let (mut alone, mut params) = (Prodigy::new(1.0), [pair(0.0), pair(0.0)]);
    for step in 0..10 {
        let grads = grads_at(&params[0], step);
        resting.step(&mut params[0], &grads).unwrap();
        alone.step(&mut params[1].0, &grads.0).unwrap();
    }
    assert!(params[0] == params[1] && resting.inner().d() == alone.d() && alone.d() > 1e-4);

    // All tensors in a group are as with that learning rate.
    let (mut halved, mut half) =
        (DAdaptSgd::new(1.0).group("**", Group::new().scale_learning_rate(0.5)), DAdaptSgd::new(0.5));
    let mut params = [pair(0.0), pair(0.0)];
    steps(&mut halved, &mut params[0], 0..10);
    steps(&mut half, &mut params[1], 0..10);
    assert!(params[0] == params[1] && halved.inner().d() == half.d());
}

#[test]
fn the_estimate_is_read_through_a_chain_and_saved() {
    let mut opt = Prodigy::new(1.0).clip_global_norm(10.0).accumulate(2);
    let mut params = pair(0.0);
    steps(&mut opt, &mut params, 0..12);
    let d = opt.find::<Prodigy<f64>>().unwrap().d();
    assert!(d > 1e-6);
    let mut resumed = Prodigy::<f64>::new(1.0).clip_global_norm(10.0).accumulate(2);
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!(resumed.find::<Prodigy<f64>>().unwrap().d(), d);
    let mut state = opt.state_dict();
    state.insert_text("accumulate/prodigy/d", f64::NAN);
    assert!(resumed.load_state_dict(&state).is_err());
    // DoG and L-DoG remember different things.
    let (mut dog, mut layerwise) = (DoG::new(1.0), DoG::<f64>::new(1.0).layerwise(true));
    steps(&mut dog, &mut params, 0..2);
    assert!(layerwise.load_state_dict(&dog.state_dict()).is_err());
}

/// The same numbers on all ranks, and but for the order of the sums those of one process.
#[cfg(feature = "distributed")]
#[test]
fn ranks_find_the_same() {
    use gradus::distributed::{RankGroup, ThreadGroup};

    fn check<R: Rule<f64> + Clone>(opt: Elementwise<R, f64>, found: fn(&Elementwise<R, f64>) -> f64) {
        let (mut alone, mut expected) = (opt.clone(), pair(0.0));
        steps(&mut alone, &mut expected, 0..12);
        for ranks in [1, 2, 3] {
            let ends = ThreadGroup::run(ranks, |group| {
                let rank = group.rank() as f64 - (ranks - 1) as f64 / 2.0;
                let (mut cut, mut whole) = (opt.clone().sharded(&group), opt.clone().data_parallel(&group));
                let mut params = [pair(0.0), pair(0.0)];
                let own = |params: &Pair, step: u32| {
                    let (a, b) = grads_at(params, step);
                    (a + rank, b + rank) // so that the mean is that of one process
                };
                for step in 0..12 {
                    let grads = own(&params[0], step);
                    cut.step(&mut params[0], &grads).unwrap();
                    let grads = own(&params[1], step);
                    whole.step(&mut params[1], &grads).unwrap();
                }
                (params, [found(cut.inner()), found(whole.inner())])
            });
            let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-9 * expected.abs();
            for (params, estimates) in &ends {
                assert_eq!((params, estimates), (&ends[0].0, &ends[0].1));
                assert!(
                    estimates.iter().all(|estimate| near(*estimate, found(&alone))),
                    "{estimates:?} {}",
                    found(&alone)
                );
                let all = params.iter().flat_map(|params| params.1.iter().zip(&expected.1));
                assert!(all.into_iter().all(|(found, expected)| (found - expected).abs() < 1e-9));
            }
        }
    }
    for_each!(check);
}

#[cfg(feature = "distributed")]
#[test]
fn layer_by_layer_needs_whole_tensors() {
    use gradus::distributed::ThreadGroup;

    let results = ThreadGroup::run(2, |group| {
        let mut params = pair(0.0);
        let cut = DoG::new(1.0).layerwise(true).sharded(&group).step(&mut params, &pair(1.0)).is_err();
        let whole = DoG::new(1.0).layerwise(true).sharded(&group).by_tensor().step(&mut params, &pair(1.0)).is_ok();
        (cut, whole)
    });
    assert_eq!(results, [(true, true); 2]);
}

/// The published claim: without a search, the rate that a search would find.
#[test]
fn prodigy_finds_the_best_rate_of_adam_on_digits() {
    const STEPS: u64 = 200;
    const BATCH: usize = 100;
    const TRAINED: usize = 1500;
    let (pixels, labels) = digits();
    let rows = |from: usize, to: usize| (pixels.slice(ndarray::s![from..to, ..]).to_owned(), &labels[from..to]);
    let train = |opt: &mut dyn Optimizer<f64>| {
        let mut network = Network::new();
        for step in 0..STEPS as usize {
            let start = step * BATCH % TRAINED;
            let (pixels, labels) = rows(start, start + BATCH);
            let (_, grads) = network.backward(&pixels, labels);
            opt.step(&mut network, &grads).unwrap();
        }
        let (pixels, labels) = rows(TRAINED, labels.len());
        network.backward(&pixels, labels).0
    };
    let rates = (-8..=-2).map(|third| 10.0_f64.powf(f64::from(third) / 3.0));
    let losses: Vec<_> = rates.map(|rate| (rate, train(&mut Adam::new(Cosine::new(rate, STEPS))))).collect();
    let best = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let mut prodigy = Prodigy::new(Cosine::new(1.0, STEPS));
    let loss = train(&mut prodigy);
    println!("Adam: {losses:.4?}; Prodigy: d {:.4}, loss {loss:.4}", prodigy.d());
    assert!((0.5..2.0).contains(&(prodigy.d() / best.0)), "{} of {losses:?}", prodigy.d());
    assert!(loss < 1.3 * best.1, "{loss} of {losses:?}");
}

#[test]
fn an_estimate_of_several_tensors_by_hand() {
    let mut opt = Prodigy::new(1.0).beta1(0.0).beta2(0.25).eps(0.0).d0(0.5);
    let mut w = (array![1.0], array![1.0]);
    // v = 0.75·(0.5g)², so that a step is 0.5·g/(√0.75·|g|)
    opt.step(&mut w, &(array![2.0], array![-4.0])).unwrap();
    let length = 0.5 / 0.75_f64.sqrt();
    assert!((w.0[0] - (1.0 - length)).abs() < 1e-15 && (w.1[0] - (1.0 + length)).abs() < 1e-15);
    assert_eq!(opt.d(), 0.5);
    // s = 0.5·(0.5·0.5)… with β₃ = 0.5: s = 0.75·0.5·g, r = 0.5·(2 + 4)·length
    opt.step(&mut w, &(array![2.0], array![-4.0])).unwrap();
    let estimate = 0.5 * 6.0 * length / (0.75 * 6.0);
    assert!((opt.d() - estimate.max(0.5)).abs() < 1e-15, "{}", opt.d());
}
