//! Where log lines go: stderr, for people on a terminal, as JSON otherwise.
//!
//! No thread waits for stderr's reader: see [`stderr`]. Times are RFC 3339 in
//! UTC. Secrets cannot get here by way of `Debug`: see [`Secret`](crate::config::Secret).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use tracing::{Dispatch, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{Log, LogFormat};
use crate::net::log_limit::limited;
use crate::sys::stderr;

/// Most bytes of log lines that wait to be written; what exceeds it is dropped and counted. 1 MiB:
/// some 4,000 lines, a tenth of a second of a server that logs each request, and small beside what
/// a thousand connections cost.
pub const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Begins to log to stderr, panics included. If the process has a subscriber already, as a library
/// user's own binary may, that one stays.
pub fn init(log: &Log) {
    let form = form(log.format);
    if tracing::subscriber::set_global_default(subscriber(&log.level, form, || Line)).is_err() {
        return;
    }
    let _ = FORM.set(form);
    let report = Report::new(form);
    if let Err(error) = stderr::start(QUEUE_BYTES_MAX, move |dropped| report.line(dropped)) {
        tracing::warn!(%error, "no thread for the log: a reader that is slow holds up the server");
    }
    // Tests want the standard hook, whose output their harness captures.
    if !cfg!(test) {
        panic::set_hook(Box::new(log_panic));
    }
}

/// The form of this process's lines, once it logs.
static FORM: OnceLock<Form> = OnceLock::new();

/// Says what ends a command line on stderr: in the log's form if that is JSON, where each line is an
/// object, else as it is, which may be several lines for people. If no configuration says what the form
/// is, because it does not hold, it is that of the default.
///
/// It comes in the log's order, if stderr takes it: a server's may be a disk that is full, which is no
/// reason to leave undone what else there is to do (`eprintln!` would panic).
pub fn complain(text: &str) {
    if FORM.get().is_none() && form(LogFormat::Auto) == Form::Json {
        init(&Log::default());
    }
    match FORM.get() {
        Some(Form::Json) => tracing::error!("{text}"),
        _ => stderr::write_line(text.as_bytes()),
    }
}

fn form(format: LogFormat) -> Form {
    let terminal = io::stderr().is_terminal();
    if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        return Form::Json;
    }
    // https://no-color.org: set and not empty.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match () {
        () if stderr::is_journal() => Form::Journal,
        () => Form::Human { color: terminal && !no_color },
    }
}

/// The standard library's own hook writes to stderr, and waits for it.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let payload = info.payload_as_str().unwrap_or("no text");
    let location = info.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    limited!(error, thread, location, backtrace, "panicked: {payload}");
}

/// What a log line is written to.
struct Line;

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr::write_line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the line about dropped lines, which looks like all others and comes at every level.
struct Report {
    dispatch: Dispatch,
    text: Text,
}

impl Report {
    fn new(form: Form) -> Self {
        let text = Text::default();
        let writer = text.clone();
        let dispatch = Dispatch::new(subscriber("warn", form, move || writer.clone()));
        Self { dispatch, text }
    }

    fn line(&self, dropped: u64) -> Vec<u8> {
        let log = || tracing::warn!(dropped, "{dropped} log lines dropped");
        tracing::dispatcher::with_default(&self.dispatch, log);
        self.text.take()
    }
}

/// What has been logged, in memory.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Human {
        color: bool,
    },
    /// For people who read it in journald, which takes the priority from each line (sd-daemon(3)).
    Journal,
    Json,
}

/// A subscriber that writes lines of this form; `level` as in [`Log::level`].
fn subscriber<W>(level: &str, form: Form, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter: Targets = level.parse().expect("the configuration has checked the level");
    let lines = tracing_subscriber::fmt::layer().with_writer(Escaping { form, writer });
    match form {
        Form::Human { .. } | Form::Journal => {
            let layer = lines.with_ansi(false).with_filter(filter);
            Box::new(tracing_subscriber::registry().with(layer))
        }
        Form::Json => {
            let layer = lines.json().flatten_event(true).with_filter(filter);
            Box::new(tracing_subscriber::registry().with(layer))
        }
    }
}

/// Has nothing reach `writer` that a terminal or a log viewer obeys, or shows as something else than
/// it is, whoever has sent it: the one place that each line passes. Lines are written whole.
///
/// Colours come here, behind the escapes, since an ESC of a peer and one of ours look the same.
struct Escaping<W> {
    form: Form,
    writer: W,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Escaping<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Escaping { form: self.form, writer: self.writer.make_writer() }
    }
}

impl<W: io::Write> io::Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write_all(&escaped(bytes, self.form))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn escaped(line: &[u8], form: Form) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let body = line.strip_suffix('\n').unwrap_or(&line);
    let mut escaped = String::with_capacity(line.len() + 16);
    match form {
        // It has escaped what JSON has to.
        Form::Json => {
            for c in body.chars() {
                if !is_deceptive(c) {
                    escaped.push(c);
                    continue;
                }
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        Form::Human { .. } | Form::Journal => {
            for c in body.chars() {
                match c {
                    // A line of its own is one of ours.
                    '\n' => escaped.push_str("\n    "),
                    '\t' => escaped.push(c),
                    _ if is_deceptive(c) || c.is_ascii_control() => {
                        escaped.extend(c.escape_unicode());
                    }
                    _ => escaped.push(c),
                }
            }
            match form {
                Form::Human { color: true } => colour(&mut escaped),
                Form::Journal => prioritize(&mut escaped),
                _ => {}
            }
        }
    }
    escaped.push('\n');
    escaped.into_bytes()
}

/// Puts the priority of syslog(3) in front of each line, which a newline begins.
fn prioritize(line: &mut String) {
    let levels = [("ERROR", 3), (" WARN", 4), (" INFO", 6), ("DEBUG", 7), ("TRACE", 7)];
    let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
    let found = levels.iter().find(|(level, _)| rest.starts_with(level));
    let priority = found.map_or(6, |(_, priority)| *priority);
    *line = format!("<{priority}>{}", line.replace('\n', &format!("\n<{priority}>")));
}

/// Dims the time and colours the level, which a line begins with.
fn colour(line: &mut String) {
    let levels =
        [("ERROR", "31"), (" WARN", "33"), (" INFO", "32"), ("DEBUG", "34"), ("TRACE", "35")];
    let Some((time, rest)) = line.split_once(' ') else { return };
    let found = levels.iter().find_map(|(level, colour)| {
        rest.strip_prefix(level).map(|message| (level, colour, message))
    });
    if let Some((level, colour, message)) = found {
        *line = format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{level}\x1b[0m{message}");
    }
}

/// DEL and C1, which terminals obey; what changes the direction of text or takes no room, which hides
/// what a line says (Unicode TR 36 and UAX 9); separators of lines.
fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    /// What `log` writes under this level and form.
    fn logged(level: &str, form: Form, log: impl FnOnce()) -> String {
        let text = Text::default();
        let writer = text.clone();
        let subscriber = subscriber(level, form, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(text.take()).unwrap()
    }

    #[test]
    fn the_line_about_dropped_lines_has_the_form_of_the_others() {
        let report = Report::new(Form::Json);
        for dropped in [1, 17] {
            let line = String::from_utf8(report.line(dropped)).unwrap();
            assert!(line.ends_with('\n'), "{line}");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&line["dropped"], &line["level"]), (&dropped.into(), &"WARN".into()));
            assert_eq!(line["message"], format!("{dropped} log lines dropped"));
        }
        let human = Report::new(Form::Human { color: false }).line(2);
        assert!(String::from_utf8(human).unwrap().contains("2 log lines dropped"));
    }

    #[test]
    fn a_json_line_is_flat_and_its_time_is_utc() {
        let text = logged("info", Form::Json, || tracing::info!(connection = 7, "open"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["connection"], 7);
        assert_eq!(line["message"], "open");
        assert_eq!(line["level"], "INFO");
        let time = line["timestamp"].as_str().unwrap();
        // 2026-01-02T03:04:05.678901Z
        assert_eq!((&time[10..11], &time[19..20], &time[time.len() - 1..]), ("T", ".", "Z"));
    }

    #[test]
    fn a_human_line_has_no_colour_unless_asked() {
        let line = |color| logged("info", Form::Human { color }, || tracing::warn!("full"));
        assert!(line(false).ends_with("full\n"));
        assert!(!line(false).contains('\x1b'));
        assert!(line(true).contains('\x1b'));
    }

    #[test]
    fn journald_gets_the_priority_of_each_line() {
        let text = logged("info", Form::Journal, || tracing::warn!("full\nof lines"));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("<4>")), "{text}");
        let text = logged("info", Form::Journal, || tracing::error!("broken"));
        assert!(text.starts_with("<3>2") && text.ends_with("broken\n"), "{text}");
    }

    #[test]
    fn levels_hold_for_all_and_for_single_modules() {
        let log = || {
            tracing::info!(target: "steadfast::net", "net");
            tracing::info!(target: "steadfast::ws", "ws");
            tracing::error!(target: "steadfast::ws", "broken");
        };
        let text = logged("error,steadfast::net=debug", Form::Human { color: false }, log);
        assert!(text.contains(": net") && text.contains(": broken") && !text.contains(": ws"));
        assert_eq!(logged("off", Form::Json, log), "");
    }

    #[test]
    fn no_text_of_a_peer_is_obeyed_by_a_terminal_or_reorders_a_line() {
        let sent =
            "a\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\u{e0041}\x1b[2Jz grün 中";
        let log = || tracing::info!(debug = ?sent, display = %sent, text = sent, "{sent}");
        for form in [Form::Json, Form::Human { color: false }] {
            let text = logged("info", form, log);
            let raw = text.chars().find(|c| is_deceptive(*c) || (c.is_control() && *c != '\n'));
            assert_eq!(raw, None, "{text}");
            assert!(text.contains("grün 中") && text.ends_with('\n'), "{text}");
            // What comes behind a newline cannot be taken for a line of ours.
            assert!(text.lines().skip(1).all(|line| line.starts_with("    ")), "{text}");
        }
        let json = logged("info", Form::Json, log);
        assert_eq!(json.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["text"], sent, "JSON says what was sent");
        let coloured = logged("info", Form::Human { color: true }, log);
        assert_eq!(coloured.matches('\x1b').count(), 4, "{coloured}");
        assert!(coloured.starts_with("\x1b[2m2") && coloured.contains("\x1b[32m INFO\x1b[0m "));
    }

    #[test]
    fn a_secret_in_a_field_is_not_shown() {
        let secret = Secret::new("hunter2");
        let text = logged("info", Form::Json, || tracing::info!(?secret, "token"));
        assert!(text.contains("Secret") && !text.contains("hunter2"));
    }
}
