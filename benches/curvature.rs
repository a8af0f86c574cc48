//! What a step of the matrix optimizers costs, beside the bare products and decompositions that it consists of:
//! `cargo bench --bench curvature --features second-order`, with `-- --record` also to `benches/record/`, with `-- --simd v3` at a
//! lower SIMD level: that of gradus's own loops, as ndarray and faer choose theirs.
//!
//! On one thread, one matrix n × n in f32, K-FAC with a batch of 512. A step without decompositions is compared with its products
//! alone, one with decompositions with both. Bare products are faer's (the symmetric ones by its triangular product), for Muon
//! ndarray's `dot`; decompositions are faer's in f64. Interleaved rounds, medians, of ratios too.
//!
//! The products are those of the step, transposed where they are (of `GGᵀ` and `GᵀG` one has to be packed), on as many matrices as it
//! has, so that no more of them stay in the cache, and in ndarray's memory: taps and gradients are the user's arrays, and do not
//! begin at the cache lines at which faer's own matrices do.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "shared/level.rs"]
mod level;
#[path = "shared/record.rs"]
mod record;

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::solvers::DenseSolveCore;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use gradus::curvature::Kfac;
use gradus::{LinearTap, prelude::*, simd};
use ndarray::Array2;

use record::Record;

/// Rounds of matrices of 1,024; of smaller ones more, which take no longer.
const ROUNDS: usize = 15;
const BATCH: usize = 512;
const NEVER: u64 = 1 << 60;

fn wave(rows: usize, columns: usize, phase: f32) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17) as f32 * 0.37 + phase).sin() / columns as f32)
}

/// The milliseconds of one run of each, round by round.
fn rounds<const N: usize>(n: usize, mut contestants: [Box<dyn FnMut() + '_>; N]) -> [Vec<f64>; N] {
    let mut times = [(); N].map(|()| Vec::new());
    contestants.iter_mut().for_each(|run| run());
    for _ in 0..ROUNDS * (1024 / n).pow(2) {
        for (run, times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Step, bare calls and the median of their ratios in the same round, which whatever else the machine did slowed alike.
fn cells(step: &[f64], bare: &[f64]) -> String {
    let ratio = median(bare.iter().zip(step).map(|(bare, step)| bare / step));
    let [step, bare] = [step, bare].map(|times| median(times.iter().copied()));
    format!("{step:.2} | {bare:.2} | {ratio:.2}")
}

/// Bare calls on as many matrices of their own as a step has, which lie as those of the step do: in ndarray's memory, row by row.
struct Bare {
    batches: [Array2<f32>; 2],
    grad: Array2<f32>,
    /// Inverses, roots or bases.
    sides: [Array2<f32>; 2],
    grams: [Array2<f32>; 2],
    half: Array2<f32>,
    whole: Array2<f32>,
    double: Mat<f64>,
    double_out: Mat<f64>,
}

/// In faer's terms.
fn rows_of(matrix: &Array2<f32>) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(matrix.as_slice().unwrap(), matrix.nrows(), matrix.ncols())
}

fn rows_of_mut(matrix: &mut Array2<f32>) -> MatMut<'_, f32> {
    let (rows, columns) = matrix.dim();
    MatMut::from_row_major_slice_mut(matrix.as_slice_mut().unwrap(), rows, columns)
}

fn multiply(out: &mut Array2<f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(rows_of_mut(out), Accum::Replace, a, b, 1.0, Par::Seq);
}

fn gram(out: &mut Array2<f32>, a: MatRef<'_, f32>) {
    let (out, lower, whole) = (rows_of_mut(out), BlockStructure::TriangularLower, BlockStructure::Rectangular);
    triangular::matmul(out, lower, Accum::Replace, a, whole, a.transpose(), whole, 1.0, Par::Seq);
}

impl Bare {
    fn new(n: usize) -> Self {
        let entry = |i: usize, j: usize| ((i * 31 + j * 17) as f32 * 0.37).sin() / n as f32;
        let squares = || [wave(n, n, 0.0), wave(n, n, 1.0)];
        let [half, whole] = squares();
        Self {
            batches: [wave(BATCH, n, 2.0), wave(BATCH, n, 3.0)],
            grad: wave(n, n, 2.0),
            sides: squares(),
            grams: squares(),
            half,
            whole,
            double: Mat::from_fn(n, n, |i, j| f64::from(entry(i.max(j), i.min(j))) + if i == j { 2.0 } else { 0.0 }),
            double_out: Mat::zeros(n, n),
        }
    }

    fn of_batches(&mut self) {
        self.grams.iter_mut().zip(&self.batches).for_each(|(out, batch)| gram(out, rows_of(batch).transpose()));
    }

    /// GGᵀ and GᵀG.
    fn of_grad(&mut self) {
        let [left, right] = &mut self.grams;
        gram(left, rows_of(&self.grad));
        gram(right, rows_of(&self.grad).transpose());
    }

    /// From both sides.
    fn preconditioned(&mut self) {
        multiply(&mut self.half, rows_of(&self.sides[0]), rows_of(&self.grad));
        multiply(&mut self.whole, rows_of(&self.half), rows_of(&self.sides[1]));
    }

    /// Into the bases and back.
    fn turned(&mut self) {
        multiply(&mut self.half, rows_of(&self.sides[0]).transpose(), rows_of(&self.grad));
        multiply(&mut self.whole, rows_of(&self.half), rows_of(&self.sides[1]));
        multiply(&mut self.half, rows_of(&self.sides[0]), rows_of(&self.whole));
        multiply(&mut self.whole, rows_of(&self.half), rows_of(&self.sides[1]).transpose());
    }

    fn inverses(&mut self) {
        (0..2).for_each(|_| _ = black_box(self.double.llt(Side::Lower).unwrap().inverse()));
    }

    fn roots(&mut self) {
        for _ in 0..2 {
            let eigen = self.double.self_adjoint_eigen(Side::Lower).unwrap();
            matmul(self.double_out.as_mut(), Accum::Replace, eigen.U(), eigen.U().transpose(), 1.0, Par::Seq);
        }
    }

    fn bases(&mut self) {
        self.turned();
        for (gram, side) in self.grams.iter().zip(&self.sides) {
            multiply(&mut self.whole, rows_of(gram), rows_of(side));
        }
        (0..2).for_each(|_| _ = black_box(self.double.qr().compute_thin_Q()));
    }

    fn dots(&mut self, count: usize) {
        let Self { half, grad, whole, .. } = self;
        (0..count).for_each(|_| ndarray::linalg::general_mat_mul(1.0, half, grad, 0.0, whole));
    }
}

fn step<'r>(mut opt: impl Optimizer<f32> + 'r, n: usize) -> Box<dyn FnMut() + 'r> {
    let (mut params, grads) = (wave(n, n, 0.0), wave(n, n, 1.0));
    Box::new(move || assert!(opt.step(&mut params, &grads).unwrap().moved))
}

/// Observes a batch and steps.
fn curved<'r>(mut opt: Kfac<Sgd<f32>, f32>, n: usize) -> Box<dyn FnMut() + 'r> {
    let (mut params, grads) = (wave(n, n, 0.0), wave(n, n, 1.0));
    let (input, delta) = (wave(BATCH, n, 2.0), wave(BATCH, n, 3.0));
    Box::new(move || {
        opt.observe("", LinearTap::new(&input, &delta)).unwrap();
        assert!(opt.step(&mut params, &grads).unwrap().moved);
    })
}

fn bare<'r>(n: usize, mut run: impl FnMut(&mut Bare) + 'r) -> Box<dyn FnMut() + 'r> {
    let mut bare = Bare::new(n);
    Box::new(move || run(&mut bare))
}

fn table() {
    println!(
        "| optimizer | n | step, ms | its products, ms | ratio | with decompositions, ms | both bare, ms | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for n in [256, 512, 1024] {
        let kfac = |period: u64| curved(Sgd::new(1e-6).kfac().inverse_period(period), n);
        let shampoo = |period: u64| {
            let mut run = step(Shampoo::new(1e-6).every(period), n);
            (0..16).for_each(|_| run()); // its first steps have roots of their own
            run
        };
        let soap = |period: u64| step(Soap::new(1e-6).every(period), n);
        type Calls = fn(&mut Bare);
        type Steps = [Box<dyn FnMut()>; 2];
        let rows: [(&str, Steps, Calls, Calls); 3] = [
            (
                "K-FAC",
                [kfac(NEVER), kfac(1)],
                |bare| {
                    bare.of_batches();
                    bare.preconditioned();
                },
                Bare::inverses,
            ),
            (
                "Shampoo",
                [shampoo(NEVER), shampoo(1)],
                |bare| {
                    bare.of_grad();
                    bare.preconditioned();
                },
                Bare::roots,
            ),
            (
                "SOAP",
                [soap(NEVER), soap(1)],
                |bare| {
                    bare.of_grad();
                    bare.turned();
                },
                Bare::bases,
            ),
        ];
        for (name, [plain, whole], products, decompositions) in rows {
            let both = bare(n, move |bare| {
                products(bare);
                decompositions(bare);
            });
            let [plain, alone, whole, both] = rounds(n, [plain, bare(n, products), whole, both]);
            println!("| {name} | {n} | {} | {} |", cells(&plain, &alone), cells(&whole, &both));
        }
        let [muon, dots] = rounds(n, [step(Muon::new(1e-6), n), bare(n, |bare| bare.dots(15))]);
        println!("| Muon | {n} | {} | – | – | – |", cells(&muon, &dots));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let given = |option: &str| std::env::args().any(|argument| argument == option);
    if given("--table") {
        rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(table);
        return Ok(());
    }
    level::begin()?;
    let mut record = Record::default();
    record.say(&format!(
        "One thread, {ROUNDS}·(1024/n)² interleaved rounds, medians; a ratio is bare calls over the step in the same round.\n"
    ));
    record.run(&["--table".into()], &[])?;
    if given("--record") {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/record");
        let command =
            format!("`cargo bench --bench curvature --features second-order -- --record --simd {}`", simd::level());
        record.write(&folder, "curvature", &command)?;
    }
    Ok(())
}
