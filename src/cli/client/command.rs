//! What a line typed by a user means.

use crate::ws::close::REASON_BYTES_MAX;
use crate::ws::{CloseCode, CloseFrame};

/// Most bytes in a ping or pong (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The commands, for people.
pub(super) const HELP: &str = "\
/ping [TEXT]            send a ping
/pong [TEXT]            send a pong that nobody has asked for
/close [CODE [REASON]]  close the connection, with 1000 unless told otherwise
/binary HEX             send bytes: /binary 00 ff 1b
/help                   show this
//TEXT                  send /TEXT
Ctrl-D closes, too. Ctrl-R shows again what you had typed when a message came in between.";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'l> {
    /// Send the line, or what of it is to be sent.
    Send(&'l str),
    Binary(Vec<u8>),
    Ping(&'l str),
    Pong(&'l str),
    Close(CloseFrame),
    Help,
    Nothing,
}

/// Reads a line; `Err` says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Command<'_>, String> {
    if line.is_empty() {
        return Ok(Command::Nothing);
    }
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(Command::Send(line));
    };
    if rest.starts_with('/') {
        return Ok(Command::Send(rest));
    }
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    match name {
        "ping" => control(argument).map(Command::Ping),
        "pong" => control(argument).map(Command::Pong),
        "close" => close(argument).map(Command::Close),
        "binary" => hex(argument).map(Command::Binary),
        "help" => Ok(Command::Help),
        _ => Err(format!("no command /{name}: see /help, or //{name} to send it")),
    }
}

fn control(text: &str) -> Result<&str, String> {
    match text.len() {
        ..=CONTROL_BYTES_MAX => Ok(text),
        len => Err(format!("{len} bytes: a ping or pong holds at most {CONTROL_BYTES_MAX}")),
    }
}

fn close(argument: &str) -> Result<CloseFrame, String> {
    if argument.is_empty() {
        return Ok(CloseFrame::new(CloseCode::NORMAL, ""));
    }
    let (code, reason) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let reason = reason.trim_start();
    let code = code.parse().map(CloseCode).map_err(|_| format!("{code} is no close code"))?;
    if !code.is_sendable() {
        return Err(format!(
            "{} must not be sent: 1000 to 1003, 1007 to 1014 and 3000 to 4999 may",
            code.0
        ));
    }
    if reason.len() > REASON_BYTES_MAX {
        return Err(format!("{} bytes: a reason has at most {REASON_BYTES_MAX}", reason.len()));
    }
    Ok(CloseFrame::new(code, reason))
}

fn hex(argument: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = argument
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        Some(_) => Err("an odd number of hexadecimal digits".to_owned()),
        None => Err("/binary takes hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_sent() {
        for (line, sent) in [("hi", "hi"), (" /ping", " /ping"), ("//ping", "/ping"), ("//", "/")] {
            assert_eq!(parse(line), Ok(Command::Send(sent)), "{line}");
        }
        assert_eq!(parse(""), Ok(Command::Nothing));
    }

    #[test]
    fn commands() {
        let close = |code, reason| Command::Close(CloseFrame::new(CloseCode(code), reason));
        let cases = [
            ("/ping", Command::Ping("")),
            ("/ping a  b ", Command::Ping("a  b")),
            ("/pong x", Command::Pong("x")),
            ("/close", close(1000, "")),
            ("/close 3001", close(3001, "")),
            ("/close 4999  so long", close(4999, "so long")),
            ("/binary", Command::Binary(vec![])),
            ("/binary 00fF 1b", Command::Binary(vec![0, 0xff, 0x1b])),
            ("/help", Command::Help),
        ];
        for (line, command) in cases {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn mistakes() {
        let long = "x".repeat(126);
        for (line, part) in [
            ("/nope", "no command /nope"),
            ("/", "no command /:"),
            ("/close x", "x is no close code"),
            ("/close 70000", "no close code"),
            ("/close 1005", "1005 must not be sent"),
            (&format!("/close 1000 {long}"), "at most 123"),
            (&format!("/ping {long}"), "at most 125"),
            ("/binary 0", "odd number"),
            ("/binary 0ü", "hexadecimal"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
