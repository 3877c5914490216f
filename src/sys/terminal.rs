//! The controlling terminal of this process (credentials(7)), as /proc tells of it.

use std::fs;

use serde::{Deserialize, Serialize};

use super::signals::Sender;

/// What a HUP is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hup {
    /// Somebody has sent it.
    Sent,
    /// The terminal this process was started from, in the foreground, is gone.
    HungUp,
    /// Nobody wants anything: the terminal is gone, and this process was told to ignore that
    /// (nohup(1)) or is none of its foreground; or the kernel wakes a stopped process.
    Nothing,
}

/// What is known of the terminal. It can be written down for the program that this process becomes:
/// the terminal may go just then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// This process was in the foreground, until the terminal went.
    is_foreground: bool,
    /// HUP was ignored when this process was started.
    ignores_hup: bool,
    /// The session: the id of its leader, which is the shell.
    session: u32,
}

impl Terminal {
    /// As it is now: at the start of the program, before it changes what HUP does.
    pub fn at_start() -> Self {
        let place = Place::now();
        Self {
            is_foreground: place.is_foreground(),
            ignores_hup: ignores_hup(),
            session: u32::try_from(place.session).unwrap_or_default(),
        }
    }

    /// What a HUP that has just come is about.
    pub fn hup(&mut self, sender: Sender) -> Hup {
        self.judge(sender, Place::now().has_terminal())
    }

    fn judge(&mut self, sender: Sender, has_terminal: bool) -> Hup {
        let hangs_up = match sender {
            // The kernel sends it before it takes the terminal away,
            Sender::Kernel => true,
            // and the shell, which was sent one, after that.
            Sender::Process(pid) => pid == self.session && !has_terminal,
            Sender::Predecessor => false,
        };
        if self.is_foreground && hangs_up {
            // It goes once: whatever comes later is something else.
            self.is_foreground = false;
            return if self.ignores_hup { Hup::Nothing } else { Hup::HungUp };
        }
        if sender == Sender::Kernel { Hup::Nothing } else { Hup::Sent }
    }
}

/// Fields of proc_pid_stat(5).
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    /// The process group.
    group: i64,
    /// The session.
    session: i64,
    /// The controlling terminal; 0 for none.
    terminal: i64,
    /// Its foreground process group; -1 for none.
    foreground: i64,
}

impl Place {
    fn now() -> Self {
        fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|stat| Self::of(&stat))
            .unwrap_or_default()
    }

    /// The name, in parentheses, may hold anything; after it come the state, the parent, the group,
    /// the session, the terminal and its foreground group.
    fn of(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ').skip(2).map(|field| field.parse().ok());
        let mut next = || fields.next().flatten();
        let (group, session, terminal, foreground) = (next()?, next()?, next()?, next()?);
        Some(Self { group, session, terminal, foreground })
    }

    fn has_terminal(&self) -> bool {
        self.terminal != 0
    }

    fn is_foreground(&self) -> bool {
        self.has_terminal() && self.group == self.foreground
    }
}

fn ignores_hup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signals are numbered from 1, and HUP is 1.
    mask.is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Sender = Sender::Process(5);
    const OPERATOR: Sender = Sender::Process(6);

    fn terminal(is_foreground: bool, ignores_hup: bool) -> Terminal {
        Terminal { is_foreground, ignores_hup, session: 5 }
    }

    #[test]
    fn only_the_hang_up_of_a_foreground_terminal_ends_a_server() {
        let mut foreground = terminal(true, false);
        assert_eq!(foreground.judge(SHELL, true), Hup::Sent, "the terminal is there");
        assert_eq!(foreground.judge(OPERATOR, false), Hup::Sent, "not the shell");
        assert_eq!(foreground.judge(Sender::Kernel, true), Hup::HungUp);
        assert_eq!(foreground.judge(SHELL, false), Hup::Sent, "it hangs up once");
        assert_eq!(terminal(true, false).judge(SHELL, false), Hup::HungUp);
        let mut background = terminal(false, false);
        assert_eq!(background.judge(SHELL, false), Hup::Sent);
        assert_eq!(background.judge(Sender::Kernel, false), Hup::Nothing);
        let mut nohup = terminal(true, true);
        assert_eq!(nohup.judge(Sender::Kernel, true), Hup::Nothing);
        assert_eq!(nohup.judge(OPERATOR, false), Hup::Sent);
    }

    #[test]
    fn a_place_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 42 43 34816 42 4194304 0";
        let place = Place::of(stat).unwrap();
        assert_eq!(place, Place { group: 42, session: 43, terminal: 34816, foreground: 42 });
        assert!(place.is_foreground());
        assert!(!Place::of("7 (x) S 1 42 43 0 -1 0").unwrap().has_terminal());
        assert!(!Place::of("7 (x) S 1 42 43 5 41 0").unwrap().is_foreground());
        assert_eq!(Place::of("7 (x) S 1"), None);
    }
}
