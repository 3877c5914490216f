//! The client role under Autobahn's fuzzing server: `autobahn_client ws://127.0.0.1:9001`.
//!
//! Asks how many cases there are, runs each as an echo, and has the report written. The verdicts
//! are in the report; this fails only if the conversation with the suite itself does.

use std::borrow::Cow;
use std::error::Error;
use std::process::ExitCode;

use steadfast::base::limits::Limits;
use steadfast::net::client::{Client, ClientEvent, ClientSettings, Ending, Endpoint, Link, Wishes};
use steadfast::session::Compression;
use steadfast::ws::Message;

/// The name in the report.
const AGENT: &str = "steadfast";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(server), None) = (args.next(), args.next()) else {
        eprintln!("usage: autobahn_client ws://HOST:PORT");
        return ExitCode::from(2);
    };
    match run(&server) {
        Ok(cases) => {
            println!("{cases} cases");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("autobahn_client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(server: &str) -> Result<u32, Box<dyn Error>> {
    let cases = case_count(server)?;
    for case in 1..=cases {
        run_case(server, case)?;
    }
    request(&format!("{server}/updateReports?agent={AGENT}"), |_, _| {})?;
    Ok(cases)
}

fn case_count(server: &str) -> Result<u32, Box<dyn Error>> {
    let mut count = None;
    request(&format!("{server}/getCaseCount"), |_, message| {
        if let Message::Text(text) = message {
            count = text.parse().ok();
        }
    })?;
    count.ok_or("the number of cases is not among the answers".into())
}

/// One case: everything is echoed, whatever becomes of the connection.
fn run_case(server: &str, case: u32) -> Result<(), Box<dyn Error>> {
    let mut failure = None;
    let client = connect(&format!("{server}/runCase?case={case}&agent={AGENT}"))?;
    client.run(|link, event| match event {
        ClientEvent::Message(message) => echo(link, &message),
        ClientEvent::Failed(error) => failure = Some(error),
        _ => {}
    })?;
    failure.map_or(Ok(()), |error| Err(format!("case {case}: {error}").into()))
}

fn echo(link: &mut Link<'_>, message: &Message<'_>) {
    link.send(message.opcode(), Cow::Borrowed(message.as_bytes()));
}

/// A connection that the suite answers on and then closes.
fn request(
    url: &str,
    mut on_message: impl FnMut(&mut Link<'_>, &Message<'_>),
) -> Result<(), Box<dyn Error>> {
    let mut failure = None;
    connect(url)?.run(|link, event| match event {
        ClientEvent::Message(message) => on_message(link, &message),
        ClientEvent::Failed(error) => failure = Some(error.to_string()),
        ClientEvent::Closed(Ending::ByServer(..)) => {}
        ClientEvent::Closed(ending) => failure = Some(format!("{ending:?}")),
        _ => {}
    })?;
    failure.map_or(Ok(()), |failure| Err(format!("{url}: {failure}").into()))
}

/// With the limits of `autobahn/server.toml`.
fn connect(url: &str) -> Result<Client, Box<dyn Error>> {
    let wishes = Wishes { deflate: true, ..Wishes::default() };
    let settings = ClientSettings {
        limits: Limits {
            message_bytes_max: 64 * 1024 * 1024,
            queue_bytes_max: 64 * 1024 * 1024,
            fragments_max: 131_072,
            ..ClientSettings::default().limits
        },
        compression: Compression { threshold_bytes: 0, ..ClientSettings::default().compression },
        ..ClientSettings::default()
    };
    Ok(Client::connect(&Endpoint::parse(url)?, &wishes, settings)?)
}
