//! A server that shares its addresses with another one (`--alongside`): what the other one still
//! has, and what becomes ours once it has ended.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::center::Center;
use super::holdings::{Holdings, Label};
use super::lock::PortLock;
use super::operate::Operations;
use crate::base::network::ListenAddr;
use crate::control::{self, ControlListener};

/// The control socket, and what serves it.
pub(super) type Control = (ControlListener, control::Serving);

/// What becomes ours once the server that this one is alongside has ended.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// Addresses whose lock it holds.
    pub(super) locks: Vec<ListenAddr>,
    /// The path of its control socket; or of ours, if its file is gone and it is to be bound anew.
    pub(super) control: Option<PathBuf>,
    /// The control socket's path as it is configured: locks lie beside it.
    pub(super) configured: Option<PathBuf>,
}

impl Awaited {
    /// Whether there is nothing to wait for.
    fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.control.is_none()
    }

    /// Looks whether the other server has ended, and takes its place; returns the control socket
    /// if it is ours now. What was gained is handed over, and survives a crash, as the rest.
    pub(super) fn gain(&mut self, center: &Arc<Center>) -> Option<Control> {
        if self.is_empty() {
            return None;
        }
        let mut gained = None;
        center.gain(|holdings| {
            let before = holdings.len();
            self.gain_locks(holdings);
            let gains_locks = holdings.len() > before;
            gained = self.gain_control(center, holdings);
            gains_locks || gained.is_some()
        });
        gained
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

    fn gain_control(&mut self, center: &Arc<Center>, holdings: &mut Holdings) -> Option<Control> {
        let path = self.control.clone()?;
        let gained = ControlListener::bind(&path).and_then(|listener| {
            let copy = listener.as_fd().try_clone_to_owned()?;
            let serving = control::serve(&listener, Arc::new(Operations(center.clone())))?;
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
