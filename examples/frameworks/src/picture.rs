//! The loss by epoch, three curves on one another.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::Curve;

const INK: RGBColor = RGBColor(40, 44, 52);
/// The later ones thinner, so that those below are seen.
const LINES: [(RGBColor, u32); 3] = [(RGBColor(230, 159, 0), 9), (RGBColor(86, 180, 233), 5), (RGBColor(0, 0, 0), 1)];

/// Draws to `target/frameworks.svg` and returns the path.
pub(crate) fn draw(curves: &[Curve]) -> Result<PathBuf, Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no workspace")?;
    let path = workspace.join("target/frameworks.svg");
    std::fs::create_dir_all(path.with_file_name(""))?;
    {
        let root = SVGBackend::new(&path, (900, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let epochs = curves.iter().map(|(_, losses)| losses.len()).max().unwrap_or(0);
        let losses = || curves.iter().flat_map(|(_, losses)| losses).copied();
        let (least, most) = (losses().fold(f64::INFINITY, f64::min), losses().fold(0.0, f64::max));
        let mut chart = ChartBuilder::on(&root)
            .caption("One training, gradients of three origins", ("sans-serif", 18).into_font().color(&INK))
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(62)
            .build_cartesian_2d(1..epochs, (0.9 * least..1.1 * most).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("epoch")
            .y_desc("mean loss")
            .y_label_formatter(&|loss| format!("{loss:.3}"))
            .draw()?;
        for ((name, losses), (color, width)) in curves.iter().zip(LINES) {
            let points = losses.iter().enumerate().map(|(epoch, loss)| (epoch + 1, *loss));
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(width)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(width)));
        }
        chart.configure_series_labels().border_style(INK).background_style(WHITE.mix(0.85)).draw()?;
        root.present()?;
    }
    Ok(path)
}
