//! What a rank says of its step, one line per thing, so that ranks of different steps find out in what they differ.

use crate::error::Name;
use crate::params::{Element, TensorInfo, Values};
use crate::state::digest::Digest;
use crate::step::{Adjust, Step, Tensor};

/// A line for each tensor of a step, with `how` it takes part and what groups change.
pub(in crate::distributed) fn describe_tensors<A: Element>(
    step: &Step<'_, A>,
    how: impl Fn(&Tensor<'_, A>) -> &'static str,
) -> impl Iterator<Item = String> {
    step.iter().map(move |(info, tensor)| {
        let (rate, decay) = (tensor.learning_rate, tensor.weight_decay);
        let replaced = tensor.replaced.describe(step.number());
        let changed = [adjusted("learning rate", rate), adjusted("weight decay", decay), replaced].concat();
        format!("{} of shape {:?} in {} {}{changed}", Name(info.path()), info.shape(), A::DTYPE, how(tensor))
    })
}

/// A line for each tensor of a step, with what there is of its gradient.
pub(in crate::distributed) fn describe_grads<A: Element>(step: &Step<'_, A>) -> impl Iterator<Item = String> {
    describe_tensors(step, |tensor| match &tensor.grad {
        Some(grad) if grad.rows().is_some() => "with a gradient of rows",
        Some(_) => "with a gradient",
        None if tensor.frozen => "frozen",
        None => "without gradient",
    })
}

fn adjusted(name: &str, adjust: Adjust) -> String {
    match adjust {
        _ if adjust == Adjust::default() => String::new(),
        Adjust { value: Some(value), scale } => format!(", {name} {value} · {scale}"),
        Adjust { value: None, scale } => format!(", {name} · {scale}"),
    }
}

/// A line for values of a tensor's shape, with a number that stands for their bits, whatever their order in memory.
pub(in crate::distributed) fn describe_values<A: Element>(
    what: &str,
    info: &TensorInfo,
    values: &Values<'_, A>,
) -> String {
    let mut digest = Digest::new();
    values.view(info.shape()).iter().for_each(|value| digest.number(value.as_f64().to_bits()));
    format!("{} with {what} of digest {:016x}", Name(info.path()), digest.finish())
}

/// How a step ends a large batch, if it does.
pub(in crate::distributed) fn end<A: Element>(step: &Step<'_, A>) -> &'static str {
    if step.batch().is_last { ", a flush" } else { "" }
}
