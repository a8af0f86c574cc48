//! The schedules against PyTorch's, Hugging Face's and optax's own values, and the laws that all of them keep.

use gradus::schedule::Schedule;

mod golden;
mod laws;
mod properties;

type Any = Box<dyn Schedule>;

/// The rounding of a mean of values up to 1.
const WOBBLE: f64 = 2.0 * f64::EPSILON;
