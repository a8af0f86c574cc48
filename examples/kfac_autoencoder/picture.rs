//! The excess of every method against steps and against seconds.

use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{GOAL, Result, Run};

const INK: RGBColor = RGBColor(40, 44, 52);

/// Okabe and Ito's palette, made for any color vision.
const COLORS: [RGBColor; 5] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
];

/// Draws to `target/kfac_autoencoder.svg` and returns the path.
pub(crate) fn draw(results: &[(&str, Vec<Run>)]) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kfac_autoencoder.svg");
    std::fs::create_dir_all(path.with_file_name(""))?;
    {
        let root = SVGBackend::new(&path, (1120, 460)).into_drawing_area();
        root.fill(&WHITE)?;
        let halves = root.split_evenly((1, 2));
        panel(&halves[0], results, "steps", |(steps, _, _)| *steps as f64)?;
        panel(&halves[1], results, "seconds", |(_, seconds, _)| *seconds)?;
        root.present()?;
    }
    Ok(path)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    results: &[(&str, Vec<Run>)],
    unit: &str,
    x: impl Fn(&(u64, f64, f64)) -> f64,
) -> Result<()> {
    let points = || results.iter().flat_map(|(_, runs)| runs).flat_map(|run| &run.curve);
    let end = points().map(&x).fold(0.0, f64::max);
    let high = points().map(|point| point.2).fold(GOAL, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("Digits autoencoder: excess cross-entropy by {unit}"),
            ("sans-serif", 17).into_font().color(&INK),
        )
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, (GOAL * 0.9..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(unit)
        .y_desc("nats an image, above the entropy")
        .y_label_formatter(&|y| format!("{y:.1}"))
        .draw()?;
    for ((name, runs), color) in results.iter().zip(COLORS) {
        for (number, run) in runs.iter().enumerate() {
            let line = LineSeries::new(run.curve.iter().map(|point| (x(point), point.2)), color.stroke_width(2));
            let series = chart.draw_series(line)?;
            if number == 0 {
                series
                    .label(*name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            }
        }
    }
    chart.draw_series([PathElement::new([(0.0, GOAL), (end, GOAL)], INK.stroke_width(1))])?;
    chart.configure_series_labels().border_style(INK).background_style(WHITE.mix(0.85)).draw()?;
    Ok(())
}
