//! Federated learning: a server and clients train one model, and the clients' data stay with the clients.
//!
//! In every round a [`Server`] sends its model to [`Client`]s, which train it on their own data with their own training loop. The server
//! then moves its model by the mean of their changes. The clients run on [threads](Simulation) of one process, on the [ranks](Ranks) of a
//! group, or elsewhere through your own implementation of [`Clients`]. Some of them may fail, be late or return invalid answers.
//!
//! | where | method | how |
//! |---|---|---|
//! | server | FedAvg, FedAvgM | `Server::new(Sgd::new(1.0))`, `Server::new(Momentum::new(1.0, 0.9))` |
//! | server | FedAdagrad, FedAdam, FedYogi | `Server::new(FedAdam::new(0.01))` |
//! | client | FedProx | `Sgd::new(0.1).proximal(0.01)`: see [`Proximal`] |
//! | client and server | SCAFFOLD | `Sgd::new(0.1).scaffold()` and `server.scaffold()`: see [`Scaffold`] |
//! | server | differential privacy of the clients | `server.private(mechanism)`: see [`privacy`] |
//! | server | a sample of the clients in each round | `server.select(Sample::count(10))`: see [`Sample`] |

mod adaptive;
mod aggregation;
mod answers;
mod client;
mod clients;
pub mod privacy;
mod proximal;
mod ranks;
mod report;
mod scaffold;
pub mod secure;
mod selection;
mod server;
mod simulation;
mod state;
mod tensors;

pub use adaptive::{FedAdagrad, FedAdam, FedRule, FedValues, FedYogi};
pub use aggregation::{Aggregation, Mean};
pub use client::{Client, Failure, Task, Update};
pub use clients::{Clients, Reply};
pub use proximal::Proximal;
pub use ranks::Ranks;
pub use report::{Counted, LeftOut, Reason, RoundReport};
pub use scaffold::Scaffold;
pub use selection::{All, Sample, Selection};
pub use server::Server;
pub use simulation::Simulation;
pub use tensors::Tensors;
