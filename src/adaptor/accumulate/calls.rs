//! Calls of a training loop that are about micro-batches: they work on a whole chain.

use super::{gathers, joins_ranks};
use crate::adaptor::Accumulate;
use crate::adaptor::sam::{Pass, ascend_by};
use crate::error::Result;
use crate::params::{Element, ParamsMut};
use crate::step::{Optimizer, Report, Step, find, find_mut};

/// See [`StepExt`](crate::StepExt)`::flush`.
pub(crate) fn flush<A: Element, O: Optimizer<A> + ?Sized>(
    chain: &mut O,
    params: &mut dyn ParamsMut<Elem = A>,
) -> Result<Report> {
    // Before the first call nothing has been gathered, unless another rank has.
    if !gathers(chain) || (chain.layout().is_none() && !joins_ranks(chain)) {
        return Ok(Report::new(chain.learning_rate(), false));
    }
    // An error outside of it is one of a flush, too, of which ranks inside must hear.
    find_mut::<Accumulate<A>, A>(chain).into_iter().for_each(|outermost| outermost.is_flushing = true);
    let pass = find::<Accumulate<A>, A>(chain).and_then(Accumulate::pass);
    let mut take = |chain: &mut O| {
        let result = match Step::to_flush(params, (chain.layout(), chain.steps())) {
            Ok(step) => chain.apply(step),
            Err(error) => Err(error),
        };
        chain.conclude(result)
    };
    if pass == Some(Pass::First) { ascend_by(chain, take) } else { take(chain) }
}
