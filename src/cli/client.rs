//! `steadfast client`: a WebSocket client for the terminal and for pipes.

mod command;
mod input;
mod screen;

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use self::command::Command;
use self::input::{Given, Lines, TooLong};
pub(super) use self::screen::escape;
use self::screen::{Look, Screen};
use super::EXIT_USAGE;
use crate::net::client::{
    Client, ClientEvent, ClientSettings, ConnectError, Ending, Endpoint, Link, Wishes,
};
use crate::session::handshake::client::ClientAgreed;
use crate::sys::signals::{Signal, Signals, Waited};
use crate::ws::{CloseCode, CloseFrame, Message, Opcode};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Bytes waiting to be sent above which nothing more is taken from stdin.
const QUEUE_BYTES: usize = 256 * 1024;

/// The exit status after a second Ctrl-C, or one before the connection was open: 128 + SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Talk to a WebSocket server, from a terminal or through a pipe.
///
/// Each line of stdin is sent as a text message; each message that comes is printed on stdout, and
/// everything else (what was agreed, pings, the close) on stderr.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
At a terminal, lines that begin with a slash are commands: /ping, /pong, /close, /binary, /help.
Ctrl-D and Ctrl-C close the connection; a second Ctrl-C leaves at once.

When stdin ends, the client sends a Close behind what it has sent, and prints what comes until the
server's Close. A server that answers in order, as an echo does, has said everything by then:
  echo hi | steadfast client ws://127.0.0.1:8000/echo
For servers that answer later, --wait delays the Close, and --messages says when there is enough:
  steadfast client --messages 3 ws://127.0.0.1:8000/rooms/lobby </dev/null

Exit status: 0 closed by us, or by the server with 1000, 1001 or no code; 1 anything else (refused,
lost, closed with another code, fewer messages than --messages); 2 wrong usage.")]
pub(super) struct Args {
    /// ws://HOST[:PORT][/PATH][?QUERY], or unix:SOCKET[:/PATH] for a Unix socket
    #[arg(value_name = "URL")]
    url: String,
    /// A header field for the request, "Name: value"; may be repeated
    #[arg(short = 'H', long, value_name = "HEADER", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// A subprotocol to offer; may be repeated, the first one is preferred
    #[arg(short, long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// The Origin to send, as a browser would
    #[arg(short, long)]
    origin: Option<String>,
    /// Do not offer compression (permessage-deflate)
    #[arg(long)]
    no_compress: bool,
    /// Send binary messages: each line from a terminal, whatever arrives from a pipe
    #[arg(short, long)]
    binary: bool,
    /// Print binary messages as they are instead of as a hex dump
    #[arg(short, long)]
    raw: bool,
    /// Take commands (lines that begin with a slash) even if stdin is no terminal
    #[arg(short, long)]
    interactive: bool,
    /// Wait this long after the end of stdin before closing
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    wait: Option<Duration>,
    /// Close after this many messages; the end of stdin closes only with --wait then
    #[arg(short = 'n', long, value_name = "N")]
    messages: Option<NonZeroU64>,
    /// Print nothing but errors on stderr
    #[arg(short, long)]
    quiet: bool,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is \"Name: value\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

pub(super) fn run(args: &Args) -> ExitCode {
    let look = Look::of_process(args.raw, args.quiet);
    let mut screen = Screen::of_process(look);
    if look.endangers_terminal() {
        screen.error("--raw would let the server drive this terminal: send stdout elsewhere");
        return ExitCode::from(EXIT_USAGE);
    }
    // Taken over before the first connection attempt: a signal that this process was started to
    // ignore, as shells do for what runs in the background, would be lost until then.
    let interrupts = match Signals::take_over() {
        Ok(signals) => Interrupts::watch(signals),
        Err(error) => {
            screen.error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let client = match connect(args) {
        Ok(client) => client,
        Err(error) => {
            screen.error(&error.to_string());
            return ExitCode::from(if error.is_usage() { EXIT_USAGE } else { 1 });
        }
    };
    match converse(args, client, &interrupts, &mut screen) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            screen.error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn connect(args: &Args) -> Result<Client, ConnectError> {
    let endpoint = Endpoint::parse(&args.url)?;
    let origin = args.origin.clone().map(|origin| ("Origin".to_owned(), origin));
    let wishes = Wishes {
        subprotocols: args.subprotocol.clone(),
        headers: args.header.iter().cloned().chain(origin).collect(),
        deflate: !args.no_compress,
    };
    Client::connect(&endpoint, &wishes, ClientSettings::default())
}

/// Lives the connection, and returns the exit status.
fn converse(
    args: &Args,
    mut client: Client,
    interrupts: &Interrupts,
    screen: &mut Screen,
) -> io::Result<u8> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(8);
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    client.register(poll.registry(), SOCKET)?;
    interrupts.wake_up_with(waker.clone());
    let given = input::read(io::stdin(), waker);
    let mut talk = Talk::new(args, screen, given);
    let mut busy = false;
    while !client.is_done() {
        let timeout = if busy { Some(Duration::ZERO) } else { talk.timeout(client.timeout()) };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter().filter(|event| event.token() == SOCKET) {
            client.on_io(event);
        }
        client.drive(&mut |link, event| talk.on_event(link, event));
        let mut link = client.link();
        let queued = link.queued();
        if interrupts.any() {
            if !talk.opened {
                return Ok(EXIT_INTERRUPTED);
            }
            talk.interrupt(&mut link);
        }
        // What is sent here leaves with the next `drive`.
        busy = talk.give(&mut link) || link.queued() != queued;
        talk.screen.settle(link.is_open());
    }
    Ok(talk.status())
}

/// Signals that ask to end. Before there is a loop to wake up, and from the second one on, they end
/// the process, whatever it is waiting for; the first one after that is a reason to close.
#[derive(Default)]
struct Interrupts {
    any: Arc<AtomicBool>,
    waker: Arc<OnceLock<Arc<Waker>>>,
}

impl Interrupts {
    fn watch(signals: Signals) -> Self {
        const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let interrupts = Self::default();
        let (any, waker) = (interrupts.any.clone(), interrupts.waker.clone());
        thread::spawn(move || {
            while let Ok(waited) = signals.wait(signals.as_fd(), A_DAY) {
                let Waited::Signal(Signal::Int | Signal::Term | Signal::Hup) = waited else {
                    continue;
                };
                let second = any.swap(true, Ordering::Relaxed);
                let woken = waker.get().is_some_and(|waker| waker.wake().is_ok());
                if second || !woken {
                    std::process::exit(i32::from(EXIT_INTERRUPTED));
                }
            }
        });
        interrupts
    }

    fn wake_up_with(&self, waker: Arc<Waker>) {
        self.waker.get_or_init(|| waker);
    }

    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

/// What stops the sending: stdin cannot be read, or what it holds cannot be sent.
struct InputError(String);

impl From<TooLong> for InputError {
    fn from(_: TooLong) -> Self {
        Self("a line is too long; --binary sends pieces".to_owned())
    }
}

/// The conversation between the user and the server.
struct Talk<'t> {
    args: &'t Args,
    screen: &'t mut Screen,
    given: Receiver<Given>,
    lines: Lines,
    /// Lines that begin with a slash are commands.
    commands: bool,
    /// What comes in at once is a message, whatever its lines.
    pieces: bool,
    opened: bool,
    input_ended: bool,
    /// When to close though nothing else says so.
    close_at: Option<Instant>,
    received: u64,
    interrupted: bool,
    failed: bool,
}

impl<'t> Talk<'t> {
    fn new(args: &'t Args, screen: &'t mut Screen, given: Receiver<Given>) -> Self {
        let commands = args.interactive || io::stdin().is_terminal();
        Self {
            args,
            screen,
            given,
            lines: Lines::default(),
            commands,
            pieces: args.binary && !commands,
            opened: false,
            input_ended: false,
            close_at: None,
            received: 0,
            interrupted: false,
            failed: false,
        }
    }

    fn timeout(&self, client: Option<Duration>) -> Option<Duration> {
        let ours = self.close_at.map(|at| at.saturating_duration_since(Instant::now()));
        client.into_iter().chain(ours).min()
    }

    /// 0 or 1, when all is over.
    fn status(&mut self) -> u8 {
        let wanted = self.args.messages.map_or(0, NonZeroU64::get);
        if self.opened && self.received < wanted && !self.interrupted && !self.failed {
            self.fail(&format!("{} of {wanted} messages came", self.received));
        }
        self.failed.into()
    }

    fn fail(&mut self, text: &str) {
        self.failed = true;
        self.screen.error(text);
    }

    // ---- the server's side ----

    fn on_event(&mut self, link: &mut Link<'_>, event: ClientEvent<'_>) {
        match event {
            ClientEvent::Open(agreed) => self.on_open(&agreed),
            ClientEvent::Message(message) => self.on_message(link, &message),
            ClientEvent::Ping(payload) => self.on_control("ping", payload),
            ClientEvent::Pong(payload) => self.on_control("pong", payload),
            ClientEvent::Closed(ending) => self.on_closed(ending),
            ClientEvent::Failed(error) => {
                self.fail(&error.to_string());
                if let ConnectError::Refused { body, .. } = error {
                    let body = String::from_utf8_lossy(&body);
                    if !body.trim().is_empty() {
                        self.screen.error(body.trim());
                    }
                }
            }
        }
    }

    fn on_open(&mut self, agreed: &ClientAgreed) {
        self.opened = true;
        let mut note = format!("connected to {}", self.args.url);
        if let Some(subprotocol) = &agreed.subprotocol {
            note.push_str(&format!(", subprotocol {subprotocol}"));
        }
        if agreed.deflate.is_some() {
            note.push_str(", compressed");
        }
        self.screen.note(&note);
        if self.commands {
            self.screen.note("/help shows the commands");
        }
    }

    fn on_message(&mut self, link: &mut Link<'_>, message: &Message<'_>) {
        let wanted = self.args.messages.map_or(u64::MAX, NonZeroU64::get);
        if self.received == wanted {
            return;
        }
        self.screen.message(message);
        self.received += 1;
        if self.received == wanted {
            link.close(CloseFrame::new(CloseCode::NORMAL, ""));
        }
    }

    fn on_control(&mut self, what: &str, payload: &[u8]) {
        match String::from_utf8_lossy(payload) {
            text if text.is_empty() => self.screen.note(what),
            text => self.screen.note(&format!("{what}: {text}")),
        }
    }

    fn on_closed(&mut self, ending: Ending) {
        match ending {
            Ending::ByUs(CloseFrame { code, reason }) => {
                self.screen.note(&format!("closed: {}", code_and_reason(code, &reason)));
            }
            Ending::ByServer(None, _) => self.screen.note("closed by the server, without a code"),
            Ending::ByServer(Some(code), reason) => {
                let text = format!("closed by the server: {}", code_and_reason(code, &reason));
                match code {
                    CloseCode::NORMAL | CloseCode::GOING_AWAY => self.screen.note(&text),
                    _ => self.fail(&text),
                }
            }
            Ending::Violation(CloseFrame { code, reason }) => {
                let told = code_and_reason(code, &reason);
                self.fail(&format!("closed for what the server sent: {told}"));
            }
            Ending::Lost(None) => self.fail("connection lost: the server ended it without a Close"),
            Ending::Lost(Some(error)) => self.fail(&format!("connection lost: {error}")),
            Ending::Unanswered => self.fail("connection lost: our Close was not answered"),
        }
    }

    // ---- the user's side ----

    fn interrupt(&mut self, link: &mut Link<'_>) {
        self.interrupted = true;
        link.close(CloseFrame::new(CloseCode::NORMAL, ""));
    }

    /// Passes on what the user gives, as long as the socket keeps up; whether there was anything.
    fn give(&mut self, link: &mut Link<'_>) -> bool {
        if let Some(error) = self.screen.take_failure() {
            // Who read our output has had enough of it; that is no failure of ours.
            if error.kind() != ErrorKind::BrokenPipe {
                self.fail(&format!("stdout: {error}"));
            }
            self.interrupt(link);
        }
        if self.close_at.is_some_and(|at| at <= Instant::now()) {
            self.close_at = None;
            link.close(CloseFrame::new(CloseCode::NORMAL, ""));
        }
        let mut gave = false;
        while link.is_open() && !self.input_ended && link.queued() < QUEUE_BYTES {
            let Ok(given) = self.given.try_recv() else {
                break;
            };
            gave = true;
            if let Err(InputError(text)) = self.take(link, given) {
                self.fail(&text);
                self.input_ended = true;
                link.close(CloseFrame::new(CloseCode::NORMAL, ""));
            }
        }
        gave
    }

    fn take(&mut self, link: &mut Link<'_>, given: Given) -> Result<(), InputError> {
        match given {
            Given::Bytes(bytes) if self.pieces => {
                link.send(Opcode::Binary, Cow::Owned(bytes));
                Ok(())
            }
            Given::Bytes(bytes) => {
                self.screen.line_entered();
                let mut lines = std::mem::take(&mut self.lines);
                let taken = lines.push(&bytes, |line| self.on_line(link, line));
                self.lines = lines;
                taken
            }
            Given::End => {
                self.input_ended = true;
                if let Some(last) = self.lines.finish() {
                    self.on_line(link, &last)?;
                }
                match (self.args.wait, self.args.messages) {
                    (Some(wait), _) => self.close_at = Instant::now().checked_add(wait),
                    (None, Some(_)) => {}
                    (None, None) => link.close(CloseFrame::new(CloseCode::NORMAL, "")),
                }
                Ok(())
            }
            Given::Failed(error) => Err(InputError(format!("stdin cannot be read: {error}"))),
        }
    }

    fn on_line(&mut self, link: &mut Link<'_>, line: &[u8]) -> Result<(), InputError> {
        let text = match str::from_utf8(line) {
            Ok(text) => text,
            Err(_) if self.args.binary => {
                link.send(Opcode::Binary, Cow::Borrowed(line));
                return Ok(());
            }
            Err(_) => {
                let text = "stdin has a line that is not UTF-8; --binary sends bytes";
                return Err(InputError(text.to_owned()));
            }
        };
        let command = if self.commands { command::parse(text) } else { Ok(Command::Send(text)) };
        let opcode = if self.args.binary { Opcode::Binary } else { Opcode::Text };
        match command {
            Ok(Command::Send(text)) => {
                link.send(opcode, Cow::Borrowed(text.as_bytes()));
            }
            Ok(Command::Binary(bytes)) => {
                link.send(Opcode::Binary, Cow::Owned(bytes));
            }
            Ok(Command::Ping(text)) => link.ping(text.as_bytes()),
            Ok(Command::Pong(text)) => link.pong(text.as_bytes()),
            Ok(Command::Close(frame)) => link.close(frame),
            Ok(Command::Help) => self.screen.help(command::HELP),
            Ok(Command::Nothing) => {}
            Err(text) => self.screen.error(&text),
        }
        Ok(())
    }
}

fn code_and_reason(code: CloseCode, reason: &str) -> String {
    if reason.is_empty() { code.0.to_string() } else { format!("{} {reason}", code.0) }
}
