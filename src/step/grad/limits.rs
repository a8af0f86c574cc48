//! The limits of a gradient's elements.

use super::{Grad, Source};
use crate::params::Element;

impl<A: Element> Grad<'_, A> {
    /// The gradient before its limit, or one inside of it, is applied, and that limit, if there is one.
    pub(crate) fn unlimited(&self) -> Option<(Grad<'_, A>, f64)> {
        if self.limit.is_finite() {
            return Some((Grad { limit: f64::INFINITY, ..self.reborrow() }, self.limit));
        }
        match &self.source {
            Source::Sum(grad, ..) | Source::Units(grad, _) => grad.unlimited(),
            Source::Rows(touched) => touched.grad.unlimited(),
            _ => None,
        }
    }
}
