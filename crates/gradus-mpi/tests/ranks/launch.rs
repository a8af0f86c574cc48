//! Starting this program under `mpirun`.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs this program on `size` ranks with `--rank` and the arguments, as root and on fewer cores than ranks too. Panics if it has not
/// ended when `limit` is over.
pub(crate) fn mpirun(size: usize, arguments: &[&str], limit: Duration) -> End {
    let mut command = Command::new("mpirun");
    command.args(["-n", &size.to_string()]).arg(std::env::current_exe().unwrap()).arg("--rank").args(arguments);
    // Open MPI 4 reads the first three, 5 the fourth; MPICH needs none.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    // All of one test's ranks share the cores already.
    command.env("RAYON_NUM_THREADS", "1");
    let mut job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("is there an mpirun?");
    let (output, errors) = (reader(job.stdout.take().unwrap()), reader(job.stderr.take().unwrap()));
    let begin = Instant::now();
    let status = loop {
        match job.try_wait().unwrap() {
            Some(status) => break status,
            None if begin.elapsed() > limit => {
                job.kill().unwrap();
                job.wait().unwrap();
                panic!("{arguments:?} on {size} ranks has not ended in {limit:?}");
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    End { status, output: output.join().unwrap(), errors: errors.join().unwrap() }
}

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}
