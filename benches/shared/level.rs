//! The SIMD level of a run: the highest that the machine has, or `--simd v3`.

use std::error::Error;
use std::process::Command;

use gradus::simd;

/// Says which level runs. With `--simd` and the name of one the program runs once more at that level, and ends as that does;
/// its children inherit the variable.
pub(crate) fn begin() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--simd") {
        let asked: Vec<_> = arguments.drain(at..arguments.len().min(at + 2)).skip(1).collect();
        let mut command = Command::new(std::env::current_exe()?);
        let status = command.args(arguments).env(simd::VARIABLE, asked.concat()).status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    let (level, available) = (simd::level(), simd::available().iter().map(|level| level.name()).collect::<Vec<_>>());
    match std::env::var(simd::VARIABLE) {
        Ok(asked) if asked != level.name() => {
            Err(format!("there is no SIMD level {asked:?} here, only {}", available.join(", ")).into())
        }
        _ => {
            println!("SIMD level {level}, of {}.", available.join(", "));
            Ok(())
        }
    }
}
