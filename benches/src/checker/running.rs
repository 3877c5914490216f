//! The checker's loop on a thread of its own, so that whoever drives the server disturbs no figure.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};

use super::account::Faults;
use super::figures::Span;
use super::streams::{Load, Streams, Totals};
use super::visitors::Visits;

/// A load that runs until it is finished. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    commands: Sender<Command>,
    thread: JoinHandle<Result<Totals>>,
}

/// A window of time, and the counts at its end, from the beginning of the run.
#[derive(Debug, Clone)]
pub struct WindowFigures {
    /// Delays and silences of the window.
    pub span: Span,
    /// Faults since the beginning.
    pub faults: Faults,
    /// Visitors since the beginning.
    pub visits: Visits,
}

#[derive(Debug)]
enum Command {
    OpenWindow,
    CloseWindow(Sender<WindowFigures>),
    Finish,
}

impl Running {
    /// Opens all connections and begins to send. Returns once all of it runs.
    pub fn start(load: &Load) -> Result<Self> {
        let (commands, received) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let load = load.clone();
        let thread = thread::Builder::new().name("streams".to_owned()).spawn(move || {
            let mut streams = Streams::open(&load)?;
            streams.begin()?;
            // The one who waits for it is gone only if nobody wants this run any more.
            let _ = begun.send(());
            run(&mut streams, &received)
        })?;
        let running = Self { commands, thread };
        match has_begun.recv() {
            Ok(()) => Ok(running),
            Err(_) => Err(running.failure()),
        }
    }

    /// Begins a window.
    pub fn open_window(&self) {
        // If the thread has ended, the next question says so.
        let _ = self.commands.send(Command::OpenWindow);
    }

    /// Ends the window.
    ///
    /// # Errors
    /// `None` if the thread has failed; [`Running::finish`] says why.
    pub fn close_window(&self) -> Option<WindowFigures> {
        let (answer, figures) = mpsc::channel();
        self.commands.send(Command::CloseWindow(answer)).ok()?;
        figures.recv().ok()
    }

    /// Waits for what is on its way, and settles all accounts.
    pub fn finish(self) -> Result<Totals> {
        let _ = self.commands.send(Command::Finish);
        join(self.thread)
    }

    fn failure(self) -> anyhow::Error {
        match join(self.thread) {
            Ok(_) => anyhow!("the streams have ended before they began"),
            Err(error) => error,
        }
    }
}

fn join(thread: JoinHandle<Result<Totals>>) -> Result<Totals> {
    thread.join().map_err(|_| anyhow!("the streams have panicked"))?
}

fn run(streams: &mut Streams, commands: &Receiver<Command>) -> Result<Totals> {
    loop {
        match commands.try_recv() {
            Ok(Command::OpenWindow) => streams.open_window(),
            Ok(Command::CloseWindow(answer)) => {
                let span = streams.close_window();
                let (faults, visits) = (streams.faults(), streams.visits());
                // Who has asked may have given up.
                let _ = answer.send(WindowFigures { span, faults, visits });
            }
            Ok(Command::Finish) | Err(TryRecvError::Disconnected) => return streams.finish(),
            Err(TryRecvError::Empty) => streams.turn()?,
        }
    }
}
