//! The sets that a step's parameters are projected onto.

use std::fmt;
use std::sync::Arc;

use ndarray::Axis;

use super::set::{Scope, Set, limit};
use crate::params::{Element, ValuesMut};

/// The sets of one tensor: a parameter is projected onto them after it has moved, and before followers see it.
#[derive(Clone)]
pub(crate) struct Projections<'a, A> {
    /// The outermost first, as adaptors add them. The innermost is projected onto first. Mostly there are none, and every tensor has this field.
    sets: Option<Arc<Vec<&'a dyn Set<A>>>>,
}

impl<A> Default for Projections<'_, A> {
    fn default() -> Self {
        Self { sets: None }
    }
}

impl<'a, A: Element> Projections<'a, A> {
    pub(crate) fn push(&mut self, set: &'a dyn Set<A>) {
        Arc::make_mut(self.sets.get_or_insert_default()).push(set);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_none()
    }

    /// The sets, the innermost first.
    fn in_order(&self) -> impl Iterator<Item = &'a dyn Set<A>> {
        self.sets.iter().flat_map(|sets| sets.iter().rev()).copied()
    }

    /// The bounds of each element, if the sets are nothing else. The sweep applies them.
    pub(crate) fn bounds(&self) -> Option<[A; 2]> {
        let mut bounds = None;
        for set in self.in_order() {
            let Scope::Elements { lower, upper } = set.scope() else { return None };
            let own = [lower, upper].map(A::from_f64);
            bounds = Some(bounds.map_or(own, |inner: [A; 2]| inner.map(|bound| limit(bound, own))));
        }
        bounds
    }

    /// Whether the sets need the tensor after the sweep.
    pub(crate) fn come_later(&self) -> bool {
        !self.is_empty() && self.bounds().is_none()
    }

    /// Projects a parameter: all of it, or of the sets of elements and rows only these rows.
    pub(super) fn project(&self, param: &mut ValuesMut<'_, A>, shape: &[usize], rows: Option<&[usize]>) {
        if shape.contains(&0) {
            return;
        }
        for set in self.in_order() {
            match set.scope() {
                Scope::Elements { lower, upper } => {
                    let bounds = [lower, upper].map(A::from_f64);
                    match rows {
                        None => param.map(shape, |value| limit(value, bounds)),
                        Some(rows) => {
                            let mut all = param.view_mut(shape);
                            for row in rows {
                                all.index_axis_mut(Axis(0), *row).mapv_inplace(|value| limit(value, bounds));
                            }
                        }
                    }
                }
                Scope::Rows if shape.len() > 1 => {
                    let mut all = param.view_mut(shape);
                    match rows {
                        None => all.outer_iter_mut().for_each(|row| set.project(row)),
                        Some(rows) => rows.iter().for_each(|row| set.project(all.index_axis_mut(Axis(0), *row))),
                    }
                }
                Scope::Rows | Scope::Tensor => set.project(param.view_mut(shape)),
            }
        }
    }
}

impl<A> fmt::Debug for Projections<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Projections({})", self.sets.as_ref().map_or(0, |sets| sets.len()))
    }
}
