//! The points as curves, in one SVG.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::BoxError;
use crate::overload::limits::LIMITS;
use crate::overload::load::{PATIENCE, Plan, Point};
use crate::overload::server::{CORES, DRAG, MEAN_WORK, capacity};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

const WIDTH: u32 = 960;
const HEADER: u32 = 110;
/// Where each panel ends, from the top.
const PANELS: [u32; 3] = [HEADER + 380, HEADER + 700, HEADER + 920];
const HEIGHT: u32 = PANELS[2] + 150;
const LEFT: i32 = 40;

const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(118, 118, 118);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// One for each of [`LIMITS`]: vermilion, blue, bluish green and reddish purple of Okabe and Ito's palette, which people who
/// are colour-blind can tell apart. Each has a marker of its own, too.
const COLOURS: [RGBColor; LIMITS.len()] =
    [RGBColor(213, 94, 0), RGBColor(0, 114, 178), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Goodput, the 99th percentile of the time to an answer, and the share of refused requests over the offered load, with a
/// caption that says what was measured under `plan`.
///
/// # Errors
/// A coordinate that cannot be drawn.
pub fn figure(points: &[Point], plan: &Plan) -> Result<String, BoxError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        header(&root)?;
        goodput(&panel(&root, HEADER..PANELS[0]), points)?;
        p99(&panel(&root, PANELS[0]..PANELS[1]), points)?;
        refused(&panel(&root, PANELS[1]..PANELS[2]), points)?;
        write(&root, PANELS[2] as i32 + 24, &caption(plan))?;
        root.present()?;
    }
    Ok(svg)
}

fn panel<'a>(root: &Area<'a>, rows: Range<u32>) -> Area<'a> {
    root.clone().shrink((0, rows.start), (WIDTH, rows.end - rows.start))
}

/// The title, and a legend for all panels.
fn header(root: &Area<'_>) -> Result<(), BoxError> {
    root.draw(&Text::new("An overloaded server, with limits and without", (LEFT, 16), font(26, INK)))?;
    for (index, (limit, colour)) in LIMITS.iter().zip(COLOURS).enumerate() {
        let (x, y) = (LEFT + 440 * (index as i32 % 2), 64 + 24 * (index as i32 / 2));
        root.draw(&PathElement::new([(x, y), (x + 36, y)], colour.stroke_width(2)))?;
        let [shape, inside] = marker(index, false);
        root.draw(&(EmptyElement::at((x + 18, y)) + shape + inside))?;
        let text = format!("{}: {}", limit.name, limit.setting);
        root.draw(&Text::new(text, (x + 46, y), font(16, INK).pos(Pos::new(HPos::Left, VPos::Center))))?;
    }
    Ok(())
}

fn goodput(area: &Area<'_>, points: &[Point]) -> Result<(), BoxError> {
    let capacity = capacity();
    let (from, to) = ends(points);
    let mut chart = axes(area, points, 0.0..1.2 * capacity)?;
    mesh(&mut chart, "goodput (answers in time, per second)", 7, &|y| format!("{y:.0}"))?;
    let most = [(from, from * capacity), (1.0, capacity), (to, capacity)];
    chart.draw_series(DashedLineSeries::new(most, 5, 4, FAINT.stroke_width(1)))?;
    let label = font(15, FAINT).pos(Pos::new(HPos::Right, VPos::Bottom));
    chart.draw_series([Text::new("what the server can do", (to, 1.03 * capacity), label)])?;
    curves(&mut chart, points, |point| Some((point.goodput_per_s, false)))
}

fn p99(area: &Area<'_>, points: &[Point]) -> Result<(), BoxError> {
    let patience = PATIENCE.as_secs_f64();
    let (from, to) = ends(points);
    let longest = points.iter().filter_map(|point| point.p99_s).fold(10.0, f64::max);
    // From one power of ten to another, and a bit more: the very ends would have no label.
    let mut chart = axes(area, points, (0.0999..1.001 * 10_f64.powf(longest.log10().ceil())).log_scale())?;
    mesh(&mut chart, "p99 of the time to the answer (s)", 10, &|y| y.to_string())?;
    chart.draw_series(DashedLineSeries::new([(from, patience), (to, patience)], 5, 4, FAINT.stroke_width(1)))?;
    let label = font(15, FAINT).pos(Pos::new(HPos::Left, VPos::Bottom));
    chart.draw_series([Text::new("callers give up", (from + 0.02, 1.1 * patience), label)])?;
    curves(&mut chart, points, |point| point.p99_s.map(|p99| (p99, point.p99_at_least)))
}

fn refused(area: &Area<'_>, points: &[Point]) -> Result<(), BoxError> {
    let mut chart = axes(area, points, 0.0..100.0)?;
    mesh(&mut chart, "refused (% of requests)", 5, &|y| format!("{y:.0}"))?;
    curves(&mut chart, points, |point| Some((100.0 * point.refused as f64 / point.sent.max(1) as f64, false)))
}

/// The least and the greatest load.
fn ends(points: &[Point]) -> (f64, f64) {
    let loads = points.iter().map(|point| point.load);
    loads.fold((1.0, 1.0), |(from, to), load| (f64::min(from, load), f64::max(to, load)))
}

fn axes<'a, 'b, Y>(
    area: &'a Area<'b>,
    points: &[Point],
    y: impl AsRangedCoord<CoordDescType = Y, Value = f64>,
) -> Result<Chart<'a, 'b, Y>, BoxError>
where
    Y: Ranged<ValueType = f64>,
{
    let (from, to) = ends(points);
    let mut chart = ChartBuilder::on(area);
    chart.margin(10).margin_left(LEFT - 20).margin_right(LEFT).x_label_area_size(48).y_label_area_size(64);
    Ok(chart.build_cartesian_2d(from - 0.05..to + 0.05, y)?)
}

fn mesh<Y>(
    chart: &mut Chart<'_, '_, Y>,
    title: &str,
    labels: usize,
    format: &dyn Fn(&f64) -> String,
) -> Result<(), BoxError>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mesh = &mut chart.configure_mesh();
    mesh.bold_line_style(GRID).light_line_style(TRANSPARENT).axis_style(FAINT);
    mesh.label_style(font(15, INK)).axis_desc_style(font(16, INK));
    mesh.x_labels(6).x_label_formatter(&|x| format!("{x:.1} ×")).y_labels(labels).y_label_formatter(format);
    mesh.x_desc(format!("offered load (1 × = the capacity of {} requests per second)", capacity())).y_desc(title);
    Ok(mesh.draw()?)
}

/// A line with markers for each limit; `value` is where it lies, and whether that is a lower bound.
fn curves<Y>(
    chart: &mut Chart<'_, '_, Y>,
    points: &[Point],
    value: impl Fn(&Point) -> Option<(f64, bool)>,
) -> Result<(), BoxError>
where
    Y: Ranged<ValueType = f64>,
{
    for (index, (limit, colour)) in LIMITS.iter().zip(COLOURS).enumerate() {
        let of = points.iter().filter(|point| point.limit == limit.name);
        let curve: Vec<_> =
            of.filter_map(|point| value(point).map(|(y, at_least)| ((point.load, y), at_least))).collect();
        chart.draw_series(LineSeries::new(curve.iter().map(|(at, _)| *at), colour.stroke_width(2)))?;
        chart.draw_series(curve.into_iter().map(|(at, at_least)| {
            let [shape, inside] = marker(index, at_least);
            EmptyElement::at(at) + shape + inside
        }))?;
    }
    Ok(())
}

/// The marker of the limit with that index, around (0, 0), and what it is filled with: white for a lower bound.
fn marker(index: usize, at_least: bool) -> [Polygon<(i32, i32)>; 2] {
    const TRIANGLE: &[(i32, i32)] = &[(-6, 5), (0, -6), (6, 5)];
    const SQUARE: &[(i32, i32)] = &[(-5, -5), (5, -5), (5, 5), (-5, 5)];
    const DIAMOND: &[(i32, i32)] = &[(-7, 0), (0, -7), (7, 0), (0, 7)];
    const DISC: &[(i32, i32)] = &[(-2, -5), (2, -5), (5, -2), (5, 2), (2, 5), (-2, 5), (-5, 2), (-5, -2)];
    const SHAPES: [&[(i32, i32)]; LIMITS.len()] = [TRIANGLE, SQUARE, DIAMOND, DISC];
    let (shape, colour) = (SHAPES[index], COLOURS[index]);
    let inside: Vec<_> = shape.iter().map(|(x, y)| (x * 3 / 5, y * 3 / 5)).collect();
    [Polygon::new(shape, colour.filled()), Polygon::new(inside, if at_least { WHITE } else { colour }.filled())]
}

fn caption(plan: &Plan) -> String {
    format!(
        "Model: {CORES} cores; a request is {} ms of work on average (exponential); all requests under way share the cores, \
         and each one above {CORES} makes all work {:.1} % longer. Callers give up after {} s, unnoticed by the server, \
         which does their work all the same. Poisson arrivals whatever the answers, seed {}; {} s counted at each point \
         after a warm-up; times count from when a request was due. p99 is of requests that were let in; hollow: at least \
         that long, as that request had no answer at the end (the longer it is measured, the longer it gets). Virtual \
         time: behaviour, not cost; a refusal costs the server nothing. The limits are the layers of seawall.",
        MEAN_WORK.as_millis(),
        100.0 * DRAG,
        PATIENCE.as_secs(),
        plan.seed,
        plan.counted.as_secs(),
    )
}

/// In lines of a length that fits the width.
fn write(root: &Area<'_>, top: i32, text: &str) -> Result<(), BoxError> {
    const LINE: usize = 142;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LINE => {
                line.push_str(word);
                line.push(' ');
            }
            _ => lines.push(format!("{word} ")),
        }
    }
    for (line, number) in lines.iter().zip(0..) {
        root.draw(&Text::new(line.trim_end(), (LEFT, top + 20 * number), font(15, FAINT)))?;
    }
    Ok(())
}

fn font(size: i32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}
