//! The methods that a feature adds to [`OptimizerExt`](super::OptimizerExt), while it is off: each is a compile error that names the
//! feature. The prelude brings them into scope.

use crate::params::Element;
use crate::step::Optimizer;

/// Methods of features that are off.
pub trait FeaturesOff<A: Element>: Optimizer<A> {
    #[cfg(not(feature = "distributed"))]
    fn data_parallel<G>(self, _group: G)
    where
        Self: Sized + Distributed,
    {
    }

    #[cfg(not(feature = "distributed"))]
    fn sharded<G>(self, _group: G)
    where
        Self: Sized + Distributed,
    {
    }

    #[cfg(not(feature = "distributed"))]
    fn local_steps<U>(self, _every: u64, _outer: U)
    where
        Self: Sized + Distributed,
    {
    }

    #[cfg(not(feature = "federated"))]
    fn proximal<H>(self, _mu: H)
    where
        Self: Sized + Federated,
    {
    }

    #[cfg(not(feature = "federated"))]
    fn scaffold(self)
    where
        Self: Sized + Federated,
    {
    }

    #[cfg(not(feature = "half"))]
    fn master_weights(self)
    where
        Self: Sized + Half,
    {
    }

    #[cfg(not(feature = "half"))]
    fn stochastic_rounding(self, _seed: u64)
    where
        Self: Sized + Half,
    {
    }

    #[cfg(not(feature = "half"))]
    fn kahan(self)
    where
        Self: Sized + Half,
    {
    }

    #[cfg(not(feature = "second-order"))]
    fn kfac(self)
    where
        Self: Sized + SecondOrder,
    {
    }
}

impl<A: Element, O: Optimizer<A> + ?Sized> FeaturesOff<A> for O {}

/// No type has this.
#[cfg(not(feature = "distributed"))]
#[diagnostic::on_unimplemented(
    message = "this method needs the feature `distributed` of gradus",
    label = "the feature `distributed` is off",
    note = "in `Cargo.toml`: `gradus = {{ version = \"…\", features = [\"distributed\"] }}`"
)]
pub trait Distributed {}

/// No type has this.
#[cfg(not(feature = "federated"))]
#[diagnostic::on_unimplemented(
    message = "this method needs the feature `federated` of gradus",
    label = "the feature `federated` is off",
    note = "in `Cargo.toml`: `gradus = {{ version = \"…\", features = [\"federated\"] }}`"
)]
pub trait Federated {}

/// No type has this.
#[cfg(not(feature = "half"))]
#[diagnostic::on_unimplemented(
    message = "this method needs the feature `half` of gradus",
    label = "the feature `half` is off",
    note = "in `Cargo.toml`: `gradus = {{ version = \"…\", features = [\"half\"] }}`"
)]
pub trait Half {}

/// No type has this.
#[cfg(not(feature = "second-order"))]
#[diagnostic::on_unimplemented(
    message = "this method needs the feature `second-order` of gradus",
    label = "the feature `second-order` is off",
    note = "in `Cargo.toml`: `gradus = {{ version = \"…\", features = [\"second-order\"] }}`"
)]
pub trait SecondOrder {}
