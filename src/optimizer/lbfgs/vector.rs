//! All tensors as one vector: into it, out of it, and what is computed with it.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::params::{Layout, Order, ParamsMut, Scalar, TensorInfo, ValuesMut, for_each_mut};
use crate::step::Step;

/// Where each tensor stands in the vector.
pub(super) struct Places {
    layout: Arc<Layout>,
    /// By position in the layout; none for a tensor that is not part of the vector.
    parts: Vec<Option<Range<usize>>>,
}

impl Places {
    pub(super) fn new(layout: &Arc<Layout>, active: &[bool]) -> Self {
        let mut end = 0;
        let part = |(info, active): (&TensorInfo, &bool)| {
            active.then(|| {
                let start = end;
                end += info.elements();
                start..end
            })
        };
        let parts = layout.tensors().iter().zip(active).map(part).collect();
        Self { layout: Arc::clone(layout), parts }
    }

    /// The elements of the parameters.
    pub(super) fn read<A: Scalar, P: ParamsMut<Elem = A>>(&self, params: &mut P) -> Result<Vec<A>> {
        let mut flat = Vec::new();
        self.each(params, |_, shape, mut values| flat.extend(values.view_mut(shape).iter().copied()))?;
        Ok(flat)
    }

    /// Sets the elements of the parameters.
    ///
    /// # Errors
    /// [`ParametersChanged`](crate::error::StepError::ParametersChanged) if they are not the tensors that they were; then none is set.
    pub(super) fn write<A: Scalar, P: ParamsMut<Elem = A>>(&self, params: &mut P, flat: &[A]) -> Result<()> {
        self.each(params, |part, shape, values| set(values, shape, &flat[part]))
    }

    fn each<A: Scalar, P: ParamsMut<Elem = A>>(
        &self,
        params: &mut P,
        mut visit: impl FnMut(Range<usize>, &[usize], ValuesMut<'_, A>),
    ) -> Result<()> {
        let tensors = self.layout.tensors().iter().zip(self.layout.values_mut(params)?);
        for ((info, values), part) in tensors.zip(&self.parts) {
            if let Some(part) = part {
                visit(part.clone(), info.shape(), values);
            }
        }
        Ok(())
    }

    /// [`write`](Self::write) after an error, when the tree may show its tensors in another way than it did: each by its path or, if
    /// that is gone, wherever a tensor that was not there holds what was last `written` to it.
    pub(super) fn restore<A: Scalar, P: ParamsMut<Elem = A>>(&self, params: &mut P, flat: &[A], written: &[A]) {
        if self.write(params, flat).is_ok() {
            return;
        }
        let mut shown: Vec<(String, Vec<A>)> = Vec::new();
        for_each_mut(params, |path, shape, values| {
            if let Some(mut values) = values {
                shown.push((path.to_string(), values.view_mut(shape).iter().copied().collect()));
            }
        });
        let gone = |(info, _): &(&TensorInfo, &Range<usize>)| {
            !shown.iter().any(|(path, values)| path == info.path() && values.len() == info.elements())
        };
        let own = self.layout.tensors().iter().zip(&self.parts).filter_map(|(info, part)| Some((info, part.as_ref()?)));
        let mut gone: Vec<&Range<usize>> = own.filter(gone).map(|(_, part)| part).collect();
        let strangers = shown.iter().filter(|(path, _)| self.layout.position(path).is_none());
        let stands_for = |(path, values): &(String, Vec<A>)| {
            let at = gone.iter().position(|part| same_bits(values, &written[Range::clone(part)]))?;
            Some((path.clone(), gone.remove(at).clone()))
        };
        let strangers: Vec<(String, Range<usize>)> = strangers.filter_map(stands_for).collect();
        for_each_mut(params, |path, shape, values| {
            let Some(values) = values else { return };
            let known = self.layout.tensors().iter().position(|info| path.is(info.path()));
            let part = match known {
                Some(at) => self.parts[at].as_ref(),
                None => strangers.iter().find(|(other, _)| path.is(other)).map(|(_, part)| part),
            };
            if let Some(part) = part.filter(|part| part.len() == shape.iter().product::<usize>()) {
                set(values, shape, &flat[part.clone()]);
            }
        });
    }
}

fn same_bits<A: Scalar>(a: &[A], b: &[A]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_f64().to_bits() == b.as_f64().to_bits())
}

/// The parameters before a descent and as it has last written them.
pub(super) struct Undo<A> {
    places: Places,
    start: Vec<A>,
    written: Vec<A>,
}

impl<A: Scalar> Undo<A> {
    pub(super) fn new(places: Places, start: &[A]) -> Self {
        Self { places, start: start.to_vec(), written: start.to_vec() }
    }

    /// Sets the elements of the parameters: see [`Places::write`].
    pub(super) fn write<P: ParamsMut<Elem = A>>(&mut self, params: &mut P, flat: &[A]) -> Result<()> {
        self.places.write(params, flat)?;
        self.written.copy_from_slice(flat);
        Ok(())
    }

    /// Takes back what was written.
    pub(super) fn undo<P: ParamsMut<Elem = A>>(&self, params: &mut P) {
        self.places.restore(params, &self.start, &self.written);
    }
}

fn set<A: Scalar>(mut values: ValuesMut<'_, A>, shape: &[usize], flat: &[A]) {
    values.view_mut(shape).iter_mut().zip(flat).for_each(|(to, from)| *to = *from);
}

/// Which tensors have a gradient, and these gradients one after the other.
pub(super) fn flat_grads<A: Scalar>(step: &Step<'_, A>) -> (Vec<bool>, Vec<A>) {
    let (mut active, mut flat) = (vec![false; step.layout().len()], Vec::new());
    for (info, tensor) in step.iter() {
        let Some(grad) = &tensor.grad else { continue };
        active[tensor.index()] = true;
        let start = flat.len();
        flat.resize(start + info.elements(), A::zero());
        grad.read(info.shape(), Order::C, 0, &mut flat[start..]);
    }
    (active, flat)
}

/// The parameters of the tensors that have a gradient, one after the other.
pub(super) fn flat_params<A: Scalar>(step: &Step<'_, A>) -> Vec<A> {
    let mut flat = Vec::new();
    for (info, tensor) in step.iter().filter(|(_, tensor)| tensor.grad.is_some()) {
        flat.extend(tensor.param().view(info.shape()).iter().copied());
    }
    flat
}

pub(super) fn dot<A: Scalar>(a: &[A], b: &[A]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.as_f64() * b.as_f64()).sum()
}

/// What a factor makes of an element: in the element type or, where that has no digits for the factor, in `f64`.
pub(super) fn times<A: Scalar>(factor: f64) -> impl Fn(A) -> A + Copy {
    let own = A::from_f64(factor);
    move |x| if own.is_normal() || factor == 0.0 { own * x } else { A::from_f64(factor * x.as_f64()) }
}

pub(super) fn add<A: Scalar>(to: &mut [A], from: &[A], share: f64) {
    let share = times(share);
    to.iter_mut().zip(from).for_each(|(to, from)| *to += share(*from));
}

pub(super) fn scaled<A: Scalar>(vector: &[A], scale: f64) -> Vec<A> {
    vector.iter().copied().map(times(scale)).collect()
}

pub(super) fn moved<A: Scalar>(from: &[A], direction: &[A], length: f64) -> Vec<A> {
    let length = times(length);
    from.iter().zip(direction).map(|(x, d)| *x + length(*d)).collect()
}

pub(super) fn largest<A: Scalar>(vector: &[A]) -> f64 {
    vector.iter().fold(0.0, |largest: f64, x| largest.max(x.as_f64().abs()))
}

/// The sum of absolute values, or the largest number if that is smaller: one over it is not 0.
pub(super) fn sum_of_sizes<A: Scalar>(vector: &[A]) -> f64 {
    vector.iter().map(|x| x.as_f64().abs()).sum::<f64>().min(f64::MAX)
}
