//! Differential privacy: what is limited, what noise is added, and what that gives.

mod accountant;
mod rdp;

pub use accountant::{Accountant, Spending, Spent, noise_for};
