//! Notices to a service manager: sd_notify(3), a datagram to the socket in NOTIFY_SOCKET.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::machine::Notice;
use crate::sys::clock;

/// Where notices go.
#[derive(Debug)]
pub(super) struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// To the socket of this name, a path or `@` and an abstract name; nowhere without one.
    pub(super) fn new(name: Option<OsString>) -> Self {
        let manager = name.filter(|name| !name.is_empty()).and_then(|name| match open(&name) {
            Ok(manager) => Some(manager),
            Err(error) => {
                let name = name.to_string_lossy();
                tracing::warn!(%name, %error, "the service manager cannot be notified");
                None
            }
        });
        Self { manager }
    }

    /// Sends a notice, if anybody wants it. Never waits: it is a courtesy.
    pub(super) fn send(&self, notice: Notice) {
        let Some((socket, address)) = &self.manager else { return };
        let text = match notice {
            Notice::Ready => "READY=1".to_owned(),
            Notice::Stopping => "STOPPING=1".to_owned(),
            Notice::Reloading => {
                format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_ns() / 1_000)
            }
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::warn!(%error, "the service manager was not notified");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn notices_reach_a_path_and_an_abstract_name() {
        let name = format!("steadfast-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ];
        for (manager, name) in managers {
            let notifier = Notifier::new(Some(name));
            notifier.send(Notice::Ready);
            assert_eq!(receive(&manager), "READY=1");
            let before_us = clock::monotonic_ns() / 1_000;
            notifier.send(Notice::Reloading);
            let text = receive(&manager);
            let time_us = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time_us.parse::<u64>().unwrap() >= before_us, "{text}");
            notifier.send(Notice::Stopping);
            assert_eq!(receive(&manager), "STOPPING=1");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn nobody_to_notify_is_no_failure() {
        for name in [None, Some(""), Some("/nowhere/at/all"), Some("relative")] {
            Notifier::new(name.map(OsString::from)).send(Notice::Ready);
        }
    }
}
