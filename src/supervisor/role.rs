//! What this process has been started as: in its environment, with a process id that tells whether
//! it is meant, for what a server starts itself has the same text in its environment.
//!
//! ```text
//! _STEADFAST_ROLE=1 server <supervisor>      the link at descriptor 3
//! _STEADFAST_ROLE=1 successor <supervisor>   the link at 3, the channel at 4
//! _STEADFAST_ROLE=1 probe <supervisor>       can it read the supervisor's state at 3?
//! _STEADFAST_ROLE=1 supervisor <self> <fd>   execed in place, its state at this descriptor
//! ```
//!
//! A child is known by its link, which its supervisor has made, and not by its parent: that may be
//! dead by now, or be whoever takes in orphans. A child that took itself for a program started by
//! hand would begin as another supervisor, beside the server that goes on.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::{env, io, process};

use super::link::Link;
use super::machine::{Part, Pid};
use super::state::{self, State};
use crate::sys::inherited;

/// The variable.
const VARIABLE: &str = "_STEADFAST_ROLE";

/// The version of its text, and of the numbers below.
const VERSION: &str = "1";

/// Where a child finds its end of the link.
pub(super) const LINK_NUMBER: RawFd = 3;

/// Where a probe finds the supervisor's state.
pub(super) const STATE_NUMBER: RawFd = 3;

/// Where a successor finds its end of the channel.
pub(super) const CHANNEL_NUMBER: RawFd = 4;

/// What this process has been started as.
#[derive(Debug)]
pub enum Role {
    /// Nothing in particular: by a person, a service manager, a container.
    Outermost,
    /// The server, by its supervisor.
    Server(Link),
    /// The successor, by the supervisor.
    Successor {
        /// To the supervisor.
        link: Link,
        /// To the predecessor.
        channel: OwnedFd,
    },
    /// The supervisor again, after it has replaced its program.
    Supervisor(Box<State>),
    /// Only to exit: with status 0 if `can`, with 1 if not.
    Probe {
        /// Whether this program can become the supervisor that asks.
        can: bool,
    },
}

impl Role {
    /// Finds out, and takes the descriptors handed over. To be called first of all, and once.
    ///
    /// # Errors
    /// A descriptor is not there, or the state cannot be read.
    pub fn take() -> io::Result<Self> {
        #[cfg(feature = "fault-points")]
        crate::sys::fault::point("begun");
        let text = env::var_os(VARIABLE).and_then(|text| text.into_string().ok());
        let link = || inherited::take(LINK_NUMBER).map(Link::new);
        let link_maker = inherited::maker(LINK_NUMBER);
        match text.as_deref().and_then(|text| parse(text, process::id(), link_maker)) {
            None => Ok(Self::Outermost),
            Some(Written::Server) => Ok(Self::Server(link()?)),
            Some(Written::Successor) => {
                Ok(Self::Successor { link: link()?, channel: inherited::take(CHANNEL_NUMBER)? })
            }
            Some(Written::Supervisor(number)) => {
                Ok(Self::Supervisor(Box::new(State::take(inherited::take(number)?)?)))
            }
            Some(Written::Probe) => {
                Ok(Self::Probe { can: state::can_read(inherited::take(STATE_NUMBER)?) })
            }
        }
    }
}

/// What the variable says.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    Server,
    Successor,
    Probe,
    Supervisor(RawFd),
}

/// The variable's text, as it is meant for this process, whose link was made by `link_maker`.
fn parse(text: &str, own: Pid, link_maker: Option<Pid>) -> Option<Written> {
    let words: Vec<&str> = text.split(' ').collect();
    let [VERSION, role, pid, rest @ ..] = &words[..] else { return None };
    let pid: Pid = pid.parse().ok()?;
    match (*role, rest) {
        ("server", []) if Some(pid) == link_maker => Some(Written::Server),
        ("successor", []) if Some(pid) == link_maker => Some(Written::Successor),
        // It starts nothing that could have this from it.
        ("probe", []) => Some(Written::Probe),
        ("supervisor", [number]) if pid == own => number.parse().ok().map(Written::Supervisor),
        _ => None,
    }
}

/// The environment of a child that is to play this part.
pub(super) fn of_child(part: Part) -> (OsString, OsString) {
    let own = process::id();
    let text = match part {
        Part::Server => format!("{VERSION} server {own}"),
        Part::Successor => format!("{VERSION} successor {own}"),
        Part::Probe => format!("{VERSION} probe {own}"),
    };
    (VARIABLE.into(), text.into())
}

/// The environment of this process as another program, with its state at descriptor `number`.
pub(super) fn of_supervisor(number: RawFd) -> (OsString, OsString) {
    (VARIABLE.into(), format!("{VERSION} supervisor {} {number}", process::id()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_for_one_process_alone() {
        for (text, expected) in [
            ("1 server 7", Some(Written::Server)),
            ("1 server 8", None),
            ("1 successor 7", Some(Written::Successor)),
            ("1 probe 7", Some(Written::Probe)),
            ("1 probe 7 3", None),
            ("1 supervisor 8 5", Some(Written::Supervisor(5))),
            ("1 supervisor 7 5", None),
            ("2 server 7", None),
            ("1 server", None),
            ("1 server 7 more", None),
            ("1 server x", None),
            ("1 king 7", None),
            ("", None),
        ] {
            assert_eq!(parse(text, 8, Some(7)), expected, "{text}");
        }
    }

    #[test]
    fn what_a_server_starts_itself_has_no_link() {
        assert_eq!(parse("1 server 7", 8, None), None);
        assert_eq!(parse("1 successor 7", 8, None), None);
    }

    #[test]
    fn a_child_reads_what_its_supervisor_writes() {
        let own = process::id();
        for (part, expected) in [
            (Part::Server, Written::Server),
            (Part::Successor, Written::Successor),
            (Part::Probe, Written::Probe),
        ] {
            let (_, text) = of_child(part);
            assert_eq!(parse(text.to_str().unwrap(), own + 1, Some(own)), Some(expected));
        }
        let (_, text) = of_supervisor(9);
        assert_eq!(parse(text.to_str().unwrap(), own, None), Some(Written::Supervisor(9)));
    }
}
