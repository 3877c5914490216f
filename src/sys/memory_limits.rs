//! How much memory this process may have (RLIMIT_AS, RLIMIT_DATA), and giving back what it does not
//! use.
#![allow(unsafe_code)]

/// The smaller of the limits on the address space and on data; `None` without either.
pub fn resource_limit() -> Option<u64> {
    let soft = |resource| {
        let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
        // SAFETY: `limit` is a valid place to write to while the call lasts.
        let outcome = unsafe { libc::getrlimit(resource, &mut limit) };
        (outcome == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
    };
    [soft(libc::RLIMIT_AS), soft(libc::RLIMIT_DATA)].into_iter().flatten().min()
}

/// Gives the system back the pages that the allocator keeps and nobody uses.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
