//! The laws of adaptors.

mod spy;

use std::fmt;
use std::sync::Arc;

use super::law::Law;
use super::optimizers::OptimizerLaws;
use super::tree::Tree;
use super::violation::{Held, broken, case, ensure, tests_laws};
use crate::adaptor::Group;
use crate::optimizer::OptimizerExt;
use crate::optimizer::list::{Adam, AdamW, Sgd};
use crate::params::Scalar;
use crate::schedule::Hyper;
use crate::step::{Optimizer, Step};
use spy::{Spy, same_description};

type Boxed<A> = Box<dyn Optimizer<A>>;
type Wrap<A> = Arc<dyn Fn(Boxed<A>) -> Boxed<A>>;

/// Tests an adaptor: made by [`transform`](super::transform()), [`adaptor`](super::adaptor()) and [`wrapper`](super::wrapper).
///
/// The adaptor is tested around Adam and around an optimizer that writes down what it is given. [`run`](Self::run) tests the laws.
#[must_use = "`run` tests the laws"]
pub struct AdaptorLaws<A> {
    wrap: Wrap<A>,
    around_adam: OptimizerLaws<A, Boxed<A>>,
    subject: String,
    without: Vec<Law>,
}

/// A chain of the adaptor in question and another, with its name.
type Chain<A> = (&'static str, fn(Boxed<A>, &Wrap<A>) -> Boxed<A>);

impl<A: Scalar> AdaptorLaws<A> {
    pub(super) fn new(wrap: impl Fn(Boxed<A>) -> Boxed<A> + 'static, name: impl fmt::Display) -> Self {
        let wrap: Wrap<A> = Arc::new(wrap);
        let (subject, inner) = (format!("{name} in {}", A::DTYPE), Arc::clone(&wrap));
        let around_adam = OptimizerLaws::of_adaptor(move |rate| inner(Box::new(Adam::new(rate))), subject.clone());
        Self { wrap, around_adam: around_adam.elementwise(), subject, without: Vec::new() }
    }

    /// The name in messages. The default is the name of the type.
    pub fn named(self, name: impl fmt::Display) -> Self {
        Self { subject: format!("{name} in {}", A::DTYPE), ..self }
    }

    /// Parts of the names of entries that may be missing from a state, for [`Law::StrictLoading`]: such as those of tensors for which
    /// there is nothing to remember yet.
    pub fn optional_entries(self, parts: impl IntoIterator<Item = &'static str>) -> Self {
        Self { around_adam: self.around_adam.optional_entries(parts), ..self }
    }

    tests_laws!(Law::OF_ADAPTORS);

    fn holds(&self, law: Law) -> Held {
        match law {
            Law::SameDescription => self.same_description(),
            Law::NoGradient => self.no_gradient(),
            Law::TensorOrder => self.tensor_order(),
            Law::PassesOn => self.passes_on(),
            Law::Chains => self.chains(),
            law => self.around_adam.holds(law),
        }
    }

    fn around(&self, inner: impl Optimizer<A> + 'static) -> Boxed<A> {
        (self.wrap)(Box::new(inner))
    }

    /// Asks a spy inside about a step, and then gives it the step.
    fn same_description(&self) -> Held {
        for factor in [1.0, 0.0, 1e30, f64::INFINITY, f64::NAN] {
            let (spy, watch) = Spy::new(0.1);
            let (mut opt, mut params) = (self.around(spy), Tree::<A>::new(TENSORS, 0));
            for call in 0..7 {
                case(format_args!("call {call}, gradients times {factor}"), || {
                    let absent: &[&str] = match call % 4 {
                        0 => &[],
                        1 => &["a"],
                        2 => &["b", "c"],
                        _ => &["a", "b", "c"],
                    };
                    let grads = Tree::new(TENSORS, call + 1).map(|grad| grad * A::from_f64(factor)).without(absent);
                    let layout = opt.layout().cloned();
                    let mut step = Step::pair(&mut params, &grads, layout.as_ref())?;
                    step.set_number(opt.steps());
                    watch.take();
                    let checked = opt.check(&step);
                    let asked = watch.take().asked;
                    let applied = opt.apply(step);
                    ensure(checked.is_ok() == applied.is_ok(), || {
                        format!("`check` returned {checked:?}, and `apply` {applied:?}")
                    })?;
                    // An adaptor may ask about more steps than it passes on.
                    let given = watch.take().given;
                    let Some(given) = given.first() else { return Ok(()) };
                    match asked.last() {
                        Some(_) if asked.iter().any(|asked| same_description(asked, given).is_ok()) => Ok(()),
                        Some(last) => same_description(last, given),
                        None => broken("`apply` passes a step on that `check` does not"),
                    }
                })?;
            }
        }
        Ok(())
    }

    /// A tensor that never has a gradient has none inside either.
    fn no_gradient(&self) -> Held {
        let (spy, watch) = Spy::new(0.1);
        let (mut opt, mut params) = (self.around(spy), Tree::<A>::new(TENSORS, 0));
        let before = params.clone();
        for call in 0..7 {
            case(format_args!("call {call}, no gradient for \"b\""), || {
                opt.step(&mut params, &Tree::new(TENSORS, call + 1).without(&["b"]))?;
                params.only("b").same(&before, "before the first step")?;
                let given = watch.take().given;
                let mut tensors = given.iter().flatten();
                ensure(tensors.all(|tensor| tensor.path != "b" || tensor.grad.is_none()), || {
                    "\"b\" has a gradient when the optimizer inside is given the step".into()
                })
            })?;
        }
        Ok(())
    }

    /// The gradients are multiples of 2⁻¹⁰, so that sums of them, and of their squares, are exact.
    fn tensor_order(&self) -> Held {
        let coarse = |x: A| (x * A::from_f64(1024.0)).round() / A::from_f64(1024.0);
        let (mut opt, mut params) = (self.around(Adam::new(0.1)), Tree::<A>::new(TENSORS, 0));
        let (mut other, mut reversed) = (self.around(Adam::new(0.1)), params.clone().reversed());
        for call in 0..7 {
            case(format_args!("call {call}, tensors in the opposite order"), || {
                let grads = Tree::new(TENSORS, call + 1).map(coarse);
                opt.step(&mut params, &grads)?;
                other.step(&mut reversed, &grads.reversed())?;
                reversed.same(&params, "in alphabetical order")
            })?;
        }
        Ok(())
    }

    fn passes_on(&self) -> Held {
        let rate = |step: u64| 0.5 / (1 + step) as f64;
        let (spy, watch) = Spy::new(0.25);
        let (mut opt, mut params) = (self.around(spy), Tree::<A>::new(TENSORS, 0));
        ensure(opt.learning_rate() == 0.25, || format!("`learning_rate` is {}, not 0.25", opt.learning_rate()))?;
        opt.set_learning_rate(rate);
        for call in 0..7 {
            case(format_args!("call {call}"), || {
                let steps = opt.find::<Spy<A>>().map(Optimizer::steps);
                ensure(steps == Some(opt.steps()), || match steps {
                    None => "`find` does not find the optimizer inside: `part` returns `None`".into(),
                    Some(steps) => format!("`steps` is {}, and that of the optimizer inside {steps}", opt.steps()),
                })?;
                ensure(opt.find_mut::<Spy<A>>().is_some(), || {
                    "`find_mut` does not find the optimizer inside: `part_mut` returns `None`".into()
                })?;
                let (found, expected) = (opt.learning_rate(), rate(opt.steps()));
                ensure(found == expected, || {
                    format!("`learning_rate` is {found} after it was replaced, not {expected}")
                })?;
                watch.take();
                opt.step(&mut params, &Tree::new(TENSORS, call + 1))?;
                let given = !watch.take().given.is_empty();
                ensure(!given || opt.layout().is_some(), || "`layout` is `None` after a step".into())
            })?;
        }
        Ok(())
    }

    fn chains(&self) -> Held {
        let chains: [Chain<A>; 9] = [
            ("inside of accumulate(2)", |inner, wrap| Box::new(wrap(inner).accumulate(2))),
            ("outside of accumulate(2)", |inner, wrap| wrap(Box::new(inner.accumulate(2)))),
            ("inside of group", |inner, wrap| Box::new(wrap(inner).group("**", slower()))),
            ("outside of group", |inner, wrap| wrap(Box::new(inner.group("**", slower())))),
            ("inside of freeze", |inner, wrap| Box::new(wrap(inner).freeze("**").unfreeze_at(0, "**"))),
            ("outside of freeze", |inner, wrap| wrap(Box::new(inner.freeze("**").unfreeze_at(0, "**")))),
            ("in a branch of route", |inner, wrap| Box::new(Sgd::new(0.1).route("**", wrap(inner)))),
            ("inside of clip_global_norm and ema", |inner, wrap| Box::new(wrap(inner).clip_global_norm(1.0).ema(0.9))),
            ("around itself", |inner, wrap| wrap(wrap(inner))),
        ];
        for (name, chain) in chains {
            let wrap = Arc::clone(&self.wrap);
            let build = move |rate: Hyper| chain(Box::new(AdamW::new(rate)), &wrap);
            let laws = OptimizerLaws::of_adaptor(build, self.subject.clone()).elementwise();
            for law in [Law::CheckIsApply, Law::Errors, Law::Resume] {
                case(format_args!("{name}, Law::{law}"), || laws.holds(law))?;
            }
        }
        case("inside of freeze(\"b\")", || {
            let (mut opt, mut params) = (self.around(Adam::new(0.1)).freeze("b"), Tree::<A>::new(TENSORS, 0));
            let before = params.clone();
            for call in 0..4 {
                opt.step(&mut params, &Tree::new(TENSORS, call + 1))?;
            }
            params.only("b").same(&before, "before it was frozen")
        })?;
        case("inside of route(\"b\", Sgd)", || {
            let (mut opt, mut params) =
                (self.around(Adam::new(0.1)).route("b", Sgd::new(0.1)), Tree::<A>::new(TENSORS, 0));
            let (mut alone, mut expected) = (Sgd::new(0.1), params.only("b"));
            for call in 0..4 {
                let grads = Tree::new(TENSORS, call + 1);
                opt.step(&mut params, &grads)?;
                alone.step(&mut expected, &grads.only("b"))?;
            }
            params.only("b").same(&expected, "by that optimizer alone")
        })
    }
}

/// Half the learning rate.
fn slower() -> Group {
    Group::new().scale_learning_rate(0.5)
}

impl<A> fmt::Debug for AdaptorLaws<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AdaptorLaws").field(&self.subject).finish()
    }
}

/// A matrix, a vector, and a tensor of three axes.
const TENSORS: &[(&str, &[usize])] = &[("a", &[7, 5]), ("b", &[9]), ("c", &[2, 3, 4])];
