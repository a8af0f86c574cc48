//! Laws: tests for your own optimizers, adaptors and schedules.
//!
//! This crate tests all of its optimizers with this module, and you can test yours. Add the feature `testing` to your *dev*-dependencies
//! (`gradus = { version = "0.1", features = ["testing"] }`), and write one test for each optimizer, adaptor and schedule:
//!
//! ```
//! use gradus::{Hyper, prelude::*, rule::{At, Lanes, Rule}, testing};
//!
//! gradus::hyper_parameters! {
//!     /// The sign of an average gradient.
//!     struct SignSgd => SignSgdValues {
//!         /// The share of the average that is kept per step.
//!         momentum: 0.9, 0.0..1.0;
//!     }
//! }
//!
//! # impl<A: Scalar> Rule<A> for SignSgd {
//! #     type Coefficients = [A; 2];
//! #     fn name(&self) -> &'static str { "signsgd" }
//! #     fn slots(&self) -> &'static [&'static str] { &["momentum_buffer"] }
//! #     fn coefficients(&self, values: &SignSgdValues, at: &At) -> (f64, [A; 2]) {
//! #         (at.learning_rate, [values.momentum, 1.0 - values.momentum].map(A::from_f64))
//! #     }
//! #     fn sweep(&self, coefficients: [A; 2], lanes: Lanes<'_, A>) {
//! #         lanes.each(coefficients, |&[momentum, rest], _, grad, [m]: [A; 1]| {
//! #             let m = momentum * m + rest * grad;
//! #             (if m == A::zero() { m } else { m.signum() }, [m])
//! #         });
//! #     }
//! # }
//! fn sign_sgd<A: Scalar>(learning_rate: Hyper) -> Elementwise<SignSgd, A> {
//!     Elementwise::from_rule(SignSgd::default(), learning_rate)
//! }
//!
//! // #[test]
//! fn sign_sgd_keeps_the_laws() {
//!     fn laws<A: Scalar>() {
//!         testing::optimizer(sign_sgd::<A>)
//!             .oracle(|at, param, grad, [average]| {
//!                 *average = 0.9 * *average + (1.0 - 0.9) * grad; // the update rule, as the docs have it
//!                 param - at.learning_rate * if *average == 0.0 { 0.0 } else { average.signum() }
//!             })
//!             .slots(["momentum_buffer"])
//!             .debug()
//!             .run();
//!     }
//!     laws::<f32>();
//!     laws::<f64>();
//! }
//! # sign_sgd_keeps_the_laws();
//! ```
//!
//! | yours | test |
//! |---|---|
//! | a rule, element by element | `optimizer(…).oracle(…).run()`, or `optimizer(…).elementwise().run()` |
//! | a rule for matrices | `optimizer(…).matrix_oracle(…).run()`, with [`matrices`](OptimizerLaws::matrices) if it takes no vectors |
//! | any other optimizer | `optimizer(…).run()` |
//! | a [`Transform`], or a closure | `transform::<f32, _>(…).run()` |
//! | an [`Adaptor`] | `adaptor::<f32, _>(…).run()` |
//! | an optimizer around another | `wrapper(…).run()` |
//! | a [`Schedule`] | `schedule(…).range(…).run()` |
//!
//! `run` tests every law and panics if one is broken. The message names the law, the element type, the case, the tensor and the element:
//!
//! ```text
//! Elementwise<SignSgd, f32> in f32 breaks Law::ZeroGradient. A gradient that was always 0 moves nothing; with weight decay, …
//!   case:  3 steps
//!   found: "w" is 0.7 at [0], not 0.75 (before)
//!   hint:  Check what is divided by 0: add an ε, and let the direction of 0 be 0.
//! ```
//!
//! `violations` returns the broken laws as data instead. [`without`](OptimizerLaws::without) leaves out a law that does not apply.
//!
//! # Laws
//! [`Law`] has the statement of each law, and the reason for it.
//!
//! | about | laws |
//! |---|---|
//! | results | [`Oracle`](Law::Oracle), [`ElementsAlone`](Law::ElementsAlone), [`Leaves`](Law::Leaves), [`Accumulation`](Law::Accumulation), [`ZeroGradient`](Law::ZeroGradient), [`Parabola`](Law::Parabola), [`Rosenbrock`](Law::Rosenbrock) |
//! | bits | [`Deterministic`](Law::Deterministic), [`Threads`](Law::Threads), [`SimdLevels`](Law::SimdLevels), [`MemoryLayouts`](Law::MemoryLayouts) |
//! | steps | [`Shapes`](Law::Shapes), [`NoGradient`](Law::NoGradient), [`OwnSteps`](Law::OwnSteps), [`ConstantSchedule`](Law::ConstantSchedule), [`LearningRate`](Law::LearningRate), [`Groups`](Law::Groups) |
//! | errors | [`CheckIsApply`](Law::CheckIsApply), [`Errors`](Law::Errors) |
//! | state | [`Resume`](Law::Resume), [`StrictLoading`](Law::StrictLoading) |
//! | use | [`Boxed`](Law::Boxed), [`Debug`](Law::Debug) |
//! | adaptors | the laws about bits, errors and state, [`NoGradient`](Law::NoGradient), [`Boxed`](Law::Boxed), and [`SameDescription`](Law::SameDescription), [`TensorOrder`](Law::TensorOrder), [`PassesOn`](Law::PassesOn), [`Chains`](Law::Chains) |
//! | schedules | [`Pure`](Law::Pure), [`InRange`](Law::InRange), [`Memory`](Law::Memory), [`Debug`](Law::Debug) |
//!
//! [`Threads`](Law::Threads) is tested with the feature `rayon` only. [`SimdLevels`](Law::SimdLevels) compares the levels of the machine that
//! runs the test. Loops become SIMD in optimized builds only: run `cargo test --release`, too.
//!
//! One law of this crate's own optimizers is not here: a step allocates nothing that grows with the number of elements. That test needs a global
//! allocator, which only your program can choose.

pub mod tensors;

mod adaptors;
mod law;
mod optimizers;
mod schedules;
mod tree;
mod violation;

pub use adaptors::AdaptorLaws;
pub use law::Law;
pub use optimizers::{OptimizerLaws, at_every_level};
pub use schedules::ScheduleLaws;
pub use violation::Violation;

use crate::adaptor::{Adapted, Adaptor, Transform};
use crate::optimizer::OptimizerExt;
use crate::params::Scalar;
use crate::schedule::{Hyper, Schedule};
use crate::step::Optimizer;
use violation::short_name;

/// The laws of the optimizer that `build` makes from a learning rate.
///
/// The methods of [`OptimizerLaws`] describe the optimizer: an [`oracle`](OptimizerLaws::oracle), its [`slots`](OptimizerLaws::slots), weight
/// decay, learning rates. Test every element type.
pub fn optimizer<A: Scalar, O: Optimizer<A> + 'static>(build: impl Fn(Hyper) -> O + 'static) -> OptimizerLaws<A, O> {
    OptimizerLaws::new(build)
}

/// The laws of a [`Transform`]: a closure that takes a step, or a type.
///
/// ```
/// use gradus::{Step, prelude::*, testing};
///
/// testing::transform::<f64, _>(|| |step: &mut Step<'_, f64>| {
///     step.grads_mut().for_each(|(_, grad)| grad.scale_by(0.5));
///     Ok(())
/// })
/// .run();
/// ```
pub fn transform<A: Scalar, T: Transform<A>>(build: impl Fn() -> T + 'static) -> AdaptorLaws<A> {
    AdaptorLaws::new(move |inner| Box::new(inner.transform(build())), short_name::<T>())
}

/// The laws of an [`Adaptor`].
///
/// ```
/// use gradus::{adaptor::Ema, testing};
///
/// testing::adaptor::<f32, _>(|| Ema::new(0.9)).run();
/// ```
pub fn adaptor<A: Scalar, P: Adaptor<A>>(build: impl Fn() -> P + 'static) -> AdaptorLaws<A> {
    AdaptorLaws::new(move |inner| Box::new(Adapted::new(inner, build())), short_name::<P>())
}

/// The laws of an optimizer around another, and of any chain of adaptors.
///
/// ```
/// use gradus::{prelude::*, testing};
///
/// testing::wrapper::<f32, _>(|inner| inner.clip_value(1.0).accumulate(2)).run();
/// ```
pub fn wrapper<A: Scalar, W: Optimizer<A> + 'static>(
    wrap: impl Fn(Box<dyn Optimizer<A>>) -> W + 'static,
) -> AdaptorLaws<A> {
    AdaptorLaws::new(move |inner| Box::new(wrap(inner)), short_name::<W>())
}

/// The laws of a [`Schedule`].
///
/// ```
/// use gradus::{prelude::*, schedule::{Cosine, Plateau}, testing};
///
/// testing::schedule(|| Cosine::new(0.1, 1000).warmup(100)).range(0.0..=0.1).steps(1200).run();
/// // A schedule with state of its own needs a change of that state.
/// testing::schedule(|| Plateau::new(0.1).patience(0)).changed(|plateau| { plateau.observe(1.0); plateau.observe(1.0); }).run();
/// ```
pub fn schedule<S: Schedule + 'static>(build: impl Fn() -> S + 'static) -> ScheduleLaws<S> {
    ScheduleLaws::new(build)
}
