//! Keeps what a bench prints, below what it ran on: `benches/record/<date>-<name>-<SIMD level>.md`.

use std::fs;
use std::io::{BufRead, BufReader, Result};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use gradus::simd;

#[derive(Debug, Default)]
pub(crate) struct Record {
    text: String,
}

impl Record {
    /// Prints a line and keeps it.
    pub(crate) fn say(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Runs this program once more, with other arguments and variables (nothing unsets one), and says what it prints.
    pub(crate) fn run(&mut self, arguments: &[String], variables: &[(&str, Option<&str>)]) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdout(Stdio::piped());
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn()?;
        for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
            self.say(&line?);
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("the run ended with {status}"))) }
    }

    /// Writes what was said below a head: the machine, the SIMD level, the compiler, the commit, and what it was `made_by`.
    pub(crate) fn write(self, folder: &Path, name: &str, made_by: &str) -> Result<()> {
        let (date, level, title) = (today(), simd::level(), name[..1].to_uppercase() + &name[1..]);
        let path = folder.join(format!("{date}-{name}-{level}.md"));
        let commit = answer("git", &["describe", "--always", "--dirty", "--exclude=*"]);
        let head = format!(
            "# {title}, {level}, {date}\n\n{}; SIMD level {level}; {}; gradus at {commit}.\nMade by {made_by}.\n\n",
            machine(),
            answer("rustc", &["--version"])
        );
        fs::create_dir_all(folder)?;
        fs::write(&path, head + &self.text)?;
        eprintln!("written to {}", path.display());
        Ok(())
    }
}

/// The first line that a program prints.
pub(crate) fn answer(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

/// Cores, processor and memory, where Linux tells them.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (processor, memory) = (field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"));
    let flags = field("/proc/cpuinfo", "flags");
    let has = |wanted: &str| flags.split(' ').any(|flag| flag == wanted);
    let registers = if has("avx512f") {
        " (AVX-512)"
    } else if has("avx2") {
        " (AVX2)"
    } else {
        ""
    };
    let kib: f64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
    let kind = if has("hypervisor") { ", virtual" } else { "" };
    format!("{cores} cores of {processor}{registers}, {:.0} GiB{kind}", kib / f64::from(1 << 20))
}

/// The value of the first `name: value` line of a file.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().filter(|line| line.starts_with(name)).find_map(|line| line.split_once(':'));
    value.map_or("unknown", |(_, value)| value.trim()).to_owned()
}

/// The date in UTC, as `2026-01-31`.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}
