//! The tree of `src/` itself: no circle of imports, no long file, a top level that fits on a screen, one name for one thing.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod names;
mod tree;

use std::path::Path;

use tree::Tree;

/// The most lines of a file, with its docs and unit tests: longer ones are split by concept.
const MOST_LINES: usize = 450;

/// The most entries at the top of `src/`.
const MOST_ENTRIES: usize = 20;

fn source() -> Tree {
    Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn the_imports_of_files_make_no_circle() {
    let tree = source();
    assert!(tree.files().len() > 100, "most of the tree was not found");
    let imports = tree.imports();
    // Each kind of path is resolved: if one were not, circles through it would not be seen.
    for (from, to) in [
        ("optimizer/adam.rs", "rule/elementwise.rs"), // through a re-export
        ("step/grad/mod.rs", "params/values.rs"),     // `pub use` two modules up
        ("adaptor/ema.rs", "params/layout.rs"),
    ] {
        let found: Vec<_> = imports.get(from).into_iter().flatten().map(|(file, _)| file).collect();
        assert!(found.iter().any(|file| *file == to), "{from} imports from {to}, and found is {found:?}");
    }
    let circles = tree::circles(&imports);
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
}

#[test]
fn no_file_is_long() {
    let source = source();
    let long = source.files().iter().filter(|(_, file)| file.lines > MOST_LINES);
    let long: Vec<_> = long.map(|(name, file)| format!("{name}: {} lines", file.lines)).collect();
    assert!(long.is_empty(), "at most {MOST_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn the_top_has_few_entries() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = std::fs::read_dir(source).expect("a folder").count();
    assert!(entries <= MOST_ENTRIES, "{entries} entries at the top of src/, at most {MOST_ENTRIES}");
}

#[test]
fn no_two_things_have_one_name() {
    let wrong = names::duplicates(&source());
    assert!(wrong.is_empty(), "{} names of several things:\n{}", wrong.len(), wrong.join("\n"));
}
