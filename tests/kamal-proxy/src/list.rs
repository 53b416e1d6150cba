//! The table that `list` prints: coloured whatever the terminal, as the real proxy does.

/// The columns, in order.
pub(crate) const COLUMNS: [&str; 6] = ["Service", "Host", "Path", "Target", "State", "TLS"];

/// Renders the rows, which are printed in the order given.
pub(crate) fn render(rows: &[[String; 6]]) -> String {
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.chain([COLUMNS[column].len()]).max().unwrap_or_default()
        })
        .collect();
    let mut table = line(&COLUMNS.map(str::to_owned), &widths, |_| "3;94");
    for row in rows {
        table.push_str(&line(row, &widths, |column| if column == 0 { "1;34" } else { "" }));
    }
    table
}

fn line(cells: &[String; 6], widths: &[usize], style: impl Fn(usize) -> &'static str) -> String {
    let mut line = String::new();
    for (column, cell) in cells.iter().enumerate() {
        let padding = " ".repeat(widths[column] - cell.len());
        line.push_str(&format!("\x1b[{}m{cell}\x1b[0m{padding}  ", style(column)));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_styled_padded_and_followed_by_two_blanks() {
        let row = ["web", "*", "/", "0123456789ab:3000", "running", "no"].map(str::to_owned);
        assert_eq!(
            render(&[row]),
            "\x1b[3;94mService\x1b[0m  \x1b[3;94mHost\x1b[0m  \x1b[3;94mPath\x1b[0m  \x1b[3;94mTarget\x1b[0m             \x1b[3;94mState\x1b[0m    \x1b[3;94mTLS\x1b[0m  \n\
             \x1b[1;34mweb\x1b[0m      \x1b[m*\x1b[0m     \x1b[m/\x1b[0m     \x1b[m0123456789ab:3000\x1b[0m  \x1b[mrunning\x1b[0m  \x1b[mno\x1b[0m   \n"
        );
    }
}
