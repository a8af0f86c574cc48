//! Loss and learning rate of every run, step by step.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::Run;

const COLORS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
];

/// Each point is the mean loss of this many steps.
const SMOOTH: usize = 15;

/// Draws to `target/digits.svg` and returns the path.
pub(crate) fn draw(runs: &[Run]) -> Result<PathBuf, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/digits.svg");
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    let root = SVGBackend::new(&path, (900, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(440);

    let losses = |run: &Run| -> Vec<(f64, f64)> {
        let mean =
            |steps: &[(f32, f64)]| steps.iter().map(|(loss, _)| f64::from(*loss)).sum::<f64>() / steps.len() as f64;
        run.history.chunks(SMOOTH).enumerate().map(|(i, steps)| ((i * SMOOTH) as f64, mean(steps))).collect()
    };
    let rates = |run: &Run| -> Vec<(f64, f64)> {
        run.history.iter().enumerate().step_by(SMOOTH).skip(1).map(|(step, (_, rate))| (step as f64, *rate)).collect()
    };
    panel(&upper, "training loss (mean cross-entropy)", true, runs, losses)?;
    panel(&lower, "learning rate", false, runs, rates)?;
    root.present()?;
    drop((upper, lower, root));
    Ok(path)
}

/// One logarithmic chart with a line for each run.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    legend: bool,
    runs: &[Run],
    points: impl Fn(&Run) -> Vec<(f64, f64)>,
) -> Result<(), Box<dyn Error>> {
    let lines: Vec<_> = runs.iter().map(points).collect();
    let values = || lines.iter().flatten().map(|(_, y)| *y).filter(|y| *y > 0.0);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let steps = lines.iter().flatten().map(|(x, _)| *x).fold(0.0, f64::max);

    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..steps, (low.max(1e-5) * 0.8..high * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .draw()?;
    for ((line, run), color) in lines.into_iter().zip(runs).zip(COLORS) {
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(run.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2)));
    }
    if legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 14))
            // An SVG leaves the font to the viewer: the width of a name is guessed, and wide letters need room to spare.
            .margin(22)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
    }
    Ok(())
}
