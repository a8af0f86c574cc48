//! Errors of files.

use super::text::Name;

/// Why a file cannot be read or written.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FileError {
    /// The operating system returned an error.
    #[error("{}: {reason}", .path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The kind of the operating system's error.
        kind: std::io::ErrorKind,
        /// Its message.
        reason: String,
    },

    /// The file has parameters, but no optimizer state.
    #[error("the file has no optimizer state; use `load_params` to load the parameters alone")]
    NoOptimizerState,

    /// A tensor has a name that the file format reserves.
    #[error("the safetensors format reserves the name {}; rename the tensor", Name(.path))]
    ReservedName {
        /// The tensor's path.
        path: String,
    },

    /// The bytes are not in the safetensors format: truncated, or of another format.
    #[error("not a checkpoint: {reason}")]
    NotACheckpoint {
        /// What is wrong.
        reason: String,
    },

    /// The checkpoint was written by a later version of this library.
    #[error("the checkpoint has format version {found}; this library reads version {supported}")]
    CheckpointVersion {
        /// The version of the file.
        found: String,
        /// The version that can be read.
        supported: &'static str,
    },

    /// The bytes of the checkpoint have changed since it was written.
    #[error("the checkpoint is corrupted: its bytes have the checksum {found}, and {expected} was written")]
    Corrupted {
        /// The checksum that was written.
        expected: String,
        /// The checksum of the bytes.
        found: String,
    },
}
