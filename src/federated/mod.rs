//! Training where the data may not leave its owners: rounds of clients and a server.

mod adaptive;
pub mod privacy;
pub mod secure;

pub use adaptive::{AdagradMoment, AdamMoment, FedAdagrad, FedAdam, FedRule, FedYogi, Moment, YogiMoment};
