//! Line charts as SVG. Colours are those of the page's style, light or dark.
use maud::{Markup, html};

use super::curves::Line;

/// The plane of a chart, in its own units; it is drawn as wide as there is room.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 42.0;

/// One line.
pub struct Series<'a> {
    pub name: &'a str,
    /// Of the style: `one` or `two`.
    pub class: &'a str,
    pub line: &'a Line,
    /// Whether its points are drawn too.
    pub dots: bool,
}

/// A point to look at.
pub struct Mark {
    pub at: (f64, f64),
    pub text: String,
}

/// A chart of lines over a common axis.
pub fn lines(title: &str, x_label: &str, series: &[Series], mark: Option<&Mark>) -> Markup {
    let points = || series.iter().flat_map(|series| series.line).filter(|(_, y)| y.is_finite());
    let Some(x) = Axis::of_steps(points().map(|point| point.0)) else { return html! {} };
    let Some(y) = Axis::over(points().map(|point| point.1)) else { return html! {} };
    let place = |(at, value): (f64, f64)| {
        let across = LEFT + x.portion(at) * (WIDTH - LEFT - RIGHT);
        let up = HEIGHT - BOTTOM - y.portion(value) * (HEIGHT - TOP - BOTTOM);
        ((across * 10.0).round() / 10.0, (up * 10.0).round() / 10.0)
    };
    let path = |line: &Line| {
        let places = line.iter().filter(|(_, y)| y.is_finite()).map(|point| place(*point));
        places.map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")
    };
    html! {
        figure.chart {
            figcaption {
                span.title { (title) }
                @if series.len() > 1 {
                    @for series in series { span.key.(series.class) { (series.name) } }
                }
            }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
                @for tick in &y.ticks {
                    @let (_, at) = place((x.low, *tick));
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at) y2=(at) {}
                    text.tick x=(LEFT - 6.0) y=(at + 4.0) text-anchor="end" { (y.label(*tick)) }
                }
                @for tick in &x.ticks {
                    @let (at, _) = place((*tick, y.low));
                    line.stroke x1=(at) x2=(at) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM + 4.0) {}
                    text.tick x=(at) y=(HEIGHT - BOTTOM + 17.0) text-anchor="middle" { (number(*tick)) }
                }
                line.stroke x1=(LEFT) x2=(WIDTH - RIGHT) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
                text.label x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { (x_label) }
                @for series in series {
                    polyline.line.(series.class) points=(path(series.line)) {}
                    @if series.dots || series.line.len() == 1 {
                        @for point in series.line.iter().filter(|(_, y)| y.is_finite()) {
                            @let (cx, cy) = place(*point);
                            circle.dot.(series.class) cx=(cx) cy=(cy) r="2.5" {
                                title { (series.name) ": " (exact(point.1)) " at " (number(point.0)) }
                            }
                        }
                    }
                }
                @if let Some(mark) = mark {
                    @let (cx, cy) = place(mark.at);
                    // On the side that has room, above the point or, at the top, below it.
                    @let (anchor, dx) = if cx > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
                    @let dy = if cy < TOP + 30.0 { 22.0 } else { -12.0 };
                    circle.mark cx=(cx) cy=(cy) r="6" {}
                    text.marked x=(cx + dx) y=(cy + dy) text-anchor=(anchor) { (mark.text) }
                }
            }
        }
    }
}

/// A range with round ticks in it.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

/// Values of at least this are not written as powers of ten.
const PLAIN: f64 = 1e-3;

impl Axis {
    /// With some room around the values.
    fn over(values: impl Iterator<Item = f64>) -> Option<Axis> {
        let (low, high) = ends(values)?;
        // A level line lies in the middle.
        let room = match high - low {
            0.0 if low == 0.0 => 1.0,
            0.0 => low.abs() * 0.1,
            range => range * 0.06,
        };
        let (low, high) = (low - room, high + room);
        Some(Axis { low, high, ticks: ticks(low, high, round_step((high - low) / 6.0)) })
    }

    /// From the first to the last, with ticks at whole numbers.
    fn of_steps(values: impl Iterator<Item = f64>) -> Option<Axis> {
        let (low, high) = ends(values)?;
        if low == high {
            return Some(Axis { low: low - 1.0, high: high + 1.0, ticks: vec![low] });
        }
        Some(Axis { low, high, ticks: ticks(low, high, round_step((high - low) / 6.0).max(1.0)) })
    }

    fn portion(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick with as many digits as tell it from its neighbours.
    fn label(&self, tick: f64) -> String {
        let step = self.ticks.windows(2).map(|pair| pair[1] - pair[0]).next().unwrap_or(1.0);
        let largest = self.low.abs().max(self.high.abs());
        let digits = (-step.log10()).ceil().max(0.0) as usize;
        match largest >= PLAIN {
            true if digits > 3 => format!("{tick:.digits$}"),
            true => number(tick),
            false if tick.abs() < step / 2.0 => "0".to_owned(),
            false => {
                let digits = (tick.abs() / step).log10().ceil().max(0.0) as usize;
                let text = format!("{tick:.digits$e}");
                text.split_once('e').map_or(text.clone(), |(number, power)| format!("{}e{power}", shortened(number)))
            }
        }
    }
}

fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(start, |(low, high), value| (low.min(value), high.max(value)));
    (low <= high).then_some((low, high))
}

fn ticks(low: f64, high: f64, step: f64) -> Vec<f64> {
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// The next of 1, 2, 5, 10, … times a power of ten.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// A number as short as an axis wants it.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        1e9.. => format!("{}G", trimmed(value / 1e9, 3)),
        1e6.. => format!("{}M", trimmed(value / 1e6, 3)),
        1e4.. => format!("{}k", trimmed(value / 1e3, 3)),
        PLAIN.. => trimmed(value, 4),
        // What rounding leaves of a zero.
        ..1e-12 => "0".to_owned(),
        _ => format!("{value:.1e}").replace(".0e", "e"),
    }
}

/// A number with the digits that matter when one looks closely.
pub fn exact(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 { trimmed(value, 4) } else { format!("{value:.3e}") }
}

fn trimmed(value: f64, digits: usize) -> String {
    shortened(&format!("{value:.digits$}")).to_owned()
}

/// Without zeros at the end of its decimals.
fn shortened(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::over([0.43, 1.94].into_iter()).unwrap();
        assert_eq!(axis.ticks.iter().map(|tick| number(*tick)).collect::<Vec<_>>(), ["0.5", "1", "1.5", "2"]);
        let close = Axis::over([0.99981, 0.99989].into_iter()).unwrap();
        assert_eq!(
            close.ticks.iter().map(|tick| close.label(*tick)).collect::<Vec<_>>(),
            ["0.99982", "0.99984", "0.99986", "0.99988"]
        );
        let steps = Axis::of_steps([10.0, 48_000.0].into_iter()).unwrap();
        assert_eq!(steps.ticks.iter().map(|tick| number(*tick)).collect::<Vec<_>>(), ["10k", "20k", "30k", "40k"]);
        let level = Axis::over([1e-5].into_iter()).unwrap();
        assert!((level.portion(1e-5) - 0.5).abs() < 1e-9);
        assert!(Axis::over([].into_iter()).is_none());
        let labels: Vec<String> = level.ticks.iter().map(|tick| level.label(*tick)).collect();
        assert_eq!(labels, ["9e-6", "9.5e-6", "1e-5", "1.05e-5", "1.1e-5"]);
        assert_eq!(Axis::over([0.0].into_iter()).unwrap().ticks, [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(Axis::of_steps([0.0, 1.0].into_iter()).unwrap().ticks, [0.0, 1.0]);
        assert_eq!(Axis::of_steps([3.0].into_iter()).unwrap().ticks, [3.0]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (1e-5, "1e-5"), (2.5e-4, "2.5e-4"), (0.25, "0.25"), (1500.0, "1500"), (-2e6, "-2M")]
        {
            assert_eq!(number(value), text);
        }
    }
}
