//! Upgrades between two builds that really differ: this one, and one whose newest format of states
//! is another (`steadfast-next`, built with the feature `format-next`). Either way round, whatever
//! state a connection is in, nobody can tell.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use serde_json::Value;

/// This build.
const THIS: &str = env!("CARGO_BIN_EXE_steadfast");

/// Builds the other one, beside this one and of the same dependencies. Its features are those of all
/// the tests, so that its library is not built for it alone.
fn build_next() -> PathBuf {
    let folder = Path::new(THIS).parent().expect("a program is in a folder");
    let profile = folder.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--quiet", "--locked", "--all-features", "--bin", "steadfast-next"])
        .args(["--profile", if profile == "debug" { "dev" } else { profile }])
        .arg("--target-dir")
        .arg(folder.parent().expect("a profile's folder is in another"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.expect("cargo runs").success(), "the other build");
    folder.join("steadfast-next")
}

fn json(said: &[u8]) -> Value {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Has an operator upgrade to `binary`; the format of the states that were handed over.
#[track_caller]
fn upgrade_to(server: &Server, binary: &Path, more: &[&str]) -> u64 {
    let binary = binary.to_str().expect("UTF-8");
    let args = [&["--binary", binary], more].concat();
    let (upgraded, said) = server.upgrade_by_verb(&args);
    assert!(upgraded, "{said}");
    let outcome = json(said.as_bytes());
    assert_eq!(outcome["refused"], Value::Array(vec![]), "{said}");
    outcome["format"].as_u64().unwrap_or_else(|| panic!("no format: {said}"))
}

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// "Hello", compressed (RFC 7692 §7.2.3.1).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

fn handshake() -> String {
    request("/echo", "")
}

/// Connections that are in the middle of something for one upgrade.
struct Midway {
    head: Client,
    cut: Client,
    fragments: Client,
    deflated: Client,
    closing: Client,
}

impl Midway {
    fn new(server: &Server) -> Self {
        let mut head = server.connect();
        head.send_bytes(&handshake().as_bytes()[..40]);
        let mut cut = server.open("/echo");
        cut.send_bytes(&frame(FIN | TEXT, "größer".as_bytes())[..9]);
        let mut fragments = server.open("/echo");
        fragments.send(TEXT, &[b'a', 0xc3]);
        fragments.send(FIN | PING, b"there?");
        assert_eq!(fragments.frame().payload, b"there?");
        let mut deflated = server.open_with("/echo", DEFLATE);
        deflated.send(RSV1 | TEXT, &HELLO[..3]);
        deflated.send_bytes(&frame(FIN | CONTINUATION, &HELLO[3..])[..7]);
        let mut closing = server.open("/echo");
        closing.send_bytes(&[0xff, 0x80]);
        Self { head, cut, fragments, deflated, closing }
    }

    #[track_caller]
    fn go_on(mut self) {
        self.head.send_bytes(&handshake().as_bytes()[40..]);
        assert_eq!(self.head.response().status, 101);
        self.head.assert_echo("opened by the successor");
        self.cut.send_bytes(&frame(FIN | TEXT, "größer".as_bytes())[9..]);
        self.cut.expect_text("größer");
        self.fragments.send(FIN | CONTINUATION, &[0xa4, b'b']);
        self.fragments.expect_text("aäb");
        self.deflated.send_bytes(&frame(FIN | CONTINUATION, &HELLO[3..])[7..]);
        self.deflated.expect_text("Hello");
        self.closing.expect_close(1002);
    }
}

#[test]
fn there_and_back_and_there_again() {
    let next = build_next();
    let this = Path::new(THIS);
    let server = Server::start("workers = 2\n[limits]\nclose_timeout = '60s'\n");
    // These are there all the time: members of a room, one of them compressed; a message that goes
    // on by a fragment, and one that goes on by some bytes, with each upgrade; a full queue, from
    // the middle of a frame.
    let mut members: Vec<Client> = (0..5).map(|_| server.open("/rooms/a?self=1")).collect();
    members.push(server.open_with("/rooms/a?self=1", DEFLATE));
    let mut fragments = server.open("/echo");
    fragments.send(TEXT, b"0");
    let mut long = server.open("/echo");
    let text = "all of it, as long as it may take";
    let message = frame(FIN | TEXT, text.as_bytes());
    let mut pieces = message.chunks(7);
    long.send_bytes(pieces.next().expect("several pieces"));
    let mut slow = server.open_slow();

    let steps: [(&Path, u64); 5] = [
        (&next, 1), // From this build to the next.
        (this, 1),  // Back: the newer one writes what the older one reads.
        (&next, 1), // And there again.
        (&next, 2), // Two of the next build need not care.
        (this, 1),
    ];
    for (step, (binary, format)) in steps.into_iter().enumerate() {
        let midway = Midway::new(&server);
        assert_eq!(upgrade_to(&server, binary, &["--dry-run"]), format, "rehearsal {step}");
        assert_eq!(upgrade_to(&server, binary, &[]), format, "step {step}");
        midway.go_on();
        let text = format!("after step {step}");
        let sender = step % members.len();
        members[sender].send_text(&text);
        for member in &mut members {
            member.expect_text(&text);
        }
        fragments.send(CONTINUATION, b"+");
        if let Some(piece) = pieces.next() {
            long.send_bytes(piece);
        }
    }
    fragments.send(FIN | CONTINUATION, b"!");
    fragments.expect_text("0+++++!");
    pieces.for_each(|piece| long.send_bytes(piece));
    long.expect_text(text);
    slow.expect_queued();

    let status = server.verb("status").arg("--json").output().expect("the binary starts");
    let status = json(&status.stdout);
    let upgrades = status["upgrades"].as_array().expect("a list");
    let formats: Vec<_> = upgrades.iter().map(|upgrade| upgrade["format"].as_u64()).collect();
    assert_eq!(formats, steps.map(|(_, format)| Some(format)), "{status}");
}
