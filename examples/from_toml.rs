//! A training run from a TOML file: `examples/data/training.toml` has the optimizer, its schedule and the chain around it.
//!
//! ```sh
//! cargo run --release --example from_toml --features config
//! ```
//!
//! Change the file and run it again: a misspelt key or a number out of range is an error that names its line.

use std::{error::Error, fs};

use gradus::{config::Config, prelude::*};
use ndarray::{Array1, Array2, array};

fn main() -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/training.toml"))?;
    let mut opt = Config::from_toml(&text)?.build::<f64>()?;

    let x = Array2::from_shape_fn((200, 3), |(row, column)| (1.3 * row as f64 * (column + 1) as f64).sin());
    let target = array![2.0, -1.0, 0.5];
    let y = x.dot(&target);
    let mut weight = Array1::<f64>::zeros(3);
    println!("{}", opt.describe(&weight)?);
    for step in 0..=400 {
        let error = x.dot(&weight) - &y;
        let report = opt.step(&mut weight, &error.dot(&x).mapv(|slope| slope / 100.0))?;
        if step % 100 == 0 {
            println!(
                "step {step:3}   loss {:.6}   learning rate {:.4}",
                error.pow2().sum() / 200.0,
                report.learning_rate
            );
        }
    }
    assert!((&weight - &target).iter().all(|error| error.abs() < 0.02), "{weight}");
    Ok(())
}
