//! A server that shares its addresses with another one (`--alongside`): what the other one still
//! has, what becomes ours once it has ended, and what is left to it when we end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use socket2::SockRef;

use super::Entry;
use super::holdings::{Holdings, Label};
use super::lock::PortLock;
use crate::base::network::ListenAddr;
use crate::config::Settings;
use crate::control::{self, ControlListener, path};
use crate::sys::reuseport;

/// The control socket, and what serves it.
pub(super) type Control = (ControlListener, control::Serving);

/// What becomes ours once the server that this one is alongside has ended.
#[derive(Debug)]
pub(super) struct Awaited {
    is_alongside: bool,
    /// Addresses whose lock it holds.
    locks: Vec<ListenAddr>,
    /// The path of its control socket; or of ours, if its file is gone and it is to be bound anew.
    pub(super) control: Option<PathBuf>,
    /// The control socket's path as it is configured: locks lie beside it.
    configured: Option<PathBuf>,
}

impl Awaited {
    /// Nothing yet.
    pub(super) fn new(entry: Entry, settings: &Settings) -> Self {
        Self {
            is_alongside: entry == Entry::Alongside,
            locks: Vec::new(),
            control: None,
            configured: settings.control.clone(),
        }
    }

    /// Whether another server may have our addresses, too.
    pub(super) fn is_alongside(&self) -> bool {
        self.is_alongside
    }

    /// The lock of an address: a new one for one that `is_new` to us, else what the predecessor has
    /// left. None if it needs none, or has to be waited for.
    ///
    /// # Errors
    /// `AddrInUse` if another server holds it that this one is not alongside.
    pub(super) fn lock(
        &mut self,
        address: &ListenAddr,
        is_new: bool,
        left: Option<OwnedFd>,
    ) -> io::Result<Option<OwnedFd>> {
        // Also of an address that the predecessor could not listen on in the end.
        if left.is_some() {
            return Ok(left);
        }
        if !is_new {
            // The predecessor waits for it, too.
            if self.is_alongside {
                self.locks.push(address.clone());
            }
            return Ok(None);
        }
        match PortLock::acquire(address, self.configured.as_deref()) {
            Err(error) if self.is_theirs(&error) => {
                self.locks.push(address.clone());
                Ok(None)
            }
            acquired => Ok(acquired?.map(OwnedFd::from)),
        }
    }

    /// The control socket as it could be `bound`; none if it has to be waited for.
    ///
    /// # Errors
    /// Those with which it could not be bound otherwise.
    pub(super) fn control(
        &mut self,
        bound: io::Result<Option<ControlListener>>,
        listen: &[ListenAddr],
    ) -> io::Result<Option<ControlListener>> {
        match bound {
            Err(error) if self.is_theirs(&error) => {
                self.control = path::socket_path(self.configured.as_deref(), listen);
                Ok(None)
            }
            bound => bound,
        }
    }

    fn is_theirs(&self, error: &io::Error) -> bool {
        self.is_alongside && error.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.control.is_none()
    }

    /// Looks whether the other server has ended, and takes its place; returns whether anything was
    /// gained. `ours` becomes the control socket, if that was, served by `serve`.
    pub(super) fn gain(
        &mut self,
        holdings: &mut Holdings,
        ours: &mut Option<Control>,
        serve: impl FnOnce(&ControlListener) -> io::Result<control::Serving>,
    ) -> bool {
        let before = holdings.len();
        self.gain_locks(holdings);
        let gains_locks = holdings.len() > before;
        let gained = self.gain_control(holdings, serve);
        let gains_control = gained.is_some();
        if gains_control {
            *ours = gained;
        }
        gains_locks || gains_control
    }

    fn gain_locks(&mut self, holdings: &mut Holdings) {
        let configured = self.configured.as_deref();
        self.locks.retain(|address| match PortLock::acquire(address, configured) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => true,
            acquired => {
                if let Ok(Some(lock)) = acquired {
                    holdings.add(Label::Lock(address.clone()), lock.into());
                }
                false
            }
        });
    }

    fn gain_control(
        &mut self,
        holdings: &mut Holdings,
        serve: impl FnOnce(&ControlListener) -> io::Result<control::Serving>,
    ) -> Option<Control> {
        let path = self.control.clone()?;
        let gained = ControlListener::bind(&path).and_then(|listener| {
            let copy = listener.as_fd().try_clone_to_owned()?;
            let serving = serve(&listener)?;
            Ok((listener, serving, copy))
        });
        match gained {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            Ok((listener, serving, copy)) => {
                tracing::info!(path = %path.display(), "the control socket is this server's now");
                // One whose file is gone.
                holdings.take(&Label::Control);
                holdings.add(Label::Control, copy);
                self.control = None;
                Some((listener, serving))
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "there is no control socket");
                self.control = None;
                None
            }
        }
    }
}

/// Steers new connections past these sockets, address by address, as long as the value is there: a
/// server that drains leaves them to the one alongside. Without one they are dropped, to be asked for
/// again ([`Listener::drop_new_connections`](crate::net::listener::Listener::drop_new_connections)),
/// which costs each of them a second.
#[derive(Debug)]
pub(super) struct Steered(Vec<OwnedFd>);

impl Steered {
    /// Begins, wherever somebody else listens. Where it cannot be done, nothing is steered.
    pub(super) fn away_from(holdings: &Holdings) -> Self {
        let mut steered = Vec::new();
        for address in holdings.addresses() {
            if matches!(address, ListenAddr::Unix(_)) {
                continue;
            }
            let ours = holdings.listeners().filter(|(at, _)| *at == address);
            match steer(&ours.map(|(_, socket)| socket).collect::<Vec<_>>()) {
                Ok(handle) => steered.extend(handle),
                Err(error) => tracing::debug!(%address, %error, "nothing is steered"),
            }
        }
        Self(steered)
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        // What was steered would be steered past the others' sockets once ours are gone.
        for socket in &self.0 {
            if let Err(error) = reuseport::steer_nowhere(socket) {
                tracing::debug!(%error, "nothing was steered");
            }
        }
    }
}

/// Steers past `ours`, which are of one address; `None` if nobody else listens there.
fn steer(ours: &[&OwnedFd]) -> io::Result<Option<OwnedFd>> {
    let [first, ..] = ours else {
        return Ok(None);
    };
    let Some(address) = SockRef::from(*first).local_addr()?.as_socket() else {
        return Ok(None);
    };
    let inodes = ours.iter().map(|socket| inode(socket)).collect::<io::Result<Vec<_>>>()?;
    let members = reuseport::listeners(address)?;
    let spared = members.iter().filter(|member| inodes.contains(member)).count();
    if members.len() == spared {
        return Ok(None);
    }
    // Whoever came later has the later places. Should ours be elsewhere, too, because this server
    // has got more workers meanwhile, it empties their queues as it does without any steering.
    reuseport::steer_past(first, spared as u32, members.len() as u32)?;
    tracing::info!(%address, "new connections go to the server alongside");
    first.as_fd().try_clone_to_owned().map(Some)
}

fn inode(socket: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(socket.try_clone()?).metadata()?.ino())
}
