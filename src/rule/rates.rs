//! Learning rate and weight decay: the hyper-parameters that every rule's driver has.

use crate::error::{Error, Result};
use crate::hyper::Hyper;
use crate::params::TensorInfo;
use crate::scalar::Element;
use crate::step::{Adjust, Step};

const LEARNING_RATE: &str = "learning_rate";
const WEIGHT_DECAY: &str = "weight_decay";

/// Both as they were set.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    pub(super) learning_rate: Hyper,
    pub(super) weight_decay: Hyper,
}

/// Both at one step.
pub(super) struct RatesAt {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
}

impl Rates {
    /// Those that may be schedules with a memory, the rule's own after these.
    pub(super) fn hyper_parameters<'h>(&'h self, own: Vec<&'h Hyper>) -> impl Iterator<Item = &'h Hyper> {
        [&self.learning_rate, &self.weight_decay].into_iter().chain(own)
    }

    /// The values of a step, if they and what groups make of them are in range.
    pub(super) fn at<A: Element>(&self, number: u64, step: &Step<'_, A>) -> Result<RatesAt> {
        let learning_rate = self.learning_rate.within(LEARNING_RATE, 0.0.., number)?;
        let weight_decay = self.weight_decay.within(WEIGHT_DECAY, 0.0.., number)?;
        for (info, tensor) in step.iter().filter(|(_, tensor)| tensor.grad.is_some() && tensor.is_adjusted()) {
            adjusted(LEARNING_RATE, tensor.learning_rate, learning_rate, info, number)?;
            adjusted(WEIGHT_DECAY, tensor.weight_decay, weight_decay, info, number)?;
        }
        Ok(RatesAt { learning_rate, weight_decay })
    }
}

/// A group's value for one tensor, if it is in range.
fn adjusted(name: &'static str, adjust: Adjust, own: f64, info: &TensorInfo, step: u64) -> Result<()> {
    let value = adjust.apply(own);
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let accepted = "a finite number ≥ 0".into();
    Err(Error::HyperParameter { name, value, step, path: Some(info.path().into()), accepted })
}
