//! Sharded state: the numbers of one process, a part of its memory, and errors that all ranks see.

pub(crate) mod equality;
mod faults;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::ops::Range;

use gradus::Report;
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

/// The gradients of all ranks in some steps, and what one process would step with: their sums in the order of the ranks, divided by
/// the number of ranks.
pub(crate) struct Run<A> {
    own: Vec<Vec<Grads<A>>>,
    mean: Vec<Grads<A>>,
}

impl<A: Element> Run<A> {
    pub(crate) fn new(ranks: usize, steps: u64) -> Self {
        let of = |rank: usize| (0..steps).map(|step| grads(rank, step)).collect::<Vec<_>>();
        let own: Vec<_> = (0..ranks).map(of).collect();
        let mean = (0..steps as usize).map(|step| mean(own.iter().map(|own| &own[step])));
        Self { mean: mean.collect(), own }
    }

    pub(crate) fn own(&self, rank: usize, step: usize) -> &Grads<A> {
        &self.own[rank][step]
    }

    /// Steps a rank takes with its gradients.
    pub(crate) fn train<O: Optimizer<A>, G: Collective<A>>(
        &self,
        opt: &mut Sharded<O, G, A>,
        params: &mut Tree<A>,
        steps: Range<usize>,
    ) -> Vec<Report> {
        let own = &self.own[opt.ranks().rank()];
        own[steps].iter().map(|grads| opt.step(params, grads).unwrap()).collect()
    }

    /// The same steps of one process.
    pub(crate) fn train_alone(
        &self,
        opt: &mut impl Optimizer<A>,
        params: &mut Tree<A>,
        steps: Range<usize>,
    ) -> Vec<Report> {
        self.mean[steps].iter().map(|grads| opt.step(params, grads).unwrap()).collect()
    }
}

fn mean<'g, A: Element>(ranks: impl ExactSizeIterator<Item = &'g Grads<A>>) -> Grads<A> {
    let count = A::from_f64(ranks.len() as f64);
    let sum = ranks.cloned().reduce(|mut sum, other| {
        for (own, other) in sum.values_mut().zip(other.values()) {
            if let (Some(own), Some(other)) = (own, other) {
                own.zip_mut_with(other, |own, other| *own += *other);
            }
        }
        sum
    });
    let mut mean = sum.unwrap();
    mean.values_mut().flatten().for_each(|sum| sum.mapv_inplace(|sum| sum / count));
    mean
}

/// All bits, so that NaN and −0 count.
pub(crate) fn bits<A: Element>(tree: &Tree<A>) -> Vec<u64> {
    tree.values().flatten().map(|value| value.as_f64().to_bits()).collect()
}
