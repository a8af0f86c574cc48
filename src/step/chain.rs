//! What a chain consists of, and orders that are probably mistakes.

use std::fmt;

use super::Step;
use super::memo::Note;
use crate::params::Element;

/// The parts of a chain, and warnings about their order: the result of [`StepExt::describe`](crate::StepExt::describe).
///
/// [`Display`](fmt::Display) writes one line per part, from outside to inside: the order in which a gradient passes through them. The branches of a
/// router are indented. What is inside `sharded` is not looked into.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChainDescription {
    parts: Vec<Part>,
    warnings: Vec<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    depth: usize,
    text: String,
}

/// Parts by the beginning of their texts, the outer one first, and why their order is probably a mistake.
const ORDERS: [(&[&str], &[&str], &str); 5] = [
    (&["clip_"], &["accumulate"], "clips each micro-batch; to clip their mean, write it before `accumulate`"),
    (
        &["clip_"],
        &["unscale", "loss_scaling"],
        "clips gradients that are still multiplied by the scale of the loss; write it before the adaptor that divides them",
    ),
    (
        &["clip_global_norm"],
        &["freeze"],
        "counts the gradients of frozen tensors in the norm; write it before `freeze`",
    ),
    (
        &["add_noise"],
        &["accumulate"],
        "adds the same noise to all micro-batches of a step; write it before `accumulate`",
    ),
    (
        &["skip_nonfinite", "skip_spikes", "loss_scaling"],
        &["max_skipped"],
        "skips steps that `max_skipped` does not see; write it before `max_skipped`",
    ),
];

/// Clipping that only measures.
const MEASURES: &str = "(inf)";

/// Why this part is probably at the wrong place, outside of the other.
fn warning(outer: &str, inner: &str) -> Option<String> {
    let begins = |text: &str, all: &[&str]| all.iter().any(|own| text.starts_with(own));
    let of_order = |(outside, inside, _): &&(&[&str], &[&str], &str)| begins(outer, outside) && begins(inner, inside);
    let (_, _, reason) = ORDERS.iter().find(of_order).filter(|_| !outer.contains(MEASURES))?;
    Some(format!("{outer} is after {inner} in the chain: it {reason}"))
}

impl ChainDescription {
    /// What has been noted on this step.
    pub(crate) fn noted<A: Element>(step: &Step<'_, A>) -> Self {
        let mut all = Self::default();
        // The parts around the next one, and for each router how many are around it.
        let (mut around, mut routers): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
        for (_, note) in step.take_notes() {
            match note {
                Note::Part(text) => {
                    all.warnings.extend(around.iter().filter_map(|outer| warning(outer, &text)));
                    all.parts.push(Part { depth: routers.len(), text: text.clone() });
                    around.push(text);
                }
                Note::Branch { text, number } => {
                    if number == 0 {
                        routers.push(around.len());
                    }
                    around.truncate(routers.last().copied().unwrap_or(0));
                    all.parts.push(Part { depth: routers.len().saturating_sub(1), text });
                }
                Note::BranchesEnd => {
                    around.truncate(routers.pop().unwrap_or(0));
                }
                Note::Frozen | Note::Group(_) | Note::Skipped => {}
            }
        }
        all
    }

    /// The parts, from outside to inside, each as the call that has created it.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.text.as_str())
    }

    /// Orders that are probably mistakes, each in a sentence.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for ChainDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.iter().map(|Part { depth, text }| format!("{}{text}", "  ".repeat(*depth)));
        let lines: Vec<_> = parts.chain(self.warnings.iter().map(|warning| format!("warning: {warning}"))).collect();
        f.write_str(&lines.join("\n"))
    }
}
