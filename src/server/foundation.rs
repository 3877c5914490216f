//! What a server stands on before it has workers: descriptors, locks, listening sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use socket2::{Domain, SockRef, Socket, Type};

use super::Entry;
use super::alongside::Awaited;
use super::holdings::{Holdings, Label};
use crate::base::network::{ListenAddr, UnixAddr};
use crate::config::Settings;
use crate::control::{ControlListener, path};
use crate::net::listener::{self, Bound, How, Listener, Unlink};
use crate::sys::credentials::network_namespace;
use crate::sys::descriptors;

/// Descriptors for what a server has whatever its settings: standard streams, signals, the link to
/// the supervisor, the control socket with two for each operator, an upgrade's channel with what
/// belongs to it; the rest, some sixty, is for an app's files.
const DESCRIPTORS_RESERVED: usize = 112;

/// Lanes that can be opened to a successor: for twice our workers, and for no fewer than these.
const LANES_MIN: usize = 16;

/// The most descriptors that are no connections of a server with so many workers, addresses and
/// listening sockets in all, at any time and in an upgrade, too.
fn descriptors(workers: usize, addresses: usize, sockets: usize) -> usize {
    // An epoll, its waker, and memory with states that is being written or read.
    let of_workers = 3 * workers;
    // Each with the copy that goes to a successor.
    let of_sockets = 2 * sockets;
    // Our ends, and the one of a successor that is on its way.
    let lanes = (2 * workers).max(LANES_MIN) + 1;
    // A lock, and new connections being steered past it.
    DESCRIPTORS_RESERVED + of_workers + of_sockets + lanes + 2 * addresses
}

/// What a predecessor hands over beside its connections.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) holdings: Holdings,
    /// The path at which it has been called, which need not be where its owner has bound it.
    pub(super) called_at: Option<PathBuf>,
}

/// Sockets and locks, ours alone or shared with a predecessor that still serves.
#[derive(Debug)]
pub(super) struct Foundation {
    /// Where connections come in, with the ports that were given where 0 was asked for.
    pub(super) addresses: Vec<ListenAddr>,
    /// Most connections at once.
    pub(super) connections_max: usize,
    /// Connections that the limit of open files leaves room for.
    pub(super) room: usize,
    /// By the address that was configured.
    listeners: Vec<(ListenAddr, Listener)>,
    /// Where operators call.
    pub(super) control: Option<ControlListener>,
    /// What goes to a successor: locks, and copies of sockets.
    pub(super) holdings: Holdings,
    /// Copies of sockets that are bound and do not listen yet: they would draw connections before
    /// anybody accepts them.
    pub(super) silent: Vec<(ListenAddr, OwnedFd)>,
    /// Unix sockets of ours.
    pub(super) unlink: Vec<Unlink>,
    /// Unix sockets that are the predecessor's yet.
    pub(super) inherited_paths: Vec<UnixAddr>,
    /// What a server that this one is alongside still has.
    pub(super) awaited: Awaited,
}

impl Foundation {
    /// Binds what is configured, but for what is inherited.
    ///
    /// # Errors
    /// An address cannot be listened on, or descriptors are lacking.
    pub(super) fn bind(
        settings: &Settings,
        entry: Entry,
        inherited: Inherited,
    ) -> io::Result<Self> {
        let workers = settings.workers.max(1);
        let files = usize::try_from(descriptors::raise_open_files()?.soft).unwrap_or(usize::MAX);
        // A predecessor with more workers had more sockets, and all of them are adopted.
        let inherited_from = |address| {
            let listeners = inherited.holdings.listeners();
            listeners.filter(|(theirs, _)| *theirs == address).count()
        };
        let sockets = settings.listen.iter().map(|address| workers.max(inherited_from(address)));
        let needed = descriptors(workers, settings.listen.len(), sockets.sum());
        let room = files.saturating_sub(needed);
        let mut foundation = Self {
            addresses: Vec::new(),
            connections_max: connections_max(settings, files, room)?,
            room,
            listeners: Vec::new(),
            control: None,
            holdings: Holdings::default(),
            silent: Vec::new(),
            unlink: Vec::new(),
            inherited_paths: Vec::new(),
            awaited: Awaited::new(entry, settings),
        };
        // Before an IPv4 address is found to be taken by an IPv6 one of ours.
        for (address, socket) in inherited.holdings.listeners() {
            if matches!(address, ListenAddr::Tcp(address) if address.is_ipv6())
                && settings.listen.contains(address)
            {
                let wanted = is_only_v6(address, &settings.listen);
                check_families(address, listener::is_only_v6(socket)?, wanted)?;
            }
        }
        let Inherited { holdings: mut inherited, called_at } = inherited;
        for address in &settings.listen {
            let only_v6 = is_only_v6(address, &settings.listen);
            let ours = inherited.take(&Label::Listener(address.clone()));
            let lock = inherited.take(&Label::Lock(address.clone())).pop();
            // Nobody reaches a socket whose file is gone.
            let is_lost = matches!(address, ListenAddr::Unix(unix) if !unix.path.exists());
            if is_lost && !ours.is_empty() {
                tracing::warn!(%address, "the socket's file is gone: bound anew");
            }
            let is_new = is_lost || ours.is_empty();
            if let Some(lock) = foundation.awaited.lock(address, is_new, lock)? {
                foundation.holdings.add(Label::Lock(address.clone()), lock);
            }
            if is_new {
                foundation.bind_address(address, workers, only_v6)?;
            } else {
                foundation.adopt(address, ours, workers, only_v6)?;
            }
        }
        let inherited = inherited.take(&Label::Control).pop();
        let control = control_listener(settings, inherited.map(|control| (control, called_at)));
        foundation.control = foundation.awaited.control(control, &settings.listen)?;
        if let Some(control) = &foundation.control {
            foundation.holdings.add(Label::Control, control.as_fd().try_clone_to_owned()?);
        }
        Ok(foundation)
    }

    fn bind_address(
        &mut self,
        address: &ListenAddr,
        workers: usize,
        only_v6: bool,
    ) -> io::Result<()> {
        let beside = self.awaited.is_alongside();
        let Bound { address: bound, listeners, unlink } =
            listener::bind(address, workers, How { beside, only_v6 })
                .map_err(|error| explain(address, beside, &error))?;
        for listener in &listeners {
            self.silent.push((address.clone(), listener.as_fd().try_clone_to_owned()?));
        }
        self.listeners.extend(listeners.into_iter().map(|listener| (address.clone(), listener)));
        self.unlink.extend(unlink);
        self.addresses.push(bound);
        Ok(())
    }

    fn adopt(
        &mut self,
        address: &ListenAddr,
        inherited: Vec<OwnedFd>,
        workers: usize,
        only_v6: bool,
    ) -> io::Result<()> {
        let first = &inherited[0];
        let mut more = Vec::new();
        match address {
            ListenAddr::Tcp(_) => {
                check_namespace(address, first)?;
                let bound = SockRef::from(first).local_addr()?.as_socket();
                let bound = bound.ok_or(io::ErrorKind::InvalidInput)?;
                for _ in inherited.len()..workers {
                    let beside = listener::bind_beside(bound, only_v6)
                        .map_err(|error| explain(address, true, &error))?;
                    self.silent.push((address.clone(), beside.as_fd().try_clone_to_owned()?));
                    more.push(beside);
                }
                self.addresses.push(ListenAddr::Tcp(bound));
            }
            // One queue, from which all accept.
            ListenAddr::Unix(unix) => {
                for _ in inherited.len()..workers {
                    more.push(Listener::adopt(address, first.try_clone()?));
                }
                self.inherited_paths.push(unix.clone());
                self.addresses.push(address.clone());
            }
        }
        for socket in inherited {
            self.holdings.add(Label::Listener(address.clone()), socket.try_clone()?);
            self.listeners.push((address.clone(), Listener::adopt(address, socket)));
        }
        self.listeners.extend(more.into_iter().map(|listener| (address.clone(), listener)));
        Ok(())
    }

    /// Deals the listeners out: each worker gets its share, and none is left.
    pub(super) fn deal_listeners(&mut self, workers: usize) -> Vec<Vec<Listener>> {
        let mut hands: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
        // By address, so that each worker has one of each as long as there are enough.
        let mut dealt: Vec<(ListenAddr, usize)> = Vec::new();
        for (address, listener) in self.listeners.drain(..) {
            let place = match dealt.iter_mut().find(|(of, _)| *of == address) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    dealt.push((address, 0));
                    0
                }
            };
            hands[place % workers].push(listener);
        }
        hands
    }
}

/// Whether an address is IPv6's alone: beside it, the port is listened on for IPv4.
fn is_only_v6(address: &ListenAddr, all: &[ListenAddr]) -> bool {
    let ListenAddr::Tcp(address) = address else {
        return false;
    };
    let is_beside = |other: &ListenAddr| matches!(other, ListenAddr::Tcp(other) if other.is_ipv4() && other.port() == address.port());
    address.is_ipv6() && address.port() != 0 && all.iter().any(is_beside)
}

/// What a socket was bound for cannot be changed any more.
fn check_families(address: &ListenAddr, is: bool, wanted: bool) -> io::Result<()> {
    let text = match (is, wanted) {
        (true, false) => "was bound for IPv6 alone, as `listen` had an IPv4 address of the port",
        (false, true) => "was bound for IPv4, too, as `listen` had no IPv4 address of the port",
        _ => return Ok(()),
    };
    Err(io::Error::other(format!(
        "{address} {text}: restart the server, since an upgrade keeps its sockets, or leave `listen` as \
         it was"
    )))
}

/// New sockets, and those of whoever starts this server anew one day, would be elsewhere.
fn check_namespace(address: &ListenAddr, inherited: &OwnedFd) -> io::Result<()> {
    let ours = network_namespace(Socket::new(Domain::IPV4, Type::STREAM, None)?);
    match (ours, network_namespace(inherited)) {
        (Ok(ours), Ok(theirs)) if ours != theirs => Err(io::Error::other(format!(
            "{address} is in another network namespace than this process; start it in the same \
             one (in containers: share the host's, or the other container's)"
        ))),
        // An old kernel does not say.
        _ => Ok(()),
    }
}

/// The control socket: the one inherited, if it is where it should be, or a new one. A server that
/// can have none at the default place serves without.
fn control_listener(
    settings: &Settings,
    inherited: Option<(OwnedFd, Option<PathBuf>)>,
) -> io::Result<Option<ControlListener>> {
    let Some(path) = path::socket_path(settings.control.as_deref(), &settings.listen) else {
        return Ok(None);
    };
    let path = std::path::absolute(path)?;
    if let Some((inherited, called_at)) = inherited {
        let mut listener = ControlListener::from_fd(inherited)?;
        if let Some(called_at) = called_at {
            listener = listener.called_at(&called_at);
        }
        if listener.path() == path && !listener.is_lost() {
            return Ok(Some(listener));
        }
    }
    match ControlListener::bind(&path) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.control.is_some() => Err(io::Error::new(
            error.kind(),
            format!("the control socket {}: {error}", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "there is no control socket");
            Ok(None)
        }
    }
}

/// What the descriptors allow, or less if it is configured.
fn connections_max(settings: &Settings, files: usize, room: usize) -> io::Result<usize> {
    match settings.connections_max {
        Some(wanted) if wanted > room => Err(io::Error::other(format!(
            "connections_max is {wanted}, but the limit of {files} open files leaves room for {room}; \
             raise it (ulimit -n, LimitNOFILE=)"
        ))),
        Some(wanted) => Ok(wanted),
        None if room == 0 => Err(io::Error::other(format!(
            "the limit of {files} open files leaves no room for connections; raise it (ulimit -n, LimitNOFILE=)"
        ))),
        None => Ok(room),
    }
}

fn explain(address: &ListenAddr, beside: bool, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse if beside => {
            ": it is not shared; only TCP addresses are, between servers of the same user"
        }
        io::ErrorKind::AddrInUse => {
            ": another server listens there; stop it first, or listen elsewhere"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
}
