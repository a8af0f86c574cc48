//! The sets that a document can project onto.

use serde::Deserialize;

use super::adaptors::Boxed;
use super::settings::Settings;
use crate::error::Result;
use crate::optimizer::OptimizerExt;
use crate::params::{Pattern, Scalar};
use crate::step::set::{Interval, L1Ball, MaxNorm, NonNegative, Simplex, UnitNorm};

/// The names of the sets.
#[derive(Deserialize)]
enum Named {
    Interval,
    NonNegative,
    MaxNorm,
    UnitNorm,
    Simplex,
    L1Ball,
}

/// `project = { pattern = "…", set = "…" }` with the settings of the set.
pub(super) fn project<A: Scalar>(opt: Boxed<A>, settings: &mut Settings<'_>) -> Result<Boxed<A>> {
    let pattern: Pattern = settings.get("pattern")?;
    let set: Named = settings.get("set")?;
    if settings.is_schema() {
        for key in ["lower", "upper", "radius", "scale"] {
            settings.optional::<f64>(key)?;
        }
        settings.optional::<bool>("per_row")?;
        return Ok(opt);
    }
    let opt = match set {
        Named::Interval => {
            let lower = settings.optional("lower")?.unwrap_or(f64::NEG_INFINITY);
            opt.project(pattern, Interval::new(lower, settings.optional("upper")?.unwrap_or(f64::INFINITY))).boxed()
        }
        Named::NonNegative => opt.project(pattern, NonNegative).boxed(),
        Named::MaxNorm => {
            let new = if per_row(settings)? { MaxNorm::per_row } else { MaxNorm::per_tensor };
            opt.project(pattern, new(settings.get("radius")?)).boxed()
        }
        Named::UnitNorm => {
            let new = if per_row(settings)? { UnitNorm::per_row } else { UnitNorm::per_tensor };
            opt.project(pattern, new()).boxed()
        }
        Named::Simplex => {
            let new = if per_row(settings)? { Simplex::per_row } else { Simplex::per_tensor };
            let simplex = settings.optional("scale")?.into_iter().fold(new(), Simplex::scale);
            opt.project(pattern, simplex).boxed()
        }
        Named::L1Ball => {
            let new = if per_row(settings)? { L1Ball::per_row } else { L1Ball::per_tensor };
            opt.project(pattern, new(settings.get("radius")?)).boxed()
        }
    };
    Ok(opt)
}

fn per_row(settings: &mut Settings<'_>) -> Result<bool> {
    Ok(settings.optional("per_row")?.unwrap_or(false))
}
