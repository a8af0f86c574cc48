//! The number of bytes that ranks send, and the size of a message.

/// The default size of a message, that of PyTorch's buckets.
pub(super) const BUCKET_BYTES: usize = 25 << 20;

/// How many elements a bucket of so many bytes holds, at least one.
pub(super) fn bucket_elements<A>(bytes: usize) -> usize {
    (bytes / size_of::<A>()).max(1)
}

/// The bytes of gradients and parameters that a rank has passed to its group, each counted once. An engine may send them several times.
///
/// The parameters sent at the start, and the few bytes with which ranks agree on a step, are not counted.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes of the last step that sent something.
    pub last_step: u64,
    /// Bytes of all steps.
    pub total: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, bytes: u64) {
        *self = Self { last_step: bytes, total: self.total.saturating_add(bytes) };
    }
}
