//! The group under `mpirun`: `cargo test -p gradus-mpi --test ranks [name]` starts itself with 2, 3 and 4 processes and every
//! setting of the group, and then in the ways in which a rank can fail.
//!
//! What is given after `--rank` is run by each process: `suite` with the names of settings, or a fault.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod adaptors;
mod agreement;
mod collectives;
mod faults;
mod federated;
mod launch;
mod order;

/// Tests of gradus; those that are not generic over the group have no place here.
macro_rules! of_gradus {
    ($($path:literal $name:ident),*) => {
        $(
            #[path = $path]
            #[allow(dead_code, unused_imports, unused_mut, unexpected_cfgs, reason = "much of it is for threads")]
            mod $name;
        )*
    };
}

of_gradus!(
    "../../../../tests/distributed/compression.rs" compression,
    "../../../../tests/distributed/data_parallel.rs" data_parallel,
    "../../../../tests/distributed/digits.rs" digits,
    "../../../../tests/distributed/faults.rs" faults_of_threads,
    "../../../../tests/distributed/local_steps.rs" local_steps,
    "../../../../tests/distributed/ranks.rs" ranks,
    "../../../../tests/distributed/refusals.rs" refusals,
    "../../../../tests/distributed/sharded/mod.rs" sharded
);

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use gradus::distributed::RankGroup;
use gradus_mpi::MpiGroup;

use launch::mpirun;

/// A test that all ranks run together.
type Test = (&'static str, fn(&MpiGroup));

/// What holds on so many ranks with these settings.
fn tests(size: usize, settings: &[&str]) -> Vec<Test> {
    let has = |setting| settings.contains(&setting);
    let mut tests = [collectives::TESTS, agreement::TESTS].concat();
    if has("fixed") {
        tests.extend(order::TESTS);
    }
    // Five elements at a time would make the others long.
    if !has("short") {
        tests.extend(federated::TESTS);
        if has("fixed") {
            tests.extend(adaptors::FIXED);
        }
        // Their batches have no three equal parts.
        if size.is_power_of_two() {
            tests.extend(adaptors::TESTS);
        }
    }
    tests
}

const SIZES: [usize; 3] = [2, 3, 4];
/// Five elements a message: less than a rank's part, not a multiple of 2, 3 or 4.
const SHORT: usize = 5;
/// Long for a test and short for who waits.
const LONG: Duration = Duration::from_secs(60);
const SETTINGS: [&[&str]; 4] = [&[], &["short"], &["fixed"], &["fixed", "short", "timeout"]];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let given: Vec<_> = arguments.iter().map(String::as_str).collect();
    match given.as_slice() {
        ["--rank", "suite", settings @ ..] => suite(settings),
        ["--rank", fault] => faults::act(fault),
        _ => start(filter(&given)),
    }
}

/// The first argument that is no option. What is to be skipped is in other test binaries.
fn filter<'a>(arguments: &[&'a str]) -> &'a str {
    match arguments {
        [] => "",
        ["--skip", _, rest @ ..] => filter(rest),
        [option, rest @ ..] if option.starts_with('-') => filter(rest),
        [name, ..] => name,
    }
}

/// What runs under no `mpirun` yet: all that has `filter` in its name.
fn start(filter: &str) {
    let mut ran = 0;
    for size in SIZES {
        for settings in SETTINGS {
            let name = format!("suite on {size} ranks {}", settings.join(" "));
            if name.contains(filter) {
                println!("\n{name}");
                let end = mpirun(size, &[&["suite"], settings].concat(), 10 * LONG);
                print!("{}", end.output);
                assert!(end.status.success(), "{name}: {}\n{}", end.status, end.errors);
                let passed = end.output.lines().filter(|line| line.ends_with(" ok")).count();
                assert_eq!(passed, tests(size, settings).len(), "{name}: not every test has run");
                ran += passed;
            }
        }
    }
    println!();
    for size in SIZES {
        for (name, check) in faults::FAULTS {
            if name.contains(filter) {
                check(size);
                println!("test {name} on {size} ranks ... ok");
                ran += 1;
            }
        }
    }
    assert!(ran > 0, "no test is called {filter}");
    println!("\ntest result: ok. {ran} passed");
}

/// What each rank does. A failed assertion ends the process, and `mpirun` then ends the others.
fn suite(settings: &[&str]) {
    let mut group = MpiGroup::world().unwrap();
    for setting in settings {
        group = match *setting {
            "short" => group.longest_message(SHORT),
            "fixed" => group.fixed_order(),
            "timeout" => group.timeout(LONG),
            other => panic!("there is no setting {other}"),
        };
    }
    let rank = group.rank();
    for (name, test) in tests(group.size(), settings) {
        if catch_unwind(AssertUnwindSafe(|| test(&group))).is_err() {
            eprintln!("test {name} ... FAILED on rank {rank}");
            std::process::exit(1);
        }
        group.barrier().unwrap();
        if rank == 0 {
            println!("test {name} ... ok");
        }
    }
}
