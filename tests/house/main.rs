//! The tree of `src/` itself: no circle of imports, no long file, a top level that fits on a screen, one name for one thing.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod names;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;

use tree::Tree;

/// The most lines of a file, with its docs and unit tests: longer ones are split by concept.
const MOST_LINES: usize = 450;

/// The most entries at the top of `src/`.
const MOST_ENTRIES: usize = 20;

/// Files that are longer than `MOST_LINES` still. This list only gets shorter.
const STILL_LONG: [&str; 1] = ["schedule/combinators.rs"];

/// Files that still import from each other in a circle. This list only gets shorter.
const STILL_CIRCULAR: [&str; 2] = ["schedule/combinators.rs", "schedule/mod.rs"];

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
    let known = |circle: &&tree::Circle| circle.files.iter().all(|file| STILL_CIRCULAR.contains(&file.as_str()));
    let (known, new): (Vec<_>, Vec<_>) = circles.iter().partition(known);
    let new: Vec<_> = new.iter().map(|circle| circle.text.as_str()).collect();
    assert!(new.is_empty(), "{} circles:\n{}", new.len(), new.join("\n"));
    let left = |file: &&str| !known.iter().any(|circle| circle.files.contains(*file));
    let gone: Vec<_> = STILL_CIRCULAR.into_iter().filter(left).collect();
    assert!(gone.is_empty(), "in no circle any longer, take them off the list: {gone:?}");
}

#[test]
fn no_file_is_long() {
    let long: BTreeMap<_, _> = source().files().iter().map(|(name, file)| (name.clone(), file.lines)).collect();
    let (mut wrong, listed) = (Vec::new(), |name: &String| STILL_LONG.contains(&name.as_str()));
    for (name, lines) in &long {
        if (*lines > MOST_LINES) != listed(name) {
            wrong.push(format!("{name}: {lines} lines{}", if listed(name) { ", take it off the list" } else { "" }));
        }
    }
    assert!(wrong.is_empty(), "at most {MOST_LINES} lines:\n{}", wrong.join("\n"));
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
