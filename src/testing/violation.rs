//! Laws that are broken, and the words for it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::law::Law;
use crate::error::Error;

/// A broken law.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The law.
    pub law: Law,
    /// What broke it: the name of the optimizer, adaptor or schedule, and its element type.
    pub subject: String,
    /// In which case: shapes, memory layouts, steps, the number of threads.
    pub case: String,
    /// What was found, where, and what is right.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { law, subject, case, found } = self;
        writeln!(f, "{subject} breaks Law::{law}. {}", law.statement())?;
        if !case.is_empty() {
            writeln!(f, "  case:  {case}")?;
        }
        writeln!(f, "  found: {found}")?;
        write!(f, "  hint:  {}", law.hint())
    }
}

impl std::error::Error for Violation {}

/// What is broken, before the law and the subject are known.
#[derive(Debug)]
pub(super) struct Broken {
    case: String,
    found: String,
}

/// Whether a law holds.
pub(super) type Held<T = ()> = Result<T, Broken>;

pub(super) fn broken<T>(found: impl Into<String>) -> Held<T> {
    Err(Broken { case: String::new(), found: found.into() })
}

pub(super) fn ensure(holds: bool, found: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { broken(found()) }
}

/// Runs a part of a law; if that is broken, the part is named.
pub(super) fn case<T>(name: impl fmt::Display, run: impl FnOnce() -> Held<T>) -> Held<T> {
    run().map_err(|Broken { case, found }| {
        let case = if case.is_empty() { name.to_string() } else { format!("{name}, {case}") };
        Broken { case, found }
    })
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self { case: String::new(), found: format!("an error where there should be none: {error}") }
    }
}

/// The laws that are broken, of those that `laws` has.
pub(super) fn violations(
    subject: &str,
    laws: impl IntoIterator<Item = Law>,
    holds: impl Fn(Law) -> Held,
) -> Vec<Violation> {
    let broken = |law| {
        let held = catch_unwind(AssertUnwindSafe(|| holds(law)));
        let Broken { case, found } = held.unwrap_or_else(|panic| broken(panic_message(&*panic))).err()?;
        Some(Violation { law, subject: subject.into(), case, found })
    };
    laws.into_iter().filter_map(broken).collect()
}

/// The methods that test laws, of a type with `without` and `holds`.
macro_rules! tests_laws {
    ($laws:expr) => {
        /// Leaves out a law. Say why in a comment.
        pub fn without(mut self, law: Law) -> Self {
            self.without.push(law);
            self
        }

        /// Tests all laws.
        ///
        /// # Panics
        /// If a law is broken. The message has all broken laws, each with the case, what was found, and a hint.
        #[track_caller]
        pub fn run(&self) {
            $crate::testing::violation::report(&self.violations());
        }

        /// Tests one law. One that is left out, not declared or not for this kind of thing holds.
        ///
        /// # Panics
        /// If the law is broken.
        #[track_caller]
        pub fn run_one(&self, law: Law) {
            $crate::testing::violation::report(&self.violations_of(&[law]));
        }

        /// Tests all laws, and returns those that are broken.
        pub fn violations(&self) -> Vec<$crate::testing::Violation> {
            self.violations_of($laws)
        }

        fn violations_of(&self, laws: &[Law]) -> Vec<$crate::testing::Violation> {
            let laws = laws.iter().copied().filter(|law| !self.without.contains(law));
            $crate::testing::violation::violations(&self.subject, laws, |law| self.holds(law))
        }
    };
}

pub(super) use tests_laws;

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("without a message"))
}

/// Panics if there are any.
#[allow(clippy::panic, reason = "a test fails by panicking")]
#[track_caller]
pub(super) fn report(violations: &[Violation]) {
    if !violations.is_empty() {
        let texts: Vec<_> = violations.iter().map(|violation| format!("\n\n{violation}")).collect();
        panic!("{} broken{}\n", if texts.len() == 1 { "a law is" } else { "laws are" }, texts.concat());
    }
}

/// The name of a type without the paths of its modules.
pub(super) fn short_name<T: ?Sized>() -> String {
    let name = std::any::type_name::<T>();
    let mut short = String::new();
    let mut word = String::new();
    for letter in name.chars() {
        match letter {
            ':' => word.clear(),
            _ if letter.is_alphanumeric() || letter == '_' => word.push(letter),
            _ => {
                short += &std::mem::take(&mut word);
                short.push(letter);
            }
        }
    }
    short + &word
}
