//! The migration tables of the guide, compared with the names of other libraries and with the sources of this one.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gradus::optimizer::NAMES;
use serde_json::Value;

/// How a cell begins if its optimizer is planned.
const PLANNED: &str = "not there yet";

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The files in a folder and below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A row of a table: its first cell and its second.
struct Row {
    name: String,
    answer: String,
}

/// A heading, the page that it is on, and the rows below it.
struct Section {
    page: String,
    rows: Vec<Row>,
}

/// The sections of all migration pages by their titles.
fn sections() -> BTreeMap<String, Section> {
    let mut pages = files(&folder("guide/coming_from"));
    pages.push(folder("guide/coming_from.md"));
    let mut sections = BTreeMap::new();
    for page in pages.iter().map(read) {
        let mut title = String::new();
        let mut in_code = false;
        for line in page.lines() {
            in_code ^= line.starts_with("```");
            if let Some(heading) = line.strip_prefix('#').filter(|_| !in_code) {
                title = heading.trim_start_matches('#').trim().replace('`', "");
                let empty = Section { page: page.clone(), rows: Vec::new() };
                assert!(sections.insert(title.clone(), empty).is_none(), "two sections are called {title}");
            } else if let Some(row) = line.strip_prefix("| ").filter(|_| !in_code) {
                // A `|` inside of a cell is written `\|`.
                let row = row.replace("\\|", "\u{1}");
                let mut cells = row.split('|').map(|cell| cell.trim().replace('\u{1}', "|"));
                let (name, answer) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
                sections.get_mut(&title).expect("a title before the first table").rows.push(Row { name, answer });
            }
        }
    }
    sections
}

/// The parts of a cell in backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The name that code begins with: `SGD` of `SGD(params, lr)`.
fn first_name(code: &str) -> &str {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default()
}

/// Each section that has to have the names of a library, with these names and the library's version.
fn libraries() -> Vec<(String, String, BTreeSet<String>)> {
    let names: Value = serde_json::from_str(&read(folder("tests/golden/names.json"))).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let cases = names["cases"].as_array().expect("a list").iter();
    let all = |case: &Value| case["names"].as_array().expect("a list").iter().map(text).collect();
    cases.map(|case| (text(&case["section"]), text(&case["version"]), all(case))).collect()
}

#[test]
fn every_name_of_a_library_has_a_row() {
    let sections = sections();
    let mut wrong = Vec::new();
    for (title, version, names) in libraries() {
        let section = sections.get(&title).unwrap_or_else(|| panic!("no section is called {title}"));
        if !section.page.contains(&version) {
            wrong.push(format!("{title}: the page does not have the version {version}"));
        }
        let in_rows: BTreeSet<_> = section.rows.iter().flat_map(|row| code(&row.name)).map(first_name).collect();
        let missing = names.iter().filter(|name| !in_rows.contains(name.as_str()));
        wrong.extend(missing.map(|name| format!("{title}: {name} has no row")));
        // The heading of the table, and the line below it, have no code in the first cell.
        for row in &section.rows {
            let unknown = code(&row.name).next().map(first_name).filter(|name| !names.contains(*name));
            wrong.extend(unknown.map(|name| format!("{title}: the library has no {name}")));
            if row.answer.is_empty() {
                wrong.push(format!("{title}: {} has no answer", row.name));
            }
        }
        assert!(names.len() > 2, "{title} has few names");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_optimizer_that_is_there_is_called_missing() {
    let there: BTreeSet<String> = NAMES.iter().flat_map(|file| file.iter()).map(|name| name.to_lowercase()).collect();
    let mut wrong = Vec::new();
    for (title, section) in sections() {
        for row in section.rows.iter().filter(|row| row.answer.starts_with(PLANNED)) {
            let built = code(&row.name).map(first_name).filter(|name| there.contains(&name.to_lowercase()));
            wrong.extend(built.map(|name| format!("{title}: {name} is there, and the table says \"{PLANNED}\"")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The calls in a piece of code: `new` and `beta1` of `Adam::new(lr).beta1(b)`, each with what is before it, `::` or `.`.
fn calls(code: &str) -> impl Iterator<Item = (&str, &str)> {
    code.match_indices('(').filter_map(|(end, _)| {
        let before = code[..end].trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
        let name = &code[before.len()..end];
        (!name.is_empty() && (before.ends_with('.') || before.ends_with("::"))).then_some((before, name))
    })
}

#[test]
fn the_tables_call_nothing_that_is_not_there() {
    let sources: String = files(&folder("src")).iter().map(read).collect();
    let names: BTreeSet<&str> = NAMES.iter().flat_map(|file| file.iter().copied()).collect();
    let function = |name: &str| sources.contains(&format!("fn {name}(")) || sources.contains(&format!("fn {name}<"));
    let declared = |name: &str| {
        let options = ["bool", "u64", "usize"].map(|kind| format!("{name}: {kind} = "));
        sources.contains(&format!("{name} / set_{name}: ")) || options.iter().any(|start| sources.contains(start))
    };
    let a_type = |name: &str| {
        let kinds = ["pub struct", "pub enum"];
        names.contains(name) || kinds.iter().any(|kind| sources.contains(&format!("{kind} {name}")))
    };
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (title, section) in sections() {
        // The page on candle and burn also calls functions of the crates beside this one.
        for row in section.rows.iter().filter(|_| title != "candle and burn") {
            for (before, name) in code(&row.answer).flat_map(calls) {
                let start = before.trim_end_matches(':');
                let of = &start[start.trim_end_matches(char::is_alphanumeric).len()..];
                let known = match before.ends_with("::") && of.starts_with(char::is_uppercase) {
                    true => a_type(of),
                    false => function(name) || declared(name),
                };
                seen += 1;
                if !known {
                    wrong.push(format!("{title}: {before}{name} is not there"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 200, "only {seen} calls were found");
}
