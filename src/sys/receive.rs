//! Reading into a buffer's spare capacity. The standard library reads into initialised memory only,
//! and zeroing what the kernel overwrites at once costs a twentieth of receiving a large message.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads once and appends what came to `buffer`: at most `max` bytes, and no more than its spare
/// capacity holds. 0 is the end of the stream, as it is for [`Read::read`](io::Read::read), or says
/// that there is no room.
///
/// # Errors
/// Those of read(2).
pub fn append(source: impl AsFd, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    let filled = buffer.len();
    let room = buffer.spare_capacity_mut();
    let len = room.len().min(max);
    let descriptor = source.as_fd().as_raw_fd();
    // SAFETY: `room` has `len` bytes that the kernel may write to while the call lasts.
    let count = unsafe { libc::read(descriptor, room.as_mut_ptr().cast(), len) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written `count` bytes behind the filled ones, and `count <= len`, which
    // is within the capacity.
    unsafe { buffer.set_len(filled + count) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_appends_what_there_is_within_both_bounds() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut buffer = Vec::with_capacity(8);
        buffer.extend_from_slice(b"ab");
        let blocked = append(&ours, &mut buffer, 8).unwrap_err();
        assert_eq!((blocked.kind(), &*buffer), (io::ErrorKind::WouldBlock, &b"ab"[..]));
        theirs.write_all(b"cdefghijk").unwrap();
        assert_eq!(append(&ours, &mut buffer, 2).unwrap(), 2);
        assert_eq!(buffer, b"abcd");
        let room = buffer.capacity() - buffer.len();
        assert_eq!(append(&ours, &mut buffer, 100).unwrap(), room.min(7));
        assert!(b"abcdefghijk".starts_with(&buffer));
        buffer.shrink_to_fit();
        assert_eq!(append(&ours, &mut buffer, 100).unwrap(), 0, "no room");
        drop(theirs);
        let mut rest = Vec::with_capacity(100);
        append(&ours, &mut rest, 100).unwrap();
        assert_eq!([buffer, rest.clone()].concat(), b"abcdefghijk");
        assert_eq!(append(&ours, &mut rest, 100).unwrap(), 0, "the end");
    }
}
