//! Optimizers, schedules and adaptors by name from a TOML or JSON file.
//!
//! ```
//! use gradus::config::Config;
//! use gradus::prelude::*;
//!
//! let config = Config::from_toml(
//!     r#"
//!     [optimizer]
//!     name = "AdamW"
//!     learning_rate = { schedule = "Cosine", peak = 1e-3, steps = 10_000, warmup = 500 }
//!     [[then]]
//!     clip_global_norm = 1.0
//!     "#,
//! )?;
//! let opt = config.build::<f32>()?;
//! assert_eq!(
//!     opt.describe(&ndarray::array![1.0])?.to_string(),
//!     "clip_global_norm(1)\nAdamW(learning_rate: Cosine(peak: 0.001, steps: 10000).warmup(500), weight_decay: 0.01)"
//! );
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! [`Config`] is the document. It can be written back. [`Registry`] has what its names stand for. The guide's page
//! [settings](crate::guide::settings) has all keys.

mod adaptors;
mod document;
mod item;
mod projection;
mod reader;
mod refusal;
mod registry;
mod schedules;
mod schema;
pub(crate) mod settings;
mod shape;
mod text;

pub use document::Config;
pub use registry::{Plateaus, Registry};
pub use settings::Settings;

use crate::error::Result;
use crate::params::Scalar;
use crate::step::Optimizer;

impl Config {
    /// Builds the optimizer, with the names of [`Registry::default`].
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config), and [`Error::Setting`](crate::Error::Setting) for a value out of range, with the place and what
    /// would be right.
    pub fn build<A: Scalar>(&self) -> Result<Box<dyn Optimizer<A>>> {
        Registry::default().build(self)
    }
}
