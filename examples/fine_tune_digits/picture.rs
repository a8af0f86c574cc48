//! How much of the old and of the new digits each way reads right.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::Row;

/// Old digits, new digits.
const COLORS: [RGBColor; 2] = [RGBColor(150, 150, 150), RGBColor(0, 114, 178)];

/// Draws to `target/fine_tune_digits.svg` and returns the path.
pub(crate) fn draw(rows: &[Row]) -> Result<PathBuf, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fine_tune_digits.svg");
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    {
        let root = SVGBackend::new(&path, (760, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Read right after learning 5 … 9", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(50)
            .build_cartesian_2d(0.0..rows.len() as f64, 0.0..118.0)?;
        chart.configure_mesh().disable_x_mesh().light_line_style(WHITE).disable_x_axis().y_desc("%").draw()?;
        for (at, (label, color)) in ["0 … 4", "5 … 9"].into_iter().zip(COLORS).enumerate() {
            let bar = |(row, Row { old, new, .. }): (usize, &Row)| {
                let left = row as f64 + 0.15 + 0.35 * at as f64;
                Rectangle::new([(left, 0.0), (left + 0.35, 100.0 * [old, new][at])], color.filled())
            };
            chart
                .draw_series(rows.iter().enumerate().map(bar))?
                .label(label)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], color.filled()));
        }
        let names = rows.iter().enumerate().map(|(row, Row { name, trainable, .. })| {
            Text::new(format!("{name} ({trainable})"), (row as f64 + 0.2, 112.0), ("sans-serif", 13))
        });
        chart.draw_series(names)?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleMiddle)
            .border_style(BLACK)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        root.present()?;
    }
    Ok(path)
}
