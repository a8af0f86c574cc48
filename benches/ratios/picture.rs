//! The newest records, drawn.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A name and, over the binary logarithms of numbers of elements, values.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    style: ShapeStyle,
    dashed: bool,
}

const COLORS: [RGBColor; 10] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(140, 90, 40),
    RGBColor(110, 60, 160),
    RGBColor(30, 30, 30),
];

/// Width of the legend beside the data.
const LEGEND: u32 = 230;
const GREY: RGBColor = RGBColor(120, 120, 120);

/// SIMD levels that are drawn, the highest first.
const LEVELS: [&str; 2] = ["v4", "v3"];

/// Of one level.
const HEIGHT: u32 = 900;

/// Draws what `records` has last of ratios and of peers, level by level.
pub(crate) fn draw(records: &Path, picture: &Path) -> Result<()> {
    let record = |name: &str, level: &str| newest(records, &format!("{name}-{level}"));
    {
        let root = SVGBackend::new(picture, (900, LEVELS.len() as u32 * HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        for (level, area) in LEVELS.iter().zip(root.split_evenly((LEVELS.len(), 1))) {
            let (ratios, peers) = (record("ratios", level)?, record("peers", level)?);
            let (upper, lower) = area.split_vertically(400);
            let beside_floor = Chart {
                title: format!("{level}: time of a loop that only moves the bytes ÷ time of a step (higher is better)"),
                axis: "floor ÷ optimizer",
                logarithmic: false,
            };
            beside_floor.draw(&upper, &of_optimizers(&ratios)?)?;
            let beside_peers = Chart {
                title: format!("{level}: time of an AdamW step ÷ time of gradus (above 1, gradus is faster)"),
                axis: "library ÷ gradus",
                logarithmic: true,
            };
            beside_peers.draw(&lower, &of_peers(&peers)?)?;
        }
        root.present()?;
    }
    println!("{}", picture.display());
    Ok(())
}

/// The last record of its name: they begin with their date.
fn newest(records: &Path, name: &str) -> Result<String> {
    let paths = fs::read_dir(records)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let named = |path: &&PathBuf| path.to_string_lossy().ends_with(&format!("-{name}.md"));
    let path = paths.iter().filter(named).max().ok_or_else(|| format!("no record of {name}"))?;
    Ok(fs::read_to_string(path)?)
}

/// The rows of every table whose head begins with `head`, the head first.
fn tables<'r>(record: &'r str, head: &str) -> Vec<Vec<Vec<&'r str>>> {
    let mut tables: Vec<Vec<Vec<&str>>> = Vec::new();
    let mut inside = false;
    for line in record.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            inside = false;
        } else if !inside && cells[0] == head {
            inside = true;
            tables.push(vec![cells]);
        } else if let Some(table) = tables.last_mut().filter(|_| inside && !line.starts_with("|-")) {
            table.push(cells);
        }
    }
    tables
}

fn of_optimizers(record: &str) -> Result<Vec<Line>> {
    let table = tables(record, "optimizer").into_iter().next().ok_or("no table of optimizers")?;
    let mut lines: Vec<Line> = Vec::new();
    for row in &table[1..] {
        let [name, size, .., ratio] = row[..] else { return Err(format!("not a row: {row:?}").into()) };
        let point = (size.trim_start_matches("2^").parse()?, ratio.parse()?);
        match lines.last_mut().filter(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line::new(name.into(), vec![point], lines.len(), false)),
        }
    }
    Ok(lines)
}

/// Of the second table, with a heap that keeps its memory, only the libraries that it makes much faster.
fn of_peers(record: &str) -> Result<Vec<Line>> {
    const ALLOCATING: [&str; 2] = ["candle-nn", "burn (flex)"];
    let mut lines = Vec::new();
    for (keeping, table) in tables(record, "tensors").into_iter().enumerate() {
        for (column, name) in table[0].iter().enumerate().skip(2) {
            if keeping == 0 || ALLOCATING.contains(name) {
                let name = if keeping == 0 { (*name).into() } else { format!("{name}, heap kept") };
                lines.push(Line::new(name, over_sizes(&table[1..], column), column - 2, keeping > 0));
            }
        }
    }
    if lines.is_empty() { Err("no table of peers".into()) } else { Ok(lines) }
}

/// One column, of the rows of one tensor that is not clipped.
fn over_sizes(rows: &[Vec<&str>], column: usize) -> Vec<(f64, f64)> {
    let point = |row: &Vec<&str>| {
        let elements: f64 = row[0].strip_prefix("1 × ")?.parse().ok()?;
        Some((elements.log2(), row.get(column)?.parse().ok()?))
    };
    rows.iter().filter_map(point).collect()
}

impl Line {
    fn new(name: String, points: Vec<(f64, f64)>, color: usize, dashed: bool) -> Self {
        let style = COLORS[color % COLORS.len()].stroke_width(2);
        Self { name, points, style, dashed }
    }

    /// One row of the legend.
    fn describe(&self, legend: &Area<'_>, y: i32) -> Result<()> {
        let ends = if self.dashed { vec![[4, 14], [20, 30]] } else { vec![[4, 30]] };
        for [from, to] in ends {
            legend.draw(&PathElement::new([(from, y), (to, y)], self.style))?;
        }
        let text = ("sans-serif", 14).into_text_style(legend);
        Ok(legend.draw(&Text::new(self.name.clone(), (38, y - 7), text))?)
    }
}

struct Chart {
    title: String,
    axis: &'static str,
    /// Powers of ten rather than multiples on the upward axis.
    logarithmic: bool,
}

impl Chart {
    /// The axes, the lines, and a dark line at 1; beside them the legend.
    fn draw(&self, area: &Area<'_>, lines: &[Line]) -> Result<()> {
        let values = || lines.iter().flat_map(|line| &line.points).map(|&(_, y)| self.height(y));
        let (lowest, highest) = (values().fold(0.0, f64::min), values().fold(self.height(1.0), f64::max));
        let title = area.titled(&self.title, ("sans-serif", 17))?;
        let (data, legend) = title.split_horizontally(title.dim_in_pixel().0 - LEGEND);
        let mut chart = ChartBuilder::on(&data)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(10.0..25.0, lowest - 0.05..highest + 0.05)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_labels(6)
            .x_label_formatter(&|log| format!("2^{log:.0}"))
            .x_desc("elements")
            .y_label_formatter(&|height| format!("{:.1}", self.value(*height)))
            .y_desc(self.axis)
            .draw()?;
        chart.draw_series(LineSeries::new([10.0, 25.0].map(|x| (x, self.height(1.0))), GREY.stroke_width(1)))?;
        for line in lines {
            let points = line.points.iter().map(|&(x, y)| (x, self.height(y)));
            if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, line.style))?;
            } else {
                chart.draw_series(LineSeries::new(points.clone(), line.style))?;
                chart.draw_series(points.map(|point| Circle::new(point, 3, line.style.filled())))?;
            }
        }
        (24..).step_by(22).zip(lines).try_for_each(|(y, line)| line.describe(&legend, y))
    }

    fn height(&self, value: f64) -> f64 {
        if self.logarithmic { value.log10() } else { value }
    }

    fn value(&self, height: f64) -> f64 {
        if self.logarithmic { 10_f64.powf(height) } else { height }
    }
}
