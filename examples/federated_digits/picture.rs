//! The accuracy of every method by round.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::{GOAL, ROUNDS, Run};

const INK: RGBColor = RGBColor(40, 44, 52);

/// Okabe and Ito's palette, made for any color vision.
const COLORS: [RGBColor; 5] = [
    RGBColor(110, 110, 110),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
];

/// Draws to `target/federated_digits.svg` and returns the path.
pub(crate) fn draw(runs: &[Run]) -> Result<PathBuf, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/federated_digits.svg");
    std::fs::create_dir_all(path.with_file_name(""))?;
    {
        let root = SVGBackend::new(&path, (900, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Ten clients with two digits each: accuracy by round", ("sans-serif", 18).into_font().color(&INK))
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(52)
            .build_cartesian_2d(0..ROUNDS, 0.0..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("round")
            .y_desc("share of the test images read right")
            .y_label_formatter(&|share| format!("{:.0} %", 100.0 * share))
            .draw()?;
        for (run, color) in runs.iter().zip(COLORS) {
            let points = run.accuracy.iter().enumerate().map(|(round, accuracy)| (round + 1, *accuracy));
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(run.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart.draw_series([PathElement::new([(0, GOAL), (ROUNDS, GOAL)], INK.stroke_width(1))])?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            // The width of a name is guessed: capitals need room to spare.
            .margin(18)
            .border_style(INK)
            .background_style(WHITE.mix(0.85))
            .draw()?;
        root.present()?;
    }
    Ok(path)
}
