//! The laws by name.

use std::fmt;

/// Declares the laws: each with its statement, the reason for it, and a hint for those who break it.
macro_rules! laws {
    ($($(#[doc = $reason:literal])* $law:ident: $statement:literal, $hint:literal;)*) => {
        /// A property that every optimizer, every adaptor or every schedule has.
        ///
        /// [`testing`](crate::testing) lists which laws are for what.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Law {
            $(
                #[doc = concat!($statement, ".")]
                #[doc = ""]
                $(#[doc = $reason])*
                $law,
            )*
        }

        impl Law {
            /// All laws.
            pub const ALL: &'static [Self] = &[$(Self::$law),*];

            /// The law in one sentence.
            pub fn statement(self) -> &'static str {
                match self {
                    $(Self::$law => concat!($statement, "."),)*
                }
            }

            /// Where to look if the law is broken.
            pub fn hint(self) -> &'static str {
                match self {
                    $(Self::$law => concat!($hint, "."),)*
                }
            }
        }
    };
}

laws! {
    /// The oracle is a slow loop in `f64`, written from the docs and not from the code. It is compared on sizes 0 and 1, around the
    /// widths of SIMD registers and of a block, and on several blocks with a tail. Slots are compared too, if their names are given.
    Oracle: "The optimizer computes its update rule, as the oracle has it", "Compare the first step of one element by hand";
    /// A mistake at the edge of a SIMD register shows here.
    ElementsAlone: "A tensor is stepped as its elements are, one by one",
        "An element's direction depends only on its own parameter, gradient and slots";
    /// Parameters and gradients may have any number of axes, and axes of length 0. State begins with the first gradient.
    Shapes: "Shapes are kept, every step is counted, and the state is finite", "Count steps in `apply`, and create state there";
    /// Bugs can only be found, and runs compared, if the same program gives the same result.
    Deterministic: "The same steps give the same bits", "Do not use random numbers, time, or the order of a `HashMap`";
    /// A result must not depend on the machine. This law is tested with the feature `rayon` only.
    Threads: "The results have the same bits for any number of threads",
        "Divide work by sizes that do not depend on the number of threads, and sum in a fixed order";
    /// A result must not depend on the machine. Loops become SIMD in optimized builds only: run the tests with `--release`, too.
    SimdLevels: "The results have the same bits at every SIMD level",
        "Use only `+ − × ÷ sqrt` and comparisons, no `mul_add`, `exp` or `powf`, and sum in a fixed order";
    /// The parameters of a user may be transposed, sliced or reversed views. Memory beside them must not be written.
    MemoryLayouts: "The results have the same bits in every memory layout",
        "Do not read memory in its own order: `to_array` and `update` give arrays in the order of their axes";
    /// The other tensors of a tree must not matter.
    Leaves: "The step of a tree is the steps of its tensors, one by one",
        "Share nothing between tensors; an optimizer that does declares `joins_tensors`";
    /// `accumulate` passes on a mean that is described and not yet computed. An optimizer must read the gradient as described.
    Accumulation: "A step of k equal parts, accumulated, is the step of their mean",
        "Read gradients with `Grad::to_array`, `Grad::read` or `Tensor::update`, which apply the scale, the limit and the sum";
    /// `None` is for tensors that took no part in a loss, and for frozen ones. No decay, no momentum and no count applies to them.
    NoGradient: "A tensor without a gradient stays unchanged, with its state",
        "Skip tensors with `grad: None`, and touch neither their state nor their step count";
    /// Bias corrections count the steps of the tensor, not of the optimizer. Otherwise thawing a layer late makes wrong first steps.
    OwnSteps: "A tensor that skipped a step continues as if that step had not been",
        "Keep a step count for each tensor, and compute bias corrections from it";
    /// An average starts at 0 and stays there. With weight decay, parameters shrink; then declare `decays`.
    ZeroGradient: "A gradient that was always 0 moves nothing; with weight decay, it shrinks every parameter",
        "Check what is divided by 0: add an ε, and let the direction of 0 be 0";
    /// Every hyper-parameter is a schedule.
    ConstantSchedule: "A schedule of a constant value gives the bits of the number",
        "Evaluate the learning rate with `Hyper::within` at the step's number";
    /// A training loop reads and replaces the learning rate, through every adaptor. A report has the rate that its step used.
    LearningRate: "`learning_rate` is what the next step uses, and `replace_learning_rate` replaces it",
        "Evaluate the learning rate at `steps()`, and let an adaptor pass it on to the optimizer inside";
    /// A group changes the learning rate of its tensors.
    Groups: "A learning rate that a group halves is half the learning rate",
        "Use `tensor.learning_rate.apply(learning_rate)` for each tensor";
    /// A router asks every optimizer with `check` before any of them moves.
    CheckIsApply: "`check` returns what `apply` returns, and changes nothing",
        "Let `apply` call `check` first, or let both describe the step with the same function";
    /// Training may continue after an error. Every kind of error is provoked: a learning rate that is NaN, a gradient that is
    /// missing or has another shape, other parameters than before, a gradient that is infinite under `check_finite`.
    Errors: "A step that returns an error changes nothing, and training continues",
        "Check everything before the first change; in an adaptor, change your own memory after the inner `apply` returned `Ok`";
    /// A run that was stopped is the run that was not. The state is loaded into a new optimizer, and into one that has taken other
    /// steps.
    Resume: "A run that is resumed from a saved state has the bits of the uninterrupted one",
        "Write everything that the next step depends on in `write_state`, and read all of it in `read_state`";
    /// The states tried are those of another algorithm and of other parameters, and states with an entry too many, missing, or wrong.
    StrictLoading: "A state that does not fit is refused, and the refusal changes nothing",
        "Read every entry with `StateReader`, return its errors, and change things only in the `Commit`";
    /// Optimizers are chosen at run time, and moved to other threads.
    Boxed: "The optimizer is the same in a box, borrowed, and on another thread",
        "Return the layout of the parameters from `layout` after the first step";
    /// `Debug` is for logs. The law is tested after a call of `debug`, because an optimizer need not implement it.
    Debug: "`Debug` is one short line", "Show settings, not state";
    /// 500 steps from (1, −2, 3) on the gradient x, with a learning rate that falls to 0 along a cosine.
    Parabola: "The optimizer finds the bottom of a parabola", "Give a suitable learning rate with `parabola`";
    /// From (−1.2, 1). The law is tested after a call of `rosenbrock`, because each optimizer needs its own learning rate and number of steps.
    Rosenbrock: "The optimizer finds the end of Rosenbrock's valley in the given number of steps",
        "Try other learning rates and more steps";
    /// The optimizer inside must be given the step that it was asked about.
    SameDescription: "An adaptor passes the same step on in `check` and in `apply`",
        "Describe the step in one function, and call it from both";
    /// Trees may list their tensors in any order. The gradients of this law are so coarse that sums over tensors are exact.
    TensorOrder: "The order of the tensors does not matter", "Keep what belongs to a tensor by its path, as `PerTensor` does";
    /// These methods are about the optimizer inside: `learning_rate`, `steps`, `layout`, and `find`.
    PassesOn: "An adaptor forwards the methods that are about the optimizer inside",
        "Forward `steps`, `learning_rate`, `replace_learning_rate`, `part` and `part_mut`";
    /// Inside and outside of `accumulate`, `route`, `freeze` and `group`. In each chain, errors must change nothing and a run must resume.
    Chains: "An adaptor works in chains with other adaptors", "The message names the chain; test that chain alone";
    /// A schedule that depends on earlier calls cannot be resumed. Values are read forwards, backwards and twice.
    Pure: "The value of a schedule depends on the step alone", "Compute the value in closed form, from the step";
    /// Every step up to the stated number, and steps near the largest number, which must not overflow.
    InRange: "The values of a schedule are finite and in the stated range", "Use saturating arithmetic on steps";
    /// An optimizer saves the state of its schedules. The law is tested after a call of `changed`, because most schedules have no state.
    Memory: "The state of a schedule is saved, restored bit for bit, and refused if it is not one",
        "Return `Memory::of(self)` from `memory`, save everything, and change nothing in `load` before its `Commit`";
}

impl Law {
    /// The laws of optimizers, in the order in which they are tested.
    pub const OF_OPTIMIZERS: &'static [Self] = &[
        Self::Shapes,
        Self::Oracle,
        Self::ElementsAlone,
        Self::Deterministic,
        Self::Threads,
        Self::SimdLevels,
        Self::MemoryLayouts,
        Self::Leaves,
        Self::Accumulation,
        Self::NoGradient,
        Self::OwnSteps,
        Self::ZeroGradient,
        Self::ConstantSchedule,
        Self::LearningRate,
        Self::Groups,
        Self::CheckIsApply,
        Self::Errors,
        Self::Resume,
        Self::StrictLoading,
        Self::Boxed,
        Self::Debug,
        Self::Parabola,
        Self::Rosenbrock,
    ];

    /// The laws of adaptors, in the order in which they are tested.
    pub const OF_ADAPTORS: &'static [Self] = &[
        Self::SameDescription,
        Self::CheckIsApply,
        Self::Errors,
        Self::NoGradient,
        Self::TensorOrder,
        Self::PassesOn,
        Self::Deterministic,
        Self::Threads,
        Self::SimdLevels,
        Self::MemoryLayouts,
        Self::Resume,
        Self::StrictLoading,
        Self::Boxed,
        Self::Chains,
    ];

    /// The laws of schedules, in the order in which they are tested.
    pub const OF_SCHEDULES: &'static [Self] = &[Self::Pure, Self::InRange, Self::Memory, Self::Debug];
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
