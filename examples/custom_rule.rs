//! Your own optimizer, adaptor and schedule, in your own crate.
//!
//! The first part below defines all three: the optimizer Lion (Chen et al., 2023, [arXiv:2302.06675](https://arxiv.org/abs/2302.06675)), an
//! adaptor that centralizes gradients (Yong et al., 2020, [arXiv:2004.01461](https://arxiv.org/abs/2004.01461)), and a schedule that holds its
//! value before it decays (Iyer et al., 2020, [arXiv:2003.03977](https://arxiv.org/abs/2003.03977)). The second part combines them with clipping
//! and compares them with Adam on a small regression. The last table shows that your own rule is as fast as a built-in one.
//!
//! ```sh
//! cargo run --release --example custom_rule
//! ```

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use gradus::check;
use gradus::prelude::*;
use gradus::rule::{At, Decay, Lanes, Rule};
use gradus::schedule::Memory;
use gradus::{Grad, Result, Step};
use ndarray::{Array1, Array2, Axis, Zip, array};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

gradus::hyper_parameters! {
    /// Lion, algorithm 2 of the paper: every element moves by the learning rate, in the direction of an average of gradients.
    struct OwnLion => OwnLionValues {
        /// The share of the average in the direction.
        beta1: 0.9, 0.0..1.0;
        /// The share of the average that is kept per step.
        beta2: 0.99, 0.0..1.0;
    }
}

impl<A: Scalar> Rule<A> for OwnLion {
    /// β₁, 1 − β₁, β₂ and 1 − β₂.
    type Coefficients = [A; 4];

    fn name(&self) -> &'static str {
        "own_lion"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, values: &OwnLionValues, at: &At) -> (f64, [A; 4]) {
        let OwnLionValues { beta1, beta2 } = *values;
        (at.learning_rate, [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(A::from_f64))
    }

    fn sweep(&self, coefficients: [A; 4], lanes: Lanes<'_, A>) {
        lanes.each(coefficients, |&[beta1, rest1, beta2, rest2], _, grad, [m]: [A; 1]| {
            (sign(beta1 * m + rest1 * grad), [beta2 * m + rest2 * grad])
        });
    }
}

/// −1, 0 or 1; `Float::signum` has no 0.
#[inline(always)]
fn sign<A: Scalar>(x: A) -> A {
    let positive = if x > A::zero() { A::one() } else { A::zero() };
    if x < A::zero() { -A::one() } else { positive }
}

/// Subtracts from every row of a matrix's gradient its mean: the gradient of each unit's weights then sums to zero.
fn centralize<A: Scalar>(step: &mut Step<'_, A>) -> Result<()> {
    for (info, grad) in step.grads_mut().filter(|(info, _)| info.shape().len() > 1) {
        let mut values = grad.to_array(info.shape());
        for mut row in values.outer_iter_mut() {
            let mean = row.sum() / A::from_f64(row.len() as f64);
            row.mapv_inplace(|g| g - mean);
        }
        *grad = Grad::from_array(values);
    }
    Ok(())
}

/// High for a while, to explore, then straight down to nothing.
struct Knee {
    peak: f64,
    explore: u64,
    steps: u64,
}

impl Schedule for Knee {
    fn at(&self, step: u64) -> f64 {
        let left = self.steps.saturating_sub(step) as f64 / (self.steps - self.explore) as f64;
        self.peak * left.min(1.0)
    }

    fn check(&self) -> Result<()> {
        Ok(()) // or an error that names an argument that makes no sense
    }

    fn memory(&self) -> Memory<'_> {
        Memory::none()
    }
}

// That was all of it; the rest uses it.

const STEPS: u64 = 3_000;
const BATCH: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    by_hand()?;
    check_gradient()?;

    // Lion gets a learning rate ten times smaller than Adam's, as its paper advises, and the same schedule.
    let knee = |peak| Knee { peak, explore: STEPS / 2, steps: STEPS }.warmup(100);
    let mut adam = Adam::new(knee(1e-2)).clip_global_norm(1.0);
    let mut ours = Elementwise::from_rule(OwnLion::default(), knee(1e-3)).clip_global_norm(1.0);
    let mut all_ours =
        Elementwise::from_rule(OwnLion::default(), knee(1e-3)).transform(centralize::<f32>).clip_global_norm(1.0);
    let contestants: [(_, &mut dyn Optimizer<f32>); 3] =
        [("Adam", &mut adam), ("Lion", &mut ours), ("Lion, centralized", &mut all_ours)];
    println!("{:<20} {:>22}", "", "root mean square error");
    println!("{:<20} {:>22.4}", "answering 0", TARGET_SCALE);
    for (name, opt) in contestants {
        let error = train(opt)?.error();
        println!("{name:<20} {error:>22.4}");
        assert!(error < TARGET_SCALE / 10.0, "{name} learns the function");
    }

    println!("\nnanoseconds per element, medians of {ROUNDS} interleaved rounds; both move 20 bytes for each");
    println!("{:>10} {:>10} {:>10} {:>8}", "elements", "Momentum", "Lion", "ratio");
    for elements in [1 << 12, 1 << 16, 1 << 20, 1 << 23] {
        let [momentum, lion] = nanoseconds(elements)?;
        println!("{elements:>10} {momentum:>10.3} {lion:>10.3} {:>8.2}", lion / momentum);
    }
    Ok(())
}

/// First steps of the rule, the adaptor and the schedule, with numbers that a head can follow.
fn by_hand() -> Result<()> {
    let rule = OwnLion::default().beta1(0.5).beta2(0.75);
    let mut opt = Elementwise::from_rule(rule, 0.5).weight_decay(0.5);
    let mut w = array![4.0, 0.0];
    opt.step(&mut w, &array![8.0, 0.0])?; // 4 decays to 3 and moves by −η
    assert_eq!(w, array![2.5, 0.0]);
    assert_eq!(opt.slot("", "exp_avg"), Some(array![2.0, 0.0].into_dyn()));
    opt.step(&mut w, &array![-4.0, 0.0])?; // 0.5·2 − 0.5·4 < 0: 2.5 decays to 1.875 and moves by +η
    assert_eq!(w, array![2.375, 0.0]);

    let mut w = array![[1.0, 2.0], [3.0, 4.0]];
    Sgd::new(1.0).transform(centralize::<f32>).step(&mut w, &array![[4.0, 2.0], [1.0, 3.0]])?; // the gradient less 3 and 2
    assert_eq!(w, array![[0.0, 3.0], [4.0, 3.0]]);

    let knee = Knee { peak: 8.0, explore: 10, steps: 14 };
    assert_eq!([0, 10, 11, 14, 99].map(|step| knee.at(step)), [8.0, 8.0, 6.0, 0.0, 0.0]);
    Ok(())
}

/// In f32 a difference quotient has three digits: enough to find what has been forgotten.
fn check_gradient() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut uniform = |bound: f32| rng.random_range(-bound..bound);
    let (mut net, points) = (Net::new(&mut uniform), Array2::from_shape_simple_fn((BATCH, 2), || uniform(1.0)));
    let (_, grads) = net.backward(&points);
    let found = check::gradients(&mut net, &grads, |net| net.backward(&points).0)?;
    println!("{found}\n");
    assert!(found.worst_error() < 1e-2);
    Ok(())
}

/// One hidden layer of tanh units.
#[derive(Params)]
struct Net {
    hidden: Array2<f32>,
    hidden_bias: Array1<f32>,
    output: Array1<f32>,
}

/// Trains a net on random points of the square.
fn train(opt: &mut dyn Optimizer<f32>) -> Result<Net> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut uniform = |bound: f32| rng.random_range(-bound..bound);
    let mut net = Net::new(&mut uniform);
    for _ in 0..STEPS {
        let points = Array2::from_shape_simple_fn((BATCH, 2), || uniform(1.0));
        let (_, grads) = net.backward(&points);
        opt.step(&mut net, &grads)?;
    }
    Ok(net)
}

/// The root mean square of [`target`] on the square.
const TARGET_SCALE: f32 = 0.46;

/// What is to be learned: a wave across the square from −1 to 1.
fn target(points: &Array2<f32>) -> Array1<f32> {
    points.map_axis(Axis(1), |point| (3.0 * point[0]).sin() * (2.0 * point[1]).cos())
}

impl Net {
    fn new(mut uniform: impl FnMut(f32) -> f32) -> Self {
        Self {
            hidden: Array2::from_shape_simple_fn((64, 2), || uniform(2.0)),
            hidden_bias: Array1::from_shape_simple_fn(64, || uniform(2.0)),
            output: Array1::from_shape_simple_fn(64, || uniform(0.1)),
        }
    }

    /// The states of the hidden units, and what the answers are too large by.
    fn forward(&self, points: &Array2<f32>) -> (Array2<f32>, Array1<f32>) {
        let hidden = (points.dot(&self.hidden.t()) + &self.hidden_bias).mapv_into(f32::tanh);
        let errors = hidden.dot(&self.output) - target(points);
        (hidden, errors)
    }

    /// Half the mean squared error, and its gradient.
    fn backward(&self, points: &Array2<f32>) -> (f32, Self) {
        let (hidden, errors) = self.forward(points);
        let loss = errors.dot(&errors) / (2 * BATCH) as f32;
        let errors = errors / BATCH as f32;
        let mut flow = errors.view().insert_axis(Axis(1)).dot(&self.output.view().insert_axis(Axis(0)));
        Zip::from(&mut flow).and(&hidden).for_each(|flow, hidden| *flow *= 1.0 - hidden * hidden);
        let grads =
            Self { hidden: flow.t().dot(points), hidden_bias: flow.sum_axis(Axis(0)), output: hidden.t().dot(&errors) };
        (loss, grads)
    }

    /// The root mean square error on a grid.
    fn error(&self) -> f32 {
        let grid = Array2::from_shape_fn((441, 2), |(i, j)| [i / 21, i % 21][j] as f32 / 10.0 - 1.0);
        let (_, errors) = self.forward(&grid);
        (errors.dot(&errors) / errors.len() as f32).sqrt()
    }
}

const ROUNDS: usize = 15;

/// The times of a Momentum step and of a Lion step, per element.
fn nanoseconds(elements: usize) -> Result<[f64; 2]> {
    let wave = |phase: f32| Array1::from_shape_fn(elements, |i| (i as f32 * 0.61 + phase).sin());
    let (mut params, grads) = (wave(0.0), wave(1.0));
    let mut opts: [Box<dyn Optimizer<f32>>; 2] =
        [Box::new(Momentum::new(1e-3, 0.9)), Box::new(Elementwise::from_rule(OwnLion::default(), 1e-3))];
    let repeats = (1 << 22) / elements + 1;
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..=ROUNDS {
        for (opt, times) in opts.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..repeats {
                opt.step(black_box(&mut params), &grads)?;
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / (repeats * elements) as f64);
        }
    }
    Ok(times.map(|mut times| {
        times.remove(0); // makes the state
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    }))
}
