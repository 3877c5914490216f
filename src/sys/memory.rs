//! Memory that processes share or hand over: memfd_create(2), and one atomic word mapped from it.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The length of a shared word's memory, in bytes.
const WORD_BYTES: usize = size_of::<AtomicU32>();

/// A file that is nowhere but in memory; it ends with exec. The name is for /proc alone.
///
/// # Errors
/// No memory or no descriptors are left; `InvalidInput` for a name with a NUL.
pub fn create(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is a C string while the call lasts.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened `fd`, and nothing else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// One word that several processes see, and change one at a time.
#[derive(Debug)]
pub struct SharedWord {
    memory: OwnedFd,
    word: NonNull<AtomicU32>,
}

// SAFETY: the mapping lives as long as the value and is reached only as an atomic.
unsafe impl Send for SharedWord {}
// SAFETY: as above.
unsafe impl Sync for SharedWord {}

impl SharedWord {
    /// A new one, zero.
    ///
    /// # Errors
    /// As [`create`].
    pub fn create() -> io::Result<Self> {
        let file = create("steadfast-word")?;
        file.set_len(WORD_BYTES as u64)?;
        // So that nobody can take the memory away beneath a mapping.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: fcntl takes a descriptor, open here, and no memory.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Self::map(file.into())
    }

    /// One that another process has created.
    ///
    /// # Errors
    /// `InvalidData` if it is no such memory, or could be taken away.
    pub fn adopt(memory: OwnedFd) -> io::Result<Self> {
        // SAFETY: fcntl takes a descriptor, open here, and no memory.
        let seals = unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) };
        let len = File::from(memory.try_clone()?).metadata()?.len();
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 || len != WORD_BYTES as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(memory)
    }

    fn map(memory: OwnedFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the descriptor is open.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                WORD_BYTES,
                protection,
                libc::MAP_SHARED,
                memory.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let word = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, word })
    }

    /// Its value.
    pub fn load(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    /// Changes it from `from` to `to`.
    ///
    /// # Errors
    /// What it is, if it is not `from`.
    pub fn change(&self, from: u32, to: u32) -> Result<(), u32> {
        self.word().compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the mapping is aligned to a page, has room for the word and lives as long as
        // `self`; the seals keep it from shrinking; every process reaches it as an atomic.
        unsafe { self.word.as_ref() }
    }
}

impl AsFd for SharedWord {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference outlives `self`.
        unsafe { libc::munmap(self.word.as_ptr().cast(), WORD_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_word_is_shared() {
        let ours = SharedWord::create().unwrap();
        let theirs = SharedWord::adopt(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(theirs.load(), 0);
        assert_eq!(ours.change(0, 1), Ok(()));
        assert_eq!(theirs.change(0, 2), Err(1));
        assert_eq!(theirs.change(1, 2), Ok(()));
        drop(theirs);
        assert_eq!(ours.load(), 2);
    }

    #[test]
    fn only_memory_that_cannot_be_taken_away_is_adopted() {
        let file = create("loose").unwrap();
        file.set_len(WORD_BYTES as u64).unwrap();
        assert!(SharedWord::adopt(file.into()).is_err());
        let (reader, _writer) = io::pipe().unwrap();
        assert!(SharedWord::adopt(reader.into()).is_err());
    }

    #[test]
    fn a_file_in_memory() {
        let mut file = create("states").unwrap();
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
