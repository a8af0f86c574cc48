//! One training loop on several ranks, threads or processes.

mod agreement;
mod group;
mod sharded;
mod thread_group;

pub use group::{Alone, Collective, Group};
pub use sharded::{Sharded, unshard};
pub use thread_group::ThreadGroup;
