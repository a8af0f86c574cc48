//! The example `data_parallel` of gradus, with the processes that `mpirun` has started as its ranks:
//!
//! ```sh
//! cargo build --release -p gradus-mpi --example data_parallel_mpi
//! mpirun -n 4 target/release/examples/data_parallel_mpi
//! ```
//!
//! Only this file knows of MPI.

#[path = "../../../examples/digits/data.rs"]
mod data;
#[path = "../../../examples/digits/model.rs"]
mod model;
#[path = "../../../examples/data_parallel/training.rs"]
mod training;

use std::error::Error;

use gradus_mpi::MpiGroup;

fn main() -> Result<(), Box<dyn Error>> {
    let group = MpiGroup::world()?;
    training::run(&group, &data::Digits::load(training::SEED)?)?;
    Ok(())
}
