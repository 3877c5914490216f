//! Groups by name.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Bytes of a group's entry, with all its members: far above what any has.
const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// The number of a group, which is given by its name or as a number (getgrnam(3)).
///
/// # Errors
/// `NotFound` if there is none of this name; those of getgrnam_r(3).
pub fn id(group: &str) -> io::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let name = CString::new(group)?;
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: `name` is a string that ends in NUL; `entry`, `buffer` (of the length given) and
        // `found` are writable while the call lasts.
        let error = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        match error {
            libc::ERANGE if buffer.len() < ENTRY_BYTES_MAX => buffer.resize(2 * buffer.len(), 0),
            libc::EINTR => {}
            0 if found.is_null() => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such group"));
            }
            // SAFETY: the call has succeeded and found an entry, so it has written the structure.
            0 => return Ok(unsafe { entry.assume_init() }.gr_gid),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        assert_eq!(id("root").unwrap(), 0);
        assert_eq!(id("4711").unwrap(), 4711);
        let error = id("no-such-group").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(id("a\0b").is_err());
    }
}
