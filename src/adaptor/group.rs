//! Hyper-parameters by group of tensors.

use std::fmt;
use std::sync::Arc;

use super::{Outcome, Transform};
use crate::error::{Error, Result, StepError};
use crate::params::pattern::{Pattern, Selection};
use crate::params::{Element, Layout, TensorInfo};
use crate::schedule::Hyper;
use crate::step::memo::Note;
use crate::step::{Adjust, Replaced, Step};

/// The hyper-parameters of a group of tensors.
///
/// Each value is a number or a schedule, which is evaluated at the optimizer's step counter.
///
/// ```
/// use gradus::{adaptor::Group, prelude::*};
///
/// let opt = AdamW::<f32>::new(1e-3)
///     .weight_decay(0.1)
///     .group("*.bias", Group::no_decay().set("beta2", 0.95))
///     .group("embedding.**", Group::new().scale_learning_rate(0.1).set("beta1", 0.95).set("eps", 1e-6));
/// ```
#[doc(alias = "param_groups")]
#[must_use = "a group changes nothing until it is passed to `group`"]
#[derive(Clone, Default)]
pub struct Group {
    learning_rate: Own,
    weight_decay: Own,
    others: Vec<(Arc<str>, Hyper)>,
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

    /// Replaces the learning rate, and with it its schedule: a number stays the same in every step, whatever the optimizer's own schedule and
    /// [`set_learning_rate`](crate::OptimizerExt::set_learning_rate). For a rate that follows these, as a parameter group of PyTorch does, use
    /// [`scale_learning_rate`](Self::scale_learning_rate).
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

    /// Replaces the hyper-parameter of this name: any that the optimizer sets by a method of this name and that takes a schedule.
    ///
    /// # Errors
    /// The first step returns [`UnknownHyperParameter`](StepError::UnknownHyperParameter) if the optimizer of a tensor has no hyper-parameter of
    /// this name, and [`NotInGroup`](StepError::NotInGroup) if the name is that of an option, such as `amsgrad`, or of a hyper-parameter that is off in
    /// the optimizer, such as the momentum of [`RmsProp`](crate::RmsProp).
    pub fn set(mut self, name: &str, value: impl Into<Hyper>) -> Self {
        if name == RATE_NAMES[0] {
            return self.learning_rate(value);
        }
        if name == DECAY_NAMES[0] {
            return self.weight_decay(value);
        }
        self.others.retain(|(known, _)| **known != *name);
        self.others.push((name.into(), value.into()));
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

/// Gives a group of tensors its own hyper-parameters. Created by [`OptimizerExt::group`](crate::OptimizerExt::group).
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
    replaced: Replaced,
}

impl Grouped {
    /// Applies the group to the tensors that the pattern matches.
    pub fn new(pattern: impl Into<Pattern>, group: Group) -> Self {
        let pattern = pattern.into();
        let replaced = Replaced::new(&format!("{pattern:?}"), &group.others);
        Self { selection: Selection::new(pattern), group, replaced }
    }

    /// The changes at a step; an error names the first tensor of the group.
    fn adjusts(&self, step: u64, layout: &Layout) -> Result<(Adjust, Adjust)> {
        let Group { learning_rate, weight_decay, .. } = &self.group;
        let learning_rate = learning_rate.at(RATE_NAMES, step);
        let both = learning_rate.and_then(|learning_rate| Ok((learning_rate, weight_decay.at(DECAY_NAMES, step)?)));
        both.map_err(|error| error.in_group(self.selection.first(layout), self.pattern()))
    }

    fn pattern(&self) -> String {
        format!("{:?}", self.selection.pattern())
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
            pattern: None,
            accepted,
        }));
    }
    Ok(Adjust { value: outer.value.or(inner.value), scale })
}

/// What a group and those outside of it replace together, for the outer ones that tensors have.
#[derive(Default)]
struct Merged(Vec<(Replaced, Replaced)>);

impl Merged {
    fn of(&mut self, outer: &Replaced, inner: &Replaced) -> Replaced {
        if outer.is_empty() {
            return inner.clone();
        }
        if let Some((_, both)) = self.0.iter().find(|(known, _)| known == outer) {
            return both.clone();
        }
        let both = outer.over(inner);
        self.0.push((outer.clone(), both.clone()));
        both
    }
}

impl<A: Element> Transform<A> for Grouped {
    fn name(&self) -> &'static str {
        "group"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&str, &Hyper)> {
        let Group { learning_rate, weight_decay, others } = &self.group;
        let all = [(RATE_NAMES, learning_rate), (DECAY_NAMES, weight_decay)];
        let own = all.into_iter().flat_map(|(names, own)| names.into_iter().zip([&own.value, &own.scale]));
        let own = own.filter_map(|(name, hyper)| Some((name, hyper.as_ref()?)));
        own.chain(others.iter().map(|(name, hyper)| (&**name, hyper))).collect()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let (at, chosen) = (step.number(), self.selection.choose(step.layout())?);
        let (learning_rate, weight_decay) = self.adjusts(at, step.layout())?;
        let mut merged = Merged::default();
        for (info, tensor, _) in step.zip_mut(&*chosen).filter(|(.., chosen)| **chosen) {
            if !self.replaced.is_empty() {
                tensor.replaced = merged.of(&tensor.replaced, &self.replaced);
            }
            let combine = |name, outer, inner| combined(name, outer, inner, info, at);
            tensor.learning_rate = combine("scale_learning_rate", tensor.learning_rate, learning_rate)?;
            tensor.weight_decay = combine("scale_weight_decay", tensor.weight_decay, weight_decay)?;
        }
        step.note(
            step.zip(&*chosen)
                .filter(|(.., chosen)| **chosen)
                .map(|(_, tensor, _)| (tensor.index(), Note::Group(self.pattern()))),
        );
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
        self.others.iter().try_for_each(|(name, value)| write!(f, ".set({name:?}, {value:?})"))
    }
}

impl fmt::Debug for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group({:?}, {:?})", self.selection.pattern(), self.group)
    }
}
