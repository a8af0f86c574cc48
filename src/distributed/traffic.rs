//! What goes from rank to rank: how much, and how much at once.

/// The size of a message unless another is given: that of PyTorch's buckets.
pub(super) const BUCKET_BYTES: usize = 25 << 20;

/// How many elements a bucket of so many bytes holds, at least one.
pub(super) fn bucket_elements<A>(bytes: usize) -> usize {
    (bytes / size_of::<A>()).max(1)
}

/// The bytes that a rank has handed to its group to bring gradients or parameters together, for each of them once: how often an
/// engine sends them on is its own affair.
///
/// Parameters at the start and the few bytes with which ranks agree about a step are not in it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Those of the last step in which something was sent.
    pub last_step: u64,
    /// Those of all steps.
    pub total: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, bytes: u64) {
        *self = Self { last_step: bytes, total: self.total.saturating_add(bytes) };
    }
}
