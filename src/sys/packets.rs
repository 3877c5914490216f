//! Packets between processes, with descriptors: SOCK_SEQPACKET sockets and SCM_RIGHTS.
//!
//! Whether a call waits is said with each call and never set on the socket: O_NONBLOCK would be the
//! other process's too.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Most descriptors in one packet (SCM_MAX_FD of the kernel).
pub const DESCRIPTORS_MAX: usize = 253;

/// The error of a sender whose descriptors under way, not taken yet, are more than it may open.
pub const TOO_MANY_UNDER_WAY: i32 = libc::ETOOMANYREFS;

/// Whether a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until there is room.
    Yes,
    /// `WouldBlock` instead.
    No,
}

/// Room for the control message of [`DESCRIPTORS_MAX`] descriptors, aligned as cmsghdr must be.
const CONTROL_WORDS: usize = (DESCRIPTORS_MAX * size_of::<RawFd>()).div_ceil(8) + 4;

/// Two sockets joined to each other; both end with exec.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened both, and nothing else knows them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Sends one packet, which must not be empty, with copies of the descriptors.
///
/// # Errors
/// `WouldBlock`; [`TOO_MANY_UNDER_WAY`]; `BrokenPipe` if the other end is closed; `InvalidInput`
/// for an empty packet or more than [`DESCRIPTORS_MAX`] descriptors.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let fds: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let len = size_of_val(&fds[..]) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: these compute lengths only.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as usize;
        // SAFETY: the control buffer is aligned and has room for DESCRIPTORS_MAX descriptors, so
        // the first header and its data lie inside of it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
            let data = libc::CMSG_DATA(header);
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), data, len as usize);
        }
    }
    let flags = libc::MSG_NOSIGNAL | if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
    loop {
        // SAFETY: `message` and what it points to live through the call.
        if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives one packet to the front of `buffer` and its descriptors to the end of `descriptors`;
/// all of them end with exec. 0 says that the other end is closed and nothing is left. Waits for
/// `timeout`, or without one for as long as it takes.
///
/// # Errors
/// `WouldBlock` if nothing has come in time; `InvalidData` if the packet is longer than the buffer
/// or descriptors of it were lost, because too many files are open here.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    if !is_readable(socket, timeout)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: `message` and what it points to live through the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Err(io::ErrorKind::WouldBlock.into()),
            // The other end was closed with something of ours unread: an end like any other.
            io::ErrorKind::ConnectionReset => Ok(0),
            _ => Err(error),
        };
    };
    // Owned first, so that none leaks whatever is wrong with the packet.
    take_descriptors(&message, descriptors);
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is too long"));
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors were lost: this process may not open so many files (ulimit -n)",
        ));
    }
    Ok(len)
}

/// Waits for something to read, or the end.
fn is_readable(socket: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout_ms = timeout.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: `poll` is one valid pollfd while the call lasts.
    let count = unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    match count {
        0 => Ok(false),
        1.. => Ok(true),
        _ => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
        }
    }
}

fn take_descriptors(message: &libc::msghdr, descriptors: &mut Vec<OwnedFd>) {
    // SAFETY: the kernel has filled the control buffer of `message` with whole control messages
    // and has set its length; the macros walk within that length. Each descriptor in an SCM_RIGHTS
    // message was opened for this process by the call, and nothing else knows it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header);
                let bytes = (*header).cmsg_len - (data as usize - header as usize);
                for index in 0..bytes / size_of::<RawFd>() {
                    let mut fd = MaybeUninit::<RawFd>::uninit();
                    let from = data.add(index * size_of::<RawFd>());
                    std::ptr::copy_nonoverlapping(from, fd.as_mut_ptr().cast(), size_of::<RawFd>());
                    descriptors.push(OwnedFd::from_raw_fd(fd.assume_init()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    const SOON: Option<Duration> = Some(Duration::from_millis(1));

    #[test]
    fn packets_keep_their_bounds_and_order() {
        let (one, two) = pair().unwrap();
        let mut buffer = [0; 16];
        let mut fds = vec![];
        let nothing = receive(two.as_fd(), &mut buffer, &mut fds, SOON).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        send(one.as_fd(), b"first", &[], Wait::Yes).unwrap();
        send(one.as_fd(), b"second", &[], Wait::No).unwrap();
        for expected in [&b"first"[..], b"second"] {
            let len = receive(two.as_fd(), &mut buffer, &mut fds, None).unwrap();
            assert_eq!(&buffer[..len], expected);
        }
        send(one.as_fd(), &[7; 17], &[], Wait::Yes).unwrap();
        let long = receive(two.as_fd(), &mut buffer, &mut fds, None).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidData);
        drop(one);
        assert_eq!(receive(two.as_fd(), &mut buffer, &mut fds, None).unwrap(), 0);
        let gone = send(two.as_fd(), b"x", &[], Wait::Yes).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn descriptors_are_copies_of_what_was_sent() {
        let (one, two) = pair().unwrap();
        let pipes: Vec<_> = (0..DESCRIPTORS_MAX).map(|_| io::pipe().unwrap()).collect();
        let readers: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
        send(one.as_fd(), b"readers", &readers, Wait::No).unwrap();
        let mut fds = vec![];
        assert_eq!(receive(two.as_fd(), &mut [0; 16], &mut fds, None).unwrap(), 7);
        assert_eq!(fds.len(), DESCRIPTORS_MAX);
        for (number, ((_, writer), fd)) in pipes.iter().zip(fds).enumerate() {
            let mut writer = writer.try_clone().unwrap();
            writer.write_all(&[number as u8]).unwrap();
            let mut byte = [0];
            File::from(fd).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [number as u8]);
        }
        let too_many: Vec<_> = (0..=DESCRIPTORS_MAX).map(|_| one.as_fd()).collect();
        assert!(send(one.as_fd(), b"x", &too_many, Wait::No).is_err());
    }

    #[test]
    fn a_full_socket_says_so() {
        let (one, _two) = pair().unwrap();
        let mut sent = 0;
        let error = loop {
            match send(one.as_fd(), &[1; 1_024], &[], Wait::No) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1_000_000);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
