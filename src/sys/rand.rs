//! Random bytes of the kernel, for mask keys and seeds.
#![allow(unsafe_code)]

use std::io;

/// Fills `bytes` with random bytes fit for cryptography, by getrandom(2).
///
/// # Errors
/// Those of getrandom; on Linux since 3.17 none are to be expected. It may wait, once after boot,
/// until the kernel's generator is ready.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is writable for its whole length while the call lasts.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// A random number.
///
/// # Errors
/// As [`fill`].
pub fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_filled() {
        // Longer than what getrandom fills without interruption (256 bytes).
        let mut ever = [0_u8; 1_000];
        for _ in 0..16 {
            let mut bytes = [0; 1_000];
            fill(&mut bytes).unwrap();
            ever.iter_mut().zip(bytes).for_each(|(ever, byte)| *ever |= byte);
        }
        // A byte that stays 0 for 16 rounds has a chance of 2^-128.
        assert!(ever.iter().all(|byte| *byte != 0));
        assert_ne!(number().unwrap(), number().unwrap());
    }

    #[test]
    fn nothing_is_filled_with_nothing() {
        assert!(fill(&mut []).is_ok());
    }
}
