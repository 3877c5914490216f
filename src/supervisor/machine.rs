//! What the supervisor does about what happens: pure, with time as an argument.
//!
//! ```text
//!             Started            Serving of the successor
//!   Down ───────────────► Up ──────────────────────────────► Up (the successor is the server)
//!    ▲  crash, back-off   │
//!    ├────────────────────┤ crash while there is a successor
//!    │   it ends, too     ▼
//!    └───────────────── Orphaned ── Serving ──► Up
//!
//!   Up, Orphaned, Down ── the server ends as it was told ──► Leaving ── no child left ──► Left
//!
//!   Up ── it crashes while somebody else's process takes over from it ──► Contested
//!   Contested ── whose the connections are is decided ──► Down, Leaving
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::signals::Signal;

/// How long the first restart after a crash waits: long enough not to spin, too short to notice.
pub const RESTART_DELAY_MIN: Duration = Duration::from_millis(50);

/// How long restarts wait at most, each waiting twice as long as the one before: a machine that is
/// short of something is not to be kept busy with what fails.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);

/// A server that has served for so long is no part of a loop of crashes any more.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

/// How long a successor may take to take over after its predecessor has crashed: it serves the
/// listeners at once, or has all of the state already.
pub const ORPHAN_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a process that is not ours may take to take over after the server it takes over from
/// has crashed: it has all of the state already, or serves the listeners at once. Nobody accepts
/// meanwhile.
pub const CONTEST_TIME: Duration = Duration::from_millis(500);

/// How long a new program may take to say that it can be a supervisor.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long predecessors that still close what a successor has refused are waited for at the end.
pub const LEAVE_TIME_MAX: Duration = Duration::from_secs(30);

/// A process id.
pub type Pid = u32;

/// What a child is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To serve.
    Server,
    /// To take over from the server.
    Successor,
    /// To say whether its program can be a supervisor.
    Probe,
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By itself, with this status.
    Exited(u8),
    /// By a signal of this number.
    Killed(u8),
}

impl End {
    /// The exit status that says the same, as shells have it.
    fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => signal.wrapping_add(128),
        }
    }
}

/// How a server is to end. The later one is the stronger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Close the connections by and by.
    Drain,
    /// Close them at once.
    Fast,
}

/// What a server is to do. To be ordered the same thing again changes nothing: so it does not
/// matter how many ways an operator's one wish has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// End.
    End(Ending),
    /// Hand everything over to a new process.
    Upgrade,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The supervisor has begun. Once.
    Begin,
    /// What was to be started has been.
    Started(Part, Pid),
    /// What was to be started could not be.
    NotStarted(Part, String),
    /// A child has ended; also one that is not ours, if this is PID 1.
    ChildExited(Pid, End),
    /// A child says that it serves. Of a successor it means that it has taken over.
    Serving(Pid),
    /// A child asks for a successor, of another program than its own if one is named.
    StartSuccessor(Pid, Option<PathBuf>),
    /// The server gives its successor up, which does not end by itself.
    GivenUp(Pid),
    /// A child stops by itself, as an operator told it.
    Stopping(Pid),
    /// A child that is not the server any more was told to end while it was: the server is to.
    EndAsked(Pid, Ending),
    /// A process that is no child of ours may take over from this one: if it crashes meanwhile,
    /// somebody has to decide.
    Contested(Pid),
    /// That is off.
    Uncontested(Pid),
    /// What came of [`Action::Decide`]: whether that process has taken over.
    Decided(bool),
    /// A process that is no child of ours has taken over from this one.
    Moved(Pid),
    /// A signal has come.
    Signal(Signal),
    /// This process could not become its new program.
    NotExecuted(String),
    /// Time has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a child, and report [`Event::Started`] or [`Event::NotStarted`] before any other
    /// event. `None` is the program this process was started by.
    Spawn {
        /// What it is to be.
        part: Part,
        /// Its program.
        program: Option<PathBuf>,
        /// Its generation.
        generation: u64,
    },
    /// Give a child an order.
    Order(Pid, Order),
    /// End a child at once, and what it has started.
    Kill(Pid),
    /// Tell the server why it has no successor.
    Refuse(Pid, String),
    /// Keep the listeners this child has passed on, instead of those kept so far.
    KeepListeners(Pid),
    /// Close the listeners kept: the server stops for good and empties their queues.
    DropListeners,
    /// Tell the service manager.
    Notify(Notice),
    /// See whether the process that takes over has done so; if not, see to it that it cannot any
    /// more. Report [`Event::Decided`].
    Decide,
    /// Become the program that serves now, or report [`Event::NotExecuted`].
    ExecSelf {
        /// The program; `None` is the one this process was started by.
        program: Option<PathBuf>,
    },
    /// End, with this exit status. The last action there is.
    Exit(u8),
    /// Write a line to the log; `true` if it is a warning.
    Log(bool, String),
}

/// What a service manager is told (sd_notify(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`
    Ready,
    /// `RELOADING=1`, with the time.
    Reloading,
    /// `STOPPING=1`
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// There is no server; one is started at this time.
    Down { restart_at: Duration },
    /// There is a server, and perhaps its successor.
    Up {
        server: Pid,
        /// Since when it has been serving.
        serving_since: Option<Duration>,
        successor: Option<Successor>,
    },
    /// The server has ended; its successor takes over or ends before `until`.
    Orphaned { successor: Successor, end: End, until: Duration },
    /// The server has crashed while a process of somebody else's took over from it, which may
    /// still do so until this time.
    Contested { end: End, serving_since: Option<Duration>, until: Duration },
    /// The server has ended as it was told to; other children may be there until this time.
    Leaving { status: u8, until: Duration },
    /// Nothing happens any more.
    Left,
}

/// A successor that has not taken over yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Successor {
    pid: Pid,
    /// Its program, if it is another one.
    program: Option<PathBuf>,
}

/// The supervisor. Can be written down and read by the program that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    state: State,
    /// The program of the server, if it is another than the one this process was started by.
    program: Option<PathBuf>,
    /// That of the server; 0 before the first.
    generation: u64,
    /// A server of this supervisor has served.
    has_served: bool,
    /// Crashes since a server was stable.
    crashes: u32,
    /// How the server is to end, if it is: as it was ordered, or as it does by itself.
    ending: Option<Ending>,
    /// This process was told to end: another TERM is the second one.
    was_told: bool,
    /// A process of somebody else may take over.
    is_contested: bool,
    /// A process of somebody else has taken over.
    is_moved: bool,
    /// Children that are neither server nor successor: predecessors that end, successors that were
    /// killed.
    others: BTreeSet<Pid>,
    probe: Option<(Pid, Duration)>,
    /// The program of the successor that is being started.
    #[serde(skip)]
    starting: Option<PathBuf>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: State::Down { restart_at: Duration::ZERO },
            program: None,
            generation: 0,
            has_served: false,
            crashes: 0,
            ending: None,
            was_told: false,
            is_contested: false,
            is_moved: false,
            others: BTreeSet::new(),
            probe: None,
            starting: None,
        }
    }
}

impl Machine {
    /// When to report [`Event::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        let of_state = match self.state {
            State::Down { restart_at } => Some(restart_at),
            State::Orphaned { until, .. }
            | State::Contested { until, .. }
            | State::Leaving { until, .. } => Some(until),
            State::Up { .. } | State::Left => None,
        };
        let of_probe = self.probe.map(|(_, until)| until);
        of_state.into_iter().chain(of_probe).min()
    }

    /// What is to be done about what has happened. `now` is any clock that never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.state == State::Left {
            return actions;
        }
        let out = &mut actions;
        match event {
            Event::Begin | Event::Tick => self.on_time(now, out),
            Event::Started(part, pid) => self.on_started(now, part, pid, out),
            Event::NotStarted(part, why) => self.on_not_started(now, part, why, out),
            Event::ChildExited(pid, end) => self.on_exit(now, pid, end, out),
            Event::Serving(pid) => self.on_serving(now, pid, out),
            Event::StartSuccessor(pid, program) => self.on_start_successor(pid, program, out),
            Event::GivenUp(pid) if self.is_server(pid) => self.kill_successor(out),
            Event::Stopping(pid) if self.is_server(pid) => self.begin_to_end(Ending::Drain, out),
            Event::EndAsked(pid, ending) if self.others.contains(&pid) => {
                self.end(now, ending, out);
            }
            Event::Contested(pid) if self.is_server(pid) => self.is_contested = true,
            Event::Uncontested(pid) if self.is_server(pid) => self.is_contested = false,
            Event::Decided(moved) => self.on_decided(now, moved, out),
            Event::Moved(pid) if self.is_server(pid) => {
                self.is_moved = true;
                out.extend([log("another process has taken over"), Action::DropListeners]);
            }
            Event::GivenUp(_) | Event::Stopping(_) | Event::EndAsked(..) => {}
            Event::Contested(_) | Event::Uncontested(_) | Event::Moved(_) => {}
            Event::Signal(signal) => self.on_signal(now, signal, out),
            Event::NotExecuted(why) => out.push(warning(format!(
                "the supervisor goes on as the program it was before: {why}"
            ))),
        }
        actions
    }

    fn is_server(&self, pid: Pid) -> bool {
        matches!(self.state, State::Up { server, .. } if server == pid)
    }

    /// Its end is no news: it has been killed, and is no successor any more.
    fn kill_successor(&mut self, out: &mut Vec<Action>) {
        if let State::Up { successor, .. } = &mut self.state
            && let Some(Successor { pid, .. }) = successor.take()
        {
            self.others.insert(pid);
            out.push(Action::Kill(pid));
            if self.ending.is_none() {
                out.push(Action::Notify(Notice::Ready));
            }
        }
    }

    fn on_time(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let Some((pid, until)) = self.probe
            && now >= until
        {
            self.probe = None;
            self.others.insert(pid);
            out.extend([Action::Kill(pid), warning("the new program does not answer".into())]);
        }
        match self.state.clone() {
            State::Down { restart_at } if now >= restart_at => out.push(Action::Spawn {
                part: Part::Server,
                program: self.program.clone(),
                generation: self.generation + 1,
            }),
            State::Orphaned { successor, end, until } if now >= until => {
                self.others.insert(successor.pid);
                out.push(Action::Kill(successor.pid));
                self.on_server_end(now, end, None, out);
            }
            State::Contested { until, .. } if now >= until => out.push(Action::Decide),
            State::Leaving { status, until } if now >= until => {
                out.extend(self.others.iter().map(|pid| Action::Kill(*pid)));
                self.leave(status, out);
            }
            _ => {}
        }
    }

    fn on_started(&mut self, now: Duration, part: Part, pid: Pid, out: &mut Vec<Action>) {
        match (part, &mut self.state) {
            (Part::Server, State::Down { .. }) => {
                self.generation += 1;
                self.state = State::Up { server: pid, serving_since: None, successor: None };
            }
            (Part::Successor, State::Up { successor: successor @ None, .. }) => {
                *successor = Some(Successor { pid, program: self.starting.take() });
            }
            (Part::Probe, _) => self.probe = Some((pid, now + PROBE_TIME_MAX)),
            _ => {
                self.others.insert(pid);
                out.push(Action::Kill(pid));
            }
        }
    }

    fn on_not_started(&mut self, now: Duration, part: Part, why: String, out: &mut Vec<Action>) {
        match (part, &self.state) {
            (Part::Server, State::Down { .. }) => {
                out.push(warning(format!("the server cannot be started: {why}")));
                self.on_server_end(now, End::Exited(1), None, out);
            }
            (Part::Successor, State::Up { server, .. }) => {
                let why = format!("the successor cannot be started: {why}");
                out.extend([Action::Refuse(*server, why), Action::Notify(Notice::Ready)]);
            }
            (Part::Probe, _) => out.push(warning(format!("the new program does not start: {why}"))),
            _ => {}
        }
    }

    fn on_exit(&mut self, now: Duration, pid: Pid, end: End, out: &mut Vec<Action>) {
        if self.probe.is_some_and(|(probe, _)| probe == pid) {
            self.probe = None;
            out.push(match end {
                End::Exited(0) => Action::ExecSelf { program: self.program.clone() },
                _ => warning("the new program cannot be a supervisor; this one goes on".into()),
            });
            return;
        }
        self.others.remove(&pid);
        match self.state.clone() {
            State::Up { server, serving_since, successor } if server == pid => match successor {
                Some(successor) if self.ending.is_none() && !self.is_moved => {
                    out.push(warning(format!("the server {}; its successor is there", shown(end))));
                    let until = now + ORPHAN_TIME_MAX;
                    self.state = State::Orphaned { successor, end, until };
                }
                successor => {
                    if let Some(Successor { pid, .. }) = successor {
                        self.others.insert(pid);
                        out.push(Action::Kill(pid));
                    }
                    self.on_server_end(now, end, serving_since, out);
                }
            },
            State::Up { server, serving_since, successor: Some(successor) }
                if successor.pid == pid =>
            {
                self.state = State::Up { server, serving_since, successor: None };
                // With status 0 it was a rehearsal, or has told the server why it is none.
                let is_warning = end != End::Exited(0);
                let text = format!("the successor {}; the server goes on", shown(end));
                out.push(Action::Log(is_warning, text));
                if self.ending.is_none() {
                    out.push(Action::Notify(Notice::Ready));
                }
            }
            State::Orphaned { successor, end, .. } if successor.pid == pid => {
                out.push(warning("the successor has ended, too".to_owned()));
                self.on_server_end(now, end, None, out);
            }
            State::Leaving { status, .. } if self.others.is_empty() => self.leave(status, out),
            _ => {}
        }
    }

    /// The server has ended and nobody takes over from it.
    fn on_server_end(
        &mut self,
        now: Duration,
        end: End,
        serving_since: Option<Duration>,
        out: &mut Vec<Action>,
    ) {
        if self.is_moved {
            return self.begin_to_leave(now, 0, out);
        }
        // What has never served fails for a reason that a restart does not mend, and whoever has
        // started it waits to hear it.
        if self.ending.is_some() || end == End::Exited(0) || !self.has_served {
            return self.begin_to_leave(now, end.status(), out);
        }
        if self.is_contested {
            let until = now + CONTEST_TIME;
            self.state = State::Contested { end, serving_since, until };
            let text = format!("the server {}; another process was taking over", shown(end));
            return out.push(warning(text));
        }
        if serving_since.is_some_and(|since| now.saturating_sub(since) >= STABLE_AFTER) {
            self.crashes = 0;
        }
        let delay = restart_delay(self.crashes);
        self.crashes = self.crashes.saturating_add(1);
        self.state = State::Down { restart_at: now + delay };
        out.push(warning(format!("the server {}; another one starts in {delay:?}", shown(end))));
    }

    fn on_decided(&mut self, now: Duration, moved: bool, out: &mut Vec<Action>) {
        let State::Contested { end, serving_since, .. } = self.state.clone() else {
            return;
        };
        self.is_contested = false;
        if moved {
            out.extend([log("another process has taken over"), Action::DropListeners]);
            return self.begin_to_leave(now, end.status(), out);
        }
        self.on_server_end(now, end, serving_since, out);
    }

    fn begin_to_leave(&mut self, now: Duration, status: u8, out: &mut Vec<Action>) {
        if let Some((pid, _)) = self.probe.take() {
            self.others.insert(pid);
            out.push(Action::Kill(pid));
        }
        if self.others.is_empty() {
            return self.leave(status, out);
        }
        let order = Order::End(self.ending.unwrap_or(Ending::Drain));
        out.extend(self.others.iter().map(|pid| Action::Order(*pid, order)));
        self.state = State::Leaving { status, until: now + LEAVE_TIME_MAX };
    }

    fn leave(&mut self, status: u8, out: &mut Vec<Action>) {
        self.state = State::Left;
        out.push(Action::Exit(status));
    }

    fn on_serving(&mut self, now: Duration, pid: Pid, out: &mut Vec<Action>) {
        let (predecessor, successor) = match self.state.clone() {
            State::Up { server, serving_since, successor } if server == pid => {
                self.has_served = true;
                let serving_since = serving_since.or(Some(now));
                self.state = State::Up { server, serving_since, successor };
                if self.ending.is_none() && !self.is_moved {
                    out.extend([Action::KeepListeners(pid), Action::Notify(Notice::Ready)]);
                }
                return;
            }
            State::Up { server, successor: Some(successor), .. } if successor.pid == pid => {
                // Whatever crashed before was another program, or had another configuration.
                self.crashes = 0;
                (Some(server), successor)
            }
            State::Orphaned { successor, .. } if successor.pid == pid => (None, successor),
            _ => return out.push(warning(format!("process {pid} says that it serves"))),
        };
        self.others.extend(predecessor);
        self.program = successor.program.or_else(|| self.program.take());
        self.generation += 1;
        self.has_served = true;
        self.state = State::Up { server: pid, serving_since: Some(now), successor: None };
        out.push(log(&format!("process {pid} has taken over")));
        if let Some(ending) = self.ending {
            // The order has gone to the predecessor, which has nothing left to end.
            out.push(Action::Order(pid, Order::End(ending)));
            return;
        }
        let (program, generation) = (self.program.clone(), self.generation);
        out.extend([
            Action::KeepListeners(pid),
            Action::Notify(Notice::Ready),
            Action::Spawn { part: Part::Probe, program, generation },
        ]);
    }

    fn on_start_successor(&mut self, pid: Pid, program: Option<PathBuf>, out: &mut Vec<Action>) {
        let State::Up { server, successor, .. } = &mut self.state else {
            return out.push(Action::Refuse(pid, "there is no server to take over from".into()));
        };
        let why = match () {
            () if *server != pid => "another process is the server",
            () if self.ending.is_some() => "the server is stopping",
            () if self.is_moved => "another process has taken over",
            () => "",
        };
        if !why.is_empty() {
            return out.push(Action::Refuse(pid, why.to_owned()));
        }
        // The server asks for one only after it has given up the one before.
        if let Some(Successor { pid, .. }) = successor.take() {
            self.others.insert(pid);
            out.push(Action::Kill(pid));
        }
        self.starting.clone_from(&program);
        let program = program.or_else(|| self.program.clone());
        out.extend([
            Action::Notify(Notice::Reloading),
            Action::Spawn { part: Part::Successor, program, generation: self.generation + 1 },
        ]);
    }

    fn on_signal(&mut self, now: Duration, signal: Signal, out: &mut Vec<Action>) {
        match signal {
            Signal::Term | Signal::Int => {
                let is_second = self.was_told;
                self.was_told = true;
                let is_fast = is_second || signal == Signal::Int;
                self.end(now, if is_fast { Ending::Fast } else { Ending::Drain }, out);
            }
            Signal::Hup | Signal::Usr2 => self.on_upgrade_signal(out),
            Signal::Usr1 => out.push(warning("USR1 has no meaning here".to_owned())),
            // The ends of children are looked for at each turn.
            Signal::Child => {}
        }
    }

    /// Sees to it that whoever serves ends, in this way or a faster one that was asked for before.
    fn end(&mut self, now: Duration, ending: Ending, out: &mut Vec<Action>) {
        self.begin_to_end(ending, out);
        let order = Order::End(self.ending.unwrap_or(ending));
        match &self.state {
            State::Up { server: pid, .. }
            | State::Orphaned { successor: Successor { pid, .. }, .. } => {
                out.push(Action::Order(*pid, order));
                out.extend(self.others.iter().map(|pid| Action::Order(*pid, order)));
            }
            State::Down { .. } | State::Contested { .. } => self.begin_to_leave(now, 0, out),
            State::Leaving { .. } => {
                out.extend(self.others.iter().map(|pid| Action::Order(*pid, order)));
            }
            State::Left => {}
        }
    }

    fn begin_to_end(&mut self, ending: Ending, out: &mut Vec<Action>) {
        if self.ending.is_none() {
            out.extend([Action::Notify(Notice::Stopping), Action::DropListeners]);
        }
        self.ending = self.ending.max(Some(ending));
    }

    fn on_upgrade_signal(&mut self, out: &mut Vec<Action>) {
        match self.state {
            // The kernel may have delivered to the server, too, what was sent to all processes.
            State::Up { successor: Some(_), .. } | State::Orphaned { .. } => {
                out.push(log("an upgrade is under way already"));
            }
            State::Up { server, .. } if self.ending.is_none() => {
                out.push(Action::Order(server, Order::Upgrade));
            }
            _ => out.push(log("no server is there to be upgraded")),
        }
    }
}

/// How long to wait with a restart after so many crashes in a row.
fn restart_delay(crashes: u32) -> Duration {
    let factor = 1_u32.checked_shl(crashes).unwrap_or(u32::MAX);
    RESTART_DELAY_MIN.saturating_mul(factor).min(RESTART_DELAY_MAX)
}

fn shown(end: End) -> String {
    match end {
        End::Exited(status) => format!("has ended with status {status}"),
        End::Killed(signal) => format!("was ended by signal {signal}"),
    }
}

fn log(text: &str) -> Action {
    Action::Log(false, text.to_owned())
}

fn warning(text: String) -> Action {
    Action::Log(true, text)
}

#[cfg(test)]
mod tests;
