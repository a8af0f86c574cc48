//! Options of every optimizer: what a driver makes of a tensor's direction before it moves the tensor.

use super::decay::{Decay, DecayRate, Form};
use super::lanes::Goal;
use super::measured::{Measured, Wanted};
use super::quantities::SecondMoment;
use super::rates::Pull;
use crate::error::{Error, Result, StepError};
use crate::params::Element;
use crate::schedule::line::Line;
use crate::step::Step;
use crate::step::share::Extent;

/// The options by name, and the settings of a driver that are none of its rule's.
pub(super) const OPTION_NAMES: &[&str] = &[
    "cautious",
    "cautious_decay",
    "decoupled_decay",
    "trust_ratio",
    "always_adapt",
    "update_clipping",
    "keep_norm",
    "state_precision",
];

/// The options that are on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Options {
    pub(super) cautious: bool,
    pub(super) cautious_decay: bool,
    pub(super) trust_ratio: bool,
    /// Tensors without weight decay keep the ratio 1.
    pub(super) only_decayed: bool,
    pub(super) update_clipping: bool,
    pub(super) keep_norm: bool,
    /// Weight decay is decoupled, at this rate, whatever form the rule has.
    pub(super) decoupled: Option<DecayRate>,
}

/// How a tensor moves that has been measured: `θ ← scale·(θ·shrink − step_size·direction)`. All are numbers of the type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Move {
    pub(super) step_size: f64,
    pub(super) shrink: f64,
    pub(super) scale: f64,
}

impl Options {
    /// Those of a pass that measures the norm of directions.
    pub(super) const NORM: Self = Self {
        cautious: false,
        cautious_decay: false,
        trust_ratio: true,
        only_decayed: false,
        update_clipping: false,
        keep_norm: false,
        decoupled: None,
    };

    /// Whether any is: if not, the driver need not look at each.
    pub(super) fn are_some_on(self) -> bool {
        self.measure() || self.cautious_decay || self.decoupled.is_some()
    }

    /// Whether a tensor is measured before it moves.
    pub(super) fn measure(self) -> bool {
        self.cautious || self.update_clipping || self.norms()
    }

    /// Whether the norms of parameter and direction are needed.
    pub(super) fn norms(self) -> bool {
        self.trust_ratio || self.keep_norm
    }

    /// What is summed up of the directions.
    pub(super) fn wanted(self) -> Wanted {
        Wanted { moving: self.cautious, norms: self.norms(), decaying: self.cautious_decay }
    }

    /// Whether a tensor has a ratio.
    pub(super) fn adapts(self, pull: Pull) -> bool {
        !self.only_decayed || pull.weight_decay > 0.0
    }

    /// The form of weight decay of a rule that has this one.
    pub(super) fn decay(self, rule: Decay) -> Form {
        match (rule, self.decoupled) {
            (Decay::Own, _) => Form::Own,
            (_, Some(rate)) => Form::Decoupled(rate),
            (Decay::Coupled, None) => Form::Coupled,
            (Decay::Decoupled, None) => Form::Decoupled(DecayRate::LearningRate),
        }
    }

    /// Whether the decay does not follow what changes the learning rate.
    pub(super) fn has_fixed_decay(self) -> bool {
        self.decoupled == Some(DecayRate::Fixed)
    }

    /// Returns an error if an argument of an option is out of range.
    pub(super) fn check(self) -> Result<()> {
        self.decoupled.map_or(Ok(()), DecayRate::check)
    }

    /// Returns an error if an option is not possible with a rule of this name, or a tensor cannot be measured, because other ranks have parts of it.
    pub(super) fn ensure<A: Element>(
        self,
        step: &Step<'_, A>,
        (optimizer, keeps_account, decay, moment): (&'static str, bool, Decay, Option<SecondMoment>),
    ) -> Result<()> {
        let impossible = |option, needs| Err(Error::Step(StepError::OptionNotPossible { option, optimizer, needs }));
        if self.update_clipping && moment.is_none() {
            return impossible("update_clipping", "an optimizer that averages the squared gradient");
        }
        if self.decoupled.is_some() && decay == Decay::Own {
            return impossible("decoupled_decay", "an optimizer that does not apply the weight decay itself");
        }
        if self.cautious_decay && !matches!(self.decay(decay), Form::Decoupled(_)) {
            return impossible("cautious_decay", "decoupled weight decay, as decoupled_decay makes it");
        }
        let measuring = [
            ("cautious", self.cautious),
            ("trust_ratio", self.trust_ratio),
            ("update_clipping", self.update_clipping),
            ("keep_norm", self.keep_norm),
        ];
        match measuring.into_iter().find(|(_, is_on)| *is_on) {
            None => Ok(()),
            Some((name, _)) if keeps_account => {
                impossible(name, "an optimizer whose state does not follow its own moves")
            }
            Some((name, _)) => step.share().ensure(Extent::Tensors, name),
        }
    }

    pub(super) fn describe(self, line: Line) -> Line {
        let line = line.unless("decoupled_decay", self.decoupled, None);
        let line = line.unless("cautious", self.cautious, false).unless("cautious_decay", self.cautious_decay, false);
        let line = line.unless("trust_ratio", self.trust_ratio, false).unless("always_adapt", !self.only_decayed, true);
        line.unless("update_clipping", self.update_clipping, false).unless("keep_norm", self.keep_norm, false)
    }

    /// How a tensor moves that has been measured, from step size and pull without options and the norm to keep.
    pub(super) fn of<A: Element>(self, step_size: f64, pull: Pull, measured: &Measured, norm: Option<f64>) -> Move {
        let most = A::max_value().as_f64();
        let within = |value: f64| value.clamp(-most, most);
        let is_fixed = self.has_fixed_decay();
        let mut step_size = step_size;
        if self.cautious {
            step_size = step_size * measured.elements / (measured.moving() + 1.0);
        }
        let mut factor = 1.0;
        if self.trust_ratio && self.adapts(pull) {
            // A fixed decay is no part of the update, which then does not move if the learning rate is 0.
            let decay = if is_fixed { 0.0 } else { pull.decay };
            factor = match pull.learning_rate {
                0.0 => 0.0,
                rate => measured.ratio(step_size / rate, decay / rate),
            };
        }
        if self.update_clipping {
            factor /= measured.relative_update().max(1.0);
        }
        let step_size = within(step_size * factor);
        // What changes the learning rate changes the decay that follows it.
        let decay = if is_fixed { pull.decay } else { pull.decay * factor };
        let scale = norm.map_or(1.0, |norm| measured.scale_to(norm, step_size, decay));
        Move { step_size, shrink: within(1.0 - decay), scale: within(scale) }
    }

    /// What becomes of a direction, and what the driver does to the parameter before that.
    pub(super) fn goal<A: Element>(self, Move { step_size, shrink, scale }: Move) -> (Goal<A>, A) {
        let [step_size, shrink, scale] = [step_size, shrink, scale].map(A::from_f64);
        if !self.cautious && !self.cautious_decay && !self.keep_norm {
            return (Goal::Move { step_size }, shrink);
        }
        let (before, shrink) = if self.cautious_decay { (A::one(), shrink) } else { (shrink, A::one()) };
        (Goal::MoveSelected { step_size, shrink, scale, agreeing: self.cautious }, before)
    }
}

/// In both drivers: the setters of the options.
macro_rules! options {
    ($driver:ident $(, $precision:ident)?) => {
        impl<R, A> $driver<R, A> {
            /// Moves only the elements whose direction d has the sign of the gradient g: `d ← d·[d·g > 0]·n/(a + 1)`, where n is the tensor's number of
            /// elements and a the number of those that move. Off by default.
            ///
            /// The gradient is the one that the rule sees, with coupled weight decay. Decoupled decay applies to all elements, unless
            /// [`cautious_decay`](Self::cautious_decay) is on.
            ///
            /// Cost: two passes. The first reads parameter, gradient and state.
            ///
            /// Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024,
            /// [arXiv:2411.16085](https://arxiv.org/abs/2411.16085).
            pub fn cautious(mut self, cautious: bool) -> Self {
                self.options.cautious = cautious;
                self
            }

            /// Decays only the elements that the direction d also takes towards 0: `θ ← θ − δθ·[d·θ > 0]`, where δ is the decay of the step, such as
            /// ηλ. Off by default.
            ///
            /// It needs decoupled decay: an optimizer whose decay is an L2 penalty also needs [`decoupled_decay`](Self::decoupled_decay), or the step returns
            /// [`OptionNotPossible`](crate::error::StepError::OptionNotPossible). With [`cautious`](Self::cautious), elements that do not move do
            /// not decay.
            ///
            /// Cost: one pass.
            ///
            /// Source: Chen et al., "Cautious Weight Decay", 2025, [arXiv:2510.12402](https://arxiv.org/abs/2510.12402). lion-pytorch's `cautious_wd`
            /// and heavyball's `cautious_weight_decay`.
            pub fn cautious_decay(mut self, cautious_decay: bool) -> Self {
                self.options.cautious_decay = cautious_decay;
                self
            }

            /// Makes the weight decay decoupled, whatever form the optimizer has, and sets what it is multiplied by: the learning rate, nothing,
            /// or a power of the schedule. See [`DecayRate`](crate::rule::DecayRate).
            ///
            /// Cost: one pass.
            ///
            /// ```
            /// use gradus::{prelude::*, rule::DecayRate};
            /// use ndarray::array;
            ///
            /// let mut opt = Momentum::new(0.1, 0.9).weight_decay(0.01).decoupled_decay(DecayRate::Fixed);
            /// let mut w = array![1.0];
            /// opt.step(&mut w, &array![0.0])?;
            /// assert_eq!(w, array![0.99]);
            /// # Ok::<(), gradus::Error>(())
            /// ```
            pub fn decoupled_decay(mut self, rate: $crate::rule::DecayRate) -> Self {
                self.options.decoupled = Some(rate);
                self
            }

            /// Multiplies the learning rate of each tensor by its trust ratio φ = ‖θ‖/‖r‖, where `r` is the tensor's step before the
            /// learning rate, with decoupled decay (unless it is [`Fixed`](crate::rule::DecayRate::Fixed)); φ is 1 if θ or r is 0. Off by default.
            /// [`Lamb`](crate::Lamb) is [`AdamW`](crate::AdamW) with a trust ratio.
            ///
            /// Cost: two passes. The first reads parameter, gradient and state.
            ///
            /// Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2019,
            /// [arXiv:1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2 with φ(x) = x.
            pub fn trust_ratio(mut self, trust_ratio: bool) -> Self {
                self.options.trust_ratio = trust_ratio;
                self
            }

            /// Whether tensors whose weight decay is 0 also have a [trust ratio](Self::trust_ratio), which is the default. With `false` their
            /// ratio is 1, as in timm, where such tensors are biases and the scales of norms. It also holds for the ratio of [`Lars`](crate::Lars).
            pub fn always_adapt(mut self, always_adapt: bool) -> Self {
                self.options.only_decayed = !always_adapt;
                self
            }

            /// Divides the learning rate of each tensor by `max(1, RMS)`, where `RMS = √mean(g²/max(v̂, ε²))` says by how much the gradient exceeds
            /// its average. Off by default. [`StableAdamW`](crate::StableAdamW) is [`AdamW`](crate::AdamW) with update clipping.
            ///
            /// v̂ is the average of the squared gradient after this step, with bias correction if the optimizer has one, and ε the optimizer's. An optimizer
            /// without such an average returns [`OptionNotPossible`](crate::error::StepError::OptionNotPossible).
            ///
            /// Cost: two passes. The first reads parameter, gradient and state.
            ///
            /// Source: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023,
            /// [arXiv:2304.13013](https://arxiv.org/abs/2304.13013), algorithm 2.
            pub fn update_clipping(mut self, update_clipping: bool) -> Self {
                self.options.update_clipping = update_clipping;
                self
            }

            /// Keeps the Frobenius norm of each tensor: after a step `θ ← θ·n/‖θ‖`, where n is the norm before the tensor's first step.
            /// Tensors that start at 0 have no norm to keep and move freely. Off by default.
            ///
            /// With [`trust_ratio`](Self::trust_ratio), which then makes the length of the step ηn, this is hyperball optimization. The norm is part of
            /// the saved state, one number per tensor.
            ///
            /// Cost: two passes. The first reads parameter, gradient and state; the norm after the step follows from its sums.
            ///
            /// Source: Wen et al., "Fantastic Pretraining Optimizers and Where to Find Them", 2.1: Hyperball Optimization, 2025. heavyball's
            /// `HyperBallAdamW` has trust ratio and kept norm for matrices only: [`route`](crate::OptimizerExt::route) vectors to `AdamW`.
            pub fn keep_norm(mut self, keep_norm: bool) -> Self {
                self.options.keep_norm = keep_norm;
                if !keep_norm {
                    self.state.all_mut().flatten().for_each(|state| state.norm = None);
                }
                self
            }
        }

        #[cfg(feature = "config")]
        impl<R, A> $driver<R, A> {
            /// With the settings of a configuration.
            pub(crate) fn configured(mut self, settings: &mut $crate::config::settings::Settings<'_>) -> $crate::Result<Self>
            where
                R: $crate::rule::Configured,
            {
                self.rule.configure(settings)?;
                if let Some(weight_decay) = settings.optional_hyper("weight_decay")? {
                    self.set_weight_decay(weight_decay);
                }
                let options = &mut self.options;
                for (name, option) in [
                    ("cautious", &mut options.cautious),
                    ("cautious_decay", &mut options.cautious_decay),
                    ("trust_ratio", &mut options.trust_ratio),
                    ("update_clipping", &mut options.update_clipping),
                    ("keep_norm", &mut options.keep_norm),
                ] {
                    *option = settings.optional(name)?.unwrap_or(*option);
                }
                if let Some(always_adapt) = settings.optional::<bool>("always_adapt")? {
                    self.options.only_decayed = !always_adapt;
                }
                self.options.decoupled = settings.optional("decoupled_decay")?.or(self.options.decoupled);
                $(
                    if let Some(precision) = settings.optional("state_precision")? {
                        self.$precision = precision;
                    }
                )?
                Ok(self)
            }
        }
    };
}

pub(super) use options;
