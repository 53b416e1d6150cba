//! Figures and tables as they are printed.

use std::time::Instant;

/// What is printed: figures to stdout as soon as they are known, what is only for people beside them.
#[derive(Debug)]
pub struct Report {
    begun: Instant,
    figures: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: &'static str,
    value: String,
    unit: &'static str,
    goal: Option<&'static str>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), figures: Vec::new() }
    }

    /// A figure that is only told. `unit` is one word.
    pub fn figure(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.add(name, value, unit, None);
    }

    /// A figure with a goal, as people read it: `≤ 1.15`.
    pub fn figure_with_goal(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        goal: &'static str,
    ) {
        self.add(name, value, unit, Some(goal));
    }

    fn add(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        goal: Option<&'static str>,
    ) {
        let value = significant(value);
        println!("figure {name} {value} {unit}");
        self.figures.push(Line { name, value, unit, goal });
    }

    /// A line for people, with the time since the start.
    pub fn note(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.begun.elapsed().as_secs_f64());
    }

    /// A table for people: the first row is the head; numbers are best given as text already.
    pub fn table(&self, title: &str, rows: &[Vec<String>]) {
        println!("\n{title}\n{}", aligned(rows));
    }

    /// All figures once more, with their goals.
    pub(crate) fn summary(&self) {
        let head = ["figure", "value", "unit", "goal"].map(str::to_owned).to_vec();
        let row = |line: &Line| {
            let goal = line.goal.unwrap_or("").to_owned();
            vec![line.name.to_owned(), line.value.clone(), line.unit.to_owned(), goal]
        };
        let rows: Vec<Vec<String>> =
            std::iter::once(head).chain(self.figures.iter().map(row)).collect();
        self.table(&format!("All figures; the proxy was {}", proxy()), &rows);
    }
}

/// Which proxy the figures are measured on: those on the stand-in say nothing of the real one's speed.
pub(crate) fn proxy() -> String {
    if dhow_test_images::proxy_is_stand_in() {
        return "the stand-in for kamal-proxy (DHOW_PROXY_IMAGE names none)".to_owned();
    }
    let file = std::env::var_os("DHOW_PROXY_IMAGE").unwrap_or_default();
    format!("that of {}", file.display())
}

/// Columns padded to their widest cell; all but the first column to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let pad = " ".repeat(width - cell.chars().count());
            if column == 0 { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
        });
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    text
}

/// Three significant digits, and never in exponents: `1.07`, `59.2`, `4310`.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 || v == 0.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// The middle of the values; the mean of the two in the middle where there are two. 0 of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_there() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        let shown: Vec<String> =
            [0.0, 0.0123, 0.5, 1.0713, 59.23, 4310.4].map(significant).to_vec();
        assert_eq!(shown, ["0.00", "0.0123", "0.500", "1.07", "59.2", "4310"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["step", "ms"], ["route", "104"], ["ü", "7"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "  step    ms\n  route  104\n  ü        7\n");
    }
}
