//! Steps of some rows of a tensor: those that a gradient of rows has.

use pulp::Arch;

use super::lanes::{Goal, Lanes};
use super::memory::State;
use super::options::Options;
use super::precision::StatePrecision;
use super::prelude::Prelude;
use super::rates::{Pull, RatesAt};
use super::stored::{MAX_SLOTS, Stored, StoredMut};
use super::sweep::{Chosen, Param, Part, Shared};
use super::valued::Valued;
use super::{At, Rule};
use crate::error::{Error, Result, StepError};
use crate::kernel::aligned::Aligned;
use crate::kernel::narrow::nearest_bf16;
use crate::kernel::threads;
use crate::params::{Element, Order, Scalar, TensorInfo, Values, ValuesMut};
use crate::state::data::row_major;
use crate::step::follower::follow_rows;
use crate::step::grad::read;
use crate::step::grad::rows::runs;
use crate::step::{PerTensor, Step, norm};

/// The elements of one row of a tensor.
fn width(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

/// These rows of a parameter, one after the other, and those of its slots in row-major order, in full.
pub(super) fn gather<A: Scalar>(
    param: &Values<'_, A>,
    stored: &Stored<A>,
    slots: usize,
    shape: &[usize],
    rows: &[usize],
) -> (Vec<A>, Stored<A>) {
    let width = width(shape);
    let each = |all: &mut [A], read: &dyn Fn(usize, &mut [A])| {
        for (at, run) in runs(rows) {
            read(run[0] * width, &mut all[at * width..][..run.len() * width]);
        }
    };
    let mut values = vec![A::zero(); rows.len() * width];
    each(&mut values, &|start, out| read(param, shape, Order::C, start, out));
    let slot = |slot: usize| {
        let mut all = Aligned::zeros(if slot < slots { rows.len() * width } else { 0 }, 0);
        if slot < slots {
            each(&mut all, &|start, out| stored.read_wide(slot, (shape, Order::C), start, out));
        }
        all
    };
    (values, Stored::Full(std::array::from_fn(slot)))
}

/// How many times as long an element of a row takes as one of a whole tensor: rows are far apart in memory.
const FAR: usize = 8;

/// The length of a step, in elements of whole tensors, if it has gradients of rows.
pub(super) fn elements_of_rows<A: Scalar>(step: &Step<'_, A>) -> Option<usize> {
    let are_some = step.grads().any(|(_, grad)| grad.rows().is_some());
    are_some.then(|| FAR * step.grads().map(|named| norm::elements(&named)).sum::<usize>())
}

/// Lets the followers of tensors with gradients of rows follow.
pub(super) fn follow_each<A: Element>(step: &mut Step<'_, A>) {
    for (info, tensor) in step.iter_mut().filter(|(_, tensor)| !tensor.projections.come_later()) {
        if let Some((rows, _)) = tensor.grad.as_ref().and_then(|grad| grad.rows()) {
            follow_rows(&mut tensor.followers, &tensor.param.as_values(), info.shape(), rows);
        }
    }
}

/// Projects the tensors that a sweep has moved but could not project, and lets them be followed.
pub(super) fn project_each<A: Element>(step: &mut Step<'_, A>) {
    let elements = step.layout().elements();
    let moved = step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some() && tensor.projections.come_later());
    let mut moved: Vec<_> = moved.collect();
    threads::for_each_tensor(elements, &mut moved, &|(info, tensor)| tensor.let_follow(info));
}

impl<'s, A: Scalar> Param<'s, A> {
    /// The first rows and the others.
    fn split_rows(self, rows: usize, width: usize) -> (Self, Self) {
        match self {
            Param::Slice(slice) => {
                let (first, rest) = slice.split_at_mut(rows * width);
                (Param::Slice(first), Param::Slice(rest))
            }
            Param::View(view) => {
                let (first, rest) = view.split_at(ndarray::Axis(0), rows);
                (Param::View(Box::new(first)), Param::View(Box::new(rest)))
            }
            #[cfg(feature = "half")]
            Param::Narrow(part) => {
                let (first, rest) = part.split_at(rows * width);
                (Param::Narrow(first), Param::Narrow(rest))
            }
        }
    }
}

impl<'s, A: Scalar, C: Copy + Send + Sync> Part<'s, A, C> {
    /// These rows of a tensor of this shape, whose slots are in row-major order. `shared` is about the tensor that has only these rows.
    pub(super) fn of_rows(
        shared: Shared<'s, A, C>,
        rows: &'s [usize],
        (param, shape): (&'s mut ValuesMut<'_, A>, &[usize]),
        slots: StoredMut<'s, A>,
    ) -> Self {
        let param = Param::of(param, shape, Order::C, true);
        let chosen = Some(Chosen { rows, first: 0, width: width(shape) });
        Self { shared, param, start: 0, slots, followers: Vec::new(), chosen }
    }

    /// Two parts, each of half of the rows.
    pub(super) fn halve_rows(self) -> (Self, Self) {
        let chosen = self.chosen.unwrap_or(Chosen { rows: &[], first: 0, width: 0 });
        let (left_rows, right_rows) = chosen.rows.split_at(chosen.rows.len() / 2);
        let middle = right_rows.first().map_or(0, |row| row - chosen.first);
        let (param, rest) = self.param.split_rows(middle, chosen.width);
        let (slots, rest_slots) = self.slots.split_at(middle * chosen.width);
        let part = |param, start, slots, chosen| Self {
            shared: self.shared,
            param,
            start,
            slots,
            followers: Vec::new(),
            chosen: Some(chosen),
        };
        let right_start = self.start + left_rows.len() * chosen.width;
        let right = Chosen { rows: right_rows, first: chosen.first + middle, ..chosen };
        (
            part(param, self.start, slots, Chosen { rows: left_rows, ..chosen }),
            part(rest, right_start, rest_slots, right),
        )
    }

    /// Applies the rule to the rows, of which those that lie one after the other are a part of their own.
    pub(super) fn run_rows<R: Rule<A, Coefficients = C>>(self, rule: &R, arch: Arch) {
        let Self { shared, mut param, mut start, mut slots, chosen, .. } = self;
        let Some(Chosen { rows, first, width }) = chosen else { return };
        // All contiguous: runs of rows are ranges of slices, at least row by row.
        if let (Param::Slice(param), true) = (&mut param, shared.grad.piece(start, width).is_some()) {
            for rows in rows.chunks((AHEAD / width.max(1)).max(1)) {
                let places = rows.iter().enumerate().map(|(at, row)| (start + at * width, (row - first) * width));
                fetch(&shared, param, &slots, places, width);
                let mut at = 0;
                while let Some(row) = rows.get(at) {
                    let run = rows[at..].iter().zip(*row..).take_while(|(row, next)| *row == next).count();
                    let own = start + at * width;
                    // Where the first row is a piece, every row is.
                    let whole = shared.grad.piece(own, run * width).map(|grad| (run, grad));
                    let Some((run, grad)) = whole.or_else(|| Some((1, shared.grad.piece(own, width)?))) else { break };
                    let from = (row - first) * width;
                    let slots = slots.range(from, grad.len());
                    shared.sweep(rule, arch, own, &mut param[from..from + grad.len()], grad, slots);
                    at += run;
                }
                start += rows.len() * width;
            }
            return;
        }
        let mut next = first;
        for (at, run) in runs(rows) {
            let (skipped, length) = (run[0] - next, run.len());
            let (own, rest) = param.split_rows(skipped, width).1.split_rows(length, width);
            let (own_slots, rest_slots) = slots.split_at(skipped * width).1.split_at(length * width);
            (param, slots, next) = (rest, rest_slots, run[0] + length);
            let (start, followers) = (start + at * width, Vec::new());
            Part { shared, param: own, start, slots: own_slots, followers, chosen: None }.run(rule, arch);
        }
    }
}

/// Elements whose memory is asked for at once.
const AHEAD: usize = 2048;

/// Reads something of every cache line of these rows, which begin at such places of the gradient and of the others. Rows are far apart in memory: one after
/// the other they would each be waited for.
fn fetch<A: Scalar, C>(
    shared: &Shared<'_, A, C>,
    param: &[A],
    slots: &StoredMut<'_, A>,
    places: impl Iterator<Item = (usize, usize)> + Clone,
    width: usize,
) {
    const LINE: usize = 64;
    // A sum for each row: an addition need not wait for that of the row before.
    let lines =
        |row: &[A]| row.iter().step_by(LINE / size_of::<A>()).chain(row.last()).fold(A::zero(), |sum, x| sum + *x);
    let mut sum = A::zero();
    for (own, _) in places.clone() {
        sum += lines(shared.grad.piece(own, width).unwrap_or_default());
    }
    let slots = match slots {
        StoredMut::Full(slots) => &slots[..],
        _ => &[],
    };
    for values in [param].into_iter().chain(slots.iter().map(|slot| &**slot)).filter(|values| !values.is_empty()) {
        for (_, place) in places.clone() {
            sum += lines(&values[place..place + width]);
        }
    }
    std::hint::black_box(sum);
}

impl<A: Scalar> State<A> {
    /// Lets every row lie in one piece.
    pub(super) fn by_rows(&mut self, info: &TensorInfo) {
        if self.order == Order::F && self.steps > 1 {
            self.slots.by_rows(info.shape());
        }
        self.order = Order::C;
    }
}

impl<A: Scalar> Stored<A> {
    /// From column-major to row-major order. Slots in groups stay, as their groups would be others.
    fn by_rows(&mut self, shape: &[usize]) {
        fn each<T: Copy + Default>(slots: &mut [Aligned<T>; MAX_SLOTS], shape: &[usize]) {
            for slot in slots.iter_mut().filter(|slot| !slot.is_empty()) {
                *slot = Aligned::of(row_major(slot, Order::F, shape), slot.len());
            }
        }
        match self {
            Self::Full(slots) => each(slots, shape),
            Self::Bf16(slots, _) => each(slots, shape),
            Self::Blockwise8(_) | Self::Blockwise4(..) => {}
        }
    }

    /// Lets the slots of all rows but these start from such values.
    fn start(&mut self, values: &[A; MAX_SLOTS], shape: &[usize], rows: &[usize]) {
        let width = width(shape);
        let each = |slot: usize, value: A, start: usize, end: usize| (slot, value, start * width..end * width);
        let mut next = 0;
        let others = runs(rows).map(|(_, run)| (run[0], run.len())).chain([(shape[0], 0)]);
        let others = others.map(|(first, length)| {
            let others = next..first;
            next = first + length;
            others
        });
        for others in others.filter(|others| !others.is_empty()) {
            let all = values.iter().enumerate().filter(|(_, value)| **value != A::zero());
            for (slot, value, range) in all.map(|(slot, value)| each(slot, *value, others.start, others.end)) {
                match self {
                    Self::Full(slots) => slots[slot][range].fill(value),
                    Self::Bf16(slots, _) => slots[slot][range].fill(nearest_bf16(value)),
                    Self::Blockwise8(slots) => slots[slot].as_mut().range(range.start, range.len()).fill(value),
                    Self::Blockwise4(slots, _) => slots[slot].as_mut().range(range.start, range.len()).fill(value),
                }
            }
        }
    }
}

/// Returns an error unless the rows of every gradient of rows can be stepped without the others.
pub(super) fn ensure_rows<A: Scalar, R: Rule<A>>(
    rule: &R,
    step: &Step<'_, A>,
    (states, precision): (&PerTensor<State<A>>, StatePrecision),
    values: &Valued<R::Values>,
    (rates, options): (RatesAt, Options),
) -> Result<()> {
    let of_all = match rule.gradient_ratio(values.at(None)).is_some() || rule.measures().is_some() {
        true => Some(rule.name()),
        false => options.keep_norm.then_some("keep_norm"),
    };
    for (info, tensor) in step.iter() {
        if tensor.grad.as_ref().is_none_or(|grad| grad.rows().is_none()) {
            continue;
        }
        let has_norm = rule.tensor_norm(values.at(None), &At::default(), info.shape()).is_some();
        if let Some(name) = of_all.or(has_norm.then_some(rule.name())) {
            let instead = "it needs sums over all rows; pass a dense gradient";
            return Err(Error::Step(StepError::RowsUnusable { name, path: info.path().into(), instead }));
        }
        let pull = rates.of(options.decay(rule.decay()), tensor.learning_rate, tensor.weight_decay);
        let Pull { learning_rate, weight_decay, .. } = pull;
        let first = At { step: 1, learning_rate, weight_decay, ..At::default() };
        ensure_rows_of(rule, info, (states.at(tensor.index()), precision), values.for_tensor(&tensor.replaced), first)?;
    }
    Ok(())
}

/// [`ensure_rows`] for one tensor. `state` is the tensor's, and `precision` that of a new one; `first` is about the first step, if it has
/// taken none.
fn ensure_rows_of<A: Scalar, R: Rule<A>>(
    rule: &R,
    info: &TensorInfo,
    (state, precision): (Option<&State<A>>, StatePrecision),
    values: &R::Values,
    mut first: At,
) -> Result<()> {
    let refused = |name, instead| Err(Error::Step(StepError::RowsUnusable { name, path: info.path().into(), instead }));
    let state = state.filter(|state| state.steps > 0);
    let (precision, order) = match state {
        Some(state) => (state.slots.precision(), state.order),
        None => (precision.of(info.whole_elements()), Order::C),
    };
    let are_apart = order == Order::C && width(info.shape()).is_multiple_of(precision.group());
    let refusal = match precision {
        StatePrecision::Full | StatePrecision::Bf16(_) => None,
        StatePrecision::Blockwise8 => Some((
            "state in 8 bits",
            "rows must be multiples of 256 elements in row-major order, so that no two rows share a scale; use another \
             state precision",
        )),
        StatePrecision::Blockwise4(_) => Some((
            "state in 4 bits",
            "rows must be multiples of 128 elements in row-major order, so that no two rows share a scale; use another \
             state precision",
        )),
    };
    if let Some((name, instead)) = refusal.filter(|_| !are_apart && !rule.slots().is_empty()) {
        return refused(name, instead);
    }
    if state.is_some() {
        return Ok(());
    }
    let at = first;
    rule.remember(values, &at, &mut first.numbers[..rule.numbers().len()]);
    let (_, coefficients) = rule.coefficients(values, &first);
    match starts(rule, coefficients, A::zero()) == starts(rule, coefficients, A::one()) {
        true => Ok(()),
        false => refused(rule.name(), "its state starts from the parameters; pass a dense gradient"),
    }
}

/// What the slots of an element are after a first step with these coefficients, in which it has no gradient.
fn starts<A: Scalar, R: Rule<A>>(rule: &R, coefficients: R::Coefficients, param: A) -> [A; MAX_SLOTS] {
    let slot_count = rule.slots().len();
    let mut starts = [[A::zero()]; MAX_SLOTS];
    let mut slots = starts.each_mut().map(|slot| &mut slot[..]);
    slots.iter_mut().skip(slot_count).for_each(|slot| *slot = &mut []);
    let goal = Goal::Move { step_size: A::zero() };
    let (param, slots) = (&mut [param], StoredMut::Full(slots));
    let (arch, prelude, grad, seed, streams, measuring) = (Arch::Scalar, Prelude::none(), &[A::zero()], 0, false, None);
    rule.sweep(coefficients, Lanes { arch, prelude, grad, slot_count, goal, param, slots, seed, streams, measuring });
    starts.map(|[start]| start)
}

/// Makes a tensor's state, whose steps have been counted, ready for a step of these rows.
pub(super) fn start_rows<A: Scalar, R: Rule<A>>(
    rule: &R,
    state: &mut State<A>,
    (info, rows): (&TensorInfo, &[usize]),
    coefficients: R::Coefficients,
) {
    state.by_rows(info);
    if state.steps == 1 {
        state.slots.start(&starts(rule, coefficients, A::zero()), info.shape(), rows);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use crate::kernel::narrow::seed;
    use crate::prelude::*;
    use crate::rule::{Rounding, StatePrecision};

    /// In a step whose seeds go past a multiple of 2³⁰. With several threads, parts begin within the four groups that are rounded together.
    #[test]
    fn threads_do_not_change_what_is_rounded_at_random() {
        const WIDTH: usize = 128;
        const ROWS: usize = 1002;
        let elements = (WIDTH * ROWS) as u32;
        let passes = |step: &u64| (elements / 2..elements).contains(&((1 << 30) - seed(0, *step) % (1 << 30)));
        let step = (2..).find(passes).unwrap();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let few_bits = StatePrecision::Blockwise4(Rounding::Stochastic);
                let (mut opt, mut table) = (Adam::new(0.1).state_precision(few_bits), Array2::zeros((ROWS, WIDTH)));
                let values = Array2::from_shape_fn((ROWS, WIDTH), |(i, j)| (0.37 * (i * WIDTH + j) as f32).sin());
                let grads = Rows::new((0..ROWS).collect(), values);
                opt.step(&mut table, &grads).unwrap();
                opt.most_steps = step - 1;
                opt.state.all_mut().flatten().for_each(|state| state.steps = step - 1);
                opt.step(&mut table, &grads).unwrap();
                (table, opt.state_dict())
            })
        };
        let expected = run(1);
        assert!((2..5).all(|threads| run(threads) == expected));
    }
}
