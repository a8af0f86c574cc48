//! Level lines of both functions with every optimizer's way to the optimum, and its loss on the way.

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::{Contestant, Run, Valley};

const PANEL: (u32, u32) = (620, 490);
const LOSSES: u32 = 270;
const LEGEND: u32 = 104;
const LEGEND_ROWS: usize = 3;

const INK: RGBColor = RGBColor(40, 44, 52);
const MUTED: RGBColor = RGBColor(112, 120, 132);

/// Okabe and Ito's palette and, for the sixth and the last, Tol's: made for any color vision. Dashes where two ways
/// are one.
const STYLES: [(RGBColor, bool); 9] = [
    (RGBColor(0, 0, 0), false),
    (RGBColor(0, 114, 178), false),
    (RGBColor(86, 180, 233), true),
    (RGBColor(0, 158, 115), false),
    (RGBColor(230, 159, 0), false),
    (RGBColor(153, 153, 51), false),
    (RGBColor(213, 94, 0), false),
    (RGBColor(204, 121, 167), false),
    (RGBColor(136, 34, 85), true),
];

/// Squares along each side of the grid on which level lines are sought.
const GRID: usize = 160;
/// Points nearer to each other than this share of the panel are one to the eye.
const VISIBLE: f64 = 1e-3;
/// The steps marked by dots.
const MILESTONES: [usize; 3] = [10, 100, 1000];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Point = (f64, f64);

/// Draws to `target/optimizers.svg` and returns the path.
pub(super) fn draw(
    valleys: &[Valley],
    contestants: &[Contestant],
    runs: &[Vec<Run>],
) -> Result<PathBuf, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/optimizers.svg");
    std::fs::create_dir_all(path.with_file_name(""))?;
    let root = SVGBackend::new(&path, (PANEL.0 * 2, PANEL.1 + LOSSES + LEGEND)).into_drawing_area();
    root.fill(&WHITE)?;
    let (panels, bottom) = root.split_vertically(PANEL.1 + LOSSES);
    for ((area, valley), runs) in panels.split_evenly((1, 2)).iter().zip(valleys).zip(runs) {
        let (upper, lower) = area.split_vertically(PANEL.1);
        ways(&upper, valley, runs)?;
        losses(&lower, valley, runs)?;
    }
    legend(&bottom, contestants)?;
    root.present()?;
    drop((panels, bottom, root));
    Ok(path)
}

/// The level lines, and every run on them.
fn ways(area: &Area<'_>, valley: &Valley, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    area.draw(&Text::new(valley.name, (52, 14), ("sans-serif", 20).into_font().color(&INK)))?;
    area.draw(&Text::new(valley.formula, (168, 18), ("sans-serif", 15).into_font().color(&MUTED)))?;
    let [xs, ys] = &valley.view;
    let mut plane = ChartBuilder::on(area)
        .margin_top(44)
        .margin_right(16)
        .x_label_area_size(26)
        .y_label_area_size(52)
        .build_cartesian_2d(xs.clone(), ys.clone())?;
    plane
        .configure_mesh()
        .disable_mesh()
        .axis_style(MUTED)
        .x_labels(7)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.1}"))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .label_style(("sans-serif", 12).into_font().color(&MUTED))
        .draw()?;

    let value = |x, y| (valley.value_and_grad)(x, y).0;
    for exponent in -2..=8 {
        let level = 10_f64.powf(f64::from(exponent) / 2.0);
        let darkness = 0.9 - 0.065 * f64::from(exponent + 2);
        let style = RGBColor(120, 135, 160).mix(darkness).stroke_width(1);
        let lines = level_line(value, valley, level);
        plane.draw_series(lines.into_iter().map(|ends| PathElement::new(ends, style)))?;
    }

    for (run, style) in runs.iter().zip(STYLES) {
        trajectory(&mut plane, valley, run, style)?;
    }
    for (run, (color, _)) in runs.iter().zip(STYLES) {
        for milestone in MILESTONES.iter().filter_map(|step| run.path.get(*step)) {
            plane.draw_series([
                Circle::new(*milestone, 4, WHITE.filled()),
                Circle::new(*milestone, 3, color.filled()),
            ])?;
        }
    }
    mark(&plane, valley.start, "start", (-44, -7))?;
    mark(&plane, valley.optimum, "optimum", (14, -7))?;
    Ok(())
}

fn trajectory(
    plane: &mut Plane<'_, '_>,
    valley: &Valley,
    run: &Run,
    style: (RGBColor, bool),
) -> Result<(), Box<dyn Error>> {
    let [width, height] = [0, 1].map(|axis| valley.view[axis].end - valley.view[axis].start);
    let mut visible: Vec<Point> = Vec::new();
    for &(x, y) in &run.path {
        if visible.last().is_none_or(|last| ((x - last.0) / width).hypot((y - last.1) / height) > VISIBLE) {
            visible.push((x, y));
        }
    }
    line(plane, visible, style)
}

fn line<X: Ranged<ValueType = f64>, Y: Ranged<ValueType = f64>>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    points: Vec<Point>,
    (color, dashed): (RGBColor, bool),
) -> Result<(), Box<dyn Error>> {
    match dashed {
        true => chart.draw_series(DashedLineSeries::new(points, 5, 5, color.stroke_width(2)))?,
        false => chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?,
    };
    Ok(())
}

/// Marching squares: in every square of the grid, the line between the places on its edges where the value passes the
/// level.
fn level_line(value: impl Fn(f64, f64) -> f64, valley: &Valley, level: f64) -> Vec<[Point; 2]> {
    let [xs, ys] = &valley.view;
    let at = |range: &Range<f64>, i: usize| range.start + (range.end - range.start) * i as f64 / GRID as f64;
    let corner = |column, row| {
        let (x, y) = (at(xs, column), at(ys, row));
        (x, y, value(x, y) - level)
    };
    let mut lines = Vec::new();
    for (column, row) in (0..GRID).flat_map(|column| (0..GRID).map(move |row| (column, row))) {
        let corners = [(0, 0), (1, 0), (1, 1), (0, 1)].map(|(right, up)| corner(column + right, row + up));
        let crossings: Vec<Point> = (0..4)
            .map(|edge| (corners[edge], corners[(edge + 1) % 4]))
            .filter(|(from, to)| (from.2 < 0.0) != (to.2 < 0.0))
            .map(|(from, to)| {
                let share = from.2 / (from.2 - to.2);
                (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1))
            })
            .collect();
        lines.extend(crossings.chunks_exact(2).map(|ends| [ends[0], ends[1]]));
    }
    lines
}

fn mark(plane: &Plane<'_, '_>, [x, y]: [f64; 2], text: &str, shift: (i32, i32)) -> Result<(), Box<dyn Error>> {
    let label = ("sans-serif", 14).into_font().color(&INK);
    plane.plotting_area().draw(
        &(EmptyElement::at((x, y))
            + Circle::new((0, 0), 6, WHITE.filled())
            + Circle::new((0, 0), 6, INK.stroke_width(2))
            + Circle::new((0, 0), 2, INK.filled())
            + Text::new(text.to_owned(), shift, label)),
    )?;
    Ok(())
}

/// The loss of every run, step by step.
fn losses(area: &Area<'_>, valley: &Valley, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    area.draw(&Text::new("loss", (576, 22), ("sans-serif", 15).into_font().color(&INK)))?;
    let start = runs.iter().map(|run| run.losses[0]).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_top(16)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d((1.0..valley.steps as f64).log_scale(), (1e-8..start * 3.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(MUTED)
        .x_desc("steps")
        .x_label_formatter(&|steps| format!("{steps}"))
        .y_label_formatter(&|loss| format!("{loss:.0e}"))
        .label_style(("sans-serif", 12).into_font().color(&MUTED))
        .draw()?;
    for (run, (color, dashed)) in runs.iter().zip(STYLES) {
        // On a logarithmic axis late steps lie close together: a hundredth further is seen, one further is not.
        let mut next = 1.0;
        let points = (0_u32..).zip(&run.losses).map(|(step, loss)| (f64::from(step), *loss)).filter(|(step, _)| {
            let seen = *step >= next;
            next = if seen { step * 1.01 } else { next };
            seen
        });
        let points: Vec<Point> = points.take_while(|(_, loss)| *loss > 1e-8).collect();
        line(&mut chart, points, (color, dashed))?;
    }
    Ok(())
}

fn legend(area: &Area<'_>, contestants: &[Contestant]) -> Result<(), Box<dyn Error>> {
    for (index, (contestant, (color, dashed))) in contestants.iter().zip(STYLES).enumerate() {
        let (x, y) = (52 + 300 * (index / LEGEND_ROWS) as i32, 18 + 28 * (index % LEGEND_ROWS) as i32);
        for dash in 0..3 {
            let end = if dashed { 6 } else { 11 };
            let from = x + 11 * dash;
            area.draw(&PathElement::new([(from, y), (from + end, y)], color.stroke_width(3)))?;
        }
        area.draw(&Text::new(contestant.name, (x + 42, y - 8), ("sans-serif", 15).into_font().color(&INK)))?;
    }
    area.draw(&Circle::new((958, 18), 4, MUTED.filled()))?;
    let note = "after 10, 100 and 1000 steps";
    area.draw(&Text::new(note, (972, 11), ("sans-serif", 14).into_font().color(&MUTED)))?;
    Ok(())
}
