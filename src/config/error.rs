//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Everything that is wrong, in the order of the sources. Not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index > 0 { "\n\n" } else { "" };
            write!(formatter, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where it was written.
    pub place: Place,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What would be right, without a full stop.
    pub help: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)?;
        if let Place::File { line, column, text, width, .. } = &self.place {
            let gutter = " ".repeat(line.to_string().len());
            // Tabs stay tabs, or the marker would stand elsewhere.
            let indent: String = text
                .chars()
                .take(column - 1)
                .map(|character| if character == '\t' { '\t' } else { ' ' })
                .collect();
            write!(formatter, "\n  {line} | {text}\n  {gutter} | {indent}{}", "^".repeat(*width))?;
        }
        match &self.help {
            Some(help) => write!(formatter, "\n  {help}"),
            None => Ok(()),
        }
    }
}

/// Where something wrong was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the configuration file.
    File {
        /// The file.
        name: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The line; what is secret in it is taken out.
        text: String,
        /// How many characters of the line are at fault, at least 1.
        width: usize,
    },
    /// In a file that a key names.
    Other(String),
    /// In this environment variable.
    Environment(String),
    /// In this flag.
    Flag(String),
    /// The values do not go together, and the one to blame is a default.
    Default(String),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column, .. } => write!(formatter, "{name}:{line}:{column}"),
            Self::Other(name) | Self::Environment(name) | Self::Flag(name) => {
                formatter.write_str(name)
            }
            Self::Default(key) => write!(formatter, "{key} (by default)"),
        }
    }
}

/// The place of `span` (bytes) in a file.
pub(super) fn place_in_file(name: &Path, source: &str, span: Range<usize>) -> Place {
    let start = floor_char_boundary(source, span.start);
    let end = floor_char_boundary(source, span.end.max(start));
    let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = source[start..].find('\n').map_or(source.len(), |newline| start + newline);
    let line = source[..start].matches('\n').count() + 1;
    let column = source[line_start..start].chars().count() + 1;
    let text = &source[line_start..line_end];
    let public = without_secrets(&source[..line_start], text);
    // The marker stays below what is shown.
    let room = (public.chars().count() + 1).saturating_sub(column).max(1);
    let width = source[start..end.min(line_end)].chars().count().clamp(1, room);
    Place::File { name: name.display().to_string(), line, column, text: public, width }
}

/// 1-based line of a byte.
pub(super) fn line_of(source: &str, byte: usize) -> usize {
    source[..floor_char_boundary(source, byte)].matches('\n').count() + 1
}

fn floor_char_boundary(text: &str, byte: usize) -> usize {
    (0..=byte.min(text.len())).rev().find(|byte| text.is_char_boundary(*byte)).unwrap_or(0)
}

/// The line with everything after `tokens =` taken out, also where the list began on a line before
/// it. By text, not by span: a file that is no TOML has no spans.
fn without_secrets(before: &str, line: &str) -> String {
    if let Some(end) = secret_start(line) {
        return format!("{}…", &line[..end]);
    }
    let assignment = before.lines().rev().find(|line| line.contains('=') || line.starts_with('['));
    match assignment {
        Some(earlier)
            if secret_start(earlier).is_some()
                && !line.contains('=')
                && !line.trim_start().starts_with('[') =>
        {
            "…".to_owned()
        }
        _ => line.trim_end_matches('\r').to_owned(),
    }
}

/// The byte after `tokens =`, if the line has it.
fn secret_start(line: &str) -> Option<usize> {
    let (position, _) = line.match_indices("tokens").find(|(position, word)| {
        let after = line[position + word.len()..].trim_start_matches(['"', '\'', ' ', '\t']);
        after.starts_with('=')
    })?;
    Some(position + line[position..].find('=')? + 1)
}

/// The candidate that `name` most likely was meant to be.
pub(super) fn did_you_mean<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words (Levenshtein), where a swap of neighbours counts once.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().replace('-', "_").chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let edited = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped =
                    i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
                if swapped { edited.min(rows[i - 2][j - 2] + 1) } else { edited }
            };
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_and_swaps() {
        for (left, right, expected) in [
            ("listen", "listen", 0),
            ("lsiten", "listen", 1),
            ("lisen", "listen", 1),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(left, right), expected);
        }
    }

    #[test]
    fn nothing_is_suggested_for_what_is_far_off() {
        assert_eq!(did_you_mean("colour", ["listen", "workers"].into_iter()), None);
        assert_eq!(did_you_mean("wrokers", ["listen", "workers"].into_iter()), Some("workers"));
    }

    #[test]
    fn lines_are_shown_without_secrets() {
        for (before, line, expected) in [
            ("", "tokens = [\"abc\"", "tokens =…"),
            ("", "  { path = \"/\", tokens=['abc'] }", "  { path = \"/\", tokens=…"),
            ("", "\"tokens\" = [\"abc\"]", "\"tokens\" =…"),
            ("tokens = [\n", "  \"abc\",", "…"),
            ("tokens = [\n  \"a\",\n", "  \"b\"", "…"),
            ("tokens = []\n", "path = \"/\"", "path = \"/\""),
            ("tokens = []\n", "[limits]", "[limits]"),
            ("", "tokens_file = \"x\"", "tokens_file = \"x\""),
        ] {
            assert_eq!(without_secrets(before, line), expected);
        }
    }
}
