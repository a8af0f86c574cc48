//! Products that come to the same bits on every processor.

use ndarray::ArrayView2;

use crate::params::Element;

/// The product of the m × r matrix `left` and the transpose of the n × r matrix `right`, row by row.
///
/// All ranks must come to the same bits, so this is no general product, whose order of sums depends on the processor.
pub(super) fn low_rank<A: Element>(left: ArrayView2<'_, A>, right: ArrayView2<'_, A>, out: &mut [A]) {
    let across = right.t();
    let across = across.as_standard_layout();
    for (row, out) in left.rows().into_iter().zip(out.chunks_mut(right.nrows().max(1))) {
        out.fill(A::zero());
        for (factor, along) in row.iter().zip(across.rows()) {
            out.iter_mut().zip(along).for_each(|(out, along)| *out += *factor * *along);
        }
    }
}
