//! Training where the data may not leave its owners: rounds of clients and a server.

pub mod privacy;
pub mod secure;
