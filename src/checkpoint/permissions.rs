//! Modes and owners of files.

#[cfg(unix)]
use std::fs::Permissions;
use std::fs::{File, Metadata};
use std::io;

/// The mode of a new file, of which the process's umask takes its part.
pub(super) const USUAL: u32 = 0o666;

/// The mode of a file that gets another one before it is seen.
pub(super) const PRIVATE: u32 = 0o600;

#[cfg(unix)]
pub(super) fn permissions(mode: u32) -> Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// Gives a file the owner, group and mode of another. What the process may not give away stays its own; a group that is
/// another then gets no more than all others have, and nobody runs the file in another's name.
#[cfg(unix)]
pub(super) fn keep_permissions(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let own = file.metadata()?;
    let group = own.gid() == old.gid() || fchown(file, None, Some(old.gid())).is_ok();
    let owner = own.uid() == old.uid() || fchown(file, Some(old.uid()), None).is_ok();
    let mode = match (owner, group) {
        (true, true) => old.mode() & 0o7777,
        (false, true) => old.mode() & 0o777,
        (_, false) => old.mode() & 0o707 | (old.mode() & 0o7) << 3,
    };
    file.set_permissions(permissions(mode))
}

#[cfg(not(unix))]
pub(super) fn keep_permissions(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}
