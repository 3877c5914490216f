//! A server that shares its addresses with another one (`--alongside`): what the other one still
//! has, what becomes ours once it has ended, and what is left to it when we end.

use std::fs::File;
use std::io;
use std::ops::Range;
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
                // It may have left new connections steered.
                steer_nowhere(holdings);
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

/// Steers new connections past these sockets, address by address: a server that drains leaves them to
/// the one alongside, which ends that when it notices that it is alone.
#[derive(Debug, Default)]
pub(super) struct Steered(Vec<(ListenAddr, OwnedFd)>);

/// To which of those that are alongside new connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// To each as often as to any other.
    All,
    /// To those whose places stay theirs while our sockets are closed one after another: if the others
    /// have as many as we do, there is one.
    Lasting,
    /// To those whose places are theirs while there is one socket of ours, and, once that is closed,
    /// theirs or nobody's, in which case each gets as many as any other.
    Last,
}

impl Steered {
    /// Begins, wherever somebody else listens. Where it cannot be done, nothing is steered.
    pub(super) fn away_from(holdings: &Holdings, to: To) -> Self {
        let mut steered = Vec::new();
        for address in holdings.addresses() {
            if matches!(address, ListenAddr::Unix(_)) {
                continue;
            }
            let ours = holdings.listeners().filter(|(at, _)| *at == address);
            match steer(&ours.map(|(_, socket)| socket).collect::<Vec<_>>(), to) {
                Ok(handle) => steered.extend(handle.map(|handle| (address.clone(), handle))),
                Err(error) => tracing::debug!(%address, %error, "nothing is steered"),
            }
        }
        Self(steered)
    }

    /// Whether new connections to this address go to somebody else.
    pub(super) fn steers(&self, address: &ListenAddr) -> bool {
        self.0.iter().any(|(steered, _)| steered == address)
    }

    /// Gives up the last sockets of ours; all others are closed.
    pub(super) fn end(&mut self) {
        for (address, socket) in self.0.drain(..) {
            if let Err(error) = steer(&[&socket], To::Last) {
                tracing::debug!(%address, %error, "who comes at the very end may be reset");
            }
        }
    }
}

/// Has the kernel spread new connections over all sockets of our addresses again, whatever a server
/// that was alongside has left. With none there is nothing to end, and that is no error.
pub(super) fn steer_nowhere(holdings: &Holdings) {
    for (_, socket) in holdings.listeners() {
        let _ = reuseport::steer_nowhere(socket);
    }
}

/// Steers past `ours`, which are of one address; `None` if nobody else listens there.
fn steer(ours: &[&OwnedFd], to: To) -> io::Result<Option<OwnedFd>> {
    let [first, ..] = ours else {
        return Ok(None);
    };
    let Some(address) = SockRef::from(*first).local_addr()?.as_socket() else {
        return Ok(None);
    };
    let inodes = ours.iter().map(|socket| inode(socket)).collect::<io::Result<Vec<_>>>()?;
    let members = reuseport::listeners(address)?;
    let is_ours: Vec<bool> = members.iter().map(|member| inodes.contains(member)).collect();
    let Some(places) = others(&is_ours, to) else {
        return Ok(None);
    };
    reuseport::steer_to(first, places)?;
    if to == To::All {
        tracing::info!(%address, "new connections go to the server alongside");
    }
    first.as_fd().try_clone_to_owned().map(Some)
}

/// The others' places in a group, of whose members it is known which are ours; `None` if there are no
/// others, or ours are neither the first nor the last, as after an upgrade to more workers.
fn others(is_ours: &[bool], to: To) -> Option<Range<usize>> {
    let members = is_ours.len();
    let ours = is_ours.iter().filter(|ours| **ours).count();
    let others = members - ours;
    if others == 0 || ours == 0 {
        return None;
    }
    if is_ours[others..].iter().all(|ours| *ours) {
        // Whoever leaves is behind them.
        return Some(0..others);
    }
    if !is_ours[..ours].iter().all(|ours| *ours) {
        return None;
    }
    Some(match to {
        To::All => ours..members,
        // The last ones move.
        To::Lasting => ours..ours + 1,
        To::Last => members - 1..members,
    })
}

fn inode(socket: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(socket.try_clone()?).metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group as the kernel keeps it: whoever leaves is replaced by the last.
    fn leave(group: &mut Vec<bool>, place: usize) {
        group.swap_remove(place);
    }

    #[test]
    fn while_our_sockets_are_closed_new_connections_go_to_the_others() {
        let group = |ours: usize, others: usize, first: bool| {
            let (ours, others) = (vec![true; ours], vec![false; others]);
            if first { [ours, others].concat() } else { [others, ours].concat() }
        };
        for (ours, theirs, first) in [(1, 1, true), (2, 2, true), (3, 5, true), (4, 1, false)] {
            let mut group = group(ours, theirs, first);
            let all = others(&group, To::All).unwrap();
            assert_eq!(all.len(), theirs);
            assert!(group[all].iter().all(|ours| !ours));
            let lasting = others(&group, To::Lasting).unwrap();
            while group.iter().filter(|ours| **ours).count() > 1 {
                let last = group.iter().rposition(|ours| *ours).unwrap();
                leave(&mut group, last);
                assert!(group[lasting.clone()].iter().all(|ours| !ours), "{ours} {theirs}");
            }
            let places = others(&group, To::Last).unwrap();
            assert!(group[places.clone()].iter().all(|ours| !ours), "{ours} {theirs}");
            let last = group.iter().position(|ours| *ours).unwrap();
            leave(&mut group, last);
            assert!(places == (0..theirs) || places.start >= group.len(), "{ours} {theirs}");
        }
    }

    #[test]
    fn where_the_others_are_is_not_guessed() {
        assert_eq!(others(&[true, false, true], To::All), None);
        assert_eq!(others(&[true, true], To::All), None);
        assert_eq!(others(&[], To::All), None);
    }
}
