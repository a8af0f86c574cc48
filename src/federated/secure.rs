//! Sums of which nobody sees a part.
