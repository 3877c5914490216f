//! Texts for people that cross from one process to another: each has a bound.

/// Most bytes of a reason. It is a sentence or two; what somebody else's code says may be longer.
pub const REASON_BYTES_MAX: usize = 900;

/// At most so many bytes of a text: whole characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A reason of at most [`REASON_BYTES_MAX`] bytes.
pub fn cut_reason(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short", 900), "short");
        for (bytes, expected) in [(0, ""), (1, ""), (2, "ä"), (3, "ä"), (5, "ää"), (6, "äää")]
        {
            assert_eq!(cut("äää", bytes), expected);
        }
        assert_eq!(cut_reason("ä".repeat(1_000)), "ä".repeat(REASON_BYTES_MAX / 2));
        assert_eq!(cut_reason("no".to_owned()), "no");
    }
}
