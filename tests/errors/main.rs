//! Every error: what provokes it, what it says, and that it leaves everything as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod asked;
mod atomic;
mod every_adaptor;
mod messages;
mod ranges;

use std::collections::BTreeSet;
use std::path::Path;

/// The name of an error's variant, without its room.
fn variant(error: &gradus::Error) -> String {
    let text = format!("{error:#?}");
    let mut words = text.split([' ', '(', ')', ',', '\n']).filter(|word| !word.is_empty());
    if let Some((_, problem)) = text.split_once("problem: ") {
        return problem.split(' ').next().unwrap().to_owned();
    }
    let (first, second) = (words.next().unwrap(), words.next().unwrap_or_default());
    let is_room = text[first.len()..].starts_with('(') && second.starts_with(|c: char| c.is_ascii_uppercase());
    if is_room { second.to_owned() } else { first.to_owned() }
}

/// The names of all variants, from the source of the rooms.
fn declared() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/error");
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let body = source.lines().skip_while(|line| !line.starts_with("pub enum"));
        let body = body.skip(1).take_while(|line| *line != "}").filter_map(|line| line.strip_prefix("    "));
        let variants =
            body.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()) && !line.ends_with("Error),"));
        names.extend(variants.filter_map(|line| line.split([' ', '(', ',']).next().map(str::to_owned)));
    }
    names
}
