//! What the user sees: messages on stdout, everything else on stderr.
//!
//! Where it is a terminal, what the server says cannot drive it: control characters are shown as
//! escapes, and a line feed begins a line that is indented, so that no message looks like two.

use std::io::{self, BufWriter, IsTerminal, Write};

use crate::ws::Message;

const RESET: &str = "\x1b[0m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const DIM: &str = "\x1b[2m";
/// Goes to the line's beginning and erases it.
const ERASE_LINE: &str = "\r\x1b[K";

/// How to show things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Stdout is a terminal.
    out_is_terminal: bool,
    /// Colours on stdout, and on stderr.
    color: (bool, bool),
    /// The user types at a terminal and sees the rest there.
    prompt: bool,
    /// Binary messages as they are.
    raw: bool,
    /// Only errors on stderr.
    quiet: bool,
}

impl Look {
    /// As this process's standard streams want it.
    pub(super) fn of_process(raw: bool, quiet: bool) -> Self {
        let terminals =
            (io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
        // https://no-color.org: set and not empty.
        let colored = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            out_is_terminal: terminals.1,
            color: (terminals.1 && colored, terminals.2 && colored),
            prompt: terminals == (true, true, true),
            raw,
            quiet,
        }
    }

    /// Whether binary messages would go to a terminal as they are.
    pub(super) fn endangers_terminal(self) -> bool {
        self.raw && self.out_is_terminal
    }
}

/// Stdout and stderr.
pub(super) struct Screen<O: Write = io::Stdout, E: Write = io::Stderr> {
    look: Look,
    out: BufWriter<O>,
    err: E,
    /// The cursor is behind the prompt, and perhaps behind what the user is typing.
    prompt_shown: bool,
    /// Stdout takes no more, and why.
    failed: Option<io::Error>,
}

impl Screen {
    pub(super) fn of_process(look: Look) -> Self {
        Self::new(look, io::stdout(), io::stderr())
    }
}

impl<O: Write, E: Write> Screen<O, E> {
    fn new(look: Look, out: O, err: E) -> Self {
        Self { look, out: BufWriter::new(out), err, prompt_shown: false, failed: None }
    }

    /// Shows a message.
    pub(super) fn message(&mut self, message: &Message<'_>) {
        self.hide_prompt();
        let bytes = self.render(message);
        self.write_out(&bytes);
    }

    fn render(&self, message: &Message<'_>) -> Vec<u8> {
        let mark = match self.look {
            Look { out_is_terminal: false, .. } => String::new(),
            Look { color: (true, _), .. } => format!("{CYAN}<{RESET} "),
            _ => "< ".to_owned(),
        };
        match message {
            Message::Text(text) if self.look.out_is_terminal => {
                format!("{mark}{}\n", escape(text)).into_bytes()
            }
            Message::Text(text) => [text.as_bytes(), b"\n"].concat(),
            Message::Binary(bytes) if self.look.raw => bytes.to_vec(),
            Message::Binary(bytes) if self.look.out_is_terminal => {
                format!("{mark}{} bytes\n{}", bytes.len(), hex_dump(bytes)).into_bytes()
            }
            Message::Binary(bytes) => hex_dump(bytes).into_bytes(),
        }
    }

    /// Says what goes on; `text` may come from the server.
    pub(super) fn note(&mut self, text: &str) {
        if !self.look.quiet {
            self.write_err(DIM, &escape(text));
        }
    }

    /// Says what is wrong; `text` may come from the server.
    pub(super) fn error(&mut self, text: &str) {
        self.write_err(RED, &escape(text));
    }

    /// Answers the user, over several lines.
    pub(super) fn help(&mut self, text: &str) {
        self.hide_prompt();
        self.flush_out();
        let _ = writeln!(self.err, "{text}");
    }

    /// The user has ended the line.
    pub(super) fn line_entered(&mut self) {
        self.prompt_shown = false;
    }

    /// Everything is to be seen now; if `ready`, a line may be typed.
    pub(super) fn settle(&mut self, ready: bool) {
        self.flush_out();
        if ready && self.look.prompt && !self.prompt_shown {
            self.prompt_shown = true;
            let _ = write!(self.err, "> ");
        }
        if !ready {
            self.hide_prompt();
        }
    }

    /// Why stdout takes no more, once.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    fn hide_prompt(&mut self) {
        if std::mem::take(&mut self.prompt_shown) {
            let _ = write!(self.err, "{ERASE_LINE}");
        }
    }

    fn write_out(&mut self, bytes: &[u8]) {
        if let Err(error) = self.out.write_all(bytes) {
            self.failed = Some(error);
        }
    }

    fn flush_out(&mut self) {
        if let Err(error) = self.out.flush() {
            self.failed = Some(error);
        }
    }

    /// If stderr is gone, there is nobody to be told.
    fn write_err(&mut self, color: &str, text: &str) {
        self.hide_prompt();
        self.flush_out();
        let _ = match self.look.color.1 {
            true => writeln!(self.err, "{color}{text}{RESET}"),
            false => writeln!(self.err, "{text}"),
        };
    }
}

/// Text without anything that a terminal would act on.
pub(in crate::cli) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => escaped.push_str("\n  "),
            '\t' => escaped.push(char),
            char if drives_terminal(char) => escaped.extend(char.escape_default()),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Control characters (C0, DEL, C1), and those that turn the order or the lines of what is shown.
fn drives_terminal(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Sixteen bytes a line: where, hexadecimal, and what of it is ASCII.
fn hex_dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (at, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String = line
            .iter()
            .map(|&byte| if byte == b' ' || byte.is_ascii_graphic() { byte.into() } else { '.' })
            .collect();
        dump.push_str(&format!("{:08x}  {:<47}  |{ascii}|\n", at * 16, hex.join(" ")));
    }
    dump
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Look = Look {
        out_is_terminal: false,
        color: (false, false),
        prompt: false,
        raw: false,
        quiet: false,
    };
    const TERMINAL: Look =
        Look { out_is_terminal: true, color: (true, true), prompt: true, ..PIPE };

    fn shown(
        look: Look,
        show: impl FnOnce(&mut Screen<&mut Vec<u8>, &mut Vec<u8>>),
    ) -> [String; 2] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen::new(look, &mut out, &mut err);
        show(&mut screen);
        screen.settle(false);
        drop(screen);
        [out, err].map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_pipe_gets_messages_as_they_are() {
        let [out, err] = shown(PIPE, |screen| {
            screen.message(&Message::Text("a\x1b[2J\nb".into()));
            screen.message(&Message::Binary(b"hi\0".as_slice().into()));
            screen.note("x\x1b]0;y");
        });
        let dump = format!("00000000  68 69 00{}  |hi.|\n", " ".repeat(39));
        assert_eq!(out, format!("a\x1b[2J\nb\n{dump}"));
        assert_eq!(err, "x\\u{1b}]0;y\n");

        let raw = Look { raw: true, ..PIPE };
        let [out, _] = shown(raw, |screen| {
            screen.message(&Message::Binary(b"hi\0".as_slice().into()));
        });
        assert_eq!(out, "hi\0");
    }

    #[test]
    fn a_terminal_is_not_driven_by_the_server() {
        let hostile = "a\x1b[2J\r\u{9b}31m\u{202e}\u{7f}\n< fake\tok ü";
        let [out, err] = shown(TERMINAL, |screen| {
            screen.message(&Message::Text(hostile.into()));
            screen.error(hostile);
        });
        let harmless = "a\\u{1b}[2J\\r\\u{9b}31m\\u{202e}\\u{7f}\n  < fake\tok ü";
        assert_eq!(out, format!("{CYAN}<{RESET} {harmless}\n"));
        assert_eq!(err, format!("{RED}{harmless}{RESET}\n"));
    }

    #[test]
    fn the_prompt_makes_room() {
        let [_, err] = shown(TERMINAL, |screen| {
            screen.settle(true);
            screen.settle(true);
            screen.message(&Message::Text("hi".into()));
            screen.settle(true);
            screen.line_entered();
            screen.settle(true);
        });
        assert_eq!(err, format!("> {ERASE_LINE}> > {ERASE_LINE}"));
    }

    #[test]
    fn long_dumps_have_lines() {
        let bytes: Vec<u8> = (0..17).collect();
        let dump = hex_dump(&bytes);
        assert_eq!(dump.lines().count(), 2);
        assert!(dump.lines().nth(1).unwrap().starts_with("00000010  10 "), "{dump}");
        assert_eq!(hex_dump(&[]), "");
    }

    #[test]
    fn a_stdout_that_is_gone_is_noticed() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen::new(PIPE, Gone, io::sink());
        screen.message(&Message::Text("hi".into()));
        screen.settle(true);
        assert_eq!(screen.take_failure().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
