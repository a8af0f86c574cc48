//! The file system.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| at(path, &error))
}

/// Writes a file beside the old one, which it then replaces.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path).map_err(|error| at(path, &error))?;
    let written = write_through(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        _ = fs::remove_file(&temporary); // nobody needs it, whether it is there or not
        return Err(at(path, &error));
    }
    remember_name(path).map_err(|error| at(path, &error))
}

/// A name in the same folder, so that renaming moves no bytes, of this process and this call alone.
fn beside(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let process = if cfg!(target_family = "wasm") { 0 } else { process::id() }; // which has no processes
    hidden.push(format!(".{process}-{number}.tmp"));
    Ok(path.with_file_name(hidden))
}

/// On the disk, not only on its way there, before the file takes the old one's place.
fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The folder's entry is on the disk, too, where folders can be opened.
fn remember_name(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// The error of a file.
pub(crate) fn at(path: &Path, error: &io::Error) -> Error {
    Error::File { path: path.into(), kind: error.kind(), reason: error.to_string() }
}
