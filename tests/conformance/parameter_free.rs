//! The rows of optimizers that find their learning rate, and their update rules as the docs give them.

use gradus::prelude::*;
use ndarray::{Array2, arr2};

use super::rows::{Oracle, Pinned, Row};

/// A small difference of the estimate changes all later ones.
pub(crate) const STEEP: f64 = 20.0;

/// Every row, for one element type.
#[rustfmt::skip]
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "prodigy", slots: PRODIGY, rests: true, parabola: 1.0, rosenbrock: (1.0, 20_000),
            pinned: Pinned::Bits(-0.5086221, -0.5086220877323969),
            optimizer: |lr| Box::new(Prodigy::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| prodigy(t, lr, p, g, memory, &Prodigies::default())) },
        Row { name: "prodigy, large d0, weight decay", slots: PRODIGY, rests: false, parabola: 1.0, rosenbrock: (1.0, 20_000),
            pinned: Pinned::Bits(-0.5073904, -0.5073903101256985),
            optimizer: |lr| Box::new(Prodigy::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).d0(0.2).d_coef(2.0).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| prodigy(t, lr, p, g, memory, &Prodigies {
                beta1: 0.8, beta2: 0.98, eps: 1e-3, d0: 0.2, d_coef: 2.0, weight_decay: 0.01, ..Prodigies::default()
            })) },
        Row { name: "prodigy, safeguard, correction, growth, coupled decay", slots: PRODIGY, rests: false, parabola: 1.0, rosenbrock: (1.0, 20_000),
            pinned: Pinned::Bits(-0.5083931, -0.5083931056692153),
            optimizer: |lr| Box::new(Prodigy::new(lr).d0(0.01).growth_rate(1.1).beta3(0.9).safeguard_warmup(true)
                .bias_correction(true).coupled_decay(true).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| prodigy(t, lr, p, g, memory, &Prodigies {
                d0: 0.01, growth_rate: 1.1, beta3: Some(0.9), safeguard: true, corrects: true, coupled: true, weight_decay: 0.01, ..Prodigies::default()
            })) },
        Row { name: "dog", slots: MOVED, rests: true, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.5086221, -0.5086221073810675),
            optimizer: |lr| Box::new(DoG::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dog(t, lr, p, g, memory, (1e-6 * (1.0 + norm(p)), 1e-8, 0.0))) },
        Row { name: "dog, large distance, weight decay", slots: MOVED, rests: false, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.5091673, -0.5091673390794638),
            optimizer: |lr| Box::new(DoG::new(lr).initial_distance(0.5).eps(0.1).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dog(t, lr, p, g, memory, (0.5, 0.1, 0.01))) },
        Row { name: "dog, layerwise", slots: MOVED, rests: true, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.5091282, -0.5091282353477913),
            optimizer: |lr| Box::new(DoG::new(lr).layerwise(true).relative_distance(0.1)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dog(t, lr, p, g, memory, (0.1 * (1.0 + norm(p)), 1e-8, 0.0))) },
        Row { name: "dowg", slots: MOVED, rests: true, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.508635, -0.5086349971281926),
            optimizer: |lr| Box::new(DoWG::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dowg(t, lr, p, g, memory, (1e-4, 1e-4, 0.0))) },
        Row { name: "dowg, large distance, weight decay", slots: MOVED, rests: false, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.50915647, -0.5091564459388612),
            optimizer: |lr| Box::new(DoWG::new(lr).initial_distance_sq(0.25).eps(0.1).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dowg(t, lr, p, g, memory, (0.25, 0.1, 0.01))) },
        Row { name: "dadaptadam", slots: &["exp_avg", "exp_avg_sq", "s"], rests: true, parabola: 1.0, rosenbrock: (1.0, 20_000),
            pinned: Pinned::Bits(-0.50862205, -0.5086220439064201),
            optimizer: |lr| Box::new(DAdaptAdam::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dadapt_adam(t, lr, p, g, memory, ([0.9, 0.999, 1e-8, 1e-6, 0.0], true))) },
        Row { name: "dadaptadam, large d0, weight decay, no correction", slots: &["exp_avg", "exp_avg_sq", "s"], rests: false, parabola: 1.0,
            rosenbrock: (1.0, 20_000), pinned: Pinned::Bits(-0.50235134, -0.5023513556983631),
            optimizer: |lr| Box::new(DAdaptAdam::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).d0(0.2).weight_decay(0.01).bias_correction(false)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dadapt_adam(t, lr, p, g, memory, ([0.8, 0.98, 1e-3, 0.2, 0.01], false))) },
        Row { name: "dadaptsgd", slots: &["s", "init_minus_param"], rests: true, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.5086221, -0.5086221023182064),
            optimizer: |lr| Box::new(DAdaptSgd::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dadapt_sgd(t, lr, p, g, memory, [0.9, 1e-6, 0.0])) },
        // Without a gradient, not even the decay moves it.
        Row { name: "dadaptsgd, large d0, weight decay", slots: &["s", "init_minus_param"], rests: true, parabola: 1.0, rosenbrock: (1.0, 50_000),
            pinned: Pinned::Bits(-0.50924134, -0.5092413598096077),
            optimizer: |lr| Box::new(DAdaptSgd::new(lr).momentum(0.5).d0(0.5).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| dadapt_sgd(t, lr, p, g, memory, [0.5, 0.5, 0.01])) },
    ]
}

const MOVED: &[&str] = &["init_minus_param"];
const PRODIGY: &[&str] = &["exp_avg", "exp_avg_sq", "s", "init_minus_param"];

struct Prodigies {
    beta1: f64,
    beta2: f64,
    beta3: Option<f64>,
    eps: f64,
    d0: f64,
    d_coef: f64,
    growth_rate: f64,
    weight_decay: f64,
    safeguard: bool,
    corrects: bool,
    coupled: bool,
}

impl Default for Prodigies {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            beta3: None,
            eps: 1e-8,
            d0: 1e-6,
            d_coef: 1.0,
            growth_rate: f64::INFINITY,
            weight_decay: 0.0,
            safeguard: false,
            corrects: false,
            coupled: false,
        }
    }
}

fn prodigy(t: i32, lr: f64, p: &mut Array2<f64>, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, of: &Prodigies) {
    if t == 1 {
        *memory = vec![p.clone(), g * 0.0, g * 0.0, g * 0.0, arr2(&[[of.d0, of.d0, 0.0]])];
    }
    let [start, m, v, s, numbers] = &mut memory[..] else { unreachable!("it has as many") };
    let &[d, largest, r] = numbers.as_slice().unwrap() else { unreachable!("it has as many") };
    let c = if of.corrects { (1.0 - of.beta2.powi(t)).sqrt() / (1.0 - of.beta1.powi(t)) } else { 1.0 };
    let (rate, beta3) = (d * lr * c, of.beta3.unwrap_or(of.beta2.sqrt()));
    let g = if of.coupled { g + &*p * of.weight_decay } else { g.clone() };
    *m = &*m * of.beta1 + &g * (d * (1.0 - of.beta1));
    *v = &*v * of.beta2 + (&g * d).mapv(|x| x * x) * (1.0 - of.beta2);
    *s = &*s * beta3 + &g * (d / of.d0 * if of.safeguard { d } else { rate });
    let norm = s.mapv(f64::abs).sum();
    let (mut r, mut largest, mut new) = (r, largest, d);
    if norm > 0.0 {
        r = beta3 * r + d / of.d0 * rate * (&g * &(&*start - &*p)).sum();
        let estimate = of.d_coef * r / norm;
        new = if d == of.d0 { d.max(estimate) } else { d };
        largest = largest.max(estimate);
        new = largest.min(new * of.growth_rate);
    }
    let decay = if of.coupled { 0.0 } else { of.weight_decay };
    *p = &*p - &((&*m / (v.mapv(f64::sqrt) + new * of.eps) + &*p * decay) * rate);
    *numbers = arr2(&[[new, largest, r]]);
}

fn norm(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// With the first distance, ε and λ.
fn dog(
    t: i32,
    lr: f64,
    p: &mut Array2<f64>,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    (first, eps, decay): (f64, f64, f64),
) {
    if t == 1 {
        *memory = vec![p.clone(), arr2(&[[first, 0.0]])];
    }
    let g = g + &*p * decay;
    let distance = memory[1][[0, 0]].max(norm(&(&*p - &memory[0])));
    let sum = memory[1][[0, 1]] + norm(&g).powi(2);
    *p -= &(g * (lr * distance / (sum + eps).sqrt()));
    memory[1] = arr2(&[[distance, sum]]);
}

/// With the first squared distance, ε and λ.
fn dowg(
    t: i32,
    lr: f64,
    p: &mut Array2<f64>,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    (first, eps, decay): (f64, f64, f64),
) {
    if t == 1 {
        *memory = vec![p.clone(), arr2(&[[first, 0.0]])];
    }
    let g = g + &*p * decay;
    let distance = memory[1][[0, 0]].max(norm(&(&*p - &memory[0])).powi(2));
    let sum = memory[1][[0, 1]] + distance * norm(&g).powi(2);
    *p -= &(g * (lr * distance / (sum.sqrt() + eps)));
    memory[1] = arr2(&[[distance, sum]]);
}

/// With β₁, β₂, ε, d₀, λ, and whether there is a bias correction.
fn dadapt_adam(
    t: i32,
    lr: f64,
    p: &mut Array2<f64>,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    ([beta1, beta2, eps, d0, decay], corrects): ([f64; 5], bool),
) {
    if t == 1 {
        *memory = vec![g * 0.0, g * 0.0, g * 0.0, arr2(&[[d0, 0.0]])];
    }
    let [m, v, s, numbers] = &mut memory[..] else { unreachable!("it has as many") };
    let (d, r) = (numbers[[0, 0]], numbers[[0, 1]]);
    let c = if corrects { (1.0 - beta2.powi(t)).sqrt() / (1.0 - beta1.powi(t)) } else { 1.0 };
    let (rate, root) = (d * lr * c, beta2.sqrt());
    let progress = (g * &(&*s / (v.mapv(f64::sqrt) + eps))).sum();
    *m = &*m * beta1 + g * ((1.0 - beta1) * rate);
    *v = &*v * beta2 + g * g * (1.0 - beta2);
    *s = &*s * root + g * ((1.0 - root) * rate);
    *p = &*p - &(&*m / (v.mapv(f64::sqrt) + eps)) - &*p * (rate * decay);
    let norm = s.mapv(f64::abs).sum();
    if norm > 0.0 {
        let r = root * r + (1.0 - root) * rate * progress;
        *numbers = arr2(&[[d.max(r / ((1.0 - root) * norm)), r]]);
    }
}

/// With μ, d₀ and λ.
fn dadapt_sgd(
    t: i32,
    lr: f64,
    p: &mut Array2<f64>,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [momentum, d0, decay]: [f64; 3],
) {
    if t == 1 {
        *memory = vec![p.clone(), g * 0.0, arr2(&[[d0, 0.0, 0.0]])];
    }
    let [start, s, numbers] = &mut memory[..] else { unreachable!("it has as many") };
    let (d, r, g0) = (numbers[[0, 0]], numbers[[0, 1]], numbers[[0, 2]]);
    let g0 = if g0 == 0.0 { norm(g) } else { g0 };
    if g0 == 0.0 {
        return;
    }
    let (rate, g) = (d * lr / g0, g + &*p * decay);
    let r = r + rate * (&g * &*s).sum();
    *s = &*s + &g * rate;
    let d = if norm(s) > 0.0 { d.max(2.0 * r / norm(s)) } else { d };
    *p = &*p + &((&*start - &*s - &*p) * (1.0 - momentum));
    *numbers = arr2(&[[d, r, g0]]);
}
