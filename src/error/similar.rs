//! Names that may have been meant.

/// The names that are most similar to a missing one, at most three.
pub(crate) fn similar_to<'n>(missing: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let near = names.map(|name| (distance(missing, name), name));
    let mut near: Vec<_> = near.filter(|(distance, name)| 3 * distance <= missing.len().max(name.len())).collect();
    near.sort();
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// [`similar_to`] whatever the case of the letters: `adamw` is near `AdamW`.
#[cfg(feature = "config")]
pub(crate) fn nearest<'n>(missing: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let names: Vec<(String, &str)> = names.map(|name| (name.to_lowercase(), name)).collect();
    let similar = similar_to(&missing.to_lowercase(), names.iter().map(|(lower, _)| lower.as_str()));
    let as_written =
        |lower: String| names.iter().find(|(other, _)| *other == lower).map(|(_, name)| (*name).to_owned());
    similar.into_iter().filter_map(as_written).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements from one text to another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_come_with_the_nearest_first() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", "")), (3, 3));
        let names = ["hidden.bias", "hiden.weight", "output.weight", "hidden.weights"];
        assert_eq!(similar_to("hidden.weight", names.into_iter()), ["hidden.weights", "hiden.weight"]);
        assert!(similar_to("w", ["b", "x"].into_iter()).is_empty());
    }
}
