//! Norms of gradients, parameters and updates, measured every n steps.

mod events;
mod lines;
mod record;
mod sinks;

use std::any::TypeId;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Accumulate, Adaptor, Project};
use crate::error::{Result, ensure_count};
use crate::params::{Element, Layout, Owned};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::moves::{MoveSums, Sweeps, comparing};
use crate::step::sight::{Sight, Used};
use crate::step::{Optimizer, PerTensor, Report, Step, TensorReport, norm};
use sinks::{Format, Sink};

pub use record::Record;

/// Every n steps, measures the norms of gradient, parameter and update of each tensor, and its learning rate. Created by
/// [`OptimizerExt::monitor`](crate::OptimizerExt::monitor).
///
/// It changes no step. The numbers are in the [`Report`](crate::Report::tensors) of the steps that it measures: those of the numbers 0, `every`,
/// 2 · `every`, …. They are also in [`latest`](Self::latest), and written to files if you name some.
///
/// # Files
/// | method | file |
/// |---|---|
/// | [`csv`](Self::csv) | a header, and one line per tensor |
/// | [`json_lines`](Self::json_lines) | one line of JSON per measured step; numbers that are not finite are `null` |
/// | [`tensorboard`](Self::tensorboard) | a folder with an event file of scalars, such as `grad_norm/hidden.weight` and `update_ratio/hidden.weight` |
///
/// They are opened by the first step, and records are appended to what is there. A resumed run thus continues its files; the steps that it takes a
/// second time are in them twice. Folders are created. If you pass the loss to [`step_with_loss`](crate::StepExt::step_with_loss), JSON and TensorBoard
/// have it too.
///
/// A step that has moved is never lost: if its record cannot be written, it is kept, and the step returns its report. The *next* step tries again
/// first, and returns the error, with nothing changed, if that fails too. Call [`finish`](Self::finish) after the last step.
///
/// # Order in the chain
/// The monitor sees what is before it in the chain. Write it last: its gradient is then your gradient, and the used gradient that after clipping.
///
/// Calls that move nothing are not measured: micro-batches before the last one, and skipped steps. With
/// [`accumulate`](crate::OptimizerExt::accumulate), the gradient is that of the call that completes the step, and the used one the mean.
///
/// With `data_parallel` and `sharded`, also write it last. On each rank, `grad_norm` is that of the rank's own gradient and `used_grad_norm` that of the
/// mean (`None` with `sharded`); the other norms are of the whole tensors, equal on all ranks. Give files to rank 0 alone. Written before `sharded`, it
/// measures the rank's share.
///
/// With [`sam`](crate::OptimizerExt::sam), write it before: outside, the parameters before the step may be the perturbed ones.
///
/// # Cost
/// A step that is not measured takes no longer. A measured step sums squares while the driver has the values in the cache. If the chain has something
/// that moves parameters after the driver, such as `lookahead`, `project`, `sharded` or an adaptor of your own, or a `route`, if the optimizer is not
/// element-wise, or for gradients of [`Rows`](crate::Rows), it copies the parameters first: then the monitor keeps one element per parameter. With
/// `accumulate`, each micro-batch before a measured step copies.
/// Measured on every step, AdamW takes 1.5 times as long on 2²² elements in `f32`, 1.4 times with clipping, and about twice as long on 2¹⁰:
/// `cargo bench --bench ratios -- monitor`.
///
/// # State
/// None is saved: a monitor can be added to a resumed run, or removed.
///
/// # Errors
/// [`ArgumentError::Zero`](crate::error::ArgumentError::Zero) if `every` is 0, and [`FileError::Io`](crate::error::FileError::Io) with the path.
///
/// # Example
/// ```
/// use gradus::{adaptor::Monitor, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(0.1).clip_global_norm(1.0).monitor(Monitor::every(2));
/// let mut w = (array![3.0, 4.0], array![1.0]);
/// for step in 0..4 {
///     let report = opt.step(&mut w, &(array![0.0, 5.0], array![0.0]))?;
///     assert_eq!(report.tensors().is_some(), step % 2 == 0);
///     for t in report.tensors().unwrap_or_default() {
///         println!("{} {:.1e} {:.1e} {:.1e}", t.path, t.grad_norm, t.param_norm, t.update_norm);
///     }
/// }
/// let latest = opt.latest().map(|record| (record.step, record.tensors[0].grad_norm, record.tensors[0].clipped));
/// assert_eq!(latest, Some((2, 5.0, true)));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// L. Bottou, F. Curtis and J. Nocedal, *Optimization Methods for Large-Scale Machine Learning* (2018). A. Karpathy, *makemore*, part 3, for the ratio of
/// update to parameter.
#[doc(alias("TensorBoard", "SummaryWriter", "watch", "logging", "grad norm"))]
#[must_use = "a monitor measures nothing until it is in a chain"]
pub struct Monitor<A> {
    every: u64,
    /// No step before this one is measured.
    next: u64,
    latest: Option<Record>,
    sums: Vec<MoveSums>,
    before: PerTensor<Owned<A>>,
    sinks: Mutex<Vec<Sink>>,
    /// Whether all files are open and nothing waits to be written.
    is_ready: bool,
}

impl<A> Monitor<A> {
    /// Measures the steps of the numbers 0, `every`, 2 · `every`, ….
    pub const fn every(every: u64) -> Self {
        Self {
            every,
            next: 0,
            latest: None,
            sums: Vec::new(),
            before: PerTensor::new(),
            sinks: Mutex::new(Vec::new()),
            is_ready: false,
        }
    }

    /// Appends one line per tensor to a CSV file, with the columns `step`, `tensor`, `grad_norm`, `used_grad_norm`, `clipped`, `param_norm`,
    /// `update_norm`, `ratio` and `learning_rate`.
    pub fn csv(self, path: impl Into<PathBuf>) -> Self {
        self.sink(Format::Csv, path.into())
    }

    /// Appends one line of JSON per measured step to a file.
    #[doc(alias("jsonl", "ndjson"))]
    pub fn json_lines(self, path: impl Into<PathBuf>) -> Self {
        self.sink(Format::JsonLines, path.into())
    }

    /// Writes an event file for TensorBoard into a folder: `tensorboard --logdir FOLDER` shows it.
    pub fn tensorboard(self, folder: impl Into<PathBuf>) -> Self {
        self.sink(Format::Events, folder.into())
    }

    fn sink(mut self, format: Format, path: PathBuf) -> Self {
        self.sinks.get_mut().unwrap_or_else(PoisonError::into_inner).push(Sink::new(format, path));
        self
    }

    /// The last measured step.
    pub fn latest(&self) -> Option<&Record> {
        self.latest.as_ref()
    }

    /// Writes what could not be written yet.
    ///
    /// # Errors
    /// [`FileError::Io`](crate::error::FileError::Io) with the path. The records are still kept.
    pub fn finish(&self) -> Result<()> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().try_for_each(Sink::ready)
    }

    /// Returns an error if the settings are wrong or the files cannot be written.
    fn ready(&self) -> Result<()> {
        ensure_count("every", self.every)?;
        self.finish_if_needed()
    }

    fn finish_if_needed(&self) -> Result<()> {
        if self.is_ready { Ok(()) } else { self.finish() }
    }

    /// Keeps and writes a record. An error is that of the next step.
    fn keep(&mut self, record: Record) {
        let sinks = self.sinks.get_mut().unwrap_or_else(PoisonError::into_inner);
        sinks.iter_mut().for_each(|sink| sink.write(&record));
        self.is_ready = sinks.iter().all(Sink::is_ready);
        self.latest = Some(record);
    }
}

impl<A: Element> Monitor<A> {
    /// Takes a step and measures it.
    fn measure(&mut self, mut step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let (number, loss, is_swept) = (inner.steps(), step.loss(), is_swept(&step, inner));
        let sight = Sight::of(&step, is_swept, step.sight());
        self.sums.clear();
        let mut lent;
        if is_swept {
            self.sums.extend(step.iter().flat_map(|(info, _)| MoveSums::unknown(info.elements())));
            lent = step.lend(true);
            let mut rest = &mut self.sums[..];
            for (info, tensor) in lent.iter_mut() {
                let (own, later) = rest.split_at_mut(MoveSums::blocks(info.elements()));
                tensor.followers.push(comparing(own));
                rest = later;
            }
        } else {
            self.copy(&mut step);
            lent = step.lend(true);
        }
        lent.set_sight(Some(&sight));
        let mut report = inner.apply(lent)?;
        if !report.moved {
            return Ok(report);
        }
        self.next = number.saturating_add(self.every);
        let mut seen = sight.take();
        let (mut rest, mut tensors) = (&self.sums[..], Vec::with_capacity(step.len()));
        for (info, tensor) in step.iter() {
            let seen = seen.get_mut(tensor.index()).and_then(Option::take);
            let [param_norm, update_norm, swept_norm] = match is_swept {
                true => {
                    let (own, later) = rest.split_at(MoveSums::blocks(info.elements()));
                    rest = later;
                    if seen.is_none() {
                        continue;
                    }
                    MoveSums::norms_of(own)
                }
                false => {
                    let Some(before) = self.before.at(tensor.index()) else { continue };
                    let [param, change] = MoveSums::compare(info.shape(), &before.as_values(), &tensor.param());
                    [param, change, f64::NAN]
                }
            };
            if seen.is_none() && update_norm == 0.0 {
                continue;
            }
            let given = || tensor.grad.as_ref().map_or(0.0, |grad| norm::norm(&[(info, grad)], 2.0));
            let factor = seen.as_ref().and_then(|seen| seen.factor).map(f64::abs);
            let (grad_norm, used_grad_norm) = match seen.as_ref().map(|seen| seen.used) {
                Some(Used::OfSwept(scale)) => {
                    let used = scale * swept_norm;
                    (factor.map_or_else(given, |factor| used / factor), Some(used))
                }
                Some(Used::OfGiven) => {
                    let given = given();
                    (given, factor.map(|factor| factor * given))
                }
                Some(Used::Norm(used)) => (given(), Some(used)),
                Some(Used::Part) | None => (given(), None),
            };
            tensors.push(TensorReport {
                path: info.path().to_owned(),
                grad_norm,
                used_grad_norm,
                clipped: seen.as_ref().is_some_and(|seen| seen.clipped),
                param_norm,
                update_norm,
                learning_rate: seen.map(|seen| seen.learning_rate),
            });
        }
        let tensors: Arc<[TensorReport]> = tensors.into();
        report.tensors = Some(Arc::clone(&tensors));
        self.keep(Record { step: number, learning_rate: report.learning_rate, loss, tensors });
        Ok(report)
    }

    /// Copies the parameters.
    fn copy(&mut self, step: &mut Step<'_, A>) {
        if self.before.ensure_known(step).is_err() {
            self.before = PerTensor::new();
        }
        let _ = self.before.begin(step, |info, tensor| Owned::copy(&tensor.param(), info.shape()));
        self.before.each(step, |info, tensor, before| {
            let shape = info.shape();
            before.as_values_mut().view_mut(shape).assign(&tensor.param().view(shape));
        });
    }
}

/// Whether every move of this step is a sweep of whole tensors.
fn is_swept<A: Element>(step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> bool {
    let has = |of: TypeId| inner.part(of).is_some();
    has(TypeId::of::<Sweeps>())
        && !has(TypeId::of::<Project<A>>())
        && step.iter().all(|(_, tensor)| tensor.projections.is_empty())
        && step.grads().all(|(_, grad)| grad.rows().is_none())
        // Without a gradient now, what has been accumulated may be of rows.
        && (!has(TypeId::of::<Accumulate<A>>()) || step.grads().count() == step.len())
}

impl<A: Element> Adaptor<A> for Monitor<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        ensure_count("every", self.every)?;
        if !step.is_noted() {
            self.finish_if_needed()?; // a description writes no files
        }
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let number = inner.steps();
        if number < self.next && self.is_ready {
            return inner.apply(step);
        }
        self.ready()?;
        self.is_ready = true;
        if number < self.next {
            return inner.apply(step);
        }
        if !number.is_multiple_of(self.every) {
            self.next = number.checked_next_multiple_of(self.every).unwrap_or(u64::MAX);
            return inner.apply(step);
        }
        self.measure(step, inner)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::new(move || self.next = 0))
    }
}

impl<A> Clone for Monitor<A> {
    /// A monitor with the same settings and files, which has not measured anything.
    fn clone(&self) -> Self {
        let sinks: Vec<_> = self.sinks.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Sink::again).collect();
        Self { sinks: Mutex::new(sinks), ..Self::every(self.every) }
    }
}

impl<A> fmt::Debug for Monitor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "monitor(every {}", self.every)?;
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.iter().try_for_each(|sink| write!(f, ", {}", sink.path().display()))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
