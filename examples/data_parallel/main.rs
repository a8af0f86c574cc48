//! Four ranks learn to read handwritten digits together, and end where one alone ends with the whole batch.
//!
//! ```sh
//! cargo run --release --example data_parallel --features distributed
//! ```
//!
//! Every rank has all parameters and a quarter of each batch. AdamW, clipped by the global norm, is told to be `data_parallel`: before each
//! step the ranks take the mean of their gradients, and so all take the same one. The closing table has the loss, the
//! images that are read right and the bytes that each rank sent; the parameters must be the same on all ranks, bit for
//! bit.
//!
//! Here the ranks are threads. As processes, on one machine or many, the same training runs under MPI:
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
