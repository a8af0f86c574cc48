//! Data-parallel training: four ranks learn to read handwritten digits, with the result of one rank and the whole batch.
//!
//! ```sh
//! cargo run --release --example data_parallel --features distributed
//! ```
//!
//! Every rank has all parameters and a quarter of each batch. The optimizer is AdamW with clipping by global norm and `data_parallel`: before
//! each step the ranks average their gradients, so all of them take the same step. The table at the end shows the loss, the accuracy and the bytes
//! sent per rank. The parameters must be bit-identical on all ranks.
//!
//! Here the ranks are threads. The same training also runs as processes under MPI, on one machine or many:
//!
//! ```sh
//! cargo build --release -p gradus-mpi --example data_parallel_mpi
//! mpirun -n 4 target/release/examples/data_parallel_mpi
//! ```

#[path = "../digits/data.rs"]
mod data;
#[path = "../digits/model.rs"]
mod model;
mod training;

use std::error::Error;

use gradus::distributed::ThreadGroup;

const RANKS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let digits = data::Digits::load(training::SEED)?;
    for end in ThreadGroup::run(RANKS, |group| training::run(&group, &digits)) {
        end?;
    }
    Ok(())
}
