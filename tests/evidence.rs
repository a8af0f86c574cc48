//! Published claims, at the scale of a test: the optimizers do what they are for, and not only what their formulas say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/digits.rs"]
mod digits;

use digits::{Network, digits};
use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::{Array1, Array2, array, s};

/// Images of training; the others are those of the test.
const TRAINED: usize = 1500;
const BATCH: usize = 100;

struct Data {
    pixels: Array2<f64>,
    labels: Vec<usize>,
}

impl Data {
    fn load() -> Self {
        let (pixels, labels) = digits();
        Self { pixels, labels }
    }

    fn rows(&self, from: usize, to: usize) -> (Array2<f64>, &[usize]) {
        (self.pixels.slice(s![from..to, ..]).to_owned(), &self.labels[from..to])
    }

    fn batch(&self, step: usize) -> (Array2<f64>, &[usize]) {
        let start = step * BATCH % TRAINED;
        self.rows(start, start + BATCH)
    }

    fn test_loss(&self, network: &Network) -> f64 {
        let (pixels, labels) = self.rows(TRAINED, self.labels.len());
        network.backward(&pixels, labels).0
    }
}

/// Schedule-free AdamW with one constant rate, stopped at any of three steps, is about as good as Adam with a cosine that ends there and whose
/// rate was chosen for that end (Defazio et al. 2024, figure 1).
#[test]
#[cfg_attr(debug_assertions, ignore = "takes a minute if it is not optimized; .ci/run asks for it, optimized")]
fn schedule_free_reaches_what_a_tuned_cosine_reaches() {
    const ENDS: [u64; 3] = [150, 300, 600];
    let data = Data::load();
    let step = |opt: &mut dyn Optimizer<f64>, network: &mut Network, step: u64| {
        let (pixels, labels) = data.batch(step as usize);
        let (_, grads) = network.backward(&pixels, labels);
        opt.step(network, &grads).unwrap();
    };
    let tuned = ENDS.map(|end| {
        let rates = (-8..=-2).map(|third| 10.0_f64.powf(f64::from(third) / 3.0));
        let losses = rates.map(|rate| {
            let (mut opt, mut network) = (AdamW::new(Cosine::new(rate, end)), Network::new());
            (0..end).for_each(|at| step(&mut opt, &mut network, at));
            data.test_loss(&network)
        });
        losses.fold(f64::INFINITY, f64::min)
    });
    let (mut opt, mut network) = (AdamWScheduleFree::new(0.01), Network::new());
    let mut found = Vec::new();
    for at in 0..ENDS[2] {
        step(&mut opt, &mut network, at);
        if ENDS.contains(&opt.steps()) {
            let mut average = network.clone();
            opt.average(&mut average).unwrap();
            found.push(data.test_loss(&average));
        }
    }
    println!("tuned cosines: {tuned:.4?}; schedule-free: {found:.4?}");
    assert!(found.iter().zip(tuned).all(|(found, tuned)| *found < 1.1 * tuned), "{found:?}, {tuned:?}");
}

/// With the same learning rate, AdEMAMix goes through the valley of Rosenbrock's function, and Adam remains in it, with any momentum (Pagliardini et al. 2024,
/// figure 2). It is no statement about tuned rates: with one ten times larger, Adam arrives too.
#[test]
fn ademamix_goes_where_no_momentum_of_adam_does() {
    let distance = |opt: &mut dyn Optimizer<f64>| {
        let mut w = array![-3.0, 5.0];
        for _ in 0..5000 {
            let (a, b): (f64, f64) = (1.0 - w[0], w[1] - w[0] * w[0]);
            let grads = array![-2.0 * a - 400.0 * w[0] * b, 200.0 * b];
            opt.step(&mut w, &grads).unwrap();
        }
        (w[0] - 1.0).hypot(w[1] - 1.0)
    };
    let adam = [0.9, 0.99, 0.999].map(|beta1| distance(&mut Adam::new(0.01).beta1(beta1)));
    let mixed = [(0.999, 5.0), (0.9999, 9.0)]
        .map(|(beta3, alpha)| distance(&mut AdEMAMix::new(0.01).beta3(beta3).alpha(alpha)));
    println!("distance to the minimum: Adam {adam:.3?}, AdEMAMix {mixed:.3?}");
    assert!(adam.iter().all(|distance| *distance > 2.0), "{adam:?}");
    assert!(mixed.iter().all(|distance| *distance < 1.0), "{mixed:?}");
}

/// The gradient of all parameters as one vector, and back.
fn flat(network: &Network) -> Array1<f64> {
    let Network { hidden, hidden_bias, output, output_bias } = network;
    hidden.iter().chain(hidden_bias).chain(output).chain(output_bias).copied().collect()
}

fn network_of(vector: &Array1<f64>) -> Network {
    let (mut network, mut elements) = (Network::new(), vector.iter());
    let Network { hidden, hidden_bias, output, output_bias } = &mut network;
    let all = hidden.iter_mut().chain(hidden_bias).chain(output).chain(output_bias);
    all.zip(&mut elements).for_each(|(to, from)| *to = *from);
    network
}

/// SAM finds a flatter minimum than the same optimizer without it, by what it minimizes: the largest loss at a distance. The training loss is
/// no worse for it, and the loss on new data is smaller (Foret et al. 2020, sections 3 and 4.2).
#[test]
#[cfg_attr(debug_assertions, ignore = "takes a minute if it is not optimized; .ci/run asks for it, optimized")]
fn sam_finds_a_flatter_minimum() {
    const STEPS: usize = 900;
    const RADIUS: f64 = 0.5;
    let data = Data::load();
    let (pixels, labels) = data.rows(0, TRAINED);
    let at = |point: &Array1<f64>| {
        let (loss, grads) = network_of(point).backward(&pixels, labels);
        (loss, flat(&grads))
    };
    let length = |vector: &Array1<f64>| vector.dot(vector).sqrt();
    // The training loss, how much larger it is at the worst point found on the sphere, and the loss on new data.
    let measured = |network: &Network| {
        let start = flat(network);
        let (loss, mut uphill) = at(&start);
        uphill *= RADIUS / length(&uphill);
        let mut worst = loss;
        for _ in 0..8 {
            let (there, grads) = at(&(&start + &uphill));
            worst = worst.max(there);
            uphill = uphill + grads.clone() * (0.3 * RADIUS / length(&grads));
            uphill *= RADIUS / length(&uphill);
        }
        [loss, worst - loss, data.test_loss(network)]
    };
    let base = || Momentum::new(Cosine::new(0.1, STEPS as u64), 0.9);
    let (mut plain, mut sam, mut networks) = (base(), base().sam(0.2), [Network::new(), Network::new()]);
    for step in 0..STEPS {
        let (pixels, labels) = data.batch(step);
        let (_, grads) = networks[0].backward(&pixels, labels);
        plain.step(&mut networks[0], &grads).unwrap();
        sam.step_with(&mut networks[1], |network: &Network| network.backward(&pixels, labels)).unwrap();
    }
    let [without, with] = networks.map(|network| measured(&network));
    println!("training loss, rise at a distance of {RADIUS}, test loss: {without:.4?}, with SAM {with:.4?}");
    assert!(with[1] < 0.5 * without[1], "{with:?}, {without:?}");
    assert!(with[0] < without[0] && with[2] < without[2], "{with:?}, {without:?}");
}
