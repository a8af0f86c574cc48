//! A state whose parameter has got other rows.

use std::cell::RefCell;

use super::data::Data;
use crate::error::{Error, Result, StateError};
use crate::params::TensorInfo;

/// Which rows a parameter had, and has now. A [`StateWriter`](super::StateWriter) that knows it writes the state for the new rows.
#[derive(Debug)]
pub(crate) struct Resized {
    pub(crate) path: String,
    /// The shape before and now.
    pub(crate) before: Box<[usize]>,
    pub(crate) now: Box<[usize]>,
    /// For each row now, the row that it was before, or `None` for a new row.
    pub(crate) rows: Vec<Option<usize>>,
    /// The parameter's elements now, row by row.
    pub(crate) values: Vec<f64>,
    /// The first entry that cannot follow, and what to do instead.
    refused: RefCell<Option<(String, &'static str)>>,
}

/// For matrices and means that belong to several rows.
const BY_ELEMENTS: &str = "`route` the parameter to an element-wise optimizer";

/// For codes of 8 and 4 bits, which share scales.
const WIDER: &str = "use a state precision of 16 bits or more";

/// For sums of some rows, which a step resets.
const AFTER_A_STEP: &str = "resize after a step, and not between the calls of `accumulate`";

impl Resized {
    /// Other rows of the parameter `before`.
    pub(crate) fn new(before: &TensorInfo, now: &[usize], rows: Vec<Option<usize>>, values: Vec<f64>) -> Self {
        let (path, before) = (before.path().to_owned(), before.shape().into());
        Self { path, before, now: now.into(), rows, values, refused: RefCell::default() }
    }

    /// An entry's values for the new rows: those of the rows that stay, and for each element of a new row `fresh` of the parameter's.
    pub(super) fn take<T: Copy>(&self, values: &[T], fresh: impl Fn(f64) -> T) -> Vec<T> {
        let width: usize = self.now.iter().skip(1).product();
        let mut taken = Vec::with_capacity(self.values.len());
        for (now, before) in self.rows.iter().enumerate() {
            let range = |row: usize| row * width..(row + 1) * width;
            match before.and_then(|before| values.get(range(before))) {
                Some(values) => taken.extend_from_slice(values),
                None => taken.extend(self.values.get(range(now)).unwrap_or_default().iter().map(|value| fresh(*value))),
            }
        }
        taken
    }

    /// Notes that an entry cannot follow.
    pub(super) fn refuse(&self, key: String, data: &Data) {
        let instead = match data {
            Data::U8(_) => WIDER,
            Data::U64(_) => AFTER_A_STEP,
            _ => BY_ELEMENTS,
        };
        self.refuse_for(key, instead);
    }

    pub(super) fn refuse_for(&self, key: String, instead: &'static str) {
        self.refused.borrow_mut().get_or_insert((key, instead));
    }

    /// Returns an error if an entry could not follow.
    pub(crate) fn ensure_followed(&self) -> Result<()> {
        match self.refused.take() {
            Some((key, instead)) => Err(Error::State(StateError::NotResizable { key, instead })),
            None => Ok(()),
        }
    }
}
