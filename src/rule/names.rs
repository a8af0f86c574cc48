//! The names of a rule's slots.

use crate::kernel::four_bits::Map;

/// The slots of a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Names {
    pub(super) all: &'static [&'static str],
    /// Those of them that are never negative.
    pub(super) non_negative: &'static [&'static str],
}

impl Names {
    /// Whether a tensor's slots have these names.
    #[inline]
    pub(super) fn are(self, known: &'static [&'static str]) -> bool {
        // They almost always are one list, and comparing texts would take as long as stepping 64 elements.
        std::ptr::eq(self.all, known) || self.all == known
    }

    /// What the codes of a slot in 4 bits stand for.
    pub(super) fn map(self, name: &str) -> Map {
        if self.non_negative.contains(&name) { Map::Unsigned } else { Map::Signed }
    }
}
