//! Every other optimizer, and the options that measure a tensor before it moves, each beside the floor of its own bytes.

use std::hint::black_box;

use gradus::prelude::*;
use ndarray::{aview_mut1, aview1};
use rayon::prelude::*;

use crate::shared::floor::{Lines, SHARE, TOGETHER, arch, move_bytes};
use crate::shared::optimizers::Build;
use crate::shared::tensors::wave;
use crate::{Contestant, medians, repeats};

/// A name, the optimizer's state slots, for each pass before the move the arrays that it reads, and the optimizer.
type Row = (&'static str, usize, &'static [usize], Build<f32>);

/// Of the parameter-free optimizers: with 1, always the same gradient would double the step until it overflows.
const PARAMETER_FREE: f64 = 1e-6;

/// What reads nothing before it moves.
const ONCE: &[usize] = &[];

const OPTIMIZERS: [Row; ROWS] = [
    ("NAdam", 2, ONCE, || Box::new(NAdam::new(1e-3))),
    ("RAdam", 2, ONCE, || Box::new(RAdam::new(1e-3))),
    ("Adamax", 2, ONCE, || Box::new(Adamax::new(1e-3))),
    ("Adagrad", 1, ONCE, || Box::new(Adagrad::new(1e-3))),
    ("Adadelta", 2, ONCE, || Box::new(Adadelta::new(1e-3))),
    ("Rprop", 2, ONCE, || Box::new(Rprop::new(1e-3))),
    ("Lion", 1, ONCE, || Box::new(Lion::new(1e-4))),
    ("Signum", 1, ONCE, || Box::new(Signum::new(1e-4))),
    ("AdaBelief", 2, ONCE, || Box::new(AdaBelief::new(1e-3))),
    ("Yogi", 2, ONCE, || Box::new(Yogi::new(1e-3))),
    ("LaProp", 2, ONCE, || Box::new(LaProp::new(1e-3))),
    ("AdEMAMix", 3, ONCE, || Box::new(AdEMAMix::new(1e-3))),
    ("SimplifiedAdEMAMix", 2, ONCE, || Box::new(SimplifiedAdEMAMix::new(1e-4))),
    ("Adopt", 2, ONCE, || Box::new(Adopt::new(1e-3))),
    ("Adan", 4, ONCE, || Box::new(Adan::new(1e-3))),
    ("Madgrad", 3, ONCE, || Box::new(Madgrad::new(1e-3))),
    ("SgdScheduleFree", 1, ONCE, || Box::new(SgdScheduleFree::new(1e-3))),
    ("AdamWScheduleFree", 2, ONCE, || Box::new(AdamWScheduleFree::new(1e-3))),
    ("RAdamScheduleFree", 2, ONCE, || Box::new(RAdamScheduleFree::new(1e-3))),
    // Gradient and last gradient.
    ("Mars", 3, &[2], || Box::new(Mars::new(1e-3))),
    ("NovoGrad", 1, &[1], || Box::new(NovoGrad::new(1e-3))),
    // Gradient, sum of gradients and distance.
    ("Prodigy", 4, &[3], || Box::new(Prodigy::new(PARAMETER_FREE))),
    ("DoG", 1, &[2], || Box::new(DoG::new(PARAMETER_FREE))),
    ("DoWG", 1, &[2], || Box::new(DoWG::new(PARAMETER_FREE))),
    ("DAdaptAdam", 3, &[3], || Box::new(DAdaptAdam::new(PARAMETER_FREE))),
    ("DAdaptSgd", 2, &[3], || Box::new(DAdaptSgd::new(PARAMETER_FREE))),
    // Gradient and parameter; the gradient again for the length of the direction.
    ("Adafactor", 0, &[2, 1], || Box::new(Adafactor::new(1e-2))),
    // Options read all that there is: the direction is computed twice.
    ("Adam, cautious", 2, &[4], || Box::new(Adam::new(1e-3).cautious(true))),
    ("Lamb", 2, &[4], || Box::new(Lamb::new(1e-3))),
    ("StableAdamW", 2, &[4], || Box::new(StableAdamW::new(1e-3))),
    ("AdamW, norm kept", 2, &[4], || Box::new(AdamW::new(1e-3).keep_norm(true))),
    ("AdamW, both", 2, &[4], || Box::new(AdamW::new(1e-3).cautious(true).trust_ratio(true))),
    ("Momentum, trust ratio", 1, &[3], || Box::new(Momentum::new(1e-3, 0.9).trust_ratio(true))),
];

const ROWS: usize = 33;

pub(crate) fn against_the_floor() {
    println!("\n## f32, the other optimizers, beside loops that read what they measure and then move the same bytes\n");
    println!(
        "| optimizer | bytes/element | elements | ns/element | floor ns/element | floor/optimizer |\n|---|---|---|---|---|---|"
    );
    for (name, slots, reads, build) in OPTIMIZERS {
        let bytes = size_of::<f32>() * (reads.iter().sum::<usize>() + 3 + 2 * slots);
        for log in [18, 22, 25] {
            let elements: usize = 1 << log;
            let grads = wave(elements, 1.0);
            let mut params = Lines::new(|i| grads[i], elements);
            let mut lines: Vec<_> = (0..slots).map(|_| Lines::zeros(elements)).collect();
            let floor = Box::new(|| {
                for count in reads {
                    black_box(read_bytes(*count, black_box(&params), &grads, &lines));
                }
                move_bytes(black_box(&mut params), &grads, &mut lines);
            });
            // A matrix as nearly square as can be, for what has rows and columns.
            let rows = 1 << (log / 2);
            let mut contestants: [Contestant<'_>; 2] = [("step", of_matrix(build(), rows, &grads)), ("floor", floor)];
            let times = medians(repeats(elements), &mut contestants);
            let [own, floor] = [0, 1].map(|i| times[i] * 1e9 / elements as f64);
            println!("| {name} | {bytes} | 2^{log} | {own:.3} | {floor:.3} | {:.2} |", floor / own);
        }
    }
}

/// A step on a matrix with this number of rows.
fn of_matrix<'c>(mut opt: Box<dyn Optimizer<f32>>, rows: usize, grads: &'c [f32]) -> Box<dyn FnMut() + 'c> {
    let (mut params, shape) = (wave(grads.len(), 0.0), (rows, grads.len() / rows));
    Box::new(move || {
        let (mut params, grads) = (aview_mut1(&mut params), aview1(grads));
        let params = params.view_mut().into_shape_with_order(shape).expect("a matrix of all elements");
        let grads = grads.into_shape_with_order(shape).expect("a matrix of all elements");
        assert!(black_box(opt.step(&mut { params }, &grads)).unwrap().moved);
    })
}

/// Reads the first `count` arrays of these: the gradient, the slots, the parameter. Writes nothing.
fn read_bytes(count: usize, param: &[f32], grad: &[f32], slots: &[Lines]) -> u32 {
    let all: Vec<&[f32]> = [grad].into_iter().chain(slots.iter().map(|slot| &**slot)).chain([param]).collect();
    match all[..count] {
        [a] => shares_of_reading([a]),
        [a, b] => shares_of_reading([a, b]),
        [a, b, c] => shares_of_reading([a, b, c]),
        [a, b, c, d] => shares_of_reading([a, b, c, d]),
        _ => unreachable!("no optimizer reads {count} arrays before it moves"),
    }
}

fn shares_of_reading<const N: usize>(all: [&[f32]; N]) -> u32 {
    let arch = arch();
    let run = move |at: usize| {
        let all = all.map(|values| &values[at..values.len().min(at + SHARE)]);
        arch.dispatch(
            #[inline(always)]
            move || read_one_share(all),
        )
    };
    match all[0].len() {
        length if length <= SHARE => run(0),
        length => {
            (0..length.div_ceil(SHARE)).into_par_iter().map(|share| run(share * SHARE)).reduce(|| 0, |a, b| a ^ b)
        }
    }
}

#[inline(always)]
fn read_one_share<const N: usize>(all: [&[f32]; N]) -> u32 {
    let mut read = [0; TOGETHER];
    let blocks = all.map(|values| values.as_chunks::<TOGETHER>().0);
    for number in 0..blocks[0].len() {
        for values in blocks {
            read.iter_mut().zip(values[number]).for_each(|(read, x)| *read ^= x.to_bits());
        }
    }
    let rest = all.iter().flat_map(|values| values.as_chunks::<TOGETHER>().1);
    read.into_iter().chain(rest.map(|x| x.to_bits())).fold(0, |all, bits| all ^ bits)
}
