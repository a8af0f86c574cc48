//! Learning rate and weight decay by group of tensors.

use std::fmt;

use super::{Outcome, Transform};
use crate::error::{Error, Result, StepError};
use crate::params::pattern::{Pattern, Selection};
use crate::params::{Element, Layout, TensorInfo};
use crate::schedule::Hyper;
use crate::step::{Adjust, Step};

/// The learning rate and weight decay of a group of tensors.
///
/// Each value is a number or a schedule, which is evaluated at the optimizer's step counter.
#[doc(alias = "param_groups")]
#[must_use = "a group changes nothing until it is passed to `group`"]
#[derive(Clone, Default)]
pub struct Group {
    learning_rate: Own,
    weight_decay: Own,
}

/// The names of replacement and factor.
const RATE_NAMES: [&str; 2] = ["learning_rate", "scale_learning_rate"];
const DECAY_NAMES: [&str; 2] = ["weight_decay", "scale_weight_decay"];

/// A replacement and a factor for one hyper-parameter.
#[derive(Clone, Default)]
struct Own {
    value: Option<Hyper>,
    scale: Option<Hyper>,
}

impl Group {
    /// Creates a group that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the learning rate.
    pub fn learning_rate(mut self, learning_rate: impl Into<Hyper>) -> Self {
        self.learning_rate.value = Some(learning_rate.into());
        self
    }

    /// Multiplies the learning rate by a factor.
    pub fn scale_learning_rate(mut self, factor: impl Into<Hyper>) -> Self {
        self.learning_rate.scale = Some(factor.into());
        self
    }

    /// Replaces the weight decay.
    pub fn weight_decay(mut self, weight_decay: impl Into<Hyper>) -> Self {
        self.weight_decay.value = Some(weight_decay.into());
        self
    }

    /// Multiplies the weight decay by a factor.
    pub fn scale_weight_decay(mut self, factor: impl Into<Hyper>) -> Self {
        self.weight_decay.scale = Some(factor.into());
        self
    }

    /// A group without weight decay, as is usual for biases and norms.
    pub fn no_decay() -> Self {
        Self::new().weight_decay(0.0)
    }
}

impl Own {
    fn at(&self, [value, scale]: [&'static str; 2], step: u64) -> Result<Adjust> {
        let within =
            |hyper: &Option<Hyper>, name| hyper.as_ref().map(|hyper| hyper.within(name, 0.0.., step)).transpose();
        Ok(Adjust { value: within(&self.value, value)?, scale: within(&self.scale, scale)?.unwrap_or(1.0) })
    }
}

/// Gives a group of tensors its own learning rate or weight decay. Created by [`OptimizerExt::group`](crate::OptimizerExt::group).
///
/// If several groups contain a tensor, their factors multiply. If several of them replace a value, the last one in the chain wins.
///
/// ```
/// use gradus::{adaptor::Group, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0)
///     .group("1", Group::new().scale_learning_rate(0.1))
///     .group("**", Group::new().weight_decay(0.5));
/// let mut w = (array![1.0], array![1.0]);
/// opt.step(&mut w, &(array![0.0], array![0.0]))?;
/// assert_eq!(w, (array![0.5], array![0.95]));
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Clone)]
pub struct Grouped {
    selection: Selection,
    group: Group,
}

impl Grouped {
    /// Applies the group to the tensors that the pattern matches.
    pub fn new(pattern: impl Into<Pattern>, group: Group) -> Self {
        Self { selection: Selection::new(pattern), group }
    }

    /// The changes at a step; an error names the first tensor of the group.
    fn adjusts(&self, step: u64, layout: &Layout) -> Result<(Adjust, Adjust)> {
        let Group { learning_rate, weight_decay } = &self.group;
        let learning_rate = learning_rate.at(RATE_NAMES, step);
        let both = learning_rate.and_then(|learning_rate| Ok((learning_rate, weight_decay.at(DECAY_NAMES, step)?)));
        both.map_err(|error| match error {
            Error::Step(StepError::HyperParameter { name, value, step, accepted, .. }) => {
                Error::Step(StepError::HyperParameter {
                    name,
                    value,
                    step,
                    accepted,
                    path: self.selection.first(layout),
                })
            }
            other => other,
        })
    }
}

/// What an outer group's change and an inner one's are together.
fn combined(name: &'static str, outer: Adjust, inner: Adjust, info: &TensorInfo, step: u64) -> Result<Adjust> {
    let scale = outer.scale * inner.scale;
    if scale == 0.0 && outer.scale != 0.0 && inner.scale != 0.0 {
        let accepted =
            format!("0 or one whose product with the {:e} of a group outside is a number above 0", outer.scale);
        return Err(Error::Step(StepError::HyperParameter {
            name,
            value: inner.scale,
            step,
            path: Some(info.path().into()),
            accepted,
        }));
    }
    Ok(Adjust { value: outer.value.or(inner.value), scale })
}

impl<A: Element> Transform<A> for Grouped {
    fn name(&self) -> &'static str {
        "group"
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        let Group { learning_rate, weight_decay } = &self.group;
        let all = [(RATE_NAMES, learning_rate), (DECAY_NAMES, weight_decay)];
        let own = all.into_iter().flat_map(|(names, own)| names.into_iter().zip([&own.value, &own.scale]));
        own.filter_map(|(name, hyper)| Some((name, hyper.as_ref()?))).collect()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let (at, chosen) = (step.number(), self.selection.choose(step.layout())?);
        let (learning_rate, weight_decay) = self.adjusts(at, step.layout())?;
        for (info, tensor, _) in step.zip_mut(&*chosen).filter(|(.., chosen)| **chosen) {
            let combine = |name, outer, inner| combined(name, outer, inner, info, at);
            tensor.learning_rate = combine("scale_learning_rate", tensor.learning_rate, learning_rate)?;
            tensor.weight_decay = combine("scale_weight_decay", tensor.weight_decay, weight_decay)?;
        }
        Ok(Outcome::pass())
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Group::new()")?;
        for (name, own) in [("learning_rate", &self.learning_rate), ("weight_decay", &self.weight_decay)] {
            own.value.iter().try_for_each(|value| write!(f, ".{name}({value:?})"))?;
            own.scale.iter().try_for_each(|scale| write!(f, ".scale_{name}({scale:?})"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group({:?}, {:?})", self.selection.pattern(), self.group)
    }
}
