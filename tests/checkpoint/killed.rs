//! A process that saves in a loop is killed at random moments: what is on the disk is one of the states written, and what was
//! being written is removed by the next save.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use ndarray::Array1;

const KILLS: u32 = 200;
const ELEMENTS: usize = 20_000;
const PATH: &str = "GRADUS_KILLED_PATH";

/// What the loop writes at a step: Sgd's parameters are a formula of its count.
fn expected(steps: u64) -> Array1<f64> {
    Array1::from_elem(ELEMENTS, -(steps as f64))
}

/// What the killed process does; nothing when the test is run by itself.
#[test]
fn saving_in_a_loop() {
    let Ok(path) = std::env::var(PATH) else { return };
    let (mut opt, mut params) = (Sgd::new(1.0), expected(0));
    if Path::new(&path).exists() {
        Checkpoint::open(&path).unwrap().load(&mut params, &mut opt).unwrap();
    }
    loop {
        opt.step(&mut params, &Array1::ones(ELEMENTS)).unwrap();
        Checkpoint::of(&params, &opt).unwrap().save(&path).unwrap();
    }
}

/// The temporary files in a folder.
fn temporary(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "run.safetensors").count()
}

#[test]
fn two_hundred_times() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("run.safetensors");
    let (mut last, mut seed, mut interrupted) = (0, 1_u64, 0);
    for kill in 0..KILLS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::saving_in_a_loop"]).env(PATH, &path);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It must have begun to save, however busy the machine is; each save is another file.
        let written = || std::fs::metadata(&path).and_then(|file| file.modified()).ok();
        let (start, before) = (Instant::now(), written());
        while written() == before && start.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(1));
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_micros((seed >> 33) % 10_000));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let left = temporary(folder.path());
        interrupted += left;
        if cfg!(target_os = "linux") {
            assert!(left <= 1, "{left} temporary files after kill {kill}");
        }

        let (mut opt, mut params) = (Sgd::new(1.0), expected(0));
        Checkpoint::open(&path).unwrap().load(&mut params, &mut opt).unwrap();
        assert!(params == expected(opt.steps()), "after kill {kill}");
        assert!(opt.steps() > last, "after kill {kill} step {last} was lost");
        last = opt.steps();
    }
    assert!(interrupted > 0, "no save was interrupted");
    Checkpoint::of_params(&expected(0)).unwrap().save(&path).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(temporary(folder.path()), 0);
    }
}
