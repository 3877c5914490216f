//! Raw values, what a key allows, and how one becomes the other.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::{ListenAddr, LogFormat, Secret};

/// Longest duration: a year. Beyond it is a slip, and sums of deadlines stay far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A value as it was written.
#[derive(Debug, Clone)]
pub(super) enum Raw {
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
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) message: String,
    /// The item of a list in the file, if it is one item's fault.
    pub(super) span: Option<Range<usize>>,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message, span: None }
    }
}

/// What may be written for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number, or the word that stands for none.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// `"off"` or `"auto"`.
        word: Option<&'static str>,
    },
    /// Bytes: a whole number or `"64 KiB"`.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// `"10s"`, `"500ms"`, `"1m30s"`.
    Duration {
        /// Whether zero makes sense.
        zero: bool,
        /// Whether `"off"` does.
        off: bool,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A level filter.
    LogLevel,
    /// A file's path.
    Path,
    /// Addresses to listen on.
    Listen,
    /// Networks and `unix`.
    Proxies,
    /// A route's path pattern.
    Pattern,
    /// An app's name.
    App,
    /// Origins, `same-host`, `*`.
    Origins,
    /// Subprotocol names.
    Subprotocols,
    /// Bearer tokens.
    Tokens,
}

impl Shape {
    /// The type in one or two words, for tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Count { .. } => "number",
            Self::Bytes { .. } => "size",
            Self::Duration { .. } => "duration",
            Self::Choice(_) | Self::LogLevel | Self::Pattern | Self::App => "string",
            Self::Path => "path",
            Self::Listen => "list of addresses",
            Self::Proxies => "list of networks",
            Self::Origins => "list of origins",
            Self::Subprotocols => "list of names",
            Self::Tokens => "list of secrets",
        }
    }

    /// What is allowed, as a sentence's end: `a number from 1 to 512, or "auto"`.
    pub fn allowed(&self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Count { min, max, word } => {
                let numbers = match *max {
                    // A bound nobody means to reach is noise.
                    max if max >= u64::from(u32::MAX) => format!("a number from {min}"),
                    max => format!("a number from {min} to {max}"),
                };
                match word {
                    Some(word) => format!("{numbers}, or \"{word}\""),
                    None => numbers,
                }
            }
            Self::Bytes { min, max } => format!(
                "bytes as a number, or with a unit as in \"64 KiB\" (B, KiB, MiB, GiB); from {} to {}",
                size_text(*min),
                size_text(*max)
            ),
            Self::Duration { zero, off } => {
                let mut text = "a duration such as \"10s\", \"500ms\" or \"1m30s\" (h, m, s, ms)".to_owned();
                text += if *zero { ", \"0s\" too" } else { ", not zero" };
                text += if *off { "; or \"off\"" } else { "" };
                text
            }
            Self::Choice(words) => one_of(words),
            Self::LogLevel => "off, error, warn, info, debug or trace, then perhaps levels of \
                modules: \"info,steadfast::net=debug\""
                .to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Listen => {
                "addresses such as \"127.0.0.1:8000\", \"[::]:80\" or \"unix:/run/steadfast.sock\"; \
                 at least one"
                    .to_owned()
            }
            Self::Proxies => {
                "networks such as \"10.0.0.0/8\" or \"::1\", and \"unix\" for every peer on a Unix \
                 socket"
                    .to_owned()
            }
            Self::Pattern => {
                "a path such as \"/echo\" or \"/rooms/{name}\": segments of letters, digits and \
                 -._~!$&'()*+,;=:@%, or {parameter}"
                    .to_owned()
            }
            Self::App => "the name of an app".to_owned(),
            Self::Origins => {
                "origins such as \"https://example.org\" or \"http://localhost:3000\", \
                 \"same-host\", or \"*\" alone for all"
                    .to_owned()
            }
            Self::Subprotocols => "names of letters, digits and !#$%&'*+-.^_`|~".to_owned(),
            Self::Tokens => {
                "secrets of letters, digits and !#$%&'*+-.^_`|~, so that each also fits a \
                 subprotocol; at least one"
                    .to_owned()
            }
        }
    }

    /// Whether values must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Tokens)
    }

    /// Whether the value is a list, in text separated by commas.
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            Self::Listen | Self::Proxies | Self::Origins | Self::Subprotocols | Self::Tokens
        )
    }
}

/// `"a", "b" or "c"`.
pub(super) fn one_of<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{}\"", word.as_ref())).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A type that a key's value has once it is read.
pub(super) trait Value: Sized {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem>;

    /// As one would write it in the file.
    fn show(&self, shape: &Shape) -> String;
}

impl Value for bool {
    fn parse(raw: &Raw, _: &Shape) -> Result<Self, Problem> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            _ => Err(format!("{} is neither true nor false", raw.describe()).into()),
        }
    }

    fn show(&self, _: &Shape) -> String {
        self.to_string()
    }
}

macro_rules! impl_value_for_numbers {
    ($($Number:ty),*) => {$(
        impl Value for $Number {
            fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
                let number = number(raw, shape)?;
                // Out of reach where the shape's bounds fit the type; said all the same.
                Self::try_from(number).map_err(|_| format!("{number} is too large").into())
            }

            fn show(&self, shape: &Shape) -> String {
                match shape {
                    Shape::Bytes { .. } => size_shown(*self as u64),
                    _ => self.to_string(),
                }
            }
        }

        impl Value for Option<$Number> {
            fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
                match shape {
                    Shape::Count { word: Some(word), .. } if raw.as_str() == Some(*word) => Ok(None),
                    _ => <$Number>::parse(raw, shape).map(Some),
                }
            }

            fn show(&self, shape: &Shape) -> String {
                match (self, shape) {
                    (None, Shape::Count { word: Some(word), .. }) => format!("\"{word}\""),
                    (None, _) => String::new(),
                    (Some(number), _) => number.show(shape),
                }
            }
        }
    )*};
}

impl_value_for_numbers!(u8, u32, usize);

/// A number within the shape's bounds.
fn number(raw: &Raw, shape: &Shape) -> Result<u64, Problem> {
    let (min, max, unit) = match *shape {
        Shape::Count { min, max, .. } => (min, max, false),
        Shape::Bytes { min, max } => (min, max, true),
        _ => unreachable!("the key of a number is a count or a size"),
    };
    let number = match raw {
        Raw::Integer(number) => *number,
        Raw::Text(text) if text.parse::<i128>().is_ok() => text.parse().unwrap_or_default(),
        Raw::Text(text) | Raw::String(text) if unit => i128::from(size(text)?),
        _ => {
            let noun = if unit { "size" } else { "number" };
            return Err(match raw {
                Raw::String(text) if text.parse::<i128>().is_ok() => {
                    format!("{text:?} is a string, not a number").into()
                }
                _ => format!("{} is not a {noun}", raw.describe()).into(),
            });
        }
    };
    let shown = raw.describe();
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if number < i128::from(min) => Err(format!("{shown} is too small").into()),
        _ => Err(format!("{shown} is too large").into()),
    }
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

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

fn size_shown(bytes: u64) -> String {
    match size_text(bytes) {
        text if text.ends_with('B') => format!("\"{text}\""),
        text => text,
    }
}

impl Value for Duration {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
        let Shape::Duration { zero, .. } = *shape else {
            unreachable!("the key of a duration is one");
        };
        let duration = match raw {
            Raw::Text(text) | Raw::String(text) => duration(text)?,
            Raw::Integer(number) => return Err(format!("{number} has no unit").into()),
            _ => return Err(format!("{} is not a duration", raw.describe()).into()),
        };
        if duration.is_zero() && !zero {
            return Err(format!("{} is zero", raw.describe()).into());
        }
        if duration > DURATION_MAX {
            return Err(format!("{} is more than a year", raw.describe()).into());
        }
        Ok(duration)
    }

    fn show(&self, _: &Shape) -> String {
        format!("\"{}\"", duration_text(*self))
    }
}

impl Value for Option<Duration> {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
        match raw.as_str() {
            Some("off") => Ok(None),
            _ => Duration::parse(raw, shape).map(Some),
        }
    }

    fn show(&self, shape: &Shape) -> String {
        match self {
            Some(duration) => duration.show(shape),
            None => "\"off\"".to_owned(),
        }
    }
}

/// A time as `drain_duration` states one, up to a year: `1m30s`, `0s`.
///
/// # Errors
/// The text to show.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let shape = Shape::Duration { zero: true, off: false };
    Duration::parse(&Raw::String(text.to_owned()), &shape).map_err(|problem| problem.message)
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

impl Value for Option<PathBuf> {
    fn parse(raw: &Raw, _: &Shape) -> Result<Self, Problem> {
        match raw.as_str() {
            Some("") => Err("the path is empty".to_owned().into()),
            Some(path) => Ok(Some(path.into())),
            None => Err(format!("{} is not a path", raw.describe()).into()),
        }
    }

    fn show(&self, _: &Shape) -> String {
        match self {
            Some(path) => quoted(&path.display().to_string()),
            None => String::new(),
        }
    }
}

impl Value for LogFormat {
    fn parse(raw: &Raw, _: &Shape) -> Result<Self, Problem> {
        match raw.as_str() {
            Some("auto") => Ok(Self::Auto),
            Some("human") => Ok(Self::Human),
            Some("json") => Ok(Self::Json),
            _ => Err(format!("{} is not a log format", raw.describe()).into()),
        }
    }

    fn show(&self, _: &Shape) -> String {
        let word = match self {
            Self::Auto => "auto",
            Self::Human => "human",
            Self::Json => "json",
        };
        quoted(word)
    }
}

/// Plain strings with a grammar of their own.
impl Value for String {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
        let Some(text) = raw.as_str() else {
            return Err(format!("{} is not a string", raw.describe()).into());
        };
        match shape {
            Shape::LogLevel => check_log_level(text)?,
            Shape::Pattern => super::route::check_pattern(text)?,
            Shape::App if text.is_empty() => return Err("the name is empty".to_owned().into()),
            _ => {}
        }
        Ok(text.to_owned())
    }

    fn show(&self, _: &Shape) -> String {
        quoted(self)
    }
}

/// tracing-subscriber takes `inof` for a target and logs everything of it: be stricter.
fn check_log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for (index, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            None if index > 0 => return Err(format!("{part:?} in {text:?} is not module=level")),
            None if LEVELS.contains(&part) => {}
            None => return Err(format!("{part:?} is not a level")),
            Some((_, level)) if !LEVELS.contains(&level) => {
                return Err(format!("{level:?} in {text:?} is not a level"));
            }
            Some((module, _)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                if module.is_empty() || !module.chars().all(plain) {
                    return Err(format!("{module:?} in {text:?} is not a module"));
                }
            }
        }
    }
    Ok(())
}

/// What a list is made of.
pub(super) trait Item: Sized + PartialEq {
    /// Fewest that make sense, if the key is given at all.
    const COUNT_MIN: usize = 0;

    fn parse_item(text: &str) -> Result<Self, String>;

    fn show_item(&self) -> String;
}

impl<T: Item> Value for Vec<T> {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
        let secret = shape.is_secret();
        let texts: Vec<(&str, Option<Range<usize>>)> = match raw {
            Raw::Text(text) if text.is_empty() => Vec::new(),
            Raw::Text(text) => text.split(',').map(|item| (item.trim(), None)).collect(),
            Raw::List(items) => items
                .iter()
                .map(|(item, span)| match item {
                    Raw::String(text) => Ok((text.as_str(), Some(span.clone()))),
                    _ => Err(Problem {
                        message: match secret {
                            true => "an item is not a string".to_owned(),
                            false => format!("{} is not a string", item.describe()),
                        },
                        span: Some(span.clone()),
                    }),
                })
                .collect::<Result<_, _>>()?,
            _ if secret => return Err("this is not a list".to_owned().into()),
            _ => return Err(format!("{} is not a list", raw.describe()).into()),
        };
        if texts.len() < T::COUNT_MIN {
            return Err("the list is empty".to_owned().into());
        }
        let mut items: Vec<T> = Vec::with_capacity(texts.len());
        for (text, span) in texts {
            let problem = |message| Problem { message, span: span.clone() };
            let item = T::parse_item(text).map_err(problem)?;
            if items.contains(&item) {
                return Err(problem(match secret {
                    true => "the secret is in the list twice".to_owned(),
                    false => format!("{text:?} is in the list twice"),
                }));
            }
            items.push(item);
        }
        Ok(items)
    }

    fn show(&self, _: &Shape) -> String {
        let items: Vec<_> = self.iter().map(Item::show_item).collect();
        format!("[{}]", items.join(", "))
    }
}

impl Item for ListenAddr {
    const COUNT_MIN: usize = 1;

    fn parse_item(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn show_item(&self) -> String {
        quoted(&self.to_string())
    }
}

/// The one kind of plain strings in lists: subprotocols.
impl Item for String {
    fn parse_item(text: &str) -> Result<Self, String> {
        match is_http_token(text) {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is not a subprotocol's name")),
        }
    }

    fn show_item(&self) -> String {
        quoted(self)
    }
}

impl Item for Secret {
    // An empty list could be read as "nobody" and as "everybody".
    const COUNT_MIN: usize = 1;

    fn parse_item(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a secret is empty".to_owned()),
            _ if is_http_token(text) => Ok(Self::new(text)),
            _ => Err("a secret has a character that is not allowed".to_owned()),
        }
    }

    fn show_item(&self) -> String {
        "…".to_owned()
    }
}

/// `token` of RFC 9110 §5.6.2.
fn is_http_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// As a TOML string.
pub(super) fn quoted(text: &str) -> String {
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
