//! What the three ways cost and reach, as a table and as a picture.

use std::path::{Path, PathBuf};

use plotters::prelude::*;

use crate::Result;

/// One way of fine-tuning.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Parameters that learn.
    pub(crate) trainable: usize,
    /// Bytes of the optimizer's state.
    pub(crate) state: usize,
    /// Seconds of a step.
    pub(crate) step: f64,
    /// The shares of held-out sums and differences that are right.
    pub(crate) before: [f64; 2],
    pub(crate) after: [f64; 2],
}

pub(crate) fn table(rows: &[Row], elements: usize) {
    println!("\n| what learns | parameters | of all | state, bytes | ms a step | sums right | differences right |");
    println!("|---|---|---|---|---|---|---|");
    for Row { name, trainable, state, step, before, after } in rows {
        let share = 100.0 * *trainable as f64 / elements as f64;
        let [sums, differences] = [0, 1].map(|at| format!("{:.1} → {:.1} %", 100.0 * before[at], 100.0 * after[at]));
        println!("| {name} | {trainable} | {share:.1} % | {state} | {:.1} | {sums} | {differences} |", 1e3 * step);
    }
}

/// The losses of a training.
pub(crate) struct Curve {
    name: &'static str,
    losses: Vec<f64>,
}

impl Curve {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, losses: Vec::new() }
    }

    pub(crate) fn push(&mut self, loss: f64) {
        self.losses.push(loss);
    }
}

const COLORS: [RGBColor; 5] = [
    RGBColor(110, 110, 110),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
];

/// Each point is the mean loss of this many steps.
const SMOOTH: usize = 10;

/// Draws to `target/transformer.svg` and returns the path.
pub(crate) fn draw(curves: &[Curve]) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/transformer.svg");
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let points = |curve: &Curve| -> Vec<(f64, f64)> {
        curve.losses.chunks(SMOOTH).enumerate().map(|(i, losses)| ((i * SMOOTH) as f64, mean(losses))).collect()
    };
    let lines: Vec<_> = curves.iter().map(points).collect();
    let values = || lines.iter().flatten().map(|(_, loss)| loss.max(1e-6));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let steps = lines.iter().flatten().map(|(step, _)| *step).fold(0.0, f64::max);
    {
        let root = SVGBackend::new(&path, (900, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Sums from nothing, then differences in three ways", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..steps, (low..high).log_scale())?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("step").y_desc("loss (mean cross-entropy)").draw()?;
        for ((curve, line), color) in curves.iter().zip(&lines).zip(COLORS) {
            let line = line.iter().map(|(step, loss)| (*step, loss.max(1e-6)));
            chart
                .draw_series(LineSeries::new(line, color.stroke_width(2)))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart.configure_series_labels().border_style(BLACK).background_style(WHITE.mix(0.8)).draw()?;
        root.present()?;
    }
    Ok(path)
}
