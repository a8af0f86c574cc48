//! What a rank says of its step, so that ranks of different steps find out in what they differ.

use std::fmt::{self, Write};

use super::agreement::{Word, agree};
use super::group::RankGroup;
use crate::error::{Name, Result};
use crate::params::{Element, TensorInfo, Values};
use crate::state::digest::Digest;
use crate::step::{Adjust, Step, Tensor};

/// [`agree`] about a step that `describe` describes, a line for each thing that must be the same on all ranks.
///
/// The digest is that of the description: where digests differ there is a line that tells why. A rank that refuses describes nothing,
/// for its step may be one that cannot be described.
pub(super) fn agree_about(
    group: &impl RankGroup,
    own: Result<Word>,
    describe: impl Fn(&mut dyn Write) -> fmt::Result,
) -> Result<Word> {
    let mut digest = Digest::new();
    if own.is_ok() {
        _ = describe(&mut digest);
    }
    agree(group, own, digest.finish(), || {
        let mut text = String::new();
        _ = describe(&mut text);
        text.lines().map(str::to_owned).collect()
    })
}

/// A line for each tensor of a step, with `how` it takes part and what groups change.
pub(super) fn describe_tensors<A: Element>(
    step: &Step<'_, A>,
    text: &mut dyn Write,
    how: impl Fn(&Tensor<'_, A>) -> &'static str,
) -> fmt::Result {
    step.iter().try_for_each(|(info, tensor)| {
        write!(text, "{} of shape {:?} in {} {}", Name(info.path()), info.shape(), A::DTYPE, how(tensor))?;
        describe_adjust("learning rate", tensor.learning_rate, text)?;
        describe_adjust("weight decay", tensor.weight_decay, text)?;
        writeln!(text)
    })
}

/// A line for each tensor of a step, with what there is of its gradient.
pub(super) fn describe_grads<A: Element>(step: &Step<'_, A>, text: &mut dyn Write) -> fmt::Result {
    describe_tensors(step, text, |tensor| match tensor.grad {
        Some(_) => "with a gradient",
        None if tensor.frozen => "frozen",
        None => "without gradient",
    })
}

fn describe_adjust(name: &str, adjust: Adjust, text: &mut dyn Write) -> fmt::Result {
    match adjust {
        _ if adjust == Adjust::default() => Ok(()),
        Adjust { value: Some(value), scale } => write!(text, ", {name} {value} · {scale}"),
        Adjust { value: None, scale } => write!(text, ", {name} · {scale}"),
    }
}

/// A line for each parameter, with a number that stands for its bits.
pub(super) fn describe_params<A: Element>(step: &Step<'_, A>, text: &mut dyn Write) -> fmt::Result {
    step.iter().try_for_each(|(info, tensor)| describe_values("values", info, &tensor.param(), text))
}

/// A line for values of a tensor's shape, whatever their order in memory.
pub(super) fn describe_values<A: Element>(
    what: &str,
    info: &TensorInfo,
    values: &Values<'_, A>,
    text: &mut dyn Write,
) -> fmt::Result {
    let mut digest = Digest::new();
    values.view(info.shape()).iter().for_each(|value| digest.number(value.as_f64().to_bits()));
    writeln!(text, "{} with {what} of digest {:016x}", Name(info.path()), digest.finish())
}
