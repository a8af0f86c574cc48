//! Checkpoints: parameters and optimizer state in a safetensors file.
//!
//! ```no_run
//! use gradus::{checkpoint::Checkpoint, prelude::*};
//! # use ndarray::{Array1, array};
//! # let (mut model, mut opt, epoch): (Array1<f32>, _, u32) = (array![1.0], Adam::new(1e-3), 3);
//!
//! Checkpoint::of(&model, &opt)?.note("epoch", epoch).save("run.safetensors")?;
//!
//! // Later, with the model and the optimizer built in the same way:
//! let saved = Checkpoint::open("run.safetensors")?;
//! saved.load(&mut model, &mut opt)?;
//! let epoch = saved.noted("epoch");
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! Training then continues bit for bit as if uninterrupted.
//!
//! # File format
//! [safetensors](https://github.com/huggingface/safetensors), of format version 1:
//!
//! | entry | contents |
//! |---|---|
//! | tensor `hidden.weight` | a parameter, by its path |
//! | tensor `optimizer/adam/exp_avg/hidden.weight` | a tensor of the [`StateDict`], by its key |
//! | metadata `format`, `version`, `checksum` | `gradus`, `1`, CRC-32 of everything except the next entry |
//! | metadata `gradus.version` | `1`, a second mark of the format |
//! | metadata `optimizer/adam/steps` | another entry of the state |
//! | metadata `layout` | the parameters' paths and shapes in their order, as JSON |
//! | metadata `note/epoch` | the value of a [`note`](Checkpoint::note) |
//!
//! Files of other programs are loaded in the same way, without a checksum. Tensors of integers or booleans, such as `num_batches_tracked`, are ignored; they
//! are an error only if the tree has a parameter of that name. Every other tensor needs a place in the tree. For `running_mean` and `running_var`, use
//! fields whose gradient is `None`. [`map_names`](Checkpoint::map_names) renames the tensors of such a file, [`cast`](Checkpoint::cast) converts them to
//! another element type, [`load_matching`](Checkpoint::load_matching) loads a part of them, and [`tensor`](Checkpoint::tensor) reads one:
//!
//! ```no_run
//! # use gradus::checkpoint::Checkpoint;
//! # let mut model = std::collections::BTreeMap::from([("layers.0.weight", ndarray::Array2::<f32>::zeros((2, 2)))]);
//! let file = Checkpoint::open("model.safetensors")?.map_names(|name| name.replace("model.", ""))?.cast::<f32>();
//! let report = file.load_matching(&mut model, "layers.**")?;
//! println!("missing: {:?}, left over: {:?}", report.missing, report.left_over);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! The only name that the format cannot store is `__metadata__`, which is an error of
//! [`to_bytes`](Checkpoint::to_bytes) and [`save`](Checkpoint::save).
//!
//! # Atomic saving
//! [`save`](Checkpoint::save) writes a temporary file in the same folder and renames it. If the process is killed, there is either the old file or the new
//! one, complete. A replaced file keeps its mode and, if permitted, its owner. The mode of a new file is set by the process's umask; for another mode, create
//! an empty file with that mode before the first `save`. A symbolic link is followed. Anything but a regular file is an error. Access control lists and hard
//! links are not kept.
//!
//! A process that is killed while writing leaves the temporary file, `.gradus-….tmp`. The next `save` to that folder removes it if no process holds its lock.
//! On the machine that wrote the file this happens at once (on Linux, until the next reboot), and elsewhere when the file is a day old.
//!
//! [`load`](Checkpoint::load) changes everything or nothing. A truncated, modified or malicious file is an error, and reading it needs no more memory than a
//! small multiple of its length.

mod bytes;
mod file;
mod format;
mod orphans;
mod part;
mod permissions;
pub mod torch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::adaptor::sam::ensure_settled;
use crate::error::{Error, FileError, Result, StateError, StepError};
use crate::params::{Element, Layout, Params, ParamsMut, ValuesMut, collect_mut, for_each};
use crate::state::data::Stored;
use crate::state::{StateDict, StateTensor, load};
use crate::step::Optimizer;

use bytes::Bytes;
pub(crate) use file::write_atomically;
pub use part::Loaded;
#[cfg(feature = "lora")]
pub(crate) use {file::at as at_file, format::write_plain as plain_bytes};

/// What the names of the optimizer's entries begin with.
const OPTIMIZER: &str = "optimizer/";

/// A copy of parameters, optimizer state and notes: see the [module](self).
#[must_use = "a checkpoint is in memory only until `save` is called"]
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    pub(crate) params: BTreeMap<String, StateTensor>,
    /// Tensors of another program's file that are no numbers of a parameter's type, such as counters and masks.
    others: BTreeMap<String, Bytes>,
    optimizer: Option<StateDict>,
    notes: BTreeMap<String, String>,
}

/// A tree's layout, and its values to be written.
type Checked<'p, A> = (Arc<Layout>, Vec<ValuesMut<'p, A>>);

impl Checkpoint {
    /// Copies parameters and the state of their optimizer.
    ///
    /// # Errors
    /// [`StepError::DuplicatePath`], also for a parameter whose path starts with `optimizer/`; [`StepError::AlreadyAscended`] between the two
    /// calls of a step with [`sam`](crate::OptimizerExt::sam).
    pub fn of<A: Element>(
        params: &(impl Params<Elem = A> + ?Sized),
        optimizer: &(impl Optimizer<A> + ?Sized),
    ) -> Result<Self> {
        ensure_settled(optimizer)?;
        Ok(Self { optimizer: Some(optimizer.state_dict()), ..Self::of_params(params)? })
    }

    /// Copies parameters without an optimizer: a model for inference.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub fn of_params(params: &(impl Params + ?Sized)) -> Result<Self> {
        let (mut found, mut twice) = (BTreeMap::new(), None);
        for_each(params, |path, shape, values| {
            let Some(values) = values else { return };
            let data = Stored::pack(values.view(shape).iter().copied().collect());
            let path = path.to_string();
            if path.starts_with(OPTIMIZER) || found.contains_key(&path) {
                twice.get_or_insert(path);
            } else {
                found.insert(path, StateTensor { shape: shape.into(), data });
            }
        });
        match twice {
            Some(path) => Err(Error::Step(StepError::DuplicatePath { path })),
            None => Ok(Self { params: found, ..Self::default() }),
        }
    }

    /// Adds a note, such as an epoch or the seed of a generator. A second note of the same name replaces the first.
    pub fn note(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.notes.insert(name.into(), value.to_string());
        self
    }

    /// The note of this name.
    pub fn noted(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// The optimizer's state, if it was saved.
    pub fn optimizer(&self) -> Option<&StateDict> {
        self.optimizer.as_ref()
    }

    /// Replaces the optimizer's state, for example by that which [`unshard`](crate::distributed::unshard) joins.
    pub fn with_optimizer(mut self, state: StateDict) -> Self {
        self.optimizer = Some(state);
        self
    }

    /// Loads parameters and optimizer state. On an error nothing changes. Tensors are matched by path, so the tree may have another order than the saved one.
    /// With another tensor order, rounding that depends on it (global norms, low-precision state) differs from the saved run.
    ///
    /// # Errors
    /// Those of [`load_params`](Self::load_params) and of
    /// [`Optimizer::load_state_dict`]; [`FileError::NoOptimizerState`] if no optimizer was saved, [`StepError::ParametersChanged`] if its state belongs to parameters
    /// of other shapes.
    pub fn load<A: Element>(
        &self,
        params: &mut (impl ParamsMut<Elem = A> + ?Sized),
        optimizer: &mut (impl Optimizer<A> + ?Sized),
    ) -> Result<()> {
        let (layout, values) = self.check_params(params)?;
        let state = self.optimizer.as_ref().ok_or(Error::File(FileError::NoOptimizerState))?;
        state.layout().map_or(Ok(()), |saved| saved.ensure_shapes_of(&layout))?;
        let state_layout = match state.layout() {
            Some(saved) if layout.has_tensors_of(saved) => Some(Arc::clone(&layout)),
            saved => saved.cloned(),
        };
        load(state, state_layout.as_ref(), optimizer.layout().cloned(), |reader| optimizer.read_state(reader))?;
        self.write_params(&layout, values);
        Ok(())
    }

    /// Loads only the parameters. On an error nothing changes. The tree must have the same paths, shapes and element type as the saved one. Tensors in the
    /// file that are not floating-point numbers of 16, 32 or 64 bits are ignored.
    ///
    /// # Errors
    /// [`StateError::MissingEntry`], [`StateError::UnexpectedEntry`], [`StateError::EntryShape`], [`StateError::EntryType`],
    /// [`StepError::DuplicatePath`].
    pub fn load_params<A: Element>(&self, params: &mut (impl ParamsMut<Elem = A> + ?Sized)) -> Result<()> {
        let (layout, values) = self.check_params(params)?;
        self.write_params(&layout, values);
        Ok(())
    }

    /// The layout and values of this tree, if its parameters are the saved ones. One walk: what is checked is what is written.
    fn check_params<'p, T: ParamsMut + ?Sized>(&self, params: &'p mut T) -> Result<Checked<'p, T::Elem>> {
        let (layout, values) = collect_mut(params, None, |_, values| values)?;
        for info in layout.tensors() {
            let unknown = self.names().filter(|path| layout.position(path).is_none());
            self.param(info.path(), T::Elem::DTYPE, unknown)?.ensure(info.path(), info.shape(), T::Elem::DTYPE)?;
        }
        match self.params.keys().find(|path| layout.position(path).is_none()) {
            Some(path) => Err(Error::State(StateError::UnexpectedEntry { key: path.clone(), into: "model" })),
            None => Ok((layout, values)),
        }
    }

    /// Writes what has been checked.
    fn write_params<A: Element>(&self, layout: &Layout, values: Vec<ValuesMut<'_, A>>) {
        for (info, values) in layout.tensors().iter().zip(values) {
            if let Some(saved) = self.params.get(info.path()) {
                saved.write_to(info, values);
            }
        }
    }

    /// Writes the file atomically: at every moment there is either the old file or the new one, complete.
    ///
    /// # Errors
    /// Those of [`to_bytes`](Self::to_bytes); [`FileError::Io`]. The old file is then unchanged, except if syncing the folder to the disk has failed.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path.as_ref(), &self.to_bytes()?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError::Io`] and those of [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(&file::read(path.as_ref())?)
    }
}
