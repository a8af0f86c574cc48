//! A picture of every schedule.
//!
//! This draws each schedule of `gradus::schedule` over 1000 steps in a small panel. The last panel is a combination for a long training: a
//! warm-up, a constant phase and cosine restarts with decreasing peaks, kept above a lower limit. The picture is `target/schedules.svg`.
//!
//! ```sh
//! cargo run --release --example schedules
//! ```

use std::error::Error;
use std::path::Path;

use gradus::schedule::{
    Anneal, Cosine, CosineRestarts, Cyclic, Exponential, HalfLife, InverseSqrt, Linear, MultiStep, Noam, OneCycle,
    PiecewiseConstant, PiecewiseCosine, PiecewiseLinear, Plateau, Polynomial, Rex, Schedule, ScheduleExt, Step,
    WarmupStableDecay,
};
use plotters::coord::Shift;
use plotters::prelude::*;

const STEPS: u64 = 1000;
const COLUMNS: usize = 4;
const PANEL: (u32, u32) = (300, 190);
const HEADER: u32 = 64;
const COMPOSED: u32 = 340;

const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(226, 229, 234);
const MUTED: RGBColor = RGBColor(112, 120, 132);
const LINE: RGBColor = RGBColor(20, 108, 178);
const ACCENT: RGBColor = RGBColor(200, 80, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A schedule, and the call that makes it.
struct Panel {
    name: &'static str,
    call: &'static str,
    values: Vec<f64>,
}

fn panel(name: &'static str, call: &'static str, schedule: impl Schedule) -> Panel {
    Panel { name, call, values: values(&schedule) }
}

fn values(schedule: &impl Schedule) -> Vec<f64> {
    (0..STEPS).map(|step| schedule.at(step)).collect()
}

/// A plateau does not follow the step but a metric: here a loss that stops falling four times.
fn plateau() -> Vec<f64> {
    let plateau = Plateau::new(1.0).factor(0.5).patience(60);
    let loss = |step: u64| 4.0 - (step / 200) as f64 - (step % 200).min(120) as f64 / 200.0;
    let observe = |step: u64| {
        plateau.observe(loss(step));
        plateau.at(step)
    };
    (0..STEPS).map(observe).collect()
}

fn panels() -> Vec<Panel> {
    let wsd = || WarmupStableDecay::new(1.0, 100, 600, 300);
    vec![
        panel("Step", "Step::new(1.0, 200, 0.5)", Step::new(1.0, 200, 0.5)),
        panel("MultiStep", "MultiStep::new(1.0, [300, 800], 0.3)", MultiStep::new(1.0, [300, 800], 0.3)),
        panel("Exponential", "Exponential::new(1.0, 0.1).over(500)", Exponential::new(1.0, 0.1).over(500)),
        panel("Linear", "Linear::new(1.0, 0.2, 700)", Linear::new(1.0, 0.2, 700)),
        panel("HalfLife", "HalfLife::new(0.1, 0.999, 700)", HalfLife::new(0.1, 0.999, 700)),
        panel("Polynomial", "Polynomial::new(1.0, 900).power(2.0)", Polynomial::new(1.0, 900).power(2.0)),
        panel("Rex", "Rex::new(1.0, 900)", Rex::new(1.0, 900)),
        panel("Cosine", "Cosine::new(1.0, 800).floor(0.1)", Cosine::new(1.0, 800).floor(0.1)),
        panel("CosineRestarts", "CosineRestarts::new(1.0, 143).factor(2)", CosineRestarts::new(1.0, 143).factor(2)),
        panel("OneCycle", "OneCycle::new(1.0, 1000)", OneCycle::new(1.0, 1000)),
        panel(
            "OneCycle, three phases",
            "….anneal(Anneal::Linear).three_phase()",
            OneCycle::new(1.0, 1000).anneal(Anneal::Linear).three_phase(),
        ),
        panel("Cyclic", "Cyclic::new(0.1, 1.0, 80).down(170)", Cyclic::new(0.1, 1.0, 80).down(170)),
        panel("Cyclic, halved", "Cyclic::new(0.1, 1.0, 100).triangular2()", Cyclic::new(0.1, 1.0, 100).triangular2()),
        panel("Cyclic, exponential", "….exp_range(0.998)", Cyclic::new(0.1, 1.0, 100).exp_range(0.998)),
        panel("InverseSqrt", "InverseSqrt::new(1.0, 50).warmup(50)", InverseSqrt::new(1.0, 50).warmup(50)),
        panel("Noam", "Noam::new(512, 200)", Noam::new(512, 200)),
        panel("WarmupStableDecay", "WarmupStableDecay::new(1.0, 100, 600, 300)", wsd()),
        panel("…, decay by 1 − √p", "….anneal(Anneal::OneMinusSqrt)", wsd().anneal(Anneal::OneMinusSqrt)),
        panel(
            "PiecewiseConstant",
            "PiecewiseConstant::new(0.2, [(300, 1.0), …])",
            PiecewiseConstant::new(0.2, [(300, 1.0), (700, 0.5)]),
        ),
        panel(
            "PiecewiseLinear",
            "PiecewiseLinear::new(0.0, [(200, 1.0), …])",
            PiecewiseLinear::new(0.0, [(200, 1.0), (500, 0.4), (900, 0.1)]),
        ),
        panel(
            "PiecewiseCosine",
            "PiecewiseCosine::new(0.0, [(200, 1.0), …])",
            PiecewiseCosine::new(0.0, [(200, 1.0), (500, 0.4), (900, 0.1)]),
        ),
        Panel { name: "Plateau", call: "Plateau::new(1.0).factor(0.5).patience(60)", values: plateau() },
    ]
}

/// Warm-up, stable phase, restarts with ever lower peaks, a floor.
fn composed() -> impl Schedule {
    let restarts = CosineRestarts::new(1.0, 200).times(Step::new(1.0, 200, 0.7));
    1.0_f64.then(250, restarts).warmup(150).clamp(0.05, 1.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let panels = panels();
    let composed = values(&composed());
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL.0 * COLUMNS as u32, HEADER + PANEL.1 * rows as u32 + COMPOSED);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schedules.svg");
    std::fs::create_dir_all(path.with_file_name(""))?;
    let root = SVGBackend::new(&path, (width, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (header, rest) = root.split_vertically(HEADER);
    header.draw(&Text::new("gradus::schedule", (24, 16), ("sans-serif", 24).into_font().color(&INK)))?;
    let note = "1000 steps of each, with a peak of 1 (Noam's follows from its arguments)";
    header.draw(&Text::new(note, (230, 23), ("sans-serif", 14).into_font().color(&MUTED)))?;

    let (grid, bottom) = rest.split_vertically(PANEL.1 * rows as u32);
    for (area, panel) in grid.split_evenly((rows, COLUMNS)).iter().zip(&panels) {
        draw(area, panel, &LINE)?;
    }
    let call =
        "1.0_f64.then(250, CosineRestarts::new(1.0, 200).times(Step::new(1.0, 200, 0.7))).warmup(150).clamp(0.05, 1.0)";
    draw(&bottom, &Panel { name: "Put together", call, values: composed.clone() }, &ACCENT)?;
    root.present()?;
    println!("wrote {}", path.display());

    // What the picture must show.
    for Panel { name, values, .. } in &panels {
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)), "{name} leaves its range");
        assert!(values.iter().any(|value| *value != values[0]), "{name} is a flat line");
    }
    // The floor cuts off the beginning of the warm-up; then 400 steps up to the end of the stable phase, and restarts.
    assert_eq!([0, 150, 399, 400].map(|step| composed[step]), [0.05, 1.0, 1.0, 1.0]);
    assert_eq!([600, 800].map(|step| composed[step]), [0.7, 0.7 * 0.7]);
    assert!(composed.iter().all(|value| (0.05..=1.0).contains(value)));
    Ok(())
}

/// One curve under its name and its call.
fn draw(area: &Area<'_>, panel: &Panel, color: &RGBColor) -> Result<(), Box<dyn Error>> {
    let Panel { name, call, values } = panel;
    area.draw(&Text::new(*name, (24, 6), ("sans-serif", 16).into_font().color(&INK)))?;
    area.draw(&Text::new(*call, (24, 27), ("monospace", 11).into_font().color(&MUTED)))?;
    let largest = values.iter().copied().fold(0.0, f64::max);
    let small = largest < 0.1;
    let top = if small { largest } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin_top(46)
        .margin_right(28)
        .margin_left(4)
        .margin_bottom(8)
        .x_label_area_size(22)
        .y_label_area_size(44)
        .build_cartesian_2d(0..STEPS, 0.0..top * 1.06)?;
    let label = ("sans-serif", 11).into_font().color(&MUTED);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_labels(3)
        .y_labels(4)
        .y_label_formatter(&|value| if small { format!("{value:.3}") } else { format!("{value:.1}") })
        .label_style(label)
        .draw()?;
    let points = (0..).zip(values.iter().copied());
    chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
    Ok(())
}
