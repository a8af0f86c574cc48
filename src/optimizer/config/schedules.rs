//! The schedules and combinators that a document can name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::settings::{Combine, MakeSchedule, Settings};
use crate::adaptor::PowerEma;
use crate::error::{ConfigProblem, Result};
use crate::schedule::{
    Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
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
