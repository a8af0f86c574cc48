//! Libraries in a process of their own, driven through its standard input: torch and optax, and each of the Rust libraries.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gradus::simd::{self, Level};

use crate::{Peer, Problem};

pub(crate) const NAMES: [&str; 3] = ["torch-fused", "torch-foreach", "optax"];

pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Returns nothing if the interpreter or the library is not installed.
    pub(crate) fn python(python: &str, library: &str, problem: Problem) -> Option<Self> {
        Self::spawn(&mut interpreter(python))?.set_up(library, problem)
    }

    /// A Rust library, which this program runs in another process.
    pub(crate) fn rust(number: usize, problem: Problem) -> Option<Self> {
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.arg("--serve").env(simd::VARIABLE, simd::level().name());
        Self::spawn(&mut command)?.set_up(&number.to_string(), problem)
    }

    fn set_up(mut self, library: &str, Problem { count, length, clip }: Problem) -> Option<Self> {
        let threads = rayon::current_num_threads();
        (self.ask(&format!("setup {library} {count} {length} {clip} {threads}"))? == "ready").then_some(self)
    }

    fn spawn(command: &mut Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let (input, output) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        Some(Self { child, input, output })
    }

    fn ask(&mut self, command: &str) -> Option<String> {
        writeln!(self.input, "{command}").ok()?;
        self.input.flush().ok()?;
        let mut line = String::new();
        self.output.read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }
}

/// What holds torch (its own loops, MKL's and oneDNN's) and XLA to the instructions of this level. At the highest they choose for
/// themselves.
pub(crate) fn held_to(level: Level) -> Vec<(&'static str, &'static str)> {
    let (torch, mkl, one_dnn, xla) = match level {
        Level::Baseline => ("default", "SSE4_2", "SSE41", "--xla_cpu_max_isa=SSE4_2"),
        Level::V3 => ("avx2", "AVX2", "AVX2", "--xla_cpu_max_isa=AVX2"),
        _ => return Vec::new(),
    };
    vec![
        ("ATEN_CPU_CAPABILITY", torch),
        ("MKL_ENABLE_INSTRUCTIONS", mkl),
        ("ONEDNN_MAX_CPU_ISA", one_dnn),
        ("XLA_FLAGS", xla),
    ]
}

fn interpreter(python: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peer.py")).envs(held_to(simd::level()));
    command
}

/// What is installed, as `torch 2.15.0 (AVX2)`.
pub(crate) fn versions(python: &str) -> Vec<String> {
    let answer =
        Process::spawn(&mut interpreter(python)).and_then(|mut python| python.ask("versions")).unwrap_or_default();
    answer.split(", ").filter(|version| !version.is_empty()).map(str::to_owned).collect()
}

impl Peer for Process {
    fn step(&mut self) {
        self.time(1);
    }

    fn values(&mut self) -> Vec<f32> {
        let line = self.ask("values").unwrap_or_default();
        line.split(' ').filter_map(|value| value.parse().ok()).collect()
    }

    /// Timed by the process itself: the pipe is not the library's.
    fn time(&mut self, repeats: usize) -> f64 {
        self.ask(&format!("run {repeats}")).and_then(|time| time.parse().ok()).unwrap_or(f64::NAN)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
