//! The schedules and combinators that a document can name, and how they are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::item::{Content, Item};
use super::reader::join;
use super::refusal::or_similar;
use super::settings::{Combine, MakeSchedule, Schedules, Settings, unknown_name};
use crate::adaptor::PowerEma;
use crate::error::{ConfigError, ConfigProblem, Error, Result};
use crate::schedule::{
    Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, Hyper, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, Polynomial, Rex, Schedule, ScheduleExt, Step,
    WarmupStableDecay,
};

/// All schedules by name. Those that serde reads are read by it.
pub(super) fn schedules() -> BTreeMap<String, MakeSchedule> {
    let mut all: BTreeMap<String, MakeSchedule> = BTreeMap::new();
    macro_rules! read {
        ($($schedule:ident),*) => {
            $(
                let make: MakeSchedule = Arc::new(|settings| Ok(Box::new(settings.read::<$schedule>()?)));
                all.insert(stringify!($schedule).to_owned(), make);
            )*
        };
    }
    read!(
        Cosine,
        CosineRestarts,
        Cyclic,
        Exponential,
        HalfLife,
        InverseSqrt,
        Linear,
        MultiStep,
        Noam,
        OneCycle,
        PiecewiseConstant,
        PiecewiseCosine,
        PiecewiseLinear,
        Polynomial,
        Rex,
        Step,
        WarmupStableDecay
    );
    all.insert("Plateau".to_owned(), Arc::new(plateau));
    all.insert("PowerEma".to_owned(), Arc::new(power_ema));
    all
}

/// A plateau, of which the registry keeps a handle.
fn plateau(settings: &mut Settings<'_>) -> Result<Box<dyn Schedule>> {
    let plateau: Plateau = settings.read()?;
    settings.keep(&plateau);
    Ok(Box::new(plateau))
}

/// The decay of an average by its width or its power.
fn power_ema(settings: &mut Settings<'_>) -> Result<Box<dyn Schedule>> {
    let average = match (settings.optional("width")?, settings.optional("gamma")?) {
        (Some(width), None) => PowerEma::of_width(width)?,
        (None, Some(gamma)) => PowerEma::new(gamma),
        _ if settings.is_schema() => PowerEma::new(1.0),
        (None, None) => return Err(settings.missing("gamma")),
        (Some(_), Some(_)) => {
            let (found, accepted) = ("width and gamma".to_owned(), "one of them".to_owned());
            return Err(settings.error(ConfigProblem::WrongKind { found, accepted }));
        }
    };
    Ok(Box::new(move |step: u64| average.decay(step)))
}

/// All combinators by name: the methods of [`ScheduleExt`] and their arguments.
pub(super) const COMBINATORS: &[(&str, Combine)] = &[
    ("warmup", |schedule, settings| Ok(Box::new(schedule.warmup(settings.get("steps")?)))),
    ("warmup_from", |schedule, settings| {
        Ok(Box::new(schedule.warmup_from(settings.get("start_factor")?, settings.get("steps")?)))
    }),
    ("then", |schedule, settings| Ok(Box::new(schedule.then(settings.get("at")?, settings.schedule("next")?)))),
    ("scale", |schedule, settings| Ok(Box::new(schedule.scale(settings.get("factor")?)))),
    ("times", |schedule, settings| Ok(Box::new(schedule.times(settings.schedule("other")?)))),
    ("clamp", |schedule, settings| {
        let min = settings.optional("min")?.unwrap_or(f64::NEG_INFINITY);
        Ok(Box::new(schedule.clamp(min, settings.optional("max")?.unwrap_or(f64::INFINITY))))
    }),
    ("delay", |schedule, settings| Ok(Box::new(schedule.delay(settings.get("steps")?)))),
    ("cycle", |schedule, settings| Ok(Box::new(schedule.cycle(settings.get("steps")?)))),
    ("per_epoch", |schedule, settings| Ok(Box::new(schedule.per_epoch(settings.get("steps_per_epoch")?)))),
];

impl Schedules<'_> {
    /// A number or a schedule.
    pub(super) fn hyper(&self, item: &Item, path: &str) -> Result<Hyper> {
        match item.content.number() {
            Some(number) => Ok(Hyper::from(number)),
            None => self.schedule(item, path).map(Hyper::from),
        }
    }

    pub(super) fn schedule(&self, item: &Item, path: &str) -> Result<Box<dyn Schedule>> {
        if let Some(number) = item.content.number() {
            return Ok(Box::new(number));
        }
        match &item.content {
            Content::Table(_) => self.named(item, path),
            Content::List(items) => {
                let Some((first, combinators)) = items.split_first() else {
                    return Err(item.wrong(path, "a schedule, followed by combinators"));
                };
                let first = self.schedule(first, &join(path, "0"))?;
                combinators.iter().enumerate().try_fold(first, |schedule, (at, item)| {
                    let path = join(path, &(at + 1).to_string());
                    match item.table() {
                        Some([(key, item)]) => self.combined(schedule, key, item, join(&path, key)),
                        _ => {
                            let names: Vec<_> = self.combinators.iter().map(|(name, _)| *name).collect();
                            let accepted = format!("a table of one combinator: {}", names.join(", "));
                            Err(item.wrong(&path, accepted))
                        }
                    }
                })
            }
            _ => Err(item.wrong(path, "a number or a schedule")),
        }
    }

    /// A table with the name of a schedule, its settings, and at most one combinator.
    fn named(&self, item: &Item, path: &str) -> Result<Box<dyn Schedule>> {
        let others = self.combinators.iter().map(|(name, _)| *name).chain(["schedule"]).collect();
        let settings = Settings::new((item, path.to_owned()), "a schedule", self, others);
        let name: String = match item.get("schedule") {
            Some(name) => settings.deserialized(name, join(path, "schedule"))?,
            None => return Err(settings.missing("schedule")),
        };
        let Some(make) = self.all.get(&name) else {
            let problem = unknown_name("schedule", &name, self.all.keys().map(String::as_str));
            let line = item.get("schedule").and_then(|item| item.line);
            return Err(Error::Config(ConfigError::new(join(path, "schedule"), line, problem)));
        };
        let known = Settings::known(|settings| make(settings).map(drop));
        let meant = |error| or_similar(error, self.combinators.iter().map(|(name, _)| *name));
        let mut settings = settings.with_known(known);
        settings.owner = name;
        let schedule = make(&mut settings).map_err(|error| meant(settings.refused(error)))?;
        settings.finish().map_err(meant)?;
        schedule.check().map_err(|error| settings.refused(error))?;
        let is_own = |key: &str| key == "schedule" || settings.asked.iter().any(|field| field.key == key);
        let combinators: Vec<_> = item.table().unwrap_or_default().iter().filter(|(key, _)| !is_own(key)).collect();
        match combinators.as_slice() {
            [] => Ok(schedule),
            [(key, item)] => self.combined(schedule, key, item, join(path, key)),
            [(_, _), (key, item), ..] => {
                let accepted = "the only combinator of its table; for several, write a list: [{ schedule = … }, { warmup = … }, …]";
                Err(item.wrong_with(&join(path, key), format!("another combinator, {key}"), accepted))
            }
        }
    }

    fn combined(&self, schedule: Box<dyn Schedule>, key: &str, item: &Item, path: String) -> Result<Box<dyn Schedule>> {
        let Some((_, combine)) = self.combinators.iter().find(|(name, _)| *name == key) else {
            let problem = unknown_name("combinator", key, self.combinators.iter().map(|(name, _)| *name));
            return Err(Error::Config(ConfigError::new(path, item.line, problem)));
        };
        let known = Settings::known(|settings| combine(Box::new(1.0), settings).map(drop));
        let mut settings = Settings::new((item, path), key, self, Vec::new()).with_known(known);
        let schedule = combine(schedule, &mut settings)?;
        settings.finish()?;
        schedule.check().map_err(|error| settings.refused(error))?;
        Ok(schedule)
    }
}
