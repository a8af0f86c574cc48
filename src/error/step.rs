//! Errors of a step.

use super::text::{List, Name, Number, at_tensor, meant, of_group, of_heads, of_setter, rounded, subtree};

/// Why a step cannot be taken.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StepError {
    /// A hyper-parameter is outside its range, from the start or because of its schedule.
    #[error("{name} is {} at step {step}{}{}; it must be {accepted}", Number(*.value), at_tensor(.path), of_group(.pattern))]
    HyperParameter {
        /// The setter's name, such as `"beta1"`.
        name: &'static str,
        /// The value it had.
        value: f64,
        /// The step (0 for the first) for which it was evaluated.
        step: u64,
        /// The tensor concerned, if a group gave it a value of its own.
        path: Option<String>,
        /// The pattern of that group, if the value is the group's alone.
        pattern: Option<String>,
        /// The accepted range, in words.
        accepted: String,
    },

    /// A group replaces a hyper-parameter that the optimizer of a tensor does not have.
    #[error(
        "{optimizer} has no hyper-parameter {name:?}, which the group {pattern:?} sets{}; it has {}",
        meant(.similar),
        .known.join(", ")
    )]
    UnknownHyperParameter {
        /// The name that the group has.
        name: String,
        /// The optimizer's type, such as `"Adam"`.
        optimizer: &'static str,
        /// The pattern of the group.
        pattern: String,
        /// The most similar names, at most three.
        similar: Vec<String>,
        /// The optimizer's hyper-parameters.
        known: Vec<&'static str>,
    },

    /// A group replaces something that all tensors share.
    #[error("the group {pattern:?} cannot change {name} of {optimizer}: {reason}")]
    NotInGroup {
        /// The name that the group has.
        name: String,
        /// The optimizer's type, such as `"Adam"`.
        optimizer: &'static str,
        /// The pattern of the group.
        pattern: String,
        /// Why not, and what to do instead.
        reason: &'static str,
    },

    /// A schedule was built from invalid numbers.
    #[error("{}{schedule}: {argument} is {}; it must be {accepted}", of_setter(.name), Number(*.value))]
    Schedule {
        /// The hyper-parameter that the schedule was given for, such as `"learning_rate"`; `None` outside an optimizer.
        name: Option<&'static str>,
        /// The schedule's type, such as `"OneCycle"`.
        schedule: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The value it had.
        value: f64,
        /// The accepted range, in words.
        accepted: &'static str,
    },

    /// The parameters have a tensor for which the gradient tree has no entry.
    #[error(
        "no gradient for parameter {}; the gradient tree needs the same tensors as the parameters \
         (use `Option` and `None` for \"no gradient this step\")",
        Name(.path)
    )]
    MissingGradient {
        /// The parameter's path.
        path: String,
    },

    /// The gradient tree has a tensor that the parameters do not have.
    #[error("gradient {} belongs to no parameter; the gradient tree needs the same tensors as the parameters", Name(.path))]
    UnexpectedGradient {
        /// The gradient's path.
        path: String,
    },

    /// A gradient's shape differs from its parameter's.
    #[error("gradient {} has shape {gradient:?} where the parameter has {parameter:?}", Name(.path))]
    ShapeMismatch {
        /// The tensor's path.
        path: String,
        /// The parameter's shape.
        parameter: Vec<usize>,
        /// The gradient's shape.
        gradient: Vec<usize>,
    },

    /// [`Rows`](crate::Rows) have another number of indices than of rows of values.
    #[error("gradient {} has {indices} row indices and {values} rows of values", Name(.path))]
    RowCount {
        /// The tensor's path.
        path: String,
        /// The number of indices.
        indices: usize,
        /// The number of rows of values.
        values: usize,
    },

    /// The rows of [`Rows`](crate::Rows) have another shape than those of the parameter.
    #[error("the rows of gradient {} have shape {gradient:?} where those of the parameter have {parameter:?}", Name(.path))]
    RowShape {
        /// The tensor's path.
        path: String,
        /// The shape of one row of the parameter.
        parameter: Vec<usize>,
        /// The shape of one row of the gradient.
        gradient: Vec<usize>,
    },

    /// An index of [`Rows`](crate::Rows) is beyond the parameter's last row.
    #[error("gradient {} has row index {row} at place {place}, and the parameter has {rows} rows", Name(.path))]
    RowOutOfRange {
        /// The tensor's path.
        path: String,
        /// The first such index's place in the list of indices.
        place: usize,
        /// The index.
        row: usize,
        /// The number of the parameter's rows.
        rows: usize,
    },

    /// An optimizer, adaptor or option cannot use a gradient of [`Rows`](crate::Rows).
    #[error("{name} cannot use the gradient of rows of {}; {instead}", Name(.path))]
    RowsUnusable {
        /// The optimizer, adaptor or option.
        name: &'static str,
        /// The tensor's path.
        path: String,
        /// What to do instead.
        instead: &'static str,
    },

    /// Two tensors of one tree have the same path.
    #[error("two tensors have the path {}; rename one", Name(.path))]
    DuplicatePath {
        /// The path that occurs twice.
        path: String,
    },

    /// The parameters are not those of the optimizer's state.
    #[error("the parameters have changed since the first step: expected {expected}, found {found}")]
    ParametersChanged {
        /// The first tensor that differs, as it was.
        expected: String,
        /// The same tensor, as it is now.
        found: String,
    },

    /// A gradient holds NaN or an infinity.
    #[error("gradient {} is {value} at index {index:?}", Name(.path))]
    NonFiniteGradient {
        /// The first tensor with a non-finite element.
        path: String,
        /// That tensor's first non-finite element, in row-major order.
        index: Vec<usize>,
        /// Its value.
        value: f64,
    },

    /// A diagonal of the Hessian that was passed to [`curvature`](crate::rule::Elementwise::curvature) before the first step.
    #[error("the diagonal of the Hessian does not fit the parameters; pass another to `curvature`: {reason}")]
    UnfitDiagonal {
        /// What would be wrong with it as a gradient.
        reason: String,
    },

    /// A parameter that must be finite is NaN or an infinity.
    #[error("parameter {} is {value} at index {index:?}", Name(.path))]
    NonFiniteParameter {
        /// The first tensor with a non-finite element.
        path: String,
        /// That tensor's first non-finite element, in row-major order.
        index: Vec<usize>,
        /// Its value.
        value: f64,
    },

    /// A number that multiplies or limits a gradient becomes 0 or infinite in the gradient's element type.
    #[error("the {quantity} of gradient {} is {}, which becomes {} in {dtype}", Name(.path), Number(*.value), rounded(*.value))]
    GradientScale {
        /// The tensor's path.
        path: String,
        /// Its role: `"scale"` (the product of clipping, averaging and unscaling) or `"limit"`.
        quantity: &'static str,
        /// Its value.
        value: f64,
        /// The element type.
        dtype: &'static str,
    },

    /// Every gradient is finite, but the norm overflows `f64`, or its square overflows a matrix's element type.
    #[error("the gradient norm overflows; the largest element is in {}", Name(.path))]
    NormOverflow {
        /// The tensor with the largest element.
        path: String,
    },

    /// Gradients of 16 bits cannot be summed: the sum overflows where the mean does not, or loses small gradients.
    #[error(
        "gradients of {dtype} cannot be summed; write accumulate({every}) before master_weights(), stochastic_rounding() or kahan(), where \
         gradients are f32"
    )]
    SumOfHalves {
        /// The type of the gradients.
        dtype: &'static str,
        /// The number of gradients to be summed.
        every: u64,
    },

    /// A pattern matches no tensor.
    #[error("pattern {pattern:?} matches no tensor{}; the tensors are {}", subtree(.pattern, .paths), List(.paths))]
    PatternUnmatched {
        /// The pattern.
        pattern: String,
        /// The paths of the tree.
        paths: Vec<String>,
    },

    /// A pattern is invalid.
    #[error("pattern {pattern:?}: {reason}")]
    PatternSyntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An optimizer of matrices was given a tensor with fewer than two axes.
    #[error("{optimizer} needs tensors with at least two axes, and {} has shape {shape:?}; route it to another optimizer", Name(.path))]
    NotAMatrix {
        /// The optimizer's name, such as `"muon"`.
        optimizer: &'static str,
        /// The tensor.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// The rows of a matrix cannot be divided into equal blocks.
    #[error(
        "the rows of {} cannot be divided equally: blocks is {blocks}, which is not a divisor of {rows}; route the tensor to another optimizer",
        Name(.path)
    )]
    UnequalBlocks {
        /// The tensor.
        path: String,
        /// Its number of rows.
        rows: usize,
        /// The number of blocks, or of rows per block.
        blocks: usize,
    },

    /// The rows of a query or key weight cannot be divided into the attention heads whose logits were observed.
    #[error("the {rows} rows of {} do not fit the {heads} heads of the query; there must be {}", Name(.path), of_heads(*.heads, *.head_rows))]
    UnequalHeads {
        /// The tensor.
        path: String,
        /// Its number of rows.
        rows: usize,
        /// The number of query heads.
        heads: usize,
        /// For a key, the rows of a head of its query.
        head_rows: Option<usize>,
    },

    /// The logits of one tensor were observed as those of a query and of its own key.
    #[error("{} is the query and the key of the same heads; qk_clip needs two tensors", Name(.path))]
    FusedHeads {
        /// The tensor.
        path: String,
    },

    /// An option is not possible with this optimizer.
    #[error("{option} is not possible with {optimizer}; it needs {needs}")]
    OptionNotPossible {
        /// The setter's name, such as `"update_clipping"`.
        option: &'static str,
        /// The optimizer's name, such as `"lion"`.
        optimizer: &'static str,
        /// What the option needs, in words.
        needs: &'static str,
    },

    /// A counter has reached the largest `u64`.
    #[error("the counter {counter}{} has reached its maximum, {}; load a state with a smaller one", at_tensor(.path), u64::MAX)]
    CounterFull {
        /// The counter's name, such as `"steps"`.
        counter: &'static str,
        /// The tensor concerned, if each tensor has its own counter.
        path: Option<String>,
    },

    /// More steps in a row are skipped than [`max_skipped`](crate::GuardExt::max_skipped) allows.
    #[error("{skipped} steps in a row are skipped, and max_skipped allows {allowed}")]
    TooManySkipped {
        /// The number of skipped steps in a row, with this one.
        skipped: u64,
        /// The number allowed.
        allowed: u64,
    },

    /// No step has been taken yet, and the call needs one.
    #[error("no step has been taken yet")]
    NoStep,

    /// The parameters are swapped for their averages.
    #[error("the parameters are swapped for their averages; swap them back first")]
    Swapped,

    /// `sam` needs a call of [`ascend`](crate::OptimizerExt::ascend) before each step.
    #[error(
        "`sam` needs two calls: `ascend` with the gradients at the parameters, then `step` with the gradients where they are then"
    )]
    NotAscended,

    /// The parameters are at the perturbed point of `sam`, where only a step may follow.
    #[error("the parameters are at the perturbed point; call `step` with the gradients there, or `retreat`")]
    AlreadyAscended,

    /// The chain cannot take the two calls of `sam`.
    #[error("this chain cannot ascend: {reason}")]
    CannotAscend {
        /// Why not, and what to do instead.
        reason: &'static str,
    },

    /// The step is a [`preview`](crate::Step::preview) and cannot be applied.
    #[error("a preview of a step cannot be applied; apply the step itself")]
    Previewed,
}
