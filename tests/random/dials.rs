//! Hyper-parameters: numbers, schedules, plateaus, and dials that lead them out of their range and back.

use std::fmt;
use std::sync::{Arc, Mutex};

use gradus::Hyper;
use gradus::schedule::{Cosine, Linear, Plateau, Schedule, ScheduleExt};
use rand::RngExt;

use crate::report::{Draw, USER};

/// A hyper-parameter as a chain's description has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Plain(f64),
    /// Down to a half in five steps.
    Linear(f64),
    /// With a warm-up, so that the first step moves nothing.
    Cosine(f64),
    /// The number, or what a fault turns it to.
    Dial(f64),
    Plateau(f64),
}

/// What a dial is turned to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Turn {
    To(f64),
    Panic,
}

/// What makes hyper-parameters of descriptions, and holds their dials and plateaus.
#[derive(Default)]
pub(crate) struct Dials {
    dials: Vec<Arc<Mutex<Option<Turn>>>>,
    plateaus: Vec<Plateau>,
}

impl Number {
    /// One of about this size. Plateaus only where their state is saved.
    pub(crate) fn draw(value: f64, saved: bool, random: &mut impl RngExt) -> Self {
        match random.below(20) {
            0..9 => Self::Plain(value),
            9 => Self::Linear(value),
            // An ε of 0 is allowed, and then 0 / 0 is the user's.
            10 if value >= 0.01 => Self::Cosine(value),
            11..14 if saved => Self::Plateau(value),
            _ => Self::Dial(value),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(value) => write!(f, "{value:?}"),
            Self::Linear(value) => write!(f, "Linear({value:?})"),
            Self::Cosine(value) => write!(f, "Cosine({value:?})"),
            Self::Dial(value) => write!(f, "dial({value:?})"),
            Self::Plateau(value) => write!(f, "Plateau({value:?})"),
        }
    }
}

struct Dial {
    own: f64,
    turned: Arc<Mutex<Option<Turn>>>,
}

impl Schedule for Dial {
    fn at(&self, _: u64) -> f64 {
        let turned = self.turned.lock().map_or(None, |turned| *turned);
        match turned {
            None => self.own,
            Some(Turn::To(value)) => value,
            Some(Turn::Panic) => panic!("{USER} in a schedule"),
        }
    }

    fn check(&self) -> gradus::Result<()> {
        Ok(())
    }

    fn memory(&self) -> gradus::schedule::Memory<'_> {
        gradus::schedule::Memory::none()
    }
}

impl Dials {
    pub(crate) fn hyper(&mut self, number: Number) -> Hyper {
        match number {
            Number::Plain(value) => value.into(),
            Number::Linear(value) => Linear::new(value, value / 2.0, 5).into(),
            Number::Cosine(value) => Cosine::new(value, 20).floor(value / 10.0).warmup(1).into(),
            Number::Dial(own) => {
                let turned = Arc::new(Mutex::new(None));
                self.dials.push(Arc::clone(&turned));
                Dial { own, turned }.into()
            }
            Number::Plateau(value) => {
                let plateau = Plateau::new(value).factor(0.5).patience(0).cooldown(1);
                self.plateaus.push(plateau.clone());
                plateau.into()
            }
        }
    }

    /// Whether there is any dial.
    pub(crate) fn len(&self) -> usize {
        self.dials.len()
    }

    pub(crate) fn turn(&self, dial: usize, turn: Option<Turn>) {
        if let Some(dial) = self.dials.get(dial) {
            *dial.lock().unwrap() = turn;
        }
    }

    /// Tells all plateaus a metric.
    pub(crate) fn observe(&self, metric: f64) {
        self.plateaus.iter().for_each(|plateau| _ = plateau.observe(metric));
    }
}

/// Values that schedules should not have.
pub(crate) fn nonsense(random: &mut impl RngExt) -> Turn {
    let values = [f64::NAN, -1.0, 1e39, 1e-46, 1e-39, f64::INFINITY, f64::MAX, 5e-324, 1e308, 2.0, 1.0, 0.0, -0.0];
    if random.chance(0.08) { Turn::Panic } else { Turn::To(random.pick(&values)) }
}
