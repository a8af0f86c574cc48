//! Ratios of one interleaved run: `cargo bench --bench ratios`.
//!
//! In each of [`ROUNDS`] rounds every contestant of a table runs once, in turn; a ratio is one of medians. On a noisy
//! machine that is the only number worth keeping. The output is Markdown; with `-- --record` it is also written to
//! `benches/record/`, with `-- --simd v3` it is that of a lower SIMD level. `-- --draw` runs nothing and draws the newest records to
//! `guide/speed.svg`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

mod by_hand;
#[path = "../shared/level.rs"]
mod level;
mod picture;
#[path = "../shared/record.rs"]
mod record;
#[path = "../shared/mod.rs"]
mod shared;
mod trees;
mod zoo;

use std::cell::RefCell;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use gradus::adaptor::Monitor;
use gradus::prelude::*;
use gradus::simd;
use ndarray::{Array1, Array2, ArrayD, Zip, aview_mut1, aview1};
use rayon::prelude::*;

use record::Record;
use shared::floor::{Lines, move_bytes};
use shared::layouts::LAYOUTS;
use shared::optimizers::{ADAPTORS, PRECISIONS, optimizers};
use shared::tensors::{gpt2, wave};

const ROUNDS: usize = 31;

/// One contestant: runs once.
type Contestant<'c> = (&'c str, Box<dyn FnMut() + 'c>);

/// Seconds of one run of each contestant: medians over the rounds, each round `repeats` runs in a row.
fn medians(repeats: usize, contestants: &mut [Contestant<'_>]) -> Vec<f64> {
    let mut times = vec![Vec::new(); contestants.len()];
    contestants.iter_mut().for_each(|(_, run)| run());
    for _ in 0..ROUNDS {
        for ((_, run), times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            (0..repeats).for_each(|_| run());
            times.push(start.elapsed().as_secs_f64() / repeats as f64);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    times.into_iter().map(median).collect()
}

/// As many runs as make about eight million elements.
fn repeats(elements: usize) -> usize {
    ((1 << 23) / elements.max(64)).max(1)
}

/// A step on one flat tensor.
fn step<'c>(mut opt: impl Optimizer<f32> + 'c, elements: usize, grads: &'c [f32]) -> Box<dyn FnMut() + 'c> {
    let mut params = wave(elements, 0.0);
    Box::new(move || assert!(black_box(opt.step(&mut aview_mut1(&mut params), &aview1(grads))).unwrap().moved))
}

fn floor<'c>(slots: usize, elements: usize, grads: &'c [f32]) -> Box<dyn FnMut() + 'c> {
    let mut params = Lines::new(|i| grads[i], elements);
    let mut slots: Vec<_> = (0..slots).map(|_| Lines::zeros(elements)).collect();
    Box::new(move || move_bytes(black_box(&mut params), grads, &mut slots))
}

fn against_the_floor() {
    println!("\n## f32, all threads, beside a loop that moves the same bytes\n");
    println!("| optimizer | elements | ns/element | floor ns/element | floor/optimizer |\n|---|---|---|---|---|");
    for (name, slots, build) in optimizers() {
        for log in [10, 14, 18, 22, 25] {
            let elements = 1 << log;
            let grads = wave(elements, 1.0);
            let mut contestants =
                [("step", step(build(), elements, &grads)), ("floor", floor(slots, elements, &grads))];
            let times = medians(repeats(elements), &mut contestants);
            let [own, floor] = [0, 1].map(|i| times[i] * 1e9 / elements as f64);
            println!("| {name} | 2^{log} | {own:.3} | {floor:.3} | {:.2} |", floor / own);
        }
    }
}

fn one_thread(run: impl FnOnce() + Send) {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
}

fn against_a_loop_by_hand() {
    println!("\n## f32 Adam, one thread, beside the same expression over slices\n");
    println!("| elements | ns | by hand, ns | step/by hand |\n|---|---|---|---|");
    for log in [10, 12, 14, 16] {
        let elements = 1 << log;
        let grads = wave(elements, 1.0);
        let mut params = Lines::new(|i| grads[i], elements);
        let (mut slots, mut count) = ([Lines::zeros(elements), Lines::zeros(elements)], 0);
        let by_hand = Box::new(|| {
            count += 1;
            by_hand::adam(black_box(&mut params), &grads, &mut slots, count);
        });
        let mut contestants: [Contestant<'_>; 2] =
            [("step", step(Adam::new(1e-3), elements, &grads)), ("by hand", by_hand)];
        let times = medians(repeats(elements), &mut contestants);
        println!("| 2^{log} | {:.0} | {:.0} | {:.2} |", times[0] * 1e9, times[1] * 1e9, times[0] / times[1]);
    }
}

fn many_tensors() {
    println!("\n## Many tensors: f32 Adam, nanoseconds a tensor\n");
    println!("| tensors | threads | ns/tensor | a `Zip` loop, ns/tensor | step/loop |\n|---|---|---|---|---|");
    for (count, length) in [(1, 1), (1000, 64), (1000, 1024), (1000, 8192)] {
        for threads in [1, rayon::current_num_threads()] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let tensors =
                    |phase: f64| -> Vec<Array1<f32>> { (0..count).map(|_| wave(length, phase).into()).collect() };
                let (mut params, mut own, grads) = (tensors(0.0), tensors(0.0), tensors(1.0));
                let (mut first, mut second) = (tensors(2.0), tensors(3.0));
                let mut opt = Adam::new(1e-3);
                let mut contestants: [Contestant<'_>; 2] = [
                    ("step", Box::new(|| assert!(opt.step(&mut params, &grads).unwrap().moved))),
                    (
                        "loop",
                        Box::new(|| {
                            for (((p, g), m), v) in own.iter_mut().zip(&grads).zip(&mut first).zip(&mut second) {
                                Zip::from(p).and(g).and(m).and(v).for_each(|p, &g, m, v| {
                                    *m = 0.9 * *m + 0.1 * g;
                                    *v = 0.999 * *v + 0.001 * g * g;
                                    *p -= 1e-3 * (*m / (v.sqrt() + 1e-8));
                                });
                            }
                            black_box(&mut own);
                        }),
                    ),
                ];
                let times = medians(repeats(count * length), &mut contestants);
                let [own, by_hand] = [0, 1].map(|i| times[i] * 1e9 / count as f64);
                println!("| {count} × {length} | {threads} | {own:.0} | {by_hand:.0} | {:.2} |", own / by_hand);
            });
        }
    }
    let (mut params, grads, mut opt) = (gpt2(0.0), gpt2(1.0), AdamW::new(1e-3));
    let elements: usize = params.iter().map(ArrayD::len).sum();
    let flat = wave(elements, 1.0);
    let mut contestants: [Contestant<'_>; 2] = [
        ("step", Box::new(|| assert!(opt.step(&mut params, &grads).unwrap().moved))),
        ("one tensor", step(AdamW::new(1e-3), elements, &flat)),
    ];
    let times = medians(1, &mut contestants);
    println!(
        "\nAdamW on the {} tensors of GPT-2 small against one tensor of as many elements: {:.2} × its time.",
        grads.len(),
        times[0] / times[1]
    );
}

fn layouts() {
    println!("\n## Layouts: f32 Adam at 2048 × 2048, relative to contiguous\n");
    println!("| parameter | gradient | time |\n|---|---|---|");
    let side = 2048;
    let matrix = Array2::from_shape_vec((side, side), wave(side * side, 1.0)).unwrap();
    let mut contestants = LAYOUTS.map(|(name, param, grad)| -> Contestant<'_> {
        let (mut opt, mut params, grads) = (Adam::new(1e-3), param.hold(&matrix), grad.hold(&matrix));
        (name, Box::new(move || _ = opt.step(&mut param.view_mut(&mut params), &grad.view(&grads)).unwrap()))
    });
    let times = medians(4, &mut contestants);
    for ((name, _), time) in contestants.iter().zip(&times) {
        println!("| {name} | {:.2} |", time / times[0]);
    }
}

fn adaptors() {
    println!("\n## Adaptors: f32 AdamW on 2 × 2^21, relative to none\n");
    println!("| adaptor | time |\n|---|---|");
    let halves = |phase| [0; 2].map(|_| Array1::<f32>::from(wave(1 << 21, phase)));
    let grads = halves(1.0);
    let mut contestants = ADAPTORS.map(|(name, build)| -> Contestant<'_> {
        let (mut opt, mut params) = (build(), halves(0.0));
        // Until the parameters move: of an accumulation, all its micro-batches.
        (
            name,
            Box::new({
                let grads = &grads;
                move || while !black_box(opt.step(&mut params, grads)).unwrap().moved {}
            }),
        )
    });
    let times = medians(4, &mut contestants);
    for ((name, _), time) in contestants.iter().zip(&times) {
        println!("| {name} | {:.2} |", time / times[0]);
    }
}

fn monitor() {
    println!("\n## Monitor: f32, all threads, relative to the step without one\n");
    println!(
        "| optimizer | elements | none, again | between two measured steps | on every step |\n|---|---|---|---|---|"
    );
    for log in [10, 22] {
        let elements = 1 << log;
        let grads = wave(elements, 1.0);
        let adamw = || AdamW::new(1e-3);
        // A first step is measured, and is not timed.
        let [seldom, always] = [|| Monitor::every(1 << 40), || Monitor::every(1)];
        let mut plain: [Contestant<'_>; 4] = [
            ("none", step(adamw(), elements, &grads)),
            ("none, again", step(adamw(), elements, &grads)),
            ("seldom", step(adamw().monitor(seldom()), elements, &grads)),
            ("always", step(adamw().monitor(always()), elements, &grads)),
        ];
        let clipped = || adamw().clip_global_norm(1.0);
        let mut with_clip: [Contestant<'_>; 4] = [
            ("none", step(clipped(), elements, &grads)),
            ("none, again", step(clipped(), elements, &grads)),
            ("seldom", step(clipped().monitor(seldom()), elements, &grads)),
            ("always", step(clipped().monitor(always()), elements, &grads)),
        ];
        for (name, contestants) in [("AdamW", &mut plain), ("AdamW, clipped", &mut with_clip)] {
            let times = medians(repeats(elements), contestants);
            let ratios = times[1..].iter().map(|time| format!(" {:.3} |", time / times[0]));
            println!("| {name} | 2^{log} |{}", ratios.collect::<String>());
        }
    }
}

fn narrow_state() {
    println!("\n## State precision: f32 Adam, all threads, f32 state's time over it\n");
    println!(
        "| elements | bf16 | bf16, to nearest | 8 bits | 4 bits | 4 bits, to nearest |\n|---|---|---|---|---|---|"
    );
    for log in [18, 22, 25] {
        let elements = 1 << log;
        let grads = wave(elements, 1.0);
        let mut contestants = PRECISIONS.map(|(name, precision, _)| -> Contestant<'_> {
            (name, step(Adam::new(1e-3).state_precision(precision), elements, &grads))
        });
        let times = medians(repeats(elements), &mut contestants);
        let ratios = times[1..].iter().map(|time| format!(" {:.2} |", times[0] / time));
        println!("| 2^{log} |{}", ratios.collect::<String>());
    }
}

fn average_in_the_sweep() {
    let elements = 1 << 25;
    let grads = wave(elements, 1.0);
    let (mut params, mut average) = (wave(elements, 0.0), wave::<f32>(elements, 0.0));
    let mut opt = AdamW::new(1e-3);
    let two_passes = Box::new(|| {
        opt.step(&mut aview_mut1(&mut params), &aview1(&grads)).unwrap();
        let parts = average.par_chunks_mut(1 << 16).zip(params.par_chunks(1 << 16));
        parts.for_each(|(a, p)| a.iter_mut().zip(p).for_each(|(a, p)| *a += 0.001 * (p - *a)));
    });
    let mut contestants: [Contestant<'_>; 2] =
        [("sweep", step(AdamW::new(1e-3).ema(0.999), elements, &grads)), ("two passes", two_passes)];
    let times = medians(1, &mut contestants);
    println!(
        "\n## Average of the parameters at 2^25\n\nA second pass takes {:.2} × the time of the sweep.",
        times[1] / times[0]
    );
}

fn rows() {
    const ROWS: usize = 1_000_000;
    const WIDTH: usize = 64;
    println!("\n## Gradients of rows: f32 Adam on {ROWS} × {WIDTH}, all threads, the dense step's time over it\n");
    println!(
        "Lines: a loop that reads one number of every cache line of these rows, of parameter, gradient and both slots, and computes nothing.\n"
    );
    println!(
        "| rows | µs | µs lines | µs dense | lines/rows | dense/rows | dense/lines |\n|---|---|---|---|---|---|---|"
    );
    let table = || Array2::<f32>::zeros((ROWS, WIDTH));
    let running = RefCell::new((Adam::new(1e-3), table()));
    let dense = Array2::from_shape_vec((ROWS, WIDTH), wave(ROWS * WIDTH, 1.0)).unwrap();
    let take = |grads: &dyn Params<Elem = f32>| {
        let (opt, params) = &mut *running.borrow_mut();
        assert!(black_box(opt.step(params, grads)).unwrap().moved);
    };
    let arrays = [0.0, 1.0, 2.0].map(|phase| wave(ROWS * WIDTH, phase));
    for count in [100, 1000, 10_000, 100_000] {
        // Other rows in every step, so that none is in the cache.
        let chosen = |step: usize| (0..count).map(|k| (k * 7919 + step * 104_729) * 613 % ROWS).collect();
        let values = || Array2::from_shape_vec((count, WIDTH), wave(count * WIDTH, 1.0)).unwrap();
        let gradient = |step| Rows::new(chosen(step), values());
        let grads: Vec<Rows<f32>> = (0..ROUNDS + 1).map(gradient).collect();
        let (mut steps, mut read) = (grads.iter().cycle(), grads.iter().cycle());
        let of_rows = Box::new(|| take(steps.next().unwrap()));
        let lines = Box::new(|| _ = black_box(read_rows(read.next().unwrap(), &arrays)));
        let mut contestants: [Contestant<'_>; 3] =
            [("rows", of_rows), ("dense", Box::new(|| take(&dense))), ("lines", lines)];
        let times = medians(1, &mut contestants);
        let [own, whole, lines] = [0, 1, 2].map(|i| times[i] * 1e6);
        let ratios = [lines / own, whole / own, whole / lines].map(|ratio| format!("{ratio:.2}")).join(" | ");
        println!("| {count} | {own:.0} | {lines:.0} | {whole:.0} | {ratios} |");
    }
}

/// Reads one number of every cache line of the gradient's rows and of those of the arrays, on all threads.
fn read_rows(grad: &Rows<f32>, arrays: &[Vec<f32>]) -> f32 {
    const LINE: usize = 16;
    let (width, values) = (grad.values.ncols(), grad.values.as_slice().unwrap());
    let lines = |row: &[f32]| row.iter().step_by(LINE).chain(row.last()).sum::<f32>();
    let share = grad.rows.len().div_ceil(rayon::current_num_threads());
    let shares = grad.rows.par_chunks(share).zip(values.par_chunks(share * width));
    let sums = shares.map(|(rows, values)| {
        let of_arrays = |row: &usize| arrays.iter().map(|array| lines(&array[row * width..][..width])).sum::<f32>();
        rows.iter().map(of_arrays).sum::<f32>() + lines(values)
    });
    sums.sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    let given = |option: &str| std::env::args().any(|argument| argument == option);
    // `cargo bench -- name` runs one table; without a name, all.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let tables = || TABLES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if given("--draw") {
        return picture::draw(&folder.join("benches/record"), &folder.join("guide/speed.svg"));
    }
    if given("--table") {
        tables().for_each(|(_, table)| table());
        return Ok(());
    }
    level::begin()?;
    let mut record = Record::default();
    record.say(&format!("{ROUNDS} interleaved rounds, medians; {} threads.", rayon::current_num_threads()));
    for (name, _) in tables() {
        record.run(&["--table".into(), (*name).into()], &[])?;
    }
    if given("--record") {
        let command =
            [format!("cargo bench --bench ratios -- --record --simd {}", simd::level()), wanted.join(" ")].join(" ");
        record.write(&folder.join("benches/record"), "ratios", &format!("`{}`", command.trim()))?;
    }
    Ok(())
}

/// Each runs in a process of its own: what earlier tables left in the heap is not the library's.
const TABLES: [(&str, fn()); 11] = [
    ("floor", against_the_floor),
    ("zoo", zoo::against_the_floor),
    ("hand", || one_thread(against_a_loop_by_hand)),
    ("tensors", many_tensors),
    ("layouts", layouts),
    ("adaptors", adaptors),
    ("monitor", monitor),
    ("precision", narrow_state),
    ("ema", average_in_the_sweep),
    ("rows", rows),
    ("trees", trees::beside_a_step),
];
