//! What K-FAC remembers, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array2, Axis};

use super::adaptor::Kfac;
use super::factors::{Factors, Mode, Pending, Solver};
use super::trust::{BOUNDS, Trust};
use crate::error::{Error, Result, StateError};
use crate::params::{Layout, Scalar};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};

impl<A> Kfac<A> {
    fn hyper_parameters(&self) -> impl Iterator<Item = (&'static str, &Hyper)> {
        let kl_clip = self.kl_clip.iter().map(|kl_clip| ("kl_clip", kl_clip));
        [("damping", &self.damping), ("decay", &self.decay)].into_iter().chain(kl_clip)
    }
}

/// The names of a factor's two matrices, of A and of G.
const FACTOR: [&str; 2] = ["input_factor", "output_factor"];
const INVERSE: [&str; 2] = ["input_inverse", "output_inverse"];
const EIGENVECTORS: [&str; 2] = ["input_basis", "output_basis"];
const EIGENVALUES: [&str; 2] = ["input_eigenvalues", "output_eigenvalues"];
const PENDING: [&str; 2] = ["pending_input", "pending_output"];

pub(super) fn write<A: Scalar>(kfac: &Kfac<A>, node: &mut StateWriter<'_>) {
    kfac.hyper_parameters().for_each(|(name, hyper)| hyper.write_state(name, node));
    node.value("steps", kfac.steps);
    node.value("damping_factor", kfac.trust.factor);
    node.value("since_adapted", kfac.trust.since);
    if let Some(foretold) = kfac.trust.foretold {
        node.value("foretold", foretold);
    }
    if !kfac.layers.is_empty() {
        node.refuse_resizing("make the optimizer anew: K-FAC's factors belong to all rows of a weight");
    }
    for (name, factors) in &kfac.layers {
        node.value(&format!("updates/{name}"), factors.updates);
        let matrices = |node: &mut StateWriter<'_>, names: [&str; 2], matrices: [&Array2<A>; 2]| {
            names.into_iter().zip(matrices).for_each(|(kind, matrix)| node.matrix(kind, name, matrix));
        };
        matrices(node, FACTOR, [&factors.input, &factors.output]);
        match &*factors.solver {
            Solver::None => {}
            Solver::Inverse { input, output } => matrices(node, INVERSE, [input, output]),
            Solver::Eigen { input, output } => {
                matrices(node, EIGENVECTORS, [&input.0, &output.0]);
                let [input, output] = [input, output].map(|(_, values)| values.clone().insert_axis(Axis(0)));
                matrices(node, EIGENVALUES, [&input, &output]);
            }
        }
    }
    for (name, pending) in &kfac.pending {
        node.value(&format!("rows/{name}"), pending.rows);
        node.value(&format!("examples/{name}"), pending.examples);
        PENDING.into_iter().zip(pending.sums()).for_each(|(kind, sum)| node.matrix(kind, name, &sum));
        node.matrix("pending_input_sum", name, &pending.input_sum.clone().insert_axis(Axis(0)));
        if let Some(sums) = &pending.row_sums {
            node.matrix("row_sums", name, sums);
        }
    }
}

/// Everything that is remembered.
type Parts<A> = (Option<Arc<Layout>>, u64, BTreeMap<String, Factors<A>>, BTreeMap<String, Pending<A>>, Trust);

pub(super) fn read<A: Scalar>(kfac: &Kfac<A>, node: &mut StateReader<'_>) -> Result<(Parts<A>, Commit<'static>)> {
    let hypers =
        kfac.hyper_parameters().map(|(name, hyper)| hyper.read_state(name, node)).collect::<Result<Vec<_>>>()?;
    let steps = node.value("steps", "a count")?;
    let within = |factor: &f64| (BOUNDS[0]..=BOUNDS[1]).contains(factor);
    let factor = node.value_where("damping_factor", "a number from 1e-6 to 1e6", within)?;
    let foretold = if node.has("foretold") { Some(node.value("foretold", "a number")?) } else { None };
    let trust = Trust { factor, foretold, since: node.value("since_adapted", "a count")? };
    let layout = node.layout().cloned();

    let mut layers = BTreeMap::new();
    for name in node.names("updates") {
        let updates = node.value_where(&format!("updates/{name}"), "a count above 0", |count: &u64| *count > 0)?;
        // Factors are those of layers that there have been steps of.
        let Some(layout) = &layout else {
            return Err(Error::State(StateError::MissingEntry {
                key: format!("a layout with {name}"),
                similar: Vec::new(),
            }));
        };
        let place = kfac.place(name, layout)?;
        let sides = [place.columns(), place.outputs];
        let [input, output] = matrices(node, FACTOR, name, sides.map(|side| (side, side)))?;
        let solver = match kfac.mode {
            Mode::Inverse => {
                let [input, output] = matrices(node, INVERSE, name, sides.map(|side| (side, side)))?;
                Solver::Inverse { input, output }
            }
            Mode::Eigen => {
                let [basis, output_basis] = matrices(node, EIGENVECTORS, name, sides.map(|side| (side, side)))?;
                let [values, output_values] = matrices(node, EIGENVALUES, name, sides.map(|side| (1, side)))?;
                let [values, output_values] = [values, output_values].map(|row| row.remove_axis(Axis(0)));
                Solver::Eigen { input: (basis, values), output: (output_basis, output_values) }
            }
        };
        layers.insert(name.to_owned(), Factors { updates, input, output, solver: Arc::new(solver) });
    }

    let mut pending = BTreeMap::new();
    for name in node.names("rows") {
        let rows = node.value_where(&format!("rows/{name}"), "a count above 0", |count: &u64| *count > 0)?;
        let few = |count: &u64| (1..=rows).contains(count);
        let examples = node.value_where(&format!("examples/{name}"), "a count up to the rows", few)?;
        let square = |kind: &'static str| -> Result<Array2<A>> {
            let side = node.rows_of(kind, name).unwrap_or(0);
            node.matrix(kind, name, (side, side))?.ok_or_else(|| node.absent(kind, name))
        };
        let (input, output) = (square(PENDING[0])?, square(PENDING[1])?);
        let sum = node.matrix("pending_input_sum", name, (1, input.nrows()))?;
        let input_sum = sum.ok_or_else(|| node.absent("pending_input_sum", name))?.remove_axis(Axis(0));
        let row_sums = node.matrix("row_sums", name, (2, output.nrows()))?;
        pending.insert(name.to_owned(), Pending { input, input_sum, output, rows, examples, row_sums });
    }
    let commit = hypers.into_iter().fold(Commit::nothing(), Commit::and);
    Ok(((layout, steps, layers, pending, trust), commit))
}

/// Two matrices of these shapes, both there.
fn matrices<A: Scalar>(
    node: &StateReader<'_>,
    kinds: [&'static str; 2],
    name: &str,
    shapes: [(usize, usize); 2],
) -> Result<[Array2<A>; 2]> {
    let matrix = |at: usize| node.matrix(kinds[at], name, shapes[at])?.ok_or_else(|| node.absent(kinds[at], name));
    Ok([matrix(0)?, matrix(1)?])
}
