//! `fn main() -> gradus::Result<()>` prints the sentence of an error: this program runs itself and reads what it prints.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::process::Command;

use gradus::prelude::*;
use ndarray::array;

/// The argument with which the program fails.
const FAILING: &str = "--failing";

fn main() -> gradus::Result<()> {
    if env::args().any(|argument| argument == FAILING) {
        let mut w = array![1.0];
        Sgd::new(0.1).check_finite().step(&mut w, &array![f64::NAN])?;
        return Ok(()); // the test below notices that nothing failed
    }
    let program = env::current_exe().unwrap();
    let output = Command::new(program).arg(FAILING).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed.trim_end(), "Error: gradient (root) is NaN at index [0]");
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}
