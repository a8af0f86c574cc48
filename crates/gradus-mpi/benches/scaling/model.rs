//! The time of a collective call on paper: a latency α a message, and a time β a byte.

/// Seconds a message and seconds a byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    alpha: f64,
    beta: f64,
}

/// The messages and the bytes that a rank sends one after the other.
#[derive(Debug, Clone, Copy)]
struct Cost {
    messages: f64,
    bytes: f64,
}

/// What ranks tell each other before a call.
const AGREEMENT: f64 = 56.0;

impl Cost {
    /// All ranks get the bytes of all, few of them: twice as many with each message.
    fn short_gather(ranks: f64, bytes: f64) -> Self {
        Self { messages: ranks.log2(), bytes: (ranks - 1.0) * bytes }
    }

    /// A sum in as many messages as that.
    fn short_sum(ranks: f64, bytes: f64) -> Self {
        Self { messages: ranks.log2(), bytes: ranks.log2() * bytes }
    }

    /// Once around the ring: a reduce-scatter, or an all-gather, of so many bytes in all.
    fn round(ranks: f64, bytes: f64) -> Self {
        Self { messages: ranks - 1.0, bytes: (ranks - 1.0) / ranks * bytes }
    }
}

impl Network {
    pub(crate) fn alpha(&self) -> f64 {
        self.alpha
    }

    pub(crate) fn beta(&self) -> f64 {
        self.beta
    }

    /// From the times of all-reduces of so many bytes on 2 ranks; every point counts by its relative error.
    pub(crate) fn fit(points: &[(f64, f64)]) -> Self {
        // time ≈ α·messages + β·bytes: least squares of (time − model)/time. The short sum is the faster one on 2 ranks.
        let [mut aa, mut ab, mut bb, mut a, mut b] = [0.0; 5];
        for (bytes, time) in points {
            let costs = [Cost::short_gather(2.0, AGREEMENT), Cost::short_sum(2.0, *bytes)];
            let messages = costs.iter().map(|cost| cost.messages).sum::<f64>() / time;
            let bytes = costs.iter().map(|cost| cost.bytes).sum::<f64>() / time;
            aa += messages * messages;
            ab += messages * bytes;
            bb += bytes * bytes;
            a += messages;
            b += bytes;
        }
        let determinant = aa * bb - ab * ab;
        Self { alpha: (a * bb - b * ab) / determinant, beta: (b * aa - a * ab) / determinant }
    }

    fn time(&self, costs: &[Cost]) -> f64 {
        costs.iter().map(|cost| self.alpha * cost.messages + self.beta * cost.bytes).sum()
    }

    /// A call without data.
    pub(crate) fn agreement(&self, ranks: f64) -> f64 {
        self.time(&[Cost::short_gather(ranks, AGREEMENT)])
    }

    pub(crate) fn all_reduce(&self, ranks: f64, bytes: f64) -> f64 {
        let long = self.time(&[Cost::round(ranks, bytes); 2]);
        self.agreement(ranks) + long.min(self.time(&[Cost::short_sum(ranks, bytes)]))
    }

    /// The words of the ranks about a step.
    fn words(&self, ranks: f64) -> f64 {
        self.agreement(ranks) + self.time(&[Cost::short_gather(ranks, 9.0)])
    }

    /// The communication of a step with so many bytes of gradients, in one message.
    pub(crate) fn data_parallel(&self, ranks: f64, bytes: f64) -> f64 {
        self.words(ranks) + self.all_reduce(ranks, bytes)
    }

    pub(crate) fn sharded(&self, ranks: f64, bytes: f64) -> f64 {
        self.words(ranks) + 2.0 * self.agreement(ranks) + self.time(&[Cost::round(ranks, bytes); 2])
    }
}
