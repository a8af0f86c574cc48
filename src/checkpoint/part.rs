//! Parameters of a checkpoint by name: reading one, renaming, converting, and loading a part.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ndarray::ArrayD;

use super::{Checkpoint, OPTIMIZER};
use crate::error::{Error, Result, StateError, StepError, similar_to};
use crate::params::{Element, Layout, ParamsMut, Pattern, TensorInfo, collect_mut};
use crate::state::{StateDict, StateTensor};

/// The kinds of entries that are a text for each tensor; other texts, such as `adam/steps`, belong to no tensor.
const TEXTS_OF_TENSORS: [&str; 6] = ["/order", "/to", "/given", "/updates", "/rows", "/examples"];

/// The tensors that [`Checkpoint::load_matching`] has loaded, and the others.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The tensors that were loaded, in the order of the tree.
    pub loaded: Vec<String>,
    /// The tensors of the tree that match the pattern and are not in the file, in the order of the tree. They are unchanged.
    pub missing: Vec<String>,
    /// The tensors of the file that were not loaded, in alphabetical order: they match no pattern or are not in the tree, or hold integers or
    /// booleans.
    pub left_over: Vec<String>,
}

impl Checkpoint {
    /// The names of the parameters, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.params.keys().map(String::as_str)
    }

    /// The parameter of this name.
    ///
    /// To convert it to another element type, [`cast`](Self::cast) the checkpoint first.
    ///
    /// # Errors
    /// [`StateError::MissingEntry`] with similar names, [`StateError::EntryType`].
    ///
    /// # Example
    /// ```
    /// use gradus::checkpoint::Checkpoint;
    /// use ndarray::array;
    ///
    /// let saved = Checkpoint::of_params(&(array![1.0, 2.0], vec![array![3.0]]))?;
    /// assert_eq!(saved.names().collect::<Vec<_>>(), ["0", "1.0"]);
    /// assert_eq!(saved.tensor::<f64>("1.0")?, array![3.0].into_dyn());
    /// # Ok::<(), gradus::Error>(())
    /// ```
    #[doc(alias("get_tensor", "safe_open"))]
    pub fn tensor<A: Element>(&self, name: &str) -> Result<ArrayD<A>> {
        let saved = self.param(name, A::DTYPE, self.names())?;
        saved.ensure(name, &saved.shape, A::DTYPE)?;
        Ok(saved.to_array().unwrap_or_default())
    }

    /// Renames the parameters, and their tensors in the optimizer's state. Patterns that a state keeps, such as those of `freeze`, are not renamed.
    ///
    /// # Errors
    /// [`StepError::DuplicatePath`] if two tensors get the same name, or if one gets a name that starts with `optimizer/`.
    ///
    /// # Example
    /// ```
    /// use gradus::checkpoint::Checkpoint;
    /// use std::collections::BTreeMap;
    ///
    /// let theirs = Checkpoint::of_params(&BTreeMap::from([("bert.norm.gamma", 2.0_f32)]))?;
    /// let ours = theirs.map_names(|name| name.replace("bert.", "").replace("gamma", "weight"))?;
    /// let mut model = BTreeMap::from([("norm.weight", 0.0_f32)]);
    /// ours.load_params(&mut model)?;
    /// assert_eq!(model["norm.weight"], 2.0);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    #[doc(alias("rename", "key_mapping", "replace_prefix"))]
    pub fn map_names(self, mut rename: impl FnMut(&str) -> String) -> Result<Self> {
        let Self { params, others, optimizer, notes } = self;
        let mut taken = HashSet::new();
        let mut new_name = |path: &str| {
            let path = rename(path);
            match path.starts_with(OPTIMIZER) || !taken.insert(path.clone()) {
                true => Err(Error::Step(StepError::DuplicatePath { path })),
                false => Ok(path),
            }
        };
        let names = params.keys().chain(others.keys()).map(|path| Ok((path.clone(), new_name(path)?)));
        let mut names: BTreeMap<String, String> = names.collect::<Result<_>>()?;
        for info in optimizer.iter().flat_map(|state| state.layout()).flat_map(|layout| layout.tensors()) {
            if !names.contains_key(info.path()) {
                names.insert(info.path().into(), new_name(info.path())?);
            }
        }
        let renamed = |path: String| names.get(&path).cloned().unwrap_or(path);
        Ok(Self {
            optimizer: optimizer.map(|state| rename_state(state, &names)).transpose()?,
            params: params.into_iter().map(|(path, tensor)| (renamed(path), tensor)).collect(),
            others: others.into_iter().map(|(path, tensor)| (renamed(path), tensor)).collect(),
            notes,
        })
    }

    /// Converts the parameters to another element type. Each number is rounded to the nearest of that type. The optimizer's state is not
    /// converted, and neither are integers and booleans.
    ///
    /// The file may have any of the types f32, f64, bf16 and f16, also without the feature `half`.
    ///
    /// ```
    /// use gradus::checkpoint::Checkpoint;
    /// use ndarray::array;
    ///
    /// let saved = Checkpoint::of_params(&array![0.1_f64])?;
    /// assert_eq!(saved.cast::<f32>().tensor::<f32>("")?, array![0.1_f32].into_dyn());
    /// # Ok::<(), gradus::Error>(())
    /// ```
    #[doc(alias("to_dtype", "torch_dtype", "half", "float"))]
    pub fn cast<A: Element>(mut self) -> Self {
        self.params.values_mut().for_each(StateTensor::cast::<A>);
        self
    }

    /// Loads the parameters that a pattern matches, as far as the file has them, and returns the names of what was loaded, missing and left over. On an error
    /// nothing changes.
    ///
    /// The pattern is one of names in the tree; use [`map_names`](Self::map_names) first if those of the file differ. A parameter that is an integer or a boolean
    /// in the file counts as missing. For all parameters that both have, use the pattern `"**"`.
    ///
    /// # Conventions
    /// PyTorch's `load_state_dict(strict=False)` is the pattern `"**"`. It also returns an error for another shape.
    ///
    /// # Errors
    /// [`StepError::PatternUnmatched`] and [`StepError::PatternSyntax`] for the pattern; [`StateError::EntryShape`] and [`StateError::EntryType`] for a tensor
    /// that it matches; [`StepError::DuplicatePath`] for `params`.
    ///
    /// # Example
    /// ```
    /// use gradus::checkpoint::Checkpoint;
    /// use std::collections::BTreeMap;
    ///
    /// let saved = Checkpoint::of_params(&BTreeMap::from([("body.w", vec![1.0]), ("head.w", vec![1.0])]))?;
    /// let mut model = BTreeMap::from([("body.b", vec![0.0]), ("body.w", vec![0.0]), ("head.w", vec![0.0; 7])]);
    /// let report = saved.load_matching(&mut model, "body.**")?;
    /// assert_eq!((&model["body.w"], &model["head.w"]), (&vec![1.0], &vec![0.0; 7]));
    /// assert_eq!((report.missing, report.left_over), (vec!["body.b".into()], vec!["head.w".into()]));
    /// # Ok::<(), gradus::Error>(())
    /// ```
    #[doc(alias("strict", "partial", "load_state_dict"))]
    pub fn load_matching<A: Element>(
        &self,
        params: &mut (impl ParamsMut<Elem = A> + ?Sized),
        pattern: impl Into<Pattern>,
    ) -> Result<Loaded> {
        let (layout, values) = collect_mut(params, None, |_, values| values)?;
        let chosen = pattern.into().select(&layout)?;
        let (mut report, mut found) = (Loaded::default(), Vec::new());
        let tensors = layout.tensors().iter().zip(values).zip(chosen);
        for ((info, values), _) in tensors.filter(|(_, chosen)| *chosen) {
            let path = info.path();
            let Some(saved) = self.params.get(path) else {
                report.missing.push(path.into());
                continue;
            };
            saved.ensure(path, info.shape(), A::DTYPE)?;
            report.loaded.push(path.into());
            found.push((info, values, saved));
        }
        found.into_iter().for_each(|(info, values, saved)| saved.write_to(info, values));
        let loaded: HashSet<&str> = report.loaded.iter().map(String::as_str).collect();
        let all = self.params.keys().chain(self.others.keys());
        report.left_over = all.filter(|name| !loaded.contains(name.as_str())).cloned().collect();
        report.left_over.sort();
        Ok(report)
    }

    /// The parameter of this name; `others` are the names that may have been meant.
    pub(super) fn param<'n>(
        &self,
        name: &str,
        expected: &'static str,
        others: impl Iterator<Item = &'n str>,
    ) -> Result<&StateTensor> {
        let key = name.to_owned();
        match (self.params.get(name), self.others.get(name)) {
            (Some(saved), _) => Ok(saved),
            (None, Some(other)) => Err(Error::State(StateError::EntryType { key, expected, found: other.dtype() })),
            (None, None) => Err(Error::State(StateError::MissingEntry { key, similar: similar_to(name, others) })),
        }
    }
}

/// The same state for parameters with other names.
fn rename_state(state: StateDict, names: &BTreeMap<String, String>) -> Result<StateDict> {
    let Some(layout) = state.layout().cloned() else { return Ok(state) };
    let new = |path: &str| names.get(path).map_or(path, String::as_str).to_owned();
    let infos = layout.tensors().iter().map(|info| TensorInfo::new(new(info.path()), info.shape())).collect();
    let layout_of_names = Arc::new(Layout::new(infos)?);
    // The entry of a tensor is a node, a kind and the tensor's path, which may contain slashes.
    let renamed = |key: String, has_path: &dyn Fn(&str) -> bool| {
        let starts = key.match_indices('/').skip(1).map(|(at, _)| key.split_at(at));
        let mut found = starts.filter(|(start, path)| has_path(start) && layout.position(&path[1..]).is_some());
        found.next().map(|(start, path)| format!("{start}/{}", new(&path[1..]))).unwrap_or(key)
    };
    let is_of_tensors = |start: &str| TEXTS_OF_TENSORS.iter().any(|kind| start.ends_with(kind));
    Ok(StateDict {
        texts: state.texts.into_iter().map(|(key, text)| (renamed(key, &is_of_tensors), text)).collect(),
        tensors: state.tensors.into_iter().map(|(key, tensor)| (renamed(key, &|_| true), tensor)).collect(),
        layout: Some(layout_of_names),
    })
}
