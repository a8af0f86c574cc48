//! The calls of a training loop: they work on a whole chain.

use std::any::TypeId;

use super::{Pass, Phase, Sam};
use crate::adaptor::{Accumulate, Router};
use crate::error::{Error, Result, StepError};
use crate::params::{Element, Params, ParamsMut};
use crate::step::{Optimizer, Report, find, find_mut};

/// The result of [`step_with`](crate::OptimizerExt::step_with).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct SamReport {
    /// The report of the step. `moved` is `false` if it was skipped.
    pub step: Report,
    /// The loss at the parameters before the step.
    pub loss: f64,
    /// The loss at the perturbed point; `None` if the ascent was skipped. Its difference to `loss` measures the sharpness.
    pub perturbed_loss: Option<f64>,
}

fn cannot_ascend(reason: &'static str) -> Error {
    Error::Step(StepError::CannotAscend { reason })
}

/// The `sam` of a chain, if the whole chain can ascend.
fn sam_of<A: Element, O: Optimizer<A> + ?Sized>(chain: &mut O) -> Result<&mut Sam<A>> {
    let sam = TypeId::of::<Sam<A>>();
    if find::<Router<A>, A>(chain).is_some_and(|router| router.part(sam).is_some()) {
        return Err(cannot_ascend(
            "`sam` is in a branch of `route`, and the others would step twice; write `sam` after `route`",
        ));
    }
    let missing =
        "it has no `sam`, or has it before `master_weights`, `stochastic_rounding` or `kahan`; write `sam` after them";
    find_mut::<Sam<A>, A>(chain).ok_or(cannot_ascend(missing))
}

/// See [`OptimizerExt`](crate::OptimizerExt)`::ascend`.
pub(crate) fn ascend<A: Element, O: Optimizer<A> + ?Sized>(
    chain: &mut O,
    params: &mut dyn ParamsMut<Elem = A>,
    grads: &dyn Params<Elem = A>,
) -> Result<Report> {
    ascend_by(chain, |chain| chain.step(params, grads))
}

/// An ascent that consists of this call.
pub(crate) fn ascend_by<A: Element, O: Optimizer<A> + ?Sized>(
    chain: &mut O,
    call: impl FnOnce(&mut O) -> Result<Report>,
) -> Result<Report> {
    if let Err(error) = sam_of(chain).and_then(Sam::arm) {
        return chain.conclude(Err(error));
    }
    let result = call(chain);
    let has_ascended = sam_of(chain)?.disarm();
    result.map(|report| Report { moved: has_ascended, ..report })
}

/// See [`OptimizerExt`](crate::OptimizerExt)`::retreat`.
pub(crate) fn retreat<A: Element, O: Optimizer<A> + ?Sized>(
    chain: &mut O,
    params: &mut dyn ParamsMut<Elem = A>,
) -> Result<()> {
    let pass = sam_of(chain)?.pass();
    sam_of(chain)?.go_back(params)?;
    if pass == Pass::Second {
        // Second gradients that an `accumulate` outside has gathered belong to the step that is taken back.
        let outside = find_mut::<Accumulate<A>, A>(chain).filter(|outside| outside.pass() == Some(Pass::Second));
        outside.into_iter().for_each(Accumulate::discard);
    }
    Ok(())
}

/// Returns an error if the parameters are at a perturbed point.
pub(crate) fn ensure_settled<A: Element, O: Optimizer<A> + ?Sized>(chain: &O) -> Result<()> {
    let has_ascended = find::<Sam<A>, A>(chain).is_some_and(Sam::has_ascended);
    if has_ascended { Err(Error::Step(StepError::AlreadyAscended)) } else { Ok(()) }
}

/// The error of `step_with` for an `accumulate` outside.
const ONE_CALL: &str =
    "`step_with` is one call per step, and an `accumulate` after `sam` needs several; write `accumulate` before `sam`";

/// The number of gradients in the sum of an `accumulate`, if there is one.
fn gathered<A: Element, O: Optimizer<A> + ?Sized>(chain: &O) -> u64 {
    find::<Accumulate<A>, A>(chain).map_or(0, Accumulate::gathered)
}

/// See [`OptimizerExt`](crate::OptimizerExt)`::step_with`.
pub(crate) fn step_with<A, P, G, L, O>(
    chain: &mut O,
    params: &mut P,
    mut evaluate: impl FnMut(&P) -> (L, G),
) -> Result<SamReport>
where
    A: Element,
    P: ParamsMut<Elem = A>,
    G: Params<Elem = A>,
    L: Into<f64>,
    O: Optimizer<A> + ?Sized,
{
    if find::<Accumulate<A>, A>(chain).is_some_and(|outside| outside.pass() == Some(Pass::First)) {
        return Err(cannot_ascend(ONE_CALL));
    }
    let (loss, grads) = evaluate(params);
    let (loss, before) = (loss.into(), gathered(chain));
    let ascent = ascend(chain, params, &grads)?;
    drop(grads);
    if !ascent.moved {
        if gathered(chain) > before {
            find_mut::<Accumulate<A>, A>(chain).into_iter().for_each(Accumulate::discard);
            return Err(cannot_ascend(ONE_CALL));
        }
        sam_of(chain)?.phase = Phase::Start; // a skipped ascent has no second call
        return Ok(SamReport { step: ascent, loss, perturbed_loss: None });
    }
    let (perturbed_loss, grads) = evaluate(params);
    let result = chain.step(params, &grads);
    // After an error, or where an adaptor outside has skipped the step, the parameters are at the perturbed point.
    let back = retreat(chain, params);
    let step = result?;
    back?;
    Ok(SamReport { step, loss, perturbed_loss: Some(perturbed_loss.into()) })
}
