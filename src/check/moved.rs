//! One element of a tree, somewhere else for a while.

use super::Place;
use crate::error::{Error, Result};
use crate::params::{ParamsMut, for_each_mut};

/// A tree of which one element is moved. It is put back when this is dropped, also by a panic.
pub(super) struct Moved<'m, P: ParamsMut + ?Sized> {
    params: &'m mut P,
    place: &'m Place<'m>,
    home: P::Elem,
}

impl<'m, P: ParamsMut + ?Sized> Moved<'m, P> {
    /// The tree with its element still at home.
    pub(super) fn new(params: &'m mut P, place: &'m Place<'m>) -> Result<Self> {
        let mut home = None;
        at(params, place, |element| home = Some(*element));
        match home {
            Some(home) => Ok(Self { params, place, home }),
            None => Err(Error::ParametersChanged {
                expected: format!("\"{}\" of shape {:?}", place.info.path(), place.info.shape()),
                found: "another walk".into(),
            }),
        }
    }

    pub(super) fn home(&self) -> P::Elem {
        self.home
    }

    pub(super) fn to(&mut self, value: P::Elem) -> &P {
        at(self.params, self.place, |element| *element = value);
        self.params
    }
}

impl<P: ParamsMut + ?Sized> Drop for Moved<'_, P> {
    fn drop(&mut self) {
        let home = self.home;
        at(self.params, self.place, |element| *element = home);
    }
}

/// Shows the element to `f`. No path is built.
fn at<P: ParamsMut + ?Sized>(params: &mut P, place: &Place<'_>, mut f: impl FnMut(&mut P::Elem)) {
    let mut tensor = 0;
    for_each_mut(params, |_, shape, values| {
        let Some(mut values) = values else { return };
        if tensor == place.tensor
            && shape == place.info.shape()
            && let Some(element) = values.view_mut(shape).get_mut(&*place.index)
        {
            f(element);
        }
        tensor += 1;
    });
}
