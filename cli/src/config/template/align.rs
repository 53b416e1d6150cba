//! Which line of a template a line of its result comes from, where another program rendered it.

use crate::config::source::NOWHERE;
use crate::config::yaml::SourceMap;

/// Lines of the template that are looked at for one line of the result; a template seldom leaves out more.
const WINDOW: usize = 200;

/// Finds the lines of the result in the template. One that stands there as it is was copied; of one with a tag, what
/// stands before the tag. All else was made, and stands nowhere.
pub(crate) fn align(template: &str, rendered: &str) -> SourceMap {
    let place = |offset: usize| u32::try_from(offset).unwrap_or(NOWHERE);
    // Once for each, as lines may be long and each is compared with many of the result.
    let lines: Vec<(usize, Option<Head<'_>>)> =
        with_offsets(template).map(|(source, written)| (source, copied(written))).collect();
    let mut map = SourceMap::default();
    let mut next = 0;
    for (out, line) in with_offsets(rendered) {
        // An empty line could be any.
        let far = if line.trim().is_empty() { 1 } else { WINDOW };
        let mut window = lines.iter().enumerate().skip(next).take(far);
        let found = window.find_map(|(index, (source, head))| {
            let Head { text, is_whole } = head.as_ref()?;
            let fits = if *is_whole { line == *text } else { line.starts_with(text) };
            fits.then_some((index, *source, text.len(), *is_whole))
        });
        let Some((index, source, length, is_whole)) = found else {
            map.pieces.push((place(out), NOWHERE, false));
            continue;
        };
        next = index + 1;
        map.pieces.push((place(out), place(source), true));
        if !is_whole {
            map.pieces.push((place(out + length), place(source + length), false));
        }
    }
    map
}

/// What of a line stands in the result as it is: all of it, or what is before its first tag.
struct Head<'t> {
    text: &'t str,
    is_whole: bool,
}

/// Nothing, where a tag begins the line.
fn copied(written: &str) -> Option<Head<'_>> {
    match written.find("<%").and_then(|at| written.get(..at)) {
        Some(text) => (!text.trim().is_empty()).then_some(Head { text, is_whole: false }),
        None => Some(Head { text: written, is_whole: true }),
    }
}

/// Lines with their ends, and where each begins.
fn with_offsets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let begin = *at;
        *at += line.len();
        Some((begin, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_where_they_stand() {
        let template = "a: 1\n<% 2.times do |i| %>\nb<%= i %>: x\n<% end %>\nc: [<%= d %>]\ne: 2\n";
        let rendered = "a: 1\n\nb0: x\n\nb1: x\n\nc: [s]\ne: 2\n";
        let map = align(template, rendered);
        let of = |word: &str| map.source(u32::try_from(rendered.find(word).unwrap()).unwrap());
        let at = |word: &str| u32::try_from(template.find(word).unwrap()).unwrap();
        assert_eq!((of("a:"), of("b0"), of("c:"), of("e:")), (0, at("b<%="), at("c:"), at("e:")));
        // What Ruby made stands at its tag, or nowhere.
        assert_eq!((of("s]"), of("b1")), (at("<%= d"), NOWHERE));
        let copied = |word: &str| {
            let start = u32::try_from(rendered.find(word).unwrap()).unwrap();
            map.is_copied(start, start + u32::try_from(word.len()).unwrap())
        };
        assert!(copied("a: 1") && copied("c: [") && !copied("c: [s") && !copied("b1"));
    }

    /// Each line of the result is compared with many of these.
    #[test]
    fn long_lines_are_looked_through_once() {
        let template = format!("{}\n", "x".repeat(20_000)).repeat(200);
        let rendered = "made\n".repeat(100_000);
        assert!(align(&template, &rendered).pieces.iter().all(|(_, at, _)| *at == NOWHERE));
    }

    /// A template may have as many lines as it likes.
    #[test]
    fn long_files_take_no_time() {
        let template = "<% x %>\n".repeat(100_000);
        let rendered = "made\n".repeat(100_000);
        assert!(align(&template, &rendered).pieces.iter().all(|(_, at, _)| *at == NOWHERE));
    }
}
