//! The list of optimizers, compared with every place that an optimizer is to be in.

use gradus::optimizer::NAMES;

use super::rows::rows;

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_optimizer_has_a_row_golden_numbers_and_docs() {
    let names = || NAMES.iter().flat_map(|file| file.iter());
    let golden = |lower: &str| {
        let path = format!("{}/tests/golden/{lower}.json", env!("CARGO_MANIFEST_DIR"));
        std::path::Path::new(&path).exists()
            || read("tests/golden/matrices.json").contains(&format!("\"name\":\"{lower}\""))
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
