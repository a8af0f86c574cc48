//! Gradients of rows on several ranks: the ranks exchange the union of their rows.

use std::sync::Arc;

use super::group::{RankGroup, gather};
use super::packed::Place;
use crate::error::{Error, RankError, Result};
use crate::params::{Element, Layout, TensorInfo};
use crate::step::Step;
use crate::step::grad::rows::{shape_of, union};

/// What the ranks exchange of each tensor: all of it, or the rows that one of them has a gradient for.
#[derive(Debug)]
pub(super) struct Exchange {
    layout: Arc<Layout>,
    rows: Vec<Option<Vec<usize>>>,
}

/// Whether a step has gradients of rows.
pub(super) fn has_rows<A: Element>(step: &Step<'_, A>) -> bool {
    !step.is_as_paired() && step.grads().any(|(_, grad)| grad.rows().is_some())
}

impl Exchange {
    /// Whole tensors.
    pub(super) fn whole(layout: &Arc<Layout>) -> Self {
        Self { layout: Arc::clone(layout), rows: Vec::new() }
    }

    /// The union of all ranks' rows. Every rank must call it with the same tensors.
    pub(super) fn of<A: Element>(group: &impl RankGroup, step: &Step<'_, A>) -> Result<Self> {
        let (mut own, mut infos) = (Vec::new(), step.layout().tensors().to_vec());
        let mut rows: Vec<Option<Vec<usize>>> = vec![None; infos.len()];
        for (_, tensor) in step.iter() {
            let Some((touched, _)) = tensor.grad.as_ref().and_then(|grad| grad.rows()) else { continue };
            let numbers = [touched.len()].into_iter().chain(touched.iter().copied());
            own.extend(numbers.flat_map(|number| (number as u64).to_le_bytes()));
            rows[tensor.index()] = Some(Vec::new());
        }
        for message in gather(group, &own)? {
            let (words, _) = message.as_chunks();
            let mut words = words.iter().map(|word| u64::from_le_bytes(*word) as usize);
            for (info, rows) in infos.iter().zip(&mut rows) {
                let Some(rows) = rows else { continue };
                let count = words.next().ok_or_else(cut_off)?;
                let other: Vec<usize> = words.by_ref().take(count).collect();
                let is_valid = other.is_sorted_by(|left, right| left < right) && other.last() < info.shape().first();
                if other.len() != count || !is_valid {
                    return Err(cut_off());
                }
                *rows = union(rows, &other);
            }
        }
        for (info, rows) in infos.iter_mut().zip(&rows) {
            if let Some(rows) = rows {
                *info = TensorInfo::new(info.path(), &shape_of(info, rows.len()));
            }
        }
        Ok(Self { layout: Arc::new(Layout::of_distinct(infos)), rows })
    }

    /// Where the gradients of a step lie when they are packed.
    pub(super) fn places<A: Element>(&self, step: &Step<'_, A>) -> Vec<Place<'_>> {
        let with_grad = step.iter().filter(|(_, tensor)| tensor.grad.is_some()).map(|(_, tensor)| tensor.index());
        let places = Place::of(&self.layout, with_grad).into_iter();
        places.map(|place| place.of_rows(self.rows.get(place.index()).and_then(Option::as_deref))).collect()
    }
}

fn cut_off() -> Error {
    let reason = "a list of rows is cut off".into();
    Error::Ranks(RankError::Transport { operation: "all_gather_bytes", reason })
}
