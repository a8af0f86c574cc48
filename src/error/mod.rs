//! Everything that can go wrong, with the place where it did.

use crate::kernel::level::Level;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong, where, and what would be right.
///
/// Whatever call returns one of these, but [`RefusedTooLate`](Error::RefusedTooLate), has changed nothing: parameters,
/// gradients, optimizer state and counters are bit for bit what they were. The data stand in the fields; [`Display`](std::fmt::Display) makes the sentence.
/// The path of a tree that is a single tensor is the empty string, shown as `(root)`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A hyper-parameter lies outside its range, at once or because a schedule led it there.
    #[error("{name} is {} at step {step}{}; it must be {accepted}", Number(*.value), at_tensor(.path))]
    HyperParameter {
        /// The setter's name, such as `"beta1"`.
        name: &'static str,
        /// The value it had.
        value: f64,
        /// The step (0 for the first) for which it was evaluated.
        step: u64,
        /// The tensor concerned, where a group gave it a value of its own.
        path: Option<String>,
        /// The accepted range, in words.
        accepted: String,
    },

    /// A schedule was built from numbers that make no schedule.
    #[error("{schedule}: {argument} is {}; it must be {accepted}", Number(*.value))]
    Schedule {
        /// The schedule's type, such as `"OneCycle"`.
        schedule: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The value it had.
        value: f64,
        /// What is accepted, in words.
        accepted: &'static str,
    },

    /// The parameters hold a tensor for which the gradient tree has no entry.
    #[error(
        "no gradient for parameter {}; the gradient tree needs the same tensors as the parameters \
         (use `Option` and `None` for \"no gradient this step\")",
        Name(.path)
    )]
    MissingGradient {
        /// The parameter's path.
        path: String,
    },

    /// The gradient tree holds a tensor that the parameters do not have.
    #[error("gradient {} belongs to no parameter", Name(.path))]
    UnexpectedGradient {
        /// The gradient's path.
        path: String,
    },

    /// A gradient has another shape than its parameter.
    #[error("gradient {} has shape {gradient:?} where the parameter has {parameter:?}", Name(.path))]
    ShapeMismatch {
        /// The tensor's path.
        path: String,
        /// The parameter's shape.
        parameter: Vec<usize>,
        /// The gradient's shape.
        gradient: Vec<usize>,
    },

    /// Two tensors of one tree have the same path.
    #[error("two tensors have the path {}; rename one", Name(.path))]
    DuplicatePath {
        /// The path that occurs twice.
        path: String,
    },

    /// The parameters are not the ones the optimizer's state belongs to.
    #[error("these are other parameters than before: expected {expected}, found {found}")]
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

    /// The loss is NaN or an infinity when one element of the parameters is moved a little.
    #[error("the loss is {value} when parameter {} is moved at index {index:?}", Name(.path))]
    NonFiniteLoss {
        /// The parameter's path.
        path: String,
        /// The element that was moved.
        index: Vec<usize>,
        /// The loss there.
        value: f64,
    },

    /// The loss is another number when it is asked again at the same parameters.
    #[error("the loss is {first}, and {second} when it is asked again at the same parameters")]
    LossChanged {
        /// The first answer.
        first: f64,
        /// The second.
        second: f64,
    },

    /// What a gradient is to be multiplied with, or limited to, is no number of its element type.
    #[error("gradient {} has the {quantity} {}, which becomes {} in {dtype}", Name(.path), Number(*.value), rounded(*.value))]
    GradientScale {
        /// The tensor's path.
        path: String,
        /// What it is: `"scale"`, of clipping, averaging and undone loss scaling together, or `"limit"`.
        quantity: &'static str,
        /// Its value.
        value: f64,
        /// The element type.
        dtype: &'static str,
    },

    /// Every gradient is finite, but their norm is too large for an `f64`, or its square for a matrix of the element type.
    #[error("the gradient norm exceeds the range of numbers; the largest element lies in {}", Name(.path))]
    NormOverflow {
        /// The tensor with the largest element.
        path: String,
    },

    /// SIMD instructions were asked for that this machine does not have.
    #[error("the SIMD level {level} is not available; this machine has {}", Levels(.available))]
    SimdLevel {
        /// The level that was asked for.
        level: Level,
        /// Those that the machine has, the lowest first.
        available: Vec<Level>,
    },

    /// A pattern that should choose tensors chooses none.
    #[error("pattern {pattern:?} matches no tensor{}; the tensors are {}", subtree(.pattern, .paths), List(.paths))]
    PatternUnmatched {
        /// The pattern.
        pattern: String,
        /// The paths of the tree.
        paths: Vec<String>,
    },

    /// A pattern could not be read.
    #[error("pattern {pattern:?}: {reason}")]
    PatternSyntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An optimizer of matrices was given a tensor of one axis or none.
    #[error("{optimizer} steps matrices, and {} has shape {shape:?}; route it to another optimizer", Name(.path))]
    NotAMatrix {
        /// The optimizer's name, such as `"muon"`.
        optimizer: &'static str,
        /// The tensor.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// A number that was given to a function is not in the range it must be in.
    #[error("{argument} is {}; it must be {accepted}", Number(*.value))]
    Argument {
        /// The argument's name.
        argument: &'static str,
        /// The value it had.
        value: f64,
        /// What is accepted, in words.
        accepted: String,
    },

    /// Something that needs whole tensors was given parts of them.
    #[error("{name} needs whole tensors, and these are divided between ranks by elements; give sharded `by_tensor()`")]
    CutTensors {
        /// Who needs them, such as `"muon"`.
        name: &'static str,
    },

    /// Something that needs all tensors was given a rank's share of them.
    #[error("{name} needs all tensors in one place; it cannot be inside sharded")]
    NotShardable {
        /// Who needs them, such as `"lbfgs"`.
        name: &'static str,
    },

    /// An adaptor that talks to ranks itself is inside `sharded`, which could not take the step back if that adaptor refused it.
    #[error("{name} cannot be inside sharded; {}", instead(.name))]
    InsideSharded {
        /// What is inside, such as `"local_steps"`.
        name: &'static str,
    },

    /// Something that knows one rank's data was given the gradients of all.
    #[error(
        "{name} knows only its own rank's data, and these are the mean gradients of all; write it after data_parallel"
    )]
    DataOfAllRanks {
        /// Who knows only its own data, such as `"kfac"`.
        name: &'static str,
    },

    /// An array that was given to a function has another shape than it should have.
    #[error("{argument} has shape {found:?} where {expected:?} is needed")]
    ArgumentShape {
        /// The argument's name.
        argument: &'static str,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },

    /// An array would have more elements than can be addressed.
    #[error("{argument} would be larger than memory can be")]
    TooLarge {
        /// The array.
        argument: &'static str,
    },

    /// The rows of a tap are none, or make no whole examples.
    #[error("{}", rows_needed(.argument, *.rows, *.positions))]
    Rows {
        /// The argument's name.
        argument: &'static str,
        /// How many rows it has.
        rows: usize,
        /// How many rows make an example.
        positions: usize,
    },

    /// What a layer saw was not in order, for a reason of its own.
    #[error("layer {}: {reason}", Name(.layer))]
    Layer {
        /// The layer's name, as it was given.
        layer: String,
        /// What is wrong.
        #[source]
        reason: Box<Error>,
    },

    /// No weight belongs to the name of a layer.
    #[error("there is no weight {}; the tensors are {}", List(.sought), List(.paths))]
    NoWeight {
        /// The paths at which it was looked for.
        sought: Vec<String>,
        /// The paths of the tree.
        paths: Vec<String>,
    },

    /// A tensor of one axis or none was named as the weight of a layer.
    #[error("{} has shape {shape:?} and is no weight; name the layer or its weight", Name(.path))]
    NotAWeight {
        /// The tensor.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// A layer has a tensor that another one has: it was observed under two names.
    #[error("its weight is that of layer {}; give one name to both taps, and `discard` these", Name(.other))]
    SameLayer {
        /// The other name.
        other: String,
    },

    /// The gradient of a layer is a multiple of that of the mean over the examples observed.
    #[error(
        "the gradient is {ratio} times that of the mean of the {examples} examples observed: output_grad is divided by the \
             batch, the gradient is that of a sum, or the tap lacks its positions"
    )]
    NotTheMean {
        /// How many times too large it is.
        ratio: f64,
        /// The number of examples.
        examples: usize,
    },

    /// There has been no step that the call could speak of.
    #[error("there has been no step that this could speak of")]
    NoStep,

    /// A number or array that must be finite is, or holds, NaN or an infinity.
    #[error("{argument} is {value}{}", at_index(.index))]
    NotFinite {
        /// What it is.
        argument: &'static str,
        /// Its first element that is not finite, in row-major order; empty for a single number.
        index: Vec<usize>,
        /// The value of that.
        value: f64,
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

    /// The averages of the parameters are swapped in: where the parameters were.
    #[error("the parameters are swapped for their averages; swap them back first")]
    Swapped,

    /// A counter stands at the largest number there is.
    #[error("{counter}{} stands at {}, the largest number there is: load a state with a smaller one", at_tensor(.path), u64::MAX)]
    CounterFull {
        /// What it counts, such as `"steps"`.
        counter: &'static str,
        /// The tensor concerned, if it is a tensor's own.
        path: Option<String>,
    },

    /// A step was to be taken that is only a [`preview`](crate::Step::preview) of one.
    #[error("a preview of a step is to look at; apply the step itself")]
    Previewed,

    /// One of several optimizers broke its word: it refused in `apply` the step that its `check` had accepted, after others had
    /// taken theirs.
    ///
    /// The one case in which something has changed: the tensors of the others have moved.
    #[error("others have moved already: {reason}; an optimizer must refuse in `check` what it would refuse in `apply`")]
    RefusedTooLate {
        /// Its error.
        #[source]
        reason: Box<Error>,
    },

    /// A state dictionary is that of another optimizer.
    #[error("the state is not that of {expected}; it has {}", if .found.is_empty() { "nothing".into() } else { .found.join(", ") })]
    WrongAlgorithm {
        /// The node that the optimizer looked for, such as `"adam"`.
        expected: String,
        /// The nodes that are there.
        found: Vec<String>,
    },

    /// An entry that a state dictionary or a file should have is not there.
    #[error("there is no {}", Name(.key))]
    MissingEntry {
        /// The entry's name.
        key: String,
    },

    /// A file has parameters, but no state of an optimizer.
    #[error("the file has no optimizer's state; `load_params` loads the parameters alone")]
    NoOptimizerState,

    /// A state dictionary or a file has an entry that nothing here has a place for.
    #[error("{} belongs to nothing here", Name(.key))]
    UnexpectedEntry {
        /// The entry's name.
        key: String,
    },

    /// A saved tensor has another shape than it should have.
    #[error("{} has shape {found:?} where {expected:?} is needed", Name(.key))]
    EntryShape {
        /// The entry's name.
        key: String,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },

    /// A saved tensor has another element type than it should have.
    #[error("{} holds {found} where {expected} is needed", Name(.key))]
    EntryType {
        /// The entry's name.
        key: String,
        /// The type that it should have.
        expected: &'static str,
        /// The type that it has.
        found: &'static str,
    },

    /// A saved value is none that could have been saved.
    #[error("{} is {value:?}; it must be {accepted}", Name(.key))]
    EntryValue {
        /// The entry's name.
        key: String,
        /// The value that it has, as text.
        value: String,
        /// What is accepted, in words.
        accepted: &'static str,
    },

    /// A state was saved with another setting than it is loaded with, and depends on that setting.
    #[error("the state was saved with {saved} and is loaded with {given}: {reason}")]
    SettingChanged {
        /// The setting as it was.
        saved: String,
        /// The setting as it is.
        given: String,
        /// Why the state does not fit.
        reason: String,
    },

    /// Gradients of 16 bits were to be summed: the sum would be infinite where the mean is not, or lose the small ones.
    #[error(
        "gradients of {dtype} are not summed; write accumulate({every}) before master_weights(), where gradients are f32"
    )]
    SumOfHalves {
        /// The type of the gradients.
        dtype: &'static str,
        /// How many were to be summed.
        every: u64,
    },

    /// A file could not be read or written.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The kind of the operating system's error.
        kind: std::io::ErrorKind,
        /// What it says.
        reason: String,
    },

    /// A tensor has a name that the format of a file keeps for itself.
    #[error("a file of safetensors cannot hold a tensor of the name {}; rename it", Name(.path))]
    ReservedName {
        /// The tensor's path.
        path: String,
    },

    /// The bytes of a checkpoint are not in the safetensors format: truncated, or of another kind.
    #[error("not a checkpoint: {reason}")]
    NotACheckpoint {
        /// What is wrong.
        reason: String,
    },

    /// A checkpoint was written by a later version of this library.
    #[error("the checkpoint has format version {found}; this library reads {supported}")]
    CheckpointVersion {
        /// The version that the file says it has.
        found: String,
        /// The version that can be read.
        supported: &'static str,
    },

    /// The bytes of a checkpoint are not those that were written.
    #[error("the checkpoint is corrupted: its checksum is {found}, written was {expected}")]
    Corrupted {
        /// The checksum in the file.
        expected: String,
        /// The checksum of what is in the file.
        found: String,
    },

    /// There is no such rank.
    #[error("there is no rank {rank} in a group of {size}")]
    NoRank {
        /// The rank.
        rank: usize,
        /// How many there are.
        size: usize,
    },

    /// A rank has left the group: its thread or process has ended.
    #[error("rank {rank} has left the group")]
    RankLeft {
        /// The rank that is gone.
        rank: usize,
    },

    /// A rank waited in vain for others.
    #[error("{operation}: no word from ranks {missing:?} in {waited:?}")]
    RankTimeout {
        /// The call in which it waited.
        operation: &'static str,
        /// How long it waited.
        waited: std::time::Duration,
        /// The ranks that did not come, as far as they are known.
        missing: Vec<usize>,
    },

    /// Of the states of all ranks one is not there.
    #[error("there is no state of rank {rank} among {found}; the states of all {size} ranks are needed")]
    MissingRank {
        /// The first rank that is missing.
        rank: usize,
        /// How many ranks there were.
        size: usize,
        /// How many states there are.
        found: usize,
    },

    /// Ranks that must do the same do not.
    #[error("rank {rank} has {found} where rank 0 has {expected}")]
    RanksDisagree {
        /// The first rank that differs from rank 0.
        rank: usize,
        /// What rank 0 does or has.
        expected: String,
        /// What this rank does or has.
        found: String,
    },

    /// A step was not taken, because another rank could not take it.
    #[error("rank {rank} refuses the step: {reason}")]
    RankRefused {
        /// The first rank that refused.
        rank: usize,
        /// What its error says.
        reason: String,
    },

    /// A value cannot be sent as fixed point: it is too large, or not a number.
    #[error("{} is {value} at element {index}; fixed point takes −{largest} to {largest}", Name(.path))]
    FixedPointRange {
        /// The tensor.
        path: String,
        /// The element, counted row by row.
        index: usize,
        /// Its value.
        value: f64,
        /// The largest absolute value that can be sent.
        largest: f64,
    },

    /// The sum of masked vectors is not that of all clients: it is noise.
    #[error("the masked sum has {found} of {clients} clients; the masks cancel only in the sum of all")]
    MaskedSum {
        /// How many clients there are.
        clients: usize,
        /// How many are in the sum.
        found: usize,
    },

    /// The operating system gave no random numbers.
    #[error("no randomness from the operating system: {reason}")]
    Entropy {
        /// What it says.
        reason: String,
    },

    /// A client's optimizer was asked for something in a round that has not begun.
    #[error("there is no round; call begin_round first")]
    NoRound,

    /// A client of SCAFFOLD was given a task without the server's control variate.
    #[error("the task has no control variate; the server needs scaffold()")]
    NoControl,

    /// A server was to keep a control variate and the privacy of its clients.
    #[error("control variates are sums without noise; scaffold() and private() exclude each other")]
    ControlNotPrivate,

    /// The engine under a group reports an error.
    #[error("{operation}: {reason}")]
    Transport {
        /// The call in which it happened.
        operation: &'static str,
        /// What the engine says.
        reason: String,
    },

    /// An error of an optimizer or adaptor from another crate.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An [`Error::Argument`].
    #[cfg(any(feature = "federated", feature = "second-order"))]
    pub(crate) fn argument(argument: &'static str, value: f64, accepted: impl Into<String>) -> Self {
        Self::Argument { argument, value, accepted: accepted.into() }
    }

    /// The same error where what had moved was put back.
    #[cfg(feature = "distributed")]
    pub(crate) fn taken_back(self) -> Self {
        match self {
            Self::RefusedTooLate { reason } => *reason,
            other => other,
        }
    }

    /// The same error with other words for what is accepted, where a range in numbers would mislead.
    pub(crate) fn accepting(self, accepted: &str) -> Self {
        match self {
            Self::HyperParameter { name, value, step, path, .. } => {
                Self::HyperParameter { name, value, step, path, accepted: accepted.into() }
            }
            other => other,
        }
    }
}

/// A path as it is shown: the root's empty path gets a name.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => f.write_str("(root)"),
            path => write!(f, "\"{path}\""),
        }
    }
}

/// SIMD levels by name.
struct Levels<'a>(&'a [Level]);

impl std::fmt::Display for Levels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.0.iter().map(|level| level.name()).collect();
        f.write_str(&names.join(", "))
    }
}

/// At most eight paths: enough to see what they look like.
struct List<'a>(&'a [String]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        for (i, path) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Name(path))?;
        }
        match self.0.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// What to write for a whole subtree, if the pattern is the name of one.
fn subtree(pattern: &str, paths: &[String]) -> String {
    let below = |path: &String| path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
    match paths.iter().any(below) {
        true => format!(" but is a subtree, \"{pattern}.**\""),
        false => String::new(),
    }
}

/// What to write instead of `name` inside `sharded`.
fn instead(name: &str) -> String {
    match name {
        "sharded" => "write one `sharded`, over the group of all ranks".into(),
        _ => format!("write it after: `.sharded(group).{name}(…)`"),
    }
}

/// A number with an exponent where it would be a long row of zeros.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(value) = *self;
        match value == 0.0 || (1e-5..1e16).contains(&value.abs()) {
            true => write!(f, "{value}"),
            false => write!(f, "{value:e}"),
        }
    }
}

/// What becomes of a number that an element type does not have.
fn rounded(value: f64) -> &'static str {
    match value.abs() {
        small if small < 1.0 => "0",
        large if large >= 1.0 => "infinite",
        _ => "NaN",
    }
}

fn at_index(index: &[usize]) -> String {
    if index.is_empty() { String::new() } else { format!(" at index {index:?}") }
}

fn rows_needed(argument: &str, rows: usize, positions: usize) -> String {
    match positions {
        0 => "positions is 0; an example has at least one".into(),
        _ => format!(
            "{argument} has {rows} rows; it needs a multiple of {positions} positions, and at least one example"
        ),
    }
}

fn at_tensor(path: &Option<String>) -> String {
    path.as_ref().map(|path| format!(" for {}", Name(path))).unwrap_or_default()
}
