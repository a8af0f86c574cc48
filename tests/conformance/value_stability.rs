//! The numbers that each row gives, pinned. They are part of the interface: a change of the last bit is a change that
//! users see in their results, and is named in the CHANGELOG.

use gradus::prelude::*;
use ndarray::ArrayD;

use super::rows::{Row, rows};
use super::tensors::{number, numbers};

const STEPS: u64 = 5;

/// Where an element that starts at 0.75 is after five steps, in f32 and in f64.
const PINNED: &[(&str, f32, f64)] = &[
    ("sgd", 0.72646827, 0.7264683546069802),
    ("sgd, weight decay", 0.7256278, 0.7256277704644899),
    ("momentum", 0.70276064, 0.7027606656634291),
    ("momentum, dampening, weight decay", 0.700549, 0.7005490208724872),
    ("momentum, classical", 0.6533886, 0.6533886108801966),
    ("momentum, classical, dampening", 0.6521773, 0.6521772775465228),
    ("nesterov", 0.6839529, 0.6839529537040664),
    ("nesterov, weight decay", 0.6816628, 0.6816628171235083),
    ("nesterov, classical", 0.63951814, 0.6395181043991572),
    ("rmsprop", 0.27277592, 0.2727758677707267),
    ("rmsprop, weight decay", 0.5969213, 0.5969214049084544),
    ("rmsprop, eps inside", 0.60246736, 0.6024673168470843),
    ("rmsprop, centered", 0.2798121, 0.2798120916023567),
    ("rmsprop, momentum", -0.20869943, -0.20869954580911393),
    ("rmsprop, centered, momentum, eps inside, classical", -0.9077474, -0.907747439015675),
    ("adam", 0.6706532, 0.6706532725855109),
    ("adam, betas, eps, weight decay", 0.6731077, 0.6731077002894772),
    ("adam, amsgrad", 0.670659, 0.6706590660222471),
    ("adam, eps hat", 0.6753841, 0.6753841170204876),
    ("adam, no bias correction", 0.4530109, 0.4530108605255341),
    ("adamw", 0.6698374, 0.6698374609163863),
    ("adamw, amsgrad, weight decay", 0.6705774, 0.6705774537391271),
];

/// The same of the server optimizers, which stand behind a feature.
const SERVERS: &[(&str, f32, f64)] = &[
    ("fedadam", 0.65760183, 0.6576018213489694),
    ("fedadam, flower, betas, tau, weight decay", 0.69363195, 0.693631975904702),
    ("fedyogi", 0.65791255, 0.6579124984201186),
    ("fedadagrad", 0.7406308, 0.7406308610033673),
];

fn end<A: Scalar>(row: &Row<A>) -> A {
    let mut opt = row.with(|step: u64| 0.05 / (1 + step) as f64);
    let start = if row.is_elementwise() { ArrayD::from_elem(vec![1], A::from_f64(0.75)) } else { numbers(&[5, 5], 0) };
    let mut params = start;
    for step in 1..=STEPS {
        // Smaller and smaller, so that AMSGrad's maximum matters.
        let scale = A::from_f64(step as f64);
        let mut at = 0;
        let grads = ArrayD::from_shape_simple_fn(params.raw_dim(), || {
            at += 1;
            number::<A>(step, at - 1) / scale
        });
        opt.step(&mut params, &grads).unwrap();
    }
    params[if row.is_elementwise() { &[0][..] } else { &[1, 3] }]
}

#[test]
fn every_row_gives_the_pinned_bits() {
    let singles = rows().into_iter().filter(Row::is_elementwise);
    let doubles = rows().into_iter().filter(Row::is_elementwise);
    let found: Vec<_> =
        singles.zip(doubles).map(|(single, double)| (single.name, end(&single), end(&double))).collect();
    let servers = if cfg!(feature = "federated") { SERVERS } else { &[] };
    assert_eq!(found, [PINNED, servers].concat());
}

/// Where the element (1, 3) of a matrix of 5 × 5 is after five steps. Matrix products round as the processor's
/// instructions make them, so the last bits are free.
const MATRICES: &[(&str, f64)] = &[
    ("muon", -0.5448322181692615),
    ("muon, no nesterov, no decay, match rms", -0.5245506481250563),
    ("lbfgs", -0.5074312928291839),
    ("shampoo", -0.545130093126148),
    ("shampoo, beta2, momentum, adam graft, weight decay", -0.6445178684274415),
    ("soap", -0.5689426015024905),
    ("soap, no decay", -0.5690019744548516),
    ("kfac", -0.4827191361130269),
];

#[test]
fn every_matrix_row_gives_the_pinned_numbers() {
    let all: Vec<Row<f64>> = rows().into_iter().filter(|row| !row.is_elementwise()).collect();
    for (row, (name, pinned)) in all.iter().zip(MATRICES) {
        let found = end(row);
        assert_eq!(row.name, *name);
        assert!((found - pinned).abs() < 1e-11, "{name}: {found:?}");
    }
    assert_eq!(all.len(), if cfg!(feature = "second-order") { MATRICES.len() } else { 3 });
}
