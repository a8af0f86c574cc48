//! What a loop does with a chain beside stepping it: the setters of adaptors, rounds, taps, averages.

use std::sync::Arc;

use gradus::adaptor::{
    Accumulate, Adapted, Ema, Finite, Freeze, Lookahead, LossScaling, MasterWeights, MaxSkipped, Monitor,
    NarrowWeights, Router, SkipSpikes, Swa, Transform, Transforming, ZeroNans,
};
use gradus::curvature::Kfac;
use gradus::distributed::{Collective, DataParallel, LocalSteps, Sharded};
use gradus::federated::{Proximal, Scaffold, Task, Tensors};
use gradus::rule::{Elementwise, Factored, FactoredRule, MatrixRule, Matrixwise, Rule};
use gradus::{Element, LinearTap, Optimizer, Result, Scalar};
use ndarray::Array2;

use crate::own::{OwnAdaptor, OwnOptimizer};
use crate::report::random;
use crate::trees::Tree;
use gradus::Lbfgs;
use rand::RngExt;

/// A chain that setters can reach into.
pub(crate) type Boxed<A> = Box<dyn Act<A>>;

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Unfreeze(Vec<String>),
    Refreeze(Vec<String>),
    UnfreezeAll,
    /// Forgets gathered gradients, or taps.
    Discard,
    BeginRound(u64),
    EndRound,
    /// Reads the averages, which changes nothing.
    Read,
    /// Exchanges parameters and averages, and exchanges them back.
    Swap,
    /// Shows K-FAC a layer, of numbers from this seed.
    Tap(u64),
}

/// An optimizer with its setters: `depth` says how many adaptors from the outside.
pub(crate) trait Act<A: Element>: Optimizer<A> {
    fn act(&mut self, depth: usize, action: &Action, params: &mut Tree<A>) -> Result<()>;
}

/// A way through; what has setters of its own says what they are.
macro_rules! passes {
    ($(<$($generic:ident $(: $bound:path)?),*> $adaptor:ty $(, $own:ident)?;)*) => {
        $(
            impl<A: Element $(, $generic $(: $bound)?)*> Act<A> for $adaptor {
                fn act(&mut self, depth: usize, action: &Action, params: &mut Tree<A>) -> Result<()> {
                    if depth > 0 {
                        return self.inner_mut().act(depth - 1, action, params);
                    }
                    $($own(self, action, params)?;)?
                    Ok(())
                }
            }
        )*
    };
}

passes! {
    <T: Transform<A>> Adapted<Boxed<A>, Transforming<T>>;
    <> Adapted<Boxed<A>, Accumulate<A>>, accumulate;
    <> Adapted<Boxed<A>, Ema<A>>, ema;
    <> Adapted<Boxed<A>, Finite>;
    <> Adapted<Boxed<A>, LossScaling>;
    <> Adapted<Boxed<A>, MaxSkipped>;
    <> Adapted<Boxed<A>, Monitor<A>>;
    <> Adapted<Boxed<A>, SkipSpikes>;
    <> Adapted<Boxed<A>, ZeroNans>;
    <> Adapted<Boxed<A>, Freeze>, freeze;
    <> Adapted<Boxed<A>, Lookahead<A>>;
    <> Adapted<Boxed<A>, Swa<A>>, swa;
    <> Adapted<Boxed<A>, Proximal<A>>, proximal;
    <> Adapted<Boxed<A>, Scaffold<A>>, scaffold;
}

impl<A: Element, G: Collective<A>> Act<A> for DataParallel<Boxed<A>, G, A> {
    fn act(&mut self, depth: usize, action: &Action, params: &mut Tree<A>) -> Result<()> {
        if depth > 0 { self.inner_mut().act(depth - 1, action, params) } else { Ok(()) }
    }
}

/// The optimizer inside of these two has other tensors, or another copy.
impl<A: Element, G: Collective<A>> Act<A> for Sharded<Boxed<A>, G, A> {
    fn act(&mut self, _: usize, _: &Action, _: &mut Tree<A>) -> Result<()> {
        Ok(())
    }
}

impl<A: Element, U: Optimizer<A>, G: Collective<A>> Act<A> for LocalSteps<Boxed<A>, U, G, A> {
    fn act(&mut self, depth: usize, action: &Action, params: &mut Tree<A>) -> Result<()> {
        if depth > 0 { self.inner_mut().act(depth - 1, action, params) } else { Ok(()) }
    }
}

impl<H: Element> Act<H> for MasterWeights<Boxed<f32>, H> {
    fn act(&mut self, _: usize, _: &Action, _: &mut Tree<H>) -> Result<()> {
        Ok(())
    }
}

impl<H: Element> Act<H> for NarrowWeights<Boxed<f32>, H>
where
    Self: Optimizer<H>,
{
    fn act(&mut self, _: usize, _: &Action, _: &mut Tree<H>) -> Result<()> {
        Ok(())
    }
}

impl<A: Element> Act<A> for OwnAdaptor<A> {
    fn act(&mut self, depth: usize, action: &Action, params: &mut Tree<A>) -> Result<()> {
        if depth > 0 { self.inner.act(depth - 1, action, params) } else { Ok(()) }
    }
}

impl<A: Element> Act<A> for Router<A> {
    fn act(&mut self, _: usize, _: &Action, _: &mut Tree<A>) -> Result<()> {
        Ok(())
    }
}

macro_rules! has_none {
    ($(<$($generic:ident: $bound:path),*> $optimizer:ty;)*) => {
        $(
            impl<A: Scalar $(, $generic: $bound)*> Act<A> for $optimizer {
                fn act(&mut self, _: usize, _: &Action, _: &mut Tree<A>) -> Result<()> {
                    Ok(())
                }
            }
        )*
    };
}

has_none! {
    <R: Rule<A>> Elementwise<R, A>;
    <R: MatrixRule<A>> Matrixwise<R, A>;
    <R: FactoredRule<A>> Factored<R, A>;
    <> Lbfgs<A>;
    <> OwnOptimizer;
}

fn accumulate<A: Element>(opt: &mut Accumulate<A>, action: &Action, _: &mut Tree<A>) -> Result<()> {
    if let Action::Discard = action {
        opt.discard();
    }
    Ok(())
}

fn freeze<A: Element>(opt: &mut Freeze, action: &Action, _: &mut Tree<A>) -> Result<()> {
    match action {
        Action::Unfreeze(pattern) => opt.unfreeze(pattern.clone()),
        Action::Refreeze(pattern) => opt.refreeze(pattern.clone()),
        Action::UnfreezeAll => {
            opt.unfreeze_all();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn ema<A: Element>(opt: &mut Ema<A>, action: &Action, params: &mut Tree<A>) -> Result<()> {
    match action {
        Action::Read => opt.read(&mut params.clone()),
        Action::Swap => opt.swap(params).and_then(|()| opt.swap(params)),
        _ => Ok(()),
    }
}

fn swa<A: Element>(opt: &mut Swa<A>, action: &Action, params: &mut Tree<A>) -> Result<()> {
    match action {
        Action::Read => opt.read(&mut params.clone()),
        Action::Swap => opt.swap(params).and_then(|()| opt.swap(params)),
        _ => Ok(()),
    }
}

fn proximal<A: Element>(opt: &mut Proximal<A>, action: &Action, params: &mut Tree<A>) -> Result<()> {
    match action {
        Action::BeginRound(round) => opt.begin_round(&Task::new(*round, params.clone())),
        _ => Ok(()),
    }
}

fn scaffold<A: Element>(opt: &mut Scaffold<A>, action: &Action, params: &mut Tree<A>) -> Result<()> {
    match action {
        Action::BeginRound(round) => {
            let mut control = Tensors::of(params)?;
            control.values_mut().fill(A::from_f64(0.125));
            let accepted = (round % 2 == 0).then(|| round.wrapping_sub(1));
            opt.begin_round(&Task::new(*round, params.clone()).with_control(Arc::new(control)).with_accepted(accepted))
        }
        Action::EndRound => opt.end_round(params).map(drop),
        _ => Ok(()),
    }
}

impl<A: Scalar> Act<A> for Adapted<Boxed<A>, Kfac<A>> {
    fn act(&mut self, depth: usize, action: &Action, params: &mut Tree<A>) -> Result<()> {
        if depth > 0 {
            return self.inner_mut().act(depth - 1, action, params);
        }
        match action {
            Action::Discard => self.discard(),
            Action::Tap(seed) => {
                let layers: Vec<_> = params.names().into_iter().filter(|(_, shape)| shape.len() >= 2).collect();
                let mut random = random(*seed, 7);
                if layers.is_empty() {
                    return Ok(());
                }
                let (path, shape) = &layers[random.random_range(0..layers.len())];
                let mut rows = |columns| {
                    Array2::from_shape_simple_fn((3, columns), || A::from_f64(random.random_range(-1.0..1.0)))
                };
                let (output, input) = (rows(shape[0]), rows(shape[1..].iter().product()));
                return self.observe(path, LinearTap::new(&input, &output));
            }
            _ => {}
        }
        Ok(())
    }
}
