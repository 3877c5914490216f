//! The server's end: a thread that accepts, and one for each connection.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::REPLY_BYTES_MAX;
use super::line::{Lines, NoLine};
use super::listener::ControlListener;
use super::message::{
    DrainRequest, Failed, FailureKind, Outcome, Progress, Reply, Request, UpgradeRequest, decode,
    encode,
};
use super::{OnProgress, Operator};
use crate::net::log_limit::limited;
use crate::sys::credentials::peer_credentials;
use crate::sys::poll::wait_readable;
use crate::sys::{packets, process};

/// Connections at once. Each costs a thread; an operator needs one, and looks with a second.
pub const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take to state its request, from its beginning or from the outcome of
/// the one before. Clients state it at once.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of a request: the longest path (4,096 bytes) fits, and its quotation marks escaped.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How long a client may leave an outcome unread while there is no room for it.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted, for lack of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Serves a control socket until the value returned is closed or dropped. The listener's owner
/// keeps it: to pass it on, or to remove it.
///
/// # Errors
/// No descriptor or no thread to be had.
pub fn serve(listener: &ControlListener, operator: Arc<dyn Operator>) -> io::Result<Serving> {
    prepare(listener, operator).map(Standby::serve)
}

/// Makes everything ready for [`serve`], and accepts nobody yet: what is left to do cannot fail.
///
/// # Errors
/// As [`serve`].
pub fn prepare(listener: &ControlListener, operator: Arc<dyn Operator>) -> io::Result<Standby> {
    prepare_with(listener, operator, IDLE_TIME_MAX)
}

/// A control socket that can be served as soon as it is ours. Dropped, it is left alone.
#[derive(Debug)]
pub struct Standby {
    // Dropped first: the thread that waits for it is waited for by the other.
    begin: SyncSender<()>,
    serving: Serving,
}

impl Standby {
    /// Begins to serve.
    pub fn serve(self) -> Serving {
        // There is room for this one word.
        let _ = self.begin.try_send(());
        self.serving
    }
}

pub(super) fn prepare_with(
    listener: &ControlListener,
    operator: Arc<dyn Operator>,
    idle_time_max: Duration,
) -> io::Result<Standby> {
    let (woken, waker) = io::pipe()?;
    let shared = Arc::new(Shared {
        operator,
        idle_time_max,
        own_uid: process::user_id(),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let acceptor = Acceptor { listener: listener.listener()?, woken, shared: shared.clone() };
    let (begin, begun) = mpsc::sync_channel(1);
    let accept = move || {
        if begun.recv().is_ok() {
            acceptor.run();
        }
    };
    let thread = thread::Builder::new().name("control".to_owned()).spawn(accept)?;
    Ok(Standby { begin, serving: Serving { shared, waker: Some(waker), thread: Some(thread) } })
}

/// A control socket that is being served.
#[derive(Debug)]
pub struct Serving {
    shared: Arc<Shared>,
    /// Dropped to wake up the acceptor.
    waker: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Accepts no more connections, and ends those that have no request under way; returns when
    /// both are done. What is under way goes on.
    pub fn close(&mut self) {
        self.waker = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control socket's thread has panicked");
        }
        self.shared.close();
    }

    /// Closes, and waits at most `timeout` until each outcome has been sent. `false` if one has
    /// not. To be called before the process exits, on a thread that no request waits for.
    #[must_use]
    pub fn finish(mut self, timeout: Duration) -> bool {
        self.close();
        let state = self.shared.lock();
        let left = |state: &mut State| state.connections > 0;
        let waited = self.shared.changed.wait_timeout_while(state, timeout, left);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.connections == 0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the threads share.
struct Shared {
    operator: Arc<dyn Operator>,
    idle_time_max: Duration,
    own_uid: u32,
    state: Mutex<State>,
    /// A connection has ended.
    changed: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    connections: usize,
    /// Those with no request under way, by their number: what a close ends.
    waiting: HashMap<u64, UnixStream>,
    next_number: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, stream) in state.waiting.drain() {
            // Its thread reads the end then, or a request that has arrived before. It may have
            // ended by itself.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Counts a connection in, if there is room.
    fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let mut state = self.lock();
        if state.connections >= CONNECTIONS_MAX {
            return None;
        }
        state.connections += 1;
        state.next_number += 1;
        Some(Admitted { shared: self.clone(), number: state.next_number })
    }
}

/// A connection that counts, until it is dropped.
struct Admitted {
    shared: Arc<Shared>,
    number: u64,
}

impl Admitted {
    /// Says that no request is under way; `false` if it is too late for one.
    fn begin_waiting(&self, stream: &UnixStream) -> io::Result<bool> {
        let copy = stream.try_clone()?;
        let mut state = self.shared.lock();
        if !state.closed {
            state.waiting.insert(self.number, copy);
        }
        Ok(!state.closed)
    }

    /// Says that a request is under way.
    fn end_waiting(&self) {
        self.shared.lock().waiting.remove(&self.number);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.connections -= 1;
        state.waiting.remove(&self.number);
        self.shared.changed.notify_all();
    }
}

/// The thread that accepts.
struct Acceptor {
    listener: UnixListener,
    woken: PipeReader,
    shared: Arc<Shared>,
}

impl Acceptor {
    fn run(self) {
        loop {
            match wait_readable(&[self.woken.as_fd(), self.listener.as_fd()], None) {
                Ok(ready) if ready[0] => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the control socket is served no more");
                    return;
                }
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.begin(stream),
                // Another process that shares the listener was faster, or the client has gone.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    if let Ok([true]) =
                        wait_readable(&[self.woken.as_fd()], Some(ACCEPT_RETRY)).as_deref()
                    {
                        return;
                    }
                }
            }
        }
    }

    fn begin(&self, stream: UnixStream) {
        if let Err(failed) = self.admit(&stream) {
            limited!(warn, reason = %failed, "a connection to the control socket is refused");
            // The buffer of a fresh socket has room for it.
            let _ = send(&stream, &Reply::Outcome(Outcome::Failed(failed)));
        }
    }

    fn admit(&self, stream: &UnixStream) -> Result<(), Failed> {
        let failed = |error: io::Error| Failed::new(FailureKind::Failed, error.to_string());
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_write_timeout(Some(WRITE_TIME_MAX)).map_err(failed)?;
        let uid = peer_credentials(stream).map_err(failed)?.uid;
        if !may_operate(uid, self.shared.own_uid) {
            let text = format!("user {uid} may not operate this server; its own user and root may");
            return Err(Failed::new(FailureKind::Forbidden, text));
        }
        let Some(admitted) = self.shared.admit() else {
            let text = format!("{CONNECTIONS_MAX} are connected to the control socket already");
            return Err(Failed::new(FailureKind::Busy, text));
        };
        let stream = stream.try_clone().map_err(failed)?;
        let thread = thread::Builder::new().name("control-client".to_owned());
        thread.spawn(move || converse(&admitted, stream)).map_err(failed)?;
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Whether somebody may operate a server: its own user, and root.
fn may_operate(uid: u32, own_uid: u32) -> bool {
    uid == own_uid || uid == 0
}

/// Lives a connection: requests, one after the other.
fn converse(admitted: &Admitted, mut stream: UnixStream) {
    let mut lines = Lines::new(REQUEST_BYTES_MAX);
    while let Ok(true) = admitted.begin_waiting(&stream) {
        let line = lines.next(&mut stream, admitted.shared.idle_time_max);
        admitted.end_waiting();
        let bad = |what: String| Failed::new(FailureKind::BadRequest, what);
        let request = match line {
            Ok(line) => decode(&line).map_err(|why| bad(format!("the request is unclear: {why}"))),
            Err(NoLine::TooLong) => {
                Err(bad(format!("a request has {REQUEST_BYTES_MAX} bytes at most")))
            }
            Err(NoLine::TimedOut) => Err(bad("no request has come in time".to_owned())),
            Err(NoLine::Ended | NoLine::Io(_)) => return,
        };
        let mut sender = Sender { stream: &stream, unsent: Vec::new() };
        let outcome = match &request {
            Ok(request) => obey(&*admitted.shared.operator, request, &mut sender),
            Err(failed) => Outcome::Failed(failed.clone()),
        };
        if sender.outcome(outcome).is_err() || request.is_err() {
            return;
        }
    }
}

fn obey(operator: &dyn Operator, request: &Request, sender: &mut Sender<'_>) -> Outcome {
    let progress: OnProgress<'_> = &mut |progress| sender.progress(progress);
    let outcome = match request {
        Request::Status => Ok(Outcome::Status(operator.status())),
        Request::Upgrade(request) => {
            let UpgradeRequest { binary, dry_run } = request;
            let binary = binary.as_ref().map(|path| path.display().to_string());
            tracing::info!(binary, dry_run, "an upgrade is asked for");
            operator.upgrade(request, progress).map(Outcome::Upgraded)
        }
        Request::HandOver => {
            tracing::info!("another process asks for everything");
            let stream = sender.stream;
            let mut give = || give_channel(stream);
            let progress: OnProgress<'_> = &mut |progress| sender.progress(progress);
            return match operator.hand_over(&mut give, progress) {
                Ok(upgraded) => Outcome::Upgraded(upgraded),
                Err(failed) => Outcome::Failed(failed),
            };
        }
        Request::Drain(request) => {
            let DrainRequest { duration, now } = request;
            let duration_ms = duration.map(|duration| duration.as_millis() as u64);
            tracing::info!(duration_ms, now, "a drain is asked for");
            operator.drain(request, progress).map(Outcome::Drained)
        }
    };
    outcome.unwrap_or_else(Outcome::Failed)
}

/// Writes replies. Progress never waits for the client to read it: it would keep a server from
/// thawing.
struct Sender<'s> {
    stream: &'s UnixStream,
    /// The rest of a line there was no room for.
    unsent: Vec<u8>,
}

impl Sender<'_> {
    /// Sends it if there is room for it; `Break` if nobody is there any more.
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        if self.unsent.is_empty() {
            self.unsent = encode(&Reply::Progress(progress));
        }
        match self.send_what_fits() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn send_what_fits(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let written = self.stream.write(&self.unsent);
        self.stream.set_nonblocking(false)?;
        match written {
            Ok(count) => {
                self.unsent.drain(..count);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn outcome(mut self, outcome: Outcome) -> io::Result<()> {
        self.stream.write_all(&self.unsent)?;
        self.unsent.clear();
        send(self.stream, &Reply::Outcome(outcome))
    }
}

/// Sends the other process one end of a channel.
fn give_channel(stream: &UnixStream) -> io::Result<OwnedFd> {
    let (ours, theirs) = packets::pair()?;
    packets::send(stream, &encode(&Reply::Channel), &[theirs.as_fd()], false)?;
    Ok(ours)
}

fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = encode(reply);
    if line.len() > REPLY_BYTES_MAX {
        let text = "the answer is longer than a client reads";
        line = encode(&Reply::Outcome(Outcome::Failed(Failed::new(FailureKind::Failed, text))));
    }
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::may_operate;

    #[test]
    fn the_servers_user_and_root_may_operate_it() {
        for (uid, own_uid, expected) in
            [(5, 5, true), (0, 5, true), (6, 5, false), (0, 0, true), (5, 0, false)]
        {
            assert_eq!(may_operate(uid, own_uid), expected, "{uid} on a server of {own_uid}");
        }
    }
}
