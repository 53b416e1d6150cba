//! The files a config was read from, to show where something stands.

use super::yaml::Span;

/// Where something begins that stands in no file, as a program made it.
pub const NOWHERE: u32 = u32::MAX;

/// Texts by file number, as written (before template evaluation, without a byte order mark).
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

/// One file.
#[derive(Clone)]
pub struct SourceFile {
    /// As the user named it.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A file may hold a password.
impl std::fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A place that people can find: both counts begin at 1, columns are characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the user named the file.
    pub path: String,
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// The text of that line.
    pub excerpt: String,
    /// How many characters of the line the caret underlines; at least 1.
    pub width: usize,
}

impl Sources {
    /// Adds a file; gives its number.
    pub fn add(&mut self, path: String, text: String) -> u16 {
        self.files.push(SourceFile { path, text });
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    /// The files in the order they were read.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Where `span` stands; `None` for a span of no file, and for [`NOWHERE`].
    #[must_use]
    pub fn place(&self, span: Span) -> Option<Place> {
        let file = self.files.get(usize::from(span.file)).filter(|_| span.start != NOWHERE)?;
        // Offsets come from a parser, but a wrong one must not cut a character in two.
        let floor = |offset: u32| {
            let mut at = (offset as usize).min(file.text.len());
            while !file.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (floor(span.start), floor(span.end.max(span.start)));
        let line_start = file.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = file.text[..start].bytes().filter(|byte| *byte == b'\n').count() + 1;
        let excerpt = file.text[line_start..].lines().next().unwrap_or("").to_owned();
        let column = file.text[line_start..start].chars().count();
        let wanted = file.text[start..end].chars().count();
        let width = wanted.min(excerpt.chars().count().saturating_sub(column)).max(1);
        Some(Place { path: file.path.clone(), line, column: column + 1, excerpt, width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("deploy.yml".into(), "é: 1\r\nname: shop\r\n".into());
        let place = sources.place(Span { file, start: 13, end: 17 }).unwrap();
        assert_eq!((place.line, place.column, place.width), (2, 7, 4));
        assert_eq!(place.excerpt, "name: shop");
    }
}
