//! One training loop on several ranks, threads or processes.
//!
//! | what | made by | every rank has |
//! |---|---|---|
//! | [`DataParallel`] | [`data_parallel(group)`](crate::Optimizer::data_parallel) | all state; with [`compress`] it sends less |
//! | [`Sharded`] (ZeRO-1) | [`sharded(group)`](crate::Optimizer::sharded) | its share of the state; [`unshard`] joins them |
//! | [`LocalSteps`] (DiLoCo) | [`local_steps(h, outer)`](crate::Optimizer::local_steps)`.across(group)` | its own steps, together every h |
//!
//! A group is a [`ThreadGroup`], the processes of MPI (crate `gradus-mpi`), or whatever implements [`RankGroup`] and [`Collective`].

mod agreement;
mod ahead;
mod beginning;
mod board;
pub mod compress;
mod data_parallel;
mod description;
mod group;
mod local_steps;
mod packed;
mod sharded;
mod thread_group;
mod traffic;

pub use data_parallel::DataParallel;
pub use group::{Alone, Collective, RankGroup};
pub use local_steps::LocalSteps;
pub use packed::Place;
#[cfg(feature = "federated")]
pub(crate) use packed::{pack_params, put_params};
pub use sharded::{Sharded, unshard};
pub use thread_group::ThreadGroup;
pub use traffic::Traffic;
