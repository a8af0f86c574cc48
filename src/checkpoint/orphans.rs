//! Temporary files, and what becomes of those that a process has left behind.
//!
//! A temporary file belongs to the process that holds the lock on it; the system lifts that when the process ends, however
//! it ends. So one that can be locked is an orphan, and whoever holds its lock may remove it. Three things make this sure:
//!
//! - A file cannot be made and locked at once. In between another save may take it for an orphan: then either its lock is
//!   held by that one or, when it has been locked, it is gone. Its maker looks for both and makes another.
//! - Names are not used twice. So a file that has got its place, or is gone, before it is removed is not removed as another.
//! - Some network file systems keep locks on the machine that took them. The name says since which start of which machine
//!   the file is; one of another start is left alone until it is a day old by the file system's own clock.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

const TEMPORARY: &str = ".gradus-";
const SUFFIX: &str = ".tmp";

/// Letters and digits by which names differ.
const RANDOM: usize = 12;

/// No save takes so long.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often another save may be quicker.
const ATTEMPTS: u32 = 100;

/// A temporary file that is this process's, with the mode `mode` where there are modes.
pub(super) fn create(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let prefix = prefix();
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    builder.permissions(super::permissions::permissions(mode));
    #[cfg(not(unix))]
    let _ = mode;
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(folder).map_err(|error| of_folder(folder, error.kind()))?;
        let own = match file.as_file().try_lock() {
            Ok(()) => fs::symlink_metadata(file.path()).is_ok(),
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(_)) => true, // a file system without locks, where nobody takes anything for an orphan
        };
        if own {
            return Ok(file);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "other processes remove every temporary file"))
}

/// An error of the folder, without the name of the temporary file that could not be made in it.
fn of_folder(folder: &Path, kind: io::ErrorKind) -> io::Error {
    let reason = match kind {
        io::ErrorKind::NotFound => "does not exist".into(),
        io::ErrorKind::NotADirectory => "is not a folder".into(),
        other => format!("cannot be written to: {other}"),
    };
    io::Error::new(kind, format!("the folder {} {reason}", folder.display()))
}

/// Removes the orphans of a folder. What cannot be removed stays for the next save.
pub(super) fn clear(folder: &Path, own: &NamedTempFile) {
    let Ok(now) = own.as_file().metadata().and_then(|own| own.modified()) else { return };
    let prefix = prefix();
    let since_start = |name: &OsStr| prefix != TEMPORARY && starts_with(name, &prefix);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = starts_with(&name, TEMPORARY) && name.as_encoded_bytes().ends_with(SUFFIX.as_bytes());
        if ours && own.path().file_name() != Some(&name) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            _ = remove(&entry.path(), now, since_start(&name));
        }
    }
}

fn remove(path: &Path, now: SystemTime, since_start: bool) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let old = || Ok::<_, io::Error>(now.duration_since(file.metadata()?.modified()?).is_ok_and(|age| age > DAY));
    if (since_start || old()?) && file.try_lock().is_ok() {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn starts_with(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

/// What names begin with: also since which start of the machine, if it says so.
fn prefix() -> String {
    let start = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match start.trim() {
        "" => TEMPORARY.into(),
        start => format!("{TEMPORARY}{start}-"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_orphans_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let held = create(folder.path(), 0o666).unwrap();
        let other = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            name.to_string()
        };
        let (hour, days) = (3600, 2 * 24 * 3600);
        let orphan = other(&format!("{}123456789abc{SUFFIX}", prefix()), 1);
        let (young, old) = (other(".gradus-elsewhere-1.tmp", hour), other(".gradus-elsewhere-2.tmp", days));
        let strangers = [other(".gradus-note", days), other("gradus-1.tmp", days), other(".run.tmp", days)];
        fs::create_dir(folder.path().join(".gradus-folder.tmp")).unwrap();

        let own = create(folder.path(), 0o666).unwrap();
        clear(folder.path(), &own);
        let left = names(folder.path());
        let name = |file: &NamedTempFile| file.path().file_name().unwrap().to_str().unwrap().to_string();
        let mut expected = vec![name(&held), name(&own), young, ".gradus-folder.tmp".into()];
        expected.extend(strangers);
        if prefix() == TEMPORARY {
            expected.push(orphan); // a machine that does not say when it was started: in a day
        }
        expected.sort();
        assert_eq!(left, expected);
        assert!(!left.contains(&old));
    }

    /// Makers and removers at the same time: what has been made is there until it is let go.
    #[test]
    fn nothing_that_is_held_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let removers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let own = create(folder.path(), 0o666).unwrap();
                        while !done.load(Ordering::Relaxed) {
                            clear(folder.path(), &own);
                        }
                    })
                })
                .collect();
            for _ in 0..2000 {
                let file = create(folder.path(), 0o666).unwrap();
                thread::yield_now();
                assert!(file.path().exists());
            }
            done.store(true, Ordering::Relaxed);
            removers.into_iter().for_each(|remover| remover.join().unwrap());
        });
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
