//! Schedules that break each law.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gradus::Commit;
use gradus::prelude::*;
use gradus::schedule::{Cosine, Memory, Plateau, Remember};
use gradus::testing::{self, Law, ScheduleLaws};

use crate::assert_caught;

/// The best metric that was seen, as a learning rate. It breaks one law, or none.
struct Best {
    breaks: Option<Law>,
    best: Arc<Mutex<f64>>,
    calls: AtomicU64,
}

impl Best {
    fn new(breaks: Option<Law>) -> Self {
        Self { breaks, best: Arc::new(Mutex::new(0.5)), calls: AtomicU64::new(0) }
    }

    fn breaks(&self, law: Law) -> bool {
        self.breaks == Some(law)
    }

    fn observe(&self, metric: f64) {
        let mut best = self.best.lock().unwrap();
        *best = best.min(metric);
    }
}

impl Schedule for Best {
    fn at(&self, step: u64) -> f64 {
        let best = *self.best.lock().unwrap();
        match self.breaks {
            Some(Law::Pure) => best / (1 + self.calls.fetch_add(1, Ordering::Relaxed)) as f64,
            Some(Law::InRange) => best / (step.checked_add(1).unwrap()) as f64,
            _ => best,
        }
    }

    fn check(&self) -> gradus::Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory<'_> {
        Memory::of(self)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.breaks(Law::Debug) { "Best {\n}" } else { "Best" })
    }
}

impl Remember for Best {
    fn key(&self) -> &'static str {
        "best"
    }

    fn save(&self) -> String {
        self.best.lock().unwrap().to_string()
    }

    fn load(&self, saved: &str) -> Option<Commit<'static>> {
        let (best, own) = (saved.parse().ok()?, Arc::clone(&self.best));
        if self.breaks(Law::Memory) {
            *own.lock().unwrap() = best;
        }
        Some(Commit::new(move || *own.lock().unwrap() = best))
    }
}

/// The same without a memory.
struct Forgets(Best);

impl Schedule for Forgets {
    fn at(&self, step: u64) -> f64 {
        self.0.at(step)
    }

    fn check(&self) -> gradus::Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory<'_> {
        Memory::none()
    }
}

fn laws(breaks: Option<Law>) -> ScheduleLaws<Best> {
    testing::schedule(move || Best::new(breaks)).range(0.0..=0.5).changed(|best| best.observe(0.125))
}

#[test]
fn nothing_is_wrong_with_what_keeps_them() {
    laws(None).run();
    testing::schedule(|| Cosine::new(0.1, 500).warmup(10)).range(0.0..=0.1).run();
    testing::schedule(|| |step: u64| 1.0 / (1.0 + step as f64)).steps(10).run();
    testing::schedule(|| Plateau::new(0.1).patience(0))
        .range(0.0..=0.1)
        .changed(|plateau| _ = [1.0, 1.0].map(|metric| plateau.observe(metric)))
        .run();
}

#[test]
fn each_law_catches_what_breaks_it() {
    for law in Law::OF_SCHEDULES.iter().copied() {
        assert_caught(law, || laws(Some(law)).run_one(law));
        laws(Some(law)).without(law).run_one(law);
    }
    // A state that is not saved at all, and values outside of the range.
    let found = testing::schedule(|| Forgets(Best::new(None))).changed(|own| own.0.observe(0.25)).violations();
    assert_eq!(found.iter().map(|violation| violation.law).collect::<Vec<_>>(), [Law::Memory]);
    let found = testing::schedule(|| 0.5).range(0.0..=0.25).violations();
    assert_eq!(found.iter().map(|violation| violation.law).collect::<Vec<_>>(), [Law::InRange]);
}
