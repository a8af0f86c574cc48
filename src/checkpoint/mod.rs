//! Checkpoints: parameters and optimizer state in a file that others can read.
//!
//! ```no_run
//! use gradus::{checkpoint::Checkpoint, prelude::*};
//! # use ndarray::{Array1, array};
//! # let (mut model, mut opt, epoch): (Array1<f32>, _, u32) = (array![1.0], Adam::new(1e-3), 3);
//!
//! Checkpoint::of(&model, &opt)?.note("epoch", epoch).save("run.safetensors")?;
//!
//! // Later, with the model and the optimizer built as they were:
//! let saved = Checkpoint::open("run.safetensors")?;
//! saved.load(&mut model, &mut opt)?;
//! let epoch = saved.noted("epoch");
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! The training goes on bit for bit as if it had never stopped.
//!
//! # The file
//! [safetensors](https://github.com/huggingface/safetensors), of format version 1:
//!
//! | where | what |
//! |---|---|
//! | tensor `hidden.weight` | a parameter, by its path |
//! | tensor `optimizer/adam/exp_avg/hidden.weight` | a tensor of the [`StateDict`], by its key |
//! | metadata `format`, `version`, `checksum` | `gradus`, `1`, CRC-32 of everything else |
//! | metadata `optimizer/adam/steps` | another entry of the state |
//! | metadata `layout` | the parameters' paths and shapes in their order, as JSON |
//! | metadata `note/epoch` | what [`note`](Checkpoint::note) said |
//!
//! Parameters of other programs' files are loaded the same way; such a file has no checksum.
//!
//! # Safe
//! [`save`](Checkpoint::save) writes a file beside the old one and then takes its place: a process that is killed leaves
//! the old file or the new one, at worst with a remainder `.run.safetensors.….tmp` beside it. [`load`](Checkpoint::load)
//! changes everything or nothing. A truncated, mutated or hostile file is an error, and takes no more memory than it is
//! long.

mod file;
mod format;
pub mod torch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::params::{Layout, Params, ParamsMut, for_each, for_each_mut};
use crate::scalar::Element;
use crate::state::data::Stored;
use crate::state::{StateDict, StateTensor, load};

pub(crate) use file::write_atomically;
#[cfg(feature = "lora")]
pub(crate) use {file::at as at_file, format::write_plain as plain_bytes};

/// What the names of the optimizer's entries begin with.
const OPTIMIZER: &str = "optimizer/";

/// Parameters, optimizer state and notes, as they were at one moment: see the [module](self).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    pub(crate) params: BTreeMap<String, StateTensor>,
    optimizer: Option<StateDict>,
    notes: BTreeMap<String, String>,
}

impl Checkpoint {
    /// A copy of these parameters and of all that their optimizer remembers.
    ///
    /// # Errors
    /// [`Error::DuplicatePath`], also of a parameter whose path begins with `optimizer/`.
    pub fn of<A: Element>(
        params: &(impl Params<Elem = A> + ?Sized),
        optimizer: &(impl Optimizer<A> + ?Sized),
    ) -> Result<Self> {
        Ok(Self { optimizer: Some(optimizer.state_dict()), ..Self::of_params(params)? })
    }

    /// A copy of these parameters: a model to be used.
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
            Some(path) => Err(Error::DuplicatePath { path }),
            None => Ok(Self { params: found, ..Self::default() }),
        }
    }

    /// Adds something else to be remembered: an epoch, the seed of a generator. A second note of the same name replaces
    /// the first.
    pub fn note(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.notes.insert(name.into(), value.to_string());
        self
    }

    /// What was noted under this name.
    pub fn noted(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// The optimizer's state, if it was saved.
    pub fn optimizer(&self) -> Option<&StateDict> {
        self.optimizer.as_ref()
    }

    /// Puts parameters and state in their places: all or, on an error, nothing. The tree may have its tensors in another order
    /// than the one that was saved: they are known by their paths. What goes by the order of a tree, the rounding of a global norm and of
    /// state in fewer bits, then differs from the run that was saved.
    ///
    /// # Errors
    /// Those of [`load_params`](Self::load_params) and of
    /// [`Optimizer::load_state_dict`], and [`Error::NoOptimizerState`] if no optimizer was saved.
    pub fn load<A: Element>(
        &self,
        params: &mut (impl ParamsMut<Elem = A> + ?Sized),
        optimizer: &mut (impl Optimizer<A> + ?Sized),
    ) -> Result<()> {
        let layout = self.check_params(params)?;
        let state = self.optimizer.as_ref().ok_or(Error::NoOptimizerState)?;
        let layout = match state.layout() {
            Some(saved) if layout.has_tensors_of(saved) => Some(Arc::new(layout)),
            saved => saved.cloned(),
        };
        load(state, layout.as_ref(), optimizer.layout().cloned(), |reader| optimizer.read_state(reader))?;
        self.write_params(params);
        Ok(())
    }

    /// Puts the parameters in their places: all or, on an error, none. The tree has the same paths, shapes and element type
    /// as the one that was saved.
    ///
    /// # Errors
    /// [`Error::MissingEntry`], [`Error::UnexpectedEntry`], [`Error::EntryShape`], [`Error::EntryType`],
    /// [`Error::DuplicatePath`].
    pub fn load_params<A: Element>(&self, params: &mut (impl ParamsMut<Elem = A> + ?Sized)) -> Result<()> {
        self.check_params(params)?;
        self.write_params(params);
        Ok(())
    }

    /// The layout of this tree, if its parameters are the saved ones.
    fn check_params<A: Element>(&self, params: &(impl Params<Elem = A> + ?Sized)) -> Result<Layout> {
        let layout = Layout::of(params)?;
        for info in layout.tensors() {
            let saved = self.params.get(info.path()).ok_or_else(|| Error::MissingEntry { key: info.path().into() })?;
            saved.ensure(info.path(), info.shape(), A::DTYPE)?;
        }
        let known: BTreeSet<&str> = layout.paths().collect();
        match self.params.keys().find(|path| !known.contains(path.as_str())) {
            Some(path) => Err(Error::UnexpectedEntry { key: path.clone() }),
            None => Ok(layout),
        }
    }

    /// Writes what has been checked.
    fn write_params<A: Element>(&self, params: &mut (impl ParamsMut<Elem = A> + ?Sized)) {
        for_each_mut(params, |path, shape, values| {
            let Some(mut values) = values else { return };
            let saved = self.params.get(&path.to_string()).and_then(|saved| A::unpack(&saved.data));
            values.view_mut(shape).iter_mut().zip(saved.unwrap_or_default()).for_each(|(to, from)| *to = from);
        });
    }

    /// Writes the file, so that at every moment there is either the old one or the new one, whole.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::NotACheckpoint`] if the file would have a header of more than 100 MB.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path.as_ref(), &self.to_bytes()?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] and those of [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(&file::read(path.as_ref())?)
    }

    /// The file's bytes: for other places than a file system.
    ///
    /// # Errors
    /// [`Error::NotACheckpoint`] if the header would have more than 100 MB.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        format::write(self)
    }

    /// A checkpoint from the bytes of a file.
    ///
    /// # Errors
    /// [`Error::NotACheckpoint`], [`Error::CheckpointVersion`], [`Error::Corrupted`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        format::read(bytes)
    }
}
