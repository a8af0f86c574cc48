//! Learning rate and weight decay: the hyper-parameters that every rule's driver has.

use super::Decay;
use crate::error::{Error, Result, StepError};
use crate::params::{Element, TensorInfo};
use crate::schedule::Hyper;
use crate::step::{Adjust, Tensor};

const LEARNING_RATE: &str = "learning_rate";
const WEIGHT_DECAY: &str = "weight_decay";

/// What a learning rate may be multiplied with and stay finite. Bias corrections divide it by 1 − βᵗ, which is at least 2⁻⁵³.
const ROOM: f64 = (1_u64 << 54) as f64;

/// Both as they were set.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    pub(super) learning_rate: Hyper,
    pub(super) weight_decay: Hyper,
}

/// Both at one step.
#[derive(Clone, Copy)]
pub(super) struct RatesAt {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
}

impl Rates {
    /// Those that may be schedules with a memory, the rule's own after these.
    pub(super) fn hyper_parameters<'h>(&'h self, own: Vec<&'h Hyper>) -> impl Iterator<Item = &'h Hyper> {
        [&self.learning_rate, &self.weight_decay].into_iter().chain(own)
    }

    /// The values of a step, if they are in range.
    pub(super) fn at(&self, step: u64) -> Result<RatesAt> {
        let learning_rate = self.learning_rate.within(LEARNING_RATE, 0.0.., step)?;
        let weight_decay = self.weight_decay.within(WEIGHT_DECAY, 0.0.., step)?;
        Ok(RatesAt { learning_rate, weight_decay })
    }
}

impl RatesAt {
    /// [`ensure`](Self::ensure) for what groups make of these for one tensor, if they are in range then.
    pub(super) fn ensure_adjusted<A: Element>(
        self,
        decay: Decay,
        (info, tensor): (&TensorInfo, &Tensor<'_, A>),
        step: u64,
    ) -> Result<()> {
        if !tensor.is_adjusted() {
            return Ok(());
        }
        let learning_rate = adjusted(LEARNING_RATE, tensor.learning_rate, self.learning_rate, info, step)?;
        let weight_decay = adjusted(WEIGHT_DECAY, tensor.weight_decay, self.weight_decay, info, step)?;
        Self { learning_rate, weight_decay }.ensure::<A>(decay, Some(info), step)
    }

    /// Returns an error if the element type has no number for what is derived from these. A learning rate or weight decay that
    /// rounds to 0 is no error: schedules end there, and the difference does not show in a parameter.
    pub(super) fn ensure<A: Element>(self, decay: Decay, info: Option<&TensorInfo>, step: u64) -> Result<()> {
        let largest = A::max_value().as_f64();
        let refused = |name, value, accepted| {
            Err(Error::Step(StepError::HyperParameter {
                name,
                value,
                step,
                path: info.map(|info| info.path().into()),
                accepted,
            }))
        };
        if self.learning_rate > largest / ROOM {
            let accepted = format!("a number in 0 ≤ {LEARNING_RATE} ≤ {:e} in {}", largest / ROOM, A::DTYPE);
            return refused(LEARNING_RATE, self.learning_rate, accepted);
        }
        let most = match decay {
            Decay::Coupled => largest,
            // 1 − ηλ is as finite then.
            Decay::Decoupled => largest / self.learning_rate.max(1.0),
        };
        if self.weight_decay > most {
            let accepted = format!("a number in 0 ≤ {WEIGHT_DECAY} ≤ {most:e} in {}", A::DTYPE);
            return refused(WEIGHT_DECAY, self.weight_decay, accepted);
        }
        Ok(())
    }
}

/// A group's value for one tensor, if it is in range.
fn adjusted(name: &'static str, adjust: Adjust, own: f64, info: &TensorInfo, step: u64) -> Result<f64> {
    let value = adjust.apply(own);
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    let accepted = "a finite number ≥ 0".into();
    Err(Error::Step(StepError::HyperParameter { name, value, step, path: Some(info.path().into()), accepted }))
}
