//! Where log lines go: stderr, for people on a terminal, as JSON otherwise.
//!
//! Times are RFC 3339 in UTC. Secrets cannot get here by way of `Debug`: see
//! [`Secret`](crate::config::Secret).

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{Log, LogFormat};

/// Begins to log to stderr. If the process has a subscriber already, as a library user's own
/// binary may, that one stays.
pub fn init(log: &Log) {
    let stderr = io::stderr();
    let form = match (log.format, stderr.is_terminal()) {
        (LogFormat::Human, color) => Form::Human { color },
        (LogFormat::Auto, true) => Form::Human { color: true },
        (LogFormat::Auto, false) | (LogFormat::Json, _) => Form::Json,
    };
    // https://no-color.org: set and not empty.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let form = match form {
        Form::Human { color } => Form::Human { color: color && !no_color },
        Form::Json => Form::Json,
    };
    let _ = tracing::subscriber::set_global_default(subscriber(&log.level, form, io::stderr));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Human { color: bool },
    Json,
}

/// A subscriber that writes lines of this form; `level` as in [`Log::level`].
fn subscriber<W>(level: &str, form: Form, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter: Targets = level.parse().expect("the configuration has checked the level");
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match form {
        Form::Human { color } => {
            let layer = lines.with_ansi(color).with_filter(filter);
            Box::new(tracing_subscriber::registry().with(layer))
        }
        Form::Json => {
            let layer = lines.json().flatten_event(true).with_filter(filter);
            Box::new(tracing_subscriber::registry().with(layer))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::writer::BoxMakeWriter;

    use super::*;
    use crate::config::Secret;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `log` writes under this level and form.
    fn logged(level: &str, form: Form, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(level, form, BoxMakeWriter::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
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
    fn a_secret_in_a_field_is_not_shown() {
        let secret = Secret::new("hunter2");
        let text = logged("info", Form::Json, || tracing::info!(?secret, "token"));
        assert!(text.contains("Secret") && !text.contains("hunter2"));
    }
}
