//! Adafactor and CAME.

use gradus::prelude::*;
use gradus::rule::{Factored, FactoredRule, StatePrecision};
use ndarray::{Array2, ArrayD, Axis};

use crate::rows::{Oracle, Pinned, Row, Subject};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
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
    ]
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

/// √(rc/mean of r) of averages of the means of rows and columns.
fn root_of_means(squares: &Array2<f64>, memory: &mut [Array2<f64>], beta: f64, eps: f64) -> Array2<f64> {
    for (axis, mean) in memory.iter_mut().enumerate() {
        let fresh = squares.mean_axis(Axis(1 - axis)).unwrap().insert_axis(Axis(1 - axis));
        *mean = &*mean * beta + (fresh + eps) * (1.0 - beta);
    }
    (&memory[0] * &memory[1] / memory[0].mean().unwrap()).mapv(f64::sqrt)
}
