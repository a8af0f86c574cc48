//! The path of a tensor during a walk through its tree.

use std::fmt;

/// The path of a tensor during a walk through its tree. It is a linked list on the stack, so a walk allocates no strings.
///
/// [`Display`](fmt::Display) writes the dotted form, `layers.0.weight`. The path of the root is empty.
#[derive(Debug, Clone, Copy)]
pub struct Path<'v> {
    pub(super) parent: Option<&'v Path<'v>>,
    pub(super) segment: Segment<'v>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Segment<'v> {
    Root,
    Name(&'v str),
    Index(usize),
}

impl Path<'_> {
    pub(super) const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    /// Whether the dotted form of this path is `text`. The dotted form is not built.
    #[inline]
    pub fn is(&self, text: &str) -> bool {
        let (mut path, mut text) = (self, text.as_bytes());
        loop {
            let rest = match path.segment {
                Segment::Root => return text.is_empty(),
                Segment::Name(name) => text.strip_suffix(name.as_bytes()),
                Segment::Index(index) => strip_index_from_end(text, index),
            };
            let (Some(rest), Some(parent)) = (rest, path.parent) else { return false };
            (path, text) = match (parent.is_root(), rest.strip_suffix(b".")) {
                (true, _) => return rest.is_empty(),
                (false, Some(rest)) => (parent, rest),
                (false, None) => return false,
            };
        }
    }

    /// Whether the tensor with the dotted path `text` is below this path.
    pub fn is_above(&self, text: &str) -> bool {
        if self.is_root() { !text.is_empty() } else { self.strip(text).is_some_and(|rest| rest.starts_with('.')) }
    }

    /// Writes the dotted form.
    pub(crate) fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|parent| !parent.is_root()) {
            parent.write_to(text)?;
            text.write_char('.')?;
        }
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Name(name) => text.write_str(name),
            Segment::Index(index) => write!(text, "{index}"),
        }
    }

    fn is_root(&self) -> bool {
        matches!(self.segment, Segment::Root)
    }

    /// What remains of `text` behind this path.
    fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        let text = match self.parent {
            Some(parent) if !parent.is_root() => parent.strip(text)?.strip_prefix('.')?,
            _ => text,
        };
        match self.segment {
            Segment::Root => Some(text),
            Segment::Name(name) => text.strip_prefix(name),
            Segment::Index(index) => strip_index(text, index),
        }
    }
}

/// Takes the decimal digits of `index` off the end of `text`.
#[inline]
fn strip_index_from_end(mut text: &[u8], index: usize) -> Option<&[u8]> {
    let mut remaining = index;
    loop {
        let (last, rest) = text.split_last()?;
        if *last != b'0' + (remaining % 10) as u8 {
            return None;
        }
        (remaining, text) = (remaining / 10, rest);
        if remaining == 0 {
            return Some(text);
        }
    }
}

/// Takes the decimal digits of `index` off the front of `text`.
fn strip_index(text: &str, index: usize) -> Option<&str> {
    let digits = index.checked_ilog10().unwrap_or(0) as usize + 1;
    let (head, rest) = text.split_at_checked(digits)?;
    let mut remaining = index;
    for byte in head.bytes().rev() {
        if byte != b'0' + (remaining % 10) as u8 {
            return None;
        }
        remaining /= 10;
    }
    Some(rest)
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_compared_without_being_built() {
        let layers = Path { parent: Some(&Path::ROOT), segment: Segment::Name("layers") };
        let tenth = Path { parent: Some(&layers), segment: Segment::Index(10) };
        let weight = Path { parent: Some(&tenth), segment: Segment::Name("weight") };
        assert_eq!(weight.to_string(), "layers.10.weight");
        assert!(weight.is("layers.10.weight"));
        for other in ["layers.1.weight", "layers.10.weights", "layers.10", "layer.10.weight", "", "layers.100.weight"] {
            assert!(!weight.is(other), "{other}");
        }
        assert!(tenth.is_above("layers.10.weight") && !tenth.is_above("layers.10"));
        assert!(!tenth.is_above("layers.100.weight") && !tenth.is_above("layers.1"));
        assert!(
            Path::ROOT.is_above("anything") && !Path::ROOT.is_above("") && Path::ROOT.is("") && !Path::ROOT.is("x")
        );
    }

    #[test]
    fn an_index_is_compared_by_its_digits() {
        assert_eq!(strip_index("0.w", 0), Some(".w"));
        assert_eq!(strip_index("907", 907), Some(""));
        assert_eq!(strip_index("97", 907), None);
        assert_eq!(strip_index("é", 1), None);
    }
}
