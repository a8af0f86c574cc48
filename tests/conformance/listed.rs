//! The list of optimizers, compared with every place that an optimizer is to be in.

use gradus::optimizer::NAMES;

use super::rows::{Oracle, rows};

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_optimizer_has_a_row_golden_numbers_and_docs() {
    let names = || NAMES.iter().flat_map(|file| file.iter());
    let golden = |lower: &str| {
        let path = format!("{}/tests/golden/{lower}.json", env!("CARGO_MANIFEST_DIR"));
        std::path::Path::new(&path).exists()
            || ["curvature", "matrices", "memory", "options", "parameter_free", "preconditioned"]
                .iter()
                .any(|file| read(&format!("tests/golden/{file}.json")).contains(&format!("\"name\":\"{lower}\"")))
    };
    let (readme, log, rows) = (read("README.md"), read("CHANGELOG.md"), rows::<f64>());
    let guide = read("guide/which_optimizer.md");
    let chosen =
        |name: &str| [format!("\n| [`{name}`]("), format!("\n| `{name}` |")].iter().any(|row| guide.contains(row));
    let mut missing = Vec::new();
    for name in names() {
        let lower = name.to_lowercase();
        let places = [
            ("a row in tests/conformance/", rows.iter().any(|row| row.name == lower)),
            ("numbers in tests/golden/", golden(&lower)),
            ("its name in the README's table", readme.contains(&format!("`{name}`"))),
            ("a row in guide/which_optimizer.md", chosen(name)),
            ("a line in the CHANGELOG", log.contains(name)),
        ];
        missing
            .extend(places.into_iter().filter(|(_, there)| !there).map(|(place, _)| format!("{name} lacks {place}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(names().count() >= 9);
}

#[test]
fn the_guide_has_the_state_of_every_element_wise_optimizer() {
    let guide = read("guide/which_optimizer.md");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for name in NAMES.iter().flat_map(|file| file.iter()) {
        let plain = rows::<f64>().into_iter().find(|row| row.name == name.to_lowercase());
        let Some(row) = plain.filter(|row| matches!(row.oracle, Oracle::Element(_))) else { continue };
        let line = guide.lines().find(|line| line.starts_with(&format!("| [`{name}`](")));
        let state = line.and_then(|line| line.split(" | ").nth(2)).unwrap_or_default();
        let arrays: String = state.chars().take_while(char::is_ascii_digit).collect();
        seen += 1;
        if arrays != row.slots.len().to_string() {
            wrong.push(format!("{name}: the guide has {state:?}, and there are {} slots", row.slots.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 10, "only {seen} rows were compared");
}
