//! Files that records are appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::Record;
use super::{events, lines};
use crate::error::{Error, FileError, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Format {
    Csv,
    JsonLines,
    Events,
}

/// A file, opened when it is first written.
#[derive(Debug)]
pub(super) struct Sink {
    format: Format,
    path: PathBuf,
    file: Option<File>,
    /// What is not yet in the file.
    waiting: Vec<u8>,
}

impl Sink {
    pub(super) fn new(format: Format, path: PathBuf) -> Self {
        Self { format, path, file: None, waiting: Vec::new() }
    }

    /// The same file, not yet opened.
    pub(super) fn again(&self) -> Self {
        Self::new(self.format, self.path.clone())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is open and nothing waits.
    pub(super) fn is_ready(&self) -> bool {
        self.file.is_some() && self.waiting.is_empty()
    }

    /// Opens the file and writes what waits.
    pub(super) fn ready(&mut self) -> Result<()> {
        if self.is_ready() {
            return Ok(());
        }
        self.drain().map_err(|error| {
            let (path, kind, reason) = (self.path.clone(), error.kind(), error.to_string());
            Error::File(FileError::Io { path, kind, reason })
        })
    }

    /// Writes a record. What cannot be written waits.
    pub(super) fn write(&mut self, record: &Record) {
        match self.format {
            Format::Csv => lines::csv(record, &mut self.waiting),
            Format::JsonLines => lines::json(record, &mut self.waiting),
            Format::Events => events::record(record, now().as_secs_f64(), &mut self.waiting),
        }
        _ = self.drain();
    }

    fn drain(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (file, head) = open(self.format, &self.path)?;
                self.waiting.splice(..0, head);
                none.insert(file)
            }
        };
        // Not `write_all`: after an error it is unknown how much of it has been written.
        while !self.waiting.is_empty() {
            match file.write(&self.waiting) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => _ = self.waiting.drain(..written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Sink {
    /// Puts a file that cannot be written in the place of this one.
    pub(super) fn break_file(&mut self) {
        self.file = File::open(&self.path).ok();
    }

    /// Puts the file back.
    pub(super) fn mend_file(&mut self) {
        self.file = OpenOptions::new().append(true).open(&self.path).ok();
    }
}

/// Opens a file, and returns it with what it begins with, if it is new.
fn open(format: Format, path: &Path) -> io::Result<(File, Vec<u8>)> {
    if format == Format::Events {
        fs::create_dir_all(path)?;
        return open_events(path);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let is_new = file.metadata()?.len() == 0;
    let head = if format == Format::Csv && is_new { lines::HEADER } else { "" };
    Ok((file, head.into()))
}

/// A new event file, as TensorBoard reads all of a folder in the order of their names.
fn open_events(folder: &Path) -> io::Result<(File, Vec<u8>)> {
    let (now, process) = (now(), process::id());
    for number in 0_u32.. {
        let path = folder.join(format!("events.out.tfevents.{:010}.gradus.{process}.{number}", now.as_secs()));
        match OpenOptions::new().append(true).create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let mut head = Vec::new();
                events::version(now.as_secs_f64(), &mut head);
                return Ok((file, head));
            }
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The time since 1970.
fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
