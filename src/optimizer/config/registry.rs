//! What the names in a document stand for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ndarray::Array2;
use serde_json::Value as Json;

use super::adaptors::{Boxed, ONLY_IN_CODE, adaptors, route};
use super::document::Config;
use super::item::{Content, Item};
use super::projection::project;
use super::reader::join;
use super::refusal::named;
use super::schedules::{COMBINATORS, schedules};
use super::settings::{MakeSchedule, Schedules, Settings, unknown_name};
use crate::error::{ConfigError, ConfigProblem, Error, Result};
use crate::optimizer::{configured, list::Sgd};
use crate::params::{Element, Pattern, Scalar};
use crate::schedule::{Plateau, Schedule};
use crate::step::{Optimizer, Step};

type MakeOptimizer<A> = Arc<dyn Fn(&mut Settings<'_>) -> Result<Boxed<A>> + Send + Sync>;
type MakeAdaptor<A> = Arc<dyn Fn(Boxed<A>, &mut Settings<'_>) -> Result<Boxed<A>> + Send + Sync>;

/// The plateaus of a configuration, each with its path, such as `optimizer.learning_rate`.
pub type Plateaus = BTreeMap<String, Plateau>;

/// The optimizers, schedules and adaptors that a [`Config`] can name.
///
/// [`Registry::default`] has all of this crate. Your own are registered with a function that reads their [`Settings`]:
///
/// ```
/// use gradus::config::{Config, Registry};
/// use gradus::{Sgd, prelude::*};
///
/// let mut registry = Registry::<f32>::default();
/// registry.optimizer("Halved", |settings| {
///     let factor: f64 = settings.optional("factor")?.unwrap_or(0.5);
///     let learning_rate = settings.schedule("learning_rate")?;
///     Ok(Sgd::new(learning_rate.scale(factor)).boxed())
/// });
/// let config = Config::from_toml("optimizer = { name = 'Halved', learning_rate = 0.1, factr = 0.25 }")?;
/// let error = registry.build(&config).err().unwrap().to_string();
/// assert_eq!(
///     error,
///     "optimizer.factr (line 1): Halved has no setting \"factr\" (did you mean \"factor\"?); it has factor, learning_rate"
/// );
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Clone)]
pub struct Registry<A: Element> {
    pub(super) optimizers: BTreeMap<String, MakeOptimizer<A>>,
    pub(super) schedules: BTreeMap<String, MakeSchedule>,
    pub(super) adaptors: BTreeMap<String, MakeAdaptor<A>>,
}

impl<A: Scalar> Default for Registry<A> {
    /// All optimizers, schedules and adaptors of this crate.
    fn default() -> Self {
        let mut registry = Self { optimizers: BTreeMap::new(), schedules: schedules(), adaptors: BTreeMap::new() };
        configured::<A>().into_iter().for_each(|(name, make)| _ = registry.optimizer(name, make));
        adaptors::<A>().into_iter().for_each(|(name, make)| _ = registry.adaptor(name, make));
        registry.adaptor("project", project::<A>);
        registry
    }
}

impl<A: Element> fmt::Debug for Registry<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Registry");
        shown.field("optimizers", &self.optimizers.keys()).field("schedules", &self.schedules.keys());
        shown.field("adaptors", &self.adaptors.keys()).finish()
    }
}

impl<A: Scalar> Registry<A> {
    /// Registers an optimizer, in place of another of this name.
    pub fn optimizer<F>(&mut self, name: &str, make: F) -> &mut Self
    where
        F: Fn(&mut Settings<'_>) -> Result<Box<dyn Optimizer<A>>> + Send + Sync + 'static,
    {
        self.optimizers.insert(name.to_owned(), Arc::new(make));
        self
    }

    /// Registers a schedule, in place of another of this name.
    pub fn schedule<F>(&mut self, name: &str, make: F) -> &mut Self
    where
        F: Fn(&mut Settings<'_>) -> Result<Box<dyn Schedule>> + Send + Sync + 'static,
    {
        self.schedules.insert(name.to_owned(), Arc::new(make));
        self
    }

    /// Registers an adaptor, in place of another of this name. The function gets the optimizer inside.
    pub fn adaptor<F>(&mut self, name: &str, make: F) -> &mut Self
    where
        F: Fn(Box<dyn Optimizer<A>>, &mut Settings<'_>) -> Result<Box<dyn Optimizer<A>>> + Send + Sync + 'static,
    {
        self.adaptors.insert(name.to_owned(), Arc::new(make));
        self
    }

    /// Builds what a configuration describes.
    ///
    /// Hyper-parameters are checked as in the first step, so a value that is out of range at step 0 is an error here.
    ///
    /// # Errors
    /// [`Error::Config`], and [`Error::Setting`] for a value out of range, with the place and what would be right.
    pub fn build(&self, config: &Config) -> Result<Box<dyn Optimizer<A>>> {
        self.build_with_plateaus(config).map(|(opt, _)| opt)
    }

    /// [`build`](Self::build), with each [`Plateau`] of the configuration under its path, such as `optimizer.learning_rate`. Call
    /// [`observe`](Plateau::observe) on it.
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn build_with_plateaus(&self, config: &Config) -> Result<(Box<dyn Optimizer<A>>, Plateaus)> {
        let names = Schedules { all: &self.schedules, combinators: COMBINATORS, plateaus: RefCell::default() };
        if config.root().table().is_none() {
            return Err(config.root().wrong("", "a table with the key `optimizer`"));
        }
        let known = (["optimizer", "then"].map(str::to_owned).into(), false);
        let settings = Settings::new((config.root(), String::new()), "the configuration", &names, Vec::new());
        let mut settings = settings.with_known(known);
        let opt = self.chain(&mut settings, &names)?;
        settings.finish()?;
        Ok((opt, names.plateaus.into_inner().into_iter().collect()))
    }

    /// The optimizer and its adaptors.
    fn chain(&self, settings: &mut Settings<'_>, names: &Schedules<'_>) -> Result<Boxed<A>> {
        let (item, path) = settings.item("optimizer")?;
        let opt = self.named_optimizer(item, path, names)?;
        let Some((then, path)) = settings.optional_item("then", Json::Null, false) else { return Ok(opt) };
        let Content::List(adaptors) = &then.content else {
            return Err(then.wrong(&path, "a list of adaptors, `[[then]]`"));
        };
        let grads = params::<A>(adaptors);
        let mut params = grads.clone();
        let step = Step::pair(&mut params, &grads, None)?;
        adaptors
            .iter()
            .enumerate()
            .try_fold(opt, |opt, (at, item)| self.adapted(opt, (item, join(&path, &at.to_string())), names, &step))
    }

    fn named_optimizer(&self, item: &Item, path: String, names: &Schedules<'_>) -> Result<Boxed<A>> {
        if item.table().is_none() {
            return Err(item.wrong(&path, "a table with the name of an optimizer and its settings"));
        }
        let mut settings = Settings::new((item, path.clone()), "an optimizer", names, vec!["name"]);
        let name: String = settings.get("name")?;
        let Some(make) = self.optimizers.get(&name) else {
            let problem = unknown_name("optimizer", &name, self.optimizers.keys().map(String::as_str));
            let line = item.get("name").and_then(|item| item.line);
            return Err(Error::Config(ConfigError::new(join(&path, "name"), line, problem)));
        };
        let known = Settings::known(|settings| make(settings).map(drop));
        let mut settings = Settings::new((item, path), &name, names, vec!["name"]).with_known(known);
        let opt = make(&mut settings).map_err(|error| settings.refused(error))?;
        settings.finish()?;
        let grads = params::<A>(std::slice::from_ref(item));
        let mut params = grads.clone();
        check(&*opt, &Step::pair(&mut params, &grads, None)?).map_err(|error| settings.refused(error))?;
        Ok(opt)
    }

    /// One entry of `then`: a table with one key, the name of an adaptor.
    fn adapted(
        &self,
        opt: Boxed<A>,
        (item, path): (&Item, String),
        names: &Schedules<'_>,
        step: &Step<'_, A>,
    ) -> Result<Boxed<A>> {
        let Some([(name, inner)]) = item.table() else {
            let keys: Vec<_> = item.table().unwrap_or_default().iter().map(|(key, _)| key.as_str()).collect();
            let accepted = "a table with one key, the name of an adaptor; each adaptor has a `[[then]]` of its own";
            let found = match keys.as_slice() {
                [] => item.content.to_string(),
                keys => format!("a table with the keys {}", keys.join(", ")),
            };
            return Err(item.wrong_with(&path, found, accepted));
        };
        let path = join(&path, name);
        if inner.content == Content::Flag(false) && self.adaptors.contains_key(name) {
            return Ok(opt);
        }
        let known = self.adaptors.get(name).map(|make| {
            let inner: Boxed<A> = Box::new(Sgd::new(0.0));
            Settings::known(|settings| make(inner, settings).map(drop))
        });
        let known = known.unwrap_or_else(|| (ROUTE.map(str::to_owned).into(), false));
        let mut settings = Settings::new((inner, path.clone()), name, names, Vec::new()).with_known(known);
        let opt = if name == "route" {
            let pattern: Pattern = settings.get("pattern")?;
            let branch = self.chain(&mut settings, names)?;
            route(opt, pattern, branch)
        } else if let Some(make) = self.adaptors.get(name) {
            make(opt, &mut settings).map_err(|error| settings.refused(error))?
        } else {
            let known = self.adaptors.keys().map(String::as_str).chain(["route"]);
            let problem = match ONLY_IN_CODE.iter().find(|(other, _)| other == name) {
                Some((_, instead)) => ConfigProblem::OnlyInCode { name: name.clone(), instead: (*instead).to_owned() },
                None => unknown_name("adaptor", name, known),
            };
            return Err(Error::Config(ConfigError::new(path, inner.line, problem)));
        };
        settings.finish()?;
        check(&*opt, step).map_err(|error| settings.refused(error))?;
        Ok(opt)
    }
}

/// The settings of a route.
const ROUTE: [&str; 3] = ["pattern", "optimizer", "then"];

/// The error that the first step would return whatever the tensors are. A noted step opens no files.
fn check<A: Element>(opt: &dyn Optimizer<A>, step: &Step<'_, A>) -> Result<()> {
    match opt.check(&step.preview_to_note()) {
        Err(error) if named(&error).is_some() => Err(error),
        _ => Ok(()),
    }
}

/// Matrices at paths that the patterns of these items match.
fn params<A: Element>(items: &[Item]) -> BTreeMap<String, Array2<A>> {
    let mut paths = BTreeSet::from(["x".to_owned()]);
    items.iter().for_each(|item| collect(item, &mut paths));
    paths.into_iter().map(|path| (path, Array2::from_elem((12, 12), A::one()))).collect()
}

/// Any text may be a pattern: those that are none only add a path.
fn collect(item: &Item, paths: &mut BTreeSet<String>) {
    match &item.content {
        Content::Text(text) => paths.extend(Pattern::from(text.as_str()).examples()),
        Content::List(items) => items.iter().for_each(|item| collect(item, paths)),
        Content::Table(entries) => entries.iter().for_each(|(_, item)| collect(item, paths)),
        _ => {}
    }
}
