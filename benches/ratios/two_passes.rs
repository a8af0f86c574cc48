//! Options that measure a tensor before it moves, beside the floor of their own bytes.

use std::hint::black_box;

use gradus::prelude::*;
use rayon::prelude::*;

use crate::shared::floor::{Lines, SHARE, TOGETHER, arch, move_bytes};
use crate::shared::optimizers::Build;
use crate::shared::tensors::wave;
use crate::{Contestant, medians, repeats, step};

/// Options that measure a tensor before it moves: a name, and the optimizer's state slots.
fn measured<A: Scalar>() -> [(&'static str, usize, Build<A>); 6] {
    [
        ("Adam, cautious", 2, || Box::new(Adam::new(1e-3).cautious(true))),
        ("Lamb", 2, || Box::new(Lamb::new(1e-3))),
        ("StableAdamW", 2, || Box::new(StableAdamW::new(1e-3))),
        ("AdamW, norm kept", 2, || Box::new(AdamW::new(1e-3).keep_norm(true))),
        ("AdamW, both", 2, || Box::new(AdamW::new(1e-3).cautious(true).trust_ratio(true))),
        ("Momentum, trust ratio", 1, || Box::new(Momentum::new(1e-3, 0.9).trust_ratio(true))),
    ]
}

/// Each beside a loop that reads what the first pass reads, and then moves what the second moves.
pub(crate) fn against_the_floor() {
    println!("\n## f32, options that measure, beside loops that read the same bytes and then move them\n");
    println!("| optimizer | elements | ns/element | floor ns/element | floor/optimizer |\n|---|---|---|---|---|");
    for (name, slots, build) in measured() {
        for log in [10, 14, 18, 22, 25] {
            let elements = 1 << log;
            let grads = wave(elements, 1.0);
            let mut params = Lines::new(|i| grads[i], elements);
            let mut lines: Vec<_> = (0..slots).map(|_| Lines::zeros(elements)).collect();
            let floor = Box::new(|| {
                black_box(read_bytes(black_box(&params), &grads, &lines));
                move_bytes(black_box(&mut params), &grads, &mut lines);
            });
            let mut contestants: [Contestant<'_>; 2] = [("step", step(build(), elements, &grads)), ("floor", floor)];
            let times = medians(repeats(elements), &mut contestants);
            let [own, floor] = [0, 1].map(|i| times[i] * 1e9 / elements as f64);
            println!("| {name} | 2^{log} | {own:.3} | {floor:.3} | {:.2} |", floor / own);
        }
    }
}

/// Reads parameter, gradient and slots and writes nothing: the first pass of a step with two.
fn read_bytes(param: &[f32], grad: &[f32], slots: &[Lines]) -> u32 {
    match slots {
        [] => shares_of_reading([param, grad]),
        [a] => shares_of_reading([param, grad, a]),
        [a, b] => shares_of_reading([param, grad, a, b]),
        [a, b, c, ..] => shares_of_reading([param, grad, a, b, c]),
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
