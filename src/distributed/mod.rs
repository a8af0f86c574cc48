//! Training on several ranks: threads or processes that run the same loop.
//!
//! | adaptor | made by | every rank has |
//! |---|---|---|
//! | [`DataParallel`] | [`data_parallel(group)`](crate::OptimizerExt::data_parallel) | all state; with [`compress`] it sends less |
//! | [`Sharded`] (ZeRO-1) | [`sharded(group)`](crate::OptimizerExt::sharded) | its share of the state; [`unshard`] joins them |
//! | [`LocalSteps`] (DiLoCo) | [`local_steps(h, outer)`](crate::OptimizerExt::local_steps)`.across(group)` | its own steps, and an exchange every h steps |
//!
//! A group is a [`ThreadGroup`], the processes of MPI (crate `gradus-mpi`), or any other type with [`RankGroup`] and [`Collective`].

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
