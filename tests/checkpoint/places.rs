//! Where a file is saved: over an old one, through a link, beside what others have left there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use gradus::Error;
use gradus::checkpoint::Checkpoint;
use gradus::error::FileError;
use ndarray::{Array1, array};

fn one(value: f64) -> Checkpoint {
    Checkpoint::of_params(&array![value]).unwrap()
}

fn read(path: &Path) -> f64 {
    let mut params = Array1::zeros(1);
    Checkpoint::open(path).unwrap().load_params(&mut params).unwrap();
    params[0]
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_mode_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        for kept in [0o600, 0o640, 0o664, 0o400, 0o755] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
            one(1.0).save(&path).unwrap();
            assert_eq!((mode(&path), read(&path)), (kept, 1.0));
            fs::remove_file(&path).unwrap();
        }
        // A new file has the mode that any new file has.
        fs::write(folder.path().join("any"), "").unwrap();
        one(1.0).save(&path).unwrap();
        assert_eq!(mode(&path), mode(&folder.path().join("any")));
    }

    /// Only root may give files away.
    #[test]
    fn the_owner_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        fs::write(&path, "old").unwrap();
        let given = std::os::unix::fs::chown(&path, Some(1234), Some(4321)).is_ok();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let owner =
            |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid(), file.mode() & 0o7777)).unwrap();
        let before = owner(&path);
        assert!(!given || before == (1234, 4321, 0o640));
        one(1.0).save(&path).unwrap();
        assert_eq!(owner(&path), before);
    }

    #[test]
    fn a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("far/away")).unwrap();
        one(1.0).save(at("far/away/run.safetensors")).unwrap();
        symlink("far/away/run.safetensors", at("near")).unwrap();
        symlink(at("near"), at("far/nearer")).unwrap();
        symlink("away", at("far/here")).unwrap();
        symlink("../../far/nearer", at("far/here/nearest")).unwrap();
        for (number, name) in ["near", "far/nearer", "far/here/nearest"].into_iter().enumerate() {
            one(number as f64).save(at(name)).unwrap();
            assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink(), "{name}");
            assert_eq!(read(&at("far/away/run.safetensors")), number as f64, "{name}");
        }
        // To where nothing is yet.
        symlink("far/new.safetensors", at("new")).unwrap();
        one(5.0).save(at("new")).unwrap();
        assert_eq!((read(&at("far/new.safetensors")), read(&at("new"))), (5.0, 5.0));
        // In a circle.
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(matches!(one(1.0).save(at("a")), Err(Error::File(FileError::Io { .. }))));
        assert_eq!(names(folder.path()), ["a", "b", "far", "near", "new"]);
        assert_eq!(names(&at("far/away")), ["nearest", "run.safetensors"]);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("fifo", at("link")).unwrap();
        for name in ["fifo", "socket", "link"] {
            let error = one(1.0).save(at(name)).unwrap_err();
            assert!(error.to_string().ends_with("it is no regular file; no other is replaced"), "{error}");
        }
        assert!(!fs::metadata(at("fifo")).unwrap().is_file());
        assert_eq!(names(folder.path()), ["fifo", "link", "socket"]);
    }
}

/// Files that an earlier process of the same number has left: containers begin counting at 1.
#[test]
fn names_of_temporary_files_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    for count in 0..2000 {
        fs::write(folder.path().join(format!(".run.safetensors.{}-{count}.tmp", std::process::id())), "").unwrap();
    }
    one(2.0).save(&path).unwrap();
    assert_eq!(read(&path), 2.0);
}

#[test]
fn many_save_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    one(0.0).save(&path).unwrap();
    thread::scope(|scope| {
        for number in 0..4 {
            let path = &path;
            scope.spawn(move || (0..25).for_each(|_| one(f64::from(number)).save(path).unwrap()));
        }
        (0..100).for_each(|_| assert!((0.0..4.0).contains(&read(&path))));
    });
    assert_eq!(names(folder.path()), ["run.safetensors"]);
}

#[test]
fn the_longest_name_a_file_can_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w".repeat(255));
    one(3.0).save(&path).unwrap();
    assert_eq!(read(&path), 3.0);
}

#[test]
fn a_name_that_the_format_cannot_hold_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    one(4.0).save(&path).unwrap();
    let tree = BTreeMap::from([("__metadata__", array![1.0]), ("w", array![2.0])]);
    let file = Checkpoint::of_params(&tree).unwrap();
    let expected = Error::File(FileError::ReservedName { path: "__metadata__".into() });
    assert_eq!(file.to_bytes().unwrap_err(), expected);
    assert_eq!(file.save(&path).unwrap_err(), expected);
    assert_eq!(read(&path), 4.0);
}

/// All others come back, whatever they are made of.
#[test]
fn names_of_any_letters() {
    let names = [
        "",
        ".",
        "a.b",
        "format",
        "version",
        "checksum",
        "layout",
        "gradus.version",
        "note/x",
        "__metadata__.weight",
        "x.__metadata__",
        "\"",
        "\\",
        "\0",
        "\n",
        "ü",
        "\u{1f980}",
        "\u{feff}",
        "optimizer",
        "optimizer.adam",
        "/",
        "null",
    ];
    let tree: BTreeMap<_, _> = names.iter().zip(0..).map(|(name, number)| (*name, array![f64::from(number)])).collect();
    let file = Checkpoint::of_params(&tree).unwrap().note("", 1).note("\"\\\0", "\u{1f980}").note("__metadata__", 2);
    let read = Checkpoint::from_bytes(&file.to_bytes().unwrap()).unwrap();
    assert_eq!(read, file);
    let mut loaded: BTreeMap<_, _> = names.iter().map(|name| (*name, array![-1.0])).collect();
    read.load_params(&mut loaded).unwrap();
    assert_eq!(loaded, tree);
}
