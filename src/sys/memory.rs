//! Memory as a file that another process can be given (memfd_create(2)), and a word in such memory
//! that two processes compare and swap.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of the file a [`SharedWord`] lives in.
const WORD_BYTES: usize = size_of::<AtomicU32>();

/// What nobody may do to a word's file any more: were it cut off, reading the word would end the
/// process (SIGBUS).
const WORD_SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// An empty file in memory, read and written at a position as any file. It is not kept across
/// exec(), may be sealed, and is gone with its last descriptor. `name` is for those who look into
/// /proc.
///
/// # Errors
/// Those of memfd_create(2): no descriptor or no memory left.
pub fn file(name: &CStr) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Nobody is to execute it: some systems demand that this is said, and before Linux 6.3 it
    // cannot be.
    match create(name, flags | libc::MFD_NOEXEC_SEAL) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(name, flags),
        result => result,
    }
}

fn create(name: &CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: `name` is a string that ends while the call lasts.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened `fd`, and nothing else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A number of 32 bits in memory that two processes share; 0 at first.
#[derive(Debug)]
pub struct SharedWord {
    file: File,
    /// A mapping of `WORD_BYTES` bytes of `file`, which is at least that long and cannot shrink;
    /// ours until drop.
    word: NonNull<AtomicU32>,
}

// SAFETY: the mapping belongs to the value and not to a thread, and all that is done to what is in
// it is atomic.
unsafe impl Send for SharedWord {}
// SAFETY: as above.
unsafe impl Sync for SharedWord {}

impl SharedWord {
    /// A new word; a copy of its descriptor is what another process needs.
    ///
    /// # Errors
    /// Those of [`file()`], and of mmap(2).
    pub fn create() -> io::Result<Self> {
        let file = file(c"steadfast-word")?;
        file.set_len(WORD_BYTES as u64)?;
        // SAFETY: this request takes an integer and no memory.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, WORD_SEALS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Self::map(file)
    }

    /// The word of another process, whose descriptor came from there.
    ///
    /// # Errors
    /// `InvalidData` if that is not the file of a word, or one that could still be cut off; those
    /// of mmap(2).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        // SAFETY: this request takes no argument.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        let is_sealed = seals >= 0 && seals & libc::F_SEAL_SHRINK != 0;
        if !is_sealed || file.metadata()?.len() != WORD_BYTES as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the descriptor is not that of a shared word",
            ));
        }
        Self::map(file)
    }

    fn map(file: File) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice replaces nothing.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                WORD_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let word = NonNull::new(address.cast()).expect("the kernel maps nothing at address 0");
        Ok(Self { file, word })
    }

    /// What the word is.
    pub fn load(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    /// Makes it `new` if it is `current`, in one step for all processes.
    ///
    /// # Errors
    /// What it is, if that is something else.
    pub fn compare_exchange(&self, current: u32, new: u32) -> Result<(), u32> {
        let result = self.word().compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
        result.map(drop)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the mapping begins at a page, which is aligned for it, holds that many bytes,
        // all of them valid, lasts as long as `self`, and is changed by atomic operations alone
        // (another process that does otherwise harms the value and not the memory).
        unsafe { self.word.as_ref() }
    }
}

impl AsFd for SharedWord {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: it is the mapping this value has made, and no reference into it is left.
        unsafe { libc::munmap(self.word.as_ptr().cast(), WORD_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::thread;

    fn copy(word: &SharedWord) -> SharedWord {
        SharedWord::from_fd(word.as_fd().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn a_file_in_memory_is_a_file() {
        let mut file = file(c"test").unwrap();
        file.write_all(b"state").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "state");
        // SAFETY: this request takes no argument.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
    }

    #[test]
    fn both_mappings_are_one_word() {
        let ours = SharedWord::create().unwrap();
        let theirs = copy(&ours);
        assert_eq!(theirs.load(), 0);
        assert_eq!(ours.compare_exchange(0, 1), Ok(()));
        assert_eq!(theirs.load(), 1);
        assert_eq!(theirs.compare_exchange(0, 3), Err(1));
        assert_eq!(theirs.compare_exchange(1, 2), Ok(()));
        drop(theirs);
        assert_eq!(ours.load(), 2);
    }

    #[test]
    fn one_of_two_wins() {
        for round in 0..200 {
            let ours = SharedWord::create().unwrap();
            let theirs = copy(&ours);
            let taker = thread::spawn(move || theirs.compare_exchange(0, 2));
            let revoked = ours.compare_exchange(0, 3);
            let taken = taker.join().unwrap();
            match ours.load() {
                2 => assert_eq!((taken, revoked), (Ok(()), Err(2)), "round {round}"),
                3 => assert_eq!((taken, revoked), (Err(3), Ok(())), "round {round}"),
                other => panic!("neither has won: {other}"),
            }
        }
    }

    #[test]
    fn nobody_can_cut_it_off() {
        let word = SharedWord::create().unwrap();
        assert!(word.file.set_len(0).is_err());
        assert!(word.file.set_len(8_192).is_err());
        assert_eq!(word.load(), 0);
    }

    #[test]
    fn other_files_are_refused() {
        let unsealed = file(c"test").unwrap();
        unsealed.set_len(WORD_BYTES as u64).unwrap();
        let null = File::open("/dev/null").unwrap();
        let longer = file(c"test").unwrap();
        longer.set_len(2 * WORD_BYTES as u64).unwrap();
        // SAFETY: this request takes an integer and no memory.
        assert_eq!(unsafe { libc::fcntl(longer.as_raw_fd(), libc::F_ADD_SEALS, WORD_SEALS) }, 0);
        for file in [unsealed, null, longer] {
            let error = SharedWord::from_fd(file.into()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
