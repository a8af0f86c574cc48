//! The rows of optimizers that step whole matrices, and their update rules as the docs give them.

use gradus::optimizer::{AdamMiniBlocks, MuonBlocks, MuonScale, ScionNorm};
use gradus::prelude::*;
use gradus::rule::{Factored, FactoredRule, MatrixRule, Matrixwise, StatePrecision};
use ndarray::{Array2, ArrayD, Axis, s};

use super::rows::{Oracle, Pinned, Row, Subject};

impl<A: Scalar, R: MatrixRule<A> + Clone + 'static> Subject<A> for Matrixwise<R, A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)> {
        let slot = |name: &&'static str| Some((*name, self.slot(path, name)?.into_dyn()));
        SLOTS.iter().filter_map(slot).collect()
    }

    fn tensor_steps(&self, path: &str) -> u64 {
        Matrixwise::tensor_steps(self, path)
    }

    fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        None
    }
}

impl<A: Scalar, R: FactoredRule<A> + Clone + 'static> Subject<A> for Factored<R, A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)> {
        let slot = |name: &&'static str| Some((*name, self.slot(path, name)?));
        ["row_var", "col_var", "variance", "exp_avg"].iter().filter_map(slot).collect()
    }

    fn tensor_steps(&self, path: &str) -> u64 {
        Factored::tensor_steps(self, path)
    }

    fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        None
    }
}

/// The names of all matrix optimizers' slots.
const SLOTS: [&str; 22] = [
    "momentum_buffer",
    "second_momentum_buffer",
    "graft_exp_avg_sq",
    "graft_exp_avg",
    "exp_avg",
    "exp_avg_sq",
    "left",
    "left_root",
    "right",
    "right_root",
    "left_basis",
    "right_basis",
    "update_counter",
    "right_factor",
    "exp_avg_sq_row",
    "exp_avg_sq_col",
    "exp_avg_res_row",
    "exp_avg_res_col",
    "accumulator_0",
    "accumulator_1",
    "projection",
    "update_norm",
];

/// Every row, for one element type.
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    #[rustfmt::skip]
    let rows = vec![
        Row { name: "muon", slots: &["momentum_buffer"], rests: false, parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5448322181692615),
            optimizer: |lr| Box::new(Muon::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.95);
                *p = &*p * (1.0 - lr * 0.1) - newton_schulz(&(g * 0.05 + u * 0.95)) * (lr * original_scale(g));
            }) },
        Row { name: "muon, no nesterov, no decay, match rms", slots: &["momentum_buffer"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5245506481250563),
            optimizer: |lr| Box::new(Muon::new(lr).momentum(0.9).nesterov(false).weight_decay(0.0).match_rms_adamw(true)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.9);
                *p -= &(newton_schulz(&u) * (lr * 0.2 * (g.nrows().max(g.ncols()) as f64).sqrt()));
            }) },
        Row { name: "muon, own coefficients, 3 iterations, rms to rms", slots: &["momentum_buffer"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5445788710549295),
            optimizer: |lr| Box::new(Muon::new(lr).coefficients(OWN).iterations(3).scale(MuonScale::RmsToRms).weight_decay(0.0)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.95);
                let scale = (g.nrows() as f64 / g.ncols() as f64).sqrt();
                *p -= &(iterated(&(g * 0.05 + u * 0.95), &[OWN[0], OWN[1], OWN[1]]) * (lr * scale));
            }) },
        Row { name: "muon, each row a block", slots: &["momentum_buffer"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.520782918271499),
            optimizer: |lr| Box::new(Muon::new(lr).blocks(MuonBlocks::Rows(1)).weight_decay(0.0)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.95);
                let u = g * 0.05 + u * 0.95;
                for (mut row, u) in p.rows_mut().into_iter().zip(u.rows()) {
                    row -= &(newton_schulz(&u.insert_axis(Axis(0)).to_owned()).row(0).to_owned() * lr);
                }
            }) },
        Row { name: "normuon", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5296563051018668),
            optimizer: |lr| Box::new(NorMuon::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let mean = |x: &Array2<f64>| x.mapv(|x| x * x).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
                *p -= &(adaptive(g, memory, mean) * lr);
            }) },
        Row { name: "adamuon", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5320492836578161),
            optimizer: |lr| Box::new(AdaMuon::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(adaptive(g, memory, |x| x.mapv(|x| x * x)) * lr);
            }) },
        Row { name: "normuon, each row a block", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5164311171155311),
            optimizer: |lr| Box::new(NorMuon::new(lr).blocks(MuonBlocks::Rows(1))), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let mean = |x: &Array2<f64>| x.mapv(|x| x * x).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
                *p -= &(adaptive_rows(g, memory, 1, mean) * lr);
            }) },
        Row { name: "adamuon, each row a block", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5149866361256065),
            optimizer: |lr| Box::new(AdaMuon::new(lr).blocks(MuonBlocks::Rows(1))), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(adaptive_rows(g, memory, g.ncols(), |x| x.mapv(|x| x * x)) * lr);
            }) },
        Row { name: "scion", slots: &["momentum_buffer"], rests: true, parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5442394135231498),
            optimizer: |lr| Box::new(Scion::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(newton_schulz(&average(memory, g, 0.9)) * (lr * (g.nrows() as f64 / g.ncols() as f64).sqrt()));
            }) },
        Row { name: "scion, sign", slots: &["momentum_buffer"], rests: true, parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Near(-0.514288768986404),
            optimizer: |lr| Box::new(Scion::new(lr).norm(ScionNorm::Sign).radius(2.0).momentum(0.5)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let sign = average(memory, g, 0.5).mapv(|m| if m == 0.0 { 0.0 } else { m.signum() });
                *p -= &(sign * (lr * 2.0 / g.ncols() as f64));
            }) },
        Row { name: "scion, columns, weight decay", slots: &["momentum_buffer"], rests: false,
            parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Near(-0.5107678274461447),
            optimizer: |lr| Box::new(Scion::new(lr).norm(ScionNorm::Columns).eps(0.1).weight_decay(0.01)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let m = average(memory, g, 0.9);
                let root = m.mapv(|m| m * m).mean_axis(Axis(0)).unwrap().mapv(f64::sqrt);
                *p = &*p * (1.0 - lr * 0.01) - m / (root * g.ncols() as f64 + 0.1) * lr;
            }) },
        Row { name: "dion", slots: &["momentum_buffer", "right_factor"], rests: false, parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5415300424430151),
            optimizer: |lr| Box::new(Dion::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p = &*p * (1.0 - lr * 0.01) - dion(g, memory, g.nrows().min(g.ncols())) * lr;
            }) },
        Row { name: "dion, half of the rank, no decay", slots: &["momentum_buffer", "right_factor"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5047647753608356),
            optimizer: |lr| Box::new(Dion::new(lr).rank_fraction(0.5).weight_decay(0.0)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(dion(g, memory, g.nrows().min(g.ncols()).div_ceil(2)) * lr);
            }) },
        Row { name: "adafactor", slots: &["row_var", "col_var"], rests: true, parabola: 0.1, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Bits(-0.5208636, -0.520863633559764),
            optimizer: |lr| Box::new(Adafactor::new(lr)), oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let u = adafactor(t, g, memory, 1e-30);
                let rate = rms(p).max(1e-3) * lr.min(1.0 / f64::from(t).sqrt());
                *p -= &(&u * (rate / rms(&u).max(1.0)));
            }) },
        Row { name: "adafactor, beta1, absolute, weight decay", slots: &["row_var", "col_var", "exp_avg"], rests: false,
            parabola: 0.1, rosenbrock: (0.01, 10_000),
            pinned: Pinned::Bits(-0.51104754, -0.5110476147292929),
            optimizer: |lr| Box::new(Adafactor::new(lr).eps_inside_mean(true).eps(1e-3).scale_parameter(false)
                .relative_step(false).beta1(0.9).clip_threshold(0.5).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let mut average = memory.get(2).cloned().unwrap_or_else(|| Array2::zeros(g.dim()));
                memory.truncate(2);
                let u = adafactor(t, g, memory, 1e-3);
                average = average * 0.9 + &u * (0.1 * lr / (rms(&u) / 0.5).max(1.0));
                *p = &*p * (1.0 - lr * 0.01) - &average;
                memory.push(average);
            }) },
        Row { name: "adafactor, hugging face, absolute", slots: &["row_var", "col_var"], rests: false,
            parabola: 0.1, rosenbrock: (0.01, 10_000),
            pinned: Pinned::Bits(-0.52872044, -0.5287205075464618),
            optimizer: |lr| Box::new(Adafactor::hugging_face(lr).scale_parameter(false).relative_step(false).warmup_init(false)
                .weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let u = adafactor(t, g, memory, 1e-30);
                *p = &*p * (1.0 - lr * 0.01) - &u * (lr / rms(&u).max(1.0));
            }) },
        Row { name: "adafactor, optax, no clip", slots: &["row_var", "col_var"], rests: true,
            parabola: 0.1, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Bits(-0.5208636, -0.520863633559764),
            optimizer: |lr| Box::new(Adafactor::optax(lr).min_side(0).clip_updates(false)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let u = adafactor(t, g, memory, 1e-30);
                *p -= &(&u * (rms(p).max(1e-3) * lr));
            }) },
        Row { name: "adafactor, big vision", slots: &["row_var", "col_var", "exp_avg"], rests: true,
            parabola: 0.1, rosenbrock: (0.01, 10_000),
            pinned: Pinned::Bits(-0.5126605, -0.5126604236333894),
            optimizer: |lr| Box::new(Adafactor::big_vision(lr).min_side(0)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let mut average = memory.get(2).cloned().unwrap_or_else(|| Array2::zeros(g.dim()));
                memory.truncate(2);
                average = average * 0.9 + adafactor(t, g, memory, 1e-30) * (1.0 - 0.9);
                *p -= &(&average * lr);
                memory.push(average);
            }) },
        Row { name: "adammini", slots: &["exp_avg", "exp_avg_sq"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(-0.508671, -0.5086709897463662),
            optimizer: |lr| Box::new(AdamMini::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| adam_mini(t, lr, p, g, memory, [0.9, 0.999], |g| {
                Array2::from_elem(g.dim(), g.mapv(|g| g * g).mean().unwrap())
            })) },
        Row { name: "adammini, rows, betas, weight decay", slots: &["exp_avg", "exp_avg_sq"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(-0.51003146, -0.5100314154963516),
            optimizer: |lr| Box::new(AdamMini::new(lr).blocks("**", AdamMiniBlocks::Rows).beta1(0.8).beta2(0.9).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                *p *= 1.0 - lr * 0.01;
                adam_mini(t, lr, p, g, memory, [0.8, 0.9], |g| {
                    g.mapv(|g| g * g).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1)).broadcast(g.dim()).unwrap().to_owned()
                });
            }) },
        Row { name: "sm3", slots: &["accumulator_0", "accumulator_1"], rests: true, parabola: 1.0, rosenbrock: (0.5, 10_000),
            pinned: Pinned::Bits(-0.48194197, -0.4819419268547454),
            optimizer: |lr| Box::new(Sm3::new(lr)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| *p -= &(sm3(g, memory, [1.0, 1.0]) * lr)) },
        Row { name: "sm3, momentum, beta2, weight decay", slots: &["momentum_buffer", "accumulator_0", "accumulator_1"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(-0.45507717, -0.4550771956790139),
            optimizer: |lr| Box::new(Sm3::new(lr).momentum(0.9).beta2(0.99).weight_decay(0.01)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let before = if memory.len() == 3 { memory.pop() } else { None };
                let u = sm3(g, memory, [0.99, 1.0 - 0.99]);
                let m = before.unwrap_or_else(|| Array2::zeros(g.dim())) * 0.9 + u * (1.0 - 0.9);
                *p = &*p * (1.0 - lr * 0.01) - &m * lr;
                memory.push(m);
            }) },
        Row { name: "came", slots: &["exp_avg", "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col"],
            rests: true, parabola: 1e-2, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Bits(-0.62285304, -0.6228530843843922),
            optimizer: |lr| Box::new(Came::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                if memory.is_empty() {
                    let (rows, columns) = (Array2::zeros((g.nrows(), 1)), Array2::zeros((1, g.ncols())));
                    memory.extend([Array2::zeros(g.dim()), rows.clone(), columns.clone(), rows, columns]);
                }
                let u = g / root_of_means(&(g * g), &mut memory[1..3], 0.999, 1e-30);
                let u = &u / rms(&u).max(1.0);
                let m = &memory[0] * 0.9 + &u * (1.0 - 0.9);
                let difference = u - &m;
                let root = root_of_means(&(&difference * &difference), &mut memory[3..], 0.9999, 1e-16);
                *p -= &(&m / root * lr);
                memory[0] = m;
            }) },
        Row { name: "apollo", slots: &["exp_avg", "exp_avg_sq", "update_norm"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.49602239406285287),
            optimizer: |lr| Box::new(Apollo::new(lr).rank(2)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| *p -= &(apollo(t, g, memory, (2, 200), |x| {
                x.mapv(|x| x * x).sum_axis(Axis(1)).mapv(f64::sqrt).insert_axis(Axis(1))
            }) * lr)) },
        Row { name: "apollomini", slots: &["exp_avg", "exp_avg_sq", "update_norm"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Near(-0.6040179676166217),
            optimizer: |lr| Box::new(ApolloMini::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| *p -= &(apollo(t, g, memory, (1, 200), |x| {
                Array2::from_elem((1, 1), x.mapv(|x| x * x).sum().sqrt())
            }) * (lr * 128.0_f64.sqrt()))) },
        Row { name: "lbfgs", slots: &[], rests: true, parabola: 0.1, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5074312928291839),
            optimizer: |lr| Box::new(Lbfgs::new(lr).history(2)), oracle: Oracle::Matrix(lbfgs) },
    ];
    #[cfg(feature = "second-order")]
    let rows = rows.into_iter().chain(second_order::rows()).chain(super::preconditioned::rows()).collect();
    rows
}

impl<A: Scalar> Subject<A> for Lbfgs<A> {
    fn boxed_clone(&self) -> Box<dyn Subject<A>> {
        Box::new(self.clone())
    }

    fn slots(&self, _: &str) -> Vec<(&'static str, ArrayD<A>)> {
        Vec::new()
    }

    fn tensor_steps(&self, _: &str) -> u64 {
        self.steps()
    }

    fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
        None
    }
}

/// Two pairs. The inverse Hessian is written out as a matrix, by the formula that the two loops unroll.
fn lbfgs(t: i32, lr: f64, p: &mut Array2<f64>, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>) {
    let column =
        |matrix: &Array2<f64>| Array2::from_shape_vec((matrix.len(), 1), matrix.iter().copied().collect()).unwrap();
    let grad = column(g);
    if t > 1 {
        let (movement, before) = (memory.pop().unwrap(), memory.pop().unwrap());
        let change = &grad - &before;
        if (&change * &movement).sum() > 1e-10 {
            memory.extend([movement, change]);
            memory.drain(..memory.len().saturating_sub(4));
        }
    }
    let n = grad.len();
    let mut inverse = Array2::<f64>::eye(n);
    if let [.., s, y] = &memory[..] {
        inverse *= (s * y).sum() / (y * y).sum();
    }
    for pair in memory.chunks(2) {
        let (s, y, product) = (&pair[0], &pair[1], (&pair[0] * &pair[1]).sum());
        let left = Array2::<f64>::eye(n) - s.dot(&y.t()) / product;
        inverse = left.dot(&inverse).dot(&left.t()) + s.dot(&s.t()) / product;
    }
    let first = (1.0 / grad.iter().map(|g| g.abs()).sum::<f64>()).min(1.0);
    let movement = inverse.dot(&grad) * (-lr * if t == 1 { first } else { 1.0 });
    p.iter_mut().zip(&movement).for_each(|(p, movement)| *p += movement);
    memory.extend([grad, movement]);
}

/// An average that begins at 0.
fn average(memory: &mut Vec<Array2<f64>>, grad: &Array2<f64>, kept: f64) -> Array2<f64> {
    let before = memory.pop().unwrap_or_else(|| Array2::zeros(grad.dim()));
    memory.push(before * kept + grad * (1.0 - kept));
    memory[0].clone()
}

/// The direction of Dion with μ = 0.95; the first Q as the docs of its generator have it.
fn dion(g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, rank: usize) -> Array2<f64> {
    if memory.is_empty() {
        let mut at = 0_u64;
        let random = || {
            let mut z = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            at += 1;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / 2.0_f64.powi(52) - 1.0
        };
        memory.extend([Array2::zeros(g.dim()), Array2::from_shape_simple_fn((g.ncols(), rank), random)]);
    }
    let b = &memory[0] + g;
    let mut p = b.dot(&memory[1]);
    let length = |column: &ndarray::Array1<f64>| column.dot(column).sqrt();
    for j in 0..rank {
        let mut own = p.column(j).to_owned();
        for i in (0..j).chain(0..j) {
            let other = p.column(i).to_owned();
            own -= &(&other * own.dot(&other));
        }
        own /= length(&own);
        p.column_mut(j).assign(&own);
    }
    let mut r = b.t().dot(&p);
    memory[0] = b - p.dot(&r.t()) * (1.0 - 0.95);
    r.columns_mut().into_iter().for_each(|mut column| column /= length(&column.to_owned()) + 1e-8);
    memory[1] = r;
    p.dot(&memory[1].t()) * (g.nrows() as f64 / g.ncols() as f64).sqrt()
}

fn rms(matrix: &Array2<f64>) -> f64 {
    matrix.mapv(|x| x * x).mean().unwrap().sqrt()
}

/// The update of Adafactor, with ε added to the squares: where it is tiny, it is nothing beside random gradients.
fn adafactor(t: i32, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, eps: f64) -> Array2<f64> {
    let squares = g.mapv(|g| g * g + eps);
    let of_rows = squares.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
    let of_columns = squares.mean_axis(Axis(0)).unwrap().insert_axis(Axis(0));
    if memory.is_empty() {
        memory.extend([&of_rows, &of_columns].map(|means| Array2::zeros(means.dim())));
    }
    let weight = f64::from(t).powf(-0.8);
    for (mean, fresh) in memory.iter_mut().zip([of_rows, of_columns]) {
        *mean = &*mean * (1.0 - weight) + fresh * weight;
    }
    g / (&memory[0] * &memory[1] / memory[0].mean().unwrap()).mapv(f64::sqrt)
}

/// One step with these β, and the means of squares of each element's block.
fn adam_mini(
    t: i32,
    lr: f64,
    p: &mut Array2<f64>,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [beta1, beta2]: [f64; 2],
    means: fn(&Array2<f64>) -> Array2<f64>,
) {
    if g.is_empty() {
        return;
    }
    if memory.is_empty() {
        memory.extend([Array2::zeros(g.dim()), Array2::zeros(g.dim())]);
    }
    memory[0] = &memory[0] * beta1 + g * (1.0 - beta1);
    memory[1] = &memory[1] * beta2 + means(g) * (1.0 - beta2);
    let root = (&memory[1] / (1.0 - beta2.powi(t))).mapv(f64::sqrt) + 1e-8;
    *p -= &(&memory[0] / root * (lr / (1.0 - beta1.powi(t))));
}

/// The update of SM3, whose sums have these weights of what was and what is.
fn sm3(g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, [kept, fresh]: [f64; 2]) -> Array2<f64> {
    if memory.is_empty() {
        memory.extend([Array2::zeros((g.nrows(), 1)), Array2::zeros((1, g.ncols()))]);
    }
    let sums = Array2::from_shape_fn(g.dim(), |(i, j)| {
        kept * memory[0][[i, 0]].min(memory[1][[0, j]]) + fresh * g[[i, j]] * g[[i, j]]
    });
    for (axis, bound) in memory.iter_mut().enumerate() {
        let largest = sums.fold_axis(Axis(1 - axis), 0.0, |most, sum| sum.max(*most));
        *bound = largest.insert_axis(Axis(1 - axis));
    }
    Array2::from_shape_fn(g.dim(), |at| if sums[at] > 0.0 { g[at] / (sums[at] + 1e-8).sqrt() } else { 0.0 })
}

/// √(rc/mean of r) of averages of the means of rows and columns.
fn root_of_means(squares: &Array2<f64>, memory: &mut [Array2<f64>], beta: f64, eps: f64) -> Array2<f64> {
    for (axis, mean) in memory.iter_mut().enumerate() {
        let fresh = squares.mean_axis(Axis(1 - axis)).unwrap().insert_axis(Axis(1 - axis));
        *mean = &*mean * beta + (fresh + eps) * (1.0 - beta);
    }
    (&memory[0] * &memory[1] / memory[0].mean().unwrap()).mapv(f64::sqrt)
}

fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The update of APOLLO with a subspace of this rank, which changes after so many steps, and with these norms of channels.
fn apollo(
    t: i32,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    (rank, gap): (usize, i32),
    norms: fn(&Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    if g.is_empty() {
        return g.clone();
    }
    let (side, rank) = (g.ncols(), rank.min(g.ncols()));
    let key = splitmix64(splitmix64(0) + ((t - 1) / gap) as u64);
    let projection = Array2::from_shape_fn((side, rank), |(i, j)| {
        let bits = splitmix64(key.wrapping_add((i * rank + j) as u64));
        let uniform = (0..4).map(|part| ((bits >> (16 * part)) & 0xFFFF) as f64 - 65535.0 / 2.0);
        uniform.sum::<f64>() / ((65536.0_f64.powi(2) - 1.0) / 3.0 * rank as f64).sqrt()
    });
    let low = g.dot(&projection);
    if memory.is_empty() {
        memory.extend([Array2::zeros(low.dim()), Array2::zeros(low.dim()), Array2::zeros((1, 1))]);
    }
    memory[0] = &memory[0] * 0.9 + &low * (1.0 - 0.9);
    memory[1] = &memory[1] * 0.999 + &low * &low * (1.0 - 0.999);
    let adam = &memory[0] / (memory[1].mapv(f64::sqrt) + 1e-6);
    let u = g * &(norms(&adam) / (norms(&low) + 1e-8));
    let (norm, last) = (u.mapv(|u| u * u).sum().sqrt(), memory[2][[0, 0]]);
    let limiter = if last == 0.0 { 1.0 } else { (norm / (1.01 * (last + 1e-8))).max(1.0) };
    memory[2].fill(norm / limiter);
    u * ((1.0 - 0.999_f64.powi(t)).sqrt() / (1.0 - 0.9_f64.powi(t)) / limiter)
}

fn original_scale(grad: &Array2<f64>) -> f64 {
    (grad.nrows() as f64 / grad.ncols() as f64).max(1.0).sqrt()
}

/// The direction of NorMuon or AdaMuon, whose second moments are of these squares.
fn adaptive(
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    squares: impl Fn(&Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    if g.is_empty() {
        return g.clone();
    }
    let second = if memory.len() == 2 { memory.pop() } else { None };
    let u = average(memory, g, 0.95);
    let x = newton_schulz(&(g * 0.05 + u * 0.95));
    let squares = squares(&x);
    let second = second.unwrap_or_else(|| Array2::zeros(squares.dim())) * 0.95 + squares * 0.05;
    let y = x / (second.mapv(f64::sqrt) + 1e-10);
    memory.push(second);
    let norm = y.iter().map(|y| y * y).sum::<f64>().sqrt();
    y * (0.2 * (g.len() as f64).sqrt() / (norm + 1e-10))
}

/// The same, with each row as a matrix of its own, which has so many second moments.
fn adaptive_rows(
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    moments: usize,
    squares: fn(&Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    if memory.is_empty() {
        memory.extend([Array2::zeros(g.dim()), Array2::zeros((g.nrows(), moments))]);
    }
    let mut direction = g.clone();
    for row in 0..g.nrows() {
        let of_row = |matrix: &Array2<f64>| matrix.slice(s![row..=row, ..]).to_owned();
        let mut own = memory.iter().map(of_row).collect();
        direction.row_mut(row).assign(&adaptive(&of_row(g), &mut own, squares).row(0));
        memory.iter_mut().zip(&own).for_each(|(to, own)| to.row_mut(row).assign(&own.row(0)));
    }
    direction
}

/// Two triples, for more iterations than two.
const OWN: [[f64; 3]; 2] = [[3.0, -3.2, 1.2], [1.875, -1.25, 0.375]];

fn newton_schulz(matrix: &Array2<f64>) -> Array2<f64> {
    iterated(matrix, &[[3.4445, -4.7750, 2.0315]; 5])
}

fn iterated(matrix: &Array2<f64>, triples: &[[f64; 3]]) -> Array2<f64> {
    let tall = matrix.nrows() > matrix.ncols();
    let mut x = if tall { matrix.t().to_owned() } else { matrix.clone() };
    x /= matrix.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-7);
    for [a, b, c] in triples {
        let square = x.dot(&x.t());
        x = &x * *a + (&square * *b + square.dot(&square) * *c).dot(&x);
    }
    if tall { x.t().to_owned() } else { x }
}

/// Newton–Schulz steepens rounding 485 times, eigenvectors of close eigenvalues as much.
pub(crate) const STEEP: f64 = 500.0;

#[cfg(feature = "second-order")]
pub(super) mod second_order {
    use std::sync::Arc;

    use faer::{Mat, Side};
    use gradus::curvature::Kfac;
    use gradus::optimizer::Graft;
    use gradus::params::Layout;
    use gradus::testing::tensors::numbers;
    use gradus::{Commit, LinearTap, Report, Result, StateReader, StateWriter, Step};

    use super::*;

    #[rustfmt::skip]
    pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
        vec![
            Row { name: "shampoo", slots: &["left", "left_root", "right", "right_root"], rests: true,
                parabola: 1.0, rosenbrock: (0.5, 20_000),
                pinned: Pinned::Near(-0.545130093126148),
                optimizer: |lr| Box::new(Shampoo::new(lr).every(1).eps(1e-2)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                    *p -= &(shampoo(g, memory, [1.0, 1.0], 1.0) * lr);
                }) },
            Row { name: "shampoo, beta2, momentum, adam graft, weight decay",
                slots: &["momentum_buffer", "graft_exp_avg_sq", "graft_exp_avg", "left", "left_root", "right", "right_root"],
                rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
                pinned: Pinned::Near(-0.6445178684274415),
                optimizer: |lr| Box::new(Shampoo::new(lr).every(1).eps(1e-2).beta2(0.9).momentum(0.5).graft(Graft::Adam)
                    .weight_decay(0.01)),
                oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                    if memory.is_empty() {
                        memory.extend(vec![Array2::zeros(g.dim()); 3]);
                    }
                    let mut sides = memory.split_off(3);
                    let g = g + &(&*p * 0.01);
                    memory[1] = &memory[1] * 0.9 + &g * (1.0 - 0.9);
                    memory[2] = &memory[2] * 0.999 + &g * &g * (1.0 - 0.999);
                    let root = (&memory[2] / (1.0 - 0.999_f64.powi(t))).mapv(f64::sqrt) + 1e-8;
                    let adam = &memory[1] / (1.0 - 0.9_f64.powi(t)) / root;
                    let d = shampoo(&g, &mut sides, [0.9, 1.0 - 0.9], 1.0 - 0.9_f64.powi(t));
                    memory[0] = &memory[0] * 0.5 + &d * (norm(&adam) / norm(&d));
                    *p -= &(&memory[0] * lr);
                    memory.extend(sides);
                }) },
            Row { name: "galore", slots: &["exp_avg", "exp_avg_sq", "projection"], rests: true, parabola: 0.4, rosenbrock: (0.04, 10_000),
                pinned: Pinned::Near(-0.5094670420106533),
                optimizer: |lr| Box::new(GaLore::new(lr).rank(2).update_proj_gap(3)),
                oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                    if g.is_empty() {
                        return;
                    }
                    let rank = g.ncols().min(2);
                    if memory.is_empty() {
                        let moment = Array2::zeros((g.nrows(), rank));
                        memory.extend([moment.clone(), moment, Array2::zeros((g.ncols(), rank))]);
                    }
                    if (t - 1) % 3 == 0 {
                        let vectors = ndarray(faer(&g.t().dot(g)).self_adjoint_eigen(Side::Lower).unwrap().U());
                        let falling: Vec<usize> = (0..g.ncols()).rev().take(rank).collect();
                        memory[2] = vectors.select(Axis(1), &falling);
                        for mut vector in memory[2].columns_mut() {
                            let largest = vector.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
                            vector *= largest.signum();
                        }
                    }
                    let low = g.dot(&memory[2]);
                    memory[0] = &memory[0] * 0.9 + &low * (1.0 - 0.9);
                    memory[1] = &memory[1] * 0.999 + &low * &low * (1.0 - 0.999);
                    let direction = &memory[0] / (memory[1].mapv(f64::sqrt) + 1e-6);
                    let correction = (1.0 - 0.999_f64.powi(t)).sqrt() / (1.0 - 0.9_f64.powi(t));
                    *p -= &(direction.dot(&memory[2].t()) * (lr * 0.25 * correction));
                }) },
            Row { name: "kfac", slots: &["input_factor", "output_factor"], rests: true, parabola: 0.1, rosenbrock: (3e-4, 40_000),
                pinned: Pinned::Near(-0.4827191361130269),
                optimizer: |lr| Box::new(Tapped(Sgd::new(lr).kfac().damping(0.1).inverses_every(1).no_kl_clip())),
                oracle: Oracle::Matrix(|t, lr, p, g, memory| *p -= &(kfac(t, g, memory) * lr)) },
        ]
    }

    pub(crate) fn norm(matrix: &Array2<f64>) -> f64 {
        matrix.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    pub(crate) fn faer(matrix: &Array2<f64>) -> Mat<f64> {
        Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[[i, j]])
    }

    pub(crate) fn ndarray(matrix: faer::MatRef<'_, f64>) -> Array2<f64> {
        Array2::from_shape_fn((matrix.nrows(), matrix.ncols()), |(i, j)| matrix[(i, j)])
    }

    fn power(matrix: &Array2<f64>, shift: f64, exponent: f64) -> Array2<f64> {
        let eigen = faer(matrix).self_adjoint_eigen(Side::Lower).unwrap();
        let mut scaled = ndarray(eigen.U());
        for (at, mut column) in scaled.columns_mut().into_iter().enumerate() {
            column *= (eigen.S()[at].max(0.0) + shift).powf(exponent);
        }
        scaled.dot(&ndarray(eigen.U()).t())
    }

    /// (L/c + εI)^(−1/4) g (R/c + εI)^(−1/4); of 1 × 1 matrices L^(−1/2) alone.
    fn shampoo(g: &Array2<f64>, sides: &mut Vec<Array2<f64>>, [kept, fresh]: [f64; 2], bias: f64) -> Array2<f64> {
        if sides.is_empty() {
            sides.extend([g.nrows(), g.ncols()].map(|side| Array2::zeros((side, side))));
        }
        sides[0] = &sides[0] * kept + g.dot(&g.t()) * fresh;
        sides[1] = &sides[1] * kept + g.t().dot(g) * fresh;
        let root = |at: usize, exponent: f64| power(&(&sides[at] / bias), 1e-2, exponent);
        match g.len() {
            1 => root(0, -0.5).dot(g),
            _ => root(0, -0.25).dot(g).dot(&root(1, -0.25)),
        }
    }

    /// What a layer of this shape sees at its t-th tap.
    fn seen(t: u64, outputs: usize, inputs: usize) -> (Array2<f64>, Array2<f64>) {
        let tap = |columns: usize, stream: u64| numbers::<f32>(&[6, columns], stream).mapv(f64::from);
        let matrix = |tensor: ArrayD<f64>| tensor.into_dimensionality().unwrap();
        (matrix(tap(inputs, 1000 + 2 * t)), matrix(tap(outputs, 1001 + 2 * t)))
    }

    /// (G + √λ/π I)⁻¹ ∇ (A + π√λ I)⁻¹ with means of all taps so far, at most 20.
    fn kfac(t: i32, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>) -> Array2<f64> {
        let (input, delta) = seen(t as u64, g.nrows(), g.ncols());
        let kept = (1.0 - 1.0 / f64::from(t)).min(0.95);
        let fresh = [input.t().dot(&input) / 6.0, delta.t().dot(&delta) / 6.0];
        *memory = match &memory[..] {
            [a, g] => vec![a * kept + &fresh[0] * (1.0 - kept), g * kept + &fresh[1] * (1.0 - kept)],
            _ => fresh.to_vec(),
        };
        let mean = |at: usize| memory[at].diag().mean().unwrap();
        let (pi, root) = ((mean(0) / mean(1)).sqrt(), 0.1_f64.sqrt());
        power(&memory[1], root / pi, -1.0).dot(g).dot(&power(&memory[0], pi * root, -1.0))
    }

    /// K-FAC with a tap for every matrix that has a gradient.
    #[derive(Debug, Clone)]
    struct Tapped<A>(gradus::adaptor::Adapted<Sgd<A>, Kfac<A>>);

    impl<A: Scalar> Tapped<A> {
        fn updates(&self, path: &str) -> u64 {
            self.0.state_dict().text(&format!("kfac/updates/{path}")).map_or(0, |count| count.parse().unwrap())
        }
    }

    impl<A: Scalar> Optimizer<A> for Tapped<A> {
        fn check(&self, step: &Step<'_, A>) -> Result<()> {
            self.0.check(step)
        }

        fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
            self.0.check(&step)?;
            for (info, _) in step.grads().filter(|(info, _)| info.shape().len() > 1) {
                let (outputs, inputs) = (info.shape()[0], info.shape()[1..].iter().product());
                let (input, delta) = seen(self.updates(info.path()) + 1, outputs, inputs);
                let (input, delta) = (input.mapv(A::from_f64), delta.mapv(A::from_f64));
                self.0.observe(info.path(), LinearTap::new(&input, &delta))?;
            }
            self.0.apply(step)
        }

        fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
            self.0.conclude(result)
        }

        fn replace_learning_rate(&mut self, learning_rate: gradus::Hyper) {
            self.0.replace_learning_rate(learning_rate);
        }

        fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
            self.0.part(of)
        }

        fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
            self.0.part_mut(of)
        }

        fn learning_rate(&self) -> f64 {
            self.0.learning_rate()
        }

        fn steps(&self) -> u64 {
            self.0.steps()
        }

        fn layout(&self) -> Option<&Arc<Layout>> {
            self.0.layout()
        }

        fn write_state(&self, state: &mut StateWriter<'_>) {
            self.0.write_state(state);
        }

        fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
            self.0.read_state(state)
        }
    }

    impl<A: Scalar> Subject<A> for Tapped<A> {
        fn boxed_clone(&self) -> Box<dyn Subject<A>> {
            Box::new(self.clone())
        }

        fn slots(&self, path: &str) -> Vec<(&'static str, ArrayD<A>)> {
            let state = self.0.state_dict();
            let slot = |name: &'static str| Some((name, state.tensor(&format!("kfac/{name}/{path}"))?));
            ["input_factor", "output_factor"].into_iter().filter_map(slot).collect()
        }

        fn tensor_steps(&self, path: &str) -> u64 {
            self.updates(path)
        }

        fn state_precision(self: Box<Self>, _: StatePrecision) -> Option<Box<dyn Subject<A>>> {
            None
        }
    }
}
