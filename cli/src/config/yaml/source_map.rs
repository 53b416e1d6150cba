//! From what a template made back to the file as written.

/// Maps bytes of the text that is parsed to bytes of the file as written.
///
/// They differ when a template was evaluated. The identity for a plain file.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    /// `(first output byte, first source byte, copied)`, ascending; `copied` pieces are
    /// one to one, others stand for one construct of the template.
    pub pieces: Vec<(u32, u32, bool)>,
}

impl SourceMap {
    /// The place in the written file of byte `index` of the parsed text.
    #[must_use]
    pub fn source(&self, index: u32) -> u32 {
        let next = self.pieces.partition_point(|piece| piece.0 <= index);
        let Some((out, source, copied)) = next.checked_sub(1).and_then(|at| self.pieces.get(at))
        else {
            return index;
        };
        if *copied { source + (index - out) } else { *source }
    }

    /// Whether the bytes from `start` to before `end` of the parsed text stand in the file as they are.
    pub(crate) fn is_copied(&self, start: u32, end: u32) -> bool {
        let piece = |index| self.pieces.partition_point(|piece| piece.0 <= index).saturating_sub(1);
        let (first, last) = (piece(start), piece(end.saturating_sub(1).max(start)));
        self.pieces.iter().take(last + 1).skip(first).all(|(_, _, copied)| *copied)
    }
}
