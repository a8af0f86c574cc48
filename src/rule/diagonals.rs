//! Diagonals of the Hessian, until a step averages them.

use std::sync::Arc;

use ndarray::ArrayD;
use pulp::Arch;

use super::Rule;
use super::lanes::{Goal, Lanes};
use super::memory::State;
use super::prelude::Prelude;
use super::stored::{Stored, StoredMut};
use crate::error::{Error, Result, StepError};
use crate::kernel::narrow::seed;
use crate::params::{Layout, Order, Owned, Params, Scalar, TensorInfo, Values, Visitor, for_each};
use crate::state::{StateReader, StateWriter};
use crate::step::grad::{WIDE_BLOCK, read};
use crate::step::{Step, norm};

/// Diagonals of the Hessian for the next step.
#[derive(Debug, Clone)]
pub(super) enum Diagonals<A> {
    /// By tensor of the layout: what is on this rank.
    Known(Vec<Option<Owned<A>>>),
    /// From before the first step, which says what the parameters are.
    Early(Early<A>),
}

/// Whole diagonals by path; `None` stands for all tensors at and below a path.
#[derive(Debug, Clone)]
pub(super) struct Early<A>(Vec<(String, Option<ArrayD<A>>)>);

impl<A> Default for Diagonals<A> {
    fn default() -> Self {
        Self::Known(Vec::new())
    }
}

impl<A: Scalar> Params for Early<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        for (path, values) in &self.0 {
            match &path[..] {
                "" => values.visit(visitor),
                path => visitor.field(path, values),
            }
        }
    }
}

impl<A: Scalar> Early<A> {
    fn of(tree: &dyn Params<Elem = A>) -> Result<Self> {
        let (mut all, mut of_rows) = (Vec::new(), None);
        for_each(tree, |path, shape, values| {
            let values = match values {
                Some(Values::Rows(_)) => {
                    of_rows.get_or_insert_with(|| path.to_string());
                    return;
                }
                values => values.map(|values| values.view(shape).to_owned()),
            };
            all.push((path.to_string(), values));
        });
        match of_rows {
            Some(path) => {
                let instead = "pass a dense diagonal before the first step";
                Err(Error::Step(StepError::RowsUnusable { name: "curvature", path, instead }))
            }
            None => Ok(Self(all)),
        }
    }
}

impl<A: Scalar> Diagonals<A> {
    /// A copy of a tree, if it is finite and fits the parameters, as far as they are known.
    pub(super) fn of(tree: &dyn Params<Elem = A>, known: Option<&Layout>) -> Result<Self> {
        let Some(known) = known else {
            let early = Early::of(tree)?;
            norm::ensure_finite(&Step::of_grads(&early, Layout::of(&early)?)?.grads().collect::<Vec<_>>())?;
            return Ok(Self::Early(early));
        };
        let step = Step::of_grads(tree, known.whole()?)?;
        norm::ensure_finite(&step.grads().collect::<Vec<_>>())?;
        Ok(Self::of_step(&step, known))
    }

    /// Of the gradients of a step of all tensors, which are diagonals, what this layout has.
    fn of_step(step: &Step<'_, A>, layout: &Layout) -> Self {
        let copies = step.iter().zip(layout.tensors()).map(|((info, tensor), part)| {
            let mut own = Owned::zeros(part.elements(), Order::C, 0);
            tensor.grad.as_ref()?.read(info.shape(), Order::C, part.start(), own.as_mut_slice());
            Some(own)
        });
        Self::Known(copies.collect())
    }

    /// Those from before the first step, by tensor of its layout; nothing if there are none.
    pub(super) fn placed(&self, layout: &Layout) -> Result<Option<Self>> {
        let Self::Early(early) = self else { return Ok(None) };
        let unfit = |reason: Error| Error::Step(StepError::UnfitDiagonal { reason: reason.to_string() });
        let step = Step::of_grads(early, layout.whole()?).map_err(unfit)?;
        Ok(Some(Self::of_step(&step, layout)))
    }

    /// Whether no diagonal waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Known(known) if known.is_empty())
    }

    /// Frees the memory once none waits.
    pub(super) fn settle(&mut self) {
        if let Self::Known(known) = self
            && known.iter().all(Option::is_none)
        {
            known.clear();
        }
    }

    /// Gives the slots of a tensor its diagonal, if one waits. Apart from the loop, which it must not slow.
    #[cold]
    pub(super) fn absorb<R: Rule<A>>(
        &mut self,
        (rule, values): (&R, &R::Values),
        arch: Arch,
        (info, index): (&TensorInfo, usize),
        state: &mut State<A>,
    ) {
        let Self::Known(known) = self else { return };
        let Some(diagonal) = known.get_mut(index).and_then(Option::take) else { return };
        let before = (state.slots.precision().group() > 1).then(|| state.slots.clone());
        let (mut own, mut param) = (vec![A::zero(); WIDE_BLOCK.min(info.elements())], Vec::new());
        param.clone_from(&own);
        let (order, seed) = (state.order, !seed(index, state.steps));
        let mut slots = state.slots.as_mut();
        let (prelude, goal, slot_count) = (Prelude::none(), Goal::Move { step_size: A::zero() }, rule.slots().len());
        for start in (0..info.elements()).step_by(WIDE_BLOCK) {
            let length = WIDE_BLOCK.min(info.elements() - start);
            let (grad, param) = (&mut own[..length], &mut param[..length]);
            read(&diagonal.as_values(), info.shape(), order, start, grad);
            let slots: StoredMut<'_, A> = slots.range(start, length);
            let seed = seed.wrapping_add((info.start() + start) as u32);
            let (streams, measuring) = (false, None);
            let lanes = Lanes { arch, prelude, grad, slot_count, goal, param, slots, seed, streams, measuring };
            rule.absorb(values, lanes);
        }
        // Codes and scales are not what they were when they are computed anew from the same values.
        if let Some(before) = before {
            let absorbs = rule.absorbs();
            take_back(&mut state.slots, before, |slot| {
                rule.slots().get(slot).is_none_or(|name| !absorbs.contains(name))
            });
        }
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>, layout: Option<&Arc<Layout>>) {
        if self.is_empty() {
            return;
        }
        let mut node = node.node(WAITING);
        match self {
            Self::Known(known) => {
                let tensors = layout.iter().flat_map(|layout| layout.tensors()).zip(known);
                for (info, diagonal) in tensors {
                    if let Some(diagonal) = diagonal.as_ref().filter(|diagonal| !diagonal.is_empty()) {
                        diagonal.write(&mut node, DIAGONAL, info);
                    }
                }
            }
            Self::Early(early) => early.0.iter().for_each(|(path, values)| match values {
                Some(values) => {
                    node.tensor(DIAGONAL, &TensorInfo::new(path.as_str(), values.shape()), values.iter().copied());
                }
                None => node.value(&none_at(path), true),
            }),
        }
    }

    /// Reads what [`write_state`](Self::write_state) wrote, for a rule that absorbs.
    pub(super) fn read_state<R: Rule<A>>(rule: &R, node: &mut StateReader<'_>) -> Result<Self> {
        if rule.absorbs().is_empty() {
            return Ok(Self::default());
        }
        let node = node.branch(WAITING);
        let mut early = Vec::new();
        for path in node.names(WITHOUT) {
            node.value_where(&none_at(path), "true", |is_none: &bool| *is_none)?;
            early.push((path.to_owned(), None));
        }
        if node.layout().is_some() {
            let read = |info: &TensorInfo| Owned::read(&node, DIAGONAL, info);
            let mut read = Self::Known(node.tensors().iter().map(read).collect::<Result<_>>()?);
            read.settle();
            return Ok(read);
        }
        for info in node.infos(DIAGONAL) {
            let values =
                node.tensor(DIAGONAL, &info)?.and_then(|values| ArrayD::from_shape_vec(info.shape(), values).ok());
            early.push((info.path().to_owned(), values));
        }
        Ok(if early.is_empty() { Self::default() } else { Self::Early(Early(early)) })
    }
}

/// Takes slots that share scales from a copy of before, where `is_kept` holds.
fn take_back<A>(slots: &mut Stored<A>, before: Stored<A>, is_kept: impl Fn(usize) -> bool) {
    fn each<T>(slots: &mut [T], before: impl IntoIterator<Item = T>, is_kept: impl Fn(usize) -> bool) {
        let both = slots.iter_mut().zip(before).enumerate().filter(|(slot, _)| is_kept(*slot));
        both.for_each(|(_, (slot, before))| *slot = before);
    }
    match (slots, before) {
        (Stored::Blockwise8(slots), Stored::Blockwise8(before)) => each(slots, before, is_kept),
        (Stored::Blockwise4(slots, _), Stored::Blockwise4(before, _)) => each(slots, before, is_kept),
        _ => {}
    }
}

/// The names of a state.
const WAITING: &str = "diagonals";
const DIAGONAL: &str = "diagonal";
const WITHOUT: &str = "none";

/// The name of what says that there is no diagonal at and below a path.
fn none_at(path: &str) -> String {
    format!("{WITHOUT}/{path}")
}
