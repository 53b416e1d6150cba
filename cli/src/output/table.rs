//! Tables with aligned columns, for people.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// Renders rows under headings; the last line ends without a newline.
pub fn render<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headings).add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
