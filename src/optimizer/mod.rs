//! The optimizers, one algorithm a file, and the methods that chain adaptors to them.
//!
//! Every named optimizer is [`Elementwise`](crate::rule::Elementwise) over a rule of its own: the rule holds the
//! hyper-parameters and the arithmetic, `Elementwise` the state and the way over memory.

mod adam;
mod ext;
#[doc(hidden)]
pub mod features_off;
mod lbfgs;
mod momentum;
mod muon;
mod nesterov;
mod rmsprop;
mod sgd;
#[cfg(feature = "second-order")]
mod shampoo;
#[cfg(feature = "second-order")]
mod soap;

pub use adam::{Adam, AdamRule, AdamW};
pub use ext::OptimizerExt;
pub use lbfgs::{Lbfgs, LbfgsReport, Stop};
pub use momentum::{Momentum, MomentumRule};
pub use muon::{Muon, MuonRule, MuonValues, newton_schulz};
pub use nesterov::{Nesterov, NesterovRule};
pub use rmsprop::{RmsProp, RmsPropRule};
pub use sgd::{Sgd, SgdRule};
#[cfg(feature = "second-order")]
pub use shampoo::{Graft, Shampoo, ShampooRule, ShampooValues};
#[cfg(feature = "second-order")]
pub use soap::{Soap, SoapRule, SoapValues};
