//! Steps that are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::ArrayD;

use super::{Kind, OptimizerLaws, like, train};
use crate::error::{Error, Result, StepError};
use crate::optimizer::GuardExt;
use crate::params::{Params, ParamsMut, Scalar};
use crate::schedule::Hyper;
use crate::step::{Optimizer, Report, Step};
use crate::testing::tensors::numbers;
use crate::testing::tree::{End, Tree, same_state, single};
use crate::testing::violation::{Held, broken, case, ensure};

/// Breaks the learning rate from outside.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn turn(&self, broken: bool) {
        self.0.store(broken, Ordering::Relaxed);
    }

    fn learning_rate(&self) -> Hyper {
        let broken = Arc::clone(&self.0);
        Hyper::from(move |step: u64| match broken.load(Ordering::Relaxed) {
            true => f64::NAN,
            false => super::changing(step),
        })
    }
}

/// What is wrong with a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    LearningRate,
    MissingGradient,
    OtherShape,
    OtherParameters,
}

impl Fault {
    const ALL: [Self; 4] = [Self::LearningRate, Self::MissingGradient, Self::OtherShape, Self::OtherParameters];

    fn is_this(self, error: &Error, steps: u64) -> bool {
        match (self, error) {
            (Self::LearningRate, Error::Step(StepError::HyperParameter { name, step, .. })) => {
                (*name, *step) == ("learning_rate", steps)
            }
            (Self::MissingGradient, Error::Step(StepError::MissingGradient { .. }))
            | (Self::OtherShape, Error::Step(StepError::ShapeMismatch { .. }))
            | (Self::OtherParameters, Error::Step(StepError::ParametersChanged { .. })) => true,
            _ => false,
        }
    }
}

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    /// Asks with `check`, and then applies.
    pub(super) fn check_is_apply(&self) -> Held {
        for calls in [0, 2, 3] {
            for fault in [Fault::None, Fault::LearningRate, Fault::OtherParameters] {
                if calls == 0 && fault == Fault::OtherParameters {
                    continue; // the first parameters are never other ones
                }
                for factor in [1.0, 0.0, f64::INFINITY, f64::NAN] {
                    case(format_args!("after {calls} steps, {fault:?}, gradients times {factor}"), || {
                        let switch = Switch::default();
                        let (mut opt, mut params) = (self.with(switch.learning_rate()), self.tree(9, 0));
                        train(&mut opt, &mut params, calls)?;
                        if fault == Fault::OtherParameters {
                            params = Tree(vec![("other", Some(numbers(&self.shape(9), 0)))]);
                        }
                        let grads = like(&params, 9).map(|grad| grad * A::from_f64(factor));
                        switch.turn(fault == Fault::LearningRate);
                        self.asked_and_applied(&mut opt, &mut params, &grads)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn asked_and_applied(
        &self,
        opt: &mut O,
        params: &mut dyn ParamsMut<Elem = A>,
        grads: &dyn Params<Elem = A>,
    ) -> Held {
        let mut step = Step::pair(params, grads, opt.layout())?;
        step.set_number(opt.steps());
        let before = opt.state_dict();
        let asked = [(); 2].map(|()| words(opt.check(&step)));
        same_state(&opt.state_dict(), &before, "before `check`")?;
        ensure(asked[0] == asked[1], || format!("`check` returned {} and then {}", asked[0], asked[1]))?;
        let taken = words(opt.apply(step).map(drop));
        ensure(asked[0] == taken, || format!("`check` returned {}, and `apply` {taken}", asked[0]))
    }

    /// Beside an optimizer that never failed, one that failed in every way after every step.
    pub(super) fn errors(&self) -> Held {
        let switch = Switch::default();
        let rate = || switch.learning_rate();
        let start = single(numbers::<A>(&[3, 3], 0));
        let ((mut opt, mut params), (mut twin, mut expected)) =
            ((self.with(rate()), start.clone()), (self.with(rate()), start));
        for calls in 0..5 {
            for fault in Fault::ALL.into_iter().take(if calls == 0 { 3 } else { 4 }) {
                case(format_args!("{fault:?} after {calls} steps"), || {
                    let steps = opt.steps();
                    let error = match self.provoke(fault, &switch, &mut opt, &mut params)? {
                        Ok(_) => return broken("the step is taken"),
                        Err(error) => error,
                    };
                    // An adaptor may find another mistake first.
                    ensure(self.is_of_adaptor || fault.is_this(&error, steps), || {
                        format!("the error does not name the mistake: {error}")
                    })?;
                    End::of(&opt, &params).same(&End::of(&twin, &expected), "without the error")
                })?;
            }
            let grads = single(numbers(&[3, 3], calls + 1));
            let reports = [opt.step(&mut params, &grads)?, twin.step(&mut expected, &grads)?];
            case(format_args!("step {calls} after errors"), || {
                ensure(reports[0] == reports[1], || {
                    format!("the report is {:?}, not {:?} (without errors)", reports[0], reports[1])
                })?;
                End::of(&opt, &params).same(&End::of(&twin, &expected), "without errors")
            })?;
        }
        case("an infinite gradient under `check_finite`", || {
            let before = End::of(&opt, &params);
            let grads = single(numbers::<A>(&[3, 3], 9).mapv(|x| x / A::zero()));
            let mut checked = opt.check_finite();
            match checked.step(&mut params, &grads) {
                Err(Error::Step(StepError::NonFiniteGradient { .. })) => {}
                other => return broken(format!("the step returned {other:?}")),
            }
            End::of(checked.inner(), &params).same(&before, "before the error")
        })
    }

    /// A step that must fail. Trees that it makes itself must stay as they are, too.
    fn provoke(&self, fault: Fault, switch: &Switch, opt: &mut O, params: &mut Tree<A>) -> Held<Result<Report>> {
        let grads = single(numbers::<A>(&[3, 3], 9));
        Ok(match fault {
            Fault::None => opt.step(params, &grads),
            Fault::LearningRate => {
                switch.turn(true);
                let result = opt.step(params, &grads);
                switch.turn(false);
                result
            }
            Fault::MissingGradient => opt.step(params, &[(); 0].map(|()| ArrayD::<A>::zeros(vec![0]))),
            Fault::OtherShape => opt.step(params, &single(numbers::<A>(&[9], 9))),
            Fault::OtherParameters => {
                let shape: &[usize] = if self.kind == Kind::Elements { &[9] } else { &[9, 1] };
                let start = single(numbers::<A>(shape, 0));
                let mut others = start.clone();
                let result = opt.step(&mut others, &start);
                others.same(&start, "before the error")?;
                result
            }
        })
    }
}

fn words(result: Result<()>) -> String {
    result.map_or_else(|error| format!("the error \"{error}\""), |()| "`Ok`".into())
}
