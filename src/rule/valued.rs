//! The values of a rule's hyper-parameters in one step: the optimizer's own, and those of groups.

use super::HyperParameters;
use super::options::OPTION_NAMES;
use super::rates::{LEARNING_RATE, WEIGHT_DECAY};
use crate::error::Result;
use crate::params::Element;
use crate::step::{Replaced, Step};

/// The optimizer's values, and others for each set of replacements that a tensor has.
pub(super) struct Valued<V> {
    own: V,
    others: Vec<(Replaced, V)>,
}

impl<V> Valued<V> {
    /// The values of step `number`, if all are in range and all replaced names are known.
    #[inline(always)]
    pub(super) fn of<A: Element, R: HyperParameters<Values = V>>(
        rule: &R,
        step: &Step<'_, A>,
        number: u64,
    ) -> Result<Self> {
        let own = rule.values::<A>(number)?;
        let others = if step.is_as_paired() { Vec::new() } else { others(rule, step, number)? };
        Ok(Self { own, others })
    }

    /// The number of the tensor's set of replacements; `None` if it has the optimizer's values.
    #[inline]
    pub(super) fn place(&self, replaced: &Replaced) -> Option<usize> {
        place(&self.others, replaced)
    }

    /// The number of sets of replacements.
    pub(super) fn places(&self) -> usize {
        self.others.len()
    }

    /// The values at a [place](Self::place).
    #[inline]
    pub(super) fn at(&self, place: Option<usize>) -> &V {
        place.map_or(&self.own, |place| &self.others[place].1)
    }

    /// The values of a tensor.
    pub(super) fn for_tensor(&self, replaced: &Replaced) -> &V {
        self.at(self.place(replaced))
    }
}

/// The values for each set of replacements.
fn others<A: Element, R: HyperParameters>(
    rule: &R,
    step: &Step<'_, A>,
    number: u64,
) -> Result<Vec<(Replaced, R::Values)>> {
    let mut others = Vec::new();
    for (info, tensor) in step.iter() {
        let replaced = &tensor.replaced;
        if replaced.is_empty() || place(&others, replaced).is_some() {
            continue;
        }
        ensure_known(rule, replaced)?;
        let values = rule.values_with::<A>(number, replaced).map_err(|error| replaced.blame(error, info))?;
        others.push((replaced.clone(), values));
    }
    Ok(others)
}

#[inline]
fn place<V>(others: &[(Replaced, V)], replaced: &Replaced) -> Option<usize> {
    if replaced.is_empty() { None } else { others.iter().position(|(known, _)| known == replaced) }
}

const OPTION: &str = "it is an option, which all tensors share; `route` gives some tensors an optimizer with another";
const OFF: &str = "it is off; if the optimizer has a value, a group can change it";

/// Returns an error unless the rule has all replaced hyper-parameters.
fn ensure_known(rule: &impl HyperParameters, replaced: &Replaced) -> Result<()> {
    let own = rule.hyper_parameters().into_iter().map(|(name, _)| name);
    let known: Vec<_> = [LEARNING_RATE, WEIGHT_DECAY].into_iter().chain(own).collect();
    let options = rule.options().iter().chain(OPTION_NAMES).map(|name| (*name, OPTION));
    let off = rule.optional().iter().map(|name| (*name, OFF));
    replaced.ensure_known(rule.title(), &known, options.chain(off))
}
