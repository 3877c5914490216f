//! How the values of configuration keys are written: what is allowed, how it is read, how it is
//! shown.
//!
//! A syntax is a small constant such as `Size(1, GIB)` or `Or("off", Count(1, 512))`. It describes
//! itself for manual, help and errors ([`Describe`]), and reads and shows values of its type
//! ([`Syntax`]).

use std::fmt::{Debug, Display};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Longest duration: a year. Beyond it is a slip, and sums of deadlines stay far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A number nobody means to reach: what fits every counter the value ends up in.
pub(crate) const COUNT_MAX: u64 = u32::MAX as u64;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// What may be written for a key.
pub trait Describe: Debug + Sync {
    /// The type with its bounds, in a few words for a table: `number 1 to 512`.
    fn name(&self) -> String;

    /// What is allowed, as a sentence's end: `a number from 1 to 512, or "auto"`.
    fn allowed(&self) -> String;

    /// What stands for the value in a flag's help: `N`.
    fn value_name(&self) -> &'static str;

    /// What the manual says about all keys of this type: the type, and a sentence without its full
    /// stop. `None` if the type's name says all.
    fn manual(&self) -> Option<(String, String)> {
        None
    }

    /// Whether the value is a list, in text separated by commas.
    fn is_list(&self) -> bool {
        false
    }

    /// Whether a flag without a value means `true`.
    fn is_switch(&self) -> bool {
        false
    }
}

/// How values of type `T` are read and shown.
pub(crate) trait Syntax<T>: Describe {
    fn parse(&self, raw: &Raw) -> Result<T, Problem>;

    /// As one would write it in the file; empty for a value that is written by leaving the key out.
    fn print(&self, value: &T) -> String;
}

/// A value as it was written.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    /// From the environment or a flag: its type is what the key wants it to be.
    Text(String),
    String(String),
    /// `MAX` for all that 128 bits do not hold.
    Integer(i128),
    Boolean(bool),
    List(Vec<(Raw, Range<usize>)>),
    /// A type that no key has; its name.
    Other(&'static str),
}

impl Raw {
    fn describe(&self) -> String {
        match self {
            Self::Text(text) | Self::String(text) => format!("{text:?}"),
            Self::Integer(i128::MAX) => "the number".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Other(name) => (*name).to_owned(),
        }
    }

    fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::String(text) => Some(text),
            _ => None,
        }
    }

    fn is_not(&self, what: &str) -> Problem {
        format!("{} is not {what}", self.describe()).into()
    }
}

/// What is wrong with a value.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    /// The item of a list in the file, if it is one item's fault.
    pub(crate) span: Option<Range<usize>>,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message, span: None }
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub(crate) struct Switch;

impl Describe for Switch {
    fn name(&self) -> String {
        "boolean".to_owned()
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn value_name(&self) -> &'static str {
        "BOOL"
    }

    fn is_switch(&self) -> bool {
        true
    }
}

impl Syntax<bool> for Switch {
    fn parse(&self, raw: &Raw) -> Result<bool, Problem> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            _ => Err(format!("{} is neither true nor false", raw.describe()).into()),
        }
    }

    fn print(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number from the first to the second.
#[derive(Debug)]
pub(crate) struct Count(pub(crate) u64, pub(crate) u64);

impl Count {
    /// `from 1 to 512`; a bound nobody means to reach is left out.
    fn bounds(&self) -> String {
        match self {
            Self(min, max) if *max >= COUNT_MAX => format!("from {min}"),
            Self(min, max) => format!("from {min} to {max}"),
        }
    }
}

impl Describe for Count {
    fn name(&self) -> String {
        format!("number {}", self.bounds())
    }

    fn allowed(&self) -> String {
        format!("a number {}", self.bounds())
    }

    fn value_name(&self) -> &'static str {
        "N"
    }
}

impl<T: TryFrom<u64> + Display> Syntax<T> for Count {
    fn parse(&self, raw: &Raw) -> Result<T, Problem> {
        let number = match raw {
            Raw::String(text) if text.parse::<i128>().is_ok() => {
                return Err(format!("{text:?} is a string, not a number").into());
            }
            _ => whole_number(raw).ok_or_else(|| raw.is_not("a number"))?,
        };
        within(raw, number, self.0, self.1)
    }

    fn print(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A number as TOML has it, or as text of the environment or a flag.
fn whole_number(raw: &Raw) -> Option<i128> {
    match raw {
        Raw::Integer(number) => Some(*number),
        Raw::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn within<T: TryFrom<u64>>(raw: &Raw, number: i128, min: u64, max: u64) -> Result<T, Problem> {
    if number < i128::from(min) {
        return Err(format!("{} is too small", raw.describe()).into());
    }
    // Out of reach where the syntax's bounds fit the type; said all the same.
    let fits = u64::try_from(number).ok().filter(|number| *number <= max);
    let fits = fits.and_then(|number| T::try_from(number).ok());
    fits.ok_or_else(|| format!("{} is too large", raw.describe()).into())
}

/// Bytes from the first to the second: a whole number or `"64 KiB"`.
#[derive(Debug)]
pub(crate) struct Size(pub(crate) u64, pub(crate) u64);

impl Describe for Size {
    fn name(&self) -> String {
        "size".to_owned()
    }

    fn allowed(&self) -> String {
        format!(
            "bytes as a number, or with a unit as in \"64 KiB\" (B, KiB, MiB, GiB); from {} to {}",
            size_text(self.0),
            size_text(self.1)
        )
    }

    fn value_name(&self) -> &'static str {
        "SIZE"
    }

    fn manual(&self) -> Option<(String, String)> {
        let text = "bytes as a number, or a string with a unit: \"64 KiB\" (`B`, `KiB`, `MiB`, `GiB`, \
                    each 1,024 of the one before)";
        Some((self.name(), text.to_owned()))
    }
}

impl Syntax<usize> for Size {
    fn parse(&self, raw: &Raw) -> Result<usize, Problem> {
        let number = match (whole_number(raw), raw.as_str()) {
            (Some(number), _) => number,
            (None, Some(text)) => i128::from(size(text)?),
            (None, None) => return Err(raw.is_not("a size")),
        };
        within(raw, number, self.0, self.1)
    }

    fn print(&self, value: &usize) -> String {
        match size_text(*value as u64) {
            text if text.ends_with('B') => quoted(&text),
            text => text,
        }
    }
}

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// `64 KiB` as bytes; saturates.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    if number.is_empty() {
        return Err(format!("{text:?} is not a size"));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => format!("{text:?} is a string without a unit"),
            _ => format!("{unit:?} in {text:?} is not a unit of size"),
        });
    };
    Ok(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*factor))
}

/// `65536` as `64 KiB`: with the largest unit that divides it.
fn size_text(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) if *factor > 1 => format!("{} {unit}", bytes / factor),
        _ => bytes.to_string(),
    }
}

/// `"10s"`, `"500ms"`, `"1m30s"`, at most a year.
#[derive(Debug)]
pub(crate) struct Time {
    /// Whether `"0s"` makes sense.
    pub(crate) zero: bool,
}

impl Describe for Time {
    fn name(&self) -> String {
        "duration".to_owned()
    }

    fn allowed(&self) -> String {
        let zero = if self.zero { "\"0s\" too" } else { "not zero" };
        format!("a duration such as \"10s\", \"500ms\" or \"1m30s\" (h, m, s, ms), {zero}")
    }

    fn value_name(&self) -> &'static str {
        "DURATION"
    }

    fn manual(&self) -> Option<(String, String)> {
        let text = "\"10s\", \"500ms\", \"1m30s\": whole numbers with `h`, `m`, `s` or `ms`, added up; \
                    where it makes sense \"off\", or \"0s\". A number alone is an error";
        Some((self.name(), text.to_owned()))
    }
}

impl Syntax<Duration> for Time {
    fn parse(&self, raw: &Raw) -> Result<Duration, Problem> {
        let duration = match raw {
            Raw::Text(text) | Raw::String(text) => duration(text)?,
            Raw::Integer(number) => return Err(format!("{number} has no unit").into()),
            _ => return Err(raw.is_not("a duration")),
        };
        if duration.is_zero() && !self.zero {
            return Err(format!("{} is zero", raw.describe()).into());
        }
        if duration > DURATION_MAX {
            return Err(format!("{} is more than a year", raw.describe()).into());
        }
        Ok(duration)
    }

    fn print(&self, value: &Duration) -> String {
        quoted(&duration_text(*value))
    }
}

/// A time as `drain_duration` states one, up to a year: `1m30s`, `0s`.
///
/// # Errors
/// The text to show.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = Time { zero: true }.parse(&Raw::String(text.to_owned()));
    parsed.map_err(|problem| problem.message)
}

const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `1m30s`: numbers with units, added up; saturates.
fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut sum_ms = 0u64;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(format!("{text:?} is not a duration"));
        }
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let Some((_, factor_ms)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" if after.is_empty() => format!("{text:?} has no unit at its end"),
                "" => format!("{text:?} is not a duration"),
                _ => format!("{unit:?} in {text:?} is not a unit of time"),
            });
        };
        let number = number.parse::<u64>().unwrap_or(u64::MAX);
        sum_ms = sum_ms.saturating_add(number.saturating_mul(*factor_ms));
        rest = after;
    }
    Ok(Duration::from_millis(sum_ms))
}

fn duration_text(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor_ms) in DURATION_UNITS {
        if rest_ms >= factor_ms {
            text += &format!("{}{unit}", rest_ms / factor_ms);
            rest_ms %= factor_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A word that stands for `None`, or else a value.
#[derive(Debug)]
pub(crate) struct Or<S>(pub(crate) &'static str, pub(crate) S);

impl<S: Describe> Describe for Or<S> {
    fn name(&self) -> String {
        format!("{} or \"{}\"", self.1.name(), self.0)
    }

    fn allowed(&self) -> String {
        let allowed = self.1.allowed();
        // A sentence with commas of its own needs more than one.
        let separator = if allowed.contains(',') { ';' } else { ',' };
        format!("{allowed}{separator} or \"{}\"", self.0)
    }

    fn value_name(&self) -> &'static str {
        self.1.value_name()
    }

    fn manual(&self) -> Option<(String, String)> {
        self.1.manual()
    }
}

impl<T, S: Syntax<T>> Syntax<Option<T>> for Or<S> {
    fn parse(&self, raw: &Raw) -> Result<Option<T>, Problem> {
        match raw.as_str() {
            Some(word) if word == self.0 => Ok(None),
            _ => self.1.parse(raw).map(Some),
        }
    }

    fn print(&self, value: &Option<T>) -> String {
        match value {
            Some(value) => self.1.print(value),
            None => quoted(self.0),
        }
    }
}

/// Where a number is needed in the end, the word stands for 0 until the machine is known.
impl Syntax<usize> for Or<Count> {
    fn parse(&self, raw: &Raw) -> Result<usize, Problem> {
        Syntax::<Option<usize>>::parse(self, raw).map(Option::unwrap_or_default)
    }

    fn print(&self, value: &usize) -> String {
        self.print(&Some(*value).filter(|value| *value > 0))
    }
}

/// One of these words, each with its value.
#[derive(Debug)]
pub(crate) struct Choice<T: 'static> {
    /// What an error calls it: `a log format`.
    pub(crate) noun: &'static str,
    pub(crate) words: &'static [(&'static str, T)],
}

impl<T: Debug + Sync> Describe for Choice<T> {
    fn name(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        words.join(", ")
    }

    fn allowed(&self) -> String {
        one_of(&self.words.iter().map(|(word, _)| *word).collect::<Vec<_>>())
    }

    fn value_name(&self) -> &'static str {
        "WORD"
    }
}

impl<T: Copy + PartialEq + Debug + Sync> Syntax<T> for Choice<T> {
    fn parse(&self, raw: &Raw) -> Result<T, Problem> {
        let found = self.words.iter().find(|(word, _)| raw.as_str() == Some(*word));
        found.map(|(_, value)| *value).ok_or_else(|| raw.is_not(self.noun))
    }

    fn print(&self, value: &T) -> String {
        let found = self.words.iter().find(|(_, other)| other == value);
        found.map_or_else(String::new, |(word, _)| quoted(word))
    }
}

/// A string with a grammar of its own.
#[derive(Debug)]
pub(crate) struct Text {
    /// What the manual calls it in the list of types; empty if the list leaves it out.
    pub(crate) title: &'static str,
    pub(crate) value_name: &'static str,
    pub(crate) allowed: &'static str,
    /// The error says what is wrong.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

impl Describe for Text {
    fn name(&self) -> String {
        "string".to_owned()
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }

    fn value_name(&self) -> &'static str {
        self.value_name
    }

    fn manual(&self) -> Option<(String, String)> {
        (!self.title.is_empty()).then(|| (self.title.to_owned(), self.allowed()))
    }
}

impl Syntax<String> for Text {
    fn parse(&self, raw: &Raw) -> Result<String, Problem> {
        let text = raw.as_str().ok_or_else(|| raw.is_not("a string"))?;
        (self.check)(text)?;
        Ok(text.to_owned())
    }

    fn print(&self, value: &String) -> String {
        quoted(value)
    }
}

/// A file's path, or none.
#[derive(Debug)]
pub(crate) struct FilePath;

impl Describe for FilePath {
    fn name(&self) -> String {
        "path".to_owned()
    }

    fn allowed(&self) -> String {
        "a path".to_owned()
    }

    fn value_name(&self) -> &'static str {
        "PATH"
    }
}

impl Syntax<Option<PathBuf>> for FilePath {
    fn parse(&self, raw: &Raw) -> Result<Option<PathBuf>, Problem> {
        match raw.as_str() {
            Some("") => Err("the path is empty".to_owned().into()),
            Some(path) => Ok(Some(path.into())),
            None => Err(raw.is_not("a path")),
        }
    }

    fn print(&self, value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(String::new, |path| quoted(&path.display().to_string()))
    }
}

/// A list of strings, each of which stands for a `T`; no two are the same.
#[derive(Debug)]
pub(crate) struct List<T> {
    /// What it is a list of: `addresses`.
    pub(crate) name: &'static str,
    pub(crate) value_name: &'static str,
    pub(crate) allowed: &'static str,
    /// Fewest items that make sense, if the key is given at all.
    pub(crate) least: usize,
    /// Whether errors must not show what was written.
    pub(crate) secret: bool,
    pub(crate) parse: fn(&str) -> Result<T, String>,
    /// An item as TOML.
    pub(crate) print: fn(&T) -> String,
}

impl<T: Debug> Describe for List<T> {
    fn name(&self) -> String {
        format!("list of {}", self.name)
    }

    fn allowed(&self) -> String {
        let least = if self.least > 0 { "; at least one" } else { "" };
        format!("{}{least}", self.allowed)
    }

    fn value_name(&self) -> &'static str {
        self.value_name
    }

    fn manual(&self) -> Option<(String, String)> {
        Some((self.name(), self.allowed()))
    }

    fn is_list(&self) -> bool {
        true
    }
}

impl<T: PartialEq + Debug> Syntax<Vec<T>> for List<T> {
    fn parse(&self, raw: &Raw) -> Result<Vec<T>, Problem> {
        let texts: Vec<(&str, Option<Range<usize>>)> = match raw {
            Raw::Text(text) if text.is_empty() => Vec::new(),
            Raw::Text(text) => text.split(',').map(|item| (item.trim(), None)).collect(),
            Raw::List(items) => items
                .iter()
                .map(|(item, span)| match item {
                    Raw::String(text) => Ok((text.as_str(), Some(span.clone()))),
                    _ => {
                        let shown = if self.secret { "an item".into() } else { item.describe() };
                        let message = format!("{shown} is not a string");
                        Err(Problem { message, span: Some(span.clone()) })
                    }
                })
                .collect::<Result<_, _>>()?,
            _ if self.secret => return Err("this is not a list".to_owned().into()),
            _ => return Err(raw.is_not("a list")),
        };
        if texts.len() < self.least {
            return Err("the list is empty".to_owned().into());
        }
        let mut items: Vec<T> = Vec::with_capacity(texts.len());
        for (text, span) in texts {
            let problem = |message| Problem { message, span: span.clone() };
            let item = (self.parse)(text).map_err(problem)?;
            if items.contains(&item) {
                let shown = if self.secret { "the secret".into() } else { format!("{text:?}") };
                return Err(problem(format!("{shown} is in the list twice")));
            }
            items.push(item);
        }
        Ok(items)
    }

    fn print(&self, value: &Vec<T>) -> String {
        let items: Vec<_> = value.iter().map(self.print).collect();
        format!("[{}]", items.join(", "))
    }
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{}\"", word.as_ref())).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// As a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_written() {
        for (text, bytes) in
            [("1 MiB", 1 << 20), ("3 KiB", 3072), ("2 GiB", 2 << 30), ("1000", 1000), ("0", 0)]
        {
            assert_eq!(size_text(bytes), text);
        }
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("7 B"), Ok(7));
        assert_eq!(size("99999999999999999999 GiB"), Ok(u64::MAX));
    }

    #[test]
    fn durations_read_back_as_written() {
        for text in ["10s", "500ms", "1m30s", "2h", "1h1m1s1ms", "0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        assert_eq!(duration("90s").unwrap(), duration("1m30s").unwrap());
        assert_eq!(duration("99999999999999999999h").unwrap(), Duration::from_millis(u64::MAX));
    }

    #[test]
    fn a_list_of_words_reads_as_a_sentence() {
        assert_eq!(one_of(&["a"]), "\"a\"");
        assert_eq!(one_of(&["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
