//! Differential privacy: what is limited, what noise is added, and what that gives.
