//! One training loop on several ranks, threads or processes.

mod agreement;
mod group;
mod thread_group;

pub use group::{Alone, Collective, Group};
pub use thread_group::ThreadGroup;
