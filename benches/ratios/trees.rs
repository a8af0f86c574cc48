//! Functions on whole trees, beside a step of SGD, which reads two arrays and writes one.

use std::hint::black_box;

use gradus::prelude::*;
use gradus::tree;
use ndarray::Array1;

use crate::shared::tensors::wave;
use crate::{Contestant, medians, repeats};

type Tree = Vec<Array1<f32>>;
type Run = fn(&mut Tree, &Tree);

/// Each with what it does to the first tree. The values stay finite however often it runs.
const FUNCTIONS: [(&str, Run); 8] = [
    ("lerp", |target, source| tree::lerp(target, source, 0.005).unwrap()),
    ("axpy", |target, source| tree::axpy(target, 1e-9, source).unwrap()),
    ("scale", |target, _| tree::scale(target, black_box(-1.0)).unwrap()),
    ("copy", |target, source| tree::copy(target, source).unwrap()),
    ("dot", |target, source| _ = black_box(tree::dot(target, source)).unwrap()),
    ("distance", |target, source| _ = black_box(tree::distance(target, source)).unwrap()),
    ("norm", |target, _| _ = black_box(tree::norm(target)).unwrap()),
    ("is_finite", |target, _| assert!(tree::is_finite(target))),
];

pub(crate) fn beside_a_step() {
    println!("\n## Functions on trees: f32, all threads, time over a step of SGD's\n");
    let names: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    println!("| tensors | step, µs | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (count, length) in
        [(1, 1 << 10), (16, 64), (1000, 64), (100, 1 << 12), (1, 1 << 18), (16, 1 << 18), (1, 1 << 25)]
    {
        let tensors = |phase: f64| -> Tree { (0..count).map(|_| wave(length, phase).into()).collect() };
        let (source, mut opt, mut params) = (tensors(1.0), Sgd::new(1e-9), tensors(0.0));
        let step: Contestant<'_> = ("step", Box::new(|| assert!(opt.step(&mut params, &source).unwrap().moved)));
        let mut contestants = vec![step];
        contestants.extend(FUNCTIONS.map(|(name, run)| -> Contestant<'_> {
            let (mut target, source) = (tensors(0.0), &source);
            (name, Box::new(move || run(black_box(&mut target), source)))
        }));
        let times = medians(repeats(count * length), &mut contestants);
        let ratios = times[1..].iter().map(|time| format!(" {:.2} |", time / times[0]));
        println!("| {count} × {length} | {:.1} |{}", times[0] * 1e6, ratios.collect::<String>());
    }
}
