//! Options that every optimizer has, against the formulas in their docs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::rule::{Rounding, StatePrecision};
use gradus::{
    AdEMAMix, AdaBelief, Adafactor, Adam, AdamW, Adan, Adopt, LaProp, Lion, Madgrad, Momentum, Muon, Nesterov,
    Optimizer, OptimizerExt, RmsProp, Rprop, Sgd, SignSgd, Signum, Yogi,
};
use ndarray::{Array1, Array2, ShapeBuilder, Zip, s};

/// The direction is the difference of two parameters, which are near 1.
const TOLERANCE: f64 = 1e-11;

const LEARNING_RATE: f64 = 0.01;

fn wave(shape: (usize, usize), phase: f64) -> Array2<f64> {
    Array2::from_shape_fn(shape, |(i, j)| (i as f64 * 1.3 + j as f64 * 0.37 + phase).sin())
}

#[derive(Clone, Copy)]
struct Case {
    cautious: bool,
    trust_ratio: bool,
    /// λ of coupled and of decoupled weight decay.
    coupled: f64,
    decoupled: f64,
}

/// What the options make of a step that the optimizer takes without them.
fn expected(param: &Array2<f64>, plain: &Array2<f64>, grad: &Array2<f64>, case: Case) -> Array2<f64> {
    let Case { cautious, trust_ratio, coupled, decoupled } = case;
    let mut direction = (param * (1.0 - LEARNING_RATE * decoupled) - plain) / LEARNING_RATE;
    if cautious {
        let grad = grad + &(param * coupled);
        Zip::from(&mut direction).and(&grad).for_each(|d, g| *d = if *d * g > 0.0 { *d } else { 0.0 });
        let agreeing = direction.iter().filter(|d| **d != 0.0).count() as f64;
        direction *= direction.len() as f64 / (agreeing + 1.0);
    }
    let update = direction + param * decoupled;
    let norm = |array: &Array2<f64>| array.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (length, of_update) = (norm(param), norm(&update));
    let ratio = if trust_ratio && length > 0.0 && of_update > 0.0 { length / of_update } else { 1.0 };
    param - update * (LEARNING_RATE * ratio)
}

/// Steps with the options, each beside the same step without them.
fn agrees<O: Optimizer<f64> + Clone + std::fmt::Debug>(opt: O, case: Case, with: impl Fn(O, bool, bool) -> O) {
    for shape in [(1, 1), (7, 3), (90, 400)] {
        let mut opt = with(opt.clone(), case.cautious, case.trust_ratio);
        let mut param = wave(shape, 0.5);
        for step in 0..4 {
            let grad = wave(shape, 0.9 * f64::from(step));
            let (mut plain, mut without) = (param.clone(), with(opt.clone(), false, false));
            without.step(&mut plain, &grad).unwrap();
            let expected = expected(&param, &plain, &grad, case);
            opt.step(&mut param, &grad).unwrap();
            let error = (&param - &expected).iter().fold(0.0, |most: f64, error| error.abs().max(most));
            assert!(error < TOLERANCE, "{opt:?} at {shape:?}, step {step}: {error:e}");
        }
    }
}

/// Calls a macro with each optimizer and the λ of its decay: coupled, decoupled.
macro_rules! for_each_optimizer {
    ($call:ident) => {
        $call!(Sgd::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0);
        $call!(Momentum::new(LEARNING_RATE, 0.9), 0.0, 0.0);
        $call!(Momentum::new(LEARNING_RATE, 0.9).classical(true), 0.0, 0.0);
        $call!(Nesterov::new(LEARNING_RATE, 0.9).weight_decay(0.2), 0.2, 0.0);
        $call!(RmsProp::new(LEARNING_RATE).momentum(0.5), 0.0, 0.0);
        $call!(Adam::new(LEARNING_RATE).amsgrad(true).weight_decay(0.1), 0.1, 0.0);
        $call!(AdamW::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Lion::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdaBelief::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Signum::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(SignSgd::new(LEARNING_RATE), 0.0, 0.0);
        $call!(Yogi::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(LaProp::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(AdEMAMix::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adopt::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adan::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Madgrad::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0);
        $call!(Rprop::new(LEARNING_RATE).weight_decay(0.1), 0.1, 0.0); // its direction is the whole step
        $call!(Muon::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adafactor::new(LEARNING_RATE).weight_decay(0.3), 0.0, 0.3);
        $call!(Adafactor::new(LEARNING_RATE).beta1(0.9), 0.0, 0.0);
    };
}

#[test]
fn every_option_of_every_optimizer_is_the_formula() {
    macro_rules! check {
        ($opt:expr, $coupled:expr, $decoupled:expr) => {
            for (cautious, trust_ratio) in [(true, false), (false, true), (true, true)] {
                let case = Case { cautious, trust_ratio, coupled: $coupled, decoupled: $decoupled };
                agrees($opt, case, |opt, cautious, ratio| opt.cautious(cautious).trust_ratio(ratio));
            }
        };
    }
    for_each_optimizer!(check);
}

#[test]
fn layouts_do_not_change_the_bits() {
    let shape = (61, 83);
    for precision in [StatePrecision::Full, StatePrecision::Bf16(Rounding::Nearest)] {
        let opt = || AdamW::<f64>::new(0.01).cautious(true).trust_ratio(true).state_precision(precision);
        let mut rows = wave(shape, 0.0);
        let mut columns = Array2::zeros(shape.f());
        columns.assign(&rows);
        let mut wide = Array2::zeros((2 * shape.0, 2 * shape.1));
        wide.slice_mut(s![..;2, ..;2]).assign(&rows);
        let (mut by_rows, mut by_columns, mut by_slices) = (opt(), opt(), opt());
        for step in 0..3 {
            let grads = wave(shape, f64::from(step));
            by_rows.step(&mut rows, &grads).unwrap();
            by_columns.step(&mut columns, &grads).unwrap();
            by_slices.step(&mut wide.slice_mut(s![..;2, ..;2]), &grads).unwrap();
        }
        assert_eq!(rows, columns, "{precision:?}");
        assert_eq!(rows, wide.slice(s![..;2, ..;2]), "{precision:?}");
    }
}

/// In 8 bits the blocks go along the memory, so that the bits depend on the layout.
#[test]
fn eight_bits_of_state_lead_to_nearly_the_same_step() {
    let shape = (80, 90);
    let run = |precision, columns: bool| {
        let mut opt = AdamW::<f64>::new(0.01).cautious(true).trust_ratio(true).state_precision(precision);
        let mut param = if columns { Array2::zeros(shape.f()) } else { Array2::zeros(shape) };
        param.assign(&wave(shape, 0.0));
        for step in 0..5 {
            opt.step(&mut param, &wave(shape, 0.2 * f64::from(step))).unwrap();
        }
        param
    };
    let (exact, start) = (run(StatePrecision::Full, false), wave(shape, 0.0));
    let moved = (&exact - &start).mapv(f64::abs).sum();
    for columns in [false, true] {
        let error = (run(StatePrecision::Blockwise8, columns) - &exact).mapv(f64::abs).sum();
        assert!(error < 0.1 * moved, "{columns}: {error} of {moved}");
    }
}

#[cfg(feature = "rayon")]
#[test]
fn threads_do_not_change_the_bits() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut opt = AdamW::<f64>::new(0.01).cautious(true).trust_ratio(true);
            let mut param = wave((500, 700), 0.0);
            (0..3).for_each(|step| _ = opt.step(&mut param, &wave((500, 700), f64::from(step))).unwrap());
            param
        })
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn a_cautious_step_by_hand() {
    // The second step's direction is 0.9·1 + g: (1.9, 0.4, 0.9); the gradients are 1, -0.5 and 0.
    let mut opt = Momentum::new(1.0, 0.9).cautious(true);
    let mut w = Array1::from(vec![0.0, 0.0, 0.0]);
    opt.step(&mut w, &Array1::from(vec![1.0, 1.0, 1.0])).unwrap();
    assert_eq!(w, Array1::from_elem(3, -0.75));
    opt.step(&mut w, &Array1::from(vec![1.0, -0.5, 0.0])).unwrap();
    assert_eq!(w, Array1::from(vec![-0.75 - 1.9 * 1.5, -0.75, -0.75]));
    assert_eq!(format!("{opt:?}"), "Momentum(learning_rate: 1, momentum: 0.9, cautious: true)");
}

#[test]
fn a_trust_ratio_by_hand() {
    let mut opt = Sgd::new(0.1).trust_ratio(true);
    let mut w = Array1::from(vec![3.0, 4.0]);
    opt.step(&mut w, &Array1::from(vec![0.0, 0.5])).unwrap();
    assert_eq!(w, Array1::from(vec![3.0, 3.5]));
    // Where nothing is, the ratio is 1.
    let mut zero = Array1::from(vec![0.0, 0.0]);
    Sgd::new(0.1).trust_ratio(true).step(&mut zero, &Array1::from(vec![1.0, 2.0])).unwrap();
    assert_eq!(zero, Array1::from(vec![-0.1, -0.2]));
    // A learning rate of 0 and a tensor without elements move nothing.
    Sgd::new(0.0).trust_ratio(true).step(&mut zero, &Array1::from(vec![1.0, 2.0])).unwrap();
    assert_eq!(zero, Array1::from(vec![-0.1, -0.2]));
    AdamW::new(0.1).trust_ratio(true).cautious(true).step(&mut Array1::<f32>::zeros(0), &Array1::zeros(0)).unwrap();
}

#[test]
fn a_rate_of_0_moves_nothing_in_any_form() {
    let rate = |step: u64| if step == 0 { 0.1 } else { 0.0 };
    let grads = Array1::from(vec![10.0]);
    let mut w = Array1::from(vec![1.0]);
    let mut opt = Momentum::new(rate, 0.9).classical(true).trust_ratio(true);
    opt.step(&mut w, &grads).unwrap();
    assert_eq!(w, Array1::from(vec![0.9]));
    opt.step(&mut w, &grads).unwrap();
    assert_eq!(w, Array1::from(vec![0.9]));
}

/// The smallest and the largest numbers of the type: a ratio beyond them is cut off, and no product of small numbers decides.
#[test]
fn numbers_at_the_ends_of_the_type() {
    let mut w = Array1::from(vec![1.0_f32, 1.0]);
    Sgd::new(0.1).trust_ratio(true).step(&mut w, &Array1::from(vec![1e-40, 0.0])).unwrap();
    assert!(w[0] < 1.0 && w[0] > 0.8 && w[1] == 1.0, "{w}");
    for (param, grad) in [(1e160_f64, 1e-160), (1e200, 1e-200), (1e-200, 1e200)] {
        let mut w = Array1::from(vec![param]);
        AdamW::new(0.1).trust_ratio(true).step(&mut w, &Array1::from(vec![grad])).unwrap();
        assert!(w[0].is_finite(), "{param} {grad}: {w}");
        let mut w = Array1::from(vec![param]);
        Sgd::new(0.1).trust_ratio(true).step(&mut w, &Array1::from(vec![grad])).unwrap();
        assert!(w[0].is_finite() && w[0] <= param, "{param} {grad}: {w}");
    }
    let mut w = Array1::from(vec![0.0_f32]);
    Sgd::new(0.1).cautious(true).step(&mut w, &Array1::from(vec![1e-23])).unwrap();
    assert!(w[0] < 0.0);
}

#[test]
fn clipping_comes_before_the_options() {
    // A gradient that is clipped no longer turns the momentum around, so that what agrees is another set.
    let (mut clipped, mut scaled) = (Array1::from(vec![3.0, 4.0]), Array1::from(vec![3.0, 4.0]));
    let momentum = || Momentum::new(0.1, 0.9).cautious(true);
    let (mut clip, mut plain) = (momentum().clip_global_norm(0.5).exact(true), momentum());
    for grads in [[0.3_f64, 0.4], [-30.0, 40.0]] {
        let grads = Array1::from(grads.to_vec());
        let norm: f64 = grads.dot(&grads).sqrt();
        clip.step(&mut clipped, &grads).unwrap();
        plain.step(&mut scaled, &(&grads * (0.5_f64 / norm).min(1.0))).unwrap();
    }
    assert!((&clipped - &scaled).iter().all(|error: &f64| error.abs() < 1e-15), "{clipped} {scaled}");
}

#[cfg(feature = "distributed")]
#[test]
fn parts_of_tensors_are_refused() {
    gradus::distributed::ThreadGroup::run(2, |group| {
        let mut opt = AdamW::<f64>::new(0.1).trust_ratio(true).sharded(group);
        let error = opt.step(&mut wave((2, 2), 0.0), &wave((2, 2), 1.0)).unwrap_err();
        assert!(error.to_string().contains("trust_ratio"), "{error}");
    });
}

#[test]
fn an_optimizer_with_options_keeps_every_law() {
    type Build = fn(gradus::Hyper) -> AdamW<f32>;

    let all: [(&str, Build); 3] = [
        ("cautious", |rate| AdamW::new(rate).cautious(true)),
        ("trust ratio", |rate| AdamW::new(rate).weight_decay(0.0).trust_ratio(true)),
        ("both", |rate| AdamW::new(rate).cautious(true).trust_ratio(true)),
    ];
    for (name, build) in all {
        let laws = gradus::testing::optimizer::<f32, _>(build).named(name).debug();
        if name == "trust ratio" { laws.run() } else { laws.decays().run() }
    }
}
