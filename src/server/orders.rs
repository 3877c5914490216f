//! What the server is told to do: by its supervisor over the link, or by signals.
//!
//! Below a supervisor signals are for the supervisor, which orders what they stand for. A signal
//! that comes here all the same, because it was sent to every process of the service or to this one
//! by mistake, begins what it asks for if that has not begun; it never hastens it. Without a
//! supervisor a second TERM does.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use std::{io, iter, process};

use super::launch::Supervision;
use crate::supervisor::{Ending, Order};
use crate::sys::pidfd::Pidfd;
use crate::sys::poll::wait_readable;
use crate::sys::signals::{Sender, Signal, Signals};
use crate::sys::terminal::{Hup, Terminal};

/// Where orders come from, and what has been ordered.
pub(super) struct Orders<'s> {
    signals: &'s Signals,
    terminal: Terminal,
    /// This process was told to end, other than by a predecessor.
    was_told: bool,
}

/// An order that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Upgrade,
    End(Wanted),
}

/// An order to end. The later one is the stronger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) ending: Ending,
    /// It came by a signal, of which the supervisor may know nothing.
    pub(super) by_signal: bool,
    /// It came during an upgrade, and has waited for the outcome.
    pub(super) was_deferred: bool,
}

impl<'s> Orders<'s> {
    pub(super) fn new(signals: &'s Signals) -> Self {
        Self { signals, terminal: Terminal::at_start(), was_told: false }
    }

    /// The next order that has come, if there is one.
    ///
    /// # Errors
    /// Those of read(2): none are to be expected.
    pub(super) fn next(&mut self, supervision: &Supervision) -> io::Result<Option<Given>> {
        // First, as it notices whether there is a supervisor.
        if let Some(order) = supervision.next_order() {
            self.was_told |= matches!(order, Order::End(_));
            return Ok(Some(given(order, false)));
        }
        while let Some((signal, sender)) = self.signals.read_from()? {
            if let Some(order) = self.meaning(signal, sender, supervision.link().is_some()) {
                return Ok(Some(given(order, true)));
            }
        }
        Ok(None)
    }

    /// Waits until an order may have come, or `timeout`; whether there is something to read from
    /// `wake`.
    ///
    /// # Errors
    /// Those of poll(2): none are to be expected.
    pub(super) fn wait(
        &self,
        supervision: &Supervision,
        wake: BorrowedFd<'_>,
        timeout: Duration,
    ) -> io::Result<bool> {
        let link = supervision.link().map(AsFd::as_fd);
        let all: Vec<_> = [wake, self.signals.as_fd()].into_iter().chain(link).collect();
        Ok(wait_readable(&all, Some(timeout))?[0])
    }

    fn meaning(&mut self, signal: Signal, sender: Sender, supervised: bool) -> Option<Order> {
        match signal {
            Signal::Term => Some(Order::End(self.on_term(sender, supervised))),
            Signal::Int => Some(Order::End(Ending::Fast)),
            Signal::Usr2 => Some(Order::Upgrade),
            Signal::Hup => match self.terminal.hup(sender) {
                Hup::Sent => Some(Order::Upgrade),
                Hup::HungUp => {
                    tracing::info!("the terminal is gone");
                    Some(Order::End(Ending::Drain))
                }
                Hup::Nothing => None,
            },
            Signal::Usr1 => {
                tracing::warn!("USR1 has no meaning here");
                None
            }
            // A successor that has failed; whoever waits for it takes its status.
            Signal::Child => None,
        }
    }

    fn on_term(&mut self, sender: Sender, supervised: bool) -> Ending {
        // A predecessor passes on what may have been sent to this process, too.
        if sender == Sender::Predecessor {
            return Ending::Drain;
        }
        let is_second = self.was_told;
        self.was_told = true;
        if is_second && !supervised { Ending::Fast } else { Ending::Drain }
    }
}

fn given(order: Order, by_signal: bool) -> Given {
    match order {
        Order::End(ending) => Given::End(Wanted { ending, by_signal, was_deferred: false }),
        Order::Upgrade => Given::Upgrade,
    }
}

/// Sees to the signals that came to a successor before it is the server, and so were for another
/// process, or for all of them. A supervisor repeats what it was told; without one an order to end
/// counts as one that is passed on. To be called just before it becomes the server.
pub(super) fn begin_anew(signals: &Signals, supervised: bool) {
    let pending: Vec<Signal> = iter::from_fn(|| signals.read().ok().flatten()).collect();
    for signal in pending {
        if matches!(signal, Signal::Term | Signal::Int) && !supervised {
            let repeated = Pidfd::open(process::id()).and_then(|own| own.pass_on(signal));
            if let Err(error) = repeated {
                tracing::warn!(%signal, %error, "a signal is lost");
            }
        } else if signal != Signal::Child {
            tracing::info!(%signal, "passed over: this process was not the server yet");
        }
    }
}

/// Passes an order to end on to a successor that is no child of a supervisor's.
pub(super) fn pass_on(successor: &Pidfd, ending: Ending) -> io::Result<()> {
    successor.pass_on(signal(ending))
}

fn signal(ending: Ending) -> Signal {
    match ending {
        Ending::Drain => Signal::Term,
        Ending::Fast => Signal::Int,
    }
}
