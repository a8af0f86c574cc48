//! Sharded state: the numbers of one process, a part of its memory, and errors that all ranks see.

mod equality;
mod faults;
mod state;

use std::collections::BTreeMap;

use gradus::distributed::{Collective, Sharded};
use gradus::prelude::*;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

/// Parameters and gradients by name; a gradient may be missing.
pub(crate) type Tree<A> = BTreeMap<&'static str, ArrayD<A>>;
pub(crate) type Grads<A> = BTreeMap<&'static str, Option<ArrayD<A>>>;
pub(crate) type Boxed<A> = Box<dyn Optimizer<A>>;

/// A number in −1 … 1.
fn number<A: Element>(stream: u64, index: usize) -> A {
    A::from_f64(((stream * 7919 + index as u64 * 104_729) as f64 * 0.37).sin())
}

fn tensor<A: Element>(shape: &[usize], stream: u64, column_major: bool) -> ArrayD<A> {
    let mut index = 0;
    ArrayD::from_shape_simple_fn(IxDyn(shape).set_f(column_major), || {
        index += 1;
        number(stream, index)
    })
}

/// Tensors of every awkward size, one of them column by column.
pub(crate) fn params<A: Element>() -> Tree<A> {
    BTreeMap::from([
        ("a.none", tensor(&[0, 3], 1, false)),
        ("a.scale", tensor(&[], 2, false)),
        ("a.bias", tensor(&[255], 3, false)),
        ("b.bias", tensor(&[256], 4, false)),
        ("b.weight", tensor(&[37, 23], 5, true)),
        ("c.bias", tensor(&[257], 6, false)),
        ("c.weight", tensor(&[80, 64], 7, false)),
        ("d", tensor(&[1], 8, false)),
    ])
}

/// A rank's gradients in a step; some are missing on all ranks.
pub(crate) fn grads<A: Element>(rank: usize, step: u64) -> Grads<A> {
    let keep = |name: &str| match name {
        "b.bias" => !step.is_multiple_of(3),
        "d" => step == 2,
        _ => true,
    };
    let gradient = |(at, (name, param)): (u64, (&'static str, ArrayD<A>))| {
        let stream = 1000 + 100 * step + 10_000 * rank as u64 + at;
        let column_major = name == "c.weight";
        (name, Some(tensor(param.shape(), stream, column_major)).filter(|_| keep(name)))
    };
    (0..).zip(params()).map(gradient).collect()
}

/// Summed in the order of the ranks, divided by their number.
pub(crate) fn mean<A: Element>(ranks: usize, of: impl Fn(usize) -> Grads<A>) -> Grads<A> {
    let mut sum = of(0);
    for rank in 1..ranks {
        for (own, other) in sum.values_mut().zip(of(rank).values()) {
            if let (Some(own), Some(other)) = (own, other) {
                own.zip_mut_with(other, |own, other| *own += *other);
            }
        }
    }
    let count = A::from_f64(ranks as f64);
    sum.values_mut().flatten().for_each(|sum| sum.mapv_inplace(|sum| sum / count));
    sum
}

/// All bits, so that NaN and −0 count.
pub(crate) fn bits<A: Element>(tree: &Tree<A>) -> Vec<u64> {
    tree.values().flatten().map(|value| value.as_f64().to_bits()).collect()
}

/// Steps `from` … `to` with this rank's gradients.
pub(crate) fn train<A: Element, O: Optimizer<A>, G: Collective<A>>(
    opt: &mut Sharded<O, G, A>,
    params: &mut Tree<A>,
    steps: std::ops::Range<u64>,
) -> Vec<gradus::Report> {
    let rank = opt.ranks().rank();
    steps.map(|step| opt.step(params, &grads::<A>(rank, step)).unwrap()).collect()
}

/// The same steps of one process.
pub(crate) fn train_alone<A: Element>(
    opt: &mut impl Optimizer<A>,
    params: &mut Tree<A>,
    ranks: usize,
    steps: std::ops::Range<u64>,
) -> Vec<gradus::Report> {
    steps.map(|step| opt.step(params, &mean(ranks, |rank| grads::<A>(rank, step))).unwrap()).collect()
}
