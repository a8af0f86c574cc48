//! What the tests of all adaptors need: a small model with data, and how ranks compare what they have.

use gradus::distributed::{Collective, RankGroup};
use gradus::params::for_each;
use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis, s};

/// A group for both element types.
pub(crate) trait Engine: Collective<f32> + Collective<f64> {}

impl<G: Collective<f32> + Collective<f64>> Engine for G {}

pub(crate) type Tree<A> = (Array2<A>, Array1<A>);

/// A number in −1 … 1 that depends on nothing but its two arguments (splitmix64).
pub(crate) fn number<A: Scalar>(stream: u64, index: u64) -> A {
    let mut z = (stream << 32).wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    A::from_f64((z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
}

pub(crate) fn matrix<A: Scalar>(shape: (usize, usize), stream: u64) -> Array2<A> {
    Array2::from_shape_fn(shape, |(i, j)| number(stream, (i * shape.1 + j) as u64))
}

/// The bits of all elements, in row-major order.
pub(crate) fn bits<A: Scalar>(tree: &dyn Params<Elem = A>) -> Vec<u64> {
    let mut bits = Vec::new();
    for_each(tree, |_, shape, values| {
        if let Some(values) = values {
            bits.extend(values.view(shape).iter().map(|value| value.as_f64().to_bits()));
        }
    });
    bits
}

/// That a tree has the same bits on all ranks.
pub(crate) fn assert_same_on_all<A: Scalar>(group: &impl RankGroup, tree: &dyn Params<Elem = A>) {
    let own: Vec<u8> = bits(tree).into_iter().flat_map(u64::to_le_bytes).collect();
    let mut all = vec![0; own.len() * group.size()];
    group.all_gather_bytes(&own, &mut all).unwrap();
    assert!(!own.is_empty() && all.chunks(own.len()).all(|other| other == own), "rank {}", group.rank());
}

/// The largest difference of two trees, in terms of the largest element.
pub(crate) fn difference<A: Scalar>(found: &dyn Params<Elem = A>, expected: &dyn Params<Elem = A>) -> f64 {
    let values = |tree| bits::<A>(tree).into_iter().map(f64::from_bits).collect::<Vec<_>>();
    let (found, expected) = (values(found), values(expected));
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    found.iter().zip(&expected).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// Regression by tanh of a linear map, with a number of examples for each call.
pub(crate) struct Regression<A> {
    inputs: Array2<A>,
    targets: Array2<A>,
    batch: usize,
}

const INPUTS: usize = 5;
const OUTPUTS: usize = 3;

impl<A: Scalar> Regression<A> {
    pub(crate) fn new(batch: usize) -> Self {
        let inputs = matrix((8 * batch, INPUTS), 1);
        let noise = matrix::<A>((8 * batch, OUTPUTS), 3);
        let targets = inputs.dot(&matrix((INPUTS, OUTPUTS), 2)).mapv(A::tanh) + noise.mapv(|x| x * A::from_f64(0.1));
        Self { inputs, targets, batch }
    }

    pub(crate) fn start(stream: u64) -> Tree<A> {
        (matrix((INPUTS, OUTPUTS), stream), Array1::from_shape_fn(OUTPUTS, |i| number(stream + 1, i as u64)))
    }

    /// The mean gradient of a call's batch.
    pub(crate) fn grads(&self, params: &Tree<A>, call: usize) -> Tree<A> {
        self.part(params, call, (0, 1))
    }

    /// That of one of some equal parts of the batch.
    pub(crate) fn part(&self, params: &Tree<A>, call: usize, (part, parts): (usize, usize)) -> Tree<A> {
        let rows = self.batch / parts;
        let first = call % 8 * self.batch + part * rows;
        let (x, y) = (self.inputs.slice(s![first..first + rows, ..]), self.targets.slice(s![first..first + rows, ..]));
        let out = (x.dot(&params.0) + &params.1).mapv(A::tanh);
        let slope = out.mapv(|out| A::one() - out * out);
        let back = ((out - y) * slope).mapv(|x| x / A::from_f64(rows as f64));
        (x.t().dot(&back), back.sum_axis(Axis(0)))
    }
}
