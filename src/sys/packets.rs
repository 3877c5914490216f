//! Packets between processes, with descriptors: pairs of Unix sockets of SOCK_SEQPACKET, and
//! SCM_RIGHTS (unix(7)).
//!
//! A packet arrives whole or not at all, packets of one sender stay in order, and those of several
//! senders on one end do not mix. Whether a call waits is said with each call (MSG_DONTWAIT):
//! O_NONBLOCK would hold for every process that shares the socket.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

/// Descriptors in one packet at most: SCM_MAX_FD of Linux, which refuses more with EINVAL.
pub const DESCRIPTORS_MAX: usize = 253;

/// Bytes of ancillary data that hold [`DESCRIPTORS_MAX`] descriptors, in words of 8 bytes: the
/// header of 16 and 4 for each, rounded up.
const CONTROL_WORDS: usize = (16 + 4 * DESCRIPTORS_MAX).div_ceil(8);

/// What [`receive`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A packet of that many bytes, at least 1.
    Packet(usize),
    /// None came in time.
    Nothing,
    /// The other end is closed, and all it has sent has been received.
    Ended,
}

/// Two ends of a new channel, neither kept across exec().
///
/// # Errors
/// Those of socketpair(2): no descriptor left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors the call writes.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened both, and nothing else knows them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Sends `bytes`, at least one, and copies of `descriptors` as one packet. If there is no room for
/// it, waits or, without `wait`, does not.
///
/// # Errors
/// `WouldBlock` without `wait`; `BrokenPipe` if the other end is closed; `InvalidInput` for no
/// byte or more than [`DESCRIPTORS_MAX`] descriptors; EMSGSIZE for more bytes than the send buffer
/// has; `QuotaExceeded` if more descriptors are under way than the limit of
/// open files (a privileged process is not held to that).
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a packet has 1 byte or more, and 253 descriptors or fewer",
        ));
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    let mut message = message(&mut part);
    if !descriptors.is_empty() {
        attach(&mut message, &mut control, descriptors);
    }
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    loop {
        // SAFETY: `message` points to `part`, which points to `bytes` (only read from), and to
        // `control`: all of them are there while the call lasts, with the lengths it states.
        let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, flags) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The first call after the other end was closed with packets unread reports a reset;
            // the next one says what there is to say.
            Some(libc::EINTR | libc::ECONNRESET) => {}
            Some(libc::ETOOMANYREFS) => {
                let text = "too many descriptors under way: the limit of open files";
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
            _ => return Err(error),
        }
    }
}

/// Receives a packet into `buffer` and appends its descriptors, which are not kept across exec(),
/// to `descriptors`; waits for it at most `timeout`, or for ever with `None`.
///
/// # Errors
/// `InvalidData` for a packet longer than `buffer`, for lost descriptors, and for descriptors
/// without a byte. The packet is gone then, and the descriptors that came with it are closed.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    timeout: Option<Duration>,
) -> io::Result<Received> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let socket = socket.as_fd();
    loop {
        match receive_at_once(socket, buffer, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(Received::Nothing);
        }
        wait_readable(socket, left)?;
    }
}

fn receive_at_once(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0_u64; CONTROL_WORDS];
    let mut message = message(&mut part);
    let count = loop {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        // SAFETY: `message` points to `part`, which points to `buffer`, and to `control`: all of
        // them are writable while the call lasts, with the lengths it states.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
        if let Ok(count) = usize::try_from(count) {
            break count;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // A reset is reported once, before what the other end had sent: that is still there.
            Some(libc::EINTR | libc::ECONNRESET) => {}
            _ => return Err(error),
        }
    };
    // From here on they are closed by an early return.
    let received = take_descriptors(&message);
    let what = if message.msg_flags & libc::MSG_CTRUNC != 0 {
        "descriptors were lost: the limit of open files"
    } else if message.msg_flags & libc::MSG_TRUNC != 0 {
        "a packet is longer than any that is known"
    } else if count == 0 && !received.is_empty() {
        "a packet of descriptors alone"
    } else if count == 0 {
        return Ok(Received::Ended);
    } else {
        descriptors.extend(received);
        return Ok(Received::Packet(count));
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// A message of one part, without ancillary data.
fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: the structure is pointers and integers, for which zero is a value; some systems
    // have padding between them.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// Writes `descriptors`, at most [`DESCRIPTORS_MAX`], into `control`, and that into `message`.
fn attach(
    message: &mut libc::msghdr,
    control: &mut [u64; CONTROL_WORDS],
    descriptors: &[BorrowedFd<'_>],
) {
    let bytes = size_of_val(descriptors) as u32;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only calculates.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
    assert!(message.msg_controllen as usize <= size_of_val(control), "room for the most there are");
    // SAFETY: `control` is aligned for a header and has room for it and `bytes` after it, as has
    // just been checked; a borrowed descriptor is represented as the integer it is.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
        let data = libc::CMSG_DATA(header).cast::<RawFd>();
        ptr::copy_nonoverlapping(descriptors.as_ptr().cast(), data, descriptors.len());
    }
}

/// The descriptors the kernel has written into the ancillary data of `message`.
fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    // SAFETY: `message` is as recvmsg has left it, its ancillary data is there and has the length
    // it states.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header within the data.
        let (level, kind, bytes) = unsafe {
            let head = libc::CMSG_LEN(0) as usize;
            ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize - head)
        };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for at in 0..bytes / size_of::<RawFd>() {
                // SAFETY: `bytes` of data follow the header, and hold descriptors the kernel has
                // just opened for us and nothing else knows.
                taken.push(unsafe {
                    let fd = libc::CMSG_DATA(header).cast::<RawFd>().add(at).read_unaligned();
                    OwnedFd::from_raw_fd(fd)
                });
            }
        }
        // SAFETY: `header` is one of this message's.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    taken
}

/// Waits until there is something to receive, or `timeout` is over, or a signal has come.
fn wait_readable(socket: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Rounded up, so that the last wait is not a loop around a poll that does not wait.
    let timeout_ms = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    // SAFETY: `poll` is one valid pollfd while the call lasts.
    if unsafe { libc::poll(&mut poll, 1, timeout_ms) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
