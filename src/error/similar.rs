//! Names that may have been meant.

/// The names that are most similar to a missing one, at most three.
pub(crate) fn similar_to<'n>(missing: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let near = names.map(|name| (if are_initials(missing, name) { 0 } else { distance(missing, name) }, name));
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

/// Whether a text is the initials of a name of several words: `lr` of `learning_rate`.
fn are_initials(text: &str, name: &str) -> bool {
    name.contains('_') && name.split('_').filter_map(|word| word.chars().next()).eq(text.chars())
}

/// The distance of optimal alignment: insertions, deletions, replacements, and swaps of neighbors, from one text to another.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // The rows of the two last letters of `a` and of the next one.
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for (at, from) in a.iter().enumerate() {
        let mut row = vec![at + 1];
        for (column, to) in b.iter().enumerate() {
            let mut least = (last[column] + usize::from(from != to)).min(last[column + 1] + 1).min(row[column] + 1);
            if at > 0 && column > 0 && (*from, a[at - 1]) == (b[column - 1], *to) {
                least = least.min(before[column - 1] + 1);
            }
            row.push(least);
        }
        (before, last) = (last, row);
    }
    last[b.len()]
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
        assert_eq!((distance("eam", "ema"), distance("ab", "ba"), distance("ca", "abc")), (1, 1, 3));
        let names = ["ema", "sam", "learning_rate", "weight_decay"];
        assert_eq!(similar_to("eam", names.into_iter()), ["ema", "sam"]);
        assert_eq!(similar_to("lr", names.into_iter()), ["learning_rate"]);
        assert_eq!(similar_to("wd", names.into_iter()), ["weight_decay"]);
    }
}
