//! What a training loop sees of an optimizer.

use super::{OptimizerLaws, changing, train};
use crate::adaptor::Group;
use crate::optimizer::OptimizerExt;
use crate::params::{Layout, Scalar};
use crate::schedule::Cosine;
use crate::step::{Optimizer, Report};
use crate::testing::tensors::numbers;
use crate::testing::tree::{End, Tree, single};
use crate::testing::violation::{Held, case, ensure};

/// The longest line of `Debug`.
const LONGEST_LINE: usize = 240;

impl<A: Scalar, O: Optimizer<A> + 'static> OptimizerLaws<A, O> {
    pub(super) fn shapes(&self) -> Held {
        for shape in self.taken(&[&[], &[5], &[2, 0, 3], &[3, 4], &[2, 1, 3, 2]]) {
            case(format_args!("shape {shape:?}, 2 steps"), || {
                let (mut opt, mut params) = (self.with(0.1), single(numbers::<A>(shape, 0)));
                ensure(opt.state_dict().tensors.is_empty(), || {
                    "the state has tensors before the first gradient".into()
                })?;
                train(&mut opt, &mut params, 2)?;
                let kept = params.0.iter().all(|(_, tensor)| tensor.as_ref().is_some_and(|w| w.shape() == shape));
                ensure(kept, || "the parameter has another shape".into())?;
                ensure(opt.steps() == 2, || format!("`steps` is {} after 2 steps", opt.steps()))?;
                let state = opt.state_dict();
                for key in state.keys() {
                    let Some(tensor) = state.tensor::<A>(key) else { continue };
                    ensure(tensor.iter().all(|value| value.is_finite()), || {
                        format!("the state entry {key:?} is not finite")
                    })?;
                    // Numbers belong to a tensor as a whole.
                    let has_shape = tensor.shape() == shape || key.contains(".number/") && tensor.shape().is_empty();
                    ensure(!self.is_elementwise() || has_shape, || {
                        format!("the state entry {key:?} has shape {:?}, not that of the parameter", tensor.shape())
                    })?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    pub(super) fn constant_schedule(&self) -> Held {
        let with = |mut opt: O| {
            let mut params = self.tree(17, 0);
            train(&mut opt, &mut params, 4)?;
            Held::Ok(End::of(&opt, &params))
        };
        let expected = with(self.with(0.03))?;
        case("a closure, 4 steps", || with(self.with(|_: u64| 0.03))?.same(&expected, "with the number"))?;
        case("a cosine whose floor is its peak, 4 steps", || {
            with(self.with(Cosine::new(0.03, 2).floor(0.03)))?.same(&expected, "with the number")
        })
    }

    pub(super) fn learning_rate(&self) -> Held {
        let (mut opt, mut params) = (self.with(changing), self.tree(9, 0));
        let (mut replaced, mut others) = (self.with(0.5), params.clone());
        replaced.replace_learning_rate(changing.into());
        for step in 0..4 {
            case(format_args!("step {step}"), || {
                let grads = self.tree(9, step + 1);
                let (number, rate) = (opt.steps(), opt.learning_rate());
                ensure(rate == changing(number), || {
                    format!("`learning_rate` is {rate:?} after {number} steps, not {:?}", changing(number))
                })?;
                let report = opt.step(&mut params, &grads)?;
                ensure(report.learning_rate == rate, || {
                    format!("the report has a learning rate of {:?}, not {rate:?}", report.learning_rate)
                })?;
                replaced.step(&mut others, &grads)?;
                End::of(&replaced, &others).same(&End::of(&opt, &params), "built with this learning rate")
            })?;
        }
        Ok(())
    }

    pub(super) fn groups(&self) -> Held {
        let half = Group::new().scale_learning_rate(0.5);
        let (mut opt, mut params) = (self.with(0.0625).group("**", half), self.tree(9, 0));
        let (mut alone, mut expected) = (self.with(0.03125), params.clone());
        for step in 0..3 {
            case(format_args!("step {step}"), || {
                let grads = self.tree(9, step + 1);
                opt.step(&mut params, &grads)?;
                alone.step(&mut expected, &grads)?;
                params.same(&expected, "with half the learning rate")
            })?;
        }
        Ok(())
    }

    pub(super) fn boxed(&self) -> Held {
        let (start, grads) = (self.tree(12, 0), self.tree(12, 1));
        let (mut opt, mut expected) = (self.with(0.1), start.clone());
        let expected_report = opt.step(&mut expected, &grads)?;
        let (steps, rate) = (opt.steps(), opt.learning_rate());
        let same = |report: Report, params: &Tree<A>| {
            ensure(report == expected_report, || format!("the report is {report:?}, not {expected_report:?}"))?;
            params.same(&expected, "in the optimizer itself")
        };
        case("in a `Box<dyn Optimizer>`", || {
            let (mut boxed, mut params): (Box<dyn Optimizer<A>>, _) = (Box::new(self.with(0.1)), start.clone());
            let report = boxed.step(&mut params, &grads)?;
            same(report, &params)?;
            let found = (boxed.steps(), boxed.learning_rate());
            ensure(found == (steps, rate), || {
                format!("`steps` and `learning_rate` are {found:?}, not {:?}", (steps, rate))
            })?;
            let (found, expected) = (boxed.layout(), Layout::of(&params)?);
            ensure(found.is_some_and(|layout| **layout == expected), || {
                format!("`layout` is {found:?} after the first step, not {expected:?}")
            })
        })?;
        case("borrowed", || {
            let (mut opt, mut params) = (self.with(0.1), start.clone());
            let report = (&mut opt).clip_value(f64::MAX).into_inner().step(&mut params, &grads)?;
            same(report, &params)?;
            ensure(opt.steps() == steps, || format!("`steps` is {}, not {steps}", opt.steps()))
        })?;
        case("on another thread", || {
            let (mut opt, mut params) = (self.with(0.1), start.clone());
            let report = std::thread::scope(|scope| scope.spawn(|| opt.step(&mut params, &grads)).join());
            match report {
                Ok(report) => same(report?, &params),
                Err(_) => ensure(false, || "the thread panicked".into()),
            }
        })
    }

    pub(super) fn debug_line(&self) -> Held {
        let Some(debug) = self.debug else { return Ok(()) };
        let mut opt = self.with(0.1);
        train(&mut opt, &mut self.tree(1000, 0), 1)?;
        one_short_line(&debug(&opt))
    }
}

pub(in crate::testing) fn one_short_line(text: &str) -> Held {
    ensure(!text.is_empty() && !text.contains('\n') && text.chars().count() <= LONGEST_LINE, || {
        let start: String = text.chars().take(LONGEST_LINE).collect();
        format!("{} lines of {} letters: {start}", text.lines().count(), text.chars().count())
    })
}
