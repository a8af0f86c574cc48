//! The sum of one tensor's gradients.

use std::borrow::Cow;
use std::mem::take;

use crate::error::Result;
use crate::params::{Element, Order, Owned, TensorInfo, Values};
use crate::state::data::Data;
use crate::state::{StateReader, StateWriter};
use crate::step::Grad;
use crate::step::grad::rows::{shape_of, union};
use crate::step::memo::{SourceId, new_ids};

/// The sum of one tensor's gradients: dense, in the order of the first, or of the rows that any of them has.
#[derive(Debug, Clone)]
pub(super) struct Sum<A> {
    dense: Owned<A>,
    /// The rows in increasing order, and their sums one after the other, while all gradients are of rows.
    rows: Option<(Vec<usize>, Vec<A>)>,
    /// Whether there has been a gradient since the last step.
    pub(super) begun: bool,
}

impl<A> Default for Sum<A> {
    fn default() -> Self {
        Self { dense: Owned::default(), rows: None, begun: false }
    }
}

impl<A: Element> Sum<A> {
    /// Adds a gradient to the sum.
    pub(super) fn add(&mut self, info: &TensorInfo, grad: &Grad<'_, A>) {
        if !self.begun {
            self.rows = grad.rows().map(|_| Default::default());
        }
        let begun = std::mem::replace(&mut self.begun, true);
        if let (Some((sum_rows, sums)), Some((rows, _))) = (&mut self.rows, grad.rows()) {
            (*sum_rows, *sums) = with_rows((sum_rows, sums), rows, grad, info);
            return;
        }
        let dense = self.dense.is_empty();
        if dense {
            self.dense = Owned::zeros(info.elements(), grad.order(), 0);
        }
        let (order, rows) = (self.dense.order(), take(&mut self.rows));
        let sums = self.dense.as_mut_slice();
        match &rows {
            Some(rows) => of_rows(info, rows, new_ids(1)).read(info.shape(), order, 0, sums),
            None if !begun => return grad.read(info.shape(), order, 0, sums),
            None => {}
        }
        grad.add_to(info.shape(), order, sums);
    }

    /// The sum and this gradient. The sum stands for itself under this number.
    pub(super) fn plus<'s>(&'s self, info: &TensorInfo, grad: Option<Grad<'s, A>>, id: SourceId) -> Grad<'s, A> {
        let Some(sums) = &self.rows else {
            let values = self.dense.as_values();
            return match grad {
                Some(grad) => grad.plus_known(values, id),
                None => Grad::of(values, id),
            };
        };
        let Some(grad) = grad else { return of_rows(info, sums, id) };
        if let Some((rows, _)) = grad.rows() {
            let (rows, sums) = with_rows((&sums.0, &sums.1), rows, &grad, info);
            return Grad::of_rows(info, Cow::Owned(rows), Grad::owned(sums, new_ids(1)));
        }
        let mut all = vec![A::zero(); info.elements()];
        of_rows(info, sums, id).read(info.shape(), Order::C, 0, &mut all);
        grad.add_to(info.shape(), Order::C, &mut all);
        Grad::owned(all, new_ids(1))
    }

    pub(super) fn write(&self, state: &mut StateWriter<'_>, info: &TensorInfo) {
        match &self.rows {
            None => self.dense.write(state, "sum", info),
            Some((rows, sums)) => {
                state.insert(ROWS, info.path(), &[rows.len()], Data::U64(rows.iter().map(|row| *row as u64).collect()));
                let own = TensorInfo::new(info.path(), &shape_of(info, rows.len()));
                state.tensor("sum", &own, sums.iter().copied());
            }
        }
    }

    /// Reads what [`write`](Self::write) wrote; without anything, the sum has not begun.
    pub(super) fn read(state: &StateReader<'_>, info: &TensorInfo) -> Result<Self> {
        let Some(rows) = state.rows(ROWS, info)? else {
            let dense = Owned::read(state, "sum", info)?;
            return Ok(Self { begun: dense.is_some(), dense: dense.unwrap_or_default(), rows: None });
        };
        let own = TensorInfo::new(info.path(), &shape_of(info, rows.len()));
        let sums = state.tensor("sum", &own)?.ok_or_else(|| state.missing("sum", info))?;
        Ok(Self { rows: Some((rows, sums)), begun: true, dense: Owned::default() })
    }
}

/// Where a state has the rows of a sum.
const ROWS: &str = "sum.rows";

/// Sums of rows as a gradient.
fn of_rows<'s, A: Element>(info: &TensorInfo, (rows, sums): &'s (Vec<usize>, Vec<A>), id: SourceId) -> Grad<'s, A> {
    Grad::of_rows(info, Cow::Borrowed(rows), Grad::of(Values::Contiguous(sums, Order::C), id))
}

/// Sums of rows and a gradient of these other rows, added up.
fn with_rows<A: Element>(
    (sum_rows, sums): (&[usize], &[A]),
    rows: &[usize],
    grad: &Grad<'_, A>,
    info: &TensorInfo,
) -> (Vec<usize>, Vec<A>) {
    let all = union(sum_rows, rows);
    let shape = shape_of(info, all.len());
    let width = shape[1..].iter().product::<usize>();
    let mut values = vec![A::zero(); all.len() * width];
    grad.within(&all).read(&shape, Order::C, 0, &mut values);
    for (at, row) in sum_rows.iter().enumerate() {
        let place = all.partition_point(|other| other < row);
        let sums = &sums[at * width..][..width];
        values[place * width..][..width].iter_mut().zip(sums).for_each(|(value, sum)| *value += *sum);
    }
    (all, values)
}
