//! The rows of later relatives of Adam and of the optimizers that move by signs, and their update rules as the docs give them.

use gradus::prelude::*;

use super::rows::Oracle::Element;
use super::rows::{Pinned, Row};

const MOMENTS: &[&str] = &["exp_avg", "exp_avg_sq"];

const SOPHIA: &[&str] = &["momentum", "hessian_moment"];

/// Every row, for one element type.
#[rustfmt::skip]
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "signum", slots: &["momentum_buffer"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 10_000),
            pinned: Pinned::Bits(0.6358334, 0.6358333333333333),
            optimizer: |lr| Box::new(Signum::new(lr)),
            oracle: Element(|_, lr, p, g, [m, ..]| { *m = 0.9 * *m + (1.0 - 0.9) * g; p - lr * sign(*m) }) },
        Row { name: "signum, momentum, weight decay", slots: &["momentum_buffer"], rests: false, parabola: 0.1, rosenbrock: (1e-3, 10_000),
            pinned: Pinned::Bits(0.66835016, 0.6683501347260475),
            optimizer: |lr| Box::new(Signum::new(lr).momentum(0.5).weight_decay(0.01)),
            oracle: Element(|_, lr, p, g, [m, ..]| {
                *m = 0.5 * *m + (1.0 - 0.5) * g;
                p * (1.0 - lr * 0.01) - lr * sign(*m)
            }) },
        Row { name: "signsgd", slots: &[], rests: true, parabola: 0.1, rosenbrock: (5e-4, 20_000),
            pinned: Pinned::Bits(0.7391666, 0.7391666666666667),
            optimizer: |lr| Box::new(SignSgd::new(lr)),
            oracle: Element(|_, lr, p, g, _| p - lr * sign(g)) },

        // Its moments start from 1e-6, so that it also moves without a gradient.
        Row { name: "yogi", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (3e-2, 10_000),
            pinned: Pinned::Bits(0.67102116, 0.6710212268496145),
            optimizer: |lr| Box::new(Yogi::new(lr)),
            oracle: Element(|t, lr, p, g, s| yogi(t, lr, p, g, s, (0.9, 0.999, 1e-3, 1e-6))) },
        Row { name: "yogi, betas, eps, from 0, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Bits(0.67622864, 0.6762286035587973),
            optimizer: |lr| Box::new(Yogi::new(lr).beta1(0.8).beta2(0.98).eps(1e-2).initial_accumulator_value(0.0).weight_decay(1e-4)),
            oracle: Element(|t, lr, p, g, s| yogi(t, lr, p * (1.0 - lr * 1e-4), g, s, (0.8, 0.98, 1e-2, 0.0))) },

        Row { name: "laprop", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6821582, 0.6821581561002554),
            optimizer: |lr| Box::new(LaProp::new(lr)),
            oracle: Element(|t, lr, p, g, s| laprop(t, lr, p, g, s, (0.9, 0.999, 1e-15))) },
        Row { name: "laprop, betas, eps, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.68366146, 0.6836615117603315),
            optimizer: |lr| Box::new(LaProp::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| laprop(t, lr, p * (1.0 - lr * 0.01), g, s, (0.8, 0.98, 1e-3))) },

        Row { name: "ademamix", slots: &["exp_avg", "exp_avg_slow", "exp_avg_sq"], rests: true, parabola: 3.0, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Bits(0.67058116, 0.6705811032256086),
            optimizer: |lr| Box::new(AdEMAMix::new(lr)),
            oracle: Element(|t, lr, p, g, s| ademamix(t, lr, p, g, s, ([0.9, 0.999, 0.9999], 5.0, 1e-8))) },
        Row { name: "ademamix, betas, alpha, eps, weight decay", slots: &["exp_avg", "exp_avg_slow", "exp_avg_sq"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6700926, 0.6700926361571148),
            optimizer: |lr| Box::new(AdEMAMix::new(lr).beta1(0.8).beta2(0.98).beta3(0.95).alpha(0.5).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| {
                ademamix(t, lr, p * (1.0 - lr * 0.01), g, s, ([0.8, 0.98, 0.95], 0.5, 1e-3))
            }) },

        // The default β₁ of 0.99 oscillates for longer than the tests of convergence take.
        Row { name: "simplifiedademamix", slots: &["momentum_buffer", "exp_avg_sq"], rests: true, parabola: 0.03, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.6242477, 0.6242477345374281),
            optimizer: |lr| Box::new(SimplifiedAdEMAMix::new(lr).beta1(0.9)),
            oracle: Element(|t, lr, p, g, s| simplified_ademamix(t, lr, p, g, s, ([0.9, 0.95], 0.0, 1e-8))) },
        Row { name: "simplifiedademamix, betas, alpha, eps, weight decay", slots: &["momentum_buffer", "exp_avg_sq"], rests: false,
            parabola: 0.03, rosenbrock: (1e-3, 10_000),
            pinned: Pinned::Bits(0.54798764, 0.5479876561709588),
            optimizer: |lr| Box::new(SimplifiedAdEMAMix::new(lr).beta1(0.8).beta2(0.98).alpha(2.0).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| {
                simplified_ademamix(t, lr, p * (1.0 - lr * 0.01), g, s, ([0.8, 0.98], 2.0, 1e-3))
            }) },

        Row { name: "adopt", slots: MOMENTS, rests: true, parabola: 0.3, rosenbrock: (0.3, 20_000),
            pinned: Pinned::Bits(0.75055724, 0.75055724045736),
            optimizer: |lr| Box::new(Adopt::new(lr)),
            oracle: Element(|t, lr, p, g, s| adopt(t, lr, p, g, s, (0.9, 0.9999, 1e-6, 0.25))) },
        Row { name: "adopt, betas, eps, clip exponent, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.7501179, 0.7501179824196785),
            optimizer: |lr| Box::new(Adopt::new(lr).beta1(0.8).beta2(0.98).eps(0.2).clip_exponent(0.1).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| adopt(t, lr, p * (1.0 - lr * 0.01), g, s, (0.8, 0.98, 0.2, 0.1))) },

        Row { name: "adan", slots: &["exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad"], rests: true, parabola: 0.5, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.70217675, 0.7021767746315586),
            optimizer: |lr| Box::new(Adan::new(lr)),
            oracle: Element(|t, lr, p, g, s| adan(t, lr, p, g, s, ([0.98, 0.92, 0.99], 1e-8))) },
        Row { name: "adan, betas, eps, weight decay", slots: &["exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.7003275, 0.7003275010782495),
            optimizer: |lr| Box::new(Adan::new(lr).beta1(0.9).beta2(0.8).beta3(0.95).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| adan(t, lr, p, g, s, ([0.9, 0.8, 0.95], 1e-3)) / (1.0 + lr * 0.01)) },

        // Without a diagonal its divisor is ε, and with the default of that it moves by signs.
        Row { name: "sophia", slots: SOPHIA, rests: true, parabola: 0.3, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.73219544, 0.7321954320774537),
            optimizer: |lr| Box::new(Sophia::new(lr).eps(0.1)),
            oracle: Element(|t, lr, p, g, s| sophia(t, lr, p, g, s, (0.965, 0.1, 1.0, false))) },
        Row { name: "sophia, betas, gamma, threshold, eps, bias correction, weight decay", slots: SOPHIA, rests: false,
            parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.68471, 0.6847100302470067),
            optimizer: |lr| Box::new(Sophia::new(lr).beta1(0.9).beta2(0.5).gamma(2.0).threshold(0.7).eps(0.3).bias_correction(true).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| sophia(t, lr, p * (1.0 - lr * 0.01), g, s, (0.9, 0.3, 0.7, true))) },
        // Without a diagonal its divisor is ε.
        Row { name: "adahessian", slots: &["exp_avg", "exp_hessian_diag_sq"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.71612257, 0.7161225482038291),
            optimizer: |lr| Box::new(AdaHessian::new(lr).eps(1.0)),
            oracle: Element(|t, lr, p, g, [m, ..]| { *m = 0.9 * *m + (1.0 - 0.9) * g; p - lr * *m / (1.0 - 0.9_f64.powi(t)) }) },
        Row { name: "adahessian, betas, eps, weight decay", slots: &["exp_avg", "exp_hessian_diag_sq"], rests: false,
            parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(0.68358815, 0.6835881630073819),
            optimizer: |lr| Box::new(AdaHessian::new(lr).beta1(0.8).beta2(0.5).eps(0.5).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, [m, ..]| {
                *m = 0.8 * *m + (1.0 - 0.8) * g;
                p * (1.0 - lr * 0.01) - lr * (*m / (1.0 - 0.8_f64.powi(t))) / 0.5
            }) },

        Row { name: "madgrad", slots: &["s", "grad_sum_sq", "x0"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.7096645, 0.7096644956682171),
            optimizer: |lr| Box::new(Madgrad::new(lr)),
            oracle: Element(|t, lr, p, g, s| madgrad(t, lr, p, g, s, (0.9, 1e-6))) },
        Row { name: "madgrad, momentum, eps, weight decay", slots: &["s", "grad_sum_sq", "x0"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.6518285, 0.6518285430544355),
            optimizer: |lr| Box::new(Madgrad::new(lr).momentum(0.5).eps(1e-3).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, s| madgrad(t, lr, p, g + 0.01 * p, s, (0.5, 1e-3))) },
    ]
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

fn yogi(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, ..]: &mut [f64; 4],
    (beta1, beta2, eps, start): (f64, f64, f64, f64),
) -> f64 {
    if t == 1 {
        (*m, *v) = (start, start);
    }
    *m = beta1 * *m + (1.0 - beta1) * grad;
    *v -= (1.0 - beta2) * sign(*v - grad * grad) * grad * grad;
    let (m_hat, v_hat) = (*m / (1.0 - beta1.powi(t)), *v / (1.0 - beta2.powi(t)));
    param - learning_rate * m_hat / (v_hat.sqrt() + eps)
}

fn laprop(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, ..]: &mut [f64; 4],
    (beta1, beta2, eps): (f64, f64, f64),
) -> f64 {
    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
    *m = beta1 * *m + (1.0 - beta1) * grad / ((*v / (1.0 - beta2.powi(t))).sqrt() + eps);
    param - learning_rate * *m / (1.0 - beta1.powi(t))
}

fn ademamix(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [fast, slow, v, _]: &mut [f64; 4],
    ([beta1, beta2, beta3], alpha, eps): ([f64; 3], f64, f64),
) -> f64 {
    *fast = beta1 * *fast + (1.0 - beta1) * grad;
    *slow = beta3 * *slow + (1.0 - beta3) * grad;
    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
    let mixed = *fast / (1.0 - beta1.powi(t)) + alpha * *slow;
    param - learning_rate * mixed / ((*v / (1.0 - beta2.powi(t))).sqrt() + eps)
}

fn simplified_ademamix(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, ..]: &mut [f64; 4],
    ([beta1, beta2], alpha, eps): ([f64; 2], f64, f64),
) -> f64 {
    *m = beta1 * *m + grad;
    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
    param - learning_rate * (*m + alpha * grad) / ((*v / (1.0 - beta2.powi(t))).sqrt() + eps)
}

fn adopt(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, v, ..]: &mut [f64; 4],
    (beta1, beta2, eps, exponent): (f64, f64, f64, f64),
) -> f64 {
    let limit = f64::from(t - 1).powf(exponent);
    *m = beta1 * *m + (1.0 - beta1) * (grad / v.sqrt().max(eps)).max(-limit).min(limit);
    *v = if t == 1 { grad * grad } else { beta2 * *v + (1.0 - beta2) * grad * grad };
    param - learning_rate * *m
}

fn adan(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, d, v, before]: &mut [f64; 4],
    ([beta1, beta2, beta3], eps): ([f64; 3], f64),
) -> f64 {
    let difference = if t == 1 { 0.0 } else { grad - *before };
    *m = beta1 * *m + (1.0 - beta1) * grad;
    *d = beta2 * *d + (1.0 - beta2) * difference;
    *v = beta3 * *v + (1.0 - beta3) * (grad + beta2 * difference).powi(2);
    *before = grad;
    let momentum = *m / (1.0 - beta1.powi(t)) + beta2 * *d / (1.0 - beta2.powi(t));
    param - learning_rate * momentum / ((*v / (1.0 - beta3.powi(t))).sqrt() + eps)
}

/// With an average diagonal of 0.
fn sophia(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [m, ..]: &mut [f64; 4],
    (beta1, eps, threshold, bias_correction): (f64, f64, f64, bool),
) -> f64 {
    *m = beta1 * *m + (1.0 - beta1) * grad;
    let m = if bias_correction { *m / (1.0 - beta1.powi(t)) } else { *m };
    param - learning_rate * (m / eps).clamp(-threshold, threshold)
}

fn madgrad(
    t: i32,
    learning_rate: f64,
    param: f64,
    grad: f64,
    [s, v, first, _]: &mut [f64; 4],
    (momentum, eps): (f64, f64),
) -> f64 {
    if t == 1 {
        *first = param;
    }
    let weight = (learning_rate + eps) * f64::from(t).sqrt();
    *s += weight * grad;
    *v += weight * grad * grad;
    (1.0 - momentum) * (*first - *s / (v.cbrt() + eps)) + momentum * param
}
