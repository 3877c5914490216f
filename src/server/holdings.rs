//! What a server holds beside its connections, as labelled descriptors: listening sockets, locks,
//! the control socket. A successor gets all of them, and so does the supervisor, for the time after
//! a crash. A new kind is a new label.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use crate::base::network::ListenAddr;
use crate::supervisor::Kept;

/// What a descriptor is. Addresses are as they were configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    /// A listening socket of this address; several have the same label.
    Listener(ListenAddr),
    /// The lock of this address.
    Lock(ListenAddr),
    /// Where operators call.
    Control,
}

const LISTENER: &str = "listener";
const LOCK: &str = "lock";
const CONTROL: &str = "control";

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(address) => write!(f, "{LISTENER} {address}"),
            Self::Lock(address) => write!(f, "{LOCK} {address}"),
            Self::Control => f.write_str(CONTROL),
        }
    }
}

impl FromStr for Label {
    /// Another build's label.
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let address = |text: &str| text.parse::<ListenAddr>().map_err(drop);
        match text.split_once(' ') {
            Some((LISTENER, text)) => address(text).map(Self::Listener),
            Some((LOCK, text)) => address(text).map(Self::Lock),
            None if text == CONTROL => Ok(Self::Control),
            _ => Err(()),
        }
    }
}

/// Descriptors with their labels, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Holdings(Vec<(Label, OwnedFd)>);

impl Holdings {
    /// What a server that crashed has left with the supervisor.
    pub(super) fn of_kept(kept: Vec<Kept>) -> Self {
        let mut holdings = Self::default();
        for Kept { label, fd } in kept {
            holdings.add_labelled(&label, fd);
        }
        holdings
    }

    /// Adds a descriptor that came with a label. One whose label this build does not know is
    /// closed.
    pub(super) fn add_labelled(&mut self, label: &str, fd: OwnedFd) {
        match label.parse() {
            Ok(label) => self.add(label, fd),
            Err(()) => tracing::warn!(label, "another build's holding is closed"),
        }
    }

    pub(super) fn add(&mut self, label: Label, fd: OwnedFd) {
        self.0.push((label, fd));
    }

    /// Takes out all that have this label.
    pub(super) fn take(&mut self, label: &Label) -> Vec<OwnedFd> {
        self.0.extract_if(.., |(its, _)| its == label).map(|(_, fd)| fd).collect()
    }

    /// Closes the listening sockets.
    pub(super) fn drop_listeners(&mut self) {
        self.0.retain(|(label, _)| !matches!(label, Label::Listener(_)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.0.iter().map(|(label, fd)| (label.to_string(), fd.as_fd()))
    }

    /// The listening sockets.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&ListenAddr, &OwnedFd)> {
        self.0.iter().filter_map(|(label, fd)| match label {
            Label::Listener(address) => Some((address, fd)),
            Label::Lock(_) | Label::Control => None,
        })
    }

    /// The addresses that are listened on, each once.
    pub(super) fn addresses(&self) -> Vec<&ListenAddr> {
        let mut addresses = Vec::new();
        for (address, _) in self.listeners() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn labels_survive_and_others_are_closed() {
        let addresses = ["127.0.0.1:8000", "[::1]:0", "unix:/run/a b"];
        let addresses: Vec<ListenAddr> =
            addresses.iter().map(|text| text.parse().unwrap()).collect();
        let labels: Vec<Label> = addresses
            .iter()
            .flat_map(|address| [Label::Listener(address.clone()), Label::Lock(address.clone())])
            .chain([Label::Control])
            .collect();
        let mut holdings = Holdings::default();
        for label in &labels {
            assert_eq!(label.to_string().parse(), Ok(label.clone()));
            holdings.add_labelled(&label.to_string(), null());
        }
        for other in ["", "lock", "control 127.0.0.1:80", "listener nowhere", "ticket key"] {
            holdings.add_labelled(other, null());
        }
        assert!(holdings.iter().map(|(label, _)| label).eq(labels.iter().map(Label::to_string)));
        assert_eq!(holdings.addresses(), addresses.iter().collect::<Vec<_>>());
    }

    #[test]
    fn each_is_taken_out_once() {
        let address: ListenAddr = "127.0.0.1:8000".parse().unwrap();
        let mut holdings = Holdings::default();
        holdings.add(Label::Listener(address.clone()), null());
        holdings.add(Label::Control, null());
        holdings.add(Label::Listener(address.clone()), null());
        assert_eq!(holdings.take(&Label::Listener(address.clone())).len(), 2);
        assert_eq!(holdings.take(&Label::Listener(address)).len(), 0);
        assert_eq!((holdings.len(), holdings.is_empty()), (1, false));
    }
}
