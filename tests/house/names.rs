//! Names of several things.

use std::collections::BTreeMap;

use crate::tree::Tree;

/// Names that several types have, each with its files: the path of a type's module says which one it is.
const SHARED: [(&str, &[&str]); 5] = [
    // The associated types of a rule.
    ("Coefficients", &["federated/adaptive.rs", "optimizer/rmsprop.rs"]),
    // Of an optimizer, and of adapters.
    ("Config", &["lora/config.rs", "optimizer/config/document.rs"]),
    // Of clients, and of tensors.
    ("Selection", &["federated/selection.rs", "params/pattern.rs"]),
    // What seals a trait.
    ("Sealed", &["params/tree.rs", "rule/slots.rs"]),
    // A schedule, named as in PyTorch, and the step of an optimizer.
    ("Step", &["schedule/step.rs", "step/mod.rs"]),
];

/// The names of constants, and of types that the whole crate can see, that are defined more than once. Functions are called with
/// their module's name, as `file::read` and `blocks::read` are.
pub(crate) fn duplicates(tree: &Tree) -> Vec<String> {
    let mut places: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (file, read) in tree.files() {
        for defined in &read.defined {
            if defined.kind == "constant" || (defined.kind == "type" && defined.visible) {
                let files = places.entry((&defined.name, defined.kind)).or_default();
                // Once for each feature.
                if !files.contains(&file.as_str()) {
                    files.push(file);
                }
            }
        }
    }
    let shared: BTreeMap<_, _> = SHARED.into_iter().collect();
    let several = places.into_iter().filter(|((name, _), files)| {
        files.len() > 1 && shared.get(name).is_none_or(|allowed| *allowed != files.as_slice())
    });
    several.map(|((name, kind), files)| format!("{kind} {name}: {}", files.join(", "))).collect()
}
