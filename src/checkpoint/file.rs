//! The file system.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::orphans;
use super::permissions::{PRIVATE, USUAL, keep_permissions};
use crate::error::{Error, FileError, Result};

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| at(path, &error))
}

/// Writes a file beside the old one, which it then replaces, with the old one's mode and, if the process may give it,
/// its owner.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes).map_err(|error| at(path, &error))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, old) = destination(path)?;
    let folder = folder_of(&path);
    // Made before others are looked for: the system gives it the time by which these are old.
    let mut temporary = orphans::create(folder, if old.is_some() { PRIVATE } else { USUAL })?;
    orphans::clear(folder, &temporary);
    temporary.as_file_mut().write_all(bytes)?;
    if let Some(old) = old {
        keep_permissions(temporary.as_file(), &old)?;
    }
    // On the disk, not only on its way there, before the file takes the old one's place.
    temporary.as_file().sync_all()?;
    temporary.persist(&path).map_err(|error| error.error)?;
    remember_name(folder)
}

/// The file that a path leads to, behind all symbolic links, and what is there now.
fn destination(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
    let refused = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    let old = match fs::metadata(path) {
        Ok(old) if old.is_file() => Some(old),
        Ok(old) if old.is_dir() => return refused("it is a folder"),
        Ok(_) => return refused("it is no regular file; no other is replaced"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error), // such as links in a circle
    };
    let mut path = path.to_owned();
    while let Ok(target) = fs::read_link(&path) {
        path = folder_of(&path).join(target);
    }
    match path.file_name() {
        Some(_) => Ok((path, old)),
        None => refused("it has no file name"),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder's entry is on the disk, too, where folders can be opened.
fn remember_name(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) if cfg!(unix) => folder.sync_all(),
        _ => Ok(()),
    }
}

/// The error of a file.
pub(crate) fn at(path: &Path, error: &io::Error) -> Error {
    Error::File(FileError::Io { path: path.into(), kind: error.kind(), reason: error.to_string() })
}
