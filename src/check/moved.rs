//! One element of a tree, somewhere else for a while.

use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::panicking;

use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout, ParamsMut, TensorInfo};

/// Where an element is.
pub(super) struct Place<'a> {
    pub(super) info: &'a TensorInfo,
    /// The tensor's position in the layout.
    pub(super) tensor: usize,
    pub(super) index: Vec<usize>,
}

/// A tree of which one element is moved. It is put back when this is dropped, also by a panic.
///
/// Every move is a walk of the user's own code, which may show other tensors than before: an element is only written where
/// the whole walk is the known one, and where it holds what was last put there.
pub(super) struct Moved<'m, P: ParamsMut + ?Sized> {
    params: &'m mut P,
    layout: &'m Arc<Layout>,
    place: &'m Place<'m>,
    home: P::Elem,
    /// Where the element is.
    now: P::Elem,
}

impl<'m, P: ParamsMut + ?Sized> Moved<'m, P> {
    /// The tree with its element still at home.
    pub(super) fn new(params: &'m mut P, layout: &'m Arc<Layout>, place: &'m Place<'m>) -> Result<Self> {
        let mut home = None;
        at(params, layout, place, |element| home = Some(*element));
        match home {
            Some(home) => Ok(Self { params, layout, place, home, now: home }),
            None => Err(another_walk(place)),
        }
    }

    pub(super) fn home(&self) -> P::Elem {
        self.home
    }

    pub(super) fn to(&mut self, value: P::Elem) -> Result<&P> {
        self.put(value).map(|()| &*self.params)
    }

    /// Puts the element back, which an error says was not possible.
    pub(super) fn back(mut self) -> Result<()> {
        self.put(self.home)
    }

    fn put(&mut self, value: P::Elem) -> Result<()> {
        let now = &mut self.now;
        let mut put = false;
        at(self.params, self.layout, self.place, |element| {
            put = same(*element, *now);
            if put {
                (*element, *now) = (value, value);
            }
        });
        if put { Ok(()) } else { Err(another_walk(self.place)) }
    }
}

impl<P: ParamsMut + ?Sized> Drop for Moved<'_, P> {
    fn drop(&mut self) {
        if same(self.now, self.home) {
            return;
        }
        let home = self.home;
        if !panicking() {
            _ = self.put(home); // an error has been returned, or `back` returns it
        } else if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.put(home))) {
            forget(panic); // a second panic would end the process, and so may what it carries
        }
    }
}

/// Whether these are the same number, bit for bit.
fn same<A: Element>(a: A, b: A) -> bool {
    let [a, b] = [a, b].map(A::as_f64);
    a.to_bits() == b.to_bits()
}

fn another_walk(place: &Place<'_>) -> Error {
    Error::Step(StepError::ParametersChanged { expected: place.info.to_string(), found: "another walk".into() })
}

/// Shows the element to `f`, if the walk is that of the layout. No path is built.
fn at<P: ParamsMut + ?Sized>(params: &mut P, layout: &Arc<Layout>, place: &Place<'_>, f: impl FnOnce(&mut P::Elem)) {
    let Ok(mut tensors) = layout.values_mut(params) else { return };
    let Some(values) = tensors.get_mut(place.tensor) else { return };
    if let Some(element) = values.view_mut(place.info.shape()).get_mut(&*place.index) {
        f(element);
    }
}
