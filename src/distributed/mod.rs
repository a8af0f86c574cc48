//! One training loop on several ranks, threads or processes.

mod agreement;
mod ahead;
mod beginning;
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
pub use group::{Alone, Collective, Group};
pub use local_steps::LocalSteps;
pub use packed::Place;
pub use sharded::{Sharded, unshard};
pub use thread_group::ThreadGroup;
pub use traffic::Traffic;
