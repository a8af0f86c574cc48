//! The ways in which a rank can fail: in each the job ends, soon, as documented.

use std::io::Write;
use std::time::Duration;

use gradus::distributed::{Collective, RankGroup};
use gradus::error::RankError;
use gradus::{Error, Result};
use gradus_mpi::MpiGroup;

use super::launch::{End, mpirun};

/// A name, and what must come of it on so many ranks.
type Fault = (&'static str, fn(usize));

pub(crate) const FAULTS: &[Fault] = &[
    ("killed", |size| {
        assert!(!run("killed", size).status.success());
    }),
    ("exits", |size| {
        assert!(!run("exits", size).status.success());
    }),
    ("panics", |size| {
        let end = run("panics", size);
        assert!(!end.status.success());
        assert!(end.errors.contains("by intent"));
        assert_left(&end, size);
    }),
    ("returns", |size| {
        let end = run("returns", size);
        assert!(end.status.success());
        assert_left(&end, size);
    }),
    ("hangs", |size| {
        let end = run("hangs", size);
        assert!(!end.status.success());
        assert!(end.errors.contains(": all_reduce: another rank has not come in 500ms; the job ends"));
    }),
];

/// The rank that fails.
const FAILS: usize = 1;
/// What has an end in theory must have it here too, and long before somebody's patience of a minute ends.
const LIMIT: Duration = Duration::from_secs(20);
/// Shorter than that by far.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The step in which it does: not the first, whose connections are new.
const STEP: usize = 3;

/// What the rank that fails says before it does: without it the job has ended for another reason.
const REACHED: &str = "the step is reached";

fn run(fault: &str, size: usize) -> End {
    let end = mpirun(size, &[fault], LIMIT);
    assert!(end.output.contains(REACHED), "{fault}: {}\n{}", end.output, end.errors);
    end
}

/// Every rank but one has said that this one is gone.
fn assert_left(end: &End, size: usize) {
    let told = end.output.lines().filter(|line| *line == format!("rank {FAILS} has left the group")).count();
    assert_eq!(told, size - 1, "{}\n{}", end.output, end.errors);
}

/// What each process of such a job does.
pub(crate) fn act(fault: &str) {
    let mut group = MpiGroup::world().unwrap();
    if fault == "hangs" {
        group = group.timeout(TIMEOUT);
    }
    if let Err(error) = steps(&group, fault) {
        assert_eq!(error, Error::Ranks(RankError::RankLeft { rank: FAILS }));
        assert_eq!(group.barrier(), Err(error.clone()), "the group is over");
        println!("{error}");
    }
}

fn steps(group: &MpiGroup, fault: &str) -> Result<()> {
    for step in 0.. {
        let mut values = vec![group.rank() as f32; 1000];
        if step == STEP && group.rank() == FAILS {
            println!("{REACHED}");
            std::io::stdout().flush().unwrap();
            match fault {
                "killed" => std::process::abort(),
                "exits" => std::process::exit(0),
                "panics" => panic!("by intent"),
                "returns" => return Ok(()),
                _ => std::thread::sleep(Duration::MAX),
            }
        }
        group.all_reduce(&mut values)?;
    }
    Ok(())
}
