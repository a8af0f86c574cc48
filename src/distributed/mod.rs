//! Training on several ranks: threads or processes that run the same loop.
//!
//! | adaptor | made by | every rank has |
//! |---|---|---|
//! | [`DataParallel`] | [`data_parallel(group)`](crate::OptimizerExt::data_parallel) | all state; [`compress`] sends less |
//! | [`Sharded`] (ZeRO-1) | [`sharded(group)`](crate::OptimizerExt::sharded) | its shard of the state; [`unshard`] joins all |
//! | [`LocalSteps`] (DiLoCo) | [`local_steps(h, outer)`](crate::OptimizerExt::local_steps)`.across(group)` | its own steps, and an exchange every h steps |
//!
//! A group is a [`ThreadGroup`], the processes of MPI (crate `gradus-mpi`), or any other type with [`RankGroup`] and [`Collective`].

mod board;
pub mod compress;
mod data_parallel;
mod group;
mod joint;
mod local_steps;
mod packed;
mod rows;
mod sharded;
mod thread_group;
mod traffic;

pub use data_parallel::DataParallel;
#[cfg(feature = "federated")]
pub(crate) use group::gather;
pub use group::{Alone, Collective, RankGroup};
#[cfg(feature = "federated")]
pub(crate) use joint::{Before, ensure_finite};
pub use local_steps::LocalSteps;
pub use packed::Place;
pub use sharded::{Sharded, unshard};
pub use thread_group::ThreadGroup;
pub use traffic::Traffic;
